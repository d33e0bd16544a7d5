//! Networks with IPv6, beside IPv4 and alone.

use serde_json::{Value, json};
use wherry_tests::engine::Binary;
use wherry_tests::{Host, Remote};

/// The IPv6 subnet of a network, and the addresses in it that end so.
fn subnet(host: &Host, network: &str) -> (String, impl Fn(&str) -> String + use<>) {
    let config = host.inspect(network)["IPAM"]["Config"].take();
    let found = config.as_array().unwrap().iter().filter_map(|c| c["Subnet"].as_str());
    let found = found.filter(|s| s.contains(':')).collect::<Vec<_>>();
    assert_eq!(found.len(), 1, "{config}");
    let whole = found[0].to_owned();
    let prefix = whole.split('/').next().unwrap().to_owned();
    (whole, move |end: &str| format!("{prefix}{end}"))
}

fn endpoint(host: &Host, container: &str, network: &str) -> Value {
    host.inspect(container)["NetworkSettings"]["Networks"][network].take()
}

#[test]
fn a_subnet_of_the_hosts_own() {
    let host = Host::new();
    host.docker("network create --ipv6 six").ok();
    host.docker("network create --ipv6 seven").ok();
    let (six, at) = subnet(&host, "six");
    let (seven, _) = subnet(&host, "seven");
    // Subnets of one random /48 of local addresses, one after the other.
    assert!(six.starts_with("fd") && six.ends_with("::/64"), "{six}");
    assert_eq!(seven, six.replace("::/64", ":1::/64"));
    let shown = host.inspect("six");
    assert_eq!((&shown["EnableIPv4"], &shown["EnableIPv6"]), (&json!(true), &json!(true)));
    assert_eq!(
        shown["IPAM"]["Config"],
        json!([{"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}, {"Subnet": six, "Gateway": at("1")}])
    );

    host.docker("run -d --name box --network six busybox sleep 600").ok();
    let box_endpoint = endpoint(&host, "box", "six");
    for (field, value) in [
        ("IPAddress", json!("172.18.0.2")),
        ("GlobalIPv6Address", json!(at("2"))),
        ("GlobalIPv6PrefixLen", json!(64)),
        ("IPv6Gateway", json!(at("1"))),
    ] {
        assert_eq!(box_endpoint[field], value, "{field}");
    }
    let member = host.inspect("six")["Containers"].take();
    let member = member.as_object().unwrap().values().next().unwrap().clone();
    assert_eq!(member["IPv6Address"], json!(format!("{}/64", at("2"))));
    host.docker("exec box ip -6 addr show eth0").contains(&format!("inet6 {}/64 scope global", at("2")));
    host.docker("exec box ip -6 route").contains(&format!("default via {} dev eth0", at("1")));
    let short = host.inspect("box")["Config"]["Hostname"].as_str().unwrap().to_owned();
    host.docker("exec box cat /etc/hosts").contains(&format!("172.18.0.2\t{short}\n{}\t{short}", at("2")));
    // Containers, and the host.
    for target in [at("1"), at("2")] {
        host.docker(&["run", "--rm", "--network", "six", "busybox", "ping", "-c", "1", "-W", "3", &target])
            .ok();
    }
    host.exec(&["busybox", "ping", "-c", "1", "-W", "3", &at("2")]).ok();
    // Another network's containers do not reach it.
    let stranger = host.docker(&[
        "run",
        "--rm",
        "--network",
        "seven",
        "busybox",
        "ping",
        "-c",
        "1",
        "-W",
        "1",
        &at("2"),
    ]);
    assert_eq!(stranger.code, 1, "{stranger}");
    // A network without IPv6 gives none, not even a local address.
    let plain = host.docker("run --rm busybox ip -6 addr show eth0").ok();
    assert_eq!(plain.out(), "");
    assert_eq!(host.exec("cat /proc/sys/net/ipv6/conf/all/forwarding").out(), "1");
    host.exec("ip6tables -S FORWARD").contains("-P FORWARD DROP").contains("-A FORWARD -j DOCKER-USER");
}

#[test]
fn subnets_and_addresses_that_are_asked_for() {
    let host = Host::new();
    host.docker("network create --ipv6 --subnet 10.5.0.0/24 --subnet fd00:5::/64 --ip-range fd00:5::1:0/112 --gateway fd00:5::42 --aux-address x=fd00:5::5 two").ok();
    assert_eq!(
        host.inspect("two")["IPAM"]["Config"],
        json!([
            {"Subnet": "10.5.0.0/24"},
            {"Subnet": "fd00:5::/64", "IPRange": "fd00:5::1:0/112", "Gateway": "fd00:5::42", "AuxiliaryAddresses": {"x": "fd00:5::5"}}
        ])
    );
    host.docker("run -d --name box --network two --ip 10.5.0.9 --ip6 fd00:5::99 busybox sleep 600").ok();
    let settings = endpoint(&host, "box", "two");
    assert_eq!(settings["IPAMConfig"], json!({"IPv4Address": "10.5.0.9", "IPv6Address": "fd00:5::99"}));
    assert_eq!(settings["GlobalIPv6Address"], json!("fd00:5::99"));
    host.docker("exec box ip -6 route").contains("default via fd00:5::42 dev eth0");
    host.docker("run --rm --network two busybox ip -6 addr show eth0").contains("fd00:5::1:0/64");
    host.docker("network create --ipv6 auto").ok();
    for (command, text) in [
        ("run --rm --network two --ip6 fd00:5::99 busybox true", "Address already in use"),
        (
            "run --rm --network two --ip6 fd00:6::99 busybox true",
            "invalid endpoint settings:\nno configured subnet or ip-range contain the IP address fd00:6::99",
        ),
        (
            "run --rm --network auto --ip6 fd00:5::99 busybox true",
            "user specified IP address is supported only when connecting to networks with user configured subnets",
        ),
        (
            "run --rm --ip6 fd00:5::99 busybox true",
            "user specified IP address is supported on user defined networks only",
        ),
    ] {
        host.docker(command).fails(125, text);
    }
    let create = |body: Value, status: u16, text: &str| {
        let answer = host.api("POST", "/v1.51/networks/create", &body).expect(status).json();
        assert_eq!(answer["message"], json!(text), "{body}");
    };
    let with = |config: Value| json!({"Name": "x6", "EnableIPv6": true, "IPAM": {"Config": config}});
    create(
        with(json!([{"Subnet": "fd00:5::/48"}])),
        403,
        "invalid pool request: Pool overlaps with other one on this address space",
    );
    create(
        with(json!([{"Subnet": "fd00:8::/64", "Gateway": "fd00:9::1"}])),
        400,
        "invalid network config:\ninvalid gateway fd00:9::1: parent subnet fd00:8::/64 doesn't contain this address",
    );
    create(
        with(json!([{"Subnet": "10.8.0.0/16", "IPRange": "fd00::/64"}])),
        400,
        "invalid network config:\ninvalid ip-range fd00::/64: parent subnet is an IPv4 block",
    );
    create(
        with(json!([{"Subnet": "fd00:8::/64"}, {"Subnet": "fd00:9::/64"}])),
        403,
        "bridge driver doesn't support multiple subnets",
    );
    create(
        with(json!([{"Subnet": "::1/128"}])),
        500,
        "failed to allocate gateway (): no available addresses on this pool",
    );
    create(json!({"Name": "x6", "EnableIPv4": false}), 400, "IPv4 or IPv6 must be enabled");
    // Of a family that is not enabled a subnet is shown, and nothing more.
    host.docker("network create --subnet fd00:7::/64 unused").ok();
    let shown = host.inspect("unused");
    assert_eq!(shown["EnableIPv6"], json!(false));
    assert_eq!(shown["IPAM"]["Config"][0]["Subnet"], json!("fd00:7::/64"));
    let inside = host.docker("run --rm --network unused busybox ip addr show eth0").ok();
    assert!(!inside.stdout.contains("inet6"), "{inside}");
}

#[test]
fn without_ipv4() {
    let host = Host::new();
    host.docker("network create --ipv6 --ipv4=false only").ok();
    let shown = host.inspect("only");
    assert_eq!((&shown["EnableIPv4"], &shown["EnableIPv6"]), (&json!(false), &json!(true)));
    let (whole, at) = subnet(&host, "only");
    assert_eq!(shown["IPAM"]["Config"], json!([{"Subnet": whole, "Gateway": at("1")}]));
    host.docker("run -d --name box --network only busybox sleep 600").ok();
    let settings = endpoint(&host, "box", "only");
    assert_eq!((&settings["IPAddress"], &settings["IPPrefixLen"]), (&json!(""), &json!(0)));
    assert_eq!(settings["GlobalIPv6Address"], json!(at("2")));
    let inside = host.docker("exec box ip -4 addr show eth0").ok();
    assert_eq!(inside.out(), "");
    host.docker("exec box ip -6 route").contains(&format!("default via {}", at("1")));
    host.exec(&["busybox", "ping", "-c", "1", "-W", "3", &at("2")]).ok();
    let id = &shown["Id"].as_str().unwrap()[..12];
    assert!(!host.exec("iptables-save").stdout.contains(id), "no IPv4 rules");
    assert!(host.exec("ip6tables-save").stdout.contains(id));
}

#[test]
fn what_leaves_has_the_hosts_address_and_nobody_comes_in() {
    let host = Host::new();
    let remote = Remote::new(&host);
    host.docker("network create --ipv6 --subnet fd00:a::/64 open").ok();
    host.docker("network create --ipv6 --internal --subnet fd00:b::/64 closed").ok();
    host.docker("run -d --name out --network open busybox sleep 600").ok();
    host.docker("run -d --name in --network closed busybox sleep 600").ok();
    // The other host knows no way back but to the host's own address.
    let ping =
        |name: &str, to: &str| host.docker(&["exec", name, "ping", "-c", "1", "-W", "2", to]).code == 0;
    assert!(ping("out", &Remote::V6.to_string()));
    assert!(!ping("in", &Remote::V6.to_string()));
    let routes = host.docker("exec in ip -6 route").ok();
    assert!(!routes.stdout.contains("default"), "{routes}");
    remote.route("fd00:a::/64");
    remote.route("fd00:b::/64");
    assert!(!remote.pings("fd00:a::2") && !remote.pings("fd00:b::2"), "from outside");
    host.docker("network create --ipv6 --subnet fd00:c::/64 -o com.docker.network.bridge.enable_ip_masquerade=false bare").ok();
    let rules = host.exec("ip6tables -t nat -S POSTROUTING").ok();
    assert!(
        rules.stdout.contains("-s fd00:a::/64 ! -o") && !rules.stdout.contains("-s fd00:c::/64 ! -o"),
        "{rules}"
    );
}

#[test]
fn connections_that_come_and_go() {
    let host = Host::new();
    host.docker("network create --ipv6 --subnet fd00:1::/64 one").ok();
    host.docker("network create --ipv6 --subnet fd00:2::/64 two").ok();
    host.docker("network create plain").ok();
    host.docker("run -d --name box --network two busybox sleep 600").ok();
    let default = || {
        let routes = host.docker("exec box ip -6 route").ok();
        routes.stdout.lines().find(|l| l.starts_with("default")).unwrap_or_default().trim().to_owned()
    };
    assert!(default().starts_with("default via fd00:2::1 dev eth0"));
    // A network with both families has the default route before one with IPv4 alone.
    host.docker("network connect plain box").ok();
    host.docker("exec box ip route").contains("default via 172.19.0.1 dev eth0");
    host.docker("network connect --ip6 fd00:1::77 one box").ok();
    assert!(default().starts_with("default via fd00:1::1 dev eth2"), "{}", default());
    assert!(host.docker("exec box cat /etc/hosts").ok().stdout.contains("fd00:1::77\t"));
    host.docker("network disconnect one box").ok();
    assert!(default().starts_with("default via fd00:2::1 dev eth0"), "{}", default());
    assert!(!host.docker("exec box cat /etc/hosts").ok().stdout.contains("fd00:1::77"));
    host.docker("network disconnect two box").ok();
    assert_eq!(default(), "");
    host.docker("exec box ip route").contains("default via 172.20.0.1 dev eth1");
    // Its addresses are free again.
    host.docker("run --rm --network one --ip6 fd00:1::77 busybox true").ok();
}

#[test]
fn of_the_daemon() {
    let pool4 = "base=10.200.0.0/16,size=24";
    let pool6 = "base=fd00:aa::/56,size=64";
    let host = Host::with_arguments(&[
        "--ipv6",
        "--fixed-cidr-v6=fd00:d0::/64",
        "--default-address-pool",
        pool4,
        "--default-address-pool",
        pool6,
    ]);
    let bridge = host.inspect("bridge");
    assert_eq!(bridge["EnableIPv6"], json!(true));
    assert_eq!(subnet(&host, "bridge").0, "fd00:d0::/64");
    host.exec("ip -6 addr show dev docker0").contains("fd00:d0::1/64");
    host.docker("run --rm busybox ip -6 route").contains("default via fd00:d0::1 dev eth0");
    host.docker("network create --ipv6 net").ok();
    let config = host.inspect("net")["IPAM"]["Config"].take();
    assert_eq!(
        config,
        json!([{"Subnet": "10.200.1.0/24", "Gateway": "10.200.1.1"}, {"Subnet": "fd00:aa::/64", "Gateway": "fd00:aa::1"}])
    );

    let host = Host::with_arguments(&["--ip6tables=false"]);
    host.docker("network create --ipv6 net").ok();
    host.docker("run -d --network net -p 8080:80 busybox sleep 600").ok();
    let rules = host.exec("ip6tables-save").stdout;
    assert!(!rules.contains("DOCKER"), "{rules}");
    assert!(host.exec("iptables-save").stdout.contains("8080"));
}

#[test]
fn subnets_are_listed_as_asked_by_family_and_then_as_chosen() {
    let host = Host::new();
    let create = |name: &str, config: Value| {
        let body = json!({"Name": name, "EnableIPv6": true, "IPAM": {"Config": config}});
        host.api("POST", "/v1.51/networks/create", &body).expect(201);
        let shown = host.inspect(name)["IPAM"]["Config"].take();
        let subnets = shown.as_array().unwrap().iter().map(|c| c["Subnet"].as_str().unwrap().to_owned());
        subnets.collect::<Vec<_>>()
    };
    assert_eq!(create("one", json!([{"Subnet": "fd00:1::/64"}])), ["fd00:1::/64", "172.18.0.0/16"]);
    let both = json!([{"Subnet": "fd00:2::/64"}, {"Subnet": "10.60.0.0/24"}]);
    assert_eq!(create("two", both), ["10.60.0.0/24", "fd00:2::/64"]);
}

#[test]
fn an_engine_starts_on_a_host_that_has_no_ipv6_any_more() {
    if Binary::from_environment().is_reference() {
        return;
    }
    let host = Host::new();
    host.docker("network create --ipv6 six").ok();
    host.stop();
    // As after a boot with ipv6.disable=1.
    let real = host.folder().join("net").display().to_string();
    let hide = format!(
        "set -e; mkdir {real}; mount --bind /proc/sys/net {real}; mount -t tmpfs tmpfs /proc/sys/net; \
         for d in $(ls {real}); do [ $d = ipv6 ] || {{ mkdir /proc/sys/net/$d; mount --bind {real}/$d /proc/sys/net/$d; }}; done"
    );
    host.exec(&["sh", "-c", &hide]).ok();
    host.start();
    host.docker("network ls --format {{.Name}}").contains("six");
    host.exec(&["sh", "-c", &format!("umount -R /proc/sys/net && umount {real} && rmdir {real}")]).ok();
}
