//! Where a file has data, and where only holes.

use std::os::fd::AsFd;

use rustix::fs::{SeekFrom, Stat, seek};
use rustix::io::Errno;

use crate::tar::Region;

/// With more pieces than this a file is written as a whole: its map would be longer than what it saves.
const MAX_REGIONS: usize = 4096;
/// Fewer missing bytes are not worth a map, which many readers know but few were tested with.
const MIN_SAVED: u64 = 64 << 10;

/// The regions with data, if there are holes worth the name.
pub(super) fn regions(file: impl AsFd, stat: &Stat) -> Result<Option<Vec<Region>>, Errno> {
    let size = u64::try_from(stat.st_size).unwrap_or(0);
    let stored = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
    if stored.saturating_add(MIN_SAVED) > size {
        return Ok(None);
    }
    let (mut regions, mut at, mut bytes) = (Vec::new(), 0, 0);
    while at < size {
        let start = match seek(&file, SeekFrom::Data(at)) {
            Ok(start) => start.min(size),
            Err(Errno::NXIO) => break, // a hole up to the end
            Err(Errno::INVAL) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        let end = seek(&file, SeekFrom::Hole(start))?.min(size);
        if regions.len() == MAX_REGIONS || end <= start {
            return Ok(None);
        }
        regions.push(Region { offset: start, length: end - start });
        bytes += end - start;
        at = end;
    }
    Ok((bytes.saturating_add(MIN_SAVED) <= size).then_some(regions))
}
