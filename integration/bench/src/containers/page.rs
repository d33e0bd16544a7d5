//! The table.

use serde_json::Value;
use wherry_bench::contestant::{Contestant, timed};
use wherry_bench::{Facts, median};

/// One measurement of all engines.
#[derive(Debug)]
pub(crate) struct Row {
    name: String,
    of_dockerd: Option<f64>,
    of_podman: Option<f64>,
    milliseconds: Vec<Vec<f64>>,
}

impl Row {
    pub(crate) fn new(name: &str, of_dockerd: Option<f64>, of_podman: Option<f64>, engines: usize) -> Row {
        Row { name: name.to_owned(), of_dockerd, of_podman, milliseconds: vec![Vec::new(); engines] }
    }

    pub(crate) fn add(&mut self, engine: usize, milliseconds: f64) {
        self.milliseconds[engine].push(milliseconds);
    }

    fn render(&self, names: &[&str]) -> String {
        let medians: Vec<f64> = self.milliseconds.iter().map(|times| median(times)).collect();
        let ratio = |name: &str| {
            let other = names.iter().position(|n| *n == name)?;
            Some(medians[0] / medians[other])
        };
        let shown = |ratio: Option<f64>| ratio.map_or(String::new(), |r| format!("{r:.2}"));
        let (of_dockerd, of_podman) = (ratio("dockerd"), ratio("podman"));
        let mut wanted = Vec::new();
        for (limit, ratio, whose) in
            [(self.of_dockerd, of_dockerd, "dockerd's"), (self.of_podman, of_podman, "podman's")]
        {
            if let (Some(limit), Some(ratio)) = (limit, ratio) {
                let verdict = if ratio <= limit { "reached" } else { "**missed**" };
                wanted.push(format!("≤ {limit:.2} of {whose}: {verdict}"));
            }
        }
        let times: Vec<String> = medians.iter().map(|m| format!("{m:.1}")).collect();
        format!(
            "| {} | {} | {} | {} | {} |\n",
            self.name,
            times.join(" | "),
            shown(of_dockerd),
            shown(of_podman),
            wanted.join(", ")
        )
    }
}

/// The page as it grows.
#[derive(Debug)]
pub(crate) struct Page {
    engines: Vec<(&'static str, String)>,
    rounds: usize,
    rows: Vec<Row>,
    more: Vec<String>,
}

impl Page {
    pub(crate) fn new(contestants: &[Contestant], rounds: usize) -> Page {
        let engines = contestants.iter().map(|c| (c.name, c.version.clone())).collect();
        Page { engines, rounds, rows: Vec::new(), more: Vec::new() }
    }

    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// What is kept for an idle container, and what the engine itself uses.
    pub(crate) fn add_memory(&mut self, contestant: &mut Contestant, idle: usize) {
        let before = contestant.memory();
        contestant.start_idle(idle);
        // What has just been started is not idle yet.
        std::thread::sleep(std::time::Duration::from_secs(3));
        let after = contestant.memory();
        let each = (after.total_pss_kib().saturating_sub(before.total_pss_kib())) as f64 / idle as f64;
        let engine: u64 = before
            .0
            .iter()
            .filter(|(name, _)| {
                !matches!(name.as_str(), "wherry-monitor" | "conmon" | "containerd-shim-runc-v2")
            })
            .map(|(_, used)| used.pss_kib)
            .sum();
        let wanted = if contestant.name == "wherry" {
            let verdict = |fits: bool| if fits { "reached" } else { "**missed**" };
            format!(
                " (wanted: at most 307: {}; less than 25600: {})",
                verdict(each <= 307.2),
                verdict(engine < 25_600)
            )
        } else {
            String::new()
        };
        self.more.push(format!("- {}: {each:.0} KiB PSS for each of {idle} idle containers; the engine's own processes, after use, {engine} KiB{wanted}\n", contestant.name));
    }

    /// Lists and starts of our engine with many containers; the others would need an hour to make them.
    pub(crate) fn add_crowd(&mut self, mut own: Contestant, crowd: usize, rounds: usize) {
        let running = crowd / 10;
        for n in 0..crowd {
            let id = own.create("none", &["sleep", "3600"]);
            if n < running {
                own.request("POST", &format!("/containers/{id}/start"), &Value::Null);
            }
        }
        let verdict = |fits: bool| if fits { "reached" } else { "**missed**" };
        let lists: Vec<f64> = (0..rounds * 3).map(|_| own.list(true)).collect();
        let list = median(&lists);
        self.more.push(format!("- `GET /containers/json?all=1` of {crowd} containers, {running} of them running: {list:.1} ms (wanted: less than 10: {})\n", verdict(list < 10.0)));
        let starts: Vec<f64> = (0..rounds.div_ceil(2))
            .map(|_| {
                own.host.kill();
                timed(|| own.host.start())
            })
            .collect();
        let start = median(&starts);
        self.more.push(format!("- start of the engine with {crowd} containers, {running} of them running, until it answers: {start:.0} ms (wanted: less than 300: {})\n", verdict(start < 300.0)));
        own.host.discard();
    }

    pub(crate) fn render(&self) -> String {
        let facts = Facts::now();
        let names: Vec<&str> = self.engines.iter().map(|(name, _)| *name).collect();
        let versions: Vec<String> =
            self.engines.iter().map(|(name, version)| format!("{name} {version}")).collect();
        let mut text = format!(
            "# Containers, measured beside the reference engines\n\nWritten by `make bench-containers` on {}, commit {}: {}. {} rounds in which the engines take \
             turns, each in a private host of the\nsame kind (`tests/host.sh`), image `busybox`; {} cores, load {} at the end. Medians in ms.\n\n",
            facts.date,
            facts.commit,
            versions.join(", "),
            self.rounds,
            facts.processors,
            facts.load
        );
        text += &format!("| what | {} | of dockerd's | of podman's | wanted |\n", names.join(" | "));
        text += &format!("| --- |{} --- | --- | --- |\n", " ---: |".repeat(names.len()));
        self.rows.iter().for_each(|row| text += &row.render(&names));
        text += "\n";
        self.more.iter().for_each(|line| text += line);
        text
    }
}
