//! The plan of a build: a graph of steps, each with its inputs, in which all variables have been replaced.
//!
//! Two phases, because a step depends on the images that the build begins from: [`Planner::new`] takes the file and what
//! the client asks; [`Planner::missing`] says which images' configurations are needed, [`Planner::supply`] takes
//! them (again until nothing is missing: a trigger in an image may name another); [`Planner::finish`] gives the [`Plan`].
//!
//! A step's file system is a [`Root`]. Steps that depend on nothing of each other may run at the same time; a step that only
//! changes the configuration has no work to do for BuildKit's door, and an image of its own for the classic one.

mod config;
mod discovery;
mod git;
mod globals;
mod history;
mod names;
mod planner;
mod platform;
mod request;
mod run;
mod sources;
mod stages;
mod state;
mod transfer;
mod variables;
mod weight;

use std::sync::Arc;

pub use config::ImageConfig;
pub use git::GitSource;
pub use planner::{ImageNeed, Planner, SuppliedImage};
pub use platform::{Platform, PlatformError};
pub use request::{Frontend, NamedContext, Request};
pub use transfer::leads_out;

use crate::{InlineFile, LocatedError, Mount, RunNetwork, Source};

/// A step's number: its place in [`Plan::steps`].
pub type StepId = usize;

/// An image's number: its place in [`Plan::images`].
pub type ImageId = usize;

/// Where a file system comes from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Root {
    /// Nothing.
    Scratch,
    /// An image.
    Image(ImageId),
    /// What a step leaves. The step is never one that changes the configuration only.
    Step(StepId),
    /// The files that the client sends, or one of its further contexts by name.
    Context(Option<String>),
}

/// An image that a build begins from or takes files of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedImage {
    /// With domain and tag or digest: `docker.io/library/busybox:latest`.
    pub reference: String,
    /// As the Dockerfile names it, for messages.
    pub written: String,
    /// The platform to take of an image with several.
    pub platform: Platform,
    /// Its configuration.
    pub config: Arc<ImageConfig>,
}

/// A build, ready to run.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// In an order in which each comes after all that it needs.
    pub steps: Vec<Step>,
    /// The stages that are built, in the order of the file.
    pub stages: Vec<PlannedStage>,
    /// The images that are used.
    pub images: Vec<PlannedImage>,
    /// The place in [`Self::stages`] of the one whose image is asked for.
    pub target: usize,
    /// What the classic builder prints before the first stage.
    pub classic_globals: Vec<ClassicStep>,
    /// Build arguments that nothing declares, by name: `One or more build-args [A B] were not consumed`.
    pub unused_args: Vec<String>,
}

/// A stage of a plan.
#[derive(Debug, Clone)]
pub struct PlannedStage {
    /// Its name; of one without, `stage-N`; empty if it is the only one.
    pub name: String,
    /// Its number in the file.
    pub number: usize,
    /// `FROM` and where it stands.
    pub source: Source,
    /// `[stage 1/4] FROM docker.io/library/busybox:latest`, if it begins from an image. BuildKit shows one line only for all
    /// stages that begin from the same image.
    pub from_name: Option<String>,
    /// `Step n/m` of `FROM`.
    pub classic: ClassicStep,
    /// What it begins from.
    pub base: Root,
    /// The stage that it begins from, if it does.
    pub base_stage: Option<usize>,
    /// Of its image.
    pub platform: Platform,
    /// The configuration before its first step.
    pub initial: Arc<ImageConfig>,
    /// Its steps, triggers first.
    pub steps: Vec<StepId>,
    /// The file system in the end.
    pub root: Root,
    /// The configuration in the end.
    pub config: Arc<ImageConfig>,
}

/// How the classic builder prints an instruction: `Step 3/7 : RUN true`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassicStep {
    /// From 1.
    pub number: usize,
    /// Of all instructions up to the target.
    pub total: usize,
    /// The instruction as written.
    pub text: String,
}

/// An instruction, ready to run.
#[derive(Debug, Clone)]
pub struct Step {
    /// The place of its stage in [`Plan::stages`].
    pub stage: usize,
    /// Where it stands; for a trigger, its text and the lines of `FROM`.
    pub source: Source,
    /// Whether it is a trigger of the image that the stage begins from.
    pub is_trigger: bool,
    /// BuildKit's name of it, `[build 2/5] RUN make`; none if it changes the configuration only.
    pub name: Option<String>,
    /// The classic builder's; triggers have none.
    pub classic: Option<ClassicStep>,
    /// The file system that it changes.
    pub root: Root,
    /// What it does.
    pub action: Action,
    /// The configuration after it.
    pub config: Arc<ImageConfig>,
    /// What the image's history says of it.
    pub history: History,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Nothing to the file system.
    Configure,
    /// Runs a command.
    Run(Box<RunStep>),
    /// Brings files in.
    Transfer(Box<TransferStep>),
    /// Makes a folder and those above it (0755), if they are not there.
    Workdir {
        /// Absolute.
        path: String,
        /// Who owns what is made: `USER` as it is then; empty is root.
        user: String,
    },
    /// It cannot be done. The classic builder finds that out when it has come to the step, which is the plan's last one.
    Refused(Box<LocatedError>),
}

