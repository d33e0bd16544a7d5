//! Kinds of networks besides the bridge.

use serde_json::{Value, json};
use wherry_tests::Host;
use wherry_tests::engine::Binary;

/// Two ends of a cable on the host, the first of which serves as a parent.
fn cable(host: &Host) {
    for line in ["ip link add par0 type veth peer name par1", "ip link set par0 up", "ip link set par1 up"] {
        host.exec(line).ok();
    }
}

fn remove_cable(host: &Host) {
    host.exec("ip link del par0").ok();
}

#[test]
fn macvlan() {
    let host = Host::new();
    cable(&host);
    host.docker(
        "network create -d macvlan -o parent=par0 --subnet 10.50.0.0/24 --ipv6 --subnet fd00:50::/64 mv",
    )
    .ok();
    let shown = host.inspect("mv");
    assert_eq!((&shown["Driver"], &shown["EnableIPv6"]), (&json!("macvlan"), &json!(true)));
    assert_eq!(shown["Options"], json!({"parent": "par0"}));
    assert_eq!(shown["IPAM"]["Config"], json!([{"Subnet": "10.50.0.0/24"}, {"Subnet": "fd00:50::/64"}]));
    host.docker("run -d --name one --network mv -p 8080:80 busybox sleep 600").ok();
    host.docker(
        "run -d --name two --network mv --ip 10.50.0.77 --mac-address 02:00:00:00:00:77 busybox sleep 600",
    )
    .ok();
    let settings = host.inspect("one")["NetworkSettings"].take();
    assert_eq!(settings["Ports"], json!({}), "nothing is published");
    let endpoint = &settings["Networks"]["mv"];
    for (field, value) in [
        ("IPAddress", "10.50.0.2"),
        ("Gateway", "10.50.0.1"),
        ("GlobalIPv6Address", "fd00:50::2"),
        ("IPv6Gateway", "fd00:50::1"),
    ] {
        assert_eq!(endpoint[field], json!(value), "{field}");
    }
    host.docker("exec one ip route").contains("default via 10.50.0.1 dev eth0");
    host.docker("exec one ip -6 route").contains("default via fd00:50::1 dev eth0");
    host.docker("exec one ping -c 1 -W 3 two").ok();
    host.docker("exec one ping -c 1 -W 3 10.50.0.77").ok();
    host.docker("exec two ip link show eth0").contains("02:00:00:00:00:77");
    // It is on the cable: the other end sees its frames.
    host.exec("ip addr add 10.50.0.1/24 dev par1").ok();
    host.exec("busybox ping -c 1 -W 3 -I par1 10.50.0.77").ok();
    assert!(!host.exec("iptables-save").ok().stdout.contains("10.50.0"), "no rules");
    host.docker("network rm mv").fails(1, "network mv has active endpoints (name:\"");
    // While they run.
    host.docker("network disconnect mv two").ok();
    host.docker("exec two ls /sys/class/net").prints("lo");
    host.docker("network connect --ip 10.50.0.78 mv two").ok();
    host.docker("exec one ping -c 1 -W 3 10.50.0.78").ok();
    host.docker("rm -f one two").ok();
    host.docker("network rm mv").ok();
    host.exec("ip link show par0").ok();

    // (The client sends several subnets in an order of its own.)
    let subnets = json!([{"Subnet": "10.51.0.0/24", "Gateway": "10.51.0.9"}, {"Subnet": "10.52.0.0/24"}]);
    let many = json!({"Name": "many", "Driver": "macvlan", "Options": {"parent": "par0"}, "IPAM": {"Config": subnets}});
    host.api("POST", "/v1.51/networks/create", &many).expect(201);
    host.docker("run --rm --network many busybox sh -c 'ip addr show eth0; ip route'")
        .contains("10.51.0.1/24")
        .contains("default via 10.51.0.9");
    host.docker("run --rm --network many --ip 10.52.0.9 busybox sh -c 'ip addr show eth0; ip route'")
        .contains("10.52.0.9/24")
        .contains("default via 10.52.0.1");
    host.docker("network create -d macvlan --internal -o parent=par0 inside").ok();
    let inside = host.docker("run --rm --network inside busybox sh -c 'ip addr show eth0; ip route'").ok();
    assert!(inside.stdout.contains("172.18.0.1/16") && !inside.stdout.contains("default"), "{inside}");
    host.docker("network rm many inside").ok();
    remove_cable(&host);
}

