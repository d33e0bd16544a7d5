//! The services of a control connection.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::Progress;
use super::backend::{Backend, BuildRequest, Outcome, PlanRequest};
use super::builds::{Build, Builds};
use super::history::History;
use crate::grpc::{self, Call, Code, Reader, Replier, Service, Status};
use crate::pb::content::{self, InfoRequest, ReadRequest, ReadResponse};
use crate::pb::control::{
    BuildHistoryRequest, DiskUsageRequest, DiskUsageResponse, Exporter, InfoResponse, ListWorkersResponse,
    PruneRequest, SolveRequest, SolveResponse, StatusRequest, UpdateBuildHistoryRequest,
};
use crate::pb::{BytesMessage, Empty};
use crate::session::Sessions;

/// Pieces in which a document travels.
const CONTENT_PIECE_BYTES: usize = 1 << 20;

/// All of the engine's builds, for all connections.
#[derive(Debug)]
pub struct Control<B: Backend> {
    pub(super) backend: Arc<B>,
    pub(super) builds: Arc<Builds<B::Plan>>,
    sessions: Arc<Sessions>,
    history: Arc<History>,
}

impl<B: Backend> Control<B> {
    /// The builds of `backend`, whose clients' sessions are in `sessions`, and whose history is kept in a folder.
    pub fn new(backend: Arc<B>, sessions: Arc<Sessions>, history: PathBuf) -> Arc<Self> {
        Arc::new(Self { backend, builds: Arc::default(), sessions, history: Arc::new(History::new(history)) })
    }

    /// The sessions.
    #[must_use]
    pub fn sessions(&self) -> &Arc<Sessions> {
        &self.sessions
    }

    /// Serves a control connection until it ends. The answer `101` must have been sent.
    pub async fn serve(self: Arc<Self>, io: impl AsyncRead + AsyncWrite + Unpin) {
        if let Err(error) = grpc::serve(io, self).await {
            tracing::debug!(%error, "a control connection ended");
        }
    }

