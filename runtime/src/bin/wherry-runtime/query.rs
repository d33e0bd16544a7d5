//! `state`, `list`, `ps`.

use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Serialize;
use wherry_runtime::{Container, Status};

use crate::commands::print;
use crate::failure::Failure;
use crate::store::{self, Record, Store, status};

/// The version of the specification that this runtime knows.
pub(crate) const OCI_VERSION: &str = "1.2.1";

/// A container as runc shows it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct State {
    oci_version: String,
    id: String,
    pid: i32,
    status: Status,
    bundle: PathBuf,
    rootfs: PathBuf,
    created: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    owner: String,
}

impl State {
    fn new(record: Record, container: Option<&Container>, owner: String) -> Self {
        let status = status(container);
        State {
            oci_version: record.oci_version,
            id: record.state.id().to_owned(),
            pid: container.filter(|_| status != Status::Stopped).map_or(0, Container::pid),
            status,
            bundle: record.state.bundle().to_owned(),
            rootfs: record.rootfs,
            created: record.created,
            annotations: record.annotations,
            owner,
        }
    }
}

fn to_json<T: Serialize>(value: &T, pretty: bool) -> Result<String, Failure> {
    let text = if pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    text.map_err(Failure::file("write", "standard output"))
}

/// Shows one container.
pub(crate) fn state(store: &Store) -> Result<(), Failure> {
    let (record, container) = store.open()?;
    print(&to_json(&State::new(record, container.as_ref(), String::new()), true)?)
}

/// Shows all. Such as vanish meanwhile are left out.
pub(crate) fn list(root: &Path, json: bool, quiet: bool) -> Result<(), Failure> {
    let mut states = Vec::new();
    for id in store::ids(root)? {
        let (record, container) = match Store::new(root, &id).and_then(|store| store.open()) {
            Ok(opened) => opened,
            Err(Failure::NoSuchContainer) => continue,
            Err(failure) => {
                let _ = writeln!(std::io::stderr(), "load container {id}: {failure}");
                continue;
            }
        };
        let owner = std::fs::metadata(root.join(&id)).map(|meta| owner_name(meta.uid())).unwrap_or_default();
        states.push(State::new(record, container.as_ref(), owner));
    }
    if quiet {
        return print(&states.iter().map(|s| s.id.clone() + "\n").collect::<String>());
    }
    if json {
        return print(&to_json(&states, false)?);
    }
    let header = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let rows = states.into_iter().map(|s| {
        [s.id, s.pid.to_string(), s.status.to_string(), s.bundle.display().to_string(), s.created, s.owner]
    });
    print(&table(std::iter::once(header).chain(rows).collect()))
}

/// Columns at least 12 wide and 3 apart, as runc's.
fn table(rows: Vec<[String; 6]>) -> String {
    let mut widths = [0; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.len() + 3).max(12);
        }
    }
    let line = |row: &[String; 6]| {
        let (last, others) = row.split_last().map(|(l, o)| (l.as_str(), o)).unwrap_or_default();
        let cells: String = others.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells + last + "\n"
    };
    rows.iter().map(line).collect()
}

fn owner_name(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("#{uid}"))
}

/// Shows a container's processes, by the host's ps.
pub(crate) fn ps(store: &Store, json: bool, options: &[String]) -> Result<(), Failure> {
    let pids = match store.open()? {
        (_, Some(container)) => container.processes()?,
        (record, None) => record.state.processes()?,
    };
    if json {
        return print(&to_json(&pids, false)?);
    }
    let options: Vec<&str> =
        if options.is_empty() { vec!["-ef"] } else { options.iter().map(String::as_str).collect() };
    let output = Command::new("ps").args(options).output().map_err(Failure::file("run", "ps"))?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        return Err(Failure::Ps {
            status: output.status,
            output: String::from_utf8_lossy(&text).into_owned(),
        });
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let Some(column) = header.split_whitespace().position(|name| name == "PID") else {
        return Err(Failure::Arguments("couldn't find PID field in ps output"));
    };
    let mut out = format!("{header}\n");
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|pid| pid.parse::<i32>().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            out.push_str(line);
            out.push('\n');
        }
    }
    print(&out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns() {
        let row = |id: &str| [id, "11123", "running", "/tmp/b", "2026", "root"].map(str::to_owned);
        assert_eq!(
            table(vec![row("t2"), row("a-longer-id")]),
            "t2            11123       running     /tmp/b      2026        root\n\
             a-longer-id   11123       running     /tmp/b      2026        root\n"
        );
    }
}
