//! Driver options of the `local` driver: `type`, `o`, `device`, as mount(8) takes them.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use rustix::mount::{MountFlags, UnmountFlags, mount as mount_syscall, mount_remount};

use crate::error::Error;

type Options = BTreeMap<String, String>;

/// A mount that failed, told as dockerd does.
#[derive(Debug, thiserror::Error)]
pub(super) enum MountFailure {
    /// The kernel refused.
    #[error("mount {device}:{target}{}{}: {}", shown_flags(*flags), shown_data(data), crate::text::go_error(&io::Error::from(*reason)))]
    Refused {
        /// What.
        device: String,
        /// Where.
        target: String,
        /// How.
        flags: u32,
        /// File system's options, without passwords.
        data: String,
        /// The system's answer.
        reason: rustix::io::Errno,
    },
    /// A network file system's server has no address.
    #[error("error resolving passed in network volume address: lookup {host}: {reason}")]
    NoAddress {
        /// The server.
        host: String,
        /// Why.
        reason: io::Error,
    },
    /// Something else on the way.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Refuses options that the driver does not know, and sets that do not make a mount.
///
/// # Errors
/// 400 with dockerd's texts.
pub(super) fn check_options(name: &str, options: Option<&Options>) -> Result<(), Error> {
    let Some(options) = options.filter(|o| !o.is_empty()) else { return Ok(()) };
    let invalid = |why: String| Err(Error::InvalidParameter(format!("create {name}: {why}")));
    if let Some(unknown) = options.keys().find(|key| !["type", "o", "device", "size"].contains(&key.as_str()))
    {
        return invalid(format!("invalid option: {}", crate::text::go_quote(unknown)));
    }
    for (option, needed) in [("device", "type"), ("type", "device"), ("o", "device"), ("o", "type")] {
        if options.contains_key(option) && !options.contains_key(needed) {
            return invalid(format!("missing required option: {}", crate::text::go_quote(needed)));
        }
    }
    if options.contains_key("size") {
        return invalid("quota size requested but no quota support".into());
    }
    Ok(())
}

/// Mounts what `options` ask for at `target`; done already is fine.
pub(super) fn mount(target: &Path, options: &Options) -> Result<(), MountFailure> {
    if is_mountpoint(target)? {
        return Ok(());
    }
    let option = |name| options.get(name).map_or("", String::as_str);
    let (kind, device) = (option("type"), option("device"));
    let (flags, mut data) = split_options(option("o"));
    if kind.starts_with("nfs") || kind == "cifs" {
        data = resolve_server(&data)?;
    }
    let nul = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let data_text = CString::new(data.clone()).map_err(nul)?;
    let refused = |flags: MountFlags| {
        let (device, target, data) =
            (device.to_string(), target.display().to_string(), without_password(&data));
        move |reason| MountFailure::Refused { device, target, flags: flags.bits(), data, reason }
    };
    mount_syscall(device, target, kind, flags, data_text.as_c_str()).map_err(refused(flags))?;
    // A bind mount takes its other flags only from a second call.
    if flags.contains(MountFlags::BIND)
        && !(flags - MountFlags::BIND - MountFlags::REC).is_empty()
        && let Err(reason) = mount_remount(target, flags, data_text.as_c_str())
    {
        // The error of the remount is the one to tell.
        let _ = unmount(target);
        return Err(refused(flags)(reason));
    }
    Ok(())
}

/// Unmounts `target`, however often it is mounted; not mounted is fine.
pub(crate) fn unmount(target: &Path) -> io::Result<()> {
    while is_mountpoint(target)? {
        rustix::mount::unmount(target, UnmountFlags::DETACH)?;
    }
    Ok(())
}

/// Whether something is mounted at `path`: its mount is another than its parent's.
fn is_mountpoint(path: &Path) -> io::Result<bool> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    Ok(mount_id(path)? != mount_id(parent)?)
}

fn mount_id(path: &Path) -> io::Result<u64> {
    Ok(statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::MNT_ID)?.stx_mnt_id)
}

