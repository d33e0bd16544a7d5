//! Version 2 has no device files: an eBPF program decides about each access.

#![allow(unsafe_code)] // bpf(2) takes pointers in an untyped structure

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::Folder;
use super::file::open_folder;
use crate::Error;
use crate::sys::check;

const MKNOD: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;
const TYPE_BLOCK: i32 = 1;
const TYPE_CHAR: i32 = 2;

/// One eBPF instruction in the kernel's layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct Instruction {
    code: u8,
    /// Destination in the low, source in the high half.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const LOAD_WORD: u8 = 0x61;
const MOVE_REGISTER: u8 = 0xbc; // 32 bit
const MOVE_IMMEDIATE: u8 = 0xb7;
const AND_IMMEDIATE: u8 = 0x54; // 32 bit
const SHIFT_RIGHT: u8 = 0x74; // 32 bit
const JUMP_NOT_EQUAL: u8 = 0x55;
const JUMP_NOT_EQUAL_REGISTER: u8 = 0x5d;
const EXIT: u8 = 0x95;

fn op(code: u8, dst: u8, src: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: src << 4 | dst, offset, immediate }
}

/// A rule in numbers. `None` is any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    allow: bool,
    kind: Option<i32>,
    major: Option<i32>,
    minor: Option<i32>,
    access: i32,
}

impl Rule {
    fn new(rule: &LinuxDeviceCgroup) -> Result<Self, Error> {
        let number = |n: Option<i64>| match n.filter(|n| *n >= 0) {
            None => Ok(None),
            Some(n) => i32::try_from(n)
                .map(Some)
                .map_err(|_| Error::spec("linux.resources.devices", format!("{n} is no device number"))),
        };
        let access = super::devices::access(rule).chars().fold(0, |bits, letter| {
            bits | match letter {
                'r' => READ,
                'w' => WRITE,
                _ => MKNOD,
            }
        });
        Ok(Rule {
            allow: rule.allow(),
            kind: match rule.typ() {
                Some(LinuxDeviceType::B) => Some(TYPE_BLOCK),
                Some(LinuxDeviceType::C | LinuxDeviceType::U) => Some(TYPE_CHAR),
                _ => None,
            },
            major: number(rule.major())?,
            minor: number(rule.minor())?,
            access,
        })
    }

    fn is_everything(&self) -> bool {
        self.kind.is_none()
            && self.major.is_none()
            && self.minor.is_none()
            && self.access == MKNOD | READ | WRITE
    }
}

