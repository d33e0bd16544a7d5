//! What a container leaves behind whose monitor was killed: processes that nobody reaps or logs, cgroups, and what a named runtime
//! keeps. As dockerd's containerd does when a shim has died, all of it is ended and removed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use wherry_monitor_api::{Leftovers, Request, run_dir};

use super::monitor::{CallError, Monitor};
use super::record::Record;
use super::table::Container;
use super::{runtimes, spec};
use crate::engine::Engine;

/// How long it may take. A named runtime's own removal may hang, and an engine that starts waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Ends and removes it, by a monitor that does nothing else. What cannot be removed is logged.
pub(super) async fn clear(engine: &Engine, container: &Arc<Container>) {
    let dir = run_dir(&engine.config().exec_root, &container.id);
    clear_in(engine, &container.record(), &dir).await;
}

/// The same for whatever has had the folder `dir`.
pub(super) async fn clear_in(engine: &Engine, record: &Record, dir: &Path) {
    let config = engine.config();
    let external = match runtimes::external(&record.host_config.runtime, &config) {
        Ok(external) => external,
        Err(error) => {
            tracing::warn!(container = %record.id, %error, "what its runtime keeps of it stays");
            None
        }
    };
    // Each monitor has had this folder, and EXEC_ROOT is empty after a boot: of a thousand containers nothing is left then.
    if !dir.exists() {
        return;
    }
    // A connection may have broken though its monitor lives: then it is the monitor's container still.
    if !matches!(Monitor::connect(dir), Ok(None)) {
        tracing::error!(container = %record.id, "its monitor is there, and keeps what it has");
        return;
    }
    let leftovers = Leftovers {
        cgroups_path: spec::cgroups_path(record, &config).into(),
        systemd_cgroup: config.systemd_cgroup,
        root: dir.join("rootfs"),
        external,
    };
    let failed = match Monitor::spawn(&engine.monitor_program, dir, &record.id) {
        Ok((monitor, _)) => {
            let call = monitor.call(Request::Clear(Box::new(leftovers)), &[]);
            let cleared = tokio::time::timeout(PATIENCE, call).await.unwrap_or(Err(CallError::Gone));
            // One that has gone by itself has said why it did not answer.
            let _ = monitor.submit(Request::Release, &[]);
            cleared.err().map(|e| e.to_string())
        }
        Err(error) => Some(error.to_string()),
    };
    if let Some(error) = failed {
        tracing::error!(container = %record.id, %error, "what it has left could not be removed");
    }
}
