//! The host's firewall: what rules we want, and bringing the host to have them.
//!
//! One thread makes all changes, in the order in which they were asked for; those that wait while it works are
//! made together. Each change is one run of iptables-restore, which takes all of it or nothing. If the host
//! turns out to lack what a change builds on (an administrator flushed the rules),
//! everything is compared and mended.

mod mend;
pub(crate) mod rules;
mod watch;

use std::io::{self, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};

use crate::journal;
use crate::protocol::Failure;
use rules::{BridgeRules, Change, Rule};
use watch::Helpers;

const RESTORE: &str = "iptables-restore";
const SAVE: &str = "iptables-save";
/// Seconds to wait for another program that changes the rules (iptables' legacy variant has such a lock).
const LOCK_SECONDS: &str = "60";

/// The firewall of the host.
#[derive(Debug)]
pub(crate) struct Firewall {
    jobs: Sender<Job>,
}

/// A change that has been asked for.
#[derive(Debug)]
#[must_use]
pub(crate) struct Pending {
    done: Receiver<Result<(), Failure>>,
}

#[derive(Debug)]
struct Job {
    order: Order,
    done: Sender<Result<(), Failure>>,
}

#[derive(Debug)]
enum Order {
    /// These rules and no others of these networks.
    Reconcile {
        rules: Vec<Rule>,
        networks: Vec<BridgeRules>,
        forward_drop: bool,
    },
    Add {
        rules: Vec<Rule>,
        network: Option<BridgeRules>,
    },
    Remove {
        rules: Vec<Rule>,
        network: Option<BridgeRules>,
    },
    /// Somebody else has changed the rules.
    Check,
}

impl Pending {
    /// Waits until the change holds. If adding fails none of the rules is left; what was to be removed is not wanted
    /// any more, and goes with the next change that succeeds.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        self.done.recv().unwrap_or_else(|_| {
            Err(not_run(RESTORE, &io::Error::other("the thread that changes the rules has ended")))
        })
    }

    /// Whether it is over.
    pub(crate) fn is_over(&self) -> bool {
        !matches!(self.done.try_recv(), Err(TryRecvError::Empty))
    }
}

impl Firewall {
    pub(crate) fn start() -> io::Result<Self> {
        let (jobs, received) = channel();
        let helpers = Helpers::default();
        if let Err(e) = watch::start(jobs.clone(), helpers.clone()) {
            journal::note(format_args!("others' changes of the firewall go unnoticed: {e}"));
        }
        std::thread::Builder::new()
            .name("firewall".into())
            .stack_size(256 << 10)
            .spawn(move || work(&received, helpers))?;
        Ok(Self { jobs })
    }

    /// Sets what is wanted altogether, and brings the host to agree: what is right already stays as it is.
    pub(crate) fn reconcile(
        &self,
        rules: Vec<Rule>,
        networks: Vec<BridgeRules>,
        forward_drop: bool,
    ) -> Result<(), Failure> {
        self.order(Order::Reconcile { rules, networks, forward_drop }).finish()
    }

    /// Begins to add rules; they hold once [`Pending::finish`] returns.
    pub(crate) fn add(&self, rules: Vec<Rule>) -> Pending {
        self.order(Order::Add { rules, network: None })
    }

    /// Begins to remove rules.
    pub(crate) fn remove(&self, rules: Vec<Rule>) -> Pending {
        self.order(Order::Remove { rules, network: None })
    }

    /// Adds the rules of a network.
    pub(crate) fn add_network(&self, network: BridgeRules) -> Result<(), Failure> {
        let rules = rules::bridge(&network);
        self.order(Order::Add { rules, network: Some(network) }).finish()
    }

    /// Removes the rules of a network.
    pub(crate) fn remove_network(&self, network: BridgeRules) -> Result<(), Failure> {
        let rules = rules::bridge(&network);
        self.order(Order::Remove { rules, network: Some(network) }).finish()
    }

    fn order(&self, order: Order) -> Pending {
        let (done, wait) = channel();
        // If the thread has ended, so has the sender that it was given, and `finish` says so.
        let _ = self.jobs.send(Job { order, done });
        Pending { done: wait }
    }
}

fn work(jobs: &Receiver<Job>, helpers: Helpers) {
    let mut wanted = Wanted { helpers, ..Wanted::default() };
    while let Ok(first) = jobs.recv() {
        let batch: Vec<Job> = std::iter::once(first).chain(jobs.try_iter()).collect();
        let orders = batch.iter().map(|job| &job.order).collect::<Vec<_>>();
        let result = wanted.carry_out(&orders);
        if let Err(failure) = &result {
            journal::note(failure);
        }
        for job in batch {
            // Not everybody waits.
            let _ = job.done.send(result.clone());
        }
    }
}

/// The rules that ought to be there, and for which networks.
#[derive(Debug, Default)]
struct Wanted {
    rules: Vec<Rule>,
    networks: Vec<BridgeRules>,
    forward_drop: bool,
    /// A change has failed: the next one compares everything.
    uncertain: bool,
    helpers: Helpers,
}

