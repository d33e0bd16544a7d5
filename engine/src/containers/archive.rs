//! `HEAD`, `GET` and `PUT /containers/{id}/archive`: `docker cp`.
//!
//! All three look at the container's file system and its volumes in a thread of their own (see
//! [`wherry_image_store::with_view`]), whether it runs or not. What is mounted in the container besides, like `/proc` or
//! a tmpfs, is not there, as with dockerd.

mod stat;
mod view;

use std::sync::Arc;

use base64::Engine as _;
use hyper::StatusCode;
use hyper::header::HeaderValue;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat2, statat};
use tokio::sync::oneshot;
use wherry_image_store::{Extract, UnpackError, View, extract, pack};

use self::stat::PathStat;
use super::Container;
use crate::engine::{Engine, blocking};
use crate::error::Error;
use crate::images::{Archive, BlockingBody};
use crate::server::{Reply, Request, Response, response};
use crate::text::{go_error, go_quote};

const STAT_HEADER: &str = "x-docker-container-path-stat";

/// Finds the handler.
///
/// # Errors
/// 400 without a path, 404 for a path that is not there, else those of the handlers.
pub(super) async fn handle(
    engine: Arc<Engine>,
    container: Arc<Container>,
    name: &str,
    method: &str,
    request: Request,
) -> Result<Reply, Error> {
    let path = request.query.get("path").filter(|path| !path.is_empty());
    let path = path.ok_or_else(|| Error::InvalidParameter("bad parameter: pathcannot be empty".into()))?;
    let target = Target { path: stat::absolute(path), container: name.to_owned() };
    match method {
        "HEAD" => head(engine, container, target).await,
        "GET" => get(engine, container, target).await,
        "PUT" => put(engine, container, target, request).await,
        _ => Err(Error::PageNotFound),
    }
}

/// Publishes what was done; to clients the volumes are mounted for it, as dockerd does.
fn around(engine: &Engine, container: &Container, action: &str) {
    let now_ns = crate::clock::now_ns();
    super::lifecycle::mounts_event(engine, container, now_ns, true);
    super::publish_at(engine, container, now_ns, action, Default::default());
    super::lifecycle::mounts_event(engine, container, now_ns, false);
}

/// What a request is about.
struct Target {
    /// Absolute and clean, but for a `/` or `/.` at its end.
    path: String,
    /// As the client called it.
    container: String,
}

impl Target {
    /// dockerd's errors for a path that cannot be looked at.
    fn refused(&self, action: &str, errno: rustix::io::Errno) -> Error {
        match errno {
            rustix::io::Errno::NOENT => Error::NotFound(format!(
                "Could not find the file {} in container {}",
                self.path, self.container
            )),
            errno => Error::server(format!("{action} {}: {}", self.path, go_error(&errno.into()))),
        }
    }

    fn stat(&self, view: &View) -> Result<PathStat, Error> {
        PathStat::of(view.root(), &self.path).map_err(|errno| self.refused("lstat", errno))
    }
}

async fn head(engine: Arc<Engine>, container: Arc<Container>, target: Target) -> Result<Reply, Error> {
    let stat = blocking(move || view::with_view(&engine, &container, |view, _| target.stat(view))).await?;
    let mut response = response::empty(StatusCode::OK);
    show(&stat, &mut response)?;
    Ok(response.into())
}

fn show(stat: &PathStat, response: &mut Response) -> Result<(), Error> {
    let text = base64::engine::general_purpose::STANDARD.encode(stat.to_json());
    let value = HeaderValue::try_from(text).map_err(|e| Error::server(e.to_string()))?;
    response.headers_mut().insert(STAT_HEADER, value);
    Ok(())
}

