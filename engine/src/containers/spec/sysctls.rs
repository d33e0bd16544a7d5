//! `linux.sysctl`: kernel parameters of the container's own namespaces.

use serde_json::{Map, Value};

use super::{Input, refused_by_runtime};
use crate::error::Error;
use crate::text::go_quote;

/// Parameters of the IPC namespace, besides those below `fs.mqueue`.
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// The user's, and what lets programs without privileges use ports below 1024 and ping.
///
/// # Errors
/// 500 in runc's words for those that would change the host.
pub(super) fn gather(input: &Input<'_>) -> Result<Map<String, Value>, Error> {
    let host = &input.record.host_config;
    let mut sysctls = Map::new();
    let own_network = host.network_mode != "host" && !host.network_mode.starts_with("container:");
    if own_network {
        sysctls.insert("net.ipv4.ip_unprivileged_port_start".into(), "0".into());
        sysctls.insert("net.ipv4.ping_group_range".into(), "0 2147483647".into());
    }
    if !input.record.config.domainname.is_empty() && host.uts_mode != "host" {
        sysctls.insert("kernel.domainname".into(), input.record.config.domainname.as_str().into());
    }
    for (name, value) in host.sysctls.iter().flatten() {
        check(name, own_network || input.netns.is_some(), host.ipc_mode != "host", host.uts_mode != "host")
            .map_err(|reason| refused_by_runtime(&format!("sysctl {} {reason}", go_quote(name))))?;
        sysctls.insert(name.clone(), value.as_str().into());
    }
    Ok(sysctls)
}

fn check(name: &str, own_network: bool, own_ipc: bool, own_uts: bool) -> Result<(), &'static str> {
    let dotted = name.replace('/', ".");
    if IPC.contains(&dotted.as_str()) || dotted.starts_with("fs.mqueue.") {
        return if own_ipc { Ok(()) } else { Err("is not allowed in the hosts ipc namespace") };
    }
    if dotted.starts_with("net.") {
        return if own_network { Ok(()) } else { Err("not allowed in host network namespace") };
    }
    match dotted.as_str() {
        "kernel.domainname" if own_uts => Ok(()),
        "kernel.domainname" => Err("is not allowed in host UTS namespace"),
        "kernel.hostname" => Err("is not allowed as it conflicts with the OCI \"hostname\" field"),
        _ => Err("is not in a separate kernel namespace"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_containers_own_namespaces_can_be_changed() {
        for name in
            ["net.core.somaxconn", "net/core/somaxconn", "kernel.sem", "fs.mqueue.x", "kernel.domainname"]
        {
            assert_eq!(check(name, true, true, true), Ok(()), "{name}");
            assert!(check(name, false, false, false).is_err(), "{name}");
        }
        for name in ["foo", "", "kernel.panic", "kernel.hostname", "netx", "vm.swappiness", "../x"] {
            assert!(check(name, true, true, true).is_err(), "{name}");
        }
    }
}
