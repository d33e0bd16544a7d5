//! `linux.namespaces`: which are new, which are joined, and how many processes that takes.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType};
use rustix::fs::{CWD, Mode, OFlags};

use super::c_string;
use crate::Error;

/// `CLONE_NEWTIME`, which libc lacks.
pub(crate) const NEWTIME: i32 = 0x80;

/// A namespace that is joined by path.
#[derive(Debug)]
pub(crate) struct Join {
    /// `CLONE_NEW*`.
    pub(crate) flag: i32,
    /// The namespace.
    pub(crate) fd: OwnedFd,
    /// For messages.
    pub(crate) path: CString,
}

/// How a user namespace comes about.
#[derive(Debug)]
pub(crate) enum User {
    /// A new one, with these mappings, which the parent writes.
    New { uids: Vec<LinuxIdMapping>, gids: Vec<LinuxIdMapping> },
    /// An existing one; see [`Namespaces::before_fork`].
    Joined { namespace: OwnedFd },
}

/// All namespaces of a container.
#[derive(Debug)]
pub(crate) struct Namespaces {
    /// `CLONE_NEW*` of those that are new; see [`Namespaces::clone_flags`].
    pub(crate) new: u64,
    /// Joined by the child itself.
    pub(crate) join: Vec<Join>,
    /// Joined by a process in between, since they only count for its children (pid, time) or must come
    /// before the new ones are made (user).
    pub(crate) before_fork: Vec<Join>,
    /// Text for `timens_offsets` of a new time namespace, written by the process in between.
    pub(crate) time_offsets: Option<String>,
    /// The user namespace, unless it is the caller's.
    pub(crate) user: Option<User>,
    /// Whether the caller is root, who may write the mappings of any user namespace.
    pub(crate) caller_is_root: bool,
    /// Whether the cgroup namespace is a new one. It is made after the cgroup has been entered.
    pub(crate) cgroup: bool,
    /// Whether the network namespace is not the caller's.
    pub(crate) net: bool,
    /// Whether the network namespace is a new one, whose loopback device is down.
    pub(crate) new_net: bool,
    /// Whether the new network namespace must be there from the beginning.
    pub(crate) net_at_once: bool,
    /// Whether the IPC namespace is not the caller's.
    pub(crate) ipc: bool,
    /// Whether the UTS namespace is not the caller's.
    pub(crate) uts: bool,
    /// Whether the mount namespace is not the caller's.
    pub(crate) mount: bool,
}

impl Namespaces {
    /// The flags for `clone3`. A new network namespace takes the kernel longest by far: the child makes it by itself, while
    /// its parent makes the cgroups; unless that parent has devices to move there.
    pub(crate) fn clone_flags(&self) -> u64 {
        if self.net_at_once { self.new } else { self.new & !u64::from(libc::CLONE_NEWNET.unsigned_abs()) }
    }

    /// A namespace that is joined, by its kind (`CLONE_NEW*`).
    pub(crate) fn joined(&self, flag: i32) -> Option<BorrowedFd<'_>> {
        let all = self.join.iter().chain(&self.before_fork);
        all.into_iter().find(|join| join.flag == flag).map(|join| join.fd.as_fd())
    }

    /// Whether a process in between is needed.
    pub(crate) fn needs_fork(&self) -> bool {
        !self.before_fork.is_empty() || self.time_offsets.is_some()
    }
}

fn flag(kind: LinuxNamespaceType) -> i32 {
    match kind {
        LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
        LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
        LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
        LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
        LinuxNamespaceType::User => libc::CLONE_NEWUSER,
        LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
        LinuxNamespaceType::Network => libc::CLONE_NEWNET,
        LinuxNamespaceType::Time => NEWTIME,
    }
}

