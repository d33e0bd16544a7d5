//! What an image's configuration says of the container's process.

use std::collections::{BTreeMap, BTreeSet};

use crate::Healthcheck;

/// The part of an image's configuration that instructions change. What is not set is empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageConfig {
    /// `user[:group]`.
    pub user: String,
    /// `80/tcp` …
    pub exposed_ports: BTreeSet<String>,
    /// `NAME=value` each.
    pub env: Vec<String>,
    /// The program; `Some` of nothing is `[]`.
    pub entrypoint: Option<Vec<String>>,
    /// Arguments, or the program; `Some` of nothing is `[]`.
    pub cmd: Option<Vec<String>>,
    /// Paths.
    pub volumes: BTreeSet<String>,
    /// Absolute.
    pub working_dir: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Triggers.
    pub on_build: Vec<String>,
    /// Name or number.
    pub stop_signal: String,
    /// The shell of commands that are lines.
    pub shell: Option<Vec<String>>,
    /// The probe.
    pub healthcheck: Option<Healthcheck>,
    /// BuildKit sets it with `CMD`; it means something for Windows only.
    pub args_escaped: bool,
    /// `MAINTAINER`; stands beside the configuration in the image.
    pub author: String,
}

impl ImageConfig {
    /// The shell of commands that are lines.
    #[must_use]
    pub fn shell(&self) -> Vec<String> {
        let own = self.shell.clone().filter(|shell| !shell.is_empty());
        own.unwrap_or_else(|| ["/bin/sh", "-c"].map(str::to_owned).to_vec())
    }
}
