//! The end that we are told of (SIGTERM).

use std::sync::Arc;

use crate::containers;
use crate::engine::Engine;

/// Ends what builds run, and the containers, unless they shall go on; ends netd when nothing needs it.
pub(super) async fn shutdown(engine: &Arc<Engine>) {
    // Their builds end with us, whatever goes on without us.
    engine.builds.close();
    containers::step::end_all(engine).await;
    if engine.config().live_restore {
        tracing::info!("containers go on without the daemon");
    } else {
        containers::shutdown(engine.clone()).await;
    }
    match engine.netd.sandboxes().await {
        Ok(sandboxes) if sandboxes.is_empty() => {
            if let Err(error) = engine.netd.shutdown().await {
                tracing::warn!(%error, "netd was not ended");
            }
        }
        Ok(sandboxes) => tracing::info!(sandboxes = sandboxes.len(), "netd goes on for those that run"),
        Err(error) => tracing::warn!(%error, "netd does not say what runs"),
    }
}
