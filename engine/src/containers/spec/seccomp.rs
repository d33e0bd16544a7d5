//! The seccomp filter of a container, in the OCI specification's form.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::seccomp_profile::{ARCHITECTURES, Compare, Rule, When, rules};
use crate::error::Error;

/// What the default profile says on a call that it does not list: EPERM.
const DEFAULT_ERRNO: u32 = 1;

/// Docker's default profile for a container with these capabilities. Made once for each set of those
/// that matter, since it is by far the largest part of a specification.
pub(super) fn default_profile(capabilities: &[&str]) -> Value {
    static MADE: OnceLock<Mutex<HashMap<u64, Arc<Value>>>> = OnceLock::new();
    let made = MADE.get_or_init(Mutex::default);
    let holds = |when| match when {
        When::Always => true,
        When::With(name) => capabilities.contains(&name),
        When::Without(name) => !capabilities.contains(&name),
    };
    // One bit for each rule: does its condition hold?
    let key = rules().enumerate().fold(0, |key, (bit, rule)| key | u64::from(holds(rule.when)) << bit);
    let known = made.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
    let profile = known.unwrap_or_else(|| {
        let syscalls: Vec<Value> = rules().filter(|rule| holds(rule.when)).map(oci_rule).collect();
        let profile = Arc::new(json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": DEFAULT_ERRNO,
            "architectures": ARCHITECTURES,
            "syscalls": syscalls,
        }));
        made.lock().unwrap_or_else(PoisonError::into_inner).insert(key, profile.clone());
        profile
    });
    (*profile).clone()
}

fn oci_rule(rule: &Rule) -> Value {
    let mut oci = Map::new();
    oci.insert("names".into(), rule.names.split_ascii_whitespace().collect());
    let action = if rule.errno.is_some() { "SCMP_ACT_ERRNO" } else { "SCMP_ACT_ALLOW" };
    oci.insert("action".into(), action.into());
    if let Some(errno) = rule.errno {
        oci.insert("errnoRet".into(), errno.into());
    }
    let argument = rule.compare.map(|compare| match compare {
        Compare::Equal(value) => json!([{ "index": 0, "value": value, "op": "SCMP_CMP_EQ" }]),
        Compare::NotEqual(value) => json!([{ "index": 0, "value": value, "op": "SCMP_CMP_NE" }]),
        Compare::NoneOf(mask) => json!([{ "index": 0, "value": mask, "op": "SCMP_CMP_MASKED_EQ" }]),
    });
    if let Some(argument) = argument {
        oci.insert("args".into(), argument);
    }
    oci.into()
}

