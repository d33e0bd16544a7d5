//! Filters are run by a small interpreter, and given to the kernel.

use super::*;

const X86_64: u32 = 0xc000_003e;
const X86: u32 = 0x4000_0003;
const ERRNO: u32 = 0x0005_0000;
const KILL: u32 = 0;

fn run(filter: &Filter, arch: u32, number: u32, args: [u64; 6]) -> u32 {
    let mut data = vec![number, arch, 0, 0];
    for arg in args {
        data.extend([u32::try_from(arg & 0xffff_ffff).unwrap(), u32::try_from(arg >> 32).unwrap()]);
    }
    let (mut at, mut a) = (0_usize, 0_u32);
    loop {
        let i = filter.program[at];
        at += 1;
        let to = |at: usize, yes: bool| at + usize::from(if yes { i.jt } else { i.jf });
        match i.code {
            0x20 => a = data[usize::try_from(i.k).unwrap() / 4],
            0x54 => a &= i.k,
            0x05 => at += usize::try_from(i.k).unwrap(),
            0x15 => at = to(at, a == i.k),
            0x25 => at = to(at, a > i.k),
            0x35 => at = to(at, a >= i.k),
            0x06 => return i.k,
            code => panic!("unknown instruction {code:#x}"),
        }
    }
}

fn filter(profile: serde_json::Value) -> Filter {
    compile(&serde_json::from_value(profile).unwrap(), false).unwrap().unwrap()
}

#[test]
fn allow_list() {
    let f = filter(serde_json::json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [
            { "names": ["read", "write", "no_such_call", "mseal"], "action": "SCMP_ACT_ALLOW" },
            { "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38 },
            { "names": ["reboot"], "action": "SCMP_ACT_KILL_PROCESS" },
        ],
    }));
    let none = [0; 6];
    for (arch, number, expect) in [
        (X86_64, 0, bpf::ALLOW),
        (X86_64, 1, bpf::ALLOW),
        (X86_64, 2, ERRNO | 1),
        (X86_64, 435, ERRNO | 38),
        (X86_64, 169, 0x8000_0000),
        (X86_64, 462, bpf::ALLOW),
        (X86_64, 463, ERRNO | 38),         // newer than the profile
        (X86_64, 0x4000_0000, bpf::ALLOW), // x32 read
        (X86_64, 0x4000_0002, ERRNO | 1),
        (X86, 3, bpf::ALLOW),
        (X86, 0, ERRNO | 1),
        (0xc000_00b7, 0, KILL),
    ] {
        assert_eq!(run(&f, arch, number, none), expect, "{arch:#x} {number}");
    }
}

#[test]
fn deny_list() {
    let f = filter(serde_json::json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13 }],
    }));
    assert_eq!(run(&f, X86_64, 83, [0; 6]), ERRNO | 13);
    assert_eq!(run(&f, X86_64, 82, [0; 6]), bpf::ALLOW);
    assert_eq!(run(&f, X86_64, 9999, [0; 6]), bpf::ALLOW);
    assert_eq!(run(&f, X86_64, 0x4000_0053, [0; 6]), KILL, "x32 is not in the profile");
}

#[test]
fn nothing_forbidden_needs_no_filter() {
    let profile = serde_json::from_value(serde_json::json!({ "defaultAction": "SCMP_ACT_ALLOW" })).unwrap();
    assert!(compile(&profile, false).unwrap().is_none());
}

/// Each operator on each order of both halves.
#[test]
fn conditions_on_64_bits() {
    let values = [0, 1, 5, 6, 0xffff_ffff, 1 << 32, (1 << 32) + 5, (1 << 32) + 6, u64::MAX];
    for (name, holds) in [
        ("SCMP_CMP_EQ", (|a, b| a == b) as fn(u64, u64) -> bool),
        ("SCMP_CMP_NE", |a, b| a != b),
        ("SCMP_CMP_LT", |a, b| a < b),
        ("SCMP_CMP_LE", |a, b| a <= b),
        ("SCMP_CMP_GT", |a, b| a > b),
        ("SCMP_CMP_GE", |a, b| a >= b),
    ] {
        for value in values {
            let f = filter(serde_json::json!({
                "defaultAction": "SCMP_ACT_ERRNO",
                "syscalls": [{ "names": ["personality"], "action": "SCMP_ACT_ALLOW",
                               "args": [{ "index": 0, "value": value, "op": name }] }],
            }));
            for arg in values {
                let expect = if holds(arg, value) { bpf::ALLOW } else { ERRNO | 1 };
                assert_eq!(run(&f, X86_64, 135, [arg, 0, 0, 0, 0, 0]), expect, "{arg} {name} {value}");
            }
        }
    }
}

