//! A conversation with `criu swrk`: one request, the notifications that it answers with, and its end.

#![allow(unsafe_code)] // what the child does between fork and execve

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, Shutdown, SocketFlags,
    SocketType,
};

use super::protobuf::{Fields, Parsed};
use crate::Error;

/// Kinds of request (criu's `images/rpc.proto`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(super) enum Request {
    Dump = 1,
    Restore = 2,
    PreDump = 4,
    FeatureCheck = 9,
}

const NOTIFY: i32 = 6;

/// Something that criu tells while it works.
#[derive(Debug)]
pub(super) struct Notification {
    /// `post-restore`, `orphan-pts-master`, ...
    pub(super) name: String,
    /// Of the init that is restored.
    pub(super) pid: i32,
    /// A terminal's master.
    pub(super) fd: Option<OwnedFd>,
}

/// criu, which waits for a request.
#[derive(Debug)]
pub(super) struct Criu {
    child: Child,
    socket: OwnedFd,
    /// For messages: where it writes its log.
    log: PathBuf,
}

/// How criu is started.
#[derive(Debug)]
pub(super) struct Setup<'a> {
    /// Descriptors that it gets under the caller's numbers.
    pub(super) pass: Vec<BorrowedFd<'a>>,
    /// Its own standard input, output and error, which restored processes take over.
    pub(super) stdio: Option<[Stdio; 3]>,
    /// Where its log will be.
    pub(super) log: PathBuf,
}

impl<'a> Setup<'a> {
    /// Without standard I/O of its own.
    pub(super) fn plain(pass: Vec<BorrowedFd<'a>>, log: PathBuf) -> Self {
        Setup { pass, stdio: None, log }
    }
}

