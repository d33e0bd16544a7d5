//! The backend that writes nftables' rules, in tables that are ours alone: what else the host has is neither read nor touched. Each
//! change is one run of nft, about both families, which takes all of it or nothing.

mod change;
mod table;

use super::program::{self, Running};
use super::wanted::{Family, Part, Wanted};
use super::watch::Helpers;
use crate::protocol::Failure;
use change::{Change, name, parse};
use table::{NAME, Table};

const PROGRAM: &str = "nft";

/// Makes the difference: `remove`, then `add`.
pub(super) fn apply(remove: &Part, add: &Part, helpers: &Helpers) -> Result<(), Failure> {
    let text = Family::ALL
        .map(|family| Change::difference(&Table::of(remove, family), &Table::of(add, family)).render(family));
    run(text.concat(), helpers)
}

/// Compares what is there with what is wanted, and changes what differs.
pub(super) fn mend(wanted: &Wanted, helpers: &Helpers) -> Result<(), Failure> {
    let mut text = String::new();
    for family in wanted.families.iter().copied() {
        let table = Table::whole(&wanted.rules, family, wanted.forward_drop.contains(&family));
        let networks = wanted.owned(family).collect::<Vec<_>>();
        text += &Change::between(existing(family)?.as_ref(), &table, &networks).render(family);
    }
    run(text, helpers)
}

/// Removes what this backend has made, so that another one is alone. A table that another engine shares stays, with what is its.
pub(super) fn clear(wanted: &Wanted, helpers: &Helpers) -> Result<(), Failure> {
    let mut text = String::new();
    for family in wanted.families.iter().copied() {
        let Some(table) = existing(family)? else { continue };
        let networks = wanted.owned(family).collect::<Vec<_>>();
        text += &Change::clear(&table, &networks).render(family);
    }
    run(text, helpers)
}

/// The table as it is; none if there is none.
fn existing(family: Family) -> Result<Option<Table>, Failure> {
    let family = name(family);
    // Without counters' values.
    let refused = match program::read(PROGRAM, &["-s", "list", "table", family, NAME]) {
        Ok(listed) => return Ok(Some(parse(&listed))),
        Err(refused) => refused,
    };
    let tables = program::read(PROGRAM, &["list", "tables", family])?;
    let ours = format!("table {family} {NAME}");
    if tables.lines().any(|line| line.trim() == ours) { Err(refused) } else { Ok(None) }
}

fn run(text: String, helpers: &Helpers) -> Result<(), Failure> {
    let text = (!text.is_empty()).then_some(text);
    Running::start(PROGRAM, &["-f", "-"], text, helpers).and_then(Running::finish)
}
