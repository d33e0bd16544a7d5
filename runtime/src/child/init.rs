//! A container's init, in the order of its steps.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::channel::{CREATED, Channel, GO, NO_SUBJECT};
use super::{At, Done, groups, hooks, identity, inherited, net_devices, program, surroundings, terminal};
use crate::error::Step;
use crate::plan::Plan;
use crate::plan::namespaces::{Join, NEWTIME, User};
use crate::sys::process::{CloneRequest, Cloned, end_on_termination, reset_signals, set_namespaces, unshare};

/// The process in between, for namespaces that are entered by children only.
pub(super) fn between<'p>(plan: &'p Plan, channel: &Channel) -> Done<'p, Cloned> {
    channel.trace_namespaces(format_args!("=> nsexec container setup"));
    crate::sys::identity::prctl(libc::PR_SET_DUMPABLE, 0, 0).at(Step::Prepare, NO_SUBJECT)?;
    for join in &plan.namespaces.before_fork {
        join_namespace(join, channel)?;
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
        channel.trace_namespaces(format_args!("unshare time namespace"));
    }
    let request = CloneRequest {
        flags: plan.namespaces.clone_flags(),
        cgroup: plan.entry.clone_into(),
        as_sibling: true,
    };
    inherited::clone_again(request).at(Step::Fork, NO_SUBJECT)
}

/// From the first moment to the program.
pub(super) fn init<'p>(
    plan: &'p Plan,
    channel: &Channel,
    listener: Option<&OwnedFd>,
    started_by: &mut Option<Channel>,
) -> Done<'p> {
    let process = &plan.process;
    reset_signals();
    let mut devices = None;
    enter_namespaces(plan, channel, &mut devices)?;
    channel.trace(format_args!("child process in init()"));
    let slave = surroundings::make(plan, channel, &mut devices)?;
    // From here on the cgroup's limits and the device rules must hold: the parent has set them meanwhile.
    channel.wait_for(GO).at(Step::WaitForParent, NO_SUBJECT)?;
    net_devices::set_up(&plan.net_devices)?;
    groups::enter_devices(devices.as_ref().or(plan.entry.devices.as_ref()))?;
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
        files.map(|files| files.stream(0)),
        files.map(|files| files.stream(1)),
    ];
    identity::close_descriptors(process, keep)?;
    identity::take_on(process, channel)?;
    let program = program::find(process)?;
    if plan.wait_for_start {
        // the first process of a pid namespace is spared signals that it does not handle
        end_on_termination();
        channel.trace(format_args!("init: everything is made, waiting for the start"));
        channel.tell(CREATED).at(Step::WaitForParent, NO_SUBJECT)?;
        match listener {
            Some(listener) => *started_by = Some(accept(listener).at(Step::WaitForParent, NO_SUBJECT)?),
            None => channel.wait_for(GO).at(Step::WaitForParent, NO_SUBJECT)?,
        }
    }
    let channel = started_by.as_ref().unwrap_or(channel);
    if !plan.hooks.start_container.is_empty() {
        let mut buffer = [0; program::HOME_MAX];
        // they are the container's programs
        let setting = hooks::Setting {
            home: program::home(process, &mut buffer),
            filter: identity::filter_to_come(process),
        };
        hooks::run(&plan.hooks.start_container, files, &setting, channel)?;
    }
    // the pipe is this channel, which execve closes
    program::execute(process, program, channel, "init: closing the pipe to signal completion: executing")
}

fn join_namespace<'p>(join: &'p Join, channel: &Channel) -> Done<'p> {
    set_namespaces(join.fd.as_fd(), join.flag).at(Step::JoinNamespace, &join.path)?;
    channel.trace_namespaces(format_args!(
        "setns({:#x}) into {}",
        join.flag,
        join.path.to_bytes().escape_ascii()
    ));
    Ok(())
}

/// The namespaces, new or joined, with their names and their first settings. Gives the cgroup that is to be entered last.
fn enter_namespaces<'p>(plan: &'p Plan, channel: &Channel, devices: &mut Option<OwnedFd>) -> Done<'p> {
    let ns = &plan.namespaces;
    channel.trace_namespaces(format_args!("=> nsexec container setup: new namespaces {:#x}", ns.new));
    // A caller without privileges reaches the files of its new user namespace only as long as they are the caller's;
    // `become_root` ends that.
    let mapped_by_other = matches!(ns.user, Some(User::New { .. })) && !ns.caller_is_root;
    crate::sys::identity::prctl(libc::PR_SET_DUMPABLE, mapped_by_other.into(), 0)
        .at(Step::Prepare, NO_SUBJECT)?;
    groups::enter(&plan.entry)?;
    if ns.user.is_some() {
        if matches!(ns.user, Some(User::New { .. })) {
            channel.wait_for(GO).at(Step::WaitForParent, NO_SUBJECT)?;
        }
        identity::become_root(plan.process.keep_groups)?;
    }
    for join in &ns.join {
        join_namespace(join, channel)?;
    }
    if ns.cgroup {
        groups::enter_later(plan, channel, devices)?;
        unshare(libc::CLONE_NEWCGROUP).at(Step::MakeNamespace, c"cgroup")?;
        channel.trace_namespaces(format_args!("unshare cgroup namespace"));
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
            channel.trace_namespaces(format_args!("unshare network namespace"));
        }
        identity::loopback_up().at(Step::Loopback, NO_SUBJECT)?;
    }
    channel.trace_namespaces(format_args!("<= nsexec container setup"));
    Ok(())
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
