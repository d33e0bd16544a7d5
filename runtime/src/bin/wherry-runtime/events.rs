//! `events`: counters as runc shows them.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Map, Value, json};
use wherry_runtime::{BlockIoEntry, Container, Stats};

use crate::commands::print;
use crate::failure::Failure;
use crate::store::Store;

/// Shows the counters once, or every so often until the container ends; and when memory ran out.
pub(crate) fn events(store: &Store, id: &str, once: bool, interval_ms: i64) -> Result<(), Failure> {
    if interval_ms <= 0 {
        return Err(Failure::Arguments("duration interval must be greater than 0"));
    }
    let container = store.open()?.1.ok_or_else(|| Failure::EventsStopped(id.to_owned()))?;
    if once {
        return show(id, "stats", &to_json(&container.stats()?));
    }
    let oom = container.oom_watch();
    let interval = Timespec { tv_sec: interval_ms / 1000, tv_nsec: interval_ms % 1000 * 1_000_000 };
    loop {
        let mut sources = vec![PollFd::from_borrowed_fd(container.pidfd(), PollFlags::IN)];
        sources.extend(oom.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
        let ready = poll(&mut sources, Some(&interval));
        match ready.map_err(Failure::file("wait for", "events"))? {
            0 => show(id, "stats", &to_json(&container.stats()?))?,
            _ if ended(&container) => return Ok(()),
            _ => {
                let mut drained = [0; 4096];
                if let Some(fd) = &oom {
                    let _ = rustix::io::read(fd, &mut drained);
                }
                show(id, "oom", &Value::Null)?;
            }
        }
    }
}

fn ended(container: &Container) -> bool {
    container.status() == wherry_runtime::Status::Stopped
}

fn show(id: &str, kind: &str, data: &Value) -> Result<(), Failure> {
    let mut event = json!({ "type": kind, "id": id });
    if !data.is_null() {
        event["data"] = data.clone();
    }
    print(&format!("{event}\n"))
}

fn to_json(stats: &Stats) -> Value {
    let cpu = &stats.cpu;
    let memory = &stats.memory;
    let amount = |limit: u64, usage: u64, max: u64, failures: u64| {
        without_zeros(json!({ "limit": limit, "usage": usage, "max": max }), Some(("failcnt", failures)))
    };
    let throttling = json!({
        "periods": cpu.throttling.periods,
        "throttledPeriods": cpu.throttling.throttled_periods,
        "throttledTime": cpu.throttling.throttled_ns,
    });
    let hugetlb: Map<String, Value> = stats
        .hugetlb
        .iter()
        .map(|(size, h)| {
            (size.clone(), json!({ "usage": h.usage_bytes, "max": h.max_usage_bytes, "failcnt": h.failures }))
        })
        .collect();
    json!({
        "cpu": {
            "usage": {
                "total": cpu.usage_ns, "percpu": cpu.per_cpu_ns, "kernel": cpu.system_ns, "user": cpu.user_ns,
            },
            "throttling": without_zeros(throttling, None),
        },
        "memory": {
            "usage": amount(memory.limit_bytes, memory.usage_bytes, memory.max_usage_bytes, memory.failures),
            "swap": amount(memory.swap_limit_bytes, memory.swap_usage_bytes, 0, 0),
            "kernel": amount(0, memory.kernel_usage_bytes, 0, 0),
            "kernelTCP": amount(0, memory.kernel_tcp_usage_bytes, 0, 0),
            "raw": memory.detail,
        },
        "pids": without_zeros(json!({ "current": stats.pids.current, "limit": stats.pids.limit.unwrap_or(0) }), None),
        "blkio": block_io(stats),
        "hugetlb": hugetlb,
        "intel_rdt": {},
        "network_interfaces": null,
    })
}

/// runc leaves out numbers that are 0, but for some.
fn without_zeros(mut object: Value, always: Option<(&str, u64)>) -> Value {
    if let Some(object) = object.as_object_mut() {
        object.retain(|_, value| value.as_u64() != Some(0));
        if let Some((key, value)) = always {
            object.insert(key.to_owned(), value.into());
        }
    }
    object
}

fn block_io(stats: &Stats) -> Value {
    let io = &stats.block_io;
    let lists = [
        ("ioServiceBytesRecursive", &io.service_bytes),
        ("ioServicedRecursive", &io.serviced),
        ("ioQueueRecursive", &io.queued),
        ("ioServiceTimeRecursive", &io.service_time),
        ("ioWaitTimeRecursive", &io.wait_time),
        ("ioMergedRecursive", &io.merged),
        ("ioTimeRecursive", &io.time),
        ("sectorsRecursive", &io.sectors),
    ];
    let entry = |e: &BlockIoEntry| {
        without_zeros(
            json!({ "major": e.major, "minor": e.minor, "op": e.operation, "value": e.value }),
            None,
        )
    };
    let lists = lists.into_iter().filter(|(_, list)| !list.is_empty());
    Value::Object(lists.map(|(name, list)| (name.to_owned(), list.iter().map(entry).collect())).collect())
}
