//! Images and writable layers over time: removal, references, interruption, reopening.
#![allow(clippy::unwrap_used, reason = "a test that cannot prepare has failed")]

mod build;

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use build::{Layer, docker_archive, store};
use wherry_image_ref::{Digest, Reference};
use wherry_image_store::{
    Error, Expected, ImageId, Mountable, NewImage, Removed, Store, User, chain_ids, mount_detached,
};

/// Loads an image of these layers (one file each) and tags; `user` tells configurations apart.
fn load(store: &Store, layers: &[&str], user: &str, tags: &[&str]) -> ImageId {
    let layers: Vec<Vec<u8>> =
        layers.iter().map(|name| Layer::new().file(name, name.as_bytes()).done()).collect();
    let layers: Vec<&[u8]> = layers.iter().map(Vec::as_slice).collect();
    let archive = docker_archive(&layers, &format!(r#"{{"User":"{user}"}}"#), tags);
    let id = std::sync::Mutex::new(None);
    let observe = |event: wherry_image_store::LoadEvent<'_>| {
        if let wherry_image_store::LoadEvent::Image { id: loaded, .. } = event {
            *id.lock().unwrap() = Some(loaded);
        }
    };
    store.load(&*archive, &observe).unwrap();
    id.into_inner().unwrap().unwrap()
}

fn names(removed: &[Removed]) -> Vec<String> {
    let show = |removed: &Removed| match removed {
        Removed::Untagged { reference, .. } => format!("untagged {}", reference.familiar()),
        Removed::Deleted(id) => format!("deleted {}", id.0.short()),
        Removed::DeletedLayer(_) => "layer".to_owned(),
    };
    removed.iter().map(show).collect()
}

fn nobody(_: &ImageId) -> Vec<User> {
    Vec::new()
}

fn folders(data_root: &Path) -> Vec<String> {
    let entries = fs::read_dir(data_root.join("overlay2")).unwrap();
    let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.starts_with('.')).collect()
}

#[test]
fn the_last_name_takes_the_image_along_and_shared_layers_stay() {
    let (dir, store) = store();
    let one = load(&store, &["base", "one"], "1", &["one:1", "one:2"]);
    load(&store, &["base", "two"], "1", &["two:1"]);
    assert_eq!(folders(dir.path()).len(), 3);
    let (removed, result) = store.remove("one:1", false, false, &nobody);
    result.unwrap();
    assert_eq!(names(&removed), ["untagged one:1"]);
    let (removed, result) = store.remove("one:2", false, false, &nobody);
    result.unwrap();
    assert_eq!(names(&removed), ["untagged one:2", &format!("deleted {}", one.0.short()), "layer"]);
    let image = load(&store, &["base", "one"], "1", &[]);
    let chain = chain_ids(store.image(&image).unwrap().diff_ids());
    assert_eq!(removed[2], Removed::DeletedLayer(chain[1]));
    let (_, result) = store.remove(&image.to_string(), false, false, &nobody);
    result.unwrap();
    assert_eq!(folders(dir.path()).len(), 2);
    store.resolve("two:1").unwrap();
    let (_, missing) = store.remove("one", false, false, &nobody);
    assert_eq!(missing.unwrap_err().to_string(), "No such image: one:latest");
}

#[test]
fn conflicts_are_told_in_dockers_words() {
    let (_dir, store) = store();
    let id = load(&store, &["f"], "1", &["busybox"]);
    let short = id.0.short();
    let container = "c".repeat(64);
    let user = |running| {
        let container = container.clone();
        move |_: &ImageId| vec![User { container: container.clone(), running }]
    };
    let check = |name: &str, force, running, expect: String| {
        let (removed, result) = store.remove(name, force, false, &user(running));
        assert_eq!(result.unwrap_err().to_string(), expect);
        removed
    };
    let last = format!(
        "conflict: unable to remove repository reference \"busybox\" (must force) - container cccccccccccc is using its referenced image {short}"
    );
    assert!(check("busybox", false, false, last).is_empty());
    let stopped = format!(
        "conflict: unable to delete {short} (must be forced) - image is being used by stopped container cccccccccccc"
    );
    assert!(check(&short, false, false, stopped).is_empty());
    let running = format!(
        "conflict: unable to delete {short} (cannot be forced) - image is being used by running container cccccccccccc"
    );
    assert!(check(&short, true, true, running).is_empty());
    store.tag(&id, &"other".parse().unwrap()).unwrap();
    let names_left = format!(
        "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
    );
    let (_, result) = store.remove(&short, false, false, &nobody);
    assert_eq!(result.unwrap_err().to_string(), names_left);
    let (removed, result) = store.remove(&short, true, false, &user(false));
    result.unwrap();
    assert_eq!(
        names(&removed),
        ["untagged busybox:latest", "untagged other:latest", &format!("deleted {short}")]
    );
}

