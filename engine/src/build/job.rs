//! What goes into a build and what comes out of it.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use wherry_dockerfile::plan::NamedContext;
use wherry_image_ref::Digest;
use wherry_image_store::{DiffId, Image, ImageId, Layer, Store};
use wherry_registry::{Credentials, Platform};

use super::files::Known;
use super::offers::Offers;
use super::origins::Origins;
use crate::containers::config::{HostConfig, Ulimit};
use crate::error::Error;

/// A build to be done.
pub(crate) struct Job {
    /// The Dockerfile's text.
    pub(crate) dockerfile: String,
    /// The stage that is wanted, by name or number; empty for the last one.
    pub(crate) target: String,
    /// `--build-arg`.
    pub(crate) build_args: BTreeMap<String, String>,
    /// `--label`: added to the image at the end.
    pub(crate) labels: BTreeMap<String, String>,
    /// Contexts that stand for a stage or an image of their name; those that are files come from [`Sources::context`].
    pub(crate) named_contexts: BTreeMap<String, NamedContext>,
    /// What the image is for; `None` for this host.
    pub(crate) platform: Option<Platform>,
    /// Whether base images are asked for at their registry although they are here.
    pub(crate) pull: bool,
    /// What is done again although its result is known.
    pub(crate) no_cache: NoCache,
    /// What RUN's programs may use.
    pub(crate) limits: Limits,
    /// `SOURCE_DATE_EPOCH`: when the image is to have been made. Seconds.
    pub(crate) epoch_s: Option<i64>,
    /// Whether `RUN --security=insecure` has been allowed.
    pub(crate) allow_insecure: bool,
    /// Whether `RUN --network=host` has been allowed.
    pub(crate) allow_host_network: bool,
    /// What caches elsewhere have.
    pub(crate) offers: Arc<Offers>,
    /// Whether the image is to be a cache itself.
    pub(crate) inline_cache: bool,
    /// Results of other builds, which contexts name by their ids.
    pub(crate) results: Vec<Arc<Built>>,
    /// What the client has.
    pub(crate) sources: Arc<dyn Sources>,
    /// What happens is told here. The receiver may go at any time.
    pub(crate) events: mpsc::UnboundedSender<Event>,
}

/// What is not taken from the cache.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum NoCache {
    /// Everything may be.
    #[default]
    Nothing,
    /// Nothing is.
    Everything,
    /// The steps of these stages are done again.
    Stages(Vec<String>),
}

/// What RUN's programs may use; zero and empty mean the containers' defaults.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Limits {
    /// Bytes.
    pub(crate) memory: i64,
    /// Bytes of memory and swap together; -1 for no limit.
    pub(crate) memory_swap: i64,
    /// Relative weight.
    pub(crate) cpu_shares: i64,
    /// Microseconds.
    pub(crate) cpu_period: i64,
    /// Microseconds in a period.
    pub(crate) cpu_quota: i64,
    /// `0-2,4`.
    pub(crate) cpuset_cpus: String,
    /// `0,1`.
    pub(crate) cpuset_mems: String,
    /// The cgroup above the steps' own.
    pub(crate) cgroup_parent: String,
    /// Bytes of `/dev/shm`.
    pub(crate) shm_size: i64,
    /// Limits of processes.
    pub(crate) ulimits: Vec<Ulimit>,
    /// `name:address`, or `name:host-gateway`.
    pub(crate) extra_hosts: Vec<String>,
    /// The network of steps that do not choose one: a network's name, `none`, `host`, `container:X`; empty for the default.
    pub(crate) network: String,
}

impl Limits {
    /// As containers have them.
    pub(super) fn host_config(&self) -> HostConfig {
        let list = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
        HostConfig {
            memory: self.memory,
            memory_swap: self.memory_swap,
            cpu_shares: self.cpu_shares,
            cpu_period: self.cpu_period,
            cpu_quota: self.cpu_quota,
            cpuset_cpus: self.cpuset_cpus.clone(),
            cpuset_mems: self.cpuset_mems.clone(),
            cgroup_parent: self.cgroup_parent.clone(),
            shm_size: self.shm_size,
            ulimits: (!self.ulimits.is_empty()).then(|| self.ulimits.clone()),
            extra_hosts: list(&self.extra_hosts),
            network_mode: if self.network.is_empty() { "default".into() } else { self.network.clone() },
            ..HostConfig::default()
        }
    }
}

