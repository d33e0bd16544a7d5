//! Five pages. `integration/networks.md`: what of networks is proven by which test, from `integration/table/networks.txt`.
//! `integration/runtime.md`: the same of the runtime, from `integration/table/runtime.txt`.
//! `integration/builds.md` and `integration/compose.md`: the same of builds and of Compose, from `builds.txt` and `compose.txt`.
//! `integration/endpoints.md`: what of Docker's API v1.51 is proven by which test. The page is made here from the names of
//! all endpoints, fields and flags (`integration/table/names.txt`), the cases of `tests/cases/options.json`, and
//! `integration/table/proofs.txt`; a test that it names must exist. `UPDATE=1` writes it, otherwise it must be what stands there.

#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// The specification of the API, where there is one beside the repository.
const SPECIFICATION: &str = "../shared/api/docker-engine-api-v1.51.yaml";
/// Paths below these are refused as a whole.
const REFUSED: [(&str, &str); 7] = [
    ("/swarm", "refused: swarm mode comes later"),
    ("/nodes", "refused: swarm mode comes later"),
    ("/services", "refused: swarm mode comes later"),
    ("/tasks", "refused: swarm mode comes later"),
    ("/secrets", "refused: swarm mode comes later"),
    ("/configs", "refused: swarm mode comes later"),
    ("/plugins", "refused: plugins are not supported"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[derive(Default)]
struct Row {
    tests: Vec<String>,
    cases: Vec<String>,
    refused: usize,
    differs: Vec<String>,
    note: String,
}

/// All tests of a folder by `module::function`, and why those are ignored that `make test` does not run by itself.
struct Tests(BTreeMap<String, Option<String>>);

impl Tests {
    /// How a test is shown that proves something: one that is ignored says what it needs, and which target runs it.
    fn shown(&self, test: &str, named: &str, by: &str) -> String {
        let ignored =
            self.0.get(test).unwrap_or_else(|| panic!("there is no test {named}, which {by} names"));
        match ignored {
            None => named.to_owned(),
            Some(why) => {
                assert!(
                    why.contains("make "),
                    "{named}, which {by} names, is ignored, and no target runs it: {why:?}"
                );
                format!("{named} (by itself: {why})")
            }
        }
    }
}

/// The reason in `#[ignore = "…"]`; an empty one in `#[ignore]`.
fn ignored(attribute: &str) -> Option<String> {
    let rest = attribute.trim().strip_prefix("#[ignore")?;
    Some(rest.trim_start_matches([' ', '=', '"']).trim_end_matches([']', '"']).to_owned())
}

fn all_tests(folder: &str) -> Tests {
    fn look_into(folder: &Path, module: &str, tests: &mut BTreeMap<String, Option<String>>) {
        for entry in std::fs::read_dir(folder).expect("the tests' folder") {
            let path = entry.expect("an entry").path();
            let Some(name) = path.file_stem().and_then(|name| name.to_str()) else { continue };
            let own = if name == "mod" { module.to_owned() } else { format!("{module}{name}::") };
            if path.is_dir() {
                look_into(&path, &own, tests);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let mut lines = text.lines().peekable();
            while let Some(line) = lines.next() {
                if line.trim() != "#[test]" && !line.trim().starts_with("#[tokio::test") {
                    continue;
                }
                let mut why = None;
                while let Some(attribute) = lines.next_if(|line| line.trim().starts_with("#[")) {
                    why = ignored(attribute).or(why);
                }
                let code = lines.next().unwrap_or_default().trim().trim_start_matches("async ");
                if let Some((name, _)) = code.strip_prefix("fn ").and_then(|code| code.split_once('(')) {
                    tests.insert(format!("{own}{name}"), why);
                }
            }
        }
    }
    let mut tests = BTreeMap::new();
    look_into(&root().join(folder), "", &mut tests);
    Tests(tests)
}

fn rows() -> (Vec<String>, BTreeMap<String, Row>) {
    let names: Vec<String> = read("integration/table/names.txt").lines().map(str::to_owned).collect();
    let mut rows: BTreeMap<String, Row> = names.iter().map(|name| (name.clone(), Row::default())).collect();
    let tests = all_tests("tests/tests/e2e");
    for line in read("integration/table/proofs.txt").lines().filter(|l| !l.starts_with('#') && !l.is_empty())
    {
        let mut parts = line.split('|').map(str::trim);
        let (name, proofs, note) = (parts.next(), parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let row = name.and_then(|name| rows.get_mut(name)).unwrap_or_else(|| panic!("no such name: {line}"));
        for test in proofs.split(',').map(str::trim).filter(|test| !test.is_empty()) {
            row.tests.push(tests.shown(test, test, "proofs.txt"));
        }
        note.clone_into(&mut row.note);
    }
    let cases: Value = serde_json::from_str(&read("tests/cases/options.json")).expect("JSON");
    let recorded: Value = serde_json::from_str(&read("tests/cases/options.dockerd.json")).expect("JSON");
    for case in cases.as_array().expect("a list") {
        let name = case["name"].as_str().expect("a name");
        assert!(recorded[name].is_object(), "{name} has no recorded answer of dockerd's");
        for covered in case["covers"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            // Some names are not in the specification, like options of old API versions.
            let row = rows.entry(covered.to_owned()).or_default();
            row.cases.push(name.to_owned());
            row.refused += usize::from(recorded[name]["refused"].is_array());
            if let Some(because) = case["because"].as_str() {
                row.differs.push(format!("{name}: {because}"));
            }
        }
    }
    let mut order = names.clone();
    order.extend(rows.keys().filter(|name| !names.contains(name)).cloned());
    (order, rows)
}

fn cell(name: &str, row: &Row) -> (String, String) {
    let mut proof = row.tests.join(", ");
    if !row.cases.is_empty() {
        let count = row.cases.len();
        let shown: Vec<&str> = row.cases.iter().take(4).map(String::as_str).collect();
        let more =
            if count > shown.len() { format!(" and {} more", count - shown.len()) } else { String::new() };
        let comma = if proof.is_empty() { "" } else { ", " };
        write!(proof, "{comma}{count} cases: {}{more}", shown.join(", ")).expect("text");
    }
    let path = name.split(' ').nth(1).unwrap_or("");
    let area = REFUSED.iter().find(|(area, _)| path == *area || path.starts_with(&format!("{area}/")));
    let mut note = match area {
        Some((_, why)) if row.note.is_empty() => (*why).to_owned(),
        _ => row.note.clone(),
    };
    if proof.is_empty() && note.is_empty() {
        "no test names it yet".clone_into(&mut note);
    }
    if !row.differs.is_empty() {
        let space = if note.is_empty() { "" } else { "; " };
        write!(note, "{space}differs: {}", row.differs.join("; ")).expect("text");
    }
    (proof, note)
}

/// A heading, and which names stand below it.
type Section = (&'static str, fn(&str) -> bool);

fn page() -> String {
    let (order, rows) = rows();
    let sections: [Section; 3] = [
        ("Endpoints", |name| name.contains(" /")),
        ("Fields of a container's settings", |name| !name.contains(" /") && !name.starts_with("--")),
        ("Flags of docker run, create and update", |name| name.starts_with("--")),
    ];
    let mut page = String::from(
        "# Endpoints and options, and the tests that prove them\n\nMade by `UPDATE=1 cargo nextest run -p wherry-tests --test table`, \
         not by hand. Tests are those of `tests/tests/e2e`; a case is one of `tests/cases/options.json`, a request whose outcome (answer, \
         settings, what the program in the container sees) is compared with what dockerd 28.5 answered.\n",
    );
    for (title, belongs) in sections {
        let named: Vec<&String> = order.iter().filter(|name| belongs(name)).collect();
        let proven = named.iter().filter(|name| !cell(name, &rows[**name]).0.is_empty()).count();
        write!(
            page,
            "\n## {title}\n\n{proven} of {} have a test.\n\n| | proof | note |\n| --- | --- | --- |\n",
            named.len()
        )
        .expect("text");
        for name in named {
            let (proof, note) = cell(name, &rows[name]);
            writeln!(page, "| `{name}` | {proof} | {} |", note.replace('|', "\\|")).expect("text");
        }
    }
    page
}

/// The page about networks: what has no test is not on it.
fn networks() -> String {
    let (e2e, netd) = (all_tests("tests/tests/e2e"), all_tests("netd/tests/it"));
    let page = "# Networks, and the tests that prove what they do\n\nMade by `UPDATE=1 cargo nextest run -p wherry-tests --test table` from \
         `integration/table/networks.txt`, not by hand. Tests are those of `tests/tests/e2e`, which ask dockerd 28.5 the same (`make \
         test-reference`); those of netd alone, `netd::…`, are in `netd/tests/it`.\n";
    rows_of("networks.txt", page, |test| match test.strip_prefix("netd::") {
        Some(of_netd) => netd.shown(of_netd, test, "networks.txt"),
        None => e2e.shown(test, test, "networks.txt"),
    })
}

/// The page about the runtime, likewise.
fn runtime() -> String {
    let (tests, units) = (all_tests("runtime/tests"), all_tests("runtime/src"));
    let page = "# The runtime, and the tests that prove what it does\n\nMade by `UPDATE=1 cargo nextest run -p wherry-tests --test table` from \
         `integration/table/runtime.txt`, not by hand: what the specification 1.3 has for Linux, what runc's command line has, and what must not \
         go wrong. Tests are those of `runtime/tests`, by program and module, run by `make test` and all of them by `make test-vm` on cgroup version 2 \
         with systemd; `src::…` are in `runtime/src`. Those that `make test` does not run by itself say what they need. What runc's, crun's and \
         youki's own tests say is in `integration/results/conformance-*.md`; field by field it is told in `runtime/SPECIFICATION.md`.\n";
    rows_of("runtime.txt", page, |test| match test.strip_prefix("src::") {
        Some(unit) => units.shown(unit, test, "runtime.txt"),
        None => tests.shown(test, test, "runtime.txt"),
    })
}

/// The page about builds, likewise.
fn builds() -> String {
    let e2e = all_tests("tests/tests/e2e");
    let others = [
        ("dockerfile::", vec![all_tests("crates/dockerfile/src"), all_tests("crates/dockerfile/tests")]),
        ("wire::", vec![all_tests("crates/buildkit/tests/wire")]),
        ("engine::", vec![all_tests("engine/src/build")]),
    ];
    let compared = read("integration/results/dockerfiles.md");
    let page = "# Builds, and the tests that prove what they do\n\nMade by `UPDATE=1 cargo nextest run -p wherry-tests --test table` from \
         `integration/table/builds.txt`, not by hand. Tests are those of `tests/tests/e2e`, which ask dockerd 28.5 the same (`make \
         test-reference`); those of the language alone, `dockerfile::…`, are in `crates/dockerfile`, of BuildKit's wire, `wire::…`, in \
         `crates/buildkit/tests/wire`, of the builder's parts, `engine::…`, in `engine/src/build`. `corpus::…` is a folder of \
         `integration/dockerfiles`: `make compare-builds` found both engines' images, or errors, the same.\n";
    rows_of("builds.txt", page, |test| {
        if let Some(name) = test.strip_prefix("corpus::") {
            let row = format!("| {name} | same");
            let is_same = |line: &str| line.starts_with(&row) && !line.contains("differences**");
            assert!(compared.lines().any(is_same), "{test} was not found the same, as builds.txt says");
            return test.to_owned();
        }
        match others.iter().find_map(|(prefix, all)| Some((test.strip_prefix(prefix)?, all))) {
            Some((name, all)) => {
                let of_it =
                    all.iter().find(|tests| tests.0.contains_key(name)).or(all.first()).expect("a folder");
                of_it.shown(name, test, "builds.txt")
            }
            None => e2e.shown(test, test, "builds.txt"),
        }
    })
}

/// The page about Compose.
fn compose() -> String {
    let tests = all_tests("tests/tests/e2e");
    let page = "# Compose, and the tests that prove what works\n\nMade by `UPDATE=1 cargo nextest run -p wherry-tests --test table` from \
         `integration/table/compose.txt`, not by hand. Tests are those of `tests/tests/e2e`, which ask dockerd 28.5 the same (`make \
         test-reference`). Each of `compose_cases` takes the steps of a project in `tests/compose`, and compares what is printed, exit codes, settings \
         and events with what was recorded with dockerd.\n";
    rows_of("compose.txt", page, |test| match test.strip_prefix("compose_cases::") {
        // A macro makes one for each folder.
        Some(name) if root().join("tests/compose").join(name).join("steps").exists() => test.to_owned(),
        _ => tests.shown(test, test, "compose.txt"),
    })
}

/// A page made of the rows of a file in `integration/table`: `name | tests | note`, below headings.
fn rows_of(file: &str, introduction: &str, shown: impl Fn(&str) -> String) -> String {
    let mut page = introduction.to_owned();
    for line in
        read(&format!("integration/table/{file}")).lines().filter(|l| !l.starts_with("# ") && !l.is_empty())
    {
        if let Some(title) = line.strip_prefix("## ") {
            write!(page, "\n## {title}\n\n| | proof | note |\n| --- | --- | --- |\n").expect("text");
            continue;
        }
        let [name, proofs, note] = line.split('|').map(str::trim).collect::<Vec<_>>()[..] else {
            panic!("not `name | tests | note`: {line}");
        };
        let proofs: Vec<String> = proofs.split(", ").map(&shown).collect();
        writeln!(page, "| {name} | {} | {note} |", proofs.join(", ")).expect("text");
    }
    page
}

#[test]
fn the_pages_are_true() {
    for (path, page) in [
        ("integration/endpoints.md", page()),
        ("integration/networks.md", networks()),
        ("integration/runtime.md", runtime()),
        ("integration/compose.md", compose()),
        ("integration/builds.md", builds()),
    ] {
        let file = root().join(path);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&file, &page).expect("write the page");
        }
        let there = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            there == page,
            "{path} is not up to date: UPDATE=1 cargo nextest run -p wherry-tests --test table"
        );
    }
}

#[test]
fn every_endpoint_of_the_specification_is_in_it() {
    let Ok(specification) = std::fs::read_to_string(root().join(SPECIFICATION)) else { return };
    let names = read("integration/table/names.txt");
    let mut path = "";
    let mut missing = Vec::new();
    for line in specification.lines() {
        if let Some(found) = line.strip_prefix("  /").and_then(|rest| rest.strip_suffix(':')) {
            path = found;
        } else if let Some(found) = line.strip_prefix("  \"/").and_then(|rest| rest.strip_suffix("\":")) {
            path = found;
        } else if let Some(method) = line.strip_prefix("    ").and_then(|rest| rest.strip_suffix(':'))
            && matches!(method, "get" | "post" | "put" | "delete" | "head")
        {
            let name = format!("{} /{path}", method.to_uppercase());
            if !names.lines().any(|known| known == name) {
                missing.push(name);
            }
        }
    }
    assert!(missing.is_empty(), "{missing:?}");
}
