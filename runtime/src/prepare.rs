//! What the parent opens for a child in a user namespace: there the child has no privileges over the host's files.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid, makedev};
use rustix::io::Errno;

use crate::child::mount::{clone_tree, open_source, plain_filesystem};
use crate::plan::Plan;
use crate::plan::devices::Device;
use crate::plan::mounts::{Mount, Source};
use crate::plan::namespaces::User;
use crate::userns::mapped;
use crate::{Error, Step};

/// Opens what is bound from the host: mounts, whose sources may be closed to the container's root, and which only
/// the host's root may map to other ids; and device nodes that the host has not.
pub(crate) fn for_user_namespace(plan: &Plan) -> Result<(), Error> {
    let Some(user) = &plan.namespaces.user else { return Ok(()) };
    if !plan.namespaces.caller_is_root {
        return Ok(()); // only within the namespace the caller has privileges at all
    }
    for mount in plan.mounts.iter().filter(|m| matches!(m.source, Source::Bind { .. })) {
        refuse_unlocking(mount)?;
        let fd = open_source(mount).map_err(|failure| {
            let subject = failure.subject.to_string_lossy().into_owned();
            plan.explain(Error::from_report(failure.step, failure.errno.raw_os_error(), subject, ""))
        })?;
        let _ = mount.fd.set(fd);
    }
    let User::New { uids, gids, .. } = user else { return Ok(()) };
    let missing = |device: &&Device| {
        let host = rustix::fs::stat(device.host_path.as_c_str());
        plan.bind_devices && host.is_err()
    };
    let mut nodes = None;
    for device in plan.devices.iter().flatten().filter(missing) {
        let failed = |errno: Errno| {
            Error::from_report(
                Step::Device,
                errno.raw_os_error(),
                device.host_path.to_string_lossy().into_owned(),
                "",
            )
        };
        let owner = (mapped(uids, device.uid), mapped(gids, device.gid));
        let (Some(uid), Some(gid)) = owner else {
            return Err(Error::spec(
                "linux.devices",
                format!("the owner of {:?} is not mapped", device.host_path),
            ));
        };
        let _ = device.host_node.set(node(&mut nodes, device, uid, gid).map_err(failed)?);
    }
    Ok(())
}

/// What protects a source on the host, a container in another user namespace may not take away.
fn refuse_unlocking(mount: &Mount) -> Result<(), Error> {
    let Source::Bind { path, .. } = &mount.source else { return Ok(()) };
    if mount.attr.is_noop() {
        return Ok(());
    }
    let has = rustix::fs::statvfs(path.as_c_str())
        .map_err(|errno| Error::system("look at", path.to_string_lossy(), errno))?;
    if !mount.attr.unlocks(has.f_flag) {
        return Ok(());
    }
    Err(mount.failure(Step::Mount, Errno::PERM))
}

/// A node in a file system of its own that is mounted nowhere.
fn node(nodes: &mut Option<OwnedFd>, device: &Device, uid: u32, gid: u32) -> Result<OwnedFd, Errno> {
    let folder = match nodes {
        Some(folder) => folder,
        None => nodes.insert(plain_filesystem(c"tmpfs", 0)?),
    };
    let name = format!("{}", std::ptr::from_ref(device).addr());
    let kind = FileType::from_raw_mode(device.kind);
    let mode = Mode::from_raw_mode(device.mode);
    rustix::fs::mknodat(&*folder, name.as_str(), kind, mode, makedev(device.major, device.minor))?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::fs::chownat(&*folder, name.as_str(), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    rustix::fs::chmodat(&*folder, name.as_str(), mode, AtFlags::empty())?;
    let name = std::ffi::CString::new(name).map_err(|_| Errno::INVAL)?;
    clone_tree(folder.as_fd(), &name, false)
}
