//! What the stock buildx asks for besides plain builds: every option once, beside what it means for the files and the messages.

mod bake;
mod copies;
mod credentials;
mod flags;
mod lent;
mod lint;
mod made_of;
mod options;
mod outputs;
mod repositories;
mod secrets;
mod sources;
mod variables;

use std::path::Path;

use wherry_tests::{Host, Output};

use crate::buildkit::build;

/// Builds a Dockerfile in a folder of its own name, uncached.
fn dockerfile(host: &Host, name: &str, options: &str, text: &str) -> Output {
    let folder = host.folder_with(name, &[("Dockerfile", text)]);
    build(host, &format!("--no-cache {options}"), &folder)
}

/// As `docker build` by the classic builder.
fn classic(host: &Host, options: &str, folder: &Path, input: &[u8]) -> Output {
    let mut command = host.docker_command(&format!("build {options} {}", folder.display()));
    command.env("DOCKER_BUILDKIT", "0");
    Output::with_input(command, input)
}

/// Requires that no line has this.
#[track_caller]
fn has_not(text: &str, unwanted: &str) {
    assert!(!text.lines().any(|line| line.contains(unwanted)), "a line has {unwanted:?}:\n{text}");
}
