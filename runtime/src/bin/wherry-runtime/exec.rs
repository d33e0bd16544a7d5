//! `exec`.

use std::os::fd::AsFd;
use std::path::Path;

use oci_spec::runtime::{Process, Spec};
use serde_json::{Value, json};
use wherry_runtime::{Status, Stdio, parse_process, protect_own_program};

use crate::arguments::{ExecOptions, Global};
use crate::failure::Failure;
use crate::foreground::{self, Signals};
use crate::launch::{check_console, hand_over, load_spec, preserve_fds, read_json};
use crate::store::Store;

/// Runs a further program in a container.
pub(crate) fn exec(global: &Global, options: &ExecOptions) -> Result<u8, Failure> {
    protect_own_program()?;
    let container = Store::new(&global.root, &options.id)?.open_running()?;
    if container.status() == Status::Paused && !options.ignore_paused {
        return Err(Failure::Paused);
    }
    let process = match &options.process_file {
        Some(path) => read_process(path)?,
        None => process(&load_spec(container.bundle())?, options)?,
    };
    let terminal = process.terminal() == Some(true);
    check_console(terminal, options.process.detach, &options.process)?;
    let signals = (!options.process.detach).then(Signals::catch).transpose()?;
    let stdio = if terminal { Stdio::Terminal { size: None } } else { Stdio::Inherit };
    let library_options = wherry_runtime::ExecOptions {
        preserve_fds: preserve_fds(&options.process),
        ignore_paused: options.ignore_paused,
        ..wherry_runtime::ExecOptions::default()
    };
    let process = container.exec(&process, stdio, &library_options)?;
    hand_over(&options.process, process.pid, process.pidfd.as_fd(), process.terminal.as_ref())?;
    match signals {
        Some(signals) => {
            foreground::wait(&signals, process.pid, process.pidfd.as_fd(), process.terminal.as_ref())
        }
        None => Ok(0),
    }
}

fn read_process(path: &Path) -> Result<Process, Failure> {
    parse_process(&read_json(path)?).map_err(Failure::malformed(path))
}

/// The container's own process, changed by the options.
fn process(spec: &Spec, options: &ExecOptions) -> Result<Process, Failure> {
    if options.args.is_empty() {
        return Err(Failure::Arguments("exec needs a command, or --process"));
    }
    let parse = Failure::file::<serde_json::Error>;
    let mut process = serde_json::to_value(spec.process()).map_err(parse("read", "config.json"))?;
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
    if options.no_new_privileges {
        process["noNewPrivileges"] = json!(true);
    }
    for capability in &options.capabilities {
        for set in ["bounding", "effective", "permitted"] {
            if let Some(set) = list(&mut process["capabilities"], set) {
                set.push(json!(capability));
            }
        }
    }
    serde_json::from_value(process).map_err(parse("use", "the options of exec"))
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
    fn users_are_strict() {
        assert_eq!(parse_user("1000").unwrap(), (1000, None));
        assert_eq!(parse_user("0:4294967295").unwrap(), (0, Some(u32::MAX)));
        for bad in ["", "root", "-1", "+1", "4294967296", "1:", ":1", "1:2:3"] {
            assert!(parse_user(bad).is_err(), "{bad}");
        }
    }
}
