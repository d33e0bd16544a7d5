//! DNS messages (RFC 1035, RFC 3596, RFC 6891): just enough to read a query and to write an answer. Strangers write
//! what is read here: every access is checked, nothing is followed (queries hold no compressed names), and what is
//! odd is an error.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(crate) const TYPE_A: u16 = 1;
pub(crate) const TYPE_PTR: u16 = 12;
pub(crate) const TYPE_MX: u16 = 15;
pub(crate) const TYPE_AAAA: u16 = 28;
const TYPE_OPT: u16 = 41;
const CLASS_IN: u16 = 1;
/// Seconds that an answer of ours may be kept.
const TTL_SECONDS: u32 = 600;
const HEADER: usize = 12;
/// What fits in a datagram if the asker does not say more.
const SMALLEST_UDP: usize = 512;
/// What we send in a datagram at most: what fits in one of IPv4.
const LARGEST_UDP: usize = 65_507;
/// What we send over TCP at most: its length has two bytes.
const LARGEST_STREAM: usize = 65_535;
/// A name has at most this many bytes in a message.
const LONGEST_NAME: usize = 255;

const FLAG_RESPONSE: u16 = 0x8000;
const FLAG_TRUNCATED: u16 = 0x0200;
const FLAG_RECURSION_DESIRED: u16 = 0x0100;
const FLAG_RECURSION_AVAILABLE: u16 = 0x0080;
const FLAG_CHECKING_DISABLED: u16 = 0x0010;
const OPCODE: u16 = 0x7800;
/// What an answer repeats of the question's flags.
const REPEATED: u16 = OPCODE | FLAG_RECURSION_DESIRED | FLAG_CHECKING_DISABLED;

/// Codes of answers that say nothing about the name: FORMERR, SERVFAIL, NOTIMP, REFUSED (RFC 1035, 4.1.1).
const FAILURES: [u8; 4] = [1, 2, 4, 5];

/// Answer codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// All is well; with no records: the name has none of that type.
    NoError = 0,
    /// The query does not parse.
    FormatError = 1,
    /// Nobody could be asked.
    ServerFailure = 2,
    /// Not a kind of query that we answer.
    NotImplemented = 4,
}

/// A query that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) id: u16,
    /// The flags that answers repeat.
    repeated: u16,
    /// In lower case, without the last dot; bytes that are in no name of ours become NUL.
    pub(crate) name: String,
    pub(crate) kind: u16,
    question: Vec<u8>,
    udp_bytes: usize,
}

/// Why a message is not a query that can be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotAQuery {
    /// Too short or an answer itself: to be ignored.
    Ignore,
    /// To be refused with this code.
    Refuse {
        /// The message's id.
        id: u16,
        /// The flags that answers repeat.
        repeated: u16,
        /// Why.
        code: Code,
    },
}

/// Reads a query. As dockerd does, the class is not looked at, nor are records where none belong.
pub(crate) fn parse(bytes: &[u8]) -> Result<Query, NotAQuery> {
    let word =
        |offset: usize| -> Option<u16> { Some(u16::from_be_bytes(*bytes.get(offset..)?.first_chunk()?)) };
    let (Some(id), Some(flags), Some(_)) = (word(0), word(2), word(10)) else {
        return Err(NotAQuery::Ignore);
    };
    if flags & FLAG_RESPONSE != 0 {
        return Err(NotAQuery::Ignore);
    }
    let repeated = flags & REPEATED;
    if flags & OPCODE != 0 {
        return Err(NotAQuery::Refuse { id, repeated, code: Code::NotImplemented });
    }
    let malformed = NotAQuery::Refuse { id, repeated, code: Code::FormatError };
    if word(4) != Some(1) {
        return Err(malformed);
    }
    let (name, end) = read_name(bytes, HEADER).ok_or(malformed)?;
    let (Some(kind), Some(_class)) = (word(end), word(end + 2)) else { return Err(malformed) };
    let question = bytes.get(HEADER..end + 4).ok_or(malformed)?.to_vec();
    let only_additional = (word(6), word(8)) == (Some(0), Some(0)) && word(10) > Some(0);
    let udp_bytes = if only_additional { udp_bytes(bytes, end + 4) } else { SMALLEST_UDP };
    Ok(Query { id, repeated, name, kind, question, udp_bytes })
}

/// The name at `offset`, and where it ends.
fn read_name(bytes: &[u8], mut offset: usize) -> Option<(String, usize)> {
    let start = offset;
    let mut name = String::new();
    loop {
        let length = usize::from(*bytes.get(offset)?);
        offset += 1;
        // The two highest bits would make it a pointer: not in a query's question.
        if length > 63 || offset + length - start > LONGEST_NAME {
            return None;
        }
        if length == 0 {
            return Some((name, offset));
        }
        if !name.is_empty() {
            name.push('.');
        }
        name.extend(bytes.get(offset..offset + length)?.iter().map(|b| readable(*b)));
        offset += length;
    }
}

