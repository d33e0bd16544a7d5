//! CVE-2019-5736: the container wants to overwrite the runtime, or to look into it.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::stage::{Stage, text};
use crate::support::{Bundle, eventually};

/// What the attacker does inside: whatever process executes something that is not busybox is opened by its `exe`, and
/// written to; its environment and its descriptors are searched for what is the host's.
const ATTACKER: &str = r#"
echo ready > /attack/ready
while :; do
  for p in /proc/[0-9]*; do
    case $p in /proc/1) continue ;; esac
    if grep -q hunter2 $p/environ 2>/dev/null; then echo $p >> /attack/environ; fi
    if ls -l $p/fd $p/cwd $p/root 2>/dev/null | grep -q HOSTSIDE; then echo $p >> /attack/fds; fi
    l=$(readlink $p/exe 2>/dev/null)
    case $l in
      ""|*/busybox|/busybox) continue ;;
    esac
    exec 9< $p/exe || continue
    echo "$l" >> /attack/opened
    ( : >> $p/exe ) 2>> /attack/errors && echo "$l" >> /attack/written
    ( kill -9 ${p#/proc/} ) 2>/dev/null
    for i in $(seq 1000); do
      e=$( ( : >> /proc/self/fd/9 ) 2>&1 ) && { echo "$l" >> /attack/written; break; }
      case $e in *busy*) ;; *) echo "$e" >> /attack/errors; break ;; esac
    done
    exec 9<&-
  done
done
"#;

/// The libraries that the runtime needs, so that it runs inside when the container has it executed.
fn add_libraries(rootfs: &Path) {
    let output = Command::new("ldd").arg(env!("CARGO_BIN_EXE_wherry-runtime")).output().unwrap();
    for word in
        String::from_utf8_lossy(&output.stdout).split_whitespace().filter(|word| word.starts_with('/'))
    {
        let target = rootfs.join(&word[1..]);
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::copy(word, target).unwrap();
    }
}

fn fifo(path: &Path) {
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
}

/// `#!/proc/self/exe` makes the kernel execute the runtime itself inside the container. There it waits (it reads a
/// `config.json` that is a pipe) while the attacker has it open.
#[test]
fn runtime_cannot_be_overwritten_from_inside() {
    let bundle = Bundle::new();
    let rootfs = bundle.rootfs_path();
    add_libraries(&rootfs);
    fs::create_dir(rootfs.join("attack")).unwrap();
    fs::create_dir(rootfs.join("trap")).unwrap();
    fifo(&rootfs.join("trap/config.json"));
    fs::write(rootfs.join("evil"), "#!/proc/self/exe run\n").unwrap();
    let script = ATTACKER.replace("HOSTSIDE", bundle.path().to_str().unwrap());
    fs::write(rootfs.join("attacker"), format!("#!/bin/sh\n{script}")).unwrap();
    for name in ["evil", "attacker"] {
        let executable = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
        fs::set_permissions(rootfs.join(name), executable).unwrap();
    }
    let stage = Stage::with_own_program(bundle.args(&["/attacker"]));
    let before = fs::read(stage.program()).unwrap();
    stage.start();
    eventually("the attacker is there", || rootfs.join("attack/ready").exists());
    let deadline = Instant::now() + Duration::from_secs(6);
    let opened = || fs::read_to_string(rootfs.join("attack/opened")).unwrap_or_default();
    while Instant::now() < deadline && opened().lines().count() < 3 {
        let mut exec = stage.command(&["exec", "--cwd", "/trap", stage.id(), "/evil"]);
        exec.env("SECRET", "hunter2").stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = exec.spawn().unwrap();
        let tried = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if tried.elapsed() > Duration::from_secs(3) {
                child.kill().unwrap();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = stage.exec(&[stage.id(), "/bin/true"]); // an honest one, to look into
    }
    stage.delete();
    let read = |name: &str| fs::read_to_string(rootfs.join("attack").join(name)).unwrap_or_default();
    assert!(!opened().is_empty(), "the attack was not carried out: {}", read("errors"));
    assert_eq!(read("written"), "", "{}", opened());
    assert!(read("errors").contains("Read-only file system"), "{}", read("errors"));
    assert_eq!(read("environ"), "", "the runtime's environment was read");
    assert_eq!(read("fds"), "", "the runtime's descriptors lead to the host");
    assert_eq!(fs::read(stage.program()).unwrap(), before, "the runtime was overwritten");
}

/// A link to `/proc/self/exe`, for `run` and for `exec`: refused before it is executed.
#[test]
fn runtime_cannot_be_the_program() {
    let bundle = Bundle::new();
    for (name, target) in [("evil", "/proc/self/exe"), ("evil2", "evil"), ("evil3", "/proc/thread-self/exe")]
    {
        std::os::unix::fs::symlink(target, bundle.rootfs_path().join("bin").join(name)).unwrap();
    }
    for program in ["/bin/evil2", "evil", "/proc/self/exe"] {
        let mut bundle = Bundle::new();
        bundle.spec["process"]["args"] = json!([program]);
        for name in ["evil", "evil2", "evil3"] {
            let link = bundle.rootfs_path().join("bin").join(name);
            std::os::unix::fs::symlink(if name == "evil2" { "evil" } else { "/proc/self/exe" }, link)
                .unwrap();
        }
        let output = Stage::new(bundle).run();
        assert_eq!(output.status.code(), Some(1), "{program}: {}", text(&output));
    }
    let stage = Stage::new(bundle.args(&["sleep", "1000"]));
    stage.start();
    for program in ["/bin/evil", "/bin/evil2", "/bin/evil3", "evil", "/proc/self/exe"] {
        let output = stage.exec(&[stage.id(), program, "--version"]);
        assert_eq!(output.status.code(), Some(255), "{program}: {}", text(&output));
        assert!(!text(&output).contains("wherry-runtime version"), "{program}: {}", text(&output));
    }
    stage.delete();
}
