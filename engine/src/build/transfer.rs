//! `COPY` and `ADD`: files of contexts, stages and images, into the layer of a step.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{
    AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps, fstat, futimens, openat2, statat,
};
use wherry_dockerfile::plan::TransferStep;
use wherry_image_ref::{Digest, Hasher};
use wherry_image_store::{Extract, UnpackError, extract, is_archive};

use super::files::{
    Copier, Digested, FileError, ModeChange, Owner, Root, Selected, below_pivot, clean, digest, failed, join,
    select, split, times,
};
use super::job::Folder;
use crate::containers::users;

/// Whose manners count where the two builders differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// dockerd's own builder.
    Classic,
    /// BuildKit.
    BuildKit,
}

/// Why files could not be brought in.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransferError {
    /// A source is not there.
    #[error("\"/{0}\": not found")]
    Missing(String),
    /// Several files, and the destination does not say that it is a folder.
    #[error(
        "When using {0} with more than one source file, the destination must be a directory and end with a /"
    )]
    NotFolder(&'static str),
    /// `--chown` names nobody.
    #[error("{0}")]
    Owner(String),
    /// A file operation.
    #[error(transparent)]
    File(#[from] FileError),
    /// An archive.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
}

/// Files that are there, to be copied.
#[derive(Debug)]
pub(super) struct Material {
    /// What they are in.
    pub(super) folder: Arc<Folder>,
    /// What of it is meant.
    pub(super) selected: Vec<Selected>,
    /// `--parents`: the part of their paths that is not kept.
    pub(super) pivot: Option<Vec<u8>>,
    /// Archives are unpacked.
    pub(super) unpack: bool,
    /// Who owns them, if the step does not say it; `None` for those who do.
    pub(super) owner: Owner,
}

impl Material {
    /// What `path` means in `folder`; `parents` is the pattern below it, for `--parents`.
    ///
    /// # Errors
    /// [`TransferError::Missing`] for a path without wildcards.
    pub(super) fn find(
        folder: Arc<Folder>,
        path: &str,
        parents: Option<&str>,
        unpack: bool,
        owner: Owner,
    ) -> Result<Self, TransferError> {
        // It is clean but for patterns of the classic builder, in which a slash at the end means something.
        let path = path.trim_start_matches('/').to_owned();
        let pattern = match parents {
            Some(parents) => clean(&format!("{path}/{parents}")),
            None => path.clone(),
        };
        let selected = match select(Root(folder.root.as_fd()), &pattern, parents.is_some()) {
            Err(error) if error.is_missing() => return Err(TransferError::Missing(pattern)),
            selected => selected?,
        };
        let pivot = parents.map(|_| path.into_bytes());
        Ok(Self { folder, selected, pivot, unpack, owner })
    }

    fn root(&self) -> Root<'_> {
        Root(self.folder.root.as_fd())
    }
}

/// What stays out of the copies, by its path below the source.
pub(super) type Excluded = Box<dyn Fn(&[u8], bool) -> bool + Send + Sync>;

/// A step with its files found.
pub(super) struct Transfer<'a> {
    /// What is to be done.
    pub(super) step: &'a TransferStep,
    /// One for each source.
    pub(super) materials: Vec<Material>,
    /// `--exclude`.
    pub(super) excluded: Excluded,
    /// By whose manners.
    pub(super) style: Style,
}

