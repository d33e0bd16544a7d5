//! Limits as the kernel has them afterwards, and what they do. On whatever version of cgroups this machine has: `make
//! test-vm` runs the same tests on version 2 with systemd, and those that are ignored elsewhere.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod effects;
mod limits;
mod systemd;
mod updates;

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use support::{Bundle, cgroup_folders, unified};
use wherry_runtime::{CgroupManager, Container, Error, Launch, Stdio};

/// A container's folder in the hierarchy of a controller.
fn folder(path: &str, controller: &str) -> PathBuf {
    let path = path.trim_start_matches('/');
    let base = Path::new("/sys/fs/cgroup");
    if unified() { base.join(path) } else { base.join(controller).join(path) }
}

/// The text of a limit's file, which has one name in each version.
fn value(path: &str, v1: &str, v2: &str) -> String {
    let name = if unified() { v2 } else { v1 };
    let controller = name.split('.').next().unwrap();
    let file = folder(path, controller).join(name);
    fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display())).trim().to_owned()
}

/// Makes a container that waits, with no standard I/O.
fn create(bundle: &Bundle, manager: CgroupManager) -> Result<Container, Error> {
    let spec = bundle.parsed();
    let null = fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap();
    let mut launch = Launch::new(&bundle.id, bundle.path(), &spec, &bundle.rootfs);
    launch.cgroup_manager = manager;
    launch.stdio = Stdio::Fds { stdin: null.as_fd(), stdout: null.as_fd(), stderr: null.as_fd() };
    Container::create(&launch).map(|(container, _)| container)
}

/// Why a container with these resources cannot be made; nothing is left of it.
fn refused(resources: serde_json::Value) -> String {
    let bundle = Bundle::new().set("/linux/resources", resources.clone());
    let error = match create(&bundle, CgroupManager::Cgroupfs) {
        Err(error) => error.to_string(),
        Ok(container) => {
            container.delete(true).unwrap();
            panic!("{resources} is accepted");
        }
    };
    let left = cgroup_folders(&bundle.id);
    assert!(left.is_empty(), "{resources} leaves {left:?}");
    assert!(!error.contains('\n'), "{error}");
    error
}

fn resources(json: serde_json::Value) -> oci_spec::runtime::LinuxResources {
    serde_json::from_value(json).unwrap()
}