#[test]
fn digests_go_with_the_last_tag_of_their_repository() {
    let (_dir, store) = store();
    let id = load(&store, &["f"], "1", &["a:1"]);
    let digest = Digest::of(b"manifest");
    let layers: Vec<_> =
        store.image(&id).unwrap().diff_ids().iter().map(|l| store.layer(l).unwrap()).collect();
    let config = store.raw_config(&id).unwrap();
    let pinned: Reference = format!("a@{digest}").parse().unwrap();
    let new = NewImage {
        config: &config,
        layers: &layers,
        names: &[pinned],
        parent: None,
        tagged: true,
        fetched: true,
    };
    store.commit(&new).unwrap();
    assert_eq!(store.image(&id).unwrap().repo_digests, [format!("a@{digest}")]);
    let (removed, result) = store.remove("a:1", false, false, &nobody);
    result.unwrap();
    assert_eq!(names(&removed)[..2], ["untagged a:1".to_owned(), format!("untagged a@{digest}")]);
    assert!(matches!(removed[1], Removed::Untagged { event: false, .. }));
    assert!(store.images().is_empty());
}

#[test]
fn parents_without_names_go_along_and_children_hold_their_parents() {
    let (_dir, store) = store();
    let parent = load(&store, &["f"], "parent", &["base"]);
    let layers: Vec<_> =
        store.image(&parent).unwrap().diff_ids().iter().map(|l| store.layer(l).unwrap()).collect();
    let config = build::config(r#"{"User":"child"}"#, &[layers[0].diff_id().0]);
    let names = ["child".parse::<Reference>().unwrap().or_latest()];
    let new = NewImage {
        config: config.as_bytes(),
        layers: &layers,
        names: &names,
        parent: Some(parent),
        tagged: true,
        fetched: true,
    };
    let child = store.commit(&new).unwrap();
    assert!(child.last_tagged.is_some() && child.parent == Some(parent));
    let (removed, result) = store.remove("base", false, false, &nobody);
    assert!(result.is_ok(), "the name goes; that the image stays is no news");
    assert_eq!(self::names(&removed), ["untagged base:latest"]);
    let (_, result) = store.remove(&parent.to_string(), true, false, &nobody);
    assert!(
        result.unwrap_err().to_string().contains("(cannot be forced) - image has dependent child images")
    );
    drop(layers);
    let (removed, result) = store.remove("child", false, false, &nobody);
    result.unwrap();
    assert_eq!(removed.iter().filter(|r| matches!(r, Removed::Deleted(_))).count(), 2);
    assert!(store.images().is_empty());
}

#[test]
fn a_container_keeps_its_layers_when_the_image_goes_and_over_a_restart() {
    let (dir, store) = store();
    let id = load(&store, &["low", "top"], "1", &["img"]);
    let writable = store.create_writable("c1", &id).unwrap();
    assert!(matches!(store.create_writable("c1", &id), Err(Error::WritableExists(_))));
    for bad in ["", "..", "a/b", ".x"] {
        assert!(matches!(store.create_writable(bad, &id), Err(Error::BadWritableName(_))), "{bad}");
    }
    fs::write(writable.upper.join("new"), "12345").unwrap();
    let stopped = |_: &ImageId| vec![User { container: "c1".into(), running: false }];
    let (removed, result) = store.remove("img", true, false, &stopped);
    result.unwrap();
    assert!(!removed.iter().any(|r| matches!(r, Removed::DeletedLayer(_))), "its layers are still used");
    let store = {
        drop(store);
        Store::open(dir.path()).unwrap()
    };
    assert_eq!(store.writable_names(), ["c1"]);
    assert_eq!(store.writable("c1").unwrap(), writable);
    assert!(writable.lower[0].join("top").exists() && writable.lower[1].join("low").exists());
    assert_eq!(store.writable_size("c1").unwrap(), 5);
    store.remove_writable("c1").unwrap();
    store.remove_writable("c1").unwrap();
    assert!(folders(dir.path()).is_empty());
    assert!(matches!(store.writable("c1"), Err(Error::NoSuchWritable(_))));
}

#[test]
fn an_interrupted_load_leaves_a_store_that_opens_clean() {
    let (dir, store) = store();
    let id = load(&store, &["kept"], "1", &["kept"]);
    // A layer without an image, as a pull leaves it that is killed before the image is committed.
    std::mem::forget(store.ingest(Expected::default(), &*Layer::new().file("orphan", b"x").done()).unwrap());
    // Half a layer, and a document that the index does not name.
    fs::create_dir_all(dir.path().join("overlay2/.staging/7/diff/half")).unwrap();
    let stranger = dir.path().join("image/configs").join(Digest::of(b"{}").hex());
    fs::write(&stranger, "{}").unwrap();
    fs::write(dir.path().join("image/.index.json.tmp"), "{\"half").unwrap();
    drop(store);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(folders(dir.path()).len(), 1);
    assert!(!stranger.exists());
    assert_eq!(fs::read_dir(dir.path().join("overlay2/.staging")).unwrap().count(), 0);
    let image = store.image(&id).unwrap();
    assert_eq!(image.repo_tags, ["kept:latest"]);
    let deadline = Instant::now() + Duration::from_secs(10);
    while fs::read_dir(dir.path().join("overlay2/.trash")).unwrap().next().is_some() {
        assert!(Instant::now() < deadline, "the trash is not emptied");
        std::thread::yield_now();
    }
}

#[test]
fn a_damaged_image_is_left_out_and_mended_by_loading_it_again() {
    let (dir, store) = store();
    let id = load(&store, &["f"], "1", &["a"]);
    let other = load(&store, &["g"], "2", &["b"]);
    let config = dir.path().join("image/configs").join(id.0.hex());
    fs::write(&config, "{}").unwrap();
    let layer = store.lower_dirs(&other).unwrap()[0].parent().unwrap().to_owned();
    drop(store);
    fs::remove_dir_all(layer).unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert!(store.images().is_empty());
    load(&store, &["f"], "1", &["a"]);
    load(&store, &["g"], "2", &["b"]);
    let store = Store::open(dir.path()).unwrap();
    assert_eq!(store.images().len(), 2);
    assert!(store.lower_dirs(&other).unwrap()[0].join("g").exists());
}

#[test]
fn an_index_of_another_version_is_not_touched() {
    let (dir, store) = store();
    drop(store);
    let index = dir.path().join("image/index.json");
    let text = r#"{"version":2,"images":{},"references":{}}"#;
    fs::write(&index, text).unwrap();
    assert!(matches!(Store::open(dir.path()), Err(Error::IndexVersion { version: 2, .. })));
    assert_eq!(fs::read_to_string(&index).unwrap(), text);
}

fn below(root: &OwnedFd, path: &str) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/{path}", root.as_raw_fd()))
}

