//! Memory of processes, by the name of their program.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use wherry_tests::Host;

/// How often it is looked at while something goes on.
const SAMPLE_EVERY: Duration = Duration::from_millis(5);

/// Sums of some processes, in KiB.
#[derive(Debug, Clone, Copy, Default)]
pub struct Use {
    /// How many processes.
    pub processes: usize,
    /// Resident.
    pub rss_kib: u64,
    /// What is shared counted in parts.
    pub pss_kib: u64,
}

/// What an engine's processes use, by program.
#[derive(Debug, Clone, Default)]
pub struct Memory(pub BTreeMap<String, Use>);

impl Memory {
    /// Reads it for these processes (pid, command line); one that ends meanwhile is left out.
    pub fn of(processes: &[(u32, String)]) -> Memory {
        let mut memory = Memory::default();
        for (pid, line) in processes {
            let Ok(rollup) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else { continue };
            let value = |key: &str| -> u64 {
                let line = rollup.lines().find_map(|l| l.strip_prefix(key));
                line.and_then(|l| l.split_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or(0)
            };
            let program = line.split(' ').next().unwrap_or_default();
            let entry =
                memory.0.entry(program.rsplit('/').next().unwrap_or_default().to_owned()).or_default();
            entry.processes += 1;
            entry.rss_kib += value("Rss:");
            entry.pss_kib += value("Pss:");
        }
        memory
    }

    /// PSS of all, in KiB.
    pub fn total_pss_kib(&self) -> u64 {
        self.0.values().map(|u| u.pss_kib).sum()
    }
}

/// The most PSS, in KiB, that an engine's own processes together had while some work went on, as seen by looking at it all the
/// time. What runs in containers is not the engine's.
pub fn peak_pss_kib(host: &Host, work: impl FnOnce()) -> u64 {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut peak = 0;
            while !done.load(Ordering::Relaxed) {
                peak = peak.max(Memory::of(&host.servants()).total_pss_kib());
                std::thread::sleep(SAMPLE_EVERY);
            }
            peak
        });
        work();
        done.store(true, Ordering::Relaxed);
        watcher.join().expect("the watcher")
    })
}
