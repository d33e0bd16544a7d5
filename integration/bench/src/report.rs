//! Medians, ratios, and the page that holds them.

use std::fmt::Write;

use wherry_bench::{Facts, median};

use wherry_bench::contestant::Contestant;
use wherry_bench::memory::Memory;

/// The most that may be kept for one idle container.
const IDLE_LIMIT_KIB: f64 = 1024.0;

/// One timing: milliseconds by contestant.
#[derive(Debug)]
pub(crate) struct Metric {
    name: &'static str,
    limit: Option<f64>,
    times: Vec<Vec<f64>>,
}

impl Metric {
    /// `limit` is the largest good ratio to dockerd.
    pub(crate) fn new(name: &'static str, limit: Option<f64>, contestants: usize) -> Metric {
        Metric { name, limit, times: vec![Vec::new(); contestants] }
    }

    /// Adds one measured time.
    pub(crate) fn add(&mut self, contestant: usize, milliseconds: f64) {
        self.times[contestant].push(milliseconds);
    }

    fn median(&self, contestant: usize) -> f64 {
        median(&self.times[contestant])
    }
}

/// Everything that was measured in one run.
#[derive(Debug)]
pub(crate) struct Report {
    contestants: Vec<(String, String)>,
    rounds: usize,
    metrics: Vec<Metric>,
    memory: Vec<(&'static str, usize, Memory, usize)>,
}

impl Report {
    pub(crate) fn new(contestants: &[Contestant], rounds: usize) -> Report {
        let contestants = contestants.iter().map(|c| (c.name.to_owned(), c.version.clone())).collect();
        Report { contestants, rounds, metrics: Vec::new(), memory: Vec::new() }
    }

    pub(crate) fn add(&mut self, metric: Metric) {
        self.metrics.push(metric);
    }

    /// Notes what a contestant uses at this moment, with this many idle containers.
    pub(crate) fn add_memory(&mut self, moment: &'static str, contestant: &Contestant, idle: usize) {
        let at =
            self.contestants.iter().position(|(name, _)| name == contestant.name).expect("it takes part");
        self.memory.push((moment, at, contestant.memory(), idle));
    }

    /// The page, in Markdown.
    pub(crate) fn render(&self) -> String {
        let mut text = String::from("# Measured beside the reference engines\n\n");
        let versions: Vec<String> =
            self.contestants.iter().map(|(name, version)| format!("{name} {version}")).collect();
        let facts = Facts::now();
        let _ = writeln!(
            text,
            "Written by `make bench` on {}, commit {}: {}. {} rounds in which the engines take turns, each in a\n\
             private host of the same kind (`tests/host.sh`), image `busybox`; {} cores, load {} at the end. Medians in ms.\n",
            facts.date,
            facts.commit,
            versions.join(", "),
            self.rounds,
            facts.processors,
            facts.load,
        );
        self.render_times(&mut text);
        self.render_memory(&mut text);
        text
    }

    fn render_times(&self, text: &mut String) {
        let dockerd = self.contestants.iter().position(|(name, _)| name == "dockerd");
        let names: Vec<&str> = self.contestants.iter().map(|(name, _)| name.as_str()).collect();
        let _ = writeln!(text, "| what | {} | of dockerd's | wanted |", names.join(" | "));
        let _ = writeln!(text, "| --- |{} --- | --- |", " ---: |".repeat(names.len()));
        for metric in &self.metrics {
            let medians: Vec<f64> = (0..names.len()).map(|i| metric.median(i)).collect();
            let cells: Vec<String> = medians.iter().map(|m| format!("{m:.1}")).collect();
            let ratio = dockerd.map(|i| medians[0] / medians[i]);
            let wanted = match (metric.limit, ratio) {
                (Some(limit), Some(ratio)) => {
                    format!("≤ {limit:.2}: {}", if ratio <= limit { "reached" } else { "**missed**" })
                }
                (Some(limit), None) => format!("≤ {limit:.2}: no dockerd here"),
                (None, _) => String::new(),
            };
            let ratio = ratio.map_or("?".to_owned(), |r| format!("{r:.2}"));
            let _ = writeln!(text, "| {} | {} | {ratio} | {wanted} |", metric.name, cells.join(" | "));
        }
    }

    fn render_memory(&self, text: &mut String) {
        let _ = writeln!(text, "\nMemory, in KiB (PSS shares out what processes have in common):\n");
        let _ = writeln!(
            text,
            "| engine | when | process | count | RSS | PSS |\n| --- | --- | --- | ---: | ---: | ---: |"
        );
        for (moment, at, memory, _) in &self.memory {
            for (program, used) in &memory.0 {
                let name = &self.contestants[*at].0;
                let _ = writeln!(
                    text,
                    "| {name} | {moment} | {program} | {} | {} | {} |",
                    used.processes, used.rss_kib, used.pss_kib
                );
            }
        }
        let _ = writeln!(text, "\nFor one idle container, everything that is kept for it:\n");
        for (i, (name, _)) in self.contestants.iter().enumerate() {
            let of = |idle: bool| self.memory.iter().rev().find(|(_, at, _, n)| *at == i && (*n > 0) == idle);
            let (Some((_, _, with, count)), Some((_, _, without, _))) = (of(true), of(false)) else {
                continue;
            };
            let each = with.total_pss_kib().saturating_sub(without.total_pss_kib()) as f64 / *count as f64;
            let verdict = match (i, each < IDLE_LIMIT_KIB) {
                (0, true) => " (wanted: less than 1024; reached)",
                (0, false) => " (wanted: less than 1024; **missed**)",
                _ => "",
            };
            let _ = writeln!(text, "- {name}: {each:.0} KiB PSS{verdict}");
        }
    }
}
