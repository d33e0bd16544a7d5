//! Which runtime makes a container: the built-in one, or another program by its name in daemon.json.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
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
            let path = found(&runtime.path, std::env::var_os("PATH").as_deref());
            return Ok(Some(ExternalRuntime { path, args: runtime.args.clone() }));
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

/// Where a program is that is told by its name only: monitors have no search path. A name that is nowhere stays as it is, and the
/// start says that it is not there.
fn found(program: &Path, search_path: Option<&OsStr>) -> PathBuf {
    if program.components().count() != 1 || program.is_absolute() {
        return program.to_owned();
    }
    let folders = search_path.map(std::env::split_paths).into_iter().flatten();
    let runs = |path: &PathBuf| path.is_file() && access(path, Access::EXEC_OK).is_ok();
    folders
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join(program))
        .find(runs)
        .unwrap_or_else(|| program.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_looked_up_and_a_path_is_not() {
        let check = |program: &str, expect: &str| {
            let found =
                found(Path::new(program), Some(OsStr::new("relative:/nosuch:/usr/lib:/bin:/usr/bin")));
            assert_eq!(found, Path::new(expect));
        };
        check("sh", "/bin/sh");
        check("nosuchprogram", "nosuchprogram");
        check("/opt/sh", "/opt/sh");
        check("./sh", "./sh");
        assert_eq!(found(Path::new("sh"), None), Path::new("sh"));
    }
}
