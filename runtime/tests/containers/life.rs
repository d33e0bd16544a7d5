//! Life of a container: made, limited, paused, removed.

use std::fs;

use crate::support::{Bundle, assert_no_cgroup, cgroup_folders, eventually, exec, wait};
use serde_json::json;
use wherry_runtime::{Container, Launch, Status};

#[test]
fn cgroup_limits() {
    let bundle = Bundle::new()
        .args(&["sleep", "100"])
        .set("/linux/resources/memory", json!({ "limit": 33554432, "swap": 33554432 }))
        .set("/linux/resources/pids", json!({ "limit": 17 }))
        .set("/linux/resources/cpu", json!({ "shares": 512, "quota": 50000, "period": 100000 }));
    let container = bundle.start();
    let stats = container.stats().unwrap();
    assert_eq!(stats.memory.limit_bytes, 33554432);
    assert_eq!(stats.pids.limit, Some(17));
    assert!(stats.pids.current >= 1);
    assert!(stats.memory.usage_bytes > 0);
    let folders = cgroup_folders(&bundle.id);
    let read = |name: &str| folders.iter().find_map(|f| fs::read_to_string(f.join(name)).ok());
    assert!(read("cpu.shares").is_some_and(|t| t == "512\n") || read("cpu.weight").is_some());
    assert!(
        read("cpu.cfs_quota_us").is_some_and(|t| t == "50000\n")
            || read("cpu.max").is_some_and(|t| t == "50000 100000\n")
    );
    container
        .update(&serde_json::from_value(json!({ "memory": { "limit": 67108864, "swap": 134217728 }, "pids": { "limit": -1 }, "cpu": { "quota": 20000 } })).unwrap())
        .unwrap();
    let stats = container.stats().unwrap();
    assert_eq!((stats.memory.limit_bytes, stats.pids.limit), (67108864, None));
    container.delete(true).unwrap();
    assert_no_cgroup(&bundle.id);
}

#[test]
fn want_of_memory_is_told() {
    let bundle = Bundle::new()
        .sh("sleep 0.3; x=$(dd if=/dev/zero bs=1M count=64 2>/dev/null | tail -c 60000000); echo $x | wc -c")
        .set("/linux/resources/memory", json!({ "limit": 8388608, "swap": 8388608 }));
    let container = bundle.start();
    let watch = container.oom_watch().expect("a memory cgroup");
    wait(&container);
    assert!(container.oom_kill_count() >= 1);
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    let poll = &mut [rustix::event::PollFd::new(&watch, rustix::event::PollFlags::IN)];
    assert_eq!(rustix::event::poll(poll, Some(&now)), Ok(1));
    container.delete(false).unwrap();
    assert_no_cgroup(&bundle.id);
}

#[test]
fn pause_and_resume() {
    let bundle = Bundle::new().sh("i=0; while true; do i=$((i+1)); echo $i > /tmp/count; done");
    let container = bundle.start();
    let count = || fs::read_to_string(bundle.rootfs_path().join("tmp/count")).unwrap_or_default();
    eventually("it counts", || !count().is_empty());
    container.pause().unwrap();
    assert_eq!(container.status(), Status::Paused);
    assert!(container.pause().is_err());
    let process = json!({ "user": { "uid": 0, "gid": 0 }, "cwd": "/", "args": ["true"] });
    assert_eq!(
        exec(&container, process).unwrap_err().to_string(),
        "cannot exec in a container that is paused"
    );
    let before = count();
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_eq!(count(), before);
    container.resume().unwrap();
    assert_eq!(container.status(), Status::Running);
    eventually("it goes on", || count() != before);
    container.pause().unwrap();
    container.delete(true).unwrap();
    assert_no_cgroup(&bundle.id);
}

#[test]
fn create_then_start() {
    let bundle = Bundle::new().sh("echo ran > /tmp/mark");
    let spec = bundle.parsed();
    let launch = Launch::new(&bundle.id, bundle.path(), &spec, &bundle.rootfs);
    let (mut container, _) = Container::create(&launch).unwrap();
    assert_eq!(container.status(), Status::Created);
    assert!(!bundle.rootfs_path().join("tmp/mark").exists());
    container.start().unwrap();
    assert!(container.start().is_err());
    assert_eq!(wait(&container), 0);
    assert_eq!(container.status(), Status::Stopped);
    assert!(bundle.rootfs_path().join("tmp/mark").exists());
    container.delete(false).unwrap();
}

