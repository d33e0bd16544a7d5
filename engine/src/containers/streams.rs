//! What lasts as long as a container does: attach, wait and logs. The client's socket goes to the
//! container's monitor; over TCP the engine relays.

use std::os::fd::AsFd;
use std::sync::Arc;

use bytes::Bytes;
use hyper::StatusCode;
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
const RAW: &str = "application/vnd.docker.raw-stream";

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

/// The head of an answer in chunks that the monitor will write.
fn chunked_head(content_type: &str) -> Vec<u8> {
    let mut common = hyper::HeaderMap::new();
    add_common_headers(&mut common);
    let mut headers: Vec<(&str, &str)> =
        common.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?))).collect();
    headers.extend([
        ("Content-Type", content_type),
        ("Connection", "close"),
        ("Transfer-Encoding", "chunked"),
    ]);
    render_head(StatusCode::OK, "OK", &headers)
}

/// Sends a client to the monitor with a request; on a refusal the client gets the error instead.
async fn give(monitor: Arc<Monitor>, client: Client, make: impl FnOnce(Vec<u8>) -> api::Request + Send) {
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
    write_and_close(socket, response::render(error.into_response())).await;
}

/// Writes to a client whose socket is ours again, and closes it.
pub(super) async fn write_and_close(socket: std::os::fd::OwnedFd, bytes: Vec<u8>) {
    let stream = std::os::unix::net::UnixStream::from(socket);
    let stream = stream.set_nonblocking(true).and_then(|()| tokio::net::UnixStream::from_std(stream));
    if let Ok(mut stream) = stream {
        // A client that has gone needs no answer.
        let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, &bytes).await;
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut stream).await;
    }
}

/// Reads the detach keys: `ctrl-a,ctrl-q` or single characters; empty text is the default.
///
/// # Errors
/// 400 for what is no key.
pub(super) fn detach_keys(text: Option<&str>) -> Result<Vec<u8>, Error> {
    let Some(text) = text else { return Ok(vec![16, 17]) };
    text.split(',')
        .map(|key| match (key.strip_prefix("ctrl-"), key.as_bytes()) {
            (Some("@"), _) => Ok(0),
            (Some("["), _) => Ok(27),
            (Some("\\"), _) => Ok(28),
            (Some("]"), _) => Ok(29),
            (Some("^"), _) => Ok(30),
            (Some("_"), _) => Ok(31),
            (Some(letter), _) => match letter.as_bytes() {
                [c @ b'a'..=b'z'] => Ok(c - b'a' + 1),
                _ => Err(()),
            },
            (None, [byte]) => Ok(*byte),
            _ => Err(()),
        })
        .collect::<Result<_, ()>>()
        .map_err(|()| Error::InvalidParameter(format!("Invalid escape keys ({text}) provided")))
}

/// `POST /containers/{id}/attach`.
pub(super) async fn attach(
    engine: Arc<Engine>,
    container: Arc<Container>,
    request: Request,
) -> Result<Reply, Error> {
    let record = container.record();
    match container.status().state {
        State::Running { paused: true, .. } => {
            return Err(Error::Conflict(format!(
                "container {} is paused, unpause the container before attach",
                container.id
            )));
        }
        State::Restarting { .. } => {
            return Err(Error::Conflict(format!(
                "container {} is restarting, wait until the container is running",
                container.id
            )));
        }
        _ => {}
    }
    let (framing, content_type) = framing(record.config.tty, request.version);
    let keys = detach_keys(request.query.get("detachKeys"))?;
    let mut attach = api::AttachRequest {
        head: hijack_head(&request, content_type),
        stdin: request.query.flag("stdin"),
        stdout: request.query.flag("stdout"),
        stderr: request.query.flag("stderr"),
        stream: request.query.flag("stream"),
        logs: request.query.flag("logs"),
        framing,
        encoding: api::BodyEncoding::UntilClose,
        detach_keys: if record.config.tty { keys } else { Vec::new() },
        already_read: Vec::new(),
    };
    let monitor = ensure_monitor(&engine, &container).await?;
    super::publish(&engine, &container, "attach");
    Ok(Reply::Hijack(Box::new(move |client| {
        Box::pin(give(monitor, client, move |already_read| {
            attach.already_read = already_read;
            api::Request::Attach(attach)
        }))
    })))
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
                    write_and_close(socket, response::render(exit_answer(&container))).await;
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
    if record.host_config.log_config.driver == "none" {
        return Err(Error::NotImplemented("configured logging driver does not support reading".into()));
    }
    let (framing, content_type) = framing(record.config.tty, request.version);
    let follow = request.query.flag("follow");
    let logs = api::LogsRequest {
        head: chunked_head(content_type),
        stdout,
        stderr,
        since_ns: time(request.query.get("since"), "since")?.filter(|ns| *ns != 0),
        until_ns: time(request.query.get("until"), "until")?.filter(|ns| *ns != 0),
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
    super::stored_logs::send(&engine, &record, &logs, content_type)
}

/// Reads a time as the CLI sends it: seconds since the epoch with a fraction, or RFC 3339.
pub(crate) fn time(text: Option<&str>, what: &str) -> Result<Option<i64>, Error> {
    let Some(text) = text else { return Ok(None) };
    if text.contains('T')
        && let Some(ns) = crate::clock::parse_rfc3339(text)
    {
        return Ok(Some(ns));
    }
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let parsed = seconds.parse::<i64>().ok().and_then(|s| {
        let digits = format!("{fraction:0<9.9}");
        s.checked_mul(1_000_000_000)?.checked_add(digits.parse::<i64>().ok()?)
    });
    parsed.map(Some).ok_or_else(|| {
        Error::InvalidParameter(format!("invalid value for {}: {text}", crate::text::go_quote(what)))
    })
}

/// `POST /containers/{id}/resize`.
pub(super) async fn resize(container: Arc<Container>, request: Request) -> Result<Reply, Error> {
    let (rows, columns) = size(&request)?;
    let Some(monitor) = monitor(&container).await.filter(|_| container.status().state.is_running()) else {
        return Err(Error::NotRunning(container.id.clone()));
    };
    match monitor.call(api::Request::Resize { exec: None, rows, columns }, &[]).await {
        Ok(_) => Ok(response::empty(StatusCode::OK).into()),
        Err(CallError::Refused(failure)) => Err(Error::server(failure.message)),
        Err(error) => Err(super::lifecycle::broken(&container, &error)),
    }
}

/// The `h` and `w` of a resize.
pub(super) fn size(request: &Request) -> Result<(u16, u16), Error> {
    let read = |name: &str| {
        let text = request.query.get(name).unwrap_or("");
        text.parse::<u16>().map_err(|_| {
            let quoted = crate::text::go_quote(text);
            Error::InvalidParameter(format!(
                "invalid resize {} {quoted}",
                if name == "h" { "height" } else { "width" }
            ))
        })
    };
    Ok((read("h")?, read("w")?))
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
        assert!(detach_keys(Some("ctrl-A")).is_err() && detach_keys(Some("xy")).is_err());
    }

    #[test]
    fn times_are_read_in_both_forms() {
        assert_eq!(time(Some("1136073600.5"), "since").unwrap(), Some(1_136_073_600_500_000_000));
        assert_eq!(time(Some("1136073600.000000001"), "since").unwrap(), Some(1_136_073_600_000_000_001));
        assert_eq!(time(Some("2006-01-01T00:00:00Z"), "since").unwrap(), Some(1_136_073_600_000_000_000));
        assert!(time(Some("yesterday"), "since").is_err());
    }
}
