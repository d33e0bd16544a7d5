//! Network devices that have come from the host: they get their addresses back, and are set up.

use rustix::io::Errno;
use rustix::net::netdevice;

use super::{At, Done};
use crate::error::Step;
use crate::netlink;
use crate::plan::net_devices::NetDevice;

/// Readies all of them.
pub(crate) fn set_up(devices: &[NetDevice]) -> Done<'_> {
    if devices.is_empty() {
        return Ok(());
    }
    for device in devices {
        ready(device).at(Step::NetDevice, &device.name)?;
    }
    Ok(())
}

fn ready(device: &NetDevice) -> Result<(), Errno> {
    let socket = netlink::socket()?;
    let name = device.name.to_str().map_err(|_| Errno::INVAL)?;
    let index = netdevice::name_to_index(&socket, name)?;
    for address in &device.addresses {
        netlink::add_address(&socket, index, *address)?;
    }
    netlink::set_up(&socket, index)
}
