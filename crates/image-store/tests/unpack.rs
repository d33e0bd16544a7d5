//! What layers become on the disk, and what hostile ones do not.
#![allow(clippy::unwrap_used, reason = "a test that cannot prepare has failed")]

mod build;

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use build::{Layer, store};
use tar::EntryType;
use wherry_image_ref::Digest;
use wherry_image_store::{DiffId, Error, Expected, Layer as Kept, Store};

fn ingest(store: &Store, layer: &[u8]) -> (Kept, PathBuf) {
    let kept = store.ingest(Expected::default(), layer).unwrap();
    let diff = store.layer_diff(&kept.diff_id());
    (kept, diff)
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 256];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(length);
    Some(value)
}

fn with_owner(kind: EntryType, mode: u32, uid: u64) -> tar::Header {
    let mut header = Layer::header(kind, mode);
    header.set_uid(uid);
    header.set_gid(uid + 1);
    header
}

#[test]
fn files_keep_their_metadata() {
    let (_dir, store) = store();
    let layer = Layer::new()
        .with(|tar| tar.append_data(&mut with_owner(EntryType::Directory, 0o2750, 7), "d", &b""[..]).unwrap())
        .with(|tar| {
            let mut header = with_owner(EntryType::Regular, 0o6755, 1000);
            header.set_size(1);
            tar.append_data(&mut header, "d/setuid", &b"x"[..]).unwrap();
            tar.append_data(&mut with_owner(EntryType::Fifo, 0o640, 0), "d/fifo", &b""[..]).unwrap();
            let mut device = with_owner(EntryType::Char, 0o666, 5);
            device.set_device_major(1).unwrap();
            device.set_device_minor(3).unwrap();
            tar.append_data(&mut device, "d/null", &b""[..]).unwrap();
            tar.append_link(&mut with_owner(EntryType::Symlink, 0o777, 9), "d/link", "/../../etc").unwrap();
        })
        .done();
    let (kept, diff) = ingest(&store, &layer);
    assert_eq!(kept.size_bytes(), 1 + "/../../etc".len() as u64);
    let stat = |name: &str| fs::symlink_metadata(diff.join(name)).unwrap();
    assert_eq!((stat("d").mode() & 0o7777, stat("d").uid(), stat("d").gid()), (0o2750, 7, 8));
    assert_eq!((stat("d/setuid").mode() & 0o7777, stat("d/setuid").uid()), (0o6755, 1000));
    assert!(stat("d/fifo").file_type().is_fifo());
    assert_eq!((stat("d/null").rdev(), stat("d/null").mode() & 0o777), (rustix::fs::makedev(1, 3), 0o666));
    assert_eq!((stat("d/link").uid(), fs::read_link(diff.join("d/link")).unwrap()), (9, "/../../etc".into()));
    for name in ["d", "d/setuid", "d/fifo", "d/null", "d/link"] {
        assert_eq!(stat(name).mtime(), 1_000_000_000, "{name}");
    }
}

