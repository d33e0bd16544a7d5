//! Extended attributes of files and folders.

use std::os::fd::AsFd;

use rustix::fs::{fgetxattr, flistxattr};
use rustix::io::Errno;

const OPAQUE: &str = "trusted.overlay.opaque";
const CAPABILITY: &str = "security.capability";
/// Marks of overlayfs features that move or split content: what has them is not whole by itself.
const INCOMPLETE: [&[u8]; 2] = [b"trusted.overlay.redirect", b"trusted.overlay.metacopy"];
/// Longest value that Linux has.
const MAX_VALUE: usize = 64 << 10;

/// Whether overlayfs shows nothing of what is below this folder.
pub(super) fn is_opaque(folder: impl AsFd) -> Result<bool, Errno> {
    Ok(read(folder, OPAQUE.as_bytes())?.as_deref() == Some(b"y"))
}

/// The file's capabilities, as they are stored.
pub(super) fn capability(file: impl AsFd) -> Result<Option<Vec<u8>>, Errno> {
    read(file, CAPABILITY.as_bytes())
}

/// Name and value.
pub(super) type Attribute = (Vec<u8>, Vec<u8>);

/// All attributes that belong to the content: capabilities, access lists, `user.` and `trusted.`; not those of
/// overlayfs and of security modules, which belong to this host.
pub(super) fn all(file: impl AsFd) -> Result<Vec<Attribute>, Errno> {
    let mut found = Vec::new();
    for name in names(&file)?.split(|b| *b == 0).filter(|name| !name.is_empty()) {
        if INCOMPLETE.contains(&name) {
            return Err(Errno::NOTSUP);
        }
        if belongs(name)
            && let Some(value) = read(&file, name)?
        {
            found.push((name.to_vec(), value));
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn belongs(name: &[u8]) -> bool {
    let of_overlay = name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.");
    // A PAX record's key ends at the equals sign.
    let writable = !name.contains(&b'=');
    let wanted = name == CAPABILITY.as_bytes() || !name.starts_with(b"security.");
    wanted && writable && !of_overlay
}

fn names(file: &impl AsFd) -> Result<Vec<u8>, Errno> {
    let mut names = vec![0; 1024];
    loop {
        match flistxattr(file, &mut names[..]) {
            Ok(length) => {
                names.truncate(length);
                return Ok(names);
            }
            Err(Errno::RANGE) if names.len() < MAX_VALUE => names.resize(MAX_VALUE, 0),
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(errno) => return Err(errno),
        }
    }
}

fn read(file: impl AsFd, name: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
    let mut value = vec![0; 256];
    loop {
        match fgetxattr(&file, name, &mut value[..]) {
            Ok(length) => {
                value.truncate(length);
                return Ok(Some(value));
            }
            Err(Errno::RANGE) if value.len() < MAX_VALUE => value.resize(MAX_VALUE, 0),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(errno) => return Err(errno),
        }
    }
}
