//! What the parent opens for a child in a user namespace: there the child has no privileges over the host's files.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid, makedev};
use rustix::io::Errno;

use crate::cgroup::open_path;
use crate::child::mount::{clone_tree, open_source, plain_filesystem};
use crate::child::root;
use crate::plan::Plan;
use crate::plan::devices::Device;
use crate::plan::mounts::{Mount, Source};
use crate::plan::namespaces::User;
use crate::sys::mount::{MountAttr, mount_setattr};
use crate::sys::process::unshare;
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
    // Asked once: the host may get one of them meanwhile.
    let devices = plan.devices.iter().flatten().filter(missing).collect::<Vec<_>>();
    let mut nodes = Vec::new();
    for device in &devices {
        let owner = (mapped(uids, device.uid), mapped(gids, device.gid));
        let (Some(uid), Some(gid)) = owner else {
            return Err(Error::spec(
                "linux.devices",
                format!("the owner of {:?} is not mapped", device.host_path),
            ));
        };
        nodes.push(Node {
            path: &device.host_path,
            kind: FileType::from_raw_mode(device.kind),
            mode: Mode::from_raw_mode(device.mode),
            number: makedev(device.major, device.minor),
            owner: (Uid::from_raw(uid), Gid::from_raw(gid)),
        });
    }
    if nodes.is_empty() {
        return Ok(());
    }
    let made = make_nodes(&plan.rootfs.path, &nodes)?;
    for (device, fd) in devices.iter().zip(made) {
        let _ = device.host_node.set(fd);
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

/// A node that the host has not, and its owner on the host.
struct Node<'p> {
    path: &'p CStr,
    kind: FileType,
    mode: Mode,
    number: u64,
    owner: (Uid, Gid),
}

/// Makes nodes in a file system of their own. Kernels before 6.15 clone only what is mounted in the caller's mount
/// namespace, so this one is mounted, on the root file system's place, in the namespace of a thread that ends here.
fn make_nodes(place: &CStr, nodes: &[Node<'_>]) -> Result<Vec<OwnedFd>, Error> {
    std::thread::scope(|scope| {
        let work = || -> Result<Vec<OwnedFd>, Error> {
            let failed = |errno: Errno| setup(Step::Device, place, errno);
            unshare(libc::CLONE_NEWNS).map_err(failed)?;
            let host = open_path(Path::new("/"))?;
            mount_setattr(host.as_fd(), true, &MountAttr::propagation(libc::MS_PRIVATE)).map_err(failed)?;
            let folder = plain_filesystem(c"tmpfs", 0).map_err(failed)?;
            root::attach(place, &folder).map_err(failed)?;
            let numbered = (0..).zip(nodes);
            let made = numbered.map(|(number, node)| {
                make_node(folder.as_fd(), number, node).map_err(|errno| setup(Step::Device, node.path, errno))
            });
            made.collect()
        };
        let thread = std::thread::Builder::new().spawn_scoped(scope, work);
        let thread = thread.map_err(|e| Error::system("start", "a thread that makes devices", e))?;
        thread.join().unwrap_or(Err(Error::InitDied))
    })
}

fn setup(step: Step, subject: &CStr, errno: Errno) -> Error {
    Error::from_report(step, errno.raw_os_error(), subject.to_string_lossy().into_owned(), "")
}

/// One node, as a mount that is attached nowhere.
fn make_node(folder: BorrowedFd<'_>, number: u32, node: &Node<'_>) -> Result<OwnedFd, Errno> {
    let name = CString::new(number.to_string()).map_err(|_| Errno::INVAL)?;
    let (uid, gid) = node.owner;
    rustix::fs::mknodat(folder, &name, node.kind, node.mode, node.number)?;
    rustix::fs::chownat(folder, &name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    rustix::fs::chmodat(folder, &name, node.mode, AtFlags::empty())?;
    clone_tree(folder, &name, false)
}
