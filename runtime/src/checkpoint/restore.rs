//! A container from images.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio as ProcessStdio;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind_recursive, mount_change, unmount};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

use super::criu::{Criu, Notification, Request, Setup};
use super::protobuf::Fields;
use super::{CriuOptions, Folders, externals};
use crate::cgroup::Cgroup;
use crate::container::Gate;
use crate::create::{Prepared, cgroup_path, prepare};
use crate::facts::Facts;
use crate::hooks::HookRunner;
use crate::plan::Plan;
use crate::plan::namespaces::NEWTIME;
use crate::sys::process::unshare;
use crate::{Container, Error, Launch, RootfsSource, Stdio};

/// Options of [`Container::restore`] alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct RestoreOptions<'a> {
    /// The security module's profile, if another than that of the images: `apparmor:NAME`, `selinux:LABEL`.
    pub lsm_profile: Option<&'a str>,
    /// The context of mounts, if another than that of the images.
    pub lsm_mount_context: Option<&'a str>,
}

impl Container {
    /// Makes a container whose processes go on where [`Container::checkpoint`] has stopped them (criu's `restore`). The
    /// launch is that of the old one; its process's arguments do not count. The caller becomes the parent of init. Gives
    /// the terminal's master, if it has a terminal and no `shell_job`. An overlay is mounted for criu in a mount namespace
    /// of its own, in which the hooks run, too.
    ///
    /// # Errors
    /// [`Error::Criu`]; nothing is left then.
    pub fn restore(
        launch: &Launch<'_>,
        options: &CriuOptions<'_>,
        own: &RestoreOptions<'_>,
    ) -> Result<(Container, Option<OwnedFd>), Error> {
        let Prepared { mut unit, mut cgroup, plan } = prepare(launch, false)?;
        let resources = launch.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
        cgroup.refuse_used()?;
        let placeholder = unit.as_mut().map(|unit| unit.start(resources)).transpose()?;
        let limited = cgroup.make(resources, cgroup_path(launch).is_some()).and_then(|_| match resources {
            Some(resources) => cgroup.apply(resources).and_then(|()| cgroup.apply_devices(resources)),
            None => Ok(()),
        });
        let result = limited.and_then(|()| match launch.rootfs {
            RootfsSource::Bundle => bring_back(launch, options, own, plan, &cgroup),
            RootfsSource::Overlay { .. } => on_overlay(launch, options, own, plan, &cgroup),
        });
        drop(placeholder);
        match result {
            Ok(Restored { pid, pidfd, terminal, hooks, plan }) => {
                let warnings = plan.warnings.clone();
                let mut facts = Facts::new(launch, pid, cgroup, plan, hooks, None);
                // so that its clocks go on where they were, criu gives it a time namespace
                if other_namespace(pid, "time") {
                    facts.namespaces |= NEWTIME;
                }
                Ok((Container { facts, pidfd, gate: Gate::Open, warnings }, terminal))
            }
            Err(error) => {
                let _ = cgroup.destroy(); // the first failure is what counts
                Err(error)
            }
        }
    }
}

/// Whether a process is in another namespace of that kind than the caller.
fn other_namespace(pid: i32, kind: &str) -> bool {
    let link = |of: String| std::fs::read_link(format!("/proc/{of}/ns/{kind}")).ok();
    link(pid.to_string()) != link("self".to_owned())
}

/// What criu has brought back.
struct Restored {
    pid: i32,
    pidfd: OwnedFd,
    terminal: Option<OwnedFd>,
    hooks: HookRunner,
    plan: Plan,
}

/// In a thread with a mount namespace of its own, where the overlay is at the root file system's place: the host never
/// sees that mount, and it goes when criu does.
fn on_overlay(
    launch: &Launch<'_>,
    options: &CriuOptions<'_>,
    own: &RestoreOptions<'_>,
    plan: Plan,
    cgroup: &Cgroup,
) -> Result<Restored, Error> {
    std::thread::scope(|scope| {
        let work = move || {
            unshare(libc::CLONE_NEWNS).map_err(|e| Error::system("unshare", "the mount namespace", e))?;
            // attached to its place, where it stays
            crate::child::root::make(&plan.rootfs).map(drop).map_err(Error::from)?;
            bring_back(launch, options, own, plan, cgroup)
        };
        let thread = std::thread::Builder::new().spawn_scoped(scope, work);
        let thread = thread.map_err(|e| Error::system("start", "a thread for criu", e))?;
        thread.join().unwrap_or(Err(Error::InitDied))
    })
}

