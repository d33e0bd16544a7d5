//! What of a layer's tar is not in its files: headers, padding, order.
//!
//! `headers.zst` lets the tar be made again, byte by byte, for `save`. It is a zstd stream of
//! pieces: `R`, length, bytes as they stood in the tar; `F`, size, length of the path, path: the
//! content of that file; or `S`, offset and then as `F`: a part of it. Numbers are little-endian, 8 bytes. The path is what the archive said,
//! cleaned; the digest of the result is compared before anybody gets to see it as that layer.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::Path;

use crate::tar::Tap;

pub(crate) const FILE: &str = "headers.zst";
/// Longest path or raw piece that is read back, in bytes.
const MAX_PIECE: u64 = 1 << 20;
const RAW: u8 = b'R';
const CONTENT: u8 = b'F';
const PART: u8 = b'S';

/// Writes the record of a layer.
pub(crate) struct Recorder {
    out: zstd::Encoder<'static, BufWriter<File>>,
    /// Raw bytes that were not written yet: neighbours become one piece.
    raw: Vec<u8>,
}

impl Recorder {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let out = zstd::Encoder::new(BufWriter::with_capacity(64 << 10, File::create_new(path)?), 1)?;
        Ok(Self { out, raw: Vec::new() })
    }

    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.flush_raw()?;
        self.out.finish()?.flush()
    }

    fn flush_raw(&mut self) -> io::Result<()> {
        if !self.raw.is_empty() {
            self.out.write_all(&[RAW])?;
            self.out.write_all(&(self.raw.len() as u64).to_le_bytes())?;
            self.out.write_all(&self.raw)?;
            self.raw.clear();
        }
        Ok(())
    }
}

/// Learns where an archive's content goes, too.
pub(crate) trait Record: Tap {
    /// Of the content of the file at `path`, `size` bytes from `offset` on stand here.
    fn content(&mut self, path: &[u8], offset: u64, size: u64) -> io::Result<()>;
}

/// For archives that nobody wants to make again.
impl Record for () {
    fn content(&mut self, _: &[u8], _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
}

impl Record for Recorder {
    fn content(&mut self, path: &[u8], offset: u64, size: u64) -> io::Result<()> {
        if size == 0 {
            return Ok(());
        }
        self.flush_raw()?;
        if offset == 0 {
            self.out.write_all(&[CONTENT])?;
        } else {
            self.out.write_all(&[PART])?;
            self.out.write_all(&offset.to_le_bytes())?;
        }
        self.out.write_all(&size.to_le_bytes())?;
        self.out.write_all(&(path.len() as u64).to_le_bytes())?;
        self.out.write_all(path)
    }
}

impl Tap for Recorder {
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        if (self.raw.len() + bytes.len()) as u64 > MAX_PIECE {
            self.flush_raw()?;
        }
        for piece in bytes.chunks(MAX_PIECE as usize) {
            self.raw.extend_from_slice(piece);
            if bytes.len() > piece.len() {
                self.flush_raw()?;
            }
        }
        Ok(())
    }
}

/// A piece of a tar that is being made again.
#[derive(Debug)]
pub(crate) enum Piece {
    Raw(Vec<u8>),
    Content { path: Vec<u8>, offset: u64, size: u64 },
}

/// Reads the record of a layer.
pub(crate) struct Pieces(zstd::Decoder<'static, io::BufReader<File>>);

impl Pieces {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(zstd::Decoder::new(File::open(path)?)?))
    }

    pub(crate) fn next(&mut self) -> io::Result<Option<Piece>> {
        let mut tag = [0];
        if self.0.read(&mut tag)? == 0 {
            return Ok(None);
        }
        match tag {
            [RAW] => Ok(Some(Piece::Raw(self.bytes()?))),
            [CONTENT] => self.content(0).map(Some),
            [PART] => {
                let offset = self.number()?;
                self.content(offset).map(Some)
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn content(&mut self, offset: u64) -> io::Result<Piece> {
        let size = self.number()?;
        Ok(Piece::Content { path: self.bytes()?, offset, size })
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut bytes = [0; 8];
        self.0.read_exact(&mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn bytes(&mut self) -> io::Result<Vec<u8>> {
        let length = self.number()?;
        if length > MAX_PIECE {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; length as usize];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}