impl Transfer<'_> {
    fn name(&self) -> &'static str {
        if self.step.is_add { "ADD" } else { "COPY" }
    }

    /// The digest of each file and folder that is meant, with its name where a copy would have it.
    ///
    /// # Errors
    /// What the file system says.
    pub(super) fn digests(&self) -> Result<Vec<(Vec<u8>, Digested)>, TransferError> {
        let mut found = Vec::new();
        for material in &self.materials {
            let known = material.folder.known.as_deref();
            for selected in &material.selected {
                let name = match (&material.pivot, selected.is_folder) {
                    (Some(_), _) => selected.path.clone(),
                    (None, false) => selected.name().to_vec(),
                    (None, true) => Vec::new(),
                };
                let how = (material.owner, material.pivot.as_deref());
                let digested = digest(material.root(), selected, how, &*self.excluded, known)?;
                found.push((name, digested));
            }
            if let Some(known) = known {
                known.save();
            }
        }
        Ok(found)
    }

    /// Copies all of it into a file system, whose own layer is the folder `upper`. Blocking.
    ///
    /// # Errors
    /// [`TransferError`]; part of it may be there then.
    pub(super) fn carry_out(&self, root: Root<'_>, upper: &Path) -> Result<(), TransferError> {
        let upper =
            rustix::fs::open(upper, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok();
        let count: usize = self.materials.iter().map(|material| material.selected.len()).sum();
        let ends_with_slash = self.step.destination.ends_with('/') || self.step.destination.ends_with("/.");
        if count > 1 && !ends_with_slash && self.style == Style::Classic {
            return Err(TransferError::NotFolder(self.name()));
        }
        let owner = owner_of(root, &self.step.chown, self.style)?;
        let mode = ModeChange::parse(&self.step.chmod);
        let into = Into {
            root,
            upper: upper.as_ref(),
            path: clean(&self.step.destination).into_bytes(),
            is_folder: ends_with_slash || (count > 1 && self.style == Style::Classic),
            owner,
            style: self.style,
            folder_mode: match (u32::from_str_radix(&self.step.chmod, 8), self.style) {
                (Ok(mode), Style::BuildKit) => mode & FOLDER_MODE,
                _ => FOLDER_MODE,
            },
        };
        for material in &self.materials {
            let mut copier = Copier::new(owner.or(material.owner), mode.as_ref(), &*self.excluded);
            copier.rules.clears_set_ids = self.style == Style::Classic;
            for selected in &material.selected {
                into.one(material, selected, &mut copier)?;
            }
        }
        Ok(())
    }
}

/// Where files go.
struct Into<'a> {
    root: Root<'a>,
    /// The layer that is written.
    upper: Option<&'a OwnedFd>,
    /// Clean.
    path: Vec<u8>,
    is_folder: bool,
    /// `--chown`.
    owner: Owner,
    style: Style,
    /// Of folders that are made on the way: to BuildKit what `--chmod` says, if that is a number, as far as the usual mask lets it.
    folder_mode: u32,
}

/// Folders that are made on the way.
const FOLDER_MODE: u32 = 0o755;

impl Into<'_> {
    fn one(
        &self,
        material: &Material,
        selected: &Selected,
        copier: &mut Copier<'_>,
    ) -> Result<(), TransferError> {
        if let Some(pivot) = &material.pivot {
            return self.with_parents(material, selected, pivot, copier);
        }
        if selected.is_folder {
            return self.contents(material, selected, copier);
        }
        if material.unpack && self.unpacked(material, selected)? {
            return Ok(());
        }
        let there = self.root.stat(&self.path)?;
        let is_folder = self.is_folder
            || there.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
        let path = if is_folder { join(&self.path, selected.name()) } else { self.path.clone() };
        let (above, name) = split(&path);
        let (parent, _) = self.root.ensure_all(above, self.owner_of_folders(), self.folder_mode)?;
        file(material.root(), selected, (parent.as_fd(), name), copier)
    }

    /// Of folders that are made on the way.
    fn owner_of_folders(&self) -> Owner {
        if self.style == Style::BuildKit { self.owner } else { None }
    }

    fn contents(
        &self,
        material: &Material,
        selected: &Selected,
        copier: &mut Copier<'_>,
    ) -> Result<(), TransferError> {
        let source = material.root().open_folder(&selected.path)?;
        let owners = (self.owner_of_folders(), self.owner);
        let (target, made) = self.root.ensure(&self.path, owners, self.folder_mode).map_err(|error| {
            match error.source.kind() {
                std::io::ErrorKind::NotADirectory => FileError {
                    action: "cannot copy to non-directory",
                    path: format!("/{}", String::from_utf8_lossy(&self.path)),
                    source: error.source,
                },
                _ => error,
            }
        })?;
        // What was made is of this layer alone: files need not come by way of the overlay there. Where more is to follow by that
        // way they must: no hard link leads from one mount to the other.
        let alone = material.selected.len() == 1;
        let upper = self.upper.filter(|_| made && alone);
        let directly = upper.and_then(|upper| same_in(upper, &self.path, &target));
        copier.contents(source.as_fd(), directly.as_ref().unwrap_or(&target).as_fd())?;
        if made && self.style == Style::BuildKit {
            let set = fstat(&source).and_then(|stat| futimens(&target, &times(&stat)));
            set.map_err(|errno| file_error("set the time of", &self.path, errno))?;
        }
        Ok(())
    }

    /// Unpacks it, if it is an archive.
    fn unpacked(&self, material: &Material, selected: &Selected) -> Result<bool, TransferError> {
        let open = || {
            let opened = material.root().open(&selected.path, OFlags::RDONLY | OFlags::NONBLOCK);
            opened.map(File::from).map_err(|errno| file_error("open", &selected.path, errno))
        };
        if !is_archive(open()?) {
            return Ok(false);
        }
        let owner = self.owner_of_folders();
        let (target, _) = self.root.ensure_all(&self.path, owner, self.folder_mode)?;
        extract(target, open()?, Extract { keep_kinds: false, owner })?;
        Ok(true)
    }

    /// Keeps the folders between the pivot and the file, with their own modes.
    fn with_parents(
        &self,
        material: &Material,
        selected: &Selected,
        pivot: &[u8],
        copier: &mut Copier<'_>,
    ) -> Result<(), TransferError> {
        let below = below_pivot(&selected.path, pivot);
        if below.is_empty() {
            return self.contents(material, selected, copier);
        }
        if (copier.exclude)(below, selected.is_folder) {
            return Ok(());
        }
        let (folders, name) = split(below);
        let (mut from, mut to) = (pivot.to_vec(), self.path.clone());
        self.root.ensure_all(&to, self.owner, self.folder_mode)?;
        for part in folders.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
            (from, to) = (join(&from, part), join(&to, part));
            let (target, made) = self.root.ensure_all(&to, copier.rules.owner, self.folder_mode)?;
            if made {
                let source = material.root().open_folder(&from)?;
                let set = fstat(&source)
                    .and_then(|stat| copier.rules.metadata(source.as_fd(), target.as_fd(), &stat));
                set.map_err(|errno| file_error("set the attributes of", &to, errno))?;
            }
        }
        let source = material.root().open_folder(&from)?;
        let target = self.root.open_folder(&to)?;
        copier.entry(source.as_fd(), name, (target.as_fd(), name), below)?;
        Ok(())
    }
}

