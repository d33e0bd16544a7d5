//! What happens in a build, for those who watch it now and for those who read it later.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use crate::pb::Timestamp;
use crate::pb::control::{StatusResponse, Vertex, VertexLog, VertexStatus, VertexWarning};

/// How much of a step's output is kept and shown (BuildKit's own limit).
const MAX_LOG_BYTES: usize = 2 << 20;

/// A build's progress. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Progress {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    id: String,
    began: Timestamp,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    news: Vec<Arc<StatusResponse>>,
    steps: u64,
    log_bytes: HashMap<String, usize>,
    vertexes: HashMap<String, (bool, bool)>,
    warnings: usize,
    ended: bool,
}

/// How far a build came, for the history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) total: i32,
    pub(super) cached: i32,
    pub(super) completed: i32,
    pub(super) warnings: i32,
}

impl Progress {
    /// Of a build of that name.
    #[must_use]
    pub fn new(id: &str) -> Self {
        let shared = Shared {
            id: id.to_string(),
            began: Timestamp::now(),
            state: Mutex::default(),
            changed: Notify::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Declares a step that will come, and needs the results of `inputs`.
    pub fn declare(&self, name: &str, inputs: &[String]) -> Step {
        let number = {
            let mut state = self.lock();
            state.steps += 1;
            state.steps
        };
        let hash = Sha256::digest(format!("{}\n{number}\n{name}", self.shared.id));
        let mut digest = String::from("sha256:");
        for byte in hash {
            // Writing to a String cannot fail.
            let _ = write!(digest, "{byte:02x}");
        }
        let vertex = Vertex { digest, inputs: inputs.to_vec(), name: name.to_string(), ..Vertex::default() };
        let step = Step { progress: self.clone(), vertex };
        step.tell();
        step
    }

    /// Declares a step and starts it.
    pub fn start(&self, name: &str) -> Step {
        let mut step = self.declare(name, &[]);
        step.start(Timestamp::now());
        step
    }

    /// Tells a warning.
    pub fn warn(&self, warning: VertexWarning) {
        self.publish(StatusResponse { warnings: vec![warning], ..StatusResponse::default() });
    }

    /// The end of all news.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.shared.changed.notify_waiters();
    }

    fn publish(&self, news: StatusResponse) {
        {
            let mut state = self.lock();
            for vertex in &news.vertexes {
                state.vertexes.insert(vertex.digest.clone(), (vertex.cached, vertex.completed.is_some()));
            }
            state.warnings += news.warnings.len();
            state.news.push(Arc::new(news));
        }
        self.shared.changed.notify_waiters();
    }

    /// The news from `from` on; waits for some. None: there will be no more.
    pub(super) async fn next(&self, from: usize) -> Option<Vec<Arc<StatusResponse>>> {
        loop {
            let mut changed = std::pin::pin!(self.shared.changed.notified());
            changed.as_mut().enable();
            {
                let state = self.lock();
                match state.news.get(from..) {
                    Some(news) if !news.is_empty() => return Some(news.to_vec()),
                    _ if state.ended => return None,
                    _ => {}
                }
            }
            changed.await;
        }
    }

    /// When the build began.
    #[must_use]
    pub fn began(&self) -> Timestamp {
        self.shared.began
    }

    /// All news so far.
    pub(super) fn all(&self) -> Vec<Arc<StatusResponse>> {
        self.lock().news.clone()
    }

    pub(super) fn counts(&self) -> Counts {
        let state = self.lock();
        let count = |n: usize| i32::try_from(n).unwrap_or(i32::MAX);
        Counts {
            total: count(state.vertexes.len()),
            cached: count(state.vertexes.values().filter(|(cached, _)| *cached).count()),
            completed: count(state.vertexes.values().filter(|(_, completed)| *completed).count()),
            warnings: count(state.warnings),
        }
    }
}

/// A step of a build.
#[derive(Clone, Debug)]
pub struct Step {
    progress: Progress,
    vertex: Vertex,
}

impl Step {
    /// Its name among steps: a digest.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.vertex.digest
    }

    fn tell(&self) {
        self.progress
            .publish(StatusResponse { vertexes: vec![self.vertex.clone()], ..StatusResponse::default() });
    }

    /// It begins.
    pub fn start(&mut self, at: Timestamp) {
        self.vertex.started = Some(at);
        self.vertex.completed = None;
        self.tell();
    }

