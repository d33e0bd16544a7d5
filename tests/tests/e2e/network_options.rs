//! Options of networks and of endpoints in them.

use serde_json::{Value, json};
use wherry_tests::engine::Binary;
use wherry_tests::{Host, Remote, poll};

use crate::web::{serve, serve_twice};

const BRIDGE: &str = "com.docker.network.bridge";
const ENDPOINT: &str = "com.docker.network.endpoint";

/// Makes a network with options of the bridge driver.
fn create(host: &Host, name: &str, more: &str, options: &[(&str, &str)]) {
    let mut line = format!("network create {more}");
    for (option, value) in options {
        line += &format!(" -o {BRIDGE}.{option}={value}");
    }
    host.docker(&format!("{line} {name}")).ok();
}

fn rules(host: &Host, about: &str) -> String {
    let all = host.exec("iptables-save").ok().stdout;
    all.lines().filter(|l| l.contains(about)).map(|l| format!("{l}\n")).collect()
}

/// The interface of a network whose name was not given.
fn host_interface(host: &Host, network: &str) -> String {
    format!("br-{}", &host.inspect(network)["Id"].as_str().unwrap()[..12])
}

#[test]
fn gateway_modes() {
    check_gateway_modes(&Host::new());
}

/// Who reaches what in which gateway mode.
pub(crate) fn check_gateway_modes(host: &Host) {
    let remote = Remote::new(host);
    remote.route("10.30.0.0/16");
    let modes = ["nat", "nat-unprotected", "routed"];
    for (number, mode) in modes.into_iter().enumerate() {
        let subnet = format!("--subnet 10.30.{number}.0/24");
        create(host, mode, &subnet, &[("gateway_mode_ipv4", mode)]);
        serve_twice(host, mode, &format!("--network {mode} -p 808{number}:80"));
    }
    let direct = |number: u8, port: u16| remote.get(&format!("http://10.30.{number}.2:{port}")).is_some();
    let published = |number: u8| remote.get(&format!("http://{}:808{number}", Remote::HOST_V4)).is_some();
    // (published port by its own address, unpublished one, by the host's address)
    assert_eq!((direct(0, 80), direct(0, 81), published(0)), (false, false, true), "nat");
    assert_eq!((direct(1, 80), direct(1, 81), published(1)), (true, true, true), "nat-unprotected");
    assert_eq!((direct(2, 80), direct(2, 81), published(2)), (true, false, false), "routed");
    assert!(remote.pings("10.30.2.2") && !remote.pings("10.30.0.2"));
    assert_eq!(
        host.inspect("routed")["NetworkSettings"]["Ports"]["80/tcp"],
        json!([{"HostIp": "0.0.0.0", "HostPort": ""}, {"HostIp": "::", "HostPort": "8082"}])
    );
    // What leaves a routed network keeps its own address.
    assert!(!rules(host, "10.30.2.0/24").contains("MASQUERADE"));
    host.docker("exec routed ping -c 1 -W 2 203.0.113.9").ok();
    let other = host.docker("exec nat ping -c 1 -W 1 10.30.2.2");
    assert_eq!(other.code, 0, "routed networks answer pings from everywhere: {other}");
    // A rule of the administrator's that accepts all is not meant for these.
    host.exec(&["iptables", "-I", "FORWARD", "-j", "ACCEPT"]).ok();
    assert_eq!((direct(0, 80), direct(0, 81), published(0)), (false, false, true), "nat, all accepted");
    host.exec(&["iptables", "-D", "FORWARD", "-j", "ACCEPT"]).ok();
    let refused =
        json!({"Name": "bad", "Options": {"com.docker.network.bridge.gateway_mode_ipv4": "isolated"}});
    let answer = host.api("POST", "/v1.51/networks/create", &refused).expect(500).json();
    assert_eq!(answer["message"], json!("gateway mode 'isolated' can only be used for an internal network"));
}

