//! `GET /info`.

use std::path::Path;
use std::sync::Arc;

use hyper::StatusCode;
use serde_json::{Map, Value, json};
use wherry_netd::protocol::FirewallBackend;

use super::cgroup::Abilities;
use super::host;
use crate::config::{BUILD, Config};
use crate::engine::{Engine, blocking};
use crate::error::Error;
use crate::server::{ApiVersion, Reply, response};

pub(super) async fn info(engine: Arc<Engine>, version: ApiVersion) -> Result<Reply, Error> {
    let tasks = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let document = blocking(move || Ok(document(&engine, version, tasks))).await?;
    Ok(response::json(StatusCode::OK, &document).into())
}

fn document(engine: &Engine, version: ApiVersion, tasks: usize) -> Value {
    let config = engine.config();
    let abilities = Abilities::of(Path::new("/sys/fs/cgroup"), engine.cgroup_v2);
    let mut document = Map::new();
    let parts = [
        counts(engine),
        storage(&config),
        limits(&abilities),
        process(engine, &config, tasks),
        system(&config),
        runtimes(&config),
        firewall(engine, &config, version),
        devices(&config),
        json!({ "Warnings": warnings(&config, &abilities, engine.cgroup_v2) }),
    ];
    for part in parts {
        if let Value::Object(fields) = part {
            document.extend(fields);
        }
    }
    Value::Object(document)
}

fn counts(engine: &Engine) -> Value {
    let [all, running, paused, stopped] = engine.containers.counts();
    json!({
        "ID": engine.id,
        "Containers": all,
        "ContainersRunning": running,
        "ContainersPaused": paused,
        "ContainersStopped": stopped,
        "Images": engine.store.images().len(),
    })
}

fn storage(config: &Config) -> Value {
    json!({
        "Driver": "overlay2",
        "DriverStatus": [
            ["Backing Filesystem", host::file_system(&config.data_root)],
            ["Supports d_type", "true"],
            ["Using metacopy", "false"],
            ["Native Overlay Diff", "true"],
            ["userxattr", "false"],
        ],
        "Plugins": {
            "Volume": ["local"],
            "Network": ["bridge", "host", "null"],
            "Authorization": null,
            "Log": crate::containers::logging::DRIVERS,
        },
    })
}

fn limits(abilities: &Abilities) -> Value {
    json!({
        "MemoryLimit": abilities.memory,
        "SwapLimit": abilities.swap,
        "KernelMemoryTCP": abilities.kernel_memory_tcp,
        "CpuCfsPeriod": abilities.cpu_period,
        "CpuCfsQuota": abilities.cpu_quota,
        "CPUShares": abilities.cpu_shares,
        "CPUSet": abilities.cpu_set,
        "PidsLimit": abilities.pids,
        "IPv4Forwarding": host::sysctl_is_on("net/ipv4/ip_forward"),
    })
}

fn process(engine: &Engine, config: &Config, tasks: usize) -> Value {
    json!({
        "Debug": config.debug,
        "NFd": host::open_descriptors(),
        "OomKillDisable": !engine.cgroup_v2,
        "NGoroutines": tasks,
        "SystemTime": crate::clock::rfc3339(crate::clock::now_ns()),
        "LoggingDriver": config.log_driver,
        "CgroupDriver": if config.systemd_cgroup { "systemd" } else { "cgroupfs" },
        "CgroupVersion": if engine.cgroup_v2 { "2" } else { "1" },
        "NEventsListener": engine.events.listeners(),
    })
}

fn system(config: &Config) -> Value {
    let (name, version) = host::operating_system();
    let proxies = crate::images::registry::proxies(config);
    json!({
        "KernelVersion": host::kernel(),
        "OperatingSystem": name,
        "OSVersion": version,
        "OSType": "linux",
        "Architecture": host::machine(),
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": registries(config),
        "NCPU": host::processors(),
        "MemTotal": host::memory_bytes(),
        "GenericResources": null,
        "DockerRootDir": config.data_root,
        "HttpProxy": without_password(&proxies.http),
        "HttpsProxy": without_password(&proxies.https),
        "NoProxy": proxies.exceptions,
        "Name": host::name(),
        "Labels": config.labels,
        "ExperimentalBuild": config.experimental,
        "ServerVersion": crate::ENGINE_VERSION,
    })
}

