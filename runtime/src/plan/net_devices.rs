//! `linux.netDevices`: devices of the host's network that a container gets.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};

use oci_spec::runtime::Linux;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::netdevice;

use super::c_string;
use super::namespaces::Namespaces;
use crate::Error;
use crate::netlink::{self, Message};

/// `IFNAMSIZ` without the NUL.
const NAME_MAX: usize = 15;

/// A device that moves.
#[derive(Debug)]
pub(crate) struct NetDevice {
    /// On the host.
    host_name: String,
    /// The device's number on the host.
    index: u32,
    /// In the container.
    pub(crate) name: CString,
    /// Which it keeps: moving takes them away.
    pub(crate) addresses: Vec<Message>,
}

/// Compiles, and looks at the devices.
pub(crate) fn compile(linux: &Linux, namespaces: &Namespaces) -> Result<Vec<NetDevice>, Error> {
    let Some(devices) = linux.net_devices().as_ref().filter(|devices| !devices.is_empty()) else {
        return Ok(Vec::new());
    };
    let refuse = |reason: String| Err(Error::spec("linux.netDevices", reason));
    if !namespaces.net {
        return refuse("a container in the caller's network namespace has all devices there already".into());
    }
    let failed = |errno| Error::system("look at", "network devices", errno);
    let socket = netlink::socket().map_err(failed)?;
    let mut found: Vec<NetDevice> = Vec::with_capacity(devices.len());
    for (host_name, device) in devices {
        let name = device.name().as_deref().filter(|name| !name.is_empty()).unwrap_or(host_name);
        for name in [name, host_name] {
            let odd = |c: char| c == '/' || c == ':' || c == '%' || c.is_whitespace();
            if name.is_empty() || name.len() > NAME_MAX || [".", ".."].contains(&name) || name.contains(odd) {
                return refuse(format!("{name:?} is no name of a network device"));
            }
        }
        if found.iter().any(|other| other.name.as_bytes() == name.as_bytes()) {
            return refuse(format!("two devices are to be named {name:?}"));
        }
        let Ok(index) = netdevice::name_to_index(&socket, host_name) else {
            return refuse(format!("there is no network device {host_name:?}"));
        };
        found.push(NetDevice {
            host_name: host_name.clone(),
            index,
            name: c_string("linux.netDevices", name)?,
            addresses: netlink::addresses(&socket, index).map_err(failed)?,
        });
    }
    Ok(found)
}

/// Moves the devices to the network namespace of a container whose init is `pid`.
pub(crate) fn hand_over(devices: &[NetDevice], namespaces: &Namespaces, pid: i32) -> Result<(), Error> {
    if devices.is_empty() {
        return Ok(());
    }
    let own: OwnedFd;
    let namespace = match namespaces.joined(libc::CLONE_NEWNET) {
        Some(fd) => fd,
        None => {
            let path = format!("/proc/{pid}/ns/net");
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            own = rustix::fs::openat(CWD, path.as_str(), flags, Mode::empty())
                .map_err(|errno| Error::system("open", path, errno))?;
            own.as_fd()
        }
    };
    let socket = netlink::socket().map_err(|errno| Error::system("look at", "network devices", errno))?;
    for device in devices {
        netlink::move_device(&socket, device.index, namespace, device.name.as_bytes_with_nul()).map_err(
            |errno| Error::system("move to the container the network device", &device.host_name, errno),
        )?;
    }
    Ok(())
}
