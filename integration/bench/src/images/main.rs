//! `make bench-images`: pull, load, save, remove and list, beside dockerd (both of its stores) and podman of the lab when
//! they are installed. Every engine runs in a host of its own of the same kind (`wherry_tests::Host`), one step of one engine
//! at a time, and between steps all that is still under way (deleting, writing back) is waited for, so that nobody pays for
//! another's work. The image is the ten-layer one of ../shared/lab/mkbig.py, made once and kept in `BENCH_CACHE`.

// A failed measurement ends the program; that is all there is to do.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr)]

mod archive;
mod contestant;
mod page;

use archive::Archives;
use contestant::Contestant;
use page::Page;

/// What is measured: its name, the most that it may take of the best other engine's, the most that it may be, the unit.
struct Step {
    name: &'static str,
    of_best: Option<f64>,
    at_most: Option<f64>,
    measure: fn(&mut Contestant, &Archives) -> f64,
}

const STEPS: [Step; 6] = [
    Step { name: "pull and unpack, s", of_best: Some(0.7), at_most: None, measure: |c, _| c.pull() },
    Step { name: "pull again, ms (API)", of_best: None, at_most: Some(30.0), measure: |c, _| c.pull_again() },
    Step { name: "save, s", of_best: Some(0.6), at_most: None, measure: |c, _| c.save() },
    Step { name: "rmi, s", of_best: Some(0.5), at_most: None, measure: |c, _| c.remove() },
    Step { name: "load, s", of_best: Some(0.6), at_most: None, measure: |c, a| c.load(a) },
    Step { name: "rmi of what was loaded, s", of_best: Some(0.5), at_most: None, measure: |c, _| c.remove() },
];
const LIST: &str = "list of 1,000 images, ms (API)";
const MEMORY: &str = "peak memory while pulling and loading, MiB";

fn main() {
    let rounds: usize = std::env::var("BENCH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    let archives = Archives::prepare();
    let mut contestants = Contestant::all(&archives);
    let mut page = Page::new(&contestants, rounds);
    for round in 0..rounds {
        for (i, contestant) in contestants.iter_mut().enumerate() {
            eprint!("round {} of {rounds}, {}:", round + 1, contestant.name);
            for step in &STEPS {
                let value = (step.measure)(contestant, &archives);
                eprint!(" {value:.2}");
                page.add(step.name, (step.of_best, step.at_most), i, value);
                contestant.rest();
            }
            eprintln!();
        }
    }
    for (i, contestant) in contestants.iter_mut().enumerate() {
        page.add(MEMORY, (None, Some(100.0)), i, contestant.peak_mib());
        if let Some(milliseconds) = contestant.list_many(&archives) {
            page.add(LIST, (None, Some(20.0)), i, milliseconds);
        }
    }
    for contestant in contestants {
        contestant.end();
    }
    let text = page.render();
    println!("{text}");
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../results/bench-images.md");
    std::fs::write(file, text).expect("write integration/results/bench-images.md");
}
