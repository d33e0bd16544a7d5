//! SIGHUP: reads the configuration again and tells so.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use crate::config::Config;
use crate::engine::Engine;

/// Puts the reloadable settings in force. When they cannot be read the present ones stay.
pub(super) fn reload(engine: &Engine) {
    let fresh = match engine.config().reloaded() {
        Ok(fresh) => Arc::new(fresh),
        Err(error) => {
            tracing::error!(%error, "the configuration was not reloaded");
            return;
        }
    };
    *engine.config.write().unwrap_or_else(PoisonError::into_inner) = fresh.clone();
    super::start::set_log_level(&fresh);
    tracing::info!(debug = fresh.debug, labels = ?fresh.labels, "the configuration was reloaded");
    engine.events.publish("daemon", "reload", &engine.id, attributes(&fresh));
}

fn attributes(config: &Config) -> BTreeMap<String, String> {
    let list = |items: &[String]| serde_json::to_string(items).unwrap_or_default();
    let attribute = |name: &str, value: String| (name.to_string(), value);
    BTreeMap::from([
        attribute("debug", config.debug.to_string()),
        attribute("default-runtime", "runc".into()),
        attribute("default-shm-size", config.default_shm_bytes.to_string()),
        attribute("insecure-registries", list(&config.insecure_registries)),
        attribute("labels", list(&config.labels)),
        attribute("live-restore", config.live_restore.to_string()),
        attribute("max-concurrent-downloads", config.max_downloads.to_string()),
        attribute("max-concurrent-uploads", config.max_uploads.to_string()),
        attribute("max-download-attempts", config.max_download_attempts.to_string()),
        attribute("name", crate::system::host::name()),
        attribute("registry-mirrors", list(&config.registry_mirrors)),
        attribute("shutdown-timeout", config.shutdown_timeout_s.to_string()),
    ])
}
