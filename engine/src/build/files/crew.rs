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
    /// The one above gets its times later: overlayfs sets them back when it copies up what is in it.
    _above: Option<Arc<Pair<'c>>>,
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
        above: Option<Arc<Self>>,
    ) -> Arc<Self> {
        Arc::new(Self { source, target, path, stat, crew, _above: above })
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use super::super::Copier;
    use std::os::fd::AsFd;

    fn copy(source: &Path, target: &Path) -> Result<(), super::FileError> {
        let (from, to) = (fs::File::open(source).unwrap(), fs::File::open(target).unwrap());
        Copier::new(None, None, &|path, _| path.ends_with(b"skipped")).contents(from.as_fd(), to.as_fd())
    }

    /// Few files are copied by who walks, many by threads; folders have their times although files were made in them.
    #[test]
    fn few_and_many_files_are_copied_alike() {
        for files in [3, 400] {
            let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
            let at = |path: &str| source.path().join(path);
            for folder in ["a", "a/b", "c"] {
                fs::create_dir(at(folder)).unwrap();
                for number in 0..files {
                    fs::write(at(&format!("{folder}/{number}")), format!("{folder} {number}")).unwrap();
                }
                fs::write(at(&format!("{folder}/skipped")), "").unwrap();
            }
            fs::set_permissions(at("c/1"), fs::Permissions::from_mode(0o4711)).unwrap();
            fs::hard_link(at("a/1"), at("c/link")).unwrap();
            for folder in ["a/b", "a", "c"] {
                fs::File::open(at(folder)).unwrap().set_modified(time).unwrap();
            }
            copy(source.path(), target.path()).unwrap();
            let made = |path: &str| target.path().join(path);
            for folder in ["a", "a/b", "c"] {
                assert_eq!(fs::metadata(made(folder)).unwrap().modified().unwrap(), time, "{folder}");
                for number in 0..files {
                    let text = fs::read_to_string(made(&format!("{folder}/{number}"))).unwrap();
                    assert_eq!(text, format!("{folder} {number}"));
                }
                assert!(!made(&format!("{folder}/skipped")).exists());
            }
            assert_eq!(fs::metadata(made("c/1")).unwrap().mode() & 0o7777, 0o4711);
            assert_eq!(fs::metadata(made("c/link")).unwrap().ino(), fs::metadata(made("a/1")).unwrap().ino());
        }
    }

    #[test]
    fn the_first_failure_is_told() {
        let (source, target) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for number in 0..400 {
            fs::write(source.path().join(number.to_string()), "").unwrap();
        }
        fs::create_dir(target.path().join("7")).unwrap();
        let error = copy(source.path(), target.path()).unwrap_err();
        assert_eq!((error.action, error.path.as_str()), ("copy", "7"));
    }
}
