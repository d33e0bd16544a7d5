//! What a file that is not there means: which field of the specification asked for it, and what the host lacks.

use std::path::Path;

use super::file::exists;
use crate::Error;

/// Files whose fields have other names, by the file's name or what begins it.
const FIELDS: [(&str, &str); 31] = [
    ("memory.limit_in_bytes", "memory.limit"),
    ("memory.max", "memory.limit"),
    ("memory.memsw.limit_in_bytes", "memory.swap"),
    ("memory.swap.max", "memory.swap"),
    ("memory.soft_limit_in_bytes", "memory.reservation"),
    ("memory.low", "memory.reservation"),
    ("memory.kmem.tcp", "memory.kernelTCP"),
    ("memory.swappiness", "memory.swappiness"),
    ("memory.oom_control", "memory.disableOOMKiller"),
    ("memory.use_hierarchy", "memory.useHierarchy"),
    ("cpu.shares", "cpu.shares"),
    ("cpu.weight", "cpu.shares"),
    ("cpu.cfs_quota_us", "cpu.quota"),
    ("cpu.cfs_period_us", "cpu.period"),
    ("cpu.max.burst", "cpu.burst"),
    ("cpu.max", "cpu.quota"),
    ("cpu.cfs_burst_us", "cpu.burst"),
    ("cpu.idle", "cpu.idle"),
    ("cpu.rt_period_us", "cpu.realtimePeriod"),
    ("cpu.rt_runtime_us", "cpu.realtimeRuntime"),
    ("cpuset.cpus", "cpu.cpus"),
    ("cpuset.mems", "cpu.mems"),
    ("pids.", "pids.limit"),
    ("blkio.throttle", "blockIO throttling"),
    ("io.max", "blockIO throttling"),
    ("blkio.leaf_weight", "blockIO.leafWeight"),
    ("blkio.", "blockIO.weight"),
    ("io.", "blockIO.weight"),
    ("hugetlb.", "hugepageLimits"),
    ("net_cls.", "network.classID"),
    ("net_prio.", "network.priorities"),
];

/// The error of a file that is not there, in a folder that is.
pub(super) fn error(folder: &Path, name: &str) -> Error {
    let controller = name.split('.').next().unwrap_or(name);
    let field = FIELDS.iter().find(|(file, _)| name.starts_with(file)).map_or(controller, |(_, field)| field);
    let v2 = exists(folder, "cgroup.controllers");
    let has = |file: &str| {
        super::file::read(folder, file).is_some_and(|list| list.split_whitespace().any(|c| c == controller))
    };
    let reason = if v2 && !has("cgroup.controllers") {
        format!("the cgroup controller {controller} is not available in {}", folder.display())
    } else {
        format!("the kernel has no {name} in {}", folder.display())
    };
    Error::Limit { field: format!("linux.resources.{field}"), reason }
}

/// The error of a v1 controller that is mounted nowhere.
pub(super) fn controller(field: &str, controller: &str) -> Error {
    Error::Limit {
        field: format!("linux.resources.{field}"),
        reason: format!("the cgroup controller {controller} is not available"),
    }
}

/// A limit that version 2 does not know.
pub(super) fn only_v1(field: &str) -> Error {
    Error::Limit {
        field: format!("linux.resources.{field}"),
        reason: "cgroup version 2 has no such limit".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_name_their_fields() {
        let check = |name: &str, expect: &str| {
            assert!(error(Path::new("/nowhere"), name).to_string().starts_with(expect), "{name}");
        };
        check("memory.max", "linux.resources.memory.limit: ");
        check("cpu.max.burst", "linux.resources.cpu.burst: ");
        check("hugetlb.2MB.max", "linux.resources.hugepageLimits: ");
        check("rdma.max", "linux.resources.rdma: ");
        check("blkio.bfq.weight_device", "linux.resources.blockIO.weight: ");
    }
}
