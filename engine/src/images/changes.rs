//! What `docker commit --change` and `docker import --change` do to a configuration.

use wherry_dockerfile::{Change, CommandLine, Healthcheck, Pair, parse_changes};

use crate::containers::config::{Config, Empty, HealthConfig};
use crate::containers::signals::parse_signal;
use crate::error::Error;

/// The shell of a command in its shell form, unless the image names another.
const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// Applies instructions, one after another: variables of one are known to the next.
///
/// # Errors
/// 400 with dockerd's texts.
pub(crate) fn apply(config: &mut Config, changes: &[String]) -> Result<(), Error> {
    if changes.is_empty() {
        return Ok(());
    }
    let bad = |error: wherry_dockerfile::Error| Error::InvalidParameter(error.to_string());
    let parsed = parse_changes(changes).map_err(bad)?;
    let mut has_command = false;
    for change in parsed.changes {
        let environment = config.env.clone().unwrap_or_default();
        let change = change.expand(&environment, parsed.escape).map_err(bad)?;
        if let Change::Cmd(command) = &change {
            has_command |= !matches!(command, CommandLine::Shell(None)) && !is_empty(command);
        }
        apply_one(config, change, has_command)?;
    }
    Ok(())
}

fn apply_one(config: &mut Config, change: Change, has_command: bool) -> Result<(), Error> {
    match change {
        Change::Cmd(command) => config.cmd = Some(words(config, command)),
        Change::Entrypoint(command) => {
            let entrypoint = words(config, command);
            config.entrypoint = Some(entrypoint).filter(|words| !words.is_empty());
            // A command that is not of the same set of changes belonged to the old entry point.
            if !has_command {
                config.cmd = None;
            }
        }
        Change::Env(pairs) => pairs.into_iter().for_each(|pair| set_variable(config, &pair)),
        Change::Expose(ports) => {
            let exposed = config.exposed_ports.get_or_insert_default();
            for port in &ports {
                let ports = wherry_dockerfile::exposed(port);
                let ports = ports.map_err(|error| Error::InvalidParameter(error.to_string()))?;
                exposed.extend(ports.into_iter().map(|port| (port, Empty {})));
            }
        }
        Change::Healthcheck(check) => config.healthcheck = Some(probe(check)),
        Change::Label(pairs) => {
            let labels = config.labels.get_or_insert_default();
            labels.extend(pairs.into_iter().map(|pair| (pair.name, pair.value)));
        }
        Change::OnBuild(trigger) => config.on_build.get_or_insert_default().push(trigger),
        Change::StopSignal(signal) => {
            parse_signal(&signal)?;
            config.stop_signal = signal;
        }
        Change::User(user) => config.user = user,
        Change::Volume(paths) => {
            let volumes = config.volumes.get_or_insert_default();
            volumes.extend(paths.into_iter().map(|path| (path, Empty {})));
        }
        Change::Workdir(path) => config.working_dir = working_dir(&config.working_dir, &path)?,
    }
    Ok(())
}

fn is_empty(command: &CommandLine) -> bool {
    matches!(command, CommandLine::Exec(words) if words.is_empty())
}

/// A command's words; the shell form is run by the image's shell.
fn words(config: &Config, command: CommandLine) -> Vec<String> {
    match command {
        CommandLine::Exec(words) => words,
        CommandLine::Shell(line) => {
            let shell = config.shell.clone().filter(|shell| !shell.is_empty());
            let shell = shell.unwrap_or_else(|| SHELL.map(str::to_owned).to_vec());
            shell.into_iter().chain(line).collect()
        }
    }
}

/// A variable that is there already keeps its place.
fn set_variable(config: &mut Config, pair: &Pair) {
    let variables = config.env.get_or_insert_default();
    let entry = format!("{}={}", pair.name, pair.value);
    let known = variables.iter_mut().find(|known| known.split('=').next() == Some(pair.name.as_str()));
    match known {
        Some(known) => *known = entry,
        None => variables.push(entry),
    }
}

fn probe(check: Healthcheck) -> HealthConfig {
    HealthConfig {
        test: Some(check.test),
        interval: check.interval_ns,
        timeout: check.timeout_ns,
        start_period: check.start_period_ns,
        start_interval: check.start_interval_ns,
        retries: check.retries,
    }
}

fn working_dir(current: &str, asked: &str) -> Result<String, Error> {
    if asked.is_empty() {
        return Err(Error::InvalidParameter("cannot normalize nothing".into()));
    }
    let whole = if asked.starts_with('/') { asked.to_owned() } else { format!("/{current}/{asked}") };
    Ok(crate::containers::clean_path(&whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(changes: &[&str]) -> Result<serde_json::Value, String> {
        let mut config: Config =
            serde_json::from_str(r#"{"Env":["PATH=/p","A=1"],"Cmd":["sh"],"WorkingDir":"/w"}"#).unwrap();
        let changes: Vec<String> = changes.iter().map(|change| (*change).to_owned()).collect();
        apply(&mut config, &changes).map_err(|error| error.to_string())?;
        Ok(serde_json::to_value(config).unwrap())
    }

    #[test]
    fn changes_do_what_dockerd_does() {
        let check = |changes: &[&str], field: &str, expect: &str| {
            let expect: serde_json::Value = serde_json::from_str(expect).unwrap();
            assert_eq!(changed(changes).unwrap()[field], expect, "{changes:?}");
        };
        check(&["CMD echo hi"], "Cmd", r#"["/bin/sh","-c","echo hi"]"#);
        check(&["CMD"], "Cmd", r#"["/bin/sh","-c"]"#);
        check(&["CMD []"], "Cmd", "[]");
        check(&["ENTRYPOINT [\"a\"]"], "Cmd", "null");
        check(&["ENTRYPOINT []"], "Entrypoint", "null");
        check(&["CMD [\"x\"]", "ENTRYPOINT e"], "Cmd", r#"["x"]"#);
        check(&["ENV A=2 B=$A", "ENV C=$A"], "Env", r#"["PATH=/p","A=2","B=1","C=2"]"#);
        check(&["EXPOSE 80 90/udp"], "ExposedPorts", r#"{"80/tcp":{},"90/udp":{}}"#);
        check(&["WORKDIR a", "WORKDIR ../b/."], "WorkingDir", r#""/w/b""#);
        check(&["VOLUME /a b"], "Volumes", r#"{"/a":{},"b":{}}"#);
        check(&["LABEL a=b"], "Labels", r#"{"a":"b"}"#);
        check(&["ONBUILD RUN x", "ONBUILD RUN y"], "OnBuild", r#"["RUN x","RUN y"]"#);
        check(&["HEALTHCHECK --retries=2 CMD x"], "Healthcheck", r#"{"Test":["CMD-SHELL","x"],"Retries":2}"#);
        check(&["STOPSIGNAL SIGRTMIN+3"], "StopSignal", r#""SIGRTMIN+3""#);
        check(&["USER a:b"], "User", r#""a:b""#);
        assert_eq!(changed(&["STOPSIGNAL foo"]).unwrap_err(), "invalid signal: foo");
        assert_eq!(changed(&["EXPOSE x"]).unwrap_err(), "Invalid containerPort: x");
        assert_eq!(changed(&["RUN x"]).unwrap_err(), "RUN is not a valid change command");
    }
}
