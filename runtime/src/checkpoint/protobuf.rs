//! As much of protobuf's encoding as criu's messages need: numbers and what has a length.

/// A message that is being written.
#[derive(Debug, Default, Clone)]
pub(super) struct Fields {
    bytes: Vec<u8>,
}

impl Fields {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// An integer or an enumeration.
    pub(super) fn number(&mut self, field: u32, value: i32) {
        self.varint(u64::from(field) << 3);
        // a negative one has the length of 64 bits
        self.varint(i64::from(value) as u64);
    }

    /// A truth, which is false when it is not there.
    pub(super) fn flag(&mut self, field: u32, value: bool) {
        if value {
            self.number(field, 1);
        }
    }

    /// A string.
    pub(super) fn text(&mut self, field: u32, text: &str) {
        self.block(field, text.as_bytes());
    }

    /// A message inside.
    pub(super) fn message(&mut self, field: u32, inner: &Fields) {
        self.block(field, &inner.bytes);
    }

    fn block(&mut self, field: u32, bytes: &[u8]) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    /// The bytes.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Number(u64),
    Block(&'a [u8]),
}

/// A message that was received.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parsed<'a>(&'a [u8]);

impl<'a> Parsed<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Parsed(bytes)
    }

    /// The last value of a field, as protobuf has it. What cannot be read is not there.
    fn field(self, wanted: u32) -> Option<Piece<'a>> {
        let mut rest = self.0;
        let mut found = None;
        while !rest.is_empty() {
            let key = varint(&mut rest)?;
            let piece = match key & 7 {
                0 => Piece::Number(varint(&mut rest)?),
                1 => Piece::Block(take(&mut rest, 8)?),
                2 => {
                    let length = usize::try_from(varint(&mut rest)?).ok()?;
                    Piece::Block(take(&mut rest, length)?)
                }
                5 => Piece::Block(take(&mut rest, 4)?),
                _ => return None,
            };
            if key >> 3 == u64::from(wanted) {
                found = Some(piece);
            }
        }
        found
    }

    /// An integer.
    pub(super) fn number(self, field: u32) -> Option<i32> {
        match self.field(field)? {
            Piece::Number(number) => Some(number as i32),
            Piece::Block(_) => None,
        }
    }

    /// A string; empty if it is not there.
    pub(super) fn text(self, field: u32) -> String {
        match self.field(field) {
            Some(Piece::Block(bytes)) => String::from_utf8_lossy(bytes).into_owned(),
            _ => String::new(),
        }
    }

    /// A message inside.
    pub(super) fn message(self, field: u32) -> Option<Parsed<'a>> {
        match self.field(field)? {
            Piece::Block(bytes) => Some(Parsed(bytes)),
            Piece::Number(_) => None,
        }
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, left) = rest.split_first()?;
        *rest = left;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_bytes_of_the_specification() {
        let mut fields = Fields::default();
        fields.number(1, 150);
        fields.text(2, "testing");
        assert_eq!(fields.as_bytes(), b"\x08\x96\x01\x12\x07testing");
    }

    #[test]
    fn what_is_written_is_read() {
        let mut inner = Fields::default();
        inner.text(1, "post-restore");
        inner.number(2, 4242);
        let mut outer = Fields::default();
        outer.number(1, -1);
        outer.flag(2, true);
        outer.flag(3, false);
        outer.message(5, &inner);
        let parsed = Parsed::new(outer.as_bytes());
        assert_eq!((parsed.number(1), parsed.number(2), parsed.number(3)), (Some(-1), Some(1), None));
        let inner = parsed.message(5).unwrap();
        assert_eq!((inner.text(1).as_str(), inner.number(2)), ("post-restore", Some(4242)));
    }

    #[test]
    fn damaged_bytes_are_no_fields() {
        for bytes in [&b"\x08"[..], b"\x12\x7f1", b"\x0f", &[0xff; 32]] {
            assert_eq!(Parsed::new(bytes).field(1), None, "{bytes:?}");
        }
    }
}
