//! What an engine must not leave behind on its host when its containers are gone.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::Engine;
use crate::init::Init;

/// What was there before the first container.
#[derive(Debug)]
pub(crate) struct Baseline(BTreeSet<String>);

impl Baseline {
    pub(crate) fn take(init: &Init, engine: &Engine) -> Baseline {
        Baseline(survey(init, engine))
    }
}

/// Waits until nothing is there that was not there before.
pub(crate) fn check(init: &Init, engine: &Engine, baseline: &Baseline) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(15);
    loop {
        let left: Vec<String> = survey(init, engine).difference(&baseline.0).cloned().collect();
        if left.is_empty() {
            return;
        }
        assert!(
            std::time::Instant::now() < deadline,
            "left behind by containers that were removed:\n{}\nthe engine's log ends:\n{}",
            left.join("\n"),
            engine.log()
        );
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

/// Processes, mounts, cgroups, network devices, rules: one line of text for each.
fn survey(init: &Init, engine: &Engine) -> BTreeSet<String> {
    let mut found = processes(init);
    let mounts = engine_mounts(init, engine).unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    // dockerd keeps the host's own network namespace once it was used.
    found.extend(
        points.filter(|point| !point.ends_with("/netns/default")).map(|point| format!("mount {point}")),
    );
    for folder in init.cgroups() {
        cgroups(&folder, &mut found);
    }
    let rules = init.exec("iptables-save").stdout + &init.exec("ip6tables-save").stdout;
    found.extend(rules.lines().filter(|l| l.starts_with("-A")).map(|l| format!("rule {l}")));
    // (What iptables writes to nftables has been listed already.)
    let tables =
        ["ip", "ip6"].map(|family| init.exec(&["nft", "-s", "list", "table", family, "docker-bridges"]));
    for (family, table) in ["ip", "ip6"].into_iter().zip(tables) {
        // A policy is set with the first network of a family, and stays.
        let lines = table.stdout.lines().map(str::trim).filter(|line| !line.starts_with("type "));
        found.extend(lines.map(|line| format!("{family} {line}")));
    }
    let links = init.exec("ip -o link").stdout;
    let links = links.lines().filter_map(|l| l.split(": ").nth(1));
    // (dockerd leaves bridges behind of networks that it could not make.)
    let links = links.filter(|name| !(engine.is_reference() && name.starts_with("br-")));
    found.extend(links.map(|name| format!("link {name}")));
    let containers = fs::read_dir(engine.root().join("data/containers")).into_iter().flatten().flatten();
    found.extend(containers.map(|entry| format!("folder {}", entry.path().display())));
    found
}

/// All processes but process 1 and those that serve the whole host, of which there may be one each (netd has a
/// standby).
fn processes(init: &Init) -> BTreeSet<String> {
    let mut servants = vec!["wherryd", "wherry-netd", "wherry-netd", "dockerd", "containerd"];
    let mut found = BTreeSet::new();
    for (pid, line) in init.processes() {
        let program = line.split(' ').next().unwrap_or_default();
        let name = program.rsplit('/').next().unwrap_or_default();
        let state = state(pid);
        if pid == init.pid || state.is_empty() {
            continue;
        }
        if let Some(place) = servants.iter().position(|servant| *servant == name) {
            servants.swap_remove(place);
        } else {
            found.insert(format!("process {line} ({state})"));
        }
    }
    found
}

/// The letter for a process's state; empty if it is gone.
fn state(pid: u32) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().and_then(|s| s.split(' ').next()).unwrap_or_default().to_owned()
}

/// The mounts as the engine sees them (a reference dockerd has a mount namespace of its own).
fn engine_mounts(init: &Init, engine: &Engine) -> Option<String> {
    let pid = init.outer_pid(&engine.pid())?;
    fs::read_to_string(format!("/proc/{pid}/mountinfo")).ok()
}

/// Cgroups that are named for a container.
fn cgroups(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|t| t.is_dir()) {
            continue;
        }
        if entry.file_name().len() >= 64 {
            found.insert(format!("cgroup {}", entry.path().display()));
        }
        cgroups(&entry.path(), found);
    }
}
