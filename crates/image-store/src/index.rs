//! The one file that says which images there are and how they are called, and the snapshot
//! of it that readers use.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use wherry_image_ref::{Digest, Reference};

use crate::{Document, Error, Image, ImageId, Result};

pub(crate) const VERSION: u32 = 1;

/// `image/index.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Index {
    pub(crate) version: u32,
    pub(crate) images: BTreeMap<ImageId, Entry>,
    pub(crate) references: BTreeMap<String, ImageId>,
}

/// What the index says of an image; all else is in its configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<ImageId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) last_tagged_ns: Option<u64>,
    /// Made here, by a build.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) built: bool,
    /// Its layers may not be on the disk yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pending: Option<Pending>,
}

/// When an image was published whose files were still in memory. They are whole as long as this boot lasts, whatever
/// becomes of our process; after another boot they cannot be relied on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Pending {
    pub(crate) boot: String,
    /// Tells publications of the same image apart.
    pub(crate) since_ns: u64,
}

impl Pending {
    /// From this moment on.
    pub(crate) fn now(boot: &str) -> Self {
        Self { boot: boot.to_owned(), since_ns: now_ns() }
    }
}

/// Since the epoch.
pub(crate) fn now_ns() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// An image in the snapshot, without its names.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) entry: Entry,
    pub(crate) document: Arc<Document>,
    pub(crate) size_bytes: u64,
}

/// All images and references at one moment. A change makes a new snapshot; readers keep theirs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    pub(crate) known: BTreeMap<ImageId, Known>,
    pub(crate) references: BTreeMap<Reference, ImageId>,
    images: BTreeMap<ImageId, Arc<Image>>,
}

impl Snapshot {
    /// Recomputes what readers get of `id`; call it after each change of the image or its names.
    pub(crate) fn refresh(&mut self, id: &ImageId) {
        let Some(known) = self.known.get(id) else {
            self.images.remove(id);
            return;
        };
        let names = || self.references.iter().filter(|(_, target)| *target == id).map(|(name, _)| name);
        let image = Image {
            id: *id,
            parent: known.entry.parent,
            built: known.entry.built,
            document: known.document.clone(),
            size_bytes: known.size_bytes,
            repo_tags: names().filter(|n| n.digest().is_none()).map(Reference::familiar).collect(),
            repo_digests: names().filter(|n| n.digest().is_some()).map(Reference::familiar).collect(),
            last_tagged: known
                .entry
                .last_tagged_ns
                .map(|ns| SystemTime::UNIX_EPOCH + Duration::from_nanos(ns)),
        };
        self.images.insert(*id, Arc::new(image));
    }

    /// The images whose files may still be in memory only.
    pub(crate) fn pending(&self) -> impl Iterator<Item = (ImageId, Pending)> {
        self.known.iter().filter_map(|(id, known)| Some((*id, known.entry.pending.clone()?)))
    }

    /// The files of these are on the disk, unless they have been published anew since.
    pub(crate) fn settled(&mut self, images: &[(ImageId, Pending)]) {
        for (id, pending) in images {
            if let Some(known) = self.known.get_mut(id)
                && known.entry.pending.as_ref() == Some(pending)
            {
                known.entry.pending = None;
            }
        }
    }

    pub(crate) fn image(&self, id: &ImageId) -> Option<&Arc<Image>> {
        self.images.get(id)
    }

    pub(crate) fn images(&self) -> impl Iterator<Item = &Arc<Image>> {
        self.images.values()
    }

    /// What goes to the disk.
    pub(crate) fn index(&self) -> Index {
        Index {
            version: VERSION,
            images: self.known.iter().map(|(id, known)| (*id, known.entry.clone())).collect(),
            references: self.references.iter().map(|(name, id)| (name.to_string(), *id)).collect(),
        }
    }

    /// Finds an image by name or id with dockerd's precedence: a whole id, a digest of one, a
    /// name, a prefix of an id.
    pub(crate) fn resolve(&self, text: &str) -> Result<ImageId> {
        if let Ok(digest) = Digest::from_hex(text).or_else(|_| Digest::from_str(text)) {
            let id = ImageId(digest);
            return if self.known.contains_key(&id) {
                Ok(id)
            } else {
                Err(Error::NoSuchImage(digest.to_string()))
            };
        }
        let reference: Reference = text.parse()?;
        let reference = reference.or_latest();
        if let Some(id) = self.named(&reference) {
            return Ok(id);
        }
        match self.by_prefix(text) {
            Prefix::One(id) => Ok(id),
            Prefix::Several => Err(Error::Ambiguous(reference.familiar())),
            Prefix::None => Err(Error::NoSuchImage(reference.familiar())),
        }
    }

