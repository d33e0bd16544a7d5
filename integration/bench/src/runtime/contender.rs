//! One runtime that takes part.

use std::path::{Path, PathBuf};

use wherry_bench::output;

use crate::bundle::Bundle;
use crate::measure::{Sample, ends, run, wait};

/// What all ids begin with. They are also the names of cgroups.
pub(crate) const ID: &str = "wherry-bench-";

/// A runtime with its command line, which all of them have in common.
#[derive(Debug)]
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) version: String,
    program: PathBuf,
    root: String,
    /// The container in which `exec` runs.
    sleeper: String,
    /// The other one.
    id: String,
    pid_file: PathBuf,
}

impl Contender {
    /// Ours, and those that are there.
    pub(crate) fn all(work: &Path, place: &Path) -> Vec<Contender> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut all = Vec::new();
        for name in ["wherry-runtime", "crun", "runc", "youki"] {
            let mut places = vec![work.to_path_buf()];
            places.extend(std::env::split_paths(&path));
            let Some(program) = places.iter().map(|folder| folder.join(name)).find(|p| p.exists()) else {
                eprintln!("there is no {name}: it takes no part");
                continue;
            };
            let version = output(program.to_str().unwrap(), &["--version"]);
            let version = version.lines().next().unwrap_or_default();
            let version = version.rsplit(' ').next().unwrap_or_default().to_owned();
            let folder = place.join(name);
            std::fs::create_dir_all(&folder).unwrap();
            let root = folder.join("state").to_str().unwrap().to_owned();
            let (sleeper, id) = (format!("{ID}{name}-sleeper"), format!("{ID}{name}"));
            all.push(Contender { name, version, program, root, sleeper, id, pid_file: folder.join("pid") });
        }
        all
    }

    fn call(&self, arguments: &[&str]) -> Sample {
        let mut all = vec!["--root", self.root.as_str()];
        all.extend(arguments);
        run(&self.program, &all)
    }

    /// A whole life in one command.
    pub(crate) fn run(&self, bundle: &Bundle) -> Sample {
        let sample = self.call(&["run", "--bundle", bundle.path(), &self.id]);
        if sample.is_lost() {
            self.call(&["delete", "--force", &self.id]);
        }
        sample
    }

    /// A life in three: create, start, delete. In between the program ends, which counts for nobody.
    pub(crate) fn life(&self, bundle: &Bundle) -> [Sample; 3] {
        let pid_file = self.pid_file.to_str().unwrap();
        let created = self.call(&["create", "--bundle", bundle.path(), "--pid-file", pid_file, &self.id]);
        let started = self.call(&["start", &self.id]);
        if created.is_lost() || started.is_lost() {
            return [created, started, self.call(&["delete", "--force", &self.id])];
        }
        let pid = self.pid();
        assert!(ends(pid), "the container of {} does not end", self.name);
        wait(pid);
        [created, started, self.call(&["delete", &self.id])]
    }

    /// A further program in a container.
    pub(crate) fn exec(&self) -> Sample {
        self.call(&["exec", &self.sleeper, "/bin/true"])
    }

    /// A container's state.
    pub(crate) fn state(&self) -> Sample {
        self.call(&["state", &self.sleeper])
    }

    /// All containers' states.
    pub(crate) fn list(&self) -> Sample {
        self.call(&["list"])
    }

    /// Starts the container for `exec` and `state`.
    pub(crate) fn start_sleeper(&self, bundle: &Bundle) {
        let pid_file = self.pid_file.to_str().unwrap();
        self.call(&["run", "--detach", "--bundle", bundle.path(), "--pid-file", pid_file, &self.sleeper]);
    }

    /// Ends and removes it.
    pub(crate) fn end_sleeper(&self) {
        self.call(&["delete", "--force", &self.sleeper]);
    }

    fn pid(&self) -> u32 {
        let text = std::fs::read_to_string(&self.pid_file).unwrap();
        text.trim().parse().unwrap_or_else(|e| panic!("{text:?} in {}'s pid file: {e}", self.name))
    }
}
