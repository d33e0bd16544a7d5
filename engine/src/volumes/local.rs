//! Volumes on disk: `DATA_ROOT/volumes/NAME/_data`, described by `volume.json` beside it.
//!
//! A volume exists when its `volume.json` does: it is written last, and before a removal deletes anything the folder is
//! renamed to a name that no volume can have. What a crash leaves half-done is finished by [`Volumes::open`].

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use serde::{Deserialize, Serialize};

use super::mount;
use crate::error::Error;

/// Volumes that were made for a container's `VOLUME`, or without a name; `prune` takes only these.
pub(crate) const ANONYMOUS: &str = "com.docker.volume.anonymous";
const RECORD: &str = "volume.json";
const RECORD_VERSION: u32 = 1;
/// Prefix of folders whose removal has begun.
const REMOVED: &str = ".removed-";

type Labels = BTreeMap<String, String>;

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
    pub(crate) labels: Option<Labels>,
    /// Driver options (`type`, `o`, `device`); `None` when none were given.
    pub(crate) options: Option<BTreeMap<String, String>>,
}

/// What `volume.json` holds.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    version: u32,
    created_ns: i64,
    labels: Option<Labels>,
    options: Option<BTreeMap<String, String>>,
}

/// All volumes.
#[derive(Debug)]
pub(crate) struct Volumes {
    root: PathBuf,
    by_name: RwLock<BTreeMap<String, Arc<Volume>>>,
    /// Held by whoever makes, removes or mounts one. Readers never take it.
    change: Mutex<()>,
}

impl Volume {
    /// Whether nobody gave it a name.
    pub(crate) fn is_anonymous(&self) -> bool {
        self.labels.as_ref().is_some_and(|labels| labels.contains_key(ANONYMOUS))
    }

    /// Whether something is to be mounted at its place while containers use it.
    pub(crate) fn has_mount(&self) -> bool {
        self.options.as_ref().is_some_and(|options| options.contains_key("device"))
    }

    /// Its files' size in bytes. Walks them all. Blocks.
    pub(crate) fn size_bytes(&self) -> u64 {
        let (mut bytes, mut folders) = (0, vec![self.mountpoint.clone()]);
        let mut seen = std::collections::HashSet::new();
        while let Some(folder) = folders.pop() {
            // What vanishes while we look has no size.
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let Ok(meta) = entry.metadata() else { continue };
                if meta.is_dir() {
                    folders.push(entry.path());
                } else if std::os::unix::fs::MetadataExt::nlink(&meta) < 2
                    || seen.insert(std::os::unix::fs::MetadataExt::ino(&meta))
                {
                    bytes += meta.len();
                }
            }
        }
        bytes
    }
}

