//! Everything that the program will see: file systems, devices, parameters.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::channel::{Channel, GO, HOOKS, NO_SUBJECT};
use super::{At, Done, dev, groups, hooks, masks, mount, procfs, root, target, terminal};
use crate::error::Step;
use crate::plan::Plan;
use crate::plan::mounts::{Mount, Source};
use crate::plan::process::StdioPlan;
use crate::sys::mount::{MountAttr, mount_setattr};

/// Everything that the program will see: file systems, devices, parameters. Gives the terminal's slave.
pub(super) fn make<'p>(
    plan: &'p Plan,
    channel: &Channel,
    devices: &mut Option<OwnedFd>,
) -> Done<'p, Option<OwnedFd>> {
    open_sources(plan, channel, devices)?;
    dev::open_host_nodes(plan)?;
    let root = root::make(&plan.rootfs)?;
    let late = plan.hooks.before_pivot();
    if !late {
        // The host's tree goes away before anything is looked up in the container's.
        enter_root(plan, &root, channel)?;
    }
    attach(plan, channel, root.as_fd())?;
    let slave = match plan.process.stdio {
        StdioPlan::Terminal(terminal) => {
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
        let files = plan.hooks.files.as_ref();
        hooks::run(&plan.hooks.create_container, files, &hooks::Setting::default(), channel)?;
        enter_root(plan, &root, channel)?;
    }
    if let Some(folder) = &plan.working_directory {
        // as runc and crun; what fails here will be told when it is entered
        let _ = target::open_or_make(root.as_fd(), folder, true, true);
    }
    procfs::parameters(plan)?;
    protect(plan, root.as_fd())?;
    Ok(slave)
}

fn enter_root<'p>(plan: &'p Plan, root: &OwnedFd, channel: &Channel) -> Done<'p> {
    root::enter(&plan.rootfs, root)?;
    channel.trace(format_args!("the root is {}", plan.rootfs.path.to_bytes().escape_ascii()));
    Ok(())
}

/// Opens what is mounted, new file systems first: what is bound may have to wait for the cgroups.
fn open_sources<'p>(plan: &'p Plan, channel: &Channel, devices: &mut Option<OwnedFd>) -> Done<'p> {
    let is_closed = |mount: &&Mount| mount.fd.get().is_none() && !mount.is_late();
    let is_new = |mount: &&Mount| matches!(mount.source, Source::Filesystem { .. });
    for mount in plan.mounts.iter().filter(is_new).filter(is_closed) {
        let fd = mount::open_source(mount)?;
        let _ = mount.fd.set(fd);
    }
    if !plan.namespaces.cgroup {
        groups::enter_later(plan, channel, devices)?;
    }
    // some of these are the cgroups
    for mount in plan.mounts.iter().filter(is_closed) {
        let fd = mount::open_source(mount)?;
        let _ = mount.fd.set(fd);
    }
    Ok(())
}

/// Mounts, links and devices.
fn attach<'p>(plan: &'p Plan, channel: &Channel, root: BorrowedFd<'_>) -> Done<'p> {
    let mut place = mount::Place { root, channel, proc: None };
    for mount in &plan.mounts {
        mount::attach(&place, mount)?;
        channel.trace(format_args!("mounted /{}", mount.target.to_bytes().escape_ascii()));
        if mount.target.as_bytes() == b"proc"
            && let Some(fd) = mount.fd.get()
        {
            place.proc = Some(rustix::fs::fstat(fd).at(Step::Mount, &mount.target)?.st_dev);
        }
    }
    for link in &plan.symlinks {
        target::symlink(root, &link.text, &link.path)?;
    }
    if let Some(devices) = &plan.devices {
        dev::make(root, devices, plan.bind_devices)?;
    }
    Ok(())
}

/// What may only be read, and what is hidden, once everything has been made.
fn protect<'p>(plan: &'p Plan, root: BorrowedFd<'_>) -> Done<'p> {
    masks::make_readonly(root, &plan.readonly_paths)?;
    masks::mask(root, plan)?;
    for mount in plan.mounts.iter().filter(|m| m.readonly_at_end) {
        if let Some(fd) = mount.fd.get() {
            mount_setattr(fd.as_fd(), false, &MountAttr::READONLY).at(Step::MountOptions, &mount.target)?;
        }
    }
    root::finish(&plan.rootfs, root)
}