/// The program: the last rule that matches decides, so the rules are looked at backwards; what no
/// rule matches is denied.
fn compile(rules: &[Rule]) -> Vec<Instruction> {
    // r2 = type, r3 = access, r4 = major, r5 = minor (struct bpf_cgroup_dev_ctx)
    let mut program = vec![
        op(LOAD_WORD, 2, 1, 0, 0),
        op(AND_IMMEDIATE, 2, 0, 0, 0xffff),
        op(LOAD_WORD, 3, 1, 0, 0),
        op(SHIFT_RIGHT, 3, 0, 0, 16),
        op(LOAD_WORD, 4, 1, 4, 0),
        op(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules.iter().rev() {
        let mut block = Vec::new();
        if let Some(kind) = rule.kind {
            block.push(op(JUMP_NOT_EQUAL, 2, 0, 0, kind));
        }
        if rule.access != MKNOD | READ | WRITE {
            block.push(op(MOVE_REGISTER, 1, 3, 0, 0));
            block.push(op(AND_IMMEDIATE, 1, 0, 0, rule.access));
            if rule.allow {
                // every requested kind of access must be in the rule
                block.push(op(JUMP_NOT_EQUAL_REGISTER, 1, 3, 0, 0));
            } else {
                // one that is denied is enough; `JNE 0` would skip the wrong case, so skip the skip
                block.push(op(JUMP_NOT_EQUAL, 1, 0, 1, 0));
                block.push(op(0x05, 0, 0, 0, 0)); // jump always
            }
        }
        if let Some(major) = rule.major {
            block.push(op(JUMP_NOT_EQUAL, 4, 0, 0, major));
        }
        if let Some(minor) = rule.minor {
            block.push(op(JUMP_NOT_EQUAL, 5, 0, 0, minor));
        }
        block.push(op(MOVE_IMMEDIATE, 0, 0, 0, i32::from(rule.allow)));
        block.push(op(EXIT, 0, 0, 0, 0));
        let length = block.len();
        for (index, instruction) in block.iter_mut().enumerate() {
            let is_jump = instruction.code & 0x07 == 0x05 && instruction.code != EXIT;
            if is_jump && instruction.offset == 0 {
                instruction.offset = i16::try_from(length - index - 1).unwrap_or(i16::MAX);
            }
        }
        program.append(&mut block);
        if rule.is_everything() {
            return program; // nothing before it can matter
        }
    }
    program.extend([op(MOVE_IMMEDIATE, 0, 0, 0, 0), op(EXIT, 0, 0, 0, 0)]);
    program
}

/// Compiles the rules and attaches the program to the folder, in place of an earlier one.
pub(crate) fn apply_v2(folder: &Folder, rules: &[LinuxDeviceCgroup]) -> Result<(), Error> {
    let rules = rules.iter().map(Rule::new).collect::<Result<Vec<_>, _>>()?;
    let program = load(&compile(&rules))?;
    let directory = open_folder(&folder.path)?;
    let subject = || folder.path.display().to_string();
    let old = attached(&directory).map_err(|e| Error::system("query device programs of", subject(), e))?;
    attach(&directory, &program).map_err(|e| Error::system("attach device program to", subject(), e))?;
    for id in old {
        detach(&directory, id).map_err(|e| Error::system("detach device program from", subject(), e))?;
    }
    Ok(())
}

const BPF_PROG_LOAD: i32 = 5;
const BPF_PROG_ATTACH: i32 = 8;
const BPF_PROG_DETACH: i32 = 9;
const BPF_PROG_GET_FD_BY_ID: i32 = 13;
const BPF_PROG_QUERY: i32 = 16;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;

/// `bpf(2)`; the kernel takes a structure that is shorter than its own for one that ends with zeros.
fn bpf<T>(command: i32, attr: &mut T) -> Result<i32, rustix::io::Errno> {
    // SAFETY: each caller passes the structure of its command, whose pointers are alive, with its size.
    let result =
        check(unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) })?;
    i32::try_from(result).map_err(|_| rustix::io::Errno::OVERFLOW)
}