fn registries(config: &Config) -> Value {
    let mirrors = Some(&config.registry_mirrors).filter(|mirrors| !mirrors.is_empty());
    let mut indexes = Map::new();
    let mut networks: Vec<&str> = Vec::new();
    let entries = config.insecure_registries.iter().map(String::as_str);
    for entry in entries.chain(["::1/128", "127.0.0.0/8"]) {
        let entry = entry.trim_start_matches("http://").trim_start_matches("https://");
        if entry.parse::<ipnetwork::IpNetwork>().is_ok() && entry.contains('/') {
            if !networks.contains(&entry) {
                networks.push(entry);
            }
            continue;
        }
        let index = json!({ "Mirrors": [], "Name": entry, "Official": false, "Secure": false });
        indexes.insert(entry.to_string(), index);
    }
    let hub = json!({ "Mirrors": mirrors.unwrap_or(&Vec::new()), "Name": "docker.io", "Official": true, "Secure": true });
    indexes.insert("docker.io".into(), hub);
    json!({ "IndexConfigs": indexes, "InsecureRegistryCIDRs": networks, "Mirrors": mirrors })
}

fn runtimes(config: &Config) -> Value {
    let runtime = json!({ "path": "wherry-runtime" });
    let mut named = json!({ "io.containerd.runc.v2": runtime, "runc": runtime });
    for (name, other) in &config.runtimes {
        named[name] = json!({});
        if other.shim.is_empty() {
            named[name]["path"] = json!(other.path);
        } else {
            named[name]["runtimeType"] = json!(other.shim);
        }
        if !other.args.is_empty() {
            named[name]["runtimeArgs"] = json!(other.args);
        }
    }
    json!({
        // The names by which clients ask for the default runtime; what runs is told by the path.
        "Runtimes": named,
        "DefaultRuntime": config.default_runtime,
        "Swarm": {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": false,
            "Error": "",
            "RemoteManagers": null,
        },
        "LiveRestoreEnabled": config.live_restore,
        "Isolation": "",
        "InitBinary": "docker-init",
        "ContainerdCommit": { "ID": "" },
        "RuncCommit": { "ID": BUILD },
        "InitCommit": { "ID": "" },
        "SecurityOptions": security_options(),
    })
}

/// Who writes the firewall's rules; clients before 1.49 are not told.
fn firewall(engine: &Engine, config: &Config, version: ApiVersion) -> Value {
    if !config.network.iptables || version < ApiVersion(1, 49) {
        return json!({});
    }
    let backend = match config.network.firewall {
        FirewallBackend::Iptables => "iptables",
        FirewallBackend::Nftables => "nftables",
    };
    // One that does not say is one that is not there.
    let Ok(Some(firewalld)) = engine.netd.client().firewalld() else {
        return json!({ "FirewallBackend": { "Driver": backend } });
    };
    let mut document = json!({ "Driver": format!("{backend}+firewalld") });
    if let Some(seconds) = firewalld.reloaded_s.and_then(|s| i64::try_from(s).ok()) {
        let at = wherry_rfc3339::trimmed(seconds.saturating_mul(1_000_000_000));
        document["Info"] = json!([["ReloadedAt", at]]);
    }
    json!({ "FirewallBackend": document })
}

fn devices(config: &Config) -> Value {
    let mut document = json!({ "CDISpecDirs": config.cdi_spec_dirs });
    let devices = crate::containers::spec::cdi::names(&config.cdi_spec_dirs);
    if !devices.is_empty() {
        document["DiscoveredDevices"] =
            devices.iter().map(|name| json!({ "Source": "cdi", "ID": name })).collect();
    }
    document
}

fn security_options() -> Vec<&'static str> {
    let mut options = vec!["name=seccomp,profile=builtin"];
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        options.push("name=cgroupns");
    }
    options
}

/// `null` when there is nothing to warn of.
fn warnings(config: &Config, abilities: &Abilities, cgroup_v2: bool) -> Option<Vec<String>> {
    let mut warnings: Vec<String> = abilities.warnings(cgroup_v2).into_iter().map(str::to_string).collect();
    if !host::sysctl_is_on("net/ipv4/ip_forward") {
        warnings.push("WARNING: IPv4 forwarding is disabled".into());
    }
    for address in config.hosts.iter().filter_map(|host| host.strip_prefix("tcp://")) {
        warnings.push(format!(
            "WARNING: API is accessible on http://{address} without encryption.\n         Access to the remote API is \
             equivalent to root access on the host. Refer\n         to the 'Docker daemon attack surface' section in \
             the documentation for\n         more information: https://docs.docker.com/go/attack-surface/"
        ));
    }
    Some(warnings).filter(|w| !w.is_empty())
}

/// A proxy's URL as it may be shown.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.into() };
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://xxxxx:xxxxx@{host}"),
        None => url.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxys_password_is_not_shown() {
        assert_eq!(without_password("http://u:p@h:1"), "http://xxxxx:xxxxx@h:1");
        assert_eq!(without_password("http://h:1"), "http://h:1");
    }
}
