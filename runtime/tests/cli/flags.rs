//! What single flags do.

use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::bundle::Cli;
use crate::life::receive_fd;
use crate::support::{Bundle, eventually, text_of};

fn sleeping() -> Cli {
    Cli::new(Bundle::new().args(&["sleep", "1000"]))
}

/// Starts a container in the background with these flags of `run`.
fn run_detached(cli: &Cli, flags: &[&str]) {
    let mut command = cli.command(&[&["run", "-d", "-b", cli.path()], flags, &[cli.id()]].concat());
    let log = cli.bundle.path().join("said");
    let said = std::fs::File::create(&log).unwrap();
    let status = command.stdout(Stdio::null()).stderr(said).status().unwrap();
    assert!(status.success(), "{flags:?}: {}", std::fs::read_to_string(log).unwrap());
}

#[test]
fn pidfd_sockets() {
    let cli = sleeping();
    let path = cli.bundle.path().join("pidfd.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let pid_of = |fd: &OwnedFd| {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).unwrap();
        info.lines().find_map(|line| line.strip_prefix("Pid:").map(|pid| pid.trim().to_owned())).unwrap()
    };
    run_detached(&cli, &["--pidfd-socket", path.to_str().unwrap()]);
    let fd = receive_fd(listener.accept().unwrap().0.as_fd());
    assert_eq!(pid_of(&fd), cli.state()["pid"].to_string());
    let pid_file = cli.bundle.path().join("pid");
    let (path, pid_path) = (path.to_str().unwrap(), pid_file.to_str().unwrap());
    let mut exec = cli.command(&[
        "exec",
        "-d",
        "--pidfd-socket",
        path,
        "--pid-file",
        pid_path,
        cli.id(),
        "sleep",
        "999",
    ]);
    assert!(exec.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    let fd = receive_fd(listener.accept().unwrap().0.as_fd());
    assert_eq!(pid_of(&fd), std::fs::read_to_string(&pid_file).unwrap());
    cli.ok(&["delete", "-f", cli.id()]);
}

#[test]
fn a_container_that_is_kept() {
    let cli = Cli::new(Bundle::new().sh("exit 3"));
    assert_eq!(cli.output(&["run", "--keep", "-b", cli.path(), cli.id()]).status.code(), Some(3));
    assert_eq!(cli.state()["status"], "stopped");
    cli.ok(&["delete", cli.id()]);
    assert_eq!(cli.output(&["run", "-b", cli.path(), cli.id()]).status.code(), Some(3));
    let (_, error) = cli.fails(&["state", cli.id()]);
    assert!(error.contains("container does not exist"), "{error}");
}

/// Which keyring is whose can be seen by its name: for a moment those of containers that have ended are there, too.
#[test]
fn the_callers_keyring() {
    for (flags, own) in [(&[][..], true), (&["--no-new-keyring"], false)] {
        let cli = Cli::new(Bundle::new().args(&["cat", "/proc/keys"]).set("/linux/maskedPaths", json!([])));
        let keys = cli.ok(&[&["run"], flags, &["-b", cli.path(), cli.id()]].concat());
        assert_eq!(keys.contains(&format!("_ses.{}:", cli.id())), own, "{flags:?}: {keys}");
    }
}

#[test]
fn descriptors_that_are_preserved() {
    let cli = Cli::new(Bundle::new().sh("cat <&3; cat <&4"));
    let script = format!(
        "printf one >{0}/a; printf two >{0}/b; exec 3<{0}/a 4<{0}/b 5<{0}/a; exec {1} --root {0}/state run --preserve-fds 2 -b {0} {2}",
        cli.path(),
        env!("CARGO_BIN_EXE_wherry-runtime"),
        cli.id()
    );
    let output = std::process::Command::new("bash").args(["-c", &script]).output().unwrap();
    assert_eq!(text_of(&output.stdout), "onetwo", "{}", text_of(&output.stderr));
}

/// The root file system is moved instead of exchanged with the host's: the container does not see a difference.
#[test]
fn without_pivot_root() {
    let cli = Cli::new(Bundle::new().sh("ls /; ls /proc/1/root | wc -l"));
    let pivoted = cli.ok(&["run", "-b", cli.path(), cli.id()]);
    assert_eq!(cli.ok(&["run", "--no-pivot", "-b", cli.path(), cli.id()]), pivoted);
}

#[test]
fn privileges_are_as_they_are() {
    for (value, message) in [
        ("true", "--rootless=true for root is not supported yet"),
        ("perhaps", "invalid value \\\"perhaps\\\" for --rootless"),
    ] {
        let cli = sleeping();
        let (code, error) = cli.fails(&["--rootless", value, "list"]);
        assert!(code == 1 && error.contains(message), "{error}");
    }
    let cli = sleeping();
    for value in ["false", "auto"] {
        assert_eq!(cli.ok(&["--rootless", value, "list", "-q"]), "");
    }
}

#[test]
fn a_specification_without_privileges() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    let cli = sleeping();
    cli.ok(&["spec", "--rootless", "--bundle", path]);
    let spec: Value =
        serde_json::from_slice(&std::fs::read(folder.path().join("config.json")).unwrap()).unwrap();
    let kinds: Vec<&str> =
        spec["linux"]["namespaces"].as_array().unwrap().iter().filter_map(|n| n["type"].as_str()).collect();
    assert!(kinds.contains(&"user") && !kinds.contains(&"network"), "{kinds:?}");
    assert_eq!(spec["linux"]["uidMappings"][0]["size"], 1);
    assert!(spec["linux"]["resources"].is_null(), "{spec}");
}

