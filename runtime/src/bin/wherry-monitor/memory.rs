//! Gives memory back to the system once the monitor has nothing to do.
#![allow(unsafe_code)] // malloc_trim and madvise have no safe wrapper.

/// Returns free heap, and the pages of program and libraries that were only read, which come back from the page cache
/// when they are needed.
pub(crate) fn give_back() {
    let clean =
        std::fs::read_to_string("/proc/self/smaps").map(|smaps| clean_mappings(&smaps)).unwrap_or_default();
    // SAFETY: malloc_trim may be called at any time.
    unsafe { libc::malloc_trim(0) };
    for (start, length) in clean {
        // SAFETY: these are whole mappings of files, without write permission and without a page that differs
        // from the file (as relocations leave): the kernel reads them again.
        unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) };
    }
}

/// Address and length of the mappings in /proc/self/smaps whose pages all are as in their file, and stay so.
fn clean_mappings(smaps: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut mapping = None;
    for line in smaps.lines() {
        if let Some(next) = range(line) {
            mapping = readable_file(line).then_some(next);
        } else if let (Some(anonymous), Some(mapping)) = (line.strip_prefix("Anonymous:"), mapping)
            && anonymous.trim() == "0 kB"
        {
            found.push(mapping);
        }
    }
    found
}

/// Address and length, if the line is the first of a mapping.
fn range(line: &str) -> Option<(usize, usize)> {
    let (start, end) = line.split_ascii_whitespace().next()?.split_once('-')?;
    let (start, end) = (usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?);
    Some((start, end.checked_sub(start)?))
}

fn readable_file(line: &str) -> bool {
    let mut fields = line.split_ascii_whitespace().skip(1);
    let permissions = fields.next().unwrap_or_default();
    matches!(permissions, "r--p" | "r-xp") && fields.nth(3).is_some_and(|path| path.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_that_are_as_in_their_file_are_given_back() {
        let smaps = "\
55d0c0001000-55d0c0003000 r-xp 00001000 fe:01 123   /memfd:wherry-monitor (deleted)
Size:                  8 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
55d0c0003000-55d0c0005000 r--p 00003000 fe:01 123   /usr/lib/libc.so.6
Anonymous:             4 kB
55d0c0005000-55d0c0007000 rw-p 00003000 fe:01 123   /usr/lib/libc.so.6
Anonymous:             0 kB
55d0c0008000-55d0c0009000 r--p 00000000 fe:01 123   /usr/lib/libm.so.6
Anonymous:             0 kB
7ffd00000000-7ffd00001000 r-xp 00000000 00:00 0     [vdso]
Anonymous:             0 kB
7ffd00001000-7ffd00002000 r--p 00000000 00:00 0
Anonymous:             0 kB
";
        assert_eq!(clean_mappings(smaps), [(0x55d0_c000_1000, 0x2000), (0x55d0_c000_8000, 0x1000)]);
        assert_eq!(clean_mappings(""), []);
        give_back();
    }
}
