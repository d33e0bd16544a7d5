//! netd is killed and started again.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, Ipv6Addr};

use wherry_netd::protocol::Protocol;

use crate::dns::{A, ask};
use crate::support::*;

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    // It is nobody's child here: gone when it cannot be signalled.
    eventually("netd is dead", || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
        stat.map_or(true, |s| s.contains(") Z "))
    });
}

#[test]
fn killed_under_an_open_connection_and_started_again() {
    alone("restart::killed_under_an_open_connection_and_started_again", |host| {
        let net = host.network("net");
        let mut spec = sandbox_spec("web", &[&net]);
        spec.endpoints[0].ports =
            vec![port(Protocol::Tcp, None, 8080, 80), port(Protocol::Tcp, Some("127.0.0.1"), 0, 80)];
        let web = host.client.create_sandbox(spec).unwrap();
        serve(&web.netns, 80, "web");
        let peer = host.sandbox("peer", &[&net]);
        let mut connection = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, 8080)).unwrap();
        let mut lines = BufReader::new(connection.try_clone().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "web 172.18.0.1");
        let rules = out("iptables-save | grep -v '^#' | sed 's/\\[.*//'");
        let before = host.client.sandboxes().unwrap().len();
        let networks = host.client.networks().unwrap();
        let pid = host.netd_pid();
        kill(pid);
        writeln!(connection, "still here").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "still here");
        assert_eq!(greeting(HOST_IP, 8080).unwrap(), "web 198.51.100.73", "new ones come through, too");
        assert_eq!(greeting(Ipv4Addr::LOCALHOST, 8080).unwrap(), "web 172.18.0.1");
        // The client notices and starts another one.
        assert_ne!(host.netd_pid(), pid);
        assert_eq!(host.client.sandboxes().unwrap().len(), before);
        assert_eq!(host.client.networks().unwrap(), networks, "all as it was, also the endpoints");
        assert_eq!(out("iptables-save | grep -v '^#' | sed 's/\\[.*//'"), rules);
        writeln!(connection, "and still").unwrap();
        assert_eq!(lines.next().unwrap().unwrap(), "and still");
        assert_eq!(ask(&peer.netns, "web", A).unwrap().records, [ip(&web).octets().to_vec()]);
        assert_eq!(greeting(Ipv6Addr::LOCALHOST, 8080).unwrap(), "web 172.18.0.1", "the relay is back");
        assert!(std::net::TcpListener::bind((HOST_IP, 8080)).is_err(), "the port is held");
        let next = host.sandbox("next", &[&net]);
        assert_eq!(ip(&next).to_string(), "172.18.0.4", "no address is given out twice");
        for sandbox in [&web, &peer, &next] {
            host.client.release_sandbox(&sandbox.id).unwrap();
        }
        host.client.remove_network(&net.spec.id).unwrap();
        eventually("namespaces are gone", || host.namespaces().is_empty());
        assert_eq!(out("iptables-save | grep -cE 'br-|8080'"), "0\n");
    });
}

#[test]
fn what_was_half_made_is_removed() {
    alone("restart::what_was_half_made_is_removed", |host| {
        let bridge = host.default_bridge();
        let kept = host.sandbox("kept", &[&bridge]);
        let lost = host.sandbox("lost", &[&bridge]);
        host.publisher("published", &[port(Protocol::Tcp, None, 8080, 80)]);
        kill(host.netd_pid());
        // As if killed before the file was written; a file of before a reboot; an unreadable one; a port that is taken now.
        let folder = host.dir.path().join("exec/netd/sandboxes");
        std::fs::remove_file(folder.join(format!("{}.json", lost.id))).unwrap();
        std::fs::write(folder.join("broken.json"), "{").unwrap();
        let mut gone = std::fs::read_to_string(folder.join(format!("{}.json", kept.id))).unwrap();
        gone = gone.replace(&kept.id, &id("gone")).replace(kept.netns.to_str().unwrap(), "/nosuch");
        std::fs::write(folder.join(format!("{}.json", id("gone"))), gone).unwrap();
        sh("iptables -t nat -A DOCKER -p tcp --dport 99 -j DNAT --to-destination 172.17.0.99:80");
        let mut squatter = None;
        eventually("the killed netd's port is free", || {
            squatter = std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 8080)).ok();
            squatter.is_some()
        });
        let left: Vec<_> = host.client.sandboxes().unwrap().into_iter().map(|s| s.id).collect();
        assert_eq!(left.len(), 2, "{left:?}");
        eventually("the half-made namespace is gone", || host.namespaces().len() == 2);
        let link = &lost.endpoints[0].host_interface;
        eventually("so is its link", || !sh("ip -o link").contains(link.as_str()));
        assert!(sh("ip -o link").contains(kept.endpoints[0].host_interface.as_str()));
        assert!(!out("iptables-save").contains("172.17.0.99"), "a stale rule of ours is gone");
        assert_eq!(ip(&host.sandbox("new", &[&bridge])), ip(&lost));
        drop(squatter);
    });
}

/// Ends the workers however the test goes.
struct Stop<'a>(&'a std::sync::atomic::AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::SeqCst);
    }
}