#[test]
fn isolated_networks_have_nothing_of_the_host() {
    let host = Host::new();
    create(
        &host,
        "iso",
        "--internal --ipv6 --subnet 10.31.0.0/24",
        &[("gateway_mode_ipv4", "isolated"), ("gateway_mode_ipv6", "isolated")],
    );
    let bridge = host_interface(&host, "iso");
    let addresses = host.exec(&["ip", "-4", "addr", "show", "dev", &bridge]).ok();
    assert_eq!(addresses.out(), "", "the bridge has no address");
    let config = host.inspect("iso")["IPAM"]["Config"].take();
    assert_eq!((&config[0]["Gateway"], &config[1]["Gateway"]), (&Value::Null, &Value::Null));
    host.docker("run -d --name one --network iso busybox sleep 600").ok();
    // The first address is free for a container.
    host.docker("exec one ip addr show eth0").contains("10.31.0.1/24");
    let routes = host.docker("exec one ip route").ok();
    assert!(!routes.stdout.contains("default"), "{routes}");
    host.docker("run --rm --network iso busybox ping -c 1 -W 3 10.31.0.1").ok();
}

#[test]
fn neighbours_are_told_of_new_addresses() {
    let host = Host::new();
    let option = "com.docker.network.advertise_addr_nmsgs";
    for (network, count, told) in [("told", "3", true), ("quiet", "0", false)] {
        host.docker(&[
            "network",
            "create",
            "--subnet",
            "10.33.0.0/24",
            "-o",
            &format!("{option}={count}"),
            network,
        ])
        .ok();
        let run = |name: &str, ip: &str| {
            let line = format!("run -d --name {name} --network {network} --ip {ip} busybox sleep 600");
            host.docker(line.as_str()).ok();
            let endpoint = host.inspect(name)["NetworkSettings"]["Networks"][network].take();
            endpoint["MacAddress"].as_str().unwrap().to_owned()
        };
        run("peer", "10.33.0.5");
        let old = run("old", "10.33.0.9");
        host.docker("exec peer ping -c 1 -W 5 10.33.0.9").ok();
        let known = || {
            let table = host.docker("exec peer cat /proc/net/arp").ok().stdout;
            let line =
                table.lines().find(|line| line.starts_with("10.33.0.9 ")).unwrap_or_default().to_owned();
            line.split_whitespace().nth(3).unwrap_or_default().to_owned()
        };
        assert_eq!(known(), old);
        host.docker("rm -f old").ok();
        let new = run("new", "10.33.0.9");
        if told {
            poll("the peer to know the new hardware address", 5, || known() == new);
        } else {
            assert_eq!(known(), old);
        }
        host.docker("rm -f peer new").ok();
        host.docker(&["network", "rm", network]).ok();
    }
    let every = "com.docker.network.advertise_addr_ms";
    for (name, value, text) in [
        (option, "4", format!("{option} must be in the range 0 to 3")),
        (option, "x", format!("value for option {option} \"x\" must be an integer")),
        (every, "5", format!("{every} must be in the range 100 to 2000")),
        (every, "x", format!("value for option {every} \"x\" must be integer milliseconds")),
    ] {
        let answer =
            host.api("POST", "/networks/create", &json!({ "Name": "bad", "Options": { name: value } }));
        assert_eq!(answer.expect(500).message(), text);
    }
}

