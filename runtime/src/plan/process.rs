//! `process` of the specification, compiled: the same for a container's init and for an exec.

use std::ffi::CString;
use std::os::fd::RawFd;

use oci_spec::runtime::{
    Capabilities, Capability, LinuxPersonality, LinuxPersonalityDomain, PosixRlimitType, Process,
};

use serde::{Deserialize, Serialize};

use super::c_string;
use super::scheduling::{self, Affinity, MemoryPolicy};
use crate::sys::identity::CapabilitySets;
use crate::sys::process::StringArray;
use crate::sys::scheduling::SchedulerAttr;
use crate::{Error, Stdio, Warning};

/// Where programs are looked for when the process has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What becomes of a child once its surroundings are ready.
#[derive(Debug)]
pub(crate) struct ProcessPlan {
    pub(crate) args: StringArray,
    pub(crate) env: StringArray,
    /// The paths to try; the first that may be executed wins.
    pub(crate) candidates: Vec<CString>,
    /// Whether the environment lacks `HOME`, which is then taken from the container's `/etc/passwd`.
    pub(crate) needs_home: bool,
    pub(crate) cwd: CString,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups.
    pub(crate) groups: Vec<u32>,
    /// Whether it keeps the caller's groups instead, also such as its user namespace does not know.
    pub(crate) keep_groups: bool,
    pub(crate) umask: u32,
    /// `None` is none at all for a container's init, and the container's for an exec.
    pub(crate) capabilities: Option<CapabilityPlan>,
    /// Resource, soft, hard.
    pub(crate) rlimits: Vec<(u32, u64, u64)>,
    pub(crate) no_new_privileges: bool,
    pub(crate) oom_score_adj: Option<i32>,
    pub(crate) scheduler: Option<SchedulerAttr>,
    pub(crate) io_priority: Option<i32>,
    /// The CPUs of a further process.
    pub(crate) affinity: Affinity,
    pub(crate) memory_policy: Option<MemoryPolicy>,
    pub(crate) personality: Option<u64>,
    /// File below `/proc/self` and text: where and what to write for AppArmor or SELinux.
    pub(crate) security_label: Option<(CString, CString)>,
    pub(crate) seccomp: Option<crate::seccomp::Filter>,
    /// The session keyring to join.
    pub(crate) keyring: Option<CString>,
    pub(crate) stdio: StdioPlan,
    /// Descriptors 3 to here are handed on.
    pub(crate) preserve_fds: u32,
    /// Whether a failed `execve` is told to the parent; else the child tells it on its standard error.
    pub(crate) report_exec_failure: bool,
    /// Device and inode of this very program, which may not be executed in a container.
    pub(crate) own_program: Option<(u64, u64)>,
}

/// Descriptors 0 to 2.
#[derive(Debug, Clone, Copy)]
pub(crate) enum StdioPlan {
    Inherit,
    Fds([RawFd; 3]),
    Terminal(TerminalPlan),
}

/// A new terminal.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TerminalPlan {
    pub(crate) rows: u16,
    pub(crate) cols: u16,
    /// Whether it puts a carriage return before a line's end.
    pub(crate) carriage_returns: bool,
}

/// Capabilities as bit masks. By default none.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct CapabilityPlan {
    pub(crate) sets: CapabilitySets,
    pub(crate) bounding: u64,
    pub(crate) ambient: u64,
}

impl ProcessPlan {
    /// Whether somebody is told of some of its calls.
    pub(crate) fn notifies(&self) -> bool {
        self.seccomp.as_ref().is_some_and(|filter| filter.listener.is_some())
    }

