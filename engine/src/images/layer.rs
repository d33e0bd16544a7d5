//! One layer of a pull: from the registry into the store in one pass.

use std::io;
use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};
use wherry_image_store::{DiffId, Expected, Layer, Store};
use wherry_registry::{Descriptor, Error as Failure, Repository};

use super::body::BlockingBody;
use super::messages::{self, Pace};
use super::output::Output;
use super::pull::Stop;
use crate::engine::blocking;
use crate::error::Error;

/// A layer that is to be fetched.
pub(super) struct Job {
    pub(super) store: Store,
    pub(super) repository: Repository,
    pub(super) descriptor: Descriptor,
    pub(super) diff_id: DiffId,
    pub(super) output: Output,
}

/// Fetches and unpacks it as soon as there is a slot.
pub(super) async fn fetch(job: Job, slots: Arc<Semaphore>) -> Result<Layer, Stop> {
    let _slot = slots.acquire().await.map_err(|_| Error::server("the engine is shutting down"))?;
    let id = job.descriptor.digest.short();
    let (sender, body) = BlockingBody::channel();
    let expected =
        Expected { diff_id: Some(job.diff_id), blob: Some((job.descriptor.digest, job.descriptor.size)) };
    let store = job.store.clone();
    let unpacking = tokio::spawn(blocking(move || Ok(store.ingest(expected, body)?)));
    let received = receive(&job, &id, &sender).await;
    // A body that just ends is too short, so a transfer that broke never passes for a layer.
    drop(sender);
    let unpacked = match unpacking.await {
        Ok(unpacked) => unpacked,
        Err(ended) => Err(Error::server(format!("unpacking ended: {ended}"))),
    };
    if let Received::Broken(failure) = received {
        return Err(failure.into());
    }
    let layer = unpacked?;
    let size = job.descriptor.size;
    job.output.send(messages::progress("Extracting", &id, size, size)).await;
    job.output.send(messages::state("Pull complete", &id)).await;
    Ok(layer)
}

enum Received {
    Whole,
    /// The unpacking side wants no more: it has failed, and says why itself.
    Refused,
    Broken(Failure),
}

async fn receive(job: &Job, id: &str, sender: &mpsc::Sender<io::Result<bytes::Bytes>>) -> Received {
    let mut blob = match job.repository.blob(&job.descriptor.digest).await {
        Ok(blob) => blob,
        Err(failure) => return Received::Broken(failure),
    };
    let (mut current, total) = (0, job.descriptor.size);
    let mut pace = Pace::default();
    loop {
        match blob.next().await {
            Ok(Some(bytes)) => {
                current += bytes.len() as u64;
                if sender.send(Ok(bytes)).await.is_err() {
                    return Received::Refused;
                }
                if pace.allows(current == total) {
                    job.output.send(messages::progress("Downloading", id, current, total)).await;
                }
            }
            Ok(None) => break,
            Err(failure) => return Received::Broken(failure),
        }
    }
    job.output.send(messages::state("Verifying Checksum", id)).await;
    job.output.send(messages::state("Download complete", id)).await;
    Received::Whole
}
