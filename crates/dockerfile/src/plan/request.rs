//! What a client asks of a build, as far as the plan depends on it.

use std::collections::BTreeMap;

use super::Platform;
use crate::ignore::Ignore;

/// By whose rules the file is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Frontend {
    /// BuildKit's.
    #[default]
    BuildKit,
    /// The classic builder's: all stages up to the target, no options of `RUN`, no platform arguments, variables of
    /// the image win over arguments.
    Classic,
}

/// A context that the client names, which stands for a stage or an image of that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// `docker-image://reference`.
    Image(String),
    /// Files: a folder of the client, a repository, the result of another build.
    Files,
}

/// What a client asks.
#[derive(Debug, Clone)]
pub struct Request {
    /// By whose rules.
    pub frontend: Frontend,
    /// The stage, by name; empty is the last.
    pub target: String,
    /// Build arguments.
    pub build_args: BTreeMap<String, String>,
    /// Labels of the image.
    pub labels: BTreeMap<String, String>,
    /// The image's platform, if the client names one.
    pub platform: Option<Platform>,
    /// Where the build runs.
    pub build_platform: Platform,
    /// Step names show the platform: the client asked for several.
    pub is_multi_platform: bool,
    /// Further contexts, by name.
    pub named_contexts: BTreeMap<String, NamedContext>,
    /// The patterns of `.dockerignore`, for warnings.
    pub ignore: Option<Ignore>,
    /// Stages that the target does not need are planned too, as a check of the whole file wants.
    pub all_stages: bool,
    /// Whether a text names a signal.
    pub is_signal: fn(&str) -> bool,
}

impl Request {
    /// Nothing asked, on this machine.
    #[must_use]
    pub fn new(frontend: Frontend, is_signal: fn(&str) -> bool) -> Self {
        Self {
            frontend,
            target: String::new(),
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            platform: None,
            build_platform: Platform::host(),
            is_multi_platform: false,
            named_contexts: BTreeMap::new(),
            ignore: None,
            all_stages: false,
            is_signal,
        }
    }

    pub(super) fn target_platform(&self) -> &Platform {
        self.platform.as_ref().unwrap_or(&self.build_platform)
    }
}

/// Build arguments that a command sees although no `ARG` names them.
pub(super) const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];
