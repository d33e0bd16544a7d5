//! The cgroups of a container: made, limited, read, frozen, killed and removed.
//!
//! An own thin layer instead of libcgroups: on the way of every start we need each folder's
//! descriptor (so that the child enters by itself, see [`Entry`]), one write per limit and none
//! for what is not limited, and `clone3` into version 2. libcgroups (0.7) opens every file by path,
//! enters by `cgroup.procs`, and for version 2's device rules wants libbpf, a C library, in each monitor.

mod delegate;
mod device_program;
mod devices;
mod file;
mod hierarchy;
mod missing;
mod oom;
mod placeholder;
mod rootless;
mod signal;
mod stats_v1;
mod stats_v2;
mod sub;
mod systemd;
mod v1;
mod v2;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

pub(crate) use devices::access as device_access;
pub(crate) use file::{open_folder as open_path, write};
pub(crate) use hierarchy::Hierarchies;
pub(crate) use placeholder::Placeholder;
pub(crate) use systemd::NewUnit;

use rootless::is_rootless;
use systemd::Unit;
use v2::{swap_limit, weight as cpu_weight};

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
    /// Whether its hierarchy has a name and no controllers.
    fn is_for_names_only(&self) -> bool {
        self.controllers.iter().all(|controller| controller.starts_with("name="))
    }

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
    /// The systemd unit whose folders these are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unit: Option<Unit>,
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
    /// The unit into which its manager must move the process, which may not enter by itself.
    pub(crate) unit: Option<Unit>,
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

    /// Moves a new process, where it could not enter by itself.
    pub(crate) fn move_in(&self, pid: i32) -> Result<(), Error> {
        self.unit.as_ref().map_or(Ok(()), |unit| unit.attach(pid))
    }

    /// The v2 folder.
    pub(crate) fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        self.v2.as_ref().map(AsFd::as_fd)
    }
}