/// The folder at `path` of a layer, if it is the one that an overlay shows there: no links lead to it, and it is not put together
/// of several.
fn same_in(upper: &OwnedFd, path: &[u8], shown: &OwnedFd) -> Option<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = openat2(upper, path, flags, Mode::empty(), resolve).ok()?;
    let inode = |folder: &OwnedFd| fstat(folder).ok().map(|stat| stat.st_ino);
    (inode(&folder)? == inode(shown)?).then_some(folder)
}

/// Copies one file; a link at the end of its path is followed, inside its root.
fn file(
    root: Root<'_>,
    selected: &Selected,
    (target, name): (std::os::fd::BorrowedFd<'_>, &[u8]),
    copier: &mut Copier<'_>,
) -> Result<(), TransferError> {
    let failed = |action| move |errno| file_error(action, &selected.path, errno);
    let probe = root.open(&selected.path, OFlags::PATH).map_err(failed("open"))?;
    let stat = fstat(&probe).map_err(failed("stat"))?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
        let file = root.open(&selected.path, OFlags::RDONLY | OFlags::NONBLOCK).map_err(failed("open"))?;
        return Ok(copier.open_file(&file, (target, name), &selected.path)?);
    }
    let (above, own_name) = split(&selected.path);
    let folder = root.open_folder(above)?;
    statat(&folder, own_name, AtFlags::SYMLINK_NOFOLLOW).map_err(failed("lstat"))?;
    Ok(copier.entry(folder.as_fd(), own_name, (target, name), &selected.path)?)
}

/// Whom `--chown` means, by the files of the image itself. Without a group it is the user's own, or the number of the user.
fn owner_of(root: Root<'_>, chown: &str, style: Style) -> Result<Owner, TransferError> {
    if chown.is_empty() {
        return Ok(None);
    }
    let (user, group) = chown.split_once(':').unwrap_or((chown, ""));
    let group = if group.is_empty() && user.bytes().all(|b| b.is_ascii_digit()) { user } else { group };
    let asked = if group.is_empty() { user.to_owned() } else { format!("{user}:{group}") };
    let resolve = |text: &str| users::resolve(root.0, text, &[]);
    match (resolve(&asked), style) {
        (Ok(found), _) => Ok(Some((found.uid, found.gid))),
        // A name that nobody has is root's to BuildKit.
        (Err(_), Style::BuildKit) => {
            let named = resolve(user).map_or((0, 0), |found| (found.uid, found.gid));
            let gid = match group {
                "" => named.1,
                group => resolve(&format!("0:{group}")).map_or(0, |found| found.gid),
            };
            Ok(Some((named.0, gid)))
        }
        (Err(_), Style::Classic) => Err(TransferError::Owner(format!(
            "unable to convert uid/gid chown string to host mapping: can't find uid for user {user}: no such user: {user}"
        ))),
    }
}

