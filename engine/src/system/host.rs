//! What the host says of itself.

use std::path::Path;

use rustix::system::uname;

/// Its name.
pub(crate) fn name() -> String {
    uname().nodename().to_string_lossy().into_owned()
}

/// The kernel's release.
pub(super) fn kernel() -> String {
    uname().release().to_string_lossy().into_owned()
}

/// The processor, as uname(1) names it.
pub(super) fn machine() -> String {
    uname().machine().to_string_lossy().into_owned()
}

/// The processor, as Go names it.
pub(crate) fn go_arch() -> String {
    match machine().as_str() {
        "x86_64" => "amd64".into(),
        "aarch64" => "arm64".into(),
        "i386" | "i686" => "386".into(),
        other => other.into(),
    }
}

/// Name and version of the distribution (os-release(5)).
pub(super) fn operating_system() -> (String, String) {
    let text =
        ["/etc/os-release", "/usr/lib/os-release"].iter().find_map(|path| std::fs::read_to_string(path).ok());
    let text = text.unwrap_or_default();
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .map(|value| value.trim_matches(['"', '\'']).to_string())
    };
    (field("PRETTY_NAME").unwrap_or_else(|| "Linux".into()), field("VERSION_ID").unwrap_or_default())
}

/// Bytes of memory.
pub(super) fn memory_bytes() -> u64 {
    let info = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib = total.and_then(|t| t.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// How many processors we may use.
pub(super) fn processors() -> u32 {
    rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count())
}

/// Whether a switch below /proc/sys is on.
pub(super) fn sysctl_is_on(name: &str) -> bool {
    std::fs::read_to_string(Path::new("/proc/sys").join(name)).is_ok_and(|value| value.trim() == "1")
}

/// Our open descriptors.
pub(super) fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// The name that Docker has for the file system that holds `path`.
pub(super) fn file_system(path: &Path) -> &'static str {
    match rustix::fs::statfs(path).map(|s| s.f_type as u64 & 0xffff_ffff) {
        Ok(0xef53) => "extfs",
        Ok(0x5846_5342) => "xfs",
        Ok(0x9123_683e) => "btrfs",
        Ok(0x0102_1994) => "tmpfs",
        Ok(0x2fc1_2fc1) => "zfs",
        Ok(0x794c_7630) => "overlayfs",
        Ok(0xf2f5_2010) => "f2fs",
        Ok(0x6969) => "nfs",
        _ => "<unknown>",
    }
}
