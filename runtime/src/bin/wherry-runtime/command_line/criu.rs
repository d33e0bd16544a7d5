//! The options of `checkpoint` and `restore`.

use std::path::PathBuf;

use wherry_runtime::CgroupsMode;

use super::flags::Given;
use crate::failure::Failure;

/// What criu is told.
#[derive(Debug)]
pub(crate) struct CriuFlags {
    pub(crate) images: PathBuf,
    pub(crate) work: Option<PathBuf>,
    pub(crate) parent: Option<PathBuf>,
    pub(crate) leave_running: bool,
    pub(crate) pre_dump: bool,
    pub(crate) tcp_established: bool,
    pub(crate) tcp_skip_in_flight: bool,
    pub(crate) link_remap: bool,
    pub(crate) external_unix_sockets: bool,
    pub(crate) shell_job: bool,
    pub(crate) file_locks: bool,
    pub(crate) auto_dedup: bool,
    pub(crate) lazy_pages: bool,
    pub(crate) status_fd: Option<i32>,
    pub(crate) page_server: Option<(String, u16)>,
    pub(crate) cgroups: CgroupsMode,
    pub(crate) lsm_profile: Option<String>,
    pub(crate) lsm_mount_context: Option<String>,
}

/// Reads them.
pub(crate) fn criu(given: &Given) -> Result<CriuFlags, Failure> {
    // the network namespace is always made anew; no other can be
    if let Some(other) = given.texts("empty-ns").into_iter().find(|name| name != "network") {
        return Err(Failure::EmptyNamespace(other));
    }
    let path = |name| given.text(name).map(PathBuf::from);
    let images = path("image-path").unwrap_or_else(|| PathBuf::from("checkpoint"));
    Ok(CriuFlags {
        images: super::absolute(images)?,
        work: path("work-path").map(super::absolute).transpose()?,
        parent: path("parent-path"),
        leave_running: given.switch("leave-running"),
        pre_dump: given.switch("pre-dump"),
        tcp_established: given.switch("tcp-established"),
        tcp_skip_in_flight: given.switch("tcp-skip-in-flight"),
        link_remap: given.switch("link-remap"),
        external_unix_sockets: given.switch("ext-unix-sk"),
        shell_job: given.switch("shell-job"),
        file_locks: given.switch("file-locks"),
        auto_dedup: given.switch("auto-dedup"),
        lazy_pages: given.switch("lazy-pages"),
        status_fd: given.text("status-fd").and_then(|fd| fd.parse().ok()).filter(|fd| *fd >= 0),
        page_server: page_server(given)?,
        cgroups: cgroups(given)?,
        lsm_profile: given.text("lsm-profile"),
        lsm_mount_context: given.text("lsm-mount-context"),
    })
}

fn page_server(given: &Given) -> Result<Option<(String, u16)>, Failure> {
    let Some(server) = given.text("page-server") else { return Ok(None) };
    match server.rsplit_once(':') {
        Some((address, port)) if !address.is_empty() && !port.is_empty() => {
            let address = address.trim_start_matches('[').trim_end_matches(']').to_owned();
            let port = port.parse().map_err(|_| Failure::Arguments("Invalid port number"))?;
            Ok(Some((address, port)))
        }
        _ => Err(Failure::Arguments("Use --page-server ADDRESS:PORT to specify page server")),
    }
}

fn cgroups(given: &Given) -> Result<CgroupsMode, Failure> {
    Ok(match given.text("manage-cgroups-mode").as_deref() {
        None | Some("soft") => CgroupsMode::Soft,
        Some("full") => CgroupsMode::Full,
        Some("strict") => CgroupsMode::Strict,
        Some("ignore") => CgroupsMode::Ignore,
        Some(other) => {
            return Err(Failure::InvalidValue { option: "manage-cgroups-mode", value: other.to_owned() });
        }
    })
}
