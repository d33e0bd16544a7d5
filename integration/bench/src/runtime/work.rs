//! The folder with all that is needed inside, and the way inside.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crate::WORK;
use crate::contender::ID;

const INTEGRATION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// Without the lab: hides what crun refuses, and gives the bench a tmpfs.
const ON_THIS_HOST: &str = "mountpoint -q /sys/fs/cgroup/unified && umount /sys/fs/cgroup/unified
    mount -t proc proc /proc && mount -t tmpfs -o mode=755 tmpfs /run && exec \"$@\"";

/// Gathers, goes inside, and keeps the page that comes out.
pub(crate) fn outside() -> ExitCode {
    let folder = tempfile::Builder::new().prefix("wherry-bench-").tempdir_in("/var/tmp").unwrap();
    let work = folder.path();
    let lab = std::env::var("LAB").unwrap_or_else(|_| "/var/lib/wherry-lab".to_owned());
    let own = std::env::current_exe().unwrap();
    copy(&own, &work.join("bench"));
    copy(&ours(&own), &work.join("wherry-runtime"));
    let youki = Path::new(&lab).join("youki/bin/youki");
    if youki.exists() {
        copy(&youki, &work.join("youki"));
    }
    compile_floor(work);
    // Containers are gone with the first process of their pid namespace, however the bench ends.
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]);
    if Path::new(&lab).join("root/usr/bin/crun").exists() {
        command.arg(Path::new(INTEGRATION).join("engines/lab-exec"));
    } else {
        eprintln!("no lab in {lab}: with the runtimes of this host");
        command.args(["sh", "-c", ON_THIS_HOST, "sh"]);
    }
    command.arg(work.join("bench")).env(WORK, work).stderr(std::process::Stdio::inherit());
    let output = command.output().unwrap();
    remove_cgroups();
    if !output.status.success() {
        return ExitCode::FAILURE;
    }
    let page = crate::page::heading() + &String::from_utf8_lossy(&output.stdout);
    print!("{page}");
    let file = Path::new(INTEGRATION).join("results/bench-runtime.md");
    std::fs::write(file, page).expect("write integration/results/bench-runtime.md");
    ExitCode::SUCCESS
}

/// The runtime that was built beside this program, unless RUNTIME names another.
fn ours(own: &Path) -> PathBuf {
    let built = own.with_file_name("wherry-runtime");
    std::env::var_os("RUNTIME").map_or(built, PathBuf::from)
}

fn copy(from: &Path, to: &Path) {
    std::fs::copy(from, to).unwrap_or_else(|e| panic!("copy {} to {}: {e}", from.display(), to.display()));
}

/// What a container leaves whose runtime failed.
fn remove_cgroups() {
    let hierarchies = std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
    for folder in hierarchies.flat_map(|hierarchy| std::fs::read_dir(hierarchy.path())).flatten().flatten() {
        if folder.file_name().to_string_lossy().starts_with(ID) {
            let _ = std::fs::remove_dir(folder.path());
        }
    }
}

/// The lab's `floor.c`; without it the page has a line less.
fn compile_floor(work: &Path) {
    let source = Path::new(INTEGRATION).join("../../shared/lab/floor.c");
    let source = std::env::var_os("FLOOR").map_or(source, PathBuf::from);
    let mut compile = Command::new("cc");
    compile.args(["-O2", "-static", "-o"]).arg(work.join("floor")).arg(&source);
    if !compile.status().is_ok_and(|status| status.success()) {
        eprintln!("{} cannot be compiled: it takes no part", source.display());
    }
}
