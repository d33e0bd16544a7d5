//! What a container has made of its image: told (`docker diff`), as a tar or as a new layer (`docker commit`), and
//! the whole of it as a tar (`docker export`).
//!
//! All of it reads folders by descriptors and follows no link. What lies below a container is looked at through a
//! read-only overlay that is attached nowhere, so whiteouts in the middle need no thought here.

mod attributes;
mod changes;
mod folder;
mod pack;
mod seal;
mod sparse;

use std::fs;
use std::io::{self, BufReader, BufWriter, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

pub use changes::{Change, ChangeKind};
use rustix::fs::Mode;

use crate::error::Context;
use crate::mount::mount_read_only;
use crate::{Error, Expected, Layer, Result, Store, Writable};
use pack::{Packer, Whiteouts};
pub(crate) use seal::seal;

const BUFFER_BYTES: usize = 256 << 10;

impl Store {
    /// What a container has changed, as `docker diff` has it: folder by folder, sorted by name, deletions last; a
    /// folder in which something has changed is listed before that.
    ///
    /// # Errors
    /// [`Error::NoSuchWritable`], [`Error::Mount`], or what the file system says.
    pub fn changes(&self, container: &str) -> Result<Vec<Change>> {
        let held = self.hold(container)?;
        let lower = mount_read_only(held.writable.lower.clone())?;
        let found = changes::compare(open_folder(&held.writable.upper)?, lower);
        held.still_there()?;
        found.context("read", &held.writable.upper)
    }

    /// Writes what a container has changed as the tar of a layer, deletions as whiteouts (`.wh.NAME`). Files that
    /// grow or shrink meanwhile have the size that they had first.
    ///
    /// # Errors
    /// [`Error::NoSuchWritable`], also if the container is removed meanwhile, or what the file system or `out` says.
    pub fn write_diff(&self, container: &str, out: impl Write) -> Result<()> {
        let held = self.hold(container)?;
        let mut packer = Packer::new(out, Whiteouts::Translated);
        let packed = packer.tree(open_folder(&held.writable.upper)?).and_then(|()| packer.finish());
        held.still_there()?;
        packed.context("pack", &held.writable.upper)
    }

    /// Makes a read-only layer of what a container has changed. If that is nothing, it is the layer without files.
    ///
    /// # Errors
    /// Those of [`Store::write_diff`] and [`Store::ingest`].
    pub fn layer_of_writable(&self, container: &str) -> Result<Layer> {
        let (reader, writer) = io::pipe().context("make a pipe for", "the layer")?;
        std::thread::scope(|scope| {
            let writing = scope
                .spawn(move || self.write_diff(container, BufWriter::with_capacity(BUFFER_BYTES, writer)));
            let layer = self.ingest(Expected::default(), BufReader::with_capacity(BUFFER_BYTES, reader));
            match writing.join() {
                Ok(Ok(())) => layer,
                // The reader's end closes first when unpacking fails: that is the cause then.
                Ok(Err(error)) => Err(if broken_pipe(&error) { layer.err().unwrap_or(error) } else { error }),
                Err(_) => {
                    Err(io::Error::other("the thread that packs it has ended")).context("pack", container)
                }
            }
        })
    }

    /// Writes a container's whole root file system as a tar, while it runs, too. Folders and files that other file
    /// systems are mounted on are as they are below the mounts.
    ///
    /// # Errors
    /// As [`Store::write_diff`], and [`Error::Mount`].
    pub fn export(&self, container: &str, out: impl Write) -> Result<()> {
        let held = self.hold(container)?;
        // The kernel wants a writable overlay to be mounted once; as a lower layer the upper folder is only read.
        let mut layers = vec![held.writable.upper.clone()];
        layers.extend(held.writable.lower.iter().cloned());
        let mut packer = Packer::new(out, Whiteouts::AreFiles);
        let root = changes::reopen(mount_read_only(layers)?).context("open", &held.writable.upper)?;
        let packed = packer.tree(root).and_then(|()| packer.finish());
        held.still_there()?;
        packed.context("pack", &held.writable.upper)
    }

    fn hold<'a>(&'a self, container: &'a str) -> Result<Held<'a>> {
        let writable = self.writable(container)?;
        let diff_ids = self.inner.writables().get(container).map(|entry| entry.layers.clone());
        let layers = diff_ids.iter().flat_map(|ids| ids.iter()).filter_map(|id| self.layer(id)).collect();
        let inode = fs::metadata(&writable.upper).context("stat", &writable.upper)?.ino();
        Ok(Held { store: self, container, writable, inode, _layers: layers })
    }
}

/// A writable layer that is being read: what lies below stays, and its own removal is noticed.
struct Held<'a> {
    store: &'a Store,
    container: &'a str,
    writable: Writable,
    inode: u64,
    _layers: Vec<Layer>,
}

impl Held<'_> {
    /// Whether all of it was there until now: removal renames it away before the first file goes.
    fn still_there(&self) -> Result<()> {
        self.store.writable(self.container)?;
        match fs::metadata(&self.writable.upper) {
            Ok(now) if now.ino() == self.inode => Ok(()),
            _ => Err(Error::NoSuchWritable(self.container.to_owned())),
        }
    }
}

/// Writes the file `name` of `folder`, with all that is in it and is mounted there, as a tar in which it is called `called`.
/// `name` is one component, or `.`; a link is not followed.
///
/// # Errors
/// What the file system or `out` says.
pub fn pack(folder: &OwnedFd, name: &[u8], called: &[u8], out: impl Write) -> io::Result<()> {
    let stat = rustix::fs::statat(folder, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
    let mut packer = Packer::new(out, Whiteouts::AreFiles);
    packer.under_name(folder, &folder::Child { name: name.to_vec(), stat }, called)?;
    packer.finish()
}

/// Writes all that is in a folder as a tar, without the folder itself. A mount that is attached nowhere will do.
///
/// # Errors
/// What the file system or `out` says.
pub fn pack_contents(folder: &OwnedFd, out: impl Write) -> io::Result<()> {
    let mut packer = Packer::new(out, Whiteouts::AreFiles);
    packer.tree(rustix::fs::openat(folder, ".", folder::FLAGS, Mode::empty())?)?;
    packer.finish()
}

fn open_folder(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, folder::FLAGS, Mode::empty()).context("open", path)
}

fn broken_pipe(error: &Error) -> bool {
    matches!(error, Error::Io { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
}
