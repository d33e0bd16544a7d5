//! Names while containers come and go: every answer is checked against what was true while it was asked for.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use wherry_netd::protocol::{Network, Sandbox};

use crate::dns::{A, query, read_answer, upstream};
use crate::support::*;

/// In the default suite; `make dns-churn` asks for more.
const LOOKUPS: usize = 10_000;
const STEADY: usize = 4;
const ASKERS: usize = 4;
const CHURNERS: usize = 3;

/// What is true about a name that comes and goes, and how often that has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Truth {
    Absent,
    Changing,
    Address(Ipv4Addr),
}

struct Names {
    truths: Vec<Mutex<(u64, Truth)>>,
}

impl Names {
    fn set(&self, number: usize, truth: Truth) {
        let mut entry = self.truths[number].lock().unwrap();
        *entry = (entry.0 + 1, truth);
    }

    fn get(&self, number: usize) -> (u64, Truth) {
        *self.truths[number].lock().unwrap()
    }
}

/// Counts of one run.
#[derive(Default)]
struct Tally {
    lookups: AtomicUsize,
    /// Lookups of names that come and go whose answer was certain.
    certain: AtomicUsize,
    comings: AtomicUsize,
    wrong: Mutex<Vec<String>>,
    lost: AtomicUsize,
}

/// One client in a container, which asks one question after the other.
struct Client {
    socket: UdpSocket,
    turn: u16,
}

impl Client {
    fn of(sandbox: &Sandbox) -> Self {
        let socket = inside(&sandbox.netns, || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
            socket.connect((Ipv4Addr::new(127, 0, 0, 11), 53)).unwrap();
            socket
        });
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        Self { socket, turn: 0 }
    }

    /// Code and sorted addresses; `None` if there was no answer.
    fn ask(&mut self, name: &str) -> Option<(u8, Vec<Ipv4Addr>)> {
        self.turn = self.turn.wrapping_add(1);
        let mut message = query(name, A);
        message[..2].copy_from_slice(&self.turn.to_be_bytes());
        self.socket.send(&message).ok()?;
        let mut buffer = [0; 4096];
        loop {
            let length = self.socket.recv(&mut buffer).ok()?;
            if buffer[..2] == self.turn.to_be_bytes() {
                // The reader expects the id that it knows.
                buffer[..2].copy_from_slice(&[0x12, 0x34]);
                let answer = read_answer(&buffer[..length], message.len());
                let addresses = answer.records.iter().map(|r| <[u8; 4]>::try_from(&r[..]).unwrap().into());
                return Some((answer.code, addresses.collect()));
            }
        }
    }
}

fn asker(mut client: Client, names: &Names, steady: &[Ipv4Addr], tally: &Tally, lookups: usize) {
    for round in 0.. {
        if tally.lookups.fetch_add(1, Ordering::Relaxed) >= lookups {
            return;
        }
        let number = round % (STEADY + CHURNERS + 1);
        let (name, expect, before) = match number {
            n if n < STEADY => (format!("steady{n}"), Some((0, vec![steady[n]])), None),
            STEADY => ("steady.net".into(), Some((0, steady.to_vec())), None),
            n => {
                let churner = n - STEADY - 1;
                let before = names.get(churner);
                let expect = match before.1 {
                    Truth::Absent => Some((3, Vec::new())),
                    Truth::Changing => None,
                    Truth::Address(ip) => Some((0, vec![ip])),
                };
                (format!("comes-and-goes{churner}"), expect, Some((churner, before)))
            }
        };
        let Some(got) = client.ask(&name) else {
            tally.lost.fetch_add(1, Ordering::Relaxed);
            continue;
        };
        let certain = before.is_none_or(|(churner, before)| names.get(churner) == before);
        let possible = got.1.len() <= 1 && got.0 == if got.1.is_empty() { 3 } else { 0 };
        let right = match expect {
            Some(expect) if certain => {
                tally.certain.fetch_add(usize::from(before.is_some()), Ordering::Relaxed);
                got == expect
            }
            _ => possible && !got.1.iter().any(|ip| steady.contains(ip)),
        };
        if !right {
            tally.wrong.lock().unwrap().push(format!("{name}: {got:?}, expected {before:?}"));
        }
    }
}

/// One container that is made and removed, and one that joins and leaves the network.
fn churner(host: &Host, net: &Network, names: &Names, number: usize, stop: &AtomicBool, tally: &Tally) {
    let name = format!("comes-and-goes{number}");
    let guest = host.sandbox(&format!("guest{number}"), &[&host.default_bridge()]);
    while !stop.load(Ordering::Relaxed) {
        names.set(number, Truth::Changing);
        let made = host.sandbox(&name, &[net]);
        names.set(number, Truth::Address(ip(&made)));
        let mut endpoint = endpoint(&format!("guest{number}"), net);
        endpoint.names.push(format!("extra{number}"));
        host.client.connect_endpoint(&guest.id, endpoint).unwrap();
        host.client.disconnect_endpoint(&guest.id, &net.spec.id).unwrap();
        names.set(number, Truth::Changing);
        host.client.release_sandbox(&made.id).unwrap();
        names.set(number, Truth::Absent);
        tally.comings.fetch_add(2, Ordering::Relaxed);
    }
}

#[test]
fn no_answer_is_wrong_or_lost() {
    alone("churn::no_answer_is_wrong_or_lost", |host| {
        let lookups = std::env::var("WHERRY_CHURN_LOOKUPS").map_or(LOOKUPS, |n| n.parse().unwrap());
        let begun = Instant::now();
        upstream(HOST_IP);
        let net = host.network("net");
        let mut steady: Vec<Ipv4Addr> = (0..STEADY)
            .map(|i| {
                let mut spec = sandbox_spec(&format!("steady{i}"), &[&net]);
                spec.endpoints[0].names.push("steady".into());
                ip(&host.client.create_sandbox(spec).unwrap())
            })
            .collect();
        steady.sort();
        let askers: Vec<_> = (0..ASKERS).map(|i| host.sandbox(&format!("asker{i}"), &[&net])).collect();
        let names = Names { truths: (0..CHURNERS).map(|_| Mutex::new((0, Truth::Absent))).collect() };
        let (tally, stop) = (Tally::default(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let (names, tally, stop, net, steady) = (&names, &tally, &stop, &net, &steady);
            for number in 0..CHURNERS {
                scope.spawn(move || churner(host, net, names, number, stop, tally));
            }
            let asking: Vec<_> = askers
                .iter()
                .map(|sandbox| {
                    let client = Client::of(sandbox);
                    scope.spawn(move || asker(client, names, steady, tally, lookups))
                })
                .collect();
            let ended: Vec<_> = asking.into_iter().map(|a| a.join()).collect();
            stop.store(true, Ordering::Relaxed);
            ended.into_iter().for_each(|e| e.unwrap());
        });
        let wrong = tally.wrong.into_inner().unwrap();
        let (lost, comings) = (tally.lost.into_inner(), tally.comings.into_inner());
        println!(
            "churn: lookups={lookups} wrong={} lost={lost} certain={} comings={comings} seconds={}",
            wrong.len(),
            tally.certain.into_inner(),
            begun.elapsed().as_secs()
        );
        assert!(
            wrong.is_empty() && lost == 0,
            "{lost} lost, {} wrong: {:#?}",
            wrong.len(),
            &wrong[..wrong.len().min(10)]
        );
        assert!(comings > 10, "containers came and went");
    });
}
