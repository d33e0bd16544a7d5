//! Network namespaces of containers: bind-mounted, so that they outlive the processes in them. Work inside one is
//! done by a throwaway thread that ends with it; no shared thread ever changes its namespace.
//!
//! Unsafe, because `unshare` of the file table would be; only the network is unshared here.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// Enough for a few screens of our own code; touched pages only are paid for.
const STACK_BYTES: usize = 256 << 10;
const OWN: &str = "/proc/thread-self/ns/net";

/// A namespace that is held by its descriptor only, after `work` in it: to be made use of by [`create`].
pub(crate) fn blank<E: Send>(work: impl FnOnce() -> Result<(), E> + Send) -> io::Result<Result<OwnedFd, E>> {
    in_thread(|| {
        let own = unshare()?;
        Ok(work().map(|()| own.into()))
    })
}

/// Makes a namespace, or takes a blank one, runs `work` in it with a descriptor of it, and keeps it mounted at the
/// new file `path` if that succeeds. `work` gets what `before` made while the thread was still in the
/// host's namespace. The outer error is the namespace's, the inner one `work`'s.
pub(crate) fn create<B, T: Send, E: Send>(
    path: &Path,
    blank: Option<OwnedFd>,
    before: impl FnOnce() -> io::Result<B> + Send,
    work: impl FnOnce(B, BorrowedFd<'_>) -> Result<T, E> + Send,
) -> io::Result<Result<T, E>> {
    in_thread(|| {
        let prepared = before()?;
        let own = match blank {
            Some(blank) => {
                enter(blank.as_fd())?;
                blank.into()
            }
            None => unshare()?,
        };
        File::create_new(path)?;
        let done = rustix::mount::mount_bind(OWN, path).map(|()| work(prepared, own.as_fd()));
        if !matches!(done, Ok(Ok(_))) {
            remove(path);
        }
        Ok(done?)
    })
}

fn unshare() -> io::Result<File> {
    // SAFETY: only the network namespace of this thread changes; descriptors stay shared.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
    File::open(OWN)
}

fn enter(namespace: BorrowedFd<'_>) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?)
}

/// Runs `work` in the namespace mounted at `path`, as [`create`] does.
pub(crate) fn within<B, T: Send, E: Send>(
    path: &Path,
    before: impl FnOnce() -> io::Result<B> + Send,
    work: impl FnOnce(B, BorrowedFd<'_>) -> Result<T, E> + Send,
) -> io::Result<Result<T, E>> {
    in_thread(|| {
        let prepared = before()?;
        let namespace = File::open(path)?;
        enter(namespace.as_fd())?;
        Ok(work(prepared, namespace.as_fd()))
    })
}

fn in_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
    })
}

/// Unmounts a namespace and removes its file; what is not there is fine.
pub(crate) fn remove(path: &Path) {
    // Both fail only when there is nothing to remove, or somebody removes it beside us.
    let _ = rustix::mount::unmount(path, UnmountFlags::DETACH);
    let _ = std::fs::remove_file(path);
}

/// Whether a namespace is mounted at `path` (and not just a file left over from before a reboot).
pub(crate) fn is_mounted(path: &Path) -> bool {
    const NSFS_MAGIC: u64 = 0x6e73_6673;
    rustix::fs::statfs(path).is_ok_and(|s| s.f_type as u64 == NSFS_MAGIC)
}

/// Undoes [`make_private_folder`]. Fails while a namespace is mounted in it.
pub(crate) fn release_private_folder(folder: &Path) -> io::Result<()> {
    Ok(rustix::mount::unmount(folder, UnmountFlags::empty())?)
}

/// Makes `folder` a mount of its own that is not shared with other mount namespaces: a namespace mounted in it is then
/// held by nobody else, and ends when we unmount it.
pub(crate) fn make_private_folder(folder: &Path) -> io::Result<()> {
    use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
    std::fs::create_dir_all(folder)?;
    match mount_change(folder, MountPropagationFlags::PRIVATE) {
        // It is not a mount point yet.
        Err(Errno::INVAL) => {
            mount_bind(folder, folder)?;
            mount_change(folder, MountPropagationFlags::PRIVATE)?;
        }
        other => other?,
    }
    Ok(())
}
