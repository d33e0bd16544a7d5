//! `mounts` of the specification, compiled to what the child does.

use std::cell::OnceCell;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;

use oci_spec::runtime::{LinuxIdMapping, Mount as SpecMount};
use rustix::io::Errno;

use super::cgroup_mounts::{self, CgroupView};
use super::namespaces::User;
use super::options::Options;
use super::{c_string, idmap, inside};
use crate::sys::mount::MountAttr;
use crate::{Error, Step};

/// A mount that the child makes.
#[derive(Debug)]
pub(crate) struct Mount {
    /// Where, relative to the container's root; `.` is the root itself.
    pub(crate) target: CString,
    /// Whether the target is a folder; else a file.
    pub(crate) onto_folder: bool,
    /// Whether the target's last component may be a symbolic link (inside the root).
    pub(crate) follow: bool,
    /// What is mounted.
    pub(crate) source: Source,
    /// For the mount itself, before it is attached.
    pub(crate) attr: MountAttr,
    /// For it and all below.
    pub(crate) recursive: MountAttr,
    /// `MS_*`, and whether for all below, too.
    pub(crate) propagation: Option<(u64, bool)>,
    /// Made read-only at the end, when everything inside it has been made.
    pub(crate) readonly_at_end: bool,
    /// A tmpfs that takes over the permissions of the folder that it covers.
    pub(crate) keep_mode: bool,
    /// A tmpfs that begins with a copy of what it covers.
    pub(crate) copy_up: bool,
    /// Id mappings of an idmapped mount, as text for `uid_map` and `gid_map`; whether recursive.
    pub(crate) idmap: Option<IdMap>,
    /// The detached mount, once the child has it.
    pub(crate) fd: OnceCell<OwnedFd>,
}

impl Mount {
    /// Whether it can be made only when it is to be attached.
    pub(crate) fn is_late(&self) -> bool {
        self.keep_mode || matches!(self.source, Source::Inside { .. })
    }

    /// That a step with it failed.
    pub(crate) fn failure(&self, step: Step, errno: Errno) -> Error {
        Error::Mount {
            origin: self.source.origin(),
            target: format!("/{}", self.target.to_string_lossy()),
            step,
            errno: errno.raw_os_error(),
        }
    }

    /// Whether the child asks its parent to map the ids of the mount.
    pub(crate) fn asks_parent(&self) -> bool {
        self.is_late() && self.idmap.as_ref().is_some_and(|idmap| idmap.by_parent)
    }
}

/// An idmapped mount's user namespace, made by the parent.
#[derive(Debug)]
pub(crate) struct IdMap {
    /// The user namespace.
    pub(crate) userns: OwnedFd,
    /// Whether for all mounts below, too.
    pub(crate) recursive: bool,
    /// Whether the parent does it, since the child in its user namespace may not.
    pub(crate) by_parent: bool,
}

/// What is mounted.
#[derive(Debug)]
pub(crate) enum Source {
    /// A new instance of a file system.
    Filesystem {
        /// `tmpfs`, `proc`, ...
        fstype: CString,
        /// Shown as the mount's source.
        name: CString,
        /// Options: `(key, value)`.
        data: Vec<(CString, Option<CString>)>,
    },
    /// A part of the host's tree.
    Bind {
        /// On the host.
        path: CString,
        /// With the mounts below.
        recursive: bool,
    },
    /// A part of the container's own tree that an earlier mount makes or covers. It is opened when its turn comes.
    Inside {
        /// Relative to the container's root.
        path: CString,
        /// On the host, as the specification has it; for messages.
        named: CString,
        /// With the mounts below.
        recursive: bool,
    },
}

impl Source {
    /// A new instance of that file system.
    pub(super) fn filesystem(
        fstype: &str,
        name: &str,
        data: &[(String, Option<String>)],
    ) -> Result<Self, Error> {
        let mut list = Vec::with_capacity(data.len());
        for (key, value) in data {
            list.push((
                c_string("mounts.options", key)?,
                value.as_deref().map(|v| c_string("mounts.options", v)).transpose()?,
            ));
        }
        Ok(Source::Filesystem {
            fstype: c_string("mounts.type", fstype)?,
            name: c_string("mounts.source", name)?,
            data: list,
        })
    }

