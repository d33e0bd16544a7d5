//! Where the context is: in the request, or at the address that `remote` says.

use std::io::Read;
use std::sync::Arc;

use hyper::header::HeaderValue;
use tokio::task::JoinSet;
use wherry_dockerfile::plan::TransferSource;
use wherry_image_ref::{Digest, Hasher};

use super::context;
use super::request::Asked;
use crate::build::fetch::{self, FetchError};
use crate::build::git::GitError;
use crate::build::job::{Folder, Inside};
use crate::engine::{Engine, blocking};
use crate::error::Error;
use crate::images::{BlockingBody, registry};
use crate::server::Request;

/// So many bytes tell an archive from a Dockerfile.
const HEAD_BYTES: u64 = 512;

/// A context, and the name of the Dockerfile if it is not for the client to say.
pub(in crate::build) struct Context {
    pub(in crate::build) folder: Arc<Folder>,
    pub(in crate::build) dockerfile: Option<String>,
}

/// Brings the context here.
///
/// # Errors
/// dockerd's texts.
pub(super) async fn context(engine: &Arc<Engine>, asked: &Asked, request: Request) -> Result<Context, Error> {
    match asked.remote.as_str() {
        "" => {
            let folder = context::unpack(engine, BlockingBody::new(request.body)).await?;
            Ok(Context { folder, dockerfile: None })
        }
        "client-session" => Err(Error::NotImplemented(
            "the context of a session is for BuildKit, which is reached through /grpc here".into(),
        )),
        url => at(engine, url).await,
    }
}

/// Brings the context at an address here.
///
/// # Errors
/// dockerd's texts.
pub(in crate::build) async fn at(engine: &Arc<Engine>, url: &str) -> Result<Context, Error> {
    match url {
        url if is_repository(url) => repository(engine, url).await,
        url if url.starts_with("http://") || url.starts_with("https://") => {
            let brought = download(engine, url, None, false).await;
            brought.map(|(context, _)| context).map_err(|error| match error {
                DownloadError::Own(error) => error,
                refused @ DownloadError::Status { .. } => Error::server(refused.to_string()),
            })
        }
        other => Err(Error::server(format!("remoteURL ({other}) could not be recognized as URL"))),
    }
}

/// As dockerd tells repositories from other addresses.
fn is_repository(url: &str) -> bool {
    let path = url.split_once('#').map_or(url, |(path, _)| path);
    let is_http = url.starts_with("http://") || url.starts_with("https://");
    if is_http {
        return path.ends_with(".git");
    }
    url.starts_with("git://")
        || url.starts_with("git@")
        || url.starts_with("ssh://")
        || url.starts_with("github.com/")
}

/// `URL#reference:folder`.
async fn repository(engine: &Arc<Engine>, url: &str) -> Result<Context, Error> {
    let (remote, fragment) = url.split_once('#').unwrap_or((url, ""));
    let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
    let remote =
        if remote.starts_with("github.com/") { format!("https://{remote}") } else { remote.to_owned() };
    let source = TransferSource::Git {
        remote,
        reference: reference.to_owned(),
        subdir: String::new(),
        checksum: String::new(),
        // dockerd's classic builder leaves it where the whole repository is the context.
        keep_git_dir: true,
        submodules: true,
    };
    let failed = |error: FetchError| match error {
        FetchError::Git(GitError::NoReference(name)) => Error::server(format!(
            "error fetching: fatal: couldn't find remote ref {name}\n: exit status 128"
        )),
        FetchError::Git(GitError::Unreachable { reason, .. }) => {
            Error::server(format!("error fetching: {reason}\n: exit status 128"))
        }
        other => Error::server(other.to_string()),
    };
    let material = fetch::fetch(engine, &source, None, &|_, _, _| {}).await.map_err(failed)?.material;
    let folder = if subdir.is_empty() { material.folder } else { below(material.folder, subdir)? };
    Ok(Context { folder, dockerfile: None })
}

/// A folder of a repository, which keeps the whole of it alive. Links to it are followed inside the repository.
fn below(folder: Arc<Folder>, path: &str) -> Result<Arc<Folder>, Error> {
    use crate::build::files::{Root, clean};
    use std::os::fd::AsFd;
    let opened = Root(folder.root.as_fd()).open_folder(clean(path).as_bytes());
    let root = opened.map_err(|error| Error::server(error.to_string()))?;
    Ok(Arc::new(Folder { root, temporary: None, known: None, inside: Some(Inside::Folder(folder)) }))
}