    /// Leaves out capabilities that the caller has not itself and so cannot give (a host may lack some): the
    /// specification wants such a container to start. In a user namespace a process has all. Ambient ones must be
    /// inheritable, too.
    pub(crate) fn grant_at_most_own(
        &mut self,
        user_namespace: bool,
        warnings: &mut Vec<Warning>,
    ) -> Result<(), Error> {
        let Some(plan) = &mut self.capabilities else { return Ok(()) };
        if !user_namespace {
            let own = crate::sys::identity::permitted_capabilities()
                .map_err(|errno| Error::system("read", "own capabilities", errno))?;
            let sets = &mut plan.sets;
            let asked = sets.effective | sets.permitted | sets.inheritable | plan.ambient;
            if asked & !own != 0 {
                let names = capabilities_in(asked & !own).map(|capability| capability.to_string());
                warnings.push(Warning::Capabilities { names: names.collect() });
            }
            sets.effective &= own;
            sets.permitted &= own;
            sets.inheritable &= own;
            plan.ambient &= own;
        }
        let lost = plan.ambient & !(plan.sets.inheritable & plan.sets.permitted);
        plan.ambient &= !lost;
        warnings.extend(capabilities_in(lost).map(|c| Warning::AmbientCapability { name: c.to_string() }));
        Ok(())
    }
}

/// Compiles.
pub(crate) fn compile(process: &Process, stdio: Stdio<'_>, preserve_fds: u32) -> Result<ProcessPlan, Error> {
    super::validate::process(process)?;
    let args = process.args().as_deref().unwrap_or_default();
    let Some(program) = args.first() else {
        return Err(Error::spec("process.args", "must not be empty"));
    };
    let cwd = process.cwd();
    if !cwd.is_absolute() {
        return Err(Error::spec("process.cwd", format!("{} is not an absolute path", cwd.display())));
    }
    let env = environment(process.env().as_deref().unwrap_or_default());
    let lookup = |name: &str| env.iter().find_map(|e| e.strip_prefix(name)?.strip_prefix('='));
    let user = process.user();
    Ok(ProcessPlan {
        candidates: candidates(program, lookup("PATH").unwrap_or(DEFAULT_PATH))?,
        needs_home: lookup("HOME").is_none_or(str::is_empty),
        args: strings("process.args", args.iter().map(String::as_str))?,
        env: strings("process.env", env.iter().copied())?,
        cwd: c_string("process.cwd", &cwd.to_string_lossy())?,
        uid: user.uid(),
        gid: user.gid(),
        groups: user.additional_gids().clone().unwrap_or_default(),
        keep_groups: false,
        umask: user.umask().unwrap_or(0o022),
        capabilities: process.capabilities().as_ref().map(|c| CapabilityPlan {
            sets: CapabilitySets {
                effective: mask(c.effective().as_ref()),
                permitted: mask(c.permitted().as_ref()),
                inheritable: mask(c.inheritable().as_ref()),
            },
            bounding: mask(c.bounding().as_ref()),
            ambient: mask(c.ambient().as_ref()),
        }),
        rlimits: process
            .rlimits()
            .iter()
            .flatten()
            .map(|l| (resource(l.typ()), l.soft(), l.hard()))
            .collect(),
        no_new_privileges: process.no_new_privileges().unwrap_or(false),
        oom_score_adj: process.oom_score_adj(),
        scheduler: process.scheduler().as_ref().map(scheduling::scheduler).transpose()?,
        io_priority: process
            .io_priority()
            .as_ref()
            .map(|p| scheduling::io_priority(p.class(), p.priority()))
            .transpose()?,
        affinity: scheduling::affinity(process.exec_cpu_affinity().as_ref())?,
        memory_policy: None,
        personality: None,
        security_label: security_label(process)?,
        seccomp: None,
        keyring: None,
        stdio: stdio_plan(process, stdio)?,
        preserve_fds,
        report_exec_failure: false,
        own_program: own_program(),
    })
}

/// The environment; of several entries with one name the last counts. `HOME=` counts as none.
fn environment(env: &[String]) -> Vec<&str> {
    let mut out: Vec<&str> = Vec::with_capacity(env.len());
    for entry in env {
        let name = entry.split('=').next().unwrap_or_default();
        if entry == "HOME=" {
            out.retain(|e| !e.starts_with("HOME="));
            continue;
        }
        match out.iter_mut().find(|e| e.split('=').next() == Some(name)) {
            Some(earlier) => *earlier = entry,
            None => out.push(entry),
        }
    }
    out
}

