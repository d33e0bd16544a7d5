//! `make bench-build`: `docker build` by this engine, beside the dockerd of the lab: with BuildKit and with the classic builder,
//! each in a host of its own (`wherry_tests::Host`), taking turns. All go through the stock client: `docker build`, which the
//! buildx plugin carries out, or `DOCKER_BUILDKIT=0`.
//!
//! Uncached means uncached: `--no-cache`, files that nobody has seen (they tell their round), in a folder of which no client
//! has sent anything. What was built is looked at: the
//! client must have told of as many cached steps as there may be, and the image must have the files. Prints a table, and keeps
//! it in integration/results/bench-build.md. BENCH_ROUNDS (10) and BENCH_FILES (20,000) make it longer or shorter.

// A failed measurement ends the program; that is all there is to do.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod builder;
mod context;
mod disk;
mod page;

use builder::{Builder, Cache, Door};
use context::Context;
use page::{Goals, Page};

/// What is timed: its name, what is good, on which context, what is changed before, and how much comes from caches.
struct Step {
    name: &'static str,
    goals: Goals,
    context: fn(&Contexts) -> &Context,
    change: bool,
    cache: Cache,
}

/// Those of a round.
struct Contexts {
    ten_steps: Context,
    many_files: Context,
}

impl Contexts {
    fn new(round: usize, files: usize) -> Contexts {
        Contexts { ten_steps: Context::ten_steps(round), many_files: Context::many_files(round, files) }
    }
}

const STEPS: [Step; 5] = [
    Step {
        name: "ten small steps, uncached",
        goals: Goals { buildkit: Some(0.5), classic: None },
        context: |contexts| &contexts.ten_steps,
        change: false,
        cache: Cache::Unused,
    },
    Step {
        name: "the same again, fully cached",
        goals: Goals { buildkit: Some(0.5), classic: Some(1.0) },
        context: |contexts| &contexts.ten_steps,
        change: false,
        cache: Cache::Full,
    },
    Step {
        name: "many files, uncached",
        goals: Goals { buildkit: Some(0.5), classic: None },
        context: |contexts| &contexts.many_files,
        change: false,
        cache: Cache::Unused,
    },
    Step {
        name: "the same again, unchanged",
        goals: Goals { buildkit: Some(0.5), classic: None },
        context: |contexts| &contexts.many_files,
        change: false,
        cache: Cache::Full,
    },
    Step {
        name: "the same after one file has changed",
        goals: Goals { buildkit: Some(0.6), classic: None },
        context: |contexts| &contexts.many_files,
        change: true,
        cache: Cache::Offered,
    },
];

fn main() {
    let number =
        |name: &str, default: usize| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    // At least 1,800 files: one of those changes.
    let (rounds, files) = (number("BENCH_ROUNDS", 10), number("BENCH_FILES", 20_000).max(1800));
    disk::leave_the_machine();
    let builders = Builder::all();
    let mut page = Page::new(&builders, rounds, files);
    // No context is deleted until the end.
    let mut kept = Vec::new();
    // The first round warms everything up, and does not count.
    for round in 0..=rounds {
        let contexts = Contexts::new(round, files);
        // Another one begins each time: what the one before has left in the machine's caches serves the next.
        let turns = || (0..builders.len()).map(|place| (place + round) % builders.len());
        for builder in turns().filter_map(|turn| builders.get(turn)) {
            let alone = builder.client_alone();
            if round > 0 {
                page.add("the client by itself", Goals::default(), builder, alone);
            }
        }
        for step in &STEPS {
            let context = (step.context)(&contexts);
            if step.change {
                context.change();
            }
            eprint!("round {round} of {rounds}, {}:", step.name);
            for builder in turns().filter_map(|turn| builders.get(turn)) {
                let milliseconds = builder.build(context, step.cache);
                let name = if builder.is_ours { "wherry" } else { "dockerd" };
                eprint!(" {name} {milliseconds:.0}");
                if round > 0 {
                    page.add(step.name, step.goals, builder, milliseconds);
                }
                builder.check(context);
                builder.rest();
            }
            eprintln!();
        }
        kept.push(contexts);
    }
    // In a round of its own, since looking takes time.
    let contexts = Contexts::new(rounds + 1, files);
    for builder in &builders {
        page.add_peak("ten small steps", builder, builder.peak_mib(&contexts.ten_steps));
        page.add_peak("many files", builder, builder.peak_mib(&contexts.many_files));
    }
    for builder in builders {
        builder.end();
    }
    let text = page.render();
    println!("{text}");
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../results/bench-build.md");
    std::fs::write(file, text).expect("write integration/results/bench-build.md");
}

/// The doors, in the order of the page.
const DOORS: [Door; 2] = [Door::BuildKit, Door::Classic];
