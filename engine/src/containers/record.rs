//! A container as it is on disk: `DATA_ROOT/containers/ID/config.json`, written by the engine
//! alone. What happens to it while it runs is in its monitor's `state.json` beside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::config::{Config, EndpointSettings, HostConfig, MountPoint};
use crate::error::Error;

/// The version of the file.
pub(crate) const VERSION: u32 = 1;

/// All that the engine knows of a container and must not lose.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Record {
    /// [`VERSION`].
    pub(crate) version: u32,
    /// 64 hex digits.
    pub(crate) id: String,
    /// Without the leading slash.
    pub(crate) name: String,
    /// Nanoseconds since the epoch.
    pub(crate) created_ns: i64,
    /// The image's id, `sha256:…`.
    pub(crate) image: String,
    /// The program.
    pub(crate) path: String,
    /// Its arguments.
    pub(crate) args: Vec<String>,
    /// As merged from the request and the image.
    pub(crate) config: Config,
    /// As completed with defaults.
    pub(crate) host_config: HostConfig,
    /// The resolved mounts, in the order of their destinations. Named and anonymous volumes exist.
    pub(crate) mounts: Vec<MountPoint>,
    /// Per mount destination: what only the start needs.
    pub(crate) mount_extras: BTreeMap<String, MountExtra>,
    /// The networks it is connected to when it runs: name → what was asked. For the network modes `host`, `none` one
    /// entry of that name; for `container:ID` none.
    pub(crate) networks: BTreeMap<String, Attachment>,
    /// Why the last start failed, with the exit code that stands for it; cleared by a start that works.
    pub(crate) start_failure: Option<StartFailure>,
    /// Whether it has ever been started (then its /etc files exist, from which this is known again).
    #[serde(skip)]
    pub(crate) started_before: bool,
}

/// A wish to be in a network.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Attachment {
    /// The network's id once it has been in it (empty before).
    pub(crate) network_id: String,
    /// What was asked.
    pub(crate) settings: EndpointSettings,
    /// Whether it was connected after it had been made: then its names are known at once.
    #[serde(default)]
    pub(crate) connected: bool,
}

/// What a mount needs at start besides its `MountPoint`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct MountExtra {
    /// Further options in the OCI specification's words (`nosuid`, `size=64m`, `rro` …).
    pub(crate) options: Vec<String>,
    /// Whether a missing bind source is created.
    pub(crate) create_source: bool,
    /// Whether the volume is filled from the image the first time.
    pub(crate) copy_up: bool,
    /// Whether the volume was made with a container, for it and those that take its volumes (removed by `rm -v` and `--rm` of
    /// the last of them).
    pub(crate) anonymous: bool,
    /// A folder inside the volume or image.
    pub(crate) subpath: String,
    /// The id of the image that is mounted.
    #[serde(default)]
    pub(crate) image: String,
    /// Why the mount cannot be, where dockerd says so only at the start.
    #[serde(default)]
    pub(crate) conflict: String,
}

/// Why a start failed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StartFailure {
    /// 126, 127 or 128.
    pub(crate) code: i32,
    /// The text shown as `State.Error`.
    pub(crate) error: String,
}

impl Record {
    /// `DATA_ROOT/containers/ID`.
    pub(crate) fn dir(&self, data_root: &Path) -> PathBuf {
        dir(data_root, &self.id)
    }

    /// The names of its volumes.
    pub(crate) fn volumes(&self) -> impl Iterator<Item = &str> {
        self.mounts.iter().filter(|mount| mount.kind == "volume").map(|mount| mount.name.as_str())
    }

    /// The json-file log.
    pub(crate) fn log_path(&self, data_root: &Path) -> PathBuf {
        self.dir(data_root).join(format!("{}-json.log", self.id))
    }

    /// The monitor's file.
    pub(crate) fn state_path(&self, data_root: &Path) -> PathBuf {
        self.dir(data_root).join("state.json")
    }

    /// Writes it durably. Blocking.
    ///
    /// # Errors
    /// I/O errors with the file's name.
    pub(crate) fn save(&self, data_root: &Path) -> Result<(), Error> {
        let path = self.dir(data_root).join("config.json");
        wherry_durable::write_json(&path, self).map_err(Error::io("write", path.display()))
    }

    /// The short id.
    pub(crate) fn short_id(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }

    /// Labels, empty if none.
    pub(crate) fn labels(&self) -> &BTreeMap<String, String> {
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        self.config.labels.as_ref().unwrap_or(&NONE)
    }
}

/// `DATA_ROOT/containers/ID`.
pub(crate) fn dir(data_root: &Path, id: &str) -> PathBuf {
    data_root.join("containers").join(id)
}
