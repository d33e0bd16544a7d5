//! Links: of the default bridge by variables and /etc/hosts, of other networks by names.

use serde_json::json;
use wherry_tests::engine::Binary;
use wherry_tests::{Host, poll};

#[test]
fn of_the_default_bridge() {
    let host = Host::new();
    host.docker("run -d --name db --hostname dbhost -e PASS=x -e HOME=/db --expose 5432 --expose 53/udp busybox sleep 600")
        .ok();
    let seen = host.docker(
        "run --name user --link db:store busybox sh -c 'env | grep ^STORE | sort; grep store /etc/hosts'",
    );
    seen.prints(
        "STORE_ENV_PASS=x\nSTORE_NAME=/user/store\nSTORE_PORT=tcp://172.17.0.2:5432\nSTORE_PORT_53_UDP=udp://172.17.0.2:53\n\
         STORE_PORT_53_UDP_ADDR=172.17.0.2\nSTORE_PORT_53_UDP_PORT=53\nSTORE_PORT_53_UDP_PROTO=udp\n\
         STORE_PORT_5432_TCP=tcp://172.17.0.2:5432\nSTORE_PORT_5432_TCP_ADDR=172.17.0.2\nSTORE_PORT_5432_TCP_PORT=5432\n\
         STORE_PORT_5432_TCP_PROTO=tcp\n172.17.0.2\tstore dbhost db",
    );
    assert_eq!(host.inspect("user")["HostConfig"]["Links"], json!(["/db:/user/store"]));
    host.docker("run --rm --link db busybox sh -c 'env | grep ^DB_PORT=; tail -2 /etc/hosts | head -1'")
        .prints("DB_PORT=tcp://172.17.0.2:5432\n172.17.0.2\tdb dbhost");
    host.docker("run --rm --link db:store busybox ping -c 1 -W 3 store").ok();
    // Neighbouring ports are told of as a range, too.
    host.docker("run -d --name range --expose 8000-8002 --expose 8003/udp --expose 9000 busybox sleep 600")
        .ok();
    host.docker("run --rm --link range:r busybox sh -c 'env | grep -E \"^R_.*(START|END)=\" | sort'").prints(
        "R_PORT_8000_TCP_END=tcp://172.17.0.3:8002\nR_PORT_8000_TCP_PORT_END=8002\n\
         R_PORT_8000_TCP_PORT_START=8000\nR_PORT_8000_TCP_START=tcp://172.17.0.3:8000",
    );
    host.docker("rm -f range").ok();
    // A new address is written into the files of those who are linked.
    host.docker("run -d --name watcher --link db:store busybox sleep 600").ok();
    host.docker("stop -t 0 db").ok();
    host.docker("run -d --name between busybox sleep 600").ok();
    host.docker("start db").ok();
    host.docker("exec watcher grep store /etc/hosts").prints("172.17.0.4\tstore dbhost db");
    // So is a new name, in what comes later.
    host.docker("rename db base").ok();
    assert_eq!(host.inspect("watcher")["HostConfig"]["Links"], json!(["/base:/watcher/store"]));
    host.docker("restart -t 0 watcher").ok();
    host.docker("exec watcher grep store /etc/hosts").prints("172.17.0.4\tstore dbhost base");
    host.docker("run --rm --link nosuch:x busybox true").fails(125, "could not get container for nosuch");
}

#[test]
fn of_other_networks() {
    let host = Host::new();
    host.docker("network create net").ok();
    host.docker("run -d --name db --network net --expose 80 busybox sleep 600").ok();
    host.docker("run -d --name user --network net --link db:store busybox sleep 600").ok();
    host.docker("exec user ping -c 1 -W 3 store").contains("(172.18.0.2)");
    host.docker("exec user ping -c 1 -W 3 store.net").contains("(172.18.0.2)");
    let variables = host.docker("exec user env").ok().stdout;
    assert!(!variables.contains("STORE"), "{variables}");
    host.docker("run --rm --network net busybox ping -c 1 -W 3 store").fails(1, "bad address");
    // By the endpoint's own setting, when it is connected.
    host.docker("run -d --name late busybox sleep 600").ok();
    host.docker("network connect --link db:depot net late").ok();
    host.docker("exec late ping -c 1 -W 3 depot").contains("(172.18.0.2)");
    assert_eq!(host.inspect("late")["NetworkSettings"]["Networks"]["net"]["Links"], json!(["db:depot"]));
    host.docker("run --rm --network net busybox ping -c 1 -W 3 depot").fails(1, "bad address");
}

