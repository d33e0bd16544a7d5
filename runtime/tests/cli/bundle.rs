//! The command with a bundle.

use std::process::{Command, Output, Stdio};

use serde_json::Value;

use crate::support::Bundle;

/// A bundle on disk, and a root of its own for the command's state.
pub(crate) struct Cli {
    pub(crate) bundle: Bundle,
}

impl Cli {
    pub(crate) fn new(bundle: Bundle) -> Self {
        std::fs::write(bundle.path().join("config.json"), bundle.spec.to_string()).unwrap();
        Cli { bundle }
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wherry-runtime"));
        command.arg("--root").arg(self.bundle.path().join("state")).args(args).stdin(Stdio::null());
        command
    }

    pub(crate) fn output(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Runs a command that must succeed.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.output(args);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must fail.
    pub(crate) fn fails(&self, args: &[&str]) -> (i32, String) {
        let output = self.output(args);
        assert!(!output.status.success(), "{args:?}");
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    pub(crate) fn id(&self) -> &str {
        &self.bundle.id
    }

    pub(crate) fn path(&self) -> &str {
        self.bundle.path().to_str().unwrap()
    }

    /// Makes a container without any output that would keep a pipe open.
    pub(crate) fn create(&self) {
        let mut command = self.command(&["create", "--bundle", self.path(), self.id()]);
        assert!(command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    }

    pub(crate) fn state(&self) -> Value {
        serde_json::from_str(&self.ok(&["state", self.id()])).unwrap()
    }
}
