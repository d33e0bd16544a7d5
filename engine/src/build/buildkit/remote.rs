//! Contexts that are not a folder of the client: what it sends once as an archive, repositories, downloads.

use std::sync::Arc;

use wherry_buildkit::control::Progress;
use wherry_buildkit::grpc::Status;
use wherry_buildkit::session::Session;

use super::attributes::{Place, Wanted};
use super::failure;
use super::files::Definition;
use super::sources::Lender;
use wherry_dockerfile::plan::{GitSource, TransferSource};
use wherry_image_ref::{Digest, Hasher};

use crate::build::classic::{Context, DownloadError, dockerfile, download, unpack};
use crate::build::fetch::{self, FetchError};
use crate::build::git::{GitError, redacted, without_credentials};
use crate::build::{Folder, Origins};
use crate::engine::{Engine, blocking};
use crate::error::Error;
use crate::images::BlockingBody;

/// Files that came from elsewhere.
pub(super) struct Brought {
    pub(super) folder: Arc<Folder>,
    /// Of what.
    pub(super) origins: Origins,
}

/// Brings such a context; of a folder of the client nothing yet.
///
/// # Errors
/// What the client or the server says.
pub(super) async fn fetch(
    engine: &Arc<Engine>,
    session: &Arc<Session>,
    wanted: &Wanted,
    progress: &Progress,
) -> Result<Option<Brought>, Status> {
    let brought = bring(engine, session, &wanted.context, (keeps_git_dir(wanted), progress)).await?;
    Ok(brought.map(|(context, origins)| Brought { folder: context.folder, origins }))
}

/// Brings such a context with the Dockerfile that is in it.
///
/// # Errors
/// As [`fetch()`]; a Dockerfile that is not there.
pub(super) async fn with_dockerfile(
    engine: &Arc<Engine>,
    session: &Arc<Session>,
    wanted: &Wanted,
    progress: &Progress,
) -> Result<(Definition, Option<Brought>), Status> {
    if let Place::Remote(address) = &wanted.context {
        repository(address)?;
    }
    let brought = bring(engine, session, &wanted.context, (keeps_git_dir(wanted), progress)).await;
    let Some((context, origins)) = brought.map_err(|status| unread(&wanted.context, status))? else {
        return Err(Status::unknown("failed to read dockerfile: the build has no files"));
    };
    let step = progress.start(&format!("[internal] load build definition from {}", wanted.filename));
    let vertex = step.digest().to_owned();
    let folder = context.folder.clone();
    let asked = context.dockerfile.unwrap_or_else(|| wanted.filename.clone());
    let read = blocking(move || dockerfile(&folder, &asked)).await.map_err(|error| match error {
        Error::Docker { message, .. } if message.starts_with("Cannot locate") => Status::unknown(format!(
            "failed to read dockerfile: open {}: no such file or directory",
            wanted.filename
        )),
        other => failure::of_engine(&other),
    });
    step.end(&read);
    let (text, name) = read?;
    let brought = Brought { folder: context.folder, origins };
    Ok((Definition { name, text, ignore: None, vertex }, Some(brought)))
}

/// Whether the main context keeps its `.git`, if the client says so.
fn keeps_git_dir(wanted: &Wanted) -> Option<bool> {
    let text = wanted.build_args.get("BUILDKIT_CONTEXT_KEEP_GIT_DIR")?;
    Some(matches!(text.as_str(), "1" | "t" | "T" | "true" | "TRUE" | "True"))
}

async fn bring(
    engine: &Arc<Engine>,
    session: &Arc<Session>,
    context: &Place,
    (keeps_git_dir, progress): (Option<bool>, &Progress),
) -> Result<Option<(Context, Origins)>, Status> {
    match context {
        Place::Client(_) | Place::Image(_) | Place::Input(_) => Ok(None),
        Place::Upload(path) => {
            let step = progress.start("[internal] load remote build context");
            let uploaded = uploaded(engine, session, path).await;
            step.end(&uploaded);
            let (folder, digest) = uploaded?;
            let mut origins = Origins::default();
            // What BuildKit calls it.
            let uri = format!("http://buildkit-session/{}", path.trim_start_matches('/'));
            origins.downloads.insert(uri, digest.to_string());
            Ok(Some((Context { folder, dockerfile: None }, origins)))
        }
        Place::Remote(address) => at(engine, session, address, (keeps_git_dir, progress)).await.map(Some),
    }
}

