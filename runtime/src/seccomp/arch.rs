//! Architectures, and the numbers of their system calls.

use oci_spec::runtime::Arch;

use crate::Error;

/// A system call convention that a filter can meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Convention {
    /// `AUDIT_ARCH_*`.
    pub(crate) audit: u32,
    /// Added to the numbers (x32).
    pub(crate) bit: u32,
    /// Whether arguments have 64 bits.
    pub(crate) wide: bool,
    /// Lines `name number`, sorted by name. Text, not a table of references: it is only mapped and
    /// needs no relocation, so it costs no memory in a process that does not compile filters.
    table: &'static str,
}

/// x32 calls are made on x86_64 with this bit in their number.
pub(crate) const X32_BIT: u32 = 0x4000_0000;

pub(crate) const X86_64: Convention =
    Convention { audit: 0xc000_003e, bit: 0, wide: true, table: include_str!("tables/x86_64.txt") };
pub(crate) const X32: Convention =
    Convention { audit: 0xc000_003e, bit: X32_BIT, wide: true, table: include_str!("tables/x32.txt") };
pub(crate) const X86: Convention =
    Convention { audit: 0x4000_0003, bit: 0, wide: false, table: include_str!("tables/x86.txt") };
pub(crate) const AARCH64: Convention =
    Convention { audit: 0xc000_00b7, bit: 0, wide: true, table: include_str!("tables/aarch64.txt") };
pub(crate) const ARM: Convention =
    Convention { audit: 0x4000_0028, bit: 0, wide: false, table: include_str!("tables/arm.txt") };

/// All of them.
pub(crate) const ALL: [Convention; 5] = [X86_64, X32, X86, AARCH64, ARM];

#[cfg(target_arch = "x86_64")]
const NATIVE: Convention = X86_64;
#[cfg(target_arch = "aarch64")]
const NATIVE: Convention = AARCH64;

/// The conventions of a profile, the machine's own first. Those that this machine cannot run do not matter.
pub(crate) fn select(architectures: &[Arch]) -> Result<Vec<Convention>, Error> {
    let mut list = vec![NATIVE];
    for arch in architectures {
        let convention = match arch {
            Arch::ScmpArchX86_64 => X86_64,
            Arch::ScmpArchX32 => X32,
            Arch::ScmpArchX86 => X86,
            Arch::ScmpArchAarch64 => AARCH64,
            Arch::ScmpArchArm => ARM,
            _ => continue,
        };
        let runs_here = match NATIVE.audit {
            0xc000_003e => [X86_64, X32, X86].contains(&convention),
            _ => [AARCH64, ARM].contains(&convention),
        };
        if runs_here && !list.contains(&convention) {
            list.push(convention);
        }
    }
    Ok(list)
}

impl Convention {
    /// All calls, sorted by name.
    pub(crate) fn calls(&self) -> impl Iterator<Item = (&'static str, u32)> {
        let mut rest = self.table;
        // byte by byte: to look for line ends first would take several times longer with lines so short
        std::iter::from_fn(move || {
            let (name, after) = rest.split_at_checked(rest.bytes().position(|b| b == b' ')?)?;
            let after = after.get(1..)?;
            let digits = after.bytes().take_while(u8::is_ascii_digit).count();
            let number = after.bytes().take(digits).fold(0, |number, b| number * 10 + u32::from(b - b'0'));
            rest = after.get(digits + 1..).unwrap_or_default();
            Some((name, number))
        })
    }

    /// Whether a call, by its number without the bit, is one of ARM's private ones, far away from all others.
    pub(crate) fn is_private(number: u32) -> bool {
        number >= 0xf_0000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_and_complete() {
        for convention in [X86_64, X32, X86, AARCH64, ARM] {
            let calls: Vec<_> = convention.calls().collect();
            assert_eq!(calls.len(), convention.table.lines().count());
            assert!(calls.windows(2).all(|w| w[0].0 < w[1].0));
            assert!(calls.len() > 300);
        }
        let number = |c: Convention, name| c.calls().find(|(n, _)| *n == name).unwrap().1;
        assert_eq!(number(X86_64, "execve"), 59);
        assert_eq!(number(X86, "execve"), 11);
        assert_eq!(number(X32, "execve"), 520);
        assert_eq!(number(AARCH64, "execve"), 221);
        assert_eq!(number(ARM, "execve"), 11);
        assert_eq!(number(X86_64, "mseal"), 462);
    }
}
