//! The name server of a private host's network, to see what engines forward to it.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::{Arc, Mutex};

use crate::{HOST_ADDRESS, Host};

/// Serves until the process ends: it knows one name, and notes every question.
#[derive(Debug, Clone)]
pub struct NameServer {
    questions: Arc<Mutex<Vec<String>>>,
}

impl NameServer {
    /// Starts it on the host's own address, port 53. `name` has the address `address`, all others do not exist.
    ///
    /// # Panics
    /// If the port is taken.
    pub fn start(host: &Host, name: &str, address: Ipv4Addr) -> NameServer {
        let socket = host.in_network(|| UdpSocket::bind((HOST_ADDRESS, 53))).expect("bind the name server");
        NameServer::on(socket, name, address)
    }

    /// The same with a socket of some other place.
    ///
    /// # Panics
    /// Never.
    pub fn on(socket: UdpSocket, name: &str, address: Ipv4Addr) -> NameServer {
        let server = NameServer { questions: Arc::default() };
        let (name, questions) = (name.to_owned(), Arc::clone(&server.questions));
        std::thread::spawn(move || {
            let mut packet = [0; 1500];
            while let Ok((n, peer)) = socket.recv_from(&mut packet) {
                let Some(question) = Question::parse(&packet[..n]) else { continue };
                questions.lock().expect("no reader fails").push(question.name.clone());
                let _ = socket.send_to(&question.answer(&name, address), peer);
            }
        });
        server
    }

    /// The names that were asked for so far.
    ///
    /// # Panics
    /// Never: the server's thread does not fail.
    pub fn questions(&self) -> Vec<String> {
        self.questions.lock().expect("the server does not fail").clone()
    }
}

struct Question {
    id: [u8; 2],
    name: String,
    kind: [u8; 2],
    bytes: Vec<u8>,
}

impl Question {
    fn parse(packet: &[u8]) -> Option<Question> {
        let mut labels = Vec::new();
        let mut at = 12;
        loop {
            let length = usize::from(*packet.get(at)?);
            if length == 0 {
                break;
            }
            labels.push(String::from_utf8_lossy(packet.get(at + 1..at + 1 + length)?).to_ascii_lowercase());
            at += 1 + length;
        }
        let kind = packet.get(at + 1..at + 3)?.try_into().ok()?;
        let id = packet.get(..2)?.try_into().ok()?;
        Some(Question { id, name: labels.join("."), kind, bytes: packet.get(12..at + 5)?.to_vec() })
    }

    fn answer(&self, name: &str, address: Ipv4Addr) -> Vec<u8> {
        let known = self.name == name;
        let has_address = known && self.kind == [0, 1];
        let mut packet = self.id.to_vec();
        packet.extend([0x85, if known { 0x80 } else { 0x83 }, 0, 1, 0, u8::from(has_address), 0, 0, 0, 0]);
        packet.extend(&self.bytes);
        if has_address {
            packet.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
            packet.extend(address.octets());
        }
        packet
    }
}