/// A byte of a label; what would have to be escaped in text is in no name of ours.
fn readable(byte: u8) -> char {
    match byte {
        b'.' | b'\\' | b'"' | b'\'' | b'(' | b')' | b'@' | b';' => '\0',
        b'!'..=b'~' => char::from(byte.to_ascii_lowercase()),
        _ => '\0',
    }
}

/// How large a datagram the asker takes, from an OPT record if that comes first.
fn udp_bytes(bytes: &[u8], offset: usize) -> usize {
    match bytes.get(offset..).and_then(<[u8]>::first_chunk::<5>) {
        Some(&[0, t1, t2, s1, s2]) if u16::from_be_bytes([t1, t2]) == TYPE_OPT => {
            usize::from(u16::from_be_bytes([s1, s2])).clamp(SMALLEST_UDP, LARGEST_UDP)
        }
        _ => SMALLEST_UDP,
    }
}

/// The address that a reverse look-up asks for (`4.3.2.1.in-addr.arpa`, or 32 digits and `.ip6.arpa`).
pub(crate) fn reverse_address(name: &str) -> Option<IpAddr> {
    if let Some(digits) = name.strip_suffix(".ip6.arpa") {
        let mut parts = digits.split('.').rev();
        let mut bits = 0u128;
        for _ in 0..32 {
            let digit = parts.next().filter(|p| p.len() == 1)?;
            bits = bits << 4 | u128::from(u8::from_str_radix(digit, 16).ok()?);
        }
        return parts.next().is_none().then(|| Ipv6Addr::from(bits).into());
    }
    let mut parts = name.strip_suffix(".in-addr.arpa")?.split('.').rev();
    let mut octet = || parts.next()?.parse::<u8>().ok();
    let ip = Ipv4Addr::new(octet()?, octet()?, octet()?, octet()?);
    parts.next().is_none().then_some(ip.into())
}

impl Query {
    /// An answer without records.
    pub(crate) fn answer(&self, code: Code) -> Vec<u8> {
        self.with_records(code, std::iter::empty::<[u8; 4]>(), LARGEST_STREAM)
    }

    /// Those of the addresses that are of the asked kind, beginning at the one of this number; `stream` answers hold
    /// up to 64 KiB, datagrams what the asker takes.
    pub(crate) fn addresses(&self, addresses: &[IpAddr], first: usize, stream: bool) -> Vec<u8> {
        let limit = if stream { LARGEST_STREAM } else { self.udp_bytes };
        let turned = addresses.iter().cycle().skip(first).take(addresses.len());
        if self.kind == TYPE_AAAA {
            let v6 = turned.filter_map(|ip| if let IpAddr::V6(ip) = ip { Some(ip.octets()) } else { None });
            return self.with_records(Code::NoError, v6, limit);
        }
        let v4 = turned.filter_map(|ip| if let IpAddr::V4(ip) = ip { Some(ip.octets()) } else { None });
        self.with_records(Code::NoError, v4, limit)
    }

    /// The name that belongs to an address.
    pub(crate) fn pointer(&self, name: &str) -> Vec<u8> {
        let mut record = Vec::with_capacity(name.len() + 2);
        for label in name.split('.') {
            if label.is_empty() || label.len() > 63 {
                return self.answer(Code::NoError);
            }
            record.push(label.len() as u8);
            record.extend_from_slice(label.as_bytes());
        }
        record.push(0);
        if record.len() > LONGEST_NAME {
            return self.answer(Code::NoError);
        }
        self.with_records(Code::NoError, std::iter::once(record), LARGEST_STREAM)
    }

    fn with_records<R: AsRef<[u8]>>(
        &self,
        code: Code,
        records: impl Iterator<Item = R>,
        limit: usize,
    ) -> Vec<u8> {
        const NAME_OF_QUESTION: [u8; 2] = [0xc0, HEADER as u8];
        const BEFORE_DATA: usize = 12;
        let mut bytes = Vec::with_capacity(128);
        bytes.extend_from_slice(&[0; HEADER]);
        bytes.extend_from_slice(&self.question);
        let (mut count, mut truncated) = (0, 0);
        for record in records {
            let record = record.as_ref();
            if bytes.len() + BEFORE_DATA + record.len() > limit {
                truncated = FLAG_TRUNCATED;
                break;
            }
            count += 1;
            bytes.extend_from_slice(&NAME_OF_QUESTION);
            bytes.extend_from_slice(&self.kind.to_be_bytes());
            bytes.extend_from_slice(&CLASS_IN.to_be_bytes());
            bytes.extend_from_slice(&TTL_SECONDS.to_be_bytes());
            bytes.extend_from_slice(&(record.len() as u16).to_be_bytes());
            bytes.extend_from_slice(record);
        }
        // A failure says that there was nobody to ask.
        let available = if code == Code::NoError { FLAG_RECURSION_AVAILABLE } else { 0 };
        let flags = FLAG_RESPONSE | available | self.repeated | truncated | code as u16;
        for (place, word) in bytes.chunks_exact_mut(2).zip([self.id, flags, 1, count, 0, 0]) {
            place.copy_from_slice(&word.to_be_bytes());
        }
        bytes
    }

