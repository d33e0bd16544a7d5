//! The root file system.

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{c_string, options};
use crate::{Error, Launch, RootfsSource};

/// The longest string that fsconfig(2) takes.
const FSCONFIG_MAX: usize = 255;

/// How the root file system is made.
#[derive(Debug)]
pub(crate) struct Rootfs {
    /// `root.path` on the host.
    pub(crate) path: CString,
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
    pub(crate) fn on_host(&self) -> Option<&Path> {
        self.is_bound().then(|| Path::new(OsStr::from_bytes(self.path.as_bytes())))
    }
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

/// Compiles.
pub(crate) fn compile(launch: &Launch<'_>) -> Result<Rootfs, Error> {
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
    Ok(Rootfs {
        path: c_string("root.path", &path.to_string_lossy())?,
        source: match launch.rootfs {
            RootfsSource::Bundle => RootSource::Bind,
            RootfsSource::Overlay { lower, upper, work } => overlay(lower, upper, work)?,
        },
        readonly: root.readonly().unwrap_or(false),
        propagation,
    })
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
    fn kernel_versions() {
        assert!(kernel_is_at_least(c"6.8.0-rc1", (6, 8)));
        assert!(kernel_is_at_least(c"7.0", (6, 8)));
        assert!(!kernel_is_at_least(c"5.15.0-91-generic", (6, 8)));
        assert!(!kernel_is_at_least(c"6.1.99", (6, 8)));
    }
}
