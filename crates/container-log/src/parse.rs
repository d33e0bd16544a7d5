//! One line of a log, read back.

use std::ops::Range;

use crate::entry::Stream;
use crate::escape;

/// A line's fields; its text is in the buffer that [`parse`] was given.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parsed {
    pub(crate) stream: Stream,
    pub(crate) time_ns: i64,
    /// Where in the line the attributes' JSON object stands; empty if there is none.
    pub(crate) attributes: Range<usize>,
}

/// Parses `line` (without its newline) and puts its text into `text`. `None` if it is torn, or not a log entry.
pub(crate) fn parse(line: &[u8], text: &mut Vec<u8>) -> Option<Parsed> {
    text.clear();
    as_written(line, text).or_else(|| {
        text.clear();
        any_json(line, text)
    })
}

/// The time of a line in the form in which it is written, without reading the rest.
pub(crate) fn peek_time(line: &[u8]) -> Option<i64> {
    const KEY: &[u8] = b",\"time\":\"";
    let tail = &line[line.len().saturating_sub(KEY.len() + 40)..];
    let at = tail.windows(KEY.len()).rposition(|window| window == KEY)?;
    wherry_rfc3339::parse(tail[at + KEY.len()..].strip_suffix(b"\"}")?)
}

/// The form that we and dockerd write: fixed order of keys, no spaces.
fn as_written(line: &[u8], text: &mut Vec<u8>) -> Option<Parsed> {
    let mut at = after(line, 0, b"{\"log\":\"")?;
    at += escape::read(line.get(at..)?, text)?;
    at = after(line, at, b"\",\"stream\":\"std")?;
    let stream = match line.get(at..at + 3)? {
        b"out" => Stream::Stdout,
        b"err" => Stream::Stderr,
        _ => return None,
    };
    at = after(line, at + 3, b"\",")?;
    let mut attributes = 0..0;
    if let Some(start) = after(line, at, b"\"attrs\":") {
        let mut object =
            serde_json::Deserializer::from_slice(line.get(start..)?).into_iter::<serde::de::IgnoredAny>();
        object.next()?.ok()?;
        attributes = start..start + object.byte_offset();
        at = after(line, attributes.end, b",")?;
    }
    at = after(line, at, b"\"time\":\"")?;
    let time_ns = wherry_rfc3339::parse(line.get(at..)?.strip_suffix(b"\"}")?)?;
    Some(Parsed { stream, time_ns, attributes })
}

fn after(line: &[u8], at: usize, expected: &[u8]) -> Option<usize> {
    line.get(at..)?.starts_with(expected).then_some(at + expected.len())
}

/// Any other JSON with these keys, as another version or program may have left it.
fn any_json(line: &[u8], text: &mut Vec<u8>) -> Option<Parsed> {
    #[derive(serde::Deserialize)]
    struct Line<'a> {
        #[serde(default)]
        log: String,
        stream: String,
        #[serde(borrow)]
        attrs: Option<&'a serde_json::value::RawValue>,
        time: String,
    }
    let parsed: Line<'_> = serde_json::from_slice(line).ok()?;
    let stream = if parsed.stream == "stderr" { Stream::Stderr } else { Stream::Stdout };
    let attributes = parsed.attrs.map_or(0..0, |raw| {
        // A raw value borrows from the line.
        let start = raw.get().as_ptr().addr() - line.as_ptr().addr();
        start..start + raw.get().len()
    });
    text.extend_from_slice(parsed.log.as_bytes());
    Some(Parsed { stream, time_ns: wherry_rfc3339::parse(parsed.time.as_bytes())?, attributes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expect: Option<(&str, Stream, i64, &str)>) {
        let mut text = Vec::new();
        let parsed = parse(line.as_bytes(), &mut text);
        let got =
            parsed.map(|p| (std::str::from_utf8(&text).unwrap(), p.stream, p.time_ns, &line[p.attributes]));
        assert_eq!(got, expect, "{line}");
    }

    #[test]
    fn reads_the_usual_form() {
        check(
            r#"{"log":"a\n","stream":"stdout","time":"1970-01-01T00:00:01Z"}"#,
            Some(("a\n", Stream::Stdout, 1_000_000_000, "")),
        );
        check(
            r#"{"log":"","stream":"stderr","attrs":{"a":"b\"}"},"time":"1970-01-01T00:00:00.5Z"}"#,
            Some(("", Stream::Stderr, 500_000_000, r#"{"a":"b\"}"}"#)),
        );
    }

    #[test]
    fn reads_other_orders_and_spaces() {
        check(
            r#" {"time":"1970-01-01T00:00:00Z", "attrs": {"x":"y"} ,"stream":"stderr","log":"\t<"}"#,
            Some(("\t<", Stream::Stderr, 0, r#"{"x":"y"}"#)),
        );
    }

    #[test]
    fn refuses_torn_lines() {
        let line = r#"{"log":"a\n","stream":"stdout","attrs":{"k":"v"},"time":"1970-01-01T00:00:01Z"}"#;
        for end in 0..line.len() {
            check(&line[..end], None);
        }
        check(&format!("{}{line}", &line[..20]), None);
    }

    #[test]
    fn peeks_at_the_time() {
        let line = r#"{"log":",\"time\":\"x","stream":"stdout","time":"1970-01-01T00:00:01.000000001Z"}"#;
        assert_eq!(peek_time(line.as_bytes()), Some(1_000_000_001));
        assert_eq!(peek_time(b"{}"), None);
        assert_eq!(peek_time(b""), None);
    }
}
