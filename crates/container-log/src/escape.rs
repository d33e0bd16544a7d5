//! JSON strings as Docker's json-file driver writes and reads them.

/// How a byte is written: 0 as it is, `U` as \u00XX, `M` part of a longer character, else behind a backslash.
const ESCAPES: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 0x20 {
        table[byte] = b'U';
        byte += 1;
    }
    table[b'\n' as usize] = b'n';
    table[b'\r' as usize] = b'r';
    table[b'"' as usize] = b'"';
    table[b'\\' as usize] = b'\\';
    table[b'<' as usize] = b'U';
    table[b'>' as usize] = b'U';
    table[b'&' as usize] = b'U';
    // U+2028 and U+2029, the line separators of JavaScript, begin with this byte.
    table[0xe2] = b'M';
    table
};

/// Appends `text` as the inside of a JSON string, exactly as dockerd does: Go's HTML-safe escapes,
/// `\t` as `\u0009`, and each byte that is not UTF-8 as `\ufffd`.
pub(crate) fn write(text: &[u8], out: &mut Vec<u8>) {
    // The whole is nearly always valid, and checking that is far faster than looking for the parts.
    if std::str::from_utf8(text).is_ok() {
        return write_valid(text, out);
    }
    for chunk in text.utf8_chunks() {
        write_valid(chunk.valid().as_bytes(), out);
        for _ in chunk.invalid() {
            out.extend_from_slice(b"\\ufffd");
        }
    }
}

fn write_valid(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    while let Some(at) = rest.iter().position(|&b| ESCAPES[usize::from(b)] != 0) {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain);
        let byte = special[0];
        let mut length = 1;
        match ESCAPES[usize::from(byte)] {
            b'U' => out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(byte >> 4), hex(byte & 15)]),
            b'M' => match special {
                [_, 0x80, last @ (0xa8 | 0xa9), ..] => {
                    out.extend_from_slice(if *last == 0xa8 { b"\\u2028" } else { b"\\u2029" });
                    length = 3;
                }
                _ => out.push(byte),
            },
            letter => out.extend_from_slice(&[b'\\', letter]),
        }
        rest = &special[length..];
    }
    out.extend_from_slice(rest);
}

fn hex(digit: u8) -> u8 {
    b"0123456789abcdef"[usize::from(digit & 15)]
}

/// Appends the text of the JSON string whose inside begins at `json`, and returns the length of that
/// inside, without the closing quote. `None` if it is not one.
pub(crate) fn read(json: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    let mut at = 0;
    loop {
        let rest = json.get(at..)?;
        let stop = memchr::memchr2(b'"', b'\\', rest)?;
        out.extend_from_slice(&rest[..stop]);
        at += stop;
        if rest[stop] == b'"' {
            return Some(at);
        }
        at += read_escape(&rest[stop..], out)?;
    }
}

/// Decodes the escape at the start of `json`; returns its length.
fn read_escape(json: &[u8], out: &mut Vec<u8>) -> Option<usize> {
    let byte = match json.get(1)? {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'f' => 12,
        plain @ (b'"' | b'\\' | b'/') => *plain,
        b'u' => {
            let (character, length) = read_unicode(json)?;
            out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
            return Some(length);
        }
        _ => return None,
    };
    out.push(byte);
    Some(2)
}

fn read_unicode(json: &[u8]) -> Option<(char, usize)> {
    let first = code_unit(json)?;
    if let Some(character) = char::from_u32(first) {
        return Some((character, 6));
    }
    let second = code_unit(json.get(6..)?)
        .filter(|second| (0xd800..0xdc00).contains(&first) && (0xdc00..0xe000).contains(second));
    Some(match second {
        Some(second) => (char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00))?, 12),
        None => (char::REPLACEMENT_CHARACTER, 6),
    })
}

fn code_unit(json: &[u8]) -> Option<u32> {
    let [b'\\', b'u', digits @ ..] = json.get(..6)? else { return None };
    digits.iter().try_fold(0, |value, &digit| Some(value << 4 | char::from(digit).to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &[u8]) -> String {
        let mut out = Vec::new();
        write(text, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn escapes_as_dockerd_does() {
        // Recorded from dockerd 28.5.2.
        for (text, expect) in [
            (&b"\x01\x08\t\n\x0b\x0c\r\x1f"[..], r"\u0001\u0008\u0009\n\u000b\u000c\r\u001f"),
            (b"a\0 !\"\\/'\x7f", "a\\u0000 !\\\"\\\\/'\x7f"),
            (b"<>&", r"\u003c\u003e\u0026"),
            ("\u{2028}\u{2029}\u{202a}é😀".as_bytes(), "\\u2028\\u2029\u{202a}é😀"),
            (b"\xed\xa0\x80 \xff\xfe \xe2\x82 z", r"\ufffd\ufffd\ufffd \ufffd\ufffd \ufffd\ufffd z"),
            (b"\xe2", r"\ufffd"),
        ] {
            assert_eq!(written(text), expect);
        }
    }

    #[test]
    fn reads_every_escape_of_json() {
        let mut out = Vec::new();
        let json = br#"a\b\f\n\r\t\"\\\/\u00e9\ud83d\ude00\ud83dx\ude00"rest"#;
        assert_eq!(read(json, &mut out), Some(json.len() - 5));
        assert_eq!(out, "a\u{8}\u{c}\n\r\t\"\\/é😀\u{fffd}x\u{fffd}".as_bytes());
        for bad in [&b"abc"[..], br"\q", br#"\u12"#, br#"\u12g4""#, br"\", br"\u123"] {
            assert_eq!(read(bad, &mut Vec::new()), None);
        }
    }
}
