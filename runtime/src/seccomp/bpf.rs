//! From rules to instructions (seccomp(2), bpf in the kernel's `Documentation/networking/filter`).

use libc::sock_filter as Instruction;
use oci_spec::runtime::{LinuxSeccompArg, LinuxSeccompOperator as Op};

use super::arch::{Convention, X32_BIT};
use super::rules::{Rule, Rules};
use crate::Error;

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const JUMP: u16 = 0x05;
const JUMP_EQ: u16 = 0x15;
const JUMP_GT: u16 = 0x25;
const JUMP_GE: u16 = 0x35;
const RETURN: u16 = 0x06;

/// `SECCOMP_RET_ALLOW`.
pub(crate) const ALLOW: u32 = 0x7fff_0000;
const KILL_THREAD: u32 = 0;
const ENOSYS: u32 = 0x0005_0000 | libc::ENOSYS.unsigned_abs();

const NUMBER: u32 = 0;
const ARCH: u32 = 4;

/// Stands for "the rule does not match" until the rule's length is known.
const MISS: u8 = u8::MAX;

/// The most instructions that the kernel takes.
const MAX: usize = 4096;

fn op(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Answer(u32),
    /// The call's rules, by index, in order; then the default.
    Check(Vec<usize>),
}

/// Instructions from the last to the first: jumps go forwards only, so when one is written, what it goes over is
/// there already, and everything is written once, into one list.
struct Backwards(Vec<Instruction>);

impl Backwards {
    fn push(&mut self, instruction: Instruction) {
        self.0.push(instruction);
    }

    /// A piece that is in its order.
    fn push_piece(&mut self, piece: &[Instruction]) {
        self.0.extend(piece.iter().rev());
    }

    /// How many instructions have been written since there were `count`.
    fn since(&self, count: usize) -> u32 {
        u32::try_from(self.0.len() - count).unwrap_or(u32::MAX)
    }

    /// A condition. If it holds, all that has been written since there were `count` is gone over.
    fn branch(&mut self, code: u16, k: u32, count: usize) {
        let over = self.since(count);
        match u8::try_from(over) {
            Ok(over) => self.push(jump(code, k, over, 0)),
            Err(_) => {
                self.push(op(JUMP, over));
                self.push(jump(code, k, 0, 1));
            }
        }
    }
}

/// The whole program.
pub(crate) fn assemble(
    arches: &[Convention],
    rules: &Rules<'_>,
    default: u32,
) -> Result<Vec<Instruction>, Error> {
    let mut out = Backwards(Vec::with_capacity(1024));
    out.push(op(RETURN, KILL_THREAD));
    for convention in arches.iter().filter(|c| c.bit == 0).rev() {
        let end = out.0.len();
        if convention.audit == super::arch::X86_64.audit {
            // x32's numbers are beyond all of x86_64's
            match arches.iter().find(|c| c.bit == X32_BIT) {
                Some(x32) => numbers(&mut out, x32, rules, default),
                None => out.push(op(RETURN, KILL_THREAD)),
            }
            let x32 = out.0.len();
            numbers(&mut out, convention, rules, default);
            out.branch(JUMP_GE, X32_BIT, x32);
        } else {
            numbers(&mut out, convention, rules, default);
        }
        out.push(op(LOAD, NUMBER));
        // not this architecture: over all of it
        out.push(op(JUMP, out.since(end)));
        out.push(jump(JUMP_EQ, convention.audit, 1, 0));
    }
    out.push(op(LOAD, ARCH));
    let mut program = out.0;
    if program.len() > MAX {
        return Err(Error::spec(
            "linux.seccomp",
            format!("the filter has {} instructions, more than {MAX}", program.len()),
        ));
    }
    program.reverse();
    Ok(program)
}

/// The decision over one convention's numbers, which are loaded already.
fn numbers(out: &mut Backwards, convention: &Convention, rules: &Rules<'_>, default: u32) {
    let calls = rules.of(convention);
    let mut ranges: Vec<(u32, Outcome)> = vec![(convention.bit, Outcome::Answer(default))];
    let mut add = |start: u32, outcome: Outcome| {
        if ranges.last().is_some_and(|(last, _)| *last == start) {
            ranges.pop();
        }
        if ranges.last().is_none_or(|(_, last)| *last != outcome) {
            ranges.push((start, outcome));
        }
    };
    let mut newest = None;
    for group in calls.chunk_by(|a, b| a.0 == b.0) {
        let Some((number, _)) = group.first() else { continue };
        if !Convention::is_private(*number) {
            newest = Some(*number);
        }
        let number = convention.bit + number;
        add(number, outcome(group, rules));
        add(number + 1, Outcome::Answer(default));
    }
    // Calls that are newer than the profile do not exist rather than being forbidden: libraries then
    // fall back to older ones (as in runc).
    if let Some(newest) = newest.filter(|_| forbids(default)) {
        let first = convention.bit + newest + 1;
        let end = ranges.iter().position(|(start, _)| *start > first);
        match end {
            Some(at) => ranges.insert(at, (first, Outcome::Answer(ENOSYS))),
            None => {
                ranges.retain(|(start, _)| *start != first);
                ranges.push((first, Outcome::Answer(ENOSYS)));
            }
        }
    }
    tree(out, &ranges, convention, rules, default);
}

