//! Named runtimes: another program with runc's command line makes the container. From then on it is as if we had made it: its
//! init is ours to reap (we are its nearest subreaper), and signals, execs, limits and figures go by its namespaces and cgroups.
//! So it must be a runtime that uses those: runc, crun, wherry-runtime, youki; not one of virtual machines.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use oci_spec::runtime::Spec;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use serde::Deserialize;
use wherry_monitor_api::{ExternalRuntime, Failure, FailureKind};
use wherry_runtime::{CgroupManager, Container, Launch};

use crate::control::{failure, system};
use crate::launch::runtime_failure;

/// What another runtime keeps of a container, to be removed with it.
#[derive(Debug)]
pub(crate) struct External {
    runtime: ExternalRuntime,
    id: String,
    /// Below it: the bundle and the runtime's own state.
    folder: PathBuf,
    rootfs: PathBuf,
    systemd_cgroup: bool,
}

/// The three descriptors of the program, or none for a terminal.
pub(crate) type Descriptors = Option<[OwnedFd; 3]>;

impl External {
    /// Makes the container and starts its program, or brings it back from a checkpoint. Gives the terminal's master if
    /// there are no `descriptors`.
    pub(crate) fn run(
        runtime: &ExternalRuntime,
        launch: &Launch<'_>,
        descriptors: Descriptors,
        checkpoint: Option<&Path>,
    ) -> Result<(Container, Option<OwnedFd>, Self), Failure> {
        let external = Self::of(runtime, launch);
        match external.create_and_start(launch, descriptors, checkpoint) {
            Ok((container, terminal)) => Ok((container, terminal, external)),
            Err(failure) => {
                external.remove();
                Err(failure)
            }
        }
    }

    /// What a runtime keeps, or may keep, of a container.
    pub(crate) fn of(runtime: &ExternalRuntime, launch: &Launch<'_>) -> Self {
        let rootfs = launch.spec.root().as_ref().map_or_else(PathBuf::new, |root| root.path().clone());
        Self {
            runtime: runtime.clone(),
            id: launch.id.to_owned(),
            folder: rootfs.parent().unwrap_or(Path::new("/")).to_owned(),
            rootfs,
            systemd_cgroup: launch.cgroup_manager == CgroupManager::Systemd,
        }
    }

    fn create_and_start(
        &self,
        launch: &Launch<'_>,
        descriptors: Descriptors,
        checkpoint: Option<&Path>,
    ) -> Result<(Container, Option<OwnedFd>), Failure> {
        // On the host: the other runtime knows no overlays.
        launch.mount_overlay().map_err(|e| runtime_failure(&e))?;
        let bundle = self.bundle();
        let pid_file = bundle.join("pid");
        let spec = for_others(launch.spec);
        let write = || {
            std::fs::create_dir_all(&bundle)?;
            std::fs::write(bundle.join("config.json"), serde_json::to_vec(&spec)?)
        };
        write().map_err(|e| system(format!("write {}", bundle.display()), &e))?;
        let mut create = self.command();
        match checkpoint {
            None => create.arg("create"),
            Some(images) => create.args(["restore", "--detach", "--image-path"]).arg(images),
        };
        create.arg("--bundle").arg(&bundle).arg("--pid-file").arg(&pid_file);
        let console = match descriptors {
            Some([stdin, stdout, stderr]) => {
                create.stdin(stdin).stdout(stdout).stderr(stderr);
                None
            }
            None => {
                let console = Console::listen(&bundle).map_err(|e| system("listen for the terminal", &e))?;
                create.arg("--console-socket").arg(&console.path);
                Some(console)
            }
        };
        self.finish(create.arg(&self.id))?;
        let terminal = console.map(|console| console.take_terminal()).transpose();
        let terminal = terminal.map_err(|e| system("take the terminal", &e.into()))?;
        let pid = std::fs::read_to_string(&pid_file).ok().and_then(|text| text.trim().parse().ok());
        let pid = pid.ok_or_else(|| failure(FailureKind::System, "the runtime left no process id"))?;
        let container = Container::adopt(launch, pid).map_err(|e| runtime_failure(&e))?;
        if checkpoint.is_none() {
            self.finish(self.command().arg("start").arg(&self.id))?;
        }
        Ok((container, terminal))
    }

