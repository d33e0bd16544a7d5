//! The host's firewall: what rules we want, and bringing the host to have them.
//!
//! What is wanted is data ([`wanted`]); how it is written is one of two backends' business: [`iptables`] and [`nftables`]. Each
//! can make a difference, compare and mend, and clear what is its own; nothing here knows how.
//!
//! One thread makes all changes, in the order in which they were asked for; those that wait while it works are
//! made together, in one run of the backend's program, which takes all of it or nothing. If the host
//! turns out to lack what a change builds on (an administrator flushed the rules),
//! everything is compared and mended.

mod firewalld;
mod iptables;
mod nftables;
mod program;
pub(crate) mod wanted;
mod watch;

use std::io;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};

use crate::journal;
use crate::protocol::{Failure, FirewallBackend};
use firewalld::{Firewalld, Known};
use wanted::{BridgeRules, Family, LinkRules, Part, PortRules, Wanted};
use watch::Helpers;

/// The firewall of the host.
#[derive(Debug)]
pub(crate) struct Firewall {
    jobs: Sender<Job>,
    firewalld: Known,
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
    /// This and nothing else of these networks; nothing is to be left of the backend that did it before.
    Reconcile {
        wanted: Wanted,
        before: Option<FirewallBackend>,
    },
    Add(Part),
    Remove(Part),
    /// Somebody else has changed the rules.
    Check,
    /// firewalld has started, ended, or reloaded its rules.
    Firewalld,
}

impl Pending {
    /// Waits until the change holds. If adding fails none of the rules is left; what was to be removed is not wanted
    /// any more, and goes with the next change that succeeds.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        self.done.recv().unwrap_or_else(|_| {
            Err(Failure::System {
                step: "change".into(),
                subject: "the firewall rules".into(),
                reason: "the thread that changes them has ended".into(),
                errno: None,
            })
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
        let (helpers, firewalld) = (Helpers::default(), Known::default());
        if let Err(e) = watch::start(jobs.clone(), helpers.clone()) {
            journal::note(format_args!("others' changes of the firewall go unnoticed: {e}"));
        }
        let (own, known) = (jobs.clone(), firewalld.clone());
        std::thread::Builder::new()
            .name("firewall".into())
            .stack_size(256 << 10)
            .spawn(move || work(&received, &own, helpers, known))?;
        Ok(Self { jobs, firewalld })
    }

    /// Sets what is wanted altogether, and brings the host to agree: what is right already stays as it is. Then removes what is
    /// left of the backend that did it `before`, if that was the other one.
    pub(crate) fn reconcile(&self, wanted: Wanted, before: Option<FirewallBackend>) -> Result<(), Failure> {
        self.order(Order::Reconcile { wanted, before }).finish()
    }

    /// Begins to add the rules of ports; they hold once [`Pending::finish`] returns.
    pub(crate) fn add(&self, ports: Vec<PortRules>) -> Pending {
        self.order(Order::Add(Part { ports, ..Part::default() }))
    }

    /// Begins to remove the rules of ports.
    pub(crate) fn remove(&self, ports: Vec<PortRules>) -> Pending {
        self.order(Order::Remove(Part { ports, ..Part::default() }))
    }

    /// Begins to add the rules of links.
    pub(crate) fn add_links(&self, links: Vec<LinkRules>) -> Pending {
        self.order(Order::Add(Part { links, ..Part::default() }))
    }

    /// Begins to remove the rules of links.
    pub(crate) fn remove_links(&self, links: Vec<LinkRules>) -> Pending {
        self.order(Order::Remove(Part { links, ..Part::default() }))
    }

    /// Adds the rules of a network, of each of its families.
    pub(crate) fn add_network(&self, networks: Vec<BridgeRules>) -> Result<(), Failure> {
        self.order(Order::Add(Part { networks, ..Part::default() })).finish()
    }

    /// Removes the rules of a network.
    pub(crate) fn remove_network(&self, networks: Vec<BridgeRules>) -> Result<(), Failure> {
        self.order(Order::Remove(Part { networks, ..Part::default() })).finish()
    }

    /// What is known of firewalld; `None` if it does not run.
    pub(crate) fn firewalld(&self) -> Option<crate::protocol::Firewalld> {
        self.firewalld.get()
    }

    fn order(&self, order: Order) -> Pending {
        let (done, wait) = channel();
        // If the thread has ended, so has the sender that it was given, and `finish` says so.
        let _ = self.jobs.send(Job { order, done });
        Pending { done: wait }
    }
}

/// `own`: where orders go that come from outside.
fn work(jobs: &Receiver<Job>, own: &Sender<Job>, helpers: Helpers, known: Known) {
    let firewalld = Firewalld::new(known);
    let mut keeper = Keeper { helpers, firewalld, ..Keeper::default() };
    while let Ok(first) = jobs.recv() {
        let batch: Vec<Job> = std::iter::once(first).chain(jobs.try_iter()).collect();
        let orders = batch.iter().map(|job| &job.order).collect::<Vec<_>>();
        let result = keeper.carry_out(&orders);
        if let Err(failure) = &result {
            journal::note(failure);
        }
        keeper.register(&orders, own);
        for job in batch {
            // Not everybody waits.
            let _ = job.done.send(result.clone());
        }
    }
}

/// Keeps the host's rules as they ought to be.
#[derive(Debug, Default)]
struct Keeper {
    wanted: Wanted,
    /// The backend whose rules are to go once ours hold.
    stale: Option<FirewallBackend>,
    /// A change has failed: the next one compares everything.
    uncertain: bool,
    helpers: Helpers,
    firewalld: Firewalld,
}

