//! Going on in the background: the process forks before it has any threads. The parent waits until the child says
//! that it is ready, and ends; the child belongs to no terminal and to no engine any more.
//!
//! Unsafe, because `fork` of a process with threads would be.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::ExitCode;

/// How the child tells its parent how it went.
pub(crate) struct Ready {
    pipe: File,
}

impl Ready {
    /// Netd answers: the parent ends well.
    pub(crate) fn tell(mut self) {
        // A parent that is gone has nobody to tell.
        let _ = self.pipe.write_all(b"+");
    }

    /// It does not work out: the parent says why and ends.
    pub(crate) fn give_up(mut self, why: &str) {
        let _ = self.pipe.write_all(why.as_bytes());
    }
}

/// Which of the two the caller is.
pub(crate) enum Side {
    /// The starter, with what it is to end with.
    Parent(ExitCode),
    /// The one that goes on.
    Child(Ready),
}

/// Forks. To be called before any thread is started. The child's standard error is appended to `log`.
pub(crate) fn fork(log: &Path) -> io::Result<Side> {
    let (reading, writing) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let log = OpenOptions::new().create(true).append(true).open(log)?;
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    // SAFETY: the process has one thread, so the child may do whatever the parent may.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            drop(reading);
            // The leader of its own session: signals to the engine's group do not reach it.
            rustix::process::setsid()?;
            rustix::stdio::dup2_stdin(&null)?;
            rustix::stdio::dup2_stdout(&null)?;
            rustix::stdio::dup2_stderr(&log)?;
            Ok(Side::Child(Ready { pipe: writing.into() }))
        }
        _ => {
            drop(writing);
            let mut said = String::new();
            File::from(reading).read_to_string(&mut said)?;
            if said == "+" {
                return Ok(Side::Parent(ExitCode::SUCCESS));
            }
            let said = if said.is_empty() { "it ended while it started".into() } else { said };
            writeln!(io::stderr().lock(), "wherry-netd: {said}")?;
            Ok(Side::Parent(ExitCode::FAILURE))
        }
    }
}
