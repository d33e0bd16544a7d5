//! Removing names and images, by dockerd's rules.
//!
//! A name is removed first; the image goes with its last name, unless something needs it. What
//! needs it is told as a [`Conflict`].

use std::collections::BTreeSet;
use std::fs;
use std::io;

use wherry_image_ref::{Digest, Reference};

use crate::error::Context;
use crate::index::Snapshot;
use crate::store::Inner;
use crate::{DiffId, ImageId, Result, Store};

/// A container that uses an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub container: String,
    /// Whether it runs.
    pub running: bool,
}

/// Something that [`Store::remove`] did, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name is gone.
    Untagged {
        /// The name.
        reference: Reference,
        /// The image that had it.
        image: ImageId,
        /// Whether dockerd publishes an event for it: digests that go along with the last tag of
        /// their repository have none.
        event: bool,
    },
    /// An image is gone.
    Deleted(ImageId),
    /// Layers up to this chain id are used by no image any more.
    DeletedLayer(Digest),
}

/// Why an image, or its last name, cannot be removed. The texts are dockerd's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// The name is the image's last one, and a container uses the image.
    #[error(
        "conflict: unable to remove repository reference \"{reference}\" (must force) - container {} is using its referenced image {}",
        short(container), image.0.short()
    )]
    LastName {
        /// As given by the user.
        reference: String,
        /// The container.
        container: String,
        /// The image.
        image: ImageId,
    },
    /// Other images were built on it.
    #[error("conflict: unable to delete {} (cannot be forced) - image has dependent child images", .0.0.short())]
    Children(ImageId),
    /// A running container uses it.
    #[error(
        "conflict: unable to delete {} (cannot be forced) - image is being used by running container {}",
        image.0.short(), short(container)
    )]
    Running {
        /// The image.
        image: ImageId,
        /// The container.
        container: String,
    },
    /// It was named by its id, and has names in several repositories.
    #[error("conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories", .0.0.short())]
    Names(ImageId),
    /// A stopped container uses it.
    #[error(
        "conflict: unable to delete {} (must be forced) - image is being used by stopped container {}",
        image.0.short(), short(container)
    )]
    Stopped {
        /// The image.
        image: ImageId,
        /// The container.
        container: String,
    },
}

impl Conflict {
    /// Whether a container is in the way.
    fn is_use(&self) -> bool {
        match self {
            Self::LastName { .. } | Self::Running { .. } | Self::Stopped { .. } => true,
            Self::Children(_) | Self::Names(_) => false,
        }
    }
}

fn short(container: &str) -> &str {
    container.get(..12).unwrap_or(container)
}

impl Store {
    /// Removes a name, or the image with that id. `force` overrides what dockerd calls soft
    /// conflicts; unless `noprune`, nameless parents go, too. `users` tells which containers use an image.
    ///
    /// What was removed is returned even if a conflict ends it later; only then is there an error, too.
    ///
    /// # Errors
    /// [`crate::Error::NoSuchImage`] and its like, [`crate::Error::Conflict`], or what the file system says.
    pub fn remove(
        &self,
        text: &str,
        force: bool,
        noprune: bool,
        users: &dyn Fn(&ImageId) -> Vec<User>,
    ) -> (Vec<Removed>, Result<()>) {
        let writer = self.inner.catalogue.writer();
        let mut plan = Plan { next: Snapshot::clone(&self.snapshot()), users, removed: Vec::new() };
        let planned = plan.remove(text, force, !noprune);
        let Plan { next, removed, .. } = plan;
        if removed.is_empty() {
            return (removed, planned);
        }
        let before = self.snapshot();
        let done = self
            .inner
            .sync_writables_of(&removed, &before)
            .and_then(|()| self.inner.catalogue.publish(&writer, next));
        if let Err(error) = done {
            return (Vec::new(), Err(error));
        }
        let deleted: Vec<ImageId> = removed.iter().filter_map(deleted_image).collect();
        for id in deleted {
            let layers = before.known.get(&id).map(|known| known.document.rootfs.diff_ids.clone());
            self.inner.forget(&id, &layers.unwrap_or_default());
        }
        (removed, planned)
    }
}

fn deleted_image(removed: &Removed) -> Option<ImageId> {
    match removed {
        Removed::Deleted(id) => Some(*id),
        Removed::Untagged { .. } | Removed::DeletedLayer(_) => None,
    }
}

/// A removal that is being worked out on a copy of the snapshot.
struct Plan<'a> {
    next: Snapshot,
    users: &'a dyn Fn(&ImageId) -> Vec<User>,
    removed: Vec<Removed>,
}

/// Which conflicts count.
#[derive(Clone, Copy)]
struct Check {
    names: bool,
    stopped: bool,
}

