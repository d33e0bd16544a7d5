//! The page of results.

use std::fmt::Write;

use wherry_bench::{Facts, median};

use crate::contender::Contender;
use crate::measure::Sample;

/// A line of the table.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// The most that it may take of crun's time.
    limit: Option<f64>,
}

impl Row {
    /// Measured only.
    pub(crate) fn plain(name: &'static str) -> Row {
        Row { name, limit: None }
    }

    /// With a largest good ratio to crun's time.
    pub(crate) fn against_crun(name: &'static str, limit: f64) -> Row {
        Row { name, limit: Some(limit) }
    }
}

/// What the outside knows, which is where git is.
pub(crate) fn heading() -> String {
    let facts = Facts::now();
    format!(
        "# The runtime, measured beside crun, runc and youki\n\n\
         Written by `make bench-runtime` on {}, commit {}; {} processors, load {} at the end. ",
        facts.date, facts.commit, facts.processors, facts.load
    )
}

/// Everything that was measured.
#[derive(Debug)]
pub(crate) struct Page {
    contenders: Vec<(&'static str, String)>,
    rounds: usize,
    rows: Vec<(Row, Vec<Vec<Sample>>)>,
    steps: Vec<(&'static str, Vec<Sample>)>,
}

impl Page {
    pub(crate) fn new(contenders: &[Contender], rounds: usize) -> Page {
        let contenders = contenders.iter().map(|c| (c.name, c.version.clone())).collect();
        Page { contenders, rounds, rows: Vec::new(), steps: Vec::new() }
    }

    /// A line with the samples of each contender.
    pub(crate) fn add(&mut self, row: Row, samples: Vec<Vec<Sample>>) {
        self.rows.push((row, samples));
    }

    /// A line of the table of our own steps.
    pub(crate) fn add_step(&mut self, name: &'static str, samples: Vec<Sample>) {
        self.steps.push((name, samples));
    }

    /// In Markdown.
    pub(crate) fn render(&self) -> String {
        let versions: Vec<String> =
            self.contenders.iter().map(|(name, version)| format!("{name} {version}")).collect();
        let mut text = format!(
            "{}.\n{} rounds in which the runtimes take turns, on the same bundles: a static busybox on a plain folder on tmpfs,\n\
             Docker's capabilities, mounts, masked paths and device rules, no limits. Cgroup v1. Times are of whole processes, from\n\
             before the fork to after the wait: medians (and minima), in ms.\n\n",
            versions.join(", "),
            self.rounds,
        );
        self.table(&mut text, "time", |s| s.wall_ms, 2, true);
        self.render_lost(&mut text);
        text += "\nProcessor time of the same processes, in user mode and in the kernel, with the children waited for; medians, in ms:\n\n";
        self.table(&mut text, "processor time", |s| s.cpu_ms, 2, false);
        text += "\nThe largest resident memory of one of these processes (`ru_maxrss`); medians, in KiB:\n\n";
        self.table(&mut text, "peak memory", |s| s.peak_kib, 0, false);
        self.render_steps(&mut text);
        text
    }

    fn table(&self, text: &mut String, what: &str, value: fn(&Sample) -> f64, digits: usize, timed: bool) {
        let crun = self.contenders.iter().position(|(name, _)| *name == "crun");
        let names: Vec<&str> = self.contenders.iter().map(|(name, _)| *name).collect();
        let wanted = if timed { " wanted |" } else { "" };
        let _ = writeln!(text, "| {what} | {} | of crun's |{wanted}", names.join(" | "));
        let _ = writeln!(
            text,
            "| --- |{} --- |{}",
            " ---: |".repeat(names.len()),
            if timed { " --- |" } else { "" }
        );
        for (row, samples) in &self.rows {
            let values: Vec<Vec<f64>> = samples.iter().map(|s| s.iter().map(value).collect()).collect();
            let medians: Vec<f64> = values.iter().map(|v| median(v)).collect();
            let cells: Vec<String> = medians
                .iter()
                .zip(&values)
                .map(|(median, all)| {
                    let least = all.iter().copied().fold(f64::INFINITY, f64::min);
                    if timed {
                        format!("{median:.digits$} ({least:.digits$})")
                    } else {
                        format!("{median:.digits$}")
                    }
                })
                .collect();
            let ratio = crun.map(|at| medians[0] / medians[at]);
            let verdict = match (row.limit.filter(|_| timed), ratio) {
                (Some(limit), Some(ratio)) => {
                    format!(" ≤ {limit:.2}: {} |", if ratio <= limit { "reached" } else { "**missed**" })
                }
                (Some(limit), None) => format!(" ≤ {limit:.2}: there is no crun |"),
                (None, _) => {
                    if timed {
                        " |".to_owned()
                    } else {
                        String::new()
                    }
                }
            };
            let ratio = ratio.map_or("?".to_owned(), |r| format!("{r:.2}"));
            let _ = writeln!(text, "| {} | {} | {ratio} |{verdict}", row.name, cells.join(" | "));
        }
    }

    /// Who hung, and how often.
    fn render_lost(&self, text: &mut String) {
        for (at, (name, _)) in self.contenders.iter().enumerate() {
            let of_row =
                |(_, samples): &(Row, Vec<Vec<Sample>>)| samples[at].iter().filter(|s| s.is_lost()).count();
            let lost: usize = self.rows.iter().map(of_row).sum();
            if lost > 0 {
                let _ =
                    writeln!(text, "\n{lost} of {name}'s commands hung, and were killed after ten seconds.");
            }
        }
    }

    fn render_steps(&self, text: &mut String) {
        text.push_str("\n## Where our time goes\n\n");
        text.push_str(FLOOR);
        text.push_str(
            "\n| process | median ms | min ms | more than the line before |\n| --- | ---: | ---: | ---: |\n",
        );
        let mut before = None;
        for (name, samples) in &self.steps {
            let times: Vec<f64> = samples.iter().map(|s| s.wall_ms).collect();
            let least = times.iter().copied().fold(f64::INFINITY, f64::min);
            let middle = median(&times);
            let more = before.map_or(String::new(), |before: f64| format!("{:+.2}", middle - before));
            let _ = writeln!(text, "| {name} | {middle:.2} | {least:.2} | {more} |");
            before = Some(middle);
        }
    }
}

const FLOOR: &str = "\
`floor.c` makes six namespaces, mounts an overlay, `/proc` and an empty `/dev`, pivots, executes and waits, all with fixed
strings: no configuration is read and no cgroup is made. The lines below it are our `run` of specifications from
next to nothing up to Docker's, each with what the line before has.
";
