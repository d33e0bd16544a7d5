//! The child: carries a plan out between `clone3` and `execve`.
//!
//! Nothing in this folder allocates, takes a lock or returns to the caller's code: the child may be a copy of
//! one thread of a process that had many. Every failure ends in [`channel::Channel::report`].

pub(crate) mod channel;
mod copy_up;
mod dev;
mod hooks;
mod identity;
mod inherited;
mod masks;
pub(crate) mod mount;
mod net_devices;
mod program;
pub(crate) mod root;
pub(crate) mod target;
mod terminal;

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::error::Step;
use crate::plan::Plan;
use crate::plan::mounts::{Mount, Source};
use crate::plan::namespaces::{NEWTIME, User};
use crate::plan::process::ProcessPlan;
use crate::sys::process::{
    CloneRequest, Cloned, end_on_termination, exit, reset_signals, set_namespaces, unshare,
};
use channel::{CREATED, Channel, GO, HOOKS, NO_SUBJECT};

/// Which step failed, on what, and how.
#[derive(Debug)]
pub(crate) struct Failure<'p> {
    pub(crate) step: Step,
    pub(crate) subject: &'p CStr,
    pub(crate) errno: Errno,
}

/// The result of a step.
pub(crate) type Done<'p, T = ()> = Result<T, Failure<'p>>;

/// Says which step a system call belongs to.
pub(crate) trait At<T> {
    /// The step, and its subject.
    fn at(self, step: Step, subject: &CStr) -> Done<'_, T>;
}

impl<T> At<T> for Result<T, Errno> {
    fn at(self, step: Step, subject: &CStr) -> Done<'_, T> {
        self.map_err(|errno| Failure { step, subject, errno })
    }
}

/// Ends the child if it unwinds: it must never run the parent's code.
struct NeverReturns;

impl Drop for NeverReturns {
    fn drop(&mut self) {
        exit(255);
    }
}

/// A container's init. `listener` is where another process may come to start it.
pub(crate) fn run_init(plan: &Plan, channel: &Channel, listener: Option<&OwnedFd>) -> ! {
    let _guard = NeverReturns;
    let mut started_by = None;
    let result = init(plan, channel, listener, &mut started_by);
    if let Err(failure) = result {
        let mut buffer = [0; hooks::QUOTED_MAX];
        let said = hooks::said(&failure, plan.hooks.files.as_ref(), &mut buffer);
        started_by.as_ref().unwrap_or(channel).report(&failure, said);
    }
    exit(1)
}

/// The process in between, for namespaces that are entered by children only. Makes the child as its
/// own sibling, tells its pid, and ends.
pub(crate) fn run_between(plan: &Plan, channel: &Channel, listener: Option<&OwnedFd>) -> ! {
    let _guard = NeverReturns;
    match between(plan) {
        Ok(Cloned::Child) => run_init(plan, channel, listener),
        Ok(Cloned::Parent { pid, .. }) => {
            if channel.tell_pid(pid).is_ok() {
                exit(0)
            }
        }
        Err(failure) => channel.report(&failure, &[]),
    }
    exit(1)
}

fn between(plan: &Plan) -> Done<'_, Cloned> {
    crate::sys::identity::prctl(libc::PR_SET_DUMPABLE, 0, 0).at(Step::Prepare, NO_SUBJECT)?;
    for join in &plan.namespaces.before_fork {
        set_namespaces(join.fd.as_fd(), join.flag).at(Step::JoinNamespace, &join.path)?;
    }
    if let Some(offsets) = &plan.namespaces.time_offsets {
        unshare(NEWTIME).at(Step::MakeNamespace, c"time")?;
        let file = rustix::fs::openat(
            rustix::fs::CWD,
            c"/proc/self/timens_offsets",
            OFlags::WRONLY | OFlags::CLOEXEC,
            Mode::empty(),
        );
        file.and_then(|file| rustix::io::write(file, offsets.as_bytes()))
            .at(Step::MakeNamespace, c"time offsets")?;
    }
    let request = CloneRequest {
        flags: plan.namespaces.clone_flags(),
        cgroup: plan.entry.clone_into(),
        as_sibling: true,
    };
    inherited::clone_again(request).at(Step::Fork, NO_SUBJECT)
}

