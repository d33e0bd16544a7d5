//! What becomes of an image that has been built.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use wherry_buildkit::control::{Progress, Step};
use wherry_buildkit::grpc::Status;
use wherry_buildkit::pb::control::Exporter;
use wherry_buildkit::session::{FileTarget, Session};
use wherry_image_ref::Reference;
use wherry_image_store::{Image, Layer, NewImage, pack_contents};

use super::failure;
use crate::build::Built;
use crate::engine::{Engine, blocking};
use crate::error::Error;
use crate::images;

/// In which pieces an archive is sent.
const PIECE_BYTES: usize = 128 << 10;
/// How many of them wait for the client.
const QUEUED_PIECES: usize = 8;

/// For whom an image was built.
pub(super) struct Work<'a> {
    pub(super) engine: &'a Arc<Engine>,
    pub(super) session: &'a Arc<Session>,
    pub(super) progress: &'a Progress,
    /// Whether the image was to be a cache, too.
    pub(super) as_cache: bool,
}

/// Does with an image what the client wants, and gives what it is told of that.
///
/// # Errors
/// A kind of output that there is not; the store's, the client's.
pub(super) async fn export(
    work: &Work<'_>,
    built: &Arc<Built>,
    exporters: &[Exporter],
) -> Result<BTreeMap<String, String>, Status> {
    let Work { engine, session, progress, .. } = *work;
    let mut response = BTreeMap::new();
    for (number, exporter) in exporters.iter().enumerate() {
        let attrs = &exporter.attrs;
        match exporter.r#type.as_str() {
            "moby" | "image" => response.extend(to_store(work, built, attrs).await?),
            "local" => {
                let step = progress.start("exporting to client directory");
                let sent = to_folder(engine, session, built, number, &step).await;
                step.end(&sent);
                sent?;
            }
            "tar" => {
                let step = progress.start("exporting to client tarball");
                let sent = to_archive(engine, session, built, number, &step).await;
                step.end(&sent);
                sent?;
            }
            other => return Err(unknown(other)),
        }
    }
    Ok(response)
}

/// Says at once what cannot be done.
///
/// # Errors
/// A kind of output that there is not.
pub(super) fn check(exporters: &[Exporter]) -> Result<(), Status> {
    let is_known = |kind: &str| matches!(kind, "moby" | "image" | "local" | "tar");
    match exporters.iter().find(|exporter| !is_known(&exporter.r#type)) {
        Some(exporter) => Err(unknown(&exporter.r#type)),
        None => Ok(()),
    }
}

fn unknown(kind: &str) -> Status {
    Status::unknown(format!("exporter {} could not be found", crate::text::go_quote(kind)))
}

/// Puts an image into the store. It could be built again, so nobody waits for the disk. Blocking.
///
/// # Errors
/// The store's.
fn commit(engine: &Engine, built: &Built, names: &[Reference]) -> Result<Arc<Image>, Error> {
    let ids: Vec<_> = built.layers.iter().map(|layer| layer.diff_id()).collect();
    let layers: Vec<Layer> = engine.store.hold_layers(&ids)?;
    let new =
        NewImage { config: &built.config, layers: &layers, names, parent: None, tagged: true, fetched: true };
    Ok(engine.store.commit(&new)?)
}

async fn to_store(
    work: &Work<'_>,
    built: &Arc<Built>,
    attrs: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Status> {
    let step = work.progress.start("exporting to image");
    let stored = store(work, built, attrs, &step).await;
    step.end(&stored);
    stored
}

async fn store(
    work: &Work<'_>,
    built: &Arc<Built>,
    attrs: &BTreeMap<String, String>,
    step: &Step,
) -> Result<BTreeMap<String, String>, Status> {
    step.part("exporting layers", "").end();
    let of_linux = built.image().is_ok_and(|image| image.document.os == "linux");
    if !of_linux {
        return Err(Status::unknown("operating system is not supported"));
    }
    if work.as_cache {
        // It was written into the document when that was made.
        step.part("preparing layers for inline cache", "").end();
    }
    let mut written: Vec<Reference> = Vec::new();
    for name in attrs.get("name").iter().flat_map(|names| names.split(',')).filter(|name| !name.is_empty()) {
        let reference = name.parse().map_err(|error| {
            Status::unknown(format!("failed to parse image name {}: {error}", crate::text::go_quote(name)))
        })?;
        written.push(reference);
    }
    let names: Vec<Reference> = written.iter().map(|name| name.clone().or_latest()).collect();
    let id = format!("sha256:{}", wherry_image_ref::Digest::of(&built.config).hex());
    let writing = step.part(&format!("writing image {id}"), "");
    let (engine, built, familiar) = (work.engine.clone(), built.clone(), written.clone());
    let image = blocking(move || {
        let image = commit(&engine, &built, &names)?;
        for name in &familiar {
            images::publish(&engine, "tag", &image.id, &name.familiar());
        }
        images::publish(&engine, "create", &image.id, &image.id.to_string());
        Ok(image)
    })
    .await
    .map_err(|error| failure::of_engine(&error))?;
    writing.end();
    for name in &written {
        step.part(&format!("naming to {name}"), "").end();
    }
    let id = image.id.to_string();
    let mut response = BTreeMap::from([
        ("containerimage.digest".to_owned(), id.clone()),
        ("containerimage.config.digest".to_owned(), id),
    ]);
    if !written.is_empty() {
        let names: Vec<_> = written.iter().map(ToString::to_string).collect();
        response.insert("image.name".to_owned(), names.join(","));
    }
    Ok(response)
}

/// The image's files, mounted nowhere.
async fn files(engine: &Arc<Engine>, built: &Arc<Built>) -> Result<OwnedFd, Status> {
    let (engine, built) = (engine.clone(), built.clone());
    let mounted = blocking(move || {
        let ids: Vec<_> = built.layers.iter().map(|layer| layer.diff_id()).collect();
        Ok(engine.store.mount_layers(&ids)?)
    });
    mounted.await.map_err(|error| failure::of_engine(&error))
}

async fn to_folder(
    engine: &Arc<Engine>,
    session: &Arc<Session>,
    built: &Arc<Built>,
    number: usize,
    step: &Step,
) -> Result<(), Status> {
    let root = files(engine, built).await?;
    let mut part = step.part("copying files", "");
    let target = FileTarget { exporter: number, metadata: Vec::new() };
    let sent = session.send_folder(&target, root, |bytes| part.at(bytes, 0)).await;
    part.end();
    sent.map_err(failure::of_session)
}

async fn to_archive(
    engine: &Arc<Engine>,
    session: &Arc<Session>,
    built: &Arc<Built>,
    number: usize,
    step: &Step,
) -> Result<(), Status> {
    let root = files(engine, built).await?;
    let part = step.part("sending tarball", "");
    let (pieces, receiver) = mpsc::channel(QUEUED_PIECES);
    let packing = tokio::task::spawn_blocking(move || {
        let mut out = io::BufWriter::with_capacity(PIECE_BYTES, Pieces(pieces.clone()));
        let packed = pack_contents(&root, &mut out).and_then(|()| out.flush());
        if let Err(error) = packed {
            // The receiver may be the one that ended it.
            let _ = pieces.blocking_send(Err(error));
        }
    });
    let target = FileTarget { exporter: number, metadata: Vec::new() };
    let sent = session.send_file(&target, receiver).await;
    packing.await.map_err(|error| Status::unknown(error.to_string()))?;
    part.end();
    sent.map_err(failure::of_session)
}

/// Sends what is written.
struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map(|()| bytes.len()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
