//! Reading requests.

use super::*;

fn asked(body: &str) -> Result<Asked, String> {
    let body = serde_json::from_str(body).unwrap();
    read(body, None, None, ApiVersion::MAX).map_err(|e| e.to_string())
}

#[test]
fn nulls_are_zero_values_and_entries_of_maps_stay() {
    let asked = asked(
        r#"{"Image":"busybox","Tty":null,"Cmd":null,"Labels":{"x":null},"Volumes":{"/q":null},"ExposedPorts":{"1/tcp":null},
        "HostConfig":{"Memory":null,"PortBindings":{"80/tcp":null,"81/tcp":[{"HostPort":null}]},
        "RestartPolicy":{"Name":null,"MaximumRetryCount":null},"Mounts":[{"Type":"bind","BindOptions":null}]},
        "NetworkingConfig":{"EndpointsConfig":{"n":null,"m":{"IPAMConfig":null,"Aliases":null}}}}"#,
    )
    .unwrap();
    assert_eq!(asked.config.labels.unwrap()["x"], "");
    assert!(
        asked.config.volumes.unwrap().contains_key("/q")
            && asked.config.exposed_ports.unwrap().contains_key("1/tcp")
    );
    let ports = asked.host.port_bindings.unwrap();
    assert_eq!((ports["80/tcp"].as_ref(), ports["81/tcp"].as_ref().map(Vec::len)), (None, Some(1)));
    let endpoints = asked.networking.endpoints_config;
    assert!(endpoints["n"].is_none() && endpoints["m"].is_some());
}

#[test]
fn a_request_without_settings_is_refused() {
    for body in ["{}", "null", r#"{"HostConfig":{},"NetworkingConfig":null}"#] {
        assert_eq!(asked(body).err(), Some("config cannot be empty in order to create a container".into()));
    }
    assert!(asked("[]").err().is_some_and(|e| e.starts_with("invalid JSON: ")));
    assert!(asked(r#"{"Image":5}"#).err().is_some_and(|e| e.starts_with("invalid JSON: ")));
}

#[test]
fn the_program_is_the_entry_points_first_word() {
    let config = |entrypoint: &[&str], cmd: &[&str]| {
        let list = |words: &[&str]| Some(words.iter().map(ToString::to_string).collect());
        Config { entrypoint: list(entrypoint), cmd: list(cmd), ..Config::default() }
    };
    assert_eq!(command(&config(&["a", "b"], &["c"])), Some(("a".into(), vec!["b".into(), "c".into()])));
    assert_eq!(command(&config(&[], &["c"])), Some(("c".into(), vec![])));
    assert_eq!(command(&config(&[], &[])), None);
}

#[test]
fn a_container_that_was_half_written_was_never_there() {
    let dir = tempfile::tempdir().unwrap();
    let record = super::super::spec::test_data::record();
    let found = || super::super::Containers::open(dir.path()).unwrap().all().len();
    assert_eq!(found(), 0);
    save_new(&record, dir.path()).unwrap();
    assert!(save_new(&record, dir.path()).is_err(), "there is one already");
    assert_eq!(found(), 1);
    let folder = record.dir(dir.path());
    let config = folder.join("config.json");
    let whole = std::fs::read(&config).unwrap();
    for torn in [&[][..], &whole[..whole.len() / 2]] {
        std::fs::write(&config, torn).unwrap();
        std::fs::write(folder.join("hosts"), "").unwrap();
        assert_eq!((found(), folder.exists()), (0, true), "one that ran is not thrown away");
        std::fs::remove_file(folder.join("hosts")).unwrap();
        assert_eq!((found(), folder.exists()), (0, false));
        std::fs::create_dir(&folder).unwrap();
    }
}
