//! One client in a container that asks for a name again and again.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use crate::contestant::Contestant;

/// What one turn gave.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    pub(crate) per_second: f64,
    pub(crate) median_us: f64,
    pub(crate) late_us: f64,
}

/// A query for the address of `server`.
fn query(id: u16) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 6]);
    bytes.extend(b"server");
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

/// Asks `count` times, one after the other; every answer must be right.
pub(crate) fn measure(contestant: &Contestant, count: usize) -> Measured {
    let socket = contestant.host.in_container("client", || {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket");
        socket.connect((contestant.resolver, 53)).expect("the resolver");
        socket
    });
    socket.set_read_timeout(Some(Duration::from_secs(5))).expect("a deadline");
    let mut times = Vec::with_capacity(count);
    let begin = Instant::now();
    for round in 0..count {
        let message = query(u16::try_from(round % 65_536).unwrap_or_default());
        let mut buffer = [0; 512];
        let sent = Instant::now();
        socket.send(&message).expect("ask");
        let length = socket.recv(&mut buffer).expect("an answer");
        times.push(sent.elapsed().as_secs_f64() * 1e6);
        assert_eq!(buffer[..2], message[..2], "an answer to this question");
        let found = buffer[..length]
            .windows(4)
            .any(|w| IpAddr::from(<[u8; 4]>::try_from(w).unwrap_or_default()) == contestant.server);
        assert!(found, "{} gives another address", contestant.name);
    }
    let per_second = count as f64 / begin.elapsed().as_secs_f64();
    times.sort_by(f64::total_cmp);
    Measured { per_second, median_us: times[count / 2], late_us: times[count * 99 / 100] }
}
