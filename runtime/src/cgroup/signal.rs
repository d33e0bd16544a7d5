//! A cgroup's processes as a whole: listed, signalled, frozen, killed; and the folders' removal.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::file::{exists, read, write};
use super::{Cgroup, Folder};
use crate::Error;
use crate::sys::process::kill;

/// How long to wait for the kernel to freeze, or for killed processes to leave.
const PATIENCE: Duration = Duration::from_secs(10);

impl Cgroup {
    /// A folder in which all processes are.
    pub(super) fn members(&self) -> Option<&Folder> {
        // memory is the v1 hierarchy that cannot be left out; any other will do
        self.v1.iter().find(|f| f.has("memory")).or(self.v1.first()).or(self.v2.as_ref())
    }

    /// The processes in the cgroup and those below it, ascending.
    pub(crate) fn processes(&self) -> Result<Vec<i32>, Error> {
        let mut pids = BTreeSet::new();
        if let Some(folder) = self.members() {
            collect(&folder.path, &mut pids)?;
        }
        Ok(pids.into_iter().collect())
    }

    /// Sends a signal to all processes. New ones that are made meanwhile get it as well.
    pub(crate) fn signal_all(&self, signal: i32) -> Result<(), Error> {
        if signal == libc::SIGKILL
            && let Some(folder) = &self.v2
            && exists(&folder.path, "cgroup.kill")
            && self.all_in_v2()
        {
            return write(&folder.path, "cgroup.kill", "1");
        }
        let mut signalled = BTreeSet::new();
        loop {
            let new: Vec<i32> =
                self.processes()?.into_iter().filter(|pid| !signalled.contains(pid)).collect();
            if new.is_empty() {
                return Ok(());
            }
            for pid in new {
                match kill(pid, signal) {
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(errno) => return Err(Error::system("signal process", pid, errno)),
                }
                signalled.insert(pid);
            }
        }
    }

    /// Whether `cgroup.kill` reaches everybody: beside v1, processes could have been moved in one hierarchy only.
    fn all_in_v2(&self) -> bool {
        if self.unified() {
            return true;
        }
        let (Some(v1), Some(v2)) = (self.members(), &self.v2) else { return false };
        let (mut left, mut right) = (BTreeSet::new(), BTreeSet::new());
        collect(&v1.path, &mut left).is_ok()
            && collect(&v2.path, &mut right).is_ok()
            && left.is_subset(&right)
    }

    /// Freezes or thaws all processes, and waits until they are.
    pub(crate) fn freeze(&self, frozen: bool) -> Result<(), Error> {
        if let Some(folder) = self.v1.iter().find(|f| f.has("freezer")) {
            return freeze_v1(&folder.path, frozen);
        }
        match &self.v2 {
            Some(folder) => freeze_v2(&folder.path, frozen),
            None => Err(Error::Unsupported { what: "pausing".into(), why: "no cgroup freezer is mounted" }),
        }
    }

    /// Whether the processes are frozen.
    pub(crate) fn is_frozen(&self) -> bool {
        match (self.v1.iter().find(|f| f.has("freezer")), &self.v2) {
            (Some(folder), _) => {
                read(&folder.path, "freezer.state").is_some_and(|state| state.trim() != "THAWED")
            }
            (None, Some(folder)) => {
                read(&folder.path, "cgroup.freeze").is_some_and(|state| state.trim() == "1")
            }
            (None, None) => false,
        }
    }

    /// Kills every process, waits until all have left, and removes the folders. Fine when there is nothing.
    pub(crate) fn destroy(&self) -> Result<(), Error> {
        // usually all have left already: then one rmdir for each folder is all there is to do
        let mut rest: Vec<&Folder> = self.folders().filter(|folder| remove(&folder.path).is_err()).collect();
        if !rest.is_empty() {
            let _ = self.signal_all(libc::SIGKILL);
            if self.is_frozen() {
                let _ = self.freeze(false); // v1: frozen processes do not die
            }
        }
        if let Some(unit) = &self.unit {
            unit.stop()?;
        }
        if rest.is_empty() {
            return Ok(());
        }
        let deadline = Instant::now() + PATIENCE;
        let mut pause = Duration::from_micros(200);
        loop {
            let mut last = Ok(());
            rest.retain(|folder| match remove_tree(&folder.path) {
                Ok(()) => false,
                Err(errno) => {
                    last = Err(Error::system("remove cgroup", folder.path.display(), errno));
                    true
                }
            });
            if last.is_ok() || Instant::now() > deadline {
                return last;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
            let _ = self.signal_all(libc::SIGKILL);
        }
    }

    fn folders(&self) -> impl Iterator<Item = &Folder> {
        self.v1.iter().chain(self.v2.as_ref())
    }
}

fn collect(path: &Path, pids: &mut BTreeSet<i32>) -> Result<(), Error> {
    if let Some(list) = read(path, "cgroup.procs") {
        pids.extend(list.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
    }
    for child in children(path) {
        collect(&child, pids)?;
    }
    Ok(())
}

fn children(path: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn remove(path: &Path) -> Result<(), Errno> {
    match rustix::fs::unlinkat(rustix::fs::CWD, path, rustix::fs::AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

fn remove_tree(path: &Path) -> Result<(), Errno> {
    for child in children(path) {
        remove_tree(&child)?;
    }
    remove(path)
}

fn freeze_v1(path: &Path, frozen: bool) -> Result<(), Error> {
    let wanted = if frozen { "FROZEN" } else { "THAWED" };
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(100);
    loop {
        // the state can hang in FREEZING while processes fork; writing again makes the kernel look again
        write(path, "freezer.state", wanted)?;
        let state = read(path, "freezer.state").unwrap_or_default();
        if state.trim() == wanted {
            return Ok(());
        }
        if Instant::now() > deadline {
            let _ = write(path, "freezer.state", "THAWED");
            return Err(Error::system("freeze", path.display(), Errno::TIMEDOUT));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

fn freeze_v2(path: &Path, frozen: bool) -> Result<(), Error> {
    write(path, "cgroup.freeze", if frozen { "1" } else { "0" })?;
    let wanted = if frozen { "frozen 1" } else { "frozen 0" };
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_micros(100);
    while !read(path, "cgroup.events").is_some_and(|events| events.lines().any(|line| line == wanted)) {
        if Instant::now() > deadline {
            return Err(Error::system("freeze", path.display(), Errno::TIMEDOUT));
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
    Ok(())
}