    async fn control(&self, method: &str, mut call: Call) -> Result<(), Status> {
        match method {
            "Solve" => {
                let request = call.reader.single().await?;
                let exporter_response = self.solve(request).await?;
                call.replier.send(&SolveResponse { exporter_response }).await
            }
            "Status" => {
                let request: StatusRequest = call.reader.single().await?;
                self.status(&request.r#ref, &call.replier).await
            }
            "ListWorkers" => {
                // Filters are about several workers, and there is one.
                let _: Empty = call.reader.single().await?;
                call.replier.send(&ListWorkersResponse { record: self.backend.workers() }).await
            }
            "Info" => {
                let _: Empty = call.reader.single().await?;
                call.replier.send(&InfoResponse { buildkit_version: Some(self.backend.version()) }).await
            }
            "DiskUsage" => {
                let request: DiskUsageRequest = call.reader.single().await?;
                let record = self.backend.disk_usage(request).await?;
                call.replier.send(&DiskUsageResponse { record }).await
            }
            "Prune" => {
                let request: PruneRequest = call.reader.single().await?;
                for record in self.backend.prune(request).await? {
                    call.replier.send(&record).await?;
                }
                Ok(())
            }
            "Session" => self.session_within(call).await,
            "ListenBuildHistory" => {
                let request: BuildHistoryRequest = call.reader.single().await?;
                call.replier.begin(timestamp()).await?;
                self.history.listen(request, || self.builds.all(), &call.replier).await
            }
            "UpdateBuildHistory" => {
                let request: UpdateBuildHistoryRequest = call.reader.single().await?;
                self.history.update(&request)?;
                call.replier.send(&Empty {}).await
            }
            _ => Err(unknown(&call.path)),
        }
    }

    /// A build, from its beginning to its end, with its place in the history.
    async fn solve(&self, request: SolveRequest) -> Result<BTreeMap<String, String>, Status> {
        let guard = self.builds.add(request)?;
        let build = guard.build.clone();
        let record = (!build.request.internal).then(|| self.history.begin(&build));
        let result = self.solve_build(&build).await;
        build.progress.end();
        if let Some(record) = record {
            record.end(&result).await;
        }
        drop(guard);
        result.map(|outcome| outcome.response)
    }

    async fn solve_build(&self, build: &Arc<Build>) -> Result<Outcome, Status> {
        let request = &build.request;
        if request.definition.as_ref().is_some_and(|d| !d.def.is_empty()) {
            return Err(Status::new(
                Code::Unimplemented,
                "build graphs (LLB) made by clients are not supported by this engine: only Dockerfiles are",
            ));
        }
        let plan = if request.frontend.is_empty() {
            match self.returned(build).await? {
                Some(plan) => plan,
                None => return Ok(Outcome::default()),
            }
        } else {
            let mut inputs = BTreeMap::new();
            for (name, definition) in &request.frontend_inputs {
                inputs.insert(name.clone(), self.builds.plan_of(definition)?);
            }
            let plan_request = PlanRequest {
                session: request.session.clone(),
                frontend: request.frontend.clone(),
                options: request.frontend_attrs.clone(),
                cache_imports: request.cache.iter().flat_map(|cache| cache.imports.clone()).collect(),
                inputs,
            };
            match self.backend.plan(plan_request, build.progress.clone()).await?.plan {
                Some(plan) => Arc::new(plan),
                None => return Ok(Outcome::default()),
            }
        };
        let exporters = if request.exporters.is_empty() && !request.exporter_deprecated.is_empty() {
            let r#type = request.exporter_deprecated.clone();
            vec![Exporter { r#type, attrs: request.exporter_attrs_deprecated.clone() }]
        } else {
            request.exporters.clone()
        };
        let cache_exports = request.cache.iter().flat_map(|cache| cache.exports.clone()).collect();
        self.run(build, plan, exporters, cache_exports).await
    }

    /// Waits for the front end's work, which the client does, and gives what is to be built.
    async fn returned(&self, build: &Build) -> Result<Option<Arc<B::Plan>>, Status> {
        let mut returned = build.returned.subscribe();
        let given = match returned.wait_for(Option::is_some).await {
            Ok(given) => given.clone().unwrap_or_default(),
            Err(_) => return Err(Status::new(Code::Cancelled, "the build was cancelled")),
        };
        if let Some(error) = given.error {
            return Err(Status::from_message(error));
        }
        let result = given.result.unwrap_or_default();
        let several = result.refs.map(|refs| refs.refs).unwrap_or_default();
        let named = match several.len() {
            0 => result.r#ref.unwrap_or_default(),
            1 => several.into_values().next().unwrap_or_default(),
            _ => {
                return Err(Status::new(
                    Code::Unimplemented,
                    "multi-platform results are not supported by the docker driver: build for one platform",
                ));
            }
        };
        if named.id.is_empty() { Ok(None) } else { self.builds.plan(&named.id).map(Some) }
    }

    /// Builds a plan within a build.
    pub(super) async fn run(
        &self,
        build: &Build,
        plan: Arc<B::Plan>,
        exporters: Vec<Exporter>,
        cache_exports: Vec<crate::pb::control::CacheOptionsEntry>,
    ) -> Result<Outcome, Status> {
        let request = BuildRequest {
            id: build.request.r#ref.clone(),
            session: build.request.session.clone(),
            plan,
            exporters,
            cache_exports,
            entitlements: build.request.entitlements.clone(),
        };
        self.backend.build(request, build.progress.clone()).await
    }

    /// Streams a build's progress, or that of one in the history.
    async fn status(&self, id: &str, replier: &Replier) -> Result<(), Status> {
        replier.begin(timestamp()).await?;
        let kept = if self.builds.find(id).is_none() { self.history.log(id) } else { None };
        if let Some(kept) = kept {
            for news in kept {
                replier.send(&news).await?;
            }
            return Ok(());
        }
        let progress: Progress = self.builds.progress(id).await?;
        let mut at = 0;
        while let Some(news) = progress.next(at).await {
            at += news.len();
            for news in news {
                replier.send(news.as_ref()).await?;
            }
        }
        Ok(())
    }

    /// The documents of the history.
    async fn content(&self, method: &str, mut call: Call) -> Result<(), Status> {
        let missing = |digest: &str| Status::new(Code::NotFound, format!("content {digest}: not found"));
        match method {
            "Info" => {
                let request: InfoRequest = call.reader.single().await?;
                let document = self.history.document(&request.digest);
                let document = document.ok_or_else(|| missing(&request.digest))?;
                let size = i64::try_from(document.len()).unwrap_or(i64::MAX);
                let info = Some(content::Info { digest: request.digest, size });
                call.replier.send(&content::InfoResponse { info }).await
            }
            "Read" => {
                let request: ReadRequest = call.reader.single().await?;
                let document = self.history.document(&request.digest);
                let document = document.ok_or_else(|| missing(&request.digest))?;
                let begin = usize::try_from(request.offset).unwrap_or(0).min(document.len());
                let rest = document.slice(begin..);
                let wanted = usize::try_from(request.size).ok().filter(|size| *size > 0);
                let mut rest = rest.slice(..wanted.map_or(rest.len(), |size| size.min(rest.len())));
                let mut offset = i64::try_from(begin).unwrap_or(i64::MAX);
                while !rest.is_empty() {
                    let data = rest.split_to(rest.len().min(CONTENT_PIECE_BYTES));
                    let read = i64::try_from(data.len()).unwrap_or(0);
                    call.replier.send(&ReadResponse { offset, data }).await?;
                    offset = offset.saturating_add(read);
                }
                Ok(())
            }
            _ => Err(unknown(&call.path)),
        }
    }

    /// A client's session within a call instead of on a connection of its own.
    async fn session_within(&self, call: Call) -> Result<(), Status> {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        call.replier.begin(HeaderMap::new()).await?;
        let held = self.sessions.hold(&call.metadata, theirs);
        let moved = relay(call.reader, &call.replier, ours);
        tokio::select! {
            held = held => held.map_err(|error| Status::unknown(error.to_string())),
            moved = moved => moved,
        }
    }
}

/// Moves a session's bytes between a call's messages and a pipe.
async fn relay(mut reader: Reader, replier: &Replier, pipe: tokio::io::DuplexStream) -> Result<(), Status> {
    let broken = |error: std::io::Error| Status::new(Code::Unavailable, error.to_string());
    let (mut from, mut to) = tokio::io::split(pipe);
    let inward = async {
        while let Some(piece) = reader.message::<BytesMessage>().await? {
            to.write_all(&piece.data).await.map_err(broken)?;
        }
        to.shutdown().await.map_err(broken)
    };
    let outward = async {
        let mut buffer = bytes::BytesMut::new();
        loop {
            buffer.reserve(32 << 10);
            if from.read_buf(&mut buffer).await.map_err(broken)? == 0 {
                return Ok(());
            }
            replier.send(&BytesMessage { data: buffer.split().freeze() }).await?;
        }
    };
    tokio::try_join!(inward, outward).map(|_| ())
}

impl<B: Backend> Service for Control<B> {
    async fn call(self: Arc<Self>, mut call: Call) -> Result<(), Status> {
        let path = call.path.clone();
        let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or((&path, ""));
        match service {
            "moby.buildkit.v1.Control" => self.control(method, call).await,
            "moby.buildkit.v1.frontend.LLBBridge" => self.bridge(method, call).await,
            "containerd.services.content.v1.Content" => self.content(method, call).await,
            // Clients offer their own traces to whoever keeps them; nobody does here.
            "opentelemetry.proto.collector.trace.v1.TraceService" => {
                let _: Empty = call.reader.single().await?;
                call.replier.send(&Empty {}).await
            }
            _ => Err(unknown(&path)),
        }
    }
}

fn unknown(path: &str) -> Status {
    let (service, method) = path.trim_start_matches('/').split_once('/').unwrap_or((path, ""));
    Status::new(Code::Unimplemented, format!("unknown method {method} for service {service}"))
}

/// The head in which streams say what time it is here: clients correct the times of events by it.
fn timestamp() -> HeaderMap {
    let mut head = HeaderMap::new();
    let now = i64::try_from(crate::pb::Timestamp::now().as_nanos()).unwrap_or(i64::MAX);
    if let Ok(value) = HeaderValue::from_str(&wherry_rfc3339::trimmed(now)) {
        head.insert("buildkit-current-timestamp", value);
    }
    head
}
