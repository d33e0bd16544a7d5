//! Options of mounts that concern all below them, or the root file system.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Bundle, Outcome};

fn mount(args: &[&str]) {
    assert!(Command::new("mount").args(args).status().unwrap().success(), "mount {args:?}");
}

/// A folder that is a mount with another one below, until it goes.
struct Tree {
    path: std::path::PathBuf,
}

impl Tree {
    fn new(path: &Path) -> Self {
        fs::create_dir(path).unwrap();
        mount(&["-t", "tmpfs", "none", path.to_str().unwrap()]);
        let below = path.join("below");
        fs::create_dir(&below).unwrap();
        mount(&["-t", "tmpfs", "none", below.to_str().unwrap()]);
        for folder in [path, &below] {
            fs::write(folder.join("file"), "").unwrap();
            std::os::unix::fs::chown(folder.join("file"), Some(5000), Some(5000)).unwrap();
        }
        Tree { path: path.to_owned() }
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = Command::new("umount").args(["-R", "-l"]).arg(&self.path).status();
    }
}

/// The flags of `/a` and `/a/below` in a container that has the tree there, with these options.
fn flags(options: &[&str]) -> Vec<Vec<String>> {
    let bundle = Bundle::new().sh("while read -r _ point _ flags _; do case $point in /a|/a/below) echo $flags;; esac; done < /proc/self/mounts");
    let tree = Tree::new(&bundle.path().join("tree"));
    let outcome = bundle
        .mount(json!({ "destination": "/a", "type": "bind", "source": tree.path, "options": options }))
        .run();
    let lines = outcome.stdout.lines();
    lines.map(|line| line.split(',').map(str::to_owned).collect()).collect()
}

#[test]
fn recursive_flags() {
    for (option, flag) in [
        ("ro", "ro"),
        ("nosuid", "nosuid"),
        ("nodev", "nodev"),
        ("noexec", "noexec"),
        ("noatime", "noatime"),
        ("nodiratime", "nodiratime"),
        ("nosymfollow", "nosymfollow"),
    ] {
        for (prefix, below) in [("", false), ("r", true)] {
            let option = format!("{prefix}{option}");
            let seen = flags(&["rbind", &option]);
            let has: Vec<bool> = seen.iter().map(|flags| flags.iter().any(|f| f == flag)).collect();
            assert_eq!(has, [true, below], "{option}: {seen:?}");
        }
    }
    // the reverse: cleared for all below
    let seen = flags(&["rbind", "ro", "rrw"]);
    assert!(seen[1].contains(&"rw".to_owned()), "{seen:?}");
}

fn owners(option: &str, mappings: Option<Value>) -> Outcome {
    let map = json!([{ "containerID": 0, "hostID": 200_000, "size": 65536 }]);
    let mut bundle = Bundle::new().sh("stat -c %u /a/file /a/below/file");
    let open: fs::Permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(bundle.path(), open).unwrap();
    bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" }));
    fs::create_dir(bundle.rootfs_path().join("a")).unwrap();
    let tree = Tree::new(&bundle.path().join("tree"));
    let mut bind =
        json!({ "destination": "/a", "type": "bind", "source": tree.path, "options": ["rbind", option] });
    if let Some(mappings) = mappings {
        bind["uidMappings"] = mappings.clone();
        bind["gidMappings"] = mappings;
    }
    bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map).mount(bind).run()
}

/// By the mappings of the mount, or those in the option, as crun has it; `idmap` for the mount itself, `ridmap` for all below.
#[test]
fn mapped_ids_of_all_below() {
    let own = json!([{ "containerID": 5000, "hostID": 200_007, "size": 1 }]);
    assert_eq!(owners("ridmap", Some(own.clone())).stdout, "7\n7\n");
    assert_eq!(owners("idmap", Some(own)).stdout, "7\n65534\n");
    assert_eq!(owners("ridmap=uids=5000-200008-1;gids=5000-200008-1", None).stdout, "8\n8\n");
    assert_eq!(owners("idmap=uids=5000-200008-1#1-1-1;gids=5000-200008-1", None).stdout, "8\n65534\n");
    assert_eq!(
        owners("ridmap=uids=@5000-9-1;gids=@5000-9-1", None).stdout,
        "9\n9\n",
        "relative to the container"
    );
}

#[test]
fn mappings_in_an_option_that_make_no_sense() {
    for (option, expect) in [
        ("idmap=uids=1-2", "mounts.options: \"idmap=uids=1-2\" is not like idmap=uids="),
        ("idmap=", "is not like idmap=uids="),
    ] {
        let bind =
            json!({ "destination": "/a", "type": "bind", "source": "/tmp", "options": ["bind", option] });
        let error = Bundle::new().mount(bind).try_run().unwrap_err().to_string();
        assert!(error.contains(expect), "{error}");
    }
    let both = json!({ "destination": "/a", "type": "bind", "source": "/tmp", "options": ["bind", "idmap=uids=0-1-1;gids=0-1-1"],
        "uidMappings": [{ "containerID": 0, "hostID": 1, "size": 1 }], "gidMappings": [{ "containerID": 0, "hostID": 1, "size": 1 }] });
    let error = Bundle::new().mount(both).try_run().unwrap_err().to_string();
    assert!(error.contains("mounts.uidMappings: the option idmap has mappings already"), "{error}");
}

#[test]
fn propagation_of_the_root() {
    let root = |propagation: &str| {
        let bundle = Bundle::new()
            .sh("while read -r _ _ _ _ point rest; do case $point in /) echo $rest;; esac; done < /proc/self/mountinfo")
            .set("/linux/rootfsPropagation", json!(propagation));
        let tags = bundle.run().stdout;
        let optional = tags.split(" - ").next().unwrap().split(' ').skip(1);
        optional.map(|tag| tag.split(':').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for (propagation, expect) in [
        ("shared", &["shared"][..]),
        ("rshared", &["shared"]),
        ("private", &[]),
        ("rprivate", &[]),
        ("unbindable", &["unbindable"]),
        ("runbindable", &["unbindable"]),
    ] {
        assert_eq!(root(propagation), expect, "{propagation}");
    }
    // of a root whose file system is on a shared mount of the host, or on none: a slave shares nothing back
    for propagation in ["slave", "rslave"] {
        assert!(!root(propagation).contains(&"shared".to_owned()), "{propagation}");
    }
}
