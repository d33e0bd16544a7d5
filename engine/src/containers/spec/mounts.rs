//! The mounts of a container: the system's own, the user's, and the three files in `/etc`.

use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use serde_json::{Value, json};

use super::super::config::MountPoint;
use super::super::record::MountExtra;
use super::propagation::{self, Propagation};
use super::{Input, kernel_is_at_least};
use crate::error::Error;
use crate::text::{go_error, go_quote};

/// The options of tmpfs that take a value.
const TMPFS_VALUES: [&str; 7] = ["mode", "uid", "gid", "size", "nr_inodes", "nr_blocks", "mpol"];
/// Flags that cancel each other out: the last one of a group counts.
const FLAG_GROUPS: [&[&str]; 13] = [
    &["ro", "rw"],
    &["suid", "nosuid"],
    &["dev", "nodev"],
    &["exec", "noexec"],
    &["sync", "async"],
    &["mand", "nomand"],
    &["dirsync"],
    &["atime", "noatime"],
    &["diratime", "nodiratime"],
    &["relatime", "norelatime"],
    &["strictatime", "nostrictatime"],
    &["remount", "bind", "rbind"],
    &["private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"],
];

/// The mounts, and the propagation that they demand of the root.
pub(super) struct Mounts {
    pub(super) list: Vec<Value>,
    pub(super) root_propagation: Option<&'static str>,
}

/// A mount with its options still in reach.
struct Entry {
    destination: String,
    kind: &'static str,
    source: String,
    options: Vec<String>,
}

impl Entry {
    fn new(destination: &str, kind: &'static str, source: &str, options: &[&str]) -> Self {
        Self {
            destination: destination.to_owned(),
            kind,
            source: source.to_owned(),
            options: options.iter().map(ToString::to_string).collect(),
        }
    }

    fn into_json(self) -> Value {
        json!({
            "destination": self.destination,
            "type": self.kind,
            "source": self.source,
            "options": self.options,
        })
    }
}