/// The paths to try for a program: itself if it has a slash, else one for each folder of `PATH`.
/// Relative folders do not count: a program must not depend on the working directory.
fn candidates(program: &str, path: &str) -> Result<Vec<CString>, Error> {
    if program.contains('/') {
        return Ok(vec![c_string("process.args", program)?]);
    }
    path.split(':')
        .filter(|folder| folder.starts_with('/') && !program.is_empty())
        .map(|folder| c_string("process.args", &format!("{}/{program}", folder.trim_end_matches('/'))))
        .collect()
}

fn strings<'a>(field: &'static str, list: impl Iterator<Item = &'a str>) -> Result<StringArray, Error> {
    Ok(StringArray::new(list.map(|s| c_string(field, s)).collect::<Result<_, _>>()?))
}

fn stdio_plan(process: &Process, stdio: Stdio<'_>) -> Result<StdioPlan, Error> {
    use std::os::fd::AsRawFd;
    Ok(match stdio {
        Stdio::Inherit => StdioPlan::Inherit,
        Stdio::Fds { stdin, stdout, stderr } => {
            StdioPlan::Fds([stdin.as_raw_fd(), stdout.as_raw_fd(), stderr.as_raw_fd()])
        }
        Stdio::Terminal { .. } | Stdio::CopiedTerminal => {
            let (size, carriage_returns) = match stdio {
                Stdio::Terminal { size } => (size, true),
                _ => (None, false),
            };
            let (rows, cols) = match (size, process.console_size()) {
                (Some(size), _) => size,
                (None, Some(size)) => {
                    let number = |n: u64| {
                        u16::try_from(n)
                            .map_err(|_| Error::spec("process.consoleSize", format!("{n} is too large")))
                    };
                    (number(size.height())?, number(size.width())?)
                }
                (None, None) => (0, 0),
            };
            StdioPlan::Terminal(TerminalPlan { rows, cols, carriage_returns })
        }
    })
}

fn own_program() -> Option<(u64, u64)> {
    let stat = rustix::fs::stat(c"/proc/self/exe").ok()?;
    Some((stat.st_dev, stat.st_ino))
}

fn capabilities_in(mask: u64) -> impl Iterator<Item = caps::Capability> {
    let mut all: Vec<_> = caps::all().into_iter().filter(|c| mask & c.bitmask() != 0).collect();
    all.sort_by_key(caps::Capability::index);
    all.into_iter()
}

fn mask(capabilities: Option<&Capabilities>) -> u64 {
    capabilities.into_iter().flatten().fold(0, |mask, c| mask | 1 << number(*c))
}

/// The capability's number in linux/capability.h.
fn number(capability: Capability) -> u32 {
    match capability {
        Capability::Chown => 0,
        Capability::DacOverride => 1,
        Capability::DacReadSearch => 2,
        Capability::Fowner => 3,
        Capability::Fsetid => 4,
        Capability::Kill => 5,
        Capability::Setgid => 6,
        Capability::Setuid => 7,
        Capability::Setpcap => 8,
        Capability::LinuxImmutable => 9,
        Capability::NetBindService => 10,
        Capability::NetBroadcast => 11,
        Capability::NetAdmin => 12,
        Capability::NetRaw => 13,
        Capability::IpcLock => 14,
        Capability::IpcOwner => 15,
        Capability::SysModule => 16,
        Capability::SysRawio => 17,
        Capability::SysChroot => 18,
        Capability::SysPtrace => 19,
        Capability::SysPacct => 20,
        Capability::SysAdmin => 21,
        Capability::SysBoot => 22,
        Capability::SysNice => 23,
        Capability::SysResource => 24,
        Capability::SysTime => 25,
        Capability::SysTtyConfig => 26,
        Capability::Mknod => 27,
        Capability::Lease => 28,
        Capability::AuditWrite => 29,
        Capability::AuditControl => 30,
        Capability::Setfcap => 31,
        Capability::MacOverride => 32,
        Capability::MacAdmin => 33,
        Capability::Syslog => 34,
        Capability::WakeAlarm => 35,
        Capability::BlockSuspend => 36,
        Capability::AuditRead => 37,
        Capability::Perfmon => 38,
        Capability::Bpf => 39,
        Capability::CheckpointRestore => 40,
    }
}

