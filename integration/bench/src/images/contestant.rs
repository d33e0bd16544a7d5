//! One engine that takes part, in its own host.

use std::fs;
use std::time::Instant;

use serde_json::Value;
use wherry_bench::contestant::{Reference, rest};
use wherry_bench::median;
use wherry_tests::Host;
use wherry_tests::engine::Binary;

use crate::archive::Archives;

const PULLED: &str = "127.0.0.1:5000/big:latest";
const KIB_PER_MIB: f64 = 1024.0;

/// A running engine with what is measured on it.
#[derive(Debug)]
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    pub(crate) version: String,
    host: Host,
    peak_kib: u64,
}

impl Contestant {
    /// Ours, and those of the lab that are there.
    pub(crate) fn all(archives: &Archives) -> Vec<Contestant> {
        let mut all = vec![Contestant::start("wherry", Binary::from_environment(), &[], archives)];
        let containerd: &[&str] = &["--feature", "containerd-snapshotter=true"];
        let others = [
            ("dockerd, overlay2", Reference::Dockerd, &[][..]),
            ("dockerd, containerd", Reference::Dockerd, containerd),
            ("podman", Reference::Podman, &[]),
        ];
        for (name, reference, arguments) in others {
            all.extend(reference.binary().map(|it| Contestant::start(name, it, arguments, archives)));
        }
        all
    }

    fn start(name: &'static str, binary: Binary, arguments: &[&str], archives: &Archives) -> Contestant {
        let host = Host::of(binary, arguments);
        let version = host.docker("version --format '{{.Server.Version}}'").ok().out().to_owned();
        archives.serve(&host);
        Contestant { name, version, host, peak_kib: 0 }
    }

    /// Seconds of the first pull, through the client.
    pub(crate) fn pull(&mut self) -> f64 {
        self.forget_peaks();
        let seconds = self.docker(&["pull", "-q", PULLED]);
        self.note_peaks();
        seconds
    }

    /// Milliseconds of a pull that finds nothing new.
    pub(crate) fn pull_again(&mut self) -> f64 {
        let path = "/v1.41/images/create?fromImage=127.0.0.1:5000/big&tag=latest";
        let times: Vec<f64> = (0..5)
            .map(|_| {
                let begin = Instant::now();
                let answer = self.host.api("POST", path, &Value::Null).expect(200);
                assert!(answer.text().contains("up to date") || self.name == "podman", "{}", answer.text());
                begin.elapsed().as_secs_f64() * 1000.0
            })
            .collect();
        median(&times)
    }

    /// Seconds of a save to a file, through the client.
    pub(crate) fn save(&mut self) -> f64 {
        let file = self.host.folder().join("saved.tar");
        let seconds = self.docker(&["save", "-o", &file.display().to_string(), PULLED]);
        let bytes = fs::metadata(&file).expect("what was saved").len();
        // Whoever keeps compressed layers saves those.
        assert!(bytes > 200 << 20, "{} saved {bytes} bytes", self.name);
        fs::remove_file(file).expect("remove what was saved");
        seconds
    }

    /// Seconds until the client says that it is gone.
    pub(crate) fn remove(&mut self) -> f64 {
        let listed = self.host.docker("images -q --no-trunc --filter reference=*big*").ok();
        let mut words = vec!["rmi", "-f", PULLED];
        // After a load it has a name that depends on the engine.
        if !self.host.docker(&["image", "inspect", PULLED]).stdout.contains("RootFS") {
            words = vec!["rmi", "-f", listed.out()];
        }
        self.docker(&words)
    }

    /// Seconds of a load, through the client.
    pub(crate) fn load(&mut self, archives: &Archives) -> f64 {
        self.forget_peaks();
        let seconds = self.docker(&["load", "-q", "-i", &archives.big().display().to_string()]);
        self.note_peaks();
        seconds
    }

    /// Milliseconds of a list of a thousand images; ours only, since others take minutes to get them.
    pub(crate) fn list_many(&mut self, archives: &Archives) -> Option<f64> {
        if self.name != "wherry" {
            return None;
        }
        self.docker(&["load", "-q", "-i", &archives.many().display().to_string()]);
        let times: Vec<f64> = (0..20)
            .map(|_| {
                let begin = Instant::now();
                let answer = self.host.api("GET", "/v1.41/images/json", &Value::Null).expect(200);
                let milliseconds = begin.elapsed().as_secs_f64() * 1000.0;
                assert!(answer.json().as_array().is_some_and(|list| list.len() >= 1000));
                milliseconds
            })
            .collect();
        Some(median(&times))
    }

    /// Waits until nothing of the last step goes on.
    pub(crate) fn rest(&self) {
        rest(&self.host);
    }

    /// The most memory that the engine's processes together used while pulling or loading.
    pub(crate) fn peak_mib(&self) -> f64 {
        self.peak_kib as f64 / KIB_PER_MIB
    }

    /// Ends it.
    pub(crate) fn end(self) {
        self.host.discard();
    }

    fn docker(&self, line: &[&str]) -> f64 {
        let begin = Instant::now();
        self.host.docker(line).ok();
        begin.elapsed().as_secs_f64()
    }

    /// The engine's own processes.
    fn processes(&self) -> Vec<u32> {
        let servants = self.host.servants().into_iter();
        let is_ours = |line: &str| {
            let program = line.split(' ').next().unwrap_or_default();
            ["wherryd", "dockerd", "containerd", "podman"].iter().any(|name| program.ends_with(name))
        };
        servants.filter(|(_, line)| is_ours(line)).map(|(pid, _)| pid).collect()
    }

    fn forget_peaks(&self) {
        for pid in self.processes() {
            // 5 resets the peak to what is used now.
            let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
        }
    }

    fn note_peaks(&mut self) {
        let peak = |pid: &u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:").map(str::to_owned));
            line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        self.peak_kib = self.peak_kib.max(self.processes().iter().map(peak).sum());
    }
}
