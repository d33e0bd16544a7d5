//! The host's firewall: what rules we want, and bringing the host to have them.
//!
//! One thread makes all changes, in the order in which they were asked for; those that wait while it works are
//! made together. Each change is one run of iptables-restore, and of ip6tables-restore beside it where it is about
//! IPv6, each of which takes all of its part or nothing. If the host
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
use rules::{BridgeRules, Change, Family, Rule};
use watch::Helpers;

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
        forward_drop: Vec<Family>,
    },
    Add {
        rules: Vec<Rule>,
        networks: Vec<BridgeRules>,
    },
    Remove {
        rules: Vec<Rule>,
        networks: Vec<BridgeRules>,
    },
    /// Somebody else has changed the rules.
    Check,
}

impl Pending {
    /// Waits until the change holds. If adding fails none of the rules is left; what was to be removed is not wanted
    /// any more, and goes with the next change that succeeds.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        self.done.recv().unwrap_or_else(|_| {
            Err(not_run("iptables-restore", &io::Error::other("the thread that changes the rules has ended")))
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
        forward_drop: Vec<Family>,
    ) -> Result<(), Failure> {
        self.order(Order::Reconcile { rules, networks, forward_drop }).finish()
    }

    /// Begins to add rules; they hold once [`Pending::finish`] returns.
    pub(crate) fn add(&self, rules: Vec<Rule>) -> Pending {
        self.order(Order::Add { rules, networks: Vec::new() })
    }

    /// Begins to remove rules.
    pub(crate) fn remove(&self, rules: Vec<Rule>) -> Pending {
        self.order(Order::Remove { rules, networks: Vec::new() })
    }

    /// Adds the rules of a network, of each of its families.
    pub(crate) fn add_network(&self, networks: Vec<BridgeRules>) -> Result<(), Failure> {
        let rules = networks.iter().flat_map(rules::bridge).collect();
        self.order(Order::Add { rules, networks }).finish()
    }

    /// Removes the rules of a network.
    pub(crate) fn remove_network(&self, networks: Vec<BridgeRules>) -> Result<(), Failure> {
        let rules = networks.iter().flat_map(rules::bridge).collect();
        self.order(Order::Remove { rules, networks }).finish()
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
    /// The families whose forwarded packets are dropped unless a rule accepts them.
    forward_drop: Vec<Family>,
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
                if let Order::Add { rules, networks } = order {
                    self.rules.retain(|r| !rules.contains(r));
                    self.networks.retain(|n| !networks.contains(n));
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
                    forward_drop: forward_drop.clone(),
                    uncertain: true,
                    helpers: self.helpers.clone(),
                };
                difference.all = true;
            }
            Order::Check => difference.all |= !self.rules.is_empty(),
            Order::Add { rules, networks } => {
                self.rules.extend(rules.iter().cloned());
                self.networks.extend(networks.iter().cloned());
                difference.add.extend(rules.iter().cloned());
            }
            Order::Remove { rules, networks } => {
                self.rules.retain(|r| !rules.contains(r));
                self.networks.retain(|n| !networks.iter().any(|gone| gone.bridge == n.bridge));
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
        Family::ALL.into_iter().try_for_each(|family| self.mend_family(family))
    }

    fn mend_family(&self, family: Family) -> Result<(), Failure> {
        let ours = self.rules.iter().any(|r| r.family == family)
            || self.networks.iter().any(|n| n.family() == family);
        if !ours {
            return Ok(());
        }
        let program = family.save();
        let output = Command::new(program)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .output()
            .map_err(|e| not_run(program, &e))?;
        if !output.status.success() {
            return Err(refused(program, &output.stderr));
        }
        let saved = String::from_utf8_lossy(&output.stdout);
        let existing = mend::parse(&saved);
        let networks = self.networks.iter().filter(|n| n.family() == family).cloned().collect::<Vec<_>>();
        let drop = self.forward_drop.contains(&family);
        let change = mend::compare(&existing, family, &self.rules, &networks, drop);
        start(family, change.render(), &self.helpers).and_then(Running::finish)
    }
}

impl Difference {
    fn apply(&self, helpers: &Helpers) -> Result<(), Failure> {
        // Both at the same time.
        let started = Family::ALL.map(|family| start(family, self.of(family).render(), helpers));
        let ended = started.map(|started| started.and_then(Running::finish));
        ended.into_iter().collect()
    }

    fn of(&self, family: Family) -> Change<'_> {
        let removed = self.remove.iter().filter(|r| r.family == family);
        Change {
            remove: removed.map(|r| (r.table, r.chain, r.spec.as_str())).collect(),
            add: self.add.iter().filter(|r| r.family == family).collect(),
            ..Change::default()
        }
    }
}

/// A change that is being made; `None` if there was nothing to change.
struct Running(Option<(&'static str, Child)>);

impl Running {
    fn finish(self) -> Result<(), Failure> {
        let Some((program, child)) = self.0 else { return Ok(()) };
        let output = child.wait_with_output().map_err(|e| not_run(program, &e))?;
        if output.status.success() { Ok(()) } else { Err(refused(program, &output.stderr)) }
    }
}

fn start(family: Family, text: Option<String>, helpers: &Helpers) -> Result<Running, Failure> {
    let Some(text) = text else { return Ok(Running(None)) };
    let program = family.restore();
    let mut child = Command::new(program)
        .args(["--noflush", "-w", LOCK_SECONDS])
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
    Ok(Running(Some((program, child))))
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
        Rule {
            family: Family::V4,
            table: Table::Nat,
            chain: "DOCKER",
            place: Place::Bottom,
            spec: spec.into(),
        }
    }

    #[test]
    fn orders_that_wait_together_become_one_change() {
        let mut wanted = Wanted::default();
        let mut difference = Difference::default();
        for order in [
            Order::Remove { rules: vec![rule("old")], networks: Vec::new() },
            Order::Add { rules: vec![rule("one"), rule("two")], networks: Vec::new() },
            Order::Remove { rules: vec![rule("one")], networks: Vec::new() },
            // A container that restarts: its rule goes and comes.
            Order::Add { rules: vec![rule("old")], networks: Vec::new() },
        ] {
            wanted.note(&order, &mut difference);
        }
        assert_eq!(difference.remove, [rule("old")]);
        assert_eq!(difference.add, [rule("two"), rule("old")]);
        assert_eq!(wanted.rules, [rule("two"), rule("old")]);
    }

    #[test]
    fn a_missing_program_is_named() {
        let failure = not_run("iptables-restore", &io::ErrorKind::NotFound.into());
        assert!(failure.to_string().contains("iptables-restore: not found in PATH"), "{failure}");
    }
}
