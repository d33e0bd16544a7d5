//! `POST /containers/{id}/attach` and `GET /containers/{id}/attach/ws`. The first is the monitor's affair once the client's
//! socket has been handed over; a WebSocket's frames the engine translates, so that such a session ends with it.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use wherry_monitor_api as api;

use super::lifecycle::{broken, ensure_monitor, monitor};
use super::monitor::{CallError, Monitor};
use super::state::State;
use super::streams::{self, RAW, framing, hijack_head};
use super::table::Container;
use crate::engine::Engine;
use crate::error::Error;
use crate::server::response::render_head;
use crate::server::{ApiVersion, Client, Reply, Request, websocket};

/// How long the engine may take to hear of a container's end.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long it waits at most before it looks again whether it has.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);
/// How much output goes into one frame.
const PIECE: usize = 32 << 10;

/// `POST /containers/{id}/attach`. Refusals are plain text, as dockerd writes them on the connection that it has taken over.
pub(super) async fn attach(engine: Arc<Engine>, reference: &str, request: Request) -> Reply {
    match begin(&engine, reference, &request).await {
        Ok(Begun { container, monitor: None, attach }) => {
            super::stored_logs::send_raw(&engine, &container.record(), attach)
        }
        Ok(Begun { container, monitor: Some(monitor), attach }) => Reply::Hijack(Box::new(move |client| {
            Box::pin(hand_over(engine, container, monitor, attach, client))
        })),
        Err(error) => {
            let status = error.status();
            if status.is_server_error() {
                tracing::warn!(%status, %error, "request failed");
            }
            let head = render_head(status, status.canonical_reason().unwrap_or(""), &[("Content-Type", RAW)]);
            streams::say(head, format!("{error}\r\n").into_bytes())
        }
    }
}

/// Gives a client to the monitor. One whose container has ended in the meantime takes none that wait for the next start:
/// once the engine has done what follows an end, another monitor does.
async fn hand_over(
    engine: Arc<Engine>,
    container: Arc<Container>,
    mut monitor: Arc<Monitor>,
    mut attach: api::AttachRequest,
    client: Client,
) {
    let Ok((socket, already_read)) = client.into_unix() else { return };
    attach.already_read = already_read;
    loop {
        let request = api::Request::Attach(attach.clone());
        let error = match monitor.call(request, &[socket.as_fd()]).await {
            Ok(_) => return,
            Err(CallError::Refused(failure)) if failure.kind != api::FailureKind::State => {
                return streams::refuse(socket, Error::server(failure.message)).await;
            }
            // A monitor that was let go may have ended, too.
            Err(error) => error,
        };
        monitor = match successor(&engine, &container, &monitor).await {
            Ok(Some(other)) => other,
            // There will be no next start: the end of a stream without content.
            Ok(None) => return streams::write_and_close(socket, attach.head, Vec::new()).await,
            Err(Error::Monitor { .. }) => return streams::refuse(socket, broken(&container, &error)).await,
            Err(error) => return streams::refuse(socket, error).await,
        };
    }
}

/// The monitor that follows one which takes no clients any more; none for a container that has been removed. The old one is done
/// with the container, so the engine will be, too, as soon as it has heard of it; somebody may have started it again by then.
async fn successor(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    old: &Arc<Monitor>,
) -> Result<Option<Arc<Monitor>>, Error> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let mut changes = container.watch();
    loop {
        let guard = container.transition.lock().await;
        if engine.containers.find(&container.id).is_err() {
            return Ok(None);
        }
        match monitor(container).await {
            Some(current) if !Arc::ptr_eq(&current, old) => return Ok(Some(current)),
            None if !container.status().state.is_running() => {
                return ensure_monitor(engine, container).await.map(Some);
            }
            _ => drop(guard),
        }
        if tokio::time::Instant::now() > deadline {
            return Err(broken(container, &CallError::Gone));
        }
        // What is waited for is not only the state, but there is nothing else to wait for.
        let _ = tokio::time::timeout(BETWEEN_LOOKS, changes.changed()).await;
    }
}

/// A client that attaches.
struct Begun {
    container: Arc<Container>,
    /// Who is to have it; `None` for one that wants nothing but the log of a container that does not run.
    monitor: Option<Arc<Monitor>>,
    attach: api::AttachRequest,
}

async fn begin(engine: &Arc<Engine>, reference: &str, request: &Request) -> Result<Begun, Error> {
    let keys = detach_keys(request)?;
    let container = engine.containers.find(reference)?;
    must_take_clients(&container, reference)?;
    let tty = container.record().config.tty;
    let (framing, content_type) = framing(tty, request.version);
    let attach = api::AttachRequest {
        head: hijack_head(request, content_type),
        stdin: request.query.flag("stdin"),
        stdout: request.query.flag("stdout"),
        stderr: request.query.flag("stderr"),
        stream: request.query.flag("stream"),
        logs: request.query.flag("logs"),
        framing,
        encoding: api::BodyEncoding::UntilClose,
        detach_keys: if tty { keys } else { Vec::new() },
        on_detach: String::new(),
        already_read: Vec::new(),
    };
    let state = container.status().state.clone();
    let runs = state.is_running() || state == State::Starting;
    let monitor = if !runs && !attach.stream {
        None
    } else {
        // A monitor that is about to be let go, after an exit, takes no clients: the engine is done with it then.
        let _guard = if runs { None } else { Some(container.transition.lock().await) };
        Some(ensure_monitor(engine, &container).await?)
    };
    super::publish(engine, &container, "attach");
    Ok(Begun { container, monitor, attach })
}