#[test]
fn a_created_container_can_be_deleted() {
    let bundle = Bundle::new();
    let spec = bundle.parsed();
    let (container, _) =
        Container::create(&Launch::new(&bundle.id, bundle.path(), &spec, &bundle.rootfs)).unwrap();
    container.delete(true).unwrap();
    assert_no_cgroup(&bundle.id);
}

#[test]
fn another_process_can_start_it() {
    let bundle = Bundle::new().args(&["sleep", "100"]);
    let spec = bundle.parsed();
    let mut launch = Launch::new(&bundle.id, bundle.path(), &spec, &bundle.rootfs);
    launch.start_socket_in = Some(bundle.path());
    let (container, _) = Container::create(&launch).unwrap();
    let saved = serde_json::to_string(&container.save().unwrap()).unwrap();
    let opened: wherry_runtime::SavedState = serde_json::from_str(&saved).unwrap();
    let mut opened = opened.open().unwrap().unwrap();
    assert_eq!(opened.status(), Status::Created);
    opened.start().unwrap();
    assert_eq!(opened.status(), Status::Running);
    assert!(opened.start().is_err());
    container.delete(true).unwrap();
    assert_no_cgroup(&bundle.id);
}

#[test]
fn hooks_run_in_their_order_and_place() {
    let bundle = Bundle::new().sh("echo program >> /log; cat /log");
    let log = bundle.rootfs_path().join("log");
    let script = |name: &str, path: &std::path::Path, shell: &str| json!({ "path": shell, "args": ["sh", "-c", format!("head -c 1 > /dev/null; echo {name} >> {}", path.display())] });
    let inside = std::path::Path::new("/log");
    let bundle = bundle.set(
        "/hooks",
        json!({
            "prestart": [script("prestart", &log, "/bin/sh")],
            "createRuntime": [script("createRuntime", &log, "/bin/sh")],
            "createContainer": [script("createContainer", &log, "/bin/sh")],
            "startContainer": [script("startContainer", inside, "/bin/sh")],
            "poststop": [script("poststop", &log, "/bin/sh")],
        }),
    );
    let outcome = bundle.run();
    assert_eq!(
        outcome.stdout, "prestart\ncreateRuntime\ncreateContainer\nstartContainer\nprogram\n",
        "{}",
        outcome.stderr
    );
    assert!(fs::read_to_string(&log).unwrap().ends_with("poststop\n"));
    let error = Bundle::new()
        .set("/hooks", json!({ "createRuntime": [{ "path": "/bin/false" }] }))
        .try_run()
        .unwrap_err();
    assert!(error.to_string().starts_with("error running createRuntime hook #0: "), "{error}");
    let error = Bundle::new()
        .set("/hooks", json!({ "createContainer": [{ "path": "/bin/false" }] }))
        .try_run()
        .unwrap_err();
    assert_eq!(error.to_string(), "error running createContainer hook #0: exit status 1");
    let error = Bundle::new()
        .set(
            "/hooks",
            json!({ "createContainer": [{ "path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1 }] }),
        )
        .try_run()
        .unwrap_err();
    assert_eq!(error.to_string(), "error running createContainer hook #0: timed out");
}

/// The child must not depend on locks that other threads hold.
#[test]
fn fifty_containers_from_eight_threads() {
    // made before: a file that is being written cannot be executed, and forks inherit the descriptor
    let bundles: Vec<Bundle> = (0..50).map(|_| Bundle::new().sh("echo $((6*7))")).collect();
    let busy = std::sync::atomic::AtomicBool::new(true);
    std::thread::scope(|scope| {
        // a ninth thread keeps the allocator's locks busy
        scope.spawn(|| {
            while busy.load(std::sync::atomic::Ordering::Relaxed) {
                std::hint::black_box(vec![vec![0_u8; 100]; 1000]);
            }
        });
        let workers: Vec<_> = bundles
            .chunks(7)
            .map(|chunk| scope.spawn(move || chunk.iter().map(Bundle::try_run).collect::<Vec<_>>()))
            .collect();
        assert_eq!(workers.len(), 8);
        let results: Vec<_> = workers.into_iter().map(|worker| worker.join()).collect();
        busy.store(false, std::sync::atomic::Ordering::Relaxed);
        for result in results {
            for outcome in result.unwrap() {
                let outcome = outcome.unwrap();
                assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "42\n"));
            }
        }
    });
}
