//! netd and the engine are killed, in turns and together, while containers come and go, connections are open and names
//! are asked for. `make net-kill-test` does it 50 times. No dockerd passes this; `make test-reference` leaves it out.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use wherry_tests::{HOST_ADDRESS, Host, poll, poll_value};

/// In the default suite.
const ROUNDS: usize = 4;
const CHURNERS: usize = 2;

/// What gives back every byte, in a container's network.
fn echo(host: &Host, container: &str) {
    let listener = host.in_container(container, || TcpListener::bind((Ipv4Addr::UNSPECIFIED, 80))).unwrap();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { return };
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(length @ 1..) = connection.read(&mut buffer) {
                    if connection.write_all(&buffer[..length]).is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// An open connection, with traffic.
struct Line {
    stream: BufReader<TcpStream>,
    from: &'static str,
}

impl Line {
    fn new(from: &'static str, stream: TcpStream) -> Line {
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        Line { stream: BufReader::new(stream), from }
    }

    fn check(&mut self, round: usize) {
        let text = format!("round {round}\n");
        let sent = self.stream.get_mut().write_all(text.as_bytes());
        let mut line = String::new();
        let got = self.stream.read_line(&mut line);
        assert!(
            sent.is_ok() && got.is_ok() && line == text,
            "{} in round {round}: {sent:?} {got:?}",
            self.from
        );
    }
}

/// What the asking of names has come to.
#[derive(Default)]
struct Asked {
    answers: usize,
    /// Questions that were asked a second time.
    repeated: usize,
    /// Without an answer while neither netd nor its standby lived.
    in_the_dark: usize,
    failures: Vec<String>,
}

/// Asks for `web` until told to end: a lookup that is lost is repeated once, as resolvers do.
fn keep_asking(socket: &UdpSocket, expect: Ipv4Addr, stop: &AtomicBool, dark: &AtomicBool) -> Asked {
    let mut asked = Asked::default();
    socket.set_read_timeout(Some(Duration::from_secs(3))).unwrap();
    let mut id = 0u16;
    while !stop.load(Ordering::Relaxed) {
        let was_dark = dark.load(Ordering::Relaxed);
        let mut found = None;
        for attempt in 0..2 {
            id = id.wrapping_add(1);
            let mut message = id.to_be_bytes().to_vec();
            message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3, b'w', b'e', b'b', 0, 0, 1, 0, 1]);
            asked.repeated += attempt;
            let mut buffer = [0; 512];
            let sent = socket.send(&message);
            while let (Ok(_), Ok(length)) = (&sent, socket.recv(&mut buffer)) {
                if buffer[..2] == id.to_be_bytes() {
                    found = Some(buffer[..length].to_vec());
                    break;
                }
            }
            if found.is_some() {
                break;
            }
        }
        match found {
            Some(bytes) if bytes[3] & 15 == 0 && bytes.ends_with(&expect.octets()) => asked.answers += 1,
            None if was_dark || dark.load(Ordering::Relaxed) => asked.in_the_dark += 1,
            other => asked
                .failures
                .push(format!("{:?} {other:?}", std::time::UNIX_EPOCH.elapsed().unwrap_or_default())),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    asked
}

/// Containers come and go; while there is no engine nothing can.
fn churn(host: &Host, number: usize, stop: &AtomicBool, started: &AtomicUsize) {
    let name = format!("churn{number}");
    while !stop.load(Ordering::Relaxed) {
        let line = format!("run -d --name {name} --network net -p 80 busybox sleep 600");
        if host.docker(line.as_str()).code == 0 {
            started.fetch_add(1, Ordering::Relaxed);
        }
        host.docker(format!("network connect bridge {name}").as_str());
        host.docker(format!("rm -f {name}").as_str());
    }
}

fn netd_processes(host: &Host) -> Vec<u32> {
    let all = host.servants().into_iter();
    all.filter(|(_, line)| line.split(' ').next().unwrap_or_default().ends_with("wherry-netd"))
        .map(|p| p.0)
        .collect()
}

/// netd itself, not its standby, which resolves no names.
fn netd(host: &Host) -> u32 {
    let serves = |pid: &u32| {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        tasks
            .into_iter()
            .any(|t| fs::read_to_string(t.path().join("comm")).is_ok_and(|c| c.trim() == "runtime"))
    };
    poll_value("netd", 10, || netd_processes(host).into_iter().find(serves))
}

fn kill(pid: u32) {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    // One that was just ending is gone, too.
    let _ = kill_process(pid, Signal::KILL);
}

/// Every endpoint has an address of its own, in the container and for the engine the same; no link is left over.
fn check_convergence(host: &Host) {
    let names = host.docker(&["ps", "-a", "--format", "{{.Names}}"]).ok().stdout;
    let mut seen = BTreeSet::new();
    let mut links = 0;
    for name in names.lines() {
        let networks = host.inspect(name)["NetworkSettings"]["Networks"].take();
        for (network, settings) in networks.as_object().unwrap() {
            let ip = settings["IPAddress"].as_str().unwrap_or_default().to_owned();
            if ip.is_empty() {
                continue;
            }
            assert!(seen.insert(ip.clone()), "{ip} is given out twice");
            let own = host.docker(&["exec", name, "ip", "-o", "addr"]).ok().stdout;
            assert!(own.contains(&format!(" {ip}/")), "{name} has not {ip} of {network}: {own}");
            links += 1;
        }
    }
    poll("one link for each endpoint", 10, || {
        let veths = host.exec("ip -o link show type veth").stdout;
        veths.lines().filter(|line| line.contains(" master ")).count() == links
    });
}

#[test]
fn network_and_engine_in_turns() {
    let rounds = std::env::var("WHERRY_NET_KILLS").map_or(ROUNDS, |n| n.parse().unwrap());
    let host = Host::new();
    let begun = Instant::now();
    host.docker("network create net").ok();
    host.docker("run -d --name web --network net -p 8080:80 busybox sleep 3600").ok();
    host.docker("run -d --name peer --network net busybox sleep 3600").ok();
    let web: Ipv4Addr = host.inspect("web")["NetworkSettings"]["Networks"]["net"]["IPAddress"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    echo(&host, "web");
    let mut lines = vec![
        Line::new("host, 127.0.0.1", host.connect_to((Ipv4Addr::LOCALHOST, 8080)).unwrap()),
        Line::new("host, its address", host.connect_to((HOST_ADDRESS, 8080)).unwrap()),
        Line::new("container", host.in_container("peer", || TcpStream::connect((web, 80))).unwrap()),
    ];
    // Through netd itself, or its standby.
    let relay = || Line::new("host, ::1", host.connect_to((Ipv6Addr::LOCALHOST, 8080)).unwrap());
    let mut relayed = relay();
    let socket = host.in_container("peer", || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        socket.connect((Ipv4Addr::new(127, 0, 0, 11), 53)).unwrap();
        socket
    });
    let (stop, dark, started) = (AtomicBool::new(false), AtomicBool::new(false), AtomicUsize::new(0));
    let asked = std::thread::scope(|scope| {
        let (host, stop, dark, started, socket) = (&host, &stop, &dark, &started, &socket);
        let asker = scope.spawn(move || keep_asking(socket, web, stop, dark));
        for number in 0..CHURNERS {
            scope.spawn(move || churn(host, number, stop, started));
        }
        // They must end, too, when something fails here.
        let ended = Ended(stop);
        for round in 0..rounds {
            let before = started.load(Ordering::Relaxed);
            match round % 4 {
                0 => kill(netd(host)),
                1 => host.kill(),
                2 => {
                    let netd = netd(host);
                    host.kill();
                    kill(netd);
                }
                _ => {
                    // Nobody is left to answer until there is an engine.
                    dark.store(true, Ordering::Relaxed);
                    host.kill();
                    netd_processes(host).into_iter().for_each(kill);
                }
            }
            lines.iter_mut().for_each(|line| line.check(round));
            if round % 4 != 3 {
                relayed.check(round);
            }
            if round % 4 != 0 {
                host.start();
                dark.store(false, Ordering::Relaxed);
            }
            if round % 4 == 3 {
                relayed = relay();
            }
            lines.iter_mut().for_each(|line| line.check(round));
            relayed.check(round);
            poll("containers start again", 30, || started.load(Ordering::Relaxed) > before);
            let fresh = host.connect_to((Ipv4Addr::LOCALHOST, 8080)).expect("the published port");
            Line::new("a new one", fresh).check(round);
        }
        drop(ended);
        asker.join().unwrap()
    });
    println!(
        "net-kill: rounds={rounds} answers={} repeated={} dark={} failed={} started={} seconds={}",
        asked.answers,
        asked.repeated,
        asked.in_the_dark,
        asked.failures.len(),
        started.load(Ordering::Relaxed),
        begun.elapsed().as_secs()
    );
    let log = host.exec(format!("cat {}/exec/netd/netd.log", host.root().display()).as_str()).stdout;
    let first = asked.failures.first();
    assert!(first.is_none(), "{} lookups failed: {first:?}; netd's log:\n{log}", asked.failures.len());
    for number in 0..CHURNERS {
        host.docker(format!("rm -f churn{number}").as_str());
    }
    check_convergence(&host);
    drop((lines, relayed));
    host.docker("rm -f web peer").ok();
    // Gone: what is left of links, rules, namespaces and processes is looked for when the host ends.
    host.docker("network rm net").ok();
}

struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