/// A boxed future, so that [`Sources`] can be a trait object.
pub(crate) type Future<'a, T> = Pin<Box<dyn std::future::Future<Output = Result<T, Error>> + Send + 'a>>;

/// What the client lends, and nobody keeps.
pub(crate) trait Lends: Send + Sync {
    /// A secret's bytes; `None` if the client has none of that id.
    fn secret<'a>(&'a self, id: &'a str) -> Future<'a, Option<Vec<u8>>>;
    /// A new Unix socket at which the client's SSH agent of that id answers, in a folder that is of no other: each has the owner
    /// and mode that its step wants. Why not, if the client has no such agent.
    fn ssh<'a>(&'a self, id: &'a str) -> Future<'a, Result<Offered, String>>;
}

/// What only the client has. Asked when it is needed, once or several times.
pub(crate) trait Sources: Lends {
    /// A context as a folder: `""` for the build's own, else the name of one that the job was given by name. `None` if there is
    /// none of that name (then the name means an image).
    fn context<'a>(&'a self, name: &'a str) -> Future<'a, Option<Arc<Folder>>>;
    /// Credentials for a registry's host.
    fn credentials<'a>(&'a self, host: &'a str) -> Future<'a, Credentials>;
}

/// A socket that is served as long as this value lives.
pub(crate) struct Offered {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Dropped, it ends.
    #[expect(dead_code, reason = "it is there to be dropped with this value")]
    pub(crate) server: Box<dyn Send + Sync>,
}

/// A folder of files that somebody else wrote: it is read by descriptors and no link leads out of it.
#[derive(Debug)]
pub(crate) struct Folder {
    /// Opened for reading.
    pub(crate) root: OwnedFd,
    /// Deleted with this value.
    pub(crate) temporary: Option<PathBuf>,
    /// What is known of its files from before.
    pub(super) known: Option<Arc<Known>>,
    /// What it is a part of, and needs as long as it is used.
    #[expect(dead_code, reason = "it is there to be dropped with this value")]
    pub(crate) inside: Option<Inside>,
}

/// What a folder needs that is not all of its own.
#[derive(Debug)]
#[expect(dead_code, reason = "they are there to be dropped with this value")]
pub(crate) enum Inside {
    /// It is a part of this one.
    Folder(Arc<Folder>),
    /// They are mounted; those that nobody holds lose their files, and so do mounts of them, without a word.
    Layers(Vec<Layer>),
}

impl Folder {
    /// The files of an image, given its layers, the lowest first. Blocking.
    ///
    /// # Errors
    /// A layer that is not there; what the file system says.
    pub(super) fn of_layers(store: &Store, layers: &[DiffId]) -> Result<Self, Error> {
        let held = store.hold_layers(layers)?;
        let root = store.mount_layers(layers)?;
        Ok(Self { root, temporary: None, known: None, inside: Some(Inside::Layers(held)) })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Some(path) = self.temporary.take() {
            // A context may have many files: nobody waits for that.
            let deleting = std::thread::Builder::new().name("delete context".into()).spawn(move || {
                if let Err(error) = std::fs::remove_dir_all(&path) {
                    tracing::warn!(path = %path.display(), %error, "a build's context could not be deleted");
                }
            });
            if let Err(error) = deleting {
                tracing::warn!(%error, "no thread to delete a build's context; the next start does it");
            }
        }
    }
}

/// Tells the steps of a build apart; counts from 0 in the order of their declaration.
pub(crate) type StepId = u32;

