//! What a container is made from.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use crate::Trace;

/// Where the root file system comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootfsSource {
    /// `root.path` of the specification, as it is.
    Bundle,
    /// An overlay, mounted on `root.path` in the container's mount namespace only.
    Overlay {
        /// Read-only layers, the topmost first; at least one.
        lower: Vec<PathBuf>,
        /// The writable layer.
        upper: PathBuf,
        /// Overlayfs's work folder, on the same file system as `upper`.
        work: PathBuf,
    },
}

/// Who makes the cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CgroupManager {
    /// This library, in the cgroup file system.
    #[default]
    Cgroupfs,
    /// systemd, asked over D-Bus.
    Systemd,
}

/// What a process gets as descriptors 0, 1 and 2.
#[derive(Debug, Clone, Copy)]
pub enum Stdio<'fd> {
    /// The caller's.
    Inherit,
    /// These. They stay the caller's.
    Fds {
        /// Descriptor 0.
        stdin: BorrowedFd<'fd>,
        /// Descriptor 1.
        stdout: BorrowedFd<'fd>,
        /// Descriptor 2.
        stderr: BorrowedFd<'fd>,
    },
    /// A new terminal of the container's own devpts; the caller gets the master.
    Terminal {
        /// Rows and columns.
        size: Option<(u16, u16)>,
    },
    /// The same for a caller who copies it to a terminal of his own: line ends stay as the program writes them, for
    /// it is that terminal which puts a carriage return before them.
    CopiedTerminal,
}

/// What [`crate::Container::create`] and [`crate::Container::run`] need.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// The container's id; names its cgroup when the specification does not.
    pub id: &'a str,
    /// The bundle's folder: a relative `root.path` is relative to it, and hooks are told it.
    pub bundle: &'a Path,
    /// The specification.
    pub spec: &'a Spec,
    /// Where the root file system comes from.
    pub rootfs: &'a RootfsSource,
    /// Who makes the cgroups.
    pub cgroup_manager: CgroupManager,
    /// Standard input, output and error.
    pub stdio: Stdio<'a>,
    /// So many of the caller's descriptors, from 3 on, are handed to the process.
    pub preserve_fds: u32,
    /// Report a failure of `execve` itself (not a program for this machine, its interpreter is missing) as
    /// [`crate::Error::Exec`]. By default it is the program's, as with runc and Docker: init says so
    /// on its standard error, and its exit code is 255.
    pub report_exec_failure: bool,
    /// Let the container use the caller's session keyring. By default it gets its own.
    pub inherit_keyring: bool,
    /// Move the root file system over the host's root instead of exchanging the two. That is for hosts whose root is an
    /// initramfs, which `pivot_root` refuses; the host's tree then stays in the container's mount namespace, out of reach
    /// but for its procfs and sysfs, which are taken out of it first.
    pub no_pivot: bool,
    /// A folder where `create` leaves a socket through which *another* process can start the
    /// container ([`crate::SavedState::open`], then [`crate::Container::start`]).
    pub start_socket_in: Option<&'a Path>,
    /// Who is told what is being done, step by step.
    pub trace: Option<Trace<'a>>,
}

impl<'a> Launch<'a> {
    /// A launch with inherited standard I/O and cgroupfs.
    pub fn new(id: &'a str, bundle: &'a Path, spec: &'a Spec, rootfs: &'a RootfsSource) -> Self {
        Launch {
            id,
            bundle,
            spec,
            rootfs,
            cgroup_manager: CgroupManager::Cgroupfs,
            stdio: Stdio::Inherit,
            preserve_fds: 0,
            report_exec_failure: false,
            inherit_keyring: false,
            no_pivot: false,
            start_socket_in: None,
            trace: None,
        }
    }
}