/// One that cannot be removed does not keep the others, and is what is told.
#[test]
fn removal_by_expression() {
    let cli = sleeping();
    let names = ["web-1", "web-2", "db-1"].map(|name| format!("{}-{name}", cli.id()));
    for name in &names {
        let mut spec = cli.bundle.spec.clone();
        spec["linux"]["cgroupsPath"] = json!(format!("/{name}"));
        std::fs::write(cli.bundle.path().join("config.json"), spec.to_string()).unwrap();
        let mut run = cli.command(&["run", "-d", "-b", cli.path(), name]);
        assert!(run.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success());
    }
    let (code, error) = cli.fails(&["delete", "--regex", "web-[0-9]$"]);
    assert!(code == 1 && error.contains("that is not stopped: running"), "{error}");
    cli.ok(&["delete", "-f", "--regex", "web-[0-9]$"]);
    assert_eq!(cli.ok(&["list", "-q"]), format!("{}\n", names[2]));
    cli.ok(&["delete", "-f", "--regex", "nothing-like-that"]);
    let (code, error) = cli.fails(&["delete", "--regex", "a["]);
    assert!(code == 1 && error.contains("for --regex"), "{error}");
    cli.ok(&["delete", "-f", "--regex", "."]);
    assert_eq!(cli.ok(&["list", "-q"]), "");
}

#[test]
fn processes_and_lists_as_tables() {
    let cli = sleeping();
    cli.create();
    cli.ok(&["start", cli.id()]);
    let pid = cli.state()["pid"].to_string();
    let table = cli.ok(&["ps", cli.id()]);
    assert!(
        table.starts_with("UID") && table.lines().count() == 2 && table.contains("sleep 1000"),
        "{table}"
    );
    let table = cli.ok(&["ps", cli.id(), "-o", "pid,comm"]);
    assert_eq!(table.split_whitespace().collect::<Vec<_>>(), ["PID", "COMMAND", &pid, "sleep"]);
    let list = cli.ok(&["list"]);
    let words: Vec<&str> = list.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(words[..4], [cli.id(), &pid, "running", cli.path()]);
    cli.ok(&["delete", "-f", cli.id()]);
}

