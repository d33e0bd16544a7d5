//! CVE-2025-31133, CVE-2025-52565: what a mask or a console is made of is exchanged while it is mounted.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use serde_json::json;

use crate::stage::{Outside, Stage, Swapper, text};
use crate::support::Bundle;

/// A `/dev` that containers share with the attacker.
fn shared_dev() -> tempfile::TempDir {
    let dev = tempfile::tempdir().unwrap();
    for (name, minor) in [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)] {
        node(&dev.path().join(name), 1, minor);
    }
    for name in ["pts", "shm", "mqueue"] {
        fs::create_dir(dev.path().join(name)).unwrap();
    }
    dev
}

fn node(path: &Path, major: u32, minor: u32) {
    mknodat(CWD, path, FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(major, minor)).unwrap();
}

fn with_dev(dev: &Path) -> Bundle {
    let mut bundle = Bundle::new();
    for mount in bundle.spec["mounts"].as_array_mut().unwrap() {
        if mount["destination"] == "/dev" {
            *mount = json!({ "destination": "/dev", "type": "bind", "source": dev, "options": ["rbind"] });
        }
    }
    bundle.set("/linux/maskedPaths", json!(["/proc/interrupts", "/proc/keys"]))
}

/// Masks are the null device, or there is no container.
#[test]
fn mask_of_something_else_is_refused() {
    let outside = Outside::new();
    for kind in ["link", "file", "zero", "fifo", "missing"] {
        let dev = shared_dev();
        let null = dev.path().join("null");
        fs::remove_file(&null).unwrap();
        match kind {
            "link" => symlink(outside.path().join("core_pattern"), &null).unwrap(),
            "file" => fs::write(&null, "fake").unwrap(),
            "zero" => node(&null, 1, 5),
            "fifo" => mknodat(CWD, &null, FileType::Fifo, Mode::RUSR, 0).unwrap(),
            _ => {}
        }
        let error = with_dev(dev.path()).try_run().unwrap_err().to_string();
        assert!(error.starts_with("mask path"), "{kind}: {error}");
        outside.check(kind);
    }
}

#[test]
fn null_swapped_while_masking() {
    let dev = shared_dev();
    let decoy = dev.path().join("decoy");
    symlink("/proc/sys/kernel/core_pattern", &decoy).unwrap();
    let bundle = with_dev(dev.path()).sh("stat -c %t:%T /proc/interrupts");
    let count = tempfile::NamedTempFile::new().unwrap();
    let swapper = Swapper::start(&dev.path().join("null"), &decoy, count.path());
    let deadline = Instant::now() + Duration::from_secs(2);
    let (mut masked, mut refused) = (0, 0);
    while Instant::now() < deadline || (masked + refused < 5) {
        match bundle.try_run() {
            Ok(outcome) if outcome.stdout == "1:3\n" => masked += 1,
            Ok(outcome) => panic!("masked with something else: {outcome:?}"),
            Err(error) => {
                assert!(error.to_string().starts_with("mask path"), "{error}");
                refused += 1;
            }
        }
    }
    assert!(swapper.swaps() > 1000, "{masked} masked, {refused} refused, {} swaps", swapper.swaps());
}

/// The console is a mount of the terminal that the runtime holds open, on a node that is not followed.
#[test]
fn console_swapped_while_mounting() {
    let outside = Outside::new();
    let dev = shared_dev();
    let (console, decoy) = (dev.path().join("console"), dev.path().join("decoy"));
    fs::write(&console, "").unwrap();
    symlink("/proc/sys/kernel/core_pattern", &decoy).unwrap();
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    let bundle = with_dev(dev.path())
        .set("/process/terminal", json!(true))
        .set("/linux/maskedPaths", json!([]))
        .sh("test -t 0 && stat -c %t /dev/console && grep -c core_pattern /proc/self/mountinfo");
    let stage = Stage::new(bundle);
    let count = tempfile::NamedTempFile::new().unwrap();
    let swapper = Swapper::start(&console, &decoy, count.path());
    let deadline = Instant::now() + Duration::from_secs(2);
    let mut runs = 0;
    while Instant::now() < deadline || runs < 3 {
        let output = stage.run();
        // the mount table has no core_pattern in it: grep -c says 0
        assert!(!text(&output).contains("\n1"), "{}", text(&output));
        runs += 1;
    }
    assert!(swapper.swaps() > 1000, "{runs} runs, {} swaps", swapper.swaps());
    assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), pattern);
    outside.check("console");
}
