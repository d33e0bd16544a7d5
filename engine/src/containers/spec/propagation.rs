//! Whether mounts travel between host and container: what a bind mount's propagation demands of its source and of
//! the container's root.

use std::path::{Path, PathBuf};

use crate::error::Error;

/// What the root's propagation must at least be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Propagation {
    /// Nothing is demanded.
    Private,
    /// Mounts on the host must reach the container.
    Slave,
    /// And back.
    Shared,
}

impl Propagation {
    /// The specification's `rootfsPropagation`.
    pub(super) fn oci_name(self) -> Option<&'static str> {
        match self {
            Self::Private => None,
            Self::Slave => Some("rslave"),
            Self::Shared => Some("shared"),
        }
    }
}

/// What a bind mount of `source` with the given propagation demands of the root.
///
/// # Errors
/// When the mount that holds `source` does not propagate so itself; mounts around our own data are excepted, since they
/// get `rslave` without being asked.
pub(super) fn demanded(source: &str, propagation: &str, data_root: &Path) -> Result<Propagation, Error> {
    let (demanded, lacking) = match propagation {
        "shared" | "rshared" => (Propagation::Shared, "shared mount"),
        "slave" | "rslave" => (Propagation::Slave, "shared or slave mount"),
        _ => return Ok(Propagation::Private),
    };
    let path = Path::new(source);
    let resolved = path.canonicalize().map_err(Error::io("resolve", source))?;
    let table =
        std::fs::read_to_string("/proc/self/mountinfo").map_err(Error::io("read", "/proc/self/mountinfo"))?;
    let Some((mount_point, found)) = holder(&table, &resolved) else { return Ok(Propagation::Private) };
    if found >= demanded {
        return Ok(demanded);
    }
    if demanded == Propagation::Slave && (path.starts_with(data_root) || data_root.starts_with(path)) {
        return Ok(Propagation::Private);
    }
    let mount_point = mount_point.display();
    Err(Error::server(format!("path {source} is mounted on {mount_point} but it is not a {lacking}")))
}

/// The mount that holds `path`, and how it propagates.
fn holder(table: &str, path: &Path) -> Option<(PathBuf, Propagation)> {
    let mounts = table.lines().filter_map(|line| {
        let mut words = line.split(' ');
        let mount_point = PathBuf::from(unescape(words.nth(4)?));
        let optional = words.skip(1).take_while(|word| *word != "-");
        let propagation = optional.fold(Propagation::Private, |so_far, word| match word.split(':').next() {
            Some("shared") => Propagation::Shared,
            Some("master") => so_far.max(Propagation::Slave),
            _ => so_far,
        });
        Some((mount_point, propagation))
    });
    // Of mounts on the same point the last one is on top.
    mounts.filter(|(point, _)| path.starts_with(point)).max_by_key(|(point, _)| point.components().count())
}

/// The kernel writes blanks and backslashes in octal.
fn unescape(text: &str) -> String {
    let octal = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    octal.iter().fold(text.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_decides() {
        let table = "21 1 8:1 / / rw shared:1 - ext4 /dev/vda rw\n\
                     22 21 0:5 / /mnt rw master:3 - tmpfs t rw\n\
                     23 21 0:6 / /mnt/a\\040b rw - tmpfs t rw\n";
        let check = |path: &str, point: &str, propagation| {
            assert_eq!(holder(table, Path::new(path)), Some((PathBuf::from(point), propagation)), "{path}");
        };
        check("/x/y", "/", Propagation::Shared);
        check("/mnt/x", "/mnt", Propagation::Slave);
        check("/mnt/a b/c", "/mnt/a b", Propagation::Private);
        check("/mntx", "/", Propagation::Shared);
    }

    #[test]
    fn private_mounts_demand_nothing() {
        for propagation in ["", "private", "rprivate"] {
            let demanded = demanded("/nowhere", propagation, Path::new("/var/lib/wherry")).unwrap();
            assert_eq!(demanded, Propagation::Private);
        }
    }
}