async fn get(engine: Arc<Engine>, container: Arc<Container>, target: Target) -> Result<Reply, Error> {
    let (sender, mut response) = response::whole("application/x-tar");
    let (found, finding) = oneshot::channel();
    tokio::task::spawn_blocking(move || {
        let mut found = Some(found);
        let looked = view::with_view(&engine, &container, |view, _| {
            let stat = target.stat(view)?;
            around(&engine, &container, "archive-path");
            // If nobody waits for it, sending fails as well.
            found.take().map(|found| found.send(Ok(stat)));
            send_tree(&target, view, Archive::new(sender))
        });
        match (found, looked) {
            (Some(found), Err(error)) => drop(found.send(Err(error))),
            // The head is sent; all that can be done is to break the connection.
            (None, Err(error)) => tracing::warn!(container = %container.id, %error, "copying ended early"),
            (_, Ok(())) => {}
        }
    });
    let ended = |_| Error::server("the file system could not be looked at");
    show(&finding.await.map_err(ended)??, &mut response)?;
    Ok(response.into())
}

/// Sends a folder with what is in it, or one file.
fn send_tree(target: &Target, view: &View, archive: Archive) -> Result<(), Error> {
    let out = archive.writer();
    let (folder, name) = stat::split(&target.path);
    let open = |path: &str| openat2(view.root(), path, FOLDER, Mode::empty(), stat::IN_ROOT);
    let called = stat::base(&target.path);
    // With a slash or a dot at its end, a path means what a link leads to.
    let packed = match open(folder)
        .and_then(|folder| Ok((statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?, folder)))
    {
        Ok((stat, folder)) if FileType::from_raw_mode(stat.st_mode) != FileType::Directory => {
            pack(&folder, name.as_bytes(), called.as_bytes(), out)
        }
        Ok(_) => {
            let folder = open(&target.path).map_err(|errno| target.refused("open", errno))?;
            pack(&folder, b".", called.as_bytes(), out)
        }
        Err(errno) => return Err(target.refused("lstat", errno)),
    };
    packed.map_err(Error::io("copy", &target.path))?;
    archive.finish();
    Ok(())
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

async fn put(
    engine: Arc<Engine>,
    container: Arc<Container>,
    target: Target,
    request: Request,
) -> Result<Reply, Error> {
    let keep_kinds = request.query.flag("noOverwriteDirNonDir");
    let as_user = request.query.flag("copyUIDGID");
    let body = BlockingBody::new(request.body);
    blocking(move || {
        view::with_view(&engine, &container, |view, binds| {
            let folder = openat2(
                view.root(),
                &target.path,
                OFlags::PATH | OFlags::CLOEXEC,
                Mode::empty(),
                stat::IN_ROOT,
            )
            .map_err(|errno| target.refused("stat", errno))?;
            let record = container.record();
            binds.may_write(&record, view, &folder)?;
            // As dockerd: to somebody who was named, not to root by default.
            let owner = if as_user && !record.config.user.is_empty() {
                let user = super::users::resolve(view.root(), &record.config.user, &[])?;
                Some((user.uid, user.gid))
            } else {
                None
            };
            extract(folder, body, Extract { keep_kinds, owner }).map_err(|error| told(&error, &target.path))
        })?;
        around(&engine, &container, "extract-to-dir");
        Ok(())
    })
    .await?;
    Ok(response::empty(StatusCode::OK).into())
}

/// dockerd's text for an archive that cannot be unpacked.
fn told(error: &UnpackError, into: &str) -> Error {
    let quote = |path: &std::path::Path| go_quote(&path.to_string_lossy());
    Error::server(match error {
        UnpackError::Replaces { path, folder: true } => {
            format!("cannot overwrite non-directory {} with directory {}", quote(path), go_quote(into))
        }
        UnpackError::Replaces { path, folder: false } => {
            format!("cannot overwrite directory {} with non-directory {}", quote(path), go_quote(into))
        }
        UnpackError::Escapes { path } => format!("invalid entry name {}", quote(path)),
        UnpackError::Tar(wherry_image_store::TarError::Truncated) => "unexpected EOF".into(),
        other => other.to_string(),
    })
}
