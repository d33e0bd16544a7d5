//! Making a layer's tar again, byte by byte, from its files and its recorded headers.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use wherry_image_ref::Hasher;

use super::display;
use super::record::{self, Piece, Pieces};
use crate::error::Context;
use crate::{DiffId, Error, Result, Store};

const BUFFER_BYTES: usize = 256 << 10;

impl Store {
    /// Writes a layer's uncompressed tar. When this succeeds, what was written has the diff id.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`], [`Error::DiffId`] if files have been changed since, or what the file
    /// system or `out` says.
    pub fn write_layer(&self, diff_id: &DiffId, out: &mut dyn Write) -> Result<()> {
        let layer = self.layer(diff_id).ok_or(Error::NoSuchLayer(*diff_id))?;
        let folder = self.inner.layer_folder(diff_id);
        let headers = folder.join(record::FILE);
        let mut pieces = Pieces::open(&headers).context("read", &headers)?;
        let diff = folder.join("diff");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&diff, flags, Mode::empty()).context("open", &diff)?;
        let mut out = Hashed { out, hasher: Hasher::default() };
        let mut buffer = vec![0; BUFFER_BYTES];
        while let Some(piece) = pieces.next().context("read", &headers)? {
            match piece {
                Piece::Raw(bytes) => out.write_all(&bytes).context("write the tar of", &folder)?,
                Piece::Content { path, offset, size } => {
                    let copied = copy_file(&root, &path, (offset, size), &mut buffer, &mut out);
                    copied.context("copy", diff.join(display(&path)))?;
                }
            }
        }
        drop(layer);
        match DiffId(out.hasher.finish()) {
            actual if actual == *diff_id => Ok(()),
            actual => Err(Error::DiffId { expected: *diff_id, actual }),
        }
    }
}

/// Copies a part of a file, given as offset and size; links within the path stay in the layer, as when it was unpacked.
fn copy_file(
    root: &OwnedFd,
    path: &[u8],
    (offset, size): (u64, u64),
    buffer: &mut [u8],
    out: &mut impl Write,
) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    let mut file = File::from(openat2(root.as_fd(), path, flags, Mode::empty(), resolve)?);
    if offset > 0 {
        file.seek(SeekFrom::Start(offset))?;
    }
    let mut source = file.take(size);
    let mut left = size;
    while left > 0 {
        match source.read(buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => {
                out.write_all(buffer.get(..read).unwrap_or_default())?;
                left -= read as u64;
            }
        }
    }
    Ok(())
}

struct Hashed<'a> {
    out: &'a mut dyn Write,
    hasher: Hasher,
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.hasher.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
