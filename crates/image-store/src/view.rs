//! A container's file system together with its volumes, as `docker cp` sees it.
#![allow(unsafe_code, reason = "unshare(2) is safe in a thread of its own only, which no type can say")]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, StatxFlags, mkdirat, openat, openat2, statx};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount_change, mount_remount,
    move_mount, open_tree,
};
use rustix::thread::{ThreadNameSpaceType, UnshareFlags, move_into_thread_name_spaces, unshare_unsafe};

use crate::{Error, Mountable, Result, Writable, mount_detached};

/// Something of the host that a container sees below a path of its own.
#[derive(Debug, Clone, Copy)]
pub struct Bind<'a> {
    /// A folder or file of the host.
    pub source: &'a Path,
    /// Where it is in the container; made if it is not there.
    pub target: &'a Path,
    /// Whether nothing can be written below it.
    pub read_only: bool,
}

/// What [`with_view`] shows.
#[derive(Debug)]
pub struct View {
    root: OwnedFd,
    /// Of each bind, in the order in which they were given.
    mounts: Vec<u64>,
}

impl View {
    /// The root. Paths are to be resolved below it with `RESOLVE_IN_ROOT`.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Which of the binds a file is in; `None` for the container's own file system.
    ///
    /// # Errors
    /// Those of statx(2).
    pub fn bind_of(&self, file: impl AsFd) -> io::Result<Option<usize>> {
        let id = mount_id(file.as_fd())?;
        Ok(self.mounts.iter().position(|mount| *mount == id))
    }
}

/// Calls `work` with a view of a container's file system in which `binds` are mounted, too. It exists in a mount namespace
/// of a thread's own, which ends with `work`: nobody else sees it, and nothing is left of it. `work` runs in that thread.
///
/// `init` is a running container's init by a pidfd: its overlay is shown as it is mounted there, without
/// what else is mounted in the container (`/proc`, `/dev`, tmpfs). Without, the overlay is mounted anew.
///
/// # Errors
/// [`Error::Mount`] with the step that failed.
pub fn with_view<T: Send>(
    writable: &Writable,
    init: Option<BorrowedFd<'_>>,
    binds: &[Bind<'_>],
    work: impl FnOnce(&View) -> T + Send,
) -> Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| view_in_this_thread(writable, init, binds).map(|view| work(&view)));
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn at(step: &'static str) -> impl Fn(Errno) -> Error {
    move |errno| Error::Mount { step, source: errno.into() }
}

/// This thread ends with the view: only then do its namespaces concern nobody.
fn view_in_this_thread(
    writable: &Writable,
    init: Option<BorrowedFd<'_>>,
    binds: &[Bind<'_>],
) -> Result<View> {
    let root = match init {
        Some(init) => root_of_running(init)?,
        None => mount_detached(Mountable::Writable(writable))?,
    };
    // SAFETY: this thread is ours alone and ends with its work; descriptors stay shared.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.map_err(at("unshare"))?;
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .map_err(at("make private"))?;
    let empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    // Any folder would do: it is covered in this namespace alone.
    move_mount(&root, "", CWD, &writable.work, empty).map_err(at("move_mount"))?;
    let mut view = View { root, mounts: vec![0; binds.len()] };
    let mut order: Vec<(usize, &Bind<'_>)> = binds.iter().enumerate().collect();
    order.sort_by_key(|(_, bind)| bind.target.components().count());
    for (index, bind) in order {
        if let Some(mount) = view.mounts.get_mut(index) {
            *mount = attach(&view.root, bind)?;
        }
    }
    Ok(view)
}

/// The overlay that a running container has as its root, by way of its mount namespace.
fn root_of_running(init: BorrowedFd<'_>) -> Result<OwnedFd> {
    let read = OFlags::RDONLY | OFlags::CLOEXEC;
    let host = openat(CWD, "/proc/thread-self/ns/mnt", read, Mode::empty()).map_err(at("open"))?;
    // SAFETY: as above; a thread that shares its root folder with others cannot enter a mount namespace.
    unsafe { unshare_unsafe(UnshareFlags::FS) }.map_err(at("unshare"))?;
    move_into_thread_name_spaces(init, ThreadNameSpaceType::MOUNT).map_err(at("setns"))?;
    // Without what is mounted below it.
    let root = open_tree(CWD, "/", OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC);
    move_into_thread_name_spaces(host.as_fd(), ThreadNameSpaceType::MOUNT).map_err(at("setns"))?;
    root.map_err(at("open_tree"))
}

/// Mounts a bind inside the root. Returns the mount's id.
fn attach(root: &OwnedFd, bind: &Bind<'_>) -> Result<u64> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let source = open_tree(CWD, bind.source, flags).map_err(at("open_tree"))?;
    let folder = statx(&source, "", AtFlags::EMPTY_PATH, StatxFlags::TYPE).map_err(at("stat"))?;
    let is_folder =
        rustix::fs::FileType::from_raw_mode(folder.stx_mode.into()) == rustix::fs::FileType::Directory;
    let target = target(root, bind.target, is_folder).map_err(at("make the mount point"))?;
    let both_empty = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&source, "", &target, "", both_empty).map_err(at("move_mount"))?;
    if bind.read_only {
        let place = format!("/proc/thread-self/fd/{}", source.as_raw_fd());
        let none = CString::default();
        mount_remount(place, MountFlags::BIND | MountFlags::RDONLY, none.as_c_str())
            .map_err(at("remount"))?;
    }
    mount_id(source.as_fd()).map_err(|source| Error::Mount { step: "stat", source })
}

/// Opens the place of a mount, made if it is not there, as if `root` were the root of all links.
fn target(root: &OwnedFd, path: &Path, is_folder: bool) -> std::result::Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let open = |path: &Path, flags| openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve);
    match open(path, OFlags::PATH) {
        Err(Errno::NOENT) => {}
        opened => return opened,
    }
    let parts: Vec<_> = path.components().collect();
    let mut so_far = std::path::PathBuf::from("/");
    for (index, part) in parts.iter().enumerate() {
        let parent = open(&so_far, OFlags::PATH | OFlags::DIRECTORY)?;
        so_far.push(part);
        let Err(Errno::NOENT) = open(&so_far, OFlags::PATH) else { continue };
        let name: &Path = part.as_ref();
        if is_folder || index + 1 < parts.len() {
            mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
        } else {
            let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            openat(&parent, name, new, Mode::from_raw_mode(0o755))?;
        }
    }
    open(path, OFlags::PATH)
}

