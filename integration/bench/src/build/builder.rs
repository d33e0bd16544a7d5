//! A builder that takes part: an engine in its own host, by one of its doors.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use wherry_bench::contestant::{Reference, rest, timed};
use wherry_bench::memory::peak_pss_kib;
use wherry_tests::engine::Binary;
use wherry_tests::{Host, Output};

use crate::DOORS;
use crate::context::Context;
use crate::disk;

/// What the images are called.
const TAG: &str = "built";
const KIB_PER_MIB: f64 = 1024.0;

/// How the client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// By way of buildx.
    BuildKit,
    /// `POST /build`.
    Classic,
}

/// How many steps may come from a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cache {
    /// None: `--no-cache`.
    Unused,
    /// None do, since what they take has changed.
    Offered,
    /// All of them do.
    Full,
}

/// A running engine.
#[derive(Debug)]
pub(crate) struct Builder {
    pub(crate) is_ours: bool,
    pub(crate) door: Door,
    pub(crate) version: String,
    host: Host,
    disk: PathBuf,
}

impl Builder {
    /// Ours, and the lab's dockerd if it is there; by both doors.
    pub(crate) fn all() -> Vec<Builder> {
        let mut all = Vec::new();
        for (binary, is_ours) in
            [(Some(Binary::from_environment()), true), (Reference::Dockerd.binary(), false)]
        {
            let Some(binary) = binary else { continue };
            for door in DOORS {
                all.push(Builder::start(binary.clone(), is_ours, door, disk::mounted(all.len())));
            }
        }
        all
    }

    fn start(binary: Binary, is_ours: bool, door: Door, disk: PathBuf) -> Builder {
        let host = Host::below(&disk, binary, &[]);
        let version = host.docker("version --format '{{.Server.Version}}'").ok().out().to_owned();
        Builder { is_ours, door, version, host, disk }
    }

    /// Milliseconds of a build, which must have used the cache as it may.
    pub(crate) fn build(&self, context: &Context, cache: Cache) -> f64 {
        let mut told = None;
        let milliseconds = timed(|| told = Some(self.docker_build(context, cache)));
        let told = told.expect("it ended");
        let cached = match self.door {
            Door::BuildKit => cached(&told.stderr),
            Door::Classic => told.stdout.lines().filter(|line| line.ends_with("Using cache")).count(),
        };
        let expected = if cache == Cache::Full { context.steps() } else { 0 };
        assert_eq!(cached, expected, "steps from the cache: {told}");
        milliseconds
    }

    fn docker_build(&self, context: &Context, cache: Cache) -> Output {
        let folder = context.folder().display().to_string();
        let mut words = vec!["build", "-t", TAG];
        if cache == Cache::Unused {
            words.push("--no-cache");
        }
        if self.door == Door::BuildKit {
            words.extend(["--progress", "plain"]);
        }
        words.push(&folder);
        let mut command = without_limit(&self.host.docker_command(words.as_slice()));
        command.env("DOCKER_BUILDKIT", if self.door == Door::BuildKit { "1" } else { "0" });
        Output::of(command).ok()
    }

    /// Milliseconds of the client that has nothing to do.
    pub(crate) fn client_alone(&self) -> f64 {
        timed(|| {
            let line = if self.door == Door::BuildKit { "buildx version" } else { "--version" };
            self.host.docker(line).ok();
        })
    }

    /// Requires the image to have what it should.
    pub(crate) fn check(&self, context: &Context) {
        let (path, content) = context.expected();
        self.host.docker(&["run", "--rm", "--network", "none", TAG, "cat", path]).prints(&content);
    }

    /// Waits until nothing of the last step goes on.
    pub(crate) fn rest(&self) {
        rest(&self.host);
    }

    /// The most memory that the engine's own processes together had during a build.
    pub(crate) fn peak_mib(&self, context: &Context) -> f64 {
        let kib = peak_pss_kib(&self.host, || drop(self.docker_build(context, Cache::Unused)));
        kib as f64 / KIB_PER_MIB
    }

    /// Ends it.
    pub(crate) fn end(self) {
        self.host.discard();
        disk::remove(&self.disk);
    }
}

/// A client that may take longer than those of tests.
fn without_limit(limited: &Command) -> Command {
    let mut command = Command::new("docker");
    command.args(limited.get_args().skip_while(|word| *word != "docker").skip(1)).stdin(Stdio::null());
    for (name, value) in limited.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// How many steps BuildKit says it had; that an image was there is none.
fn cached(progress: &str) -> usize {
    let images: Vec<&str> = progress
        .lines()
        .filter_map(|line| Some(line.split_once(" [")?.0).filter(|_| line.contains("] FROM ")))
        .collect();
    progress
        .lines()
        .filter_map(|line| line.strip_suffix(" CACHED"))
        .filter(|step| !images.contains(step))
        .count()
}