/// All mounts, in the order in which they are made.
///
/// # Errors
/// `path X is mounted on Y but it is not a shared mount` and the like; `invalid tmpfs option "x"`.
pub(super) fn gather(input: &Input<'_>, writable_cgroups: bool) -> Result<Mounts, Error> {
    let host = &input.record.host_config;
    let (mut user, root_propagation) = user_mounts(input)?;
    // Parents come before what is mounted inside them; otherwise the order stays.
    user.sort_by_key(|m| depth(&m.destination));
    let taken = |destination: &str| user.iter().any(|m| m.destination == destination);
    let mut list = system_mounts(writable_cgroups, host.privileged);
    list.retain(|m| !(taken(&m.destination) || taken("/dev") && m.destination.starts_with("/dev/")));
    if input.shm.is_none() && host.ipc_mode != "none" && !taken("/dev/shm") && !taken("/dev") {
        let size = format!("size={}", host.shm_size);
        list.push(Entry::new("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &size]));
    }
    list.extend(user);
    Ok(Mounts { list: list.into_iter().map(Entry::into_json).collect(), root_propagation })
}

fn system_mounts(writable_cgroups: bool, writable_sys: bool) -> Vec<Entry> {
    let mut sys = vec!["nosuid", "noexec", "nodev"];
    if !writable_sys {
        sys.push("ro");
    }
    let cgroup: &[&str] =
        if writable_cgroups { &["nosuid", "noexec", "nodev"] } else { &["ro", "nosuid", "noexec", "nodev"] };
    let pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"];
    vec![
        Entry::new("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        Entry::new("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        Entry::new("/dev/pts", "devpts", "devpts", &pts),
        Entry::new("/sys", "sysfs", "sysfs", &sys),
        Entry::new("/sys/fs/cgroup", "cgroup", "cgroup", cgroup),
        Entry::new("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    ]
}

fn depth(destination: &str) -> usize {
    destination.split('/').filter(|part| !part.is_empty()).count()
}

/// What the user asked for, `/dev/shm` from elsewhere, and the files in `/etc`.
fn user_mounts(input: &Input<'_>) -> Result<(Vec<Entry>, Option<&'static str>), Error> {
    let record = input.record;
    let mut list = Vec::new();
    let mut root_propagation = None;
    for mount in &record.mounts {
        let extra = record.mount_extras.get(&mount.destination);
        if mount.kind == "tmpfs" {
            let options = extra.map(|e| e.options.as_slice()).unwrap_or_default();
            let options: Vec<&str> = options.iter().map(String::as_str).collect();
            list.push(tmpfs(&mount.destination, &options)?);
            continue;
        }
        if let Some(conflict) = extra.map(|e| &e.conflict).filter(|conflict| !conflict.is_empty()) {
            return Err(Error::server(conflict.as_str()));
        }
        let below = extra.map_or("", |e| e.subpath.as_str());
        let below = if below.is_empty() { None } else { Some(subpath(&mount.source, below)?) };
        let demanded = propagation::demanded(&mount.source, &mount.propagation, &input.config.data_root)?;
        root_propagation = root_propagation.max(Some(demanded));
        let mut entry = bind(mount, extra);
        if let Some(source) = below {
            entry.source = source;
        }
        list.push(entry);
    }
    for (destination, options) in record.host_config.tmpfs.iter().flatten() {
        let options: Vec<&str> = options.split(',').filter(|o| !o.is_empty()).collect();
        list.push(tmpfs(destination, &options)?);
    }
    let host_shm = (record.host_config.ipc_mode == "host").then_some(Path::new("/dev/shm"));
    let shm = input.shm.or(host_shm).map(|source| ("/dev/shm", source, false));
    let etc = etc_files(input).into_iter().flatten();
    for (destination, source, read_only) in shm.into_iter().chain(etc) {
        // A mount of the user's in the same place wins.
        if list.iter().any(|m: &Entry| m.destination == destination) {
            continue;
        }
        let options: &[&str] =
            if read_only { &["rbind", read_only_option(false), "rprivate"] } else { &["rbind", "rprivate"] };
        list.push(Entry::new(destination, "bind", &source.to_string_lossy(), options));
    }
    Ok((list, root_propagation.and_then(Propagation::oci_name)))
}

type EtcMount<'a> = (&'static str, &'a Path, bool);

/// The files in `/etc`; containers without any network keep the image's.
fn etc_files<'a>(input: &Input<'a>) -> Option<[EtcMount<'a>; 3]> {
    let record = input.record;
    if record.config.network_disabled {
        return None;
    }
    let read_only = record.host_config.readonly_rootfs;
    Some([
        ("/etc/resolv.conf", &input.etc.resolv_conf, read_only),
        ("/etc/hostname", &input.etc.hostname, read_only),
        ("/etc/hosts", &input.etc.hosts, read_only),
    ])
}

/// The folder or file at `path` inside a volume. Links are resolved as from inside the volume, so that nothing in it can
/// lead out; what the path means is decided now, once.
pub(crate) fn subpath(volume: &str, path: &str) -> Result<String, Error> {
    let refuse = |errno: rustix::io::Errno| {
        let (reason, full) = (go_error(&errno.into()), format!("{volume}/{path}"));
        Error::NotFound(format!("cannot access path {full}: lstat {full}: {reason}"))
    };
    let root = openat(CWD, volume, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(refuse)?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let found =
        openat2(&root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS);
    let found = found.map_err(refuse)?;
    let link = std::os::fd::AsRawFd::as_raw_fd(&found);
    let resolved =
        rustix::fs::readlinkat(CWD, format!("/proc/self/fd/{link}"), Vec::new()).map_err(refuse)?;
    Ok(resolved.to_string_lossy().into_owned())
}

fn bind(mount: &MountPoint, extra: Option<&MountExtra>) -> Entry {
    let wants = |option: &str| extra.is_some_and(|e| e.options.iter().any(|o| o == option));
    let mut options = vec![if wants("bind") { "bind" } else { "rbind" }];
    if !mount.rw {
        options.push(read_only_option(wants("ro")));
    }
    if !mount.propagation.is_empty() {
        options.push(&mount.propagation);
    }
    Entry::new(&mount.destination, "bind", &mount.source, &options)
}

/// How "read-only" is said: with all mounts below, where the kernel can do that.
fn read_only_option(only_the_top: bool) -> &'static str {
    if only_the_top || !kernel_is_at_least((5, 12)) { "ro" } else { "rro" }
}

fn tmpfs(destination: &str, options: &[&str]) -> Result<Entry, Error> {
    let all: Vec<&str> = ["noexec", "nosuid", "nodev", "rprivate"].iter().chain(options).copied().collect();
    let merged = merge_tmpfs_options(&all)?;
    Ok(Entry::new(destination, "tmpfs", "tmpfs", &merged))
}

/// Keeps the last of options that contradict each other.
fn merge_tmpfs_options<'a>(options: &[&'a str]) -> Result<Vec<&'a str>, Error> {
    let mut kept = Vec::new();
    let mut seen = Vec::new();
    for option in options.iter().rev().copied() {
        let group = FLAG_GROUPS.iter().position(|group| group.contains(&option));
        let (name, value) = option.split_once('=').map_or((option, None), |(n, v)| (n, Some(v)));
        let subject = match (group, value) {
            (Some(group), _) => FLAG_GROUPS.get(group).and_then(|g| g.first()).copied().unwrap_or_default(),
            (None, None) if option == "defaults" => option,
            (None, Some(_)) if TMPFS_VALUES.contains(&name) => name,
            _ => return Err(Error::server(format!("invalid tmpfs option {}", go_quote(name)))),
        };
        if !seen.contains(&subject) {
            seen.push(subject);
            kept.push(option);
        }
    }
    kept.reverse();
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_contradicting_tmpfs_options_counts() {
        let merged = |options: &str| {
            let options: Vec<&str> = options.split(',').filter(|o| !o.is_empty()).collect();
            tmpfs("/x", &options).map(|m| m.options.join(",")).map_err(|e| e.to_string())
        };
        assert_eq!(merged("").unwrap(), "noexec,nosuid,nodev,rprivate");
        assert_eq!(merged("size=1m,exec,uid=3").unwrap(), "nosuid,nodev,rprivate,size=1m,exec,uid=3");
        assert_eq!(merged("size=1m,ro,size=2m,rw").unwrap(), "noexec,nosuid,nodev,rprivate,size=2m,rw");
        assert_eq!(merged("foo").unwrap_err(), "invalid tmpfs option \"foo\"");
        assert_eq!(merged("size").unwrap_err(), "invalid tmpfs option \"size\"");
        assert_eq!(merged("context=x").unwrap_err(), "invalid tmpfs option \"context\"");
    }

    #[test]
    fn read_only_binds_cover_the_mounts_below() {
        let mount = MountPoint { destination: "/x".into(), source: "/y".into(), ..MountPoint::default() };
        assert_eq!(bind(&mount, None).options, ["rbind", "rro"]);
        let extra = MountExtra { options: vec!["bind".into(), "ro".into()], ..MountExtra::default() };
        let slave = MountPoint { propagation: "rslave".into(), ..mount };
        assert_eq!(bind(&slave, Some(&extra)).options, ["bind", "ro", "rslave"]);
    }

    #[test]
    fn a_part_of_a_volume_is_found_inside_it_only() {
        let dir = tempfile::tempdir().unwrap();
        let volume = dir.path().join("v");
        std::fs::create_dir_all(volume.join("a/b")).unwrap();
        std::os::unix::fs::symlink("/a", volume.join("inside")).unwrap();
        std::os::unix::fs::symlink("/etc", volume.join("outside")).unwrap();
        let volume = volume.to_str().unwrap();
        assert_eq!(subpath(volume, "a/b").unwrap(), format!("{volume}/a/b"));
        assert_eq!(subpath(volume, "inside/b").unwrap(), format!("{volume}/a/b"));
        let missing = subpath(volume, "outside").unwrap_err().to_string();
        assert!(missing.ends_with("/outside: no such file or directory"), "{missing}");
    }
}
