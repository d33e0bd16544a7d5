//! Writing archives of our own: plain members under short names.

use std::io::{self, Read, Write};

use super::header::BLOCK;

/// What is common to all members.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Member<'a> {
    /// At most 100 bytes.
    pub(crate) name: &'a str,
    pub(crate) mode: u32,
    pub(crate) mtime_s: u64,
}

/// Writes a ustar archive.
#[derive(Debug)]
pub(crate) struct Writer<W> {
    out: W,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out }
    }

    pub(crate) fn folder(&mut self, member: Member<'_>) -> io::Result<()> {
        self.out.write_all(&header(member, b'5', 0)?)
    }

    pub(crate) fn bytes(&mut self, member: Member<'_>, content: &[u8]) -> io::Result<()> {
        self.stream(member, content.len() as u64, |out| out.write_all(content))
    }

    /// A member of `size` bytes that `write` writes; it fails if they are not exactly that many.
    pub(crate) fn stream(
        &mut self,
        member: Member<'_>,
        size: u64,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        self.out.write_all(&header(member, b'0', size)?)?;
        let mut counted = Exactly { out: &mut self.out, left: size };
        write(&mut counted)?;
        if counted.left > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a member is shorter than announced"));
        }
        let padding = size.next_multiple_of(BLOCK as u64) - size;
        io::copy(&mut io::repeat(0).take(padding), &mut self.out).map(|_| ())
    }

    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()
    }
}

struct Exactly<'a, W> {
    out: &'a mut W,
    left: u64,
}

impl<W: Write> Write for Exactly<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a member is longer than announced"));
        }
        let written = self.out.write(bytes)?;
        self.left -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn header(member: Member<'_>, flag: u8, size: u64) -> io::Result<[u8; BLOCK]> {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| {
        for (to, from) in block.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    };
    if member.name.len() > 100 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a member's name is longer than 100 bytes"));
    }
    put(0, member.name.as_bytes());
    put(100, format!("{:07o}", member.mode).as_bytes());
    put(108, b"0000000\x000000000");
    if size < 1 << 33 {
        put(124, format!("{size:011o}").as_bytes());
    } else {
        put(124, &[0x80, 0, 0, 0]);
        put(128, &size.to_be_bytes());
    }
    put(136, format!("{:011o}", member.mtime_s).as_bytes());
    put(148, b"        ");
    put(156, &[flag]);
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    for (to, from) in block.iter_mut().skip(148).zip(format!("{sum:06o}\0 ").as_bytes()) {
        *to = *from;
    }
    Ok(block)
}
