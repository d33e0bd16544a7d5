//! `/dev`: nodes and links.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, makedev};
use rustix::io::Errno;

use super::channel::NO_SUBJECT;
use super::{At, Done, mount, target};
use crate::error::Step;
use crate::plan::Plan;
use crate::plan::devices::{Device, KCORE, LINKS};

/// Where nodes cannot be made (user namespaces), takes hold of the host's, while they can be seen.
pub(crate) fn open_host_nodes(plan: &Plan) -> Done<'_> {
    let missing = |device: &&Device| plan.bind_devices && device.host_node.get().is_none();
    for device in plan.devices.iter().flatten().filter(missing) {
        let fd = mount::clone_tree(rustix::fs::CWD, &device.host_path, false)
            .at(Step::Device, &device.host_path)?;
        let _ = device.host_node.set(fd);
    }
    Ok(())
}

/// Makes the nodes and the usual links.
pub(crate) fn make<'p>(root: BorrowedFd<'_>, devices: &'p [Device], bind: bool) -> Done<'p> {
    let dev = open_dev(root).at(Step::Device, c"dev")?;
    for device in devices {
        if bind {
            bind_node(root, device).at(Step::Device, &device.path)?;
        } else {
            make_node(root, dev.as_fd(), device).at(Step::Device, &device.path)?;
        }
    }
    let kcore = target::open(root, c"proc/kcore", OFlags::PATH | OFlags::NOFOLLOW).is_ok();
    for (name, text) in LINKS.into_iter().chain(kcore.then_some(KCORE)) {
        match rustix::fs::symlinkat(text, &dev, name) {
            // a terminal that is made by way of an image's own ptmx would be the host's
            Err(Errno::EXIST) if name == c"ptmx" => {
                rustix::fs::unlinkat(&dev, name, AtFlags::empty()).at(Step::Symlink, name)?;
                rustix::fs::symlinkat(text, &dev, name).at(Step::Symlink, name)?;
            }
            Err(Errno::EXIST) => {}
            other => other.at(Step::Symlink, name)?,
        }
    }
    Ok(())
}

/// `/dev` itself; a symbolic link in its place is refused.
fn open_dev(root: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    Ok(target::open_or_make(root, c"dev", true, false)?.fd)
}

fn make_node(root: BorrowedFd<'_>, dev: BorrowedFd<'_>, device: &Device) -> Result<(), Errno> {
    match device.path.to_bytes().strip_prefix(b"dev/") {
        Some(name) if !name.contains(&b'/') => {
            let name = device.path.to_bytes_with_nul().get(4..).unwrap_or_default();
            let name = std::ffi::CStr::from_bytes_with_nul(name).map_err(|_| Errno::INVAL)?;
            node(dev, name, device)
        }
        _ => target::with_parent(root, &device.path, false, |parent, name| node(parent, name, device)),
    }
}

fn node(parent: BorrowedFd<'_>, name: &std::ffi::CStr, device: &Device) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(device.mode);
    let kind = FileType::from_raw_mode(device.kind);
    match rustix::fs::mknodat(parent, name, kind, mode, makedev(device.major, device.minor)) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(()), // the image's own
        Err(errno) => return Err(errno),
    }
    if device.uid != 0 || device.gid != 0 {
        let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
        rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(())
}

fn bind_node(root: BorrowedFd<'_>, device: &Device) -> Result<(), Errno> {
    let Some(node) = device.host_node.get() else { return Err(Errno::BADF) };
    let target = target::open_or_make(root, &device.path, false, false)?;
    mount::attach_at(node.as_fd(), target.fd.as_fd())
}

/// The container's `/dev/null`, if it is the real one.
pub(crate) fn null(root: BorrowedFd<'_>) -> Result<OwnedFd, Errno> {
    let null = target::open(root, c"dev/null", OFlags::PATH | OFlags::NOFOLLOW)?;
    let stat = rustix::fs::fstat(&null)?;
    let is_null =
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == makedev(1, 3);
    if is_null { Ok(null) } else { Err(Errno::NODEV) }
}

/// `/dev/console`, a mount of the terminal's slave.
pub(crate) fn console(root: BorrowedFd<'_>, slave: BorrowedFd<'_>) -> Done<'static> {
    let target = target::open_or_make(root, c"dev/console", false, false).at(Step::Console, NO_SUBJECT)?;
    let node = mount::clone_tree(slave, c"", false).at(Step::Console, c"clone")?;
    mount::attach_at(node.as_fd(), target.fd.as_fd()).at(Step::Console, c"mount")
}
