//! Several threads that copy files while one walks the folders: to make a file is mostly waiting for the file system.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Scope, available_parallelism};

use rustix::fs::{Mode, OFlags, Stat, openat};

use super::tree::{Buffer, Rules, replacing};
use super::{FileError, failed};

/// Fewer files are copied by who walks.
const WORTH_THREADS: usize = 48;
/// How many files wait for a thread, each with its folders open.
const QUEUED: usize = 128;
/// More threads do not help: they wait for the same journal.
const MAX_THREADS: usize = 4;

/// What the threads of one copy share.
pub(super) struct Crew<'a> {
    rules: Rules<'a>,
    has_failed: AtomicBool,
    failure: Mutex<Option<FileError>>,
}

/// A folder and its copy. When the last file of it has been copied, and nobody walks through it any more, it gets its owner, mode
/// and times.
pub(super) struct Pair<'c> {
    pub(super) source: OwnedFd,
    pub(super) target: OwnedFd,
    /// Where it lies below the source.
    path: Vec<u8>,
    /// Of the source; `None` if the copy keeps its own.
    stat: Option<Stat>,
    crew: &'c Crew<'c>,
}

/// A file of a folder.
pub(super) struct Job<'c> {
    pair: Arc<Pair<'c>>,
    name: Vec<u8>,
    path: Vec<u8>,
}

impl<'a> Crew<'a> {
    pub(super) fn new(rules: Rules<'a>) -> Self {
        Self { rules, has_failed: AtomicBool::new(false), failure: Mutex::default() }
    }

    /// Whether something has failed, so that no more need be done.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// What failed first.
    pub(super) fn result(self) -> Result<(), FileError> {
        self.failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    fn fail(&self, error: FileError) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.has_failed.store(true, Ordering::Relaxed);
    }

    fn copy(&self, job: &Job<'_>, buffer: &mut Buffer) {
        if self.has_failed() {
            return;
        }
        let read = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let (from, to) = (&job.pair.source, &job.pair.target);
        let opened = openat(from, &*job.name, read, Mode::empty());
        let copied = opened.and_then(|file| {
            use std::os::fd::AsFd;
            let place = (to.as_fd(), &*job.name);
            replacing(place, || self.rules.new_file(&file, place, buffer).map(drop))
        });
        if let Err(errno) = copied {
            self.fail(failed("copy", &job.path)(errno));
        }
    }
}

impl<'c> Pair<'c> {
    pub(super) fn new(
        crew: &'c Crew<'c>,
        (source, target): (OwnedFd, OwnedFd),
        (path, stat): (Vec<u8>, Option<Stat>),
    ) -> Arc<Self> {
        Arc::new(Self { source, target, path, stat, crew })
    }
}

impl Drop for Pair<'_> {
    fn drop(&mut self) {
        use std::os::fd::AsFd;
        let Some(stat) = self.stat.filter(|_| !self.crew.has_failed()) else { return };
        if let Err(errno) = self.crew.rules.metadata(self.source.as_fd(), self.target.as_fd(), &stat) {
            self.crew.fail(failed("set the attributes of", &self.path)(errno));
        }
    }
}

/// The threads, once there is enough for them to do.
pub(super) struct Hands<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    crew: &'scope Crew<'scope>,
    waiting: Vec<Job<'scope>>,
    queue: Option<SyncSender<Job<'scope>>>,
}

impl<'scope, 'env> Hands<'scope, 'env> {
    pub(super) fn new(scope: &'scope Scope<'scope, 'env>, crew: &'scope Crew<'scope>) -> Self {
        Self { scope, crew, waiting: Vec::new(), queue: None }
    }

    /// A file is to be copied; it is when the threads have ended.
    pub(super) fn copy(&mut self, pair: &Arc<Pair<'scope>>, name: Vec<u8>, path: Vec<u8>) {
        let job = Job { pair: pair.clone(), name, path };
        match &self.queue {
            // The threads take all that comes until the queue goes.
            Some(queue) => drop(queue.send(job)),
            None => {
                self.waiting.push(job);
                if self.waiting.len() >= WORTH_THREADS {
                    self.start();
                }
            }
        }
    }

    /// Starts the threads with what has waited for them; without threads it is done here.
    fn start(&mut self) {
        let (sender, receiver) = sync_channel(QUEUED);
        let receiver = Arc::new(Mutex::new(receiver));
        let wanted = available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
        let mut started = 0;
        for _ in 0..wanted {
            let (crew, receiver) = (self.crew, receiver.clone());
            let thread = std::thread::Builder::new().name("copy files".into());
            started += usize::from(thread.spawn_scoped(self.scope, move || work(crew, &receiver)).is_ok());
        }
        if started == 0 {
            self.here();
            return;
        }
        for job in self.waiting.drain(..) {
            drop(sender.send(job));
        }
        self.queue = Some(sender);
    }

    /// What waits for threads that never came.
    fn here(&mut self) {
        let mut buffer = Buffer::default();
        for job in self.waiting.drain(..) {
            self.crew.copy(&job, &mut buffer);
        }
    }

    /// There will be no more files.
    pub(super) fn finish(mut self) {
        self.here();
    }
}

fn work<'c>(crew: &Crew<'c>, queue: &Mutex<Receiver<Job<'c>>>) {
    let mut buffer = Buffer::default();
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        crew.copy(&job, &mut buffer);
    }
}