impl Volumes {
    /// Opens the volumes below `data_root`, and finishes what a crash left half-done. Blocks.
    ///
    /// # Errors
    /// The folder cannot be made or read.
    pub(crate) fn open(data_root: &Path) -> Result<Self, Error> {
        let root = data_root.join("volumes");
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&root)
            .map_err(Error::io("create", root.display()))?;
        let mut by_name = BTreeMap::new();
        for entry in std::fs::read_dir(&root).map_err(Error::io("read", root.display()))? {
            let entry = entry.map_err(Error::io("read", root.display()))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if let Some(volume) = read_or_mend(&entry.path(), &name) {
                by_name.insert(name, Arc::new(volume));
            }
        }
        Ok(Self { root, by_name: RwLock::new(by_name), change: Mutex::new(()) })
    }

    /// The volume of that name, made if there is none; without a name an anonymous one. Blocks. The flag says whether
    /// it was made now (the caller publishes `create` then).
    ///
    /// # Errors
    /// 400 for a bad name or option; 404 for another driver than `local` (or empty).
    pub(crate) fn ensure(
        &self,
        name: Option<&str>,
        labels: Option<Labels>,
        driver: &str,
        options: Option<BTreeMap<String, String>>,
    ) -> Result<(Arc<Volume>, bool), Error> {
        let (name, labels) = match name.filter(|n| !n.is_empty()) {
            Some(name) => (name.to_string(), labels),
            None => {
                let mut labels = labels.unwrap_or_default();
                labels.insert(ANONYMOUS.into(), String::new());
                (crate::id::hex64(), Some(labels))
            }
        };
        if !matches!(driver, "" | "local") {
            return Err(Error::NotFound(format!(
                "create {name}: error looking up volume plugin {driver}: plugin {} not found",
                crate::text::go_quote(driver)
            )));
        }
        if let Some(volume) = self.known(&name) {
            return Ok((volume, false));
        }
        check_name(&name)?;
        mount::check_options(&name, options.as_ref())?;
        let _change = self.changing();
        if let Some(volume) = self.known(&name) {
            return Ok((volume, false));
        }
        let record = Record { version: RECORD_VERSION, created_ns: crate::clock::now_ns(), labels, options };
        let folder = self.root.join(&name);
        write_new(&folder, &record).map_err(Error::io("create volume", &name))?;
        let volume = Arc::new(record.into_volume(name.clone(), &folder));
        self.by_name.write().unwrap_or_else(PoisonError::into_inner).insert(name, volume.clone());
        Ok((volume, true))
    }

    /// A volume by name.
    ///
    /// # Errors
    /// 404 `get NAME: no such volume`.
    pub(crate) fn get(&self, name: &str) -> Result<Arc<Volume>, Error> {
        self.known(name).ok_or_else(|| match name {
            "" => Error::NotFound("get: no such volume".into()),
            _ => Error::NotFound(format!("get {name}: no such volume")),
        })
    }

    /// All volumes, by name.
    pub(crate) fn list(&self) -> Vec<Arc<Volume>> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Removes a volume that (as the caller has checked) no container uses. Blocks.
    ///
    /// # Errors
    /// 404 `get NAME: no such volume`; I/O.
    pub(crate) fn remove(&self, name: &str) -> Result<(), Error> {
        let _change = self.changing();
        let volume = self.get(name)?;
        mount::unmount(&volume.mountpoint).map_err(Error::io("unmount volume", name))?;
        let grave = self.root.join(format!("{REMOVED}{name}"));
        let folder = self.root.join(name);
        std::fs::rename(&folder, &grave).map_err(Error::io("remove volume", name))?;
        self.by_name.write().unwrap_or_else(PoisonError::into_inner).remove(name);
        wherry_durable::sync_parent(&grave).map_err(Error::io("remove volume", name))?;
        std::fs::remove_dir_all(&grave).map_err(Error::io("remove volume", name))
    }

    /// Mounts what the volume's options ask for, unless that is done already; called before a container that uses it is
    /// started. Answers the mountpoint. Blocks where there are options.
    ///
    /// # Errors
    /// 404; `error while mounting volume '…': failed to mount local volume: …`.
    pub(crate) fn mount(&self, name: &str) -> Result<PathBuf, Error> {
        let volume = self.get(name)?;
        if let Some(options) = volume.options.as_ref().filter(|o| o.contains_key("device")) {
            let _change = self.changing();
            mount::mount(&volume.mountpoint, options).map_err(|failure| {
                let path = volume.mountpoint.display();
                Error::server(format!(
                    "error while mounting volume '{path}': failed to mount local volume: {failure}"
                ))
            })?;
        }
        Ok(volume.mountpoint.clone())
    }

    /// Unmounts what [`Self::mount`] mounted; called when no running container uses the volume any more. Blocks where
    /// there are options.
    ///
    /// # Errors
    /// 404; I/O.
    pub(crate) fn unmount(&self, name: &str) -> Result<(), Error> {
        let volume = self.get(name)?;
        if volume.has_mount() {
            let _change = self.changing();
            mount::unmount(&volume.mountpoint).map_err(Error::io("unmount volume", name))?;
        }
        Ok(())
    }

    fn known(&self, name: &str) -> Option<Arc<Volume>> {
        self.by_name.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.change.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    fn into_volume(self, name: String, folder: &Path) -> Volume {
        Volume {
            name,
            mountpoint: folder.join("_data"),
            created_ns: self.created_ns,
            labels: self.labels,
            options: self.options,
        }
    }
}

fn write_new(folder: &Path, record: &Record) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o701).create(folder)?;
    let data = folder.join("_data");
    match std::fs::DirBuilder::new().mode(0o755).create(&data) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    // Whatever the umask: what containers find there must be theirs to use.
    std::fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    wherry_durable::write_json(&folder.join(RECORD), record)?;
    wherry_durable::sync_parent(folder)
}