/// Why a context could not be downloaded.
#[derive(Debug, thiserror::Error)]
pub(in crate::build) enum DownloadError {
    /// Its server refuses.
    #[error("error downloading remote context {url}: failed to GET {url} with status {code} {reason}")]
    Status {
        /// What was asked for.
        url: String,
        /// Its answer.
        code: u16,
        /// The same in words.
        reason: &'static str,
    },
    /// Something else.
    #[error(transparent)]
    Own(#[from] Error),
}

/// An archive, or a Dockerfile alone, with the file's digest if it is read `to_its_end`, and not only to the archive's.
///
/// # Errors
/// dockerd's texts.
pub(in crate::build) async fn download(
    engine: &Arc<Engine>,
    url: &str,
    authorization: Option<HeaderValue>,
    to_its_end: bool,
) -> Result<(Context, Option<Digest>), DownloadError> {
    let client = registry::client_of(engine, "", hyper::HeaderMap::new());
    let failed = |error: wherry_registry::Error| Error::server(error.to_string());
    let mut download = client.download_as(url, authorization).await.map_err(failed)?;
    let status = download.status();
    if !status.is_success() {
        let reason = status.canonical_reason().unwrap_or_default();
        return Err(DownloadError::Status { url: url.into(), code: status.as_u16(), reason });
    }
    let (sender, body) = BlockingBody::channel();
    let mut sending = JoinSet::new();
    sending.spawn(async move {
        let mut hasher = Hasher::default();
        while let Some(bytes) = download.next().await.transpose() {
            if let Ok(bytes) = &bytes {
                hasher.update(bytes);
            }
            let error = bytes.as_ref().err().map(ToString::to_string);
            let is_taken = sender.send(bytes.map_err(std::io::Error::other)).await.is_ok();
            if let Some(error) = error {
                return Err(Error::server(error));
            }
            // What comes after an archive's end nobody takes; it is part of the digest.
            if !is_taken && !to_its_end {
                return Ok(None);
            }
        }
        Ok(Some(hasher.finish()))
    });
    let context = unpack_or_read(engine, url, body).await?;
    let digest = sending.join_next().await.and_then(Result::ok);
    let digest = digest.unwrap_or_else(|| Err(Error::server(format!("download of {url} was broken off"))))?;
    Ok((context, digest))
}

/// The files of an archive, or a Dockerfile alone.
async fn unpack_or_read(engine: &Arc<Engine>, url: &str, mut body: BlockingBody) -> Result<Context, Error> {
    let name = url.to_owned();
    let (head, body) = blocking(move || {
        let mut head = Vec::new();
        (&mut body).take(HEAD_BYTES).read_to_end(&mut head).map_err(Error::io("read", name))?;
        Ok((head, body))
    })
    .await?;
    if is_text(&head) {
        let name = url.to_owned();
        let text = blocking(move || context::read_text(context::chained(head, body), &name)).await?;
        let folder = context::of_dockerfile(engine, text).await?;
        return Ok(Context { folder, dockerfile: Some(super::DOCKERFILE.into()) });
    }
    let folder = context::unpack(engine, context::chained(head, body)).await?;
    Ok(Context { folder, dockerfile: None })
}

/// Archives have bytes that no text has. A letter that is cut off at the end is none of them.
fn is_text(head: &[u8]) -> bool {
    let is_utf8 = std::str::from_utf8(head).map_or_else(|error| error.error_len().is_none(), |_| true);
    is_utf8 && !head.contains(&0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_known_by_their_addresses() {
        for (url, is) in [
            ("https://x/y.git", true),
            ("https://x/y.git#main:sub", true),
            ("git@x:y/z", true),
            ("https://x/y.tar.gz", false),
            ("http://x/Dockerfile", false),
        ] {
            assert_eq!(is_repository(url), is, "{url}");
        }
        assert!(
            is_text(b"FROM x\n")
                && is_text(&"é".as_bytes()[..1])
                && !is_text(&[0x1f, 0x8b, 8])
                && !is_text(b"name\0\0")
        );
    }
}
