//! A folder that was written as overlayfs's upper one becomes a layer where it lies.
//!
//! Its tar is only hashed, and its headers recorded; no file is copied. What overlayfs notes in attributes of its own
//! means the same when the folder lies below others.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use wherry_image_ref::Hasher;

use super::pack::{Packer, Sink, Whiteouts};
use crate::DiffId;
use crate::layers::LayerRecord;
use crate::tar::Tap;
use crate::unpack::{Record, Recorder};

/// Records the headers of the tar that `folder` is in the file `headers`, and finds out its digest and sizes.
pub(crate) fn seal(folder: OwnedFd, headers: &Path) -> io::Result<(DiffId, LayerRecord)> {
    let sink = Sealer { recorder: Recorder::create(headers)?, hasher: Hasher::default(), tar_bytes: 0 };
    let mut packer = Packer::new(sink, Whiteouts::Translated);
    packer.tree(folder)?;
    let (sealer, size_bytes) = packer.into_sink()?;
    sealer.recorder.finish()?;
    let record = LayerRecord { version: LayerRecord::VERSION, size_bytes, tar_bytes: sealer.tar_bytes };
    Ok((DiffId(sealer.hasher.finish()), record))
}

struct Sealer {
    recorder: Recorder,
    hasher: Hasher,
    tar_bytes: u64,
}

impl Sink for Sealer {
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.recorder.raw(bytes)?;
        self.content(bytes)
    }

    fn begin(&mut self, path: &[u8], offset: u64, size: u64) -> io::Result<()> {
        Record::content(&mut self.recorder, path, offset, size)
    }

    fn content(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.tar_bytes += bytes.len() as u64;
        Ok(())
    }

    fn end(&mut self) -> io::Result<()> {
        Ok(())
    }
}
