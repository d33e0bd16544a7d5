//! `linux.devices`, and the devices and links that every container has.

use std::ffi::CString;

use oci_spec::runtime::{Linux, LinuxDeviceType};

use super::{c_string, inside};
use crate::Error;

/// A device node that the child makes.
#[derive(Debug)]
pub(crate) struct Device {
    /// Relative to the container's root.
    pub(crate) path: CString,
    /// The same on the host, to bind from where nodes cannot be made.
    pub(crate) host_path: CString,
    /// `S_IFCHR`, `S_IFBLK` or `S_IFIFO`.
    pub(crate) kind: u32,
    pub(crate) major: u32,
    pub(crate) minor: u32,
    /// Permission bits.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The host's node, where it is bound.
    pub(crate) host_node: std::cell::OnceCell<std::os::fd::OwnedFd>,
}

/// What the runtime specification says is always there: name, minor, major.
const DEFAULT: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Symbolic links in `/dev`: name and text.
pub(crate) const LINKS: [(&std::ffi::CStr, &std::ffi::CStr); 5] = [
    (c"fd", c"/proc/self/fd"),
    (c"stdin", c"/proc/self/fd/0"),
    (c"stdout", c"/proc/self/fd/1"),
    (c"stderr", c"/proc/self/fd/2"),
    (c"ptmx", c"pts/ptmx"),
];

/// The link that there is where the kernel shows its memory.
pub(crate) const KCORE: (&std::ffi::CStr, &std::ffi::CStr) = (c"core", c"/proc/kcore");

/// The default devices, and those of the specification.
pub(crate) fn compile(linux: &Linux) -> Result<Vec<Device>, Error> {
    let mut devices = Vec::with_capacity(DEFAULT.len());
    for (name, major, minor) in DEFAULT {
        let host = format!("/dev/{name}");
        devices.push(Device {
            path: c_string("linux.devices", &host[1..])?,
            host_path: c_string("linux.devices", &host)?,
            kind: libc::S_IFCHR,
            major,
            minor,
            mode: 0o666,
            uid: 0,
            gid: 0,
            host_node: std::cell::OnceCell::new(),
        });
    }
    for device in linux.devices().iter().flatten() {
        let path = inside(device.path())?;
        let number = |n: i64| {
            u32::try_from(n).map_err(|_| Error::spec("linux.devices", format!("{n} is no device number")))
        };
        let new = Device {
            host_path: c_string("linux.devices", &device.path().to_string_lossy())?,
            kind: match device.typ() {
                LinuxDeviceType::B => libc::S_IFBLK,
                LinuxDeviceType::C | LinuxDeviceType::U => libc::S_IFCHR,
                LinuxDeviceType::P => libc::S_IFIFO,
                LinuxDeviceType::A => return Err(Error::spec("linux.devices", "type a is for rules only")),
            },
            major: number(device.major())?,
            minor: number(device.minor())?,
            mode: device.file_mode().unwrap_or(0o666) & 0o7777,
            uid: device.uid().unwrap_or(0),
            gid: device.gid().unwrap_or(0),
            host_node: std::cell::OnceCell::new(),
            path,
        };
        match devices.iter_mut().find(|d: &&mut Device| d.path == new.path) {
            Some(existing) => *existing = new,
            None => devices.push(new),
        }
    }
    Ok(devices)
}