    /// For messages: what the user called it.
    pub(crate) fn origin(&self) -> String {
        match self {
            Source::Filesystem { name, .. } => name.to_string_lossy().into_owned(),
            Source::Bind { path: named, .. } | Source::Inside { named, .. } => {
                named.to_string_lossy().into_owned()
            }
        }
    }

    /// Whether it is a part of some tree.
    pub(crate) fn is_bound(&self) -> bool {
        matches!(self, Source::Bind { .. } | Source::Inside { .. })
    }

    /// Whether it is a new file system with an option of that name.
    pub(crate) fn has_option(&self, name: &str) -> bool {
        matches!(self, Source::Filesystem { data, .. } if data.iter().any(|(key, _)| key.as_bytes() == name.as_bytes()))
    }

    /// Whether it is a new instance of that file system.
    pub(crate) fn is(&self, wanted: &[u8]) -> bool {
        matches!(self, Source::Filesystem { fstype, .. } if fstype.as_bytes() == wanted)
    }
}

/// A symbolic link that the child makes.
#[derive(Debug)]
pub(crate) struct Symlink {
    /// What it says.
    pub(crate) text: CString,
    /// Where, relative to the container's root.
    pub(crate) path: CString,
}

/// What bind mounts are made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BindView<'a> {
    /// What relative sources are relative to.
    pub(crate) bundle: &'a Path,
    /// The root file system on the host, if it is the bundle's.
    pub(crate) root: Option<&'a Path>,
    /// The container's user namespace.
    pub(crate) user: Option<&'a User>,
    /// Whether the parent may map ids of any file system, and the child in its user namespace may not.
    pub(crate) parent_maps: bool,
}

/// Compiles all mounts, in their order.
pub(crate) fn compile(
    mounts: &[SpecMount],
    view: BindView<'_>,
    cgroups: CgroupView<'_>,
    symlinks: &mut Vec<Symlink>,
) -> Result<Vec<Mount>, Error> {
    let mut out = Vec::with_capacity(mounts.len() + 12);
    for mount in mounts {
        let target = target(mount.destination(), view.root)?;
        let mut options = Options::parse(mount.options().iter().flatten().map(String::as_str));
        let fstype = mount.typ().as_deref().unwrap_or("none");
        if fstype == "cgroup" || fstype == "cgroup2" {
            cgroup_mounts::compile(&mut out, symlinks, cgroups, &target, &options)?;
        } else if let Some(recursive) = options.bind.or((fstype == "bind").then_some(false)) {
            let bound = bind(mount, view, &out, target, recursive, &options)?;
            out.push(bound);
        } else {
            out.push(filesystem(mount, fstype, target, &mut options)?);
        }
    }
    Ok(out)
}

/// Where a mount goes, relative to the root. As with runc, it may be given as a path of the host that leads into the root
/// file system.
fn target(destination: &Path, root: Option<&Path>) -> Result<CString, Error> {
    match root.and_then(|root| destination.strip_prefix(root).ok()) {
        Some(within) if within.as_os_str().is_empty() => {
            Err(Error::spec("mounts.destination", format!("{} is the root itself", destination.display())))
        }
        Some(within) => inside(within),
        None => inside(destination),
    }
}

/// The source of a bind mount as a path in the container, if it is there that it must be looked for: it lies in the root file
/// system, and an earlier mount makes it or covers it.
fn source_inside(source: &Path, root: Option<&Path>, earlier: &[Mount]) -> Result<Option<CString>, Error> {
    let Some(within) = root.and_then(|root| source.strip_prefix(root).ok()) else { return Ok(None) };
    let path = inside(within)?;
    let covers = |mount: &Mount| {
        let rest = path.as_bytes().strip_prefix(mount.target.as_bytes());
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    };
    let late = earlier.iter().any(covers) || !source.exists();
    Ok(late.then_some(path))
}

