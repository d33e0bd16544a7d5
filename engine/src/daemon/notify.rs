//! Telling the service manager how we are (sd_notify(3)).

use std::ffi::OsStr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sends `state` (like `READY=1`) to the socket that NOTIFY_SOCKET names; without one nothing happens.
pub(super) fn send(state: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send_to(&name, state) {
        tracing::warn!(%error, state, "the service manager cannot be told");
    }
}

/// A name that begins with `@` is in the abstract namespace.
fn send_to(name: &OsStr, state: &str) -> std::io::Result<()> {
    let address = match name.as_bytes().strip_prefix(b"@") {
        Some(hidden) => SocketAddr::from_abstract_name(hidden)?,
        None => SocketAddr::from_pathname(name)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_names_are_reached() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let by_path = UnixDatagram::bind(&path).unwrap();
        let hidden = format!("wherry-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&hidden).unwrap();
        let by_name = UnixDatagram::bind_addr(&address).unwrap();
        for (socket, name) in [(by_path, path.into_os_string()), (by_name, format!("@{hidden}").into())] {
            send_to(&name, "READY=1").unwrap();
            let mut bytes = [0; 32];
            let length = socket.recv(&mut bytes).unwrap();
            assert_eq!(&bytes[..length], b"READY=1");
        }
        assert!(send_to(OsStr::new("/nosuch/socket"), "READY=1").is_err());
    }
}
