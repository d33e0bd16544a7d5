//! netd's memory with many networks and containers.

use serde_json::{Value, json};

use crate::contestant::Contestant;

const KIB_PER_MIB: f64 = 1024.0;

/// MiB that netd keeps resident (without its standby) with so many networks and containers, which are removed again.
pub(crate) fn memory_mib(contestant: &mut Contestant, networks: usize, containers: usize) -> f64 {
    for i in 0..networks {
        let subnet = format!("10.{}.{}.0/24", 100 + i / 200, i % 200);
        let body = json!({"Name": format!("crowd{i}"), "IPAM": {"Config": [{"Subnet": subnet}]}});
        contestant.request("POST", "/networks/create", &body);
    }
    let ids: Vec<String> = (0..containers)
        .map(|i| {
            let mode = format!("crowd{}", i % networks);
            let body =
                json!({"Image": "busybox", "Cmd": ["sleep", "36000"], "HostConfig": {"NetworkMode": mode}});
            let answer = contestant.request("POST", "/containers/create", &body);
            let id = answer["Id"].as_str().expect("an id").to_owned();
            contestant.request("POST", &format!("/containers/{id}/start"), &Value::Null);
            id
        })
        .collect();
    let resident = contestant.host.servants().into_iter().filter_map(|(pid, line)| {
        let program = line.split(' ').next().unwrap_or_default();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let rss = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
        let kib: f64 = rss.split_whitespace().next()?.parse().ok()?;
        program.ends_with("wherry-netd").then_some(kib)
    });
    // The standby is the smaller one.
    let kib = resident.fold(f64::NAN, f64::max);
    for id in ids {
        contestant.request("DELETE", &format!("/containers/{id}?force=1"), &Value::Null);
    }
    for i in 0..networks {
        contestant.request("DELETE", &format!("/networks/crowd{i}"), &Value::Null);
    }
    kib / KIB_PER_MIB
}
