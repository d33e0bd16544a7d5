//! The stream of JSON messages by which dockerd tells of progress, byte for byte.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Serialize;
use tokio::sync::mpsc;
use wherry_image_ref::Digest;

use crate::text::go_json;

/// Between two messages about the same thing that are not its last.
const INTERVAL: Duration = Duration::from_millis(100);
/// The most bytes between two such messages.
const STEP_BYTES: u64 = 512 << 10;

/// One message; what is empty is left out.
#[derive(Debug, Default, Serialize)]
struct Message<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a str>,
    #[serde(rename = "progressDetail", skip_serializing_if = "Option::is_none")]
    detail: Option<Detail>,
    #[serde(skip_serializing_if = "Option::is_none")]
    progress: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(rename = "errorDetail", skip_serializing_if = "Option::is_none")]
    error_detail: Option<ErrorDetail<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aux: Option<serde_json::Value>,
}

#[derive(Debug, Default, Serialize)]
struct Detail {
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
}

#[derive(Debug, Serialize)]
struct ErrorDetail<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<i32>,
    message: &'a str,
}

/// `{"stream":…}`: a line for the user.
pub(crate) fn stream(text: &str) -> Bytes {
    render(&Message { stream: Some(text), ..Message::default() })
}

/// `{"status":…}`, with the id of what it is about.
pub(super) fn status(text: &str, id: Option<&str>) -> Bytes {
    render(&Message { status: Some(text), id, ..Message::default() })
}

/// `{"status":…,"progressDetail":{},"id":…}`: a state of a layer without numbers.
pub(super) fn state(text: &str, id: &str) -> Bytes {
    render(&Message {
        status: Some(text),
        detail: Some(Detail::default()),
        id: Some(id),
        ..Message::default()
    })
}

/// A layer's state with numbers, in bytes, and the bar that old clients print.
pub(super) fn progress(text: &str, id: &str, current: u64, total: u64) -> Bytes {
    let known = |n: u64| (n > 0).then_some(n);
    render(&Message {
        status: Some(text),
        detail: Some(Detail { current: known(current), total: known(total) }),
        progress: Some(bar(current, total)),
        id: Some(id),
        ..Message::default()
    })
}

/// `{"progressDetail":{},"aux":…}`: what a push made, for programs.
pub(super) fn pushed(tag: &str, digest: &Digest, size: usize) -> Bytes {
    let aux = serde_json::json!({ "Tag": tag, "Digest": digest, "Size": size });
    render(&Message { detail: Some(Detail::default()), aux: Some(aux), ..Message::default() })
}

/// `{"aux":{"ID":…}}`: an image that a build made, for programs.
pub(crate) fn built(id: &str) -> Bytes {
    render(&Message { aux: Some(serde_json::json!({ "ID": id })), ..Message::default() })
}

/// The end of a stream that failed.
pub(super) fn error(message: &str) -> Bytes {
    failed_build(message, None)
}

/// The end of a build that failed; with the exit code of the program that made it fail.
pub(crate) fn failed_build(message: &str, code: Option<i32>) -> Bytes {
    let detail = ErrorDetail { code, message };
    render(&Message { error_detail: Some(detail), error: Some(message), ..Message::default() })
}

/// As Go's encoder; `\r\n` ends a message.
fn render(message: &Message<'_>) -> Bytes {
    let mut text = go_json(message);
    text.push_str("\r\n");
    text.into()
}

/// `[=====>   ]  1.2MB/3.4MB`.
fn bar(current: u64, total: u64) -> String {
    if total == 0 {
        return if current == 0 { String::new() } else { format!("{:>8}", human_size(current)) };
    }
    let done = ((current as f64 / total as f64 * 100.0) as usize / 2).min(50);
    let (arrow, rest) = ("=".repeat(done), " ".repeat(50 - done));
    if current > total {
        return format!("[{arrow}>{rest}] {:>8}", human_size(current));
    }
    format!("[{arrow}>{rest}] {:>8}/{}", human_size(current), human_size(total))
}

