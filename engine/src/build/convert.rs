//! Configurations between the three who have a type of their own for them: the store, the plan, the API.

use std::collections::BTreeMap;

use wherry_dockerfile::Healthcheck;
use wherry_dockerfile::plan::ImageConfig;
use wherry_image_store::Document;

use crate::containers::config::{Config, Empty, HealthConfig};

/// An image's configuration as a plan begins with it.
pub(super) fn of_document(document: &Document) -> ImageConfig {
    let config = &document.config;
    ImageConfig {
        user: config.user.clone(),
        exposed_ports: config.exposed_ports.iter().flatten().map(|(port, _)| port.clone()).collect(),
        env: config.env.clone().unwrap_or_default(),
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        volumes: config.volumes.iter().flatten().map(|(path, _)| path.clone()).collect(),
        working_dir: config.working_dir.clone(),
        labels: config.labels.clone().unwrap_or_default(),
        on_build: config.on_build.clone().unwrap_or_default(),
        stop_signal: config.stop_signal.clone(),
        shell: config.shell.clone(),
        healthcheck: config.healthcheck.as_ref().map(|check| Healthcheck {
            test: check.test.clone(),
            interval_ns: check.interval,
            timeout_ns: check.timeout,
            start_period_ns: check.start_period,
            start_interval_ns: check.start_interval,
            retries: check.retries,
        }),
        args_escaped: config.args_escaped,
        author: document.author.clone(),
    }
}

/// The configuration of a container, or of an image, with what the plan says; the rest is empty.
pub(super) fn to_config(config: &ImageConfig) -> Config {
    let set = |names: &std::collections::BTreeSet<String>| -> Option<BTreeMap<String, Empty>> {
        (!names.is_empty()).then(|| names.iter().map(|name| (name.clone(), Empty {})).collect())
    };
    let list = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    Config {
        user: config.user.clone(),
        exposed_ports: set(&config.exposed_ports),
        env: list(&config.env),
        cmd: config.cmd.clone(),
        healthcheck: config.healthcheck.as_ref().map(|check| HealthConfig {
            test: list(&check.test),
            interval: check.interval_ns,
            timeout: check.timeout_ns,
            start_period: check.start_period_ns,
            start_interval: check.start_interval_ns,
            retries: check.retries,
        }),
        args_escaped: config.args_escaped,
        volumes: set(&config.volumes),
        working_dir: config.working_dir.clone(),
        entrypoint: config.entrypoint.clone(),
        on_build: list(&config.on_build),
        labels: (!config.labels.is_empty()).then(|| config.labels.clone()),
        stop_signal: config.stop_signal.clone(),
        shell: config.shell.clone(),
        ..Config::default()
    }
}
