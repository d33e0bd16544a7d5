//! The page that holds the numbers.

use std::fmt::Write;

use wherry_bench::{Facts, median};

use crate::contestant::Contestant;

/// What a number of ours should be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Goal {
    None,
    Below(f64),
    /// At most this part of dockerd's.
    AtMostOfDockerd(f64),
    /// At least so many times dockerd's and podman's.
    AtLeastOf {
        dockerd: f64,
        podman: Option<f64>,
    },
    /// At least this part of what the kernel gives without an engine.
    OfBare(f64),
}

#[derive(Debug)]
struct Row {
    name: String,
    goal: Goal,
    values: Vec<Vec<f64>>,
    /// What is taken away from the median, for differences.
    base: Vec<Vec<f64>>,
    bare: Vec<f64>,
}

impl Row {
    fn value(&self, contestant: usize) -> f64 {
        let base = self.base.get(contestant).filter(|b| !b.is_empty()).map_or(0.0, |b| median(b));
        self.values.get(contestant).map_or(f64::NAN, |values| median(values)) - base
    }
}

/// Everything that was measured in one run; ours is the first contestant.
#[derive(Debug)]
pub(crate) struct Page {
    contestants: Vec<(&'static str, String)>,
    rounds: usize,
    rows: Vec<Row>,
    begin: Facts,
}

impl Page {
    pub(crate) fn new(contestants: &[Contestant], rounds: usize) -> Page {
        let contestants = contestants.iter().map(|c| (c.name, c.version.clone())).collect();
        Page { contestants, rounds, rows: Vec::new(), begin: Facts::now() }
    }

    fn row(&mut self, name: &str, goal: Goal) -> &mut Row {
        let place = self.rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
            let empty = vec![Vec::new(); self.contestants.len()];
            let row =
                Row { name: name.to_owned(), goal, values: empty.clone(), base: empty, bare: Vec::new() };
            self.rows.push(row);
            self.rows.len() - 1
        });
        &mut self.rows[place]
    }

    /// Notes one measured value.
    pub(crate) fn add(&mut self, name: &str, goal: Goal, contestant: usize, value: f64) {
        self.row(name, goal).values[contestant].push(value);
    }

    /// Notes a value and what it is compared with: the row shows the difference of the medians.
    pub(crate) fn add_difference(
        &mut self,
        name: &str,
        goal: Goal,
        contestant: usize,
        value: f64,
        base: f64,
    ) {
        let row = self.row(name, goal);
        row.values[contestant].push(value);
        row.base[contestant].push(base);
    }

    /// Notes what there is without an engine, for a row that is there.
    pub(crate) fn add_bare(&mut self, name: &str, value: f64) {
        self.row(name, Goal::None).bare.push(value);
    }

    fn of(&self, row: &Row, name: &str) -> f64 {
        self.contestants.iter().position(|(n, _)| *n == name).map_or(f64::NAN, |at| row.value(at))
    }

    /// What was wanted, and what came of it.
    fn verdict(&self, row: &Row) -> String {
        let (ours, dockerd, podman) = (row.value(0), self.of(row, "dockerd"), self.of(row, "podman"));
        let said =
            |text: String, reached: bool| format!("{text}: {}", if reached { "reached" } else { "missed" });
        match row.goal {
            Goal::None => String::new(),
            Goal::Below(limit) => said(format!("< {limit}"), ours < limit),
            Goal::AtMostOfDockerd(part) => {
                said(format!("≤ {part} × dockerd's, is {:.2}", ours / dockerd), ours / dockerd <= part)
            }
            Goal::AtLeastOf { dockerd: times, podman: also } => {
                let enough = also.is_none_or(|also| podman.is_nan() || ours >= also * podman);
                let text = format!(
                    "≥ {times} × dockerd's, is {:.2}; of podman's {:.2}",
                    ours / dockerd,
                    ours / podman
                );
                said(text, ours >= times * dockerd && enough)
            }
            Goal::OfBare(part) => {
                let is = ours / median(&row.bare);
                said(format!("≥ {part} × bare, is {is:.3}"), is >= part)
            }
        }
    }

    /// The page, in Markdown.
    pub(crate) fn render(&self) -> String {
        let facts = Facts::now();
        let engines: Vec<String> =
            self.contestants.iter().map(|(name, version)| format!("{name} {version}")).collect();
        let mut text = String::from("# Networks, beside the reference engines\n\n");
        let _ = writeln!(
            text,
            "Written by `make bench-network` on {}, commit {}: {}; {} processors, load {} at the beginning and {} at the end. {} rounds in \
             which the engines take turns, each in a private host of the same kind (`tests/host.sh`); medians (of throughput eight turns in each round). What the network adds is the \
             difference between a container with one published port on the default bridge and one with `--network none`. \"Bare\" is a \
             veth pair for each of two namespaces on a bridge, and a DNAT rule to one of them, in namespaces without an engine.\n",
            facts.date,
            facts.commit,
            engines.join(", "),
            facts.processors,
            self.begin.load,
            facts.load,
            self.rounds,
        );
        let names: Vec<&str> = self.contestants.iter().map(|(name, _)| *name).collect();
        let _ = writeln!(text, "| what | {} | bare | wanted |", names.join(" | "));
        let _ = writeln!(text, "| --- |{} ---: | --- |", " ---: |".repeat(names.len()));
        for row in &self.rows {
            let cells: Vec<String> = (0..names.len()).map(|i| cell(row.value(i))).collect();
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} |",
                row.name,
                cells.join(" | "),
                cell(median(&row.bare)),
                self.verdict(row)
            );
        }
        text
    }
}

fn cell(value: f64) -> String {
    if value.is_nan() { "–".to_owned() } else { format!("{value:.2}") }
}
