//! netd's protocol: whatever comes in at the socket is a request or refused, and a request that is read is written and
//! read again as the same. The first byte says whether the rest is a stream of frames or one frame's body.
#![no_main]

use std::io::Write;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use libfuzzer_sys::fuzz_target;
use wherry_netd::protocol::{Reply, Request};

/// More than fits in the socket's buffer would wait for a reader.
const MOST: usize = 64 << 10;

fuzz_target!(|bytes: &[u8]| {
    let Some((first, rest)) = bytes.split_first() else { return };
    let rest = &rest[..rest.len().min(MOST)];
    if first % 2 == 1 {
        if let Ok(reply) = serde_json::from_slice::<Reply>(rest) {
            let text = serde_json::to_string(&reply).expect("a reply is written");
            serde_json::from_str::<Reply>(&text).expect("and read");
        }
    }
    let (mut sending, receiving) = UnixStream::pair().expect("a pair of sockets");
    if first % 2 == 1 {
        sending.write_all(&[&(rest.len() as u32).to_le_bytes()[..], &[0]].concat()).expect("write a header");
    }
    sending.write_all(rest).expect("write");
    sending.shutdown(Shutdown::Write).expect("end");
    let mut frames = wherry_ipc::Frames::default();
    loop {
        match frames.message::<Request>() {
            Ok(Some((request, descriptors))) => {
                assert!(descriptors.is_empty());
                let text = serde_json::to_string(&request).expect("a request is written");
                let again: Request = serde_json::from_str(&text).expect("and read");
                assert_eq!(serde_json::to_string(&again).expect("and written"), text);
            }
            Ok(None) => {
                if frames.fill(receiving.as_fd()).is_err() {
                    return;
                }
            }
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return;
            }
        }
    }
});
