//! Ways to change the root other than by `pivot_root`.

use std::fs;
use std::os::fd::AsFd;

use crate::support::{Bundle, Outcome, assert_no_cgroup, exec, text, wait};
use serde_json::json;
use wherry_runtime::{Container, Launch, Stdio};

fn run_without_pivot(bundle: &Bundle) -> Outcome {
    let spec = bundle.parsed();
    let (out, out_end) = std::io::pipe().unwrap();
    let null = fs::File::open("/dev/null").unwrap();
    let mut launch = Launch::new(&bundle.id, bundle.path(), &spec, &bundle.rootfs);
    launch.no_pivot = true;
    launch.stdio = Stdio::Fds { stdin: null.as_fd(), stdout: out_end.as_fd(), stderr: out_end.as_fd() };
    let (container, _) = Container::run(&launch).unwrap();
    drop(out_end);
    let stdout = text(out);
    let code = wait(&container);
    container.delete(false).unwrap();
    assert_no_cgroup(&bundle.id);
    Outcome { code, stdout, stderr: String::new() }
}

/// The host's tree stays in the mount namespace, but not its procfs: with one that is whole in sight, a container could mount
/// one of its own that nothing masks.
#[test]
fn without_pivot_root() {
    let outcome =
        run_without_pivot(&Bundle::new().sh("ls /; ls /proc/1/root; pwd; cat /proc/self/mountinfo"));
    assert!(outcome.stdout.starts_with("bin\n") && outcome.code == 0, "{}", outcome.stdout);
    assert!(!outcome.stdout.contains("rootfs\n"), "{}", outcome.stdout);
    let caps = json!(["CAP_SETFCAP", "CAP_SETUID", "CAP_SETGID"]);
    let bundle = Bundle::new()
        .set("/process/capabilities", json!({ "bounding": caps, "effective": caps, "permitted": caps }));
    let script =
        "unshare -mrpf sh -c 'id -u; mount -t proc none /proc && echo h > /proc/sysrq-trigger' 2>&1; echo $?";
    let outcome = run_without_pivot(&bundle.sh(script));
    assert_eq!(outcome.stdout, "0\nmount: permission denied (are you root?)\n1\n");
}

/// Hooks see the host's tree before the root is moved.
#[test]
fn without_pivot_root_and_with_hooks() {
    let mut bundle = Bundle::new().sh("cat /made");
    let file = bundle.rootfs_path().join("made");
    let write = |text: &str| json!([{ "path": "/bin/sh", "args": ["sh", "-c", format!("echo {text} >> {}", file.display())] }]);
    bundle.spec["hooks"] = json!({ "createRuntime": write("one"), "createContainer": write("two") });
    assert_eq!(run_without_pivot(&bundle).stdout, "one\ntwo\n");
}

fn mounts_below(bundle: &Bundle) -> usize {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().filter(|line| line.contains(bundle.path().to_str().unwrap())).count()
}

fn in_the_hosts_mount_namespace() -> Bundle {
    let mut bundle = Bundle::new();
    bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "mount");
    bundle
}

/// Its mounts are the host's for as long as it is there, and go with it.
#[test]
fn in_the_mount_namespace_of_the_host() {
    let bundle = in_the_hosts_mount_namespace().sh("echo started > /started; exec sleep 1000");
    let container = bundle.start();
    crate::support::eventually("it runs", || bundle.rootfs_path().join("started").exists());
    let seen = mounts_below(&bundle);
    let process = json!({ "args": ["sh", "-c", "ls /; cat /started; ls /proc/1/exe; pwd; cat /proc/interrupts"],
        "cwd": "/tmp", "user": { "uid": 0, "gid": 0 }, "env": ["PATH=/bin"] });
    let inside = exec(&container, process);
    container.delete(true).unwrap();
    let (code, output) = inside.unwrap();
    assert!(code == 0 && output.starts_with("bin\ndev\n"), "{code} {output}");
    assert!(output.ends_with("started\n/proc/1/exe\n/tmp\n"), "{output}");
    assert!(seen > 10, "{seen} mounts");
    assert_eq!(mounts_below(&bundle), 0);
    assert_no_cgroup(&bundle.id);
    // what the host had there before stays
    let rootfs = bundle.rootfs_path();
    let mounted =
        std::process::Command::new("mount").arg("--bind").args([&rootfs, &rootfs]).status().unwrap();
    assert!(mounted.success());
    let outcome = bundle.sh("echo done").try_run();
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let left = table.lines().filter(|line| line.contains(rootfs.to_str().unwrap())).count();
    let unmounted = std::process::Command::new("umount").arg(&rootfs).status().unwrap();
    assert!(unmounted.success());
    assert_eq!((outcome.unwrap().stdout.as_str(), left), ("done\n", 1));
}

#[test]
fn a_failure_leaves_nothing_on_the_host() {
    let mut bundle = in_the_hosts_mount_namespace().args(&["/no/such/program"]);
    assert!(bundle.try_run().unwrap_err().to_string().contains("no such file"));
    assert_eq!(mounts_below(&bundle), 0);
    bundle.rootfs = wherry_runtime::RootfsSource::Overlay {
        lower: vec![bundle.rootfs_path()],
        upper: bundle.path().join("upper"),
        work: bundle.path().join("work"),
    };
    let error = bundle.try_run().unwrap_err().to_string();
    assert!(error.starts_with("an overlay in the host's mount namespace is not supported"), "{error}");
}
