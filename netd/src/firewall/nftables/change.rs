//! A change of our tables: found by comparing what nft lists with what is wanted, or given by what comes and goes; and its text for
//! `nft -f`. Pure.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::table::{BRIDGES, Chain, NAME, Set, Table, interface, mark_of};
use crate::firewall::wanted::{BridgeRules, Family};

/// A change of one family's table.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// The table goes with all that is in it.
    delete: bool,
    /// The table is made.
    make: bool,
    /// Declarations that are missing.
    sets: Vec<(String, Set)>,
    /// Set, element.
    remove: Vec<(String, String)>,
    /// Chains that go; nothing leads to them any more.
    gone: Vec<String>,
    /// Chains that are made, or get these rules instead of theirs.
    fill: Vec<(String, Chain)>,
    add: Vec<(String, String)>,
}

impl Change {
    /// What comes and goes, where everything else is known to be there.
    pub(super) fn difference(remove: &Table, add: &Table) -> Self {
        let gone = remove.chains.keys().filter(|name| !add.chains.contains_key(*name));
        Self {
            remove: without(remove, add),
            gone: gone.cloned().collect(),
            fill: add.chains.clone().into_iter().collect(),
            add: without(add, &Table::default()),
            ..Self::default()
        }
    }

    /// What to do so that the table is as `wanted` by these networks. What others of our kind have in it stays: another engine may
    /// share it. `existing` is none where there is no such table.
    pub(super) fn between(existing: Option<&Table>, wanted: &Table, networks: &[&BridgeRules]) -> Self {
        let Some(existing) = existing.filter(|there| has_same_base(there, wanted)) else {
            return Self {
                delete: true,
                make: true,
                sets: wanted.sets.clone().into_iter().collect(),
                fill: wanted.chains.clone().into_iter().collect(),
                add: without(wanted, &Table::default()),
                ..Self::default()
            };
        };
        let owned = Owned::new(networks);
        let missing = wanted.sets.iter().filter(|(name, _)| !existing.sets.contains_key(*name));
        let gone = existing.chains.keys().filter(|name| !wanted.chains.contains_key(*name));
        let filled = wanted.chains.iter().filter_map(|(name, chain)| {
            let there = existing.chains.get(name);
            let mut chain = chain.clone();
            if let Some(hook) =
                there.and_then(|c| c.hook.as_ref()).filter(|hook| hook.ends_with("policy drop;"))
            {
                // What is dropped already goes on being dropped.
                chain.hook = Some(hook.clone());
            }
            (there != Some(&chain)).then(|| (name.clone(), chain))
        });
        Self {
            sets: missing.map(|(name, set)| (name.clone(), set.clone())).collect(),
            remove: without(existing, wanted).into_iter().filter(|(_, e)| owned.has_element(e)).collect(),
            gone: gone.filter(|name| owned.has_chain(name)).cloned().collect(),
            fill: filled.collect(),
            add: without(wanted, existing),
            ..Self::default()
        }
    }

    /// What to do so that nothing of these networks is left in the table, and no table either unless others' bridges are in it.
    pub(super) fn clear(existing: &Table, networks: &[&BridgeRules]) -> Self {
        let owned = Owned::new(networks);
        let bridges = BRIDGES.iter().filter_map(|name| existing.sets.get(*name));
        if bridges.flat_map(|set| &set.elements).all(|bridge| owned.has_element(bridge)) {
            return Self { delete: true, ..Self::default() };
        }
        let all = without(existing, &Table::default());
        Self {
            remove: all.into_iter().filter(|(_, element)| owned.has_element(element)).collect(),
            gone: existing.chains.keys().filter(|name| owned.has_chain(name)).cloned().collect(),
            ..Self::default()
        }
    }

    /// The text; empty if there is nothing to do.
    pub(super) fn render(&self, family: Family) -> String {
        let mut text = String::new();
        self.write(&mut text, &place(family));
        text
    }

    fn write(&self, text: &mut String, place: &str) {
        // Writing to a string cannot fail.
        let mut line = |arguments: std::fmt::Arguments<'_>| {
            let _ = text.write_fmt(arguments);
            text.push('\n');
        };
        if self.delete {
            // Adding before deleting makes the deletion succeed whether or not the table was there.
            line(format_args!("add table {place}"));
            line(format_args!("delete table {place}"));
        }
        if self.make {
            line(format_args!("add table {place}"));
        }
        for (set, element) in &self.remove {
            line(format_args!("delete element {place} {set} {{ {element} }}"));
        }
        // All are emptied before the first one goes: they refer to each other.
        for name in &self.gone {
            line(format_args!("flush chain {place} {name}"));
        }
        for name in &self.gone {
            line(format_args!("delete chain {place} {name}"));
        }
        for (name, chain) in &self.fill {
            match &chain.hook {
                Some(hook) => line(format_args!("add chain {place} {name} {{ {hook} }}")),
                None => line(format_args!("add chain {place} {name}")),
            }
            line(format_args!("flush chain {place} {name}"));
        }
        // Behind the chains: nft puts elements of intervals forward to where their map is declared.
        for (name, set) in &self.sets {
            line(format_args!("add {} {place} {name} {{ {}; }}", set.kind, set.declaration.join("; ")));
        }
        for (name, chain) in &self.fill {
            for rule in &chain.rules {
                line(format_args!("add rule {place} {name} {rule}"));
            }
        }
        for (set, element) in &self.add {
            line(format_args!("add element {place} {set} {{ {element} }}"));
        }
    }
}

