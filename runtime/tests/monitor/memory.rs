//! What an idle monitor costs.

use std::time::Duration;

use wherry_monitor_api::Request;

use crate::engine::{Host, attached, until};

/// What each further monitor costs: its own pages. The program's are shared by all of them, and count
/// in full for the first one only when it is optimised: otherwise they tell of the compiler.
fn kib(pid: i32) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let field = if cfg!(debug_assertions) { "Pss_Anon:" } else { "Pss:" };
    let line = rollup.lines().find(|line| line.starts_with(field)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn an_idle_monitor_is_small() {
    let mut host = Host::new();
    let mut engine = host.monitor();
    engine.start(host.shell("seq 100000; sleep 1000"));
    until("it has written", || host.log_text().ends_with("100000\n"));
    let _client = engine.attach(attached());
    engine.event();
    // The limit for everything that is kept for a container, network included, is 1 MiB.
    until("it costs less than 640 KiB", || {
        std::thread::sleep(Duration::from_millis(100));
        kib(host.monitor_pid()) < 640
    });
    engine.ok(Request::Kill { signal: 9, manual: true });
    engine.exited();
    engine.release(&mut host);
}
