//! Transfers that several clients may wait for: two pulls of one layer are one download.
//!
//! A transfer is a task that lives as long as somebody holds it: the last client that goes takes it
//! along. What it tells reaches everybody who follows it; who comes late learns how things stand.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::AbortHandle;

use super::messages;
use super::output::Output;
use super::pull::Stop;
use crate::error::Error;

/// Messages that a slow client may be behind; it then misses the oldest.
const BACKLOG: usize = 64;

type Outcome<T> = Result<T, Arc<Stop>>;

/// The transfers under way of a kind, and the slots that they share.
#[derive(Debug)]
pub(crate) struct Transfers<T> {
    running: Mutex<HashMap<String, Weak<Transfer<T>>>>,
    slots: Arc<Slots>,
}

impl<T> Default for Transfers<T> {
    fn default() -> Self {
        Self { running: Mutex::default(), slots: Arc::default() }
    }
}

/// A transfer under way, or one that has just ended. It is called off when nobody holds it any more.
#[derive(Debug)]
pub(crate) struct Transfer<T> {
    shared: Arc<Shared<T>>,
    task: AbortHandle,
}

#[derive(Debug)]
struct Shared<T> {
    /// The last message; locked while one is sent, so that a newcomer misses none and gets none twice.
    last: Mutex<Option<Bytes>>,
    messages: broadcast::Sender<Bytes>,
    outcome: watch::Sender<Option<Outcome<T>>>,
}

impl<T: Clone + Send + Sync + 'static> Transfers<T> {
    /// The transfer of this name: the one under way, or the one that `start` makes.
    pub(super) fn join<F>(&self, name: String, start: impl FnOnce(Reporter<T>) -> F) -> Arc<Transfer<T>>
    where
        F: Future<Output = Result<T, Stop>> + Send + 'static,
    {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|_, transfer| transfer.strong_count() > 0);
        let present = running.get(&name).and_then(Weak::upgrade);
        if let Some(present) = present.filter(|transfer| transfer.shared.outcome.borrow().is_none()) {
            return present;
        }
        let shared = Arc::new(Shared {
            last: Mutex::default(),
            messages: broadcast::Sender::new(BACKLOG),
            outcome: watch::Sender::new(None),
        });
        let work = start(Reporter(shared.clone()));
        let result = shared.clone();
        let task = tokio::spawn(async move {
            let outcome = work.await.map_err(Arc::new);
            result.outcome.send_replace(Some(outcome));
        });
        let transfer = Arc::new(Transfer { shared, task: task.abort_handle() });
        running.insert(name, Arc::downgrade(&transfer));
        transfer
    }

    /// Waits until fewer than `limit` transfers are busy (0: any number). `waiting` is called if there is no slot at once.
    pub(super) async fn slot(&self, limit: impl Fn() -> usize, waiting: impl FnOnce()) -> Slot {
        if let Some(slot) = self.slots.try_take(limit()) {
            return slot;
        }
        waiting();
        loop {
            let freed = self.slots.freed.notified();
            if let Some(slot) = self.slots.try_take(limit()) {
                return slot;
            }
            freed.await;
        }
    }
}

impl<T: Clone> Transfer<T> {
    /// Passes on what it tells until its end. Nothing is lost to a client that keeps up.
    ///
    /// # Errors
    /// Why it failed.
    pub(super) async fn follow(&self, output: &Output) -> Outcome<T> {
        let (mut messages, last) = {
            let last = self.shared.last.lock().unwrap_or_else(PoisonError::into_inner);
            (self.shared.messages.subscribe(), last.clone())
        };
        let mut outcome = self.shared.outcome.subscribe();
        if let Some(last) = last {
            output.send(last).await;
        }
        let mut ended = std::pin::pin!(async {
            // The guard of what is seen goes before anybody waits again.
            outcome.wait_for(Option::is_some).await.ok().and_then(|ended| ended.clone())
        });
        let outcome = loop {
            tokio::select! {
                biased;
                message = messages.recv() => match message {
                    Ok(message) => output.send(message).await,
                    // Some are lost, the newest come.
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => break ended.await,
                },
                outcome = &mut ended => break outcome,
            }
        };
        while let Ok(message) = messages.try_recv() {
            output.send(message).await;
        }
        if let Some(outcome) = outcome {
            return outcome;
        }
        Err(Arc::new(Stop::Own(Error::server("the engine is shutting down"))))
    }
}

