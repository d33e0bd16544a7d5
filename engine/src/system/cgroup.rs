//! Which limits the host's cgroups can set.

use std::path::Path;

/// What containers can be limited in.
#[derive(Debug, Default)]
pub(super) struct Abilities {
    pub(super) memory: bool,
    pub(super) swap: bool,
    pub(super) kernel_memory_tcp: bool,
    pub(super) cpu_period: bool,
    pub(super) cpu_quota: bool,
    pub(super) cpu_shares: bool,
    pub(super) cpu_set: bool,
    pub(super) pids: bool,
    pub(super) oom_kill_disable: bool,
}

impl Abilities {
    /// Looks below `root` (`/sys/fs/cgroup`), of version 2 or 1.
    pub(super) fn of(root: &Path, version_2: bool) -> Self {
        if version_2 { Self::of_v2(root) } else { Self::of_v1(root) }
    }

    fn of_v1(root: &Path) -> Self {
        let has = |file: &str| root.join(file).exists();
        Self {
            memory: has("memory/memory.limit_in_bytes"),
            swap: has("memory/memory.memsw.limit_in_bytes"),
            kernel_memory_tcp: has("memory/memory.kmem.tcp.limit_in_bytes"),
            cpu_period: has("cpu/cpu.cfs_period_us"),
            cpu_quota: has("cpu/cpu.cfs_quota_us"),
            cpu_shares: has("cpu/cpu.shares"),
            cpu_set: has("cpuset/cpuset.cpus"),
            pids: has("pids"),
            oom_kill_disable: has("memory/memory.oom_control"),
        }
    }

    fn of_v2(root: &Path) -> Self {
        let controllers = std::fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
        let has = |name: &str| controllers.split_whitespace().any(|c| c == name);
        let (memory, cpu) = (has("memory"), has("cpu"));
        Self {
            memory,
            // The root has no such file; a kernel without swap accounting has it nowhere.
            swap: memory && Path::new("/proc/swaps").exists(),
            kernel_memory_tcp: false,
            cpu_period: cpu,
            cpu_quota: cpu,
            cpu_shares: cpu,
            cpu_set: has("cpuset"),
            pids: has("pids"),
            oom_kill_disable: false,
        }
    }

    /// dockerd's warnings about what is missing.
    pub(super) fn warnings(&self, version_2: bool) -> Vec<&'static str> {
        let all = [
            (self.memory, "WARNING: No memory limit support"),
            (self.swap, "WARNING: No swap limit support"),
            (version_2 || self.oom_kill_disable, "WARNING: No oom kill disable support"),
            (self.cpu_quota, "WARNING: No cpu cfs quota support"),
            (self.cpu_period, "WARNING: No cpu cfs period support"),
            (self.cpu_shares, "WARNING: No cpu shares support"),
            (self.cpu_set, "WARNING: No cpuset support"),
        ];
        all.into_iter().filter(|(present, _)| !present).map(|(_, warning)| warning).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_versions_are_read() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Abilities::of(root.path(), false).warnings(false).len(), 7);
        std::fs::create_dir_all(root.path().join("memory")).unwrap();
        std::fs::write(root.path().join("memory/memory.limit_in_bytes"), "").unwrap();
        assert!(Abilities::of(root.path(), false).memory);
        std::fs::write(root.path().join("cgroup.controllers"), "cpuset cpu io memory pids").unwrap();
        let v2 = Abilities::of(root.path(), true);
        assert!(v2.memory && v2.cpu_quota && v2.cpu_set && v2.pids && v2.warnings(true).is_empty());
    }
}