#[test]
fn conditions_are_joined_as_in_runc() {
    let f = filter(serde_json::json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86"],
        "syscalls": [
            // all of several arguments
            { "names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": [
                { "index": 0, "value": 16, "op": "SCMP_CMP_EQ" }, { "index": 2, "value": 9, "op": "SCMP_CMP_NE" }] },
            // any of one argument's
            { "names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
                { "index": 0, "value": 0, "op": "SCMP_CMP_EQ" }, { "index": 0, "value": 8, "op": "SCMP_CMP_EQ" }] },
            // namespaces' bits
            { "names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [
                { "index": 0, "value": 2114060288_u64, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ" }] },
            // two rules
            { "names": ["ioctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 25, "args": [
                { "index": 1, "value": 21522, "op": "SCMP_CMP_EQ" }] },
            { "names": ["ioctl"], "action": "SCMP_ACT_ALLOW" },
        ],
    }));
    let ask = |number, args| run(&f, X86_64, number, args);
    assert_eq!(ask(41, [16, 0, 0, 0, 0, 0]), bpf::ALLOW);
    assert_eq!(ask(41, [16, 0, 9, 0, 0, 0]), ERRNO | 1);
    assert_eq!(ask(41, [2, 0, 0, 0, 0, 0]), ERRNO | 1);
    assert_eq!(ask(135, [8, 0, 0, 0, 0, 0]), bpf::ALLOW);
    assert_eq!(ask(135, [9, 0, 0, 0, 0, 0]), ERRNO | 1);
    assert_eq!(ask(56, [17, 0, 0, 0, 0, 0]), bpf::ALLOW);
    assert_eq!(ask(56, [0x1000_0000, 0, 0, 0, 0, 0]), ERRNO | 1);
    assert_eq!(ask(16, [0, 21522, 0, 0, 0, 0]), ERRNO | 25);
    assert_eq!(ask(16, [0, 1, 0, 0, 0, 0]), bpf::ALLOW);
    // 32-bit arguments have no high half
    assert_eq!(run(&f, X86, 136, [8 | 1 << 32, 0, 0, 0, 0, 0]), bpf::ALLOW);
}

#[test]
fn a_large_profile_is_small_enough() {
    let names: Vec<_> = arch::X86_64.calls().map(|(name, _)| name).step_by(2).collect();
    let f = filter(serde_json::json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [{ "names": names, "action": "SCMP_ACT_ALLOW" }],
    }));
    for (name, number) in arch::X86_64.calls() {
        let expect = names.contains(&name);
        assert_eq!(run(&f, X86_64, number, [0; 6]) == bpf::ALLOW, expect, "{name}");
    }
}

#[test]
fn filters_survive_being_stored() {
    let f = filter(serde_json::json!({
        "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{ "names": ["read"], "action": "SCMP_ACT_ALLOW" }],
    }));
    let again: Filter = serde_json::from_str(&serde_json::to_string(&f).unwrap()).unwrap();
    assert_eq!(again.program.len(), f.program.len());
    assert_eq!(run(&again, X86_64, 0, [0; 6]), bpf::ALLOW);
}

#[test]
fn saved_filters_are_read_back() {
    let program = vec![
        libc::sock_filter { code: 0x20, jt: 0, jf: 255, k: 0xffff_fffe },
        libc::sock_filter { code: 0xffff, jt: 17, jf: 0, k: 3 },
    ];
    let saved = serde_json::to_string(&Filter { program, flags: 4, listener: None }).unwrap();
    assert_eq!(saved, r#"{"program":"002000fffffffffeffff110000000003","flags":4}"#);
    let read: Filter = serde_json::from_str(&saved).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), saved);
    for bad in ["0", "002000fffffffffe0", "002000ffffff\u{e9}ff", "-02000fffffffffe"] {
        assert!(
            serde_json::from_str::<Filter>(&format!(r#"{{"program":"{bad}","flags":0}}"#)).is_err(),
            "{bad}"
        );
    }
}

/// As crun's annotation has it: names of other machines are known, misspelt ones and those of kernels to come are not.
#[test]
fn unknown_calls_are_an_error_if_that_is_asked_for() {
    let with = |names: &[&str]| {
        let profile = serde_json::json!({ "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": names, "action": "SCMP_ACT_ERRNO" }] });
        compile(&serde_json::from_value(profile).unwrap(), true).map(|filter| filter.is_some())
    };
    assert!(with(&["mkdir", "cacheflush", "openat2"]).unwrap());
    let error = with(&["mkdir", "makedir"]).unwrap_err().to_string();
    assert!(error.contains("linux.seccomp.syscalls: \"makedir\" is no system call that is known"), "{error}");
}
