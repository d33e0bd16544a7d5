//! What the daemon fills into `HostConfig`, as inspect then shows it.

use serde_json::{Value, json};

use super::super::config::{HostConfig, Ulimit};
use super::super::spec;
use crate::config::Config;
use crate::error::Error;
use crate::server::ApiVersion;

/// Fills in defaults.
pub(in crate::containers) fn fill(
    host: &mut HostConfig,
    daemon: &Config,
    cgroup_v2: bool,
    version: ApiVersion,
) {
    if host.memory > 0 && host.memory_swap == 0 {
        host.memory_swap = host.memory.saturating_mul(2);
    }
    if host.shm_size == 0 {
        host.shm_size = i64::try_from(daemon.default_shm_bytes).unwrap_or(i64::MAX);
    }
    let or = |field: &mut String, default: &str| {
        if field.is_empty() {
            default.clone_into(field);
        }
    };
    // Of old, one container could join any other's.
    or(&mut host.ipc_mode, if version < ApiVersion(1, 40) { "shareable" } else { "private" });
    let own_cgroup = cgroup_v2 && !host.privileged && version >= ApiVersion(1, 41);
    or(&mut host.cgroupns_mode, if own_cgroup { "private" } else { "host" });
    or(&mut host.runtime, &daemon.default_runtime);
    or(&mut host.restart_policy.name, "no");
    let disables_labels = host.privileged || host.ipc_mode == "host" || host.pid_mode == "host";
    let labelled = host.security_opt.iter().flatten().any(|option| option.split('=').next() == Some("label"));
    if disables_labels && !labelled {
        host.security_opt.get_or_insert_default().push("label=disable".into());
    }
    if !cgroup_v2 {
        host.oom_kill_disable.get_or_insert(false);
    }
    if version >= ApiVersion(1, 42) {
        // Since then it is ignored.
        host.kernel_memory = 0;
    }
    for request in host.device_requests.iter_mut().flatten() {
        *request = whole_device_request(request);
    }
    host.pids_limit = host.pids_limit.filter(|limit| *limit > 0);
    // By -1 clients say that they say nothing.
    host.memory_swappiness = host.memory_swappiness.filter(|swappiness| *swappiness != -1);
    fill_paths(host);
    fill_log(host, daemon);
    fill_ulimits(host, daemon);
}

/// A device request with all of its fields, as Go writes it.
fn whole_device_request(request: &Value) -> Value {
    let or = |name: &str, default: Value| request.get(name).cloned().unwrap_or(default);
    json!({
        "Driver": or("Driver", json!("")),
        "Count": or("Count", json!(0)),
        "DeviceIDs": or("DeviceIDs", Value::Null),
        "Capabilities": or("Capabilities", Value::Null),
        "Options": or("Options", Value::Null),
    })
}

fn fill_paths(host: &mut HostConfig) {
    if host.privileged {
        return;
    }
    let strings = |paths: &[&str]| paths.iter().map(ToString::to_string).collect();
    host.masked_paths.get_or_insert_with(|| strings(&spec::MASKED_PATHS));
    host.readonly_paths.get_or_insert_with(|| strings(&spec::READONLY_PATHS));
}

fn fill_log(host: &mut HostConfig, daemon: &Config) {
    let log = &mut host.log_config;
    if log.driver.is_empty() {
        log.driver.clone_from(&daemon.log_driver);
    }
    if log.driver == daemon.log_driver {
        for (option, value) in &daemon.log_opts {
            log.config.entry(option.clone()).or_insert_with(|| value.clone());
        }
    }
}

fn fill_ulimits(host: &mut HostConfig, daemon: &Config) {
    for (name, (soft, hard)) in &daemon.default_ulimits {
        let known = host.ulimits.iter().flatten().any(|limit| limit.name == *name);
        if !known {
            let limit = Ulimit { name: name.clone(), soft: *soft, hard: *hard };
            host.ulimits.get_or_insert_default().push(limit);
        }
    }
}

/// Checks what dockerd finds out only while it makes the layer or reads links.
///
/// # Errors
/// With dockerd's texts and statuses.
pub(super) fn check_late(host: &HostConfig) -> Result<(), Error> {
    if let Some((option, _)) = host.storage_opt.iter().flatten().next() {
        return Err(Error::server(match option.as_str() {
            "size" => {
                "--storage-opt is supported only for overlay over xfs with 'pquota' mount option".to_owned()
            }
            other => format!("Unknown option {other}"),
        }));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::super::spec::test_data::config;
    use super::*;

    #[test]
    fn a_bare_request_gets_dockerds_defaults() {
        let mut host = HostConfig { memory: 20_000_000, pids_limit: Some(-1), ..HostConfig::default() };
        fill(&mut host, &config(), false, ApiVersion::MAX);
        assert_eq!((host.memory_swap, host.shm_size, host.pids_limit), (40_000_000, 67_108_864, None));
        assert_eq!((host.ipc_mode.as_str(), host.cgroupns_mode.as_str()), ("private", "host"));
        assert_eq!((host.oom_kill_disable, host.security_opt), (Some(false), None));
        assert_eq!(host.log_config.driver, "json-file");
        assert_eq!(host.masked_paths.map(|p| p.len()), Some(12));
        let mut unified = HostConfig::default();
        fill(&mut unified, &config(), true, ApiVersion::MAX);
        assert_eq!((unified.cgroupns_mode.as_str(), unified.oom_kill_disable), ("private", None));
    }

    #[test]
    fn privileged_containers_see_everything() {
        let mut host = HostConfig { privileged: true, ..HostConfig::default() };
        fill(&mut host, &config(), true, ApiVersion::MAX);
        assert_eq!((host.masked_paths, host.readonly_paths), (None, None));
        assert_eq!(host.security_opt, Some(vec!["label=disable".into()]));
        assert_eq!(host.cgroupns_mode, "host");
    }

    #[test]
    fn the_daemons_limits_and_log_options_are_added() {
        let mut daemon = config();
        daemon.default_ulimits = [("nofile".to_owned(), (1, 2)), ("core".to_owned(), (0, 0))].into();
        daemon.log_opts =
            [("max-size".to_owned(), "1m".to_owned()), ("max-file".to_owned(), "3".to_owned())].into();
        let mut host = HostConfig {
            ulimits: Some(vec![Ulimit { name: "core".into(), soft: 5, hard: 5 }]),
            ..HostConfig::default()
        };
        host.log_config.config.insert("max-file".into(), "9".into());
        fill(&mut host, &daemon, false, ApiVersion::MAX);
        let limits: Vec<_> = host.ulimits.iter().flatten().map(|l| (l.name.as_str(), l.soft)).collect();
        assert_eq!(limits, [("core", 5), ("nofile", 1)]);
        assert_eq!(host.log_config.config["max-size"], "1m");
        assert_eq!(host.log_config.config["max-file"], "9");
    }
}
