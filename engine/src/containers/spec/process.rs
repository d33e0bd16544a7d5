//! `process`: the container's init, and further processes in it.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::super::config::HostConfig;
use super::super::record::Record;
use super::super::users::ResolvedUser;
use super::{Input, capabilities};
use crate::config::Config;
use crate::error::Error;

/// The search path of programs in containers that have no other.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The init that reaps orphans (`--init`), on the host.
const INIT: &str = "docker-init";
/// The same program under its own name, linked statically, so that it runs in any container.
const INIT_ELSEWHERE: &str = "tini-static";
/// And in the container.
pub(super) const INIT_IN_CONTAINER: &str = "/sbin/docker-init";
/// Where distributions put helpers of Docker that are not on the search path.
const INIT_FOLDERS: [&str; 4] =
    ["/usr/local/libexec/docker", "/usr/libexec/docker", "/usr/local/lib/docker", "/usr/lib/docker"];

/// The process that is the container's first.
///
/// # Errors
/// 500 for unknown limits.
pub(super) fn init(
    input: &Input<'_>,
    capabilities: &[&str],
    no_new_privileges: bool,
) -> Result<Map<String, Value>, Error> {
    let record = input.record;
    let tty = record.config.tty;
    let mut process = Map::new();
    if tty {
        process.insert("terminal".into(), true.into());
    }
    process.insert("user".into(), user(input.user));
    let args: Vec<&str> =
        std::iter::once(record.path.as_str()).chain(record.args.iter().map(String::as_str)).collect();
    process.insert("args".into(), args.into());
    process.insert("env".into(), environment(record, tty, input.extra_env, &[], &input.user.home).into());
    process.insert("cwd".into(), cwd(&record.config.working_dir).into());
    process.insert("capabilities".into(), capabilities::process(capabilities));
    let rlimits = rlimits(&record.host_config)?;
    if !rlimits.is_empty() {
        process.insert("rlimits".into(), rlimits.into());
    }
    if no_new_privileges {
        process.insert("noNewPrivileges".into(), true.into());
    }
    process.insert("oomScoreAdj".into(), record.host_config.oom_score_adj.into());
    Ok(process)
}

fn user(user: &ResolvedUser) -> Value {
    json!({ "uid": user.uid, "gid": user.gid, "additionalGids": user.additional_gids })
}

fn cwd(working_dir: &str) -> &str {
    if working_dir.is_empty() { "/" } else { working_dir }
}

/// The names of limits, as the kernel has them.
const RLIMITS: [&str; 16] = [
    "RLIMIT_AS",
    "RLIMIT_CORE",
    "RLIMIT_CPU",
    "RLIMIT_DATA",
    "RLIMIT_FSIZE",
    "RLIMIT_LOCKS",
    "RLIMIT_MEMLOCK",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_NOFILE",
    "RLIMIT_NPROC",
    "RLIMIT_RSS",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
    "RLIMIT_SIGPENDING",
    "RLIMIT_STACK",
];

/// The limits (those of the daemon were added when the container was created).
fn rlimits(host: &HostConfig) -> Result<Vec<Value>, Error> {
    let limits = host.ulimits.iter().flatten().map(|limit| {
        let name = format!("RLIMIT_{}", limit.name.to_uppercase());
        if !RLIMITS.contains(&name.as_str()) {
            return Err(super::refused_by_runtime(&format!("wrong rlimit value: {name}")));
        }
        // Negative numbers wrap around to the greatest ones, which is how "unlimited" is written.
        Ok(json!({ "type": name, "soft": limit.soft as u64, "hard": limit.hard as u64 }))
    });
    limits.collect()
}

/// A process's environment as dockerd and runc put it together: defaults, links, the configuration's, `extra`
/// (exec's own), and HOME from /etc/passwd.
pub(crate) fn environment(
    record: &Record,
    tty: bool,
    links: &[String],
    extra: &[String],
    home: &str,
) -> Vec<String> {
    let mut environment = vec![PATH.to_owned(), format!("HOSTNAME={}", record.config.hostname)];
    if tty {
        environment.push("TERM=xterm".into());
    }
    environment.extend_from_slice(links);
    replace_or_append(&mut environment, record.config.env.as_deref().unwrap_or_default());
    replace_or_append(&mut environment, extra);
    if !environment.iter().any(|v| v.strip_prefix("HOME=").is_some_and(|home| !home.is_empty())) {
        environment.retain(|v| v != "HOME=");
        environment.push(format!("HOME={home}"));
    }
    environment
}