fn bring_back(
    launch: &Launch<'_>,
    options: &CriuOptions<'_>,
    own: &RestoreOptions<'_>,
    plan: Plan,
    cgroup: &Cgroup,
) -> Result<Restored, Error> {
    let folders = Folders::open(options, false)?;
    let rootfs = super::rootfs(launch.spec, launch.bundle)?;
    let root = match launch.rootfs {
        RootfsSource::Bundle => Root::mount(&rootfs)?,
        RootfsSource::Overlay { .. } => Root { path: rootfs.clone(), ours: false },
    };
    let mut fields = options.fields(&folders, "restore.log", launch.spec);
    fields.flag(6, true); // devices whose numbers have changed
    fields.text(13, &root.path.to_string_lossy());
    fields.flag(26, true); // init becomes our child
    for (field, text) in [(53, own.lsm_profile), (63, own.lsm_mount_context)] {
        if let Some(text) = text {
            fields.text(field, text);
        }
    }
    for (controller, path) in cgroup.roots() {
        let mut pair = Fields::default();
        pair.text(1, &controller);
        pair.text(2, &path.to_string_lossy());
        fields.message(25, &pair);
    }
    let namespaces = externals::of_restore(&mut fields, &plan, cgroup, launch.spec, &rootfs)?;
    externals::standard_pipes(&mut fields, options.images);
    let hooks = HookRunner::new(launch);
    let criu = Criu::start(Setup {
        pass: folders.descriptors().chain(externals::borrowed(&namespaces)).collect(),
        stdio: Some(stdio(launch.stdio)?),
        log: options.log("restore.log"),
    })?;
    // what it makes is born where it is
    cgroup.move_in(criu.pid())?;
    let mut init: Option<(i32, OwnedFd)> = None;
    let mut terminal = None;
    let result =
        criu.perform(Request::Restore, &fields, |Notification { name, pid, fd }| match name.as_str() {
            "setup-namespaces" => hooks.before_pivot(pid),
            "post-restore" => {
                let failed = |errno| Error::system("open process", pid, errno);
                let process = Pid::from_raw(pid).ok_or(Error::InitDied)?;
                init = Some((pid, pidfd_open(process, PidfdFlags::empty()).map_err(failed)?));
                Ok(())
            }
            "orphan-pts-master" => {
                terminal = fd;
                Ok(())
            }
            _ => Ok(()),
        });
    match (result, init) {
        (Ok(_), Some((pid, pidfd))) => Ok(Restored { pid, pidfd, terminal, hooks, plan }),
        (Ok(_), None) => Err(Error::InitDied),
        (Err(error), init) => {
            if let Some((_, pidfd)) = init {
                let _ = crate::sys::process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL);
                let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
            }
            Err(error)
        }
    }
}

/// The root file system, mounted for as long as criu works: it moves processes into roots that are mount points only, and
/// looks them up in the caller's mount namespace, as it does with the images.
struct Root {
    path: PathBuf,
    /// Whether it is to be taken away.
    ours: bool,
}

impl Root {
    fn mount(rootfs: &Path) -> Result<Self, Error> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("wherry-criu-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).map_err(|e| Error::system("make", path.display(), e))?;
        let root = Root { path, ours: true }; // from here on it is removed
        mount_bind_recursive(rootfs, &root.path)
            .and_then(|()| {
                mount_change(&root.path, MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
            })
            .map_err(|e| Error::system("mount", rootfs.display(), e))?;
        Ok(root)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        if !self.ours {
            return;
        }
        let _ = unmount(&self.path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
        let _ = std::fs::remove_dir(&self.path);
    }
}

/// criu's own standard I/O, which the restored processes take over.
fn stdio(stdio: Stdio<'_>) -> Result<[ProcessStdio; 3], Error> {
    let copy = |fd: std::os::fd::BorrowedFd<'_>| {
        fd.try_clone_to_owned()
            .map(ProcessStdio::from)
            .map_err(|e| Error::system("duplicate", "standard I/O", e))
    };
    match stdio {
        Stdio::Inherit => Ok([ProcessStdio::inherit(), ProcessStdio::inherit(), ProcessStdio::inherit()]),
        Stdio::Fds { stdin, stdout, stderr } => Ok([copy(stdin)?, copy(stdout)?, copy(stderr)?]),
        Stdio::Terminal { .. } | Stdio::CopiedTerminal => {
            Ok([ProcessStdio::null(), ProcessStdio::null(), ProcessStdio::null()])
        }
    }
}
