//! The names of a log's files.

use std::ffi::OsString;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The name of the `number`th rotated file; 0 is the current one.
pub(crate) fn rotated(path: &Path, number: u32) -> PathBuf {
    if number == 0 { path.to_owned() } else { suffixed(path, &format!(".{number}")) }
}

pub(crate) fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

pub(crate) fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// All files of the log at `path`, the newest first. They are opened in that order so that a rotation
/// meanwhile shows a file twice (it is dropped) and never hides one.
pub(crate) fn open_all(path: &Path) -> io::Result<Vec<File>> {
    let mut files = Vec::new();
    let mut seen = Vec::new();
    for number in 0.. {
        match File::open(rotated(path, number)) {
            Ok(file) => {
                let identity = identity(&file.metadata()?);
                if !seen.contains(&identity) {
                    seen.push(identity);
                    files.push(file);
                }
            }
            // The current file may be missing for an instant, while it is rotated.
            Err(e) if e.kind() == io::ErrorKind::NotFound && number == 0 => {}
            Err(e) if e.kind() == io::ErrorKind::NotFound => break,
            Err(e) => return Err(e),
        }
    }
    Ok(files)
}