#[test]
fn pax_records_win() {
    let (_dir, store) = store();
    let long = format!("{}/{}", "a".repeat(200), "b".repeat(200));
    let layer = Layer::new()
        .with(|tar| {
            let records: [(&str, &[u8]); 4] = [
                ("mtime", b"1234567890.123456789"),
                ("uid", b"3000000"),
                ("SCHILY.xattr.security.capability", b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0"),
                ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ];
            tar.append_pax_extensions(records).unwrap();
        })
        .file("ping", b"x")
        .file(&long, b"long name")
        .with(|tar| {
            tar.append_pax_extensions([("path", &b"\xff\xfe"[..])]).unwrap();
        })
        .file("replaced", b"not UTF-8")
        .done();
    let (_kept, diff) = ingest(&store, &layer);
    let ping = fs::metadata(diff.join("ping")).unwrap();
    assert_eq!((ping.mtime(), ping.mtime_nsec(), ping.uid()), (1_234_567_890, 123_456_789, 3_000_000));
    assert_eq!(xattr(&diff.join("ping"), "security.capability").unwrap().len(), 20);
    assert_eq!(
        xattr(&diff.join("ping"), "trusted.overlay.redirect"),
        None,
        "overlayfs's own attributes are ours"
    );
    assert_eq!(fs::read(diff.join(long)).unwrap(), b"long name");
    assert_eq!(fs::read(diff.join(OsStr::from_bytes(b"\xff\xfe"))).unwrap(), b"not UTF-8");
}

#[test]
fn whiteouts_become_overlayfs_ones() {
    let (_dir, store) = store();
    let layer = Layer::new()
        .file("d/.wh.gone", b"")
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/new", b"x")
        .file(".wh..wh.plnk", b"")
        .file(".wh.replaced", b"")
        .dir("replaced", 0o755)
        .file("own", b"kept")
        .file(".wh.own", b"")
        .done();
    let (_kept, diff) = ingest(&store, &layer);
    let gone = fs::symlink_metadata(diff.join("d/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    for folder in ["opaque", "replaced"] {
        assert_eq!(
            xattr(&diff.join(folder), "trusted.overlay.opaque").as_deref(),
            Some(&b"y"[..]),
            "{folder}"
        );
    }
    assert_eq!(fs::read(diff.join("own")).unwrap(), b"kept");
    assert!(!diff.join(".wh..wh.plnk").exists() && !diff.join("d/.wh.gone").exists());
    assert_eq!(fs::metadata(diff.join("d")).unwrap().mode() & 0o777, 0o755, "a folder without an entry");
}

#[test]
fn later_entries_replace_earlier_ones() {
    let (_dir, store) = store();
    let layer = Layer::new()
        .file("a", b"old content")
        .file("a", b"new")
        .file("tree/sub/x", b"12345")
        .file("tree", b"now a file")
        .symlink("l", "elsewhere")
        .dir("l", 0o711)
        .file("l/in", b"")
        .dir("dir", 0o700)
        .dir("dir", 0o755)
        .done();
    let (kept, diff) = ingest(&store, &layer);
    assert_eq!(fs::read(diff.join("a")).unwrap(), b"new");
    assert_eq!(fs::read(diff.join("tree")).unwrap(), b"now a file");
    assert!(diff.join("l/in").exists() && !diff.join("elsewhere").exists());
    assert_eq!(fs::metadata(diff.join("dir")).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(kept.size_bytes(), 13);
}

#[test]
fn links_within_a_path_stay_in_the_layer() {
    let (dir, store) = store();
    fs::create_dir(dir.path().join("outside")).unwrap();
    let outside = dir.path().join("outside");
    let up = "../".repeat(30);
    let layer = Layer::new()
        .symlink("abs", outside.to_str().unwrap())
        .symlink("rel", &format!("{up}{}", outside.strip_prefix("/").unwrap().display()))
        .dir(outside.strip_prefix("/").unwrap().to_str().unwrap(), 0o755)
        .file("abs/one", b"1")
        .file("rel/two", b"2")
        .raw(EntryType::Link, "rel/three", "abs/one", b"")
        .done();
    let (_kept, diff) = ingest(&store, &layer);
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "nothing was written outside");
    let inside = diff.join(outside.strip_prefix("/").unwrap());
    assert_eq!(fs::read(inside.join("two")).unwrap(), b"2");
    assert_eq!(fs::metadata(inside.join("three")).unwrap().nlink(), 2);
}

#[test]
fn hostile_layers_are_refused() {
    let (dir, store) = store();
    fs::write(dir.path().join("victim"), "secret").unwrap();
    let victim = dir.path().join("victim");
    let victim = victim.to_str().unwrap();
    let up = format!("{}{}", "../".repeat(30), victim.trim_start_matches('/'));
    let check = |layer: Vec<u8>, expect: &str| {
        let error = store.ingest(Expected::default(), &*layer).unwrap_err().to_string();
        assert!(error.contains(expect), "{error} does not say {expect}");
    };
    check(Layer::new().raw_file("../x", b"").done(), "outside of the layer");
    check(Layer::new().raw_file("a/../../x", b"").done(), "outside of the layer");
    check(
        Layer::new().raw(EntryType::Link, "l", &up[..up.len().min(100)], b"").done(),
        "outside of the layer",
    );
    check(Layer::new().raw(EntryType::Link, "l", victim, b"").done(), "No such file");
    check(Layer::new().symlink("s", victim).raw_file("s/x", b"").done(), "File exists");
    check(Layer::new().file("f", b"").raw_file("f/x", b"").done(), "Not a directory");
    check(Layer::new().raw(EntryType::new(b'Z'), "z", "", b"").done(), "unhandled tar header type 90");
    // A whiteout or a mode of what a link points to must not reach out.
    check(Layer::new().symlink("s", "/").raw_file("s/../../.wh.x", b"").done(), "outside of the layer");
    // ".." is there already, and so would be the folder above the layer, to be marked as opaque
    for name in [".wh...", "d/.wh...", ".wh..", "d/.wh.."] {
        check(Layer::new().dir("d", 0o755).raw_file(name, b"").done(), "outside of the layer");
    }
    let mut huge = Layer::header(EntryType::XHeader, 0o644);
    huge.set_size(1 << 40);
    huge.set_cksum();
    check(huge.as_bytes().to_vec(), "too long");
    let mut endless = Layer::header(EntryType::Regular, 0o644);
    endless.set_path("f").unwrap();
    endless.set_size(u64::MAX >> 2);
    endless.set_cksum();
    check(endless.as_bytes().to_vec(), "EOF");
    let mut wrong = Layer::new().file("f", b"x").done();
    wrong[0] ^= 1;
    check(wrong, "invalid tar header");
    assert_eq!(fs::read_to_string(victim).unwrap(), "secret");
    assert_eq!(fs::read_dir(dir.path().join("overlay2/.staging")).unwrap().count(), 0);
}

#[test]
fn a_bomb_is_noticed() {
    let (_dir, store) = store();
    let mut header = Layer::header(EntryType::Regular, 0o644);
    header.set_path("zeros").unwrap();
    header.set_size(1 << 40);
    header.set_cksum();
    let mut bomb = zstd::Encoder::new(Vec::new(), 1).unwrap();
    bomb.write_all(header.as_bytes()).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..1200 {
        bomb.write_all(&zeros).unwrap();
    }
    let bomb = bomb.finish().unwrap();
    assert!(bomb.len() < 1 << 20);
    let error = store.ingest(Expected::default(), &*bomb).unwrap_err().to_string();
    assert!(error.contains("expands to more than"), "{error}");
}

#[test]
fn what_was_expected_is_checked() {
    let (_dir, store) = store();
    let layer = Layer::new().file("f", b"x").done();
    let packed = build::gzip(&layer);
    let size = packed.len() as u64;
    let (blob, other) = (Digest::of(&packed), Digest::of(b"other"));
    let ingest = |diff_id, blob| store.ingest(Expected { diff_id, blob: Some(blob) }, &*packed);
    assert!(matches!(ingest(None, (blob, size + 1)), Err(Error::BlobSize { .. })));
    assert!(matches!(ingest(None, (other, size)), Err(Error::BlobDigest { .. })));
    assert!(matches!(ingest(Some(DiffId(other)), (blob, size)), Err(Error::DiffId { .. })));
    assert!(store.layer(&DiffId(Digest::of(&layer))).is_none(), "nothing of it is kept");
    let kept = ingest(Some(DiffId(Digest::of(&layer))), (blob, size)).unwrap();
    assert!(store.layer(&kept.diff_id()).is_some());
    // A byte that is not what it was spoils the compression, too; the digest is the better explanation.
    for at in [5, 20, packed.len() - 3] {
        let mut corrupt = packed.clone();
        corrupt[at] ^= 0xff;
        let expected = Expected { diff_id: None, blob: Some((blob, size)) };
        let error = store.ingest(expected, &*corrupt).unwrap_err();
        assert!(matches!(error, Error::BlobDigest { .. }), "byte {at}: {error}");
    }
    let endless = std::io::Read::chain(&*packed, std::io::repeat(0));
    let expected = Expected { diff_id: None, blob: Some((blob, size)) };
    assert!(matches!(store.ingest(expected, endless), Err(Error::BlobSize { .. })));
    // Trailing bytes count to the blob.
    let mut longer = packed.clone();
    longer.extend_from_slice(&build::gzip(b""));
    let expected = Expected { diff_id: None, blob: Some((Digest::of(&longer), longer.len() as u64)) };
    store.ingest(expected, &*longer).unwrap();
}

/// The same tree through GNU tar: its sparse files, long names and numbers must come out alike.
#[test]
fn gnu_tar_is_understood() {
    for format in ["gnu", "posix", "oldgnu"] {
        for sparse_version in ["0.0", "0.1", "1.0"] {
            let (dir, store) = store();
            let tree = dir.path().join("tree");
            let deep = tree.join("x".repeat(120)).join("y".repeat(120));
            fs::create_dir_all(&deep).unwrap();
            fs::write(deep.join("z"), "deep").unwrap();
            symlink("t".repeat(150), tree.join("long link")).unwrap();
            let holes = fs::File::create(tree.join("holes")).unwrap();
            use std::os::unix::fs::FileExt;
            for piece in 0..30 {
                holes.write_all_at(b"data", piece * 1_000_000).unwrap();
            }
            holes.set_len(40_000_000).unwrap();
            let mut tar = Command::new("tar");
            tar.args(["-c", "--sparse", "--format", format]);
            if format == "posix" {
                tar.args(["--sparse-version", sparse_version]);
            }
            let archive = tar.arg("-C").arg(&tree).arg(".").output().unwrap();
            assert!(archive.status.success(), "{}", String::from_utf8_lossy(&archive.stderr));
            assert!(archive.stdout.len() < 1_000_000, "the archive is sparse");
            let (kept, diff) = ingest(&store, &archive.stdout);
            let compared =
                Command::new("diff").args(["-r", "--no-dereference"]).arg(&tree).arg(&diff).output().unwrap();
            assert!(compared.status.success(), "{format} {sparse_version}: {compared:?}");
            let blocks = fs::metadata(diff.join("holes")).unwrap().blocks();
            assert!(blocks < 2000, "{format} {sparse_version}: holes stay holes, not {blocks} blocks");
            let mut again = Vec::new();
            store.write_layer(&kept.diff_id(), &mut again).unwrap();
            assert!(again == archive.stdout, "{format} {sparse_version}: not the same bytes");
        }
    }
}

/// Whatever bytes a layer has, it is taken or refused, and nothing is written outside.
#[test]
fn damaged_layers_never_break_the_store() {
    let (dir, store) = store();
    let layer = Layer::new()
        .dir("d", 0o755)
        .with(|tar| {
            tar.append_pax_extensions([("mtime", &b"1.5"[..]), ("SCHILY.xattr.user.x", b"y")]).unwrap()
        })
        .file("d/f", b"content")
        .link("d/l", "d/f")
        .symlink("s", "d")
        .file(&"long/".repeat(40), b"x")
        .file("d/.wh.gone", b"")
        .done();
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % below as u64) as usize
    };
    let mut taken = 0;
    for _ in 0..400 {
        let mut damaged = layer.clone();
        for _ in 0..=next(6) {
            let (at, value) = (next(damaged.len()), next(256) as u8);
            damaged[at] = value;
        }
        if next(3) == 0 {
            damaged.truncate(next(layer.len()));
        }
        mend_checksums(&mut damaged);
        taken += usize::from(store.ingest(Expected::default(), &*damaged).is_ok());
    }
    assert!((20..400).contains(&taken), "{taken} of 400 were taken: the damage says nothing");
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
    drop(store);
    Store::open(dir.path()).unwrap();
}

/// Makes the damage count: most of it would be noticed by the checksum alone.
fn mend_checksums(archive: &mut [u8]) {
    for block in archive.chunks_exact_mut(512) {
        if block[257..262] == *b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
}
