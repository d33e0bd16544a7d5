//! netd is killed and started again.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};
use std::time::{Duration, Instant};

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

/// The processes that hold netd's lock (`true`) or wait for it, as the kernel tells.
fn at_the_lock(host: &Host, holding: bool) -> Vec<i32> {
    use std::os::unix::fs::MetadataExt;
    let inode = std::fs::metadata(host.dir.path().join("exec/netd/lock")).unwrap().ino();
    let locks = std::fs::read_to_string("/proc/locks").unwrap();
    let ours = locks.lines().filter(|l| l.contains(&format!(":{inode} ")) && l.contains("->") != holding);
    ours.map(|l| l.split(" WRITE ").nth(1).unwrap().split_whitespace().next().unwrap().parse().unwrap())
        .collect()
}

/// The one that is netd; not asked through the client, which would start one.
fn holder(host: &Host) -> i32 {
    eventually("somebody is netd", || !at_the_lock(host, true).is_empty());
    at_the_lock(host, true)[0]
}

fn standby(host: &Host) -> i32 {
    eventually("netd has a standby", || !at_the_lock(host, false).is_empty());
    at_the_lock(host, false)[0]
}

fn sockets_of(pid: i32) -> usize {
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let links = links.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

/// netd and who would take its place.
fn kill_all(host: &Host) {
    let netd = host.netd_pid();
    kill(standby(host));
    kill(netd);
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
        kill_all(host);
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

/// Numbers, one behind the other, as bytes.
fn numbers(bytes: usize) -> Vec<u8> {
    (0..bytes as u64 / 8).flat_map(u64::to_ne_bytes).collect()
}

#[test]
fn relayed_connections_outlive_netd() {
    const BYTES: usize = 64 << 20;
    alone("restart::relayed_connections_outlive_netd", |host| {
        let web = host.publisher("web", &[port(Protocol::Tcp, None, 8080, 80)]);
        serve(&web.netns, 80, "web");
        let connect = || {
            let connection = TcpStream::connect((Ipv6Addr::LOCALHOST, 8080)).unwrap();
            connection.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let mut reader = BufReader::new(connection);
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            assert_eq!(line, "web 172.17.0.1\n");
            reader
        };
        // One is idle, one busy in both directions.
        let (mut idle, mut busy) = (connect(), connect());
        let mut sending = busy.get_ref().try_clone().unwrap();
        let sender = std::thread::spawn(move || {
            sending.write_all(&numbers(BYTES)).unwrap();
            sending.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut back = vec![0; BYTES];
        for part in back.chunks_mut(BYTES / 8) {
            let (netd, next) = (holder(host), standby(host));
            // Its own conversation with netd, those of the port's two addresses, and two of each connection.
            eventually("it has been left the connections", || sockets_of(next) == 7);
            kill(netd);
            // A new one waits for the next netd.
            assert_eq!(greeting(Ipv6Addr::LOCALHOST, 8080).unwrap(), "web 172.17.0.1");
            busy.read_exact(part).unwrap();
            idle.get_mut().write_all(b"still\n").unwrap();
            let mut line = String::new();
            idle.read_line(&mut line).unwrap();
            assert_eq!((line.as_str(), holder(host)), ("still\n", next));
        }
        assert!(back == numbers(BYTES), "what came back is what was sent");
        assert_eq!(busy.read(&mut [0]).unwrap(), 0, "the end is relayed, too");
        sender.join().unwrap();
        let last = standby(host);
        eventually("the standby has forgotten what ended", || sockets_of(last) == 5);
        // With the container its connections end.
        host.client.release_sandbox(&web.id).unwrap();
        assert_eq!(idle.read(&mut [0]).unwrap(), 0);
        eventually("the standby has forgotten that, too", || sockets_of(last) == 1);
    });
}

#[test]
fn names_resolve_again_without_an_engine() {
    alone("restart::names_resolve_again_without_an_engine", |host| {
        let net = host.network("net");
        let (a, b) = (host.sandbox("a", &[&net]), host.sandbox("b", &[&net]));
        for _ in 0..5 {
            let (netd, next) = (holder(host), standby(host));
            // Its own conversation with netd, and two of each sandbox.
            eventually("it has the resolvers' sockets", || sockets_of(next) == 5);
            kill(netd);
            // One question, not repeated: the standby has the socket it waits in.
            let found = ask(&a.netns, "b", A).unwrap();
            assert_eq!(found.records, [ip(&b).octets().to_vec()]);
            assert_eq!(holder(host), next);
        }
        // A standby that dies is replaced, and one that was told to end ends both.
        let (netd, before) = (holder(host), standby(host));
        kill(before);
        let after = standby(host);
        assert_ne!(after, before);
        assert_eq!(host.client.sandboxes().unwrap().len(), 2);
        assert_eq!(host.netd_pid(), netd, "the engine did not need to start one");
        host.client.shutdown().unwrap();
        eventually("both have ended", || {
            [netd, after].iter().all(|pid| !std::path::Path::new(&format!("/proc/{pid}/exe")).exists())
        });
    });
}

/// In the default suite.
const CONTAINERS: usize = 60;
const STARTS: usize = 3;

#[test]
fn a_start_changes_no_rule_that_is_right() {
    alone("restart::a_start_changes_no_rule_that_is_right", |host| {
        let nets: Vec<_> = (0..4).map(|i| host.network(&format!("net{i}"))).collect();
        let count = std::env::var("WHERRY_CONTAINERS").map_or(CONTAINERS, |n| n.parse().unwrap());
        let made: Vec<_> = (0..count)
            .map(|i| {
                let mut spec = sandbox_spec(&format!("c{i}"), &[&nets[i % 4]]);
                if i % 3 == 0 {
                    spec.endpoints[0].ports = vec![port(Protocol::Tcp, None, 0, 80)];
                }
                host.client.create_sandbox(spec).unwrap()
            })
            .collect();
        host.client.configure(settings()).unwrap();
        let changes = || -> Vec<u32> {
            let inside = made.iter().map(|s| inside(&s.netns, rule_changes));
            std::iter::once(rule_changes()).chain(inside).collect()
        };
        let rules = || out("iptables-save | grep -v '^#' | sed 's/\\[.*//'");
        let (before, rules_before) = (changes(), rules());
        let mut slowest = Duration::ZERO;
        for _ in 0..STARTS {
            kill_all(host);
            let begun = Instant::now();
            // As an engine does when it starts.
            launch(host.dir.path()).configure(settings()).unwrap();
            slowest = slowest.max(begun.elapsed());
        }
        assert_eq!(changes(), before, "changes of rules: the host's, and each container's");
        assert_eq!(rules(), rules_before);
        println!(
            "starts: containers={count} rules={} starts={STARTS} changes=0 slowest_ms={}",
            rules_before.lines().filter(|line| line.starts_with("-A")).count(),
            slowest.as_millis()
        );
        assert_eq!(ask(&made[7].netns, "c11", A).unwrap().records, [ip(&made[11]).octets().to_vec()]);
        // A rule that is wrong is mended: the container has flushed its own.
        let own = &made[3];
        kill_all(host);
        inside(&own.netns, delete_names_table);
        assert_ne!(host.netd_pid(), 0);
        assert_eq!(ask(&own.netns, "c7", A).unwrap().records, [ip(&made[7]).octets().to_vec()]);
    });
}

/// What a container with CAP_NET_ADMIN might do to itself.
fn delete_names_table() {
    sh("iptables-nft -t nat -F; nft delete table ip wherry-names");
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
            for round in 0..25 {
                // From 1 to some 30 ms, in no order.
                wait = wait * 17 % 31;
                std::thread::sleep(std::time::Duration::from_millis(wait));
                if round % 3 == 0 { kill_all(host) } else { kill(host.netd_pid()) }
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
        kill_all(host);
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
        let client = host.without_programs();
        let failure = client.configure(settings()).unwrap_err().to_string();
        assert!(failure.contains("iptables-") && failure.contains("not found in PATH"), "{failure}");
        let mut without = settings();
        without.iptables = false;
        client.configure(without).unwrap();
        client.create_sandbox(sandbox_spec("a", &[&host.default_bridge()])).unwrap();
    });
}

/// Whoever is started meanwhile has nothing of what the dead one left.
#[test]
fn a_slow_standby_is_waited_for() {
    alone("restart::a_slow_standby_is_waited_for", |host| {
        let web = host.publisher("web", &[port(Protocol::Tcp, None, 8080, 80)]);
        serve(&web.netns, 80, "web");
        let (netd, next) = (holder(host), standby(host));
        eventually("it has been left the ports", || sockets_of(next) >= 3);
        let signal = |signal| {
            let pid = rustix::process::Pid::from_raw(next).unwrap();
            rustix::process::kill_process(pid, signal).unwrap();
        };
        signal(rustix::process::Signal::STOP);
        kill(netd);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // The one that the next line starts waits for it meanwhile.
                std::thread::sleep(std::time::Duration::from_millis(300));
                signal(rustix::process::Signal::CONT);
            });
            assert_eq!(host.netd_pid(), next);
        });
        assert_eq!(greeting(Ipv6Addr::LOCALHOST, 8080).unwrap(), "web 172.17.0.1");
        host.client.release_sandbox(&web.id).unwrap();
    });
}
