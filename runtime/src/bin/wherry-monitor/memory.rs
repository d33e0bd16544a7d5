//! Gives memory back to the system once the monitor has nothing to do.
#![allow(unsafe_code)] // malloc_trim and madvise have no safe wrapper.

/// Returns free heap, and the pages of the program itself, which come back from the page cache when they are needed.
pub(crate) fn give_back() {
    // SAFETY: malloc_trim may be called at any time.
    unsafe { libc::malloc_trim(0) };
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    for (start, length) in maps.lines().filter_map(code) {
        // SAFETY: these are whole mappings of files with execute and without write permission: the pages
        // have never been written, and the kernel reads them again from the file.
        unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) };
    }
}

/// Address and length of a line of /proc/self/maps that maps a program's code from a file.
fn code(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (range, permissions) = (fields.next()?, fields.next()?);
    let path = fields.nth(3)?;
    if permissions != "r-xp" || !path.starts_with('/') {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    Some((start, end.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_from_files_is_given_back() {
        let code_line = "55d0c0001000-55d0c0003000 r-xp 00001000 fe:01 123   /memfd:wherry-monitor (deleted)";
        assert_eq!(code(code_line), Some((0x55d0_c000_1000, 0x2000)));
        for other in [
            "55d0c0001000-55d0c0003000 r--p 00001000 fe:01 123   /usr/lib/libc.so.6",
            "7ffd0000-7ffe0000 r-xp 00000000 00:00 0   [vdso]",
            "7ffd0000-7ffe0000 r-xp 00000000 00:00 0",
            "",
            "zz r-xp 0 0 0 /x",
        ] {
            assert_eq!(code(other), None, "{other}");
        }
        give_back();
    }
}
