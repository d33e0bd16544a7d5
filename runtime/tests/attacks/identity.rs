//! Who the program is, whoever the caller was: CVE-2022-24769, CVE-2022-36109, CVE-2024-40635.

use std::process::Command;

use serde_json::{Value, json};

use crate::stage::{Stage, text};
use crate::support::Bundle;

/// A caller with inheritable and ambient capabilities and with groups of its own.
const RICH: [&str; 4] =
    ["setpriv", "--inh-caps=+chown,+kill,+net_raw", "--ambient-caps=+kill", "--groups=4242,4343"];

const SHOW: &str = "grep -E '^(CapInh|CapAmb|CapPrm|Groups):' /proc/self/status";

#[test]
fn nothing_is_inherited_from_the_caller() {
    assert!(
        Command::new("setpriv").arg("--version").status().unwrap().success(),
        "setpriv of util-linux is needed"
    );
    let none = "0000000000000000";
    for (capabilities, permitted) in [
        (
            json!({ "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"] }),
            "0000000000000020",
        ),
        (Value::Null, none),
        (json!({}), none),
    ] {
        let mut bundle =
            Bundle::new().sh(SHOW).set("/process/user", json!({ "uid": 0, "gid": 0, "additionalGids": [7] }));
        let process = bundle.spec["process"].as_object_mut().unwrap();
        if capabilities.is_null() {
            process.remove("capabilities");
        } else {
            process.insert("capabilities".into(), capabilities.clone());
        }
        let expect = format!("Groups:\t7 \nCapInh:\t{none}\nCapPrm:\t{permitted}\nCapAmb:\t{none}\n");
        let stage = Stage::new(bundle);
        let output = stage.command_through(&RICH, &["run", "-b", stage.path(), stage.id()]).output().unwrap();
        assert_eq!(text(&output), expect, "run with {capabilities}");
    }
}

#[test]
fn exec_gets_no_more_than_the_container() {
    let caps = json!(["CAP_KILL"]);
    let bundle = Bundle::new()
        .args(&["sleep", "1000"])
        .set("/process/capabilities", json!({ "bounding": caps, "effective": caps, "permitted": caps }))
        .set("/process/user", json!({ "uid": 0, "gid": 0, "additionalGids": [7] }));
    let stage = Stage::new(bundle);
    stage.start();
    let expect =
        "Groups:\t7 \nCapInh:\t0000000000000000\nCapPrm:\t0000000000000020\nCapAmb:\t0000000000000000\n";
    let output = stage.command_through(&RICH, &["exec", stage.id(), "sh", "-c", SHOW]).output().unwrap();
    assert_eq!(text(&output), expect);
    // a process that says nothing of capabilities has the container's, not the caller's
    let file = stage.bundle.path().join("process.json");
    let process = json!({ "user": { "uid": 0, "gid": 0 }, "cwd": "/", "args": ["/bin/sh", "-c", SHOW] });
    std::fs::write(&file, process.to_string()).unwrap();
    let args = ["exec", "--process", file.to_str().unwrap(), stage.id()];
    let output = stage.command_through(&RICH, &args).output().unwrap();
    assert_eq!(text(&output), expect.replace("7 ", " "));
    stage.delete();
}

/// Every id is what it says: the kernel's word for "as it was" would be root.
#[test]
fn ids_at_the_edge() {
    for (uid, gid) in [(u32::MAX - 1, u32::MAX - 1), (1 << 31, 1 << 31), (65534, 65535), (0, 1)] {
        let bundle = Bundle::new().sh("id -u; id -g").set("/process/user", json!({ "uid": uid, "gid": gid }));
        let mut bundle = bundle;
        bundle.spec["process"].as_object_mut().unwrap().remove("capabilities");
        let rootfs = bundle.rootfs_path();
        let open = <std::fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
        std::fs::set_permissions(rootfs, open).unwrap();
        assert_eq!(bundle.run().stdout, format!("{uid}\n{gid}\n"));
    }
    for field in ["uid", "gid"] {
        let mut user = json!({ "uid": 1, "gid": 1 });
        user[field] = json!(u32::MAX);
        let error = Bundle::new().set("/process/user", user).try_run().unwrap_err().to_string();
        assert!(error.contains(&format!("process.user.{field}: 4294967295 is no id")), "{error}");
    }
}