fn bind(
    mount: &SpecMount,
    view: BindView<'_>,
    earlier: &[Mount],
    target: CString,
    recursive: bool,
    options: &Options,
) -> Result<Mount, Error> {
    let source = mount.source().as_ref().ok_or_else(|| {
        Error::spec("mounts.source", format!("the bind mount on {} has none", mount.destination().display()))
    })?;
    let source = view.bundle.join(source); // an absolute path replaces the bundle's
    if let Some((option, _)) = options.data.first() {
        let text = format!("{option:?}: bind mounts cannot have any filesystem-specific options applied");
        return Err(Error::spec("mounts.options", text));
    }
    let path = c_string("mounts.source", &source.to_string_lossy())?;
    let within = source_inside(&source, view.root, earlier)?;
    if target.as_bytes() == b"proc" && (within.is_some() || !is_procfs(&source)) {
        return Err(not_proc(mount));
    }
    let (source, onto_folder) = match within {
        // the child will see
        Some(within) => (Source::Inside { path: within, named: path, recursive }, false),
        None => {
            let meta = std::fs::metadata(&source);
            let meta = meta.map_err(|e| Error::system("open mount source", source.display(), e))?;
            (Source::Bind { path, recursive }, meta.is_dir())
        }
    };
    Ok(Mount {
        target,
        onto_folder,
        follow: true,
        source,
        attr: options.attr.of_bind(view.user.is_some()),
        recursive: options.recursive,
        // nothing said: mounts of the host come in, none go out (as runc has it)
        propagation: Some(options.propagation.unwrap_or((libc::MS_SLAVE, true))),
        readonly_at_end: false,
        keep_mode: false,
        copy_up: false,
        idmap: idmap::compile(mount, options, view)?,
        fd: OnceCell::new(),
    })
}

/// What looks like the kernel's answers must be the kernel's: masks, read-only paths and the programs of the container
/// rely on that (CVE-2019-19921).
fn not_proc(mount: &SpecMount) -> Error {
    let destination = mount.destination().display();
    Error::spec("mounts", format!("{destination} cannot be mounted because it is not of type proc"))
}

fn is_procfs(source: &Path) -> bool {
    rustix::fs::statfs(source).is_ok_and(|fs| fs.f_type == libc::PROC_SUPER_MAGIC)
}

fn filesystem(
    mount: &SpecMount,
    fstype: &str,
    target: CString,
    options: &mut Options,
) -> Result<Mount, Error> {
    if mount.uid_mappings().is_some() || mount.gid_mappings().is_some() || options.idmap.is_some() {
        let text = "id-mapped mounts are only supported for bind-mounts";
        return Err(Error::spec("mounts.uidMappings", text));
    }
    if target.as_bytes() == b"proc" && fstype != "proc" {
        return Err(not_proc(mount));
    }
    let tmpfs = fstype == "tmpfs";
    let dev = target.as_bytes() == b"dev";
    let readonly_at_end = (tmpfs || dev) && options.take_readonly();
    let name = mount.source().as_ref().map_or(fstype.into(), |s| s.to_string_lossy());
    Ok(Mount {
        onto_folder: true,
        // a file system that we or the container's programs trust must be where its name says
        follow: tmpfs && !dev,
        keep_mode: tmpfs && !options.data.iter().any(|(key, _)| key == "mode"),
        source: Source::filesystem(fstype, &name, &options.data)?,
        target,
        attr: options.attr,
        recursive: options.recursive,
        propagation: options.propagation,
        readonly_at_end,
        copy_up: tmpfs && options.copy_up,
        idmap: None,
        fd: OnceCell::new(),
    })
}

/// The lines of a `uid_map` file.
pub(crate) fn mapping_lines(mappings: &[LinuxIdMapping]) -> String {
    mappings.iter().fold(String::new(), |mut text, m| {
        use std::fmt::Write as _;
        let _ = writeln!(text, "{} {} {}", m.container_id(), m.host_id(), m.size());
        text
    })
}
