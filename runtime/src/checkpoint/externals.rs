//! What belongs to the container but not to its images: mounts of the host's tree, cgroups, masked files, namespaces
//! that others made.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::protobuf::Fields;
use crate::cgroup::Cgroup;
use crate::child::target;
use crate::plan::Plan;
use crate::plan::mounts::{Mount, Source};
use crate::{Error, Step};

/// Fields of criu's options.
const EXT_MNT: u32 = 23;
const INHERIT_FD: u32 = 27;
const EXTERNAL: u32 = 37;

fn external_mount(fields: &mut Fields, key: &str, value: &str) {
    let mut pair = Fields::default();
    pair.text(1, key);
    pair.text(2, value);
    fields.message(EXT_MNT, &pair);
}

/// A descriptor that takes the place of what the images call `key`.
pub(super) fn inherit(fields: &mut Fields, key: &str, fd: i32) {
    let mut pair = Fields::default();
    pair.text(1, key);
    pair.number(2, fd);
    fields.message(INHERIT_FD, &pair);
}

fn absolute(target: &CStr) -> String {
    format!("/{}", target.to_string_lossy())
}

/// The root file system, in which targets of mounts are looked up.
struct Root {
    /// How descriptors in it are called from here: for another mount namespace that begins at its own root.
    path: PathBuf,
    fd: OwnedFd,
}

impl Root {
    fn open(path: &Path) -> Result<Self, Error> {
        let fd = crate::cgroup::open_path(path)?;
        let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let path = std::fs::read_link(&link).map_err(|e| Error::system("look at", link, e))?;
        Ok(Root { path, fd })
    }

    /// Where a mount is in the container: criu knows its target without the symbolic links in it.
    fn place(&self, mount: &Mount) -> String {
        let found = target::open(self.fd.as_fd(), &mount.target, OFlags::PATH).ok();
        let path = found.and_then(|fd| std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd())).ok());
        let within = path.as_deref().and_then(|path| path.strip_prefix(&self.path).ok());
        within.map_or_else(|| absolute(&mount.target), |path| format!("/{}", path.display()))
    }
}

/// Where a mount that the images leave out comes from; `None` for what they have.
fn origin(source: &Source, target: &str, cgroup: &Cgroup) -> Option<PathBuf> {
    match source {
        Source::Bind { path, .. } | Source::Inside { named: path, .. } => {
            Some(PathBuf::from(path.to_string_lossy().into_owned()))
        }
        _ if source.is(b"cgroup2") => cgroup.v2_path().map(Path::to_path_buf),
        _ if source.is(b"cgroup") => cgroup
            .v1_folders()
            .iter()
            .find(|folder| folder.mount.file_name() == Path::new(target).file_name())
            .map(|folder| folder.path.clone()),
        _ => None,
    }
}

/// Which namespaces others made, and criu's word for them.
fn foreign(spec: &Spec) -> impl Iterator<Item = (&'static str, &'static str, &Path)> {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    namespaces.into_iter().flatten().filter_map(|namespace| {
        let path = namespace.path().as_deref().filter(|path| !path.as_os_str().is_empty())?;
        match namespace.typ() {
            LinuxNamespaceType::Network => Some(("net", "extRootNetNS", path)),
            LinuxNamespaceType::Pid => Some(("pid", "extRootPidNS", path)),
            _ => None,
        }
    })
}

/// What a dump leaves out.
pub(super) fn of_dump(
    fields: &mut Fields,
    plan: &Plan,
    cgroup: &Cgroup,
    spec: &Spec,
    pid: i32,
) -> Result<(), Error> {
    let root = Root::open(Path::new(&format!("/proc/{pid}/root")))?;
    for mount in &plan.mounts {
        let target = root.place(mount);
        if origin(&mount.source, &target, cgroup).is_some() {
            external_mount(fields, &target, &target);
        }
    }
    for path in &plan.masked_paths {
        let path = absolute(path);
        // folders are covered by a tmpfs, which criu knows by itself
        let there = std::fs::metadata(format!("/proc/{pid}/root{path}"));
        if there.is_ok_and(|metadata| !metadata.is_dir()) {
            external_mount(fields, &path, "/dev/null");
        }
    }
    for device in plan.devices.iter().flatten().filter(|_| plan.bind_devices) {
        let path = absolute(&device.path);
        external_mount(fields, &path, &path);
    }
    for (kind, name, path) in foreign(spec) {
        let stat = rustix::fs::stat(path).map_err(|e| Error::system("look at", path.display(), e))?;
        fields.text(EXTERNAL, &format!("{kind}[{}]:{name}", stat.st_ino));
    }
    Ok(())
}

