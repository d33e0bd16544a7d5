//! The rules of a profile, looked up for a convention.

use oci_spec::runtime::{LinuxSeccompArg, LinuxSyscall};

use super::answer;
use super::arch::Convention;
use crate::Error;

/// What is answered if all of the conditions hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) conditions: Vec<LinuxSeccompArg>,
    pub(crate) answer: u32,
}

/// All rules.
#[derive(Debug)]
pub(crate) struct Rules<'a> {
    rules: Vec<Rule>,
    /// Names and the rules that they have, sorted.
    names: Vec<(&'a str, usize)>,
}

impl<'a> Rules<'a> {
    /// Sorts the rules. Such as say what is said by default do not count.
    pub(crate) fn new(syscalls: &'a [LinuxSyscall], default: u32) -> Result<Self, Error> {
        let mut rules = Vec::new();
        let mut names = Vec::new();
        for syscall in syscalls {
            let answer = answer(syscall.action(), syscall.errno_ret());
            if answer == default {
                continue;
            }
            for conditions in alternatives(syscall.args().as_deref().unwrap_or_default())? {
                names.extend(syscall.names().iter().map(|name| (name.as_str(), rules.len())));
                rules.push(Rule { conditions, answer });
            }
        }
        // profiles list names in order: merging such runs costs little
        names.sort();
        Ok(Rules { rules, names })
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// The calls of a convention that have rules: `(number, rule)`, sorted. Names that it has not are left out.
    pub(crate) fn of(&self, convention: &Convention) -> Vec<(u32, usize)> {
        let mut found = Vec::with_capacity(self.names.len());
        let mut names = self.names.iter().peekable();
        // both are sorted by name, so one walk over both finds all
        for (call, number) in convention.calls() {
            while names.next_if(|(name, _)| *name < call).is_some() {}
            while let Some((_, rule)) = names.next_if(|(name, _)| *name == call) {
                found.push((number, *rule));
            }
        }
        found.sort_unstable();
        found
    }

    /// A rule.
    pub(crate) fn get(&self, rule: usize) -> Option<&Rule> {
        self.rules.get(rule)
    }
}

/// Conditions on different arguments must all hold; if several are on one argument, any one of all suffices (as in runc).
fn alternatives(args: &[LinuxSeccompArg]) -> Result<Vec<Vec<LinuxSeccompArg>>, Error> {
    let mut seen = [false; 6];
    let mut repeated = false;
    for arg in args {
        match seen.get_mut(arg.index()) {
            Some(seen) => repeated |= std::mem::replace(seen, true),
            None => {
                return Err(Error::spec(
                    "linux.seccomp.syscalls.args",
                    format!("there is no argument {}", arg.index()),
                ));
            }
        }
    }
    Ok(if repeated { args.iter().map(|arg| vec![*arg]).collect() } else { vec![args.to_vec()] })
}
