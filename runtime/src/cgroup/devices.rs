//! Which devices a container may use: v1's `devices.allow` and `devices.deny`.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::Folder;
use super::file::open_write;
use crate::Error;

pub(crate) use super::device_program::apply_v2;

/// What every container may use, as in runc: all of mknod, and the usual devices. `(type, major, minor, access)`.
const DEFAULT: [(LinuxDeviceType, Option<i64>, Option<i64>, &str); 11] = [
    (LinuxDeviceType::C, None, None, "m"),
    (LinuxDeviceType::B, None, None, "m"),
    (LinuxDeviceType::C, Some(1), Some(3), "rwm"),    // null
    (LinuxDeviceType::C, Some(1), Some(8), "rwm"),    // random
    (LinuxDeviceType::C, Some(1), Some(7), "rwm"),    // full
    (LinuxDeviceType::C, Some(5), Some(0), "rwm"),    // tty
    (LinuxDeviceType::C, Some(1), Some(5), "rwm"),    // zero
    (LinuxDeviceType::C, Some(1), Some(9), "rwm"),    // urandom
    (LinuxDeviceType::C, Some(136), None, "rwm"),     // pts/N
    (LinuxDeviceType::C, Some(5), Some(2), "rwm"),    // ptmx
    (LinuxDeviceType::C, Some(10), Some(200), "rwm"), // net/tun
];

/// The rules, followed by the default ones that they do not have already.
pub(crate) fn with_defaults(rules: &[LinuxDeviceCgroup]) -> Vec<LinuxDeviceCgroup> {
    let mut all = rules.to_vec();
    if rules.last().is_some_and(|last| last.allow() && line(last) == "a") {
        return all;
    }
    for (kind, major, minor, access) in DEFAULT {
        let mut rule = LinuxDeviceCgroup::default();
        rule.set_allow(true)
            .set_typ(Some(kind))
            .set_major(major)
            .set_minor(minor)
            .set_access(Some(access.to_owned()));
        let wanted = line(&rule);
        if !rules.iter().any(|r| r.allow() && line(r) == wanted) {
            all.push(rule);
        }
    }
    all
}

/// Writes the rules in their order.
pub(crate) fn apply_v1(folders: &[Folder], rules: &[LinuxDeviceCgroup]) -> Result<(), Error> {
    let Some(folder) = folders.iter().find(|f| f.has("devices")) else {
        // rules that only allow everything need no controller
        if rules.iter().all(LinuxDeviceCgroup::allow) {
            return Ok(());
        }
        return Err(super::missing::controller("devices", "devices"));
    };
    // what comes before a rule about everything does not matter (Docker repeats its list)
    let first = rules.iter().rposition(|rule| line(rule) == "a").unwrap_or(0);
    let (mut allow, mut deny) = (None, None);
    for rule in rules.get(first..).unwrap_or_default() {
        let (file, name) =
            if rule.allow() { (&mut allow, "devices.allow") } else { (&mut deny, "devices.deny") };
        let path = folder.path.join(name);
        let file = match file {
            Some(file) => file,
            None => file.insert(open_write(&path)?),
        };
        let line = line(rule);
        rustix::io::write(file, line.as_bytes())
            .map_err(|errno| Error::system("write", format!("{line:?} to {}", path.display()), errno))?;
    }
    Ok(())
}

/// What a rule is about: some of `r`, `w` and `m`, all if it does not say. Other letters do not count, as with runc.
pub(crate) fn access(rule: &LinuxDeviceCgroup) -> String {
    let access = rule.access().as_deref().filter(|access| !access.is_empty()).unwrap_or("rwm");
    access.chars().filter(|letter| matches!(letter, 'r' | 'w' | 'm')).collect()
}

fn line(rule: &LinuxDeviceCgroup) -> String {
    let kind = match rule.typ() {
        Some(LinuxDeviceType::B) => 'b',
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => 'c',
        // `a` in the file is about every device with every number and access
        _ if rule.major().is_none() && rule.minor().is_none() => return "a".to_owned(),
        _ => 'a',
    };
    let number = |n: Option<i64>| n.filter(|n| *n >= 0).map_or_else(|| "*".to_owned(), |n| n.to_string());
    format!("{kind} {}:{} {}", number(rule.major()), number(rule.minor()), access(rule))
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxDeviceCgroupBuilder;

    #[test]
    fn lines() {
        let rule = LinuxDeviceCgroupBuilder::default().allow(false).access("rwm").build().unwrap();
        assert_eq!(line(&rule), "a");
        let rule = LinuxDeviceCgroupBuilder::default()
            .allow(true)
            .typ(LinuxDeviceType::C)
            .major(1)
            .minor(-1)
            .access("rw")
            .build()
            .unwrap();
        assert_eq!(line(&rule), "c 1:* rw");
    }
}
