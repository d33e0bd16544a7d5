//! The page that holds the numbers.

use std::fmt::Write;

use wherry_bench::{Facts, median};

use crate::contestant::Contestant;

/// The largest good ratio to the best other engine, and the largest good value.
type Limits = (Option<f64>, Option<f64>);

#[derive(Debug)]
struct Row {
    name: &'static str,
    limits: Limits,
    values: Vec<Vec<f64>>,
}

/// Everything that was measured in one run; ours is the first contestant.
#[derive(Debug)]
pub(crate) struct Page {
    contestants: Vec<(String, String)>,
    rounds: usize,
    rows: Vec<Row>,
    begin: Facts,
}

impl Page {
    pub(crate) fn new(contestants: &[Contestant], rounds: usize) -> Page {
        let contestants = contestants.iter().map(|c| (c.name.to_owned(), c.version.clone())).collect();
        Page { contestants, rounds, rows: Vec::new(), begin: Facts::now() }
    }

    /// Notes one measured value.
    pub(crate) fn add(&mut self, name: &'static str, limits: Limits, contestant: usize, value: f64) {
        let count = self.contestants.len();
        if !self.rows.iter().any(|row| row.name == name) {
            self.rows.push(Row { name, limits, values: vec![Vec::new(); count] });
        }
        let row = self.rows.iter_mut().find(|row| row.name == name).expect("it is there now");
        row.values[contestant].push(value);
    }

    /// The page, in Markdown.
    pub(crate) fn render(&self) -> String {
        let facts = Facts::now();
        let engines: Vec<String> =
            self.contestants.iter().map(|(name, version)| format!("{name} ({version})")).collect();
        let mut text = String::from("# Images, beside the reference engines\n\n");
        let _ = writeln!(
            text,
            "Written by `make bench-images` on {}, commit {}: {}; {} processors, load {} at the beginning and {} at the \
             end. Ten layers, 37,000 files, 0.9 GB (`mkbig.py`), from docker-registry on the loopback address; {} rounds, \
             medians. After each step, deletions and writing back were waited for, untimed.\n",
            facts.date,
            facts.commit,
            engines.join(", "),
            facts.processors,
            self.begin.load,
            facts.load,
            self.rounds,
        );
        let names: Vec<&str> = self.contestants.iter().map(|(name, _)| name.as_str()).collect();
        let _ = writeln!(text, "| what | {} | of the best other's | wanted |", names.join(" | "));
        let _ = writeln!(text, "| --- |{} --- | --- |", " ---: |".repeat(names.len()));
        for row in &self.rows {
            let medians: Vec<f64> = row.values.iter().map(|values| median(values)).collect();
            let best = medians.iter().skip(1).copied().filter(|m| !m.is_nan()).fold(f64::INFINITY, f64::min);
            let ours = medians.first().copied().unwrap_or(f64::NAN);
            let cells: Vec<String> = medians.iter().map(|m| cell(*m)).collect();
            let ratio = if best.is_finite() { format!("{:.2}", ours / best) } else { String::new() };
            let wanted = match row.limits {
                (Some(limit), _) => format!("≤ {limit}: {}", verdict(ours / best <= limit)),
                (_, Some(limit)) => format!("< {limit}: {}", verdict(ours < limit)),
                _ => String::new(),
            };
            let _ = writeln!(text, "| {} | {} | {ratio} | {wanted} |", row.name, cells.join(" | "));
        }
        text
    }
}

fn cell(value: f64) -> String {
    if value.is_nan() { "–".to_owned() } else { format!("{value:.2}") }
}

fn verdict(reached: bool) -> &'static str {
    if reached { "reached" } else { "missed" }
}
