//! Which runtime makes a container: the built-in one, or another program by its name in daemon.json.

use wherry_monitor_api::ExternalRuntime;

use super::config::HostConfig;
use crate::config::Config;
use crate::config::runtimes::{BUILT_IN, BUILT_IN_SHIM, is_known};
use crate::error::Error;
use crate::text::go_quote;

/// Checks the runtime that a container asks for.
///
/// # Errors
/// 400 `unknown or invalid runtime name: x`.
pub(super) fn check(host: &HostConfig, config: &Config) -> Result<(), Error> {
    if host.runtime.is_empty() || is_known(&host.runtime, &config.runtimes) {
        return Ok(());
    }
    Err(Error::InvalidParameter(format!("unknown or invalid runtime name: {}", host.runtime)))
}

/// The program that is to make a container; `None` for the built-in one.
///
/// # Errors
/// As containerd says it of shims that are not there; 400 for a name that is no longer configured.
pub(super) fn external(name: &str, config: &Config) -> Result<Option<ExternalRuntime>, Error> {
    if matches!(name, "" | BUILT_IN | BUILT_IN_SHIM) {
        return Ok(None);
    }
    let shim = match config.runtimes.get(name) {
        Some(runtime) if runtime.shim.is_empty() => {
            return Ok(Some(ExternalRuntime { path: runtime.path.clone(), args: runtime.args.clone() }));
        }
        Some(runtime) if runtime.shim == BUILT_IN_SHIM => return Ok(None),
        Some(runtime) => runtime.shim.as_str(),
        None if name.starts_with("io.containerd.") => name,
        None => return Err(Error::InvalidParameter(format!("unknown or invalid runtime name: {name}"))),
    };
    let mut parts = shim.rsplit('.');
    let (version, kind) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    Err(Error::server(format!(
        "failed to create task for container: failed to start shim: failed to resolve runtime path: runtime {} binary not \
         installed {}: file does not exist",
        go_quote(shim),
        go_quote(&format!("containerd-shim-{kind}-{version}"))
    )))
}