/// Sets each variable in its old place, or at the end; one without a value is unset.
fn replace_or_append(environment: &mut Vec<String>, overrides: &[String]) {
    for variable in overrides {
        let name = variable.split_once('=').map(|(name, _)| name);
        let wanted = name.unwrap_or(variable);
        let place =
            environment.iter().position(|v| v.split_once('=').map_or(v.as_str(), |(n, _)| n) == wanted);
        match (place, name) {
            (Some(place), None) => {
                environment.remove(place);
            }
            (None, None) => {}
            (Some(place), Some(_)) => {
                if let Some(slot) = environment.get_mut(place) {
                    slot.clone_from(variable);
                }
            }
            (None, Some(_)) => environment.push(variable.clone()),
        }
    }
}

/// Whether an init goes before the program. Pointless where the process namespace has one already.
pub(super) fn wants_init(host: &HostConfig, config: &Config) -> bool {
    let shared = host.pid_mode == "host" || host.pid_mode.starts_with("container:");
    host.init.unwrap_or(config.init) && !shared
}

/// Makes the program an argument of init.
pub(super) fn put_init_before(process: &mut Map<String, Value>) {
    if let Some(Value::Array(args)) = process.get_mut("args") {
        args.splice(..0, [INIT_IN_CONTAINER.into(), "--".into()]);
    }
}

/// The init binary on the host.
///
/// # Errors
/// 500 in Go's words when there is none.
pub(super) fn find_init() -> Result<PathBuf, Error> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    INIT_FOLDERS
        .iter()
        .map(PathBuf::from)
        .chain(std::env::split_paths(&path))
        .flat_map(|folder| [folder.join(INIT), folder.join(INIT_ELSEWHERE)])
        .find(|candidate| {
            rustix::fs::access(candidate, rustix::fs::Access::EXEC_OK).is_ok() && candidate.is_file()
        })
        .ok_or_else(|| Error::server(format!("exec: \"{INIT}\": executable file not found in $PATH")))
}

/// What an exec's process is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ExecInput<'a> {
    /// The container.
    pub(crate) record: &'a Record,
    /// Whom the exec's user (or the container's) means.
    pub(crate) user: &'a ResolvedUser,
    /// Program and arguments.
    pub(crate) args: &'a [String],
    /// The variables of the container's links, as they are now.
    pub(crate) links: &'a [String],
    /// Its own variables.
    pub(crate) env: &'a [String],
    /// Working directory; empty for the container's.
    pub(crate) cwd: &'a str,
    /// Whether it has a terminal.
    pub(crate) tty: bool,
    /// Whether it has all capabilities.
    pub(crate) privileged: bool,
}

/// `process` of the specification for an exec in a running container.
///
/// # Errors
/// 400 for unknown capabilities; 500 for unknown security options.
pub(crate) fn exec_process(input: &ExecInput<'_>) -> Result<Value, Error> {
    let record = input.record;
    let security = super::security::parse(record.host_config.security_opt.as_deref())?;
    let capabilities =
        if input.privileged { capabilities::all() } else { capabilities::effective(&record.host_config)? };
    let cwd = if input.cwd.is_empty() { cwd(&record.config.working_dir) } else { input.cwd };
    let mut process = json!({
        "terminal": input.tty,
        "user": user(input.user),
        "args": input.args,
        "env": environment(record, input.tty, input.links, input.env, &input.user.home),
        "cwd": cwd,
        "capabilities": capabilities::process(&capabilities),
        "oomScoreAdj": record.host_config.oom_score_adj,
    });
    let rlimits = rlimits(&record.host_config)?;
    if !rlimits.is_empty() {
        process["rlimits"] = rlimits.into();
    }
    if security.no_new_privileges {
        process["noNewPrivileges"] = true.into();
    }
    Ok(process)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_keep_their_place_and_can_be_unset() {
        let mut environment: Vec<String> = ["PATH=/bin", "HOSTNAME=h", "A=1"].map(String::from).to_vec();
        let overrides: Vec<String> = ["A=2", "B=", "HOSTNAME", "C", "PATH=/x=y"].map(String::from).to_vec();
        replace_or_append(&mut environment, &overrides);
        assert_eq!(environment, ["PATH=/x=y", "A=2", "B="]);
    }

    #[test]
    fn init_is_pointless_in_a_shared_process_namespace() {
        let config = super::super::test_data::config();
        let host = |pid: &str| HostConfig { init: Some(true), pid_mode: pid.into(), ..HostConfig::default() };
        assert!(wants_init(&host(""), &config));
        assert!(!wants_init(&host("host"), &config));
        assert!(!wants_init(&host("container:abc"), &config));
        assert!(!wants_init(&HostConfig::default(), &config));
    }
}
