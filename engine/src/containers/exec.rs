//! Execs: further processes in a running container. Their settings wait in the engine until they are
//! started; from then on the container's monitor knows them, also across engines.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use wherry_monitor_api as api;

use super::monitor::{CallError, exec_failure};
use super::spec::{self, ExecInput};
use super::state::State;
use super::table::Container;
use super::users::{self, ResolvedUser};
use super::{lifecycle, links, start, streams};
use crate::engine::{Engine, blocking};
use crate::error::Error;
use crate::server::{Reply, Request, response};

/// How many ended execs of a container can still be inspected.
const KEPT: usize = 64;

/// The execs of one container, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Execs(Mutex<Vec<Exec>>);

/// An exec.
#[derive(Debug, Clone)]
pub(super) struct Exec {
    id: String,
    config: ExecConfig,
    /// Made with the exec, so that a user that is not there is told before the client's connection is taken over.
    process: Value,
    state: ExecState,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum ExecState {
    Created,
    Running { pid: i32 },
    Ended { code: i32 },
}

/// It is being started.
const CLAIMED: ExecState = ExecState::Running { pid: 0 };

/// The request to make an exec.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(expecting = "struct container.ExecOptions", rename_all = "PascalCase", default)]
pub(super) struct ExecConfig {
    user: String,
    privileged: bool,
    tty: bool,
    console_size: Option<Vec<u32>>,
    attach_stdin: bool,
    attach_stdout: bool,
    attach_stderr: bool,
    detach_keys: String,
    env: Vec<String>,
    working_dir: String,
    cmd: Vec<String>,
}

/// The request to start one.
#[derive(Debug, Default, Deserialize)]
#[serde(expecting = "struct container.ExecStartOptions", rename_all = "PascalCase", default)]
struct ExecStart {
    detach: bool,
    tty: bool,
    console_size: Option<Vec<u32>>,
}

/// What dockerd tells the client of an exec that it has detached.
const DETACHED: &str = "exec attach failed: error on attach stdin: read escape sequence\r\n";

impl ExecConfig {
    fn keys(&self) -> Vec<u8> {
        // What is no key was refused when the exec was made.
        streams::detach_keys(Some(self.detach_keys.as_str()).filter(|keys| !keys.is_empty()))
            .unwrap_or_default()
    }
}

impl Execs {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Exec>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: &str) -> Option<Exec> {
        self.lock().iter().find(|e| e.id == id).cloned()
    }

    fn set(&self, id: &str, state: ExecState) {
        if let Some(exec) = self.lock().iter_mut().find(|e| e.id == id) {
            // The end may be told before the answer to the start has been read.
            if !matches!(exec.state, ExecState::Ended { .. }) {
                exec.state = state;
            }
        }
    }

    /// What it is; who finds it created has it, and starts it.
    fn claim(&self, id: &str) -> ExecState {
        let mut execs = self.lock();
        let Some(exec) = execs.iter_mut().find(|e| e.id == id) else { return ExecState::Created };
        let found = exec.state;
        if matches!(found, ExecState::Created) {
            exec.state = CLAIMED;
        }
        found
    }

    /// It could not be tried, and may be again.
    fn give_back(&self, id: &str) {
        self.set(id, ExecState::Created);
    }

    fn add(&self, exec: Exec) {
        let mut execs = self.lock();
        let ended = execs.iter().filter(|e| matches!(e.state, ExecState::Ended { .. })).count();
        let oldest = execs.iter().position(|e| matches!(e.state, ExecState::Ended { .. }));
        if let Some(oldest) = oldest.filter(|_| ended >= KEPT) {
            execs.remove(oldest);
        }
        execs.push(exec);
    }

    /// Notes an exec's end.
    pub(super) fn ended(&self, id: &str, code: i32) {
        self.set(id, ExecState::Ended { code });
    }

    /// Those that run, for inspect's `ExecIDs`.
    pub(super) fn running(&self) -> Vec<String> {
        let running = |e: &&Exec| matches!(e.state, ExecState::Running { .. });
        self.lock().iter().filter(running).map(|e| e.id.clone()).collect()
    }