    /// Whether `answer`, which came from a resolver, has this query's question.
    pub(crate) fn is_answered_by(&self, answer: &[u8]) -> bool {
        let Some(flags) = answer.get(2..4).and_then(|b| b.first_chunk()).map(|b| u16::from_be_bytes(*b))
        else {
            return false;
        };
        // Names may come back in other letters; kind and class are two numbers each.
        let same = |question: &[u8]| {
            let (name, kind) = (self.question.split_last_chunk::<4>(), question.split_last_chunk::<4>());
            name.zip(kind).is_some_and(|(own, other)| own.0.eq_ignore_ascii_case(other.0) && own.1 == other.1)
        };
        let question = answer.get(HEADER..HEADER + self.question.len());
        let failed = code_of(answer).is_some_and(|code| FAILURES.contains(&code));
        flags & FLAG_RESPONSE != 0
            && match answer.get(4..6) {
                // A resolver that could not read the question, or would not, sends none back.
                Some([0, 0]) => failed,
                Some([0, 1]) => question.is_some_and(same),
                _ => false,
            }
    }
}

/// An answer to what is not even a query.
pub(crate) fn refusal(id: u16, repeated: u16, code: Code) -> Vec<u8> {
    let flags = FLAG_RESPONSE | repeated | code as u16;
    [id, flags, 0, 0, 0, 0].iter().flat_map(|w| w.to_be_bytes()).collect()
}

/// The code of an answer; `None` if it is too short to have one.
pub(crate) fn code_of(answer: &[u8]) -> Option<u8> {
    answer.get(3).map(|b| b & 0x0f)
}

