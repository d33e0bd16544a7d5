//! The files that a build is given: an archive in the request or elsewhere, a repository, or a Dockerfile alone.

use std::fs::DirBuilder;
use std::io::{Cursor, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, unlinkat};
use rustix::io::Errno;
use wherry_dockerfile::plan::leads_out;
use wherry_image_store::{Extract, extract};

use crate::build::Folder;
use crate::build::files::{Root, clean, split};
use crate::engine::{Engine, blocking};
use crate::error::Error;
use crate::text::go_quote;

/// Most bytes of a Dockerfile.
const MAX_DOCKERFILE: u64 = 16 << 20;

/// A new folder for the files of a build, which goes with the value.
///
/// # Errors
/// What the file system says.
pub(in crate::build) fn new_folder(engine: &Engine) -> Result<(Folder, PathBuf), Error> {
    let parent = engine.config().data_root.join("build").join(crate::build::CONTEXTS);
    let path = parent.join(crate::id::hex64());
    let made = DirBuilder::new().recursive(true).mode(0o700).create(&parent);
    made.and_then(|()| DirBuilder::new().mode(0o755).create(&path))
        .map_err(Error::io("create", path.display()))?;
    let root = open_folder(&path)?;
    Ok((Folder { root, temporary: Some(path.clone()), known: None, inside: None }, path))
}

fn open_folder(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .map_err(|errno| Error::io("open", path.display())(errno.into()))
}

/// Unpacks an archive, plain or compressed, into a new folder.
///
/// # Errors
/// dockerd's text for what is no archive.
pub(in crate::build) async fn unpack(
    engine: &Arc<Engine>,
    archive: impl Read + Send + 'static,
) -> Result<Arc<Folder>, Error> {
    let engine = engine.clone();
    blocking(move || {
        let (folder, path) = new_folder(&engine)?;
        // All files of a context belong to root, whoever has them on the client's side.
        let wishes = Extract { keep_kinds: false, owner: Some((0, 0)) };
        extract(open_folder(&path)?, archive, wishes)
            .map_err(|error| Error::server(format!("Error processing tar file(exit status 1): {error}")))?;
        Ok(Arc::new(folder))
    })
    .await
}

/// A folder that has a Dockerfile and nothing else.
///
/// # Errors
/// What the file system says.
pub(super) async fn of_dockerfile(engine: &Arc<Engine>, text: Vec<u8>) -> Result<Arc<Folder>, Error> {
    let engine = engine.clone();
    blocking(move || {
        let (folder, path) = new_folder(&engine)?;
        let file = path.join(super::DOCKERFILE);
        std::fs::write(&file, text).map_err(Error::io("write", file.display()))?;
        Ok(Arc::new(folder))
    })
    .await
}

/// The Dockerfile of a context, and how it is called; what `.dockerignore` says about these two files is done.
///
/// # Errors
/// dockerd's texts for one that is not there or is outside. Blocking.
pub(in crate::build) fn dockerfile(folder: &Folder, name: &str) -> Result<(String, String), Error> {
    let asked = if name.is_empty() { super::DOCKERFILE } else { name };
    if leads_out(asked) {
        return Err(Error::server(format!("forbidden path outside the build context: {asked} ()")));
    }
    let root = Root(folder.root.as_fd());
    let path = clean(asked);
    let (path, file) = match open(root, &path) {
        // Somebody may have written it in small letters.
        Err(Errno::NOENT) if name.is_empty() || name == super::DOCKERFILE => {
            let small = path.to_lowercase();
            let file = open(root, &small);
            (small, file)
        }
        file => (path, file),
    };
    let file = file.map_err(|errno| match errno {
        Errno::NOENT | Errno::NOTDIR => Error::server(format!("Cannot locate specified Dockerfile: {asked}")),
        errno => Error::io("open", asked)(errno.into()),
    })?;
    let bytes = read_text(std::fs::File::from(file), asked)?;
    if bytes.is_empty() {
        return Err(Error::InvalidParameter(format!("the Dockerfile ({asked}) cannot be empty")));
    }
    remove_ignored(root, &path)?;
    Ok((String::from_utf8_lossy(&bytes).into_owned(), asked.to_owned()))
}

/// Reads all of a document that is kept in memory.
///
/// # Errors
/// What the file system says; 400 for one that is too long.
pub(super) fn read_text(file: impl Read, name: &str) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    file.take(MAX_DOCKERFILE + 1).read_to_end(&mut bytes).map_err(Error::io("read", name))?;
    if bytes.len() as u64 > MAX_DOCKERFILE {
        let what = format!(
            "{name} is too long for a Dockerfile or .dockerignore: it has more than {MAX_DOCKERFILE} bytes"
        );
        return Err(Error::InvalidParameter(what));
    }
    Ok(bytes)
}

fn open(root: Root<'_>, path: &str) -> Result<OwnedFd, Errno> {
    root.open(path.as_bytes(), OFlags::RDONLY | OFlags::NONBLOCK)
}

/// The client has sent the Dockerfile and `.dockerignore` even if they are ignored, as it must; steps do not get to see them.
fn remove_ignored(root: Root<'_>, dockerfile: &str) -> Result<(), Error> {
    let Ok(file) = open(root, super::DOCKERIGNORE) else { return Ok(()) };
    let text = read_text(std::fs::File::from(file), super::DOCKERIGNORE)?;
    let ignore = wherry_dockerfile::Ignore::parse(&String::from_utf8_lossy(&text)).map_err(|error| {
        Error::server(format!("error reading {}: {error}", go_quote(super::DOCKERIGNORE)))
    })?;
    for path in [dockerfile, super::DOCKERIGNORE] {
        if !ignore.is_ignored(path) {
            continue;
        }
        let (above, name) = split(path.as_bytes());
        let removed = root
            .open(above, OFlags::PATH | OFlags::DIRECTORY)
            .and_then(|folder| unlinkat(&folder, name, AtFlags::empty()));
        match removed {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(Error::io("remove", path)(errno.into())),
        }
    }
    Ok(())
}

/// Reads all of a body that is a Dockerfile, or the beginning of it to see whether it is.
pub(super) fn chained(head: Vec<u8>, rest: impl Read + Send + 'static) -> impl Read + Send + 'static {
    Cursor::new(head).chain(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_read_whole_or_not_at_all() {
        let longest = vec![b'#'; 16 << 20];
        assert_eq!(read_text(&*longest, "Dockerfile").unwrap(), longest);
        let error = read_text(longest.chain(&b"\n"[..]), "Dockerfile").unwrap_err();
        assert!(matches!(&error, Error::InvalidParameter(text) if text.contains("more than 16777216 bytes")));
    }
}
