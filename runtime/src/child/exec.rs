//! An exec's process: everything is there, it only has to become itself.

use std::os::fd::AsFd;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::channel::{Channel, GO, NO_SUBJECT};
use super::{At, Done, groups, identity, inherited, procfs, program, root, terminal};
use crate::error::Step;
use crate::exec::Join;
use crate::plan::process::{ProcessPlan, StdioPlan};
use crate::plan::scheduling::Affinity;
use crate::sys::process::{CloneRequest, Cloned, reset_signals, set_namespaces};

/// The process in between, which joins: only its children are in the pid namespace.
pub(super) fn between(join: &Join, process: &ProcessPlan, channel: &Channel) -> Done<'static, Cloned> {
    channel.trace_namespaces(format_args!("=> nsexec container setup"));
    // Not even the container's root may look into this copy of the runtime.
    crate::sys::identity::prctl(libc::PR_SET_DUMPABLE, 0, 0).at(Step::Prepare, NO_SUBJECT)?;
    if let Some(cpus) = &process.affinity.initial {
        identity::keep_to(cpus)?;
        identity::trace_affinity(channel);
    }
    groups::enter(&join.entry)?;
    groups::enter_devices(join.entry.devices.as_ref())?;
    if let Some(root) = &join.root {
        root::change_root(root).at(Step::PivotRoot, NO_SUBJECT)?;
    }
    join_init(join).at(Step::JoinNamespace, NO_SUBJECT)?;
    channel.trace_namespaces(format_args!("setns({:#x}) into the namespaces of init", join.namespaces));
    let request = CloneRequest { flags: 0, cgroup: None, as_sibling: true };
    inherited::clone_again(request).at(Step::Fork, NO_SUBJECT)
}

/// All at once; but with privileges first those that may belong to the host's user namespace.
fn join_init(join: &Join) -> Result<(), Errno> {
    let rest = join.namespaces & !libc::CLONE_NEWUSER;
    if join.user_namespace && rest != 0 && rustix::process::geteuid().is_root() {
        set_namespaces(join.init.as_fd(), rest)?;
        return set_namespaces(join.init.as_fd(), libc::CLONE_NEWUSER);
    }
    set_namespaces(join.init.as_fd(), join.namespaces)
}

/// The further process itself.
pub(super) fn exec<'p>(join: &Join, process: &'p ProcessPlan, channel: &Channel) -> Done<'p> {
    reset_signals();
    channel.trace_namespaces(format_args!("<= nsexec container setup"));
    channel.trace(format_args!("child process in init()"));
    match &process.affinity {
        Affinity { last: Some(cpus), .. } => {
            identity::keep_to(cpus)?;
            identity::trace_affinity(channel);
        }
        Affinity { initial: None, last: None } => identity::may_use_all_cpus(),
        Affinity { initial: Some(_), last: None } => {}
    }
    if join.user_namespace {
        identity::become_root(process.keep_groups)?;
    }
    rustix::process::setsid().at(Step::Session, NO_SUBJECT)?;
    rustix::process::umask(Mode::empty());
    let slave = match process.stdio {
        StdioPlan::Terminal(terminal) => {
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
    procfs::label_by_itself(process)?;
    channel.wait_for(GO).at(Step::WaitForParent, NO_SUBJECT)?;
    identity::before_filter(process)?;
    terminal::set_stdio(process, slave)?;
    identity::close_descriptors(process, [Some(channel.as_fd())])?;
    identity::take_on(process, channel)?;
    let program = program::find(process)?;
    program::execute(process, program, channel, "setns_init: about to exec")
}
