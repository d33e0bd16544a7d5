//! Tables of mounts, as the kernel writes them (proc_pid_mountinfo(5)).

use std::path::PathBuf;

use crate::Error;

/// A line. Paths are as in the table; see [`unescape`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Entry<'a> {
    /// The folder of the file system that is mounted.
    pub(crate) root: &'a str,
    /// Where.
    pub(crate) point: &'a str,
    pub(crate) fstype: &'a str,
    /// The options of the file system, not those of the mount.
    pub(crate) options: &'a str,
}

/// The table of the caller's mount namespace.
pub(crate) fn read() -> Result<String, Error> {
    let path = "/proc/self/mountinfo";
    std::fs::read_to_string(path).map_err(|e| Error::system("read", path, e))
}

/// The lines of a table.
pub(crate) fn entries(table: &str) -> impl Iterator<Item = Entry<'_>> {
    table.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split(' ').skip(3);
        let mut right = right.split(' ');
        let (root, point) = (left.next()?, left.next()?);
        Some(Entry { root, point, fstype: right.next()?, options: right.nth(1).unwrap_or_default() })
    })
}

/// A path of the table: spaces, tabs, newlines and backslashes are octal escapes.
pub(crate) fn unescape(field: &str) -> PathBuf {
    let mut out = String::with_capacity(field.len());
    let mut rest = field;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let code = rest.get(at + 1..at + 4).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                out.push(char::from(code));
                rest = &rest[at + 4..];
            }
            None => {
                out.push('\\');
                rest = &rest[at + 1..];
            }
        }
    }
    out.push_str(rest);
    PathBuf::from(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes() {
        assert_eq!(unescape("/a\\040b\\134c"), PathBuf::from("/a b\\c"));
        assert_eq!(unescape("/a\\"), PathBuf::from("/a\\"));
    }

    #[test]
    fn lines() {
        let table =
            "31 23 0:28 /sub /mnt/a rw,relatime shared:4 master:1 - tmpfs none rw,mode=755\nnonsense\n";
        let all: Vec<_> = entries(table).map(|e| (e.root, e.point, e.fstype, e.options)).collect();
        assert_eq!(all, [("/sub", "/mnt/a", "tmpfs", "rw,mode=755")]);
    }
}
