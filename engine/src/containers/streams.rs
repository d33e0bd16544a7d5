//! What lasts as long as a container does: wait and logs, and what attach and exec share with them. The client's socket goes to the
//! container's monitor; over TCP the engine relays.

use std::io::Write;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::StatusCode;
use tokio::io::AsyncWriteExt;
use wherry_monitor_api as api;

use super::lifecycle::{ensure_monitor, monitor};
use super::monitor::{CallError, Monitor};
use super::state::State;
use super::table::Container;
use crate::engine::{Engine, blocking};
use crate::error::Error;
use crate::server::response::{self, add_common_headers, render_head};
use crate::server::{ApiVersion, Client, Reply, Request};

/// The content type of streams without a terminal, for clients that know it.
const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";
/// The content type of terminals, and of all streams for older clients.
pub(super) const RAW: &str = "application/vnd.docker.raw-stream";

/// How a client's stream is framed, and what it is called.
pub(super) fn framing(tty: bool, version: ApiVersion) -> (api::Framing, &'static str) {
    match tty {
        true => (api::Framing::Raw, RAW),
        false if version >= ApiVersion(1, 42) => (api::Framing::Multiplexed, MULTIPLEXED),
        false => (api::Framing::Multiplexed, RAW),
    }
}

/// The head of the answer to a request that takes over its connection.
pub(super) fn hijack_head(request: &Request, content_type: &str) -> Vec<u8> {
    if request.header("upgrade").is_some() {
        let headers = [("Content-Type", content_type), ("Connection", "Upgrade"), ("Upgrade", "tcp")];
        render_head(StatusCode::SWITCHING_PROTOCOLS, "UPGRADED", &headers)
    } else {
        // The name for multiplexed streams came with the upgrade; who does not ask for one gets the old name.
        render_head(StatusCode::OK, "OK", &[("Content-Type", RAW)])
    }
}

/// As [`hijack_head`], for an exec, where dockerd adds the headers that other answers have.
pub(super) fn exec_head(request: &Request, content_type: &str) -> Vec<u8> {
    let mut head = hijack_head(request, content_type);
    head.truncate(head.len() - 2);
    head.extend_from_slice(&common_headers());
    head
}

/// The head of an answer in chunks that the monitor will write.
fn chunked_head(content_type: &str) -> Vec<u8> {
    let headers = [("Content-Type", content_type), ("Connection", "close"), ("Transfer-Encoding", "chunked")];
    let mut head = render_head(StatusCode::OK, "OK", &headers);
    head.truncate(head.len() - 2);
    head.extend_from_slice(&common_headers());
    head
}

/// `api-version` → `Api-Version`, as hyper writes the headers of other answers.
fn title_case(name: &str) -> String {
    let parts = name.split('-').map(|part| {
        let (first, rest) = part.split_at(part.len().min(1));
        first.to_ascii_uppercase() + rest
    });
    parts.collect::<Vec<_>>().join("-")
}

