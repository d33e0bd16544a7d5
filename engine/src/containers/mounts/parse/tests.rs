//! Cases and texts as dockerd 28.5 treats them.

use super::super::super::config::{BindOptions, TmpfsOptions, VolumeOptions};
use super::*;

#[test]
fn paths_are_cleaned_as_go_does() {
    for (path, clean) in [
        ("/tmp/../tmp/", "/tmp"),
        ("/b/./c//", "/b/c"),
        ("/..", "/"),
        ("//", "/"),
        ("a/..", "."),
        ("../a", "../a"),
        ("a/../../b", "../b"),
        ("", "."),
    ] {
        assert_eq!(clean_path(path), clean, "{path}");
    }
}

#[test]
fn binds_are_taken_apart() {
    let check = |raw: &str, source: &str, destination: &str, writable: bool, propagation: Option<&str>| {
        let bind = bind(raw).unwrap();
        let got = (
            bind.source.as_str(),
            bind.destination.as_str(),
            bind.mode.writable,
            bind.mode.propagation.as_deref(),
        );
        assert_eq!(got, (source, destination, writable, propagation), "{raw}");
    };
    check("/a:/b", "/a", "/b", true, None);
    check("/a:/b:", "/a", "/b", true, None);
    check("/a:/b/./c/:ro,rslave,Z", "/a", "/b/c", false, Some("rslave"));
    check("/b", "", "/b", true, None);
    check("vol:/b:rw,nocopy", "vol", "/b", true, None);
    check("./a:/b", "./a", "/b", true, None);
}

#[test]
fn bad_binds_are_refused_in_dockerds_words() {
    for (raw, reason) in [
        ("", "invalid volume specification: ''"),
        (":/b", "invalid volume specification: ':/b'"),
        ("/a:/b:ro:rw", "invalid volume specification: '/a:/b:ro:rw'"),
        ("/a:", "invalid volume specification: '/a:'"),
        ("/a:ro", "invalid volume specification: '/a:ro'"),
        (
            "foo",
            "invalid volume specification: 'foo': invalid mount config for type \"volume\": invalid mount path: 'foo' \
             mount path must be absolute",
        ),
        (
            "/a:b",
            "invalid volume specification: '/a:b': invalid mount config for type \"bind\": invalid mount path: 'b' \
             mount path must be absolute",
        ),
        (
            "/a:/",
            "invalid volume specification: '/a:/': invalid mount config for type \"bind\": invalid specification: \
             destination can't be '/'",
        ),
        (
            "vn:/b:rshared",
            "invalid volume specification: 'vn:/b:rshared': invalid mount config for type \"volume\": field BindOptions \
             must not be specified",
        ),
        (
            "/tmp:/b:nocopy",
            "invalid volume specification: '/tmp:/b:nocopy': invalid mount config for type \"bind\": field \
             VolumeOptions must not be specified",
        ),
        ("/a:/b:foo", "invalid mode: foo"),
        ("/a:/b:ro,rw", "invalid mode: ro,rw"),
        ("/a:/b:ro,", "invalid mode: ro,"),
    ] {
        assert_eq!(bind(raw), Err(reason.to_owned()), "{raw}");
    }
}

fn mount(kind: &str, source: &str, target: &str) -> Mount {
    Mount { kind: kind.into(), source: source.into(), target: target.into(), ..Mount::default() }
}

#[test]
fn mounts_are_checked() {
    let check = |mount: Mount, expected: &str| {
        let got = check_mount(&mount).map_err(|e| e.to_string());
        assert_eq!(got, Err(expected.to_owned()), "{mount:?}");
    };
    assert!(check_mount(&mount("bind", "/tmp", "/x")).is_ok());
    let of = |kind: &str, reason: &str| format!("invalid mount config for type \"{kind}\": {reason}");
    let relative = "invalid mount path: 'rel' mount path must be absolute";
    check(mount("bind", "rel", "/x"), &of("bind", relative));
    check(mount("bind", "/tmp", "rel"), &of("bind", relative));
    check(mount("bind", "", "/x"), &of("bind", "field Source must not be empty"));
    check(mount("bind", "/tmp", ""), &of("bind", "field Target must not be empty"));
    check(mount("foo", "", "/x"), &of("foo", "mount type unknown"));
    check(mount("tmpfs", "/a", "/x"), &of("tmpfs", "field Source must not be specified"));
    check(mount("volume", "", "/"), &of("volume", "invalid specification: destination can't be '/'"));
    let foreign = Mount { volume_options: Some(VolumeOptions::default()), ..mount("bind", "/tmp", "/x") };
    check(foreign, "VolumeOptions must not be specified on mount type \"bind\"");
    let odd = BindOptions { propagation: "foo".into(), ..BindOptions::default() };
    let odd = Mount { bind_options: Some(odd), ..mount("bind", "/tmp", "/x") };
    check(odd, &of("bind", "invalid propagation mode: foo"));
    let below = |source: &str, subpath: &str| {
        let options = VolumeOptions { subpath: subpath.into(), ..VolumeOptions::default() };
        Mount { volume_options: Some(options), ..mount("volume", source, "/x") }
    };
    check(below("", "a"), &of("volume", "must not set Subpath when using anonymous volumes"));
    for subpath in ["../x", "/x", "a/../../x"] {
        check(below("v", subpath), &of("volume", "subpath must be a relative path within the volume"));
    }
    assert!(check_mount(&below("v", "a/../b")).is_ok());
    let read_only = Mount { read_only: true, ..mount("volume", "", "/x") };
    check(read_only, &of("volume", "must not set ReadOnly mode when using anonymous volumes"));
}

#[test]
fn tmpfs_options_are_in_dockerds_order() {
    let options = |size_bytes, mode, list: &[&[&str]]| {
        let list = list.iter().map(|o| o.iter().map(ToString::to_string).collect()).collect();
        let options = TmpfsOptions { size_bytes, mode, options: Some(list) };
        let mount = Mount { read_only: true, tmpfs_options: Some(options), ..mount("tmpfs", "", "/x") };
        tmpfs_options(&mount).map_err(|e| e.to_string())
    };
    assert_eq!(options(1 << 20, 0o700, &[&["exec"]]).unwrap(), ["ro", "mode=700", "size=1m", "exec"]);
    assert_eq!(options(1_000_000, 0, &[]).unwrap(), ["ro", "size=1000000"]);
    assert_eq!(
        options(0, 0, &[&["size", "5"]]),
        Err("invalid mount config for type \"tmpfs\": invalid option: size".into())
    );
}
