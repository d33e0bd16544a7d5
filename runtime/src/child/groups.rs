//! Version 1 cgroups are entered by writing to their `tasks` files; `clone3` does it for version 2.

use std::os::fd::OwnedFd;

use super::channel::{Channel, NO_SUBJECT};
use super::{At, Done};
use crate::error::Step;
use crate::plan::Plan;

/// Moves this process into the groups that were there before it.
pub(crate) fn enter(entry: &crate::cgroup::Entry) -> Done<'static> {
    for tasks in &entry.tasks {
        rustix::io::write(tasks, b"0").at(Step::JoinCgroup, NO_SUBJECT)?;
    }
    Ok(())
}

/// Moves this process into the groups that its parent has made meanwhile. Gives the one that is to be entered last.
pub(super) fn enter_later(plan: &Plan, channel: &Channel, devices: &mut Option<OwnedFd>) -> Done<'static> {
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
pub(super) fn enter_devices(tasks: Option<&OwnedFd>) -> Done<'static> {
    match tasks {
        Some(tasks) => rustix::io::write(tasks, b"0").map(drop).at(Step::JoinCgroup, c"devices"),
        None => Ok(()),
    }
}