/// A command to run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RunStep {
    /// The program and its arguments, the shell included.
    pub args: Vec<String>,
    /// All variables, build arguments included, `NAME=value` each.
    pub env: Vec<String>,
    /// Proxy variables that the build gives: the command sees them, no cache key and no history does.
    pub proxy: Vec<String>,
    /// `user[:group]`, or empty.
    pub user: String,
    /// Absolute, or empty.
    pub working_dir: String,
    /// What is mounted, targets absolute.
    pub mounts: Vec<RunMount>,
    /// A document that begins with `#!` and is run as a program: mounted at `/dev/pipes/NAME`, mode 0755, read-only.
    pub script: Option<InlineFile>,
    /// Which network.
    pub network: RunNetwork,
    /// With all rights.
    pub insecure: bool,
}

/// A mount of a command.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RunMount {
    /// What the options say; `target` is absolute; a cache or secret has its `id`.
    pub mount: Mount,
    /// What a bind mount shows, and what a cache begins with.
    pub root: Root,
}

/// Files that are brought in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TransferStep {
    /// In order.
    pub sources: Vec<TransferSource>,
    /// Absolute; a slash at the end says that it is a folder.
    pub destination: String,
    /// `user[:group]`, or empty: 0:0.
    pub chown: String,
    /// `--chmod`, checked: an octal number or a symbolic mode; or empty.
    pub chmod: String,
    /// `--link`: the destination's symbolic links are not followed, and the layer does not depend on those below.
    pub link: bool,
    /// Patterns relative to the source that stay out.
    pub exclude: Vec<String>,
    /// `ADD` or `COPY`.
    pub is_add: bool,
}

/// One source of files.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TransferSource {
    /// Files by a path or pattern: see [`crate::glob`].
    Files {
        /// Where they are.
        root: Root,
        /// Absolute in that root, clean; may have wildcards. A folder's contents are copied. For the classic builder a
        /// path that leads out of the root, and is no pattern, is as it was written, without a slash in front.
        path: String,
        /// `--parents`: the pattern below `path` by which files are chosen, their folders kept.
        parents: Option<String>,
        /// Archives are unpacked.
        unpack: bool,
    },
    /// A file that stands in the Dockerfile, mode 0644.
    Inline(InlineFile),
    /// A file to download, mode 0600.
    Http {
        /// Address.
        url: String,
        /// Its name if the destination is a folder.
        name: String,
        /// `algorithm:hex`, or empty.
        checksum: String,
        /// Archives are unpacked.
        unpack: bool,
    },
    /// A repository, whose contents are copied.
    Git {
        /// The repository's address, without what follows `#`.
        remote: String,
        /// Branch, tag or commit; empty is the default branch.
        reference: String,
        /// Folder in it, or empty.
        subdir: String,
        /// The commit that it must be, or empty.
        checksum: String,
        /// Whether `.git` stays.
        keep_git_dir: bool,
        /// Whether its submodules come along.
        submodules: bool,
    },
}

/// What a history says of a step, in both builders' words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// BuildKit's `created_by`; its `comment` is `buildkit.dockerfile.v0`. `None`: no entry (`ONBUILD`).
    pub created_by: Option<String>,
    /// Whether there is no layer.
    pub is_empty_layer: bool,
    /// The classic builder's `created_by`.
    pub classic: ClassicHistory,
}

/// The classic builder's words: the command of the container that it makes for a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClassicHistory {
    /// They are known.
    Command(Vec<String>),
    /// `COPY` and `ADD`: a hash of the files stands in the last word.
    Transfer {
        /// The words before.
        shell: Vec<String>,
        /// The last word, up to the hash.
        before: String,
        /// The rest of it.
        after: String,
    },
}

impl ClassicHistory {
    /// The words, with the hash of a transfer's files (`file:…`, `dir:…`, `multi:…`; of one download without a kind).
    #[must_use]
    pub fn command(&self, hash: &str) -> Vec<String> {
        match self {
            Self::Command(words) => words.clone(),
            Self::Transfer { shell, before, after } => {
                shell.iter().cloned().chain([format!("{before}{hash}{after}")]).collect()
            }
        }
    }

    /// `created_by`.
    #[must_use]
    pub fn text(&self, hash: &str) -> String {
        self.command(hash).join(" ")
    }
}

impl Step {
    /// All file systems that it needs.
    #[must_use]
    pub fn inputs(&self) -> Vec<&Root> {
        let mut inputs = vec![&self.root];
        match &self.action {
            Action::Run(run) => inputs.extend(run.mounts.iter().map(|mount| &mount.root)),
            Action::Transfer(transfer) => {
                let roots = transfer.sources.iter().filter_map(|source| match source {
                    TransferSource::Files { root, .. } => Some(root),
                    _ => None,
                });
                inputs.extend(roots);
            }
            Action::Configure | Action::Workdir { .. } | Action::Refused(_) => {}
        }
        inputs
    }

    /// The file system after it, if it is step `id`.
    #[must_use]
    pub fn output(&self, id: StepId) -> Root {
        match self.action {
            Action::Configure | Action::Refused(_) => self.root.clone(),
            _ => Root::Step(id),
        }
    }
}

impl Plan {
    /// The steps that a stage's image is made of, from its base image on, those of base stages included. The image's history is
    /// the base image's and one entry of each of these.
    #[must_use]
    pub fn lineage(&self, stage: usize) -> Vec<StepId> {
        let mut chain = Vec::new();
        let mut next = Some(stage);
        while let Some(stage) = next.and_then(|at| self.stages.get(at)) {
            chain.push(&stage.steps);
            next = stage.base_stage;
        }
        chain.into_iter().rev().flatten().copied().collect()
    }
}
