//! Headers of entries as they are on a file system: any name, any size, PAX where ustar has no room.

use super::header::{BLOCK, Kind};
use super::reader::Entry;
use super::sparse::Region;

/// Greatest number of seven octal digits: owners and device numbers.
const MAX_SHORT: u64 = 0o7_777_777;
/// Greatest number of eleven octal digits: sizes and times.
const MAX_LONG: u64 = 0o77_777_777_777;
const NAME_BYTES: usize = 100;
const PATH_KEY: &[u8] = b"path";

/// The blocks that stand before the content of `entry`, such that [`super::Reader`] and others read it back.
/// A folder's path gets its slash here. The map of a sparse file, in GNU's version 1.0, is among them; what follows
/// are its regions, [`Entry::stored_bytes`] in all.
pub(crate) fn encode(entry: &Entry) -> Vec<u8> {
    let mut path = entry.path.clone();
    if entry.kind == Kind::Folder && path != b"/" {
        path.push(b'/');
    }
    let mut records = Records::default();
    let mut size = entry.stored_bytes;
    let mut map = Vec::new();
    if let Some((real_size, regions)) = &entry.sparse {
        map = sparse_map(regions);
        size += map.len() as u64;
        records.add(b"GNU.sparse.major", b"1");
        records.add(b"GNU.sparse.minor", b"0");
        records.add(b"GNU.sparse.name", &path);
        records.add(b"GNU.sparse.realsize", real_size.to_string().as_bytes());
        path = [b"GNUSparseFile.0/", last_part(&path)].concat();
        path.truncate(NAME_BYTES);
    }
    records.text(PATH_KEY, &path);
    records.text(b"linkpath", &entry.link);
    records.number(b"size", size, MAX_LONG);
    records.number(b"uid", entry.uid, MAX_SHORT);
    records.number(b"gid", entry.gid, MAX_SHORT);
    records.time(entry.mtime);
    for (name, value) in &entry.xattrs {
        records.add(&[b"SCHILY.xattr.", &**name].concat(), value);
    }
    let mut blocks = records.into_header(&path);
    blocks.extend(Block::of(entry, &path, size).finish());
    blocks.extend(map);
    blocks
}

/// Count, then offset and length of each region, a line each, padded to a block.
fn sparse_map(regions: &[Region]) -> Vec<u8> {
    let mut map = format!("{}\n", regions.len()).into_bytes();
    for Region { offset, length } in regions {
        map.extend(format!("{offset}\n{length}\n").into_bytes());
    }
    map.resize(map.len().next_multiple_of(BLOCK), 0);
    map
}

fn last_part(path: &[u8]) -> &[u8] {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    path.rsplit(|b| *b == b'/').next().unwrap_or_default()
}

/// PAX records, in the order in which they were added.
#[derive(Default)]
struct Records(Vec<u8>);

impl Records {
    /// `LENGTH KEY=VALUE\n`, where the length counts itself.
    fn add(&mut self, key: &[u8], value: &[u8]) {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        self.0.extend(format!("{length} ").into_bytes());
        self.0.extend([key, b"=", value, b"\n"].concat());
    }

    /// Only if ustar cannot hold it. Plain ASCII is the same in every reader's eyes.
    fn text(&mut self, key: &[u8], value: &[u8]) {
        if value.len() > NAME_BYTES || !value.is_ascii() {
            self.add(key, value);
        }
    }

    fn number(&mut self, key: &[u8], value: u64, greatest: u64) {
        if value > greatest {
            self.add(key, value.to_string().as_bytes());
        }
    }

    fn time(&mut self, (seconds, nanos): (i64, u32)) {
        if nanos == 0 && u64::try_from(seconds).is_ok_and(|seconds| seconds <= MAX_LONG) {
            return;
        }
        // Before the epoch the fraction counts downwards, as in -0.25.
        let downwards = seconds < 0 && nanos > 0;
        let (whole, fraction) =
            if downwards { (seconds + 1, 1_000_000_000 - nanos) } else { (seconds, nanos) };
        let sign = if downwards && whole == 0 { "-" } else { "" };
        let text = format!("{sign}{whole}.{fraction:09}");
        self.add(b"mtime", text.trim_end_matches('0').trim_end_matches('.').as_bytes());
    }

    /// The extension entry, or nothing if there are no records.
    fn into_header(self, path: &[u8]) -> Vec<u8> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let mut name = [b"PaxHeaders.0/", last_part(path)].concat();
        name.retain(u8::is_ascii);
        let mut block = Block([0; BLOCK]);
        block.text(0, &name);
        block.octal(124, 11, self.0.len() as u64);
        block.owner(0, 0, 0);
        block.octal(136, 11, 0);
        block.flag(b'x');
        let mut blocks = block.finish().to_vec();
        blocks.extend(self.0);
        blocks.resize(blocks.len().next_multiple_of(BLOCK), 0);
        blocks
    }
}

struct Block([u8; BLOCK]);

