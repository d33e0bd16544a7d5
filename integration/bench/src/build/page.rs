//! The page that holds the numbers.

use std::fmt::Write;

use wherry_bench::{Facts, median};

use crate::DOORS;
use crate::builder::{Builder, Door};

/// The most memory that ours may have, in MiB.
const MEMORY_LIMIT_MIB: f64 = 80.0;

/// The most that ours may take of what dockerd does by the same door.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Goals {
    pub(crate) buildkit: Option<f64>,
    pub(crate) classic: Option<f64>,
}

impl Goals {
    fn of(self, door: Door) -> Option<f64> {
        match door {
            Door::BuildKit => self.buildkit,
            Door::Classic => self.classic,
        }
    }
}

#[derive(Debug)]
struct Row {
    name: &'static str,
    goals: Goals,
    values: Vec<(Side, f64)>,
}

/// Who.
type Side = (Door, bool);

impl Row {
    fn median(&self, side: Side) -> f64 {
        let own = self.values.iter().filter(|(of, _)| *of == side).map(|(_, value)| *value);
        median(&own.collect::<Vec<_>>())
    }
}

/// Everything that was measured in one run.
#[derive(Debug)]
pub(crate) struct Page {
    engines: String,
    rounds: usize,
    files: usize,
    times: Vec<Row>,
    peaks: Vec<Row>,
    begin: Facts,
}

impl Page {
    pub(crate) fn new(builders: &[Builder], rounds: usize, files: usize) -> Page {
        let version = |ours: bool| {
            let builder = builders.iter().find(|builder| builder.is_ours == ours);
            builder.map_or("not here".to_owned(), |builder| builder.version.clone())
        };
        let client = wherry_bench::output("docker", &["--version"]);
        let buildx = wherry_bench::output("docker", &["buildx", "version"]);
        let engines = format!("wherry ({}), dockerd ({}); {client}; {buildx}", version(true), version(false));
        Page { engines, rounds, files, times: Vec::new(), peaks: Vec::new(), begin: Facts::now() }
    }

    /// Notes how many milliseconds something took.
    pub(crate) fn add(&mut self, name: &'static str, goals: Goals, builder: &Builder, milliseconds: f64) {
        note(&mut self.times, name, goals, builder, milliseconds);
    }

    /// Notes how much memory it took.
    pub(crate) fn add_peak(&mut self, name: &'static str, builder: &Builder, mib: f64) {
        note(&mut self.peaks, name, Goals::default(), builder, mib);
    }

    /// The page, in Markdown.
    pub(crate) fn render(&self) -> String {
        let facts = Facts::now();
        let mut text = String::from("# Builds, beside the reference engine\n\n");
        let _ = writeln!(
            text,
            "Written by `make bench-build` on {}, commit {}: {}. {} processors, load {} at the beginning and {} at the end. \
             Medians of {} rounds in ms, the whole of `docker build` as a user waits for it; the engines take turns, another one beginning each time, each in \
             a private host of the same kind, on a new ext4 of its own, from an image of Debian's busybox. Many files are {} of 1 KiB, which one COPY brings in.\n\n\
             Uncached is `--no-cache` with files that nobody has seen, in a folder of which the client has sent nothing before; \
             no context was deleted until the end. After each build, writing back was waited for, untimed; its image was run to see \
             that the files are right, and the client must have told of as many cached steps as there may be. The client by itself is \
             `docker buildx version` or `docker --version`: what no engine can save.",
            facts.date,
            facts.commit,
            self.engines,
            facts.processors,
            self.begin.load,
            facts.load,
            self.rounds,
            self.files,
        );
        for door in DOORS {
            let name = match door {
                Door::BuildKit => "BuildKit (`docker build`, by way of buildx)",
                Door::Classic => "the classic builder (`DOCKER_BUILDKIT=0`)",
            };
            let _ = writeln!(text, "\n## With {name}\n\n| what | wherry | dockerd | ratio | wanted |");
            let _ = writeln!(text, "| --- | ---: | ---: | ---: | --- |");
            for row in &self.times {
                let (ours, theirs) = (row.median((door, true)), row.median((door, false)));
                let ratio = ours / theirs;
                let wanted = row.goals.of(door).map_or(String::new(), |goal| {
                    format!("≤ {goal}: {}", if ratio <= goal { "reached" } else { "**missed**" })
                });
                let cells = [cell(ours, 0), cell(theirs, 0), cell(ratio, 2)].join(" | ");
                let _ = writeln!(text, "| {} | {cells} | {wanted} |", row.name);
            }
        }
        self.render_peaks(&mut text);
        text
    }

    fn render_peaks(&self, text: &mut String) {
        let _ = writeln!(
            text,
            "\n## Memory\n\nThe most PSS, in MiB, of all of the engine's own processes during an uncached build, sampled in a \
             round of its own; what the steps themselves run is not counted.\n\n\
             | what | door | wherry | dockerd | wanted |\n| --- | --- | ---: | ---: | --- |"
        );
        for row in &self.peaks {
            for door in DOORS {
                let ours = row.median((door, true));
                let verdict = if ours < MEMORY_LIMIT_MIB { "reached" } else { "**missed**" };
                let cells = [cell(ours, 1), cell(row.median((door, false)), 1)].join(" | ");
                let _ =
                    writeln!(text, "| {} | {door:?} | {cells} | < {MEMORY_LIMIT_MIB}: {verdict} |", row.name);
            }
        }
    }
}

fn note(rows: &mut Vec<Row>, name: &'static str, goals: Goals, builder: &Builder, value: f64) {
    let at = rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
        rows.push(Row { name, goals, values: Vec::new() });
        rows.len() - 1
    });
    rows[at].values.push(((builder.door, builder.is_ours), value));
}

fn cell(value: f64, digits: usize) -> String {
    if value.is_nan() { "–".to_owned() } else { format!("{value:.digits$}") }
}
