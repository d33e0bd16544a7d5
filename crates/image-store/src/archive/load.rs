//! `docker load`: images out of a docker-archive or an OCI layout in a tar.
//!
//! The archive is read once, as it comes, and nothing of it is kept aside: what looks like a layer
//! is unpacked at once, what looks like JSON is kept in memory, and at the end the manifest
//! says which layers make which images. Layers that no image wants are dropped.

use std::collections::HashMap;
use std::io::{self, Read};

use wherry_image_ref::{Digest, Reference};

use super::LoadError;
use super::manifest::{Descriptor, DockerManifest, OciDocument};
use crate::tar::{BLOCK, Entry, Header, Kind, Reader};
use crate::unpack::{Compression, Expected, clean, decompress};
use crate::{DiffId, Document, Error, ImageId, Layer, NewImage, Result, Store};

/// Largest document, in bytes.
const MAX_DOCUMENT: u64 = 8 << 20;
/// All documents of an archive, in bytes.
const MAX_DOCUMENTS: u64 = 256 << 20;
/// Most indexes within indexes.
const MAX_DEPTH: u32 = 4;

/// What happens during [`Store::load`].
#[derive(Debug)]
pub enum LoadEvent<'a> {
    /// A layer is being read.
    Layer {
        /// What the archive calls it, shortened to 12 characters; mostly its diff id.
        id: &'a str,
        /// Bytes read.
        current: u64,
        /// All its bytes.
        total: u64,
    },
    /// A name was taken away from another image.
    Renamed {
        /// The name.
        reference: &'a Reference,
        /// The image that had it.
        previous: ImageId,
    },
    /// An image is there, with these names.
    Image {
        /// Its id.
        id: ImageId,
        /// Its names from the archive.
        references: &'a [Reference],
    },
}

/// Told of progress, from several threads.
pub type Observer<'a> = &'a (dyn Fn(LoadEvent<'_>) + Sync);

/// Says whether an image for `os`, `architecture` and `variant` is wanted.
pub type Wanted<'a> = &'a dyn Fn(&str, &str, &str) -> bool;

impl Store {
    /// Loads all images of an archive, plain or compressed; of an index with several platforms this host's.
    ///
    /// # Errors
    /// [`Error::Load`], or those of [`Store::ingest`] and [`Store::commit`]. Images that were complete
    /// before the failure stay.
    pub fn load(&self, archive: impl Read + Send, observer: Observer<'_>) -> Result<()> {
        self.load_wanted(archive, None, observer)
    }

    /// As [`Store::load`], of all images those that are wanted.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub fn load_wanted(
        &self,
        archive: impl Read + Send,
        wanted: Option<Wanted<'_>>,
        observer: Observer<'_>,
    ) -> Result<()> {
        let plain = decompress(archive).map_err(|e| LoadError::Tar(e.into()))?;
        let mut content = Content::default();
        let mut reader = Reader::new(plain, ());
        while let Some(entry) = reader.next().map_err(LoadError::Tar)? {
            content.take(self, &entry, &mut reader, observer)?;
        }
        let loading = Loading { store: self, content: &content, wanted, observer };
        if content.documents.contains_key("manifest.json") {
            return loading.docker();
        }
        if content.documents.contains_key("index.json") {
            return loading.oci();
        }
        Err(LoadError::NoManifest.into())
    }
}

/// An archive that has been read, while images are made of it.
struct Loading<'a> {
    store: &'a Store,
    content: &'a Content,
    wanted: Option<Wanted<'a>>,
    observer: Observer<'a>,
}

