//! Archives into a store: what is loaded is there, also for the next process, and what is wrong is refused.
#![allow(clippy::unwrap_used, reason = "a test that cannot prepare has failed")]

mod build;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::sync::Mutex;

use build::{Layer, docker_archive, oci_archive, store};
use wherry_image_ref::{Digest, Reference};
use wherry_image_store::{LoadEvent, Saved, Store};

fn load(store: &Store, archive: &[u8]) -> Result<Vec<String>, String> {
    let names = Mutex::new(Vec::new());
    let observe = |event: LoadEvent<'_>| {
        if let LoadEvent::Image { references, .. } = event {
            names.lock().unwrap().extend(references.iter().map(Reference::familiar));
        }
    };
    store.load(archive, &observe).map_err(|e| e.to_string())?;
    Ok(names.into_inner().unwrap())
}

#[test]
fn a_docker_archive_is_loaded_and_found_again() {
    let (dir, store) = store();
    let base = Layer::new().dir("etc", 0o755).file("etc/motd", b"hello").link("etc/motd2", "etc/motd").done();
    let top = Layer::new().file("etc/.wh.motd", b"").file("new", b"x").done();
    let archive = docker_archive(&[&base, &top], r#"{"Cmd":["sh"],"Env":["A=b"]}"#, &["box:1", "box:latest"]);
    assert_eq!(load(&store, &archive).unwrap(), ["box:1", "box:latest"]);
    for store in [store, Store::open(dir.path()).unwrap()] {
        let image = store.image(&store.resolve("box").unwrap()).unwrap();
        assert_eq!(image.repo_tags, ["box:1", "box:latest"]);
        assert_eq!(image.config().cmd.as_deref(), Some(&["sh".to_owned()][..]));
        assert_eq!(image.size_bytes, 6);
        assert_eq!(image.last_tagged, None);
        let [top, base]: [_; 2] = store.lower_dirs(&image.id).unwrap().try_into().unwrap();
        assert_eq!(fs::read(base.join("etc/motd2")).unwrap(), b"hello");
        assert_eq!(fs::metadata(base.join("etc/motd")).unwrap().nlink(), 2);
        let whiteout = fs::metadata(top.join("etc/motd")).unwrap();
        assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
        assert_eq!(Digest::of(&store.raw_config(&image.id).unwrap()), image.id.0);
    }
}

#[test]
fn compressed_layers_and_archives_are_loaded() {
    for compress in [build::gzip, build::zstd] {
        let (_dir, store) = store();
        let layer = Layer::new().file("f", b"content").done();
        let archive = docker_archive(&[&compress(&layer)], "{}", &["x:y"]);
        assert_eq!(load(&store, &compress(&archive)).unwrap(), ["x:y"]);
        let image = store.image(&store.resolve("x:y").unwrap()).unwrap();
        assert_eq!(image.diff_ids()[0].0, Digest::of(&layer));
    }
}

#[test]
fn an_oci_layout_is_loaded_for_this_machine() {
    let (_dir, store) = store();
    let layer = Layer::new().file("f", b"content").done();
    assert_eq!(load(&store, &oci_archive(&build::gzip(&layer), "me/app:v2")).unwrap(), ["me/app:v2"]);
    let image = store.image(&store.resolve("me/app:v2").unwrap()).unwrap();
    assert_eq!(fs::read(store.lower_dirs(&image.id).unwrap()[0].join("f")).unwrap(), b"content");
}

#[test]
fn loading_again_takes_the_name_from_the_other_image() {
    let (_dir, store) = store();
    let layer = Layer::new().file("f", b"1").done();
    load(&store, &docker_archive(&[&layer], r#"{"User":"1"}"#, &["a"])).unwrap();
    let first = store.resolve("a").unwrap();
    let renamed = Mutex::new(None);
    let observe = |event: LoadEvent<'_>| {
        if let LoadEvent::Renamed { reference, previous } = event {
            *renamed.lock().unwrap() = Some((reference.familiar(), previous));
        }
    };
    let archive = docker_archive(&[&layer], r#"{"User":"2"}"#, &["a"]);
    store.load(&*archive, &observe).unwrap();
    assert_eq!(renamed.into_inner().unwrap(), Some(("a:latest".to_owned(), first)));
    assert_ne!(store.resolve("a").unwrap(), first);
    assert!(store.image(&first).unwrap().repo_tags.is_empty());
    assert_eq!(store.images().len(), 2);
}

#[test]
fn of_several_platforms_the_wanted_one_is_loaded() {
    let own = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let (first, second) = (Layer::new().file("f", b"own").done(), Layer::new().file("f", b"other").done());
    let archive = build::oci_index(&[("ppc64le", &second), (own, &first)], "multi:1");
    let loaded = |wanted: Option<&str>| {
        let (_dir, store) = store();
        let is_it = |_: &str, architecture: &str, _: &str| Some(architecture) == wanted;
        store
            .load_wanted(&*archive, wanted.map(|_| &is_it as wherry_image_store::Wanted<'_>), &|_| {})
            .unwrap();
        let image = store.images().first().map(|image| image.document.architecture.clone());
        assert_eq!(store.images().len(), usize::from(image.is_some()));
        image
    };
    assert_eq!(loaded(None).as_deref(), Some(own));
    assert_eq!(loaded(Some(own)).as_deref(), Some(own));
    assert_eq!(loaded(Some("ppc64le")).as_deref(), Some("ppc64le"));
    assert_eq!(loaded(Some("riscv64")), None);
}

#[test]
fn what_is_wrong_is_refused_and_leaves_nothing() {
    let (dir, store) = store();
    let layer = Layer::new().file("f", b"1").done();
    let check = |archive: &[u8], text: &str| {
        let error = load(&store, archive).unwrap_err();
        assert!(error.contains(text), "{error}");
        assert!(store.images().is_empty());
    };
    let good = docker_archive(&[&layer], "{}", &["a"]);
    check(b"", "neither manifest.json");
    check(b"not a tar at all", "unexpected EOF");
    check(&good[..good.len() / 2], "unexpected EOF");
    check(&build::gzip(&good)[..200], "");
    check(&docker_archive(&[&layer], "{}", &["BAD"]), "must be lowercase");
    let digest = format!("a@{}", Digest::of(b"a"));
    check(&docker_archive(&[&layer], "{}", &[&digest]), &format!("invalid tag {digest:?}"));
    check(
        &build::docker_archive_with_diff_ids(&[&layer], &[Digest::of(b"other")]),
        "invalid diffID for layer 0",
    );
    check(&build::docker_archive_with_diff_ids(&[&layer], &[]), "layers length mismatch");
    let escaping = Layer::new().raw_file("../evil", b"x").done();
    check(&docker_archive(&[&escaping], "{}", &["a"]), "outside of the layer");
    let mut broken = oci_archive(&layer, "a");
    let at = broken.windows(7).position(|w| w == b"\"rootfs").unwrap();
    broken[at] = b'\'';
    check(&broken, "has digest");
    drop(store);
    let left: Vec<_> =
        fs::read_dir(dir.path().join("overlay2")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name.to_str().unwrap().starts_with('.')), "{left:?}");
}

#[test]
fn what_is_saved_is_what_was_loaded() {
    let (_dir, store) = store();
    let big: Vec<u8> = (0..3_000_000_u32).map(|n| (n / 7) as u8).collect();
    let long = format!("{}/{}", "d".repeat(120), "n".repeat(130));
    let base = Layer::new()
        .dir("etc", 0o755)
        .file("etc/big", &big)
        .file("empty", b"")
        .link("etc/l", "etc/big")
        .done();
    let top = Layer::new().file(".wh.etc", b"").file(&long, b"long").symlink("s", "/etc").done();
    load(&store, &docker_archive(&[&base, &build::gzip(&top)], "{}", &["x:1", "y:2"])).unwrap();
    let id = store.resolve("x:1").unwrap();
    let references: Vec<Reference> = ["x:1", "y:2"].iter().map(|name| name.parse().unwrap()).collect();
    let mut archive = Vec::new();
    store.save(&[Saved { id, references }], &mut archive).unwrap();
    let (_other_dir, other) = build::store();
    assert_eq!(load(&other, &archive).unwrap(), ["x:1", "y:2"]);
    assert_eq!(other.resolve("y:2").unwrap(), id);
    let mut layer = Vec::new();
    other.write_layer(&other.image(&id).unwrap().diff_ids()[1], &mut layer).unwrap();
    assert!(layer == top, "the tar of a layer comes back byte by byte");
    // The same archive read as an OCI layout.
    let oci = build::without(&archive, "manifest.json");
    let (_third_dir, third) = build::store();
    assert_eq!(load(&third, &oci).unwrap(), ["x:1", "y:2"]);
    assert_eq!(third.resolve("x:1").unwrap(), id);
}

#[test]
fn a_layer_whose_files_were_changed_is_not_saved() {
    let (_dir, store) = store();
    let layer = Layer::new().file("f", b"12345").done();
    load(&store, &docker_archive(&[&layer], "{}", &["a"])).unwrap();
    let id = store.resolve("a").unwrap();
    fs::write(store.lower_dirs(&id).unwrap()[0].join("f"), "54321").unwrap();
    let error = store.save(&[Saved { id, references: Vec::new() }], std::io::sink()).unwrap_err();
    assert!(error.to_string().contains("layer verification failed"), "{error}");
}
