//! Making a container: the parent's side.

#![allow(unsafe_code)] // clone3

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use oci_spec::runtime::LinuxResources;
use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

use crate::cgroup::{Cgroup, Entry, Hierarchies, NewUnit};
use crate::child::channel::{
    CGROUPS_MAX, CREATED, Channel, GO, HOOKS, LISTENER, MAP_IDS, PACKET_MAX, TERMINAL, parse_failure,
    parse_trace,
};
use crate::child::mount::map_ids;
use crate::exec::{between_pid, set_oom_score};
use crate::hooks::HookRunner;
use crate::host_root::HostRoot;
use crate::plan::mounts::mapping_lines;
use crate::plan::namespaces::User;
use crate::plan::{self, Plan, net_devices};
use crate::sys::process::{CloneRequest, Cloned, clone3, pidfd_send_signal};
use crate::trace::tell as trace;
use crate::{CgroupManager, Error, Launch, RootfsSource, Step, Trace, Warning};

/// The name of the socket by which another process starts a container.
pub(crate) const START_SOCKET: &str = "start.sock";

/// A container's init, made.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) terminal: Option<OwnedFd>,
    pub(crate) channel: Channel,
    pub(crate) cgroup: Cgroup,
    pub(crate) plan: Plan,
    pub(crate) hooks: HookRunner,
    pub(crate) host_root: Option<HostRoot>,
}

/// Makes a container; with `wait` init stops before it executes the program.
pub(crate) fn make(launch: &Launch<'_>, wait: bool) -> Result<Made, Error> {
    let Prepared { mut unit, cgroup, mut plan } = prepare(launch, wait)?;
    let resources = launch.spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let named = cgroup_path(launch).is_some();
    let listener = launch.start_socket_in.filter(|_| wait).map(listen).transpose()?;
    let hooks = HookRunner::new(launch);
    cgroup.refuse_used()?;
    let socket = launch.start_socket_in.filter(|_| wait);
    let mut undo = Undo { cgroup, made: false, socket, host_root: None };
    let placeholder = unit.as_mut().map(|unit| unit.start(resources)).transpose()?;
    // A child in a user namespace enters as the caller, before anything else; and systemd has made the groups already.
    let v1_count = undo.cgroup.v1_folders().len();
    plan.cgroups_come_later =
        unit.is_none() && plan.namespaces.user.is_none() && (1..CGROUPS_MAX).contains(&v1_count);
    if plan.cgroups_come_later {
        undo.made = true;
        plan.entry = undo.cgroup.make_v2(resources, named)?;
    } else {
        let entry = undo.cgroup.make(resources, named)?;
        undo.made = true;
        undo.cgroup.delegate(launch.spec)?;
        plan.entry = complete(&plan, &undo.cgroup, entry, resources)?;
    }
    crate::prepare::for_user_namespace(&plan)?;
    undo.host_root = HostRoot::mount(&plan.rootfs)?;
    let (channel, init) =
        fork(&plan, listener.as_ref(), launch.trace).map_err(|error| plan.explain(error))?;
    trace(launch.trace, || format!("the container's init is process {}", init.pid));
    let entered = plan.entry.move_in(init.pid);
    drop(placeholder); // init holds the unit from now on
    let result = entered.and_then(|()| unit.as_mut().map_or(Ok(()), NewUnit::finish)).and_then(|()| {
        if plan.cgroups_come_later {
            let entry = undo.cgroup.make_v1(named)?;
            send_cgroups(&channel, &complete(&plan, &undo.cgroup, entry, resources)?)?;
        }
        bring_up(&plan, &channel, &init, &undo.cgroup, resources, &hooks, launch.trace)
    });
    drop(listener);
    match result {
        Ok(terminal) => {
            let (cgroup, host_root) = undo.commit();
            plan.entry = Entry::default();
            let Init { pid, pidfd } = init;
            Ok(Made { pid, pidfd, terminal, channel, cgroup, plan, hooks, host_root })
        }
        Err(error) => {
            let error = plan.explain(error);
            let _ = pidfd_send_signal(init.pidfd.as_fd(), libc::SIGKILL);
            let _ = waitid(WaitId::PidFd(init.pidfd.as_fd()), WaitIdOptions::EXITED);
            Err(error)
        }
    }
}