/// Brings the context at an address, whoever it is of.
///
/// # Errors
/// What the address or its server says.
pub(super) async fn at(
    engine: &Arc<Engine>,
    session: &Arc<Session>,
    address: &str,
    (keeps_git_dir, progress): (Option<bool>, &Progress),
) -> Result<(Context, Origins), Status> {
    let mut origins = Origins::default();
    let Some(git) = repository(address)? else {
        let step = progress.start("[internal] load remote build context");
        let lender = Lender { engine, session };
        let lent = fetch::authorization(address, Some(&lender)).await;
        let lent = lent.map_err(|error| Status::unknown(error.to_string()))?;
        let brought = download(engine, address, lent, true).await.map_err(|error| match error {
            DownloadError::Status { code, .. } => Status::unknown(format!("invalid response status {code}")),
            DownloadError::Own(error) => failure::of_engine(&error),
        });
        step.end(&brought.as_ref().map(drop));
        let (context, digest) = brought.map_err(|status| Status {
            message: format!("failed to load cache key: {}", status.message),
            ..status
        })?;
        origins.downloads.extend(digest.map(|digest| (redacted(address), digest.to_string())));
        return Ok((context, origins));
    };
    let source = git.into_source(keeps_git_dir, "").map_err(unclear)?;
    let step = progress.start(&format!("[internal] load git source {}", without_credentials(address)));
    let lender = Lender { engine, session };
    let fetched = fetch::fetch(engine, &source, Some(&lender), &|_, _, _| {}).await;
    step.end(&fetched);
    match fetched {
        Ok(fetched) => {
            if let TransferSource::Git { remote, reference, .. } = &source {
                origins.add_repository(remote, reference, &fetched.version);
            }
            Ok((Context { folder: fetched.material.folder, dockerfile: None }, origins))
        }
        Err(error) => Err(Status::unknown(match error {
            FetchError::Git(
                GitError::NoSubdir { .. } | GitError::SubdirIsFile { .. } | GitError::NoAgent(_),
            ) => error.to_string(),
            error => format!("failed to load cache key: {error}"),
        })),
    }
}

/// The repository that an address is of; `None` for that of a file.
fn repository(address: &str) -> Result<Option<GitSource>, Status> {
    match address.strip_prefix("github.com/") {
        Some(path) => GitSource::parse(&format!("https://github.com/{path}")),
        None => GitSource::parse(address),
    }
    .map_err(unclear)
}

#[expect(clippy::needless_pass_by_value, reason = "a function for map_err")]
fn unclear(error: wherry_dockerfile::Error) -> Status {
    Status::unknown(error.to_string())
}

/// A context without which there is no Dockerfile.
fn unread(context: &Place, status: Status) -> Status {
    let message = match context {
        Place::Remote(address) if matches!(repository(address), Ok(Some(_))) => {
            format!("failed to read dockerfile: {}", status.message)
        }
        Place::Remote(_) => format!("failed to read downloaded context: {}", status.message),
        _ => return status,
    };
    Status { message, ..status }
}

/// The files of an archive that the client sends, and the digest of that.
async fn uploaded(
    engine: &Arc<Engine>,
    session: &Arc<Session>,
    path: &str,
) -> Result<(Arc<Folder>, Digest), Status> {
    let (pieces, body) = BlockingBody::channel();
    let (upload, mut received) = tokio::sync::mpsc::channel::<bytes::Bytes>(8);
    let forward = async move {
        let mut hasher = Hasher::default();
        while let Some(piece) = received.recv().await {
            hasher.update(&piece);
            // What comes after an archive's end nobody takes.
            let _ = pieces.send(Ok(piece)).await;
        }
        hasher.finish()
    };
    // The first that fails ends the others: of what cannot be unpacked no more is received.
    let ((), digest, folder) = tokio::try_join!(
        async { session.upload(path, upload).await.map_err(failure::of_session) },
        async { Ok(forward.await) },
        async { unpack(engine, body).await.map_err(|error| failure::of_engine(&error)) },
    )?;
    Ok((folder, digest))
}