    /// The image that has this name. Of `name:tag@digest` the digest counts.
    pub(crate) fn named(&self, reference: &Reference) -> Option<ImageId> {
        match reference.digest() {
            Some(digest) if reference.tag().is_some() => {
                self.references.get(&reference.with_digest(*digest)).copied()
            }
            _ => self.references.get(reference).copied(),
        }
    }

    fn by_prefix(&self, text: &str) -> Prefix {
        let prefix = text.strip_prefix("sha256:").unwrap_or(text);
        let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if prefix.is_empty() || prefix.len() > 64 || !prefix.bytes().all(is_hex) {
            return Prefix::None;
        }
        let Ok(first) = Digest::from_hex(&format!("{prefix:0<64}")) else { return Prefix::None };
        let mut found = self.known.range(ImageId(first)..).map(|(id, _)| *id);
        match (found.next().filter(|id| id.0.hex().starts_with(prefix)), found.next()) {
            (None, _) => Prefix::None,
            (Some(_), Some(second)) if second.0.hex().starts_with(prefix) => Prefix::Several,
            (Some(id), _) => Prefix::One(id),
        }
    }
}

enum Prefix {
    None,
    One(ImageId),
    Several,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(images: &[(&str, &[&str])]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (hex, names) in images {
            let id = ImageId(Digest::from_hex(&format!("{hex:0<64}")).unwrap());
            let entry = Entry::default();
            snapshot.known.insert(id, Known { entry, document: Arc::default(), size_bytes: 1 });
            for name in *names {
                snapshot.references.insert(name.parse::<Reference>().unwrap(), id);
            }
            snapshot.refresh(&id);
        }
        snapshot
    }

    #[test]
    fn resolves_with_dockers_precedence() {
        let digest = format!("sha256:{}", "7".repeat(64));
        let pinned = format!("pinned@{digest}");
        let snapshot = snapshot(&[
            ("abc1", &["busybox:latest", "localhost:5000/x:v1"]),
            ("abc2", &["abc1:latest", "docker.io/me/y:latest", &pinned]),
            ("def", &[]),
        ]);
        let check = |text: &str, hex: &str| {
            let id = snapshot.resolve(text).unwrap().0.hex();
            assert_eq!(id, format!("{hex:0<64}"), "{text}");
        };
        check("busybox", "abc1");
        check("docker.io/library/busybox:latest", "abc1");
        check("localhost:5000/x:v1", "abc1");
        check("me/y", "abc2");
        check("abc1", "abc2"); // a name wins over a prefix
        check("abc10", "abc1");
        check("d", "def");
        check("sha256:def", "def");
        check(&format!("{:0<64}", "abc1"), "abc1");
        check(&format!("sha256:{:0<64}", "abc1"), "abc1");
        check(&pinned, "abc2");
        check(&format!("pinned:any@{digest}"), "abc2");
        let fails = |text: &str, error: &str| {
            assert_eq!(snapshot.resolve(text).unwrap_err().to_string(), error, "{text}");
        };
        assert!(matches!(snapshot.resolve("abc"), Err(Error::Ambiguous(_))));
        fails("abc", "No such image: abc:latest");
        fails("nothere", "No such image: nothere:latest");
        fails("localhost:5000/x", "No such image: localhost:5000/x:latest");
        fails("BAD", "invalid reference format: repository name (library/BAD) must be lowercase");
        fails(&digest, &format!("No such image: {digest}"));
    }

    #[test]
    fn an_image_lists_its_names_sorted_and_in_familiar_form() {
        let digest = format!("b@sha256:{}", "7".repeat(64));
        let snapshot = snapshot(&[("1", &["zz:2", "zz:1", "localhost:5000/a:t", &digest])]);
        let image = snapshot.images().next().unwrap();
        assert_eq!(image.repo_tags, ["zz:1", "zz:2", "localhost:5000/a:t"]);
        assert_eq!(image.repo_digests, [digest]);
    }
}