#[test]
fn interfaces_and_addresses() {
    let host = Host::new();
    create(&host, "quiet", "--subnet 10.32.0.0/24", &[("inhibit_ipv4", "true"), ("name", "quiet0")]);
    assert_eq!(host.exec("ip -4 addr show dev quiet0").ok().out(), "");
    host.docker("run --rm --network quiet busybox ip route").contains("default via 10.32.0.1");
    host.docker("network create -o com.docker.network.container_iface_prefix=net -o com.docker.network.driver.mtu=1300 named").ok();
    host.docker("run --rm --network named busybox ip addr").contains("net0").contains("mtu 1300");
    host.docker("run --rm --network named --network quiet busybox ls /sys/class/net")
        .prints("eth0\nlo\nnet0");
    create(&host, "bound", "", &[("host_binding_ipv4", "198.51.100.73")]);
    host.docker("run -d --name bound --network bound -p 8085:80 -p 0.0.0.0:8086:80 busybox sleep 600").ok();
    host.docker("port bound").prints("80/tcp -> 0.0.0.0:8086\n80/tcp -> 198.51.100.73:8085");
    let refused = |options: Value, status: u16, text: &str| {
        let body = json!({"Name": "bad", "Options": options});
        let answer = host.api("POST", "/v1.51/networks/create", &body).expect(status).json();
        assert!(answer["message"].as_str().unwrap().contains(text), "{body}: {answer}");
    };
    let name = format!("{BRIDGE}.name");
    refused(json!({&name: "waytoolongbridgename"}), 500, "numerical result out of range");
    refused(json!({&name: "eth0"}), 500, "existing interface eth0 is not a bridge");
    refused(json!({&name: "quiet0"}), 403, "networks have same bridge name");
    let mtu = "com.docker.network.driver.mtu";
    refused(json!({mtu: "10"}), 500, "invalid argument");
    refused(json!({mtu: "-1"}), 400, "invalid MTU number: -1");
    refused(
        json!({mtu: "x"}),
        400,
        "failed to parse com.docker.network.driver.mtu value: x (strconv.Atoi: parsing \"x\": invalid syntax)",
    );
    refused(json!({format!("{BRIDGE}.gateway_mode_ipv6"): "bogus"}), 400, "(unknown gateway mode bogus)");
    let config = |config: Value, status: u16, text: &str| {
        let body = json!({"Name": "bad", "IPAM": {"Config": config}});
        let answer = host.api("POST", "/v1.51/networks/create", &body).expect(status).json();
        assert_eq!(answer["message"], json!(text), "{body}");
    };
    config(
        json!([{"Subnet": "10.44.0.0/16", "Gateway": "10.44.0.0"}]),
        500,
        "failed to allocate gateway (10.44.0.0): Address already in use",
    );
    config(
        json!([{"Subnet": "10.44.1.0/24", "AuxiliaryAddresses": {"a": "10.44.1.1"}}]),
        500,
        "failed to allocate secondary ip address (a:10.44.1.1): Address already in use",
    );
    config(
        json!([{"Subnet": "10.44.0.0/16"}, {"Subnet": "10.45.0.0/16"}]),
        403,
        "bridge driver doesn't support multiple subnets",
    );
    // Small subnets, and ranges that run out.
    host.docker("network create --subnet 10.44.3.0/31 pair").ok();
    host.docker("run --rm --network pair busybox ip addr show eth0").contains("10.44.3.1/31");
    host.docker("network create --subnet 10.44.5.0/24 --ip-range 10.44.5.0/30 range").ok();
    for _ in 0..2 {
        host.docker("run -d --network range busybox sleep 600").ok();
    }
    host.docker("run -d --network range busybox sleep 600")
        .fails(125, "no available IPv4 addresses on this network's address pools: range (");
    host.docker("run --rm --network range --ip 10.44.5.200 busybox true").ok();
}

#[test]
fn talk_between_containers_and_trusted_interfaces() {
    check_talk_and_trust(&Host::new());
}

/// Networks whose containers do not talk, and interfaces that are trusted.
pub(crate) fn check_talk_and_trust(host: &Host) {
    create(
        host,
        "mute",
        "--subnet 10.33.0.0/24",
        &[("enable_icc", "false"), ("enable_ip_masquerade", "false")],
    );
    serve(host, "web", "--network mute -p 8080:80");
    host.docker("run --rm --network mute busybox ping -c 1 -W 1 10.33.0.2").fails(1, "");
    host.docker("run --rm --network mute busybox timeout 5 wget -q -O- http://198.51.100.73:8080")
        .prints("web");
    assert!(!rules(host, "10.33.0.0/24 ! -o").contains("MASQUERADE"));
    let remote = Remote::new(host);
    remote.route("10.34.0.0/24");
    create(host, "open", "--subnet 10.34.0.0/24", &[("trusted_host_interfaces", "lo:out0")]);
    serve(host, "web2", "--network open -p 8081:80");
    assert_eq!(remote.get("http://10.34.0.2:80").as_deref(), Some("web2"), "published, by its own address");
    assert!(!remote.pings("10.34.0.2"), "not published");
}

#[test]
fn defaults_of_the_daemon() {
    let mtu = "com.docker.network.driver.mtu";
    let option = format!("bridge={mtu}=1234");
    let host = Host::with_arguments(&[
        "--default-network-opt",
        &option,
        "--ip-masq=false",
        "--fixed-cidr=172.17.8.0/24",
        "--bip=172.17.0.1/16",
    ]);
    host.docker("network create net").ok();
    assert_eq!(host.inspect("net")["Options"], json!({mtu: "1234"}));
    host.docker("run --rm --network net busybox ip link show eth0").contains("mtu 1234");
    host.docker(&format!("network create -o {mtu}=1400 own")).ok();
    host.docker("run --rm --network own busybox ip link show eth0").contains("mtu 1400");
    // The default bridge is not one of them; its containers' addresses come from the range.
    host.docker("run --rm busybox ip addr show eth0").contains("mtu 1500").contains("172.17.8.");
    assert_eq!(
        host.inspect("bridge")["IPAM"]["Config"],
        json!([{"Subnet": "172.17.0.0/16", "IPRange": "172.17.8.0/24", "Gateway": "172.17.0.1"}])
    );
    assert!(!rules(&host, "172.17.0.0/16 ! -o").contains("MASQUERADE"));
}

