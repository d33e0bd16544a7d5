//! PAX extended header records: `LENGTH KEY=VALUE\n`.

use super::TarError;

/// What PAX records say about the next entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pax {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    pub(crate) size: Option<u64>,
    pub(crate) uid: Option<u64>,
    pub(crate) gid: Option<u64>,
    /// Seconds and nanoseconds.
    pub(crate) mtime: Option<(i64, u32)>,
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) sparse: SparseKeys,
}

/// The keys by which GNU tar describes sparse files, versions 0.0, 0.1 and 1.0.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SparseKeys {
    pub(crate) major: Option<u64>,
    pub(crate) minor: Option<u64>,
    pub(crate) name: Option<Vec<u8>>,
    /// `GNU.sparse.size` (0.x) or `GNU.sparse.realsize` (1.0).
    pub(crate) real_size: Option<u64>,
    /// The map of version 0.1, or that of 0.0 brought into the same form: `offset,length,…`.
    pub(crate) map: Vec<u64>,
}

impl Pax {
    /// Reads the records of one extended header.
    pub(crate) fn parse(mut records: &[u8]) -> Result<Self, TarError> {
        let mut pax = Self::default();
        while !records.is_empty() {
            let (key, value, rest) = record(records)?;
            pax.set(key, value)?;
            records = rest;
        }
        Ok(pax)
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), TarError> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            self.xattrs.push((name.to_vec(), value.to_vec()));
            return Ok(());
        }
        match key {
            b"path" => self.path = text(value),
            b"linkpath" => self.link = text(value),
            b"size" => self.size = decimal(value)?,
            b"uid" => self.uid = decimal(value)?,
            b"gid" => self.gid = decimal(value)?,
            b"mtime" => self.mtime = time(value)?,
            b"GNU.sparse.major" => self.sparse.major = decimal(value)?,
            b"GNU.sparse.minor" => self.sparse.minor = decimal(value)?,
            b"GNU.sparse.name" => self.sparse.name = text(value),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse.real_size = decimal(value)?,
            b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => self.sparse.map.extend(decimal(value)?),
            b"GNU.sparse.map" => {
                self.sparse.map = value
                    .split(|b| *b == b',')
                    .map(|number| decimal(number)?.ok_or(TarError::Sparse))
                    .collect::<Result<_, _>>()?;
            }
            _ => {}
        }
        Ok(())
    }
}

type Record<'a> = (&'a [u8], &'a [u8], &'a [u8]);

/// Splits off the first record: key, value, and what follows.
fn record(records: &[u8]) -> Result<Record<'_>, TarError> {
    let space = records.iter().position(|b| *b == b' ').ok_or(TarError::Pax)?;
    let (digits, _) = records.split_at(space);
    let length = decimal(digits)?.and_then(|n| usize::try_from(n).ok()).ok_or(TarError::Pax)?;
    let (record, rest) = records.split_at_checked(length).ok_or(TarError::Pax)?;
    let body = record.get(space + 1..).and_then(|body| body.strip_suffix(b"\n")).ok_or(TarError::Pax)?;
    let equals = body.iter().position(|b| *b == b'=').ok_or(TarError::Pax)?;
    let (key, value) = body.split_at(equals);
    let value = value.get(1..).unwrap_or_default();
    // Binary values are at home in extended attributes only.
    let plain = |bytes: &[u8]| !bytes.contains(&0);
    if key.is_empty() || !plain(key) || (!key.starts_with(b"SCHILY.xattr.") && !plain(value)) {
        return Err(TarError::Pax);
    }
    Ok((key, value, rest))
}

/// An empty value takes a record back.
fn text(value: &[u8]) -> Option<Vec<u8>> {
    (!value.is_empty()).then(|| value.to_vec())
}

fn decimal(value: &[u8]) -> Result<Option<u64>, TarError> {
    if value.is_empty() {
        return Ok(None);
    }
    if !value.iter().all(u8::is_ascii_digit) {
        return Err(TarError::Pax);
    }
    std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).map(Some).ok_or(TarError::Pax)
}

/// `[-]seconds[.fraction]`; digits past the ninth are dropped.
fn time(value: &[u8]) -> Result<Option<(i64, u32)>, TarError> {
    if value.is_empty() {
        return Ok(None);
    }
    let text = std::str::from_utf8(value).map_err(|_| TarError::Pax)?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(TarError::Pax);
    }
    let whole: i64 = seconds.parse().map_err(|_| TarError::Pax)?;
    let nanos: u32 = format!("{fraction:0<9.9}").parse().map_err(|_| TarError::Pax)?;
    if text.starts_with('-') && nanos > 0 {
        return Ok(Some((whole.checked_sub(1).ok_or(TarError::Pax)?, 1_000_000_000 - nanos)));
    }
    Ok(Some((whole, nanos)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_records() {
        let pax =
            Pax::parse(b"12 path=a/b\n10 size=7\n20 mtime=1.50000000\n28 SCHILY.xattr.user.x=\0=\n\xff\n")
                .unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a/b"[..]));
        assert_eq!((pax.size, pax.mtime), (Some(7), Some((1, 500_000_000))));
        assert_eq!(pax.xattrs, [(b"user.x".to_vec(), b"\0=\n\xff".to_vec())]);
    }

    #[test]
    fn times_may_be_negative() {
        assert_eq!(time(b"-1.25").unwrap(), Some((-2, 750_000_000)));
        assert_eq!(time(b"5.1234567899").unwrap(), Some((5, 123_456_789)));
        assert!(time(b"5.x").is_err() && time(b"x").is_err());
    }

    #[test]
    fn malformed_records_are_refused() {
        for text in [
            &b"x"[..],
            b"5 a=b",
            b"99 a=b\n",
            b"6 ab=\0\n",
            b"2 \n",
            b"5 a\n\n",
            b"-6 a=b\n",
            b"0 a=b\n",
            b"4 =\n",
            b"8 size=x\n",
        ] {
            assert!(Pax::parse(text).is_err(), "{:?}", String::from_utf8_lossy(text));
        }
    }
}
