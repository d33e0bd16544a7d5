//! Networks: addresses, names, connections, isolation.

use std::net::Ipv4Addr;

use serde_json::{Value, json};
use wherry_tests::dns::NameServer;
use wherry_tests::{HOST_ADDRESS, Host};

use crate::events::events;

#[test]
fn the_default_networks() {
    let host = Host::new();
    let line = ["network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}"];
    host.docker(&line).prints("bridge bridge local\nhost host local\nnone null local");
    let bridge = host.inspect("bridge");
    for (pointer, value) in [
        ("/Name", json!("bridge")),
        ("/EnableIPv4", json!(true)),
        ("/EnableIPv6", json!(false)),
        (
            "/IPAM",
            json!({"Driver": "default", "Options": null, "Config": [{"Subnet": "172.17.0.0/16", "Gateway": "172.17.0.1"}]}),
        ),
        ("/Internal", json!(false)),
        ("/Containers", json!({})),
        ("/Options/com.docker.network.bridge.name", json!("docker0")),
        ("/Labels", json!({})),
    ] {
        assert_eq!(bridge.pointer(pointer), Some(&value), "{pointer}");
    }
    host.docker("run --rm busybox sh -c 'ip -4 -o addr show eth0 | tr -s \" \" | cut -d\" \" -f4; ip route | head -1'")
        .prints("172.17.0.2/16\ndefault via 172.17.0.1 dev eth0");
    host.docker("run --rm --network none busybox sh -c 'ls /sys/class/net'").prints("lo");
    host.docker("run --rm --network host busybox ip -4 addr show eth0").contains("198.51.100.73/24");
    for name in ["bridge", "host", "none"] {
        host.docker(&["network", "rm", name]).fails(1, "is a pre-defined network and cannot be removed");
        host.docker(&["network", "create", name]).fails(1, "");
    }
}

