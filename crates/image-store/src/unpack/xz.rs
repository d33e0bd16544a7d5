//! Streams compressed by xz: rare in layers, usual for archives of file systems.
//!
//! As dockerd does, by the program `xz`: in a process of its own, which keeps to a limit of memory whatever the
//! stream asks for.

use std::io::{self, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

/// What the level with the largest needs, `-9`, takes four times.
const MEMORY_LIMIT: &str = "--memlimit-decompress=256MiB";
const BUFFER_BYTES: usize = 64 << 10;

/// Reads a compressed stream through a process, which ends with this value.
pub(super) struct Xz<R> {
    source: R,
    child: Child,
    /// Until the source has ended.
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    /// Read from the source, and from where on not written yet.
    pending: Vec<u8>,
    written: usize,
}

impl<R: Read> Xz<R> {
    pub(super) fn new(source: R) -> io::Result<Self> {
        let mut command = Command::new("xz");
        command.args(["-d", "-c", "-q", MEMORY_LIMIT]);
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = spawned.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                io::Error::new(error.kind(), "exec: \"xz\": executable file not found in $PATH")
            }
            _ => error,
        })?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (Some(stdin), Some(stdout)) = (stdin, stdout) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        // A write takes what fits, so that the program never waits for us while we wait for it.
        fcntl_setfl(&stdin, fcntl_getfl(&stdin)? | OFlags::NONBLOCK)?;
        Ok(Self { source, child, stdin: Some(stdin), stdout, pending: Vec::new(), written: 0 })
    }

    /// Waits until there is output; feeds the program meanwhile.
    fn wait(&mut self) -> io::Result<()> {
        loop {
            let Some(stdin) = &mut self.stdin else { return Ok(()) };
            let mut waiting =
                [PollFd::new(&self.stdout, PollFlags::IN), PollFd::new(&*stdin, PollFlags::OUT)];
            match poll(&mut waiting, None) {
                Err(Errno::INTR) => continue,
                polled => polled?,
            };
            if waiting.first().is_some_and(|stdout| !stdout.revents().is_empty()) {
                return Ok(());
            }
            if self.written == self.pending.len() {
                self.pending.resize(BUFFER_BYTES, 0);
                let read = self.source.read(&mut self.pending);
                self.pending.truncate(*read.as_ref().unwrap_or(&0));
                self.written = 0;
                if read? == 0 {
                    self.stdin = None;
                    continue;
                }
            }
            match stdin.write(self.pending.get(self.written..).unwrap_or_default()) {
                Ok(written) => self.written += written,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {}
                    // It has ended, and its status says why.
                    io::ErrorKind::BrokenPipe => self.stdin = None,
                    _ => return Err(error),
                },
            }
        }
    }
}

impl<R: Read> Read for Xz<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        self.wait()?;
        match self.stdout.read(buffer)? {
            0 => {
                self.stdin = None;
                let status = self.child.wait()?;
                if status.success() { Ok(0) } else { Err(io::Error::other(format!("xz: {status}"))) }
            }
            read => Ok(read),
        }
    }
}

impl<R> Drop for Xz<R> {
    fn drop(&mut self) {
        self.stdin = None;
        // After its end neither does any harm.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compressed(plain: &[u8]) -> Vec<u8> {
        let mut child =
            Command::new("xz").arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || stdin.write_all(plain).unwrap());
            child.wait_with_output().unwrap().stdout
        })
    }

    #[test]
    fn streams_are_read_whole_or_not_at_all() {
        let mut plain = vec![0; 3 << 20];
        let mut state = 1_u32;
        for byte in &mut plain {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = (state >> 24) as u8;
        }
        let stream = compressed(&plain);
        let mut read = Vec::new();
        Xz::new(stream.as_slice()).unwrap().read_to_end(&mut read).unwrap();
        assert!(read == plain);
        let half = &stream[..stream.len() / 2];
        assert!(Xz::new(half).unwrap().read_to_end(&mut Vec::new()).is_err());
        assert!(Xz::new(&b"\xfd7zXZ\0nonsense"[..]).unwrap().read_to_end(&mut Vec::new()).is_err());
        let mut some = [0; 10];
        Xz::new(stream.as_slice()).unwrap().read_exact(&mut some).unwrap();
        assert_eq!(some, plain[..10]);
    }
}
