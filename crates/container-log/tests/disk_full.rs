//! A log on a file system that is full: needs root, for a mount.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use wherry_container_log::{Options, Query, Reader, Stream, Writer};

const ALL: Query =
    Query { stdout: true, stderr: true, since_ns: None, until_ns: None, tail: None, follow: false };

struct Mount<'a>(&'a Path);

impl<'a> Mount<'a> {
    #[allow(clippy::unwrap_used, reason = "a test that cannot mount has failed")]
    fn tmpfs(path: &'a Path) -> Self {
        let done =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "none"]).arg(path).status().unwrap();
        assert!(done.success(), "mounting needs root");
        Self(path)
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_loses_entries_but_never_tears_a_line() {
    let dir = tempfile::tempdir().unwrap();
    let _mount = Mount::tmpfs(dir.path());
    let (path, ballast) = (dir.path().join("log"), dir.path().join("ballast"));
    std::fs::write(&ballast, [0; 20_000]).unwrap();
    let options = Options {
        path: path.clone(),
        max_bytes: None,
        max_files: 1,
        compress: false,
        attributes: BTreeMap::new(),
    };
    let mut writer = Writer::open(options).unwrap();
    let lines: Vec<u8> = (0..1000).flat_map(|n| format!("before {n}\n").into_bytes()).collect();
    writer.write(Stream::Stdout, &lines);
    let dropped = writer.dropped();
    assert!(dropped > 0 && dropped < 1000, "{dropped}");
    writer.write(Stream::Stdout, b"lost as well\n");
    std::fs::remove_file(&ballast).unwrap();
    writer.write(Stream::Stdout, b"after\n");

    let bytes = std::fs::read(&path).unwrap();
    assert!(
        bytes.split(|&b| b == b'\n').all(|line| line.is_empty() || line.ends_with(b"\"}")),
        "no torn line"
    );
    let mut reader = Reader::open(&path, ALL).unwrap();
    let (mut count, mut last) = (0, Vec::new());
    while let Some(entry) = reader.next().unwrap() {
        count += 1;
        last = entry.text.to_vec();
    }
    assert_eq!(last, b"after\n");
    assert_eq!(count + writer.dropped(), 1002);
}

#[test]
fn a_rotation_that_finds_no_room_keeps_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    // The name of the next file is taken by a folder: a new one cannot be made.
    let next = dir.path().join("log.next");
    std::fs::create_dir(&next).unwrap();
    let options = Options {
        path: path.clone(),
        max_bytes: Some(100),
        max_files: 2,
        compress: false,
        attributes: BTreeMap::new(),
    };
    let mut writer = Writer::open(options).unwrap();
    for _ in 0..10 {
        writer.write(Stream::Stdout, b"line\n");
    }
    assert_eq!((writer.dropped(), std::fs::read(&path).unwrap().split(|&b| b == b'\n').count()), (0, 11));
    std::fs::remove_dir(&next).unwrap();
    writer.write(Stream::Stdout, b"line\n");
    assert!(dir.path().join("log.1").exists());
}
