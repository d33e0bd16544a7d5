//! What netd leaves to its standby: the sockets of resolvers and of relayed ports, and relayed connections. The standby
//! holds them, too, so a question or a client that comes while nobody is netd waits in its socket for the next
//! one, and no connection breaks.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::protocol::BoundPort;

/// A standby that does not read or answer is none.
const PATIENCE: Duration = Duration::from_secs(1);
/// A standby whose netd is gone takes over at once or never: if somebody else was faster, that one has a standby of its own.
const CLAIM_WITHIN: Duration = Duration::from_secs(2);

/// What netd tells its standby.
#[derive(Debug, Serialize, Deserialize)]
enum Message {
    /// With its descriptors.
    Keep { number: u64, subject: Subject },
    /// To be answered by one byte if somebody waits for that.
    Forget { numbers: Vec<u64>, awaited: bool },
}

/// What descriptors are for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Subject {
    /// The resolver of this sandbox: its socket for datagrams, and the listening one.
    Resolver(String),
    /// The socket of this relayed port.
    Port(BoundPort),
    /// A connection to this port, as [`crate::relay`] has it.
    Stream(BoundPort),
}

#[derive(Debug)]
struct Legacy {
    subject: Subject,
    descriptors: Arc<[OwnedFd]>,
}

/// What is left to whoever comes after us, until this is dropped.
#[derive(Debug)]
pub(crate) struct Kept {
    handover: Arc<Handover>,
    number: u64,
}

impl Kept {
    /// The same as dropping them, but when this returns the standby has closed its descriptors.
    pub(crate) fn withdraw(all: Vec<Self>) {
        let Some(first) = all.first() else { return };
        let numbers = all.iter().map(|kept| kept.number).collect();
        first.handover.clone().forget(numbers, true);
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.handover.forget(vec![self.number], false);
    }
}

/// netd's side.
#[derive(Debug, Default)]
pub(crate) struct Handover {
    state: Mutex<Giving>,
}

#[derive(Debug, Default)]
struct Giving {
    last: u64,
    kept: BTreeMap<u64, Legacy>,
    standby: Option<UnixStream>,
}

impl Handover {
    /// Leaves descriptors (at most as many as one message carries) to whoever comes after us.
    pub(crate) fn keep(self: &Arc<Self>, subject: Subject, descriptors: Arc<[OwnedFd]>) -> Kept {
        let legacy = Legacy { subject, descriptors };
        let mut state = lock(&self.state);
        state.last += 1;
        let number = state.last;
        state.tell_of(number, &legacy);
        state.kept.insert(number, legacy);
        Kept { handover: self.clone(), number }
    }

    fn forget(&self, mut numbers: Vec<u64>, awaited: bool) {
        let mut state = lock(&self.state);
        numbers.retain(|number| state.kept.remove(number).is_some());
        if numbers.is_empty() {
            return;
        }
        state.tell(&Message::Forget { numbers, awaited }, &[]);
        if awaited {
            state.hear();
        }
    }

    /// A standby is there, and hears of all of them.
    pub(crate) fn begin(&self, standby: UnixStream) -> io::Result<()> {
        standby.set_write_timeout(Some(PATIENCE))?;
        standby.set_read_timeout(Some(PATIENCE))?;
        let mut state = lock(&self.state);
        state.standby = Some(standby);
        let kept = std::mem::take(&mut state.kept);
        kept.iter().for_each(|(number, legacy)| state.tell_of(*number, legacy));
        state.kept = kept;
        Ok(())
    }
}

impl Giving {
    fn tell_of(&mut self, number: u64, legacy: &Legacy) {
        self.tell(&Message::Keep { number, subject: legacy.subject.clone() }, &legacy.descriptors);
    }

    fn tell(&mut self, message: &Message, descriptors: &[OwnedFd]) {
        let Some(standby) = &self.standby else { return };
        let descriptors = descriptors.iter().map(AsFd::as_fd).collect::<Vec<_>>();
        // Without a standby, or with one that is stuck, the next netd opens sockets of its own.
        if wherry_ipc::send(standby, message, &descriptors).is_err() {
            self.standby = None;
        }
    }

