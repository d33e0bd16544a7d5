//! Paths that are hidden, and paths that may only be read.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use super::{At, Done, dev, mount, target};
use crate::error::Step;
use crate::plan::Plan;
use crate::sys::mount::{MountAttr, mount_setattr};

/// Binds each path onto itself, read-only. Paths that do not exist need no protection.
pub(crate) fn make_readonly<'p>(root: BorrowedFd<'_>, paths: &'p [CString]) -> Done<'p> {
    for path in paths {
        let target = match target::open(root, path, OFlags::PATH) {
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            other => other.at(Step::ReadonlyPath, path)?,
        };
        let tree = mount::clone_tree(target.as_fd(), c"", true).at(Step::ReadonlyPath, path)?;
        mount_setattr(tree.as_fd(), false, &MountAttr::READONLY).at(Step::ReadonlyPath, path)?;
        mount::attach_at(tree.as_fd(), target.as_fd()).at(Step::ReadonlyPath, path)?;
    }
    Ok(())
}

/// Covers each path: folders with an empty one, everything else with a null device.
pub(crate) fn mask<'p>(root: BorrowedFd<'_>, plan: &'p Plan) -> Done<'p> {
    let (mut null, mut empty) = (None, None);
    for path in &plan.masked_paths {
        let target = match target::open(root, path, OFlags::PATH) {
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            other => other.at(Step::MaskPath, path)?,
        };
        let stat = rustix::fs::fstat(&target).at(Step::MaskPath, path)?;
        let folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let done =
            if folder { cover_folder(&mut empty, &target) } else { cover_file(&mut null, root, &target) };
        done.at(Step::MaskPath, path)?;
    }
    Ok(())
}

/// With the container's `/dev/null`, of which the descriptor shows that it is the real one (2025-31133).
fn cover_file(null: &mut Option<OwnedFd>, root: BorrowedFd<'_>, target: &OwnedFd) -> Result<(), Errno> {
    let null = match null {
        Some(null) => null,
        None => null.insert(dev::null(root)?),
    };
    mount::attach_at(mount::clone_tree(null.as_fd(), c"", false)?.as_fd(), target.as_fd())
}

/// With an empty read-only tmpfs, which all covered folders share. The first gets the mount itself, since one that is
/// attached nowhere would be taken apart at the end, which waits for an RCU grace period.
fn cover_folder(empty: &mut Option<OwnedFd>, target: &OwnedFd) -> Result<(), Errno> {
    if let Some(empty) = empty {
        return mount::attach_at(mount::clone_tree(empty.as_fd(), c"", false)?.as_fd(), target.as_fd());
    }
    let tmpfs = mount::plain_filesystem(c"tmpfs", MountAttr::READONLY.set)?;
    mount::attach_at(tmpfs.as_fd(), target.as_fd())?;
    *empty = Some(tmpfs);
    Ok(())
}