#[test]
fn what_a_failed_connection_leaves() {
    let host = Host::new();
    cable(&host);
    // By its name it would get the default route.
    host.docker("network create -d macvlan -o parent=par0 --subnet 10.54.0.0/24 above").ok();
    host.docker("run -d --name box busybox sleep 600").ok();
    let seen = || host.docker("exec box sh -c 'ls /sys/class/net; ip route'").ok().stdout;
    let before = seen();
    let option = "com.docker.network.endpoint.sysctls=net.ipv4.conf.IFNAME.nosuch=1";
    let failed = host.docker(&["network", "connect", "--driver-opt", option, "above", "box"]);
    assert_eq!(failed.code, 1, "{failed}");
    assert!(failed.stderr.contains("/proc/sys/net/ipv4/conf/eth1/nosuch is not a sysctl file"), "{failed}");
    if Binary::from_environment().is_reference() {
        // There it is connected all the same.
        host.docker("rm -f box").ok();
        host.docker("network rm above").ok();
        return remove_cable(&host);
    }
    assert_eq!(seen(), before);
    host.docker("network connect above box").ok();
    let after = seen();
    assert!(after.starts_with("eth0\neth1\nlo\n") && after.contains("default via 10.54.0.1"), "{after}");
    host.docker("rm -f box").ok();
    host.docker("network rm above").ok();
    remove_cable(&host);
}

#[test]
fn the_host_forwards_nothing_for_what_passes_it_by() {
    let host = Host::new();
    cable(&host);
    let forwarding = || host.exec("cat /proc/sys/net/ipv6/conf/all/forwarding").ok().out().to_owned();
    host.docker("network create -d macvlan -o parent=par0 --ipv6 mv").ok();
    assert_eq!(forwarding(), "0");
    host.stop();
    host.start();
    assert_eq!(forwarding(), "0", "after a restart");
    host.docker("network rm mv").ok();
    remove_cable(&host);
}

#[test]
fn modes_of_macvlan() {
    let host = Host::new();
    cable(&host);
    for (mode, meet) in [("bridge", true), ("private", false), ("vepa", false)] {
        host.docker(&format!(
            "network create -d macvlan -o parent=par0 -o macvlan_mode={mode} --subnet 10.53.0.0/24 mv"
        ))
        .ok();
        host.docker("run -d --name one --network mv --ip 10.53.0.7 busybox sleep 600").ok();
        let ping = host.docker("run --rm --network mv busybox ping -c 1 -W 1 10.53.0.7");
        assert_eq!(ping.code == 0, meet, "{mode}: {ping}");
        host.docker("rm -f one").ok();
        host.docker("network rm mv").ok();
    }
    host.docker("network create -d macvlan -o parent=par0 -o macvlan_mode=passthru mv").ok();
    // One at a time, and the next one at once.
    for _ in 0..3 {
        host.docker("run --rm --network mv --mac-address 02:00:00:00:00:53 busybox ip link show eth0").ok();
    }
    host.docker("network rm mv").ok();
    remove_cable(&host);
}

