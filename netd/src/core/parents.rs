//! What the interfaces of macvlan and ipvlan networks are on: an interface of the host, a VLAN of one, or a dummy.

use rustix::io::Errno;

use super::kernel::index_of;
use super::{NetworkState, failed};
use crate::netlink::route::SubKind;
use crate::netlink::{Batch, Socket, route};
use crate::ports::reason;
use crate::protocol::{Driver, Failure, NetworkSpec, SubInterfaces};

/// The name of the interface that a network's are on.
pub(super) fn interface(spec: &NetworkSpec) -> String {
    match &spec.sub {
        Some(sub) if !sub.parent.is_empty() => sub.parent.clone(),
        _ => dummy(spec),
    }
}

/// The name of a dummy that is the network's own.
pub(super) fn dummy(spec: &NetworkSpec) -> String {
    let prefix = if spec.driver == Driver::Ipvlan { "di-" } else { "dm-" };
    format!("{prefix}{}", spec.id.get(..12).unwrap_or(&spec.id))
}

/// What the kernel is to make for an endpoint.
pub(super) fn kind(driver: Driver, sub: &SubInterfaces) -> Result<SubKind, Failure> {
    if driver == Driver::Ipvlan {
        let mode = match sub.mode.as_str() {
            "" | "l2" => 0,
            "l3" => 1,
            "l3s" => 2,
            other => {
                return Err(Failure::Invalid(format!(
                    "requested ipvlan mode '{other}' is not valid, 'l2' mode is the ipvlan driver default"
                )));
            }
        };
        let flags = match sub.flag.as_str() {
            "" | "bridge" => 0,
            "private" => 1,
            "vepa" => 2,
            other => {
                return Err(Failure::Invalid(format!(
                    "requested ipvlan flag '{other}' is not valid, 'bridge' is the ipvlan driver default"
                )));
            }
        };
        return Ok(SubKind::Ipvlan { mode, flags });
    }
    let mode = match sub.mode.as_str() {
        "private" => 1,
        "vepa" => 2,
        "" | "bridge" => 4,
        "passthru" => 8,
        other => {
            return Err(Failure::Invalid(format!(
                "requested macvlan mode '{other}' is not valid, 'bridge' mode is the macvlan driver default"
            )));
        }
    };
    Ok(SubKind::Macvlan { mode })
}

/// Makes what the network's interfaces are on, if it is not there. Answers whether it was made.
pub(super) fn ensure(spec: &NetworkSpec) -> Result<bool, Failure> {
    let Some(sub) = &spec.sub else { return Ok(false) };
    kind(spec.driver, sub)?;
    let name = interface(spec);
    let driver = if spec.driver == Driver::Ipvlan { "ipvlan" } else { "macvlan" };
    if name == "lo" {
        return Err(Failure::Invalid(format!("loopback interface is not a valid {driver} parent link")));
    }
    if index_of(&name).is_ok() {
        return Ok(false);
    }
    let mut batch = Batch::default();
    if sub.parent.is_empty() {
        route::add_dummy(&mut batch, &name);
        return commit(batch).map(|()| true).map_err(|e| Failure::Invalid(words(e)));
    }
    let (parent, vlan) = vlan_of(&name)?;
    let index = index_of(parent)
        .map_err(|_| Failure::Invalid(format!("-o parent interface was not found on the host: {parent}")))?;
    route::add_vlan(&mut batch, index, &name, vlan);
    commit(batch)
        .map(|()| true)
        .map_err(|e| Failure::Invalid(format!("failed to create {name} vlan link: {}", words(e))))
}

/// Reads `eth0.10`.
fn vlan_of(name: &str) -> Result<(&str, u16), Failure> {
    let mut parts = name.split('.');
    let (Some(parent), Some(vlan), None) = (parts.next(), parts.next(), parts.next()) else {
        return Err(Failure::Invalid(format!(
            "invalid subinterface vlan name {name}, example formatting is eth0.10"
        )));
    };
    let number: i64 = vlan.parse().map_err(|_| {
        Failure::Invalid(format!("unable to parse a valid vlan id from: {vlan} (ex. eth0.10 for vlan 10)"))
    })?;
    match u16::try_from(number) {
        Ok(vlan @ 1..=4094) => Ok((parent, vlan)),
        _ => Err(Failure::Invalid(format!("vlan id must be between 1-4094, received: {number}"))),
    }
}

/// Marks another network as the one that what `leaving`'s interfaces are on was made for, if there is one; answers it.
pub(super) fn hand_on(networks: &mut [NetworkState], leaving: &NetworkSpec) -> Option<NetworkState> {
    leaving.sub.as_ref()?;
    let shared = interface(leaving);
    let heir = networks.iter_mut().find(|other| {
        let spec = &other.network.spec;
        !other.removing && spec.id != leaving.id && spec.sub.is_some() && interface(spec) == shared
    })?;
    heir.own_bridge = true;
    Some(heir.without_pools())
}

/// Removes what was made for the network.
pub(super) fn remove(spec: &NetworkSpec) -> Result<(), Failure> {
    let name = interface(spec);
    let mut batch = Batch::default();
    route::delete_link(&mut batch, &name);
    match commit(batch) {
        Ok(()) | Err(Errno::NODEV) => Ok(()),
        Err(e) => Err(failed("remove", name)(e)),
    }
}

fn commit(batch: Batch) -> Result<(), Errno> {
    Socket::route().and_then(|mut socket| socket.commit(batch))
}

fn words(errno: Errno) -> String {
    reason(&errno.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_network_on_a_vlan_removes_it() {
        let network = |id: &str, parent: &str| {
            let sub = SubInterfaces { parent: parent.into(), mode: String::new(), flag: String::new() };
            let spec = NetworkSpec {
                id: id.into(),
                driver: Driver::Macvlan,
                sub: Some(sub),
                ..NetworkSpec::default()
            };
            NetworkState::new(spec, false, 0, false).unwrap()
        };
        let mut networks = vec![network("a", "eth0.10"), network("b", "eth0.11"), network("c", "eth0.10")];
        networks[0].own_bridge = true;
        let leaving = networks[0].network.spec.clone();
        let heir = hand_on(&mut networks, &leaving).unwrap();
        assert_eq!((heir.network.spec.id.as_str(), heir.own_bridge), ("c", true));
        networks.remove(0);
        assert!(networks[1].own_bridge && !networks[0].own_bridge);
        let leaving = networks[1].network.spec.clone();
        assert!(hand_on(&mut networks, &leaving).is_none());
    }

    #[test]
    fn vlans_are_read_strictly() {
        #[track_caller]
        fn check(name: &str, expect: Result<(&str, u16), &str>) {
            let got = vlan_of(name).map_err(|e| e.to_string());
            assert_eq!(got, expect.map_err(str::to_string));
        }
        check("eth0.10", Ok(("eth0", 10)));
        check("eth0", Err("invalid subinterface vlan name eth0, example formatting is eth0.10"));
        check("eth0.x", Err("unable to parse a valid vlan id from: x (ex. eth0.10 for vlan 10)"));
        check("eth0.4095", Err("vlan id must be between 1-4094, received: 4095"));
        check("eth0.1.2", Err("invalid subinterface vlan name eth0.1.2, example formatting is eth0.10"));
    }
}
