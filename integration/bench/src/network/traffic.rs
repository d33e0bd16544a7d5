//! Bytes as fast as they go, between network namespaces; and the bare bridge and NAT rule to compare with.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use wherry_tests::{HOST_ADDRESS, Host};

const TIME: Duration = Duration::from_millis(200);
const CHUNK: usize = 128 << 10;

/// A listening socket of the calling thread's namespace.
pub(crate) fn listen(port: u16) -> TcpListener {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).expect("listen")
}

/// How to get a connection, from the namespace of the one who calls it.
#[derive(Debug)]
pub(crate) struct Dial;

impl Dial {
    pub(crate) fn connect(&self, address: Ipv4Addr, port: u16) -> TcpStream {
        TcpStream::connect((address, port)).expect("connect")
    }
}

/// Gbit/s over one connection to the listener.
pub(crate) fn flow(listener: TcpListener, dial: impl FnOnce(&Dial) -> TcpStream) -> f64 {
    let receiver = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        let (mut buffer, mut bytes) = (vec![0; CHUNK], 0usize);
        let begin = Instant::now();
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            bytes += length;
        }
        bytes as f64 * 8.0 / begin.elapsed().as_secs_f64() / 1e9
    });
    let mut stream = dial(&Dial);
    let (chunk, end) = (vec![0; CHUNK], Instant::now() + TIME);
    while Instant::now() < end {
        stream.write_all(&chunk).expect("send");
    }
    drop(stream);
    receiver.join().expect("the receiver")
}

/// Two namespaces on a bridge of a third, which plays the host, and a rule there that leads to one of them, without any engine
/// and its filters.
#[derive(Debug)]
pub(crate) struct Bare {
    host: File,
    spaces: [File; 2],
}

const FIRST: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
const PORT: u16 = 9080;

impl Bare {
    /// In namespaces that end with this host, which has no other part in it.
    pub(crate) fn make(host: &Host) -> Bare {
        let run = |line: &str| {
            host.exec(["sh", "-c", line].as_slice()).ok();
        };
        run("ip netns add bare && ip -n bare link set lo up && ip -n bare link add bare type bridge \
             && ip -n bare addr add 10.99.0.1/24 dev bare && ip -n bare link set bare up");
        run(&format!("ip -n bare addr add {HOST_ADDRESS}/32 dev lo"));
        for (i, last) in [(0, 2), (1, 3)] {
            run(&format!(
                "ip netns add bare{i} && ip -n bare link add bare{i} type veth peer name eth0 netns bare{i} \
                 && ip -n bare link set bare{i} master bare up && ip -n bare{i} addr add 10.99.0.{last}/24 dev eth0 \
                 && ip -n bare{i} link set eth0 up && ip -n bare{i} route add default via 10.99.0.1"
            ));
        }
        run(&format!(
            "ip netns exec bare iptables -t nat -I OUTPUT -d {HOST_ADDRESS} -p tcp --dport {PORT} -j DNAT --to {FIRST}:80"
        ));
        let (pid, _) = host.processes().into_iter().next().expect("process 1 of the host");
        let open =
            |name: &str| File::open(format!("/proc/{pid}/root/run/netns/{name}")).expect("the namespace");
        Bare { host: open("bare"), spaces: [open("bare0"), open("bare1")] }
    }

    /// Gbit/s from one namespace to the other.
    pub(crate) fn direct(&self) -> f64 {
        let listener = within(&self.spaces[0], || listen(81));
        flow(listener, |to| within(&self.spaces[1], || to.connect(FIRST, 81)))
    }

    /// Gbit/s from the host through the rule.
    pub(crate) fn published(&self) -> f64 {
        let listener = within(&self.spaces[0], || listen(80));
        flow(listener, |to| within(&self.host, || to.connect(HOST_ADDRESS, PORT)))
    }
}

/// What this work gives in a thread in that network namespace.
fn within<T: Send>(space: &File, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let kind = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(space.as_fd(), kind).expect("enter");
            work()
        });
        thread.join().expect("the work inside")
    })
}
