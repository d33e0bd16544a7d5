//! The keys of steps.

use wherry_dockerfile::plan::{RunStep, TransferStep};
use wherry_dockerfile::{MountKind, RunNetwork};
use wherry_image_ref::{Digest, Hasher};
use wherry_image_store::DiffId;

use super::cache::Key;
use super::job::Limits;
use super::transfer::Material;

/// Counts up when keys come to mean something else.
const VERSION: &str = "wherry build key 3";

/// A key in the making: each field is told from the next by its length.
pub(super) struct Builder(Hasher);

impl Builder {
    pub(super) fn new(kind: &str) -> Self {
        let mut builder = Self(Hasher::default());
        builder.text(VERSION);
        builder.text(kind);
        builder
    }

    pub(super) fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    fn texts<'a>(&mut self, texts: impl ExactSizeIterator<Item = &'a str>) {
        self.0.update(&(texts.len() as u64).to_le_bytes());
        for text in texts {
            self.text(text);
        }
    }

    pub(super) fn number(&mut self, number: i64) {
        self.0.update(&number.to_le_bytes());
    }

    /// What lies below, or is mounted: the layers themselves, whatever made them.
    pub(super) fn layers(&mut self, layers: &[DiffId]) {
        self.0.update(&(layers.len() as u64).to_le_bytes());
        for layer in layers {
            self.text(&layer.to_string());
        }
    }

    pub(super) fn digest(&mut self, digest: &Digest) {
        self.text(&digest.to_string());
    }

    /// A folder to be made.
    pub(super) fn work_dir(&mut self, path: &str, user: &str, epoch_s: Option<i64>) {
        self.texts(epoch_s.map(|epoch| epoch.to_string()).iter().map(String::as_str));
        self.text(path);
        self.text(user);
    }

    /// Everything of a command that can change what it does; what is mounted is told apart. Proxies and limits are left out: they
    /// decide how it gets there, not where.
    pub(super) fn run(&mut self, run: &RunStep, limits: &Limits) {
        self.texts(run.args.iter().map(String::as_str));
        self.texts(run.env.iter().map(String::as_str));
        self.text(&run.user);
        self.text(&run.working_dir);
        self.text(match run.network {
            RunNetwork::Default => "default",
            RunNetwork::None => "none",
            RunNetwork::Host => "host",
        });
        self.text(&limits.network);
        self.texts(limits.extra_hosts.iter().map(String::as_str));
        self.number(i64::from(run.insecure));
        if let Some(script) = &run.script {
            self.text(&script.name);
            self.text(&script.content);
        }
        self.number(run.mounts.len() as i64);
        for mount in &run.mounts {
            let mount = &mount.mount;
            self.text(mount.kind.as_str());
            for text in [&mount.target, &mount.source, &mount.id] {
                self.text(text);
            }
            self.text(mount.env.as_deref().unwrap_or("\0none"));
            let numbers = [mount.mode, mount.uid, mount.gid].map(|n| n.map_or(-1, i64::from));
            let flags = [mount.read_only, mount.required].map(i64::from);
            for number in numbers.into_iter().chain(flags).chain([mount.size_bytes]) {
                self.number(number);
            }
        }
    }

    /// How files are brought in; what they are is told apart.
    pub(super) fn transfer(&mut self, transfer: &TransferStep, materials: &[Material]) {
        for text in [&transfer.destination, &transfer.chown, &transfer.chmod] {
            self.text(text);
        }
        self.texts(transfer.exclude.iter().map(String::as_str));
        self.number(i64::from(transfer.link));
        self.number(i64::from(transfer.is_add));
        // The same files come to lie elsewhere, or become others.
        self.number(materials.len() as i64);
        for material in materials {
            self.number(material.selected.len() as i64);
            self.number(i64::from(material.unpack));
            self.number(i64::from(material.pivot.is_some()));
            self.bytes(material.pivot.as_deref().unwrap_or_default());
        }
    }

    pub(super) fn finish(self) -> Key {
        self.0.finish()
    }
}

/// Layers, the lowest first, as one number.
pub(super) fn of_layers(layers: &[DiffId]) -> Digest {
    let mut builder = Builder::new("layers");
    builder.layers(layers);
    builder.finish()
}

/// Whether a mount's own content decides over what a command does.
pub(super) fn content_counts(kind: MountKind) -> bool {
    matches!(kind, MountKind::Bind)
}
