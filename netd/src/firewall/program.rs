//! Running the programs that read and change the host's rules.

use std::io::{self, Write};
use std::process::{Child, Command, Stdio};

use super::watch::Helpers;
use crate::protocol::Failure;

/// A change that is being made; `None` if there was nothing to change.
pub(super) struct Running(Option<(&'static str, Child)>);

impl Running {
    /// Starts `program`, which changes rules as `text` says; without a text there is nothing to do.
    pub(super) fn start(
        program: &'static str,
        arguments: &[&str],
        text: Option<String>,
        helpers: &Helpers,
    ) -> Result<Self, Failure> {
        let Some(text) = text else { return Ok(Self(None)) };
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| not_run(program, &e))?;
        helpers.note(child.id());
        if let Some(mut stdin) = child.stdin.take() {
            // Should it end early, its own message says more than our broken pipe.
            let _ = stdin.write_all(text.as_bytes());
        }
        Ok(Self(Some((program, child))))
    }

    pub(super) fn finish(self) -> Result<(), Failure> {
        let Some((program, child)) = self.0 else { return Ok(()) };
        let output = child.wait_with_output().map_err(|e| not_run(program, &e))?;
        if output.status.success() { Ok(()) } else { Err(refused("set", program, &output.stderr)) }
    }
}

/// What a program prints that changes nothing.
pub(super) fn read(program: &'static str, arguments: &[&str]) -> Result<String, Failure> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .map_err(|e| not_run(program, &e))?;
    if !output.status.success() {
        return Err(refused("read", program, &output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn not_run(program: &str, error: &io::Error) -> Failure {
    let package = if program == "nft" { "nftables" } else { "iptables" };
    let reason = match error.kind() {
        io::ErrorKind::NotFound => {
            format!("not found in PATH; install the package {package}, or run with --iptables=false")
        }
        _ => error.to_string(),
    };
    Failure::System { step: "run".into(), subject: program.into(), reason, errno: error.raw_os_error() }
}

fn refused(verb: &str, program: &str, stderr: &[u8]) -> Failure {
    Failure::System {
        step: format!("{verb} the firewall rules with"),
        subject: program.into(),
        reason: String::from_utf8_lossy(stderr).trim().replace('\n', "; "),
        errno: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named() {
        for (program, package) in [("iptables-restore", "package iptables"), ("nft", "package nftables")] {
            let failure = not_run(program, &io::ErrorKind::NotFound.into()).to_string();
            assert!(failure.contains(&format!("{program}: not found in PATH")), "{failure}");
            assert!(failure.contains(package), "{failure}");
        }
    }
}
