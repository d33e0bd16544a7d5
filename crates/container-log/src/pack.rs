//! Rotated files that are compressed, as gzip reads them.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use flate2::{Compression, GzBuilder};

use crate::files::{self, Identity};

/// So much is compressed at a time: a few milliseconds.
const STEP: usize = 256 << 10;

/// A file on its way to being compressed.
#[derive(Debug)]
pub(crate) struct Packing {
    from: File,
    offset: u64,
    to: GzEncoder<File>,
    plain: PathBuf,
    half: PathBuf,
}

impl Packing {
    /// Begins with the file at `plain`.
    ///
    /// # Errors
    /// Whatever open answers.
    pub(crate) fn begin(plain: PathBuf) -> io::Result<Self> {
        let from = File::open(&plain)?;
        let half = files::suffixed(&plain, ".gz.half");
        let to = OpenOptions::new().write(true).create(true).truncate(true).mode(0o640).open(&half)?;
        let (device, inode, made) = files::identity(&from.metadata()?);
        // Who reads on from the file as it was finds it again by this.
        let origin = [device, inode, made].map(u64::to_le_bytes).concat();
        let to = GzBuilder::new().extra(origin).write(to, Compression::fast());
        Ok(Self { from, offset: 0, to, plain, half })
    }

    /// Goes on; true once the packed file is in the other one's place.
    ///
    /// # Errors
    /// Whatever read and write answer; the plain file stays then.
    pub(crate) fn step(&mut self) -> io::Result<bool> {
        let mut block = vec![0; STEP];
        let read = self.from.read_at(&mut block, self.offset)?;
        io::Write::write_all(&mut self.to, block.get(..read).unwrap_or_default())?;
        self.offset += read as u64;
        if read > 0 {
            return Ok(false);
        }
        self.to.try_finish()?;
        // At no instant may a power cut find neither of the two files whole.
        self.to.get_ref().sync_data()?;
        let packed = files::packed(&self.plain);
        std::fs::rename(&self.half, &packed)?;
        wherry_durable::sync_parent(&packed)?;
        std::fs::remove_file(&self.plain)?;
        Ok(true)
    }
}

/// Which file this was before it was compressed.
pub(crate) fn origin(packed: &File) -> Option<Identity> {
    let decoder = GzDecoder::new(At { file: packed, offset: 0 });
    let (numbers, _) = decoder.header()?.extra()?.as_chunks::<8>();
    let [device, inode, made] = numbers else { return None };
    Some((u64::from_le_bytes(*device), u64::from_le_bytes(*inode), u64::from_le_bytes(*made)))
}

/// The text of a packed file, in a file without a name in the folder of the log `path`.
///
/// # Errors
/// Whatever open, read and write answer.
pub(crate) fn unpack(packed: &File, path: &Path) -> io::Result<File> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = files::suffixed(path, &format!(".unpacked-{}-{number}", std::process::id()));
    let mut file =
        OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&name)?;
    std::fs::remove_file(&name)?;
    io::copy(&mut GzDecoder::new(At { file: packed, offset: 0 }), &mut file)?;
    Ok(file)
}

/// Reads a file from an offset on, whatever others do with its position.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}
