//! From a `Healthcheck` to the probe that the monitor runs.

use wherry_monitor_api::Health;

use super::record::Record;
use super::spec::{self, ExecInput};
use super::users::ResolvedUser;
use crate::error::Error;

const MILLISECOND_NS: i64 = 1_000_000;

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
    }))
}