fn init<'p>(
    plan: &'p Plan,
    channel: &Channel,
    listener: Option<&OwnedFd>,
    started_by: &mut Option<Channel>,
) -> Done<'p> {
    let ns = &plan.namespaces;
    let process = &plan.process;
    reset_signals();
    // A caller without privileges reaches the files of its new user namespace only as long as they are the caller's;
    // `become_root` ends that.
    let mapped_by_other = matches!(ns.user, Some(User::New { .. })) && !ns.caller_is_root;
    crate::sys::identity::prctl(libc::PR_SET_DUMPABLE, mapped_by_other.into(), 0)
        .at(Step::Prepare, NO_SUBJECT)?;
    enter_cgroup(&plan.entry)?;
    if ns.user.is_some() {
        if matches!(ns.user, Some(User::New { .. })) {
            channel.wait_for(GO).at(Step::WaitForParent, NO_SUBJECT)?;
        }
        identity::become_root()?;
    }
    for join in &ns.join {
        set_namespaces(join.fd.as_fd(), join.flag).at(Step::JoinNamespace, &join.path)?;
    }
    let mut devices = None;
    if ns.cgroup {
        enter_later_cgroups(plan, channel, &mut devices)?;
        unshare(libc::CLONE_NEWCGROUP).at(Step::MakeNamespace, c"cgroup")?;
    }
    rustix::process::setsid().at(Step::Session, NO_SUBJECT)?;
    rustix::process::umask(Mode::empty());
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.to_bytes()).at(Step::Hostname, name)?;
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name.to_bytes()).at(Step::Domainname, name)?;
    }
    if ns.new_net {
        if !ns.net_at_once {
            unshare(libc::CLONE_NEWNET).at(Step::MakeNamespace, c"network")?;
        }
        identity::loopback_up().at(Step::Loopback, NO_SUBJECT)?;
    }
    let slave = surroundings(plan, channel, &mut devices)?;
    // From here on the cgroup's limits and the device rules must hold: the parent has set them meanwhile.
    channel.wait_for(GO).at(Step::WaitForParent, NO_SUBJECT)?;
    net_devices::set_up(&plan.net_devices)?;
    enter_devices_cgroup(devices.as_ref().or(plan.entry.devices.as_ref()))?;
    drop(devices); // before all that is still open is closed at once
    identity::may_use_all_cpus();
    identity::before_filter(process)?;
    terminal::set_stdio(process, slave)?;
    let files = plan.hooks.files.as_ref();
    let keep = [
        Some(channel.as_fd()),
        listener.map(AsFd::as_fd),
        files.map(|files| files.state.as_fd()),
        files.map(|files| files.output.as_fd()),
    ];
    identity::close_descriptors(process, keep)?;
    identity::take_on(process, channel)?;
    let program = program::find(process)?;
    if plan.wait_for_start {
        // the first process of a pid namespace is spared signals that it does not handle
        end_on_termination();
        channel.tell(CREATED).at(Step::WaitForParent, NO_SUBJECT)?;
        match listener {
            Some(listener) => *started_by = Some(accept(listener).at(Step::WaitForParent, NO_SUBJECT)?),
            None => channel.wait_for(GO).at(Step::WaitForParent, NO_SUBJECT)?,
        }
    }
    if !plan.hooks.start_container.is_empty() {
        let mut buffer = [0; program::HOME_MAX];
        // they are the container's programs
        let setting = hooks::Setting {
            home: program::home(process, &mut buffer),
            filter: identity::filter_to_come(process),
        };
        hooks::run(&plan.hooks.start_container, files, &setting)?;
    }
    program::execute(process, program, started_by.as_ref().unwrap_or(channel))
}

/// Waits for the process that starts the container. The connection stands for the channel from then on.
fn accept(listener: &OwnedFd) -> Result<Channel, Errno> {
    loop {
        match rustix::net::accept_with(listener, rustix::net::SocketFlags::CLOEXEC) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
            Ok(socket) => {
                let channel = Channel::from_socket(socket);
                // one that hangs up without a word was not the start
                if channel.wait_for(GO).is_ok() {
                    return Ok(channel);
                }
            }
        }
    }
}

/// Moves this process into the v1 folders; `clone3` did it for v2.
pub(crate) fn enter_cgroup(entry: &crate::cgroup::Entry) -> Done<'static> {
    for tasks in &entry.tasks {
        rustix::io::write(tasks, b"0").at(Step::JoinCgroup, NO_SUBJECT)?;
    }
    Ok(())
}

/// Moves this process into the v1 folders that its parent has made meanwhile. Gives the one that is to be entered last.
fn enter_later_cgroups(plan: &Plan, channel: &Channel, devices: &mut Option<OwnedFd>) -> Done<'static> {
    if !plan.cgroups_come_later {
        return Ok(());
    }
    let mut cgroups = channel.receive_cgroups().at(Step::WaitForParent, NO_SUBJECT)?;
    *devices = cgroups.devices.take();
    for tasks in cgroups.tasks.iter().flatten() {
        rustix::io::write(tasks, b"0").at(Step::JoinCgroup, NO_SUBJECT)?;
    }
    Ok(())
}

