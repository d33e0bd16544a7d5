//! Builds that were: a file for each, with its record and all that was told of it.
//!
//! The files are good advice only: they are written without waiting for the disk, and one that cannot be read does not
//! count. Builds that run have a record, too, which is on no disk.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};
use tokio::sync::broadcast;

use super::backend::Outcome;
use super::builds::Build;
use super::documents::{self, Documents};
use crate::grpc::{Code, Replier, Status};
use crate::pb::Timestamp;
use crate::pb::control::{
    BuildHistoryEvent, BuildHistoryEventType, BuildHistoryRecord, BuildHistoryRequest, StatusResponse,
    UpdateBuildHistoryRequest,
};

/// How many builds are remembered, pinned ones aside (dockerd's number).
const MAX_RECORDS: usize = 50;
/// How many events a slow listener may be behind.
const QUEUED_EVENTS: usize = 256;

/// The history.
#[derive(Debug)]
pub(super) struct History {
    folder: PathBuf,
    /// By ref, once they have been read.
    records: Mutex<Option<HashMap<String, BuildHistoryRecord>>>,
    events: broadcast::Sender<BuildHistoryEvent>,
}

impl History {
    /// Kept in `folder`, which is made when there is something to keep.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, records: Mutex::new(None), events: broadcast::Sender::new(QUEUED_EVENTS) }
    }

    fn lock(&self) -> MutexGuard<'_, Option<HashMap<String, BuildHistoryRecord>>> {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        if records.is_none() {
            *records = Some(read_all(&self.folder));
        }
        records
    }

    /// Tells that a build has begun.
    pub(super) fn begin(self: &Arc<Self>, build: &Arc<Build>) -> Running {
        let running = Running { history: self.clone(), build: build.clone(), has_ended: false };
        self.tell(BuildHistoryEventType::Started, running.record());
        running
    }

    fn tell(&self, kind: BuildHistoryEventType, record: BuildHistoryRecord) {
        // That nobody listens is the rule.
        let _ = self.events.send(BuildHistoryEvent { r#type: kind as i32, record: Some(record) });
    }

    fn keep(&self, record: BuildHistoryRecord, documents: &Documents, log: &[Arc<StatusResponse>]) {
        if let Err(error) = write(&self.folder, &record, documents, log) {
            tracing::warn!(folder = %self.folder.display(), %error, "a build's history could not be written");
        }
        let forgotten = {
            let mut records = self.lock();
            let Some(records) = records.as_mut() else { return };
            records.insert(record.r#ref.clone(), record.clone());
            let mut unpinned: Vec<_> = records
                .values()
                .filter(|r| !r.pinned)
                .map(|r| (r.created_at.map_or(0, |t| t.as_nanos()), r.r#ref.clone()))
                .collect();
            unpinned.sort_unstable();
            let excess = unpinned.len().saturating_sub(MAX_RECORDS);
            let refs = unpinned.into_iter().take(excess);
            refs.filter_map(|(_, r)| records.remove(&r)).collect::<Vec<_>>()
        };
        for record in forgotten {
            remove_file(&self.folder, &record.r#ref);
            self.tell(BuildHistoryEventType::Deleted, record);
        }
        self.tell(BuildHistoryEventType::Complete, record);
    }

    /// What was told of a build.
    pub(super) fn log(&self, id: &str) -> Option<Vec<StatusResponse>> {
        let bytes = std::fs::read(self.folder.join(file_name(id))).ok()?;
        let mut rest = bytes.as_slice();
        BuildHistoryRecord::decode_length_delimited(&mut rest).ok()?;
        let mut log = Vec::new();
        while !rest.is_empty() {
            log.push(StatusResponse::decode_length_delimited(&mut rest).ok()?);
        }
        Some(log)
    }

    /// A document of one of the builds, by its digest. Blocking, but for a moment.
    pub(super) fn document(&self, digest: &str) -> Option<Bytes> {
        let owner = {
            let records = self.lock();
            records
                .iter()
                .flat_map(HashMap::values)
                .find(|record| documents::has(record, digest))?
                .r#ref
                .clone()
        };
        self.documents(&owner).find(digest)
    }

    fn documents(&self, id: &str) -> Documents {
        let bytes = std::fs::read(self.folder.join(file_name(id))).unwrap_or_default();
        Documents::decode_length_delimited(bytes.as_slice()).unwrap_or_default()
    }

    /// Tells the builds that were, the newest first, then, unless that is all that was asked for, those that come.
    ///
    /// # Errors
    /// A filter that is not understood; that the client has gone.
    pub(super) async fn listen(
        &self,
        request: BuildHistoryRequest,
        running: impl Fn() -> Vec<Arc<Build>>,
        replier: &Replier,
    ) -> Result<(), Status> {
        let filters = request.filter.iter().map(|f| Filter::parse(f)).collect::<Result<Vec<_>, _>>()?;
        let wanted = |event: &BuildHistoryEvent| {
            event.record.as_ref().is_some_and(|record| {
                (request.r#ref.is_empty() || record.r#ref == request.r#ref)
                    && (filters.is_empty() || filters.iter().any(|filter| filter.matches(record)))
            })
        };
        let mut news = self.events.subscribe();
        let mut events: Vec<BuildHistoryEvent> = running()
            .iter()
            .filter(|build| !build.request.internal)
            .map(|build| event(BuildHistoryEventType::Started, record_of(build)))
            .collect();
        if !request.active_only {
            let records = self.lock();
            let kept = records.iter().flat_map(|records| records.values().cloned());
            events.extend(kept.map(|record| event(BuildHistoryEventType::Complete, record)));
        }
        events.retain(|event| wanted(event));
        events.sort_by_key(|event| {
            std::cmp::Reverse(event.record.as_ref().and_then(|r| r.created_at).map_or(0, |t| t.as_nanos()))
        });
        if let Some(limit) = usize::try_from(request.limit).ok().filter(|limit| *limit > 0) {
            events.truncate(limit);
        }
        for event in events {
            replier.send(&event).await?;
        }
        if request.early_exit {
            return Ok(());
        }
        loop {
            match news.recv().await {
                Ok(event) if wanted(&event) => replier.send(&event).await?,
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            }
        }
    }

    /// Pins, unpins or forgets a build.
    ///
    /// # Errors
    /// That it is not known.
    pub(super) fn update(&self, request: &UpdateBuildHistoryRequest) -> Result<(), Status> {
        if request.finalize {
            // There is nothing that would still have to be written.
            return Ok(());
        }
        let mut records = self.lock();
        let missing =
            || Status::new(Code::NotFound, format!("failed to load ref {}: not found", request.r#ref));
        let known = records.as_mut().ok_or_else(missing)?;
        if request.delete {
            let record = known.remove(&request.r#ref).ok_or_else(missing)?;
            drop(records);
            remove_file(&self.folder, &request.r#ref);
            self.tell(BuildHistoryEventType::Deleted, record);
            return Ok(());
        }
        let record = known.get_mut(&request.r#ref).ok_or_else(missing)?;
        record.pinned = request.pinned;
        record.generation += 1;
        let record = record.clone();
        drop(records);
        let log: Vec<_> = self.log(&request.r#ref).unwrap_or_default().into_iter().map(Arc::new).collect();
        if let Err(error) = write(&self.folder, &record, &self.documents(&request.r#ref), &log) {
            return Err(Status::new(Code::Internal, format!("the history could not be written: {error}")));
        }
        self.tell(BuildHistoryEventType::Complete, record);
        Ok(())
    }
}

fn event(kind: BuildHistoryEventType, record: BuildHistoryRecord) -> BuildHistoryEvent {
    BuildHistoryEvent { r#type: kind as i32, record: Some(record) }
}

fn record_of(build: &Build) -> BuildHistoryRecord {
    let counts = build.progress.counts();
    BuildHistoryRecord {
        r#ref: build.request.r#ref.clone(),
        frontend: build.request.frontend.clone(),
        frontend_attrs: build.request.frontend_attrs.clone(),
        exporters: build.request.exporters.clone(),
        created_at: Some(build.progress.began()),
        num_cached_steps: counts.cached,
        num_total_steps: counts.total,
        num_completed_steps: counts.completed,
        num_warnings: counts.warnings,
        ..BuildHistoryRecord::default()
    }
}

/// A build that will have a place in the history.
#[derive(Debug)]
pub(super) struct Running {
    history: Arc<History>,
    build: Arc<Build>,
    has_ended: bool,
}

impl Running {
    fn record(&self) -> BuildHistoryRecord {
        record_of(&self.build)
    }

    /// The build has ended.
    pub(super) async fn end(mut self, result: &Result<Outcome, Status>) {
        let work = tokio::task::spawn_blocking(self.keeping(result));
        if let Err(error) = work.await {
            tracing::warn!(%error, "a build's history was not written");
        }
    }

    /// What writes it down.
    fn keeping(&mut self, result: &Result<Outcome, Status>) -> impl FnOnce() + Send + 'static {
        self.has_ended = true;
        let mut record = self.record();
        record.completed_at = Some(Timestamp::now());
        let mut documents = Documents::default();
        match result {
            Ok(outcome) => {
                record.exporter_response.clone_from(&outcome.response);
                documents.of_result(&mut record, outcome);
                record.exporter_response.insert("buildkit.build.ref".into(), record.r#ref.clone());
            }
            Err(status) => {
                let message = status.to_message();
                documents.of_error(&mut record, &message);
                record.error = Some(message);
            }
        }
        let (history, build) = (self.history.clone(), self.build.clone());
        move || history.keep(record, &documents, &build.progress.all())
    }
}

/// Nobody waits for the build any more: its client has gone.
impl Drop for Running {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        let cancelled = Err(Status::new(Code::Cancelled, "context canceled"));
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(self.keeping(&cancelled));
        }
    }
}

/// The file of a build: clients choose the refs.
fn file_name(id: &str) -> String {
    let is_plain = (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric());
    if is_plain {
        return format!("{id}.build");
    }
    let mut name = String::from("sha256-");
    for byte in Sha256::digest(id) {
        // Writing to a String cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name + ".build"
}

fn write(
    folder: &Path,
    record: &BuildHistoryRecord,
    documents: &Documents,
    log: &[Arc<StatusResponse>],
) -> io::Result<()> {
    // Two messages in one: each skips the other's fields.
    let length = record.encoded_len() + documents.encoded_len();
    let mut bytes = Vec::with_capacity(length);
    prost::encode_length_delimiter(length, &mut bytes).map_err(io::Error::other)?;
    record.encode(&mut bytes).map_err(io::Error::other)?;
    documents.encode(&mut bytes).map_err(io::Error::other)?;
    for news in log {
        news.encode_length_delimited(&mut bytes).map_err(io::Error::other)?;
    }
    std::fs::create_dir_all(folder)?;
    let name = file_name(&record.r#ref);
    let temporary = folder.join(format!(".{name}"));
    std::fs::write(&temporary, bytes)?;
    std::fs::rename(temporary, folder.join(name))
}

fn remove_file(folder: &Path, id: &str) {
    if let Err(error) = std::fs::remove_file(folder.join(file_name(id))) {
        tracing::debug!(id, %error, "a build's history was not there");
    }
}

fn read_all(folder: &Path) -> HashMap<String, BuildHistoryRecord> {
    let Ok(entries) = std::fs::read_dir(folder) else { return HashMap::new() };
    let records = entries.flatten().filter_map(|entry| {
        let bytes = std::fs::read(entry.path()).ok()?;
        let record = BuildHistoryRecord::decode_length_delimited(bytes.as_slice()).ok()?;
        (entry.file_name() == file_name(&record.r#ref).as_str()).then(|| (record.r#ref.clone(), record))
    });
    records.collect()
}

/// A condition on a build, of those joined by commas: `status==completed`, `ref==X`.
#[derive(Debug)]
struct Filter(Vec<(String, bool, String)>);

impl Filter {
    fn parse(text: &str) -> Result<Self, Status> {
        let mut conditions = Vec::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (key, is_equal, value) = match (part.split_once("=="), part.split_once("!=")) {
                (Some((key, value)), _) => (key, true, value),
                (None, Some((key, value))) => (key, false, value),
                (None, None) => {
                    let text =
                        format!("filter {part:?} of the build history is not supported by this engine");
                    return Err(Status::new(Code::Unimplemented, text));
                }
            };
            if !matches!(key, "ref" | "status" | "repository") {
                let text = format!("filter {key:?} of the build history is not supported by this engine");
                return Err(Status::new(Code::Unimplemented, text));
            }
            conditions.push((key.to_string(), is_equal, value.trim_matches('"').to_string()));
        }
        Ok(Self(conditions))
    }

    fn matches(&self, record: &BuildHistoryRecord) -> bool {
        let status = match (&record.completed_at, &record.error) {
            (None, _) => "running",
            (Some(_), None) => "completed",
            (Some(_), Some(error)) if error.code == Code::Cancelled as i32 => "canceled",
            (Some(_), Some(_)) => "error",
        };
        self.0.iter().all(|(key, is_equal, value)| {
            let found = match key.as_str() {
                "ref" => record.r#ref.as_str(),
                "repository" => record.frontend_attrs.get("vcs:source").map_or("", String::as_str),
                _ => status,
            };
            (found == value) == *is_equal
        })
    }
}
