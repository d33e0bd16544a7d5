//! One 512-byte header block.

use super::TarError;

/// Size of a tar block in bytes.
pub(crate) const BLOCK: usize = 512;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Folder,
    Fifo,
    /// GNU: the name of the next entry.
    GnuLongName,
    /// GNU: the link target of the next entry.
    GnuLongLink,
    /// GNU: a sparse file with its map in the header.
    GnuSparse,
    /// PAX records for the next entry.
    Pax,
    /// PAX records for all following entries.
    PaxGlobal,
    /// Anything else.
    Other(u8),
}

impl Kind {
    fn of(flag: u8, name: &[u8]) -> Self {
        match flag {
            // Archives from before POSIX have no flag for folders.
            0 if name.ends_with(b"/") => Self::Folder,
            0 | b'0' | b'7' => Self::File,
            b'1' => Self::HardLink,
            b'2' => Self::Symlink,
            b'3' => Self::CharDevice,
            b'4' => Self::BlockDevice,
            b'5' => Self::Folder,
            b'6' => Self::Fifo,
            b'L' => Self::GnuLongName,
            b'K' => Self::GnuLongLink,
            b'S' => Self::GnuSparse,
            b'x' => Self::Pax,
            b'g' => Self::PaxGlobal,
            other => Self::Other(other),
        }
    }

    /// Kinds without content, whatever the size field says.
    pub(crate) fn is_header_only(self) -> bool {
        matches!(
            self,
            Self::HardLink | Self::Symlink | Self::CharDevice | Self::BlockDevice | Self::Folder | Self::Fifo
        )
    }
}

/// The fields of a header block, before PAX and GNU extensions.
#[derive(Debug, Clone)]
pub(crate) struct Header {
    pub(crate) name: Vec<u8>,
    pub(crate) link: Vec<u8>,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) size: u64,
    pub(crate) mtime_s: i64,
    pub(crate) device: (u32, u32),
}

/// A field: its offset and length in the block.
type Field = std::ops::Range<usize>;

const NAME: Field = 0..100;
const MODE: Field = 100..108;
const UID: Field = 108..116;
const GID: Field = 116..124;
const SIZE: Field = 124..136;
const MTIME: Field = 136..148;
const CHECKSUM: Field = 148..156;
const LINK: Field = 157..257;
const MAGIC: Field = 257..265;
const MAJOR: Field = 329..337;
const MINOR: Field = 337..345;
const PREFIX: Field = 345..500;
const STAR_PREFIX: Field = 345..476;
const STAR_TRAILER: Field = 508..512;

impl Header {
    /// Reads a block; `None` when it is all zeros, as at the end of an archive.
    pub(crate) fn parse(block: &[u8; BLOCK]) -> Result<Option<Self>, TarError> {
        if block.iter().all(|b| *b == 0) {
            return Ok(None);
        }
        if !checksum_is_right(block)? {
            return Err(TarError::Header);
        }
        let format = Format::of(block);
        let mut name = text(block, NAME).to_vec();
        if let Some(prefix) =
            format.prefix().map(|field| text(block, field)).filter(|prefix| !prefix.is_empty())
        {
            name = [prefix, b"/", &name].concat();
        }
        let kind = Kind::of(flag(block), &name);
        let device = match format {
            Format::V7 => (0, 0),
            _ => (device_number(block, MAJOR), device_number(block, MINOR)),
        };
        Ok(Some(Self {
            kind,
            mode: u32::try_from(number(block, MODE)?).map_err(|_| TarError::Header)?,
            uid: unsigned(block, UID)?,
            gid: unsigned(block, GID)?,
            size: unsigned(block, SIZE)?,
            mtime_s: number(block, MTIME)?,
            link: text(block, LINK).to_vec(),
            device,
            name,
        }))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    V7,
    Ustar,
    Star,
    Gnu,
}

impl Format {
    fn of(block: &[u8; BLOCK]) -> Self {
        match bytes(block, MAGIC) {
            b"ustar\x0000" if bytes(block, STAR_TRAILER) == b"tar\0" => Self::Star,
            b"ustar  \0" => Self::Gnu,
            magic if magic.starts_with(b"ustar\0") => Self::Ustar,
            _ => Self::V7,
        }
    }

