//! Building and reading netlink messages (netlink(7)): a header, a fixed part, then
//! attributes (length, kind, payload), all aligned to four bytes, in the machine's byte order.

pub(super) const HEADER: usize = 16;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
const DUMP: u16 = 0x300;
/// Make the object; with [`EXCLUSIVE`]: it must not be there yet.
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const EXCLUSIVE: u16 = 0x200;
/// Replace an object that is there.
pub(crate) const REPLACE: u16 = 0x100;
pub(crate) const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;

pub(super) const fn align(length: usize) -> usize {
    (length + 3) & !3
}

/// Messages to be sent together.
#[derive(Default)]
pub(crate) struct Batch {
    bytes: Vec<u8>,
    starts: Vec<(usize, bool)>,
    transaction: bool,
}

/// What a sent batch still waits for.
pub(super) struct Pending {
    pub(super) count: u32,
    pub(super) acknowledgements: usize,
    pub(super) transaction: bool,
    first: u32,
    acked: Vec<bool>,
}

impl Pending {
    /// Whether this is the first verdict on a message that asked for one.
    pub(super) fn expects_ack(&mut self, sequence: u32) -> bool {
        let index = sequence.wrapping_sub(self.first) as usize;
        self.acked.get_mut(index).is_some_and(std::mem::take)
    }
}

impl Batch {
    /// A batch that the kernel carries out whole or not at all (nftables).
    pub(super) fn transaction() -> Self {
        Self { transaction: true, ..Self::default() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// A message that the kernel acknowledges.
    pub(crate) fn order(&mut self, kind: u16, flags: u16, fixed: &[u8]) -> Message<'_> {
        self.message(kind, REQUEST | ACK | flags, fixed, true)
    }

    /// A request for all objects of a kind.
    pub(super) fn dump(&mut self, kind: u16, fixed: &[u8]) -> Message<'_> {
        self.message(kind, REQUEST | DUMP, fixed, false)
    }

    /// A request for one object; the acknowledgement ends the answer.
    pub(super) fn get(&mut self, kind: u16, fixed: &[u8]) -> Message<'_> {
        self.message(kind, REQUEST | ACK, fixed, true)
    }

    /// A message without an answer of its own (the ends of a transaction).
    pub(super) fn marker(&mut self, kind: u16, fixed: &[u8]) {
        self.message(kind, REQUEST, fixed, false);
    }

    fn message(&mut self, kind: u16, flags: u16, fixed: &[u8], ack: bool) -> Message<'_> {
        let start = self.bytes.len();
        self.starts.push((start, ack));
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.extend_from_slice(fixed);
        pad(&mut self.bytes);
        Message { bytes: &mut self.bytes }
    }

    pub(super) fn finish(mut self, first: u32) -> (Vec<u8>, Pending) {
        let ends = self.starts.iter().skip(1).map(|s| s.0).chain([self.bytes.len()]).collect::<Vec<_>>();
        for (index, (&(start, _), end)) in self.starts.iter().zip(ends).enumerate() {
            let header = &mut self.bytes[start..start + HEADER];
            header[..4].copy_from_slice(&((end - start) as u32).to_ne_bytes());
            header[8..12].copy_from_slice(&first.wrapping_add(index as u32).to_ne_bytes());
        }
        let acked = self.starts.iter().map(|s| s.1).collect::<Vec<_>>();
        let pending = Pending {
            count: acked.len() as u32,
            acknowledgements: acked.iter().filter(|a| **a).count(),
            transaction: self.transaction,
            first,
            acked,
        };
        (self.bytes, pending)
    }
}

/// The message that is being built.
pub(crate) struct Message<'a> {
    bytes: &'a mut Vec<u8>,
}

impl Message<'_> {
    /// An attribute with these bytes.
    pub(crate) fn bytes(&mut self, kind: u16, payload: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(&((payload.len() + 4) as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(payload);
        pad(self.bytes);
        self
    }

    /// An attribute with a C string.
    pub(crate) fn text(&mut self, kind: u16, text: &str) -> &mut Self {
        let mut payload = text.as_bytes().to_vec();
        payload.push(0);
        self.bytes(kind, &payload)
    }

    /// An attribute with a number in the machine's byte order.
    pub(crate) fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// An attribute that holds what `fill` adds.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Message<'_>)) -> &mut Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        fill(&mut Message { bytes: self.bytes });
        let length = (self.bytes.len() - start) as u16;
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    /// Bytes that are no attribute (the fixed part of a nested message).
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        pad(self.bytes);
        self
    }
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(align(bytes.len()), 0);
}

/// The attributes in `bytes`: (kind without flags, payload).
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*bytes.first_chunk()?));
        let kind = u16::from_ne_bytes(*bytes.get(2..)?.first_chunk()?);
        let payload = bytes.get(4..length)?;
        bytes = bytes.get(align(length)..).unwrap_or_default();
        Some((kind & 0x3fff, payload))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_sequences_and_nesting_come_out_right() {
        let mut batch = Batch::default();
        batch.order(16, CREATE, &[9; 16]).text(3, "eth0").nest(18, |m| {
            m.u32(1, 7);
        });
        batch.order(20, 0, &[1; 8]);
        let (bytes, mut pending) = batch.finish(5);
        assert_eq!(u32::from_ne_bytes(bytes[..4].try_into().unwrap()) as usize, 16 + 16 + 12 + 12);
        assert_eq!(u32::from_ne_bytes(bytes[8..12].try_into().unwrap()), 5);
        assert_eq!(u32::from_ne_bytes(bytes[64..68].try_into().unwrap()), 6);
        let found = attributes(&bytes[32..56]).collect::<Vec<_>>();
        assert_eq!(found[0], (3, &b"eth0\0"[..]));
        assert_eq!(attributes(found[1].1).next(), Some((1, &7u32.to_ne_bytes()[..])));
        assert!(pending.expects_ack(6) && !pending.expects_ack(6) && !pending.expects_ack(4));
    }

    #[test]
    fn broken_attributes_end_the_list() {
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0);
        assert_eq!(attributes(&[200, 0, 1, 0, 1]).count(), 0);
    }
}