    /// Waits for the standby's answer.
    fn hear(&mut self) {
        let Some(standby) = &mut self.standby else { return };
        if standby.read_exact(&mut [0]).is_err() {
            self.standby = None;
        }
    }
}

/// The standby's side: what it has been left so far.
#[derive(Debug, Default)]
pub(crate) struct Heir {
    state: Mutex<Receiving>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct Receiving {
    kept: BTreeMap<u64, Legacy>,
    /// Whether netd will say no more.
    ended: bool,
    /// Whether we are netd now.
    claimed: bool,
}

impl Heir {
    /// Begins to hear from netd. The process ends if what is left is not claimed soon after netd's end.
    pub(crate) fn listen(from: UnixStream) -> io::Result<Arc<Self>> {
        let heir = Arc::new(Self::default());
        let own = heir.clone();
        std::thread::Builder::new().name("heir".into()).stack_size(256 << 10).spawn(move || {
            // The end is what is waited for; a message that does not parse is the end of trust.
            let _ = own.hear(&from);
            lock(&own.state).ended = true;
            own.ended.notify_all();
            std::thread::sleep(CLAIM_WITHIN);
            if !lock(&own.state).claimed {
                std::process::exit(0);
            }
        })?;
        Ok(heir)
    }

    fn hear(&self, from: &UnixStream) -> Result<(), wherry_ipc::Error> {
        let mut frames = wherry_ipc::Frames::default();
        loop {
            let Some((message, descriptors)) = frames.message::<Message>()? else {
                frames.fill(from.as_fd())?;
                continue;
            };
            let mut state = lock(&self.state);
            match message {
                Message::Forget { numbers, awaited } => {
                    for number in numbers {
                        state.kept.remove(&number);
                    }
                    drop(state);
                    if awaited {
                        (&*from).write_all(&[0])?;
                    }
                }
                Message::Keep { number, subject } => {
                    state.kept.insert(number, Legacy { subject, descriptors: descriptors.into() });
                }
            }
        }
    }

    /// All that netd left. Waits until everything it said has been heard.
    pub(crate) fn claim(&self) -> Left {
        let state = lock(&self.state);
        let (mut state, _) = self
            .ended
            .wait_timeout_while(state, CLAIM_WITHIN, |state| !state.ended)
            .unwrap_or_else(PoisonError::into_inner);
        state.claimed = true;
        Left(std::mem::take(&mut state.kept).into_values().collect())
    }
}

/// What the netd before us left, in order.
#[derive(Debug, Default)]
pub(crate) struct Left(Vec<Legacy>);

impl Left {
    /// The descriptors of all that is left of this subject.
    pub(crate) fn take(&mut self, subject: &Subject) -> Vec<Arc<[OwnedFd]>> {
        let found = self.0.extract_if(.., |legacy| legacy.subject == *subject);
        found.map(|legacy| legacy.descriptors).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    fn subject(name: &str) -> Subject {
        Subject::Resolver(name.into())
    }

    #[test]
    fn what_was_kept_and_not_forgotten_is_left() {
        let handover = Arc::new(Handover::default());
        let open = || -> Arc<[OwnedFd]> {
            let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
            Arc::new([udp.into(), TcpListener::bind("127.0.0.1:0").unwrap().into()])
        };
        let keep = |name: &str, sockets: &Arc<[OwnedFd]>| handover.keep(subject(name), sockets.clone());
        let (first, second) = (open(), open());
        let _early = keep("early", &first);
        let gone = keep("gone", &open());
        let (ours, theirs) = UnixStream::pair().unwrap();
        let heir = Heir::listen(theirs).unwrap();
        handover.begin(ours).unwrap();
        let _late = keep("late", &second);
        drop(gone);
        // As netd's end does it.
        lock(&handover.state).standby = None;
        let mut left = heir.claim();
        assert!(left.take(&subject("gone")).is_empty());
        assert_eq!(left.take(&subject("early")).len(), 1);
        let late = left.take(&subject("late"));
        let udp =
            |sockets: &[OwnedFd]| UdpSocket::from(sockets[0].try_clone().unwrap()).local_addr().unwrap();
        assert_eq!((udp(&late[0]), late[0].len()), (udp(&second), 2));
        assert!(left.0.is_empty() && heir.claim().0.is_empty());
    }
}
