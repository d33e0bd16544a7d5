//! What netd leaves to its standby: the resolvers' sockets. The standby holds them, too, so a question that comes
//! while nobody is netd waits in its socket for the next one, and no rule has to be changed.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A standby that does not read is none.
const SEND_PATIENCE: Duration = Duration::from_secs(1);
/// A standby whose netd is gone takes over at once or never: if somebody else was faster, that one has a standby of its own.
const CLAIM_WITHIN: Duration = Duration::from_secs(2);

/// What netd tells its standby.
#[derive(Debug, Serialize, Deserialize)]
enum Message {
    /// With the descriptors of the datagram socket and of the listening one.
    Keep {
        number: u64,
        sandbox: String,
    },
    Forget {
        number: u64,
    },
}

/// A sandbox's sockets: for datagrams, and the listening one.
#[derive(Debug)]
pub(crate) struct Pair {
    sandbox: String,
    pub(crate) udp: OwnedFd,
    pub(crate) tcp: OwnedFd,
}

/// netd's side.
#[derive(Debug, Default)]
pub(crate) struct Handover {
    state: Mutex<Giving>,
}

#[derive(Debug, Default)]
struct Giving {
    last: u64,
    kept: BTreeMap<u64, Pair>,
    standby: Option<UnixStream>,
}

impl Handover {
    /// Leaves a sandbox's sockets to whoever comes after us, until [`Handover::forget`] of the number.
    pub(crate) fn keep(&self, sandbox: &str, udp: impl AsFd, tcp: impl AsFd) -> io::Result<u64> {
        let pair = Pair {
            sandbox: sandbox.into(),
            udp: udp.as_fd().try_clone_to_owned()?,
            tcp: tcp.as_fd().try_clone_to_owned()?,
        };
        let mut state = lock(&self.state);
        state.last += 1;
        let number = state.last;
        state.tell_of(number, &pair);
        state.kept.insert(number, pair);
        Ok(number)
    }

    pub(crate) fn forget(&self, number: u64) {
        let mut state = lock(&self.state);
        if state.kept.remove(&number).is_some() {
            state.tell(&Message::Forget { number }, None);
        }
    }

    /// A standby is there, and hears of all of them.
    pub(crate) fn begin(&self, standby: UnixStream) -> io::Result<()> {
        standby.set_write_timeout(Some(SEND_PATIENCE))?;
        let mut state = lock(&self.state);
        state.standby = Some(standby);
        let kept = std::mem::take(&mut state.kept);
        kept.iter().for_each(|(number, pair)| state.tell_of(*number, pair));
        state.kept = kept;
        Ok(())
    }
}

impl Giving {
    fn tell_of(&mut self, number: u64, pair: &Pair) {
        self.tell(&Message::Keep { number, sandbox: pair.sandbox.clone() }, Some(pair));
    }

    fn tell(&mut self, message: &Message, pair: Option<&Pair>) {
        let Some(standby) = &self.standby else { return };
        let descriptors = pair.map(|p| [p.udp.as_fd(), p.tcp.as_fd()]);
        // Without a standby, or with one that is stuck, the next netd opens sockets of its own.
        if wherry_ipc::send(standby, message, descriptors.as_ref().map_or(&[], |d| &d[..])).is_err() {
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
    kept: BTreeMap<u64, Pair>,
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
                Message::Forget { number } => {
                    state.kept.remove(&number);
                }
                Message::Keep { number, sandbox } => {
                    if let Ok([udp, tcp]) = <[OwnedFd; 2]>::try_from(descriptors) {
                        state.kept.insert(number, Pair { sandbox, udp, tcp });
                    }
                }
            }
        }
    }

    /// All that netd left: sandbox → sockets. Waits until everything it said has been heard.
    pub(crate) fn claim(&self) -> BTreeMap<String, Pair> {
        let state = lock(&self.state);
        let (mut state, _) = self
            .ended
            .wait_timeout_while(state, CLAIM_WITHIN, |state| !state.ended)
            .unwrap_or_else(PoisonError::into_inner);
        state.claimed = true;
        // In order: should a sandbox have been made twice, the newer one's sockets count.
        std::mem::take(&mut state.kept).into_values().map(|pair| (pair.sandbox.clone(), pair)).collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, UdpSocket};

    #[test]
    fn what_was_kept_and_not_forgotten_is_left() {
        let handover = Handover::default();
        let open = || (UdpSocket::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let (early, late, gone) = (open(), open(), open());
        handover.keep("early", &early.0, &early.1).unwrap();
        let number = handover.keep("gone", &gone.0, &gone.1).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        let heir = Heir::listen(theirs).unwrap();
        handover.begin(ours).unwrap();
        handover.keep("late", &late.0, &late.1).unwrap();
        handover.forget(number);
        drop(handover);
        let left = heir.claim();
        assert_eq!(left.keys().collect::<Vec<_>>(), ["early", "late"]);
        let udp = UdpSocket::from(left["late"].udp.try_clone().unwrap());
        assert_eq!(udp.local_addr().unwrap(), late.0.local_addr().unwrap());
        assert!(heir.claim().is_empty());
    }
}
