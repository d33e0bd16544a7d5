//! `start`, `kill`, `delete`, `pause`, `resume`.

use wherry_runtime::{Error, Status};

use crate::failure::Failure;
use crate::signal_name;
use crate::store::Store;

/// Lets a created container run its program.
pub(crate) fn start(store: &Store) -> Result<(), Failure> {
    let (_, container) = store.open()?;
    let mut container = container.ok_or(Failure::StartStopped)?;
    match container.start() {
        Err(Error::State { status: Status::Stopped, .. }) => Err(Failure::StartStopped),
        Err(Error::State { .. }) => Err(Failure::AlreadyRunning),
        other => Ok(other?),
    }
}

/// Sends a signal.
pub(crate) fn kill(store: &Store, signal: &str, all: bool) -> Result<(), Failure> {
    let signal = signal_name::parse(signal)?;
    let (record, container) = store.open()?;
    match container {
        Some(container) if all => Ok(container.kill_all(signal)?),
        Some(container) => match container.kill(signal) {
            Err(Error::State { .. }) => Err(Failure::NotRunning),
            other => Ok(other?),
        },
        // `--all` is for what is left of a container without a pid namespace
        None if all => Ok(record.state.kill_all(signal)?),
        None => Err(Failure::NotRunning),
    }
}

/// Removes a container. With `force` also one that runs, and it is fine if there is none.
pub(crate) fn delete(store: &Store, id: &str, force: bool) -> Result<(), Failure> {
    let (record, container) = match store.open() {
        Err(Failure::NoSuchContainer) if force => return store.remove(),
        other => other?,
    };
    match container {
        Some(container) => {
            let status = container.status();
            if !force && status != Status::Created {
                return Err(Failure::NotStopped { id: id.to_owned(), status });
            }
            container.delete(true)?;
        }
        None => record.state.remove()?,
    }
    store.remove()
}

/// Freezes.
pub(crate) fn pause(store: &Store) -> Result<(), Failure> {
    match store.open_running()?.pause() {
        Err(Error::State { .. }) => Err(Failure::NotRunning),
        other => Ok(other?),
    }
}

/// Thaws.
pub(crate) fn resume(store: &Store) -> Result<(), Failure> {
    match store.open_running()?.resume() {
        Err(Error::State { .. }) => Err(Failure::NotPaused),
        other => Ok(other?),
    }
}
