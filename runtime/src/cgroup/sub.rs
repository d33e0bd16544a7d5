//! Groups below a container's own, for further processes.

use std::path::{Component, Path};

use super::{Cgroup, Entry, Folder};
use crate::{Error, SubCgroup};

impl Cgroup {
    /// How a process beside `init` enters groups below the container's own; the container's own where none is named.
    pub(crate) fn entry_below(&self, init: i32, groups: &[SubCgroup]) -> Result<Entry, Error> {
        if groups.is_empty() {
            return self.entry(init);
        }
        let mut below = self.clone();
        for group in groups {
            let refuse = |reason: String| Error::SubCgroup { reason };
            if group.path.components().any(|part| part == Component::ParentDir) {
                return Err(refuse(format!("bad sub cgroup path: {}", group.path.display())));
            }
            let inner = group.path.strip_prefix("/").unwrap_or(&group.path);
            let mut folders = below.v1.iter_mut().chain(&mut below.v2);
            if group.controllers.is_empty() {
                folders.for_each(|folder| descend(folder, inner));
                continue;
            }
            for controller in &group.controllers {
                match folders.by_ref().find(|folder| folder.has(controller)) {
                    Some(folder) => descend(folder, inner),
                    None => {
                        return Err(refuse(format!("unknown controller {controller} in sub cgroup path")));
                    }
                }
                folders = below.v1.iter_mut().chain(&mut below.v2);
            }
        }
        // no falling back to where init is: the group was named
        below.entry(0).map_err(|error| Error::SubCgroup { reason: format!("adding pid to cgroups: {error}") })
    }
}

fn descend(folder: &mut Folder, inner: &Path) {
    folder.path = folder.path.join(inner);
}
