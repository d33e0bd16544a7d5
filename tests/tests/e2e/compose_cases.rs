//! Compose projects (`tests/compose/NAME`), each with its files, the `steps` to take, and what both Compose and the engine
//! said of every step when the engine was dockerd (`dockerd`): what was printed, exit codes, the settings of what was made,
//! events. The same steps with our engine must say the same.
//!
//! `ENGINE=integration/engines/dockerd RECORD=1` asks dockerd anew; without RECORD the same run checks the recording.
//!
//! A line of `steps` is one of
//! - `? COMMAND`: asked again, for half a minute at most, until it succeeds; what it prints is of no interest
//! - `settings OBJECT…`: what inspect says of containers (beside a bare one), networks, volumes
//! - `events`: what happened since the last time, for each object
//! - `registry`: a registry on 127.0.0.1:5000, from here to the end
//! - anything else: a line for `sh`, in the project's folder

use std::path::{Path, PathBuf};

use wherry_tests::distribution::Distribution;
use wherry_tests::engine::Binary;
use wherry_tests::{Host, Output};

use crate::compose_said::{Objects, plain};

/// A test for each project.
macro_rules! cases {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                check(stringify!($name));
            }
        )*

        #[test]
        fn none_is_forgotten() {
            let entries = std::fs::read_dir(folder()).expect("the projects").map(|entry| entry.expect("an entry"));
            let mut there: Vec<_> = entries.map(|entry| entry.file_name().into_string().expect("a name")).collect();
            there.sort();
            let mut known = vec![$(stringify!($name)),*];
            known.sort_unstable();
            assert_eq!(there, known);
        }
    };
}

cases! {
    verbs changes depends settings files networks volumes recreate deploy front refused watch built registry
    elder_verbs elder_changes elder_runs elder_settings elder_places elder_first
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("compose")
}

/// Takes the steps of a project, and compares what is said with what was said with dockerd.
fn check(name: &str) {
    let reference = Binary::from_environment().is_reference();
    let record = std::env::var_os("RECORD").is_some();
    assert!(!record || reference, "only dockerd's answers are recorded: set ENGINE");
    let source = folder().join(name);
    let host = Host::new();
    let case = Case { host: &host, folder: host.folder().join(name) };
    Output::of(host.command(&[
        "cp",
        "-r",
        &source.display().to_string(),
        &case.folder.display().to_string(),
    ]))
    .ok();
    let steps = std::fs::read_to_string(source.join("steps")).expect("the steps");
    let said = case.take(&steps);
    let recording = source.join("dockerd");
    if record {
        std::fs::write(&recording, &said).expect("write the recording");
    }
    if std::fs::read_to_string(&recording).unwrap_or_default() != said {
        let got = case.folder.join("said");
        std::fs::write(&got, said).expect("write what was said");
        let files = [recording.display().to_string(), got.display().to_string()];
        let mut diff = std::process::Command::new("diff");
        panic!(
            "{}",
            Output::of({
                diff.args(["-U", "8"]).args(files);
                diff
            })
        );
    }
}

struct Case<'a> {
    host: &'a Host,
    folder: PathBuf,
}

impl Case<'_> {
    fn take(&self, steps: &str) -> String {
        let mut objects = Objects::new(self.host);
        let mut registry = None;
        let mut said = String::new();
        for step in steps.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            said += &format!("$ {step}\n");
            let text = match step.split_once(' ').unwrap_or((step, "")) {
                ("?", line) => {
                    let mut last = String::new();
                    let mut ask = || {
                        let output = self.shell(line);
                        last = output.to_string();
                        output.code == 0
                    };
                    let began = std::time::Instant::now();
                    while !ask() {
                        assert!(began.elapsed().as_secs() < 30, "waited in vain: {last}\nafter\n{said}");
                        std::thread::sleep(std::time::Duration::from_millis(50));
                    }
                    String::new()
                }
                ("settings", names) => objects.settings(names),
                ("events", "") => objects.events(),
                ("registry", "") => {
                    registry = Some(Distribution::start(self.host, 5000));
                    String::new()
                }
                _ => shown(&self.shell(step)),
            };
            said += &self.plain(&text);
        }
        drop(registry);
        said
    }

    fn shell(&self, line: &str) -> Output {
        let mut command = self.host.client_command("sh", &["-c", line]);
        command.current_dir(&self.folder);
        for (name, value) in [
            ("COMPOSE_ANSI", "never"),
            ("COMPOSE_PROGRESS", "plain"),
            ("COMPOSE_INTERACTIVE_NO_CLI", "1"),
            ("COMPOSE_MENU", "0"),
        ] {
            command.env(name, value);
        }
        Output::of(command)
    }

    /// Without what is never twice the same.
    fn plain(&self, text: &str) -> String {
        let places = [(self.folder.as_path(), "<project>"), (self.host.folder(), "<host>")];
        let text = places
            .iter()
            .fold(text.to_owned(), |text, (path, name)| text.replace(&path.display().to_string(), name));
        plain(&text)
    }
}

/// What a command says. Its progress comes in any order, since much is done at the same time.
fn shown(output: &Output) -> String {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut progress: Vec<String> =
        output.stderr.lines().map(|line| format!("! {}\n", words(line))).collect();
    progress.sort();
    progress.dedup();
    let mut text: String = output.stdout.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    text.extend(progress);
    if output.code != 0 {
        text += &format!("= {}\n", output.code);
    }
    text
}
