//! The Dockerfiles, and how each is built.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use wherry_tests::{Host, Output, Servant};

use crate::image::Image;

/// A way to build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// `docker build` with buildx.
    BuildKit,
    /// `POST /build`.
    Classic,
}

impl Door {
    pub(crate) const ALL: [Self; 2] = [Self::BuildKit, Self::Classic];
}

/// A folder of `integration/dockerfiles`.
///
/// `NAME/` is the context. `NAME.sh`, if there is one, is run in a copy of it before the build, and makes what cannot be kept in a
/// repository; its comments `# arguments: …`, `# doors: buildkit` and `# images: python` say what the build needs, `# compared:
/// exported` that `docker save` of dockerd does not give all, and `# note: …` why.
#[derive(Debug)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) doors: Vec<Door>,
    /// What the page says of it.
    pub(crate) note: String,
    exported: bool,
    folder: PathBuf,
    prepare: Option<PathBuf>,
    arguments: Vec<String>,
    images: Vec<String>,
}

impl Case {
    /// All cases, or the wanted ones, by name.
    pub(crate) fn all(folder: &Path, wanted: &[String]) -> Vec<Self> {
        let entries = fs::read_dir(folder).expect("read integration/dockerfiles");
        let folders = entries.map(|entry| entry.expect("read a folder").path()).filter(|path| path.is_dir());
        let mut cases: Vec<Self> = folders.map(|path| Self::read(&path)).collect();
        cases.retain(|case| wanted.is_empty() || wanted.contains(&case.name));
        cases.sort_by(|a, b| a.name.cmp(&b.name));
        cases
    }

    fn read(folder: &Path) -> Self {
        let name = folder.file_name().expect("a folder has a name").to_string_lossy().into_owned();
        let prepare = folder.with_file_name(format!("{name}.sh"));
        let script = fs::read_to_string(&prepare).unwrap_or_default();
        let said = |what: &str| {
            let prefix = format!("# {what}:");
            script.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_default().trim().to_owned()
        };
        let words = |text: String| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let doors = match said("doors").as_str() {
            "buildkit" => vec![Door::BuildKit],
            "classic" => vec![Door::Classic],
            _ => Door::ALL.to_vec(),
        };
        Self {
            name,
            doors,
            note: said("note"),
            exported: said("compared") == "exported",
            folder: folder.to_owned(),
            prepare: prepare.exists().then_some(prepare),
            arguments: words(said("arguments")),
            images: words(said("images")),
        }
    }

    /// Builds it, and gives the image, or what the client says.
    pub(crate) fn build(&self, engine: &Host, door: Door) -> Result<Image, String> {
        let context = engine.folder().join("context");
        if context.exists() {
            fs::remove_dir_all(&context).expect("remove the last context");
        }
        run(Command::new("cp").arg("-a").arg(&self.folder).arg(&context));
        // Git keeps neither of these.
        run(Command::new("chmod").args(["-R", "u=rwX,go=rX"]).arg(&context));
        run(Command::new("find").arg(&context).args([
            "-exec",
            "touch",
            "-h",
            "-d",
            "@1700000000",
            "{}",
            "+",
        ]));
        if let Some(prepare) = &self.prepare {
            run(Command::new("bash").arg("-eu").arg(prepare).current_dir(&context));
        }
        let mut line = vec!["build", "-t", "compared"];
        if door == Door::BuildKit {
            line.push("--progress=plain");
        }
        line.extend(self.arguments.iter().map(String::as_str));
        let path = context.display().to_string();
        line.push(&path);
        let mut command = engine.docker_command(line.as_slice());
        command.env("DOCKER_BUILDKIT", if door == Door::BuildKit { "1" } else { "0" }).current_dir(&context);
        let output = command.output().expect("run the client");
        if !output.status.success() {
            return Err(last_error(&String::from_utf8_lossy(&output.stderr)));
        }
        let archive = engine.folder().join("compared.tar").display().to_string();
        let image = if self.exported {
            let inspected = engine.docker("image inspect compared").ok();
            let history = engine.docker("history --no-trunc --format json compared").ok();
            let output = format!("type=tar,dest={archive}");
            let mut line = vec!["buildx", "build", "-q", "-o", &output];
            line.extend(self.arguments.iter().map(String::as_str));
            line.push(&path);
            let mut command = engine.docker_command(line.as_slice());
            command.current_dir(&context);
            let output = Output::of(command);
            let image = || Image::of_files(Path::new(&archive), inspected.out(), history.out());
            if output.code == 0 { Ok(image()) } else { Err(last_error(&output.stderr)) }
        } else {
            let output = engine.docker(&["save", "-o", &archive, "compared"]);
            if output.code == 0 {
                Ok(Image::read(Path::new(&archive)))
            } else {
                Err(last_error(&output.stderr))
            }
        };
        engine.docker("rmi -f compared").ok();
        image
    }
}

/// The line that says what is wrong.
fn last_error(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let error = lines.iter().rev().find(|line| line.starts_with("ERROR: "));
    error.or(lines.last()).map(|line| without_references(line)).unwrap_or_default()
}

/// BuildKit's errors name snapshots by ids that nobody knows: `of ref 0976…::u2hg…: "/x": not found`.
fn without_references(line: &str) -> String {
    let Some((before, rest)) = line.split_once(" of ref") else { return line.to_owned() };
    let after = rest.split_once(": ").map_or("", |(_, after)| after);
    format!("{before} of ref …: {after}")
}

fn run(command: &mut Command) {
    let status = command.status().expect("start a program");
    assert!(status.success(), "{command:?}: {status}");
}

/// The archives of the images that cases begin from, beside busybox.
pub(crate) fn archives(cases: &[Case]) -> Vec<PathBuf> {
    let folder = std::env::var("WHERRY_IMAGES");
    let folder = folder.unwrap_or_else(|_| "/root/.cache/wherry-acceptance/images".to_owned());
    let mut names: Vec<&String> = cases.iter().flat_map(|case| &case.images).collect();
    names.sort();
    names.dedup();
    let archive = |name: &String| {
        let path = Path::new(&folder).join(format!("{name}.tar"));
        assert!(path.exists(), "no {}: ../shared/acceptance/mkimages.py makes it", path.display());
        path
    };
    names.into_iter().map(archive).collect()
}

/// Serves the files that `ADD` downloads, at port 8000 of the engine's host.
pub(crate) fn serve_files(engine: &Host, here: &Path) -> Servant {
    let files = engine.folder().join("served");
    fs::create_dir_all(&files).expect("make a folder");
    run(Command::new("bash").arg("-eu").arg(here.join("serve.sh")).arg(&files));
    engine.serve("files", &format!("/bin/busybox httpd -f -p 8000 -h {}", files.display()))
}
