//! The library in a program with many threads: 50 containers from 8 of them, and nothing is left.
//!
//! Needs root and Debian's `busybox-static`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/mod.rs"]
mod support;

use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use serde_json::json;
use support::{Bundle, assert_no_cgroup, wait, wait_pidfd};
use wherry_runtime::{Container, ExecOptions, Launch, Status, Stdio};

const CONTAINERS: usize = 50;
const THREADS: usize = 8;

#[test]
fn many_containers_from_many_threads() {
    // what the process opens once and keeps
    live(&Bundle::new());
    let before = open_descriptors();
    // made before: a program that is being written cannot be executed, and children of other threads keep it open for a while
    let bundles: Vec<Bundle> = (0..CONTAINERS).map(|_| Bundle::new()).collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        // specifications are parsed in all threads, which keeps the allocator and its locks busy while others make children
        let work = || {
            while let Some(bundle) = bundles.get(next.fetch_add(1, Ordering::Relaxed)) {
                live(bundle);
            }
        };
        let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(work)).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    assert_eq!(open_descriptors(), before, "descriptors are left open");
    let children = waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    assert_eq!(children.map(drop), Err(Errno::CHILD), "processes are left, dead or alive");
    for bundle in &bundles {
        assert_no_cgroup(&bundle.id);
    }
}

/// A container's life: create, start, exec, pause, resume, kill, delete.
fn live(bundle: &Bundle) {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap();
    let stdio = Stdio::Fds { stdin: null.as_fd(), stdout: null.as_fd(), stderr: null.as_fd() };
    let mut spec = bundle.parsed();
    let process = json!({ "user": { "uid": 0, "gid": 0 }, "cwd": "/", "args": ["/bin/sleep", "1000"] });
    spec.set_process(Some(serde_json::from_value(process).unwrap()));
    let mut launch = Launch::new(&bundle.id, bundle.path(), &spec, &bundle.rootfs);
    launch.stdio = stdio;
    let (mut container, _) = Container::create(&launch).unwrap();
    assert_eq!(container.status(), Status::Created);
    container.start().unwrap();
    assert_eq!(container.status(), Status::Running);
    let process = json!({ "user": { "uid": 0, "gid": 0 }, "cwd": "/", "args": ["/bin/sh", "-c", "exit 7"] });
    let process = serde_json::from_value(process).unwrap();
    let process = container.exec(&process, stdio, &ExecOptions::default()).unwrap();
    assert_eq!(wait_pidfd(process.pidfd.as_fd()), 7);
    container.pause().unwrap();
    assert_eq!(container.status(), Status::Paused);
    container.resume().unwrap();
    assert!(container.stats().unwrap().pids.current >= 1);
    container.kill(libc::SIGKILL).unwrap();
    assert_eq!(wait(&container), 128 + libc::SIGKILL);
    assert_eq!(container.status(), Status::Stopped);
    container.delete(false).unwrap();
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}
