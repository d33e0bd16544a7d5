//! Layers that are written here, by the steps of a build, instead of coming as tars.

use std::fs::{self, DirBuilder};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, RenameFlags, renameat_with};

use crate::error::Context;
use crate::mount::{Mountable, mount_detached, mount_read_only};
use crate::unpack::{HEADERS, Staged};
use crate::{DiffId, Error, Layer, Result, Store, Writable};

/// A layer in the making, on top of others. It is a folder aside, which nobody sees; dropped, or left by a process that
/// was killed, it goes to the trash.
#[derive(Debug)]
pub struct Draft {
    store: Store,
    staged: Staged,
    /// What lies below, the lowest first; held as long as somebody may look through it.
    below: Vec<Layer>,
}

impl Store {
    /// Begins a layer on top of others, given the lowest first.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`], or what the file system says.
    pub fn draft(&self, below: &[DiffId]) -> Result<Draft> {
        let below = self.hold_layers(below)?;
        let staged = Staged::new(self)?;
        make_folder(&staged.path.join("diff"), 0o755)?;
        make_folder(&staged.path.join("work"), 0o710)?;
        Ok(Draft { store: self.clone(), staged, below })
    }

    /// The layers with these ids, which then stay while the values live.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`].
    pub fn hold_layers(&self, diff_ids: &[DiffId]) -> Result<Vec<Layer>> {
        diff_ids.iter().map(|id| self.layer(id).ok_or(Error::NoSuchLayer(*id))).collect()
    }

    /// Mounts layers above each other, given the lowest first, such that nothing can be written; attached nowhere. A mount does
    /// not keep a layer: hold them ([`Store::hold_layers`]) as long as it is used.
    ///
    /// # Errors
    /// [`Error::NoSuchLayer`], [`Error::Mount`].
    pub fn mount_layers(&self, diff_ids: &[DiffId]) -> Result<OwnedFd> {
        let _held = self.hold_layers(diff_ids)?;
        mount_read_only(self.inner.readable_dirs(diff_ids))
    }

    /// Makes a layer of all that a stopped container has written, and leaves the container with nothing: its files are not
    /// copied, they become the layer's.
    ///
    /// # Errors
    /// [`Error::NoSuchWritable`], or what the file system says.
    pub fn take_layer(&self, container: &str) -> Result<Layer> {
        let writable = self.writable(container)?;
        let draft = self.draft(&[])?;
        let (ours, theirs) = (draft.staged.path.join("diff"), &writable.upper);
        renameat_with(CWD, &ours, CWD, theirs, RenameFlags::EXCHANGE).context("exchange", theirs)?;
        draft.seal()
    }
}

impl Draft {
    /// Where files of the layer lie.
    #[must_use]
    pub fn upper(&self) -> std::path::PathBuf {
        self.staged.path.join("diff")
    }

    /// The folders of the overlay in which a step's program runs: below all, the mount points that every container has.
    #[must_use]
    pub fn writable(&self) -> Writable {
        let mut lower = self.store.inner.lower_dirs(&self.diff_ids());
        lower.push(self.store.inner.overlay.join(crate::base::FOLDER));
        Writable { upper: self.upper(), work: self.staged.path.join("work"), lower }
    }

    /// Mounts it, writable, attached nowhere: what is below as the image has it, and nothing else.
    ///
    /// # Errors
    /// [`Error::Mount`].
    pub fn mount(&self) -> Result<OwnedFd> {
        let lower = self.store.inner.lower_dirs(&self.diff_ids());
        let folders = Writable { upper: self.upper(), work: self.staged.path.join("work"), lower };
        mount_detached(Mountable::Writable(&folders))
    }

    /// Ends it: what was written is a layer from now on. Nothing may have it mounted any more.
    ///
    /// # Errors
    /// What the file system says; a file whose name begins with `.wh.` cannot be in a layer.
    pub fn seal(self) -> Result<Layer> {
        let (diff, work) = (self.upper(), self.staged.path.join("work"));
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = rustix::fs::open(&diff, flags, Mode::empty()).context("open", &diff)?;
        let (diff_id, record) =
            crate::diff::seal(folder, &self.staged.path.join(HEADERS)).context("pack", &diff)?;
        self.store.inner.trash.throw(&work).context("delete", &work)?;
        self.staged.finish(diff_id, &record)
    }

    fn diff_ids(&self) -> Vec<DiffId> {
        self.below.iter().map(Layer::diff_id).collect()
    }
}

/// Makes a folder with exactly this mode.
fn make_folder(path: &Path, mode: u32) -> Result<()> {
    DirBuilder::new().mode(mode).create(path).context("create", path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).context("chmod", path)
}
