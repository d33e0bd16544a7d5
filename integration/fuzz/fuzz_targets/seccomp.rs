//! Seccomp profiles, made of bytes so that most of them are well-formed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
];
const ARCHES: [&str; 6] = [
    "SCMP_ARCH_NATIVE",
    "SCMP_ARCH_X86_64",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_ARM",
];
const NAMES: [&str; 16] = [
    "read",
    "write",
    "openat",
    "clone",
    "clone3",
    "mkdir",
    "socket",
    "ioctl",
    "ptrace",
    "personality",
    "futex",
    "execve",
    "nosuchcall",
    "socketcall",
    "prctl",
    "",
];
const OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
];

fn pick<'a>(from: &[&'a str], bytes: &mut impl Iterator<Item = u8>) -> &'a str {
    from[usize::from(bytes.next().unwrap_or(0)) % from.len()]
}

fn number(bytes: &mut impl Iterator<Item = u8>) -> u64 {
    let kind = bytes.next().unwrap_or(0);
    match kind % 4 {
        0 => u64::from(kind / 4),
        1 => u64::MAX,
        2 => u64::from(u32::MAX) + u64::from(kind / 4),
        _ => (0..8).fold(0, |value, _| value << 8 | u64::from(bytes.next().unwrap_or(0))),
    }
}

fuzz_target!(|data: &[u8]| {
    let mut bytes = data.iter().copied();
    let mut profile = json!({ "defaultAction": pick(&ACTIONS, &mut bytes) });
    let head = bytes.next().unwrap_or(0);
    if head & 1 != 0 {
        profile["defaultErrnoRet"] = json!(number(&mut bytes) as u32);
    }
    profile["architectures"] = (0..head >> 1 & 3).map(|_| json!(pick(&ARCHES, &mut bytes))).collect();
    let mut rules: Vec<Value> = Vec::new();
    while let Some(shape) = bytes.next() {
        let mut rule = json!({ "action": pick(&ACTIONS, &mut bytes) });
        rule["names"] = (0..shape & 3).map(|_| json!(pick(&NAMES, &mut bytes))).collect();
        if shape & 4 != 0 {
            rule["errnoRet"] = json!(number(&mut bytes) as u32);
        }
        rule["args"] = (0..shape >> 3 & 7)
            .map(|_| {
                json!({
                    "index": bytes.next().unwrap_or(0) % 7,
                    "op": pick(&OPERATORS, &mut bytes),
                    "value": number(&mut bytes),
                    "valueTwo": number(&mut bytes),
                })
            })
            .collect();
        rules.push(rule);
    }
    profile["syscalls"] = rules.into();
    let spec = wherry_fuzz::spec_with("/linux/seccomp", profile);
    wherry_fuzz::validate(&serde_json::from_value(spec).expect("it is well-formed"));
});