impl<T> Drop for Transfer<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// With what a transfer tells how it goes.
#[derive(Debug)]
pub(super) struct Reporter<T>(Arc<Shared<T>>);

impl<T> Clone for Reporter<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Reporter<T> {
    /// Tells everybody who follows.
    pub(super) fn tell(&self, message: Bytes) {
        let mut last = self.0.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some(message.clone());
        // An error only says that nobody listens at the moment.
        let _ = self.0.messages.send(message);
    }

    /// Waits, counting the seconds down for the user.
    pub(super) async fn wait_to_retry(&self, id: &str, seconds: u32) {
        for left in (1..=seconds).rev() {
            let plural = if left == 1 { "" } else { "s" };
            self.tell(messages::state(&format!("Retrying in {left} second{plural}"), id));
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        }
    }
}

#[derive(Debug, Default)]
struct Slots {
    busy: Mutex<usize>,
    freed: Notify,
}

impl Slots {
    fn try_take(self: &Arc<Self>, limit: usize) -> Option<Slot> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if limit > 0 && *busy >= limit {
            return None;
        }
        *busy += 1;
        Some(Slot(self.clone()))
    }
}

/// The right to move bytes, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot(Arc<Slots>);

impl Drop for Slot {
    fn drop(&mut self) {
        let mut busy = self.0.busy.lock().unwrap_or_else(PoisonError::into_inner);
        *busy = busy.saturating_sub(1);
        self.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use tokio::sync::{mpsc, oneshot};

    use super::*;

    fn output() -> (Output, mpsc::Receiver<Bytes>) {
        let (sender, receiver) = mpsc::channel(16);
        (Output::new(sender, oneshot::channel().0), receiver)
    }

    #[tokio::test]
    async fn two_who_want_the_same_share_it_and_both_are_told() {
        let transfers = Transfers::<u32>::default();
        let starts = Arc::new(AtomicUsize::new(0));
        let go = Arc::new(Notify::new());
        let join = || {
            let (starts, go) = (starts.clone(), go.clone());
            transfers.join("layer".into(), move |reporter| {
                starts.fetch_add(1, Ordering::SeqCst);
                async move {
                    reporter.tell("begun".into());
                    go.notified().await;
                    reporter.tell("ended".into());
                    Ok(7)
                }
            })
        };
        let first = join();
        tokio::task::yield_now().await;
        let second = join();
        let ((one, mut told_one), (two, mut told_two)) = (output(), output());
        let (a, b, ()) = tokio::join!(first.follow(&one), second.follow(&two), async { go.notify_one() });
        assert_eq!((a.ok(), b.ok(), starts.load(Ordering::SeqCst)), (Some(7), Some(7), 1));
        for told in [&mut told_one, &mut told_two] {
            assert_eq!((told.recv().await, told.recv().await), (Some("begun".into()), Some("ended".into())));
        }
        drop((first, second));
        assert_eq!(join().shared.outcome.borrow().as_ref().map(Result::is_ok), None, "a new one has begun");
        assert_eq!(starts.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn the_last_one_who_goes_calls_it_off() {
        struct Gone(mpsc::Sender<()>);
        impl Drop for Gone {
            fn drop(&mut self) {
                self.0.try_send(()).unwrap();
            }
        }
        let transfers = Transfers::<()>::default();
        let (sender, mut gone) = mpsc::channel(1);
        let start = |_: Reporter<()>| {
            let gone = Gone(sender);
            async move {
                let _gone = gone;
                std::future::pending().await
            }
        };
        let first = transfers.join("x".into(), start);
        let second = transfers.join("x".into(), |_| async { Ok(()) });
        tokio::task::yield_now().await;
        drop(first);
        assert!(tokio::time::timeout(Duration::from_millis(50), gone.recv()).await.is_err());
        drop(second);
        assert_eq!(gone.recv().await, Some(()));
    }

    #[tokio::test]
    async fn slots_are_limited_and_come_back() {
        let transfers = Transfers::<()>::default();
        let one = transfers.slot(|| 1, || panic!("there is one")).await;
        let mut waited = false;
        let second = transfers.slot(|| 1, || waited = true);
        let (_second, ()) = tokio::join!(second, async { drop(one) });
        assert!(waited);
        transfers.slot(|| 0, || panic!("no limit")).await;
    }
}
