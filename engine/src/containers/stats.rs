//! `GET /containers/{id}/stats`: the monitor's samples in Docker's form, one a second.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper::StatusCode;
use serde_json::{Map, Value, json};
use wherry_monitor_api::{Reply as Answer, Request as Ask};

use super::lifecycle;
use super::table::Container;
use crate::clock::{now_ns, rfc3339};
use crate::error::Error;
use crate::server::{ApiVersion, Reply, Request, response};

const PERIOD: Duration = Duration::from_secs(1);
/// The kernel counts processor time for user space in hundredths of a second.
const TICK_NS: u64 = 10_000_000;

/// What kernels count of memory in cgroups of version 1, and dockerd does not tell.
const UNTOLD: [&str; 5] =
    ["shmem", "swap", "swapcached", "workingset_refault_anon", "workingset_refault_file"];

/// One look at the counters.
struct Sample {
    at_ns: i64,
    /// `None` for a container that does not run.
    shown: Option<Value>,
}

/// Sends samples: one (`stream=0`; compared with one a second before unless `one-shot`), or one a second until
/// the client goes.
pub(super) async fn stats(container: Arc<Container>, request: Request) -> Result<Reply, Error> {
    let streams = request.query.flag_or("stream", true);
    let mut previous = Sample { at_ns: 0, shown: None };
    let one_shot = request.version >= ApiVersion(1, 41) && request.query.flag("one-shot");
    if streams && one_shot {
        return Err(Error::InvalidParameter("cannot have stream=true and one-shot=true".into()));
    }
    if !streams {
        let runs = container.status().state.is_running();
        if runs && !one_shot {
            previous = take(&container).await;
            tokio::time::sleep(PERIOD).await;
        }
        let sample = take(&container).await;
        let mut shown = document(&container, &sample, &previous);
        if let Some(fields) = shown.as_object_mut().filter(|_| runs && one_shot) {
            // As dockerd has it.
            fields.retain(|name, _| !matches!(name.as_str(), "name" | "id"));
        }
        return Ok(response::json(StatusCode::OK, &shown).into());
    }
    let (sender, response) = response::stream("application/json");
    tokio::spawn(async move {
        loop {
            let sample = take(&container).await;
            let mut text = document(&container, &sample, &previous).to_string();
            text.push('\n');
            if sender.send(Bytes::from(text)).await.is_err() {
                break;
            }
            previous = sample;
            tokio::select! {
                () = tokio::time::sleep(PERIOD) => {}
                () = sender.closed() => break,
            }
        }
    });
    Ok(response.into())
}

async fn take(container: &Container) -> Sample {
    let counters = match lifecycle::monitor(container).await {
        Some(monitor) if container.status().state.pid() != 0 => match monitor.call(Ask::Stats, &[]).await {
            Ok(Answer::Stats(counters)) => Some(counters),
            // It has just ended.
            _ => None,
        },
        _ => None,
    };
    let shown = counters.map(|counters| show(&counters, container.status().state.pid()));
    Sample { at_ns: now_ns(), shown }
}

/// The parts of the document that a sample makes.
fn show(counters: &Value, pid: i32) -> Value {
    let cpu = &counters["cpu"];
    let mut usage = json!({ "total_usage": cpu["usage_ns"] });
    if cpu["per_cpu_ns"].as_array().is_some_and(|list| !list.is_empty()) {
        usage["percpu_usage"] = cpu["per_cpu_ns"].clone();
    }
    usage["usage_in_kernelmode"] = cpu["system_ns"].clone();
    usage["usage_in_usermode"] = cpu["user_ns"].clone();
    let throttling = &cpu["throttling"];
    json!({
        "pids_stats": pids(&counters["pids"]),
        "blkio_stats": block_io(&counters["block_io"]),
        "cpu_stats": {
            "cpu_usage": usage,
            "system_cpu_usage": host_cpu_ns(),
            "online_cpus": std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            "throttling_data": {
                "periods": throttling["periods"], "throttled_periods": throttling["throttled_periods"],
                "throttled_time": throttling["throttled_ns"],
            },
        },
        "memory_stats": memory(&counters["memory"], counters["cgroup_version"] == 1),
        "networks": networks(pid),
    })
}

fn pids(counters: &Value) -> Value {
    let mut shown = json!({ "current": counters["current"] });
    if !counters["limit"].is_null() {
        shown["limit"] = counters["limit"].clone();
    }
    shown
}

fn block_io(counters: &Value) -> Value {
    let list = |name: &str| -> Option<Vec<Value>> {
        // Of a container that does not run there is nothing, not even an empty list.
        let entries = counters.as_object()?.get(name).and_then(Value::as_array).into_iter().flatten();
        let show = |e: &Value| json!({ "major": e["major"], "minor": e["minor"], "op": e["operation"], "value": e["value"] });
        Some(entries.map(show).collect())
    };
    json!({
        "io_service_bytes_recursive": list("service_bytes"),
        "io_serviced_recursive": list("serviced"),
        "io_queue_recursive": list("queued"),
        "io_service_time_recursive": list("service_time"),
        "io_wait_time_recursive": list("wait_time"),
        "io_merged_recursive": list("merged"),
        "io_time_recursive": list("time"),
        "sectors_recursive": list("sectors"),
    })
}

