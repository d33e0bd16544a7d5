//! Many requests at once.

use std::collections::HashSet;

use wherry_netd::protocol::Protocol;

use crate::dns::{A, ask};
use crate::support::*;

#[test]
fn a_hundred_sandboxes_from_eight_engines_threads() {
    alone("crowd::a_hundred_sandboxes_from_eight_engines_threads", |host| {
        let net = host.network("net");
        let rules_before = out("iptables-save | grep -c -- '-A'");
        let names: Vec<String> = (0..100).map(|i| format!("c{i}")).collect();
        let made: Vec<_> = std::thread::scope(|scope| {
            let workers: Vec<_> = names
                .chunks(13)
                .map(|names| {
                    let (client, net) = (&host.client, &net);
                    scope.spawn(move || {
                        let made = names.iter().enumerate().map(|(index, name)| {
                            let mut spec = sandbox_spec(name, &[net]);
                            if index % 4 == 0 {
                                spec.endpoints[0].ports = vec![port(Protocol::Tcp, None, 0, 80)];
                            }
                            client.create_sandbox(spec).unwrap()
                        });
                        made.collect::<Vec<_>>()
                    })
                })
                .collect();
            workers.into_iter().flat_map(|w| w.join().unwrap()).collect()
        });
        let addresses: HashSet<_> = made.iter().map(ip).collect();
        assert_eq!(addresses.len(), 100, "each has its own address");
        let ports: Vec<_> =
            made.iter().flat_map(|s| &s.endpoints[0].ports).map(|p| (p.host_ip, p.host_port)).collect();
        assert_eq!(ports.iter().collect::<HashSet<_>>().len(), ports.len(), "and its own ports");
        for (index, sandbox) in made.iter().enumerate().step_by(17) {
            let other = &made[(index + 50) % 100];
            let found = ask(&sandbox.netns, &other.endpoints[0].spec.container_name, A).unwrap();
            assert_eq!(found.records, [ip(other).octets().to_vec()]);
        }
        let status = std::fs::read_to_string(format!("/proc/{}/status", host.netd_pid())).unwrap();
        println!("with 100 sandboxes: {}", status.lines().find(|l| l.starts_with("VmRSS")).unwrap());
        std::thread::scope(|scope| {
            for some in made.chunks(13) {
                scope.spawn(move || some.iter().for_each(|s| host.client.release_sandbox(&s.id).unwrap()));
            }
        });
        eventually("namespaces are gone", || host.namespaces().is_empty());
        eventually("rules are gone", || out("iptables-save | grep -c -- '-A'") == rules_before);
        eventually("links are gone", || !sh("ip -o link").contains("veth"));
        host.client.remove_network(&net.spec.id).unwrap();
    });
}

#[test]
fn the_same_sandbox_again_and_again() {
    alone("crowd::the_same_sandbox_again_and_again", |host| {
        let bridge = host.default_bridge();
        let mut spec = sandbox_spec("same", &[&bridge]);
        spec.endpoints[0].ports = vec![port(Protocol::Tcp, None, 8080, 80)];
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let (client, spec) = (&host.client, &spec);
                scope.spawn(move || {
                    for _ in 0..10 {
                        // Without a release in between: the earlier one goes by itself.
                        client.create_sandbox(spec.clone()).unwrap();
                    }
                });
            }
        });
        assert_eq!(host.client.sandboxes().unwrap().len(), 1);
        let last = host.client.create_sandbox(spec).unwrap();
        serve(&last.netns, 80, "last");
        assert!(greeting(HOST_IP, 8080).unwrap().starts_with("last"));
        eventually("one rule is left", || out("iptables -t nat -L DOCKER -n | grep -c DNAT") == "1\n");
        host.client.release_sandbox(&last.id).unwrap();
        eventually("no rule is left", || out("iptables -t nat -L DOCKER -n | grep -c DNAT") == "0\n");
    });
}