impl Loading<'_> {
    fn docker(&self) -> Result<()> {
        let manifests: Option<Vec<DockerManifest>> = self.content.json("manifest.json")?;
        let mut parents = Vec::new();
        for manifest in manifests.ok_or(LoadError::NullManifest)? {
            let mut names = Vec::new();
            for name in manifest.repo_tags.iter().flatten() {
                let reference = name.parse::<Reference>()?;
                if reference.tag().is_none() || reference.digest().is_some() {
                    return Err(LoadError::Tag(name.clone()).into());
                }
                names.push(reference);
            }
            let layers = manifest.layers.unwrap_or_default();
            let made = self.make(&manifest.config, &layers, &names)?;
            let parent = manifest.parent.and_then(|id| id.parse::<Digest>().ok()).map(ImageId);
            parents.extend(made.map(|id| (id, parent)));
        }
        self.link(&parents)
    }

    /// Parents that came in the same archive are remembered.
    fn link(&self, loaded: &[(ImageId, Option<ImageId>)]) -> Result<()> {
        for (id, parent) in loaded {
            let known =
                parent.filter(|parent| loaded.iter().any(|(other, _)| other == parent && other != id));
            let Some(parent) = known else { continue };
            let (image, base) = (self.store.image(id)?, self.store.image(&parent)?);
            let (steps, below) = (&image.document.history, &base.document.history);
            let grew_by_one = steps.split_last().is_some_and(|(_, earlier)| earlier == below.as_slice());
            let without_history = steps.is_empty() && below.is_empty();
            if !(grew_by_one || without_history) {
                return Err(LoadError::Parent { image: *id, parent }.into());
            }
            self.store.set_parent(id, &parent)?;
        }
        Ok(())
    }

    fn oci(&self) -> Result<()> {
        let index: OciDocument = self.content.json("index.json")?;
        for descriptor in index.manifests.iter().flatten() {
            let names: Vec<Reference> = descriptor.name().into_iter().collect();
            self.descriptor(descriptor, &names, 0)?;
        }
        Ok(())
    }

    fn descriptor(&self, descriptor: &Descriptor, names: &[Reference], depth: u32) -> Result<()> {
        let path = descriptor.path();
        let document: OciDocument = self.content.json(&path)?;
        match document {
            OciDocument { manifests: Some(_), layers: Some(_), .. } => Err(LoadError::Ambiguous(path).into()),
            OciDocument { manifests: Some(manifests), .. } => {
                let fits = |manifest: &&Descriptor| manifest.fits(self.wanted);
                let fitting = manifests.iter().find(|manifest| manifest.platform.is_some() && fits(manifest));
                match fitting.or_else(|| manifests.iter().find(fits)) {
                    Some(fitting) if depth < MAX_DEPTH => self.descriptor(fitting, names, depth + 1),
                    None if self.wanted.is_some() => Ok(()),
                    _ => Err(LoadError::Missing(path).into()),
                }
            }
            OciDocument { config: Some(config), layers, .. } => {
                let layers: Vec<String> = layers.iter().flatten().map(Descriptor::path).collect();
                self.make(&config.path(), &layers, names).map(|_| ())
            }
            OciDocument { .. } => Err(LoadError::Missing(path).into()),
        }
    }

    /// Makes an image, if it is wanted.
    fn make(
        &self,
        config_path: &str,
        layer_paths: &[String],
        names: &[Reference],
    ) -> Result<Option<ImageId>> {
        let config = self.content.document(config_path)?;
        let document: Document = self.content.json(config_path)?;
        if !document.os.is_empty() && document.os != "linux" {
            return Err(LoadError::OperatingSystem(document.os).into());
        }
        if self.wanted.is_some_and(|wanted| !wanted(&document.os, &document.architecture, &document.variant))
        {
            return Ok(None);
        }
        let diff_ids = &document.rootfs.diff_ids;
        if diff_ids.len() != layer_paths.len() {
            return Err(LoadError::LayerCount { expected: layer_paths.len(), actual: diff_ids.len() }.into());
        }
        let mut layers = Vec::with_capacity(diff_ids.len());
        for (number, (expected, path)) in diff_ids.iter().zip(layer_paths).enumerate() {
            let actual = self.content.layer(path)?;
            if actual != *expected {
                return Err(LoadError::DiffId { layer: number, expected: *expected, actual }.into());
            }
            layers.push(self.store.layer(&actual).ok_or(Error::NoSuchLayer(actual))?);
        }
        let id = ImageId(Digest::of(config));
        let previous: Vec<_> =
            names.iter().filter_map(|name| Some((name, self.store.named(name)?))).collect();
        let new = NewImage { config, layers: &layers, names, parent: None, tagged: false, fetched: true };
        self.store.commit(&new)?;
        for (reference, previous) in previous.into_iter().filter(|(_, previous)| *previous != id) {
            (self.observer)(LoadEvent::Renamed { reference, previous });
        }
        (self.observer)(LoadEvent::Image { id, references: names });
        Ok(Some(id))
    }
}

/// What was found in an archive, by path.
#[derive(Default)]
struct Content {
    documents: HashMap<String, Vec<u8>>,
    document_bytes: u64,
    /// Kept until the images are made.
    layers: HashMap<String, std::result::Result<Layer, Error>>,
    /// Paths that stand for other paths: links, and blobs that need not be unpacked.
    links: HashMap<String, String>,
}

impl Content {
    fn take<R: Read + Send>(
        &mut self,
        store: &Store,
        entry: &Entry,
        reader: &mut Reader<R>,
        observer: Observer<'_>,
    ) -> Result<()> {
        let Some(path) = plain_path(&entry.path) else { return Ok(()) };
        match entry.kind {
            Kind::Symlink => {
                let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
                let target = [folder.as_bytes(), b"/", &entry.link].concat();
                self.links.extend(plain_path(&target).map(|target| (path, target)));
            }
            Kind::HardLink => self.links.extend(plain_path(&entry.link).map(|target| (path, target))),
            Kind::File if entry.sparse.is_none() => self.take_file(store, path, entry, reader, observer)?,
            _ => {}
        }
        Ok(())
    }

