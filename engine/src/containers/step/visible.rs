//! Containers of the classic builder's steps: like all others, they are listed, have logs, and stay where they are told to.

use std::os::fd::AsFd;
use std::sync::Arc;

use tokio::net::UnixStream;
use wherry_monitor_api::Request;

use super::{attach, read_output};
use crate::containers::config::{Config, HostConfig};
use crate::containers::table::Container;
use crate::containers::{control, create, lifecycle, remove, start};
use crate::engine::Engine;
use crate::error::Error;

/// Makes a container of `config.image` for a step. It goes again if nobody waits for it any more.
///
/// # Errors
/// Those of `POST /containers/create`.
pub(crate) async fn create(
    engine: &Arc<Engine>,
    config: Config,
    host: HostConfig,
) -> Result<(Arc<Container>, Abandoned), Error> {
    let engine = engine.clone();
    // In a task of its own: who is called off in the middle of it would not know the container.
    let created = tokio::spawn(async move {
        let container = create::for_step(&engine, config, host).await?;
        let abandoned = Abandoned::new(&engine, &container);
        Ok((container, abandoned))
    });
    created.await.map_err(|gone| Error::server(format!("the creation was called off: {gone}")))?
}

/// Runs it to its end; output goes to `output`, with the number of its stream (1, 2), and the program waits for who takes it
/// slowly. Who may drop this future needs the [`Abandoned`] of [`create()`].
///
/// # Errors
/// What keeps it from being started.
pub(crate) async fn run<F>(
    engine: &Arc<Engine>,
    container: &Arc<Container>,
    mut output: impl FnMut(u8, Vec<u8>) -> F + Send,
) -> Result<i32, Error>
where
    F: Future<Output = ()> + Send,
{
    let monitor = lifecycle::ensure_monitor(engine, container).await?;
    let socket_failed = || Error::io("make a socket for the output of", &container.id);
    let (ours, theirs) = UnixStream::pair().map_err(socket_failed())?;
    let theirs = theirs.into_std().map_err(socket_failed())?;
    let attached = monitor.submit(Request::Attach(attach()), &[theirs.as_fd()]);
    attached.map_err(|error| lifecycle::broken(container, &error))?;
    drop(theirs);
    // In a task of its own, as half a start cannot be undone by dropping it.
    let (task_engine, task_container) = (engine.clone(), container.clone());
    let started = tokio::spawn(async move { start::start(&task_engine, &task_container).await }).await;
    started.map_err(|gone| Error::server(format!("the start was called off: {gone}")))??;
    if let Err(error) = read_output(ours, &mut output).await {
        // Nobody would hear of it any more; it may have ended, too.
        let _ = control::kill(engine, container, 9).await;
        return Err(Error::io("read the output of", &container.id)(error));
    }
    lifecycle::stopped_within(container, None).await;
    Ok(container.status().state.exit().map_or(0, |exit| exit.code))
}

/// Removes it, with its anonymous volumes.
///
/// # Errors
/// Those of `DELETE /containers/{id}`.
pub(crate) async fn remove(engine: &Arc<Engine>, container: &Arc<Container>) -> Result<(), Error> {
    let (engine, container) = (engine.clone(), container.clone());
    let options = remove::Options { force: true, volumes: true };
    // In a task of its own, as half a removal cannot be undone by dropping it.
    let removed = tokio::spawn(async move { remove::remove(&engine, &container, options).await }).await;
    removed.map_err(|gone| Error::server(format!("the removal was called off: {gone}")))?
}

/// A step's container that goes, with its program, when nobody waits for the step any more: if this is dropped.
pub(crate) struct Abandoned {
    engine: Arc<Engine>,
    container: Option<Arc<Container>>,
}

impl Abandoned {
    /// From now on.
    fn new(engine: &Arc<Engine>, container: &Arc<Container>) -> Self {
        Self { engine: engine.clone(), container: Some(container.clone()) }
    }

    /// The step has come to its end; what becomes of the container has been seen to.
    pub(crate) fn disarm(mut self) {
        self.container = None;
    }
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        let (engine, Some(container)) = (self.engine.clone(), self.container.take()) else { return };
        tokio::spawn(async move {
            // It may be about to start.
            let guard = container.transition.lock().await;
            drop(guard);
            // It may have been removed by then.
            if let Err(error) = remove(&engine, &container).await {
                tracing::debug!(container = %container.id, %error, "the step of a build that was called off");
            }
        });
    }
}
