//! Folders that `RUN --mount=type=cache` keeps between builds: `DATA_ROOT/build/mounts/NAME`. A name with a dot is one that is not
//! there yet, or not any more.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use wherry_dockerfile::{Mount, Sharing};

use super::files::{Root, clean};
use super::run::{Shown, copy, open_folder};
use crate::engine::Engine;
use crate::error::Error;

/// The folders, and who uses them.
#[derive(Debug, Default)]
pub(super) struct CacheMounts {
    locks: Mutex<HashMap<String, Arc<RwLock<()>>>>,
    /// Held by the steps that use a folder, by its name.
    users: Mutex<Users>,
}

type Users = HashMap<String, Weak<()>>;

/// The folders that a step holds until its program has ended.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// By the name that was asked for.
    names: BTreeMap<String, String>,
    alone: Vec<OwnedRwLockWriteGuard<()>>,
    with_others: Vec<OwnedRwLockReadGuard<()>>,
    uses: Vec<Arc<()>>,
}

impl Held {
    /// The name of the folder that is held for `name`.
    pub(super) fn folder<'a>(&'a self, name: &'a str) -> &'a str {
        self.names.get(name).map_or(name, String::as_str)
    }
}

impl CacheMounts {
    /// Whether a step uses a folder at this moment.
    pub(super) fn is_in_use(&self, name: &str) -> bool {
        is_used(&self.users(), name)
    }

    /// Holds all folders of a step as their sharing asks for. What is named several times is held once, in the strictest way.
    pub(super) async fn hold(&self, wishes: impl IntoIterator<Item = (String, Sharing)>) -> Held {
        let mut strictest: BTreeMap<String, Sharing> = BTreeMap::new();
        for (name, sharing) in wishes {
            let known = strictest.entry(name).or_insert(sharing);
            *known = stricter(*known, sharing);
        }
        let mut held = Held::default();
        // In the order of their names, and before those for which nobody waits: two steps cannot wait for each other.
        for (name, sharing) in &strictest {
            match sharing {
                Sharing::Locked => held.alone.push(self.lock(name).write_owned().await),
                Sharing::Shared => held.with_others.push(self.lock(name).read_owned().await),
                Sharing::Private => {}
            }
        }
        for (name, sharing) in strictest {
            let own = match sharing {
                Sharing::Shared | Sharing::Locked => name.clone(),
                Sharing::Private => {
                    let (own, lock) = self.first_free(&name);
                    held.alone.push(lock);
                    own
                }
            };
            held.uses.push(self.enter(&own));
            held.names.insert(name, own);
        }
        held
    }

    /// The first one that nobody has.
    fn first_free(&self, name: &str) -> (String, OwnedRwLockWriteGuard<()>) {
        let mut number = 0;
        loop {
            let own = if number == 0 { name.to_owned() } else { format!("{name}-{number}") };
            if let Ok(lock) = self.lock(&own).try_write_owned() {
                return (own, lock);
            }
            number += 1;
        }
    }

    fn lock(&self, name: &str) -> Arc<RwLock<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody waits for are of no use.
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        locks.entry(name.to_owned()).or_default().clone()
    }

    fn enter(&self, name: &str) -> Arc<()> {
        let mut users = self.users();
        users.retain(|_, user| user.strong_count() > 0);
        if let Some(user) = users.get(name).and_then(Weak::upgrade) {
            return user;
        }
        let user = Arc::new(());
        users.insert(name.to_owned(), Arc::downgrade(&user));
        user
    }

    /// Puts the folder `name` of `folders` aside, so that it can be deleted and no step begins with half of it; where it is
    /// then. `None` if a step uses it.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn put_aside(&self, folders: &Path, name: &str) -> io::Result<Option<PathBuf>> {
        // Locked until it has another name: whoever enters before that keeps it, whoever enters later makes a new one.
        let users = self.users();
        if is_used(&users, name) {
            return Ok(None);
        }
        let folder = folders.join(name);
        let aside = folder.with_extension(crate::id::hex64());
        std::fs::rename(&folder, &aside)?;
        Ok(Some(aside))
    }

    fn users(&self) -> MutexGuard<'_, Users> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_used(users: &Users, name: &str) -> bool {
    users.get(name).is_some_and(|user| user.strong_count() > 0)
}

fn stricter(a: Sharing, b: Sharing) -> Sharing {
    match (a, b) {
        (Sharing::Locked, _) | (_, Sharing::Locked) => Sharing::Locked,
        (Sharing::Private, _) | (_, Sharing::Private) => Sharing::Private,
        (Sharing::Shared, Sharing::Shared) => Sharing::Shared,
    }
}

/// Where the folders are.
pub(super) fn folders(engine: &Engine) -> PathBuf {
    engine.config().data_root.join("build").join("mounts")
}

/// What an engine before this one has begun or put aside. Asked before the first build begins.
pub(super) fn leftovers(folders: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folders).into_iter().flatten().flatten();
    let left = entries.filter(|entry| entry.file_name().to_string_lossy().contains('.'));
    left.map(|entry| entry.path()).collect()
}

/// Deletes a folder that nobody sees. Blocking.
pub(super) fn delete(folder: &Path) {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(folder = %folder.display(), %error, "a folder of the build cache could not be removed");
        }
        _ => {}
    }
}

