//! Beside firewalld, which refuses whatever goes through a bridge that it does not know.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use wherry_netd::protocol::{FirewallBackend, Protocol, Settings};

use crate::ports::outside;
use crate::support::*;

/// A program that ends with the test.
struct Server(Child);

impl Server {
    fn start(program: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap_or_else(|e| panic!("{program}: {e}; `make setup` installs it")))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A bus and a firewalld, with a configuration of their own.
fn firewalld() -> [Server; 2] {
    sh(
        "mount -t tmpfs tmpfs /etc/firewalld; mkdir -p /etc/firewalld/zones /etc/firewalld/policies /run/dbus /run/firewalld",
    );
    let bus = Server::start("dbus-daemon", &["--system", "--nofork", "--nopidfile"]);
    eventually("the bus", || Path::new("/run/dbus/system_bus_socket").exists());
    let firewalld = Server::start("firewalld", &["--nofork", "--nopid"]);
    eventually("firewalld", || out("firewall-cmd --state 2>/dev/null") == "running\n");
    [firewalld, bus]
}

fn interfaces() -> Vec<String> {
    let list = out("firewall-cmd --zone=docker --list-interfaces 2>/dev/null");
    let mut names = list.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    names.sort();
    names
}

fn bridges_are_in_its_zone(test: &str, backend: FirewallBackend) {
    alone(test, |host| check_zone(host, backend));
}

fn check_zone(host: &Host, backend: FirewallBackend) {
    let settings = Settings { firewall: backend, ..settings() };
    let web = host.publisher("web", &[port(Protocol::Tcp, None, 8080, 80)]);
    serve(&web.netns, 80, "web");
    let outside = outside();
    let server = inside(outside, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, 9000)).unwrap());
    std::thread::spawn(move || while server.accept().is_ok() {});
    let leaves = || {
        let to = (Ipv4Addr::new(198, 51, 101, 2), 9000).into();
        inside(&web.netns, || TcpStream::connect_timeout(&to, Duration::from_secs(2)).is_ok())
    };
    assert!(leaves());
    assert_eq!(host.client.firewalld().unwrap(), None);
    let [firewalld, _bus] = firewalld();
    assert!(!leaves(), "firewalld refuses what it does not know");
    if backend == FirewallBackend::Nftables {
        // An engine that has ended before the reload: they are in the lasting configuration, and nowhere else.
        sh(
            "firewall-cmd --permanent --new-zone=docker; firewall-cmd --permanent --zone=docker --set-target=ACCEPT",
        );
        sh("firewall-cmd --permanent --new-policy=docker-forwarding");
        sh("firewall-cmd --permanent --policy=docker-forwarding --add-ingress-zone=ANY");
        sh("firewall-cmd --permanent --policy=docker-forwarding --add-egress-zone=docker");
        sh("firewall-cmd --permanent --policy=docker-forwarding --set-target=ACCEPT");
        assert!(!out("firewall-cmd --get-zones").contains("docker"));
    }
    host.client.configure(settings.clone()).unwrap();
    let works = || {
        assert!(leaves());
        assert_eq!(inside(outside, || greeting(HOST_IP, 8080)).unwrap(), "web 198.51.101.2");
        assert!(greeting(Ipv4Addr::LOCALHOST, 8080).unwrap().starts_with("web"));
        assert!(inside(outside, || greeting(ip(&web), 80)).is_err(), "not by its own address");
    };
    assert_eq!(interfaces(), ["docker0"]);
    assert!(host.client.firewalld().unwrap().is_some(), "it runs");
    works();
    let network = host.network("net");
    assert_eq!(interfaces(), ["br-6e6574000000", "docker0"]);
    sh("firewall-cmd --reload; firewall-cmd --zone=docker --remove-interface=docker0; firewall-cmd --reload");
    eventually("the bridges, after reloads", || interfaces().len() == 2);
    assert!(host.client.firewalld().unwrap().unwrap().reloaded_s.is_some());
    works();
    host.client.remove_network(&network.spec.id).unwrap();
    assert_eq!(interfaces(), ["docker0"]);
    // Another firewalld: it knows the zone, but nothing of what is in it.
    drop(firewalld);
    eventually("its end is noticed", || host.client.firewalld().unwrap().is_none());
    let _firewalld = Server::start("firewalld", &["--nofork", "--nopid"]);
    eventually("the bridge, in another firewalld", || interfaces() == ["docker0"]);
    works();
}

#[test]
fn bridges_are_in_its_zone_with_iptables() {
    bridges_are_in_its_zone("firewalld::bridges_are_in_its_zone_with_iptables", FirewallBackend::Iptables);
}

#[test]
fn bridges_are_in_its_zone_with_nftables() {
    bridges_are_in_its_zone("firewalld::bridges_are_in_its_zone_with_nftables", FirewallBackend::Nftables);
}

/// The variant of iptables of which the kernel tells nobody.
#[test]
fn bridges_are_in_its_zone_with_legacy_iptables() {
    let test = "firewalld::bridges_are_in_its_zone_with_legacy_iptables";
    let folder = tempfile::tempdir().unwrap();
    for program in ["iptables", "ip6tables"] {
        for end in ["", "-save", "-restore"] {
            let legacy = format!("/usr/sbin/{program}-legacy{end}");
            std::os::unix::fs::symlink(legacy, folder.path().join(format!("{program}{end}"))).unwrap();
        }
    }
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    alone_with(test, "PATH", &path, |host| {
        assert!(out("iptables --version").contains("legacy"));
        assert!(out("iptables-legacy-save").contains("DOCKER-USER"), "it is the one that is used");
        check_zone(host, FirewallBackend::Iptables);
    });
}
