//! What an idle monitor costs.

use std::time::Duration;

use wherry_monitor_api::Request;

use crate::engine::{Host, attached, until};

fn pss_kib(pid: i32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn an_idle_monitor_costs_less_than_half_a_mebibyte() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    engine.start(host.shell("seq 100000; sleep 1000"));
    let _client = engine.attach(attached());
    until("it has written", || host.log_text().ends_with("100000\n"));
    engine.event();
    let mut smallest = u64::MAX;
    until("memory is given back", || {
        std::thread::sleep(Duration::from_millis(100));
        smallest = smallest.min(pss_kib(host.monitor_pid()));
        // The limit for everything that is kept for a container is 1 MiB; a build without optimisation is larger.
        smallest < if cfg!(debug_assertions) { 1024 } else { 512 }
    });

    engine.ok(Request::Kill { signal: 9, manual: true });
    engine.exited();
    engine.release(&mut host);
}
