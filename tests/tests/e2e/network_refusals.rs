//! What is refused of networks, request by request: statuses and texts are dockerd's.

use serde_json::{Value, json};
use wherry_tests::Host;
use wherry_tests::engine::Binary;

/// Sends a request to `/networks`; the status, and the error's text (or nothing) with `ID` for whatever is one.
fn ask(host: &Host, method: &str, path: &str, body: &Value) -> (u16, String) {
    let response = host.api(method, &format!("/v1.51/networks/{path}"), body);
    let message = serde_json::from_str::<Value>(&response.text()).unwrap_or_default();
    let message = message["message"].as_str().unwrap_or_default();
    let words = message.split(' ').map(|word| {
        let id = word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit());
        if id { "ID" } else { word }
    });
    (response.status, words.collect::<Vec<_>>().join(" "))
}

const HOST_MODE: &str =
    "cannot connect container to host network - container must be created in host network mode";
const SHARED: &str = "container sharing network namespace with another container or host cannot be connected to any other network";
const NONE: &str =
    "container cannot be connected to multiple networks with one of the networks in private (none) mode";

#[test]
fn connections() {
    let host = Host::new();
    host.docker("network create net").ok();
    for line in [
        "run -d --name on busybox sleep 600",
        "create --name off busybox",
        "run -d --name hosts --network host busybox sleep 600",
        "run -d --name alone --network none busybox sleep 600",
        "run -d --name shares --network container:on busybox sleep 600",
        "create --name idle --network none busybox",
    ] {
        host.docker(line).ok();
    }
    let table: &[(&str, Value, u16, &str)] = &[
        ("net/disconnect", json!({"Container": "on"}), 500, "container ID is not connected to network net"),
        (
            "net/disconnect",
            json!({"Container": "on", "Force": true}),
            500,
            "container ID is not connected to network net",
        ),
        (
            "net/disconnect",
            json!({"Container": "off"}),
            500,
            "container ID is not connected to the network net",
        ),
        (
            "nosuch/disconnect",
            json!({"Container": "off"}),
            500,
            "container ID is not connected to the network nosuch",
        ),
        ("nosuch/disconnect", json!({"Container": "on"}), 404, "network nosuch not found"),
        ("net/disconnect", json!({"Container": "nosuch"}), 404, "No such container: nosuch"),
        ("net/disconnect", json!({"Container": "nosuch", "Force": true}), 404, "endpoint nosuch not found"),
        ("net/disconnect", json!({}), 400, "invalid name or ID supplied: \"\""),
        (
            "bridge/disconnect",
            json!({"Container": "shares"}),
            500,
            "container ID is not connected to network bridge",
        ),
        ("host/disconnect", json!({"Container": "on"}), 500, "container ID is not connected to network host"),
        (
            "host/disconnect",
            json!({"Container": "hosts"}),
            400,
            "cannot disconnect container from host network - container was created in host network mode",
        ),
        ("net/connect", json!({}), 400, "invalid name or ID supplied: \"\""),
        ("net/connect", json!({"Container": "nosuch"}), 404, "No such container: nosuch"),
        ("nosuch/connect", json!({"Container": "on"}), 404, "network nosuch not found"),
        ("net/connect", json!({"Container": "alone"}), 400, NONE),
        ("net/connect", json!({"Container": "idle"}), 400, NONE),
        ("none/connect", json!({"Container": "on"}), 400, NONE),
        ("none/connect", json!({"Container": "off"}), 400, NONE),
        ("net/connect", json!({"Container": "hosts"}), 400, SHARED),
        ("net/connect", json!({"Container": "shares"}), 400, SHARED),
        ("host/connect", json!({"Container": "on"}), 400, HOST_MODE),
        ("host/connect", json!({"Container": "off"}), 400, HOST_MODE),
        (
            "bridge/connect",
            json!({"Container": "on"}),
            403,
            "endpoint with name on already exists in network bridge",
        ),
        (
            "net/connect",
            json!({"Container": "on", "EndpointConfig": {"IPAMConfig": {"IPv4Address": "bogus"}}}),
            400,
            "invalid endpoint settings:\n* invalid IPv4 address: bogus\n* user specified IP address is supported only when connecting to networks with user configured subnets",
        ),
        // What changes nothing, and what leads nowhere.
        ("bridge/connect", json!({"Container": "off"}), 200, ""),
        (
            "none/connect",
            json!({"Container": "alone"}),
            403,
            "endpoint with name alone already exists in network none",
        ),
        (
            "net/connect",
            json!({"Container": "on", "EndpointConfig": {"Links": ["nosuch:x"], "Aliases": ["an alias"]}}),
            200,
            "",
        ),
        ("net/disconnect", json!({"Container": "on"}), 200, ""),
        // Out of none, and into a network.
        ("none/disconnect", json!({"Container": "alone"}), 200, ""),
        ("none/connect", json!({"Container": "alone"}), 200, ""),
        ("net/connect", json!({"Container": "alone"}), 400, NONE),
        ("none/disconnect", json!({"Container": "alone"}), 200, ""),
        ("net/connect", json!({"Container": "alone"}), 200, ""),
        ("none/connect", json!({"Container": "alone"}), 400, NONE),
    ];
    for (path, body, status, text) in table {
        assert_eq!(ask(&host, "POST", path, body), (*status, (*text).to_owned()), "{path} {body}");
    }
    host.docker("exec alone ip addr show eth0").contains("172.18.0.");
    // One that has been taken out of all stays so.
    host.docker("network disconnect bridge on").ok();
    host.docker("restart -t 0 on").ok();
    host.docker("exec on ls /sys/class/net").prints("lo");
}