fn mount_id(file: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)?.stx_mnt_id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    fn read(view: &View, path: &str) -> std::result::Result<String, Errno> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = openat2(view.root(), path, flags, Mode::empty(), ResolveFlags::IN_ROOT)?;
        Ok(io::read_to_string(fs::File::from(file)).unwrap())
    }

    fn writable(dir: &Path) -> Writable {
        for folder in ["lower/etc", "upper", "work", "volume/deep", "inner"] {
            fs::create_dir_all(dir.join(folder)).unwrap();
        }
        fs::write(dir.join("lower/etc/hosts"), "image").unwrap();
        fs::write(dir.join("hosts"), "own").unwrap();
        fs::write(dir.join("volume/x"), "volume").unwrap();
        fs::write(dir.join("inner/y"), "inner").unwrap();
        std::os::unix::fs::symlink("/vol", dir.join("lower/link")).unwrap();
        Writable { lower: vec![dir.join("lower")], upper: dir.join("upper"), work: dir.join("work") }
    }

    #[test]
    fn volumes_are_seen_and_written_and_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let writable = writable(dir.path());
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let source = |name: &str| dir.path().join(name);
        let (volume, inner, hosts): (PathBuf, PathBuf, PathBuf) =
            (source("volume"), source("inner"), source("hosts"));
        let binds = [
            Bind { source: &inner, target: Path::new("/vol/in/ner"), read_only: true },
            Bind { source: &volume, target: Path::new("/vol"), read_only: false },
            Bind { source: &hosts, target: Path::new("/etc/hosts"), read_only: false },
        ];
        with_view(&writable, None, &binds, |view| {
            assert_eq!(read(view, "/etc/hosts").unwrap(), "own");
            assert_eq!(read(view, "/link/x").unwrap(), "volume", "links lead into volumes");
            assert_eq!(read(view, "/vol/in/ner/y").unwrap(), "inner");
            assert_eq!(read(view, "/../../etc/hosts").unwrap(), "own");
            let open = |path: &str| {
                openat2(view.root(), path, OFlags::PATH, Mode::empty(), ResolveFlags::IN_ROOT).unwrap()
            };
            assert_eq!(view.bind_of(open("/link/in/ner")).unwrap(), Some(0));
            assert_eq!(view.bind_of(open("/vol/deep")).unwrap(), Some(1));
            assert_eq!(view.bind_of(open("/etc")).unwrap(), None);
            let create = |path: &str| {
                let flags = OFlags::WRONLY | OFlags::CREATE;
                openat2(view.root(), path, flags, Mode::from_raw_mode(0o644), ResolveFlags::IN_ROOT).map(drop)
            };
            create("/vol/made").unwrap();
            create("/etc/made").unwrap();
            assert_eq!(create("/vol/in/ner/made"), Err(Errno::ROFS));
        })
        .unwrap();
        assert!(source("volume/made").exists() && source("upper/etc/made").exists());
        assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts);
    }

    #[test]
    fn a_running_container_is_seen_by_its_own_mount() {
        let dir = tempfile::tempdir().unwrap();
        let writable = writable(dir.path());
        // Something like a container: an overlay as the root of a mount namespace, with a tmpfs on top of /etc.
        let merged = dir.path().join("merged");
        fs::create_dir(&merged).unwrap();
        let script = format!(
            "mount -t overlay o -o lowerdir={0}/lower,upperdir={0}/upper,workdir={0}/work {0}/merged && cd {0}/merged && \
             mount -t tmpfs t etc && mkdir old && pivot_root . old && echo ready && read end",
            dir.path().display()
        );
        let mut child = std::process::Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", &script])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        io::BufRead::read_line(&mut io::BufReader::new(child.stdout.as_mut().unwrap()), &mut line).unwrap();
        assert_eq!(line, "ready\n");
        let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        let volume = dir.path().join("volume");
        let bind = Bind { source: &volume, target: Path::new("/vol"), read_only: false };
        with_view(&writable, Some(pidfd.as_fd()), &[bind], |view| {
            assert_eq!(
                read(view, "/etc/hosts").unwrap(),
                "image",
                "what is mounted in the container is not seen"
            );
            assert_eq!(read(view, "/vol/x").unwrap(), "volume");
        })
        .unwrap();
        // A mount point below a link that leads nowhere is not made.
        let bind = Bind { target: Path::new("/nowhere/deeper"), ..bind };
        std::os::unix::fs::symlink("/gone", writable.upper.join("nowhere")).unwrap();
        with_view(&writable, Some(pidfd.as_fd()), &[bind], |_| ()).unwrap_err();
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