    /// Has the runtime write the processes to files.
    pub(crate) fn checkpoint(&self, images: &Path, exit: bool) -> Result<(), Failure> {
        let mut command = self.command();
        command.arg("checkpoint").arg("--image-path").arg(images);
        if !exit {
            command.arg("--leave-running");
        }
        self.finish(command.arg(&self.id))
    }

    fn bundle(&self) -> PathBuf {
        self.folder.join("bundle")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("runtime.log")
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.runtime.path);
        command.args(&self.runtime.args);
        command.arg("--root").arg(self.folder.join("runtime"));
        command.arg("--log").arg(self.log()).args(["--log-format", "json"]);
        if self.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Runs a command to its end; its failure is what it has logged.
    fn finish(&self, command: &mut Command) -> Result<(), Failure> {
        let _ = std::fs::remove_file(self.log());
        let status =
            command.status().map_err(|e| system(format!("run {}", self.runtime.path.display()), &e))?;
        if status.success() {
            return Ok(());
        }
        #[derive(Deserialize)]
        struct Line {
            level: String,
            msg: String,
        }
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let mut lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
        let said = lines.rfind(|line| line.level == "error");
        let reason = said
            .map_or_else(|| format!("{} ended with {status}", self.runtime.path.display()), |line| line.msg);
        // Runtimes differ in capitals only; dockerd looks for the same words.
        let lower = reason.to_lowercase();
        let kind =
            if lower.contains("executable file not found") || lower.contains("no such file or directory") {
                FailureKind::NotFound
            } else if lower.contains("permission denied") {
                FailureKind::NotExecutable
            } else {
                FailureKind::System
            };
        Err(failure(kind, reason))
    }

    /// Removes all of it. Nothing there is fine.
    pub(crate) fn remove(&self) {
        let _ = self.command().args(["delete", "--force", &self.id]).status();
        while unmount(&self.rootfs, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_ok() {}
        for folder in [self.bundle(), self.folder.join("runtime")] {
            let _ = std::fs::remove_dir_all(folder);
        }
        let _ = std::fs::remove_file(self.log());
    }
}

/// A specification as older runtimes take it, with the same meaning.
fn for_others(spec: &Spec) -> Spec {
    let mut spec = spec.clone();
    // crun before 1.9 accepts no later version, and all ignore what they do not know.
    spec.set_version("1.0.2".to_owned());
    for mount in spec.mounts_mut().iter_mut().flatten() {
        let below = mount.source().as_ref().is_none_or(|source| source.is_dir());
        // Nothing is mounted below a file, and that crun fails there.
        for option in mount.options_mut().iter_mut().flatten().filter(|option| !below && *option == "rro") {
            *option = "ro".to_owned();
        }
    }
    spec
}

/// Where the runtime sends the terminal's master.
struct Console {
    listener: UnixListener,
    /// By way of a descriptor of ours, since the folder's own path may be longer than a socket's address holds.
    path: PathBuf,
    _folder: OwnedFd,
}

impl Console {
    fn listen(bundle: &Path) -> std::io::Result<Self> {
        let folder = rustix::fs::open(bundle, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let path = PathBuf::from(format!("/proc/{}/fd/{}/console", std::process::id(), folder.as_raw_fd()));
        let _ = std::fs::remove_file(&path);
        Ok(Self { listener: UnixListener::bind(&path)?, path, _folder: folder })
    }

    /// The terminal, which was sent before the runtime ended.
    fn take_terminal(&self) -> Result<OwnedFd, Errno> {
        let lost = |e: std::io::Error| Errno::from_io_error(&e).unwrap_or(Errno::IO);
        self.listener.set_nonblocking(true).map_err(lost)?;
        let (stream, _) = self.listener.accept().map_err(lost)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut name = [0; 4096];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        rustix::net::recvmsg(stream.as_fd(), &mut [IoSliceMut::new(&mut name)], &mut control, flags)?;
        let sent = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        sent.ok_or(Errno::BADF)
    }
}