impl Cgroup {
    /// Where the cgroup with this path is in each hierarchy. An absolute path is below the hierarchies'
    /// mount points. A relative one is below the caller's own group, with version 2 beside it: a group that has
    /// processes cannot give its controllers to groups below. Nothing is made yet.
    pub(crate) fn locate(hierarchies: &Hierarchies, path: &Path) -> Result<Self, Error> {
        if path.components().any(|c| matches!(c, std::path::Component::ParentDir)) {
            return Err(Error::spec("linux.cgroupsPath", format!("{} has a ..", path.display())));
        }
        let own = if path.is_absolute() { Vec::new() } else { hierarchy::own_groups()? };
        let inner = path.strip_prefix("/").unwrap_or(path);
        let base = |controllers: &str, root: &Path| -> PathBuf {
            let own = own.iter().find(|(c, _)| c == controllers).map_or("/", |(_, p)| p.as_str());
            let inside = Path::new(own).strip_prefix(root).unwrap_or(Path::new(""));
            // a caller outside of its cgroup namespace sees its own group as /../..
            let visible = !inside.components().any(|c| matches!(c, std::path::Component::ParentDir));
            if visible { inside.to_path_buf() } else { PathBuf::new() }
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
            path: mount.join(base("", Path::new("/")).parent().unwrap_or(Path::new(""))).join(inner),
            mount: mount.clone(),
        });
        Ok(Cgroup { v1, v2, unit: None })
    }

    /// Where a unit's cgroup is.
    pub(crate) fn of_unit(hierarchies: &Hierarchies, new: &NewUnit) -> Result<Self, Error> {
        let mut cgroup = Self::locate(hierarchies, &new.cgroup)?;
        cgroup.unit = Some(new.unit.clone());
        Ok(cgroup)
    }

    /// Refuses a group that is in use, as runc does: its processes would share the container's limits, and would die
    /// with it.
    ///
    /// # Errors
    /// [`Error::Spec`].
    pub(crate) fn refuse_used(&self) -> Result<(), Error> {
        let used = |reason: String| Err(Error::spec("linux.cgroupsPath", reason));
        if self.members().is_some_and(|folder| file::exists(&folder.path, "cgroup.procs")) {
            let count = self.processes()?.len();
            if count > 0 {
                return used(format!("container's cgroup is not empty: {count} process(es) found"));
            }
        }
        // the freezer's folder may be there alone; a child that enters it would never answer
        if self.is_frozen() { used("container's cgroup unexpectedly frozen".to_owned()) } else { Ok(()) }
    }

    /// The v1 folders.
    pub(crate) fn v1_folders(&self) -> &[Folder] {
        &self.v1
    }

    /// The v2 folder.
    pub(crate) fn v2_path(&self) -> Option<&Path> {
        self.v2.as_ref().map(|folder| folder.path.as_path())
    }

    /// The folder by whose file the processes are frozen.
    pub(crate) fn freezer(&self) -> Option<&Path> {
        let v1 = self.v1.iter().find(|folder| folder.has("freezer"));
        v1.or(self.v2.as_ref().filter(|_| self.unified())).map(|folder| folder.path.as_path())
    }

    /// Each controller (`name=…`, or nothing for version 2), and the folder's path in its hierarchy.
    pub(crate) fn roots(&self) -> Vec<(String, PathBuf)> {
        let inside = |folder: &Folder| {
            Path::new("/").join(folder.path.strip_prefix(&folder.mount).unwrap_or(&folder.path))
        };
        let v1 = self
            .v1
            .iter()
            .flat_map(|folder| folder.controllers.iter().map(move |c| (c.clone(), inside(folder))));
        v1.chain(self.v2.as_ref().map(|folder| (String::new(), inside(folder)))).collect()
    }

    /// Moves another process in.
    ///
    /// # Errors
    /// [`Error::System`].
    pub(crate) fn move_in(&self, pid: i32) -> Result<(), Error> {
        for folder in self.v1.iter().chain(&self.v2) {
            match write(&folder.path, "cgroup.procs", &pid.to_string()) {
                Ok(()) => {}
                Err(_) if folder.is_for_names_only() && !self.unified() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether limits and counters are version 2's.
    pub(crate) fn unified(&self) -> bool {
        self.v1.is_empty() && self.v2.is_some()
    }

    /// Makes the folders, and what must be set before a process can enter (`cpuset`). Without privileges, folders that may
    /// not be made are left out, unless the specification names the path or asks for limits.
    pub(crate) fn make(&mut self, resources: Option<&LinuxResources>, named: bool) -> Result<Entry, Error> {
        let v1 = self.make_v1(named)?;
        let v2 = self.make_v2(resources, named)?;
        Ok(Entry { v2: v2.v2, unit: v2.unit, ..v1 })
    }

    /// [`Cgroup::make`], version 1's part.
    pub(crate) fn make_v1(&mut self, named: bool) -> Result<Entry, Error> {
        let mut entry = Entry::default();
        let mut failed = Ok(());
        self.v1.retain(|folder| {
            if failed.is_err() {
                return true;
            }
            match v1::make(folder) {
                Ok(tasks) => entry.add(folder, tasks),
                // a named hierarchy is for bookkeeping only, and may be mounted read-only
                Err(_) if folder.is_for_names_only() => {}
                // a limit that needs it will say that it is not there
                Err(error) if !named && rootless::explains(&error) => return false,
                Err(error) => failed = Err(error),
            }
            true
        });
        failed.map(|()| entry)
    }

    /// [`Cgroup::make`], version 2's part.
    pub(crate) fn make_v2(
        &mut self,
        resources: Option<&LinuxResources>,
        named: bool,
    ) -> Result<Entry, Error> {
        let mut entry = Entry::default();
        let Some(folder) = &self.v2 else { return Ok(entry) };
        match v2::make(folder, self.unified().then_some(resources).flatten()) {
            Ok(_) if self.unit.as_ref().is_some_and(Unit::moves_processes) => {
                entry.unit.clone_from(&self.unit)
            }
            Ok(fd) => entry.v2 = Some(fd),
            Err(_) if !self.unified() => {}
            Err(error) => {
                let limited = resources.is_some_and(rootless::asks_for_limits);
                if named || limited || !rootless::explains(&error) {
                    return Err(error);
                }
                self.v2 = None;
            }
        }
        Ok(entry)
    }

    /// How a further process enters. `init` is a process that is in.
    pub(crate) fn entry(&self, init: i32) -> Result<Entry, Error> {
        let mut entry = Entry::default();
        for folder in &self.v1 {
            match file::open_write(&folder.path.join("tasks")) {
                Ok(tasks) => entry.add(folder, tasks),
                Err(_) if folder.is_for_names_only() => {}
                Err(error) => return Err(error),
            }
        }
        if let Some(folder) = &self.v2 {
            match v2::open_for_process(folder, init) {
                Ok(_) if self.unit.as_ref().is_some_and(Unit::moves_processes) => {
                    entry.unit.clone_from(&self.unit)
                }
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

    /// Sets new limits and device rules of a container that runs.
    pub(crate) fn update(&self, resources: &LinuxResources) -> Result<(), Error> {
        if let Some(unit) = &self.unit {
            unit.set(resources)?;
        }
        self.apply(resources)?;
        self.apply_devices(resources)
    }

    /// Sets which devices may be used: the rules of the specification, in their order.
    pub(crate) fn apply_devices(&self, resources: &LinuxResources) -> Result<(), Error> {
        let Some(rules) = resources.devices().as_deref().filter(|rules| !rules.is_empty()) else {
            return Ok(());
        };
        let rules = &devices::with_defaults(rules);
        let result = match &self.v2 {
            Some(folder) if self.unified() => devices::apply_v2(folder, rules),
            _ => devices::apply_v1(&self.v1, rules),
        };
        // who has no privileges makes no device nodes either: the rules only say what holds anyway
        if result.is_err() && is_rootless() { Ok(()) } else { result }
    }

    /// A sample of the counters.
    pub(crate) fn stats(&self) -> Result<Stats, Error> {
        match &self.v2 {
            Some(folder) if self.unified() => stats_v2::read(folder),
            _ => stats_v1::read(&self.v1),
        }
    }
}
