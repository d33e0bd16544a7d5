//! Paths that are hidden, and paths that may only be read.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, makedev};
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
    let mut covers = None;
    for path in &plan.masked_paths {
        let target = match target::open(root, path, OFlags::PATH) {
            Err(Errno::NOENT | Errno::NOTDIR) => continue,
            other => other.at(Step::MaskPath, path)?,
        };
        let covers = match &covers {
            Some(covers) => covers,
            None => covers.insert(Covers::make(root, plan.bind_devices).at(Step::MaskPath, path)?),
        };
        let stat = rustix::fs::fstat(&target).at(Step::MaskPath, path)?;
        let folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let cover = covers.take(folder).at(Step::MaskPath, path)?;
        mount::attach_at(cover.as_fd(), target.as_fd()).at(Step::MaskPath, path)?;
    }
    Ok(())
}

/// What paths are covered with: parts of one small read-only tmpfs that nobody else sees. So nothing
/// that a container can touch is ever taken for `/dev/null`, and all masks share one file system.
struct Covers {
    tmpfs: OwnedFd,
    /// In user namespaces, where no node can be made: the container's own, verified.
    null: Option<OwnedFd>,
}

impl Covers {
    fn make(root: BorrowedFd<'_>, no_nodes: bool) -> Result<Self, Errno> {
        let tmpfs = mount::new_filesystem(c"tmpfs", c"tmpfs", &[], 0)?;
        rustix::fs::mkdirat(&tmpfs, c"empty", Mode::from_raw_mode(0o755))?;
        let null = if no_nodes {
            Some(dev::null(root)?)
        } else {
            let mode = Mode::from_raw_mode(0o666);
            rustix::fs::mknodat(&tmpfs, c"null", FileType::CharacterDevice, mode, makedev(1, 3))?;
            None
        };
        mount_setattr(tmpfs.as_fd(), false, &MountAttr::MASK)?;
        Ok(Covers { tmpfs, null })
    }

    fn take(&self, folder: bool) -> Result<OwnedFd, Errno> {
        match (&self.null, folder) {
            (_, true) => mount::clone_tree(self.tmpfs.as_fd(), c"empty", false),
            (Some(null), false) => mount::clone_tree(null.as_fd(), c"", false),
            (None, false) => mount::clone_tree(self.tmpfs.as_fd(), c"null", false),
        }
    }
}
