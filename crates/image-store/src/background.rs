//! Work that nobody waits for: one thread at a time, which ends when there is nothing left to do.

use std::sync::{Arc, Mutex, PoisonError};

/// A job that is run in the background each time it is asked for, though not more often than needed.
pub(crate) struct Background {
    name: &'static str,
    worker: Arc<Mutex<Worker>>,
    job: Arc<dyn Fn() + Send + Sync>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Worker {
    Idle,
    Running,
    /// Running, and asked for again since it began.
    RunningMore,
}

impl std::fmt::Debug for Background {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Background({})", self.name)
    }
}

impl Background {
    /// Does nothing yet. `name` is that of the thread.
    pub(crate) fn new(name: &'static str, job: impl Fn() + Send + Sync + 'static) -> Self {
        Self { name, worker: Arc::new(Mutex::new(Worker::Idle)), job: Arc::new(job) }
    }

    /// Has the job run from its beginning, soon.
    pub(crate) fn run(&self) {
        let mut worker = self.worker.lock().unwrap_or_else(PoisonError::into_inner);
        if *worker != Worker::Idle {
            *worker = Worker::RunningMore;
            return;
        }
        let (state, job) = (self.worker.clone(), self.job.clone());
        let thread = std::thread::Builder::new().name(self.name.into()).stack_size(256 << 10);
        match thread.spawn(move || work(&state, &*job)) {
            Ok(_) => *worker = Worker::Running,
            Err(error) => {
                tracing::warn!(job = self.name, %error, "no thread for it; it is tried again when it is needed again");
            }
        }
    }
}

fn work(state: &Mutex<Worker>, job: &dyn Fn()) {
    loop {
        job();
        let mut worker = state.lock().unwrap_or_else(PoisonError::into_inner);
        if *worker == Worker::Running {
            *worker = Worker::Idle;
            return;
        }
        *worker = Worker::Running;
    }
}