/// Which of a program's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// What happens during a build. A step is declared, then started and finished, or finished alone if it was called off.
#[derive(Debug)]
pub(crate) enum Event {
    /// There will be such a step.
    Declared {
        /// Its number.
        step: StepId,
        /// `[builder 2/4] RUN make`, `[internal] load metadata for docker.io/library/busybox:latest`.
        name: String,
        /// The steps whose results it needs.
        inputs: Vec<StepId>,
    },
    /// It begins. Nanoseconds since the epoch.
    Started {
        /// Its number.
        step: StepId,
        /// When.
        at_ns: i64,
    },
    /// Its result was known: nothing is done. Comes between its start and its end.
    Cached {
        /// Its number.
        step: StepId,
    },
    /// Its program has written something.
    Output {
        /// Its number.
        step: StepId,
        /// Where to.
        stream: Stream,
        /// What.
        bytes: Vec<u8>,
        /// When. Nanoseconds since the epoch.
        at_ns: i64,
    },
    /// Something is being transferred for it.
    Transfer {
        /// Its number.
        step: StepId,
        /// What: a layer's digest, a URL.
        id: String,
        /// Bytes so far.
        current: u64,
        /// Bytes in all; 0 if that is not known.
        total: u64,
        /// Whether it has come to its end.
        done: bool,
    },
    /// It has ended.
    Finished {
        /// Its number.
        step: StepId,
        /// When. Nanoseconds since the epoch.
        at_ns: i64,
        /// Why it failed.
        error: Option<String>,
    },
    /// Something in the Dockerfile that works, but should be otherwise.
    Warning(Warning),
}

/// A lint of a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Warning {
    /// `FromAsCasing`, …
    pub(crate) rule: String,
    /// What the rule is about.
    pub(crate) description: String,
    /// What is wrong here.
    pub(crate) detail: String,
    /// Where one can read more.
    pub(crate) url: String,
    /// The line, counted from 1.
    pub(crate) line: u32,
}

/// An image that has been built.
#[derive(Debug)]
pub(crate) struct Built {
    /// Its configuration document, whose digest is its id.
    pub(crate) config: Vec<u8>,
    /// Its layers, the lowest first.
    pub(crate) layers: Vec<Arc<Layer>>,
    /// What it was made of.
    pub(crate) origins: Origins,
}

impl Built {
    /// The digest of its document.
    pub(crate) fn id(&self) -> ImageId {
        ImageId(Digest::of(&self.config))
    }

    /// It as an image, which the store need not have.
    pub(super) fn image(&self) -> Result<Image, Error> {
        let document = serde_json::from_slice(&self.config);
        let document =
            document.map_err(|error| Error::server(format!("read an image that was built: {error}")))?;
        Ok(Image {
            id: self.id(),
            parent: None,
            built: true,
            document: Arc::new(document),
            size_bytes: self.layers.iter().map(|layer| layer.size_bytes()).sum(),
            repo_tags: Vec::new(),
            repo_digests: Vec::new(),
            last_tagged: None,
        })
    }
}

/// Lines of the Dockerfile, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The first one.
    pub(crate) first_line: u32,
    /// The last one.
    pub(crate) last_line: u32,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    /// What went wrong, without the place.
    pub(crate) message: String,
    /// What stands at the place, if it is known.
    pub(crate) place: Option<Place>,
    /// The step that failed.
    pub(crate) step: Option<StepId>,
    /// The exit code of a step's program.
    pub(crate) code: Option<i32>,
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn the_files_of_layers_stay_while_somebody_reads_them() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let draft = store.draft(&[]).unwrap();
        std::fs::write(draft.upper().join("file"), "content").unwrap();
        let layer = draft.seal().unwrap();
        let folder = Folder::of_layers(&store, &[layer.diff_id()]).unwrap();
        let diff = store.layer_diff(&layer.diff_id());
        // As if the image had been removed.
        drop(layer);
        let path = format!("/proc/self/fd/{}/file", folder.root.as_raw_fd());
        assert_eq!(std::fs::read_to_string(path).unwrap(), "content");
        drop(folder);
        assert!(!diff.exists());
    }
}
