//! The WebSocket protocol (RFC 6455), as far as a byte stream needs it: the handshake, what clients send taken apart,
//! and what they get put together. Refusals are worded as dockerd's library words them.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::{HeaderMap, StatusCode};
use sha1::{Digest, Sha1};

use super::response::render_head;

/// Joined to the client's key, of RFC 6455.
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// What pings, pongs and closings may carry.
const MAX_CONTROL: usize = 125;
const FINAL: u8 = 0x80;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

/// The status of an orderly end.
pub(crate) const NORMAL: u16 = 1000;
/// The status for a client that does not keep to the protocol.
pub(crate) const PROTOCOL_ERROR: u16 = 1002;

/// How the data of a message is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// As text.
    Text = 1,
    /// As bytes.
    Binary = 2,
}

/// The head that answers a handshake: 101, or a refusal with its text.
///
/// # Errors
/// The whole answer to a request that is no handshake.
pub(crate) fn accept(headers: &HeaderMap) -> Result<Vec<u8>, Vec<u8>> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let refuse = |more: &[(&str, &str)], text: &str| {
        let mut answer = render_head(StatusCode::BAD_REQUEST, "Bad Request", more);
        answer.extend_from_slice(text.as_bytes());
        answer
    };
    let upgrades = header("connection").to_ascii_lowercase().contains("upgrade");
    if !upgrades || !header("upgrade").eq_ignore_ascii_case("websocket") {
        return Err(refuse(&[], "not websocket protocol"));
    }
    let key = header("sec-websocket-key");
    if key.is_empty() {
        return Err(refuse(&[], "mismatch challenge/response"));
    }
    if header("sec-websocket-version") != "13" {
        return Err(refuse(&[("Sec-WebSocket-Version", "13")], "missing or bad WebSocket Version"));
    }
    let proof = BASE64_STANDARD.encode(Sha1::digest(format!("{key}{GUID}")));
    let mut answer =
        vec![("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", proof.as_str())];
    let protocols: Vec<&str> =
        header("sec-websocket-protocol").split(',').map(str::trim).filter(|p| !p.is_empty()).collect();
    match protocols.as_slice() {
        [] => {}
        [one] => answer.push(("Sec-WebSocket-Protocol", one)),
        // Nobody here could choose between them.
        _ => return Err(refuse(&[], "")),
    }
    Ok(render_head(StatusCode::SWITCHING_PROTOCOLS, "Switching Protocols", &answer))
}

/// A frame of data.
pub(crate) fn data(kind: Kind, bytes: &[u8]) -> Vec<u8> {
    frame(kind as u8, bytes)
}

/// A frame that ends the conversation.
pub(crate) fn close(status: u16) -> Vec<u8> {
    frame(CLOSE, &status.to_be_bytes())
}

/// The answer to a ping.
pub(crate) fn pong(bytes: &[u8]) -> Vec<u8> {
    frame(PONG, bytes)
}

fn frame(opcode: u8, bytes: &[u8]) -> Vec<u8> {
    let mut frame = vec![FINAL | opcode];
    match bytes.len() {
        short @ 0..=125 => frame.push(short as u8),
        middle @ 126..=0xffff => {
            frame.push(126);
            frame.extend_from_slice(&(middle as u16).to_be_bytes());
        }
        long => {
            frame.push(127);
            frame.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(bytes);
    frame
}

/// What a client has said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// A piece of a message.
    Data(Vec<u8>),
    /// It wants a pong with these bytes.
    Ping(Vec<u8>),
    /// It ends the conversation.
    Close,
}

/// The client does not keep to the protocol.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a malformed websocket frame")]
pub(crate) struct Malformed;

/// Takes apart what a client sends, whatever the pieces in which it arrives. Data is passed on as it comes, so that the
/// length of a frame does not matter.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    pending: Vec<u8>,
    current: Option<Current>,
}

/// The frame whose payload is being read.
#[derive(Debug)]
struct Current {
    opcode: u8,
    mask: [u8; 4],
    at: usize,
    left: u64,
}