#[test]
fn create_inspect_remove() {
    let host = Host::new();
    let id = host.docker("network create --label a=b one").ok().out().to_owned();
    assert_eq!(id.len(), 64);
    let one = host.inspect("one");
    assert_eq!(
        one["IPAM"],
        json!({"Driver": "default", "Options": {}, "Config": [{"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}]})
    );
    assert_eq!(
        (&one["Labels"], &one["Driver"], &one["Options"]),
        (&json!({"a": "b"}), &json!("bridge"), &json!({}))
    );
    host.exec(&["ip", "link", "show", &format!("br-{}", &id[..12])]).ok();
    for (command, text) in [
        ("network create one", "network with name one already exists"),
        (
            "network create --subnet 172.18.1.0/24 two",
            "invalid pool request: Pool overlaps with other one on this address space",
        ),
        ("network create --subnet nonsense two", "invalid CIDR"),
        ("network create -d nosuch two", "nosuch"),
        ("network rm nosuch", "network nosuch not found"),
        ("network inspect nosuch", "network nosuch not found"),
    ] {
        host.docker(command).fails(1, text);
    }
    host.docker("network create --subnet 10.99.0.0/24 --ip-range 10.99.0.128/25 --gateway 10.99.0.254 two")
        .ok();
    host.docker("run -d --name box --network two --ip 10.99.0.7 busybox sleep 600").ok();
    host.docker("exec box ip -4 addr show eth0").contains("10.99.0.7/24");
    host.docker("exec box ip route").contains("default via 10.99.0.254");
    host.docker("run --rm --network two busybox ip -4 addr show eth0").contains("10.99.0.128/24");
    host.docker("run --rm --network two --ip 10.99.0.7 busybox true").fails(125, "Address already in use");
    host.docker("run --rm --network two --ip 10.98.0.7 busybox true").fails(125, "");
    host.docker("run --rm --ip 172.17.0.9 busybox true")
        .fails(125, "user specified IP address is supported on user defined networks only");
    host.docker("network rm two")
        .fails(1, "error while removing network: network two has active endpoints (name:\"box\" id:\"");
    let containers = host.inspect("two")["Containers"].take();
    let (_, entry) = containers.as_object().unwrap().iter().next().unwrap();
    assert_eq!((&entry["Name"], &entry["IPv4Address"]), (&json!("box"), &json!("10.99.0.7/24")));
    host.docker("rm -f box").ok();
    host.docker("network rm one two").prints("one\ntwo");
}

#[test]
fn names_on_networks_of_ones_own() {
    let host = Host::new();
    host.docker("network create net").ok();
    host.docker("run -d --name server --hostname srv --network net --network-alias other busybox sleep 600")
        .ok();
    let short = host.docker("ps -q").ok().out().to_owned();
    let resolve = |name: &str| {
        host.docker(&["run", "--rm", "--network", "net", "busybox", "ping", "-c", "1", "-W", "5", name])
    };
    for name in ["server", "other", "srv", "SERVER", short.as_str(), "server.net"] {
        resolve(name).contains("(172.18.0.2)");
    }
    resolve("nosuch").fails(1, "bad address");
    let resolv =
        host.docker("run --rm --network net busybox cat /etc/resolv.conf").contains("nameserver 127.0.0.11");
    assert!(
        resolv.stdout.contains("options ndots:0")
            && resolv.stdout.contains("# ExtServers: [host(198.51.100.73)]"),
        "{resolv}"
    );
    host.docker("rename server renamed").ok();
    resolve("renamed").contains("(172.18.0.2)");
    resolve("server").fails(1, "bad address");
    // Addresses have names, too.
    host.docker("run --rm --network net busybox nslookup 172.18.0.2").contains("renamed.net");
    host.docker("rm -f renamed").ok();
    resolve("renamed").fails(1, "bad address");
    // The default bridge has none of it.
    host.docker("run -d --name plain busybox sleep 600").ok();
    host.docker("run --rm busybox ping -c 1 -W 2 plain").fails(1, "bad address");
}

#[test]
fn questions_about_others_are_forwarded() {
    let host = Host::new();
    let server = NameServer::start(&host, "outside.example", Ipv4Addr::new(192, 0, 2, 80));
    host.docker("network create net").ok();
    host.docker("network create --internal closed").ok();
    host.docker("run -d --name box --network net busybox sleep 600").ok();
    let ask = |network: &str, name: &str| {
        host.docker(&["run", "--rm", "--network", network, "busybox", "nslookup", "-type=a", name])
    };
    ask("net", "outside.example").contains("192.0.2.80");
    let unknown = ask("net", "nosuch.example");
    assert!(unknown.code == 1 && unknown.stdout.contains("NXDOMAIN"), "{unknown}");
    assert!(server.questions().iter().any(|q| q == "nosuch.example"));
    ask("net", "box").contains("172.18.0.2");
    assert!(!server.questions().iter().any(|q| q == "box"), "own names stay inside");
    // A network without a way out has no names from there.
    let before = server.questions().len();
    assert_ne!(ask("closed", "outside.example").code, 0);
    assert_eq!(server.questions().len(), before);
}

#[test]
fn connect_and_disconnect() {
    let host = Host::new();
    host.docker("network create --subnet 10.77.0.0/24 net").ok();
    host.docker("run -d --name box busybox sleep 600").ok();
    host.docker("network connect --alias nick --ip 10.77.0.44 net box").ok();
    host.docker("exec box ip -4 addr show eth1").contains("10.77.0.44/24");
    host.docker("run --rm --network net busybox ping -c 1 -W 5 nick").contains("(10.77.0.44)");
    host.docker("network connect net box").fails(1, "endpoint with name box already exists in network net");
    let networks = host.inspect("box")["NetworkSettings"]["Networks"].take();
    assert_eq!(networks.as_object().unwrap().keys().collect::<Vec<_>>(), ["bridge", "net"]);
    host.docker("network disconnect bridge box").ok();
    host.docker("exec box ls /sys/class/net").prints("eth1\nlo");
    host.docker("network disconnect bridge box").fails(1, "is not connected to network");
    host.docker("network disconnect net box").ok();
    // Also while it does not run.
    host.docker("stop -t 0 box").ok();
    host.docker("network connect net box").ok();
    host.docker("start box").ok();
    host.docker("exec box ip -4 addr show eth0").contains("10.77.0.");
    host.docker("network connect nosuch box").fails(1, "network nosuch not found");
    host.docker("network connect net nosuch").fails(1, "No such container: nosuch");
    host.docker("network connect host box").fails(1, "");
    host.docker("network create more").ok();
    // Disconnect by force clears what is left of it.
    host.docker("network disconnect -f net box").ok();
    host.docker("run --rm --network net --network more busybox ls /sys/class/net").prints("eth0\neth1\nlo");
}

#[test]
fn what_an_endpoint_is_told() {
    let host = Host::new();
    host.docker("network create --ipv6 --subnet 10.77.0.0/24 --subnet fd00:77::/64 net").ok();
    let network = host.inspect("net")["Id"].clone();
    let endpoint = || host.inspect("box")["NetworkSettings"]["Networks"]["net"].take();
    let create = "create --name box --hostname inner --network net --network-alias nick --ip 10.77.0.9 --ip6 fd00:77::9 \
                  --mac-address 02:00:00:00:00:09 busybox sleep 600";
    host.docker(create).ok();
    let told = [
        "NetworkID",
        "EndpointID",
        "Gateway",
        "IPAddress",
        "IPPrefixLen",
        "IPv6Gateway",
        "GlobalIPv6Address",
        "GlobalIPv6PrefixLen",
    ];
    let values = |endpoint: &Value| told.map(|field| endpoint[field].clone());
    let (text, number) = (json!(""), json!(0));
    let nothing = [&text, &text, &text, &text, &number, &text, &text, &number];
    assert_eq!(values(&endpoint()).each_ref(), nothing);
    assert_eq!(endpoint()["MacAddress"], "02:00:00:00:00:09");
    host.docker("start box").ok();
    let now = endpoint();
    let id = now["EndpointID"].as_str().unwrap();
    assert!(id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    assert_eq!(
        values(&now),
        [
            network.clone(),
            json!(id),
            json!("10.77.0.1"),
            json!("10.77.0.9"),
            json!(24),
            json!("fd00:77::1"),
            json!("fd00:77::9"),
            json!(64)
        ]
    );
    let short = &host.inspect("box")["Id"].as_str().unwrap()[..12].to_owned();
    assert_eq!(now["DNSNames"], json!(["box", "nick", short, "inner"]));
    assert_eq!(now["MacAddress"], "02:00:00:00:00:09");
    // What is told cannot be asked for.
    let wanted = json!({ "net": { "Gateway": "10.77.0.3", "EndpointID": "ff", "DNSNames": ["mine"], "IPAddress": "10.77.0.8" } });
    let body = json!({ "Image": "busybox", "Cmd": ["sleep", "600"], "HostConfig": { "NetworkMode": "net" },
                       "NetworkingConfig": { "EndpointsConfig": wanted } });
    host.api("POST", "/containers/create?name=other", &body).expect(201);
    host.docker("start other").ok();
    let other = host.inspect("other")["NetworkSettings"]["Networks"]["net"].take();
    assert_eq!((&other["Gateway"], &other["IPAddress"]), (&json!("10.77.0.1"), &json!("10.77.0.2")));
    host.docker("stop -t 0 box").ok();
    let stopped = endpoint();
    let nothing = [&network, &text, &text, &text, &number, &text, &text, &number];
    assert_eq!(values(&stopped).each_ref(), nothing);
    assert_eq!(stopped["DNSNames"], now["DNSNames"]);
    assert_eq!(stopped["MacAddress"], "", "it has none until the next start");
    assert_eq!(host.inspect("box")["NetworkSettings"]["MacAddress"], "");
    host.docker("start box").ok();
    assert_eq!(endpoint()["MacAddress"], "02:00:00:00:00:09");
    // One that is to come has what was asked for.
    host.docker("create --name later busybox").ok();
    let wanted = json!({ "Container": "later", "EndpointConfig": { "MacAddress": "02:00:00:00:00:0a" } });
    host.api("POST", "/networks/net/connect", &wanted).expect(200);
    let later = host.inspect("later");
    let to_come = &later["NetworkSettings"]["Networks"]["net"];
    assert_eq!((&to_come["MacAddress"], &to_come["NetworkID"]), (&json!("02:00:00:00:00:0a"), &text));
    assert_eq!(to_come["DNSNames"], json!(["later", later["Id"].as_str().unwrap()[..12]]));
    // The container's own hardware address is its first network's alone.
    let create = "create --name own --mac-address 02:00:00:00:00:0b busybox sleep 600";
    host.docker(create).ok();
    host.docker("network connect net own").ok();
    host.docker("start own").ok();
    let networks = host.inspect("own")["NetworkSettings"]["Networks"].take();
    assert_eq!(networks["bridge"]["MacAddress"], "02:00:00:00:00:0b");
    assert_ne!(networks["net"]["MacAddress"], "02:00:00:00:00:0b");
}

#[test]
fn places_in_the_networks_of_the_host() {
    let host = Host::new();
    for network in ["host", "none"] {
        host.docker(&format!("run -d --name {network} --network {network} busybox sleep 600")).ok();
        let settings = host.inspect(network)["NetworkSettings"].take();
        let id = |value: &Value| value.as_str().unwrap().to_owned();
        let endpoint = id(&settings["Networks"][network]["EndpointID"]);
        assert_eq!((endpoint.len(), id(&settings["SandboxID"]).len()), (64, 64), "{settings}");
        assert!(!id(&settings["SandboxKey"]).is_empty(), "{settings}");
        let shown = host.docker(&format!("network inspect {network}")).ok().stdout;
        assert!(shown.contains(&endpoint), "{endpoint}: {shown}");
        host.docker(&format!("stop -t 0 {network}")).ok();
        assert_eq!(host.inspect(network)["NetworkSettings"]["Networks"][network]["EndpointID"], "");
        assert_eq!(host.inspect(network)["NetworkSettings"]["SandboxID"], "");
    }
}

#[test]
fn a_network_knows_its_containers_new_names() {
    let host = Host::new();
    host.docker("network create --internal inside").ok();
    for network in ["bridge", "inside"] {
        host.docker(&format!("run -d --name before --expose 80 --network {network} busybox sleep 300")).ok();
        host.docker("rename before after").ok();
        let line =
            format!("network inspect -f '{{{{range .Containers}}}}{{{{.Name}}}}{{{{end}}}}' {network}");
        assert_eq!(host.docker(&line).ok().out(), "after", "{network}");
        // Nothing is published from a network that does not lead out, nor shown as if it could be.
        let ports = host.docker("inspect -f '{{json .NetworkSettings.Ports}}' after").ok();
        assert_eq!(ports.out(), if network == "bridge" { "{\"80/tcp\":null}" } else { "{}" });
        let listed = host.docker("ps --format '{{.Ports}}'").ok();
        assert_eq!(listed.out(), if network == "bridge" { "80/tcp" } else { "" });
        let refused = host.docker(&format!("network rm {network}")).fails(1, "");
        assert!(network == "bridge" || refused.stderr.contains("name:\"after\""), "{}", refused.stderr);
        host.docker("rm -f after").ok();
    }
    host.docker("network rm inside").ok();
}

#[test]
fn traffic_between_containers() {
    check_traffic(&Host::new());
}

/// Who reaches whom.
pub(crate) fn check_traffic(host: &Host) {
    host.docker("network create one").ok();
    host.docker("network create two").ok();
    host.docker("network create --internal closed").ok();
    for (name, network) in [("a1", "one"), ("a2", "one"), ("b1", "two"), ("c1", "closed")] {
        host.docker(&["run", "-d", "--name", name, "--network", network, "busybox", "sleep", "600"]).ok();
    }
    let address = |name: &str, network: &str| {
        host.inspect(name)["NetworkSettings"]["Networks"][network]["IPAddress"].as_str().unwrap().to_owned()
    };
    let reaches =
        |from: &str, to: &str| host.docker(&["exec", from, "ping", "-c", "1", "-W", "1", to]).code == 0;
    assert!(reaches("a1", &address("a2", "one")), "one network");
    assert!(!reaches("a1", &address("b1", "two")), "two networks");
    assert!(!reaches("c1", &address("a1", "one")), "out of an internal one");
    let host_address = HOST_ADDRESS.to_string();
    assert!(reaches("a1", &host_address), "the host");
    assert!(!reaches("c1", &host_address), "the host, from an internal one");
    host.exec(&["busybox", "ping", "-c", "1", "-W", "2", &address("a1", "one")]).ok();
}

#[test]
fn what_leaves_has_the_hosts_address() {
    let host = Host::new();
    // A second interface plays the outside: its peer answers nothing, but shows who asks.
    for line in [
        "ip link add out0 type veth peer name out1",
        "ip addr add 203.0.113.1/24 dev out0",
        "ip link set out0 up",
        "ip link set out1 up",
    ] {
        host.exec(line).ok();
    }
    host.exec("ip neigh add 203.0.113.9 lladdr 02:00:00:00:00:09 dev out0").ok();
    let rules = host.exec("iptables -t nat -S POSTROUTING").ok();
    assert!(rules.stdout.contains("-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE"), "{rules}");
    host.docker("run --rm busybox ping -c 1 -W 1 203.0.113.9");
    let counted = host.exec("iptables -t nat -vnL POSTROUTING").ok();
    let hits = counted
        .stdout
        .lines()
        .find(|l| l.contains("!docker0") && l.contains("172.17.0.0/16"))
        .and_then(|l| l.split_whitespace().next());
    assert_eq!(hits, Some("1"), "{counted}");
    assert_eq!(host.exec("cat /proc/sys/net/ipv4/ip_forward").out(), "1");
    host.exec("iptables -S FORWARD").contains("-P FORWARD DROP").contains("-A FORWARD -j DOCKER-USER");
    host.exec("ip link del out0").ok();
}

#[test]
fn networks_of_the_api() {
    let host = Host::new();
    let create = |body: Value| host.api("POST", "/v1.51/networks/create", &body);
    let made = create(json!({"Name": "net", "Options": {"com.docker.network.bridge.name": "mybridge"}, "Labels": {"a": "b"}})).expect(201).json();
    assert_eq!((made["Id"].as_str().map(str::len), &made["Warning"]), (Some(64), &json!("")));
    create(json!({"Name": "net"})).expect(409);
    host.exec("ip link show mybridge").ok();
    host.api("GET", "/v1.51/networks/nosuch", &Value::Null).expect(404);
    host.docker("create --name box --network net busybox").ok();
    host.docker("run -d --name on --network net busybox sleep 600").ok();
    host.api("DELETE", "/v1.51/networks/net", &Value::Null).expect(403);
    host.docker("rm -f on").ok();
    // A container that does not run does not hold it.
    host.api("DELETE", "/v1.51/networks/net", &Value::Null).expect(204);
    host.docker("start box").fails(1, "network net not found");
}

#[test]
fn lists_and_prune() {
    let host = Host::new();
    host.docker("network create --label kind=x one").ok();
    host.docker("network create two").ok();
    host.docker("run -d --name box --network two busybox sleep 600").ok();
    for (filter, expected) in [
        ("name=on", "none one"),
        ("label=kind", "one"),
        ("driver=host", "host"),
        ("type=custom", "one two"),
        ("type=builtin", "bridge host none"),
        ("dangling=true", "one two"),
        ("scope=local", "bridge host none one two"),
    ] {
        let got = host.docker(&["network", "ls", "--format", "{{.Name}}", "--filter", filter]).ok();
        assert_eq!(got.stdout.split_whitespace().collect::<Vec<_>>().join(" "), expected, "{filter}");
    }
    host.docker("network ls --filter nosuch=1").fails(1, "invalid filter 'nosuch'");
    host.docker("network prune -f").contains("one");
    host.docker("network inspect one").fails(1, "not found");
    host.docker("network inspect two").ok();
}

#[test]
fn what_lists_and_prunes_choose() {
    let host = Host::new();
    let id = host.docker("network create --label kind=x --label more one").ok().out().to_owned();
    host.docker("network create --label kind=y two").ok();
    host.docker("network create --internal three").ok();
    let short = format!("id={}", &id[..8]);
    for (filters, expected) in [
        (vec!["label=kind=x"], "one"),
        (vec!["label=kind", "label=more"], "one"),
        (vec!["label=nosuch"], ""),
        (vec![short.as_str()], "one"),
        (vec!["name=thr", "name=two"], "three two"),
        (vec!["driver=bridge", "label=kind"], "one two"),
        (vec!["dangling=false"], "bridge host none"),
    ] {
        let mut line = vec!["network", "ls", "--format", "{{.Name}}"];
        filters.iter().for_each(|filter| line.extend(["--filter", filter]));
        let got = host.docker(line.as_slice()).ok();
        assert_eq!(got.stdout.split_whitespace().collect::<Vec<_>>().join(" "), expected, "{filters:?}");
    }
    host.docker("network ls -q --no-trunc --filter label=more").prints(&id);
    let prune = |filter: &str| {
        let done = host.docker(&["network", "prune", "-f", "--filter", filter]).ok();
        done.stdout.lines().skip(1).filter(|l| !l.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(prune("until=2020-01-01T00:00:00"), [""; 0]);
    assert_eq!(prune("until=24h"), [""; 0]);
    assert_eq!(prune("label=kind=y"), ["two"]);
    assert_eq!(prune("label!=kind"), ["three"]);
    assert_eq!(prune("until=0s"), ["one"]);
    let seen = events(&host, "{{.Action}} {{.Actor.Attributes.name}}", &["type=network"]);
    assert!(
        seen.contains("destroy two") && seen.lines().filter(|l| l.starts_with("prune")).count() == 5,
        "{seen}"
    );
}

#[test]
fn events_of_connections() {
    let host = Host::new();
    host.docker("network create net").ok();
    host.docker("run -d --name box busybox sleep 600").ok();
    host.docker("network connect net box").ok();
    host.docker("network disconnect net box").ok();
    host.docker("stop -t 0 box").ok();
    let id = host.inspect("box")["Id"].as_str().unwrap().to_owned();
    let format =
        "{{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.type}} {{.Actor.Attributes.container}}";
    assert_eq!(
        events(&host, format, &["type=network"]),
        format!(
            "create net bridge <no value>\nconnect bridge bridge {id}\nconnect net bridge {id}\n\
             disconnect net bridge {id}\ndisconnect bridge bridge {id}"
        )
    );
}