#[test]
fn open_ports_where_containers_do_not_talk() {
    let host = Host::with_arguments(&["--icc=false"]);
    // From, to, protocol, which end, its port.
    let rules = || {
        let all = host.exec("iptables -S DOCKER").ok().stdout;
        let opened = all.lines().filter(|line| line.contains("-i docker0 -o docker0 -p"));
        let mut opened = opened
            .map(|line| {
                line.replace("-A DOCKER ", "").replace("/32", "").replace("-i docker0 -o docker0 ", "")
            })
            .collect::<Vec<_>>();
        opened.sort();
        opened
    };
    let there_and_back = |from: &str, to: &str| {
        let mut all = Vec::new();
        for (protocol, port) in [("tcp", 5432), ("tcp", 8000), ("udp", 53), ("sctp", 9)] {
            all.push(format!("-s {from} -d {to} -p {protocol} -m {protocol} --dport {port} -j ACCEPT"));
            all.push(format!("-s {to} -d {from} -p {protocol} -m {protocol} --sport {port} -j ACCEPT"));
        }
        all.sort();
        all
    };
    let nothing: [String; 0] = [];
    host.docker(
        "run -d --name db --expose 5432 --expose 8000 --expose 53/udp --expose 9/sctp busybox sleep 600",
    )
    .ok();
    assert_eq!(rules(), nothing);
    check_what_links_open(&host);
    // While the receiver runs, and as long as it is in the network.
    host.docker("run -d --name user --link db:store --link db:again busybox sleep 600").ok();
    assert_eq!(rules(), there_and_back("172.17.0.3", "172.17.0.2"));
    host.docker("network disconnect bridge user").ok();
    poll("its rules to go", 10, || rules() == nothing);
    host.docker("network connect bridge user").ok();
    assert_eq!(rules(), there_and_back("172.17.0.3", "172.17.0.2"));
    host.docker("stop -t 0 user").ok();
    poll("its rules to go", 10, || rules() == nothing);
    host.docker("start user").ok();
    assert_eq!(rules(), there_and_back("172.17.0.3", "172.17.0.2"));
    if Binary::from_environment().is_reference() {
        // There rules of a source that goes stay behind, and one that comes with another address has none.
        return host.discard();
    }
    host.docker("stop -t 0 db").ok();
    poll("the source's rules to go", 10, || rules() == nothing);
    host.docker("run -d --name between busybox sleep 600").ok();
    host.docker("start db").ok();
    assert_eq!(rules(), there_and_back("172.17.0.3", "172.17.0.4"));
    host.docker("rm -f db").ok();
    poll("the source's rules to go", 10, || rules() == nothing);
}

/// Through a link, and only through it, a receiver comes to what its source exposes. The source, `db`, exposes 8000.
pub(crate) fn check_what_links_open(host: &Host) {
    host.docker(
        "exec db sh -c 'echo found >/tmp/index.html; for p in 8000 8001; do httpd -p $p -h /tmp; done'",
    )
    .ok();
    host.docker("run -d --name user --link db:store busybox sleep 600").ok();
    host.docker("run -d --name other busybox sleep 600").ok();
    let address = host.inspect("db")["NetworkSettings"]["IPAddress"].as_str().unwrap().to_owned();
    let found = |container: &str, port: u16| {
        let line = format!("exec {container} timeout 2 wget -q -O- http://{address}:{port}");
        host.docker(&line).out() == "found"
    };
    poll("the server", 10, || found("user", 8000));
    assert!(!found("user", 8001), "it is not exposed");
    assert!(!found("other", 8000), "it is not linked");
    assert!(!host.docker("exec user ping -c 1 -W 1 store").stdout.contains("bytes from"));
    host.docker("rm --link user/store").ok();
    assert!(!found("user", 8000), "the link is gone");
    host.docker("rm -f user other").ok();
}