#[test]
fn images_and_containers_can_be_looked_into_without_a_mount_point() {
    let (_dir, store) = store();
    let base = Layer::new().file("etc/gone", b"").file("etc/kept", b"kept").done();
    let top = Layer::new().file("etc/.wh.gone", b"").done();
    store.load(&*docker_archive(&[&base, &top], "{}", &["two"]), &|_| {}).unwrap();
    store.load(&*docker_archive(&[&base], r#"{"User":"1"}"#, &["single"]), &|_| {}).unwrap();
    store.load(&*docker_archive(&[], r#"{"User":"2"}"#, &["empty"]), &|_| {}).unwrap();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let two = store.resolve("two").unwrap();
    let root = mount_detached(Mountable::Image(&store, &two)).unwrap();
    assert!(below(&root, "etc/kept").exists() && !below(&root, "etc/gone").exists());
    assert!(fs::write(below(&root, "new"), "").is_err(), "an image is read-only");
    let single = mount_detached(Mountable::Image(&store, &store.resolve("single").unwrap())).unwrap();
    assert!(below(&single, "etc/gone").exists());
    for (number, image) in ["two", "empty"].iter().enumerate() {
        let name = format!("c{number}");
        let writable = store.create_writable(&name, &store.resolve(image).unwrap()).unwrap();
        let root = mount_detached(Mountable::Writable(&writable)).unwrap();
        fs::write(below(&root, "new"), "x").unwrap();
        drop(root);
        assert_eq!(fs::read(writable.upper.join("new")).unwrap(), b"x");
        store.remove_writable(&name).unwrap();
    }
    assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts, "nothing is attached");
}

#[test]
fn an_image_may_have_a_layer_twice() {
    let (dir, store) = store();
    let again = Layer::new().file("f", b"again").file("kept", b"").done();
    let between = Layer::new().file("f", b"between").file(".wh.kept", b"").done();
    store.load(&*docker_archive(&[&again, &between, &again], "{}", &["twice"]), &|_| {}).unwrap();
    let store = {
        drop(store);
        Store::open(dir.path()).unwrap()
    };
    let id = store.resolve("twice").unwrap();
    let root = mount_detached(Mountable::Image(&store, &id)).unwrap();
    assert_eq!(fs::read(below(&root, "f")).unwrap(), b"again");
    assert!(below(&root, "kept").exists());
    let (_, result) = store.remove("twice", false, false, &nobody);
    result.unwrap();
    assert!(folders(dir.path()).is_empty());
}

#[test]
fn many_threads_load_and_remove_without_losing_a_layer() {
    let (dir, store) = store();
    load(&store, &["shared"], "keeper", &["keeper"]);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let store = &store;
            scope.spawn(move || {
                for round in 0..10 {
                    let (user, tag) = (format!("{thread}.{round}"), format!("t{thread}"));
                    load(store, &["shared", &format!("own{}", round % 3)], &user, &[&tag]);
                    let id = store.resolve(&tag).unwrap();
                    assert!(store.lower_dirs(&id).unwrap().iter().all(|folder| folder.exists()));
                    let (_, result) = store.remove(&tag, false, false, &nobody);
                    result.unwrap();
                }
            });
        }
    });
    assert_eq!(folders(dir.path()).len(), 1);
    assert_eq!(Store::open(dir.path()).unwrap().images().len(), 1);
}