#[test]
fn networks() {
    let host = Host::new();
    let create = |body: Value| {
        let mut whole = json!({"Name": "x1"});
        whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        let answer = ask(&host, "POST", "create", &whole);
        if answer.0 == 201 {
            let shown = host.inspect("x1");
            host.docker("network rm x1").ok();
            return (201, json!([shown["EnableIPv4"], shown["EnableIPv6"], shown["Options"]]).to_string());
        }
        answer
    };
    let bridge = |name: &str| json!({"Options": {"com.docker.network.bridge.name": name}});
    let (v4, v6) = ("com.docker.network.enable_ipv4", "com.docker.network.enable_ipv6");
    let config = |config: Value| json!({"IPAM": {"Config": config}});
    for (body, status, text) in [
        (json!({"Name": " "}), 400, "invalid name: name is empty"),
        (json!({"Name": "a b"}), 201, ""),
        (
            json!({"Options": {v6: "bogus"}}),
            400,
            "driver-opt \"com.docker.network.enable_ipv6\" is not a valid bool",
        ),
        (
            json!({"Driver": "macvlan", "Options": {v4: "2"}}),
            400,
            "driver-opt \"com.docker.network.enable_ipv4\" is not a valid bool",
        ),
        (json!({"Options": {v4: "false"}}), 400, "IPv4 or IPv6 must be enabled"),
        (json!({"Options": {v6: "1"}}), 201, "[true,true,{\"com.docker.network.enable_ipv6\":\"1\"}]"),
        // The request's own word counts.
        (json!({"EnableIPv6": false, "Options": {v6: "true"}}), 201, "[true,false,{}]"),
        (json!({"EnableIPv4": true, "Options": {v4: "bogus"}}), 201, "[true,false,{}]"),
        (
            json!({"EnableIPv6": true, "Options": {v4: "0"}}),
            201,
            "[false,true,{\"com.docker.network.enable_ipv4\":\"0\"}]",
        ),
        (
            json!({"Internal": true, "IPAM": {"Config": [{"Subnet": "10.80.0.0/24", "AuxiliaryAddresses": {"DefaultGatewayIPv4": "10.80.0.9"}}]}}),
            400,
            "no gateway can be set on an internal bridge network",
        ),
        (
            config(json!([{"Subnet": ""}])),
            400,
            "invalid network config:\ninvalid subnet : invalid CIDR block notation",
        ),
        (
            config(json!([{"Gateway": "10.1.1.1"}])),
            400,
            "invalid network config:\ninvalid subnet : invalid CIDR block notation",
        ),
        (
            config(json!([{"Subnet": "10.80.0.0/24"}, {"Subnet": "10.80.0.0/24"}])),
            403,
            "invalid pool request: Pool overlaps with other one on this address space",
        ),
        (
            config(json!([{"Subnet": "0.0.0.0/0"}])),
            403,
            "invalid pool request: Pool overlaps with other one on this address space",
        ),
        (bridge("a b"), 500, "invalid argument"),
        (bridge("a/b"), 500, "invalid argument"),
        (bridge("a:b"), 500, "invalid argument"),
        (bridge("all"), 500, "invalid argument"),
        (bridge("."), 500, "invalid argument"),
        (bridge("lo"), 500, "existing interface lo is not a bridge"),
    ] {
        if text.is_empty() {
            assert_eq!(ask(&host, "POST", "create", &body).0, status, "{body}");
            host.docker(&["network", "rm", body["Name"].as_str().unwrap()]).ok();
            continue;
        }
        assert_eq!(create(body.clone()), (status, text.to_owned()), "{body}");
    }
    if !Binary::from_environment().is_reference() {
        // There a number takes the place of %d, and the bridge stays; a plus at the end stands in rules for all interfaces that begin so.
        for name in ["br%d", "br+", "+"] {
            assert_eq!(create(bridge(name)), (500, format!("invalid bridge name {name:?}")));
        }
        let bridges = host.exec("ip -o link show type bridge").ok().stdout;
        assert_eq!(bridges.lines().count(), 1, "nothing is left of them: {bridges}");
    }
}