/// Makes the targets of mounts that are missing, also in what other mounts bring from the host: criu makes none. Those in
/// new file systems are in the images.
fn make_targets(plan: &Plan, root: &Root) -> Result<(), Error> {
    let mut earlier: Vec<(&[u8], Option<OwnedFd>)> = Vec::new();
    // of a source in the container nobody knows yet whether it is a folder
    for mount in plan.mounts.iter().filter(|mount| !matches!(mount.source, Source::Inside { .. })) {
        let target = mount.target.as_bytes();
        let within = earlier
            .iter()
            .rev()
            .find_map(|(place, source)| Some((source, target.strip_prefix(*place)?.strip_prefix(b"/")?)));
        let place = match within {
            None => Some((&root.fd, target)),
            Some((source, rest)) => source.as_ref().map(|source| (source, rest)),
        };
        if let Some((folder, path)) = place {
            let failed = |errno| mount.failure(Step::MakeMountTarget, errno);
            let path = CString::new(path).map_err(|_| failed(Errno::INVAL))?;
            target::open_or_make(folder.as_fd(), &path, mount.onto_folder, mount.follow).map_err(failed)?;
        }
        let source = match &mount.source {
            Source::Bind { path, .. } if mount.onto_folder => {
                Some(crate::cgroup::open_path(Path::new(OsStr::from_bytes(path.as_bytes())))?)
            }
            _ => None,
        };
        earlier.push((target, source));
    }
    Ok(())
}

/// What a restore puts in the place of what the dump has left out. Gives the namespaces' descriptors, which criu needs.
pub(super) fn of_restore(
    fields: &mut Fields,
    plan: &Plan,
    cgroup: &Cgroup,
    spec: &Spec,
    root: &Path,
) -> Result<Vec<OwnedFd>, Error> {
    let root = Root::open(root)?;
    make_targets(plan, &root)?;
    for mount in &plan.mounts {
        let target = root.place(mount);
        if let Some(origin) = origin(&mount.source, &target, cgroup) {
            external_mount(fields, &target, &origin.to_string_lossy());
        }
    }
    if !plan.masked_paths.is_empty() {
        external_mount(fields, "/dev/null", "/dev/null");
    }
    for device in plan.devices.iter().flatten().filter(|_| plan.bind_devices) {
        let path = absolute(&device.path);
        external_mount(fields, &path, &path);
    }
    let mut namespaces = Vec::new();
    for (_, name, path) in foreign(spec) {
        let fd = std::fs::File::open(path).map_err(|e| Error::system("open namespace", path.display(), e))?;
        inherit(fields, name, fd.as_raw_fd());
        namespaces.push(fd.into());
    }
    Ok(namespaces)
}

/// Pipes of the images that are replaced by the new process's own.
pub(super) fn standard_pipes(fields: &mut Fields, images: &Path) {
    let text = std::fs::read(images.join(super::DESCRIPTORS)).unwrap_or_default();
    let links: Vec<String> = serde_json::from_slice(&text).unwrap_or_default();
    for (number, link) in (0..3).zip(&links) {
        if link.contains("pipe:") {
            inherit(fields, link, number);
        }
    }
}

/// A borrowed view of descriptors, for criu to get them.
pub(super) fn borrowed(fds: &[OwnedFd]) -> impl Iterator<Item = BorrowedFd<'_>> {
    fds.iter().map(std::os::fd::AsFd::as_fd)
}
