//! `make bench-runtime`: what a container costs with `wherry-runtime`, beside crun, runc and youki when they are
//! there: the same bundles, in one run, the runtimes taking turns. A number is the median of whole processes, from
//! before the fork to after the wait. Prints a page, and keeps it in integration/results/bench-runtime.md.
//!
//! It starts itself twice: once to gather what is needed in a folder, then inside the lab's root, where the reference runtimes
//! are (without the lab: on this host, in a mount namespace of its own). What is measured is on tmpfs.

// A failed measurement ends the program; that is all there is to do.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod bundle;
mod contender;
mod measure;
mod page;
mod work;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bundle::{Bundle, LAYERS};
use contender::Contender;
use measure::{Sample, run};
use page::{Page, Row};

/// Set, inside, to the folder that has been made outside.
const WORK: &str = "WHERRY_TEST_WORK";

/// The first rounds warm caches up.
const WARM_UP: usize = 3;

fn main() -> ExitCode {
    match std::env::var_os(WORK) {
        None => work::outside(),
        Some(work) => {
            inside(PathBuf::from(work));
            ExitCode::SUCCESS
        }
    }
}

fn inside(work: PathBuf) {
    let rounds = std::env::var("BENCH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(100);
    let place = PathBuf::from("/run/wherry-bench");
    std::fs::create_dir_all(&place).unwrap();
    let rootfs = bundle::make_rootfs(&place);
    let plain = Bundle::make(&place, "plain", &rootfs, &bundle::docker(false));
    let filtered = Bundle::make(&place, "filtered", &rootfs, &bundle::docker(true));
    let sleeper = Bundle::make(&place, "sleeper", &rootfs, &bundle::sleeper());
    let layers = LAYERS.map(|(name, spec)| (name, Bundle::make(&place, name, &rootfs, &spec())));
    let contenders = Contender::all(&work, &place);
    for contender in &contenders {
        contender.start_sleeper(&sleeper);
    }
    let mut page = Page::new(&contenders, rounds);
    let count = contenders.len();
    let one = |page: &mut Page, row: Row, measure: &dyn Fn(&Contender) -> Sample| {
        eprintln!("{}", row.name);
        let samples = in_turns(rounds, count, |i| [measure(&contenders[i])]);
        page.add(row, samples.into_iter().map(|s| s.concat()).collect());
    };
    one(&mut page, Row::against_crun("`run` of /bin/true, Docker's seccomp profile", 0.75), &|c| {
        c.run(&filtered)
    });
    one(&mut page, Row::against_crun("`run` of /bin/true, no seccomp", 0.8), &|c| c.run(&plain));
    one(&mut page, Row::against_crun("`exec` of /bin/true", 0.8), &Contender::exec);
    one(&mut page, Row::against_crun("`state`", 1.0), &Contender::state);
    one(&mut page, Row::plain("`list` (one container)"), &Contender::list);
    eprintln!("create, start, delete");
    let samples = in_turns(rounds, count, |i| contenders[i].life(&filtered));
    for (at, row) in [
        Row::plain("`create`, Docker's seccomp profile"),
        Row::against_crun("`start`", 1.0),
        Row::against_crun("`delete` of a stopped one", 1.0),
    ]
    .into_iter()
    .enumerate()
    {
        page.add(row, samples.iter().map(|s| s.iter().map(|life| life[at]).collect()).collect());
    }
    for contender in &contenders {
        contender.end_sleeper();
    }
    eprintln!("where the time goes");
    let floor = work.join("floor");
    let steps = steps(&contenders[0], &floor, &rootfs, &layers);
    let samples = in_turns(rounds, steps.len(), |i| [(steps[i].1)()]);
    for ((name, _), samples) in steps.iter().zip(samples) {
        page.add_step(name, samples.concat());
    }
    print!("{}", page.render());
}

/// A process and its name.
type Step<'a> = (&'static str, Box<dyn Fn() -> Sample + 'a>);

/// What stands in the table of our own steps: from starting any process to a whole container.
fn steps<'a>(
    ours: &'a Contender,
    floor: &'a Path,
    rootfs: &'a Path,
    layers: &'a [(&'static str, Bundle)],
) -> Vec<Step<'a>> {
    let mut steps: Vec<Step<'a>> =
        vec![("starting any process (a static `true`)", Box::new(|| run("/bin/busybox", &["true"])))];
    if floor.exists() {
        let rootfs = rootfs.to_str().unwrap();
        let floor = move || run(floor, &["-n", "1", "-x", "q", rootfs, "/run/wherry-bench/floor"]);
        steps.push(("`floor.c`: the same kernel calls, without a runtime", Box::new(floor)));
    }
    for (name, bundle) in layers {
        steps.push((name, Box::new(|| ours.run(bundle))));
    }
    steps
}

/// Measures each of `count` things once per round. Every round begins with another one, so that
/// none always comes after the same.
fn in_turns<const N: usize>(
    rounds: usize,
    count: usize,
    mut measure: impl FnMut(usize) -> [Sample; N],
) -> Vec<Vec<[Sample; N]>> {
    let mut samples = vec![Vec::with_capacity(rounds); count];
    for round in 0..rounds + WARM_UP {
        for turn in 0..count {
            let at = (round + turn) % count;
            let sample = measure(at);
            if round >= WARM_UP {
                samples[at].push(sample);
            }
        }
    }
    samples
}