/// The difference that some orders make together.
#[derive(Debug, Default)]
struct Difference {
    add: Part,
    remove: Part,
    /// The families that the networks to add need and that we did without until now.
    families: Vec<Family>,
    /// Nothing is known about what is there.
    all: bool,
}

impl Keeper {
    fn carry_out(&mut self, orders: &[&Order]) -> Result<(), Failure> {
        let mut difference = Difference::default();
        for order in orders {
            self.note(order, &mut difference);
        }
        if !difference.all && !self.uncertain && self.apply(&difference).is_ok() {
            self.wanted.leaving.clear();
            return Ok(());
        }
        let mended = self.mend();
        self.uncertain = mended.is_err();
        mended.inspect_err(|_| {
            self.take_back(orders, &difference);
            // What is wrong with the host's firewall has been said by the first attempt.
            let _ = self.mend();
        })?;
        self.clear();
        self.wanted.leaving.clear();
        Ok(())
    }

    /// Does not want what these orders add, since it cannot be had.
    fn take_back(&mut self, orders: &[&Order], difference: &Difference) {
        self.wanted.families.retain(|family| !difference.families.contains(family));
        for order in orders {
            if let Order::Add(part) = order {
                self.forget(part);
            }
        }
    }

    fn note(&mut self, order: &Order, difference: &mut Difference) {
        match order {
            Order::Reconcile { wanted, before } => {
                let leaving = std::mem::take(&mut self.wanted.leaving);
                self.wanted = Wanted { leaving, ..wanted.clone() };
                difference.all = true;
                difference.families.clear();
                // Where a switch has failed before, what did it `before` is the one that we have switched to.
                self.stale =
                    [*before, self.stale].into_iter().flatten().find(|stale| *stale != wanted.backend);
            }
            Order::Firewalld => {}
            Order::Check => difference.all |= !self.wanted.families.is_empty(),
            Order::Add(part) => {
                for family in part.networks.iter().map(BridgeRules::family) {
                    if !self.wanted.families.contains(&family) {
                        // One that could not be had at the start, and is needed now.
                        self.wanted.families.push(family);
                        difference.families.push(family);
                        difference.all = true;
                    }
                }
                self.wanted.rules.extend(part.clone());
                difference.add.extend(part.clone());
            }
            Order::Remove(part) => {
                self.forget(part);
                // What was to be added together with this is not even made.
                cancel(&part.networks, &mut difference.add.networks, &mut difference.remove.networks);
                cancel(&part.ports, &mut difference.add.ports, &mut difference.remove.ports);
                cancel(&part.links, &mut difference.add.links, &mut difference.remove.links);
            }
        }
    }

    /// Does not want these any more.
    fn forget(&mut self, part: &Part) {
        self.wanted.rules.ports.retain(|p| !part.ports.contains(p));
        self.wanted.rules.links.retain(|link| !part.links.contains(link));
        self.wanted.rules.networks.retain(|n| {
            !part.networks.iter().any(|gone| gone.bridge == n.bridge && gone.family() == n.family())
        });
        let leaving = &mut self.wanted.leaving;
        leaving.retain(|known| !part.networks.contains(known));
        leaving.extend(part.networks.iter().cloned());
    }

    fn apply(&self, difference: &Difference) -> Result<(), Failure> {
        let Difference { add, remove, .. } = difference;
        match self.wanted.backend {
            FirewallBackend::Iptables => iptables::apply(remove, add, &self.helpers),
            FirewallBackend::Nftables => nftables::apply(remove, add, &self.helpers),
        }
    }

    /// Compares what is there with what is wanted, and changes what differs.
    fn mend(&self) -> Result<(), Failure> {
        match self.wanted.backend {
            FirewallBackend::Iptables => iptables::mend(&self.wanted, &self.helpers),
            FirewallBackend::Nftables => nftables::mend(&self.wanted, &self.helpers),
        }
    }

    /// Has firewalld know our bridges, where these orders may have changed something about that.
    fn register(&mut self, orders: &[&Order], own: &Sender<Job>) {
        let mut anew = false;
        let mut changed = false;
        for order in orders {
            match order {
                Order::Reconcile { .. } => {
                    self.firewalld.listen(own);
                    anew = true;
                }
                Order::Firewalld => anew = true,
                Order::Add(part) | Order::Remove(part) => changed |= !part.networks.is_empty(),
                Order::Check => {}
            }
        }
        if anew {
            self.firewalld.forget();
        }
        if anew || changed {
            self.firewalld.agree(self.wanted.rules.networks.iter().map(|n| n.bridge.as_str()));
        }
        if orders.iter().any(|order| matches!(order, Order::Firewalld)) {
            // What it has done to rules of the legacy iptables the kernel tells nobody.
            let (done, _) = channel();
            let _ = own.send(Job { order: Order::Check, done });
        }
    }

    /// Removes what another backend has left. Ours holds already, so a failure is only noted.
    fn clear(&mut self) {
        let cleared = match self.stale.take() {
            None => return,
            Some(FirewallBackend::Iptables) => iptables::clear(&self.wanted, &self.helpers),
            Some(FirewallBackend::Nftables) => nftables::clear(&self.wanted, &self.helpers),
        };
        if let Err(failure) = cleared {
            journal::note(format_args!("rules of the firewall backend that was used before stay: {failure}"));
        }
    }
}

/// Takes what goes out of what was to be added, or else notes it as to be removed.
fn cancel<T: Clone + PartialEq>(goes: &[T], add: &mut Vec<T>, remove: &mut Vec<T>) {
    for one in goes {
        match add.iter().position(|added| added == one) {
            Some(index) => drop(add.remove(index)),
            None => remove.push(one.clone()),
        }
    }
}

#[cfg(test)]
mod tests;
