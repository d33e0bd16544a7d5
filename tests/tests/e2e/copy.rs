//! `docker cp`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use serde_json::Value;
use wherry_tests::Host;

const SCENE: &str = "mkdir -p /a/b; echo hi >/a/f; chmod 4755 /a/f; ln -s f /a/l; ln -s b /a/ld; ln -s /nowhere /a/broken; \
                     echo v >/vol/x; ln -s /vol /vl; exec sleep 600";

fn box_with_volumes(host: &Host) {
    let line =
        ["run", "-d", "--name", "box", "-v", "data:/vol", "-v", "other:/ro:ro", "busybox", "sh", "-c", SCENE];
    host.docker(&line).ok();
    host.docker("exec box sh -c 'until test -e /vl; do :; done'").ok();
}

/// What of a container is at `path`, from the header.
fn stat(host: &Host, path: &str) -> Value {
    let path = format!("/containers/box/archive?path={path}");
    let response = host.connect().request("GET", &path, &[], b"").expect(200);
    // HEAD tells the same, and no more.
    let head = host.connect().request("HEAD", &path, &[], b"").expect(200);
    let told = "X-Docker-Container-Path-Stat";
    assert_eq!((head.header(told), head.body.len()), (response.header(told), 0), "{path}");
    let text =
        base64::Engine::decode(&base64::engine::general_purpose::STANDARD, response.header(told)).unwrap();
    serde_json::from_slice(&text).unwrap()
}

#[test]
fn out_of_a_container() {
    let host = Host::new();
    box_with_volumes(&host);
    let to = host.folder().join("out");
    let shown = to.display().to_string();
    fs::create_dir(&to).unwrap();
    for running in [true, false] {
        host.docker(&format!("cp box:/a/f {shown}/f")).ok();
        assert_eq!(fs::read_to_string(to.join("f")).unwrap(), "hi\n");
        assert_eq!(fs::metadata(to.join("f")).unwrap().permissions().mode() & 0o7777, 0o4755);
        host.docker(&format!("cp box:/a {shown}/tree")).ok();
        assert_eq!(fs::read_link(to.join("tree/l")).unwrap().to_str(), Some("f"));
        assert!(to.join("tree/b").is_dir());
        host.docker(&format!("cp box:/a/. {shown}")).ok();
        assert!(to.join("broken").is_symlink());
        host.docker(&format!("cp box:/a/l {shown}/link")).ok();
        assert!(to.join("link").is_symlink());
        host.docker(&format!("cp -L box:/a/l {shown}/followed")).ok();
        assert!(to.join("followed").is_file() && !to.join("followed").is_symlink());
        host.docker(&format!("cp box:/vl/x {shown}/x")).ok();
        assert_eq!(fs::read_to_string(to.join("x")).unwrap(), "v\n", "volumes are there, running: {running}");
        host.docker(&format!("cp box:/etc/hosts {shown}/hosts")).ok();
        assert!(fs::read_to_string(to.join("hosts")).unwrap().contains("localhost"));
        host.docker(&format!("cp box:/nosuch {shown}/"))
            .fails(1, "Could not find the file /nosuch in container box");
        host.docker(&format!("cp box:/proc/1/status {shown}/"))
            .fails(1, "Could not find the file /proc/1/status in container box");
        host.docker("cp box:/a -").contains("a/b/");
        for entry in fs::read_dir(&to).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() && !path.is_symlink() {
                fs::remove_dir_all(path)
            } else {
                fs::remove_file(path)
            }
            .unwrap();
        }
        if running {
            host.docker("stop -t 0 box").ok();
        }
    }
    host.docker("cp nosuch:/x /tmp").fails(1, "No such container: nosuch");
}

#[test]
fn what_a_path_is() {
    let host = Host::new();
    box_with_volumes(&host);
    let check = |path: &str, name: &str, mode: u64, target: &str| {
        let stat = stat(&host, path);
        assert_eq!((&stat["name"], &stat["linkTarget"]), (&name.into(), &target.into()), "{path}");
        assert_eq!(stat["mode"], mode, "{path}");
    };
    check("/a/f", "f", 8_389_101, "");
    check("/a", "a", 2_147_484_141, "");
    check("/a/.", ".", 2_147_484_141, "");
    check("/a/l", "l", 134_218_239, "/a/f");
    check("/a/broken", "broken", 134_218_239, "/nowhere");
    check("/a/ld/", "ld", 2_147_484_141, "");
    check("/a/../a/f", "f", 8_389_101, "");
    let refused = |query: &str, status: u16| {
        let path = format!("/containers/box/archive{query}");
        host.connect().request("GET", &path, &[], b"").expect(status).message()
    };
    assert_eq!(refused("", 400), "bad parameter: pathcannot be empty");
    assert_eq!(refused("?path=/nosuch", 404), "Could not find the file /nosuch in container box");
    assert_eq!(refused("?path=/a/f/x", 500), "lstat /a/f/x: not a directory");
}

