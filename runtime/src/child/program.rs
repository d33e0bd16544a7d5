//! The program: found, checked, executed.

use std::ffi::CStr;

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::channel::Channel;
use super::{At, Done, Failure, identity};
use crate::error::Step;
use crate::plan::process::ProcessPlan;
use crate::sys::process::{execve, exit};

/// The longest entry for `HOME`, with its name.
pub(crate) const HOME_MAX: usize = 512;

/// So much of `/etc/passwd` is read.
const PASSWD_MAX: usize = 4 << 20;

/// Finds the program, as the user who will run it.
pub(crate) fn find(process: &ProcessPlan) -> Done<'_, &CStr> {
    let name = process.args.strings().first().map_or(c"", |name| name.as_c_str());
    if name.to_bytes().contains(&b'/') {
        let path = process.candidates.first().map_or(name, |path| path.as_c_str());
        let stat = rustix::fs::stat(path).at(Step::StatExecutable, name)?;
        check(process, path, &stat).at(Step::CheckExecutable, name)?;
        return Ok(path);
    }
    for path in &process.candidates {
        if let Ok(stat) = rustix::fs::stat(path.as_c_str())
            && check(process, path, &stat).is_ok()
        {
            return Ok(path);
        }
    }
    Err(Failure { step: Step::FindExecutable, subject: name, errno: Errno::NOENT })
}

fn check(process: &ProcessPlan, path: &CStr, stat: &rustix::fs::Stat) -> Result<(), Errno> {
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    // /proc/self/exe: the container must not run the runtime (CVE-2019-5736)
    if process.own_program == Some((stat.st_dev, stat.st_ino)) {
        return Err(Errno::ACCESS);
    }
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)
}

/// Executes it; comes back only with a failure. `moment` is what is told of it.
pub(crate) fn execute<'p>(
    process: &'p ProcessPlan,
    program: &'p CStr,
    channel: &Channel,
    moment: &str,
) -> Done<'p> {
    channel.trace(format_args!("{moment} {}", program.to_bytes().escape_ascii()));
    let mut buffer = [0_u8; HOME_MAX];
    let home = home(process, &mut buffer);
    identity::filter_last(process, channel)?;
    let errno = execve(program, &process.args, &process.env, home);
    if process.report_exec_failure {
        return Err(Failure { step: Step::Exec, subject: program, errno });
    }
    say_and_exit(program, errno)
}

/// Ends as a program that could not be executed, in runc's words.
fn say_and_exit(program: &CStr, errno: Errno) -> ! {
    let reason: &[u8] = match errno {
        Errno::NOEXEC => b"exec format error",
        Errno::NOENT => b"no such file or directory",
        Errno::ACCESS => b"permission denied",
        Errno::PERM => b"operation not permitted",
        Errno::NOMEM => b"cannot allocate memory",
        Errno::TOOBIG => b"argument list too long",
        Errno::TXTBSY => b"text file busy",
        Errno::LOOP => b"too many levels of symbolic links",
        Errno::IO => b"input/output error",
        _ => b"the system refused it",
    };
    let parts: [&[u8]; 5] = [b"exec ", program.to_bytes(), b": ", reason, b"\n"];
    let _ = rustix::io::writev(rustix::stdio::stderr(), &parts.map(std::io::IoSlice::new));
    exit(255)
}

/// The entry for `HOME` that the environment lacks.
pub(crate) fn home<'b>(process: &ProcessPlan, buffer: &'b mut [u8; HOME_MAX]) -> Option<&'b CStr> {
    process.needs_home.then(|| home_of(process.uid, buffer))
}

/// `HOME=` and the user's folder by the container's `/etc/passwd`, else `/`.
fn home_of(uid: u32, buffer: &mut [u8; HOME_MAX]) -> &CStr {
    const NONE: &CStr = c"HOME=/";
    let Ok(file) = rustix::fs::openat(
        CWD,
        c"/etc/passwd",
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
    ) else {
        return NONE;
    };
    // an image may have anything in its place: a device without end, for one
    let regular = |stat: rustix::fs::Stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if !rustix::fs::fstat(&file).is_ok_and(regular) {
        return NONE;
    }
    let mut lines = Lines { file, buffer: [0; 4096], start: 0, end: 0, left: PASSWD_MAX };
    while let Some(line) = lines.next() {
        let mut fields = line.split(|b| *b == b':');
        let (Some(id), Some(folder)) = (fields.nth(2), fields.nth(2)) else { continue };
        if parse_id(id) != Some(uid) || folder.is_empty() {
            continue;
        }
        let length = 5 + folder.len();
        if let (Some(name), Some(value), true) =
            (b"HOME=".get(..), buffer.get_mut(..length), length < HOME_MAX)
        {
            let (head, tail) = value.split_at_mut(5);
            head.copy_from_slice(name);
            tail.copy_from_slice(folder);
            return CStr::from_bytes_until_nul(buffer).unwrap_or(NONE);
        }
        return NONE;
    }
    NONE
}

fn parse_id(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u32, |number, digit| {
        let digit = digit.checked_sub(b'0').filter(|d| *d < 10)?;
        number.checked_mul(10)?.checked_add(u32::from(digit))
    })
}

/// The lines of a file, without allocation. Lines longer than the buffer end the walk.
struct Lines {
    file: std::os::fd::OwnedFd,
    buffer: [u8; 4096],
    start: usize,
    end: usize,
    /// So many bytes are read yet.
    left: usize,
}

impl Lines {
    fn next(&mut self) -> Option<&[u8]> {
        loop {
            let filled = self.buffer.get(self.start..self.end)?;
            if let Some(length) = filled.iter().position(|b| *b == b'\n') {
                let from = self.start;
                self.start += length + 1;
                return self.buffer.get(from..from + length);
            }
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
            let free = self.buffer.get_mut(self.end..)?;
            if free.is_empty() {
                return None;
            }
            let read = rustix::io::read(&self.file, free).ok()?;
            self.left = self.left.checked_sub(read)?;
            if read == 0 {
                // a last line without its newline
                let length = std::mem::take(&mut self.end);
                return if length == 0 { None } else { self.buffer.get(..length) };
            }
            self.end += read;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_strict() {
        assert_eq!(parse_id(b"0"), Some(0));
        assert_eq!(parse_id(b"4294967295"), Some(u32::MAX));
        for bad in [b"".as_slice(), b"-1", b"4294967296", b" 1", b"1x"] {
            assert_eq!(parse_id(bad), None);
        }
    }

    #[test]
    fn lines_of_a_file() {
        let file = rustix::fs::memfd_create(c"passwd", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let long = "x".repeat(3000);
        rustix::io::write(&file, format!("a:b\n{long}\n{long}\nlast").as_bytes()).unwrap();
        rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).unwrap();
        let mut lines = Lines { file, buffer: [0; 4096], start: 0, end: 0, left: PASSWD_MAX };
        let mut lengths = Vec::new();
        while let Some(line) = lines.next() {
            lengths.push(line.len());
        }
        assert_eq!(lengths, [3, 3000, 3000, 4]);
    }
}
