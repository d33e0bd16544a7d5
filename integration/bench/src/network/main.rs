//! `make bench-network`: what a network costs, beside dockerd and podman of the lab when they are installed: at a container's
//! start and end, in throughput beside a bare bridge and a bare NAT rule, in lookups of names, in memory. All engines run in
//! hosts of their own of the same kind (`wherry_tests::Host`), at the same time, and take turns.

// A failed measurement ends the program; that is all there is to do.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod contestant;
mod crowd;
mod lookups;
mod page;
mod traffic;

use contestant::{Contestant, Life};
use page::{Goal, Page};

/// What a network adds: its name, the part of a container's life, and what is wanted.
type Addition = (&'static str, fn(&Life) -> f64, Goal);

/// Turns of throughput in one round: a single one differs from the next by a tenth, and the goal is two hundredths.
const FLOWS: usize = 8;

/// Lookups of one turn.
const LOOKUPS: usize = 4000;

fn main() {
    let number =
        |name: &str, default: usize| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let (rounds, networks, containers) =
        (number("BENCH_ROUNDS", 15), number("BENCH_NETWORKS", 100), number("BENCH_CONTAINERS", 400));
    // Some of them alone are printed, and not kept.
    let only = std::env::var("BENCH_ONLY").ok();
    let wanted = |part: &str| only.as_deref().is_none_or(|only| only == part);
    let mut contestants = Contestant::all();
    let mut page = Page::new(&contestants, rounds);
    if wanted("lives") {
        lives(&mut contestants, &mut page, rounds);
    }
    if wanted("flows") {
        flows(&contestants, &mut page, rounds * FLOWS);
    }
    if wanted("lookups") {
        lookups(&contestants, &mut page, rounds);
    }
    if wanted("memory") {
        let name = format!("netd's resident memory, {networks} networks and {containers} containers, MiB");
        page.add(&name, Goal::Below(8.0), 0, crowd::memory_mib(&mut contestants[0], networks, containers));
    }
    for contestant in contestants {
        contestant.end();
    }
    let text = page.render();
    println!("{text}");
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../results/bench-network.md");
    if only.is_none() {
        std::fs::write(file, text).expect("write integration/results/bench-network.md");
    }
}

/// Names that containers ask for, one question after the other.
fn lookups(contestants: &[Contestant], page: &mut Page, rounds: usize) {
    for round in 0..=rounds {
        for (i, contestant) in contestants.iter().enumerate() {
            let measured = lookups::measure(contestant, LOOKUPS);
            if round == 0 {
                continue;
            }
            page.add(
                "lookups per second",
                Goal::AtLeastOf { dockerd: 3.0, podman: Some(1.0) },
                i,
                measured.per_second,
            );
            page.add("lookup, median, µs", Goal::None, i, measured.median_us);
            page.add("lookup, 99 of 100, µs", Goal::AtMostOfDockerd(0.5), i, measured.late_us);
        }
    }
}

/// What a published port adds to the life of a container.
fn lives(contestants: &mut [Contestant], page: &mut Page, rounds: usize) {
    for round in 0..rounds + 2 {
        for (i, contestant) in contestants.iter_mut().enumerate() {
            let (with, without) = (contestant.life(true), contestant.life(false));
            // The first two warm caches up.
            if round < 2 {
                continue;
            }
            let rows: [Addition; 4] = [
                ("network adds to start, ms", |l| l.start, Goal::None),
                ("… until `wait` returns, ms", |l| l.start + l.wait, Goal::None),
                ("… to removal, ms", |l| l.remove, Goal::None),
                ("… to start and removal, ms", |l| l.start + l.wait + l.remove, Goal::AtMostOfDockerd(0.15)),
            ];
            for (name, part, goal) in rows {
                page.add_difference(name, goal, i, part(&with), part(&without));
            }
        }
    }
}

/// Throughput, ours and the others' in turns with what the kernel gives without any engine. Who begins changes from turn to turn:
/// the one before may leave its mark on the next.
fn flows(contestants: &[Contestant], page: &mut Page, turns: usize) {
    let Some(first) = contestants.first() else { return };
    let bare = traffic::Bare::make(&first.host);
    for turn in 0..=turns {
        for i in (0..=contestants.len()).map(|place| (place + turn) % (contestants.len() + 1)) {
            let contestant = contestants.get(i);
            let (direct, published) = match contestant {
                Some(contestant) => (contestant.direct(), contestant.published()),
                None => (bare.direct(), bare.published()),
            };
            // The first one warms caches up.
            if turn == 0 {
                continue;
            }
            for (name, goal, rate) in [
                ("container to container, Gbit/s", Goal::OfBare(0.98), direct),
                ("host to published port, Gbit/s", Goal::OfBare(0.95), published),
            ] {
                match contestant {
                    Some(_) => page.add(name, goal, i, rate),
                    None => page.add_bare(name, rate),
                }
            }
        }
    }
}
