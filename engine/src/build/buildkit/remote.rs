//! Contexts that are not a folder of the client: what it sends once as an archive, repositories, downloads.

use std::sync::Arc;

use wherry_buildkit::control::Progress;
use wherry_buildkit::grpc::Status;
use wherry_buildkit::session::Session;

use super::attributes::{Place, Wanted};
use super::failure;
use super::files::Definition;
use crate::build::Folder;
use crate::build::classic::{Context, dockerfile, remote_context, unpack};
use crate::engine::{Engine, blocking};
use crate::error::Error;
use crate::images::BlockingBody;

/// Brings such a context; of a folder of the client nothing yet.
///
/// # Errors
/// What the client or the server says.
pub(super) async fn fetch(
    engine: &Arc<Engine>,
    session: &Arc<Session>,
    context: &Place,
    progress: &Progress,
) -> Result<Option<Arc<Folder>>, Status> {
    Ok(bring(engine, session, context, progress).await?.map(|context| context.folder))
}

/// Brings such a context with the Dockerfile that is in it.
///
/// # Errors
/// As [`fetch`]; a Dockerfile that is not there.
pub(super) async fn with_dockerfile(
    engine: &Arc<Engine>,
    session: &Arc<Session>,
    wanted: &Wanted,
    progress: &Progress,
) -> Result<(Definition, Option<Arc<Folder>>), Status> {
    let Some(context) = bring(engine, session, &wanted.context, progress).await? else {
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
    Ok((Definition { name, text, ignore: None, vertex }, Some(context.folder)))
}

async fn bring(
    engine: &Arc<Engine>,
    session: &Arc<Session>,
    context: &Place,
    progress: &Progress,
) -> Result<Option<Context>, Status> {
    match context {
        Place::Client(_) | Place::Image(_) | Place::Input(_) => Ok(None),
        Place::Upload(path) => {
            let step = progress.start("[internal] load remote build context");
            let folder = uploaded(engine, session, path).await;
            step.end(&folder);
            Ok(Some(Context { folder: folder?, dockerfile: None }))
        }
        Place::Remote(address) => {
            let step = progress.start(&format!("[internal] load git source {address}"));
            let brought = remote_context(engine, address).await.map_err(|error| failure::of_engine(&error));
            step.end(&brought.as_ref().map(|_| ()));
            brought.map(Some)
        }
    }
}

async fn uploaded(engine: &Arc<Engine>, session: &Arc<Session>, path: &str) -> Result<Arc<Folder>, Status> {
    let (pieces, body) = BlockingBody::channel();
    let (upload, mut received) = tokio::sync::mpsc::channel(8);
    let forward = async move {
        while let Some(piece) = received.recv().await {
            if pieces.send(Ok(piece)).await.is_err() {
                return;
            }
        }
    };
    let (sent, (), unpacked) = tokio::join!(session.upload(path, upload), forward, unpack(engine, body));
    sent.map_err(failure::of_session)?;
    unpacked.map_err(|error| failure::of_engine(&error))
}