#[test]
fn into_a_container() {
    let host = Host::new();
    box_with_volumes(&host);
    let from = host.folder().join("in");
    fs::create_dir_all(from.join("sub")).unwrap();
    fs::write(from.join("one"), "one").unwrap();
    fs::write(from.join("sub/two"), "two").unwrap();
    fs::set_permissions(from.join("one"), fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(from.join("one"), Some(5), Some(6)).unwrap();
    let shown = from.display().to_string();
    for target in ["/a", "/vol", "/vl/.", "/a/ld"] {
        host.docker(&format!("cp {shown}/one box:{target}/one")).ok();
        host.docker(&format!("exec box stat -c '%a %u %g' {target}/one")).prints("600 5 6");
    }
    host.docker(&format!("cp -a {shown}/one box:/a/one")).ok();
    host.docker("exec box stat -c '%u %g' /a/one").prints("5 6");
    host.docker(&format!("cp {shown} box:/new")).ok();
    host.docker("exec box cat /new/sub/two").prints("two");
    host.docker(&format!("cp {shown}/. box:/new/sub")).ok();
    host.docker("exec box ls /new/sub/sub").prints("two");
    host.docker(&format!("cp {shown}/one box:/nosuch/")).fails(1, "");
    host.docker(&format!("cp {shown}/one box:/ro/one")).fails(1, "mounted volume is marked read-only");
    host.docker(&format!("cp {shown}/one box:/a/b")).ok();
    host.docker(&format!("cp {shown} box:/a/one")).fails(1, "");
    // Into a stopped one, too, and into its volumes.
    host.docker("stop -t 0 box").ok();
    host.docker(&format!("cp {shown}/sub/two box:/a/two")).ok();
    host.docker(&format!("cp {shown}/sub/two box:/vol/two")).ok();
    host.docker("run --rm -v data:/d busybox cat /d/two").prints("two");
    host.docker("start box").ok();
    host.docker("exec box cat /a/two").prints("two");
    // One that has never run.
    host.docker("create --name fresh -u 1000:1001 -v data:/vol busybox cat /given /vol/two").ok();
    host.docker(&format!("cp {shown}/sub/two fresh:/given")).ok();
    host.docker("start -a fresh").prints("twotwo");

    host.docker("run -d --name fixed --read-only -v data:/vol -u 1000:1001 busybox sleep 600").ok();
    host.docker(&format!("cp {shown}/one fixed:/etc/one")).fails(1, "container rootfs is marked read-only");
    host.docker(&format!("cp -a {shown}/one fixed:/vol/owned")).ok();
    host.docker("exec fixed stat -c '%u %g' /vol/owned").prints("1000 1001");
}

#[test]
fn what_does_not_fit_is_refused() {
    let host = Host::new();
    box_with_volumes(&host);
    let put = |query: &str, body: &[u8]| {
        let path = format!("/containers/box/archive?{query}");
        host.connect().request("PUT", &path, &[("Content-Type", "application/x-tar")], body)
    };
    let tar = |folder: &str, options: &[&str]| {
        let output =
            std::process::Command::new("tar").args(["-C", folder, "-c"]).args(options).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    let scene = host.folder().join("scene");
    fs::create_dir_all(scene.join("f")).unwrap();
    fs::write(scene.join("b"), "file").unwrap();
    symlink("/vol", scene.join("link")).unwrap();
    let scene = scene.display().to_string();
    let told = |query: &str, body: &[u8], status: u16| put(query, body).expect(status).message();
    assert_eq!(
        told("path=/a&noOverwriteDirNonDir=1", &tar(&scene, &["b"]), 500),
        "cannot overwrite directory \"b\" with non-directory \"/a\""
    );
    assert_eq!(
        told("path=/a&noOverwriteDirNonDir=true", &tar(&scene, &["f"]), 500),
        "cannot overwrite non-directory \"f\" with directory \"/a\""
    );
    assert_eq!(told("path=/a/f", &tar(&scene, &["b"]), 400), "extraction point is not a directory");
    assert_eq!(
        told("path=/nosuch", &tar(&scene, &["b"]), 404),
        "Could not find the file /nosuch in container box"
    );
    assert_eq!(
        told("path=/a", &tar(&scene, &["-P", "--transform", "s,^,../../../,", "b"]), 500),
        "invalid entry name \"../../../b\""
    );
    assert_eq!(told("path=/a", b"garbage", 500), "unexpected EOF");
    put("path=/a", b"").expect(200);
    // Links in the archive lead nowhere but into the folder that it is unpacked in.
    let mut through = tar(&scene, &["link"]);
    through.truncate(512);
    fs::create_dir(format!("{scene}/deep")).unwrap();
    fs::write(format!("{scene}/deep/hidden"), "").unwrap();
    through.extend(tar(&scene, &["--transform", "s,^deep,link,", "deep/hidden"]));
    put("path=/a/b", &through).expect(200);
    host.docker("exec box ls /vol").prints("x");
    host.docker("exec box ls /a/b/vol").prints("hidden");
    let volume = host.root().join("data/volumes/data/_data/x");
    assert_eq!(fs::metadata(volume).unwrap().size(), 2);
}

#[test]
fn a_stopped_container_is_not_started_in_the_middle() {
    let host = Host::new();
    host.docker("run --name box busybox sh -c 'head -c 64000000 /dev/zero >/big'").ok();
    // A client that has asked, and reads no further for now.
    let mut slow = std::os::unix::net::UnixStream::connect(host.root().join("socket")).unwrap();
    let request = b"GET /containers/box/archive?path=/big HTTP/1.1\r\nHost: x\r\n\r\n";
    std::io::Write::write_all(&mut slow, request).unwrap();
    let mut head = [0; 15];
    std::io::Read::read_exact(&mut slow, &mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 200 OK");
    let mut start = host.docker_command("start box").spawn().unwrap();
    // That nothing happens takes its time.
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert!(start.try_wait().unwrap().is_none(), "its file system is being read as it was left");
    drop(slow);
    assert!(start.wait().unwrap().success());
    host.docker("wait box").prints("0");
}
