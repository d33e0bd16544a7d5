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

/// What became of a stream.
#[derive(Debug)]
pub(crate) struct Outcome<T> {
    /// What the consumer made of it, or why it could not.
    pub(crate) result: Result<T, UnpackError>,
    /// Digest and length of the stream as it came, if it came to its end: also when its content was
    /// no good, because a wrong digest explains that.
    pub(crate) blob: Option<(Digest, u64)>,
    /// Digest and length of the uncompressed bytes; means something if there is a result.
    pub(crate) plain: (Digest, u64),
}

/// Reads `stream` to its end, and has `consume` read it decompressed.
pub(crate) fn run<T>(
    stream: impl Read + Send,
    consume: impl FnOnce(Plain) -> Result<T, UnpackError>,
) -> Outcome<T> {
    std::thread::scope(|scope| {
        let (full_sender, full) = sync_channel(DEPTH);
        let (empty, empty_receiver) = channel();
        let produce = move || produce(stream, &full_sender, &empty_receiver);
        let producer = std::thread::Builder::new().name("inflate".into()).spawn_scoped(scope, produce);
        let producer = match producer {
            Ok(producer) => producer,
            Err(error) => return Outcome::failed(TarError::Read(error).into()),
        };
        let consumed = consume(Plain { full, empty, current: Vec::new(), at: 0 });
        let Ok(produced) = producer.join() else { return Outcome::failed(TarError::Truncated.into()) };
        // What the producer failed with is the cause of what the consumer saw.
        let result = produced.error.map_or(consumed, Err);
        Outcome { result, blob: produced.blob, plain: produced.plain }
    })
}

impl<T> Outcome<T> {
    fn failed(error: UnpackError) -> Self {
        Self { result: Err(error), blob: None, plain: (Digest::of(b""), 0) }
    }
}

struct Produced {
    error: Option<UnpackError>,
    blob: Option<(Digest, u64)>,
    plain: (Digest, u64),
}

fn produce(stream: impl Read + Send, full: &SyncSender<Vec<u8>>, empty: &Receiver<Vec<u8>>) -> Produced {
    let consumed = AtomicU64::new(0);
    let mut blob = Counted { stream, hasher: Hasher::default(), bytes: &consumed };
    let mut plain = Uncompressed { hasher: Hasher::default(), bytes: 0 };
    let error = plain.pump(&mut blob, &consumed, full, empty).err();
    // The rest counts to the digest, whatever it is.
    let drained = io::copy(&mut blob, &mut io::sink());
    Produced {
        error,
        blob: drained.ok().map(|_| (blob.hasher.finish(), consumed.load(Ordering::Relaxed))),
        plain: (plain.hasher.finish(), plain.bytes),
    }
}

struct Uncompressed {
    hasher: Hasher,
    bytes: u64,
}

impl Uncompressed {
    /// Decompresses until the end, or until the consumer has gone, which is no error of ours.
    fn pump(
        &mut self,
        blob: impl Read + Send,
        consumed: &AtomicU64,
        full: &SyncSender<Vec<u8>>,
        empty: &Receiver<Vec<u8>>,
    ) -> Result<(), UnpackError> {
        let mut plain = decompress(blob).map_err(TarError::Read)?;
        loop {
            let mut buffer = empty.try_recv().unwrap_or_default();
            buffer.resize(BUFFER_BYTES, 0);
            let filled = fill(&mut plain, &mut buffer).map_err(TarError::Read)?;
            buffer.truncate(filled);
            if filled == 0 {
                return Ok(());
            }
            self.hasher.update(&buffer);
            self.bytes += filled as u64;
            if self.bytes > RATIO_FREE_BYTES && self.bytes / MAX_RATIO > consumed.load(Ordering::Relaxed) {
                return Err(UnpackError::Bomb { limit: MAX_RATIO });
            }
            if full.send(buffer).is_err() {
                return Ok(());
            }
        }
    }
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