#[test]
fn refusals() {
    let host = Host::new();
    cable(&host);
    let create = |body: Value, status: u16, text: &str| {
        let answer = host.api("POST", "/v1.51/networks/create", &body).expect(status).json();
        assert_eq!(answer["message"], json!(text), "{body}");
    };
    let macvlan = |parent: &str| json!({"Name": "n1", "Driver": "macvlan", "Options": {"parent": parent}});
    create(macvlan("nosuch"), 500, "invalid subinterface vlan name nosuch, example formatting is eth0.10");
    create(macvlan("nosuch.10"), 500, "-o parent interface was not found on the host: nosuch");
    create(macvlan("par0.xx"), 500, "unable to parse a valid vlan id from: xx (ex. eth0.10 for vlan 10)");
    create(macvlan("par0.4095"), 500, "vlan id must be between 1-4094, received: 4095");
    create(macvlan("lo"), 500, "loopback interface is not a valid macvlan parent link");
    let mode =
        json!({"Name": "n1", "Driver": "macvlan", "Options": {"parent": "par0", "macvlan_mode": "bogus"}});
    create(
        mode,
        500,
        "requested macvlan mode 'bogus' is not valid, 'bridge' mode is the macvlan driver default",
    );
    let mode =
        json!({"Name": "n1", "Driver": "ipvlan", "Options": {"parent": "par0", "ipvlan_mode": "bogus"}});
    create(mode, 500, "requested ipvlan mode 'bogus' is not valid, 'l2' mode is the ipvlan driver default");
    let swarm = "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.";
    create(json!({"Name": "n1", "Driver": "overlay"}), 403, swarm);
    create(json!({"Name": "n1", "Driver": "nosuch"}), 404, "plugin \"nosuch\" not found");
    create(json!({"Name": "n1", "Driver": "host"}), 403, "only one instance of \"host\" network is allowed");
    create(json!({"Name": "n1", "Driver": "null"}), 403, "only one instance of \"null\" network is allowed");
    create(
        json!({"Name": "n1", "Scope": "swarm"}),
        403,
        "cannot create a swarm scoped network when swarm is not active",
    );
    create(json!({"Name": "n1", "Ingress": true}), 403, "Ingress network can only be global scope network");
    host.docker("network create --scope global --attachable odd").ok();
    let shown = host.inspect("odd");
    assert_eq!((&shown["Scope"], &shown["Attachable"]), (&json!("global"), &json!(true)));
    host.docker("network ls --filter scope=global --format {{.Name}}").prints("odd");
    remove_cable(&host);
}

/// VLANs, dummies and ipvlan: where the kernel has them they work, elsewhere what is missing is said.
#[test]
fn what_the_kernel_may_lack() {
    let host = Host::new();
    cable(&host);
    let has = |kind: &str, more: &str| {
        let made = host.exec(&format!("ip link add {more} name try0 type {kind}")).code == 0;
        host.exec("ip link del try0");
        made
    };
    let vlan = host.docker("network create -d macvlan -o parent=par0.10 --subnet 10.54.0.0/24 mv");
    if has("vlan id 10", "link par0") {
        vlan.ok();
        host.docker("run --rm --network mv busybox ip addr show eth0").contains("10.54.0.2/24");
        host.exec("ip link show par0.10").ok();
        host.docker("network rm mv").ok();
        assert_ne!(host.exec("ip link show par0.10").code, 0, "it goes with the network");
    } else {
        vlan.fails(1, "failed to create par0.10 vlan link: operation not supported");
    }
    let dummy = host.docker("network create -d macvlan --subnet 10.55.0.0/24 mv");
    if has("dummy", "") {
        let id = dummy.ok().out().to_owned();
        host.exec(&["ip", "link", "show", &format!("dm-{}", &id[..12])]).ok();
        let inside = host.docker("run --rm --network mv busybox ip route").ok();
        assert!(!inside.stdout.contains("default"), "{inside}");
        host.docker("network rm mv").ok();
    } else {
        dummy.fails(1, "operation not supported");
    }
    host.docker("network create -d ipvlan -o parent=par0 --subnet 10.56.0.0/24 iv").ok();
    let shown = host.inspect("iv");
    assert_eq!(shown["Driver"], json!("ipvlan"));
    let dummy = format!("di-{}", &shown["Id"].as_str().unwrap()[..12]);
    host.docker("network create -d ipvlan -o parent=par0 -o ipvlan_mode=l3 second")
        .fails(1, &format!("network {dummy} is already using parent interface par0"));
    let run = host.docker("run --rm --network iv busybox ip addr show eth0");
    if has("ipvlan", "link par0") {
        run.contains("10.56.0.2/24");
    } else {
        run.fails(125, "failed to set up container networking: failed to create the ipvlan port: operation not supported");
    }
    host.docker("network rm iv").ok();
    remove_cable(&host);
}