#[test]
fn lists_and_looks() {
    let host = Host::new();
    host.docker("network create net").ok();
    let filters =
        |text: &str| format!("?filters={}", text.replace('"', "%22").replace('{', "%7B").replace('}', "%7D"));
    let plain = ask(&host, "GET", "net", &Value::Null);
    assert_eq!(plain, (200, String::new()));
    let body = |path: &str| host.api("GET", &format!("/v1.51/networks/{path}"), &Value::Null).text();
    assert_eq!(body("net?verbose=true"), body("net"), "only networks of swarms have more to tell");
    host.docker("network inspect --verbose net").ok();
    for (path, status, text) in [
        (
            "net?verbose=bogus".to_owned(),
            400,
            "invalid value for verbose: bogus: strconv.ParseBool: parsing \"bogus\": invalid syntax",
        ),
        ("net?scope=swarm".to_owned(), 404, "network net not found"),
        (filters("bogus"), 400, "invalid filter"),
        (
            filters("{\"dangling\":[\"x\"]}"),
            400,
            "invalid value for filter 'dangling', must be \"true\" (or \"1\"), or \"false\" (or \"0\")",
        ),
        (filters("{\"type\":[\"x\"]}"), 500, "invalid filter: 'type'='x'"),
        (filters("{\"driver\":[\"x\"]}"), 200, ""),
        (filters("{\"nosuch\":[\"x\"]}"), 400, "invalid filter 'nosuch'"),
    ] {
        let answer = ask(&host, "GET", path.trim_start_matches('/'), &Value::Null);
        assert_eq!(answer, (status, text.to_owned()), "{path}");
    }
    let pruned = ask(&host, "POST", &format!("prune{}", filters("{\"until\":[\"bogus\"]}")), &Value::Null);
    assert_eq!(pruned, (400, "failed to parse value as time or duration: \"bogus\"".to_owned()));
}

#[test]
fn interfaces_of_endpoints() {
    let host = Host::new();
    host.docker("network create net").ok();
    host.docker("network create --internal inside").ok();
    let run = |network: &str, name: &str| {
        let option = format!("name={network},driver-opt=com.docker.network.endpoint.ifname={name}");
        host.docker(&["run", "--rm", "--network", &option, "busybox", "ls", "/sys/class/net"])
    };
    // The kernel puts a number in this place.
    for network in ["net", "inside"] {
        run(network, "eth%d").prints("eth0\nlo");
        run(network, "%d").prints("0\nlo");
        run(network, "-x").prints("-x\nlo");
        for name in ["eth%d%d", "100%", "all", "default", "."] {
            run(network, name).fails(125, "invalid argument");
        }
    }
    host.docker("network create -o com.docker.network.container_iface_prefix=foo%d odd").ok();
    host.docker("run --rm --network odd busybox ls /sys/class/net").prints("foo00\nlo");
    host.docker("network rm odd").ok();
    host.docker("network create -o com.docker.network.container_iface_prefix=waytoolongprefix odd").ok();
    host.docker("run --rm --network odd busybox true").fails(125, "numerical result out of range");
}

/// A container's own address goes to the network that its mode names, whatever else it is connected to.
#[test]
fn a_hardware_address_without_its_network() {
    let host = Host::new();
    let id = host.docker("network create zed").ok().out().to_owned();
    host.docker("network create alpha").ok();
    let create = |mode: &str, endpoints: Value, status: u16| {
        let body = json!({"Image": "busybox", "MacAddress": "02:42:ac:11:00:99", "HostConfig": {"NetworkMode": mode},
                          "NetworkingConfig": {"EndpointsConfig": endpoints}});
        host.api("POST", "/v1.51/containers/create?name=box", &body).expect(status).json()
    };
    let both = json!({"alpha": {}, "zed": {}});
    for (mode, endpoints) in [
        (id.as_str(), both.clone()),
        ("zed", json!({"alpha": {}})),
        ("zed", json!({"default": {}})),
        ("bridge", both.clone()),
    ] {
        assert_eq!(
            create(mode, endpoints, 400)["message"],
            "unable to migrate container-wide MAC address to a specific network: HostConfig.NetworkMode must match the \
             identity of a network in NetworkSettings.Networks"
        );
    }
    create("zed", both, 201);
    let networks = &host.inspect("box")["NetworkSettings"]["Networks"];
    assert_eq!(networks["zed"]["MacAddress"], "02:42:ac:11:00:99");
    assert_eq!(networks["alpha"]["MacAddress"], "");
}
