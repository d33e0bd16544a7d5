//! File systems for the builders, one for each.
//!
//! They are new, since for minutes after a large deletion ext4 searches for inodes that have not been used lately: what somebody
//! deleted on the machine's disk, such as the classic builder its last context, would be paid by whoever builds next.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// As large as it may become; it takes what is written.
const BYTES: u64 = 40 << 30;

/// Is set in the mount namespace.
const INSIDE: &str = "WHERRY_BENCH_INSIDE";

/// Begins the program again in a mount namespace of its own, so that what is mounted ends with it, however it ends.
pub(crate) fn leave_the_machine() {
    if std::env::var_os(INSIDE).is_none() {
        let program = std::env::current_exe().expect("the path of this program");
        let mut inside = Command::new("unshare");
        let error = inside.args(["--mount", "--propagation", "private"]).arg(program).env(INSIDE, "1").exec();
        panic!("unshare: {error}");
    }
}

/// Mounts a new file system.
pub(crate) fn mounted(number: usize) -> PathBuf {
    let folder = PathBuf::from(format!("/var/tmp/wherry-disk-{}-{number}", std::process::id()));
    let image = folder.with_extension("img");
    std::fs::create_dir(&folder).expect("a folder to mount at");
    File::create(&image).and_then(|file| file.set_len(BYTES)).expect("a file for the file system");
    run("mkfs.ext4", &["-q".as_ref(), "-F".as_ref(), "-N4000000".as_ref(), &image]);
    run("mount", &["-o".as_ref(), "loop".as_ref(), &image, &folder]);
    // It is there for as long as it is mounted.
    std::fs::remove_file(&image).expect("remove the file's name");
    folder
}

/// Removes what is left of one that nobody uses any more.
pub(crate) fn remove(folder: &Path) {
    run("umount", &[folder]);
    std::fs::remove_dir(folder).expect("remove the folder");
}

fn run(program: &str, words: &[&Path]) {
    let status = Command::new(program).args(words).status();
    assert!(status.is_ok_and(|status| status.success()), "{program} {words:?} fails");
}
