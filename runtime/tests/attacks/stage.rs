//! A bundle for the command line, the outside that must not change, and an attacker who swaps names.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::support::Bundle;

/// A bundle on disk, with a root of its own for the command's state.
pub(crate) struct Stage {
    pub(crate) bundle: Bundle,
    program: PathBuf,
}

impl Stage {
    pub(crate) fn new(bundle: Bundle) -> Self {
        fs::write(bundle.path().join("config.json"), bundle.spec.to_string()).unwrap();
        Stage { bundle, program: env!("CARGO_BIN_EXE_wherry-runtime").into() }
    }

    /// With a copy of the runtime that nobody else executes.
    pub(crate) fn with_own_program(bundle: Bundle) -> Self {
        let mut stage = Stage::new(bundle);
        let copy = stage.bundle.path().join("runtime");
        fs::copy(&stage.program, &copy).unwrap();
        stage.program = copy;
        stage
    }

    pub(crate) fn program(&self) -> &Path {
        &self.program
    }

    pub(crate) fn id(&self) -> &str {
        &self.bundle.id
    }

    pub(crate) fn path(&self) -> &str {
        self.bundle.path().to_str().unwrap()
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.bundle.path().join("state")
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        self.command_through(&[], args)
    }

    /// The command, started by another program that changes the caller first.
    pub(crate) fn command_through(&self, wrapper: &[&str], args: &[&str]) -> Command {
        let program = self.program.to_str().unwrap();
        let mut words = wrapper.iter().copied().chain([program, "--root"]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words).arg(self.root()).args(args).stdin(Stdio::null());
        command
    }

    /// Runs the container to its end.
    pub(crate) fn run(&self) -> Output {
        self.command(&["run", "-b", self.path(), self.id()]).output().unwrap()
    }

    /// Starts the container in the background.
    pub(crate) fn start(&self) {
        let mut run = self.command(&["run", "-d", "-b", self.path(), self.id()]);
        assert!(run.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    }

    pub(crate) fn exec(&self, args: &[&str]) -> Output {
        let args: Vec<&str> = ["exec"].iter().chain(args).copied().collect();
        self.command(&args).output().unwrap()
    }

    pub(crate) fn delete(&self) {
        assert!(self.command(&["delete", "-f", self.id()]).status().unwrap().success());
    }
}

pub(crate) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A folder of the host that nobody may touch.
pub(crate) struct Outside {
    pub(crate) folder: tempfile::TempDir,
    before: BTreeMap<PathBuf, (u32, u64, u32, Vec<u8>)>,
}

impl Outside {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["deep", "dir", "proc", "pts", "shm", "mqueue"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        for name in ["null", "file", "console", "core_pattern"] {
            fs::write(folder.path().join(name), "mine").unwrap();
        }
        let before = look(folder.path());
        Outside { folder, before }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Same names, kinds, owners and content; no mounts.
    pub(crate) fn check(&self, what: &str) {
        assert_eq!(look(self.path()), self.before, "{what}: the host was changed");
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!table.contains(self.path().to_str().unwrap()), "{what}: something was mounted on the host");
    }
}

fn look(folder: &Path) -> BTreeMap<PathBuf, (u32, u64, u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let stat = entry.metadata().unwrap();
        let content = fs::read(entry.path()).unwrap_or_default();
        found.insert(entry.path(), (stat.mode(), stat.dev(), stat.uid(), content));
        if stat.is_dir() {
            found.extend(look(&entry.path()));
        }
    }
    found
}

/// A process that swaps two names as fast as it can, until dropped.
pub(crate) struct Swapper {
    child: Child,
    count: PathBuf,
}

const PAIR: &str = "WHERRY_TEST_SWAP";

impl Swapper {
    /// This test program again, as [`swap_for_a_test`].
    pub(crate) fn start(one: &Path, other: &Path, count: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "stage::swap_for_a_test", "--nocapture"]);
        command.env(PAIR, format!("{}:{}:{}", one.display(), other.display(), count.display()));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let swapper = Swapper { child, count: count.to_owned() };
        crate::support::eventually("it swaps", || swapper.swaps() > 0);
        swapper
    }

    /// How often it has.
    pub(crate) fn swaps(&self) -> u64 {
        fs::read_to_string(&self.count).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The attacker's part of the tests in this file's siblings; by itself there is nothing to swap.
#[test]
fn swap_for_a_test() {
    let Ok(pair) = std::env::var(PAIR) else { return };
    let [one, other, count] = pair.split(':').collect::<Vec<_>>().try_into().unwrap();
    let count = fs::File::create(count).unwrap();
    for swaps in 1_u64.. {
        renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
        if swaps % 64 == 1 {
            count.write_all_at(swaps.to_string().as_bytes(), 0).unwrap(); // it only grows
        }
    }
}
