//! Hashing and decompressing in one thread, writing files in another: with two processors a layer
//! takes as long as the slower of both, not their sum.

use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use wherry_image_ref::{Digest, Hasher};

use super::{UnpackError, decompress};
use crate::tar::TarError;

const BUFFER_BYTES: usize = 256 << 10;
/// Buffers under way between the threads.
const DEPTH: usize = 4;
/// Gzip compresses to 1/1032 at best. Zstd can do more, but nobody's files do.
const MAX_RATIO: u64 = 2000;
/// Below this many bytes any ratio is fine.
const RATIO_FREE_BYTES: u64 = 1 << 30;

/// What was read from a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Totals {
    /// Digest and length of the stream as it came.
    pub(crate) blob: (Digest, u64),
    /// Digest and length of the uncompressed bytes.
    pub(crate) plain: (Digest, u64),
}

/// Reads `stream` to its end, and has `consume` read it decompressed.
pub(crate) fn run<T>(
    stream: impl Read + Send,
    consume: impl FnOnce(Plain) -> Result<T, UnpackError>,
) -> Result<(T, Totals), UnpackError> {
    std::thread::scope(|scope| {
        let (full_sender, full) = sync_channel(DEPTH);
        let (empty, empty_receiver) = channel();
        let produce = move || produce(stream, &full_sender, &empty_receiver);
        let producer = std::thread::Builder::new()
            .name("inflate".into())
            .spawn_scoped(scope, produce)
            .map_err(TarError::Read)?;
        let consumed = consume(Plain { full, empty, current: Vec::new(), at: 0 });
        match producer.join() {
            // What the producer failed with is the cause of what the consumer saw.
            Ok(Err(Some(error))) => Err(error),
            Ok(Ok(totals)) => Ok((consumed?, totals)),
            Ok(Err(None)) | Err(_) => match consumed {
                Err(error) => Err(error),
                Ok(_) => Err(TarError::Truncated.into()),
            },
        }
    })
}

/// Fails with `None` when the consumer has gone.
fn produce(
    stream: impl Read + Send,
    full: &SyncSender<Vec<u8>>,
    empty: &Receiver<Vec<u8>>,
) -> Result<Totals, Option<UnpackError>> {
    let failed = |error| Some(UnpackError::Tar(TarError::Read(error)));
    let consumed = AtomicU64::new(0);
    let mut blob = Counted { stream, hasher: Hasher::default(), bytes: &consumed };
    let (mut hasher, mut bytes) = (Hasher::default(), 0_u64);
    let mut plain = decompress(&mut blob).map_err(failed)?;
    loop {
        let mut buffer = empty.try_recv().unwrap_or_else(|_| vec![0; BUFFER_BYTES]);
        buffer.resize(BUFFER_BYTES, 0);
        let filled = fill(&mut plain, &mut buffer).map_err(failed)?;
        buffer.truncate(filled);
        if filled == 0 {
            break;
        }
        hasher.update(&buffer);
        bytes += filled as u64;
        if bytes > RATIO_FREE_BYTES && bytes / MAX_RATIO > consumed.load(Ordering::Relaxed) {
            return Err(Some(UnpackError::Bomb { limit: MAX_RATIO }));
        }
        full.send(buffer).map_err(|_| None)?;
    }
    drop(plain);
    io::copy(&mut blob, &mut io::sink()).map_err(failed)?;
    Ok(Totals {
        blob: (blob.hasher.finish(), consumed.load(Ordering::Relaxed)),
        plain: (hasher.finish(), bytes),
    })
}

/// Reads until the buffer is full or the source ends.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match source.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// Hashes and counts what is read through it.
struct Counted<'a, R> {
    stream: R,
    hasher: Hasher,
    /// Shared with the one who watches the ratio while a decompressor holds the rest.
    bytes: &'a AtomicU64,
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.stream.read(buffer)?;
        self.hasher.update(buffer.get(..read).unwrap_or_default());
        self.bytes.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

/// The uncompressed bytes, as the consumer reads them.
#[derive(Debug)]
pub(crate) struct Plain {
    full: Receiver<Vec<u8>>,
    empty: Sender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
}

impl Read for Plain {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.current.len() {
            let Ok(next) = self.full.recv() else { return Ok(0) };
            // If the producer has ended, nobody needs it.
            let _ = self.empty.send(std::mem::replace(&mut self.current, next));
            self.at = 0;
        }
        let rest = self.current.get(self.at..).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..read), rest.get(..read)) {
            to.copy_from_slice(from);
        }
        self.at += read;
        Ok(read)
    }
}