/// The difference that some orders make together.
#[derive(Debug, Default)]
struct Difference {
    add: Vec<Rule>,
    remove: Vec<Rule>,
    /// Nothing is known about what is there.
    all: bool,
}

impl Wanted {
    fn carry_out(&mut self, orders: &[&Order]) -> Result<(), Failure> {
        let mut difference = Difference::default();
        for order in orders {
            self.note(order, &mut difference);
        }
        if !difference.all && !self.uncertain && difference.apply(&self.helpers).is_ok() {
            return Ok(());
        }
        let mended = self.mend();
        self.uncertain = mended.is_err();
        mended.inspect_err(|_| {
            for order in orders {
                if let Order::Add { rules, network } = order {
                    self.rules.retain(|r| !rules.contains(r));
                    self.networks.retain(|n| Some(n) != network.as_ref());
                }
            }
            // What is wrong with the host's firewall has been said by the first attempt.
            let _ = self.mend();
        })
    }

    fn note(&mut self, order: &Order, difference: &mut Difference) {
        match order {
            Order::Reconcile { rules, networks, forward_drop } => {
                let (rules, networks) = (rules.clone(), networks.clone());
                *self = Self {
                    rules,
                    networks,
                    forward_drop: *forward_drop,
                    uncertain: true,
                    helpers: self.helpers.clone(),
                };
                difference.all = true;
            }
            Order::Check => difference.all |= !self.rules.is_empty(),
            Order::Add { rules, network } => {
                self.rules.extend(rules.iter().cloned());
                self.networks.extend(network.clone());
                difference.add.extend(rules.iter().cloned());
            }
            Order::Remove { rules, network } => {
                self.rules.retain(|r| !rules.contains(r));
                if let Some(network) = network {
                    self.networks.retain(|n| n.bridge != network.bridge);
                }
                for rule in rules {
                    // One that was to be added together with this is not even made.
                    match difference.add.iter().position(|r| r == rule) {
                        Some(index) => drop(difference.add.remove(index)),
                        None => difference.remove.push(rule.clone()),
                    }
                }
            }
        }
    }

    /// Compares what is there with what is wanted, and changes what differs.
    fn mend(&self) -> Result<(), Failure> {
        if self.rules.is_empty() && self.networks.is_empty() {
            return Ok(());
        }
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
        restore(&mend::compare(&existing, &self.rules, &self.networks, self.forward_drop), &self.helpers)
    }
}

impl Difference {
    fn apply(&self, helpers: &Helpers) -> Result<(), Failure> {
        let change = Change {
            remove: self.remove.iter().map(|r| (r.table, r.chain, r.spec.as_str())).collect(),
            add: self.add.iter().collect(),
            ..Change::default()
        };
        restore(&change, helpers)
    }
}

fn restore(change: &Change<'_>, helpers: &Helpers) -> Result<(), Failure> {
    let Some(text) = change.render() else { return Ok(()) };
    let output = start(&text, helpers).and_then(Child::wait_with_output).map_err(|e| not_run(RESTORE, &e))?;
    if output.status.success() { Ok(()) } else { Err(refused(RESTORE, &output.stderr)) }
}

fn start(text: &str, helpers: &Helpers) -> io::Result<Child> {
    let mut child = Command::new(RESTORE)
        .args(["--noflush", "-w", LOCK_SECONDS])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    helpers.note(child.id());
    if let Some(mut stdin) = child.stdin.take() {
        // Should it end early, its own message says more than our broken pipe.
        let _ = stdin.write_all(text.as_bytes());
    }
    Ok(child)
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

#[cfg(test)]
mod tests {
    use super::rules::{Place, Table};
    use super::*;

    fn rule(spec: &str) -> Rule {
        Rule { table: Table::Nat, chain: "DOCKER", place: Place::Bottom, spec: spec.into() }
    }

    #[test]
    fn orders_that_wait_together_become_one_change() {
        let mut wanted = Wanted::default();
        let mut difference = Difference::default();
        for order in [
            Order::Remove { rules: vec![rule("old")], network: None },
            Order::Add { rules: vec![rule("one"), rule("two")], network: None },
            Order::Remove { rules: vec![rule("one")], network: None },
            // A container that restarts: its rule goes and comes.
            Order::Add { rules: vec![rule("old")], network: None },
        ] {
            wanted.note(&order, &mut difference);
        }
        assert_eq!(difference.remove, [rule("old")]);
        assert_eq!(difference.add, [rule("two"), rule("old")]);
        assert_eq!(wanted.rules, [rule("two"), rule("old")]);
    }

    #[test]
    fn a_missing_program_is_named() {
        let failure = not_run(RESTORE, &io::ErrorKind::NotFound.into());
        assert!(failure.to_string().contains("iptables-restore: not found in PATH"), "{failure}");
    }
}
