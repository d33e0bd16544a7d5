//! A sample of a cgroup's counters, in one shape for both versions of cgroups.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A sample of a container's counters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// 1 or 2: which kind of cgroup the numbers come from.
    pub cgroup_version: u8,
    /// Processor time.
    pub cpu: Cpu,
    /// Memory.
    pub memory: Memory,
    /// Number of tasks.
    pub pids: Pids,
    /// Block devices.
    pub block_io: BlockIo,
    /// Huge pages, by page size (`2MB`).
    pub hugetlb: BTreeMap<String, Hugetlb>,
}

/// Processor time, in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cpu {
    /// All of it.
    pub usage_ns: u64,
    /// In user mode.
    pub user_ns: u64,
    /// In the kernel.
    pub system_ns: u64,
    /// By processor; empty with cgroup v2.
    pub per_cpu_ns: Vec<u64>,
    /// The effect of a quota.
    pub throttling: Throttling,
    /// Stalls (cgroup v2 with PSI).
    pub pressure: Option<Pressure>,
}

/// How often a quota was used up.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Throttling {
    /// Periods with demand.
    pub periods: u64,
    /// Those in which the quota was used up.
    pub throttled_periods: u64,
    /// How long tasks waited for the next period.
    pub throttled_ns: u64,
}

/// Total stall times in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pressure {
    /// Some task was stalled.
    pub some_us: u64,
    /// All tasks were.
    pub full_us: u64,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Used now, page cache included.
    pub usage_bytes: u64,
    /// The most ever used, if the kernel tells.
    pub max_usage_bytes: u64,
    /// The limit; `u64::MAX` when there is none (v1 tells a large number of its own).
    pub limit_bytes: u64,
    /// How often the limit was hit.
    pub failures: u64,
    /// Swap used; with v1 memory and swap together.
    pub swap_usage_bytes: u64,
    /// The limit of `swap_usage_bytes`.
    pub swap_limit_bytes: u64,
    /// Kernel memory used (v1).
    pub kernel_usage_bytes: u64,
    /// Buffers of TCP (v1).
    pub kernel_tcp_usage_bytes: u64,
    /// All of `memory.stat`.
    pub detail: BTreeMap<String, u64>,
    /// Stalls (cgroup v2 with PSI).
    pub pressure: Option<Pressure>,
}

/// Number of tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pids {
    /// Now.
    pub current: u64,
    /// The limit; `None` without one.
    pub limit: Option<u64>,
}

/// Block devices. The names are those of cgroup v1; v2 fills the first two.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlockIo {
    /// Bytes.
    pub service_bytes: Vec<BlockIoEntry>,
    /// Operations.
    pub serviced: Vec<BlockIoEntry>,
    /// Operations that wait.
    pub queued: Vec<BlockIoEntry>,
    /// Nanoseconds of service.
    pub service_time: Vec<BlockIoEntry>,
    /// Nanoseconds of waiting.
    pub wait_time: Vec<BlockIoEntry>,
    /// Merged operations.
    pub merged: Vec<BlockIoEntry>,
    /// Milliseconds of device time.
    pub time: Vec<BlockIoEntry>,
    /// Sectors.
    pub sectors: Vec<BlockIoEntry>,
}

/// One counter of one device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockIoEntry {
    /// The device's major number.
    pub major: u64,
    /// The device's minor number.
    pub minor: u64,
    /// `Read`, `Write`, `Sync`, `Async`, `Discard`, `Total`; empty where the counter has no operation.
    pub operation: String,
    /// The counter.
    pub value: u64,
}

/// Huge pages of one size, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hugetlb {
    /// Used now.
    pub usage_bytes: u64,
    /// The most ever used.
    pub max_usage_bytes: u64,
    /// How often the limit was hit.
    pub failures: u64,
}
