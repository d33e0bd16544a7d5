//! Layers that are written in place.
#![allow(clippy::unwrap_used, reason = "a test that cannot prepare has failed")]

mod build;

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use build::{Layer, store};
use wherry_image_ref::Digest;
use wherry_image_store::{DiffId, Draft, Error, Expected, Store};

fn base(store: &Store) -> wherry_image_store::Layer {
    let tar = Layer::new().dir("etc", 0o755).file("etc/passwd", b"root").file("etc/gone", b"x").done();
    store.ingest(Expected::default(), &*tar).unwrap()
}

fn write(draft: &Draft) {
    let mounted = draft.mount().unwrap();
    let root = PathBuf::from(format!("/proc/self/fd/{}/.", mounted.as_raw_fd()));
    fs::write(root.join("etc/passwd"), "root and others").unwrap();
    fs::remove_file(root.join("etc/gone")).unwrap();
    fs::create_dir(root.join("new")).unwrap();
    fs::write(root.join("new/file"), vec![7; 100_000]).unwrap();
    fs::hard_link(root.join("new/file"), root.join("new/same")).unwrap();
    symlink("file", root.join("new/link")).unwrap();
    let sparse = fs::File::create(root.join("new/sparse")).unwrap();
    sparse.set_len(10 << 20).unwrap();
    fs::set_permissions(root.join("new"), fs::Permissions::from_mode(0o700)).unwrap();
}

fn tar_of(store: &Store, id: &DiffId) -> Vec<u8> {
    let mut tar = Vec::new();
    store.write_layer(id, &mut tar).unwrap();
    tar
}

#[test]
fn what_was_written_is_a_layer_like_one_that_came_as_a_tar() {
    let (_dir, store) = store();
    let base = base(&store);
    let draft = store.draft(&[base.diff_id()]).unwrap();
    write(&draft);
    let layer = draft.seal().unwrap();
    let tar = tar_of(&store, &layer.diff_id());
    assert_eq!(Digest::of(&tar), layer.diff_id().0);
    let mut names: Vec<String> = Vec::new();
    for entry in tar::Archive::new(&*tar).entries().unwrap() {
        names.push(entry.unwrap().path().unwrap().display().to_string());
    }
    let expect = ["etc/", "etc/.wh.gone", "etc/passwd", "new/", "new/file", "new/link", "new/same"];
    assert_eq!(names.pop().as_deref(), Some("GNUSparseFile.0/sparse"), "as sparse files are called in tars");
    assert_eq!(names, expect);
    // The same tar, when it is unpacked, is the same layer with the same size.
    let (_other_dir, other) = build::store();
    let unpacked = other.ingest(Expected::default(), &*tar).unwrap();
    assert_eq!((unpacked.diff_id(), unpacked.size_bytes()), (layer.diff_id(), layer.size_bytes()));
    let mounted = store.mount_layers(&[base.diff_id(), layer.diff_id()]).unwrap();
    let root = PathBuf::from(format!("/proc/self/fd/{}/.", mounted.as_raw_fd()));
    assert_eq!(fs::read_to_string(root.join("etc/passwd")).unwrap(), "root and others");
    assert!(!root.join("etc/gone").exists() && root.join("new/sparse").metadata().unwrap().len() == 10 << 20);
}

#[test]
fn a_draft_that_is_dropped_leaves_nothing_and_an_empty_one_is_the_empty_layer() {
    let (dir, store) = store();
    let draft = store.draft(&[]).unwrap();
    fs::write(draft.upper().join("x"), "x").unwrap();
    let upper = draft.upper();
    drop(draft);
    assert!(!upper.exists());
    assert_eq!(store.draft(&[]).unwrap().seal().unwrap().diff_id().0, Digest::of(&[0; 1024]));
    let unknown = DiffId(Digest::of(b"unknown"));
    assert!(matches!(store.draft(&[unknown]), Err(Error::NoSuchLayer(_))));
    assert_eq!(fs::read_dir(dir.path().join("overlay2/.staging")).unwrap().count(), 0);
}

#[test]
fn layers_without_an_image_stay_over_a_start_if_somebody_wants_them() {
    let (dir, store) = store();
    let wanted = store.draft(&[]).unwrap();
    fs::write(wanted.upper().join("wanted"), "1").unwrap();
    let other = store.draft(&[]).unwrap();
    fs::write(other.upper().join("other"), "2").unwrap();
    let (wanted, other) = (wanted.seal().unwrap(), other.seal().unwrap());
    let ids = (wanted.diff_id(), other.diff_id());
    std::mem::forget((wanted, other)); // as if the process had been killed
    drop(store);
    let (store, kept) = Store::open_keeping(dir.path(), &[ids.0]).unwrap();
    assert_eq!(kept.iter().map(wherry_image_store::Layer::diff_id).collect::<Vec<_>>(), [ids.0]);
    assert!(store.layer(&ids.1).is_none());
    drop(kept);
    assert!(store.layer(&ids.0).is_none(), "nobody needs it any more");
}

#[test]
fn a_containers_files_become_a_layer_without_being_copied() {
    let (_dir, store) = store();
    let tar = Layer::new().dir("etc", 0o755).file("etc/passwd", b"root").done();
    store.load(&*build::docker_archive(&[&tar], "{}", &["base"]), &|_| {}).unwrap();
    let writable = store.create_writable("c", &store.resolve("base").unwrap()).unwrap();
    fs::write(writable.upper.join("made"), "made").unwrap();
    let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(writable.upper.join("made")).unwrap());
    let layer = store.take_layer("c").unwrap();
    let file = store.layer_diff(&layer.diff_id()).join("made");
    assert_eq!(std::os::unix::fs::MetadataExt::ino(&fs::metadata(file).unwrap()), inode);
    assert_eq!(
        fs::read_dir(&writable.upper).unwrap().count(),
        0,
        "the container is still there, with nothing"
    );
}
