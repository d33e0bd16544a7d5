//! Which subnets networks get, and which addresses endpoints get, of both families. Pure: no I/O.
//!
//! As dockerd does: subnets come from the pools in order, skipping those that overlap a network
//! or a route of the host; addresses are the lowest free ones, so that an address is given out again as soon as it is free.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;

/// Whether two subnets have an address in common.
pub(crate) fn overlap(a: IpNetwork, b: IpNetwork) -> bool {
    a.contains(b.network()) || b.contains(a.network())
}

/// The first subnet of that family's pools that overlaps nothing in `taken`.
pub(crate) fn next_subnet(pools: &[(IpNetwork, u8)], v6: bool, taken: &[IpNetwork]) -> Option<IpNetwork> {
    pools.iter().filter(|(pool, _)| pool.is_ipv6() == v6).find_map(|&(pool, length)| {
        let bits = bits(v6);
        let spread = length.checked_sub(pool.prefix()).filter(|_| length <= bits)?;
        // More than these need not be tried: so many networks there are not.
        let count = 1u128 << spread.min(64);
        let step = 1u128.checked_shl(u32::from(bits - length))?;
        let base = number(pool.network());
        let mut index = 0;
        while index < count {
            let start = base.checked_add(index.checked_mul(step)?)?;
            let candidate = IpNetwork::new(address(start, v6), length).ok()?;
            match taken.iter().find(|t| t.is_ipv6() == v6 && overlap(**t, candidate)) {
                None => return Some(candidate),
                // Go on behind what is in the way, which may be larger than one candidate.
                Some(t) => {
                    let behind = number(t.broadcast()).checked_add(1)?;
                    index = (behind.max(start + step) - base).div_ceil(step);
                }
            }
        }
        None
    })
}

fn bits(v6: bool) -> u8 {
    if v6 { 128 } else { 32 }
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)),
        IpAddr::V6(ip) => ip.into(),
    }
}

fn address(number: u128, v6: bool) -> IpAddr {
    if v6 { Ipv6Addr::from(number).into() } else { Ipv4Addr::from(number as u32).into() }
}

/// Why an address cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoAddress {
    /// All are in use.
    Exhausted,
    /// The asked one is in use, or is one that nobody can have.
    InUse,
    /// The asked one is not in the subnet.
    Outside,
}

/// The addresses of one subnet.
#[derive(Debug, Clone)]
pub(crate) struct Pool {
    subnet: IpNetwork,
    range: IpNetwork,
    used: BTreeSet<u128>,
}

impl Pool {
    /// Dynamic addresses come from `range`, fixed ones from all of `subnet`.
    pub(crate) fn new(subnet: IpNetwork, range: Option<IpNetwork>) -> Self {
        Self { subnet, range: range.unwrap_or(subnet), used: BTreeSet::new() }
    }

    pub(crate) fn subnet(&self) -> IpNetwork {
        self.subnet
    }

    /// Takes the lowest free address of the range.
    pub(crate) fn next(&mut self) -> Result<IpAddr, NoAddress> {
        let (first, last) = (number(self.range.network()), number(self.range.broadcast()));
        let mut candidate = first;
        // The used ones in order: the first gap is the answer.
        for &used in self.used.range(first..=last) {
            while candidate < used && !self.assignable(candidate) {
                candidate += 1;
            }
            if candidate < used {
                break;
            }
            candidate = used.saturating_add(1);
        }
        while candidate < last && !self.assignable(candidate) {
            candidate += 1;
        }
        if candidate > last || !self.assignable(candidate) || !self.used.insert(candidate) {
            return Err(NoAddress::Exhausted);
        }
        Ok(address(candidate, self.subnet.is_ipv6()))
    }

    /// Takes this address.
    pub(crate) fn take(&mut self, ip: IpAddr) -> Result<(), NoAddress> {
        if !self.subnet.contains(ip) {
            return Err(NoAddress::Outside);
        }
        let ip = number(ip);
        if !self.assignable(ip) || !self.used.insert(ip) {
            return Err(NoAddress::InUse);
        }
        Ok(())
    }

    /// Gives an address back.
    pub(crate) fn release(&mut self, ip: IpAddr) {
        if self.subnet.contains(ip) {
            self.used.remove(&number(ip));
        }
    }

