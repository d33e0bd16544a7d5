//! Builds, as buildx makes them: three calls at once on a control connection.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use wherry_buildkit::control::{Backend, BuildRequest, Control, Outcome, PlanRequest, Planned, Progress};
use wherry_buildkit::grpc::{Channel, Code, Reader, Status};
use wherry_buildkit::pb::control::{
    BuildHistoryEvent, BuildHistoryRequest, BuildkitVersion, DiskUsageRequest, Exporter, ListWorkersResponse,
    PruneRequest, SolveRequest, SolveResponse, StatusRequest, StatusResponse, UpdateBuildHistoryRequest,
    UsageRecord, WorkerRecord,
};
use wherry_buildkit::pb::gateway::{
    self, PongResponse, ResolveImageConfigRequest, ResolveImageConfigResponse,
};
use wherry_buildkit::pb::{Empty, Timestamp};
use wherry_buildkit::session::Sessions;

/// Builds nothing: the file's name says how it ends.
#[derive(Debug, Default)]
struct Pretended {
    dropped: Arc<tokio::sync::Notify>,
}

struct Dropped(Arc<tokio::sync::Notify>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

impl Backend for Pretended {
    type Plan = String;

    fn workers(&self) -> Vec<WorkerRecord> {
        vec![WorkerRecord { id: "w".into(), ..WorkerRecord::default() }]
    }

    fn version(&self) -> BuildkitVersion {
        BuildkitVersion::default()
    }

    async fn disk_usage(&self, _: DiskUsageRequest) -> Result<Vec<UsageRecord>, Status> {
        Ok(vec![])
    }

    async fn prune(&self, _: PruneRequest) -> Result<Vec<UsageRecord>, Status> {
        Ok(vec![])
    }

    async fn plan(
        &self,
        request: PlanRequest<String>,
        progress: Progress,
    ) -> Result<Planned<String>, Status> {
        progress.start("[internal] load build definition").end(&Ok::<_, String>(()));
        let file = request.options.get("filename").cloned().unwrap_or_default();
        if file == "malformed" {
            let mut status = Status::unknown("dockerfile parse error");
            status.details.push(wherry_buildkit::errdefs::source("D", b"FOO", "Dockerfile", &[(1, 1)]));
            return Err(status);
        }
        let plan = request.inputs.get("base").map_or(file, |base| format!("on {base}"));
        Ok(Planned { plan: Some(plan), metadata: BTreeMap::new() })
    }

    async fn build(&self, request: BuildRequest<String>, progress: Progress) -> Result<Outcome, Status> {
        let step = progress.start("RUN");
        step.log(false, b"working", Timestamp::now());
        if *request.plan == "endless" {
            let _guard = Dropped(self.dropped.clone());
            return std::future::pending().await;
        }
        step.end(&Ok::<_, String>(()));
        let response = BTreeMap::from([
            ("plan".into(), request.plan.to_string()),
            ("to".into(), request.exporters[0].r#type.clone()),
        ]);
        Ok(Outcome { response, ..Outcome::default() })
    }

    async fn resolve_image(
        &self,
        _: ResolveImageConfigRequest,
        _: String,
    ) -> Result<ResolveImageConfigResponse, Status> {
        Err(Status::new(Code::NotFound, "no images"))
    }
}

struct Connection {
    channel: Channel,
    backend: Arc<Pretended>,
    _history: tempfile::TempDir,
}

async fn connect() -> Connection {
    let history = tempfile::tempdir().unwrap();
    let backend = Arc::new(Pretended::default());
    let sessions = Arc::new(Sessions::default());
    let control = Control::new(backend.clone(), sessions, history.path().join("history"));
    let (theirs, ours) = UnixStream::pair().unwrap();
    tokio::spawn(control.serve(ours));
    let (channel, connection) = Channel::connect(theirs).await.unwrap();
    tokio::spawn(connection);
    Connection { channel, backend, _history: history }
}

impl Connection {
    async fn control<Q: prost::Message, A: prost::Message + Default>(
        &self,
        method: &str,
        q: &Q,
    ) -> Result<A, Status> {
        self.channel.unary(&format!("/moby.buildkit.v1.Control/{method}"), q).await
    }

    async fn bridge<Q: prost::Message, A: prost::Message + Default>(
        &self,
        build: &str,
        method: &str,
        request: &Q,
    ) -> Result<A, Status> {
        let metadata = [("buildkit-controlapi-buildid".to_string(), build.to_string())];
        let path = format!("/moby.buildkit.v1.frontend.LLBBridge/{method}");
        self.channel.unary_with(&path, &metadata, request).await
    }

    async fn stream<Q: prost::Message>(&self, method: &str, request: &Q) -> Reader {
        let path = format!("/moby.buildkit.v1.Control/{method}");
        let (mut writer, reader) = self.channel.open(&path, &[]).await.unwrap();
        // The answer may already have come to its end.
        let _ = writer.send(request).await.and_then(|()| writer.finish());
        reader
    }

    async fn status(&self, build: &str) -> Vec<StatusResponse> {
        let mut reader = self.stream("Status", &StatusRequest { r#ref: build.into() }).await;
        let mut news = Vec::new();
        while let Some(one) = reader.message().await.unwrap() {
            news.push(one);
        }
        news
    }

    async fn history(&self) -> Vec<BuildHistoryEvent> {
        let request = BuildHistoryRequest { early_exit: true, ..BuildHistoryRequest::default() };
        let mut reader = self.stream("ListenBuildHistory", &request).await;
        let mut events = Vec::new();
        while let Some(event) = reader.message().await.unwrap() {
            events.push(event);
        }
        events
    }

    /// The front end's part of a build.
    async fn front_end(
        &self,
        build: &str,
        file: &str,
        inputs: BTreeMap<String, wherry_buildkit::pb::ops::Definition>,
    ) -> Result<gateway::Result, Status> {
        let _: PongResponse = self.bridge(build, "Ping", &Empty {}).await?;
        let request = gateway::SolveRequest {
            frontend: "dockerfile.v0".into(),
            frontend_opt: BTreeMap::from([("filename".into(), file.into())]),
            frontend_inputs: inputs,
            ..gateway::SolveRequest::default()
        };
        let solved: Result<gateway::SolveResponse, Status> = self.bridge(build, "Solve", &request).await;
        let returned = match &solved {
            Ok(answer) => gateway::ReturnRequest { result: answer.result.clone(), error: None },
            Err(status) => gateway::ReturnRequest { result: None, error: Some(status.to_message()) },
        };
        let _: Empty = self.bridge(build, "Return", &returned).await?;
        solved.map(|answer| answer.result.unwrap())
    }
}

fn solve(build: &str) -> SolveRequest {
    let exporters = vec![Exporter { r#type: "moby".into(), ..Exporter::default() }];
    SolveRequest { r#ref: build.into(), exporters, ..SolveRequest::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_build_is_three_calls_at_once_and_stays_in_the_history() {
    let c = connect().await;
    let workers: ListWorkersResponse = c.control("ListWorkers", &Empty {}).await.unwrap();
    assert_eq!(workers.record[0].id, "w");
    let request = solve("b1");
    let (news, solved, front) = tokio::join!(
        c.status("b1"),
        c.control::<_, SolveResponse>("Solve", &request),
        c.front_end("b1", "Dockerfile", BTreeMap::new()),
    );
    front.unwrap();
    let response = solved.unwrap().exporter_response;
    assert_eq!((response["plan"].as_str(), response["to"].as_str()), ("Dockerfile", "moby"));
    assert!(news.iter().any(|n| n.logs.iter().any(|l| &l.msg[..] == b"working")));

    let events = c.history().await;
    assert_eq!(events.len(), 1);
    let record = events[0].record.as_ref().unwrap();
    assert_eq!((record.r#ref.as_str(), record.num_total_steps, record.num_completed_steps), ("b1", 2, 2));
    assert_eq!(c.status("b1").await, news, "the log of a build that has ended");
    let forget = UpdateBuildHistoryRequest { r#ref: "b1".into(), delete: true, ..Default::default() };
    c.control::<_, Empty>("UpdateBuildHistory", &forget).await.unwrap();
    assert!(c.history().await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_front_end_refuses_ends_the_build_with_its_place() {
    let c = connect().await;
    let request = solve("b2");
    let (solved, front) = tokio::join!(
        c.control::<_, SolveResponse>("Solve", &request),
        c.front_end("b2", "malformed", BTreeMap::new()),
    );
    assert_eq!(front.unwrap_err(), solved.clone().unwrap_err());
    let status = solved.unwrap_err();
    assert_eq!((status.code, status.message.as_str()), (Code::Unknown, "dockerfile parse error"));
    assert_eq!(
        String::from_utf8_lossy(&status.details[0].value),
        r#"{"info":{"filename":"D","data":"Rk9P","language":"Dockerfile"},"ranges":[{"start":{"line":1},"end":{"line":1}}]}"#
    );
    assert_eq!(c.history().await[0].record.as_ref().unwrap().error.as_ref().unwrap().message, status.message);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_is_the_base_of_another_build_while_its_own_lasts() {
    let c = connect().await;
    let first = solve("first");
    let second = solve("second");
    let both = async {
        // The first build waits until the second one has used its result.
        let _: PongResponse = c.bridge("first", "Ping", &Empty {}).await.unwrap();
        let request = gateway::SolveRequest {
            frontend: "dockerfile.v0".into(),
            frontend_opt: BTreeMap::from([("filename".into(), "F".into())]),
            ..Default::default()
        };
        let answer: gateway::SolveResponse = c.bridge("first", "Solve", &request).await.unwrap();
        let definition = answer.result.clone().unwrap().r#ref.unwrap().def.unwrap();
        let inputs = BTreeMap::from([("base".to_string(), definition)]);
        let (solved, front) =
            tokio::join!(c.control::<_, SolveResponse>("Solve", &second), c.front_end("second", "G", inputs));
        front.unwrap();
        assert_eq!(solved.unwrap().exporter_response["plan"], "on F");
        let returned = gateway::ReturnRequest { result: answer.result, error: None };
        let _: Empty = c.bridge("first", "Return", &returned).await.unwrap();
    };
    let (solved, ()) = tokio::join!(c.control::<_, SolveResponse>("Solve", &first), both);
    assert_eq!(solved.unwrap().exporter_response["plan"], "F");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_vanishes_takes_its_build_along() {
    let c = connect().await;
    let request = solve("b3");
    let dropped = c.backend.dropped.clone();
    {
        let building = c.control::<_, SolveResponse>("Solve", &request);
        let watching = async {
            c.front_end("b3", "endless", BTreeMap::new()).await.unwrap();
            let mut reader = c.stream("Status", &StatusRequest { r#ref: "b3".into() }).await;
            loop {
                let news: StatusResponse = reader.message().await.unwrap().unwrap();
                if !news.logs.is_empty() {
                    return;
                }
            }
        };
        tokio::select! {
            _ = building => panic!("it must not end"),
            () = watching => {}
        }
    }
    tokio::time::timeout(Duration::from_secs(10), dropped.notified()).await.expect("the build was stopped");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_supported_says_so() {
    let c = connect().await;
    let unknown: Result<Empty, _> =
        c.channel.unary("/containerd.services.content.v1.Content/Delete", &Empty {}).await;
    let status = unknown.unwrap_err();
    assert_eq!(
        (status.code, status.message.as_str()),
        (Code::Unimplemented, "unknown method Delete for service containerd.services.content.v1.Content")
    );
    let mut graph = solve("llb");
    graph.definition =
        Some(wherry_buildkit::pb::ops::Definition { def: vec![vec![1, 2].into()], ..Default::default() });
    let refused: Result<SolveResponse, _> = c.control("Solve", &graph).await;
    assert_eq!(refused.unwrap_err().code, Code::Unimplemented);
}
