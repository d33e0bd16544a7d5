//! `start`, `kill`, `delete`, `pause`, `resume`.

use regex_lite::Regex;
use wherry_runtime::{Error, Status};

use crate::failure::Failure;
use crate::log::Log;
use crate::notify::NotifySocket;
use crate::store::{self, Store};
use crate::{Session, signal_name};

/// Lets a created container run its program. One whose poststart hooks fail is removed (runtime specification, "Lifecycle").
pub(crate) fn start(session: &Session, store: &Store) -> Result<(), Failure> {
    let (_, container) = store.open()?;
    let mut container = container.ok_or(Failure::StartStopped)?;
    let notify = NotifySocket::from_environment(store);
    if container.status() == Status::Created
        && let Some(notify) = &notify
    {
        notify.bind()?;
    }
    match container.start() {
        Err(Error::State { status: Status::Stopped, .. }) => return Err(Failure::StartStopped),
        Err(Error::State { status: Status::Paused, .. }) => return Err(Failure::StartIn(Status::Paused)),
        Err(Error::State { .. }) => return Err(Failure::AlreadyRunning),
        Err(error @ Error::Hook { .. }) => {
            remove(session, store, |log| warn(log, container.delete(true)))?;
            return Err(error.into());
        }
        other => other?,
    }
    match notify {
        Some(notify) => notify.relay(container.pid(), container.pidfd()),
        None => Ok(()),
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
        // what is left of a container without a pid namespace
        None if all || (signal == libc::SIGKILL && !record.state.has_own_pids()) => {
            Ok(record.state.kill_all(signal)?)
        }
        None => Err(Failure::NotRunning),
    }
}

/// Removes a container. With `force` also one that runs, and it is fine if there is none.
pub(crate) fn delete(session: &Session, store: &Store, id: &str, force: bool) -> Result<(), Failure> {
    let (record, container) = match store.open() {
        // what an aborted create has left
        Err(Failure::NoSuchContainer) => {
            store.remove()?;
            return if force { Ok(()) } else { Err(Failure::NoSuchContainer) };
        }
        other => other?,
    };
    let Some(container) = container else {
        return remove(session, store, |log| warn(log, record.state.remove()));
    };
    let status = container.status();
    if !force && status != Status::Created {
        return Err(Failure::NotStopped { id: id.to_owned(), status });
    }
    remove(session, store, |log| warn(log, container.delete(true)))
}

/// Removes all containers whose id matches a regular expression, as crun has it. One that cannot be removed does not keep the
/// others; what is told then is the first of them.
pub(crate) fn delete_all(session: &Session, expression: &str, force: bool) -> Result<(), Failure> {
    let invalid = |_| Failure::InvalidValue { option: "regex", value: expression.to_owned() };
    let expression = Regex::new(expression).map_err(invalid)?;
    let mut result = Ok(());
    for id in store::ids(&session.global.root)?.iter().filter(|id| expression.is_match(id)) {
        let one = Store::new(&session.global.root, id).and_then(|store| {
            store.load()?;
            delete(session, &store, id, force)
        });
        // Not yet a container, no longer one, or a folder of somebody else's: nobody has named it.
        if !matches!(one, Err(Failure::NoSuchContainer)) {
            result = result.and(one);
        }
    }
    result
}

/// Removes what there is of a container, then its record.
pub(crate) fn remove(
    session: &Session,
    store: &Store,
    container: impl FnOnce(&Log) -> Result<(), Failure>,
) -> Result<(), Failure> {
    container(&session.log)?;
    store.remove()
}

/// A `poststop` hook that fails changes nothing (runtime specification, "Lifecycle"): it is told, and that is all.
pub(crate) fn warn(log: &Log, result: Result<(), Error>) -> Result<(), Failure> {
    match result {
        Err(error @ Error::Hook { .. }) => {
            log.warning(&error.to_string());
            Ok(())
        }
        other => Ok(other?),
    }
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