    /// It ends; an error says why it failed. One that was never started has nothing to tell but its failure.
    pub fn finish(&mut self, at: Timestamp, cached: bool, error: Option<&str>) {
        self.vertex.started = self.vertex.started.or(Some(at));
        self.vertex.completed = Some(at);
        self.vertex.cached = cached;
        self.vertex.error = error.unwrap_or_default().to_string();
        self.tell();
    }

    /// Ends with a result.
    pub fn end<T, E: std::fmt::Display>(mut self, result: &Result<T, E>) {
        let error = result.as_ref().err().map(ToString::to_string);
        self.finish(Timestamp::now(), false, error.as_deref());
    }

    /// Its program has written something. What is beyond the limit is left out, and that is said once.
    pub fn log(&self, is_error: bool, bytes: &[u8], at: Timestamp) {
        let msg = {
            let mut state = self.progress.lock();
            let before = state.log_bytes.get(&self.vertex.digest).copied().unwrap_or(0);
            if before > MAX_LOG_BYTES {
                return;
            }
            state.log_bytes.insert(self.vertex.digest.clone(), before + bytes.len());
            let mut msg = bytes.get(..MAX_LOG_BYTES - before).unwrap_or(bytes).to_vec();
            if before + bytes.len() > MAX_LOG_BYTES {
                msg.extend_from_slice(b"\n[output clipped, log limit 2MiB reached]\n");
            }
            Bytes::from(msg)
        };
        let stream = if is_error { 2 } else { 1 };
        let log = VertexLog { vertex: self.vertex.digest.clone(), timestamp: Some(at), stream, msg };
        self.progress.publish(StatusResponse { logs: vec![log], ..StatusResponse::default() });
    }

    /// Begins something within the step.
    #[must_use]
    pub fn part(&self, id: &str, name: &str) -> Part {
        let now = Timestamp::now();
        let part = Part {
            progress: self.progress.clone(),
            status: VertexStatus {
                id: id.to_string(),
                vertex: self.vertex.digest.clone(),
                name: name.to_string(),
                timestamp: Some(now),
                started: Some(now),
                ..VertexStatus::default()
            },
        };
        part.tell();
        part
    }
}

/// Something within a step that has a progress of its own.
#[derive(Clone, Debug)]
pub struct Part {
    progress: Progress,
    status: VertexStatus,
}

/// How often a part's progress is told.
const TELL_EVERY_NANOS: i128 = 100_000_000;

impl Part {
    fn tell(&self) {
        self.progress
            .publish(StatusResponse { statuses: vec![self.status.clone()], ..StatusResponse::default() });
    }

    /// How far it is; `total` is 0 where that is not known. Told now and then.
    pub fn at(&mut self, current: u64, total: u64) {
        self.status.current = i64::try_from(current).unwrap_or(i64::MAX);
        self.status.total = i64::try_from(total).unwrap_or(i64::MAX);
        let now = Timestamp::now();
        let last = self.status.timestamp.map_or(0, |t| t.as_nanos());
        if now.as_nanos() - last > TELL_EVERY_NANOS {
            self.status.timestamp = Some(now);
            self.tell();
        }
    }

    /// It has come to its end.
    pub fn end(mut self) {
        let now = Timestamp::now();
        self.status.timestamp = Some(now);
        self.status.completed = Some(now);
        self.tell();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_comes_late_sees_everything() {
        let progress = Progress::new("b");
        let step = progress.start("[1/1] RUN x");
        step.log(false, b"out", Timestamp::now());
        step.clone().end(&Ok::<_, String>(()));
        let mut cached = progress.declare("[internal] y", &[step.digest().to_string()]);
        cached.finish(Timestamp::now(), true, None);
        progress.end();
        let news = progress.next(0).await.unwrap();
        assert_eq!(news.len(), 6);
        assert_eq!(progress.next(6).await, None);
        assert_eq!(progress.counts(), Counts { total: 2, cached: 1, completed: 2, warnings: 0 });
        let last = &news[5].vertexes[0];
        assert!(last.cached && last.completed.is_some() && last.inputs == [step.digest()]);
    }

    #[test]
    fn output_is_clipped_once() {
        let progress = Progress::new("b");
        let step = progress.start("RUN yes");
        for _ in 0..5 {
            step.log(false, &vec![b'y'; 1 << 20], Timestamp::now());
        }
        let bytes: usize = progress.all().iter().flat_map(|n| n.logs.iter().map(|l| l.msg.len())).sum();
        assert_eq!(bytes, MAX_LOG_BYTES + 42);
    }
}