/// The headers of all answers, and the end of the head.
fn common_headers() -> Vec<u8> {
    let mut headers = hyper::HeaderMap::new();
    add_common_headers(&mut headers);
    let mut text = Vec::new();
    for (name, value) in &headers {
        text.extend_from_slice(title_case(name.as_str()).as_bytes());
        text.extend_from_slice(b": ");
        text.extend_from_slice(value.as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    text
}

/// Sends a client to the monitor with a request; on a refusal the client gets the error instead.
pub(super) async fn give(
    monitor: Arc<Monitor>,
    client: Client,
    make: impl FnOnce(Vec<u8>) -> api::Request + Send,
) {
    let Ok((socket, already_read)) = client.into_unix() else { return };
    let answer = monitor.call(make(already_read), &[socket.as_fd()]).await;
    if let Err(error) = answer {
        let message = match error {
            CallError::Refused(failure) => failure.message,
            other => other.to_string(),
        };
        refuse(socket, Error::server(message)).await;
    }
}

/// Answers a client whose socket was on its way to a monitor.
pub(super) async fn refuse(socket: std::os::fd::OwnedFd, error: Error) {
    write_and_close(socket, response::render(error.into_response()), Vec::new()).await;
}

/// Takes over the connection, writes a head and a body, and closes it.
pub(super) fn say(head: Vec<u8>, body: Vec<u8>) -> Reply {
    Reply::Hijack(Box::new(move |client| {
        Box::pin(async move {
            let Ok((socket, _)) = client.into_unix() else { return };
            write_and_close(socket, head, body).await;
        })
    }))
}

/// As [`say`], with a body that blocking work writes; it ends when the client goes.
pub(super) fn say_in_pieces(
    head: Vec<u8>,
    work: impl FnOnce(&mut dyn FnMut(Vec<u8>) -> bool) -> Result<(), Error> + Send + 'static,
) -> Reply {
    Reply::Hijack(Box::new(move |client| {
        Box::pin(async move {
            let Ok((socket, _)) = client.into_unix() else { return };
            let stream = std::os::unix::net::UnixStream::from(socket);
            let written = blocking(move || {
                let step = || Error::io("write to", "a client");
                stream.set_nonblocking(false).and_then(|()| (&stream).write_all(&head)).map_err(step())?;
                let deadline = Instant::now() + HEAD_READ_WITHIN;
                while head_is_unread(stream.as_fd()) && Instant::now() < deadline {
                    std::thread::sleep(HEAD_READ_POLL);
                }
                let result = work(&mut |bytes| (&stream).write_all(&bytes).is_ok());
                stream.shutdown(std::net::Shutdown::Write).map_err(step())?;
                result
            });
            if let Err(error) = written.await {
                tracing::debug!(%error, "a stream broke off");
            }
        })
    }))
}

fn head_is_unread(socket: std::os::fd::BorrowedFd<'_>) -> bool {
    wherry_ipc::unread_bytes(socket).is_ok_and(|bytes| bytes > 0)
}

/// How often is looked whether the head has been read.
const HEAD_READ_POLL: Duration = Duration::from_micros(200);
/// How long a body waits for its client to read the head.
const HEAD_READ_WITHIN: Duration = Duration::from_millis(200);

/// Writes to a client whose socket is ours again, and closes it. The body follows when the head has been read: see the
/// monitor's `Outbox` for the clients that need it so.
pub(super) async fn write_and_close(socket: std::os::fd::OwnedFd, head: Vec<u8>, body: Vec<u8>) {
    let stream = std::os::unix::net::UnixStream::from(socket);
    let stream = stream.set_nonblocking(true).and_then(|()| tokio::net::UnixStream::from_std(stream));
    let Ok(mut stream) = stream else { return };
    // A client that has gone needs no answer.
    let _ = stream.write_all(&head).await;
    if !body.is_empty() {
        let _ = tokio::time::timeout(HEAD_READ_WITHIN, async {
            while head_is_unread(stream.as_fd()) {
                tokio::time::sleep(HEAD_READ_POLL).await;
            }
        })
        .await;
        let _ = stream.write_all(&body).await;
    }
    let _ = stream.shutdown().await;
}

/// Reads the detach keys: `ctrl-a,ctrl-q` or single characters; no text is the default. `None` for what is no key.
pub(super) fn detach_keys(text: Option<&str>) -> Option<Vec<u8>> {
    let Some(text) = text else { return Some(vec![16, 17]) };
    text.split(',')
        .map(|key| match (key.strip_prefix("ctrl-"), key.as_bytes()) {
            (Some("@"), _) => Some(0),
            (Some("["), _) => Some(27),
            (Some("\\"), _) => Some(28),
            (Some("]"), _) => Some(29),
            (Some("^"), _) => Some(30),
            (Some("_"), _) => Some(31),
            (Some(letter), _) => match letter.as_bytes() {
                [c @ b'a'..=b'z'] => Some(c - b'a' + 1),
                _ => None,
            },
            (None, [byte]) => Some(*byte),
            _ => None,
        })
        .collect()
}

/// `POST /containers/{id}/wait`.
pub(super) async fn wait(
    engine: Arc<Engine>,
    container: Arc<Container>,
    request: Request,
) -> Result<Reply, Error> {
    let condition = match request.query.get("condition") {
        None | Some("not-running") => api::WaitCondition::NotRunning,
        Some("next-exit") => api::WaitCondition::NextExit,
        Some("removed") => api::WaitCondition::Removed,
        Some(other) => {
            return Err(Error::InvalidParameter(format!(
                "invalid condition: {}",
                crate::text::go_quote(other)
            )));
        }
    };
    let running = container.status().state.is_running();
    if condition == api::WaitCondition::NotRunning && !running && container.status().state != State::Starting
    {
        return Ok(exit_answer(&container).into());
    }
    if condition == api::WaitCondition::Removed && !container.record().host_config.auto_remove {
        return Ok(until_removed(&engine, &container));
    }
    let wait = api::WaitRequest {
        head: chunked_head("application/json"),
        condition,
        prefix: "{\"StatusCode\":".into(),
        suffix: "}\n".into(),
        encoding: api::BodyEncoding::Chunked,
    };
    let monitor = match (condition, monitor(&container).await) {
        (_, Some(monitor)) => monitor,
        // It has just ended: there is nothing to wait for.
        (api::WaitCondition::NotRunning, None) => return Ok(exit_answer(&container).into()),
        (_, None) => ensure_monitor(&engine, &container).await?,
    };
    Ok(Reply::Hijack(Box::new(move |client| {
        Box::pin(async move {
            let Ok((socket, _)) = client.into_unix() else { return };
            match monitor.call(api::Request::Wait(wait), &[socket.as_fd()]).await {
                Ok(_) => {}
                // It ended while we asked; what it left is known by then.
                Err(CallError::Gone) => {
                    super::lifecycle::stopped_within(&container, Some(std::time::Duration::from_secs(5)))
                        .await;
                    write_and_close(socket, response::render(exit_answer(&container)), Vec::new()).await;
                }
                Err(error) => refuse(socket, Error::server(error.to_string())).await,
            }
        })
    })))
}

fn exit_answer(container: &Container) -> crate::server::Response {
    let status = container.status();
    let code = match (&container.record().start_failure, status.state.exit()) {
        (Some(failure), _) => failure.code,
        (None, exit) => exit.map_or(0, |e| e.code),
    };
    response::json(StatusCode::OK, &serde_json::json!({ "StatusCode": code }))
}

/// Waits for somebody to remove the container; only the engine does that.
fn until_removed(engine: &Arc<Engine>, container: &Arc<Container>) -> Reply {
    let (sender, response) = response::stream("application/json");
    let (engine, container) = (engine.clone(), container.clone());
    tokio::spawn(async move {
        let mut status = container.watch();
        loop {
            if engine.containers.find(&container.id).is_err() {
                break;
            }
            tokio::select! {
                changed = status.changed() => if changed.is_err() { break },
                () = sender.closed() => return,
            }
        }
        let code = container.status().last_code;
        // The client may be gone.
        let _ = sender.send(Bytes::from(format!("{{\"StatusCode\":{code}}}\n"))).await;
    });
    response.into()
}

/// `GET /containers/{id}/logs`.
pub(super) async fn logs(
    engine: Arc<Engine>,
    container: Arc<Container>,
    request: Request,
) -> Result<Reply, Error> {
    let record = container.record();
    let (stdout, stderr) = (request.query.flag("stdout"), request.query.flag("stderr"));
    if !stdout && !stderr {
        return Err(Error::InvalidParameter("Bad parameters: you must choose at least one stream".into()));
    }
    if super::logging::file(&record, &engine.config().data_root).is_none() {
        return Err(Error::NotImplemented("configured logging driver does not support reading".into()));
    }
    let (framing, content_type) = framing(record.config.tty, request.version);
    let follow = request.query.flag("follow");
    let limit = |name: &str| -> Result<Option<i64>, Error> {
        Ok(request.query.get(name).map(time).transpose()?.filter(|ns| *ns != 0))
    };
    let logs = api::LogsRequest {
        head: chunked_head(content_type),
        stdout,
        stderr,
        since_ns: limit("since")?,
        until_ns: limit("until")?,
        tail: request.query.get("tail").and_then(|text| text.parse().ok()),
        timestamps: request.query.flag("timestamps"),
        details: request.query.flag("details"),
        follow,
        framing,
        encoding: api::BodyEncoding::Chunked,
    };
    if follow
        && (container.status().state.is_running() || container.status().state == State::Starting)
        && let Some(monitor) = monitor(&container).await
    {
        return Ok(Reply::Hijack(Box::new(move |client| {
            Box::pin(give(monitor, client, move |_| api::Request::FollowLogs(logs)))
        })));
    }
    first_words(&container).await;
    super::stored_logs::send(&engine, &record, &logs, content_type)
}

/// So long after its start a container's first words are waited for.
const FIRST_WORDS: Duration = Duration::from_millis(150);

/// Waits until a container that has just been started has ended, or had some time to say something. dockerd answers a start so
/// much later than we do that a short program's output is in its log by then, and clients rely on it.
async fn first_words(container: &Container) {
    let mut status = container.watch();
    let State::Running { started_at_ns, .. } = status.borrow().state else { return };
    let age = u64::try_from(crate::clock::now_ns().saturating_sub(started_at_ns)).unwrap_or(u64::MAX);
    if let Some(left) = FIRST_WORDS.checked_sub(Duration::from_nanos(age)) {
        // Both ends are fine.
        let _ = tokio::time::timeout(left, status.wait_for(|now| !now.state.is_running())).await;
    }
}

/// Reads a time: seconds since the epoch with a fraction, as the CLI sends it.
///
/// # Errors
/// 500 with the words of Go's strconv.
pub(crate) fn time(text: &str) -> Result<i64, Error> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let number = |digits: &str| {
        digits.parse::<i64>().map_err(|_| {
            let quoted = crate::text::go_quote(digits);
            Error::server(format!("strconv.ParseInt: parsing {quoted}: invalid syntax"))
        })
    };
    let nanoseconds = match fraction {
        "" => 0,
        digits => number(digits).and_then(|_| number(&format!("{digits:0<9.9}")))?,
    };
    Ok(number(seconds)?.saturating_mul(1_000_000_000).saturating_add(nanoseconds))
}

/// `POST /containers/{id}/resize`.
pub(super) async fn resize(engine: Arc<Engine>, reference: &str, request: Request) -> Result<Reply, Error> {
    let (rows, columns) = size(&request)?;
    let container = engine.containers.find(reference)?;
    let Some(monitor) = monitor(&container).await.filter(|_| container.status().state.is_running()) else {
        return Err(Error::NotRunning(container.id.clone()));
    };
    match monitor.call(api::Request::Resize { exec: None, rows, columns }, &[]).await {
        Ok(_) => {}
        // It has no terminal, which dockerd does not mind.
        Err(CallError::Refused(failure)) if failure.kind == api::FailureKind::State => {}
        Err(CallError::Refused(failure)) => return Err(Error::server(failure.message)),
        Err(error) => return Err(super::lifecycle::broken(&container, &error)),
    }
    let text = |name: &str| request.query.get(name).unwrap_or("").to_owned();
    let more = [("height".to_owned(), text("h")), ("width".to_owned(), text("w"))].into();
    super::publish_with(&engine, &container, "resize", more);
    Ok(response::empty(StatusCode::OK).into())
}

/// The `h` and `w` of a resize; what does not fit a terminal's 16 bits is cut, as dockerd does.
pub(super) fn size(request: &Request) -> Result<(u16, u16), Error> {
    let read = |name: &str, word: &str| {
        let text = request.query.get(name).unwrap_or("");
        text.parse::<u32>().map(|number| number as u16).map_err(|_| {
            let number = text.strip_prefix('-').unwrap_or(text);
            let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
            let why = if digits { "value out of range" } else { "invalid syntax" };
            let quoted = crate::text::go_quote(text);
            Error::InvalidParameter(format!("invalid resize {word} {quoted}: {why}"))
        })
    };
    Ok((read("h", "height")?, read("w", "width")?))
}

/// Runs blocking work that writes a stream's pieces; it ends when the client goes.
pub(super) fn blocking_stream(
    content_type: &'static str,
    work: impl FnOnce(&mut dyn FnMut(Vec<u8>) -> bool) -> Result<(), Error> + Send + 'static,
) -> Reply {
    let (sender, response) = response::stream(content_type);
    tokio::spawn(async move {
        let result =
            blocking(move || work(&mut |bytes| sender.blocking_send(Bytes::from(bytes)).is_ok())).await;
        if let Err(error) = result {
            tracing::warn!(%error, "a stream broke off");
        }
    });
    response.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_read_as_the_cli_writes_them() {
        assert_eq!(detach_keys(None).unwrap(), [16, 17]);
        assert_eq!(detach_keys(Some("ctrl-a,x,ctrl-@")).unwrap(), [1, b'x', 0]);
        assert!(detach_keys(Some("ctrl-A")).is_none() && detach_keys(Some("xy")).is_none());
    }

    #[test]
    fn times_are_read_as_the_cli_sends_them() {
        assert_eq!(time("1136073600.5").unwrap(), 1_136_073_600_500_000_000);
        assert_eq!(time("1795311713.000000001").unwrap(), 1_795_311_713_000_000_001);
        assert_eq!(time("99999999999").unwrap(), i64::MAX);
        for (text, quoted) in
            [("x", "x"), ("1.x", "x"), ("2006-01-01T00:00:00Z", "2006-01-01T00:00:00Z"), ("1.2.3", "2.3")]
        {
            let expect = format!("strconv.ParseInt: parsing \"{quoted}\": invalid syntax");
            assert_eq!(time(text).unwrap_err().to_string(), expect);
        }
    }
}
