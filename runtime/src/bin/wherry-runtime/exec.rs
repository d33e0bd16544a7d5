//! `exec`.

use std::os::fd::AsFd;
use std::path::PathBuf;

use oci_spec::runtime::{Process, Spec};
use serde_json::{Value, json};
use wherry_runtime::{Status, SubCgroup, parse_process};

use crate::Session;
use crate::command_line::ExecOptions;
use crate::config::{check, load_process, load_spec};
use crate::failure::Failure;
use crate::foreground::{self, Signals, Waited};
use crate::launch::{check_console, hand_over, protect, stdio};
use crate::log::Log;
use crate::store::Store;

/// Runs a further program in a container.
pub(crate) fn exec(session: &Session, options: &ExecOptions) -> Result<u8, Failure> {
    protect(session)?;
    let store = Store::new(&session.global.root, &options.id)?;
    let container = store.open()?.1.ok_or(Failure::ExecStopped)?;
    if container.status() == Status::Paused && !options.ignore_paused {
        return Err(Failure::Paused);
    }
    let process = match &options.process_file {
        Some(path) => load_process(path, &session.log)?,
        None => process(&load_spec(container.bundle(), &session.log)?, options, &session.log)?,
    };
    check(Some(&process))?;
    let terminal = process.terminal() == Some(true);
    check_console(terminal, options.process.detach, &options.process)?;
    let sub_cgroups = sub_cgroups(&options.cgroups)?;
    let signals = (!options.process.detach).then(Signals::catch).transpose()?;
    let steps = |line: &str| session.log.debug(|| line.to_owned());
    let library_options = wherry_runtime::ExecOptions {
        preserve_fds: session.descriptors.all(),
        ignore_paused: options.ignore_paused,
        sub_cgroups: &sub_cgroups,
        trace: session.log.trace(&steps),
        ..wherry_runtime::ExecOptions::default()
    };
    let stdio = stdio(terminal, options.process.detach);
    session.log.debug(|| "joining the container's namespaces".to_owned());
    let process = container.exec(&process, stdio, &library_options)?;
    session.log.warnings(&process.warnings);
    session.log.debug(|| format!("process {} executes its program", process.pid));
    hand_over(&options.process, process.pid, process.pidfd.as_fd(), process.terminal.as_ref())?;
    match signals {
        Some(signals) => {
            let terminal = process.terminal.as_ref();
            let waited = Waited { pid: process.pid, pidfd: process.pidfd.as_fd(), terminal, notify: None };
            let code = foreground::wait(&signals, &waited)?;
            session.log.debug(|| format!("process {} has ended with code {code}", process.pid));
            Ok(code)
        }
        None => Ok(0),
    }
}

/// `[CONTROLLER[,CONTROLLER…]:]PATH`, each controller once; without controllers there is one path only.
fn sub_cgroups(arguments: &[String]) -> Result<Vec<SubCgroup>, Failure> {
    let mut groups: Vec<SubCgroup> = Vec::new();
    for argument in arguments {
        let refuse = |reason| Failure::SubCgroup { argument: argument.clone(), reason };
        let Some((controllers, path)) = argument.split_once(':') else {
            if arguments.len() > 1 {
                return Err(refuse("missing <controller>: prefix"));
            }
            groups.push(SubCgroup { controllers: Vec::new(), path: PathBuf::from(argument) });
            continue;
        };
        let controllers: Vec<String> = controllers.split(',').map(str::to_owned).collect();
        if controllers.iter().any(String::is_empty) {
            return Err(refuse("empty <controller> prefix"));
        }
        if controllers.iter().any(|c| groups.iter().any(|group| group.controllers.contains(c))) {
            return Err(refuse("controller specified multiple times"));
        }
        groups.push(SubCgroup { controllers, path: PathBuf::from(path) });
    }
    Ok(groups)
}

/// The container's own process, changed by the options.
fn process(spec: &Spec, options: &ExecOptions, log: &Log) -> Result<Process, Failure> {
    if options.args.is_empty() {
        return Err(Failure::Arguments("exec args cannot be empty"));
    }
    let failed = Failure::file::<serde_json::Error>;
    let mut process = serde_json::to_value(spec.process()).map_err(failed("read", "config.json"))?;
    process["args"] = json!(options.args);
    process["terminal"] = json!(options.tty);
    if let Some(cwd) = &options.cwd {
        process["cwd"] = json!(cwd);
    }
    if let Some(env) = list(&mut process, "env") {
        env.extend(options.env.iter().map(|entry| json!(entry)));
    }
    if let Some(user) = &options.user {
        let (uid, gid) = parse_user(user)?;
        process["user"]["uid"] = json!(uid);
        if let Some(gid) = gid {
            process["user"]["gid"] = json!(gid);
        }
    }
    if let Some(groups) = list(&mut process["user"], "additionalGids") {
        groups.extend(options.additional_gids.iter().map(|gid| json!(gid)));
    }
    for (key, value) in [("selinuxLabel", &options.label), ("apparmorProfile", &options.apparmor)] {
        if let Some(value) = value {
            process[key] = json!(value);
        }
    }
    if let Some(value) = options.no_new_privileges {
        process["noNewPrivileges"] = json!(value);
    }
    for capability in &options.capabilities {
        // ambient capabilities must be inheritable, and these are not by themselves
        let inheritable = !process["capabilities"]["inheritable"].is_null();
        let ambient = inheritable.then_some("ambient");
        for set in ["bounding", "effective", "permitted"].into_iter().chain(ambient) {
            if let Some(set) = list(&mut process["capabilities"], set) {
                set.push(json!(capability));
            }
        }
    }
    let text = serde_json::to_vec(&process).map_err(failed("use", "the options of exec"))?;
    let mut warnings = Vec::new();
    let process = parse_process(&text, &mut warnings)?;
    log.warnings(&warnings);
    Ok(process)
}

/// A list in an object, made if it is missing.
fn list<'a>(object: &'a mut Value, key: &str) -> Option<&'a mut Vec<Value>> {
    if object[key].is_null() {
        object[key] = json!([]);
    }
    object[key].as_array_mut()
}

/// `UID` or `UID:GID`, numbers only.
fn parse_user(text: &str) -> Result<(u32, Option<u32>), Failure> {
    let invalid = || Failure::InvalidValue { option: "user", value: text.to_owned() };
    // no sign, no space: what is not a plain number is not an id
    let number = |t: &str| {
        t.bytes().all(|b| b.is_ascii_digit()).then(|| t.parse::<u32>().ok()).flatten().ok_or_else(invalid)
    };
    match text.split_once(':') {
        Some((uid, gid)) => Ok((number(uid)?, Some(number(gid)?))),
        None => Ok((number(text)?, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_below() {
        let of = |list: &[&str]| sub_cgroups(&list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&["/"]).unwrap()[0].path, PathBuf::from("/"));
        assert_eq!(of(&["cpu,cpuacct:a", "memory:b"]).unwrap()[0].controllers, ["cpu", "cpuacct"]);
        for bad in [&["a", "b"][..], &["cpu:a", "b"], &[":a"], &["cpu,:a"], &["cpu:a", "cpu:b"]] {
            assert!(of(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn users_are_strict() {
        assert_eq!(parse_user("1000").unwrap(), (1000, None));
        assert_eq!(parse_user("0:4294967295").unwrap(), (0, Some(u32::MAX)));
        for bad in ["", "root", "-1", "+1", "4294967296", "1:", ":1", "1:2:3"] {
            assert!(parse_user(bad).is_err(), "{bad}");
        }
    }
}
