//! Random ids.

use rustix::rand::{GetRandomFlags, getrandom};

/// 64 hex digits, as containers, networks, endpoints, execs and anonymous volumes are called.
pub(crate) fn hex64() -> String {
    let mut bytes = [0; 32];
    fill(&mut bytes);
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// An id that is these two's alone, and always the same.
pub(crate) fn of_both(one: &str, other: &str) -> String {
    let digits = one.chars().zip(other.chars());
    let mixed = digits.filter_map(|(a, b)| char::from_digit(a.to_digit(16)? ^ b.to_digit(16)?, 16));
    mixed.collect()
}

/// A random UUID (RFC 9562, version 4).
pub(crate) fn uuid() -> String {
    let mut bytes = [0; 16];
    fill(&mut bytes);
    let number = u128::from_be_bytes(bytes) & !(0xf << 76) & !(0b11 << 62) | (0x4 << 76) | (0b10 << 62);
    let hex = format!("{number:032x}");
    let part = |range| hex.get(range).unwrap_or_default();
    [part(0..8), part(8..12), part(12..16), part(16..20), part(20..32)].join("-")
}

fn fill(bytes: &mut [u8]) {
    // Up to 256 bytes come whole, and cannot fail once the kernel's pool is initialised (getrandom(2)).
    while getrandom(&mut *bytes, GetRandomFlags::empty()).is_err() {}
}

#[cfg(test)]
mod tests {
    #[test]
    fn ids_have_their_form_and_differ() {
        let (id, uuid) = (super::hex64(), super::uuid());
        let other = super::of_both(&id, &super::hex64());
        assert!(other.len() == 64 && other != id, "{other}");
        assert!(id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()) && id != super::hex64());
        let parts: Vec<usize> = uuid.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert_eq!(uuid.as_bytes().get(14), Some(&b'4'));
        assert!(matches!(uuid.as_bytes().get(19), Some(b'8' | b'9' | b'a' | b'b')));
    }
}