/// Moves this process to where the device rules hold.
fn enter_devices_cgroup(tasks: Option<&OwnedFd>) -> Done<'static> {
    match tasks {
        Some(tasks) => rustix::io::write(tasks, b"0").map(drop).at(Step::JoinCgroup, c"devices"),
        None => Ok(()),
    }
}

/// Everything that the program will see: file systems, devices, parameters. Gives the terminal's slave.
fn surroundings<'p>(
    plan: &'p Plan,
    channel: &Channel,
    devices: &mut Option<OwnedFd>,
) -> Done<'p, Option<OwnedFd>> {
    let is_closed = |mount: &&Mount| mount.fd.get().is_none() && !mount.is_late();
    let is_new = |mount: &&Mount| matches!(mount.source, Source::Filesystem { .. });
    for mount in plan.mounts.iter().filter(is_new).filter(is_closed) {
        let fd = mount::open_source(mount)?;
        let _ = mount.fd.set(fd);
    }
    if !plan.namespaces.cgroup {
        enter_later_cgroups(plan, channel, devices)?;
    }
    // some of these are the cgroups
    for mount in plan.mounts.iter().filter(is_closed) {
        let fd = mount::open_source(mount)?;
        let _ = mount.fd.set(fd);
    }
    dev::open_host_nodes(plan)?;
    let root = root::make(&plan.rootfs)?;
    let late = plan.hooks.before_pivot();
    if !late {
        // The host's tree goes away before anything is looked up in the container's.
        root::enter(&plan.rootfs, &root)?;
    }
    let mut place = mount::Place { root: root.as_fd(), channel, proc: None };
    for mount in &plan.mounts {
        mount::attach(&place, mount)?;
        if mount.target.as_bytes() == b"proc"
            && let Some(fd) = mount.fd.get()
        {
            place.proc = Some(rustix::fs::fstat(fd).at(Step::Mount, &mount.target)?.st_dev);
        }
    }
    for link in &plan.symlinks {
        target::symlink(root.as_fd(), &link.text, &link.path)?;
    }
    if let Some(devices) = &plan.devices {
        dev::make(root.as_fd(), devices, plan.bind_devices)?;
    }
    let slave = match plan.process.stdio {
        crate::plan::process::StdioPlan::Terminal(terminal) => {
            Some(terminal::open(root.as_fd(), channel, plan.process.uid, terminal, true)?)
        }
        _ => None,
    };
    if plan.hooks.in_parent {
        channel.tell(HOOKS).at(Step::Hook, NO_SUBJECT)?;
        channel.wait_for(GO).at(Step::Hook, NO_SUBJECT)?;
    }
    if late {
        // runc's and crun's hooks find themselves at the new root
        rustix::process::fchdir(&root).at(Step::PivotRoot, &plan.rootfs.path)?;
        hooks::run(&plan.hooks.create_container, plan.hooks.files.as_ref(), &hooks::Setting::default())?;
        root::enter(&plan.rootfs, &root)?;
    }
    if let Some(folder) = &plan.working_directory {
        // as runc and crun; what fails here will be told when it is entered
        let _ = target::open_or_make(root.as_fd(), folder, true, true);
    }
    parameters(plan)?;
    masks::make_readonly(root.as_fd(), &plan.readonly_paths)?;
    masks::mask(root.as_fd(), plan)?;
    for mount in plan.mounts.iter().filter(|m| m.readonly_at_end) {
        if let Some(fd) = mount.fd.get() {
            let attr = crate::sys::mount::MountAttr::READONLY;
            crate::sys::mount::mount_setattr(fd.as_fd(), false, &attr)
                .at(Step::MountOptions, &mount.target)?;
        }
    }
    root::finish(&plan.rootfs, root.as_fd())?;
    Ok(slave)
}

/// Kernel parameters and the security label's file go through a procfs of which we know that it is one.
fn parameters(plan: &Plan) -> Done<'_> {
    if plan.sysctls.is_empty() && plan.process.security_label.is_none() {
        return Ok(());
    }
    let proc = proc_root(plan)?;
    for (path, value) in &plan.sysctls {
        write_proc(proc.as_fd(), path, value).at(Step::Sysctl, path)?;
    }
    if let Some((path, value)) = &plan.process.security_label {
        let opened = open_proc_self(proc.as_fd(), path);
        opened.and_then(|fd| rustix::io::write(fd, value.to_bytes())).at(Step::SecurityLabel, value)?;
    }
    Ok(())
}

