//! `docker save`: images into a tar that is both a docker-archive and an OCI layout.
//!
//! Saving the same images twice gives the same bytes: members are sorted, and have no times. What dockerd's archives
//! have besides are documents for engines from before 2016, which nothing in the archive refers to.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use serde_json::{Value, json};
use wherry_image_ref::{Digest, Reference};

use crate::error::Context;
use crate::tar::{Member, Writer};
use crate::{DiffId, Image, ImageId, Result, Store};

const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";

/// An image that is to be saved, with the names that go along.
#[derive(Debug, Clone)]
pub struct Saved {
    /// The image.
    pub id: ImageId,
    /// Its tags in the archive; none makes an archive without names.
    pub references: Vec<Reference>,
}

impl Store {
    /// Writes an archive of images. Layers are in it once, uncompressed, under their diff ids.
    ///
    /// # Errors
    /// [`crate::Error::NoSuchImage`] before anything is written; later those of [`Store::write_layer`]
    /// and of `out`: the archive is then incomplete.
    pub fn save(&self, images: &[Saved], out: impl Write) -> Result<()> {
        let mut contents = Contents::default();
        for saved in images {
            let image = self.image(&saved.id)?;
            let parent = image.parent.filter(|parent| images.iter().any(|other| other.id == *parent));
            contents.add(self, saved, parent)?;
        }
        let mut tar = Writer::new(out);
        let failed = "write the archive to";
        for folder in ["blobs/", "blobs/sha256/"] {
            tar.folder(member(folder, 0o755)).context(failed, folder)?;
        }
        let digests: BTreeSet<Digest> =
            contents.blobs.keys().copied().chain(contents.layers.iter().map(|id| id.0)).collect();
        for digest in digests {
            let name = blob_path(&digest);
            match contents.blobs.get(&digest) {
                Some(bytes) => tar.bytes(member(&name, 0o644), bytes).context(failed, name)?,
                None => self.save_layer(&mut tar, &name, &DiffId(digest))?,
            }
        }
        for (name, bytes) in contents.documents() {
            tar.bytes(member(name, 0o644), &bytes).context(failed, name)?;
        }
        tar.finish().context(failed, "its end")
    }

    fn save_layer(&self, tar: &mut Writer<impl Write>, name: &str, layer: &DiffId) -> Result<()> {
        let mut failure = None;
        let written = tar.stream(member(name, 0o644), self.layer_tar_bytes(layer)?, |out| {
            self.write_layer(layer, out).map_err(|error| {
                failure = Some(error);
                io::Error::other("a layer cannot be read")
            })
        });
        match failure {
            Some(error) => Err(error),
            None => written.context("write the archive to", name),
        }
    }
}

fn member(name: &str, mode: u32) -> Member<'_> {
    Member { name, mode, mtime_s: 0 }
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// What the archive will have.
#[derive(Default)]
struct Contents {
    /// Configurations and manifests.
    blobs: BTreeMap<Digest, Vec<u8>>,
    layers: BTreeSet<DiffId>,
    manifest: Vec<Value>,
    index: Vec<Value>,
    repositories: BTreeMap<String, BTreeMap<String, String>>,
}

impl Contents {
    /// `parent` is the image that it was built on, if that is saved, too.
    fn add(&mut self, store: &Store, saved: &Saved, parent: Option<ImageId>) -> Result<()> {
        let image = store.image(&saved.id)?;
        let config = store.raw_config(&saved.id)?;
        let mut layers = Vec::new();
        for diff_id in image.diff_ids() {
            layers.push(json!({
                "mediaType": LAYER_TYPE, "digest": diff_id, "size": store.layer_tar_bytes(diff_id)?,
            }));
            self.layers.insert(*diff_id);
        }
        self.add_docker(&image, saved, parent, &layers);
        self.add_oci(&saved.references, config.len(), &image, layers);
        self.blobs.insert(image.id.0, config);
        Ok(())
    }

    fn add_docker(&mut self, image: &Image, saved: &Saved, parent: Option<ImageId>, layers: &[Value]) {
        let tags: Vec<String> = saved.references.iter().map(Reference::familiar).collect();
        let source = |layer: &Value| json!({"mediaType": layer["mediaType"], "size": layer["size"], "digest": layer["digest"]});
        let sources: BTreeMap<String, Value> =
            image.diff_ids().iter().map(DiffId::to_string).zip(layers.iter().map(source)).collect();
        let mut fields = serde_json::Map::new();
        fields.insert("Config".into(), json!(blob_path(&image.id.0)));
        fields.insert("RepoTags".into(), json!(Some(tags).filter(|tags| !tags.is_empty())));
        let paths: Vec<String> = image.diff_ids().iter().map(|id| blob_path(&id.0)).collect();
        fields.insert("Layers".into(), json!(paths));
        if let Some(parent) = parent {
            fields.insert("Parent".into(), json!(parent));
        }
        fields.insert("LayerSources".into(), json!(sources));
        self.manifest.push(fields.into());
        for reference in &saved.references {
            if let (Some(tag), Some(top)) = (reference.tag(), image.diff_ids().last()) {
                let tags = self.repositories.entry(reference.familiar_name()).or_default();
                tags.insert(tag.to_owned(), top.0.hex());
            }
        }
    }

    fn add_oci(&mut self, references: &[Reference], config_bytes: usize, image: &Image, layers: Vec<Value>) {
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": image.id, "size": config_bytes},
            "layers": layers,
        })
        .to_string()
        .into_bytes();
        let digest = Digest::of(&manifest);
        let descriptor = json!({"mediaType": MANIFEST_TYPE, "digest": digest, "size": manifest.len()});
        if references.is_empty() {
            self.index.push(descriptor.clone());
        }
        for reference in references {
            let mut named = descriptor.clone();
            if let Some(fields) = named.as_object_mut() {
                let annotations = json!({
                    "io.containerd.image.name": reference.to_string(),
                    "org.opencontainers.image.ref.name": reference.tag(),
                });
                fields.insert("annotations".into(), annotations);
            }
            self.index.push(named);
        }
        self.blobs.insert(digest, manifest);
    }

    /// The documents at the top of the archive.
    fn documents(&self) -> Vec<(&'static str, Vec<u8>)> {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": self.index});
        let mut documents = vec![
            ("index.json", index.to_string().into_bytes()),
            ("manifest.json", line(&json!(self.manifest))),
            ("oci-layout", br#"{"imageLayoutVersion": "1.0.0"}"#.to_vec()),
        ];
        if !self.repositories.is_empty() {
            documents.push(("repositories", line(&json!(self.repositories))));
        }
        documents
    }
}

/// A document that ends with a newline, as some do.
fn line(document: &Value) -> Vec<u8> {
    format!("{document}\n").into_bytes()
}
