//! The cgroups of a container: made, limited, read, frozen, killed and removed.
//!
//! An own thin layer instead of libcgroups: on the way of every start we need each folder's
//! descriptor (so that the child enters by itself, see [`Entry`]), one write per limit and none
//! for what is not limited, and `clone3` into version 2; libcgroups opens every file by path,
//! enters by `cgroup.procs`, and brings a D-Bus and an eBPF dependency into each monitor's memory.

mod device_program;
mod devices;
mod file;
mod hierarchy;
mod oom;
mod signal;
mod stats_v1;
mod stats_v2;
mod v1;
mod v2;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

pub(crate) use file::{open_folder as open_path, write};
pub(crate) use hierarchy::Hierarchies;

use crate::{Error, Stats};

/// One folder of a container's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Folder {
    /// The controllers of its hierarchy; empty for version 2.
    pub(crate) controllers: Vec<String>,
    /// Where the hierarchy is mounted.
    pub(crate) mount: PathBuf,
    /// The folder.
    pub(crate) path: PathBuf,
}

impl Folder {
    /// Whether its hierarchy has the controller.
    pub(crate) fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|c| c == controller)
    }
}

/// A container's cgroup: one folder in each hierarchy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cgroup {
    /// Version 1 folders; none where version 2 has all controllers.
    v1: Vec<Folder>,
    /// The version 2 folder. Beside `v1` it limits nothing, but kills and freezes as one.
    v2: Option<Folder>,
}

/// How a process enters a cgroup.
#[derive(Debug, Default)]
pub(crate) struct Entry {
    /// The v1 folders' `tasks` files. The child writes `0` to each. A thread that moves itself costs the kernel
    /// nothing; a write of a process id to `cgroup.procs` waits for an RCU grace period, milliseconds.
    pub(crate) tasks: Vec<OwnedFd>,
    /// The same of the hierarchy with device rules, which init enters when it has made its device nodes.
    pub(crate) devices: Option<OwnedFd>,
    /// The v2 folder, for `clone3` with `CLONE_INTO_CGROUP`.
    pub(crate) v2: Option<OwnedFd>,
}

impl Entry {
    fn add(&mut self, folder: &Folder, tasks: OwnedFd) {
        if folder.has("devices") {
            self.devices = Some(tasks);
        } else {
            self.tasks.push(tasks);
        }
    }

    /// For a new cgroup namespace, whose root the process's groups become: it enters them all before.
    pub(crate) fn with_devices_first(mut self) -> Self {
        self.tasks.extend(self.devices.take());
        self
    }

    /// The v2 folder.
    pub(crate) fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        self.v2.as_ref().map(AsFd::as_fd)
    }
}

impl Cgroup {
    /// Where the cgroup with this path is in each hierarchy. An absolute path is below the hierarchies'
    /// mount points, a relative one below the caller's own group. Nothing is made yet.
    pub(crate) fn locate(hierarchies: &Hierarchies, path: &Path) -> Result<Self, Error> {
        if path.components().any(|c| matches!(c, std::path::Component::ParentDir)) {
            return Err(Error::spec("linux.cgroupsPath", format!("{} has a ..", path.display())));
        }
        let own = if path.is_absolute() { Vec::new() } else { hierarchy::own_groups()? };
        let inner = path.strip_prefix("/").unwrap_or(path);
        let base = |controllers: &str, root: &Path| -> PathBuf {
            let own = own.iter().find(|(c, _)| c == controllers).map_or("/", |(_, p)| p.as_str());
            Path::new(own).strip_prefix(root).map(Path::to_path_buf).unwrap_or_default()
        };
        let v1 = hierarchies
            .v1
            .iter()
            .map(|mount| Folder {
                path: mount.point.join(base(&mount.controllers.join(","), &mount.root)).join(inner),
                controllers: mount.controllers.clone(),
                mount: mount.point.clone(),
            })
            .collect();
        let v2 = hierarchies.v2.as_ref().map(|mount| Folder {
            controllers: Vec::new(),
            path: mount.join(base("", Path::new("/"))).join(inner),
            mount: mount.clone(),
        });
        Ok(Cgroup { v1, v2 })
    }

    /// The v1 folders.
    pub(crate) fn v1_folders(&self) -> &[Folder] {
        &self.v1
    }

    /// Whether limits and counters are version 2's.
    pub(crate) fn unified(&self) -> bool {
        self.v1.is_empty() && self.v2.is_some()
    }

    /// Makes the folders, and what must be set before a process can enter (`cpuset`).
    pub(crate) fn make(&self, resources: Option<&LinuxResources>) -> Result<Entry, Error> {
        let mut entry = Entry::default();
        for folder in &self.v1 {
            match v1::make(folder) {
                Ok(tasks) => entry.add(folder, tasks),
                // a named hierarchy is for bookkeeping only, and may be mounted read-only
                Err(_) if folder.controllers.iter().all(|c| c.starts_with("name=")) => {}
                Err(error) => return Err(error),
            }
        }
        if let Some(folder) = &self.v2 {
            match v2::make(folder, self.unified().then_some(resources).flatten()) {
                Ok(fd) => entry.v2 = Some(fd),
                Err(_) if !self.unified() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(entry)
    }

    /// How a further process enters.
    pub(crate) fn entry(&self) -> Result<Entry, Error> {
        let mut entry = Entry::default();
        for folder in &self.v1 {
            match file::open_write(&folder.path.join("tasks")) {
                Ok(tasks) => entry.add(folder, tasks),
                Err(_) if folder.controllers.iter().all(|c| c.starts_with("name=")) => {}
                Err(error) => return Err(error),
            }
        }
        if let Some(folder) = &self.v2 {
            match file::open_folder(&folder.path) {
                Ok(fd) => entry.v2 = Some(fd),
                Err(_) if !self.unified() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(entry)
    }

    /// Sets limits; what is absent stays as it is. Device rules are set by [`Cgroup::apply_devices`].
    pub(crate) fn apply(&self, resources: &LinuxResources) -> Result<(), Error> {
        match &self.v2 {
            Some(folder) if self.unified() => v2::apply(folder, resources),
            _ => v1::apply(&self.v1, resources),
        }
    }

    /// Sets which devices may be used: the rules of the specification, in their order.
    pub(crate) fn apply_devices(&self, resources: &LinuxResources) -> Result<(), Error> {
        let Some(rules) = resources.devices().as_deref().filter(|rules| !rules.is_empty()) else {
            return Ok(());
        };
        let rules = &devices::with_defaults(rules);
        match &self.v2 {
            Some(folder) if self.unified() => devices::apply_v2(folder, rules),
            _ => devices::apply_v1(&self.v1, rules),
        }
    }

    /// A sample of the counters.
    pub(crate) fn stats(&self) -> Result<Stats, Error> {
        match &self.v2 {
            Some(folder) if self.unified() => stats_v2::read(folder),
            _ => stats_v1::read(&self.v1),
        }
    }
}