    fn take_file<R: Read + Send>(
        &mut self,
        store: &Store,
        path: String,
        entry: &Entry,
        reader: &mut Reader<R>,
        observer: Observer<'_>,
    ) -> Result<()> {
        let digest = digest_in(&path);
        if let Some(layer) = digest.and_then(|digest| store.layer(&DiffId(digest))) {
            self.layers.insert(path, Ok(layer));
            return Ok(());
        }
        let mut head = Vec::with_capacity(BLOCK);
        reader.by_ref().take(BLOCK as u64).read_to_end(&mut head).map_err(|e| LoadError::Tar(e.into()))?;
        if looks_like_layer(&head) {
            let id = digest.map_or_else(|| path.chars().take(12).collect(), |digest| digest.short());
            let total = entry.stored_bytes;
            let content = io::Cursor::new(head).chain(reader);
            let progress = Progress { content, id: &id, current: 0, total, told: 0, observer };
            let blob = digest.filter(|_| path.starts_with("blobs/sha256/")).map(|digest| (digest, total));
            let layer = store.ingest(Expected { diff_id: None, blob }, progress);
            // Whether it matters is known when the manifest has been read.
            self.layers.insert(path, layer);
        } else if matches!(head.trim_ascii_start().first(), Some(b'{' | b'['))
            && entry.stored_bytes <= MAX_DOCUMENT
        {
            self.document_bytes += entry.stored_bytes;
            if self.document_bytes > MAX_DOCUMENTS {
                return Err(LoadError::TooLarge.into());
            }
            reader.read_to_end(&mut head).map_err(|e| LoadError::Tar(e.into()))?;
            self.documents.insert(path, head);
        }
        Ok(())
    }

    /// Follows links, a few.
    fn resolve<'a>(&'a self, mut path: &'a str) -> &'a str {
        for _ in 0..8 {
            match self.links.get(path) {
                Some(target) => path = target,
                None => break,
            }
        }
        path
    }

    /// The bytes of a document; a blob must have the digest that is its name.
    fn document(&self, path: &str) -> Result<&[u8]> {
        let path = plain_path(path.as_bytes()).unwrap_or_default();
        let bytes =
            self.documents.get(self.resolve(&path)).ok_or_else(|| LoadError::Missing(path.clone()))?;
        let wanted = digest_in(&path).filter(|_| path.starts_with("blobs/sha256/"));
        match Digest::of(bytes) {
            actual if wanted.is_some_and(|wanted| wanted != actual) => {
                Err(LoadError::Digest { document: path, actual }.into())
            }
            _ => Ok(bytes),
        }
    }

    fn json<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T> {
        let parsed = serde_json::from_slice(self.document(path)?);
        Ok(parsed.map_err(|source| LoadError::Document { document: path.to_owned(), source })?)
    }

    fn layer(&self, path: &str) -> Result<DiffId> {
        let path = plain_path(path.as_bytes()).unwrap_or_default();
        match self.layers.get(self.resolve(&path)) {
            Some(Ok(layer)) => Ok(layer.diff_id()),
            Some(Err(error)) => Err(LoadError::Layer { path, reason: error.to_string() }.into()),
            None => Err(LoadError::Missing(path).into()),
        }
    }
}

/// A path of an archive, cleaned, if it is text and stays inside.
fn plain_path(path: &[u8]) -> Option<String> {
    String::from_utf8(clean(path).ok()?).ok()
}

/// The digest that a path is named after: `blobs/sha256/HEX`, `HEX/layer.tar`, `HEX.tar`.
fn digest_in(path: &str) -> Option<Digest> {
    let hex = path.strip_prefix("blobs/sha256/").or_else(|| path.strip_suffix("/layer.tar"));
    Digest::from_hex(hex.or_else(|| path.strip_suffix(".tar")).unwrap_or(path)).ok()
}

fn looks_like_layer(head: &[u8]) -> bool {
    if Compression::of(head) != Compression::None {
        return true;
    }
    // A block of zeros is a tar without entries.
    <&[u8; BLOCK]>::try_from(head).is_ok_and(|block| Header::parse(block).is_ok())
}

/// Tells the observer how much has been read, every half MiB and at the end.
struct Progress<'a, R> {
    content: R,
    id: &'a str,
    current: u64,
    total: u64,
    told: u64,
    observer: Observer<'a>,
}

const TELL_EVERY: u64 = 512 << 10;

impl<R: Read> Read for Progress<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.content.read(buffer)?;
        self.current += read as u64;
        let at_end = self.current == self.total && self.told != self.total;
        if self.current >= self.told + TELL_EVERY || at_end {
            self.told = self.current;
            (self.observer)(LoadEvent::Layer { id: self.id, current: self.current, total: self.total });
        }
        Ok(read)
    }
}
