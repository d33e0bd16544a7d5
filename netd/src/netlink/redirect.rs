//! The rule in a container's namespace that sends queries to 127.0.0.11 port 53 on to the sockets of our
//! resolver. It is made with nftables' own messages, in 0.2 ms, where a run of
//! iptables-restore takes 4 ms. The resolver does not sit on port 53 itself, so that a program in the
//! container may listen there.
//!
//! Port numbers are rewritten packet by packet, in questions and in answers, without translation (NAT): that would have the kernel
//! track every connection in the container's namespace, whose own traffic would be the slower for it. Where a container has
//! connections tracked by rules of its own, these see the same port in both directions: questions are rewritten before
//! tracking, answers behind it.

use std::net::Ipv4Addr;

use rustix::io::Errno;

use super::Socket;
use super::message::{APPEND, Batch, CREATE, Message};

/// Where containers find the resolver.
pub(crate) const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);
const TABLE: &str = "wherry-names";
/// Asked for packets that leave, before connections are tracked, and behind that.
const QUESTIONS: (&str, i32) = ("questions", -300);
const ANSWERS: (&str, i32) = ("answers", -150);
const DNS: u16 = 53;

const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEWTABLE: u16 = SUBSYSTEM;
const DELTABLE: u16 = SUBSYSTEM | 2;
const NEWCHAIN: u16 = SUBSYSTEM | 3;
const NEWRULE: u16 = SUBSYSTEM | 6;

const NFPROTO_IPV4: u32 = 2;
const REGISTER_1: u32 = 1;

const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
/// Offsets in the IPv4 header, and of ports in that of TCP and UDP.
const SOURCE: u32 = 12;
const DESTINATION: u32 = 16;
const SOURCE_PORT: u32 = 0;
const DESTINATION_PORT: u32 = 2;

/// A protocol: its number, and where its checksum is.
#[derive(Clone, Copy)]
struct Transport {
    number: u8,
    checksum: u32,
}

const TCP: Transport = Transport { number: 6, checksum: 16 };
const UDP: Transport = Transport { number: 17, checksum: 6 };

/// Makes the rules in the namespace of the thread that opened `socket`; with `again`, replacing those of an earlier
/// netd, after which closing the socket takes the kernel some 10 ms.
pub(crate) fn install(socket: &mut Socket, udp_port: u16, tcp_port: u16, again: bool) -> Result<(), Errno> {
    let mut batch = Batch::transaction();
    batch.marker(BATCH_BEGIN, &family(0, SUBSYSTEM >> 8));
    if again {
        // Adding before deleting makes the deletion succeed whether or not the table was there.
        table(&mut batch, NEWTABLE);
        table(&mut batch, DELTABLE);
    }
    table(&mut batch, NEWTABLE);
    chain(&mut batch, QUESTIONS);
    chain(&mut batch, ANSWERS);
    for (transport, port) in [(UDP, udp_port), (TCP, tcp_port)] {
        rule(&mut batch, QUESTIONS.0, transport, DESTINATION, (DESTINATION_PORT, DNS, port));
        rule(&mut batch, ANSWERS.0, transport, SOURCE, (SOURCE_PORT, port, DNS));
    }
    batch.marker(BATCH_END, &family(0, SUBSYSTEM >> 8));
    socket.commit(batch)
}

/// `struct nfgenmsg`: family, version, resource (big-endian).
fn family(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

fn table(batch: &mut Batch, kind: u16) {
    const NAME: u16 = 1;
    let flags = if kind == NEWTABLE { CREATE } else { 0 };
    batch.order(kind, flags, &family(NFPROTO_IPV4 as u8, 0)).text(NAME, TABLE);
}

/// `type filter hook output priority PRIORITY`
fn chain(batch: &mut Batch, (name, priority): (&str, i32)) {
    const TABLE_NAME: u16 = 1;
    const NAME: u16 = 3;
    const HOOK: u16 = 4;
    const TYPE: u16 = 7;
    const HOOK_NUMBER: u16 = 1;
    const HOOK_PRIORITY: u16 = 2;
    const LOCAL_OUT: u32 = 3;
    batch
        .order(NEWCHAIN, CREATE, &family(NFPROTO_IPV4 as u8, 0))
        .text(TABLE_NAME, TABLE)
        .text(NAME, name)
        .nest(HOOK, |hook| {
            hook.bytes(HOOK_NUMBER, &LOCAL_OUT.to_be_bytes()).bytes(HOOK_PRIORITY, &priority.to_be_bytes());
        })
        .text(TYPE, "filter");
}

/// `ip daddr 127.0.0.11 udp dport 53 udp dport set PORT`, or of the source
fn rule(
    batch: &mut Batch,
    chain: &str,
    transport: Transport,
    address: u32,
    (port, from, to): (u32, u16, u16),
) {
    const TABLE_NAME: u16 = 1;
    const CHAIN_NAME: u16 = 2;
    const EXPRESSIONS: u16 = 4;
    batch
        .order(NEWRULE, CREATE | APPEND, &family(NFPROTO_IPV4 as u8, 0))
        .text(TABLE_NAME, TABLE)
        .text(CHAIN_NAME, chain)
        .nest(EXPRESSIONS, |list| {
            payload(list, NETWORK_HEADER, address, 4);
            compare(list, &RESOLVER.octets());
            protocol_of_packet(list);
            compare(list, &[transport.number]);
            payload(list, TRANSPORT_HEADER, port, 2);
            compare(list, &from.to_be_bytes());
            immediate(list, REGISTER_1, &to.to_be_bytes());
            rewrite(list, transport, port, 2);
        });
}

fn expression(list: &mut Message<'_>, name: &str, fill: impl FnOnce(&mut Message<'_>)) {
    const LIST_ELEMENT: u16 = 1;
    const NAME: u16 = 1;
    const DATA: u16 = 2;
    list.nest(LIST_ELEMENT, |element| {
        element.text(NAME, name).nest(DATA, fill);
    });
}

fn number(message: &mut Message<'_>, kind: u16, value: u32) {
    message.bytes(kind, &value.to_be_bytes());
}

fn payload(list: &mut Message<'_>, base: u32, offset: u32, length: u32) {
    expression(list, "payload", |data| {
        number(data, 1, REGISTER_1);
        number(data, 2, base);
        number(data, 3, offset);
        number(data, 4, length);
    });
}

fn protocol_of_packet(list: &mut Message<'_>) {
    const L4PROTO: u32 = 16;
    expression(list, "meta", |data| {
        number(data, 1, REGISTER_1);
        number(data, 2, L4PROTO);
    });
}

fn compare(list: &mut Message<'_>, value: &[u8]) {
    const EQUAL: u32 = 0;
    expression(list, "cmp", |data| {
        number(data, 1, REGISTER_1);
        number(data, 2, EQUAL);
        data.nest(3, |d| {
            d.bytes(1, value);
        });
    });
}

fn immediate(list: &mut Message<'_>, register: u32, value: &[u8]) {
    expression(list, "immediate", |data| {
        number(data, 1, register);
        data.nest(2, |d| {
            d.bytes(1, value);
        });
    });
}

/// Puts the register's value into the packet.
fn rewrite(list: &mut Message<'_>, transport: Transport, offset: u32, length: u32) {
    const INTERNET_CHECKSUM: u32 = 1;
    expression(list, "payload", |data| {
        number(data, 2, TRANSPORT_HEADER);
        number(data, 3, offset);
        number(data, 4, length);
        number(data, 5, REGISTER_1);
        number(data, 6, INTERNET_CHECKSUM);
        number(data, 7, transport.checksum);
    });
}