    /// Takes over what a monitor knows of execs that an earlier engine started.
    pub(super) fn adopt(&self, records: Vec<api::ExecRecord>) {
        for record in records {
            if self.get(&record.exec).is_none() {
                let state = match record.exit_code {
                    Some(code) => ExecState::Ended { code },
                    None => ExecState::Running { pid: record.pid },
                };
                self.add(Exec {
                    id: record.exec,
                    config: config_of(&record.process),
                    process: record.process,
                    state,
                });
            }
        }
    }
}

/// What can be told of an exec's settings from its process.
fn config_of(process: &Value) -> ExecConfig {
    let strings = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    };
    ExecConfig {
        cmd: strings(&process["args"]),
        env: strings(&process["env"]),
        tty: process["terminal"].as_bool().unwrap_or(false),
        ..ExecConfig::default()
    }
}

/// Finds an exec and its container.
fn find(engine: &Engine, id: &str) -> Result<(Arc<Container>, Exec), Error> {
    let of = |container: Arc<Container>| container.execs.get(id).map(|exec| (container, exec));
    engine.containers.all().into_iter().find_map(of).ok_or_else(|| Error::NoSuchExec(id.to_owned()))
}

/// 409 unless processes of the container, which the client calls so, are on the move.
fn must_run(container: &Container, name: &str) -> Result<(), Error> {
    match container.status().state {
        State::Running { paused: false, .. } => Ok(()),
        State::Running { .. } => {
            Err(Error::Conflict(format!("Container {name} is paused, unpause the container before exec")))
        }
        State::Restarting { .. } => Err(Error::Conflict(format!(
            "Container {} is restarting, wait until the container is running",
            container.id
        ))),
        _ => Err(Error::NotRunning(container.id.clone())),
    }
}

/// `POST /containers/{id}/exec`.
pub(super) async fn create(
    engine: Arc<Engine>,
    container: Arc<Container>,
    name: &str,
    mut request: Request,
) -> Result<Reply, Error> {
    let config: ExecConfig = super::create::read_body(&mut request).await?;
    if config.cmd.is_empty() {
        return Err(Error::InvalidParameter("No exec command specified".into()));
    }
    must_run(&container, name)?;
    let keys = &config.detach_keys;
    if streams::detach_keys(Some(keys.as_str()).filter(|keys| !keys.is_empty())).is_none() {
        return Err(Error::server(format!("Invalid escape keys ({keys}) provided")));
    }
    let process = process(&engine, &container, &config).await?;
    let id = crate::id::hex64();
    let more = event_attributes(&id);
    super::publish_with(&engine, &container, &format!("exec_create: {}", shown(&config.cmd)), more);
    container.execs.add(Exec { id: id.clone(), config, process, state: ExecState::Created });
    Ok(response::json(StatusCode::CREATED, &json!({ "Id": id })).into())
}

/// A command as the events show it: the program, a space, the arguments.
fn shown(command: &[String]) -> String {
    command
        .split_first()
        .map_or(String::new(), |(program, arguments)| format!("{program} {}", arguments.join(" ")))
}

fn event_attributes(id: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("execID".to_owned(), id.to_owned())])
}

/// `POST /exec/{id}/start`.
pub(super) async fn start(engine: Arc<Engine>, id: &str, mut request: Request) -> Result<Reply, Error> {
    let options: ExecStart = request.typed_optional_json().await?.unwrap_or_default();
    let (container, exec) = find(&engine, id)?;
    must_run(&container, &container.id)?;
    // It is the start that says how the client wants to be spoken to, whatever the exec is like.
    let (framing, content_type) = streams::framing(options.tty, request.version);
    let head = if options.detach { Vec::new() } else { streams::exec_head(&request, content_type) };
    let spec = api::ExecSpec {
        process: exec.process.clone(),
        console_size: console_size(options.console_size.or(exec.config.console_size.clone())),
    };
    let again = match container.execs.claim(id) {
        ExecState::Created => None,
        // Its client may know of its end before we do.
        ExecState::Running { .. } => match ask_monitor(&container, id).await {
            Some(ExecState::Ended { .. }) => Some(format!("exec command {id} has already run")),
            _ => Some(format!("exec command {id} is already running")),
        },
        ExecState::Ended { .. } => Some(format!("exec command {id} has already run")),
    };
    match again {
        Some(text) if options.detach => return Err(Error::Conflict(text)),
        Some(text) => return Ok(streams::say(head, framed(framing, &format!("{text}\r\n")))),
        None => {}
    }
    let more = event_attributes(id);
    super::publish_with(&engine, &container, &format!("exec_start: {}", shown(&exec.config.cmd)), more);
    if options.detach {
        return run_detached(&container, &exec, spec).await;
    }
    let attach = api::AttachRequest {
        head,
        stdin: exec.config.attach_stdin,
        stdout: exec.config.attach_stdout,
        stderr: exec.config.attach_stderr,
        stream: true,
        logs: false,
        framing,
        encoding: api::BodyEncoding::UntilClose,
        detach_keys: if exec.config.tty { exec.config.keys() } else { Vec::new() },
        on_detach: DETACHED.into(),
        already_read: Vec::new(),
    };
    Ok(Reply::Hijack(Box::new(move |client| {
        Box::pin(async move { run_attached(&container, &exec, spec, attach, client).await })
    })))
}