#[test]
fn descriptions() {
    let host = Host::new();
    host.docker("network create --config-only --subnet 10.60.0.0/24 -o com.docker.network.bridge.name=cfgbr --label x=y cfg").ok();
    let shown = host.inspect("cfg");
    for (field, value) in [
        ("Driver", json!("null")),
        ("Scope", json!("local")),
        ("ConfigOnly", json!(true)),
        ("EnableIPv4", json!(true)),
        ("IPAM", json!({"Driver": "default", "Options": {}, "Config": [{"Subnet": "10.60.0.0/24"}]})),
        ("Options", json!({"com.docker.network.bridge.name": "cfgbr"})),
        ("Labels", json!({"x": "y"})),
    ] {
        assert_eq!(shown[field], value, "{field}");
    }
    assert_ne!(host.exec("ip link show cfgbr").code, 0, "it makes nothing");
    let run = host.docker("run --rm --network cfg busybox true");
    assert!(
        run.code == 125 && run.stderr.contains("cannot create endpoint on configuration-only network"),
        "{run}"
    );
    host.docker("network create --config-from cfg made").ok();
    let made = host.inspect("made");
    for (field, value) in [
        ("Driver", json!("bridge")),
        ("ConfigFrom", json!({"Network": "cfg"})),
        ("ConfigOnly", json!(false)),
        ("IPAM", json!({"Driver": "default", "Options": {}, "Config": [{"Subnet": "10.60.0.0/24"}]})),
        ("Options", json!({"com.docker.network.bridge.name": "cfgbr"})),
        ("Labels", json!({"x": "y"})),
    ] {
        assert_eq!(made[field], value, "{field}");
    }
    host.exec("ip link show cfgbr").ok();
    host.docker("run --rm --network made busybox ip addr show eth0").contains("10.60.0.2/24");
    let create = |body: Value, status: u16, text: &str| {
        let answer = host.api("POST", "/v1.51/networks/create", &body).expect(status).json();
        assert_eq!(answer["message"], json!(text), "{body}");
    };
    let from = |more: Value| {
        let mut body = json!({"Name": "f1", "ConfigFrom": {"Network": "cfg"}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let own =
        "user specified configurations are not supported if the network depends on a configuration network";
    create(from(json!({"Labels": {"a": "b"}})), 403, own);
    create(from(json!({"EnableIPv6": true})), 403, own);
    create(from(json!({"IPAM": {"Config": [{"Subnet": "10.61.0.0/24"}]}})), 403, own);
    let options =
        "network driver options are not supported if the network depends on a configuration network";
    create(from(json!({"Options": {"a": "b"}})), 403, options);
    create(
        from(json!({"ConfigOnly": true})),
        403,
        "a configuration network cannot depend on another configuration network",
    );
    create(
        json!({"Name": "f1", "ConfigFrom": {"Network": "nosuch"}}),
        404,
        "configuration network \"nosuch\" does not exist",
    );
    create(
        json!({"Name": "f1", "ConfigOnly": true, "Internal": true}),
        403,
        "configuration network can only contain network specific fields. Network operator fields like [ ingress | internal | attachable | scope ] are not supported.",
    );
    host.docker("network rm cfg")
        .fails(1, "error while removing network: configuration network \"cfg\" is in use");
    host.docker("network rm made").ok();
    host.docker("network rm cfg").ok();
}
