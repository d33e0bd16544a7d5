//! A container and settings for tests.

use std::collections::BTreeMap;

use super::super::config::{Config as ProgramConfig, HostConfig};
use super::super::record::{self, Record};
use super::{MASKED_PATHS, READONLY_PATHS};
use crate::config::{Command, Config};

/// Its id.
pub(crate) const ID: &str = "1cf83113c33cce867679df46d975fb32c3e89f243537949648d6680a34e5aefe";

/// The daemon's defaults.
pub(crate) fn config() -> Config {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(file.path(), "{}").expect("a configuration without settings");
    match Config::load(["--config-file".into(), file.path().into()]) {
        Ok(Command::Run(config)) => *config,
        other => panic!("defaults are settings: {other:?}"),
    }
}

/// A container as `docker create busybox sleep 100` makes it.
pub(crate) fn record() -> Record {
    Record {
        version: record::VERSION,
        id: ID.into(),
        name: "w1".into(),
        created_ns: 1,
        image: "sha256:0".into(),
        path: "sleep".into(),
        args: vec!["100".into()],
        config: ProgramConfig { hostname: "1cf83113c33c".into(), ..ProgramConfig::default() },
        host_config: HostConfig {
            network_mode: "bridge".into(),
            ipc_mode: "private".into(),
            cgroupns_mode: "host".into(),
            shm_size: 67_108_864,
            oom_kill_disable: Some(false),
            masked_paths: Some(MASKED_PATHS.map(String::from).to_vec()),
            readonly_paths: Some(READONLY_PATHS.map(String::from).to_vec()),
            ..HostConfig::default()
        },
        mounts: Vec::new(),
        mount_extras: BTreeMap::new(),
        networks: BTreeMap::new(),
        start_failure: None,
        started_before: false,
    }
}
