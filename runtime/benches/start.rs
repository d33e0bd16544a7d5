//! What a container's life costs in this library, and what an exec costs: `cargo bench -p wherry-runtime`.
//!
//! Needs root and Debian's `busybox-static`. Times are medians and minima of N runs (first argument, default 200);
//! they mean something beside the times of another version on the same machine only.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a program for developers")]

#[path = "../tests/support/mod.rs"]
mod support;

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use serde_json::json;
use support::{Bundle, wait, wait_pidfd};
use wherry_runtime::{Container, ExecOptions, Launch, RootfsSource, Stdio};

fn main() {
    let runs = std::env::args().filter_map(|arg| arg.parse().ok()).next().unwrap_or(200);
    let bundle = overlay_bundle();
    let spec = bundle.parsed();
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").unwrap();
    let stdio = Stdio::Fds { stdin: null.as_fd(), stdout: null.as_fd(), stderr: null.as_fd() };
    let mut launch = Launch::new(&bundle.id, bundle.path(), &spec, &bundle.rootfs);
    launch.stdio = stdio;
    let [mut start, mut exit, mut delete] = [(); 3].map(|()| Vec::new());
    for _ in 0..runs {
        let begin = Instant::now();
        let (container, _) = Container::run(&launch).unwrap();
        let started = Instant::now();
        wait(&container);
        let exited = Instant::now();
        container.delete(false).unwrap();
        start.push(started - begin);
        exit.push(exited - started);
        delete.push(exited.elapsed());
    }
    show("run: until the program is executed", start);
    show("     until it has ended and been reaped", exit);
    show("     delete", delete);

    let bundle = bundle.args(&["sleep", "1000"]);
    let container = bundle.start();
    let process = json!({ "user": { "uid": 0, "gid": 0 }, "cwd": "/", "args": ["/bin/true"] });
    let process = serde_json::from_value(process).unwrap();
    let [mut start, mut exit] = [(); 2].map(|()| Vec::new());
    for _ in 0..runs {
        let begin = Instant::now();
        let process = container.exec(&process, stdio, &ExecOptions::default()).unwrap();
        let started = Instant::now();
        wait_pidfd(process.pidfd.as_fd());
        start.push(started - begin);
        exit.push(started.elapsed());
    }
    show("exec: until the program is executed", start);
    show("     until it has ended and been reaped", exit);
    container.delete(true).unwrap();
}

/// `/bin/true` on an overlay, with an allow list of system calls like Docker's.
fn overlay_bundle() -> Bundle {
    let mut bundle = Bundle::new();
    let path = bundle.path().to_path_buf();
    for folder in ["diff", "work", "merged"] {
        std::fs::create_dir(path.join(folder)).unwrap();
    }
    bundle.rootfs = RootfsSource::Overlay {
        lower: vec![bundle.rootfs_path()],
        upper: path.join("diff"),
        work: path.join("work"),
    };
    let table = include_str!("../src/seccomp/tables/x86_64.txt");
    let names = table.lines().filter_map(|line| line.split(' ').next());
    let names: Vec<&str> =
        names.filter(|name| !matches!(*name, "mount" | "bpf" | "reboot" | "kexec_load")).collect();
    bundle.set("/root/path", json!(path.join("merged"))).set(
        "/linux/seccomp",
        json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
            "syscalls": [{ "names": names, "action": "SCMP_ACT_ALLOW" }],
        }),
    )
}

fn show(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let pick =
        |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default().as_secs_f64() * 1e3;
    println!("{what:45} median {:7.3} ms  min {:7.3}  p90 {:7.3}", pick(50), pick(0), pick(90));
}