/// The kernel's number (asm-generic/resource.h); `sys::identity::RLIMIT_NAMES` has the same order.
fn resource(kind: PosixRlimitType) -> u32 {
    match kind {
        PosixRlimitType::RlimitCpu => 0,
        PosixRlimitType::RlimitFsize => 1,
        PosixRlimitType::RlimitData => 2,
        PosixRlimitType::RlimitStack => 3,
        PosixRlimitType::RlimitCore => 4,
        PosixRlimitType::RlimitRss => 5,
        PosixRlimitType::RlimitNproc => 6,
        PosixRlimitType::RlimitNofile => 7,
        PosixRlimitType::RlimitMemlock => 8,
        PosixRlimitType::RlimitAs => 9,
        PosixRlimitType::RlimitLocks => 10,
        PosixRlimitType::RlimitSigpending => 11,
        PosixRlimitType::RlimitMsgqueue => 12,
        PosixRlimitType::RlimitNice => 13,
        PosixRlimitType::RlimitRtprio => 14,
        PosixRlimitType::RlimitRttime => 15,
    }
}

/// The value for personality(2).
pub(crate) fn personality(personality: &LinuxPersonality) -> Result<u64, Error> {
    if personality.flags().as_ref().is_some_and(|flags| !flags.is_empty()) {
        return Err(Error::Unsupported { what: "linux.personality.flags".into(), why: "" });
    }
    Ok(match personality.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    })
}

/// AppArmor's profile or SELinux's label; asking for one on a host that has not the module is an error.
fn security_label(process: &Process) -> Result<Option<(CString, CString)>, Error> {
    if let Some(profile) =
        process.apparmor_profile().as_deref().filter(|p| !p.is_empty() && *p != "unconfined")
    {
        let enabled =
            std::fs::read("/sys/module/apparmor/parameters/enabled").is_ok_and(|t| t.starts_with(b"Y"));
        if !enabled {
            return Err(Error::Unsupported {
                what: format!("the AppArmor profile {profile:?}"),
                why: "this kernel has no AppArmor",
            });
        }
        // the module's own folder is there since 5.8; the old file is shared with other modules
        let own = std::path::Path::new("/proc/self/attr/apparmor/exec").exists();
        let file = if own { "attr/apparmor/exec" } else { "attr/exec" };
        return Ok(Some((
            c_string("process", file)?,
            c_string("process.apparmorProfile", &format!("exec {profile}"))?,
        )));
    }
    if let Some(label) = process.selinux_label().as_deref().filter(|l| !l.is_empty()) {
        if !std::path::Path::new("/sys/fs/selinux/enforce").exists() {
            return Err(Error::Unsupported {
                what: format!("the SELinux label {label:?}"),
                why: "this kernel has no SELinux",
            });
        }
        return Ok(Some((c_string("process", "attr/exec")?, c_string("process.selinuxLabel", label)?)));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_for_in_absolute_folders_only() {
        let list = |program, path| {
            candidates(program, path)
                .unwrap()
                .into_iter()
                .map(|c| c.into_string().unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(list("sh", "/bin:/usr/bin/:rel::/"), ["/bin/sh", "/usr/bin/sh", "/sh"]);
        assert_eq!(list("./sh", "/bin"), ["./sh"]);
        assert!(list("", "/bin").is_empty());
    }

    #[test]
    fn the_last_value_of_a_variable_counts() {
        let env = ["A=1", "B=2", "A=3", "HOME="].map(str::to_owned);
        assert_eq!(environment(&env), ["A=3", "B=2"]);
    }
}
