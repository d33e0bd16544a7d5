//! The engine's id: made once, kept in `DATA_ROOT/engine-id`.

use std::path::Path;

use super::StartError;

/// Reads the id, or makes one.
pub(super) fn read_or_make(data_root: &Path) -> Result<String, StartError> {
    let path = data_root.join("engine-id");
    match std::fs::read_to_string(&path) {
        Ok(id) if !id.trim().is_empty() => return Ok(id.trim().to_string()),
        Ok(_) => {}
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(StartError::io("read", path)(e)),
    }
    let id = crate::id::uuid();
    wherry_durable::write(&path, id.as_bytes(), 0o600).map_err(StartError::io("write", path))?;
    Ok(id)
}
