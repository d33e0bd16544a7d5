//! From a `Healthcheck` to the probe that the monitor runs.

use wherry_monitor_api::{Health, UnhealthyRestart};

use super::record::Record;
use super::signals::parse_signal;
use super::spec::{self, ExecInput};
use super::users::ResolvedUser;
use crate::error::Error;
use crate::text::go_bool;

const MILLISECOND_NS: i64 = 1_000_000;
/// The annotation by which a container asks to be restarted when it becomes unhealthy.
const RESTART_UNHEALTHY: &str = "io.wherry.restart-unhealthy";
const SIGTERM: i32 = 15;
const STOP_TIMEOUT_S: i64 = 10;

/// The container's probe, with the variables of its `links`; `None` without one, or when it is switched off by `NONE`.
///
/// # Errors
/// Those of making the probe's process.
pub(super) fn probe(record: &Record, user: &ResolvedUser, links: &[String]) -> Result<Option<Health>, Error> {
    let Some(check) = &record.config.healthcheck else { return Ok(None) };
    let Some((kind, arguments)) = check.test.as_deref().and_then(<[String]>::split_first) else {
        return Ok(None);
    };
    let args: Vec<String> = match kind.as_str() {
        "CMD" => arguments.to_vec(),
        "CMD-SHELL" => {
            let default = ["/bin/sh".to_owned(), "-c".to_owned()];
            record.config.shell.as_deref().unwrap_or(&default).iter().chain(arguments).cloned().collect()
        }
        _ => return Ok(None),
    };
    let process = spec::exec_process(&ExecInput {
        record,
        user,
        args: &args,
        links,
        env: &[],
        cwd: "",
        tty: false,
        privileged: false,
    })?;
    let or = |ns: i64, default_ms: u64| match ns {
        0 => default_ms,
        ns => u64::try_from(ns / MILLISECOND_NS).unwrap_or(default_ms),
    };
    Ok(Some(Health {
        process,
        interval_ms: or(check.interval, 30_000),
        timeout_ms: or(check.timeout, 30_000),
        start_period_ms: or(check.start_period, 0),
        start_interval_ms: or(check.start_interval, 5_000),
        retries: u32::try_from(check.retries).ok().filter(|n| *n > 0).unwrap_or(3),
        restart: unhealthy_restart(record)?,
    }))
}

/// Whether the container is restarted when it becomes unhealthy: it says so by an annotation, which no image can give it.
fn unhealthy_restart(record: &Record) -> Result<Option<UnhealthyRestart>, Error> {
    let annotation = record.host_config.annotations.as_ref().and_then(|all| all.get(RESTART_UNHEALTHY));
    if annotation.and_then(|value| go_bool(value)) != Some(true) {
        return Ok(None);
    }
    let signal = match record.config.stop_signal.as_str() {
        "" => SIGTERM,
        name => parse_signal(name)?,
    };
    let seconds = record.config.stop_timeout.unwrap_or(STOP_TIMEOUT_S);
    Ok(Some(UnhealthyRestart {
        signal,
        timeout_ms: u64::try_from(seconds).ok().map(|s| s.saturating_mul(1000)),
    }))
}