impl Block {
    fn of(entry: &Entry, path: &[u8], size: u64) -> Self {
        let mut block = Self([0; BLOCK]);
        block.text(0, path);
        block.owner(entry.mode, entry.uid, entry.gid);
        block.octal(124, 11, if size > MAX_LONG { 0 } else { size });
        block.octal(136, 11, u64::try_from(entry.mtime.0).ok().filter(|s| *s <= MAX_LONG).unwrap_or(0));
        block.flag(match entry.kind {
            Kind::HardLink => b'1',
            Kind::Symlink => b'2',
            Kind::CharDevice => b'3',
            Kind::BlockDevice => b'4',
            Kind::Folder => b'5',
            Kind::Fifo => b'6',
            Kind::GnuLongName => b'L',
            Kind::GnuLongLink => b'K',
            Kind::GnuSparse => b'S',
            Kind::Pax => b'x',
            Kind::PaxGlobal => b'g',
            Kind::File => b'0',
            Kind::Other(flag) => flag,
        });
        block.text(157, &entry.link);
        block.octal(329, 7, entry.device.0.into());
        block.octal(337, 7, entry.device.1.into());
        block
    }

    fn put(&mut self, at: usize, bytes: &[u8]) {
        for (to, from) in self.0.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    }

    /// A name or link, as much as there is room for; what does not fit is in a PAX record.
    fn text(&mut self, at: usize, text: &[u8]) {
        self.put(at, text.get(..NAME_BYTES).unwrap_or(text));
    }

    fn octal(&mut self, at: usize, digits: usize, value: u64) {
        self.put(at, format!("{value:0digits$o}\0").as_bytes());
    }

    fn owner(&mut self, mode: u32, uid: u64, gid: u64) {
        let short = |id| if id > MAX_SHORT { 0 } else { id };
        self.octal(100, 7, (mode & 0o7777).into());
        self.octal(108, 7, short(uid));
        self.octal(116, 7, short(gid));
    }

    fn flag(&mut self, flag: u8) {
        self.put(156, &[flag]);
    }

    fn finish(mut self) -> [u8; BLOCK] {
        self.put(148, b"        ");
        self.put(257, b"ustar\x0000");
        let sum: u32 = self.0.iter().map(|b| u32::from(*b)).sum();
        self.put(148, format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::Reader;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn round_trip(entry: &Entry) {
        let mut bytes = encode(entry);
        assert_eq!(bytes.len() % BLOCK, 0);
        bytes.resize(bytes.len() + entry.stored_bytes.next_multiple_of(512) as usize + 1024, 0);
        let read = Reader::new(&*bytes, ()).next().unwrap().unwrap();
        let mut path = entry.path.clone();
        if entry.kind == Kind::Folder {
            path.push(b'/');
        }
        assert_eq!((read.path, read.kind), (path, entry.kind));
        assert_eq!((read.link, read.mode, read.device), (entry.link.clone(), entry.mode, entry.device));
        assert_eq!((read.uid, read.gid, read.mtime), (entry.uid, entry.gid, entry.mtime));
        assert_eq!((read.stored_bytes, read.sparse), (entry.stored_bytes, entry.sparse.clone()));
        assert_eq!(read.xattrs, entry.xattrs);
    }

    fn name() -> impl Strategy<Value = Vec<u8>> {
        vec(1..=255_u8, 1..200).prop_filter("no slash at the end", |name| !name.ends_with(b"/"))
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            path in name(), link in name(), kind in 0..5_usize, mode in 0..0o10000_u32,
            ids in any::<(u32, u32)>(), seconds in -(1_i64 << 40)..1 << 40, nanos in 0..1_000_000_000_u32,
            xattr in vec(any::<u8>(), 0..50), device in (0..4096_u32, 0..1_u32 << 20), size in 0..2000_u64,
        ) {
            let kind = [Kind::File, Kind::Folder, Kind::Symlink, Kind::HardLink, Kind::CharDevice][kind];
            let link = if matches!(kind, Kind::Symlink | Kind::HardLink) { link } else { Vec::new() };
            round_trip(&Entry {
                path, link, kind, mode,
                uid: ids.0.into(), gid: ids.1.into(), mtime: (seconds, nanos),
                device: if kind == Kind::CharDevice { device } else { (0, 0) },
                xattrs: vec![(b"user.x".to_vec(), xattr)],
                stored_bytes: if kind == Kind::File { size } else { 0 },
                sparse: None,
            });
        }
    }

    #[test]
    fn sparse_files_and_great_sizes_are_read_back() {
        let regions: Vec<Region> = (0..100).map(|n| Region { offset: n << 33, length: 5 }).collect();
        let mut entry = Entry {
            path: b"a/sparse".to_vec(),
            link: Vec::new(),
            kind: Kind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: (5, 0),
            device: (0, 0),
            xattrs: Vec::new(),
            stored_bytes: 500,
            sparse: Some((1 << 42, regions)),
        };
        round_trip(&entry);
        entry.sparse = Some((0, Vec::new()));
        entry.stored_bytes = 0;
        round_trip(&entry);
        entry.sparse = None;
        entry.stored_bytes = 1 << 34;
        let header = encode(&entry);
        let read = Reader::new(&*header, ()).next().unwrap().unwrap();
        assert_eq!(read.stored_bytes, 1 << 34);
    }
}