/// The container's procfs, or one that is mounted nowhere.
fn proc_root(plan: &Plan) -> Done<'_, OwnedFd> {
    let mounted = plan.mounts.iter().find(|m| m.source.is(b"proc")).and_then(|m| m.fd.get());
    match mounted {
        Some(fd) => rustix::io::fcntl_dupfd_cloexec(fd, 3).at(Step::Sysctl, c"proc"),
        None => mount::plain_filesystem(c"proc", 0).at(Step::Sysctl, c"proc"),
    }
}

fn write_proc(proc: BorrowedFd<'_>, path: &CStr, value: &CStr) -> Result<(), Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let file = rustix::fs::openat2(proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve)?;
    rustix::io::write(file, value.to_bytes()).map(drop)
}

/// Opens a file of the calling process in a procfs for writing.
pub(crate) fn open_proc_self(proc: BorrowedFd<'_>, path: &CStr) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    let own =
        rustix::fs::openat2(proc, c"thread-self", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)?;
    rustix::fs::openat2(own, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty(), resolve)
}

/// An exec's process: everything is there, it only has to become itself.
pub(crate) fn run_exec(join: &crate::exec::Join, process: &ProcessPlan, channel: &Channel) -> ! {
    let _guard = NeverReturns;
    match exec_between(join, process) {
        Ok(Cloned::Child) => {
            if let Err(failure) = exec(join, process, channel) {
                channel.report(&failure, &[]);
            }
        }
        Ok(Cloned::Parent { pid, .. }) => {
            if channel.tell_pid(pid).is_ok() {
                exit(0)
            }
        }
        Err(failure) => channel.report(&failure, &[]),
    }
    exit(1)
}

fn exec_between(join: &crate::exec::Join, process: &ProcessPlan) -> Done<'static, Cloned> {
    // Not even the container's root may look into this copy of the runtime.
    crate::sys::identity::prctl(libc::PR_SET_DUMPABLE, 0, 0).at(Step::Prepare, NO_SUBJECT)?;
    identity::keep_to(process.affinity.initial.as_ref())?;
    enter_cgroup(&join.entry)?;
    enter_devices_cgroup(join.entry.devices.as_ref())?;
    if let Some(root) = &join.root {
        root::change_root(root).at(Step::PivotRoot, NO_SUBJECT)?;
    }
    join_init(join).at(Step::JoinNamespace, NO_SUBJECT)?;
    let request = CloneRequest { flags: 0, cgroup: None, as_sibling: true };
    inherited::clone_again(request).at(Step::Fork, NO_SUBJECT)
}

/// All at once; but with privileges first those that may belong to the host's user namespace.
fn join_init(join: &crate::exec::Join) -> Result<(), Errno> {
    let rest = join.namespaces & !libc::CLONE_NEWUSER;
    if join.user_namespace && rest != 0 && rustix::process::geteuid().is_root() {
        set_namespaces(join.init.as_fd(), rest)?;
        return set_namespaces(join.init.as_fd(), libc::CLONE_NEWUSER);
    }
    set_namespaces(join.init.as_fd(), join.namespaces)
}

fn exec<'p>(join: &crate::exec::Join, process: &'p ProcessPlan, channel: &Channel) -> Done<'p> {
    reset_signals();
    match &process.affinity.last {
        None if process.affinity.initial.is_none() => identity::may_use_all_cpus(),
        last => identity::keep_to(last.as_ref())?,
    }
    if join.user_namespace {
        identity::become_root()?;
    }
    rustix::process::setsid().at(Step::Session, NO_SUBJECT)?;
    rustix::process::umask(Mode::empty());
    let slave = match process.stdio {
        crate::plan::process::StdioPlan::Terminal(terminal) => {
            let root = rustix::fs::openat(
                rustix::fs::CWD,
                c"/",
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )
            .at(Step::Terminal, NO_SUBJECT)?;
            Some(terminal::open(root.as_fd(), channel, process.uid, terminal, false)?)
        }
        _ => None,
    };
    if let Some((path, value)) = &process.security_label {
        let proc = mount::plain_filesystem(c"proc", 0).at(Step::SecurityLabel, value)?;
        let opened = open_proc_self(proc.as_fd(), path);
        opened.and_then(|fd| rustix::io::write(fd, value.to_bytes())).at(Step::SecurityLabel, value)?;
    }
    channel.wait_for(GO).at(Step::WaitForParent, NO_SUBJECT)?;
    identity::before_filter(process)?;
    terminal::set_stdio(process, slave)?;
    identity::close_descriptors(process, [Some(channel.as_fd())])?;
    identity::take_on(process, channel)?;
    let program = program::find(process)?;
    program::execute(process, program, channel)
}