/// A profile in Docker's format (`docs.docker.com/engine/security/seccomp`).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<String>>,
    arch_map: Option<Vec<Architecture>>,
    flags: Option<Vec<String>>,
    listener_path: String,
    listener_metadata: String,
    syscalls: Option<Vec<ProfileRule>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Architecture {
    architecture: String,
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ProfileRule {
    name: String,
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u32>,
    args: Option<Vec<Value>>,
    includes: Option<Filter>,
    excludes: Option<Filter>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Filter {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// Converts a user's profile.
///
/// # Errors
/// 500 `Decoding seccomp profile failed: …`, and what contradicts itself in it.
pub(super) fn custom_profile(text: &str, capabilities: &[&str]) -> Result<Value, Error> {
    let profile: Profile = serde_json::from_str(text).map_err(|e| {
        let reason = if e.is_syntax() {
            crate::server::json::syntax_error(text.as_bytes(), &e)
        } else {
            e.to_string()
        };
        Error::server(format!("Decoding seccomp profile failed: {reason}"))
    })?;
    let mut oci = Map::new();
    oci.insert("defaultAction".into(), profile.default_action.into());
    if let Some(errno) = profile.default_errno_ret {
        oci.insert("defaultErrnoRet".into(), errno.into());
    }
    if let Some(architectures) = architectures(profile.architectures, profile.arch_map)? {
        oci.insert("architectures".into(), architectures.into());
    }
    if let Some(flags) = profile.flags {
        oci.insert("flags".into(), flags.into());
    }
    for (name, value) in
        [("listenerPath", profile.listener_path), ("listenerMetadata", profile.listener_metadata)]
    {
        if !value.is_empty() {
            oci.insert(name.into(), value.into());
        }
    }
    let mut syscalls = Vec::new();
    for rule in profile.syscalls.unwrap_or_default() {
        if rule.applies(capabilities) {
            syscalls.push(rule.into_oci()?);
        }
    }
    oci.insert("syscalls".into(), syscalls.into());
    Ok(oci.into())
}

fn architectures(
    listed: Option<Vec<String>>,
    map: Option<Vec<Architecture>>,
) -> Result<Option<Vec<String>>, Error> {
    match (listed.filter(|l| !l.is_empty()), map.filter(|m| !m.is_empty())) {
        (Some(_), Some(_)) => Err(Error::server(
            "'architectures' and 'archMap' were specified in the seccomp profile, use either 'architectures' or \
             'archMap'",
        )),
        (listed, None) => Ok(listed),
        (None, Some(map)) => {
            let native = ARCHITECTURES.first().copied().unwrap_or_default();
            Ok(map.into_iter().find(|a| a.architecture == native).map(|a| {
                std::iter::once(a.architecture).chain(a.sub_architectures.unwrap_or_default()).collect()
            }))
        }
    }
}

impl ProfileRule {
    fn applies(&self, capabilities: &[&str]) -> bool {
        let has = |name: &String| capabilities.contains(&name.as_str());
        let arch = |name: &String| name == go_architecture();
        if let Some(excludes) = &self.excludes {
            let excluded = excludes.caps.iter().flatten().any(has)
                || excludes.arches.iter().flatten().any(arch)
                || excludes.min_kernel.as_deref().is_some_and(kernel_is_at_least);
            if excluded {
                return false;
            }
        }
        self.includes.as_ref().is_none_or(|includes| {
            let arches = includes.arches.as_deref().unwrap_or_default();
            includes.caps.iter().flatten().all(has)
                && (arches.is_empty() || arches.iter().any(arch))
                && includes.min_kernel.as_deref().is_none_or(kernel_is_at_least)
        })
    }

    fn into_oci(self) -> Result<Value, Error> {
        let mut names = self.names.unwrap_or_default();
        match (self.name.is_empty(), names.is_empty()) {
            (false, false) => {
                return Err(Error::server(
                    "'name' and 'names' were specified in the seccomp profile, use either 'name' or 'names'",
                ));
            }
            (false, true) => names.push(self.name),
            _ => {}
        }
        let mut oci = Map::new();
        oci.insert("names".into(), names.into());
        oci.insert("action".into(), self.action.into());
        if let Some(errno) = self.errno_ret {
            oci.insert("errnoRet".into(), errno.into());
        }
        if let Some(args) = self.args.filter(|args| !args.is_empty()) {
            oci.insert("args".into(), args.into());
        }
        Ok(oci.into())
    }
}

/// The processor architecture in Go's words, as profiles name it.
fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Whether the kernel's release is at least `4.8`.
fn kernel_is_at_least(wanted: &str) -> bool {
    let version = |text: &str| {
        let mut numbers = text.split(['.', '-', '+']).map(str::parse::<u32>);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    let release = rustix::system::uname();
    let release = release.release().to_string_lossy();
    matches!((version(&release), version(wanted)), (Some(have), Some(wanted)) if have >= wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names_of<'a>(profile: &'a Value, probe: &str) -> Vec<&'a Value> {
        let listed = |rule: &&Value| rule["names"].as_array().unwrap().iter().any(|n| n == probe);
        profile["syscalls"].as_array().unwrap().iter().filter(listed).collect()
    }

    #[test]
    fn the_default_profile_depends_on_capabilities() {
        let plain = default_profile(&["CAP_CHOWN"]);
        assert_eq!(names_of(&plain, "clone3")[0]["errnoRet"], 38);
        assert_eq!(names_of(&plain, "clone")[0]["args"][0]["value"], 2_114_060_288_u64);
        assert!(names_of(&plain, "mount").is_empty() && names_of(&plain, "chroot").is_empty());
        let admin = default_profile(&["CAP_SYS_ADMIN", "CAP_SYS_CHROOT"]);
        assert!(names_of(&admin, "clone3")[0].get("errnoRet").is_none());
        assert_eq!((names_of(&admin, "mount").len(), names_of(&admin, "chroot").len()), (1, 1));
        assert_eq!(default_profile(&["CAP_CHOWN"]), plain, "made once and then remembered");
    }

    #[test]
    fn no_call_is_listed_twice_without_need() {
        let profile = default_profile(&[]);
        let mut all: Vec<&str> =
            profile["syscalls"][0]["names"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!((all.len(), count), (count, 361));
    }

    #[test]
    fn a_users_profile_is_resolved() {
        let text = r#"{"defaultAction":"SCMP_ACT_ERRNO","archMap":[{"architecture":"SCMP_ARCH_X86_64",
            "subArchitectures":["SCMP_ARCH_X86"]},{"architecture":"SCMP_ARCH_AARCH64","subArchitectures":null}],
            "syscalls":[{"name":"read","action":"SCMP_ACT_ALLOW"},
            {"names":["mount"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_SYS_ADMIN"]}},
            {"names":["clone"],"action":"SCMP_ACT_ALLOW","excludes":{"caps":["CAP_SYS_ADMIN"]}},
            {"names":["ptrace"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"4.8"}},
            {"names":["bpf"],"action":"SCMP_ACT_ALLOW","includes":{"minKernel":"99.0"}},
            {"names":["s390_pci"],"action":"SCMP_ACT_ALLOW","includes":{"arches":["s390x"]}}]}"#;
        let profile = custom_profile(text, &["CAP_SYS_ADMIN"]).unwrap();
        let names: Vec<&Value> =
            profile["syscalls"].as_array().unwrap().iter().map(|r| &r["names"][0]).collect();
        assert_eq!(names, ["read", "mount", "ptrace"]);
        assert_eq!(profile["architectures"][0], ARCHITECTURES[0]);
        let both = r#"{"defaultAction":"x","architectures":["a"],"archMap":[{"architecture":"a"}]}"#;
        assert!(custom_profile(both, &[]).unwrap_err().to_string().contains("use either"));
        assert!(
            custom_profile("/x", &[])
                .unwrap_err()
                .to_string()
                .starts_with("Decoding seccomp profile failed: ")
        );
    }
}
