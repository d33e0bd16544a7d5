//! What a path in a container is.

use std::os::fd::BorrowedFd;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2, readlinkat};
use rustix::io::Errno;
use serde_json::json;

/// How paths in a container are resolved.
pub(super) const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);
/// As many links as Go follows.
const MAX_LINKS: u32 = 255;

/// The contents of `X-Docker-Container-Path-Stat`.
#[derive(Debug)]
pub(super) struct PathStat {
    name: String,
    size_bytes: i64,
    mode: u32,
    /// Nanoseconds since the epoch.
    modified_ns: i64,
    /// Where a link leads to in the end.
    link_target: String,
}

impl PathStat {
    /// Looks at `path` below `root`. A link is looked at itself, unless the path ends in `/` or `/.`.
    ///
    /// # Errors
    /// Those of openat2(2).
    pub(super) fn of(root: BorrowedFd<'_>, path: &str) -> Result<Self, Errno> {
        let file =
            openat2(root, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), IN_ROOT)?;
        let stat = fstat(&file)?;
        let link_target = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => follow(root, path).unwrap_or_default(),
            _ => String::new(),
        };
        let nanos = i64::try_from(stat.st_mtime_nsec).unwrap_or(0);
        let modified_ns = stat.st_mtime.saturating_mul(1_000_000_000).saturating_add(nanos);
        let name = base(path).to_owned();
        Ok(Self { name, size_bytes: stat.st_size, mode: stat.st_mode, modified_ns, link_target })
    }

    pub(super) fn to_json(&self) -> String {
        json!({
            "name": self.name,
            "size": self.size_bytes,
            "mode": go_mode(self.mode),
            "mtime": wherry_rfc3339::trimmed(self.modified_ns),
            "linkTarget": self.link_target,
        })
        .to_string()
    }
}

/// A file's mode with Go's bits (`os.FileMode`).
fn go_mode(mode: u32) -> u32 {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::Directory => 1 << 31,
        FileType::Symlink => 1 << 27,
        FileType::BlockDevice => 1 << 26,
        FileType::CharacterDevice => 1 << 26 | 1 << 21,
        FileType::Fifo => 1 << 25,
        FileType::Socket => 1 << 24,
        FileType::RegularFile | FileType::Unknown => 0,
    };
    let bit = |from: u32, to: u32| if mode & from == 0 { 0 } else { to };
    mode & 0o777 | kind | bit(0o4000, 1 << 23) | bit(0o2000, 1 << 22) | bit(0o1000, 1 << 20)
}

/// `path` from the root, without `.`, `..` and doubled slashes, but with `/` or `/.` at its end if it has them.
pub(super) fn absolute(path: &str) -> String {
    let parts = plain(path.split('/'));
    let mut clean = format!("/{}", parts.join("/"));
    if path.ends_with("/.") || path == "." {
        clean.push_str(if clean == "/" { "." } else { "/." });
    } else if path.ends_with('/') && clean != "/" {
        clean.push('/');
    }
    clean
}

fn plain<'a>(parts: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut kept = Vec::new();
    for part in parts {
        match part {
            "" | "." => {}
            ".." => drop(kept.pop()),
            part => kept.push(part),
        }
    }
    kept
}

/// The last part of a path, as Go's `filepath.Base`.
pub(super) fn base(path: &str) -> &str {
    match path.trim_end_matches('/').rsplit('/').next() {
        None | Some("") => "/",
        Some(name) => name,
    }
}

/// The folder of an absolute path, and the name in it: `.` if the path ends in a slash.
pub(super) fn split(path: &str) -> (&str, &str) {
    match path.rsplit_once('/') {
        Some((folder, name)) => {
            (if folder.is_empty() { "/" } else { folder }, if name.is_empty() { "." } else { name })
        }
        None => ("/", path),
    }
}

/// Where a path leads to when all links on it are followed, those that lead nowhere as far as they go.
fn follow(root: BorrowedFd<'_>, path: &str) -> Option<String> {
    let mut left: Vec<String> = path.split('/').rev().map(str::to_owned).collect();
    let mut done: Vec<String> = Vec::new();
    let mut links = 0;
    while let Some(part) = left.pop() {
        match part.as_str() {
            "" | "." => continue,
            ".." => {
                done.pop();
                continue;
            }
            _ => done.push(part),
        }
        let so_far = format!("/{}", done.join("/"));
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(file) = openat2(root, &so_far, flags, Mode::empty(), IN_ROOT) else { continue };
        let Ok(link) = readlinkat(&file, "", Vec::new()) else { continue };
        links += 1;
        if links > MAX_LINKS {
            return None;
        }
        let link = link.to_string_lossy().into_owned();
        done.pop();
        if link.starts_with('/') {
            done.clear();
        }
        left.extend(link.split('/').rev().map(str::to_owned));
    }
    Some(format!("/{}", done.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        let check = |path: &str, expect: &str, name: &str, parts: (&str, &str)| {
            let absolute = absolute(path);
            assert_eq!((absolute.as_str(), base(&absolute)), (expect, name), "{path}");
            assert_eq!(split(&absolute), parts, "{path}");
        };
        check("/", "/", "/", ("/", "."));
        check("", "/", "/", ("/", "."));
        check("a/f", "/a/f", "f", ("/a", "f"));
        check("/a/", "/a/", "a", ("/a", "."));
        check("/a/.", "/a/.", ".", ("/a", "."));
        check(".", "/.", ".", ("/", "."));
        check("/../x//y/../z", "/x/z", "z", ("/x", "z"));
    }

    #[test]
    fn modes_are_go_s() {
        for (mode, expect) in [
            (0o100_755 | 0o4000, 8_389_101),
            (0o040_755, 2_147_484_141),
            (0o120_777, 134_218_239),
            (0o010_644, 33_554_852),
            (0o041_777, 2_148_532_735),
        ] {
            assert_eq!(go_mode(mode), expect, "{mode:o}");
        }
    }

    #[test]
    fn links_are_followed_to_their_end() {
        let dir = tempfile::tempdir().unwrap();
        for (target, link) in [("b", "a"), ("/c/d", "b"), ("loop", "loop"), ("../../x", "up")] {
            std::os::unix::fs::symlink(target, dir.path().join(link)).unwrap();
        }
        let root = std::fs::File::open(dir.path()).unwrap();
        let root = std::os::fd::AsFd::as_fd(&root);
        assert_eq!(follow(root, "/a").as_deref(), Some("/c/d"), "though it is not there");
        assert_eq!(follow(root, "/up/y").as_deref(), Some("/x/y"));
        assert_eq!(follow(root, "/loop"), None);
        assert_eq!(PathStat::of(root, "/a").unwrap().link_target, "/c/d");
        assert_eq!(PathStat::of(root, "/a/").unwrap_err(), Errno::NOENT);
    }
}