impl Decoder {
    /// Adds what has arrived.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// What comes next; `None` where more must arrive first.
    ///
    /// # Errors
    /// [`Malformed`] for frames that clients must not send.
    pub(crate) fn next(&mut self) -> Result<Option<Said>, Malformed> {
        loop {
            if self.current.is_none() && !self.begin()? {
                return Ok(None);
            }
            let Some(frame) = &mut self.current else { return Ok(None) };
            let control = frame.opcode >= CLOSE;
            let take = self.pending.len().min(usize::try_from(frame.left).unwrap_or(usize::MAX));
            if control && (take as u64) < frame.left || take == 0 && frame.left > 0 {
                return Ok(None);
            }
            let mut payload: Vec<u8> = self.pending.drain(..take).collect();
            for byte in &mut payload {
                *byte ^= frame.mask[frame.at % 4];
                frame.at += 1;
            }
            frame.left -= take as u64;
            let opcode = frame.opcode;
            if frame.left == 0 {
                self.current = None;
            }
            match opcode {
                CLOSE => return Ok(Some(Said::Close)),
                PING => return Ok(Some(Said::Ping(payload))),
                PONG => {}
                _ if payload.is_empty() => {}
                _ => return Ok(Some(Said::Data(payload))),
            }
        }
    }

    /// Reads a frame's header; false where it is not all there.
    fn begin(&mut self) -> Result<bool, Malformed> {
        let (&[first, second], rest) = match self.pending.split_first_chunk::<2>() {
            Some(split) => split,
            None => return Ok(false),
        };
        let (opcode, masked) = (first & OPCODE, second & MASKED != 0);
        let (left, rest) = match second & !MASKED {
            126 => match rest.split_first_chunk::<2>() {
                Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
                None => return Ok(false),
            },
            127 => match rest.split_first_chunk::<8>() {
                Some((length, rest)) => (u64::from_be_bytes(*length), rest),
                None => return Ok(false),
            },
            short => (u64::from(short), rest),
        };
        if !masked || opcode >= CLOSE && (left > MAX_CONTROL as u64 || first & FINAL == 0) {
            return Err(Malformed);
        }
        let Some((mask, rest)) = rest.split_first_chunk::<4>() else { return Ok(false) };
        let (mask, header) = (*mask, self.pending.len() - rest.len());
        self.pending.drain(..header);
        self.current = Some(Current { opcode, mask, at: 0, left });
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(first: u8, bytes: &[u8]) -> Vec<u8> {
        let mut frame = frame(0, bytes);
        frame[0] = first;
        frame[1] |= MASKED;
        let mask = [1, 2, 3, 4];
        let body = frame.split_off(frame.len() - bytes.len());
        frame.extend_from_slice(&mask);
        frame.extend(body.iter().enumerate().map(|(i, b)| b ^ mask[i % 4]));
        frame
    }

    fn all(decoder: &mut Decoder) -> Vec<Said> {
        std::iter::from_fn(|| decoder.next().unwrap()).collect()
    }

    #[test]
    fn frames_are_read_whatever_the_pieces() {
        let long = vec![7; 70_000];
        let stream = [
            sent(0x01, b"he"),
            sent(0x89, b"p"),
            sent(0x80, b"llo"),
            sent(0x8a, b""),
            sent(0x82, &long),
            sent(0x88, b""),
        ]
        .concat();
        let mut whole = Decoder::default();
        whole.push(&stream);
        let expect = [
            Said::Data(b"he".to_vec()),
            Said::Ping(b"p".to_vec()),
            Said::Data(b"llo".to_vec()),
            Said::Data(long.clone()),
            Said::Close,
        ];
        assert_eq!(all(&mut whole), expect);
        let (mut slow, mut data) = (Decoder::default(), Vec::new());
        for byte in &stream {
            slow.push(&[*byte]);
            for said in all(&mut slow) {
                if let Said::Data(bytes) = said {
                    data.extend(bytes);
                }
            }
        }
        assert_eq!(data, [b"hello".to_vec(), long].concat());
    }

    #[test]
    fn what_clients_must_not_send_is_malformed() {
        for bytes in [&b"\x81\x01x"[..], &sent(0x89, &[0; 126]), &sent(0x08, b"")] {
            let mut decoder = Decoder::default();
            decoder.push(bytes);
            assert_eq!(decoder.next(), Err(Malformed));
        }
    }

    #[test]
    fn handshakes_of_the_specification() {
        let mut headers = HeaderMap::new();
        let refused = |headers: &HeaderMap| String::from_utf8(accept(headers).unwrap_err()).unwrap();
        assert_eq!(refused(&headers), "HTTP/1.1 400 Bad Request\r\n\r\nnot websocket protocol");
        headers.insert("connection", "keep-alive, Upgrade".parse().unwrap());
        headers.insert("upgrade", "WebSocket".parse().unwrap());
        assert!(refused(&headers).ends_with("mismatch challenge/response"));
        headers.insert("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==".parse().unwrap());
        assert!(refused(&headers).ends_with("Version: 13\r\n\r\nmissing or bad WebSocket Version"));
        headers.insert("sec-websocket-version", "13".parse().unwrap());
        let head = String::from_utf8(accept(&headers).unwrap()).unwrap();
        assert!(head.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
    }
}