fn detach_keys(request: &Request) -> Result<Vec<u8>, Error> {
    let text = request.query.get("detachKeys");
    streams::detach_keys(text).ok_or_else(|| {
        Error::InvalidParameter(format!("Invalid detach keys ({}) provided", text.unwrap_or("")))
    })
}

/// 409 for one that is paused or waits for its restart.
fn must_take_clients(container: &Container, reference: &str) -> Result<(), Error> {
    match container.status().state {
        State::Running { paused: true, .. } => Err(Error::Conflict(format!(
            "container {reference} is paused, unpause the container before attach"
        ))),
        State::Restarting { .. } => Err(Error::Conflict(format!(
            "container {reference} is restarting, wait until the container is running"
        ))),
        _ => Ok(()),
    }
}

/// `GET /containers/{id}/attach/ws`: output as it comes in frames, both streams together; what the client sends is input.
///
/// # Errors
/// As those of [`attach`], but as usual answers.
pub(super) async fn attach_ws(
    engine: Arc<Engine>,
    reference: &str,
    request: Request,
) -> Result<Reply, Error> {
    detach_keys(&request)?;
    must_take_clients(&*engine.containers.find(reference)?, reference)?;
    let head = match websocket::accept(&request.headers) {
        Ok(head) => head,
        Err(refusal) => return Ok(streams::say(refusal, Vec::new())),
    };
    let Begun { container, monitor, attach } = begin(&engine, reference, &request).await?;
    let attach = api::AttachRequest { head: Vec::new(), framing: api::Framing::Raw, ..attach };
    // Text is what browsers of that time could take.
    let kind =
        if request.version >= ApiVersion(1, 28) { websocket::Kind::Binary } else { websocket::Kind::Text };
    let monitor = match monitor {
        Some(monitor) => monitor,
        None => ensure_monitor(&engine, &container).await?,
    };
    Ok(Reply::Hijack(Box::new(move |client| {
        Box::pin(async move {
            if let Err(error) = translate(monitor, attach, client, &head, kind).await {
                tracing::debug!(%error, "a websocket ended");
            }
        })
    })))
}

/// Stands between a WebSocket and the monitor until one of them ends.
async fn translate(
    monitor: Arc<Monitor>,
    attach: api::AttachRequest,
    client: Client,
    head: &[u8],
    kind: websocket::Kind,
) -> std::io::Result<()> {
    let (near, far) = UnixStream::pair()?;
    let far = far.into_std()?;
    let (mut from_client, to_client) = tokio::io::split(client.stream);
    let to_client = Mutex::new(to_client);
    to_client.lock().await.write_all(head).await?;
    let given = monitor.call(api::Request::Attach(attach), &[far.as_fd()]).await;
    drop(far);
    if given.is_ok() {
        let (from_monitor, mut to_monitor) = near.into_split();
        tokio::select! {
            ended = input(client.already_read, &mut from_client, &mut to_monitor, &to_client) => ended?,
            ended = output(from_monitor, &to_client, kind) => ended?,
        }
    }
    let mut to_client = to_client.into_inner();
    to_client.write_all(&websocket::close(websocket::NORMAL)).await?;
    to_client.shutdown().await
}

/// Ends when the client says so, or goes.
async fn input(
    already_read: Vec<u8>,
    mut from_client: impl AsyncRead + Unpin,
    mut to_monitor: impl AsyncWrite + Unpin,
    to_client: &Mutex<impl AsyncWrite + Unpin>,
) -> std::io::Result<()> {
    let mut decoder = websocket::Decoder::default();
    decoder.push(&already_read);
    let mut buffer = vec![0; PIECE];
    loop {
        loop {
            match decoder.next() {
                Ok(Some(websocket::Said::Data(bytes))) => to_monitor.write_all(&bytes).await?,
                Ok(Some(websocket::Said::Ping(bytes))) => {
                    to_client.lock().await.write_all(&websocket::pong(&bytes)).await?;
                }
                Ok(Some(websocket::Said::Close)) => return Ok(()),
                Ok(None) => break,
                Err(websocket::Malformed) => {
                    let refusal = websocket::close(websocket::PROTOCOL_ERROR);
                    return to_client.lock().await.write_all(&refusal).await;
                }
            }
        }
        match from_client.read(&mut buffer).await? {
            0 => return Ok(()),
            read => decoder.push(buffer.get(..read).unwrap_or_default()),
        }
    }
}

/// Ends with the container's output.
async fn output(
    mut from_monitor: impl AsyncRead + Unpin,
    to_client: &Mutex<impl AsyncWrite + Unpin>,
    kind: websocket::Kind,
) -> std::io::Result<()> {
    let mut buffer = vec![0; PIECE];
    loop {
        let read = from_monitor.read(&mut buffer).await?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
        to_client.lock().await.write_all(&websocket::data(kind, bytes)).await?;
    }
}
