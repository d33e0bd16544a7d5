//! A bundle to spoil, and what the machine looks like before and after.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::{Bundle, cgroup_folders};

/// What must be the same before and after.
#[derive(Debug, PartialEq, Eq)]
struct Trace {
    cgroups: Vec<PathBuf>,
    state: BTreeSet<PathBuf>,
    mounts: String,
    processes: Vec<String>,
}

/// A bundle with a state folder of its own.
pub(crate) struct Scene {
    pub(crate) bundle: Bundle,
}

impl Scene {
    pub(crate) fn new() -> Self {
        let bundle = Bundle::new();
        fs::create_dir(bundle.path().join("state")).unwrap();
        Scene { bundle }
    }

    pub(crate) fn id(&self) -> &str {
        &self.bundle.id
    }

    pub(crate) fn path(&self) -> &str {
        self.bundle.path().to_str().unwrap()
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.bundle.path().join("state")
    }

    /// Writes `config.json`.
    pub(crate) fn write(&self, text: impl AsRef<[u8]>) {
        fs::write(self.bundle.path().join("config.json"), text).unwrap();
    }

    /// Writes the bundle's specification with some fields changed.
    pub(crate) fn write_with(&self, fields: &[(&str, Value)]) {
        let mut spec = self.bundle.spec.clone();
        for (pointer, value) in fields {
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            match spec.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent}")) {
                Value::Array(list) if key == "-" => list.push(value.clone()),
                Value::Object(object) if value.is_null() => drop(object.remove(key)),
                place => place[key] = value.clone(),
            }
        }
        self.write(spec.to_string());
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wherry-runtime"));
        command.arg("--root").arg(self.root()).args(args).stdin(Stdio::null());
        command
    }

    /// `run` or `create` must be refused; gives the message.
    pub(crate) fn refused(&self, command: &str) -> String {
        self.refused_by(self.command(&[command, "--bundle", self.path(), self.id()]), 1)
    }

    /// A command must be refused with this exit code; gives the message.
    pub(crate) fn refused_by(&self, mut command: Command, code: i32) -> String {
        let before = self.trace();
        let output = command.output().unwrap();
        assert!(!output.status.success(), "{command:?} is not refused");
        let message = message(&output);
        assert_eq!(output.status.code(), Some(code), "{message}");
        assert_eq!(output.stdout, b"", "{message}");
        assert_eq!(self.trace(), before, "something changed: {message}");
        message
    }

    fn trace(&self) -> Trace {
        let mut state = BTreeSet::new();
        walk(&self.root(), &mut state);
        let root = self.root();
        let of_ours = |pid: &Path| {
            let command = fs::read(pid.join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            command.contains(root.to_str().unwrap()).then_some(command)
        };
        let all = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        // mounts of other tests come and go; this bundle's path is in all that could be made here
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let ours = mounts.lines().filter(|line| line.contains(self.path())).collect::<Vec<_>>().join("\n");
        Trace {
            cgroups: cgroup_folders(self.id()),
            state,
            mounts: ours,
            processes: all.filter_map(|pid| of_ours(&pid)).collect(),
        }
    }
}

fn walk(folder: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        found.insert(entry.path());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), found);
        }
    }
}

/// The one line that was said, without time, level and quotes.
pub(crate) fn message(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let line = stderr.strip_suffix('\n').unwrap_or_else(|| panic!("no line: {stderr:?}"));
    assert!(!line.contains('\n'), "more than one line: {stderr}");
    let (head, text) = line.split_once("msg=").unwrap_or_else(|| panic!("no message: {line}"));
    assert!(head.ends_with("level=error "), "{line}");
    let text = text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text);
    text.replace("\\\"", "\"").replace("\\\\", "\\")
}
