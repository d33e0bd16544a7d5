//! Archives that are no layers, unpacked into a folder that is there already (`docker cp`).

use std::io::Read;
use std::os::fd::OwnedFd;

use super::entry::{Rules, Target};
use super::folders::Folders;
use super::{UnpackError, pipeline};
use crate::tar::Reader;

/// Wishes for [`extract`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Extract {
    /// A folder is not replaced by something else, nor the other way round: that is [`UnpackError::Replaces`].
    pub keep_kinds: bool,
    /// User and group of everything, instead of the archive's.
    pub owner: Option<(u32, u32)>,
}

/// Unpacks a tar, plain or compressed, into `folder` and what is mounted below it. Links lead nowhere out of
/// it. What was unpacked before a failure stays.
///
/// # Errors
/// [`UnpackError`].
pub fn extract(folder: OwnedFd, stream: impl Read + Send, wishes: Extract) -> Result<(), UnpackError> {
    let rules = Rules { no_whiteouts: true, keep_kinds: wishes.keep_kinds, owner: wishes.owner };
    let consume = |plain| {
        let mut reader = Reader::new(plain, ());
        let mut target = Target::new(Folders::with_mounts(folder), rules);
        while let Some(entry) = reader.next()? {
            target.apply(&entry, &mut reader)?;
        }
        target.finish().map(drop)
    };
    pipeline::run(stream, consume).result
}

/// Whether `extract` would find an archive in what `stream` has: a tar with at least one entry, plain or compressed.
#[must_use]
pub fn is_archive(stream: impl Read + Send) -> bool {
    let Ok(plain) = super::decompress(stream) else { return false };
    matches!(Reader::new(plain, ()).next(), Ok(Some(_)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::{Member, Writer};
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::path::Path;

    fn archive(names: &[&str]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        for name in names {
            let member = Member { name, mode: 0o640, mtime_s: 1 };
            if name.ends_with('/') {
                writer.folder(member).unwrap();
            } else {
                writer.bytes(member, name.as_bytes()).unwrap();
            }
        }
        writer.finish().unwrap();
        bytes
    }

    fn into(folder: &Path, names: &[&str], wishes: Extract) -> Result<(), UnpackError> {
        extract(fs::File::open(folder).unwrap().into(), &*archive(names), wishes)
    }

    #[test]
    fn into_a_folder_that_has_content() {
        let dir = tempfile::tempdir().unwrap();
        let (root, outside) = (dir.path().join("root"), dir.path().join("outside"));
        fs::create_dir_all(root.join("sub")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(root.join("sub/old"), "old").unwrap();
        symlink(&outside, root.join("link")).unwrap();
        into(&root, &["sub/new", ".wh.old", "link/x"], Extract { owner: Some((5, 6)), ..Extract::default() })
            .unwrap();
        assert_eq!(fs::read_to_string(root.join("sub/new")).unwrap(), "sub/new");
        assert_eq!(fs::read_to_string(root.join("sub/old")).unwrap(), "old");
        assert_eq!(fs::read_to_string(root.join(".wh.old")).unwrap(), ".wh.old", "no whiteouts here");
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "links lead nowhere out");
        let inside = root.join(outside.strip_prefix("/").unwrap());
        assert_eq!(fs::read_to_string(inside.join("x")).unwrap(), "link/x", "but, as with dockerd, there");
        symlink("loop", root.join("loop")).unwrap();
        into(&root, &["loop/x"], Extract::default()).unwrap_err();
        let stat = fs::metadata(root.join("sub/new")).unwrap();
        assert_eq!((stat.uid(), stat.gid(), stat.mode() & 0o7777), (5, 6, 0o640));
    }

    #[test]
    fn archives_are_told_from_other_files() {
        assert!(is_archive(&*archive(&["a"])) && !is_archive(&b"#!/bin/sh"[..]) && !is_archive(&b""[..]));
        assert!(!is_archive(&*archive(&[])), "nothing to unpack");
        assert!(!is_archive(&[0x1f, 0x8b, 8, 0, 1, 2][..]), "compressed, or not even that");
    }

    #[test]
    fn kinds_are_kept_if_that_is_wanted() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("folder/deep")).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        let keep = Extract { keep_kinds: true, ..Extract::default() };
        let refused = |names: &[&str]| match into(dir.path(), names, keep) {
            Err(UnpackError::Replaces { path, folder }) => (path.display().to_string(), folder),
            other => panic!("{other:?}"),
        };
        assert_eq!(refused(&["folder"]), ("folder".into(), false));
        assert_eq!(refused(&["file/"]), ("file".into(), true));
        into(dir.path(), &["folder/", "file"], keep).unwrap();
        assert!(dir.path().join("folder/deep").exists());
        into(dir.path(), &["folder", "file/"], Extract::default()).unwrap();
        assert!(dir.path().join("folder").is_file() && dir.path().join("file").is_dir());
    }
}