#[test]
fn further_wishes_of_an_exec() {
    let cli = sleeping();
    cli.create();
    cli.ok(&["start", cli.id()]);
    let exec = |flags: &[&str], command: &[&str]| cli.ok(&[&["exec"], flags, &[cli.id()], command].concat());
    assert_eq!(exec(&["--cwd", "/tmp"], &["pwd"]), "/tmp\n");
    assert_eq!(exec(&["-e", "A=1", "--env", "B=2"], &["sh", "-c", "echo $A$B"]), "12\n");
    assert_eq!(exec(&["-u", "5:6"], &["sh", "-c", "id -u; id -g"]), "5\n6\n");
    let groups = exec(&["-g", "7", "-g", "8"], &["id", "-G"]);
    let groups: std::collections::BTreeSet<&str> = groups.split_whitespace().collect();
    assert_eq!(groups, ["0", "10", "7", "8"].into());
    let status = exec(&["--cap", "CAP_SYS_ADMIN", "--no-new-privs"], &["cat", "/proc/self/status"]);
    assert!(status.contains("CapEff:\t00000000a82425fb") && status.contains("NoNewPrivs:\t1"), "{status}");
    cli.ok(&["pause", cli.id()]);
    let (code, error) = cli.fails(&["exec", cli.id(), "true"]);
    assert!(code == 255 && error.contains("cannot exec in a paused container"), "{error}");
    let mut waits = cli.command(&["exec", "--ignore-paused", cli.id(), "echo", "thawed"]);
    let mut waits = waits.stdout(Stdio::piped()).spawn().unwrap();
    let frozen = || cli.state()["status"] == "paused";
    eventually("it is paused still", frozen);
    cli.ok(&["resume", cli.id()]);
    let mut text = String::new();
    waits.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!((text.as_str(), waits.wait().unwrap().code()), ("thawed\n", Some(0)));
    cli.ok(&["delete", "-f", cli.id()]);
}

/// On a kernel without these modules: refused, and not left out.
#[test]
fn labels_of_an_exec() {
    let cli = sleeping();
    cli.create();
    cli.ok(&["start", cli.id()]);
    for (flag, module, message) in [
        ("--apparmor", "/sys/module/apparmor", "this kernel has no AppArmor"),
        ("--process-label", "/sys/fs/selinux/enforce", "this kernel has no SELinux"),
    ] {
        if !std::path::Path::new(module).exists() {
            let (code, error) = cli.fails(&["exec", flag, "nosuch", cli.id(), "true"]);
            assert!(code == 255 && error.contains(message), "{error}");
        }
    }
    cli.ok(&["delete", "-f", cli.id()]);
}

/// Every option of `update` that is a limit, and a file with others.
#[test]
fn limits_by_update() {
    let cli = sleeping();
    cli.create();
    cli.ok(&["start", cli.id()]);
    let options = [
        "--memory",
        "64m",
        "--memory-swap",
        "128m",
        "--memory-reservation",
        "32m",
        "--pids-limit",
        "44",
        "--cpu-period",
        "100000",
        "--cpu-quota",
        "30000",
        "--cpu-burst",
        "1000",
        "--cpu-share",
        "512",
        "--cpuset-cpus",
        "0",
        "--cpuset-mems",
        "0",
    ];
    cli.ok(&[&["update"], &options[..], &[cli.id()]].concat());
    let limit = |v1: &str, v2: &str| {
        let unified = crate::support::unified();
        let controller = v1.split('.').next().unwrap();
        let base = if unified { "/sys/fs/cgroup".to_owned() } else { format!("/sys/fs/cgroup/{controller}") };
        let path = format!("{base}/{}/{}", cli.id(), if unified { v2 } else { v1 });
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}")).trim().to_owned()
    };
    assert_eq!(limit("memory.limit_in_bytes", "memory.max"), (64 << 20).to_string());
    assert_eq!(limit("memory.soft_limit_in_bytes", "memory.low"), (32 << 20).to_string());
    assert_eq!(limit("pids.max", "pids.max"), "44");
    assert_eq!(limit("cpu.cfs_burst_us", "cpu.max.burst"), "1000");
    assert_eq!(limit("cpu.shares", "cpu.weight"), if crate::support::unified() { "59" } else { "512" });
    assert_eq!(limit("cpuset.cpus", "cpuset.cpus"), "0");
    assert_eq!(limit("cpuset.mems", "cpuset.mems"), "0");
    let quota = limit("cpu.cfs_quota_us", "cpu.max");
    assert_eq!(quota, if crate::support::unified() { "30000 100000" } else { "30000" });
    let file = cli.bundle.path().join("resources.json");
    std::fs::write(&file, r#"{ "pids": { "limit": 55 } }"#).unwrap();
    cli.ok(&["update", "-r", file.to_str().unwrap(), cli.id()]);
    assert_eq!(limit("pids.max", "pids.max"), "55");
    assert_eq!(
        limit("memory.limit_in_bytes", "memory.max"),
        (64 << 20).to_string(),
        "what is not in it stays"
    );
    cli.ok(&["update", "--cpu-idle", "1", cli.id()]);
    assert_eq!(limit("cpu.idle", "cpu.idle"), "1");
    cli.ok(&["delete", "-f", cli.id()]);
}
