//! Version 2 cgroups that are handed to the container's own user (cgroups(7), "Cgroups delegation").

use std::path::Path;

use oci_spec::runtime::{LinuxNamespaceType, Spec};
use rustix::fs::{AtFlags, CWD, Uid, chownat};
use rustix::io::Errno;

use super::Cgroup;
use crate::Error;

/// What the kernel says may be handed over, for kernels that do not say it.
const USUAL: &str = "cgroup.procs\ncgroup.subtree_control\ncgroup.threads\n";

impl Cgroup {
    /// Gives the group to the user of the container's process, if the container can see its own group in a cgroup
    /// namespace and may write there, as runc does (OCI runtime specification, "Cgroup ownership").
    ///
    /// # Errors
    /// [`Error::System`].
    pub(crate) fn delegate(&self, spec: &Spec) -> Result<(), Error> {
        let Some(folder) = self.v2.as_ref().filter(|_| self.unified()) else { return Ok(()) };
        let Some(owner) = owner(spec).filter(|owner| *owner != 0) else { return Ok(()) };
        let owner = Some(Uid::from_raw(owner));
        let change = |path: &Path| match chownat(CWD, path, owner, None, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            // who is that user already may not change anything, and need not
            Err(Errno::PERM) if super::is_rootless() => Ok(()),
            Err(errno) => Err(Error::system("change the owner of", path.display(), errno)),
        };
        change(&folder.path)?;
        let list = std::fs::read_to_string("/sys/kernel/cgroup/delegate");
        let list = list.as_deref().unwrap_or(USUAL);
        list.lines().filter(|name| !name.contains('/')).try_for_each(|name| change(&folder.path.join(name)))
    }
}

/// The host's id of the user who gets the group.
fn owner(spec: &Spec) -> Option<u32> {
    let linux = spec.linux().as_ref()?;
    let new = |wanted: LinuxNamespaceType| {
        linux.namespaces().iter().flatten().any(|ns| ns.typ() == wanted && ns.path().is_none())
    };
    let writable = spec.mounts().iter().flatten().any(|mount| {
        let cgroup = matches!(mount.typ().as_deref(), Some("cgroup" | "cgroup2"));
        let there = mount.destination().components().eq(Path::new("/sys/fs/cgroup").components());
        cgroup && there && !mount.options().iter().flatten().any(|option| option == "ro")
    });
    if !new(LinuxNamespaceType::Cgroup) || !writable {
        return None;
    }
    let uid = spec.process().as_ref()?.user().uid();
    if !new(LinuxNamespaceType::User) {
        return Some(uid);
    }
    crate::userns::mapped(linux.uid_mappings().as_deref().unwrap_or_default(), uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners() {
        let check = |namespaces: &[&str], options: &[&str], uid: u32, expect: Option<u32>| {
            let list: Vec<_> = namespaces.iter().map(|kind| serde_json::json!({ "type": kind })).collect();
            let spec: Spec = serde_json::from_value(serde_json::json!({
                "ociVersion": "1.2.0",
                "process": { "user": { "uid": uid, "gid": 0 }, "cwd": "/" },
                "mounts": [{ "destination": "/sys/fs/cgroup/", "type": "cgroup", "source": "cgroup", "options": options }],
                "linux": { "namespaces": list, "uidMappings": [
                    { "containerID": 0, "hostID": 1000, "size": 1 }, { "containerID": 1, "hostID": 100_000, "size": 65536 }
                ] },
            }))
            .unwrap();
            assert_eq!(owner(&spec), expect, "{namespaces:?} {options:?} {uid}");
        };
        check(&["mount", "user", "cgroup"], &["rw"], 0, Some(1000));
        check(&["mount", "user", "cgroup"], &[], 5, Some(100_004));
        check(&["mount", "user", "cgroup"], &[], 70_000, None);
        check(&["mount", "user", "cgroup"], &["ro"], 0, None);
        check(&["mount", "user"], &["rw"], 0, None);
        check(&["mount", "cgroup"], &["rw"], 7, Some(7));
    }
}
