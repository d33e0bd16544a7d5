//! The root file system.

use std::cell::OnceCell;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{c_string, options};
use crate::{Error, Launch, RootfsSource, mountinfo};

/// The longest string that fsconfig(2) takes.
const FSCONFIG_MAX: usize = 255;

/// How the root file system is made.
#[derive(Debug)]
pub(crate) struct Rootfs {
    /// `root.path` on the host.
    pub(crate) path: CString,
    pub(crate) change: Change,
    /// The root, mounted by the parent, if the container has the host's mount namespace.
    pub(crate) on_host: OnceCell<OwnedFd>,
    pub(crate) source: RootSource,
    pub(crate) readonly: bool,
    /// `linux.rootfsPropagation`.
    pub(crate) propagation: Option<(u64, bool)>,
}

impl Rootfs {
    /// Whether it is what is at `root.path`.
    pub(crate) fn is_bound(&self) -> bool {
        matches!(self.source, RootSource::Bind)
    }

    /// `root.path`, if it is what is there.
    pub(crate) fn host_path(&self) -> Option<&Path> {
        self.is_bound().then(|| Path::new(OsStr::from_bytes(self.path.as_bytes())))
    }
}

/// How it becomes the root.
#[derive(Debug)]
pub(crate) enum Change {
    /// It is exchanged with the host's root, which is then let go of.
    Pivot,
    /// It is moved over the host's root. Before that, what is mounted at these places is taken away: a container that
    /// makes a user namespace may mount a procfs of its own only if it sees one that is whole.
    Move { hide: Vec<CString> },
    /// Only the processes' root changes: the mount namespace is the host's.
    Chroot,
}

/// Where it comes from.
#[derive(Debug)]
pub(crate) enum RootSource {
    /// What is at the path.
    Bind,
    /// An overlay.
    Overlay {
        lower: Vec<CString>,
        upper: CString,
        work: CString,
        /// All options in one string, for kernels before 6.8 and for long paths. The string names the
        /// layers as `/proc/self/fd/N`, so hundreds fit into a page.
        in_one_page: bool,
    },
}

/// Compiles. `own_mounts` says whether the container has a mount namespace of its own.
pub(crate) fn compile(launch: &Launch<'_>, own_mounts: bool) -> Result<Rootfs, Error> {
    let Some(root) = launch.spec.root() else {
        return Err(Error::spec("root", "is missing"));
    };
    let path = launch.bundle.join(root.path());
    let propagation = match launch.spec.linux().as_ref().and_then(|l| l.rootfs_propagation().as_deref()) {
        None | Some("") => None,
        Some(name) => Some(
            options::propagation(name)
                .ok_or_else(|| Error::spec("linux.rootfsPropagation", format!("{name:?} is unknown")))?,
        ),
    };
    let change = match (own_mounts, launch.no_pivot) {
        (false, _) if !matches!(launch.rootfs, RootfsSource::Bundle) => {
            return Err(Error::Unsupported {
                what: "an overlay in the host's mount namespace".into(),
                why: "give the container a mount namespace of its own",
            });
        }
        (false, _) => Change::Chroot,
        (true, true) => Change::Move { hide: kernel_file_systems(&mountinfo::read()?, &path)? },
        (true, false) => Change::Pivot,
    };
    Ok(Rootfs {
        path: c_string("root.path", &path.to_string_lossy())?,
        change,
        on_host: OnceCell::new(),
        source: match launch.rootfs {
            RootfsSource::Bundle => RootSource::Bind,
            RootfsSource::Overlay { lower, upper, work } => overlay(lower, upper, work)?,
        },
        readonly: root.readonly().unwrap_or(false),
        propagation,
    })
}

/// Where whole instances of procfs and sysfs are mounted outside of the root file system.
fn kernel_file_systems(table: &str, root: &Path) -> Result<Vec<CString>, Error> {
    mountinfo::entries(table)
        .filter(|mount| mount.root == "/" && matches!(mount.fstype, "proc" | "sysfs"))
        .map(|mount| mountinfo::unescape(mount.point))
        .filter(|point| !point.starts_with(root))
        .map(|point| c_string("root.path", &point.to_string_lossy()))
        .collect()
}

fn overlay(lower: &[std::path::PathBuf], upper: &Path, work: &Path) -> Result<RootSource, Error> {
    if lower.is_empty() {
        return Err(Error::spec("rootfs", "an overlay needs at least one lower layer"));
    }
    let text = |path: &Path| c_string("rootfs", &path.to_string_lossy());
    let long = |path: &Path| path.as_os_str().len() > FSCONFIG_MAX;
    let any_long = lower.iter().map(std::path::PathBuf::as_path).chain([upper, work]).any(long);
    let in_one_page = any_long || !kernel_is_at_least(rustix::system::uname().release(), (6, 8));
    // "/proc/self/fd/1234:" for each
    if in_one_page && lower.len() > 200 {
        return Err(Error::Unsupported {
            what: format!("an overlay of {} layers", lower.len()),
            why: "this kernel takes its options in one page only",
        });
    }
    Ok(RootSource::Overlay {
        lower: lower.iter().map(|path| text(path)).collect::<Result<_, _>>()?,
        upper: text(upper)?,
        work: text(work)?,
        in_one_page,
    })
}

/// Compares `6.8.0-rc1-foo` by its first two numbers.
fn kernel_is_at_least(release: &CStr, wanted: (u32, u32)) -> bool {
    let text = release.to_string_lossy();
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_must_not_be_seen() {
        let table = "\
20 1 0:4 / /proc rw - proc proc rw
21 1 0:5 / /sys rw - sysfs sysfs rw
22 20 0:4 /sys /mnt/part rw - proc proc rw
23 1 0:4 / /other\\040place rw - proc proc rw
24 1 0:9 / /bundle/rootfs/proc rw - proc proc rw
25 1 0:6 / /run rw - tmpfs tmpfs rw
";
        let hidden = kernel_file_systems(table, Path::new("/bundle/rootfs")).unwrap();
        assert_eq!(hidden, [c"/proc".to_owned(), c"/sys".to_owned(), c"/other place".to_owned()]);
    }

    #[test]
    fn kernel_versions() {
        assert!(kernel_is_at_least(c"6.8.0-rc1", (6, 8)));
        assert!(kernel_is_at_least(c"7.0", (6, 8)));
        assert!(!kernel_is_at_least(c"5.15.0-91-generic", (6, 8)));
        assert!(!kernel_is_at_least(c"6.1.99", (6, 8)));
    }
}
