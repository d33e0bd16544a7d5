//! Which subnets networks get, and which addresses endpoints get. Pure: no I/O.
//!
//! As dockerd does: subnets come from the pools in order, skipping those that overlap a network
//! or a route of the host; addresses are the lowest free ones, so that an address is given out again as soon as it is free.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnetwork::Ipv4Network;

/// Whether two subnets have an address in common.
pub(crate) fn overlap(a: Ipv4Network, b: Ipv4Network) -> bool {
    a.contains(b.network()) || b.contains(a.network())
}

/// The first subnet of the pools that overlaps nothing in `taken`.
pub(crate) fn next_subnet(pools: &[(Ipv4Network, u8)], taken: &[Ipv4Network]) -> Option<Ipv4Network> {
    pools.iter().find_map(|&(pool, length)| {
        let count = 1u64 << length.checked_sub(pool.prefix()).filter(|_| length <= 30)?;
        let step = 1u64 << (32 - u32::from(length));
        let base = u64::from(u32::from(pool.network()));
        let mut index = 0;
        while index < count {
            let start = base + index * step;
            let candidate = Ipv4Network::new(Ipv4Addr::from(start as u32), length).ok()?;
            match taken.iter().find(|t| overlap(**t, candidate)) {
                None => return Some(candidate),
                // Go on behind what is in the way, which may be larger than one candidate.
                Some(t) => {
                    let behind = u64::from(u32::from(t.broadcast())) + 1;
                    index = (behind.max(start + step) - base).div_ceil(step);
                }
            }
        }
        None
    })
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
    subnet: Ipv4Network,
    range: Ipv4Network,
    used: BTreeSet<u32>,
}

impl Pool {
    /// Dynamic addresses come from `range`, fixed ones from all of `subnet`.
    pub(crate) fn new(subnet: Ipv4Network, range: Option<Ipv4Network>) -> Self {
        Self { subnet, range: range.unwrap_or(subnet), used: BTreeSet::new() }
    }

    pub(crate) fn subnet(&self) -> Ipv4Network {
        self.subnet
    }

    /// Takes the lowest free address of the range.
    pub(crate) fn next(&mut self) -> Result<Ipv4Addr, NoAddress> {
        let (first, last) = (u32::from(self.range.network()), u32::from(self.range.broadcast()));
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
        while candidate <= last && !self.assignable(candidate) && candidate < u32::MAX {
            candidate += 1;
        }
        if candidate > last || !self.assignable(candidate) || !self.used.insert(candidate) {
            return Err(NoAddress::Exhausted);
        }
        Ok(candidate.into())
    }

    /// Takes this address.
    pub(crate) fn take(&mut self, ip: Ipv4Addr) -> Result<(), NoAddress> {
        if !self.subnet.contains(ip) {
            return Err(NoAddress::Outside);
        }
        let ip = u32::from(ip);
        if !self.assignable(ip) || !self.used.insert(ip) {
            return Err(NoAddress::InUse);
        }
        Ok(())
    }

    /// Gives an address back.
    pub(crate) fn release(&mut self, ip: Ipv4Addr) {
        self.used.remove(&ip.into());
    }

    /// The subnet's own and its broadcast address are nobody's, except where there are no others.
    fn assignable(&self, ip: u32) -> bool {
        self.subnet.prefix() >= 31
            || (ip != u32::from(self.subnet.network()) && ip != u32::from(self.subnet.broadcast()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> Ipv4Network {
        text.parse().unwrap()
    }

    fn ip(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    #[test]
    fn subnets_come_in_order_and_avoid_what_is_taken() {
        let pools = [(net("172.17.0.0/16"), 16), (net("172.20.0.0/14"), 16), (net("192.168.0.0/16"), 20)];
        #[track_caller]
        fn check(pools: &[(Ipv4Network, u8)], taken: &[&str], expect: Option<&str>) {
            let taken = taken.iter().map(|t| net(t)).collect::<Vec<_>>();
            assert_eq!(next_subnet(pools, &taken), expect.map(net));
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
        let given = std::iter::from_fn(|| pool.next().ok()).map(|i| i.octets()[3]).collect::<Vec<_>>();
        assert_eq!(given, [128, 129, 130, 131]);
        pool.take(ip("10.9.0.5")).unwrap();
        let mut low = Pool::new(net("10.9.0.0/24"), Some(net("10.9.0.0/30")));
        assert_eq!(low.next(), Ok(ip("10.9.0.1")));
        let mut top = Pool::new(net("255.255.255.0/24"), Some(net("255.255.255.254/31")));
        assert_eq!(top.next(), Ok(ip("255.255.255.254")));
        assert_eq!(top.next(), Err(NoAddress::Exhausted));
    }
}