/// Whether all that is there is declared as we do it. If not it cannot be changed into what is wanted.
fn has_same_base(there: &Table, wanted: &Table) -> bool {
    let place =
        |chain: &Chain| chain.hook.as_ref().and_then(|h| h.split("; policy").next().map(str::to_owned));
    let same_set = |(name, set): (&String, &Set)| {
        wanted.sets.get(name).is_some_and(|w| (&w.kind, &w.declaration) == (&set.kind, &set.declaration))
    };
    let same_chain = |(name, chain): (&String, &Chain)| {
        wanted.chains.get(name).map_or(chain.hook.is_none(), |wanted| place(wanted) == place(chain))
    };
    there.sets.iter().all(same_set) && there.chains.iter().all(same_chain)
}

/// How to recognise what is ours and not wanted any more: it is about one of our bridges or subnets.
struct Owned<'a> {
    networks: &'a [&'a BridgeRules],
    interfaces: Vec<String>,
    marks: Vec<String>,
}

impl<'a> Owned<'a> {
    fn new(networks: &'a [&'a BridgeRules]) -> Self {
        let bridges = || networks.iter().map(|n| n.bridge.as_str());
        Self {
            networks,
            interfaces: bridges().map(interface).collect(),
            marks: bridges().map(mark_of).collect(),
        }
    }

    fn has_chain(&self, name: &str) -> bool {
        let mark = name.find("__").and_then(|start| name.get(start..));
        mark.is_some_and(|mark| self.marks.iter().any(|ours| ours == mark))
    }

    fn has_element(&self, element: &str) -> bool {
        element.split(' ').any(|word| {
            self.interfaces.iter().any(|ours| ours == word)
                || self.has_chain(word)
                || word.parse().is_ok_and(|ip| self.networks.iter().any(|n| n.subnet.contains(ip)))
        })
    }
}

/// How commands name a family's table.
fn place(family: Family) -> String {
    format!("{} {NAME}", name(family))
}

/// How commands name a family.
pub(super) fn name(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

/// The elements of `all` that are not in `but`.
fn without(all: &Table, but: &Table) -> Vec<(String, String)> {
    let none = BTreeSet::new();
    let left = all.sets.iter().flat_map(|(name, set)| {
        let others = but.sets.get(name).map_or(&none, |set| &set.elements);
        set.elements.difference(others).map(move |element| (name.clone(), element.clone()))
    });
    left.collect()
}

/// Reads what `nft -s list table` prints.
pub(super) fn parse(listed: &str) -> Table {
    let mut table = Table::default();
    let mut lines = listed.lines().map(str::trim).skip(1);
    while let Some(line) = lines.next() {
        let Some((kind, name)) = line.strip_suffix(" {").and_then(|head| head.split_once(' ')) else {
            continue;
        };
        let body = block(&mut lines);
        if kind == "chain" {
            let (hooks, rules): (Vec<String>, Vec<String>) =
                body.into_iter().partition(|line| line.starts_with("type ") && line.contains(" hook "));
            let hook = hooks
                .into_iter()
                .next()
                .map(|hook| hook.replace("output priority dstnat", "output priority -100"));
            table.chains.insert(name.into(), Chain { hook, rules });
        } else {
            let (declaration, elements): (Vec<String>, Vec<String>) =
                body.into_iter().partition(|line| !line.starts_with("elements = "));
            let elements = elements.iter().flat_map(|line| elements_of(line)).collect();
            table.sets.insert(name.into(), Set { kind: kind.into(), declaration, elements });
        }
    }
    table
}

/// The lines until the block's end; what is spread over several becomes one.
fn block<'a>(lines: &mut impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut body: Vec<String> = Vec::new();
    let mut open = false;
    for line in lines.by_ref() {
        match body.last_mut().filter(|_| open) {
            Some(last) => *last += line,
            None if line == "}" => break,
            None => body.push(line.into()),
        }
        open = body.last().is_some_and(|last| last.starts_with("elements = {") && !last.ends_with('}'));
    }
    body
}

fn elements_of(line: &str) -> impl Iterator<Item = String> {
    let inside = line.trim_start_matches("elements = {").trim_end_matches('}');
    // A quoted name may have anything in it.
    let mut quoted = false;
    let parts = inside.split(move |c: char| {
        quoted ^= c == '"';
        c == ',' && !quoted
    });
    // A star that stands for itself is escaped in commands and in rules, but not here.
    let parts = parts.map(str::trim).filter(|part| !part.is_empty());
    parts.map(|part| part.replace("\\*\"", "*\"").replace("*\"", "\\*\""))
}

#[cfg(test)]
mod tests;
