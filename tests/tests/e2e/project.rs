//! A Compose project in a folder of its own, for both programs.

use std::fs;
use std::path::PathBuf;

use wherry_tests::{CommandLine, Host, Output};

/// The name of its file, which both look for.
pub(crate) const FILE: &str = "docker-compose.yml";

#[derive(Debug)]
pub(crate) struct Project<'a> {
    pub(crate) folder: PathBuf,
    host: &'a Host,
}

impl<'a> Project<'a> {
    pub(crate) fn new(host: &'a Host, name: &str, yaml: &str) -> Self {
        let folder = host.folder().join(name);
        fs::create_dir_all(&folder).unwrap();
        let project = Project { folder, host };
        project.write(FILE, yaml);
        project
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.join(name), text).unwrap();
    }

    /// The words of `docker compose LINE` in this project.
    pub(crate) fn line(&self, line: &(impl CommandLine + ?Sized)) -> Vec<String> {
        let folder = self.folder.display();
        let mut words: Vec<String> =
            format!("compose --ansi never --progress plain --project-directory {folder} -f {folder}/{FILE}")
                .words();
        words.extend(line.words());
        words
    }

    /// Runs `docker compose LINE`.
    pub(crate) fn compose(&self, line: &(impl CommandLine + ?Sized)) -> Output {
        let words = self.line(line);
        self.host.docker(words.iter().map(String::as_str).collect::<Vec<_>>().as_slice())
    }

    /// Runs `docker-compose LINE`, the program in Python.
    pub(crate) fn old_compose(&self, line: &(impl CommandLine + ?Sized)) -> Output {
        let mut command = self.host.client_command("docker-compose", line);
        command.current_dir(&self.folder).env("COMPOSE_INTERACTIVE_NO_CLI", "1");
        Output::of(command)
    }

    /// The container of a service.
    pub(crate) fn id(&self, service: &str) -> String {
        let label = format!("label=com.docker.compose.service={service}");
        self.host.docker(&["ps", "-aq", "--no-trunc", "--filter", &label]).ok().out().to_owned()
    }

    pub(crate) fn down(&self) {
        self.compose("down -v -t 0 --remove-orphans").ok();
        self.host.docker("ps -aq").prints("");
    }
}
