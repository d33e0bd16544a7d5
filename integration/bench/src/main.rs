//! `make bench`: what a container's life costs with this engine, beside dockerd and podman of the lab when
//! they are installed. All engines run in hosts of their own of the same kind (`wherry_tests::Host`), at the
//! same time, and take turns: each number comes from the same minutes of the same machine. Prints a table,
//! and keeps it in integration/results/bench.md.

// A failed measurement ends the program; that is all there is to do.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod report;

use report::{Metric, Report};
use wherry_bench::contestant::Contestant;

/// What is timed: its name, what it is good for, and the most that it may take of dockerd's time.
type Timing = (&'static str, Option<f64>, fn(&mut Contestant) -> f64);

const TIMINGS: [Timing; 7] = [
    ("`docker run --rm busybox true`", None, |c| c.run("bridge")),
    ("the same, `--network none`", None, |c| c.run("none")),
    ("API lifecycle, default bridge", Some(0.35), |c| c.lifecycle("default")),
    ("API lifecycle, `--network none`", Some(0.30), |c| c.lifecycle("none")),
    ("exec through the API", None, Contestant::exec),
    ("`GET /containers/json`", None, |c| c.list(false)),
    ("the docker client by itself (`docker version`)", None, Contestant::client_alone),
];

fn main() {
    let number =
        |name: &str, default: usize| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let (rounds, idle) = (number("BENCH_ROUNDS", 20), number("BENCH_IDLE", 20));
    let mut contestants = Contestant::all();
    let mut report = Report::new(&contestants, rounds);
    for contestant in &mut contestants {
        report.add_memory("fresh", contestant, 0);
    }
    for (name, limit, measure) in TIMINGS {
        eprint!("{name} ");
        let mut metric = Metric::new(name, limit, contestants.len());
        for round in 0..rounds + 2 {
            for (i, contestant) in contestants.iter_mut().enumerate() {
                let milliseconds = measure(contestant);
                // The first two warm caches up.
                if round >= 2 {
                    metric.add(i, milliseconds);
                }
            }
            eprint!(".");
        }
        eprintln!();
        report.add(metric);
    }
    for contestant in &mut contestants {
        report.add_memory("after use", contestant, 0);
        contestant.start_idle(idle);
    }
    for contestant in &mut contestants {
        report.add_memory("with idle containers", contestant, idle);
    }
    for contestant in contestants {
        contestant.end();
    }
    let text = report.render();
    println!("{text}");
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../results/bench.md");
    std::fs::write(file, text).expect("write integration/results/bench.md");
}