/// Makes a folder with what its mount says that it begins with; aside first, as a crash must not leave half of it. It stays as it
/// is if somebody else was quicker. Blocking.
///
/// # Errors
/// What the file system says; a source that is not there.
pub(super) fn begin(engine: &Engine, folder: &Path, wish: &Mount, shown: &Shown) -> Result<(), Error> {
    let failed = |e: io::Error| Error::io("create", folder.display())(e);
    let aside = Aside(folder.with_extension(crate::id::hex64()));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&aside.0).map_err(failed)?;
    match shown {
        Shown::Layers(layers) if layers.is_empty() => {}
        Shown::Layers(layers) => {
            let ids: Vec<_> = layers.iter().map(|layer| layer.diff_id()).collect();
            fill(&aside.0, Root(engine.store.mount_layers(&ids)?.as_fd()), &wish.source)?;
        }
        Shown::Folder(folder, _) => fill(&aside.0, Root(folder.root.as_fd()), &wish.source)?,
    }
    chown(&aside.0, Some(wish.uid.unwrap_or(0)), Some(wish.gid.unwrap_or(0))).map_err(failed)?;
    let mode = std::fs::Permissions::from_mode(wish.mode.unwrap_or(0o755));
    std::fs::set_permissions(&aside.0, mode).map_err(failed)?;
    // An empty folder that is there must not be replaced: it may be mounted.
    match renameat_with(CWD, &aside.0, CWD, folder, RenameFlags::NOREPLACE) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(failed(errno.into())),
    }
}

fn fill(target: &Path, root: Root<'_>, source: &str) -> Result<(), Error> {
    let target = open_folder(target)?;
    let source = root.open_folder(clean(source).as_bytes()).map_err(|e| Error::server(e.to_string()))?;
    copy(Root(source.as_fd()), Root(target.as_fd())).map_err(|e| Error::server(e.to_string()))
}

/// A folder that is deleted with the value, unless it has got another name.
struct Aside(PathBuf);

impl Drop for Aside {
    fn drop(&mut self) {
        delete(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;

    fn locked(names: &[&str]) -> Vec<(String, Sharing)> {
        names.iter().map(|name| ((*name).to_owned(), Sharing::Locked)).collect()
    }

    #[tokio::test]
    async fn steps_that_lock_the_same_folders_do_not_wait_for_each_other_or_themselves() {
        let mounts = CacheMounts::default();
        let step = |names: &'static [&'static str]| async {
            for _ in 0..100 {
                let held = mounts.hold(locked(names)).await;
                assert!(mounts.is_in_use("a") && held.folder("a") == "a");
                tokio::task::yield_now().await;
            }
        };
        let all = async { tokio::join!(step(&["a", "b"]), step(&["b", "a", "a"]), step(&["a", "b"])) };
        tokio::time::timeout(Duration::from_secs(20), all).await.unwrap();
        assert!(!mounts.is_in_use("a"));
    }

    #[tokio::test]
    async fn private_folders_are_one_for_each_step() {
        let mounts = CacheMounts::default();
        let wish = || [("a".to_owned(), Sharing::Private), ("a".to_owned(), Sharing::Shared)];
        let (first, second) = (mounts.hold(wish()).await, mounts.hold(wish()).await);
        assert_eq!((first.folder("a"), second.folder("a")), ("a", "a-1"));
        drop(first);
        assert_eq!(mounts.hold(wish()).await.folder("a"), "a");
    }

    #[tokio::test]
    async fn who_shares_a_folder_keeps_it_from_those_who_do_not() {
        let mounts = CacheMounts::default();
        let wish = |sharing| [("a".to_owned(), sharing)];
        let sharing = mounts.hold(wish(Sharing::Shared)).await;
        let another = mounts.hold(wish(Sharing::Shared)).await;
        assert_eq!((sharing.folder("a"), another.folder("a")), ("a", "a"));
        assert_eq!(mounts.hold(wish(Sharing::Private)).await.folder("a"), "a-1");
        let mut locked = Box::pin(mounts.hold(wish(Sharing::Locked)));
        assert!(locked.as_mut().now_or_never().is_none());
        drop(sharing);
        assert!(locked.as_mut().now_or_never().is_none());
        drop(another);
        let alone = locked.as_mut().now_or_never().unwrap();
        assert_eq!(mounts.hold(wish(Sharing::Private)).await.folder("a"), "a-1");
        let mut shared = Box::pin(mounts.hold(wish(Sharing::Shared)));
        assert!(shared.as_mut().now_or_never().is_none());
        drop(alone);
        assert!(shared.as_mut().now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_folder_that_a_step_uses_is_not_put_aside() {
        let folders = tempfile::tempdir().unwrap();
        let mounts = CacheMounts::default();
        std::fs::create_dir(folders.path().join("a")).unwrap();
        let held = mounts.hold([("a".to_owned(), Sharing::Shared)]).await;
        assert_eq!(mounts.put_aside(folders.path(), "a").unwrap(), None);
        drop(held);
        for _ in 0..2 {
            // Whatever is left of the last time.
            let aside = mounts.put_aside(folders.path(), "a").unwrap().unwrap();
            assert!(aside.exists() && !folders.path().join("a").exists());
            std::fs::create_dir(folders.path().join("a")).unwrap();
        }
        leftovers(folders.path()).iter().for_each(|folder| delete(folder));
        let left: Vec<_> =
            std::fs::read_dir(folders.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["a"]);
    }
}