#[test]
fn endpoints() {
    let host = Host::new();
    host.docker("network create --subnet 10.35.0.0/24 aa").ok();
    host.docker("network create --subnet 10.36.0.0/24 bb").ok();
    let run = |options: &str, script: &str| {
        let mut words = vec!["run", "--rm"];
        words.extend(options.split_whitespace());
        words.extend(["busybox", "sh", "-c", script]);
        host.docker(words.as_slice())
    };
    // The interfaces' names.
    run(&format!("--network name=aa,driver-opt={ENDPOINT}.ifname=foo --network bb"), "ls /sys/class/net")
        .prints("eth0\nfoo\nlo");
    for (name, why) in [
        ("waytoolonginterface", "numerical result out of range"),
        ("a/b", "invalid argument"),
        ("lo", "file exists"),
    ] {
        let refused = run(&format!("--network name=aa,driver-opt={ENDPOINT}.ifname={name}"), "true");
        assert!(refused.code == 125 && refused.stderr.contains(why), "{refused}");
    }
    // Kernel parameters of one interface.
    let sysctls = |list: &str| format!("--network name=aa,\"driver-opt={ENDPOINT}.sysctls={list}\"");
    run(
        &sysctls("net.ipv4.conf.IFNAME.log_martians=1,net.ipv4.conf.IFNAME.forwarding=0"),
        "cd /proc/sys/net/ipv4/conf/eth0; cat log_martians forwarding",
    )
    .prints("1\n0");
    for (list, text) in [
        (
            "net.ipv4.conf.eth0.log_martians=1",
            "unrecognised network interface sysctl 'net.ipv4.conf.eth0.log_martians=1'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'",
        ),
        ("kernel.foo.IFNAME.bar=1", "unrecognised network interface sysctl 'kernel.foo.ifname.bar=1'"),
        ("net.ipv4.conf.IFNAME.nosuch=1", "/proc/sys/net/ipv4/conf/eth0/nosuch is not a sysctl file"),
        (
            "net.ipv4.conf.IFNAME.log_martians",
            "expected sysctl 'net.ipv4.conf.ifname.log_martians' to have format name=value",
        ),
    ] {
        run(&sysctls(list), "true").fails(125, text);
    }
    // Which network the default route goes through.
    let route = |options: &str| run(options, "ip route | head -1");
    route("--network bb --network aa").contains("default via 10.35.0.1 dev eth0");
    route("--network aa --network name=bb,gw-priority=1").contains("default via 10.36.0.1 dev eth1");
    host.docker("network create --internal closed").ok();
    route("--network name=closed,gw-priority=9 --network bb").contains("default via 10.36.0.1");
    // Addresses of the link, and hardware addresses.
    run("--network name=aa,link-local-ip=169.254.7.7,mac-address=02:00:00:00:aa:bb", "ip addr show eth0")
        .contains("169.254.7.7/16")
        .contains("02:00:00:00:aa:bb");
    host.docker("network create --ipv6 six").ok();
    run("--network name=six,link-local-ip=fe80::7777", "ip addr show eth0").contains("fe80::7777/64");
    run("--network name=aa,link-local-ip=1.2.3.4", "true")
        .fails(125, "invalid link local IP address: 1.2.3.4");
    run("--network name=aa,link-local-ip=bogus", "true").fails(125, "invalid link-local IP address: bogus");
    // All of it also while it runs.
    host.docker("run -d --name box --network aa busybox sleep 600").ok();
    host.docker(&format!(
        "network connect --gw-priority 5 --driver-opt {ENDPOINT}.ifname=late --link-local-ip 169.254.3.3 --alias nick bb box"
    ))
    .ok();
    host.docker("exec box ip addr show late").contains("169.254.3.3/16").contains("10.36.0.");
    host.docker("exec box ip route").contains("default via 10.36.0.1 dev late");
    let shown = host.inspect("box")["NetworkSettings"]["Networks"]["bb"].take();
    assert_eq!(
        (&shown["GwPriority"], &shown["DriverOpts"], &shown["Aliases"], &shown["IPAMConfig"]),
        (
            &json!(5),
            &json!({format!("{ENDPOINT}.ifname"): "late"}),
            &json!(["nick"]),
            &json!({"LinkLocalIPs": ["169.254.3.3"]})
        )
    );
    let answer = host
        .api(
            "POST",
            "/v1.51/networks/bb/connect",
            &json!({"Container": "box", "EndpointConfig": {"MacAddress": "bad"}}),
        )
        .expect(400)
        .json();
    assert_eq!(answer["message"], json!("invalid MAC address bad"));
}