/// All that is known before anything is made.
pub(crate) struct Prepared {
    pub(crate) unit: Option<NewUnit>,
    pub(crate) cgroup: Cgroup,
    pub(crate) plan: Plan,
}

/// Refuses all that can be refused without making anything.
pub(crate) fn prepare(launch: &Launch<'_>, wait: bool) -> Result<Prepared, Error> {
    check_id(launch.id)?;
    let hierarchies = Hierarchies::detect()?;
    let (unit, cgroup) = locate(launch, &hierarchies)?;
    let plan = plan::compile(launch, &hierarchies, &cgroup, wait)?;
    Ok(Prepared { unit, cgroup, plan })
}

/// Where its cgroup is, or will be.
fn locate(launch: &Launch<'_>, hierarchies: &Hierarchies) -> Result<(Option<NewUnit>, Cgroup), Error> {
    let unit = match launch.cgroup_manager {
        CgroupManager::Cgroupfs => None,
        CgroupManager::Systemd => Some(NewUnit::plan(launch.id, launch.spec, hierarchies)?),
    };
    let cgroup = match &unit {
        Some(unit) => Cgroup::of_unit(hierarchies, unit)?,
        None => Cgroup::locate(hierarchies, cgroup_path(launch).unwrap_or(Path::new(launch.id)))?,
    };
    Ok((unit, cgroup))
}

impl Launch<'_> {
    /// Checks all that can be checked without making anything: the specification is compiled as for
    /// [`crate::Container::create`], and thrown away. Gives what would not be as it is asked for.
    ///
    /// # Errors
    /// What `create` would say.
    pub fn validate(&self) -> Result<Vec<Warning>, Error> {
        prepare(self, false).map(|prepared| prepared.plan.warnings)
    }

    /// Mounts the overlay of the root file system on `root.path` in the caller's mount namespace, for a runtime of somebody
    /// else's that is to find it there; the caller unmounts it. Without an overlay it does nothing.
    ///
    /// # Errors
    /// [`Error::Setup`] with the step that failed, [`Error::Unsupported`] for more layers than the kernel takes.
    pub fn mount_overlay(&self) -> Result<(), Error> {
        if let RootfsSource::Overlay { .. } = self.rootfs {
            crate::child::root::mount(&plan::rootfs::compile(self, true)?).map(drop)?;
        }
        Ok(())
    }

    /// Ends whatever is in the cgroups of a container whose maker was killed, so that nobody has a [`crate::Container`], and
    /// removes them. Nothing there is fine. Of the specification only `linux.cgroupsPath` counts.
    ///
    /// # Errors
    /// [`Error::InvalidId`]; [`Error::System`] if a process does not go.
    pub fn clear(&self) -> Result<(), Error> {
        check_id(self.id)?;
        locate(self, &Hierarchies::detect()?)?.1.destroy()
    }
}

/// Removes what has been made, unless committed. Runs after init has been reaped.
struct Undo<'a> {
    cgroup: Cgroup,
    /// Whether the cgroup is there, or some of its folders.
    made: bool,
    socket: Option<&'a Path>,
    host_root: Option<HostRoot>,
}

impl Undo<'_> {
    fn commit(mut self) -> (Cgroup, Option<HostRoot>) {
        self.made = false;
        self.socket = None;
        (std::mem::take(&mut self.cgroup), self.host_root.take())
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if self.made {
            let _ = self.cgroup.destroy(); // the first failure is what counts
        }
        if let Some(folder) = self.socket {
            let _ = std::fs::remove_file(folder.join(START_SOCKET));
        }
        if let Some(root) = &self.host_root {
            root.unmount();
        }
    }
}

/// Whether this can be a container's id: ids become names of folders. Letters, digits, `_`, `+`, `-` and `.`, as runc has it.
pub fn is_container_id(id: &str) -> bool {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
    !id.is_empty() && id != "." && id != ".." && id.len() <= 1024 && id.chars().all(fine)
}