/// Gives a message another id.
pub(crate) fn set_id(message: &mut [u8], id: u16) {
    if let Some(place) = message.get_mut(..2) {
        place.copy_from_slice(&id.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: u16, extra: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(!extra.is_empty())];
        for label in name.split('.') {
            bytes.push(label.len() as u8);
            bytes.extend_from_slice(label.as_bytes());
        }
        bytes.push(0);
        bytes.extend_from_slice(&kind.to_be_bytes());
        bytes.extend_from_slice(&[0, 1]);
        bytes.extend_from_slice(extra);
        bytes
    }

    #[test]
    fn a_query_is_read_without_regard_to_case() {
        let parsed = parse(&query("Web.Aws-Net", TYPE_AAAA, &[])).unwrap();
        assert_eq!((parsed.id, parsed.name.as_str(), parsed.kind), (0xabcd, "web.aws-net", 28));
        assert_eq!(parsed.udp_bytes, 512);
        let opt = [0, 0, 41, 0x10, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(parse(&query("a", TYPE_A, &opt)).unwrap().udp_bytes, 4096);
        assert_eq!(parse(&query("a b/c", TYPE_A, &[])).unwrap().name, "a\0b/c");
    }

    #[test]
    fn answers_have_the_question_the_records_and_the_flags() {
        let parsed = parse(&query("web", TYPE_A, &[])).unwrap();
        let answer =
            parsed.addresses(&[Ipv4Addr::new(172, 18, 0, 2).into(), Ipv6Addr::LOCALHOST.into()], 0, false);
        let expect = [
            &[0xab, 0xcd, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0][..],
            b"\x03web\0\0\x01\0\x01",
            &[0xc0, 12, 0, 1, 0, 1, 0, 0, 2, 88, 0, 4, 172, 18, 0, 2],
        ]
        .concat();
        assert_eq!(answer, expect);
        assert!(parsed.is_answered_by(&answer));
        assert!(!parsed.is_answered_by(&query("web", TYPE_A, &[])), "a query is no answer");
        let check = |change: &dyn Fn(&mut Vec<u8>), expect: bool| {
            let mut changed = answer.clone();
            change(&mut changed);
            assert_eq!(parsed.is_answered_by(&changed), expect, "{changed:?}");
        };
        check(&|a| a[13..16].make_ascii_uppercase(), true);
        check(&|a| a[13] = b'x', false);
        check(&|a| a[18] = 28, false);
        check(&|a| a[5] = 2, false);
        check(&|a| a.truncate(15), false);
        check(&|a| a[5] = 0, false);
        check(&|a| (a[3], a[5]) = (0x83, 0), false);
        check(&|a| (a[3], a[5]) = (0x85, 0), true);
        // 65 and 97 are one letter in two cases, and two kinds.
        let https = parse(&query("web", 65, &[])).unwrap();
        assert!(!https.is_answered_by(&parse(&query("web", 97, &[])).unwrap().answer(Code::NoError)));
        assert_eq!(parsed.answer(Code::ServerFailure)[..4], [0xab, 0xcd, 0x81, 0x02]);
        let v6 = parse(&query("web", TYPE_AAAA, &[])).unwrap();
        let answer = v6.addresses(&[Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()], 0, false);
        assert_eq!((answer[7], answer.len()), (1, 12 + 9 + 12 + 16), "only those of its kind");
        assert_eq!(v6.addresses(&[Ipv4Addr::LOCALHOST.into()], 0, false), v6.answer(Code::NoError));
        // Checking disabled is repeated, authentic data is not.
        let mut flagged = query("web", TYPE_A, &[]);
        flagged[3] = 0x30;
        assert_eq!(parse(&flagged).unwrap().answer(Code::NoError)[2..4], [0x81, 0x90]);
    }

    #[test]
    fn what_does_not_fit_a_datagram_is_marked() {
        let parsed = parse(&query("web", TYPE_A, &[])).unwrap();
        let many = [IpAddr::V4(Ipv4Addr::LOCALHOST); 100];
        let answer = parsed.addresses(&many, 7, false);
        assert!(answer.len() <= 512 && answer[2] & 2 != 0);
        assert_eq!(usize::from(answer[7]), (512 - 12 - 9) / 16);
        let whole = parsed.addresses(&many, 0, true);
        assert_eq!((whole[7], whole[2] & 2), (100, 0));
    }

    #[test]
    fn pointers() {
        let parsed = parse(&query("2.0.18.172.in-addr.arpa", TYPE_PTR, &[])).unwrap();
        assert_eq!(reverse_address(&parsed.name), Some(IpAddr::from([172, 18, 0, 2])));
        let v6 = "2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.7.7.d.f.ip6.arpa";
        assert_eq!(reverse_address(v6), "fd77::2".parse().ok());
        assert_eq!(reverse_address(&v6[2..]), None);
        assert_eq!(reverse_address(&format!("1.{v6}")), None);
        assert!(parsed.pointer("es.aws-net").ends_with(b"\x00\x0c\x02es\x07aws-net\x00"));
        assert_eq!(parsed.pointer(&"x".repeat(64))[7], 0, "a name that cannot be written is left out");
        for name in ["172.in-addr.arpa", "1.2.3.4.5.in-addr.arpa", "a.2.3.4.in-addr.arpa", "es"] {
            assert_eq!(reverse_address(name), None, "{name}");
        }
    }

    #[test]
    fn hostile_messages_are_refused_or_ignored() {
        #[track_caller]
        fn check(bytes: &[u8], expect: NotAQuery) {
            assert_eq!(parse(bytes), Err(expect));
        }
        let refuse = |repeated, code| NotAQuery::Refuse { id: 0xabcd, repeated, code };
        let malformed = refuse(0x100, Code::FormatError);
        let good = query("web", TYPE_A, &[]);
        check(&[], NotAQuery::Ignore);
        check(&good[..11], NotAQuery::Ignore);
        for end in 12..good.len() {
            check(&good[..end], malformed);
        }
        let with = |offset: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[offset] = byte;
            bytes
        };
        check(&with(2, 0x81), NotAQuery::Ignore);
        check(&with(2, 0x29), refuse(0x2900, Code::NotImplemented));
        check(&with(5, 2), malformed);
        check(&with(12, 0xc0), malformed);
        check(&with(12, 200), malformed);
        check(&query(&["x".repeat(60).as_str(); 5].join("."), TYPE_A, &[]), malformed);
    }

    #[test]
    fn no_input_makes_it_panic() {
        // A small generator of our own: the same inputs each time.
        let mut state = 0x9e37_79b9_7f4a_7c15u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let seed = query("web.aws-net", TYPE_A, &[0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0]);
        for _ in 0..200_000 {
            let mut bytes = seed.clone();
            for _ in 0..next() % 6 {
                let at = next() as usize % bytes.len();
                bytes[at] = next() as u8;
            }
            bytes.truncate(next() as usize % (bytes.len() + 1));
            if let Ok(parsed) = parse(&bytes) {
                assert!(parsed.name.len() <= LONGEST_NAME);
                parsed.addresses(&[IpAddr::V4(Ipv4Addr::LOCALHOST); 3], 1, false);
                parsed.is_answered_by(&bytes);
                reverse_address(&parsed.name);
            }
        }
    }
}
