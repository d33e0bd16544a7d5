//! What containers change: told, packed, made a layer, exported.
#![allow(clippy::unwrap_used, reason = "a test that cannot prepare has failed")]

mod build;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use build::{Layer, docker_archive, store};
use rustix::fs::{CWD, FileType, Mode, XattrFlags, mknodat, setxattr};
use wherry_image_ref::Digest;
use wherry_image_store::{Error, ImageId, Mountable, NewImage, Store, mount_detached};

const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

fn base() -> Vec<u8> {
    let mut layer = Layer::new();
    for folder in ["bin", "etc", "etc/network", "home", "usr", "usr/bin", "var", "var/www"] {
        layer = layer.dir(folder, 0o755);
    }
    layer = layer.file("bin/ls", b"ls").file("bin/sh", b"sh").file("etc/passwd", b"root").file("f", b"f");
    layer = layer.file("etc/network/if", b"").file("usr/bin/env", b"env").file("var/www/index", b"<html>");
    layer.file("file-to-folder", b"").dir("folder-to-file", 0o755).file("folder-to-file/x", b"").done()
}

fn container(store: &Store) -> (ImageId, PathBuf, OwnedFd) {
    store.load(&*docker_archive(&[&base()], "{}", &["base"]), &|_| {}).unwrap();
    let id = store.resolve("base").unwrap();
    let writable = store.create_writable("c", &id).unwrap();
    let mounted = mount_detached(Mountable::Writable(&writable)).unwrap();
    let root = PathBuf::from(format!("/proc/self/fd/{}/.", mounted.as_raw_fd()));
    (id, root, mounted)
}

/// One line for each change, as `docker diff` prints it.
fn lines(store: &Store) -> Vec<String> {
    let changes = store.changes("c").unwrap();
    let letters = ["C", "A", "D"];
    changes
        .iter()
        .map(|c| format!("{} {}", letters[c.kind as usize], String::from_utf8_lossy(&c.path)))
        .collect()
}

/// All that a tar has, by path: type, size and link.
fn members(tar: &[u8]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for entry in tar::Archive::new(tar).entries().unwrap() {
        let entry = entry.unwrap();
        let link = entry.link_name().unwrap().map(|l| l.display().to_string()).unwrap_or_default();
        let kind = entry.header().entry_type();
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        assert!(found.insert(path, format!("{kind:?} {} {link}", entry.size())).is_none());
    }
    found
}

#[test]
fn nothing_has_changed_in_a_new_container() {
    let (_dir, store) = store();
    let (_id, root, mounted) = container(&store);
    fs::read(root.join("etc/passwd")).unwrap();
    assert_eq!(lines(&store), [""; 0]);
    drop(mounted);
    let layer = store.layer_of_writable("c").unwrap();
    assert_eq!(layer.diff_id().0, Digest::of(&[0; 1024]), "dockerd's layer without files");
    assert!(matches!(store.changes("other"), Err(Error::NoSuchWritable(_))));
}

