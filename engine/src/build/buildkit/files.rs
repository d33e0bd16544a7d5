//! The Dockerfile of a build, and what stays out of its context.

use std::sync::Arc;

use wherry_buildkit::control::Progress;
use wherry_buildkit::errdefs;
use wherry_buildkit::grpc::Status;
use wherry_buildkit::pb::Any;
use wherry_buildkit::session::{self, Session, SyncOptions};
use wherry_buildkit::sync::memory::Files;

use super::failure;

/// A Dockerfile.
#[derive(Debug, Clone)]
pub(super) struct Definition {
    /// Its path.
    pub(super) name: String,
    /// Its text.
    pub(super) text: String,
    /// What `NAME.dockerignore` beside it says, if there is one.
    pub(super) ignore: Option<String>,
    /// The step that brought it.
    pub(super) vertex: String,
}

impl Definition {
    /// Where in it something is wrong; no lines: nowhere in particular.
    pub(super) fn source(&self, lines: &[(usize, usize)]) -> Any {
        errdefs::source(&self.name, self.text.as_bytes(), "Dockerfile", lines)
    }
}

/// Brings the Dockerfile from the client.
///
/// # Errors
/// BuildKit's text for one that is not there; the client's.
pub(super) async fn from_client(
    session: &Arc<Session>,
    folder: &str,
    path: &str,
    progress: &Progress,
) -> Result<Definition, Status> {
    let step = progress.start(&format!("[internal] load build definition from {}", base(path)));
    let vertex = step.digest().to_owned();
    let mut follow = vec![path.to_owned(), format!("{path}.dockerignore")];
    let small = path.to_lowercase();
    if base(path) == "Dockerfile" {
        // Somebody may have written it in small letters.
        follow.push(small.clone());
    }
    let options = SyncOptions { name: folder.to_owned(), follow, ..SyncOptions::default() };
    let mut part = step.part("transferring dockerfile:", "transferring");
    let files = match session.sync_to_memory(&options, |bytes| part.at(bytes, 0)).await {
        Err(session::Error::Unsupported(_)) => {
            Err(Status::unknown("failed to read dockerfile: no local sources enabled"))
        }
        files => files.map_err(failure::of_session),
    };
    part.end();
    step.end(&files);
    let files = files?;
    let text = files.get(path).or_else(|| files.get(&small)).ok_or_else(|| {
        let base = base(path);
        Status::unknown(format!("failed to read dockerfile: open {base}: no such file or directory"))
    })?;
    let ignore = text_of(&files, &format!("{path}.dockerignore"));
    Ok(Definition { name: path.to_owned(), text: String::from_utf8_lossy(text).into_owned(), ignore, vertex })
}

/// Brings a context's `.dockerignore` from the client, if it has one.
///
/// # Errors
/// The client's.
pub(super) async fn ignore_from_client(
    session: &Arc<Session>,
    folder: &str,
    name: &str,
    progress: &Progress,
) -> Result<Option<String>, Status> {
    let step = progress.start(&format!("[{name}] load .dockerignore"));
    let follow = vec![".dockerignore".to_owned()];
    let options = SyncOptions { name: folder.to_owned(), follow, ..SyncOptions::default() };
    let mut part = step.part("transferring context:", "transferring");
    let files =
        session.sync_to_memory(&options, |bytes| part.at(bytes, 0)).await.map_err(failure::of_session);
    part.end();
    step.end(&files);
    Ok(text_of(&files?, ".dockerignore"))
}

/// The patterns of a `.dockerignore`, as a client's file service takes them: without comments, relative and clean.
pub(super) fn patterns(text: &str) -> Vec<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines =
        text.lines().filter(|line| !line.starts_with('#')).map(str::trim).filter(|line| !line.is_empty());
    lines
        .map(|line| match line.strip_prefix('!') {
            Some(kept) => format!("!{}", clean(kept.trim())),
            None => clean(line),
        })
        .collect()
}

/// A pattern without what changes nothing in a path: Go's `filepath.Clean`, and no leading slash.
fn clean(pattern: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    if parts.is_empty() { ".".to_owned() } else { parts.join("/") }
}

fn text_of(files: &Files, path: &str) -> Option<String> {
    files.get(path).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

fn base(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::patterns;

    #[test]
    fn ignored_patterns_are_clean() {
        let text = "\u{feff}# comment\n*.key\n\n /abs/ \n!./kept/../x\n a//b \n!  y\n#no\n..\n";
        assert_eq!(patterns(text), ["*.key", "abs", "!x", "a/b", "!y", ".."]);
    }
}