/// The volume in a folder. A folder whose removal had begun is removed; one without a record was not yet a volume, and
/// goes if nothing is in it.
fn read_or_mend(folder: &Path, name: &str) -> Option<Volume> {
    let shown = folder.display();
    if name.starts_with(REMOVED) {
        match std::fs::remove_dir_all(folder) {
            Ok(()) => tracing::info!(folder = %shown, "finished a volume's removal"),
            Err(error) => tracing::warn!(folder = %shown, %error, "a volume's removal cannot be finished"),
        }
        return None;
    }
    match wherry_durable::read_json::<Record>(&folder.join(RECORD)) {
        Ok(Some(record)) if record.version == RECORD_VERSION => Some(record.into_volume(name.into(), folder)),
        Ok(Some(record)) => {
            tracing::warn!(folder = %shown, version = record.version, "a volume of another format is left alone");
            None
        }
        Ok(None) => {
            // Fails, as it should, where there are files.
            let gone = std::fs::remove_dir(folder.join("_data")).and_then(|()| std::fs::remove_dir(folder));
            if let Err(error) = gone {
                tracing::warn!(folder = %shown, %error, "a folder without {RECORD} is no volume; left alone");
            }
            None
        }
        Err(error) => {
            tracing::warn!(folder = %shown, %error, "a volume that cannot be read is left alone");
            None
        }
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    let invalid = |why: String| Err(Error::InvalidParameter(format!("create {name}: {why}")));
    if name.chars().count() < 2 {
        return invalid(
            "volume name is too short, names should be at least two alphanumeric characters".into(),
        );
    }
    let first_fits = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !first_fits || !name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-')) {
        return invalid(format!(
            "{} includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. \
             If you intended to pass a host directory, use absolute path",
            crate::text::go_quote(name)
        ));
    }
    if name.len() > 255 - REMOVED.len() {
        return invalid("volume name is too long".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_last_and_go() {
        let root = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(root.path()).unwrap();
        let labels = BTreeMap::from([("a".to_string(), "b".to_string())]);
        let (made, new) = volumes.ensure(Some("data"), Some(labels), "local", None).unwrap();
        assert!(new && made.mountpoint.is_dir());
        assert!(!volumes.ensure(Some("data"), None, "", None).unwrap().1, "it is there already");
        let (anonymous, _) = volumes.ensure(None, None, "", None).unwrap();
        assert!(anonymous.is_anonymous() && anonymous.name.len() == 64);
        std::fs::write(made.mountpoint.join("file"), "12345").unwrap();
        std::fs::hard_link(made.mountpoint.join("file"), made.mountpoint.join("link")).unwrap();
        assert_eq!(made.size_bytes(), 5);

        let reopened = Volumes::open(root.path()).unwrap();
        assert_eq!(reopened.get("data").unwrap(), made);
        assert_eq!(reopened.list().len(), 2);
        reopened.remove("data").unwrap();
        assert_eq!(reopened.get("data").unwrap_err().to_string(), "get data: no such volume");
        assert_eq!(Volumes::open(root.path()).unwrap().list().len(), 1);
    }

    #[test]
    fn what_a_crash_left_is_mended() {
        let root = tempfile::tempdir().unwrap();
        let volumes = root.path().join("volumes");
        std::fs::create_dir_all(volumes.join("halfmade/_data")).unwrap();
        std::fs::create_dir_all(volumes.join(".removed-old/_data/deep")).unwrap();
        std::fs::create_dir_all(volumes.join("strange/_data/file")).unwrap();
        assert!(Volumes::open(root.path()).unwrap().list().is_empty());
        assert!(!volumes.join("halfmade").exists() && !volumes.join(".removed-old").exists());
        assert!(volumes.join("strange/_data/file").exists(), "files are never removed unasked");
    }

    #[test]
    fn bad_names_and_drivers_are_told_in_dockerds_words() {
        let root = tempfile::tempdir().unwrap();
        let volumes = Volumes::open(root.path()).unwrap();
        let check = |name: &str, driver: &str, expect: &str| {
            let error = volumes.ensure(Some(name), None, driver, None).unwrap_err();
            assert_eq!(error.to_string(), expect);
        };
        check(
            "w",
            "",
            "create w: volume name is too short, names should be at least two alphanumeric characters",
        );
        check(
            "a/b",
            "",
            "create a/b: \"a/b\" includes invalid characters for a local volume name, only \
             \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path",
        );
        check(
            "wsd",
            "nosuch",
            "create wsd: error looking up volume plugin nosuch: plugin \"nosuch\" not found",
        );
        for name in ["../up", ".hidden", "-x", "a\0b"] {
            assert!(volumes.ensure(Some(name), None, "", None).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_mounted_volume_is_unmounted_before_its_files_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        std::fs::write(outside.path().join("precious"), "").unwrap();
        let volumes = Volumes::open(root.path()).unwrap();
        let options = [("type", "none"), ("o", "bind,ro"), ("device", outside.path().to_str().unwrap())];
        let options = options.map(|(k, v)| (k.to_string(), v.to_string()));
        let (volume, _) = volumes.ensure(Some("bound"), None, "", Some(options.into())).unwrap();
        for _ in 0..2 {
            volumes.mount("bound").unwrap();
        }
        assert!(volume.mountpoint.join("precious").exists());
        assert!(std::fs::write(volume.mountpoint.join("new"), "").is_err(), "it is read-only");
        volumes.unmount("bound").unwrap();
        assert!(!volume.mountpoint.join("precious").exists());
        volumes.mount("bound").unwrap();
        volumes.remove("bound").unwrap();
        assert!(outside.path().join("precious").exists());
        assert!(!volume.mountpoint.exists());
    }
}
