//! The cgroup file systems of a container: version 2 is one mount, version 1 a tmpfs with a mount for each hierarchy.

use std::cell::OnceCell;
use std::ffi::CString;

use super::c_string;
use super::mounts::{Mount, Source, Symlink};
use super::options::Options;
use crate::Error;
use crate::cgroup::{Cgroup, Folder, Hierarchies};
use crate::sys::mount::MountAttr;

/// What cgroup mounts are made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CgroupView<'a> {
    /// The host's hierarchies.
    pub(crate) hierarchies: &'a Hierarchies,
    /// The container's.
    pub(crate) cgroup: &'a Cgroup,
    /// Whether the container has a cgroup namespace of its own.
    pub(crate) namespaced: bool,
}

/// Adds the mounts on `target`, and the links for controllers that share a hierarchy.
pub(super) fn compile(
    out: &mut Vec<Mount>,
    symlinks: &mut Vec<Symlink>,
    view: CgroupView<'_>,
    target: &CString,
    options: &Options,
) -> Result<(), Error> {
    if view.hierarchies.unified() {
        out.push(mount(target.clone(), version_2(view)?, options.attr, options));
        return Ok(());
    }
    let base = target.to_string_lossy();
    let path = |name: &str| c_string("mounts.destination", &format!("{base}/{name}"));
    let tmpfs = Source::filesystem("tmpfs", "tmpfs", &[("mode".into(), Some("755".into()))])?;
    let attr = MountAttr { set: options.attr.set & !MountAttr::READONLY.set, ..options.attr };
    out.push(Mount { readonly_at_end: options.readonly(), ..mount(target.clone(), tmpfs, attr, options) });
    for folder in view.cgroup.v1_folders() {
        let name = folder.mount.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        out.push(mount(path(&name)?, version_1(view, folder)?, options.attr, options));
        for controller in folder.controllers.iter().filter(|c| folder.controllers.len() > 1 && **c != name) {
            symlinks.push(Symlink { text: c_string("mounts.destination", &name)?, path: path(controller)? });
        }
    }
    Ok(())
}

fn mount(target: CString, source: Source, attr: MountAttr, options: &Options) -> Mount {
    let bound = source.is_bound();
    Mount {
        target,
        onto_folder: true,
        follow: false,
        source,
        attr,
        recursive: options.recursive,
        // as with other bind mounts: mounts of the host come in, none go out
        propagation: options.propagation.or(bound.then_some((libc::MS_SLAVE, true))),
        readonly_at_end: false,
        keep_mode: false,
        copy_up: false,
        idmap: None,
        fd: OnceCell::new(),
    }
}

fn version_2(view: CgroupView<'_>) -> Result<Source, Error> {
    match &view.hierarchies.v2 {
        // A new mount in the host's cgroup namespace would set the whole hierarchy's options anew, without those
        // that systemd has given it (nsdelegate, memory_recursiveprot).
        Some(point) if !view.namespaced => {
            let path = c_string("mounts.source", &point.to_string_lossy())?;
            Ok(Source::Bind { path, recursive: false })
        }
        _ => Source::filesystem("cgroup2", "cgroup", &[]),
    }
}

/// The hierarchy as the container's cgroup namespace shows it, or the container's own folder.
fn version_1(view: CgroupView<'_>, folder: &Folder) -> Result<Source, Error> {
    if !view.namespaced {
        let path = c_string("linux.cgroupsPath", &folder.path.to_string_lossy())?;
        return Ok(Source::Bind { path, recursive: false });
    }
    let mut data = Vec::with_capacity(folder.controllers.len() + 1);
    if folder.controllers.iter().all(|c| c.starts_with("name=")) {
        data.push(("none".to_owned(), None));
    }
    data.extend(folder.controllers.iter().map(|controller| match controller.split_once('=') {
        Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
        None => (controller.clone(), None),
    }));
    Source::filesystem("cgroup", "cgroup", &data)
}
