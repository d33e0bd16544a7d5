//! Where clients come in: Unix sockets, TCP ports, sockets that were passed to us.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Gid, chown};
use rustix::net::{AddressFamily, getsockname};
use tokio::net::{TcpListener, UnixListener};

use super::StartError;
use super::activation::Passed;
use crate::config::Config;
use crate::engine::Engine;
use crate::server::connection;
use crate::server::stream::Stream;

/// A listening socket.
#[derive(Debug)]
pub(super) enum Listener {
    /// A Unix socket.
    Unix(UnixListener),
    /// A TCP port.
    Tcp(TcpListener),
}

/// All listening sockets, and the files to remove at the end.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    pub(super) open: Vec<Listener>,
    pub(super) files: Vec<PathBuf>,
}

/// Opens all hosts of the configuration.
pub(super) async fn open(config: &Config, mut passed: Vec<Passed>) -> Result<Listeners, StartError> {
    let mut listeners = Listeners::default();
    for host in &config.hosts {
        let failed = |reason: String| StartError::Listen { host: host.clone(), reason };
        match host.split_once("://") {
            Some(("unix", path)) => {
                let path = Path::new(path);
                let listener = open_unix(path, &config.group).map_err(|e| failed(e.to_string()))?;
                listeners.open.push(Listener::Unix(listener));
                listeners.files.push(path.into());
            }
            Some(("tcp", address)) => {
                if !config.plain_tcp {
                    return Err(failed(
                        "TCP without TLS lets everyone who reaches the port be root on this machine; add --tls=false \
                         if that is what you want"
                            .into(),
                    ));
                }
                tracing::warn!(%host, "listening on TCP without TLS: whoever reaches this port is root on this machine");
                let listener = TcpListener::bind(address).await.map_err(|e| failed(e.to_string()))?;
                listeners.open.push(Listener::Tcp(listener));
            }
            Some(("fd", name)) => {
                let chosen = choose_passed(&mut passed, name);
                if chosen.is_empty() {
                    return Err(failed(
                        "no sockets found via socket activation: make sure the service was started by systemd".into(),
                    ));
                }
                for socket in chosen {
                    listeners.open.push(adopt(socket).map_err(|e| failed(e.to_string()))?);
                }
            }
            _ => return Err(failed("this is no address to listen at".into())),
        }
    }
    Ok(listeners)
}

/// `fd://` means all, `fd://3` and `fd://name` one.
fn choose_passed(passed: &mut Vec<Passed>, name: &str) -> Vec<OwnedFd> {
    let wanted = |p: &mut Passed| matches!(name, "" | "*") || p.name == name || p.number.to_string() == name;
    passed.extract_if(.., wanted).map(|p| p.socket).collect()
}

fn adopt(socket: OwnedFd) -> std::io::Result<Listener> {
    if getsockname(&socket)?.address_family() == AddressFamily::UNIX {
        let listener = std::os::unix::net::UnixListener::from(socket);
        listener.set_nonblocking(true)?;
        return UnixListener::from_std(listener).map(Listener::Unix);
    }
    let listener = std::net::TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener).map(Listener::Tcp)
}

/// Listens at `path`, for root and the group (where it exists). A socket that nobody serves is replaced; one that
/// somebody serves is left to them.
fn open_unix(path: &Path, group: &str) -> std::io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    if wherry_ipc::connect(path).is_ok() {
        return Err(std::io::Error::new(
            std::io::ErrorKind::AddrInUse,
            "another daemon listens there; stop it first, or choose another -H",
        ));
    }
    // Between bind and chmod nobody else may come in.
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o177));
    let listener = wherry_ipc::listen(path, 0o600);
    rustix::process::umask(mask);
    let listener = listener?;
    match group_id(group) {
        Some(gid) => {
            chown(path, None, Some(Gid::from_raw(gid)))?;
            std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o660))?;
        }
        None if !group.is_empty() && group != "docker" => {
            tracing::warn!(group, "there is no such group; only root can use the socket");
        }
        None => {}
    }
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// A group's id by name in /etc/group, or as a number.
fn group_id(group: &str) -> Option<u32> {
    let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
    let by_name = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1).and_then(|id| id.parse().ok())).flatten()
    });
    by_name.or_else(|| group.parse().ok())
}

impl Listener {
    /// Serves clients for ever.
    pub(super) async fn serve(self, engine: Arc<Engine>) {
        loop {
            let accepted = match &self {
                Self::Unix(listener) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
                Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| {
                    // Small messages go back and forth; a socket that is gone already tells so when it is read.
                    let _ = stream.set_nodelay(true);
                    Stream::Tcp(stream)
                }),
            };
            match accepted {
                Ok(stream) => {
                    tokio::spawn(connection::serve(engine.clone(), stream));
                }
                Err(error) => {
                    // Out of descriptors, mostly: those who are there must finish first.
                    tracing::warn!(%error, "a client could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_served_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/er/docker.sock");
        drop(open_unix(&path, "nosuchgroup").unwrap());
        let _served = open_unix(&path, "root").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert!(open_unix(&path, "root").unwrap_err().to_string().contains("another daemon listens there"));
    }

    #[test]
    fn passed_sockets_are_chosen_by_name_and_number() {
        let passed = |number, name: &str| {
            let socket = OwnedFd::from(std::net::TcpListener::bind("127.0.0.1:0").unwrap());
            Passed { number, name: name.into(), socket }
        };
        let mut all = vec![passed(3, "a"), passed(4, "b"), passed(5, "c")];
        assert_eq!(choose_passed(&mut all, "b").len(), 1);
        assert_eq!(choose_passed(&mut all, "5").len(), 1);
        assert_eq!(choose_passed(&mut all, "nosuch").len(), 0);
        assert_eq!(choose_passed(&mut all, "").len(), 1);
        assert!(all.is_empty());
    }

    #[test]
    fn groups_are_found_by_name_and_number() {
        assert_eq!(group_id("root"), Some(0));
        assert_eq!(group_id("4711"), Some(4711));
        assert_eq!(group_id("nosuchgroup"), None);
    }
}
