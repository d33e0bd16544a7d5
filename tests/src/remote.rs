//! Another host: a network namespace beside the private host, joined to it by a cable.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::{Host, Output};

/// A host on the same segment as the private host's interface `out0`. Dropping it removes both.
#[derive(Debug)]
pub struct Remote<'a> {
    host: &'a Host,
}

impl<'a> Remote<'a> {
    /// The private host's address on the common segment.
    pub const HOST_V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
    /// The same for IPv6.
    pub const HOST_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1);
    /// The other host's.
    pub const V4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
    /// The same for IPv6.
    pub const V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 9);

    /// Makes it. It knows no way but to the segment.
    pub fn new(host: &'a Host) -> Self {
        for line in [
            "ip netns add remote",
            "ip link add out0 type veth peer name out1 netns remote",
            "ip addr add 203.0.113.1/24 dev out0",
            "ip addr add 2001:db8:0:1::1/64 dev out0 nodad",
            "ip link set out0 up",
            "ip -n remote link set lo up",
            "ip -n remote addr add 203.0.113.9/24 dev out1",
            "ip -n remote addr add 2001:db8:0:1::9/64 dev out1 nodad",
            "ip -n remote link set out1 up",
        ] {
            host.exec(line).ok();
        }
        Self { host }
    }

    /// Gives it a way to `subnet` through the private host.
    pub fn route(&self, subnet: &str) {
        let via = if subnet.contains(':') { Self::HOST_V6.to_string() } else { Self::HOST_V4.to_string() };
        self.host.exec(&["ip", "-n", "remote", "route", "add", subnet, "via", &via]).ok();
    }

    /// Runs a command on it.
    pub fn exec(&self, line: &str) -> Output {
        let mut words = vec!["ip", "netns", "exec", "remote"];
        words.extend(line.split_whitespace());
        self.host.exec(words.as_slice())
    }

    /// Whether an answer comes from there within a second.
    pub fn pings(&self, address: &str) -> bool {
        self.exec(&format!("busybox ping -c 1 -W 1 {address}")).code == 0
    }

    /// GETs a page; `None` if there is no answer.
    pub fn get(&self, url: &str) -> Option<String> {
        let page = self.exec(&format!("busybox timeout 3 busybox wget -q -O- {url}"));
        (page.code == 0).then(|| page.out().to_owned())
    }
}

impl Drop for Remote<'_> {
    fn drop(&mut self) {
        self.host.exec("ip link del out0");
        self.host.exec("ip netns del remote");
        self.host.exec("umount /run/netns");
    }
}
