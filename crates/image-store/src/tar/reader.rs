//! Entry after entry of an archive.

use std::io::{self, Read};

use super::TarError;
use super::header::{BLOCK, Header, Kind};
use super::pax::Pax;
use super::sparse::{self, Region};

/// Longest PAX header or GNU long name, in bytes.
const MAX_EXTENSION: u64 = 1 << 20;
/// Longest path or link target, in bytes; Linux takes 4096.
const MAX_PATH: usize = 64 << 10;
/// Most entries of an archive, extension headers not counted.
const MAX_ENTRIES: u64 = 10_000_000;
/// Most extension headers in front of one entry.
const MAX_EXTENSIONS: u32 = 16;

/// An entry with all extensions applied.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) path: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    /// Seconds and nanoseconds.
    pub(crate) mtime: (i64, u32),
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes of content that follow in the archive.
    pub(crate) stored_bytes: u64,
    /// For sparse files, the size of the file and where its stored bytes belong.
    pub(crate) sparse: Option<(u64, Vec<Region>)>,
}

/// Sees the bytes of an archive that are not content of files: headers, padding, the end.
pub(crate) trait Tap {
    fn raw(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// A tap for those who need none.
impl Tap for () {
    fn raw(&mut self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }
}

/// Reads an archive from front to end.
#[derive(Debug)]
pub(crate) struct Reader<R, T = ()> {
    source: R,
    tap: T,
    /// Content of the current entry that was not read yet.
    content: u64,
    padding: u64,
    entries: u64,
}

impl<R: Read, T: Tap> Reader<R, T> {
    pub(crate) fn new(source: R, tap: T) -> Self {
        Self { source, tap, content: 0, padding: 0, entries: 0 }
    }

    pub(crate) fn tap(&mut self) -> &mut T {
        &mut self.tap
    }

    pub(crate) fn into_tap(self) -> T {
        self.tap
    }

    /// The next entry; what is left of the content of the one before is passed to the tap.
    /// `None` at the end of the archive, after which the source has been read to its end.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>, TarError> {
        self.finish_entry()?;
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            return Err(TarError::TooManyEntries);
        }
        let (mut long_name, mut long_link, mut pax) = (None, None, None);
        for _ in 0..MAX_EXTENSIONS {
            let Some(block) = self.block()? else { return Ok(None) };
            let Some(header) = Header::parse(&block)? else {
                self.finish_archive()?;
                return Ok(None);
            };
            self.open_content(header.size)?;
            match header.kind {
                Kind::Pax => pax = Some(Pax::parse(&self.extension()?)?),
                Kind::GnuLongName => long_name = Some(up_to_nul(self.extension()?)),
                Kind::GnuLongLink => long_link = Some(up_to_nul(self.extension()?)),
                // dockerd ignores these, so they must not mean anything here either.
                Kind::PaxGlobal => self.finish_entry()?,
                _ => {
                    return self
                        .assemble(&block, header, pax.unwrap_or_default(), long_name, long_link)
                        .map(Some);
                }
            }
        }
        Err(TarError::TooLong)
    }

