use super::*;
use crate::protocol::{BoundPort, GatewayMode, Protocol};

fn port(host_port: u16) -> PortRules {
    let bound = BoundPort {
        protocol: Protocol::Tcp,
        container_port: 80,
        host_ip: "0.0.0.0".parse().unwrap(),
        host_port,
    };
    PortRules {
        bridge: "br0".into(),
        mode: GatewayMode::Nat,
        ip: "172.18.0.2".parse().unwrap(),
        ports: vec![bound],
    }
}

#[test]
fn orders_that_wait_together_become_one_change() {
    let mut keeper = Keeper::default();
    let mut difference = Difference::default();
    let part = |ports: &[u16]| Part { ports: ports.iter().copied().map(port).collect(), ..Part::default() };
    let (old, one, two) = (1, 2, 3);
    for order in [
        Order::Remove(part(&[old])),
        Order::Add(part(&[one, two])),
        Order::Remove(part(&[one])),
        // A container that restarts: its rules go and come.
        Order::Add(part(&[old])),
    ] {
        keeper.note(&order, &mut difference);
    }
    assert_eq!(difference.remove, part(&[old]));
    assert_eq!(difference.add, part(&[two, old]));
    assert_eq!(keeper.wanted.rules, part(&[two, old]));
}

fn network(bridge: &str, subnet: &str) -> Part {
    Part { networks: vec![BridgeRules::plain(bridge, subnet)], ..Part::default() }
}

#[test]
fn a_network_is_ours_until_its_rules_are_known_to_be_gone() {
    let mut keeper = Keeper::default();
    let (gone, other) = (network("br0", "172.18.0.0/16"), network("br1", "172.19.0.0/16"));
    let mut difference = Difference::default();
    for order in [Order::Add(gone.clone()), Order::Add(other.clone()), Order::Remove(gone.clone())] {
        keeper.note(&order, &mut difference);
    }
    let owned = |keeper: &Keeper| keeper.wanted.owned(Family::V4).cloned().collect::<Vec<_>>();
    assert_eq!(owned(&keeper), [other.networks.clone(), gone.networks.clone()].concat());
    assert_eq!(keeper.wanted.rules, other);
    // Another engine starts before that.
    let wanted = Wanted { rules: other.clone(), ..Wanted::default() };
    keeper.note(&Order::Reconcile { wanted, before: None }, &mut difference);
    assert_eq!(owned(&keeper), [other.networks, gone.networks].concat());
}

#[test]
fn a_family_that_cannot_be_had_is_not_wanted_any_more() {
    let families = vec![Family::V4];
    let mut keeper = Keeper { wanted: Wanted { families, ..Wanted::default() }, ..Keeper::default() };
    let mut difference = Difference::default();
    let order = Order::Add(network("br0", "fd00::/64"));
    keeper.note(&order, &mut difference);
    assert_eq!(keeper.wanted.families, [Family::V4, Family::V6]);
    keeper.take_back(&[&order], &difference);
    assert_eq!(keeper.wanted.families, [Family::V4]);
    assert_eq!(keeper.wanted.rules, Part::default());
}

#[test]
fn a_backend_is_stale_until_it_is_cleared() {
    use FirewallBackend::{Iptables, Nftables};
    let mut keeper = Keeper::default();
    let mut stale = |backend, before| {
        let wanted = Wanted { backend, ..Wanted::default() };
        keeper.note(&Order::Reconcile { wanted, before }, &mut Difference::default());
        keeper.stale
    };
    assert_eq!(stale(Nftables, Some(Iptables)), Some(Iptables));
    assert_eq!(stale(Nftables, Some(Nftables)), Some(Iptables), "the switch has failed: it is tried again");
    assert_eq!(stale(Iptables, Some(Nftables)), Some(Nftables));
    assert_eq!(stale(Iptables, None), Some(Nftables));
}

#[test]
fn rules_are_compared_after_a_reload_of_firewalld() {
    let (own, jobs) = channel();
    let mut keeper = Keeper::default();
    keeper.register(&[&Order::Firewalld, &Order::Firewalld], &own);
    assert!(matches!(jobs.try_recv().map(|job| job.order), Ok(Order::Check)));
    keeper.register(&[&Order::Check], &own);
    assert!(jobs.try_recv().is_err(), "once");
}
