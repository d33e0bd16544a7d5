//! What nobody waits for: taking down namespaces and links (the kernel needs some 20 ms for a link), and
//! having one namespace ready for the next sandbox (which saves it about 1 ms).

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::core::blank_namespace;
use crate::journal;
use crate::netlink::{Batch, Socket, route};

/// A namespace's links end with it, unless somebody (a process that is slow to die, a tool that looks inside) still
/// holds it after this time: then they are removed by name.
const PATIENCE: Duration = Duration::from_secs(2);
/// The next namespace is made when the container that got the last one has been started, not beside it.
const PREPARE_AFTER: Duration = Duration::from_millis(30);

/// What is to be taken down.
#[derive(Debug, Default)]
pub(crate) struct Remains {
    pub(crate) namespace: Option<PathBuf>,
    /// Host ends of links.
    pub(crate) links: Vec<String>,
}

enum Order {
    TakeDown(Remains),
    Prepare,
    /// Take down now what lingers, and answer.
    Finish(Sender<()>),
}

/// The thread that does it.
pub(crate) struct Backstage {
    orders: Sender<Order>,
    blank: Arc<Mutex<Option<OwnedFd>>>,
}

impl Backstage {
    pub(crate) fn start() -> io::Result<Self> {
        let (orders, received) = channel();
        let blank = Arc::new(Mutex::new(None));
        let worker = Worker { blank: blank.clone(), lingering: Vec::new(), prepare_at: None };
        std::thread::Builder::new()
            .name("backstage".into())
            .stack_size(128 << 10)
            .spawn(move || worker.work(&received))?;
        Ok(Self { orders, blank })
    }

    /// Returns at once.
    pub(crate) fn take_down(&self, remains: Remains) {
        // The thread ends only with the process.
        let _ = self.orders.send(Order::TakeDown(remains));
    }

    /// Waits until all that was to be taken down is gone.
    pub(crate) fn finish(&self) {
        let (done, finished) = channel();
        let _ = self.orders.send(Order::Finish(done));
        // Fails only without the thread, and then there is nothing to wait for.
        let _ = finished.recv();
    }

    /// Has a namespace made ready.
    pub(crate) fn prepare(&self) {
        let _ = self.orders.send(Order::Prepare);
    }

    /// The namespace that is ready, if one is; another one is made later.
    pub(crate) fn blank_namespace(&self) -> Option<OwnedFd> {
        let blank = self.blank.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.prepare();
        blank
    }
}

struct Worker {
    blank: Arc<Mutex<Option<OwnedFd>>>,
    /// Links, and until when their namespace may take them along.
    lingering: Vec<(Instant, Vec<String>)>,
    prepare_at: Option<Instant>,
}

impl Worker {
    fn work(mut self, received: &Receiver<Order>) {
        loop {
            let due = self.lingering.iter().map(|l| l.0).chain(self.prepare_at).min();
            let next = match due {
                Some(due) => received.recv_timeout(due.saturating_duration_since(Instant::now())),
                None => received.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match next {
                Ok(Order::TakeDown(remains)) => self.take_down(remains),
                Ok(Order::Prepare) => self.prepare_at = Some(Instant::now() + PREPARE_AFTER),
                Ok(Order::Finish(done)) => {
                    let links = self.lingering.drain(..).flat_map(|(_, links)| links);
                    links.for_each(|name| delete(&name));
                    // Who asked may have gone.
                    let _ = done.send(());
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.do_what_is_due();
        }
    }

    fn take_down(&mut self, remains: Remains) {
        let mut until = Instant::now();
        if let Some(path) = &remains.namespace {
            crate::namespace::remove(path);
            until += PATIENCE;
        }
        if !remains.links.is_empty() {
            self.lingering.push((until, remains.links));
        }
        // A container has ended: nothing is being started just now, and the next one may be soon.
        if self.prepare_at.is_some() {
            self.prepare_at = Some(Instant::now());
        }
    }

    fn do_what_is_due(&mut self) {
        let now = Instant::now();
        self.lingering.retain(|(until, links)| {
            let due = *until <= now;
            if due {
                links.iter().for_each(|name| delete(name));
            }
            !due
        });
        if self.prepare_at.is_none_or(|at| at > now) {
            return;
        }
        self.prepare_at = None;
        if self.blank.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            return;
        }
        match blank_namespace() {
            Ok(made) => *self.blank.lock().unwrap_or_else(PoisonError::into_inner) = Some(made),
            // Whoever needs one makes it himself, and says what is wrong.
            Err(failure) => journal::note(format_args!("no namespace in advance: {failure}")),
        }
    }
}

fn delete(name: &str) {
    let Ok(mut socket) = Socket::route() else { return };
    let mut batch = Batch::default();
    route::delete_link(&mut batch, name);
    // Gone already is what we want.
    let _ = socket.commit(batch);
}
