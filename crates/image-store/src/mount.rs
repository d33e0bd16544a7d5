//! Looking into an image or a container's file system without attaching it anywhere.
#![allow(unsafe_code, reason = "unshare(2) is safe in a thread of its own only, which no type can say")]

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, OpenTreeFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount, mount_change, open_tree,
};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use crate::{Error, ImageId, Result, Store, Writable};

/// What [`mount_detached`] mounts.
#[derive(Debug, Clone, Copy)]
pub enum Mountable<'a> {
    /// A container's file system, writable.
    Writable(&'a Writable),
    /// An image's, read-only.
    Image(&'a Store, &'a ImageId),
}

/// Mounts an overlay that is attached nowhere: it is reached through the folder that is returned,
/// and it goes when the last descriptor of it is closed.
///
/// A writable layer must be mounted once at a time with the same upper folder, except as overlayfs
/// itself allows; for a running container look at its own root instead.
///
/// # Errors
/// [`Error::Mount`] with the failing step; [`Error::NoSuchImage`].
pub fn mount_detached(what: Mountable<'_>) -> Result<OwnedFd> {
    Overlay::of(what)?.mount_somehow()
}

/// Mounts folders above each other, the topmost first, at least two, such that nothing can be written.
pub(crate) fn mount_read_only(lower: Vec<PathBuf>) -> Result<OwnedFd> {
    Overlay { lower, writable: None }.mount_somehow()
}

/// The folders of an overlay.
struct Overlay<'a> {
    /// The topmost first.
    lower: Vec<PathBuf>,
    /// Upper and work folder.
    writable: Option<(&'a Path, &'a Path)>,
}

struct Failed {
    step: &'static str,
    errno: Errno,
}

fn at(step: &'static str) -> impl FnOnce(Errno) -> Failed {
    move |errno| Failed { step, errno }
}

impl<'a> Overlay<'a> {
    fn of(what: Mountable<'a>) -> Result<Self> {
        match what {
            Mountable::Writable(writable) => {
                let folders = (writable.upper.as_path(), writable.work.as_path());
                Ok(Self { lower: writable.lower.clone(), writable: Some(folders) })
            }
            Mountable::Image(store, id) => {
                let image = store.image(id)?;
                Ok(Self { lower: store.inner.readable_dirs(image.diff_ids()), writable: None })
            }
        }
    }

    fn mount_somehow(&self) -> Result<OwnedFd> {
        match self.mount() {
            // Before Linux 6.8 layers cannot be given one by one.
            Err(failed) if failed.errno == Errno::INVAL => self.mount_in_one_page(),
            mounted => mounted,
        }
        .map_err(|Failed { step, errno }| Error::Mount { step, source: errno.into() })
    }

    fn mount(&self) -> std::result::Result<OwnedFd, Failed> {
        let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(at("fsopen"))?;
        let mut attributes = MountAttrFlags::MOUNT_ATTR_RDONLY;
        if let Some((upper, work)) = self.writable {
            fsconfig_set_string(&fs, "upperdir", upper).map_err(at("upperdir"))?;
            fsconfig_set_string(&fs, "workdir", work).map_err(at("workdir"))?;
            attributes = MountAttrFlags::empty();
        }
        for folder in &self.lower {
            fsconfig_set_string(&fs, "lowerdir+", folder).map_err(at("lowerdir+"))?;
        }
        fsconfig_create(&fs).map_err(at("create"))?;
        fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(at("fsmount"))
    }

    /// By mount(2), whose options fit in one page if folders are named by descriptors, in a mount
    /// namespace that ends with its thread; what is kept is a detached copy of the mount.
    fn mount_in_one_page(&self) -> std::result::Result<OwnedFd, Failed> {
        std::thread::scope(|scope| match scope.spawn(|| self.mount_in_this_thread()).join() {
            Ok(mounted) => mounted,
            Err(_) => Err(Failed { step: "thread", errno: Errno::IO }),
        })
    }

    fn mount_in_this_thread(&self) -> std::result::Result<OwnedFd, Failed> {
        // SAFETY: this thread is ours alone and ends with this function; no file descriptor table is
        // unshared, so descriptors mean the same here and there.
        unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.map_err(at("unshare"))?;
        let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
        mount_change("/", private).map_err(at("make private"))?;
        // Only to have a place; it lies in this namespace alone.
        let place =
            self.writable.map_or_else(|| self.lower.first().map(PathBuf::as_path), |(upper, _)| Some(upper));
        let place = place.ok_or(Errno::INVAL).map_err(at("lowerdir"))?;
        let mut open = Vec::new();
        let mut name = |folder: &Path| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd = rustix::fs::open(folder, flags, Mode::empty()).map_err(at("open"))?;
            let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
            open.push(fd);
            Ok(name)
        };
        let lower =
            self.lower.iter().map(|folder| name(folder)).collect::<std::result::Result<Vec<_>, Failed>>()?;
        let mut options = format!("lowerdir={}", lower.join(":"));
        let mut flags = MountFlags::RDONLY;
        if let Some((upper, work)) = self.writable {
            options.push_str(&format!(",upperdir={},workdir={}", name(upper)?, name(work)?));
            flags = MountFlags::empty();
        }
        let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL).map_err(at("options"))?;
        mount("overlay", place, "overlay", flags, options.as_c_str()).map_err(at("mount"))?;
        open_tree(CWD, place, OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)
            .map_err(at("open_tree"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn both_ways_of_mounting_show_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let lower: Vec<PathBuf> =
            (0..60).map(|n| dir.path().join(format!("{n}{}", "x".repeat(80)))).collect();
        for (number, folder) in lower.iter().enumerate() {
            fs::create_dir(folder).unwrap();
            fs::write(folder.join("same"), number.to_string()).unwrap();
            fs::write(folder.join(number.to_string()), "").unwrap();
        }
        let (upper, work) = (dir.path().join("upper"), dir.path().join("work"));
        fs::create_dir(&upper).unwrap();
        fs::create_dir(&work).unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        for writable in [None, Some((upper.as_path(), work.as_path()))] {
            let overlay = Overlay { lower: lower.clone(), writable };
            for way in [Overlay::mount, Overlay::mount_in_one_page] {
                let root = way(&overlay).map_err(|f| format!("{}: {}", f.step, f.errno)).unwrap();
                let path = PathBuf::from(format!("/proc/self/fd/{}", root.as_raw_fd()));
                assert_eq!(fs::read_to_string(path.join("same")).unwrap(), "0");
                assert_eq!(fs::read_dir(&path).unwrap().count(), 61);
                assert_eq!(fs::write(path.join("same"), "0").is_ok(), writable.is_some());
            }
        }
        assert_eq!(fs::read(upper.join("same")).unwrap(), b"0");
        assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts, "nothing is attached");
    }
}