/// Refuses what is no id.
pub(crate) fn check_id(id: &str) -> Result<(), Error> {
    if is_container_id(id) { Ok(()) } else { Err(Error::InvalidId { id: id.to_owned() }) }
}

/// `linux.cgroupsPath`, if there is one.
pub(crate) fn cgroup_path<'a>(launch: &Launch<'a>) -> Option<&'a Path> {
    let path = launch.spec.linux().as_ref()?.cgroups_path().as_deref();
    path.filter(|path| !path.as_os_str().is_empty())
}

/// A socket in `folder` that listens. Bound by way of a descriptor: the path may be longer than a
/// socket address holds.
fn listen(folder: &Path) -> Result<OwnedFd, Error> {
    let path = folder.join(START_SOCKET);
    let failed = |errno| Error::system("make socket", path.display(), errno);
    let directory = crate::cgroup::open_path(folder)?;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .map_err(failed)?;
    // before it has a name: whoever may connect may start the container
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(failed)?;
    rustix::net::bind(&socket, &start_address(&directory)?).map_err(failed)?;
    rustix::net::listen(&socket, 1).map_err(failed)?;
    Ok(socket)
}

/// The address of the start socket in an open folder.
pub(crate) fn start_address(directory: &OwnedFd) -> Result<SocketAddrUnix, Error> {
    let path = format!("/proc/self/fd/{}/{START_SOCKET}", std::os::fd::AsRawFd::as_raw_fd(directory));
    SocketAddrUnix::new(path.as_str()).map_err(|errno| Error::system("name socket", path, errno))
}

/// A new init.
struct Init {
    pid: i32,
    pidfd: OwnedFd,
}

/// Makes the child, and the channel to it.
fn fork(plan: &Plan, listener: Option<&OwnedFd>, trace: Option<Trace<'_>>) -> Result<(Channel, Init), Error> {
    let failed = |errno: Errno| Error::system("make", "the container's init", errno);
    let (channel, theirs) = Channel::pair().map_err(failed)?;
    let theirs = theirs.traced(trace.is_some());
    let between = plan.namespaces.needs_fork();
    let request = if between {
        CloneRequest::default()
    } else {
        CloneRequest {
            flags: plan.namespaces.clone_flags(),
            cgroup: plan.entry.clone_into(),
            as_sibling: false,
        }
    };
    // SAFETY: the child runs `run_init` or `run_between`, which keep to what is allowed and never return.
    let (pid, pidfd) = match unsafe { clone3(request) }.map_err(failed)? {
        Cloned::Child => {
            drop(channel); // so that the parent's end is closed when the parent ends
            if between {
                crate::child::run_between(plan, &theirs, listener)
            }
            crate::child::run_init(plan, &theirs, listener)
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    drop(theirs);
    if !between {
        return Ok((channel, Init { pid, pidfd }));
    }
    let pid = between_pid(&channel, trace);
    let _ = waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
    let pid = pid?;
    let pidfd = Pid::from_raw(pid)
        .ok_or(Error::InitDied)
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).map_err(failed))?;
    Ok((channel, Init { pid, pidfd }))
}