impl Plan<'_> {
    fn remove(&mut self, text: &str, force: bool, prune: bool) -> Result<()> {
        let id = self.next.resolve(text)?;
        if is_id_prefix(&id, text) {
            if is_single(&self.names(&id)) {
                self.check(&id, Check { names: false, stopped: !force })?;
                for name in self.names(&id) {
                    self.untag(&name, id, true);
                }
            }
            return self.delete(&id, force, prune, false);
        }
        let reference = text.parse::<Reference>()?.or_latest();
        if !force
            && is_single(&self.names(&id))
            && let Some(user) = (self.users)(&id).into_iter().next()
        {
            let conflict =
                Conflict::LastName { reference: text.to_owned(), container: user.container, image: id };
            return Err(conflict.into());
        }
        let reference = match reference.digest() {
            Some(digest) => reference.with_digest(*digest),
            None => reference,
        };
        self.untag(&reference, id, true);
        if reference.digest().is_none() {
            self.untag_digests_without_tag(&reference, id);
        }
        if !self.names(&id).is_empty() {
            return Ok(());
        }
        self.delete(&id, force, prune, true)
    }

    fn names(&self, id: &ImageId) -> Vec<Reference> {
        self.next
            .references
            .iter()
            .filter(|(_, target)| *target == id)
            .map(|(name, _)| name.clone())
            .collect()
    }

    fn untag(&mut self, reference: &Reference, image: ImageId, event: bool) {
        self.next.references.remove(reference);
        self.next.refresh(&image);
        self.removed.push(Removed::Untagged { reference: reference.clone(), image, event });
    }

    /// Digests of a repository without a tag are useless, so they go with its last tag.
    fn untag_digests_without_tag(&mut self, tag: &Reference, id: ImageId) {
        let repository = tag.name_only();
        let (digests, tags): (Vec<_>, Vec<_>) = self
            .names(&id)
            .into_iter()
            .filter(|name| name.name_only() == repository)
            .partition(|name| name.digest().is_some());
        if tags.is_empty() {
            for digest in digests {
                self.untag(&digest, id, false);
            }
        }
    }

    /// Deletes an image and, if `prune`, its parents as far as nothing needs them. `quiet` keeps
    /// conflicts to itself, except for an image that lost its last name and could not be deleted
    /// for another reason than a container.
    fn delete(&mut self, id: &ImageId, force: bool, prune: bool, quiet: bool) -> Result<()> {
        if let Err(conflict) = self.check(id, Check { names: !force, stopped: !force }) {
            let is_dangling = self.names(id).is_empty() && !self.has_children(id);
            return if quiet && (!is_dangling || conflict.is_use()) { Ok(()) } else { Err(conflict.into()) };
        }
        for name in self.names(id) {
            self.untag(&name, *id, true);
        }
        let Some(known) = self.next.known.remove(id) else { return Ok(()) };
        self.next.refresh(id);
        self.removed.push(Removed::Deleted(*id));
        let still_used: BTreeSet<Digest> =
            self.next.known.values().flat_map(|known| chain_ids(&known.document.rootfs.diff_ids)).collect();
        // A container keeps the layers of its image.
        if (self.users)(id).is_empty() {
            let gone = chain_ids(&known.document.rootfs.diff_ids).into_iter().rev();
            self.removed.extend(gone.filter(|chain| !still_used.contains(chain)).map(Removed::DeletedLayer));
        }
        match known.entry.parent {
            Some(parent) if prune && self.next.known.contains_key(&parent) => {
                self.delete(&parent, false, true, true)
            }
            _ => Ok(()),
        }
    }

    fn has_children(&self, id: &ImageId) -> bool {
        self.next.known.values().any(|known| known.entry.parent == Some(*id))
    }

    fn check(&self, id: &ImageId, check: Check) -> std::result::Result<(), Conflict> {
        if self.has_children(id) {
            return Err(Conflict::Children(*id));
        }
        let users = (self.users)(id);
        let find =
            |running| users.iter().find(|user| user.running == running).map(|user| user.container.clone());
        if let Some(container) = find(true) {
            return Err(Conflict::Running { image: *id, container });
        }
        if check.names && !self.names(id).is_empty() {
            return Err(Conflict::Names(*id));
        }
        match find(false) {
            Some(container) if check.stopped => Err(Conflict::Stopped { image: *id, container }),
            _ => Ok(()),
        }
    }
}

impl Inner {
    /// The links of writable layers must be on the disk before the index stops naming their image.
    fn sync_writables_of(&self, removed: &[Removed], before: &Snapshot) -> Result<()> {
        let images: Vec<ImageId> = removed.iter().filter_map(deleted_image).collect();
        let names: Vec<String> = {
            let writables = self.writables();
            writables
                .iter()
                .filter(|(_, entry)| images.contains(&entry.image))
                .map(|(name, _)| name.clone())
                .collect()
        };
        if !names.is_empty() && before.pending().any(|(id, _)| images.contains(&id)) {
            return self.sync(); // with the image goes the note that its layers were not on the disk yet
        }
        for name in names {
            let folder = self.overlay.join(name);
            match fs::File::open(&folder).and_then(|folder| folder.sync_all()) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {} // removed meanwhile
                synced => synced.context("sync", folder)?,
            }
        }
        Ok(())
    }

    /// Deletes what is left of an image that the index does not name any more.
    pub(crate) fn forget(&self, id: &ImageId, layers: &[DiffId]) {
        self.release(layers);
        if self.writables().values().any(|entry| entry.image == *id) {
            return; // its document says what lies below them; the next start after them deletes it
        }
        let path = self.config_path(id);
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "cannot delete the document; the next start tries again");
        }
    }
}

/// Whether the user meant the id, though it may also read as a name.
fn is_id_prefix(id: &ImageId, text: &str) -> bool {
    id.to_string().starts_with(text) || id.0.hex().starts_with(text)
}

/// Whether all names are one tag, and digests of the same repository.
fn is_single(names: &[Reference]) -> bool {
    if names.len() <= 1 {
        return true;
    }
    let (digests, tags): (Vec<&Reference>, Vec<&Reference>) =
        names.iter().partition(|name| name.digest().is_some());
    let repositories: BTreeSet<Reference> = digests.iter().map(|name| name.name_only()).collect();
    let the_one = match tags.as_slice() {
        [] => names.first().map(Reference::name_only),
        [tag] => Some(tag.name_only()),
        _ => return false,
    };
    repositories.len() == 1 && the_one.is_some_and(|name| repositories.contains(&name))
}

/// The ids by which Docker calls a layer together with all below it, the lowest first.
#[must_use]
pub fn chain_ids(diff_ids: &[DiffId]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chain.push(match chain.last() {
            None => diff_id.0,
            Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
        });
    }
    chain
}