    /// The subnet's own and its IPv4 broadcast address are nobody's, except in IPv4 subnets that have no others; IPv6 has
    /// no broadcasts.
    fn assignable(&self, ip: u128) -> bool {
        let own = ip == number(self.subnet.network());
        match self.subnet {
            IpNetwork::V4(subnet) => {
                subnet.prefix() >= 31 || !(own || ip == number(subnet.broadcast().into()))
            }
            IpNetwork::V6(_) => !own,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNetwork {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn subnets_come_in_order_and_avoid_what_is_taken() {
        let pools = [(net("172.17.0.0/16"), 16), (net("172.20.0.0/14"), 16), (net("192.168.0.0/16"), 20)];
        #[track_caller]
        fn check(pools: &[(IpNetwork, u8)], taken: &[&str], expect: Option<&str>) {
            let taken = taken.iter().map(|t| net(t)).collect::<Vec<_>>();
            assert_eq!(next_subnet(pools, false, &taken), expect.map(net));
        }
        check(&pools, &[], Some("172.17.0.0/16"));
        check(&pools, &["172.17.3.0/24"], Some("172.20.0.0/16"));
        check(&pools, &["172.17.0.0/16", "172.20.0.0/15"], Some("172.22.0.0/16"));
        check(&pools, &["172.16.0.0/12"], Some("192.168.0.0/20"));
        check(&pools, &["172.16.0.0/12", "192.168.0.1/32", "192.168.17.0/24"], Some("192.168.32.0/20"));
        check(&pools, &["0.0.0.0/0"], None);
        check(&[(net("255.255.255.0/24"), 25)], &["255.255.255.0/25"], Some("255.255.255.128/25"));
        check(&[(net("10.0.0.0/16"), 8)], &[], None);
        check(&[(net("0.0.0.0/0"), 30)], &[], Some("0.0.0.0/30"));
    }

    #[test]
    fn the_lowest_free_address_is_next() {
        let mut pool = Pool::new(net("172.17.0.0/16"), None);
        pool.take(ip("172.17.0.1")).unwrap();
        assert_eq!(pool.next(), Ok(ip("172.17.0.2")));
        assert_eq!(pool.next(), Ok(ip("172.17.0.3")));
        pool.release(ip("172.17.0.2"));
        assert_eq!(pool.next(), Ok(ip("172.17.0.2")));
        pool.take(ip("172.17.0.4")).unwrap();
        assert_eq!(pool.next(), Ok(ip("172.17.0.5")));
        assert_eq!(pool.take(ip("172.17.0.4")), Err(NoAddress::InUse));
        assert_eq!(pool.take(ip("172.17.255.255")), Err(NoAddress::InUse));
        assert_eq!(pool.take(ip("172.18.0.1")), Err(NoAddress::Outside));
    }

    #[test]
    fn small_subnets_run_out() {
        let mut pool = Pool::new(net("10.8.0.0/29"), None);
        let given = std::iter::from_fn(|| pool.next().ok()).collect::<Vec<_>>();
        assert_eq!(given.len(), 6);
        assert_eq!(pool.next(), Err(NoAddress::Exhausted));
        let mut two = Pool::new(net("10.8.0.0/31"), None);
        assert_eq!((two.next(), two.next()), (Ok(ip("10.8.0.0")), Ok(ip("10.8.0.1"))));
        assert_eq!(two.next(), Err(NoAddress::Exhausted));
    }

    #[test]
    fn a_range_bounds_dynamic_addresses_only() {
        let mut pool = Pool::new(net("10.9.0.0/24"), Some(net("10.9.0.128/30")));
        let given = std::iter::from_fn(|| pool.next().ok()).map(|i| i.to_string()).collect::<Vec<_>>();
        assert_eq!(given, ["10.9.0.128", "10.9.0.129", "10.9.0.130", "10.9.0.131"]);
        pool.take(ip("10.9.0.5")).unwrap();
        let mut low = Pool::new(net("10.9.0.0/24"), Some(net("10.9.0.0/30")));
        assert_eq!(low.next(), Ok(ip("10.9.0.1")));
        let mut top = Pool::new(net("255.255.255.0/24"), Some(net("255.255.255.254/31")));
        assert_eq!(top.next(), Ok(ip("255.255.255.254")));
        assert_eq!(top.next(), Err(NoAddress::Exhausted));
    }

    #[test]
    fn both_families() {
        let pools = [(net("172.17.0.0/16"), 16), (net("fd00:1:2::/48"), 64), (net("fd00:9::/128"), 128)];
        assert_eq!(next_subnet(&pools, true, &[]), Some(net("fd00:1:2::/64")));
        let taken = [net("fd00:1:2::/64"), net("172.17.0.0/16"), net("fd00:1:2:1::/64")];
        assert_eq!(next_subnet(&pools, true, &taken), Some(net("fd00:1:2:2::/64")));
        assert_eq!(next_subnet(&pools, true, &[net("fd00:1::/32")]), Some(net("fd00:9::/128")));
        assert_eq!(next_subnet(&[(net("::/0"), 64)], true, &[net("::/1")]), Some(net("8000::/64")));
        let mut pool = Pool::new(net("fd00::/64"), None);
        assert_eq!(pool.next(), Ok(ip("fd00::1")));
        assert_eq!(pool.take(ip("fd00::ffff:ffff:ffff:ffff")), Ok(()));
        assert_eq!(pool.take(ip("fd00::")), Err(NoAddress::InUse));
        assert_eq!(pool.take(ip("10.0.0.1")), Err(NoAddress::Outside));
        pool.release(ip("10.0.0.1"));
        let mut range = Pool::new(net("fd00:9::/64"), Some(net("fd00:9::1:0/112")));
        assert_eq!(range.next(), Ok(ip("fd00:9::1:0")));
        assert_eq!(Pool::new(net("::1/128"), None).next(), Err(NoAddress::Exhausted));
        let mut end = Pool::new(net("ffff::/16"), Some(net("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128")));
        assert!(end.next().is_ok());
        assert_eq!(end.next(), Err(NoAddress::Exhausted));
    }
}