impl Criu {
    /// Starts it.
    ///
    /// # Errors
    /// [`Error::Criu`] where there is none, in runc's words; [`Error::System`].
    pub(super) fn start(setup: Setup<'_>) -> Result<Self, Error> {
        let failed = |errno| Error::system("make", "a socket for criu", errno);
        let (socket, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(failed)?;
        let mut command = Command::new("criu");
        command.arg("swrk").arg(theirs.as_raw_fd().to_string());
        match setup.stdio {
            Some([stdin, stdout, stderr]) => command.stdin(stdin).stdout(stdout).stderr(stderr),
            None => command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()),
        };
        let keep: Vec<i32> = setup.pass.iter().map(AsRawFd::as_raw_fd).chain([theirs.as_raw_fd()]).collect();
        let prepare = move || {
            for fd in &keep {
                // SAFETY: open in the parent, and so in its copy, until the closure's owner ends.
                fcntl_setfd(unsafe { BorrowedFd::borrow_raw(*fd) }, FdFlags::empty())?;
            }
            Ok(())
        };
        // SAFETY: the closure makes system calls only, and what it uses was allocated before.
        unsafe { command.pre_exec(prepare) };
        let child = command.spawn().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::Criu {
                reason: "CRIU version check failed: exec: \"criu\": executable file not found in $PATH"
                    .into(),
            },
            _ => Error::system("start", "criu", error),
        })?;
        Ok(Criu { child, socket, log: setup.log })
    }

    /// Its process id.
    pub(super) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap_or(0)
    }

    /// Whether this criu on this kernel can track changes of memory, and hand over pages later.
    ///
    /// # Errors
    /// [`Error::Criu`].
    pub(super) fn has_features(mut self, memory_tracking: bool, lazy_pages: bool) -> Result<bool, Error> {
        let mut wanted = Fields::default();
        wanted.flag(1, memory_tracking);
        wanted.flag(2, lazy_pages);
        let mut request = Fields::default();
        request.number(1, Request::FeatureCheck as i32);
        request.message(5, &wanted);
        self.send(&request)?;
        let (answer, _) = self.receive()?;
        let has = Parsed::new(&answer).message(8).is_some_and(|features| {
            let flag = |field| features.number(field).is_some_and(|value| value != 0);
            (!memory_tracking || flag(1)) && (!lazy_pages || flag(2))
        });
        self.end();
        Ok(has)
    }

    /// Makes a request, and answers what criu tells meanwhile. Gives the pid that a restore answers with.
    ///
    /// # Errors
    /// [`Error::Criu`], and what `heard` gives.
    pub(super) fn perform(
        mut self,
        kind: Request,
        options: &Fields,
        mut heard: impl FnMut(Notification) -> Result<(), Error>,
    ) -> Result<i32, Error> {
        let mut request = Fields::default();
        request.number(1, kind as i32);
        request.message(2, options);
        self.send(&request)?;
        loop {
            let (bytes, fd) = self.receive()?;
            let answer = Parsed::new(&bytes);
            if answer.number(2) != Some(1) {
                return Err(self.failure(kind, answer));
            }
            if answer.number(1) != Some(NOTIFY) {
                let pid = answer.message(4).and_then(|restore| restore.number(1)).unwrap_or(0);
                self.end();
                return Ok(pid);
            }
            let notify = answer.message(5);
            let done = heard(Notification {
                name: notify.map(|n| n.text(1)).unwrap_or_default(),
                pid: notify.and_then(|n| n.number(2)).unwrap_or(0),
                fd,
            });
            let mut reply = Fields::default();
            reply.number(1, NOTIFY);
            // the field must be there, also when it is false
            reply.number(3, i32::from(done.is_ok()));
            self.send(&reply)?;
            done?;
        }
    }

    fn send(&mut self, message: &Fields) -> Result<(), Error> {
        rustix::net::send(&self.socket, message.as_bytes(), SendFlags::NOSIGNAL)
            .map(drop)
            .map_err(|errno| Error::system("talk to", "criu", errno))
    }

    fn receive(&mut self) -> Result<(Vec<u8>, Option<OwnedFd>), Error> {
        let mut bytes = vec![0; 64 << 10];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::net::recvmsg(
            &self.socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
        .map_err(|errno| Error::system("hear from", "criu", errno))?;
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        if received.bytes == 0 {
            let reason = match self.child.wait() {
                Ok(status) => format!("criu ended without an answer: {status}"),
                Err(error) => format!("criu ended without an answer: {error}"),
            };
            return Err(Error::Criu { reason: self.with_log(reason) });
        }
        bytes.truncate(received.bytes);
        Ok((bytes, fd))
    }

    fn failure(&mut self, kind: Request, answer: Parsed<'_>) -> Error {
        let errno = answer.number(7).unwrap_or(0);
        let name = format!("{kind:?}").to_uppercase();
        self.end();
        Error::Criu { reason: self.with_log(format!("criu failed: type {name} errno {errno}")) }
    }

    /// The reason, the last complaints of criu's log, and where that is.
    fn with_log(&self, reason: String) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        // one leads to the next, and the last only says that it has failed
        let told = |line: &&str| {
            line.contains("Error (") && !line.ends_with("FAILED.") && !line.contains(": rlimit: ")
        };
        let complaints: Vec<&str> = log.lines().filter(told).map(str::trim).collect();
        let some = complaints.get(complaints.len().saturating_sub(3)..).unwrap_or_default();
        let complaint = if some.is_empty() { String::new() } else { format!(": {}", some.join("; ")) };
        format!("{reason}{complaint} (log file: {})", self.log.display())
    }

    fn end(&mut self) {
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
        let _ = self.child.wait();
    }
}

impl Drop for Criu {
    fn drop(&mut self) {
        self.end(); // criu ends when nobody talks to it
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_complaints_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("dump.log");
        std::fs::write(
            &log,
            "(00.1) Error (a.c:1): first\n(00.2) Warn x\n(00.3) Error (b.c:2): second\n(00.4) Error (c.c:3): Dumping FAILED.\n",
        )
        .unwrap();
        let (socket, _) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        let criu = Criu { child: Command::new("true").spawn().unwrap(), socket, log };
        let text = criu.with_log("criu failed".into());
        assert!(
            text.starts_with(
                "criu failed: (00.1) Error (a.c:1): first; (00.3) Error (b.c:2): second (log file: /"
            ),
            "{text}"
        );
    }
}