/// Compiles.
pub(crate) fn compile(linux: &Linux) -> Result<Namespaces, Error> {
    let mut all = Namespaces {
        new: 0,
        join: Vec::new(),
        before_fork: Vec::new(),
        time_offsets: None,
        user: None,
        caller_is_root: rustix::process::geteuid().is_root(),
        cgroup: false,
        net: false,
        new_net: false,
        net_at_once: linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty()),
        ipc: false,
        uts: false,
        mount: false,
    };
    let mut seen = 0;
    for namespace in linux.namespaces().iter().flatten() {
        let kind = namespace.typ();
        let flag = flag(kind);
        if seen & flag != 0 {
            return Err(Error::spec("linux.namespaces", format!("{kind:?} is there twice")));
        }
        seen |= flag;
        match kind {
            LinuxNamespaceType::Network => all.net = true,
            LinuxNamespaceType::Ipc => all.ipc = true,
            LinuxNamespaceType::Uts => all.uts = true,
            LinuxNamespaceType::Mount => all.mount = true,
            _ => {}
        }
        match namespace.path().as_deref().filter(|p| !p.as_os_str().is_empty()) {
            Some(path) => all.add_join(kind, flag, path)?,
            None => all.add_new(kind, flag, linux)?,
        }
    }
    all.order();
    let mapped = |list: &Option<Vec<_>>| list.as_ref().is_some_and(|list| !list.is_empty());
    if all.user.is_none() && (mapped(linux.uid_mappings()) || mapped(linux.gid_mappings())) {
        return Err(Error::spec("linux.uidMappings", "there is no user namespace to map ids in"));
    }
    Ok(all)
}

/// In a mount namespace that is joined the container's root file system takes the place of the one that is there, as with runc, for
/// all who are in it: the specification wants `root` to be used also then. That must not be the host's.
fn refuse_the_hosts_mounts(join: &Join) -> Result<(), Error> {
    let number = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
    let failed = |errno| Error::system("look at", join.path.to_string_lossy(), errno);
    let joined = rustix::fs::fstat(&join.fd).map(number).map_err(failed)?;
    let is_hosts = |path: &str| rustix::fs::stat(path).is_ok_and(|stat| number(stat) == joined);
    if is_hosts("/proc/self/ns/mnt") || is_hosts("/proc/1/ns/mnt") {
        let text = format!(
            "{} is the host's mount namespace, whose root would be replaced",
            join.path.to_string_lossy()
        );
        return Err(Error::spec("linux.namespaces", text));
    }
    Ok(())
}

impl Namespaces {
    /// The order of joining. Root joins the user namespace last: namespaces that belong to the host's one
    /// could not be joined from within. Everybody else has privileges over the others only there.
    fn order(&mut self) {
        if self.user.is_none() || !self.caller_is_root {
            return;
        }
        // before a new user namespace comes about, too
        self.before_fork.append(&mut self.join);
        self.before_fork.sort_by_key(|join| join.flag == libc::CLONE_NEWUSER);
    }

    fn add_join(&mut self, kind: LinuxNamespaceType, flag: i32, path: &Path) -> Result<(), Error> {
        let fd = rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| Error::system("open namespace", path.display(), errno))?;
        let join = Join { flag, fd, path: c_string("linux.namespaces", &path.to_string_lossy())? };
        match kind {
            LinuxNamespaceType::User => {
                let namespace =
                    join.fd.try_clone().map_err(|e| Error::system("duplicate", path.display(), e))?;
                self.user = Some(User::Joined { namespace });
                self.before_fork.insert(0, join); // its privileges are needed for the others
            }
            LinuxNamespaceType::Pid | LinuxNamespaceType::Time => self.before_fork.push(join),
            LinuxNamespaceType::Mount => {
                refuse_the_hosts_mounts(&join)?;
                self.join.push(join);
            }
            _ => self.join.push(join),
        }
        Ok(())
    }

    fn add_new(&mut self, kind: LinuxNamespaceType, flag: i32, linux: &Linux) -> Result<(), Error> {
        let bit = u64::from(flag.unsigned_abs());
        match kind {
            LinuxNamespaceType::Cgroup => self.cgroup = true,
            LinuxNamespaceType::Time => {
                let offsets =
                    linux.time_offsets().iter().flatten().fold(String::new(), |text, (clock, offset)| {
                        format!(
                            "{text}{clock} {} {}\n",
                            offset.secs().unwrap_or(0),
                            offset.nanosecs().unwrap_or(0)
                        )
                    });
                if offsets.is_empty() {
                    self.new |= bit;
                } else {
                    self.time_offsets = Some(offsets);
                }
            }
            LinuxNamespaceType::User => {
                self.new |= bit;
                let list = |list: &Option<Vec<LinuxIdMapping>>| list.clone().unwrap_or_default();
                let (uids, gids) = (list(linux.uid_mappings()), list(linux.gid_mappings()));
                if uids.is_empty() || gids.is_empty() {
                    return Err(Error::spec(
                        "linux.uidMappings",
                        "a new user namespace needs uidMappings and gidMappings",
                    ));
                }
                self.user = Some(User::New { uids, gids });
            }
            LinuxNamespaceType::Network => {
                self.new |= bit;
                self.new_net = true;
            }
            _ => self.new |= bit,
        }
        Ok(())
    }
}
