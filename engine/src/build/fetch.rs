//! Files that are not in a context: downloads, repositories, documents of the Dockerfile. Each comes into a folder of its own,
//! from which it is copied like all others.

use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hyper::header::HeaderValue;
use rustix::fs::{FileType, OFlags, fstat};
use rustix::io::Errno;
use wherry_dockerfile::plan::TransferSource;
use wherry_image_ref::Digest;

use super::classic::new_folder;
use super::files::{Owner, Root, clean, failed};
use super::git::{self, GitError, Repository};
use super::job::{Folder, Inside, Lends};
use super::transfer::{Excluded, Material, TransferError};
use crate::engine::{Engine, blocking};
use crate::error::Error;
use crate::images::registry;

/// Why files could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// They are not there, or cannot be read.
    #[error(transparent)]
    Transfer(#[from] TransferError),
    /// Something else of ours failed.
    #[error(transparent)]
    Own(#[from] Error),
    /// A server refuses.
    #[error("failed to GET {url} with status {code} {reason}")]
    Status {
        /// What was asked for.
        url: String,
        /// Its answer.
        code: u16,
        /// The same in words.
        reason: &'static str,
    },
    /// A server cannot be reached, or breaks off.
    #[error(transparent)]
    Download(#[from] wherry_registry::Error),
    /// The bytes are not those that were expected.
    #[error("digest mismatch {actual}: {expected}")]
    Checksum {
        /// As the Dockerfile says.
        expected: String,
        /// What came.
        actual: String,
    },
    /// What the client gives is no header of a request.
    #[error("secret {0} is no value of an Authorization header")]
    Header(String),
    /// A repository cannot be had.
    #[error(transparent)]
    Git(#[from] GitError),
}

/// Told of a transfer's progress: what, bytes so far, bytes in all (0 if unknown).
pub(super) type Watch<'a> = &'a (dyn Fn(&str, u64, u64) + Send + Sync);

/// Finds what a path or pattern means in a folder.
///
/// # Errors
/// [`TransferError::Missing`] and what the file system says.
pub(super) async fn find(
    folder: Arc<Folder>,
    path: String,
    parents: Option<String>,
    unpack: bool,
    owner: Owner,
) -> Result<Material, FetchError> {
    let found = blocking(move || Ok(Material::find(folder, &path, parents.as_deref(), unpack, owner)));
    Ok(found.await??)
}

/// What `--exclude` keeps out.
///
/// # Errors
/// 400 for patterns that are none.
pub(super) fn excluded(patterns: &[String]) -> Result<Excluded, Error> {
    if patterns.is_empty() {
        return Ok(Box::new(|_, _| false));
    }
    let ignore = wherry_dockerfile::Ignore::of(patterns)
        .map_err(|error| Error::InvalidParameter(format!("invalid excludepatterns: {error}")))?;
    Ok(Box::new(move |path, _| ignore.is_ignored(&String::from_utf8_lossy(path))))
}

/// What was brought.
pub(super) struct Fetched {
    /// The files.
    pub(super) material: Material,
    /// What tells them from those of other times: a file's digest, a repository's commit; nothing for documents.
    pub(super) version: String,
}

/// Brings a source that is not in a context into a folder of its own. `lender` has what the client lends for that.
///
/// # Errors
/// [`FetchError`].
pub(super) async fn fetch(
    engine: &Arc<Engine>,
    source: &TransferSource,
    lender: Option<&dyn Lends>,
    watch: Watch<'_>,
) -> Result<Fetched, FetchError> {
    let task_engine = engine.clone();
    let (folder, path) = blocking(move || new_folder(&task_engine)).await?;
    let folder = Arc::new(folder);
    let root = Some((0, 0));
    match source {
        TransferSource::Inline(file) => {
            let (at, content) = (path.join(file.name.replace('/', "_")), file.content.clone());
            let name = file.name.replace('/', "_");
            blocking(move || write(&at, content.as_bytes(), 0o644, None)).await?;
            let material = find(folder, escape(&name), None, false, root).await?;
            Ok(Fetched { material, version: String::new() })
        }
        TransferSource::Http { url, name, checksum, unpack } => {
            let authorization = authorization(url, lender).await?;
            let wanted = (url.as_str(), authorization);
            let (name, digest) = download(engine, wanted, name, (&path, checksum), watch).await?;
            let material = find(folder, escape(&name), None, *unpack, root).await?;
            Ok(Fetched { material, version: digest.to_string() })
        }
        TransferSource::Git { remote, reference, subdir, checksum, keep_git_dir, submodules } => {
            let wanted = Repository {
                remote,
                reference,
                checksum,
                submodules: *submodules,
                keeps_git_dir: *keep_git_dir,
            };
            let commit = git::clone(&wanted, lender, &path).await?;
            if !keep_git_dir {
                let dir = path.join(".git");
                tokio::fs::remove_dir_all(&dir).await.map_err(Error::io("remove", dir.display()))?;
            }
            let (subdir, inside) = (subdir.clone(), folder.clone());
            let folder = blocking(move || Ok(below(inside, &subdir))).await??;
            let material = find(folder, String::new(), None, false, root).await?;
            Ok(Fetched { material, version: commit })
        }
        TransferSource::Files { .. } => Err(Error::server("files of a context are not fetched").into()),
    }
}

/// A folder of a repository, which keeps the whole of it alive. No link leads there, as with BuildKit. Blocking.
fn below(folder: Arc<Folder>, subdir: &str) -> Result<Arc<Folder>, FetchError> {
    let path = clean(subdir);
    if path.is_empty() {
        return Ok(folder);
    }
    let root = Root(folder.root.as_fd());
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    for above in ends.filter_map(|end| path.get(..end)) {
        let name = || above.to_owned();
        let there = root.open(above.as_bytes(), OFlags::PATH | OFlags::NOFOLLOW).and_then(fstat);
        match there.map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            Ok(FileType::Directory) => {}
            Ok(_) => return Err(GitError::SubdirIsFile { name: name(), path }.into()),
            Err(Errno::NOENT) => return Err(GitError::NoSubdir { name: name(), path }.into()),
            Err(errno) => return Err(TransferError::from(failed("open", above.as_bytes())(errno)).into()),
        }
    }
    let root = root.open_folder(path.as_bytes()).map_err(TransferError::from)?;
    Ok(Arc::new(Folder { root, temporary: None, known: None, inside: Some(Inside::Folder(folder)) }))
}

/// A name as a pattern that means nothing else.
fn escape(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len());
    for c in name.chars() {
        if matches!(c, '*' | '?' | '[' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

fn write(path: &Path, content: &[u8], mode: u32, modified: Option<SystemTime>) -> Result<(), Error> {
    let done = std::fs::File::create_new(path).and_then(|mut file| {
        file.write_all(content)?;
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        modified.map_or(Ok(()), |time| file.set_modified(time))
    });
    done.map_err(Error::io("write", path.display()))
}

/// What the client wants a web server to be told: a header, or a token, which counts more, of this host.
///
/// # Errors
/// The client's; a value that no header has.
pub(super) async fn authorization(
    url: &str,
    lender: Option<&dyn Lends>,
) -> Result<Option<HeaderValue>, FetchError> {
    let (Some(lender), Some(host)) = (lender, git::web_host(url)) else { return Ok(None) };
    let host = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    for (what, before) in [("TOKEN", "Bearer "), ("HEADER", "")] {
        let name = format!("HTTP_AUTH_{what}_{host}");
        let Some(secret) = lender.secret(&name).await? else { continue };
        let value = [before.as_bytes(), secret.trim_ascii_end()].concat();
        let mut value = HeaderValue::from_bytes(&value).map_err(|_| FetchError::Header(name))?;
        value.set_sensitive(true);
        return Ok(Some(value));
    }
    Ok(None)
}

/// Fetches a file; returns its name in the folder, and what it is.
async fn download(
    engine: &Engine,
    (url, authorization): (&str, Option<HeaderValue>),
    name: &str,
    (folder, checksum): (&Path, &str),
    watch: Watch<'_>,
) -> Result<(String, Digest), FetchError> {
    let client = registry::client_of(engine, "", hyper::HeaderMap::new());
    let mut download = client.download_as(url, authorization).await?;
    let status = download.status();
    if !status.is_success() {
        let reason = status.canonical_reason().unwrap_or_default();
        return Err(FetchError::Status { url: url.into(), code: status.as_u16(), reason });
    }
    let name = if name.is_empty() { "download" } else { name }.replace('/', "_");
    let path = folder.join(&name);
    let failed = || Error::io("write", path.display());
    let mut file = tokio::fs::File::create_new(&path).await.map_err(failed())?;
    let total = download.length().unwrap_or(0);
    let modified = download.header("last-modified").and_then(http_date);
    let (mut current, mut hasher) = (0u64, wherry_image_ref::Hasher::default());
    while let Some(bytes) = download.next().await? {
        hasher.update(&bytes);
        current += bytes.len() as u64;
        tokio::io::AsyncWriteExt::write_all(&mut file, &bytes).await.map_err(failed())?;
        watch(url, current, total);
    }
    tokio::io::AsyncWriteExt::flush(&mut file).await.map_err(failed())?;
    let digest = hasher.finish();
    check(checksum, digest)?;
    let file = file.into_std().await;
    let done = file
        .set_permissions(std::fs::Permissions::from_mode(0o600))
        .and_then(|()| file.set_modified(modified.unwrap_or(SystemTime::UNIX_EPOCH)));
    done.map_err(failed())?;
    Ok((name, digest))
}

fn check(expected: &str, actual: Digest) -> Result<(), FetchError> {
    let actual = actual.to_string();
    match expected {
        "" => Ok(()),
        expected if expected == actual => Ok(()),
        expected => Err(FetchError::Checksum { expected: expected.to_owned(), actual }),
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(text: &str) -> Option<SystemTime> {
    let mut words = text.split([' ', ':']).skip(1);
    let day: u64 = words.next()?.parse().ok()?;
    let month = words.next()?;
    let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let month = months.iter().position(|name| *name == month)? as u64 + 1;
    let year: u64 = words.next()?.parse().ok()?;
    let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
    let (hour, minute, second) = (number()?, number()?, number()?);
    let text = format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z");
    let ns = u64::try_from(crate::clock::parse_rfc3339(&text)?).ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_nanos(ns))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_servers_are_read() {
        let time = http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        assert_eq!(time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs(), 784_111_777);
        assert_eq!(http_date("yesterday"), None);
    }

    #[test]
    fn names_are_no_patterns() {
        assert_eq!(escape("a*[b]"), "a\\*\\[b]");
    }
}