/// Rows and columns as Go reads an array of two: what is missing is 0, what is more is ignored.
fn console_size(given: Option<Vec<u32>>) -> Option<(u16, u16)> {
    let given = given?;
    let at = |index: usize| given.get(index).map_or(0, |number| *number as u16);
    Some((at(0), at(1))).filter(|(rows, columns)| *rows != 0 && *columns != 0)
}

/// A text as output of an exec.
fn framed(framing: api::Framing, text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    if framing == api::Framing::Multiplexed {
        let header = wherry_container_log::write_header(wherry_container_log::Stream::Stdout, text.len());
        bytes.extend_from_slice(&header);
    }
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

async fn process(engine: &Engine, container: &Container, config: &ExecConfig) -> Result<Value, Error> {
    let record = container.record();
    let links = links::resolve(engine, &record)?;
    let pid = container.status().state.pid();
    let wanted = if config.user.is_empty() { record.config.user.clone() } else { config.user.clone() };
    let config = config.clone();
    blocking(move || {
        let root = start::open_root(pid)?;
        let groups = record.host_config.group_add.clone().unwrap_or_default();
        let user: ResolvedUser =
            users::resolve(root.as_fd(), &wanted, &groups).map_err(|error| match error {
                Error::Docker { message, .. } => Error::InvalidParameter(message),
                other => other,
            })?;
        spec::exec_process(&ExecInput {
            record: &record,
            user: &user,
            args: &config.cmd,
            links: &links.env,
            env: &config.env,
            cwd: &config.working_dir,
            tty: config.tty,
            privileged: config.privileged,
        })
    })
    .await
}

async fn run_detached(container: &Container, exec: &Exec, spec: api::ExecSpec) -> Result<Reply, Error> {
    let Some(monitor) = lifecycle::monitor(container).await else {
        container.execs.give_back(&exec.id);
        return Err(Error::NotRunning(container.id.clone()));
    };
    let request = api::Request::Exec { exec: exec.id.clone(), spec: Box::new(spec), attach: None };
    match monitor.call(request, &[]).await {
        Ok(api::Reply::ExecStarted { pid }) => {
            container.execs.set(&exec.id, ExecState::Running { pid });
            Ok(response::empty(StatusCode::OK).into())
        }
        Ok(_) => Err(lifecycle::broken(container, &CallError::Unexpected)),
        Err(CallError::Refused(failure)) => {
            let (code, message) = exec_failure(&failure);
            container.execs.ended(&exec.id, code);
            Err(Error::InvalidParameter(message))
        }
        Err(error) => Err(lifecycle::broken(container, &error)),
    }
}

/// Starts an exec with its client. Failures go to the client as dockerd tells them: as output.
async fn run_attached(
    container: &Container,
    exec: &Exec,
    spec: api::ExecSpec,
    mut attach: api::AttachRequest,
    client: crate::server::Client,
) {
    let Ok((socket, already_read)) = client.into_unix() else {
        container.execs.give_back(&exec.id);
        return;
    };
    attach.already_read = already_read;
    let (head, framing) = (attach.head.clone(), attach.framing);
    let request = api::Request::Exec { exec: exec.id.clone(), spec: Box::new(spec), attach: Some(attach) };
    let answer = match lifecycle::monitor(container).await {
        Some(monitor) => monitor.call(request, &[socket.as_fd()]).await,
        None => {
            container.execs.give_back(&exec.id);
            Err(CallError::Gone)
        }
    };
    match answer {
        Ok(api::Reply::ExecStarted { pid }) => container.execs.set(&exec.id, ExecState::Running { pid }),
        Ok(_) => streams::refuse(socket, lifecycle::broken(container, &CallError::Unexpected)).await,
        Err(CallError::Refused(failure)) => {
            let (code, message) = exec_failure(&failure);
            container.execs.ended(&exec.id, code);
            streams::write_and_close(socket, head, framed(framing, &format!("{message}\r\n"))).await;
        }
        Err(error) => streams::refuse(socket, lifecycle::broken(container, &error)).await,
    }
}

/// `POST /exec/{id}/resize`.
pub(super) async fn resize(engine: Arc<Engine>, id: &str, request: Request) -> Result<Reply, Error> {
    let (rows, columns) = streams::size(&request)?;
    let (container, exec) = find(&engine, id)?;
    let monitor =
        lifecycle::monitor(&container).await.ok_or_else(|| Error::NotRunning(container.id.clone()))?;
    let resize = api::Request::Resize { exec: Some(exec.id), rows, columns };
    match monitor.call(resize, &[]).await {
        Ok(_) => Ok(response::empty(StatusCode::OK).into()),
        // It has no terminal, which dockerd does not mind.
        Err(CallError::Refused(failure)) if failure.kind == api::FailureKind::State => {
            Ok(response::empty(StatusCode::OK).into())
        }
        Err(CallError::Refused(failure)) if failure.kind == api::FailureKind::NoSuchExec => {
            Err(Error::NotFound(format!("NotFound: process does not exist {id}: not found")))
        }
        Err(CallError::Refused(failure)) => Err(Error::server(failure.message)),
        Err(error) => Err(lifecycle::broken(&container, &error)),
    }
}

/// What the monitor says of an exec.
async fn ask_monitor(container: &Container, id: &str) -> Option<ExecState> {
    let monitor = lifecycle::monitor(container).await?;
    let Ok(api::Reply::Execs(execs)) = monitor.call(api::Request::Execs, &[]).await else { return None };
    let record = execs.into_iter().find(|record| record.exec == id)?;
    Some(record.exit_code.map_or(ExecState::Running { pid: record.pid }, |code| ExecState::Ended { code }))
}

/// `GET /exec/{id}/json`.
pub(super) async fn inspect(engine: &Engine, id: &str) -> Result<Reply, Error> {
    let (container, mut exec) = find(engine, id)?;
    if !matches!(exec.state, ExecState::Ended { .. }) {
        // The client whose stream has just ended asks for the exit code; the event, and even the answer to the
        // start, may still be on their way.
        exec.state = ask_monitor(&container, id).await.unwrap_or(exec.state);
    }
    let (running, code, pid) = match exec.state {
        ExecState::Created => (false, None, 0),
        ExecState::Running { pid } => (true, None, pid),
        ExecState::Ended { code } => (false, Some(code), 0),
    };
    let (entrypoint, arguments) =
        exec.config.cmd.split_first().map_or(("", &[] as &[String]), |(f, r)| (f, r));
    let mut process = json!({
        "tty": exec.config.tty, "entrypoint": entrypoint, "arguments": arguments,
        "privileged": exec.config.privileged,
    });
    if !exec.config.user.is_empty() {
        process["user"] = json!(exec.config.user);
    }
    let shown = json!({
        "ID": exec.id,
        "Running": running,
        "ExitCode": code,
        "ProcessConfig": process,
        "OpenStdin": exec.config.attach_stdin,
        "OpenStderr": exec.config.attach_stderr,
        "OpenStdout": exec.config.attach_stdout,
        "CanRemove": false,
        "ContainerID": container.id,
        // As Go shows bytes.
        "DetachKeys": if exec.config.detach_keys.is_empty() { String::new() } else { BASE64_STANDARD.encode(exec.config.keys()) },
        "Pid": pid,
    });
    Ok(response::json(StatusCode::OK, &shown).into())
}