fn forbids(answer: u32) -> bool {
    // kill, trap and errno come before trace, log and allow
    answer & 0xffff_0000 < 0x7ff0_0000 || answer == 0x8000_0000
}

/// A call's rules up to the first that always holds.
fn outcome(group: &[(u32, usize)], rules: &Rules<'_>) -> Outcome {
    let mut check = Vec::new();
    for (_, index) in group {
        match rules.get(*index) {
            Some(rule) if rule.conditions.is_empty() && check.is_empty() => {
                return Outcome::Answer(rule.answer);
            }
            Some(rule) => {
                check.push(*index);
                if rule.conditions.is_empty() {
                    break;
                }
            }
            None => {}
        }
    }
    Outcome::Check(check)
}

/// Binary search over ranges, each of which begins at its number and ends where the next begins.
fn tree(
    out: &mut Backwards,
    ranges: &[(u32, Outcome)],
    convention: &Convention,
    rules: &Rules<'_>,
    default: u32,
) {
    match ranges {
        [] => out.push(op(RETURN, default)),
        [(_, Outcome::Answer(answer))] => out.push(op(RETURN, *answer)),
        [(_, Outcome::Check(list))] => check(out, list, convention, rules, default),
        _ => {
            let (below, above) = ranges.split_at(ranges.len() / 2);
            let start = above.first().map_or(0, |(start, _)| *start);
            tree(out, above, convention, rules, default);
            let end = out.0.len();
            tree(out, below, convention, rules, default);
            out.branch(JUMP_GE, start, end);
        }
    }
}

/// One rule after the other; the first that matches answers.
fn check(out: &mut Backwards, list: &[usize], convention: &Convention, rules: &Rules<'_>, default: u32) {
    let mut code = Vec::new();
    for rule in list.iter().filter_map(|index| rules.get(*index)) {
        code.append(&mut one_rule(rule, convention));
        if rule.conditions.is_empty() {
            return out.push_piece(&code);
        }
    }
    code.push(op(RETURN, default));
    out.push_piece(&code);
}

fn one_rule(rule: &Rule, convention: &Convention) -> Vec<Instruction> {
    let mut code: Vec<Instruction> = Vec::new();
    for condition in &rule.conditions {
        code.append(&mut compare(condition, convention.wide));
    }
    code.push(op(RETURN, rule.answer));
    let end = code.len();
    for (index, instruction) in code.iter_mut().enumerate() {
        if instruction.code == RETURN {
            continue;
        }
        // at most six conditions of at most seven instructions: it fits
        let miss = u8::try_from(end - index - 1).unwrap_or(MISS);
        if instruction.jt == MISS {
            instruction.jt = miss;
        }
        if instruction.jf == MISS {
            instruction.jf = miss;
        }
    }
    code
}

/// Falls through if the condition holds.
fn compare(arg: &LinuxSeccompArg, wide: bool) -> Vec<Instruction> {
    let low_at = 16 + 8 * u32::try_from(arg.index()).unwrap_or(0);
    let high_at = low_at + 4; // both of our architectures are little-endian
    let (high, low) = halves(arg.value());
    if arg.op() == Op::ScmpCmpMaskedEq {
        let (want_high, want_low) = halves(arg.value_two().unwrap_or(0));
        let mut code = Vec::new();
        if wide {
            code.extend([op(LOAD, high_at), op(AND, high), jump(JUMP_EQ, want_high, 0, MISS)]);
        }
        code.extend([op(LOAD, low_at), op(AND, low), jump(JUMP_EQ, want_low, 0, MISS)]);
        return code;
    }
    // on the low half alone: code, target if it holds, target if not
    let (code, jt, jf) = match arg.op() {
        Op::ScmpCmpEq | Op::ScmpCmpMaskedEq => (JUMP_EQ, 0, MISS),
        Op::ScmpCmpNe => (JUMP_EQ, MISS, 0),
        Op::ScmpCmpGt => (JUMP_GT, 0, MISS),
        Op::ScmpCmpLe => (JUMP_GT, MISS, 0),
        Op::ScmpCmpGe => (JUMP_GE, 0, MISS),
        Op::ScmpCmpLt => (JUMP_GE, MISS, 0),
    };
    let low_part = [op(LOAD, low_at), jump(code, low, jt, jf)];
    if !wide {
        return low_part.to_vec();
    }
    // The high half decides unless it is equal; `2` and `3` jump over what follows, to where the condition holds.
    let mut out = vec![op(LOAD, high_at)];
    match arg.op() {
        Op::ScmpCmpEq | Op::ScmpCmpMaskedEq => out.push(jump(JUMP_EQ, high, 0, MISS)),
        Op::ScmpCmpNe => out.push(jump(JUMP_EQ, high, 0, 2)),
        Op::ScmpCmpGt | Op::ScmpCmpGe => {
            out.extend([jump(JUMP_GT, high, 3, 0), jump(JUMP_EQ, high, 0, MISS)]);
        }
        Op::ScmpCmpLt | Op::ScmpCmpLe => {
            out.extend([jump(JUMP_GT, high, MISS, 0), jump(JUMP_EQ, high, 0, 2)]);
        }
    }
    out.extend(low_part);
    out
}

fn halves(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, value as u32)
}