/// The index, once all images have reached the disk.
fn settled_index(root: &Path) -> serde_json::Value {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let text = fs::read_to_string(root.join("image/index.json")).unwrap();
        if !text.contains("pending") {
            return serde_json::from_str(&text).unwrap();
        }
        assert!(Instant::now() < deadline, "an image stays pending: {text}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Opens the store as if `image` had not been on the disk yet when the boot `boot` ended.
fn open_with_pending(root: &Path, image: &ImageId, boot: &str) -> Store {
    let mut index = settled_index(root);
    index["images"][image.to_string()]["pending"] = serde_json::json!({"boot": boot, "since_ns": 1});
    fs::write(root.join("image/index.json"), index.to_string()).unwrap();
    Store::open(root).unwrap()
}

#[test]
fn images_that_were_not_on_the_disk_when_the_system_died_are_left_out() {
    let (dir, store) = store();
    let lost = load(&store, &["shared", "own"], "1", &["lost"]);
    let kept = load(&store, &["shared"], "2", &["kept"]);
    store.create_writable("c", &lost).unwrap();
    let upper = store.writable("c").unwrap().upper;
    fs::write(upper.join("data"), "mine").unwrap();
    let damaged = store.lower_dirs(&lost).unwrap()[0].join("own");
    settled_index(dir.path());
    drop(store);
    fs::write(&damaged, "").unwrap();
    let store = open_with_pending(dir.path(), &lost, "another boot");
    assert!(matches!(store.image(&lost), Err(Error::NoSuchImage(_))));
    assert!(matches!(store.resolve("lost"), Err(Error::NoSuchImage(_))));
    assert_eq!(store.images().iter().map(|image| image.id).collect::<Vec<_>>(), [kept]);
    assert!(!damaged.exists(), "a layer that may have holes is nobody's");
    // Loaded again, it serves the container again, and stays when that goes.
    assert_eq!(load(&store, &["shared", "own"], "1", &["lost"]), lost);
    assert_ne!(fs::read(&damaged).unwrap(), b"");
    assert_eq!(fs::read(store.writable("c").unwrap().upper.join("data")).unwrap(), b"mine");
    store.remove_writable("c").unwrap();
    assert!(store.lower_dirs(&lost).unwrap().iter().all(|folder| folder.exists()));
    let (_, result) = store.remove("lost", false, false, &nobody);
    result.unwrap();
    assert!(store.lower_dirs(&kept).unwrap()[0].exists() && !damaged.exists());
}

#[test]
fn images_of_a_process_that_was_killed_stay() {
    let (dir, store) = store();
    let id = load(&store, &["f"], "1", &["a"]);
    settled_index(dir.path());
    drop(store);
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let store = open_with_pending(dir.path(), &id, boot.trim());
    assert_eq!(store.resolve("a").unwrap(), id);
    settled_index(dir.path());
}

#[test]
fn what_was_cut_short_is_deleted_and_what_has_data_is_not() {
    let (dir, store) = store();
    let id = load(&store, &["f"], "1", &["a"]);
    drop(store);
    let overlay = dir.path().join("overlay2");
    let layer = overlay.join("a".repeat(64));
    fs::create_dir_all(layer.join("diff/x")).unwrap();
    fs::write(layer.join("layer.json"), "").unwrap();
    let unused = overlay.join("b".repeat(64));
    fs::create_dir_all(unused.join("diff")).unwrap();
    let data = overlay.join("c".repeat(64));
    fs::create_dir_all(data.join("diff/precious")).unwrap();
    let store = Store::open(dir.path()).unwrap();
    assert!(store.image(&id).is_ok());
    assert_eq!((layer.exists(), unused.exists(), data.exists()), (false, false, true));
}