fn load(program: &[Instruction]) -> Result<OwnedFd, Error> {
    #[repr(C)]
    struct Load {
        program_type: u32,
        count: u32,
        instructions: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
    }
    let mut attr = Load {
        program_type: TYPE_CGROUP_DEVICE,
        count: u32::try_from(program.len()).unwrap_or(u32::MAX),
        instructions: program.as_ptr() as u64,
        license: c"Apache".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: *b"wherry_devices\0\0",
    };
    let fd = bpf(BPF_PROG_LOAD, &mut attr)
        .map_err(|e| Error::system("load device program of", format!("{} instructions", program.len()), e))?;
    // SAFETY: a new descriptor, close-on-exec as all of bpf's are.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[repr(C)]
struct Attach {
    target: i32,
    program: i32,
    attach_type: u32,
    flags: u32,
}

fn attach(directory: &OwnedFd, program: &OwnedFd) -> Result<(), rustix::io::Errno> {
    let directory = reopen(directory)?;
    let mut attr = Attach {
        target: directory.as_raw_fd(),
        program: program.as_raw_fd(),
        attach_type: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI,
    };
    bpf(BPF_PROG_ATTACH, &mut attr).map(drop)
}

fn detach(directory: &OwnedFd, id: u32) -> Result<(), rustix::io::Errno> {
    let mut get = [id, 0, 0];
    let fd = bpf(BPF_PROG_GET_FD_BY_ID, &mut get)?;
    // SAFETY: a new descriptor that nobody else owns.
    let program = unsafe { OwnedFd::from_raw_fd(fd) };
    let directory = reopen(directory)?;
    let mut attr = Attach {
        target: directory.as_raw_fd(),
        program: program.as_raw_fd(),
        attach_type: ATTACH_CGROUP_DEVICE,
        flags: 0,
    };
    bpf(BPF_PROG_DETACH, &mut attr).map(drop)
}

/// The ids of the device programs that are attached to the folder itself.
fn attached(directory: &OwnedFd) -> Result<Vec<u32>, rustix::io::Errno> {
    #[repr(C)]
    struct Query {
        target: i32,
        attach_type: u32,
        query_flags: u32,
        attach_flags: u32,
        ids: u64,
        count: u32,
        padding: u32,
    }
    let directory = reopen(directory)?;
    let mut ids = [0_u32; 64];
    let mut attr = Query {
        target: directory.as_raw_fd(),
        attach_type: ATTACH_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: 64,
        padding: 0,
    };
    bpf(BPF_PROG_QUERY, &mut attr)?;
    Ok(ids.iter().take(attr.count as usize).copied().collect())
}

/// bpf(2) wants a folder that is open for reading, not an `O_PATH` descriptor.
fn reopen(directory: &OwnedFd) -> Result<OwnedFd, rustix::io::Errno> {
    use rustix::fs::{Mode, OFlags};
    rustix::fs::openat(directory, c".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would.
    fn decide(program: &[Instruction], kind: i32, access: i32, major: i32, minor: i32) -> bool {
        let mut r = [0_i64; 11];
        let context = [access << 16 | kind, major, minor];
        let mut at = 0_usize;
        loop {
            let i = program[at];
            let (dst, src) = (usize::from(i.registers & 0xf), usize::from(i.registers >> 4));
            at += 1;
            let jump = |at: usize| at + usize::try_from(i.offset).unwrap();
            match i.code {
                LOAD_WORD => r[dst] = i64::from(context[usize::try_from(i.offset).unwrap() / 4]),
                AND_IMMEDIATE => r[dst] &= i64::from(i.immediate),
                SHIFT_RIGHT => r[dst] >>= i.immediate,
                MOVE_REGISTER => r[dst] = r[src],
                MOVE_IMMEDIATE => r[dst] = i64::from(i.immediate),
                JUMP_NOT_EQUAL if r[dst] != i64::from(i.immediate) => at = jump(at),
                JUMP_NOT_EQUAL_REGISTER if r[dst] != r[src] => at = jump(at),
                JUMP_NOT_EQUAL | JUMP_NOT_EQUAL_REGISTER => {}
                0x05 => at = jump(at),
                EXIT => return r[0] != 0,
                code => panic!("unknown instruction {code:#x}"),
            }
        }
    }

    fn rule(allow: bool, kind: Option<i32>, major: Option<i32>, minor: Option<i32>, access: i32) -> Rule {
        Rule { allow, kind, major, minor, access }
    }

    #[test]
    fn the_last_matching_rule_decides() {
        let all = MKNOD | READ | WRITE;
        let program = compile(&[
            rule(false, None, None, None, all),
            rule(true, Some(TYPE_CHAR), None, None, MKNOD),
            rule(true, Some(TYPE_CHAR), Some(1), Some(3), all),
            rule(true, Some(TYPE_CHAR), Some(5), None, READ | WRITE),
            rule(false, Some(TYPE_CHAR), Some(5), Some(1), WRITE),
        ]);
        assert!(decide(&program, TYPE_CHAR, READ | WRITE, 1, 3), "null");
        assert!(decide(&program, TYPE_CHAR, MKNOD, 99, 1), "mknod of any character device");
        assert!(!decide(&program, TYPE_BLOCK, MKNOD, 8, 0), "mknod of a block device");
        assert!(!decide(&program, TYPE_BLOCK, READ, 8, 0), "block device");
        assert!(decide(&program, TYPE_CHAR, READ, 5, 0), "tty");
        assert!(decide(&program, TYPE_CHAR, READ, 5, 1), "reading of the console");
        assert!(!decide(&program, TYPE_CHAR, READ | WRITE, 5, 1), "writing of the console");
        assert!(!decide(&program, TYPE_CHAR, all, 5, 0), "more than the rule allows");
    }

    #[test]
    fn everything_is_allowed() {
        let program = compile(&[rule(true, None, None, None, MKNOD | READ | WRITE)]);
        assert!(decide(&program, TYPE_BLOCK, WRITE, 8, 0));
    }

    #[test]
    fn the_kernel_accepts_it() {
        let all = MKNOD | READ | WRITE;
        load(&compile(&[
            rule(false, None, None, None, all),
            rule(true, Some(TYPE_CHAR), None, None, MKNOD),
            rule(false, Some(TYPE_CHAR), Some(5), Some(1), WRITE),
        ]))
        .unwrap();
        load(&compile(&[rule(true, None, None, None, all)])).unwrap();
    }
}
