//! The host's firewall: what rules we want, and bringing the host to have them. Each change is one run
//! of iptables-restore, which takes all of it or nothing. If the host turns out to lack what a change
//! builds on (an administrator flushed the rules), everything is compared and mended.

mod mend;
pub(crate) mod rules;

use std::io::{self, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::protocol::Failure;
use rules::{BridgeRules, Change, Rule};

const RESTORE: &str = "iptables-restore";
const SAVE: &str = "iptables-save";
/// Seconds to wait for another program that changes the rules (iptables' legacy variant has such a lock).
const LOCK_SECONDS: &str = "60";

/// The rules that ought to be there, and for which networks.
#[derive(Debug, Default)]
struct Wanted {
    rules: Vec<Rule>,
    networks: Vec<BridgeRules>,
    forward_drop: bool,
}

/// The firewall of the host.
#[derive(Debug, Default)]
pub(crate) struct Firewall {
    wanted: Mutex<Wanted>,
}

/// A change that is being carried out; others wait until it is finished.
pub(crate) struct Pending<'a> {
    wanted: MutexGuard<'a, Wanted>,
    added: Vec<Rule>,
    running: Option<io::Result<Child>>,
}

impl Firewall {
    /// Sets what is wanted altogether, and brings the host to agree: what is right already stays as it is.
    pub(crate) fn reconcile(
        &self,
        rules: Vec<Rule>,
        networks: Vec<BridgeRules>,
        forward_drop: bool,
    ) -> Result<(), Failure> {
        let mut wanted = self.lock();
        *wanted = Wanted { rules, networks, forward_drop };
        mend(&wanted)
    }

    /// Compares and mends, if there is anything that we want.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        let wanted = self.lock();
        if wanted.rules.is_empty() { Ok(()) } else { mend(&wanted) }
    }

    /// Begins to add rules; they hold once [`Pending::finish`] returns.
    pub(crate) fn start_adding(&self, rules: Vec<Rule>) -> Pending<'_> {
        let mut wanted = self.lock();
        let change = Change { add: rules.iter().collect(), ..Change::default() };
        let running = change.render().map(|text| start(&text));
        wanted.rules.extend(rules.iter().cloned());
        Pending { wanted, added: rules, running }
    }

    /// Adds the rules of a network.
    pub(crate) fn add_network(&self, network: BridgeRules) -> Result<(), Failure> {
        let mut pending = self.start_adding(rules::bridge(&network));
        pending.wanted.networks.push(network);
        pending.finish()
    }

    /// Removes rules. They are not wanted any more even if this fails.
    pub(crate) fn remove(&self, rules: &[Rule]) -> Result<(), Failure> {
        let mut wanted = self.lock();
        wanted.rules.retain(|r| !rules.contains(r));
        let remove = rules.iter().map(|r| (r.table, r.chain, r.spec.as_str())).collect();
        let Some(text) = (Change { remove, ..Change::default() }).render() else { return Ok(()) };
        finish(start(&text)).or_else(|_| mend(&wanted))
    }

    /// Removes the rules of a network.
    pub(crate) fn remove_network(&self, network: &BridgeRules) -> Result<(), Failure> {
        self.remove(&rules::bridge(network))?;
        self.lock().networks.retain(|n| n.bridge != network.bridge);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Wanted> {
        self.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pending<'_> {
    /// Waits until the rules hold. If that fails none of them is left.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        let Some(running) = self.running.take() else { return Ok(()) };
        if finish(running).is_ok() {
            return Ok(());
        }
        mend(&self.wanted).inspect_err(|_| {
            self.wanted.rules.retain(|r| !self.added.contains(r));
            // Whatever is wrong with the host's firewall has been said by the first attempt.
            let _ = mend(&self.wanted);
        })
    }
}

fn mend(wanted: &Wanted) -> Result<(), Failure> {
    let output = Command::new(SAVE)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .map_err(|e| not_run(SAVE, &e))?;
    if !output.status.success() {
        return Err(refused(SAVE, &output.stderr));
    }
    let saved = String::from_utf8_lossy(&output.stdout);
    let existing = mend::parse(&saved);
    match mend::compare(&existing, &wanted.rules, &wanted.networks, wanted.forward_drop).render() {
        Some(text) => finish(start(&text)),
        None => Ok(()),
    }
}

fn start(text: &str) -> io::Result<Child> {
    let mut child = Command::new(RESTORE)
        .args(["--noflush", "-w", LOCK_SECONDS])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // Should it end early, its own message says more than our broken pipe.
        let _ = stdin.write_all(text.as_bytes());
    }
    Ok(child)
}

fn finish(running: io::Result<Child>) -> Result<(), Failure> {
    let output = running.and_then(Child::wait_with_output).map_err(|e| not_run(RESTORE, &e))?;
    if output.status.success() { Ok(()) } else { Err(refused(RESTORE, &output.stderr)) }
}

fn not_run(program: &str, error: &io::Error) -> Failure {
    let reason = match error.kind() {
        io::ErrorKind::NotFound => {
            "not found in PATH; install the package iptables, or run with --iptables=false".into()
        }
        _ => error.to_string(),
    };
    Failure::System { step: "run".into(), subject: program.into(), reason, errno: error.raw_os_error() }
}

fn refused(program: &str, stderr: &[u8]) -> Failure {
    Failure::System {
        step: "set the firewall rules with".into(),
        subject: program.into(),
        reason: String::from_utf8_lossy(stderr).trim().replace('\n', "; "),
        errno: None,
    }
}