/// Makes the folder of `WORKDIR`, if wished with this time. Blocking.
///
/// # Errors
/// What the file system says; a user that is not in the image.
pub(super) fn work_dir(
    root: Root<'_>,
    path: &str,
    (user, epoch_s): (&str, Option<i64>),
    style: Style,
) -> Result<(), TransferError> {
    let owner = if style == Style::BuildKit { owner_of(root, user, style)? } else { None };
    let path = clean(path);
    let (folder, made) = root.ensure_all(path.as_bytes(), owner, FOLDER_MODE)?;
    if let Some(tv_sec) = epoch_s.filter(|_| made) {
        let time = Timespec { tv_sec, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        futimens(&folder, &times).map_err(|errno| file_error("set the time of", path.as_bytes(), errno))?;
    }
    Ok(())
}

/// One digest of all that a transfer brings, for caches.
pub(super) fn content_digest(digests: &[(Vec<u8>, Digested)]) -> Digest {
    let mut hasher = Hasher::default();
    for (name, digested) in digests {
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name);
        hasher.update(digested.digest.to_string().as_bytes());
    }
    hasher.finish()
}

fn file_error(action: &'static str, path: &[u8], errno: rustix::io::Errno) -> TransferError {
    TransferError::File(failed(action, path)(errno))
}

#[cfg(test)]
mod tests {
    use super::super::{fetch, key};
    use super::*;

    /// The key of `COPY` with this path, pattern for `--parents` and `--exclude`.
    fn key_of(folder: &Arc<Folder>, path: &str, parents: Option<&str>, exclude: &[&str]) -> Digest {
        let material = Material::find(folder.clone(), path, parents, false, None).unwrap();
        let exclude: Vec<String> = exclude.iter().map(|text| (*text).to_owned()).collect();
        let step = TransferStep {
            sources: Vec::new(),
            destination: "/x/".into(),
            chown: String::new(),
            chmod: String::new(),
            link: false,
            exclude: exclude.clone(),
            is_add: false,
        };
        let mut builder = key::Builder::new("transfer");
        builder.transfer(&step, std::slice::from_ref(&material));
        let excluded = fetch::excluded(&exclude).unwrap();
        let transfer = Transfer { step: &step, materials: vec![material], excluded, style: Style::BuildKit };
        builder.digest(&content_digest(&transfer.digests().unwrap()));
        builder.finish()
    }

    #[test]
    fn a_key_tells_where_files_come_to_lie_and_which_of_them() {
        let context = tempfile::tempdir().unwrap();
        let at = |path: &str| context.path().join(path);
        std::fs::create_dir_all(at("a/d")).unwrap();
        let write = |path: &str, text: &str| std::fs::write(at(path), text).unwrap();
        write("a/d/f", "f");
        write("a/d/skip", "one");
        let root = std::fs::File::open(context.path()).unwrap().into();
        let folder = Arc::new(Folder { root, temporary: None, known: None, inside: None });
        let plain = key_of(&folder, "/a/d/f", None, &[]);
        let kept = key_of(&folder, "/", Some("a/d/f"), &[]);
        let kept_from_a = key_of(&folder, "/a", Some("d/f"), &[]);
        assert!(plain != kept && plain != kept_from_a && kept != kept_from_a);
        // Patterns are for paths below the pivot.
        let keys = || {
            let key = |exclude: &[&str]| key_of(&folder, "/a", Some("d"), exclude);
            (key(&["skip"]), key(&["d/skip"]), key(&["d"]))
        };
        let before = keys();
        write("a/d/skip", "two");
        let after = keys();
        assert!(before.0 != after.0, "it is copied");
        assert_eq!((before.1, before.2), (after.1, after.2), "it is not");
        // And so do the folders' own modes.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(at("a/d"), mode).unwrap();
        assert!(kept_from_a != key_of(&folder, "/a", Some("d/f"), &[]));
        assert_eq!(plain, key_of(&folder, "/a/d/f", None, &[]));
    }
}