/// Does the parent's part while the child does its own, and hears how that goes.
fn bring_up(
    plan: &Plan,
    channel: &Channel,
    init: &Init,
    cgroup: &Cgroup,
    resources: Option<&LinuxResources>,
    hooks: &HookRunner,
    trace_to: Option<Trace<'_>>,
) -> Result<Option<OwnedFd>, Error> {
    if let Some(User::New { uids, gids }) = &plan.namespaces.user {
        crate::userns::write_mappings(init.pid, uids, gids)?;
        for (file, mappings) in [("uid_map", uids), ("gid_map", gids)] {
            let text = || mapping_lines(mappings);
            trace(trace_to, || format!("update /proc/{}/{file} to '{}'", init.pid, text().trim_end()));
        }
        tell(channel)?;
    }
    if let Some(files) = &plan.hooks.files {
        hooks.write_state(&files.state, "creating", Some(init.pid))?;
    }
    if let Some(resources) = resources {
        cgroup.apply(resources)?;
        if !plan.namespaces.cgroup {
            cgroup.apply_devices(resources)?;
        }
        trace(trace_to, || "the cgroup's limits are set".to_owned());
    }
    set_oom_score(init.pid, plan.process.oom_score_adj)?;
    net_devices::hand_over(&plan.net_devices, &plan.namespaces, init.pid)?;
    // the last answer is followed by the word that the limits are set
    let mut questions = plan.questions();
    if questions == 0 {
        tell(channel)?;
    }
    let mut answer = || {
        questions = questions.saturating_sub(1);
        tell(channel).and_then(|()| if questions == 0 { tell(channel) } else { Ok(()) })
    };
    let mut to_map = plan.mounts.iter().filter(|mount| mount.asks_parent());
    let listener = plan.process.seccomp.as_ref().and_then(|filter| filter.listener.as_ref());
    hear(channel, plan.wait_for_start, trace_to, |message, fd| match (message, fd, listener) {
        (LISTENER, Some(fd), Some(listener)) => {
            listener.hand_over(&fd, init.pid, hooks.state("creating", Some(init.pid)))
        }
        (HOOKS, ..) => {
            trace(trace_to, || "running prestart and createRuntime hooks".to_owned());
            hooks.before_pivot(init.pid).and_then(|()| answer())
        }
        (MAP_IDS, Some(fd), _) => {
            let mount = to_map.next().ok_or(Error::InitDied)?;
            map_ids(fd.as_fd(), mount).map_err(|errno| mount.failure(Step::MountOptions, errno))?;
            answer()
        }
        _ => Ok(()),
    })
}

/// What a new cgroup namespace wants of the cgroups.
fn complete(
    plan: &Plan,
    cgroup: &Cgroup,
    entry: Entry,
    resources: Option<&LinuxResources>,
) -> Result<Entry, Error> {
    if !plan.namespaces.cgroup {
        return Ok(entry);
    }
    // The device rules must be complete when init makes its nodes.
    resources.map_or(Ok(()), |resources| cgroup.apply_devices(resources))?;
    Ok(entry.with_devices_first())
}

fn send_cgroups(channel: &Channel, entry: &Entry) -> Result<(), Error> {
    match channel.send_cgroups(&entry.tasks, entry.devices.as_ref()) {
        Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
        Err(errno) => Err(Error::system("send cgroups to", "the container's init", errno)),
    }
}

/// Lets the child go on. One that has failed already has said why, which will be heard; that it left something of ours unread
/// is told at the next call, this one perhaps.
fn tell(channel: &Channel) -> Result<(), Error> {
    match channel.tell(GO) {
        Ok(()) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
        Err(errno) => Err(Error::system("talk to", "the container's init", errno)),
    }
}

/// Hears the child out until it is ready (`until_created`) or has executed the program. Gives its terminal.
pub(crate) fn hear(
    channel: &Channel,
    until_created: bool,
    trace_to: Option<Trace<'_>>,
    mut answer: impl FnMut(u8, Option<OwnedFd>) -> Result<(), Error>,
) -> Result<Option<OwnedFd>, Error> {
    let mut terminal = None;
    let mut buffer = [0; PACKET_MAX];
    loop {
        let received =
            channel.receive(&mut buffer).map_err(|e| Error::system("talk to", "the container's init", e))?;
        match buffer.get(..received.length) {
            // it closed the channel by executing the program; or it was killed, which its exit status tells
            None | Some([]) if until_created => return Err(Error::InitDied),
            None | Some([]) => return Ok(terminal),
            Some([TERMINAL]) => terminal = received.fd,
            Some([CREATED]) if until_created => return Ok(terminal),
            Some([message]) => answer(*message, received.fd)?,
            Some(packet) => {
                if let Some(error) = parse_failure(packet) {
                    return Err(error);
                }
                if let Some((line, to)) = parse_trace(packet).zip(trace_to) {
                    to.tell(&line);
                }
            }
        }
    }
}