    fn assemble(
        &mut self,
        block: &[u8; BLOCK],
        header: Header,
        pax: Pax,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> Result<Entry, TarError> {
        let mut kind = header.kind;
        self.open_content(if kind.is_header_only() { 0 } else { pax.size.unwrap_or(header.size) })?;
        let mut path = long_name.or(pax.path.clone()).unwrap_or(header.name);
        let sparse = match kind {
            Kind::GnuSparse => {
                kind = Kind::File;
                Some(self.old_gnu_map(block)?)
            }
            Kind::File => self.pax_map(&pax, &mut path)?,
            _ => None,
        };
        if let Some((real_size, regions)) = &sparse {
            sparse::check(regions, *real_size, self.content)?;
        }
        let link = long_link.or(pax.link).unwrap_or(header.link);
        if path.len() > MAX_PATH || link.len() > MAX_PATH {
            return Err(TarError::TooLong);
        }
        Ok(Entry {
            path,
            link,
            kind,
            mode: header.mode,
            uid: pax.uid.unwrap_or(header.uid),
            gid: pax.gid.unwrap_or(header.gid),
            mtime: pax.mtime.unwrap_or((header.mtime_s, 0)),
            device: header.device,
            xattrs: pax.xattrs,
            stored_bytes: self.content,
            sparse,
        })
    }

    fn old_gnu_map(&mut self, block: &[u8; BLOCK]) -> Result<(u64, Vec<Region>), TarError> {
        let mut regions = Vec::new();
        let mut more = sparse::old_gnu(block, true, &mut regions)?;
        while more {
            let next = self.block()?.ok_or(TarError::Truncated)?;
            more = sparse::old_gnu(&next, false, &mut regions)?;
        }
        Ok((sparse::old_gnu_real_size(block)?, regions))
    }

    /// The map that PAX records describe, if they do. Version 1.0 has it at the head of the content.
    fn pax_map(&mut self, pax: &Pax, path: &mut Vec<u8>) -> Result<Option<(u64, Vec<Region>)>, TarError> {
        let keys = &pax.sparse;
        let version = (keys.major, keys.minor);
        if version != (Some(1), Some(0)) && keys.map.is_empty() {
            return Ok(None);
        }
        if let Some(name) = &keys.name {
            path.clone_from(name);
        }
        let real_size = keys.real_size.ok_or(TarError::Sparse)?;
        if version != (Some(1), Some(0)) {
            return Ok(Some((real_size, sparse::from_pairs(&keys.map)?)));
        }
        let (count, mut rest) = self.decimal_line(Vec::new())?;
        let count =
            usize::try_from(count).ok().filter(|n| *n <= sparse::MAX_REGIONS).ok_or(TarError::TooLong)?;
        let mut numbers = Vec::new();
        for _ in 0..count * 2 {
            let number;
            (number, rest) = self.decimal_line(rest)?;
            numbers.push(number);
        }
        Ok(Some((real_size, sparse::from_pairs(&numbers)?)))
    }

    /// A number and a newline from the content, block by block; `rest` is what was read before.
    fn decimal_line(&mut self, mut rest: Vec<u8>) -> Result<(u64, Vec<u8>), TarError> {
        loop {
            if let Some(newline) = rest.iter().position(|b| *b == b'\n') {
                let left = rest.split_off(newline + 1);
                let digits = rest.get(..newline).unwrap_or_default();
                let plain = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
                let number =
                    std::str::from_utf8(digits).ok().filter(|_| plain).and_then(|text| text.parse().ok());
                return Ok((number.ok_or(TarError::Sparse)?, left));
            }
            if rest.len() > 2 * BLOCK {
                return Err(TarError::Sparse);
            }
            self.content = self.content.checked_sub(BLOCK as u64).ok_or(TarError::Sparse)?;
            let block = self.block()?.ok_or(TarError::Truncated)?;
            rest.extend_from_slice(&block);
        }
    }

    fn open_content(&mut self, size: u64) -> Result<(), TarError> {
        i64::try_from(size).map_err(|_| TarError::Header)?;
        self.content = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    /// The whole content of an extension header.
    fn extension(&mut self) -> Result<Vec<u8>, TarError> {
        if self.content > MAX_EXTENSION {
            return Err(TarError::TooLong);
        }
        let mut bytes = Vec::new();
        let wanted = self.content;
        let read = (&mut self.source).take(wanted).read_to_end(&mut bytes)?;
        if (read as u64) < wanted {
            return Err(TarError::Truncated);
        }
        self.tap.raw(&bytes)?;
        self.content = 0;
        self.finish_entry()?;
        Ok(bytes)
    }

    /// Passes what is left of the entry to the tap. An archive may end in the padding: `docker build -f -` sends such ones, and
    /// Go's reader, which is what everybody tries them with, takes them.
    fn finish_entry(&mut self) -> Result<(), TarError> {
        let (content, padding) = (self.content, self.padding);
        (self.content, self.padding) = (0, 0);
        match self.skip(content)? {
            skipped if skipped < content => Err(TarError::Truncated),
            _ => self.skip(padding).map(drop),
        }
    }

    /// Passes so many bytes to the tap, or as many as there are.
    fn skip(&mut self, wanted: u64) -> Result<u64, TarError> {
        let mut buffer = [0; 8 * BLOCK];
        let mut skipped = 0;
        while skipped < wanted {
            let most = usize::try_from(wanted - skipped).unwrap_or(usize::MAX).min(buffer.len());
            let read = match self.source.read(buffer.get_mut(..most).unwrap_or_default()) {
                Ok(0) => break,
                Ok(read) => read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(truncated(e)),
            };
            self.tap.raw(buffer.get(..read).unwrap_or_default())?;
            skipped += read as u64;
        }
        Ok(skipped)
    }

    /// After a block of zeros there must be another, or nothing; then anything may follow.
    fn finish_archive(&mut self) -> Result<(), TarError> {
        let Some(block) = self.block()? else { return Ok(()) };
        if Header::parse(&block)?.is_some() {
            return Err(TarError::Header);
        }
        let mut buffer = [0; 8 * BLOCK];
        loop {
            match self.source.read(&mut buffer)? {
                0 => return Ok(()),
                read => self.tap.raw(buffer.get(..read).unwrap_or_default())?,
            }
        }
    }

    /// The next block; `None` at the end of the source.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, TarError> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.source.read(block.get_mut(filled..).unwrap_or_default()) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(TarError::Truncated),
                Ok(read) => filled += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        self.tap.raw(&block)?;
        Ok(Some(block))
    }
}

/// The content of the current entry. It is not passed to the tap.
impl<R: Read, T> Read for Reader<R, T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.content).unwrap_or(usize::MAX).min(buffer.len());
        if wanted == 0 {
            return Ok(0);
        }
        let read = self.source.read(buffer.get_mut(..wanted).unwrap_or_default())?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.content -= read as u64;
        Ok(read)
    }
}

/// The failure of a read: the end of the source is the archive's fault.
pub(crate) fn truncated(error: io::Error) -> TarError {
    if error.kind() == io::ErrorKind::UnexpectedEof { TarError::Truncated } else { TarError::Read(error) }
}

fn up_to_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    if let Some(end) = bytes.iter().position(|b| *b == 0) {
        bytes.truncate(end);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the docker client makes one where the Dockerfile comes on its standard input: nothing follows the last file.
    #[test]
    fn an_archive_may_end_in_its_padding() {
        let mut header = [0; BLOCK];
        header[..4].copy_from_slice(b"file");
        header[124..135].copy_from_slice(b"00000000003");
        header[148..156].copy_from_slice(b"        ");
        let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        let names = |bytes: &[u8]| {
            let mut reader = Reader::new(bytes, ());
            let mut names = Vec::new();
            while let Some(entry) = reader.next()? {
                names.push(entry.path);
            }
            Ok::<_, TarError>(names)
        };
        for padding in [0, 1, 508, 509] {
            let whole = [&header[..], b"abc", &vec![0; padding]].concat();
            assert_eq!(names(&whole).unwrap(), [b"file".to_vec()], "{padding}");
        }
        assert!(matches!(names(&[&header[..], b"ab"].concat()), Err(TarError::Truncated)));
        assert!(matches!(names(&header[..100]), Err(TarError::Truncated)));
    }
}
