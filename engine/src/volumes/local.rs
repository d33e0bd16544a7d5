//! Volumes on disk: `DATA_ROOT/volumes/NAME/_data`, described by `volume.json` beside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// A volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Volume {
    /// Its name; 64 hex digits for an anonymous one.
    pub(crate) name: String,
    /// Where its files are (`…/_data`).
    pub(crate) mountpoint: PathBuf,
    /// Nanoseconds since the epoch.
    pub(crate) created_ns: i64,
    /// Labels; `None` when none were given (shown as null).
    pub(crate) labels: Option<BTreeMap<String, String>>,
    /// Driver options (`type`, `o`, `device`); `None` when none were given.
    pub(crate) options: Option<BTreeMap<String, String>>,
}

/// All volumes.
#[derive(Debug)]
pub(crate) struct Volumes {
    root: PathBuf,
}

impl Volumes {
    /// Opens the volumes below `data_root`. Blocks.
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub(crate) fn open(data_root: &Path) -> Result<Self, Error> {
        Ok(Self { root: data_root.join("volumes") })
    }

    /// The volume of that name, made if there is none; without a name an anonymous one. Blocks. The flag says whether it
    /// was made now (the caller publishes `create` then).
    ///
    /// # Errors
    /// 400 for a bad name, driver or option; 409 when it exists with another driver.
    pub(crate) fn ensure(
        &self,
        name: Option<&str>,
        labels: Option<BTreeMap<String, String>>,
        driver: &str,
        options: Option<BTreeMap<String, String>>,
    ) -> Result<(Volume, bool), Error> {
        let _ = (name, labels, driver, options, &self.root);
        Err(Error::NotImplemented("volumes".into()))
    }

    /// A volume by name.
    ///
    /// # Errors
    /// 404 `get NAME: no such volume`.
    pub(crate) fn get(&self, name: &str) -> Result<Volume, Error> {
        Err(Error::NotFound(format!("get {name}: no such volume")))
    }

    /// All volumes, by name.
    pub(crate) fn list(&self) -> Vec<Volume> {
        Vec::new()
    }

    /// Removes a volume that (as the caller has checked) no container uses. Blocks.
    ///
    /// # Errors
    /// 404 `get NAME: no such volume`; I/O.
    pub(crate) fn remove(&self, name: &str) -> Result<(), Error> {
        self.get(name).map(|_| ())
    }

    /// Mounts what the volume's options ask for, unless that is done already; called before a container that uses it is
    /// started. Answers the mountpoint. Blocks.
    ///
    /// # Errors
    /// 404; `failed to mount local volume: …`.
    pub(crate) fn mount(&self, name: &str) -> Result<PathBuf, Error> {
        self.get(name).map(|v| v.mountpoint)
    }

    /// Unmounts what [`Self::mount`] mounted; called when no running container uses the volume any more. Blocks.
    ///
    /// # Errors
    /// 404; I/O.
    pub(crate) fn unmount(&self, name: &str) -> Result<(), Error> {
        self.get(name).map(|_| ())
    }
}
