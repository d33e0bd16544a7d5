//! Callers without privileges, who may have no cgroups of their own.

use oci_spec::runtime::LinuxResources;

use crate::Error;

/// Whether the caller is not the host's root: another user, or root in a user namespace.
pub(super) fn is_rootless() -> bool {
    let whole = |map: String| map.split_whitespace().eq(["0", "0", "4294967295"]);
    !rustix::process::geteuid().is_root() || !std::fs::read_to_string("/proc/self/uid_map").is_ok_and(whole)
}

/// Whether an error says only that such a caller has no cgroups to give.
pub(super) fn explains(error: &Error) -> bool {
    matches!(error.errno(), Some(libc::EACCES | libc::EPERM | libc::EROFS)) && is_rootless()
}

/// Whether a container cannot do without a cgroup. Device rules do not count: who may make no device nodes gets
/// none.
pub(super) fn asks_for_limits(resources: &LinuxResources) -> bool {
    let devices_only = {
        let mut only = LinuxResources::default();
        only.set_devices(resources.devices().clone());
        only
    };
    let empty = |value: &serde_json::Value| match value {
        serde_json::Value::Null => true,
        serde_json::Value::Object(map) => map.is_empty(),
        serde_json::Value::Array(list) => list.is_empty(),
        _ => false,
    };
    if *resources == devices_only {
        return false;
    }
    // `"memory": {}` asks for nothing either
    let fields = serde_json::to_value(resources).unwrap_or_default();
    fields.as_object().is_none_or(|fields| {
        fields.iter().any(|(name, value)| {
            let inner_is_empty = value.as_object().is_some_and(|map| map.values().all(empty));
            name != "devices" && !empty(value) && !inner_is_empty
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_told_from_none() {
        let check = |text: &str, expect: bool| {
            assert_eq!(asks_for_limits(&serde_json::from_str(text).unwrap()), expect, "{text}");
        };
        check("{}", false);
        check(r#"{"devices": [{"allow": false, "access": "rwm"}]}"#, false);
        check(r#"{"memory": {}, "cpu": {}, "unified": {}}"#, false);
        check(r#"{"memory": {"limit": 1}}"#, true);
        check(r#"{"pids": {"limit": 5}}"#, true);
        check(r#"{"unified": {"memory.high": "1"}}"#, true);
    }
}
