//! netd's files. `DATA_ROOT/network/ID.json`: a network, which survives power cuts.
//! `EXEC_ROOT/netd/sandboxes/ID.json` and `EXEC_ROOT/netd/settings.json`: what is true until the next boot; these are replaced whole,
//! so that a kill at any instant leaves the old or the new one, but not synced to disk.
//! `EXEC_ROOT/netns/`: the mounted namespaces.

use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::dns::service::DnsPorts;
use crate::firewall::wanted::Family;
use crate::protocol::{NetworkSpec, Sandbox, Settings, VERSION};

/// Where things are.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    networks: PathBuf,
    sandboxes: PathBuf,
    settings: PathBuf,
    namespaces: PathBuf,
}

/// A network as stored.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredNetwork {
    pub(crate) version: u32,
    pub(crate) spec: NetworkSpec,
    pub(crate) default_bridge: bool,
    /// Milliseconds since 1970.
    pub(crate) created_ms: u64,
    /// Whether the subnet was asked for, and not taken from the pools.
    pub(crate) chosen_subnet: bool,
    /// Whether we made the bridge, and remove it.
    pub(crate) own_bridge: bool,
}

/// A sandbox as stored.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredSandbox {
    pub(crate) version: u32,
    pub(crate) sandbox: Sandbox,
    pub(crate) dns: Option<DnsPorts>,
}

/// The last settings that an engine sent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StoredSettings {
    pub(crate) version: u32,
    pub(crate) settings: Settings,
    /// Whether we switched forwarding on, and so owe the host a firewall that forwards nothing else.
    pub(crate) forward_drop: bool,
    /// The same for IPv6.
    #[serde(default)]
    pub(crate) forward_drop_v6: bool,
}

impl StoredSettings {
    pub(crate) fn new(settings: Settings, forward_drop: &[Family]) -> Self {
        Self {
            version: VERSION,
            settings,
            forward_drop: forward_drop.contains(&Family::V4),
            forward_drop_v6: forward_drop.contains(&Family::V6),
        }
    }

    /// The families whose forwarded packets are dropped unless a rule accepts them.
    pub(crate) fn dropping(&self) -> Vec<Family> {
        let all = [(Family::V4, self.forward_drop), (Family::V6, self.forward_drop_v6)];
        all.into_iter().filter(|f| f.1).map(|f| f.0).collect()
    }
}

impl Paths {
    /// Makes the folders.
    pub(crate) fn prepare(exec_root: &Path, data_root: &Path) -> io::Result<Self> {
        let paths = Self {
            networks: data_root.join("network"),
            sandboxes: exec_root.join("netd/sandboxes"),
            settings: exec_root.join("netd/settings.json"),
            namespaces: exec_root.join("netns"),
        };
        std::fs::create_dir_all(&paths.networks)?;
        std::fs::create_dir_all(&paths.sandboxes)?;
        crate::namespace::make_private_folder(&paths.namespaces)?;
        Ok(paths)
    }

    /// Gives up the folder of namespaces, as long as none is mounted in it.
    pub(crate) fn release(&self) -> io::Result<()> {
        crate::namespace::release_private_folder(&self.namespaces)
    }

    /// A name for a new namespace of a sandbox; each is used once, so that taking down an old one
    /// never meets a new one.
    pub(crate) fn new_namespace(&self, sandbox: &str) -> io::Result<PathBuf> {
        let short = sandbox.get(..12).unwrap_or(sandbox);
        Ok(self.namespaces.join(format!("{short}-{}", crate::random::hex::<4>()?)))
    }

    /// All files that are, or were, namespaces.
    pub(crate) fn namespaces(&self) -> io::Result<Vec<PathBuf>> {
        std::fs::read_dir(&self.namespaces)?.map(|entry| Ok(entry?.path())).collect()
    }

    pub(crate) fn load_settings(&self) -> io::Result<Option<StoredSettings>> {
        wherry_durable::read_json(&self.settings)
    }

    pub(crate) fn save_settings(&self, settings: &StoredSettings) -> io::Result<()> {
        replace(&self.settings, settings)
    }

    /// All stored networks, in order of creation; files that do not parse are given by name.
    pub(crate) fn load_networks(&self) -> io::Result<(Vec<StoredNetwork>, Vec<io::Error>)> {
        let (mut networks, broken) = load_all::<StoredNetwork>(&self.networks)?;
        networks.sort_by_key(|n| n.created_ms);
        Ok((networks, broken))
    }

    pub(crate) fn save_network(&self, network: &StoredNetwork) -> io::Result<()> {
        wherry_durable::write_json(&self.network(&network.spec.id), network)
    }

    pub(crate) fn remove_network(&self, id: &str) -> io::Result<()> {
        let path = self.network(id);
        remove(&path)?;
        wherry_durable::sync_parent(&path)
    }

    /// All stored sandboxes.
    pub(crate) fn load_sandboxes(&self) -> io::Result<(Vec<StoredSandbox>, Vec<io::Error>)> {
        load_all(&self.sandboxes)
    }

    pub(crate) fn save_sandbox(&self, sandbox: &StoredSandbox) -> io::Result<()> {
        replace(&self.sandbox(&sandbox.sandbox.id), sandbox)
    }

    pub(crate) fn remove_sandbox(&self, id: &str) -> io::Result<()> {
        remove(&self.sandbox(id))
    }

    fn network(&self, id: &str) -> PathBuf {
        self.networks.join(format!("{id}.json"))
    }

    fn sandbox(&self, id: &str) -> PathBuf {
        self.sandboxes.join(format!("{id}.json"))
    }
}

/// Whether an id can be part of a file's name.
pub(crate) fn is_id(id: &str) -> bool {
    !id.is_empty()
        && id.len() <= 128
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

fn replace<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let bytes = serde_json::to_vec(value).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    let temporary = path.with_extension("tmp");
    std::fs::write(&temporary, bytes)?;
    std::fs::rename(&temporary, path)
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn load_all<T: DeserializeOwned>(folder: &Path) -> io::Result<(Vec<T>, Vec<io::Error>)> {
    let (mut values, mut broken) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|e| e != "json") {
            continue;
        }
        match wherry_durable::read_json(&path) {
            Ok(value) => values.extend(value),
            Err(error) => broken.push(error),
        }
    }
    Ok((values, broken))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_plain_names() {
        for (id, expect) in [("0123abcdef", true), ("", false), ("../x", false), ("a/b", false), (".", false)]
        {
            assert_eq!(is_id(id), expect, "{id}");
        }
    }
}
