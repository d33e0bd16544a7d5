//! What the executor tells, as BuildKit's clients know it.

use std::collections::HashMap;

use bytes::Bytes;
use tokio::sync::mpsc;
use wherry_buildkit::control::{Part, Progress, Step};
use wherry_buildkit::pb::Timestamp;
use wherry_buildkit::pb::control::VertexWarning;
use wherry_buildkit::pb::ops::{Range, SourceInfo};

use super::files::Definition;
use crate::build::{Event, StepId, Stream, Warning};

/// A build's steps, by the executor's numbers.
#[derive(Debug)]
pub(super) struct Watch {
    progress: Progress,
    steps: HashMap<StepId, Watched>,
}

#[derive(Debug)]
struct Watched {
    step: Step,
    is_cached: bool,
    parts: HashMap<String, Part>,
}

impl Watch {
    /// Tells `progress` what will happen.
    pub(super) fn new(progress: Progress) -> Self {
        Self { progress, steps: HashMap::new() }
    }

    /// The digest of a step.
    pub(super) fn digest(&self, step: StepId) -> Option<&str> {
        self.steps.get(&step).map(|watched| watched.step.digest())
    }

    /// Tells what comes until nobody tells any more.
    pub(super) async fn follow(
        &mut self,
        mut events: mpsc::UnboundedReceiver<Event>,
        definition: &Definition,
    ) {
        // All warnings share one copy.
        let text = Bytes::from(definition.text.clone());
        while let Some(event) = events.recv().await {
            self.tell(event, definition, &text);
        }
    }

    fn tell(&mut self, event: Event, definition: &Definition, text: &Bytes) {
        match event {
            Event::Declared { step, name, inputs } => {
                let inputs: Vec<_> =
                    inputs.iter().filter_map(|input| self.digest(*input)).map(str::to_owned).collect();
                let declared = self.progress.declare(&name, &inputs);
                self.steps.insert(step, Watched { step: declared, is_cached: false, parts: HashMap::new() });
            }
            Event::Warning(warning) => self.progress.warn(vertex_warning(warning, definition, text)),
            Event::Started { step, .. }
            | Event::Cached { step }
            | Event::Output { step, .. }
            | Event::Transfer { step, .. }
            | Event::Finished { step, .. } => {
                if let Some(watched) = self.steps.get_mut(&step) {
                    watched.tell(event);
                }
            }
        }
    }
}

impl Watched {
    fn tell(&mut self, event: Event) {
        match event {
            Event::Started { at_ns, .. } => self.step.start(timestamp(at_ns)),
            Event::Cached { .. } => self.is_cached = true,
            Event::Output { stream, bytes, at_ns, .. } => {
                self.step.log(stream == Stream::Err, &bytes, timestamp(at_ns));
            }
            Event::Transfer { id, current, total, done, .. } => {
                let step = &self.step;
                let mut part = self.parts.remove(&id).unwrap_or_else(|| step.part(&id, ""));
                part.at(current, total);
                if done {
                    part.end();
                } else {
                    self.parts.insert(id, part);
                }
            }
            Event::Finished { at_ns, error, .. } => {
                self.step.finish(timestamp(at_ns), self.is_cached, error.as_deref());
            }
            Event::Declared { .. } | Event::Warning(_) => {}
        }
    }
}

/// A time in nanoseconds since the epoch.
pub(super) fn timestamp(at_ns: i64) -> Timestamp {
    let nanos = at_ns.rem_euclid(1_000_000_000);
    Timestamp { seconds: at_ns.div_euclid(1_000_000_000), nanos: i32::try_from(nanos).unwrap_or(0) }
}

/// A warning about no line of the Dockerfile.
pub(super) fn plain_warning(text: &str, definition: &Definition) -> VertexWarning {
    let vertex = definition.vertex.clone();
    VertexWarning { vertex, level: 1, short: text.as_bytes().to_vec(), ..VertexWarning::default() }
}

fn vertex_warning(warning: Warning, definition: &Definition, text: &Bytes) -> VertexWarning {
    let line = usize::try_from(warning.line).unwrap_or(0);
    VertexWarning {
        vertex: definition.vertex.clone(),
        level: 1,
        short: format!("{}: {} (line {line})", warning.rule, warning.detail).into_bytes(),
        detail: vec![warning.description.into_bytes()],
        url: warning.url,
        info: Some(SourceInfo {
            filename: definition.name.clone(),
            data: text.clone(),
            language: "Dockerfile".into(),
        }),
        ranges: vec![Range::lines(line, line)],
    }
}
