//! `make bench-containers`: lifecycles, crowds, logs, memory and the engine's own start, beside dockerd and podman of the lab when
//! they are installed. All engines run in hosts of their own of the same kind and take turns. Prints a table, and keeps it in
//! integration/results/bench-containers.md. BENCH_ROUNDS, BENCH_CROWD, BENCH_IDLE and BENCH_LOG_MB make it longer or shorter.

// A failed measurement ends the program; that is all there is to do.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod page;
mod work;

use page::{Page, Row};
use wherry_bench::contestant::Contestant;

/// What is timed in rounds: its name, the most of dockerd's and of podman's time, and how.
type Timing = (&'static str, Option<f64>, Option<f64>, fn(&mut Contestant) -> f64);

const TIMINGS: [Timing; 6] = [
    ("API lifecycle (create, start, wait, remove), bridge", Some(0.15), None, |c| c.lifecycle("default")),
    ("the same, `--network none`", Some(0.15), Some(0.4), |c| c.lifecycle("none")),
    ("`docker run --rm busybox true`", Some(0.3), None, |c| c.run("bridge")),
    ("exec through the API", Some(0.15), None, Contestant::exec),
    ("50 containers one after another, each", Some(0.15), None, |c| work::fifty(c, 1)),
    ("50 containers from 10 clients at once, each", Some(0.3), None, |c| work::fifty(c, 10)),
];

fn main() {
    let number =
        |name: &str, default: usize| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let (rounds, crowd, idle) =
        (number("BENCH_ROUNDS", 10), number("BENCH_CROWD", 1000), number("BENCH_IDLE", 20));
    let megabytes = number("BENCH_LOG_MB", 200);
    let mut contestants = Contestant::all();
    let mut page = Page::new(&contestants, rounds);
    for (name, of_dockerd, of_podman, measure) in TIMINGS {
        let fifty = name.starts_with("50");
        let rounds = if fifty { rounds.div_ceil(5) } else { rounds };
        let mut row = Row::new(name, of_dockerd, of_podman, contestants.len());
        // The first rounds warm caches up.
        for round in 0..rounds + if fifty { 0 } else { 2 } {
            for (i, contestant) in contestants.iter_mut().enumerate() {
                let milliseconds = measure(contestant);
                if fifty || round >= 2 {
                    row.add(i, milliseconds);
                }
            }
        }
        eprintln!("{name}");
        page.add(row);
    }
    let mut written =
        Row::new(&format!("{megabytes} MB of log lines written"), Some(0.3), None, contestants.len());
    let mut read = Row::new("the same read back", Some(0.4), None, contestants.len());
    for _ in 0..3 {
        for (i, contestant) in contestants.iter_mut().enumerate() {
            let (write, back) = work::log(contestant, megabytes);
            written.add(i, write);
            read.add(i, back);
        }
    }
    page.add(written);
    page.add(read);
    eprintln!("logs");
    for contestant in &mut contestants {
        page.add_memory(contestant, idle);
    }
    for other in contestants.drain(1..) {
        other.end();
    }
    if let Some(own) = contestants.pop() {
        page.add_crowd(own, crowd, rounds);
    }
    let text = page.render();
    println!("{text}");
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../results/bench-containers.md");
    std::fs::write(file, text).expect("write integration/results/bench-containers.md");
}
