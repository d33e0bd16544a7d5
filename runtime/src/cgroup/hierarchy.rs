//! Which cgroup hierarchies this host has mounted, and where.

use std::path::{Path, PathBuf};

use crate::Error;
use crate::mountinfo::{self, Entry, unescape};

const CGROUP2_MAGIC: u64 = 0x6367_7270;

/// A mounted version 1 hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct V1Mount {
    /// Its controllers (`cpu`, `cpuacct`), or its name as `name=systemd`.
    pub(crate) controllers: Vec<String>,
    /// The folder of the hierarchy that is mounted (`/` on a host).
    pub(crate) root: PathBuf,
    /// Where.
    pub(crate) point: PathBuf,
}

/// All mounted hierarchies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Hierarchies {
    /// Version 1; empty on a host with version 2 only.
    pub(crate) v1: Vec<V1Mount>,
    /// Version 2: where it is mounted. Beside `v1` it has only the controllers that v1 left.
    pub(crate) v2: Option<PathBuf>,
}

impl Hierarchies {
    /// Looks at what is mounted.
    pub(crate) fn detect() -> Result<Self, Error> {
        let usual = Path::new("/sys/fs/cgroup");
        // the usual place of version 2 needs no parsing
        if is_version_2(usual) {
            return Ok(Hierarchies { v1: Vec::new(), v2: Some(usual.to_path_buf()) });
        }
        let mut found = Self::parse(&mountinfo::read()?);
        // one that something else has been mounted over is still in the table
        found.v2 = found.v2.filter(|point| is_version_2(point));
        Ok(found)
    }

    /// Picks the hierarchies from a table of mounts.
    fn parse(table: &str) -> Self {
        let mut found = Hierarchies::default();
        for Entry { root, point, fstype, options } in mountinfo::entries(table) {
            match fstype {
                "cgroup2" if found.v2.is_none() => found.v2 = Some(unescape(point)),
                "cgroup" => {
                    let controllers: Vec<String> =
                        options.split(',').filter(|o| is_controller(o)).map(str::to_owned).collect();
                    // the same hierarchy may be mounted in several places: the first counts
                    if !controllers.is_empty() && !found.v1.iter().any(|m| m.controllers == controllers) {
                        found.v1.push(V1Mount { controllers, root: unescape(root), point: unescape(point) });
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// Whether version 2 has all the controllers.
    pub(crate) fn unified(&self) -> bool {
        self.v1.is_empty()
    }
}

fn is_version_2(point: &Path) -> bool {
    rustix::fs::statfs(point).is_ok_and(|fs| u64::try_from(fs.f_type) == Ok(CGROUP2_MAGIC))
}

/// Whether a superblock option of a v1 hierarchy names a controller or the hierarchy.
fn is_controller(option: &str) -> bool {
    !matches!(
        option,
        "rw" | "ro" | "xattr" | "noprefix" | "clone_children" | "cpuset_v2_mode" | "favordynmods" | ""
    ) && (!option.contains('=') || option.starts_with("name="))
}

/// The groups of a process, as `(controllers, path)` pairs of `/proc/PID/cgroup`. Version 2 has an empty list.
pub(crate) fn own_groups() -> Result<Vec<(String, String)>, Error> {
    let path = "/proc/self/cgroup";
    let table = std::fs::read_to_string(path).map_err(|e| Error::system("read", path, e))?;
    Ok(table
        .lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            Some((fields.next()?.to_owned(), fields.next()?.to_owned()))
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hybrid_table() {
        let table = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:4 - cgroup cgroup rw,cpu,cpuacct
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
50 31 0:29 / /mnt/with\\040space rw,relatime - cgroup cgroup rw,cpu,cpuacct
";
        let found = Hierarchies::parse(table);
        assert_eq!(found.v2, Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(found.v1.len(), 2);
        assert_eq!(found.v1[0].controllers, ["cpu", "cpuacct"]);
        assert_eq!(found.v1[1].controllers, ["name=systemd"]);
        assert!(!found.unified());
    }
}
