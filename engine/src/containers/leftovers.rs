//! What a container leaves behind whose monitor was killed: processes that nobody reaps or logs, cgroups, and what a named runtime
//! keeps. As dockerd's containerd does when a shim has died, all of it is ended and removed.

use std::path::Path;
use std::sync::Arc;

use wherry_monitor_api::{Leftovers, Request, run_dir};

use super::monitor::Monitor;
use super::record::Record;
use super::table::Container;
use super::{runtimes, spec};
use crate::config::Config;
use crate::engine::Engine;

/// Where the hierarchies of cgroups are.
const HIERARCHIES: &str = "/sys/fs/cgroup";

/// Ends and removes it, by a monitor that does nothing else. What cannot be removed is logged.
pub(super) async fn clear(engine: &Engine, container: &Arc<Container>) {
    let record = container.record();
    let config = engine.config();
    let external = match runtimes::external(&record.host_config.runtime, &config) {
        Ok(external) => external,
        Err(error) => {
            tracing::warn!(container = %container.id, %error, "what its runtime keeps of it stays");
            None
        }
    };
    if external.is_none() && !may_be_there(&record, &config) {
        return;
    }
    let dir = run_dir(&config.exec_root, &container.id);
    let leftovers = Leftovers {
        cgroups_path: spec::cgroups_path(&record, &config).into(),
        systemd_cgroup: config.systemd_cgroup,
        root: dir.join("rootfs"),
        external,
    };
    let failed = match Monitor::spawn(&engine.monitor_program, &dir, &container.id) {
        Ok((monitor, _)) => {
            let cleared = monitor.call(Request::Clear(Box::new(leftovers)), &[]).await;
            // One that has gone by itself has said why it did not answer.
            let _ = monitor.submit(Request::Release, &[]);
            cleared.err().map(|e| e.to_string())
        }
        Err(error) => Some(error.to_string()),
    };
    if let Some(error) = failed {
        tracing::error!(container = %container.id, %error, "what it has left could not be removed");
    }
}

/// Whether there may be a cgroup. After a reboot there is none, of a thousand containers.
fn may_be_there(record: &Record, config: &Config) -> bool {
    let path = spec::cgroups_path(record, config);
    let Some(inner) = path.strip_prefix('/').filter(|_| !config.systemd_cgroup) else { return true };
    let root = Path::new(HIERARCHIES);
    let hierarchies = std::fs::read_dir(root).into_iter().flatten().flatten();
    root.join(inner).exists() || hierarchies.into_iter().any(|entry| entry.path().join(inner).exists())
}
