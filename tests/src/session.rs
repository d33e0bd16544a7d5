use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::poll::poll_quietly;
use crate::{poll, poll_value};

/// A program in the background that the test talks to.
#[derive(Debug)]
pub struct Session {
    name: String,
    child: Child,
    input: Option<File>,
    terminal: bool,
    output: Arc<Mutex<Vec<u8>>>,
    readers: Vec<JoinHandle<()>>,
    seen: usize,
}

impl Session {
    /// With pipes for all three; its two outputs are one text.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn on_pipes(mut command: Command) -> Session {
        let name = crate::cli::name(&command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("start the program");
        let output = Arc::default();
        let readers = vec![
            collect(File::from(OwnedFd::from(child.stdout.take().expect("piped"))), &output),
            collect(File::from(OwnedFd::from(child.stderr.take().expect("piped"))), &output),
        ];
        let input = child.stdin.take().map(|pipe| File::from(OwnedFd::from(pipe)));
        Session { name, child, input, terminal: false, output, readers, seen: 0 }
    }

    /// On a terminal of its own, 40 rows by 120 columns.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn on_terminal(command: &Command) -> Session {
        let name = crate::cli::name(command);
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("open a terminal");
        grantpt(&master).expect("grant the terminal");
        unlockpt(&master).expect("unlock the terminal");
        let path = ptsname(&master, Vec::new()).expect("the terminal's name").into_string().expect("ASCII");
        let slave = File::options().read(true).write(true).open(path).expect("open the terminal's other end");
        resize(&master, 40, 120);
        // `setsid --ctty` makes it the program's controlling terminal.
        let mut wrapped = Command::new("setsid");
        wrapped.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(name, value),
                None => wrapped.env_remove(name),
            };
        }
        wrapped.stdin(slave.try_clone().expect("dup")).stdout(slave.try_clone().expect("dup")).stderr(slave);
        let child = wrapped.spawn().expect("start the program");
        drop(wrapped);
        let master = File::from(master);
        let output = Arc::default();
        let readers = vec![collect(master.try_clone().expect("dup"), &output)];
        Session { name, child, input: Some(master), terminal: true, output, readers, seen: 0 }
    }

    /// Types or pipes this.
    ///
    /// # Panics
    /// If the input is closed.
    pub fn send(&mut self, text: &str) -> &mut Self {
        self.input.as_mut().expect("input is open").write_all(text.as_bytes()).expect("write to the program");
        self
    }

    /// Closes standard input (pipes only).
    pub fn close_input(&mut self) {
        assert!(!self.terminal, "a terminal is closed with ^D");
        self.input = None;
    }

    /// Changes the terminal's size; the program is told by SIGWINCH.
    pub fn resize(&self, rows: u16, columns: u16) {
        resize(self.input.as_ref().expect("a terminal"), rows, columns);
    }

    /// Waits for a text behind what was already expected.
    ///
    /// # Panics
    /// After 20 s without it.
    #[track_caller]
    pub fn expect(&mut self, text: &str) -> &mut Self {
        let from = self.seen;
        let found = poll_quietly(20, || {
            let output = self.output.lock().expect("the readers do not fail");
            find(&output[from..], text.as_bytes()).map(|at| from + at + text.len())
        });
        match found {
            Some(end) => self.seen = end,
            None => panic!("no {text:?} in 20 s from: {}\n{}", self.name, self.text()),
        }
        self
    }

    /// All output so far, without carriage returns.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().expect("the readers do not fail")).replace('\r', "")
    }

    /// Has it not ended yet?
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_none()
    }

    /// As [`Session::send`], of any bytes.
    ///
    /// # Panics
    /// If the input is closed.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.input.as_mut().expect("input is open").write_all(bytes).expect("write to the program");
    }

    /// Waits for its end; exit status and all output.
    ///
    /// # Panics
    /// If it does not end in 30 s.
    pub fn wait(mut self) -> (i32, String) {
        let code = self.wait_for_end();
        (code, self.text())
    }

    /// As [`Session::wait`], and keeps the session for [`Session::text`].
    ///
    /// # Panics
    /// If it does not end in 30 s.
    pub fn wait_for_end(&mut self) -> i32 {
        if !self.terminal {
            self.input = None;
        }
        let status = poll_value(&format!("the end of: {}\n{}", self.name, self.text()), 30, || {
            self.child.try_wait().expect("wait")
        });
        // The terminal's readers end when the last program that has it open ends.
        poll("the end of output", 5, || self.readers.iter().all(JoinHandle::is_finished));
        status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
    }

    /// Sends a signal to the program itself.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid =
            i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
        rustix::process::kill_process(pid, signal).expect("signal the program");
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if self.is_running() {
            // `timeout`, which is what we started, passes SIGTERM on.
            self.signal(rustix::process::Signal::TERM);
            self.input = None;
            poll_quietly(3, || self.child.try_wait().expect("wait"));
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn collect(mut from: File, into: &Arc<Mutex<Vec<u8>>>) -> JoinHandle<()> {
    let into = Arc::clone(into);
    std::thread::spawn(move || {
        let mut buffer = [0; 16 << 10];
        // A terminal whose other end is closed reads as an error.
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            into.lock().expect("no reader fails").extend_from_slice(&buffer[..n]);
        }
    })
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

fn resize(terminal: &impl std::os::fd::AsFd, rows: u16, columns: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).expect("set the terminal's size");
}
