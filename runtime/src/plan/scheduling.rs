//! Where and when a process runs, compiled: scheduler, I/O priority, CPU affinity, memory policy.

use oci_spec::runtime::{
    ExecCPUAffinity, IOPriorityClass, LinuxMemoryPolicy, LinuxSchedulerFlag, LinuxSchedulerPolicy,
    MemoryPolicyFlagType, MemoryPolicyModeType, Scheduler,
};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::sys::scheduling::SchedulerAttr;

/// More than any kernel has CPUs or memory nodes.
const MAX_NUMBER: usize = 8192;

/// A set of CPUs or memory nodes, as the kernel takes it: a mask in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NumberSet(pub(crate) Vec<u64>);

impl NumberSet {
    /// Parses a list like `0-3,7` (cpuset(7), "List format").
    fn parse(field: &'static str, text: &str) -> Result<Self, Error> {
        let invalid = || Error::spec(field, format!("{text:?} is not a list like \"0-3,7\""));
        let number = |digits: &str| {
            digits.trim().parse::<usize>().ok().filter(|n| *n < MAX_NUMBER).ok_or_else(invalid)
        };
        let mut words: Vec<u64> = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(invalid());
            }
            words.resize(words.len().max(last / 64 + 1), 0);
            for bit in first..=last {
                if let Some(word) = words.get_mut(bit / 64) {
                    *word |= 1 << (bit % 64);
                }
            }
        }
        Ok(NumberSet(words))
    }
}

/// All CPUs there can be: what a container's processes may run on is their cgroup's business, not the caller's.
pub(crate) const ALL_CPUS: [u64; MAX_NUMBER / 64] = [u64::MAX; MAX_NUMBER / 64];

/// `process.execCPUAffinity`; it concerns further processes of a container, not its init.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Affinity {
    /// Before the container's cgroup is entered.
    pub(crate) initial: Option<NumberSet>,
    /// After that.
    pub(crate) last: Option<NumberSet>,
}

/// Compiles `process.execCPUAffinity`.
pub(crate) fn affinity(affinity: Option<&ExecCPUAffinity>) -> Result<Affinity, Error> {
    let set = |field, text: Option<&String>| {
        text.filter(|text| !text.is_empty()).map(|text| NumberSet::parse(field, text)).transpose()
    };
    Ok(Affinity {
        initial: set("process.execCPUAffinity.initial", affinity.and_then(|a| a.initial().as_ref()))?,
        last: set("process.execCPUAffinity.final", affinity.and_then(|a| a.cpu_affinity_final().as_ref()))?,
    })
}

/// `linux.memoryPolicy`, as set_mempolicy(2) takes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MemoryPolicy {
    /// `MPOL_*`, with the flags.
    pub(crate) mode: u32,
    pub(crate) nodes: NumberSet,
}

/// Compiles `linux.memoryPolicy`. What does not fit together is left to the kernel, which refuses it.
pub(crate) fn memory_policy(policy: &LinuxMemoryPolicy) -> Result<MemoryPolicy, Error> {
    let mode = match policy.mode() {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    let flags = policy.flags().iter().flatten().fold(0, |flags, flag| {
        flags
            | match flag {
                MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
                MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
                MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
            }
    });
    let nodes = match policy.nodes().as_deref().filter(|nodes| !nodes.is_empty()) {
        Some(nodes) => NumberSet::parse("linux.memoryPolicy.nodes", nodes)?,
        None => NumberSet(Vec::new()),
    };
    Ok(MemoryPolicy { mode: mode | flags, nodes })
}

/// Compiles `process.scheduler`.
pub(crate) fn scheduler(scheduler: &Scheduler) -> Result<SchedulerAttr, Error> {
    let policy = match scheduler.policy() {
        LinuxSchedulerPolicy::SchedOther => libc::SCHED_OTHER,
        LinuxSchedulerPolicy::SchedFifo => libc::SCHED_FIFO,
        LinuxSchedulerPolicy::SchedRr => libc::SCHED_RR,
        LinuxSchedulerPolicy::SchedBatch => libc::SCHED_BATCH,
        LinuxSchedulerPolicy::SchedIso => {
            return Err(Error::Unsupported { what: "SCHED_ISO".into(), why: "no kernel has it" });
        }
        LinuxSchedulerPolicy::SchedIdle => libc::SCHED_IDLE,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    let flags = scheduler.flags().iter().flatten().fold(0, |flags, flag| {
        flags
            | match flag {
                LinuxSchedulerFlag::SchedResetOnFork => 0x01,
                LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
                LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
                LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
                LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
                LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
                LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
            }
    });
    if scheduler.policy() == &LinuxSchedulerPolicy::SchedDeadline {
        deadline(scheduler)?;
    }
    let invalid = |_| Error::spec("process.scheduler", "a negative number");
    Ok(SchedulerAttr {
        size: 48,
        policy: u32::try_from(policy).map_err(invalid)?,
        flags,
        nice: scheduler.nice().unwrap_or(0),
        priority: u32::try_from(scheduler.priority().unwrap_or(0)).map_err(invalid)?,
        runtime: scheduler.runtime().unwrap_or(0),
        deadline: scheduler.deadline().unwrap_or(0),
        period: scheduler.period().unwrap_or(0),
    })
}

/// The kernel answers EINVAL to all of these; the words are crun's.
fn deadline(scheduler: &Scheduler) -> Result<(), Error> {
    /// What the kernel takes by default (`kernel.sched_deadline_period_{min,max}_us`) lies within.
    const RUNTIME: std::ops::RangeInclusive<u64> = 1024..=(1 << 63) - 1;
    let refuse = |reason: String| {
        Err(Error::spec("process.scheduler", format!("sched_setattr: `SCHED_DEADLINE` {reason}")))
    };
    let Some(&runtime) = scheduler.runtime().as_ref() else { return refuse("requires `runtime`".into()) };
    let Some(&deadline) = scheduler.deadline().as_ref() else { return refuse("requires `deadline`".into()) };
    let period = scheduler.period().as_ref().copied().filter(|period| *period != 0).unwrap_or(deadline);
    if runtime == 0 {
        return refuse("runtime must be greater than 0".into());
    }
    if !RUNTIME.contains(&runtime) {
        return refuse(format!(
            "runtime {runtime} must be between {} and {}",
            RUNTIME.start(),
            RUNTIME.end()
        ));
    }
    if runtime > deadline {
        return refuse(format!("runtime {runtime} must be <= deadline {deadline}"));
    }
    if deadline > period {
        return refuse(format!("deadline {deadline} must be <= period {period}"));
    }
    Ok(())
}

/// Compiles `process.ioPriority`.
pub(crate) fn io_priority(class: IOPriorityClass, priority: i64) -> Result<i32, Error> {
    let class = match class {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    let priority = i32::try_from(priority).ok().filter(|p| (0..8).contains(p));
    priority
        .map(|priority| class << 13 | priority)
        .ok_or_else(|| Error::spec("process.ioPriority.priority", "must be 0 to 7"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_numbers() {
        let parse = |text| NumberSet::parse("f", text).map(|set| set.0).ok();
        assert_eq!(parse("0"), Some(vec![1]));
        assert_eq!(parse("0-3,7"), Some(vec![0x8f]));
        assert_eq!(parse("1, 64-65"), Some(vec![2, 3]));
        for bad in ["", "a", "3-1", "1,", "-1", "8192", "1-2-3"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
