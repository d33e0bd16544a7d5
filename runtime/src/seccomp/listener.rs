//! `SCMP_ACT_NOTIFY`: the filter's listener is handed to who listens on `listenerPath`
//! (runtime specification, "The Container Process State").

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::PathBuf;

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSyscall};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType,
};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::hooks::State;

/// Who is told of calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Listener {
    /// `listenerPath`: a socket of the host.
    path: PathBuf,
    /// `listenerMetadata`, passed on as it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    metadata: String,
}

/// What is sent along with the listener.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerProcessState<'a> {
    oci_version: &'a str,
    fds: [&'a str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata: &'a str,
    state: State<'a>,
}

/// The listener that a profile needs; `None` if nothing of it is told.
pub(super) fn compile(seccomp: &LinuxSeccomp, syscalls: &[LinuxSyscall]) -> Result<Option<Listener>, Error> {
    let notifies = |action| action == LinuxSeccompAction::ScmpActNotify;
    if notifies(seccomp.default_action()) {
        return Err(Error::spec(
            "linux.seccomp.defaultAction",
            "SCMP_ACT_NOTIFY cannot be the default: the runtime itself would wait for answers",
        ));
    }
    let mut told = syscalls.iter().filter(|s| notifies(s.action())).peekable();
    if told.peek().is_none() {
        return Ok(None);
    }
    // by `sendmsg` the filter's listener gets out of the filtered process (with runc, by `write`)
    for call in ["sendmsg", "write"] {
        if told.clone().any(|s| s.names().iter().any(|name| name == call)) {
            let text = format!("SCMP_ACT_NOTIFY cannot be used for the {call} syscall");
            return Err(Error::spec("linux.seccomp.syscalls", text));
        }
    }
    let path = seccomp.listener_path().clone().filter(|path| !path.as_os_str().is_empty());
    let path = path.ok_or_else(|| {
        Error::spec("linux.seccomp.listenerPath", "is missing, but SCMP_ACT_NOTIFY is used")
    })?;
    Ok(Some(Listener { path, metadata: seccomp.listener_metadata().clone().unwrap_or_default() }))
}

impl Listener {
    /// Hands the listener of the filter of process `pid` over.
    pub(crate) fn hand_over(&self, seccomp: &OwnedFd, pid: i32, state: State<'_>) -> Result<(), Error> {
        let failed =
            |errno| Error::system("failed to connect with seccomp agent", self.path.display(), errno);
        let message = ContainerProcessState {
            oci_version: state.oci_version,
            fds: ["seccompFd"],
            pid,
            metadata: &self.metadata,
            state,
        };
        let text =
            serde_json::to_vec(&message).map_err(|e| Error::system("write", "the process's state", e))?;
        // by way of a descriptor: the path may be longer than a socket address holds
        let file = rustix::fs::openat(CWD, &self.path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            .map_err(failed)?;
        let address = format!("/proc/self/fd/{}", file.as_raw_fd());
        let address = SocketAddrUnix::new(address.as_str()).map_err(failed)?;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
                .map_err(failed)?;
        rustix::net::connect(&socket, &address).map_err(failed)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let fds = [seccomp.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&fds));
        let mut sent =
            rustix::net::sendmsg(&socket, &[IoSlice::new(&text)], &mut control, SendFlags::NOSIGNAL)
                .map_err(failed)?;
        while let Some(rest) = text.get(sent..).filter(|rest| !rest.is_empty()) {
            sent += rustix::net::send(&socket, rest, SendFlags::NOSIGNAL).map_err(failed)?;
        }
        Ok(())
    }
}
