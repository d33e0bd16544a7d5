//! What a container inherits from its image.

use std::collections::BTreeMap;

use wherry_image_store::{Healthcheck, ImageConfig};

use super::super::config::{Config, Empty, HealthConfig};

/// Fills in from the image what the request leaves open, as dockerd does. The program's own signal, variables, ports,
/// labels and volumes come first; `OnBuild` and `StopTimeout` are not inherited.
pub(in crate::containers) fn inherit(config: &mut Config, image: &ImageConfig) {
    if config.user.is_empty() {
        config.user.clone_from(&image.user);
    }
    let empty = |map: &BTreeMap<String, serde_json::Value>| -> BTreeMap<String, Empty> {
        map.keys().map(|key| (key.clone(), Empty {})).collect()
    };
    add(&mut config.exposed_ports, image.exposed_ports.as_ref().map(empty));
    add(&mut config.volumes, image.volumes.as_ref().map(empty));
    add(&mut config.labels, image.labels.clone());
    config.labels.get_or_insert_default();
    inherit_env(config, image.env.as_deref().unwrap_or_default());
    inherit_command(config, image);
    if config.working_dir.is_empty() {
        config.working_dir.clone_from(&image.working_dir);
    }
    if config.stop_signal.is_empty() {
        config.stop_signal.clone_from(&image.stop_signal);
    }
    if config.shell.as_ref().is_none_or(Vec::is_empty) {
        config.shell = image.shell.clone().filter(|shell| !shell.is_empty() && config.shell.is_some());
    }
    if let Some(check) = &image.healthcheck {
        inherit_probe(config.healthcheck.get_or_insert_default(), check);
    }
}

/// Adds the image's entries that are not there yet.
fn add<V>(own: &mut Option<BTreeMap<String, V>>, image: Option<BTreeMap<String, V>>) {
    for (key, value) in image.into_iter().flatten() {
        own.get_or_insert_default().entry(key).or_insert(value);
    }
}

fn inherit_env(config: &mut Config, image: &[String]) {
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let own = config.env.get_or_insert_default();
    if own.is_empty() {
        own.extend_from_slice(image);
    } else {
        let names: Vec<String> = own.iter().map(|v| name(v)).collect();
        own.extend(image.iter().filter(|v| !names.contains(&name(v))).cloned());
    }
    if own.is_empty() {
        config.env = None;
    }
}

/// An entry point of one's own leaves the image's command aside; an empty one (`[]`) does not, and `[""]` clears the
/// image's entry point.
fn inherit_command(config: &mut Config, image: &ImageConfig) {
    let given = |list: &Option<Vec<String>>| list.as_ref().is_some_and(|l| !l.is_empty());
    if given(&config.entrypoint) {
        if config.entrypoint.as_ref().is_some_and(|e| e.len() == 1 && e.first().is_some_and(String::is_empty))
        {
            config.entrypoint = None;
        }
        return;
    }
    if !given(&config.cmd) {
        config.cmd.clone_from(&image.cmd);
        config.args_escaped |= image.args_escaped;
    }
    if config.entrypoint.is_none() {
        config.entrypoint.clone_from(&image.entrypoint);
    }
}

fn inherit_probe(own: &mut HealthConfig, image: &Healthcheck) {
    if own.test.as_ref().is_none_or(Vec::is_empty) {
        own.test = Some(image.test.clone()).filter(|test| !test.is_empty());
    }
    for (own, image) in [
        (&mut own.interval, image.interval),
        (&mut own.timeout, image.timeout),
        (&mut own.start_period, image.start_period),
        (&mut own.start_interval, image.start_interval),
        (&mut own.retries, image.retries),
    ] {
        if *own == 0 {
            *own = image;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> ImageConfig {
        serde_json::from_str(
            r#"{"Env":["A=1","B=2","PATH=/p"],"Entrypoint":["/ep","x"],"Cmd":["c1","c2"],
            "ExposedPorts":{"80/tcp":{},"53/udp":{}},"Volumes":{"/v1":{},"/v2":{}},"Labels":{"l1":"i","l2":"i"},
            "User":"u","WorkingDir":"/wd","StopSignal":"SIGQUIT","StopTimeout":7,"OnBuild":["RUN x"],
            "Healthcheck":{"Test":["CMD","hc"],"Interval":2000000000,"Retries":5}}"#,
        )
        .unwrap()
    }

    fn merged(request: &str) -> serde_json::Value {
        let mut config: Config = serde_json::from_str(request).unwrap();
        inherit(&mut config, &image());
        serde_json::to_value(config).unwrap()
    }

    #[test]
    fn all_is_inherited_when_nothing_is_asked() {
        let config = merged("{}");
        assert_eq!(config["Env"], serde_json::json!(["A=1", "B=2", "PATH=/p"]));
        assert_eq!(
            (&config["User"], &config["WorkingDir"], &config["StopSignal"]),
            (&"u".into(), &"/wd".into(), &"SIGQUIT".into())
        );
        assert_eq!(config["Labels"], serde_json::json!({"l1": "i", "l2": "i"}));
        assert_eq!(config["Healthcheck"]["Retries"], 5);
        assert!(config.get("StopTimeout").is_none());
        assert!(config["OnBuild"].is_null());
    }

    #[test]
    fn commands_and_entry_points_combine_as_in_dockerd() {
        let null = serde_json::Value::Null;
        let check = |request: &str, entrypoint: serde_json::Value, cmd: serde_json::Value| {
            let config = merged(request);
            assert_eq!((&config["Entrypoint"], &config["Cmd"]), (&entrypoint, &cmd), "{request}");
        };
        check("{}", serde_json::json!(["/ep", "x"]), serde_json::json!(["c1", "c2"]));
        check(r#"{"Cmd":["z"]}"#, serde_json::json!(["/ep", "x"]), serde_json::json!(["z"]));
        check(r#"{"Cmd":[]}"#, serde_json::json!(["/ep", "x"]), serde_json::json!(["c1", "c2"]));
        check(r#"{"Entrypoint":["z"]}"#, serde_json::json!(["z"]), null.clone());
        check(r#"{"Entrypoint":[]}"#, serde_json::json!([]), serde_json::json!(["c1", "c2"]));
        check(r#"{"Entrypoint":[""],"Cmd":["a"]}"#, null.clone(), serde_json::json!(["a"]));
        check(r#"{"Entrypoint":[""]}"#, null.clone(), null);
        check(r#"{"Entrypoint":"str","Cmd":"st2"}"#, serde_json::json!(["str"]), serde_json::json!(["st2"]));
    }

    #[test]
    fn the_requests_values_come_first() {
        let config = merged(
            r#"{"Env":["A=9","C=3","B"],"Labels":{"l2":"u","l3":"u"},"ExposedPorts":{"81/tcp":{}},"User":"w",
            "Healthcheck":{"Test":["NONE"],"Interval":5},"StopSignal":"9","OnBuild":[]}"#,
        );
        assert_eq!(config["Env"], serde_json::json!(["A=9", "C=3", "B", "PATH=/p"]));
        assert_eq!(config["Labels"], serde_json::json!({"l1": "i", "l2": "u", "l3": "u"}));
        assert_eq!(config["ExposedPorts"].as_object().unwrap().len(), 3);
        assert_eq!(config["Healthcheck"], serde_json::json!({"Test": ["NONE"], "Interval": 5, "Retries": 5}));
        assert_eq!(config["OnBuild"], serde_json::json!([]));
    }
}
