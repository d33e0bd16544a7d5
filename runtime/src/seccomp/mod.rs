//! `linux.seccomp`, compiled to a filter.
//!
//! An own compiler instead of libseccomp: no C library in each monitor's memory, and the filter is
//! smaller and faster. A system call's number is found by binary search over ranges of equal answers
//! (libseccomp compares one number after the other), so the checks take some six steps.
//!
//! A filter is compiled once for a container; what is executed in it later takes the filter from the saved state. There is no
//! cache on disk beyond that: Docker's profile is compiled in 0.14 ms, of which a cache, whose entries must be found,
//! read and verified, could save a part; and a cache that somebody else can write to is a way out of every filter.

mod arch;
mod bpf;
pub(crate) mod listener;
mod rules;

use std::collections::BTreeSet;

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag, LinuxSyscall};
use serde::{Deserialize, Serialize};

use crate::Error;
use listener::Listener;

/// A compiled filter.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Filter {
    /// The program.
    #[serde(with = "as_text")]
    pub(crate) program: Vec<libc::sock_filter>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub(crate) flags: u32,
    /// Who is told of calls, when the filter has `SCMP_ACT_NOTIFY`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) listener: Option<Listener>,
}

const FLAG_LOG: u32 = 2;
const FLAG_SPEC_ALLOW: u32 = 4;
const FLAG_NEW_LISTENER: u32 = 8;
const FLAG_WAIT_KILLABLE_RECV: u32 = 32;

/// Compiles. `None` when everything is allowed. A name of a call that no convention has does not count, as with runc, since
/// profiles are written for kernels to come; `strict` refuses it.
pub(crate) fn compile(seccomp: &LinuxSeccomp, strict: bool) -> Result<Option<Filter>, Error> {
    let listed = seccomp.syscalls().as_deref().unwrap_or_default();
    if strict {
        refuse_unknown(listed)?;
    }
    let listener = listener::compile(seccomp, listed)?;
    let default = answer(seccomp.default_action(), seccomp.default_errno_ret());
    let rules = rules::Rules::new(listed, default)?;
    if rules.is_empty() && default == bpf::ALLOW {
        return Ok(None);
    }
    let arches = arch::select(seccomp.architectures().as_deref().unwrap_or_default())?;
    let program = bpf::assemble(&arches, &rules, default)?;
    let flags = flags(seccomp, listener.is_some());
    Ok(Some(Filter { program, flags, listener }))
}

fn refuse_unknown(listed: &[LinuxSyscall]) -> Result<(), Error> {
    let names: BTreeSet<&str> = listed.iter().flat_map(|rule| rule.names()).map(String::as_str).collect();
    let known: BTreeSet<&str> =
        arch::ALL.iter().flat_map(|arch| arch.calls()).map(|(name, _)| name).collect();
    match names.difference(&known).next() {
        Some(name) => {
            Err(Error::spec("linux.seccomp.syscalls", format!("{name:?} is no system call that is known")))
        }
        None => Ok(()),
    }
}

/// What the kernel is told for an action. The default errno is EPERM.
fn answer(action: LinuxSeccompAction, errno: Option<u32>) -> u32 {
    action.as_u32(Some(errno.unwrap_or(1) & 0xffff))
}

fn flags(seccomp: &LinuxSeccomp, notifies: bool) -> u32 {
    let listener = if notifies { FLAG_NEW_LISTENER } else { 0 };
    // without a word about flags, as runc: filtered programs are not slowed down against speculation
    let Some(flags) = seccomp.flags() else { return FLAG_SPEC_ALLOW | listener };
    flags.iter().fold(listener, |bits, flag| {
        bits | match flag {
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => FLAG_LOG,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => FLAG_SPEC_ALLOW,
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv if notifies => FLAG_WAIT_KILLABLE_RECV,
            // there is one thread; and without notifications nobody waits for their answer
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync
            | LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 0,
        }
    })
}

/// A program as text, 16 hexadecimal digits for an instruction: every command on a container reads it.
mod as_text {
    use std::borrow::Cow;

    use libc::sock_filter;
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    const LENGTH: usize = 16;

    pub(super) fn serialize<S: Serializer>(program: &[sock_filter], to: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(program.len() * LENGTH);
        for i in program {
            let bits =
                u64::from(i.code) << 48 | u64::from(i.jt) << 40 | u64::from(i.jf) << 32 | u64::from(i.k);
            let digits = (0..LENGTH).rev().map(|place| (bits >> (4 * place) & 0xf) as u32);
            text.extend(digits.filter_map(|digit| char::from_digit(digit, 16)));
        }
        to.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<sock_filter>, D::Error> {
        let text = Cow::<str>::deserialize(from)?;
        let instructions = text.as_bytes().chunks(LENGTH).map(|chunk| {
            let digits = std::str::from_utf8(chunk).ok().filter(|digits| digits.len() == LENGTH)?;
            let bits = u64::from_str_radix(digits, 16).ok()?;
            let byte = |shift: u32| (bits >> shift & 0xff) as u8;
            Some(sock_filter { code: (bits >> 48) as u16, jt: byte(40), jf: byte(32), k: bits as u32 })
        });
        instructions.collect::<Option<_>>().ok_or_else(|| D::Error::custom("no seccomp filter"))
    }
}

#[cfg(test)]
mod tests;