#[test]
fn published_ports_follow_the_default_route() {
    let host = Host::new();
    for (name, subnet) in [("aa", "10.37.0.0/24"), ("bb", "10.38.0.0/24")] {
        host.docker(&["network", "create", "--subnet", subnet, name]).ok();
    }
    let to = || {
        let rules = rules(&host, "--dport 8080 -j DNAT");
        rules.lines().map(|l| l.rsplit(' ').next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    host.docker("run -d --name box --network bb --network aa -p 8080:80 busybox sleep 600").ok();
    assert_eq!(to(), ["10.37.0.2:80"]);
    host.docker("network disconnect aa box").ok();
    assert_eq!(to(), ["10.38.0.2:80"]);
    host.docker("port box").contains("80/tcp -> 0.0.0.0:8080");
    host.docker("network disconnect bb box").ok();
    assert_eq!(to(), [""; 0]);
    host.docker("network connect aa box").ok();
    assert_eq!(to(), ["10.37.0.2:80"]);
    host.docker("port box").contains("80/tcp -> 0.0.0.0:8080");
}

#[test]
fn gateway_modes_of_ipv6() {
    let host = Host::new();
    let remote = Remote::new(&host);
    remote.route("fd00:39::/32");
    let modes = ["nat", "nat-unprotected", "routed"];
    for (number, mode) in modes.into_iter().enumerate() {
        let subnet = format!("--ipv6 --subnet fd00:39:{number}::/64");
        create(&host, mode, &subnet, &[("gateway_mode_ipv6", mode)]);
        serve_twice(&host, mode, &format!("--network {mode} -p 808{number}:80"));
    }
    let direct =
        |number: u8, port: u16| remote.get(&format!("http://[fd00:39:{number}::2]:{port}")).is_some();
    let published = |number: u8| remote.get(&format!("http://[{}]:808{number}", Remote::HOST_V6)).is_some();
    // (published port by its own address, unpublished one, by the host's address)
    assert_eq!((direct(0, 80), direct(0, 81), published(0)), (false, false, true), "nat");
    assert_eq!((direct(1, 80), direct(1, 81), published(1)), (true, true, true), "nat-unprotected");
    assert_eq!((direct(2, 80), direct(2, 81), published(2)), (true, false, false), "routed");
    assert!(remote.pings("fd00:39:2::2") && !remote.pings("fd00:39:0::2"));
    assert_eq!(
        host.inspect("routed")["NetworkSettings"]["Ports"]["80/tcp"],
        json!([{"HostIp": "0.0.0.0", "HostPort": "8082"}, {"HostIp": "::", "HostPort": ""}])
    );
    assert!(
        !host.exec("ip6tables-save").ok().stdout.contains("fd00:39:2::/64 ! -o"),
        "nothing is masqueraded"
    );
}

#[test]
fn mtu_of_macvlan() {
    let host = Host::new();
    host.exec("ip link add par0 type veth peer name par1").ok();
    host.exec("ip link set par0 up").ok();
    let line = "network create -d macvlan -o parent=par0 -o com.docker.network.driver.mtu=1311";
    // A prefix is only bridges' to give.
    host.docker(&format!("{line} -o com.docker.network.container_iface_prefix=mv mv")).ok();
    // (The reference takes no notice of it.)
    let mtu = if Binary::from_environment().is_reference() { "mtu 1500" } else { "mtu 1311" };
    host.docker("run --rm --network mv busybox ip link show eth0").contains(mtu);
    host.docker("network rm mv").ok();
    host.exec("ip link del par0").ok();
}
