//! Where the data of sparse files belongs.

use super::TarError;
use super::header::{BLOCK, bytes, unsigned};

/// A piece of data in a sparse file; between them are holes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Region {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// Most regions of one file; an honest file of that many is hardly worth calling sparse.
pub(crate) const MAX_REGIONS: usize = 1 << 20;

/// Checks that regions are in order, do not overlap, lie within the file, and have exactly
/// `stored` bytes.
pub(crate) fn check(regions: &[Region], real_size: u64, stored: u64) -> Result<(), TarError> {
    let (mut end, mut sum) = (0, 0_u64);
    for region in regions {
        let next = region.offset.checked_add(region.length).ok_or(TarError::Sparse)?;
        if region.offset < end || next > real_size {
            return Err(TarError::Sparse);
        }
        end = next;
        sum = sum.checked_add(region.length).ok_or(TarError::Sparse)?;
    }
    if sum == stored && i64::try_from(real_size).is_ok() { Ok(()) } else { Err(TarError::Sparse) }
}

/// Pairs of numbers, as PAX versions 0.0 and 0.1 have them.
pub(crate) fn from_pairs(numbers: &[u64]) -> Result<Vec<Region>, TarError> {
    if numbers.len() / 2 > MAX_REGIONS {
        return Err(TarError::TooLong);
    }
    let pairs = numbers.chunks(2);
    pairs
        .map(|pair| match pair {
            [offset, length] => Ok(Region { offset: *offset, length: *length }),
            _ => Err(TarError::Sparse),
        })
        .collect()
}

/// The map in an old GNU header: four regions in the header, 21 in each block that follows it.
/// Returns whether there is a further block.
pub(crate) fn old_gnu(
    block: &[u8; BLOCK],
    is_header: bool,
    regions: &mut Vec<Region>,
) -> Result<bool, TarError> {
    let (start, count, more) = if is_header { (386, 4, 482) } else { (0, 21, 504) };
    for index in 0..count {
        let at = start + index * 24;
        if bytes(block, at..at + 24).first().is_none_or(|b| *b == 0) {
            break;
        }
        regions.push(Region {
            offset: unsigned(block, at..at + 12)?,
            length: unsigned(block, at + 12..at + 24)?,
        });
        if regions.len() > MAX_REGIONS {
            return Err(TarError::TooLong);
        }
    }
    Ok(block.get(more).is_some_and(|b| *b != 0))
}

/// The real size in an old GNU header.
pub(crate) fn old_gnu_real_size(block: &[u8; BLOCK]) -> Result<u64, TarError> {
    unsigned(block, 483..495)
}
