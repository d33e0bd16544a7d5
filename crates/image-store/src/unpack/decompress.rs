//! Compressed layers.

use std::io::{self, BufReader, Read};

use super::xz::Xz;

/// How a stream is compressed, seen from its first bytes, as dockerd does: media types and file
/// names are not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Bzip2,
    Gzip,
    Xz,
    Zstd,
}

/// So many bytes are enough to tell.
const MAGIC_BYTES: usize = 6;
const BUFFER_BYTES: usize = 64 << 10;
/// Zstd windows of more than 128 MiB are refused.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;

impl Compression {
    pub(crate) fn of(head: &[u8]) -> Self {
        match head {
            // With the first bytes of a block, or of the end: a tar may begin with a name like this.
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, ..]
            | [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, ..] => Self::Bzip2,
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            // A frame that zstd's decoder skips; pzstd and zstd:chunked begin with one.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::None,
        }
    }
}

/// Undoes the compression of `source`, whatever it is.
pub(crate) fn decompress<'a>(mut source: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut head = Vec::with_capacity(MAGIC_BYTES);
    (&mut source).take(MAGIC_BYTES as u64).read_to_end(&mut head)?;
    let compression = Compression::of(&head);
    let whole = io::Cursor::new(head).chain(source);
    Ok(match compression {
        Compression::None => Box::new(whole),
        Compression::Bzip2 => {
            Box::new(bzip2::bufread::MultiBzDecoder::new(BufReader::with_capacity(BUFFER_BYTES, whole)))
        }
        Compression::Xz => Box::new(Xz::new(whole)?),
        Compression::Gzip => {
            Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(BUFFER_BYTES, whole)))
        }
        Compression::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(BufReader::with_capacity(BUFFER_BYTES, whole))?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
    })
}
