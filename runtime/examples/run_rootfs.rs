//! Runs a command in a root file system: `run_rootfs ROOTFS COMMAND [ARGUMENT...]`.

use std::path::Path;
use std::process::ExitCode;

use rustix::process::{WaitId, WaitIdOptions, waitid};
use wherry_runtime::{Container, Launch, RootfsSource};

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let rootfs = std::fs::canonicalize(arguments.next().ok_or("usage: run_rootfs ROOTFS COMMAND...")?)?;
    let command: Vec<String> = arguments.collect();

    let spec = serde_json::from_value(serde_json::json!({
        "ociVersion": "1.2.0",
        "root": { "path": rootfs },
        "hostname": "example",
        "process": {
            "user": { "uid": 0, "gid": 0 },
            "cwd": "/",
            "args": command,
            "env": ["PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"],
            "noNewPrivileges": true,
        },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "nodev", "noexec"] },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
        ],
        "linux": {
            "namespaces": [
                { "type": "pid" }, { "type": "mount" }, { "type": "ipc" }, { "type": "uts" }, { "type": "network" },
            ],
        },
    }))?;

    let id = format!("example-{}", std::process::id());
    let launch = Launch::new(&id, Path::new("/"), &spec, &RootfsSource::Bundle);
    let (container, _) = Container::run(&launch)?;
    let status = waitid(WaitId::PidFd(container.pidfd()), WaitIdOptions::EXITED)?;
    container.delete(false)?;
    let code = status.and_then(|status| status.exit_status()).and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