#[test]
fn killed_at_any_moment_nothing_is_left_half() {
    alone("restart::killed_at_any_moment_nothing_is_left_half", |host| {
        let net = host.network("net");
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _stop = Stop(&stop);
            for worker in 0..3 {
                let (client, net, stop) = (&host.client, &net, &stop);
                scope.spawn(move || {
                    let mut spec = sandbox_spec(&format!("w{worker}"), &[net]);
                    spec.endpoints[0].ports = vec![port(Protocol::Tcp, None, 0, 80)];
                    while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                        // A connection that breaks is what is tested.
                        let _ = client.create_sandbox(spec.clone());
                        let _ = client.release_sandbox(&spec.id);
                    }
                });
            }
            let mut wait = 1;
            for _ in 0..25 {
                // From 1 to some 30 ms, in no order.
                wait = wait * 17 % 31;
                std::thread::sleep(std::time::Duration::from_millis(wait));
                kill(host.netd_pid());
            }
        });
        let sandboxes = host.client.sandboxes().unwrap();
        for sandbox in &sandboxes {
            assert!(host.namespaces().contains(&sandbox.netns));
            host.client.release_sandbox(&sandbox.id).unwrap();
        }
        host.client.configure(settings()).unwrap();
        eventually("namespaces are gone", || host.namespaces().is_empty());
        eventually("links are gone", || !sh("ip -o link").contains("@if2"));
        eventually("rules are gone", || out("iptables -t nat -L DOCKER -n | grep -c DNAT") == "0\n");
        assert!(host.client.networks().unwrap().iter().all(|n| n.endpoints.is_empty()));
        let after = host.sandbox("after", &[&net]);
        assert_eq!(ip(&after).to_string(), "172.18.0.2");
        host.client.release_sandbox(&after.id).unwrap();
        host.client.remove_network(&net.spec.id).unwrap();
    });
}

#[test]
fn engines_that_start_at_once_start_one_netd() {
    alone("restart::engines_that_start_at_once_start_one_netd", |host| {
        kill(host.netd_pid());
        let dir = host.dir.path();
        let pids: Vec<u32> = std::thread::scope(|scope| {
            let engines: Vec<_> = (0..6).map(|_| scope.spawn(|| launch(dir).hello().unwrap().1)).collect();
            engines.into_iter().map(|e| e.join().unwrap()).collect()
        });
        assert!(pids.iter().all(|pid| *pid == pids[0]), "{pids:?}");
        let sid = std::fs::read_to_string(format!("/proc/{}/stat", pids[0])).unwrap();
        let session = sid.rsplit(')').next().unwrap().split_whitespace().nth(3).unwrap().to_string();
        assert_eq!(session, pids[0].to_string(), "a session of its own");
    });
}

#[test]
fn a_boot_keeps_networks_and_forgets_sandboxes() {
    alone("restart::a_boot_keeps_networks_and_forgets_sandboxes", |host| {
        let net = host.network("net");
        host.sandbox("a", &[&net]);
        host.client.shutdown().unwrap();
        eventually("netd has ended", || !host.dir.path().join("exec/netd.sock").exists());
        sh(
            "ip -all netns; for b in docker0 br-6e6574000000; do ip link del $b; done; iptables-save | grep -q DOCKER && iptables -F && iptables -t nat -F",
        );
        for path in host.namespaces() {
            rustix::mount::unmount(&path, rustix::mount::UnmountFlags::DETACH).unwrap();
        }
        let again = host.client.networks().unwrap();
        let found = again.iter().find(|n| n.spec.name == "net").unwrap();
        assert_eq!((&found.spec, found.endpoints.len()), (&net.spec, 0));
        assert!(host.client.sandboxes().unwrap().is_empty());
        host.client.configure(settings()).unwrap();
        assert!(sh("ip -o addr show br-6e6574000000").contains("172.18.0.1/16"));
        assert!(out("iptables-save").contains("-A POSTROUTING -s 172.18.0.0/16 ! -o br-6e6574000000"));
    });
}

#[test]
fn without_iptables_the_missing_program_is_named() {
    alone("restart::without_iptables_the_missing_program_is_named", |host| {
        host.client.shutdown().unwrap();
        let socket = host.dir.path().join("exec/netd.sock");
        eventually("netd has ended", || !socket.exists());
        let started = std::process::Command::new(env!("CARGO_BIN_EXE_wherry-netd"))
            .args(["--background", "--exec-root"])
            .arg(host.dir.path().join("exec"))
            .arg("--data-root")
            .arg(host.dir.path().join("data"))
            .env("PATH", "/nosuch")
            .status();
        assert!(started.unwrap().success(), "it starts all the same");
        let client = wherry_netd::Client::new(socket);
        let failure = client.configure(settings()).unwrap_err().to_string();
        assert!(failure.contains("iptables-") && failure.contains("not found in PATH"), "{failure}");
        let mut without = settings();
        without.iptables = false;
        client.configure(without).unwrap();
        client.create_sandbox(sandbox_spec("a", &[&host.default_bridge()])).unwrap();
    });
}
