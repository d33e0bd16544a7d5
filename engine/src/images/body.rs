//! Bodies for code that blocks: a request's to read, an answer's to write.

use std::io::{self, BufWriter, Read, Write};

use bytes::{Buf, Bytes};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::mpsc;

/// Reads a body from another thread. It fails, instead of ending, if the client breaks off.
#[derive(Debug)]
pub(crate) struct BlockingBody {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl BlockingBody {
    /// A body whose pieces come through the sender; it ends when that is dropped.
    pub(crate) fn channel() -> (mpsc::Sender<io::Result<Bytes>>, Self) {
        let (sender, pieces) = mpsc::channel(8);
        (sender, Self { pieces, current: Bytes::new() })
    }

    /// Starts to receive; at most a few pieces wait in memory.
    pub(crate) fn new(mut body: Incoming) -> Self {
        let (sender, receiving) = Self::channel();
        tokio::spawn(async move {
            while let Some(frame) = body.frame().await {
                let piece =
                    frame.map_err(io::Error::other).map(|frame| frame.into_data().unwrap_or_default());
                let failed = piece.is_err();
                if sender.send(piece).await.is_err() || failed {
                    return;
                }
            }
        });
        receiving
    }
}

impl Read for BlockingBody {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.current = piece?,
                None => return Ok(0),
            }
        }
        let length = self.current.len().min(buffer.len());
        self.current.copy_to_slice(buffer.get_mut(..length).unwrap_or_default());
        Ok(length)
    }
}

/// An answer's body that is written from another thread, and worth nothing without its end: a tar.
#[derive(Debug)]
pub(crate) struct Archive(mpsc::Sender<Bytes>);

impl Archive {
    /// Each piece is sent for itself, so they are not too small.
    const PIECE_BYTES: usize = 256 << 10;

    /// `sender` is that of [`crate::server::response::whole`].
    pub(crate) fn new(sender: mpsc::Sender<Bytes>) -> Self {
        Self(sender)
    }

    /// Takes what is written. It fails when the client has gone.
    pub(crate) fn writer(&self) -> BufWriter<ToClient> {
        BufWriter::with_capacity(Self::PIECE_BYTES, ToClient(self.0.clone()))
    }

    /// All has been written. Without this the client's connection breaks.
    pub(crate) fn finish(self) {
        // A client that has gone does not mind.
        let _ = self.0.blocking_send(Bytes::new());
    }
}

/// Where an [`Archive`] is written to.
#[derive(Debug)]
pub(crate) struct ToClient(mpsc::Sender<Bytes>);

impl Write for ToClient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0); // an empty piece is the end
        }
        match self.0.blocking_send(Bytes::copy_from_slice(bytes)) {
            Ok(()) => Ok(bytes.len()),
            Err(_) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