/// Bytes in decimal units with four significant digits, as Docker prints them: `1.984MB`.
fn human_size(bytes: u64) -> String {
    let mut size = bytes as f64;
    let mut units = ["B", "kB", "MB", "GB", "TB", "PB", "EB"].iter().peekable();
    while size >= 1000.0 && units.len() > 1 {
        size /= 1000.0;
        units.next();
    }
    let digits = match size {
        s if s >= 1000.0 => 0,
        s if s >= 100.0 => 1,
        s if s >= 10.0 => 2,
        _ => 3,
    };
    let mut number = format!("{size:.digits$}");
    if number.contains('.') {
        number = number.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    format!("{number}{}", units.next().unwrap_or(&"B"))
}

/// The receiving end of messages: a client that may go at any time.
#[derive(Debug, Clone)]
pub(super) struct Client(pub(super) mpsc::Sender<Bytes>);

impl Client {
    /// Sends from blocking code. A client that has gone is no error here; see [`Self::is_gone`].
    pub(super) fn tell(&self, message: Bytes) {
        let _ = self.0.blocking_send(message);
    }

    /// Whether nobody listens any more.
    pub(super) fn is_gone(&self) -> bool {
        self.0.is_closed()
    }
}

/// Lets a message of a kind pass every 100 ms.
#[derive(Debug, Default)]
pub(super) struct Pace {
    sent: Option<Instant>,
    /// Bytes when [`Self::allows_bytes`] last looked at the clock.
    seen: u64,
}

impl Pace {
    /// Whether a message may be sent now; the last one of a series always may.
    pub(super) fn allows(&mut self, last: bool) -> bool {
        let due = self.sent.is_none_or(|sent| sent.elapsed() >= INTERVAL);
        if due {
            self.sent = Some(Instant::now());
        }
        due || last
    }

    /// As [`Self::allows`], and not before another percent or half a MiB, whichever is less, as with dockerd.
    pub(super) fn allows_bytes(&mut self, current: u64, total: u64) -> bool {
        let step = (total / 100).min(STEP_BYTES);
        let step = if total == 0 { STEP_BYTES } else { step };
        let moved = current.saturating_sub(self.seen) > step;
        if moved {
            self.seen = current;
        }
        current == total || (moved && self.allows(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_dockerds() {
        let check = |message: Bytes, expect: &str| {
            assert_eq!(message, format!("{expect}\r\n"));
        };
        check(stream("Loaded image: <a>\n"), r#"{"stream":"Loaded image: \u003ca\u003e\n"}"#);
        check(
            status("Pulling from library/busybox", Some("latest")),
            r#"{"status":"Pulling from library/busybox","id":"latest"}"#,
        );
        check(
            state("Pull complete", "0011"),
            r#"{"status":"Pull complete","progressDetail":{},"id":"0011"}"#,
        );
        check(error("no"), r#"{"errorDetail":{"message":"no"},"error":"no"}"#);
        check(
            progress("Loading layer", "14b0735e9a09", 557_056, 75_888_640),
            "{\"status\":\"Loading layer\",\"progressDetail\":{\"current\":557056,\"total\":75888640},\"progress\":\"[\\u003e                                                  ]  557.1kB/75.89MB\",\"id\":\"14b0735e9a09\"}",
        );
    }

    #[test]
    fn progress_is_told_in_steps() {
        let mut pace = Pace::default();
        assert!(!pace.allows_bytes(1000, 1_000_000));
        assert!(pace.allows_bytes(10_001, 1_000_000));
        assert!(!pace.allows_bytes(20_100, 1_000_000), "too soon");
        assert!(pace.allows_bytes(1_000_000, 1_000_000), "the end always");
    }

    #[test]
    fn sizes_have_four_digits() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1_984_363, "1.984MB"),
            (140_599_052, "140.6MB"),
            (10_584_064, "10.58MB"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
    }
}
