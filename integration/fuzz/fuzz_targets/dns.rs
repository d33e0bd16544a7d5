//! DNS messages as a container may send them: what is read is answered by a message that an independent reader
//! finds whole, within the limit, and about the same question; whatever a resolver sends is taken or left.
#![no_main]
// The target includes netd's own source: it is no library.
#![allow(dead_code, missing_docs)]

#[path = "../../../netd/src/dns/message.rs"]
mod message;
#[path = "../../../netd/src/dns/names.rs"]
mod names;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libfuzzer_sys::fuzz_target;
use message::{Code, NotAQuery, TYPE_A, TYPE_AAAA};
use names::{Addresses, EndpointNames, Family, Found, Names, Outside};

/// The end of the record at `at`: its name is a pointer to the question's.
fn record_end(answer: &[u8], at: usize) -> usize {
    assert_eq!(answer[at..at + 2], [0xc0, 12]);
    at + 12 + usize::from(u16::from_be_bytes([answer[at + 10], answer[at + 11]]))
}

fn check(question: &[u8], answer: &[u8], limit: usize) {
    assert!(answer.len() <= limit, "{} of {limit} bytes", answer.len());
    assert_eq!(answer[..2], question[..2], "the id");
    assert!(answer[2] & 0x80 != 0 && answer[2] & 0x79 == question[2] & 0x79);
    let mut at = 12;
    if answer[5] == 1 {
        while answer[at] != 0 {
            at += 1 + usize::from(answer[at]);
        }
        at += 5;
        assert_eq!(answer[12..at], question[12..at], "the question");
    }
    for _ in 0..u16::from_be_bytes([answer[6], answer[7]]) {
        at = record_end(answer, at);
    }
    assert_eq!(at, answer.len(), "nothing but the records");
}

/// Names of all sorts, one of them the one that is asked for.
fn names_with(name: &str) -> Names {
    let names = Names::default();
    let endpoint = |last: u8, names: Vec<String>| EndpointNames {
        network: "id".into(),
        network_name: "net".into(),
        addresses: Addresses { v4: Some(Ipv4Addr::new(172, 18, 0, last)), v6: Some(Ipv6Addr::from(u128::from(last))) },
        names,
        links: vec![("db".into(), "a".into())],
    };
    names.publish("a", vec![endpoint(2, vec![name.into(), "Svc".into()])], Outside::default());
    names.publish("b", vec![endpoint(3, vec!["b".into(), "svc".into()])], Outside::default());
    names
}

fuzz_target!(|bytes: &[u8]| {
    let (bytes, other) = bytes.split_at(bytes.len().min(bytes.len() / 2 + 32));
    let query = match message::parse(bytes) {
        Ok(query) => query,
        Err(NotAQuery::Ignore) => return,
        Err(NotAQuery::Refuse { id, repeated, code }) => {
            let refusal = message::refusal(id, repeated, code);
            assert!(code != Code::NoError && refusal.len() == 12 && refusal[..2] == bytes[..2]);
            return;
        }
    };
    assert!(query.name.len() <= 255);
    let names = names_with(&query.name);
    for (kind, family) in [(TYPE_A, Family::V4), (TYPE_AAAA, Family::V6)] {
        if let Found::Addresses(found) = names.addresses("b", &query.name, family) {
            assert!(!found.is_empty());
            if query.kind == kind {
                check(bytes, &query.addresses(&found, found.len() - 1, false), 65_507);
            }
        }
    }
    let many: Vec<IpAddr> = (0..u8::MAX).map(|i| IpAddr::from([10, 0, 0, i])).collect();
    check(bytes, &query.addresses(&many, 17, false), 65_507);
    check(bytes, &query.addresses(&many, 0, true), 65_535);
    check(bytes, &query.answer(Code::ServerFailure), 512);
    if let Some(ip) = message::reverse_address(&query.name) {
        let _ = names.pointer("b", ip);
    }
    check(bytes, &query.pointer(&query.name), 65_535);
    // What a resolver might say.
    query.is_answered_by(other);
    message::code_of(other);
    let mut changed = other.to_vec();
    message::set_id(&mut changed, query.id);
    assert_eq!(changed.len(), other.len());
});