    /// Where the front part of long names is; GNU keeps other things there.
    fn prefix(self) -> Option<Field> {
        match self {
            Self::Ustar => Some(PREFIX),
            Self::Star => Some(STAR_PREFIX),
            Self::V7 | Self::Gnu => None,
        }
    }
}

fn flag(block: &[u8; BLOCK]) -> u8 {
    block.get(156).copied().unwrap_or(0)
}

pub(crate) fn bytes(block: &[u8], field: Field) -> &[u8] {
    block.get(field).unwrap_or_default()
}

/// A text field: up to the first NUL.
fn text(block: &[u8], field: Field) -> &[u8] {
    let bytes = bytes(block, field);
    bytes.split(|b| *b == 0).next().unwrap_or_default()
}

/// Device numbers of entries that are no devices hold anything; what is no number is 0.
fn device_number(block: &[u8], field: Field) -> u32 {
    number(block, field).ok().and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
}

pub(crate) fn unsigned(block: &[u8], field: Field) -> Result<u64, TarError> {
    u64::try_from(number(block, field)?).map_err(|_| TarError::Header)
}

/// A number: octal digits, or with the top bit set a big-endian two's complement.
pub(crate) fn number(block: &[u8], field: Field) -> Result<i64, TarError> {
    let bytes = bytes(block, field);
    match bytes.first() {
        Some(first) if first & 0x80 != 0 => base_256(bytes),
        _ => octal(bytes),
    }
}

fn base_256(bytes: &[u8]) -> Result<i64, TarError> {
    let negative = bytes.first().is_some_and(|b| b & 0x40 != 0);
    let mut value = if negative { -1_i128 } else { 0 };
    for (at, byte) in bytes.iter().enumerate() {
        // The top bit of the first byte is the mark; the next one is the sign.
        let byte = if at == 0 && !negative { byte & 0x7f } else { *byte };
        value = value << 8 | i128::from(byte);
        if value > i128::from(i64::MAX) || value < i128::from(i64::MIN) {
            return Err(TarError::Header);
        }
    }
    i64::try_from(value).map_err(|_| TarError::Header)
}

fn octal(bytes: &[u8]) -> Result<i64, TarError> {
    let end = |b: &u8| matches!(b, 0 | b' ');
    let start = bytes.iter().position(|b| !end(b)).unwrap_or(bytes.len());
    let digits = bytes.get(start..).unwrap_or_default();
    let digits = digits.split(|b| end(b)).next().unwrap_or_default();
    let mut value = 0_i64;
    for digit in digits {
        if !(b'0'..=b'7').contains(digit) {
            return Err(TarError::Header);
        }
        value = value
            .checked_mul(8)
            .and_then(|v| v.checked_add(i64::from(digit - b'0')))
            .ok_or(TarError::Header)?;
    }
    Ok(value)
}

/// Some old programs summed signed bytes.
fn checksum_is_right(block: &[u8; BLOCK]) -> Result<bool, TarError> {
    let wanted = number(block, CHECKSUM)?;
    let (mut unsigned, mut signed) = (0_i64, 0_i64);
    for (at, byte) in block.iter().enumerate() {
        let byte = if CHECKSUM.contains(&at) { b' ' } else { *byte };
        unsigned += i64::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    Ok(wanted == unsigned || wanted == signed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_octal_or_binary() {
        let check = |field: &[u8], expect: Option<i64>| {
            assert_eq!(number(field, 0..field.len()).ok(), expect, "{field:?}")
        };
        check(b"0000644\0", Some(0o644));
        check(b"  644 \0\0", Some(0o644));
        check(b"\0\0\0\0\0\0\0\0", Some(0));
        check(b"0000648\0", None);
        check(b"-000001\0", None);
        check(b"\x80\0\0\0\0\0\0\0\0\0\x01\x02", Some(258));
        check(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2));
        check(b"\x80\0\0\x01\0\0\0\0\0\0\0\0", None);
        check(b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None);
    }
}
