//! Containers that become files and come back. criu must know this machine's kernel: Debian's own knows that of `make
//! test-vm`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::io::{PipeReader, PipeWriter, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use serde_json::json;
use support::{Bundle, assert_no_cgroup, eventually, exec, wait};
use wherry_runtime::{
    CheckpointOptions, Container, CriuOptions, Error, Launch, RestoreOptions, Status, Stdio,
};

/// Counts in a file, ten times a second, as a shell that is told what it was at the start.
const COUNTER: &str =
    "n=0; while :; do n=$((n + 1)); echo $n >/tmp/new; mv /tmp/new /tmp/count; echo $n; sleep 0.1; done";

fn count(bundle: &Bundle) -> u64 {
    let text = fs::read_to_string(bundle.rootfs_path().join("tmp/count")).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

fn images(bundle: &Bundle, name: &str) -> PathBuf {
    bundle.path().join(name)
}

/// Something is made with a pipe for each of its standard descriptors, whose other ends it gets as well.
fn with_pipes<T>(
    bundle: &Bundle,
    make: impl FnOnce(&Launch<'_>) -> Result<T, Error>,
) -> Result<(T, Ends), Error> {
    let spec = bundle.parsed();
    let (stdin, writer) = std::io::pipe().unwrap();
    let (out, stdout) = std::io::pipe().unwrap();
    let (err, stderr) = std::io::pipe().unwrap();
    let mut launch = Launch::new(&bundle.id, bundle.path(), &spec, &bundle.rootfs);
    launch.stdio = Stdio::Fds { stdin: stdin.as_fd(), stdout: stdout.as_fd(), stderr: stderr.as_fd() };
    make(&launch).map(|made| (made, Ends { _stdin: writer, out, _err: err }))
}

struct Ends {
    _stdin: PipeWriter,
    out: PipeReader,
    _err: PipeReader,
}

fn start(bundle: &Bundle) -> (Container, Ends) {
    with_pipes(bundle, |launch| Container::run(launch).map(|(container, _)| container)).unwrap()
}

fn restore(bundle: &Bundle, options: &CriuOptions<'_>) -> Result<(Container, Ends), Error> {
    with_pipes(bundle, |launch| {
        Container::restore(launch, options, &RestoreOptions::default()).map(|(container, _)| container)
    })
}

#[test]
#[ignore = "needs a criu that knows this kernel: make test-vm"]
fn it_goes_on_where_it_was() {
    let bundle = Bundle::new().sh(COUNTER).mount(json!({
        "destination": "/mnt/data", "type": "bind", "source": "/usr/share", "options": ["rbind", "ro"]
    }));
    let bundle = bundle.set("/linux/resources/pids", json!({ "limit": 30 }));
    let (container, _ends) = start(&bundle);
    eventually("it counts", || count(&bundle) > 3);
    let folder = images(&bundle, "images");
    let options = CriuOptions::new(&folder);
    container.checkpoint(&bundle.parsed(), &options, &CheckpointOptions::default()).unwrap();
    eventually("it has ended", || container.status() == Status::Stopped);
    wait(&container);
    container.delete(false).unwrap();
    assert_no_cgroup(&bundle.id);
    let stopped_at = count(&bundle);

    let (container, mut ends) = restore(&bundle, &options).unwrap();
    assert_eq!(container.status(), Status::Running);
    eventually("it goes on", || count(&bundle) > stopped_at + 3);
    // and its output comes to the one who has brought it back
    let mut line = [0; 8];
    let length = ends.out.read(&mut line).unwrap();
    let first: u64 = std::str::from_utf8(&line[..length]).unwrap().lines().next().unwrap().parse().unwrap();
    assert!((stopped_at..stopped_at + 5).contains(&first), "{first} after {stopped_at}");
    assert_eq!(container.stats().unwrap().pids.limit, Some(30));
    let process = json!({ "args": ["ls", "/mnt/data"], "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 } });
    let (code, text) = exec(&container, process).unwrap();
    assert!(code == 0 && !text.is_empty(), "{code} {text}");
    container.kill(libc::SIGKILL).unwrap();
    assert_eq!(wait(&container), 128 + libc::SIGKILL, "init is our child");
    container.delete(false).unwrap();
    assert_no_cgroup(&bundle.id);
}

#[test]
#[ignore = "needs a criu that knows this kernel: make test-vm"]
fn it_can_be_left_running() {
    let bundle = Bundle::new().sh(COUNTER);
    let (container, _ends) = start(&bundle);
    eventually("it counts", || count(&bundle) > 1);
    let (folder, work) = (images(&bundle, "images"), images(&bundle, "work"));
    let options = CriuOptions { work: Some(&work), ..CriuOptions::new(&folder) };
    let own = CheckpointOptions { leave_running: true, ..CheckpointOptions::default() };
    container.checkpoint(&bundle.parsed(), &options, &own).unwrap();
    assert!(work.join("dump.log").exists() && !folder.join("dump.log").exists());
    let before = count(&bundle);
    eventually("it goes on", || count(&bundle) > before + 1);
    assert_eq!(container.status(), Status::Running);
    container.delete(true).unwrap();
}

#[test]
#[ignore = "needs a criu that knows this kernel: make test-vm"]
fn what_criu_says_is_told_and_nothing_is_left() {
    let bundle = Bundle::new();
    let folder = images(&bundle, "images");
    let options = CriuOptions::new(&folder);
    let error = restore(&bundle, &options).map(drop).unwrap_err().to_string();
    assert!(error.starts_with(&format!("open {}: ", folder.display())), "{error}");
    fs::create_dir(&folder).unwrap();
    let error = restore(&bundle, &options).map(drop).unwrap_err().to_string();
    assert!(error.starts_with("criu failed: type RESTORE errno") && !error.contains('\n'), "{error}");
    assert!(error.contains("restore.log"), "{error}");
    assert_no_cgroup(&bundle.id);
    assert!(!mounts().contains(bundle.path().to_str().unwrap()));
}

fn mounts() -> String {
    fs::read_to_string(Path::new("/proc/self/mountinfo")).unwrap()
}

/// A shell's idle loop: criu's visit ends a `sleep` early.
const IDLE: &str = "while :; do sleep 1; done";

/// Saves a container, which ends, and brings it back.
fn there_and_back(bundle: &Bundle, container: Container, options: &CriuOptions<'_>) -> (Container, Ends) {
    container.checkpoint(&bundle.parsed(), options, &CheckpointOptions::default()).unwrap();
    eventually("it has ended", || container.status() == Status::Stopped);
    wait(&container);
    container.delete(false).unwrap();
    restore(bundle, options).unwrap()
}

fn process(args: &[&str]) -> serde_json::Value {
    json!({ "args": args, "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 } })
}

/// Targets that are links, mount points that are gone meanwhile, settings of the container's own, and what an exec has left.
#[test]
#[ignore = "needs a criu that knows this kernel: make test-vm"]
fn mounts_settings_and_what_an_exec_has_left() {
    let bundle = Bundle::new().sh(IDLE);
    let (outer, inner) = (bundle.path().join("outer"), bundle.path().join("inner"));
    for folder in [&outer, &inner, &bundle.rootfs_path().join("real")] {
        fs::create_dir(folder).unwrap();
    }
    fs::write(inner.join("file"), "inner\n").unwrap();
    std::os::unix::fs::symlink("/real", bundle.rootfs_path().join("link")).unwrap();
    let settings = bundle.path().join("criu.conf");
    fs::write(&settings, "log-file=own.log\n").unwrap();
    let bind = |from: &Path, to: &str| json!({ "destination": to, "type": "bind", "source": from, "options": ["bind"] });
    let bundle = bundle
        .mount(bind(&outer, "/outer"))
        .mount(bind(&inner, "/outer/for/nested"))
        .mount(bind(&inner, "/link"))
        .set("/annotations", json!({ "org.criu.config": settings }));
    let (mut container, mut ends) = start(&bundle);
    let mut left = None;
    for round in ["one", "two"] {
        let folder = images(&bundle, round);
        let options = CriuOptions::new(&folder);
        container.checkpoint(&bundle.parsed(), &options, &CheckpointOptions::default()).unwrap();
        eventually("it has ended", || container.status() == Status::Stopped);
        wait(&container);
        container.delete(false).unwrap();
        assert!(folder.join("own.log").exists() && !folder.join("dump.log").exists());
        fs::remove_dir_all(outer.join("for")).unwrap();
        (container, ends) = restore(&bundle, &options).unwrap();
        let seen = exec(&container, process(&["cat", "/outer/for/nested/file", "/real/file"])).unwrap();
        assert_eq!(seen, (0, "inner\ninner\n".to_owned()));
        if let Some(pid) = &left {
            assert_eq!(exec(&container, process(&["cat", &format!("/proc/{pid}/comm")])).unwrap().1, "sh\n");
        }
        let script = format!("sh -c '{IDLE}' </dev/null >/dev/null 2>&1 & echo $!");
        left = Some(exec(&container, process(&["sh", "-c", &script])).unwrap().1.trim().to_owned());
    }
    drop(ends);
    container.delete(true).unwrap();
    assert_no_cgroup(&bundle.id);
}

/// What criu refuses unless it is told to: the container goes on then, and is saved with the option.
#[test]
#[ignore = "needs a criu that knows this kernel: make test-vm"]
fn files_without_their_name() {
    let script =
        format!("echo kept >/tmp/a; ln /tmp/a /tmp/b; exec 3</tmp/a; rm /tmp/a; touch /tmp/ready; {IDLE}");
    let bundle = Bundle::new().sh(&script);
    let (container, _ends) = start(&bundle);
    eventually("it is ready", || bundle.rootfs_path().join("tmp/ready").exists());
    let refused = images(&bundle, "refused");
    let error = container
        .checkpoint(&bundle.parsed(), &CriuOptions::new(&refused), &CheckpointOptions::default())
        .unwrap_err();
    assert!(error.to_string().starts_with("criu failed: type DUMP errno"), "{error}");
    assert_eq!(container.status(), Status::Running);
    let folder = images(&bundle, "images");
    let options = CriuOptions { link_remap: true, ..CriuOptions::new(&folder) };
    let (container, _ends) = there_and_back(&bundle, container, &options);
    let (_, text) = exec(&container, process(&["sh", "-c", "cat /proc/1/fd/3; ls /tmp"])).unwrap();
    container.delete(true).unwrap();
    assert_eq!(text, "kept\nb\nready\n");
    assert_no_cgroup(&bundle.id);
}
