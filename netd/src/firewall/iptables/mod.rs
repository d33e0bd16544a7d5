//! The backend that writes iptables' rules. Each change is one run of iptables-restore, and of ip6tables-restore beside it where it
//! is about IPv6, each of which takes all of its part or nothing.

mod mend;
mod rules;

use super::program::{self, Running};
use super::wanted::{Family, Part, Wanted};
use super::watch::Helpers;
use crate::protocol::Failure;
use rules::Change;

/// Seconds to wait for another program that changes the rules (iptables' legacy variant has such a lock).
const LOCK_SECONDS: &str = "60";

/// Makes the difference: `remove`, then `add`.
pub(super) fn apply(remove: &Part, add: &Part, helpers: &Helpers) -> Result<(), Failure> {
    // Both at the same time.
    let started = Family::ALL.map(|family| {
        let (removed, added) = (rules::of(remove, family), rules::of(add, family));
        let change = Change {
            remove: removed.iter().map(|r| (r.table, r.chain, r.spec.as_str())).collect(),
            add: added.iter().collect(),
            ..Change::default()
        };
        start(family, &change, helpers)
    });
    let ended = started.map(|started| started.and_then(Running::finish));
    ended.into_iter().collect()
}

/// Compares what is there with what is wanted, and changes what differs.
pub(super) fn mend(wanted: &Wanted, helpers: &Helpers) -> Result<(), Failure> {
    Family::ALL.into_iter().try_for_each(|family| mend_family(wanted, family, helpers))
}

fn mend_family(wanted: &Wanted, family: Family, helpers: &Helpers) -> Result<(), Failure> {
    let has_base = wanted.families.contains(&family);
    if !has_base && wanted.rules.networks_of(family).next().is_none() {
        return Ok(());
    }
    let networks = wanted.owned(family).cloned().collect::<Vec<_>>();
    let mut all = if has_base { rules::base(family) } else { Vec::new() };
    all.extend(rules::of(&wanted.rules, family));
    let saved = program::read(save(family), &[])?;
    let existing = mend::parse(&saved);
    let drop = wanted.forward_drop.contains(&family);
    let change = mend::compare(&existing, family, &all, &networks, drop);
    start(family, &change, helpers).and_then(Running::finish)
}

/// Removes what this backend has made of `wanted`, so that another one is alone. What an administrator has put into DOCKER-USER
/// stays, and works on.
pub(super) fn clear(wanted: &Wanted, helpers: &Helpers) -> Result<(), Failure> {
    wanted.families.iter().try_for_each(|family| {
        let saved = program::read(save(*family), &[])?;
        let existing = mend::parse(&saved);
        let networks = wanted.owned(*family).cloned().collect::<Vec<_>>();
        let base = rules::base(*family);
        let change = mend::clear(&existing, *family, &base, &networks, wanted.forward_drop.contains(family));
        start(*family, &change, helpers).and_then(Running::finish)
    })
}

fn start(family: Family, change: &Change<'_>, helpers: &Helpers) -> Result<Running, Failure> {
    Running::start(restore(family), &["--noflush", "-w", LOCK_SECONDS], change.render(), helpers)
}

/// The program that changes a family's rules.
fn restore(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables-restore",
        Family::V6 => "ip6tables-restore",
    }
}

/// The program that prints a family's rules.
fn save(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables-save",
        Family::V6 => "ip6tables-save",
    }
}
