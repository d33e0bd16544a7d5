//! `wherryd log-relay`: what a monitor executes to have TLS to a log server. Not for people, and no engine.

use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use wherry_monitor_api::TlsServer;

/// The process; standard input is the monitor's socket.
pub(super) fn main(settings: Option<OsString>) -> ExitCode {
    let server = settings.and_then(|text| serde_json::from_str::<TlsServer>(text.to_str()?).ok());
    let Some(server) = server else {
        return super::fail("usage: wherryd log-relay SETTINGS (monitors start it, with a socket)");
    };
    let monitor = match std::io::stdin().as_fd().try_clone_to_owned() {
        Ok(socket) => UnixStream::from(socket),
        Err(error) => return super::fail(&format!("wherryd log-relay: standard input: {error}")),
    };
    match wherry_log_relay::run(&server, monitor) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let short = server.container.get(..12).unwrap_or(&server.container);
            super::fail(&format!("wherryd log-relay {short}: {} at {}: {error}", server.name, server.address))
        }
    }
}
