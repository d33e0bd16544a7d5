//! Taking down namespaces and links in the background: the kernel needs some 20 ms for a link, and nobody
//! waits for it.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::netlink::{Batch, Socket, route};

/// A namespace's links end with it, unless somebody (a process that is slow to die, a tool that looks inside) still
/// holds it after this time: then they are removed by name.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is to be taken down.
#[derive(Debug, Default)]
pub(crate) struct Remains {
    pub(crate) namespace: Option<PathBuf>,
    /// Host ends of links.
    pub(crate) links: Vec<String>,
}

/// The thread that does it.
pub(crate) struct Reaper {
    orders: Sender<Remains>,
}

impl Reaper {
    pub(crate) fn start() -> io::Result<Self> {
        let (orders, received) = channel();
        std::thread::Builder::new()
            .name("reaper".into())
            .stack_size(128 << 10)
            .spawn(move || work(&received))?;
        Ok(Self { orders })
    }

    /// Returns at once.
    pub(crate) fn take(&self, remains: Remains) {
        // The thread ends only with the process.
        let _ = self.orders.send(remains);
    }
}

fn work(received: &Receiver<Remains>) {
    let mut lingering: Vec<(Instant, Vec<String>)> = Vec::new();
    loop {
        let next = match lingering.first() {
            Some((since, _)) => {
                received.recv_timeout((*since + PATIENCE).saturating_duration_since(Instant::now()))
            }
            None => received.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match next {
            Ok(remains) => {
                if let Some(path) = &remains.namespace {
                    crate::namespace::remove(path);
                }
                let patience = if remains.namespace.is_some() { Instant::now() } else { past() };
                if !remains.links.is_empty() {
                    lingering.push((patience, remains.links));
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        lingering.retain(|(since, links)| {
            let due = since.elapsed() >= PATIENCE;
            if due {
                links.iter().for_each(|name| delete(name));
            }
            !due
        });
    }
}

/// Long enough ago for no more patience.
fn past() -> Instant {
    let now = Instant::now();
    now.checked_sub(PATIENCE).unwrap_or(now)
}

fn delete(name: &str) {
    let Ok(mut socket) = Socket::route() else { return };
    let mut batch = Batch::default();
    route::delete_link(&mut batch, name);
    // Gone already is what we want.
    let _ = socket.commit(batch);
}
