//! Answering engines: one thread per connection, which reads a request, carries it out and answers.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::core::Netd;
use crate::protocol::{Failure, Reply, Request};
use crate::{journal, memory};

/// Enough for the deepest request; only what is touched is paid for.
const STACK_BYTES: usize = 512 << 10;

/// Accepts connections for ever.
pub(crate) fn serve(listener: &UnixListener, netd: &Arc<Netd>, end: &End) -> ! {
    loop {
        let accepted = listener.accept().and_then(|(connection, _)| {
            let (netd, end) = (netd.clone(), end.clone());
            std::thread::Builder::new()
                .name("request".into())
                .stack_size(STACK_BYTES)
                .spawn(move || converse(&connection, &netd, &end))
        });
        if let Err(e) = accepted {
            journal::note(format_args!("accept a connection: {e}"));
            // Out of descriptors or memory: others give theirs back in time.
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// How netd ends: the socket goes, all else stays.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub(crate) socket: PathBuf,
}

impl End {
    pub(crate) fn now(&self) -> ! {
        // Nobody is to find a socket where nobody listens; if it stays, connecting to it is refused.
        let _ = std::fs::remove_file(&self.socket);
        std::process::exit(0)
    }
}

fn converse(connection: &UnixStream, netd: &Netd, end: &End) {
    if !may_ask(connection) {
        return;
    }
    let mut frames = wherry_ipc::Frames::default();
    loop {
        let request = match frames.message::<Request>() {
            Ok(Some((request, _))) => request,
            Ok(None) => match frames.fill(connection.as_fd()) {
                Ok(()) => continue,
                // The engine hung up.
                Err(_) => return,
            },
            Err(e) => {
                let refused: Result<Reply, Failure> = Err(Failure::Protocol(e.to_string()));
                let _ = wherry_ipc::send(connection, &refused, &[]);
                return;
            }
        };
        let is_last = matches!(request, Request::Shutdown);
        let is_large = matches!(request, Request::Configure(_) | Request::Networks | Request::Sandboxes);
        let answer = netd.answer(request);
        let sent = wherry_ipc::send(connection, &answer, &[]);
        drop(answer);
        if is_last {
            end.now();
        }
        if is_large {
            memory::give_back();
        }
        if sent.is_err() {
            return;
        }
    }
}

/// Only root, and whoever runs netd, may change the host's network.
fn may_ask(connection: &UnixStream) -> bool {
    let own = rustix::process::geteuid().as_raw();
    let peer: io::Result<u32> = wherry_ipc::peer_uid(connection);
    peer.is_ok_and(|uid| uid == 0 || uid == own)
}