/// The same as a run in the lab's dockerd 28.5, whose order within a folder is random.
#[test]
fn changes_are_told_as_dockerd_does() {
    let (_dir, store) = store();
    let (_id, root, mounted) = container(&store);
    let at = |path: &str| root.join(path);
    fs::remove_dir_all(at("etc/network")).unwrap();
    fs::create_dir(at("etc/network")).unwrap();
    fs::write(at("etc/network/new"), "a").unwrap();
    fs::create_dir_all(at("a/b")).unwrap();
    fs::write(at("a/b/f"), "x").unwrap();
    fs::remove_file(at("bin/ls")).unwrap();
    fs::set_permissions(at("home"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::remove_dir_all(at("usr")).unwrap();
    fs::write(at("etc/passwd"), "other").unwrap();
    fs::remove_dir_all(at("var/www")).unwrap();
    fs::create_dir(at("var/www")).unwrap();
    fs::write(at("var/www/index"), "<html>").unwrap();
    fs::remove_file(at("file-to-folder")).unwrap();
    fs::create_dir_all(at("file-to-folder/in")).unwrap();
    fs::remove_dir_all(at("folder-to-file")).unwrap();
    fs::write(at("folder-to-file"), "").unwrap();
    fs::write(at("gone"), "").unwrap();
    fs::remove_file(at("gone")).unwrap();
    setxattr(at("f"), "security.capability", CAPABILITY, XattrFlags::empty()).unwrap();
    let expect = [
        "A /a",
        "A /a/b",
        "A /a/b/f",
        "C /bin",
        "D /bin/ls",
        "C /etc",
        "C /etc/network",
        "A /etc/network/new",
        "D /etc/network/if",
        "C /etc/passwd",
        "C /f",
        "C /file-to-folder",
        "A /file-to-folder/in",
        "C /folder-to-file",
        "C /home",
        "C /var",
        "C /var/www",
        "C /var/www/index",
        "D /usr",
    ];
    assert_eq!(lines(&store), expect, "while it runs");
    drop(mounted);
    assert_eq!(lines(&store), expect);
}

#[test]
fn the_tar_of_a_container_has_whiteouts_links_holes_and_attributes() {
    let (_dir, store) = store();
    let (_id, root, mounted) = container(&store);
    let at = |path: &str| root.join(path);
    fs::remove_file(at("bin/ls")).unwrap();
    fs::remove_dir_all(at("etc/network")).unwrap();
    fs::create_dir(at("etc/network")).unwrap();
    fs::write(at("one"), "linked").unwrap();
    fs::hard_link(at("one"), at("two")).unwrap();
    symlink("/../../target", at("link")).unwrap();
    mknodat(CWD, at("null"), FileType::CharacterDevice, Mode::RUSR, rustix::fs::makedev(1, 3)).unwrap();
    mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    let mut sparse = File::create(at("sparse")).unwrap();
    for offset in [0, 1 << 20, 3 << 30] {
        sparse.seek(SeekFrom::Start(offset)).unwrap();
        sparse.write_all(b"data").unwrap();
    }
    sparse.set_len(5 << 30).unwrap();
    let odd = at("d").join(OsStr::from_bytes(b"\xff\xfe=\n"));
    fs::create_dir(at("d")).unwrap();
    fs::write(&odd, "not UTF-8").unwrap();
    std::os::unix::fs::chown(&odd, Some(3_000_000), Some(7)).unwrap();
    setxattr(&odd, "user.note", b"\0\xff", XattrFlags::empty()).unwrap();
    setxattr(&odd, "security.capability", CAPABILITY, XattrFlags::empty()).unwrap();
    drop(sparse);
    drop(mounted);
    let mut tar = Vec::new();
    store.write_diff("c", &mut tar).unwrap();
    assert!(tar.len() < 100_000, "{} bytes: holes are not stored", tar.len());
    let found = members(&tar);
    let has = |path: &str, what: &str| assert_eq!(found.get(path).map(String::as_str), Some(what), "{path}");
    has("bin/.wh.ls", "Regular 0 ");
    has("etc/network/.wh..wh..opq", "Regular 0 ");
    has("one", "Regular 6 ");
    has("two", "Link 0 one");
    has("link", "Symlink 0 /../../target");
    has("null", "Char 0 ");
    has("fifo", "Fifo 0 ");
    assert!(!found.contains_key("socket") && !found.contains_key(""), "{found:?}");
    let layer = store.layer_of_writable("c").unwrap();
    assert_eq!(layer.diff_id().0, Digest::of(&tar));
    let diff = store.layer_diff(&layer.diff_id());
    let stat = |path: &str| fs::symlink_metadata(diff.join(path)).unwrap();
    let upper = store.writable("c").unwrap().upper;
    assert_eq!((stat("sparse").len(), stat("sparse").blocks() < 1000), (5 << 30, true));
    assert_eq!((stat("one").ino(), stat("null").rdev()), (stat("two").ino(), rustix::fs::makedev(1, 3)));
    let odd = Path::new("d").join(OsStr::from_bytes(b"\xff\xfe=\n"));
    let (new, old) = (fs::metadata(diff.join(&odd)).unwrap(), fs::metadata(upper.join(&odd)).unwrap());
    assert_eq!((new.uid(), new.gid(), new.mtime_nsec()), (3_000_000, 7, old.mtime_nsec()));
    for name in ["user.note", "security.capability"] {
        let value = |root: &Path| {
            let mut value = [0; 64];
            rustix::fs::lgetxattr(root.join(&odd), name, &mut value[..]).map(|n| value[..n].to_vec()).unwrap()
        };
        assert_eq!(value(&diff), value(&upper), "{name}");
    }
    let mut again = Vec::new();
    store.write_layer(&layer.diff_id(), &mut again).unwrap();
    assert!(again == tar, "the tar of the layer comes back byte by byte, holes and all");
}

#[test]
fn an_image_of_a_container_looks_like_the_container() {
    let (_dir, store) = store();
    let (id, root, mounted) = container(&store);
    fs::remove_dir_all(root.join("usr")).unwrap();
    fs::create_dir_all(root.join("usr/local")).unwrap();
    fs::remove_file(root.join("f")).unwrap();
    fs::create_dir(root.join("f")).unwrap();
    fs::write(root.join("new"), "new").unwrap();
    let mut exported = Vec::new();
    store.export("c", &mut exported).unwrap();
    let found = members(&exported);
    assert_eq!(found["new"], "Regular 3 ");
    assert_eq!(found["bin/sh"], "Regular 2 ");
    assert!(found.contains_key("usr/local/") && found.contains_key(".dockerenv"));
    assert!(!found.contains_key("usr/bin/") && !found.contains_key("usr/bin/env"));
    drop(mounted);
    let layers = [
        store.layer(&store.image(&id).unwrap().diff_ids()[0]).unwrap(),
        store.layer_of_writable("c").unwrap(),
    ];
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| layer.diff_id().0).collect();
    let config = build::config("{}", &diff_ids);
    let names = ["committed:latest".parse().unwrap()];
    let new = NewImage {
        config: config.as_bytes(),
        layers: &layers,
        names: &names,
        parent: Some(id),
        tagged: true,
        fetched: true,
    };
    let image = store.commit(&new).unwrap();
    store.create_writable("c2", &image.id).unwrap();
    assert_eq!(store.changes("c2").unwrap(), []);
    let mut second = Vec::new();
    store.export("c2", &mut second).unwrap();
    assert_eq!(members(&second), found);
    assert!(second == exported, "the same files with the same metadata");
}

#[test]
fn names_that_a_layer_cannot_have_are_refused() {
    let (_dir, store) = store();
    let (_id, root, _mounted) = container(&store);
    fs::write(root.join(".wh.bin"), "").unwrap();
    let error = store.layer_of_writable("c").unwrap_err();
    assert!(format!("{error}").contains(".wh."), "{error}");
    let mut exported = Vec::new();
    store.export("c", &mut exported).unwrap();
    assert!(members(&exported).contains_key(".wh.bin"));
}

#[test]
fn a_container_that_is_removed_meanwhile_is_no_layer() {
    struct Removing<'a>(&'a Store, bool);
    impl Write for Removing<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if !std::mem::replace(&mut self.1, true) {
                self.0.remove_writable("c").unwrap();
            }
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let (_dir, store) = store();
    let (_id, root, mounted) = container(&store);
    for n in 0..100 {
        fs::write(root.join(format!("{n}")), "x").unwrap();
    }
    drop(mounted);
    assert!(matches!(store.write_diff("c", Removing(&store, false)), Err(Error::NoSuchWritable(_))));
}

#[test]
fn files_that_change_while_they_are_read_do_not_break_the_tar() {
    let (_dir, store) = store();
    let (_id, root, _mounted) = container(&store);
    let path = root.join("log");
    fs::write(&path, vec![b'x'; 1 << 20]).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                for size in [1 << 20, 100, 2 << 20] {
                    File::options().write(true).open(&path).unwrap().set_len(size).unwrap();
                }
                fs::write(root.join("short-lived"), "").unwrap();
                fs::remove_file(root.join("short-lived")).unwrap();
            }
        });
        for _ in 0..30 {
            let mut tar = Vec::new();
            store.export("c", &mut tar).unwrap();
            for entry in tar::Archive::new(&*tar).entries().unwrap() {
                let mut content = Vec::new();
                entry.unwrap().read_to_end(&mut content).unwrap();
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}