fn memory(counters: &Value, v1: bool) -> Value {
    let host = host_memory_bytes();
    let limit = counters["limit_bytes"].as_u64().unwrap_or(u64::MAX);
    let mut shown = json!({ "usage": counters["usage_bytes"] });
    if v1 {
        shown["max_usage"] = counters["max_usage_bytes"].clone();
    }
    let mut detail = counters["detail"].clone();
    if let Some(fields) = detail.as_object_mut().filter(|_| v1) {
        fields.retain(|name, _| !UNTOLD.contains(&name.strip_prefix("total_").unwrap_or(name)));
    }
    shown["stats"] = detail;
    if let Some(failures) = counters["failures"].as_u64().filter(|n| *n > 0) {
        shown["failcnt"] = json!(failures);
    }
    shown["limit"] = json!(if host == 0 { limit } else { limit.min(host) });
    shown
}

/// The interfaces in the namespace of `pid`, without loopback.
fn networks(pid: i32) -> Value {
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
    let mut shown = Map::new();
    for line in table.lines().skip(2) {
        let Some((name, counters)) = line.split_once(':') else { continue };
        let fields: Vec<u64> = counters.split_whitespace().filter_map(|field| field.parse().ok()).collect();
        let field = |index: usize| fields.get(index).copied().unwrap_or(0);
        if name.trim() != "lo" {
            let row = json!({
                "rx_bytes": field(0), "rx_packets": field(1), "rx_errors": field(2), "rx_dropped": field(3),
                "tx_bytes": field(8), "tx_packets": field(9), "tx_errors": field(10), "tx_dropped": field(11),
            });
            shown.insert(name.trim().to_owned(), row);
        }
    }
    Value::Object(shown)
}

/// Processor time of the whole host: user, nice, system, idle, iowait, irq, softirq.
fn host_cpu_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let first = stat.lines().next().unwrap_or("");
    let ticks = first.split_whitespace().skip(1).take(7).filter_map(|field| field.parse::<u64>().ok());
    ticks.sum::<u64>() * TICK_NS
}

fn host_memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    u64::from(info.mem_unit).saturating_mul(info.totalram)
}

/// The whole answer.
fn document(container: &Container, sample: &Sample, previous: &Sample) -> Value {
    let zero_cpu = json!({
        "cpu_usage": { "total_usage": 0, "usage_in_kernelmode": 0, "usage_in_usermode": 0 },
        "throttling_data": { "periods": 0, "throttled_periods": 0, "throttled_time": 0 },
    });
    let of = |sample: &Sample, part: &str| sample.shown.as_ref().map(|shown| shown[part].clone());
    let mut shown = json!({
        "name": format!("/{}", container.record().name),
        "id": container.id,
        "read": rfc3339(if sample.shown.is_some() { sample.at_ns } else { 0 }),
        "preread": rfc3339(if previous.shown.is_some() { previous.at_ns } else { 0 }),
        "pids_stats": of(sample, "pids_stats").unwrap_or_else(|| json!({})),
        "blkio_stats": of(sample, "blkio_stats").unwrap_or_else(|| block_io(&Value::Null)),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": of(sample, "cpu_stats").unwrap_or_else(|| zero_cpu.clone()),
        "precpu_stats": of(previous, "cpu_stats").unwrap_or(zero_cpu),
        "memory_stats": of(sample, "memory_stats").unwrap_or_else(|| json!({})),
    });
    if let Some(networks) =
        of(sample, "networks").filter(|n| n.as_object().is_some_and(|map| !map.is_empty()))
    {
        shown["networks"] = networks;
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_shown_as_docker_does() {
        let counters = json!({
            "cgroup_version": 1,
            "cpu": { "usage_ns": 5, "user_ns": 3, "system_ns": 2, "per_cpu_ns": [4, 1],
                     "throttling": { "periods": 1, "throttled_periods": 0, "throttled_ns": 0 } },
            "memory": { "usage_bytes": 7, "max_usage_bytes": 9, "limit_bytes": 100, "failures": 2, "detail": { "rss": 1, "total_swap": 2 } },
            "pids": { "current": 1, "limit": 50 },
            "block_io": { "serviced": [{ "major": 8, "minor": 0, "operation": "Read", "value": 3 }] },
        });
        let shown = show(&counters, -1);
        assert_eq!(shown["cpu_stats"]["cpu_usage"]["percpu_usage"], json!([4, 1]));
        assert_eq!(shown["pids_stats"], json!({ "current": 1, "limit": 50 }));
        let memory = json!({ "usage": 7, "max_usage": 9, "stats": { "rss": 1 }, "failcnt": 2, "limit": 100 });
        assert_eq!(shown["memory_stats"], memory);
        let served = json!([{ "major": 8, "minor": 0, "op": "Read", "value": 3 }]);
        assert_eq!(shown["blkio_stats"]["io_serviced_recursive"], served);
        assert_eq!(shown["blkio_stats"]["io_merged_recursive"], json!([]));
        assert_eq!(block_io(&Value::Null)["io_merged_recursive"], Value::Null, "of one that does not run");
    }
}
