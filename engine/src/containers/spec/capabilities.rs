//! Which capabilities a container's processes have.

use serde_json::{Value, json};

use super::super::config::HostConfig;
use crate::error::Error;
use crate::text::go_quote;

/// All capabilities of Linux, by number.
pub(super) const ALL: [&str; 41] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
];

/// Docker's default set, in Docker's order.
const DEFAULT: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// What may be given: what we have ourselves. (A daemon in a container may lack some; asking for them
/// would fail every privileged container.)
fn available() -> &'static [&'static str] {
    static AVAILABLE: std::sync::OnceLock<Vec<&'static str>> = std::sync::OnceLock::new();
    AVAILABLE.get_or_init(|| {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let bounding = status
            .lines()
            .find_map(|line| line.strip_prefix("CapBnd:"))
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .unwrap_or(u64::MAX);
        ALL.iter()
            .enumerate()
            .filter(|(number, _)| bounding >> number & 1 == 1)
            .map(|(_, name)| *name)
            .collect()
    })
}

/// Checks `CapAdd` and `CapDrop`.
///
/// # Errors
/// 400 `invalid CapAdd: unknown capability: "CAP_X"`.
pub(crate) fn validate(host: &HostConfig) -> Result<(), Error> {
    normalize("CapAdd", host.cap_add.as_deref())?;
    normalize("CapDrop", host.cap_drop.as_deref()).map(|_| ())
}

/// The container's capabilities, `CAP_…`; all that there are if it is privileged.
///
/// # Errors
/// As [`validate`].
pub(super) fn effective(host: &HostConfig) -> Result<Vec<&'static str>, Error> {
    if host.privileged {
        return Ok(available().to_vec());
    }
    let added = normalize("CapAdd", host.cap_add.as_deref())?;
    let dropped = normalize("CapDrop", host.cap_drop.as_deref())?;
    let keep = |name: &&str| !dropped.contains(&Some(*name));
    Ok(if added.contains(&None) {
        available().iter().copied().filter(keep).collect()
    } else if dropped.contains(&None) {
        added.into_iter().flatten().collect()
    } else {
        let mut names: Vec<&str> = DEFAULT.iter().copied().filter(keep).collect();
        names.extend(added.into_iter().flatten().filter(|name| !DEFAULT.contains(name)));
        names
    })
}

/// All capabilities, for an exec that is privileged though its container is not.
pub(super) fn all() -> Vec<&'static str> {
    available().to_vec()
}

/// `process.capabilities`. The inheritable set stays empty (CVE-2022-24769); programs of users other than root get none
/// by `execve`, as with Docker.
pub(super) fn process(names: &[&str]) -> Value {
    if names.is_empty() {
        return json!({});
    }
    json!({ "bounding": names, "effective": names, "permitted": names })
}

/// The names with prefix and in upper case; `None` stands for `ALL`.
fn normalize(field: &str, names: Option<&[String]>) -> Result<Vec<Option<&'static str>>, Error> {
    let mut normalized = Vec::new();
    for given in names.unwrap_or_default() {
        let upper = given.trim().to_uppercase();
        if upper == "ALL" {
            normalized.push(None);
            continue;
        }
        let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
        let Some(name) = ALL.iter().find(|known| **known == full) else {
            return Err(Error::InvalidParameter(format!(
                "invalid {field}: unknown capability: {}",
                go_quote(&full)
            )));
        };
        if !normalized.contains(&Some(*name)) {
            normalized.push(Some(*name));
        }
    }
    Ok(normalized)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(add: &[&str], drop: &[&str]) -> HostConfig {
        let list = |names: &[&str]| Some(names.iter().map(ToString::to_string).collect());
        HostConfig { cap_add: list(add), cap_drop: list(drop), ..HostConfig::default() }
    }

    #[test]
    fn additions_and_removals_are_applied_as_dockerd_does() {
        assert_eq!(effective(&host(&[], &[])).unwrap(), DEFAULT);
        assert_eq!(
            effective(&host(&["CHOWN", "cap_Net_Admin"], &["all"])).unwrap(),
            ["CAP_CHOWN", "CAP_NET_ADMIN"]
        );
        assert_eq!(effective(&host(&[], &["ALL"])).unwrap(), Vec::<&str>::new());
        let most = effective(&host(&["ALL"], &["SYS_ADMIN"])).unwrap();
        assert!(most.contains(&"CAP_BPF") && !most.contains(&"CAP_SYS_ADMIN"));
        let changed = effective(&host(&["NET_ADMIN", "cap_sys_admin", "CHOWN"], &["MKNOD"])).unwrap();
        assert_eq!(changed.len(), 15);
        assert_eq!(&changed[13..], ["CAP_NET_ADMIN", "CAP_SYS_ADMIN"]);
        assert!(!changed.contains(&"CAP_MKNOD"));
    }

    #[test]
    fn unknown_names_are_refused() {
        let error = validate(&host(&["FOO"], &[])).unwrap_err().to_string();
        assert_eq!(error, "invalid CapAdd: unknown capability: \"CAP_FOO\"");
        let error = validate(&host(&[], &["cap_all"])).unwrap_err().to_string();
        assert_eq!(error, "invalid CapDrop: unknown capability: \"CAP_ALL\"");
    }
}