/// mount(8)'s options: flags of the mount, and what is left for the file system.
fn split_options(text: &str) -> (MountFlags, String) {
    let (mut flags, mut data) = (MountFlags::empty(), Vec::new());
    for option in text.split(',').filter(|o| !o.is_empty()) {
        let (set, bits) = match option {
            "defaults" => continue,
            "bind" => (true, MountFlags::BIND),
            "rbind" => (true, MountFlags::BIND | MountFlags::REC),
            "ro" => (true, MountFlags::RDONLY),
            "rw" => (false, MountFlags::RDONLY),
            "nosuid" => (true, MountFlags::NOSUID),
            "suid" => (false, MountFlags::NOSUID),
            "nodev" => (true, MountFlags::NODEV),
            "dev" => (false, MountFlags::NODEV),
            "noexec" => (true, MountFlags::NOEXEC),
            "exec" => (false, MountFlags::NOEXEC),
            "sync" => (true, MountFlags::SYNCHRONOUS),
            "async" => (false, MountFlags::SYNCHRONOUS),
            "dirsync" => (true, MountFlags::DIRSYNC),
            "noatime" => (true, MountFlags::NOATIME),
            "atime" => (false, MountFlags::NOATIME),
            "nodiratime" => (true, MountFlags::NODIRATIME),
            "diratime" => (false, MountFlags::NODIRATIME),
            "relatime" => (true, MountFlags::RELATIME),
            "strictatime" => (true, MountFlags::STRICTATIME),
            other => {
                data.push(other);
                continue;
            }
        };
        flags.set(bits, set);
    }
    (flags, data.join(","))
}

/// `addr=name` with the name's address, since the kernel resolves no names.
fn resolve_server(data: &str) -> Result<String, MountFailure> {
    let mut options: Vec<String> = data.split(',').map(str::to_string).collect();
    for option in &mut options {
        let Some(host) = option.strip_prefix("addr=") else { continue };
        if host.parse::<IpAddr>().is_err() {
            let no_address = |reason| MountFailure::NoAddress { host: host.to_string(), reason };
            let mut found = (host, 0).to_socket_addrs().map_err(no_address)?;
            let address = found.next().ok_or_else(|| no_address(io::ErrorKind::NotFound.into()))?;
            *option = format!("addr={}", address.ip());
        }
    }
    Ok(options.join(","))
}

fn without_password(data: &str) -> String {
    let hide = |o: &str| if o.starts_with("password=") { "password=********".into() } else { o.to_string() };
    data.split(',').map(hide).collect::<Vec<_>>().join(",")
}

fn shown_flags(flags: u32) -> String {
    if flags == 0 { String::new() } else { format!(", flags: {flags:#x}") }
}

fn shown_data(data: &str) -> String {
    if data.is_empty() { String::new() } else { format!(", data: {data}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Options {
        pairs.iter().map(|(k, v)| ((*k).to_string(), (*v).to_string())).collect()
    }

    #[test]
    fn incomplete_options_are_told_in_dockerds_words() {
        let check = |pairs: &[(&str, &str)], expect: &str| {
            let error = check_options("ws", Some(&options(pairs))).unwrap_err();
            assert_eq!(error.to_string(), format!("create ws: {expect}"));
        };
        check(&[("foo", "x")], "invalid option: \"foo\"");
        check(&[("type", "tmpfs")], "missing required option: \"device\"");
        check(&[("o", "bind")], "missing required option: \"device\"");
        check(&[("size", "10m")], "quota size requested but no quota support");
    }

    #[test]
    fn refused_mounts_are_told_in_dockerds_words() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().display();
        let check = |pairs: &[(&str, &str)], expect: &str| {
            let error = mount(folder.path(), &options(pairs)).unwrap_err();
            assert_eq!(error.to_string(), expect);
        };
        check(
            &[("type", "none"), ("o", "bind,ro"), ("device", "/nosuch")],
            &format!("mount /nosuch:{place}, flags: 0x1001: no such file or directory"),
        );
        check(
            &[("type", "tmpfs"), ("o", "size=1m,nosuchopt,password=x"), ("device", "tmpfs")],
            &format!("mount tmpfs:{place}, data: size=1m,nosuchopt,password=********: invalid argument"),
        );
    }

    #[test]
    fn a_tmpfs_is_mounted_once_and_unmounted() {
        let folder = tempfile::tempdir().unwrap();
        let tmpfs = options(&[("type", "tmpfs"), ("o", "size=1m,uid=7"), ("device", "tmpfs")]);
        mount(folder.path(), &tmpfs).unwrap();
        std::fs::write(folder.path().join("kept"), "").unwrap();
        mount(folder.path(), &tmpfs).unwrap();
        assert!(folder.path().join("kept").exists());
        unmount(folder.path()).unwrap();
        assert!(!is_mountpoint(folder.path()).unwrap());
        unmount(folder.path()).unwrap();
    }
}
