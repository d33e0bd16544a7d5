//! What is built: folders with a Dockerfile that nobody has seen before.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

/// Five commands and five copies, all of them small.
const TEN_STEPS: &str = "FROM busybox
RUN mkdir -p /app/bin && echo begun >/app/log
COPY round.txt /app/
RUN cat /app/round.txt >>/app/log
COPY lib /app/lib
RUN ls /app/lib >>/app/log
COPY one.txt two.txt /app/
RUN cat /app/one.txt /app/two.txt >>/app/log
COPY run.sh /app/bin/run
RUN chmod 755 /app/bin/run && /app/bin/run >>/app/log
COPY last.txt /app/
";
const FILES_IN_A_FOLDER: usize = 100;
/// The one that changes.
const CHANGING: &str = "module017/file042.txt";

/// A folder that a client sends.
#[derive(Debug)]
pub(crate) struct Context {
    folder: TempDir,
    steps: usize,
    /// A file of the image, and the one here that it is made of.
    shows: (&'static str, &'static str),
}

impl Context {
    /// Ten steps.
    pub(crate) fn ten_steps(round: usize) -> Context {
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::create_dir(folder.path().join("lib")).expect("make a folder");
        let stamp = format!("round {round} of {}\n", folder.path().display());
        for (name, text) in [
            ("Dockerfile", TEN_STEPS),
            ("round.txt", &stamp),
            ("lib/a.txt", "a\n"),
            ("lib/b.txt", "b\n"),
            ("one.txt", "one\n"),
            ("two.txt", "two\n"),
            ("run.sh", "#!/bin/sh\necho run\n"),
            ("last.txt", "last\n"),
        ] {
            write(folder.path(), name, text);
        }
        Context { folder, steps: 10, shows: ("/app/round.txt", "round.txt") }
    }

    /// One step that copies so many files of about 1 KiB.
    pub(crate) fn many_files(round: usize, files: usize) -> Context {
        let folder = tempfile::tempdir().expect("a temporary folder");
        write(folder.path(), "Dockerfile", "FROM busybox\nCOPY . /src\n");
        for module in 0..files / FILES_IN_A_FOLDER {
            let name = format!("module{module:03}");
            fs::create_dir(folder.path().join(&name)).expect("make a folder");
            for file in 0..FILES_IN_A_FOLDER {
                let line = format!("round {round}, {name}, line of file {file}\n");
                write(folder.path(), &format!("{name}/file{file:03}.txt"), &line.repeat(24));
            }
        }
        Context { folder, steps: 1, shows: ("/src/module017/file042.txt", CHANGING) }
    }

    /// Where it is.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// How many steps can come from a cache.
    pub(crate) fn steps(&self) -> usize {
        self.steps
    }

    /// Changes one of the many files.
    pub(crate) fn change(&self) {
        write(self.folder(), CHANGING, "changed\n");
    }

    /// A file of the image, and what it should say.
    pub(crate) fn expected(&self) -> (&'static str, String) {
        let text = fs::read_to_string(self.folder().join(self.shows.1)).expect("read a file");
        (self.shows.0, text.trim().to_owned())
    }
}

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).expect("write a file");
}
