use std::io::Write;
use std::process::{Command, Stdio};

/// How tests write commands: `"run --rm busybox sh -c 'exit 3'"` or `["run", "--rm", …]`.
pub trait CommandLine {
    /// The arguments, one by one.
    fn words(&self) -> Vec<String>;
}

impl CommandLine for str {
    fn words(&self) -> Vec<String> {
        split(self)
    }
}

impl CommandLine for String {
    fn words(&self) -> Vec<String> {
        split(self)
    }
}

impl CommandLine for [&str] {
    fn words(&self) -> Vec<String> {
        self.iter().map(ToString::to_string).collect()
    }
}

impl<const N: usize> CommandLine for [&str; N] {
    fn words(&self) -> Vec<String> {
        self.as_slice().words()
    }
}

/// Splits at blanks; text in single or double quotes stays whole. There are no escapes.
fn split(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match quote {
            Some(q) if c == q => quote = None,
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    assert!(quote.is_none(), "unclosed quote in {line}");
    words.extend(word);
    words
}

/// What a command printed, and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command, for messages.
    pub command: String,
    /// Exit status; 128 + n for death by signal n.
    pub code: i32,
    /// Standard output as it is.
    pub bytes: Vec<u8>,
    /// Standard output as text.
    pub stdout: String,
    /// Standard error as text.
    pub stderr: String,
}

impl Output {
    /// Runs `command` to its end and keeps what it prints.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn of(mut command: Command) -> Output {
        let name = name(&command);
        let output = command.output().unwrap_or_else(|e| panic!("{name}: {e}"));
        Output::new(name, &output)
    }

    /// As [`Output::of`], with standard input.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn with_input(mut command: Command, input: &[u8]) -> Output {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let name = name(&command);
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{name}: {e}"));
        let mut pipe = child.stdin.take().expect("piped");
        let output = std::thread::scope(|scope| {
            scope.spawn(move || {
                // The program may end without reading all: that shows in its output.
                let _ = pipe.write_all(input);
            });
            child.wait_with_output().expect("wait for the program")
        });
        Output::new(name, &output)
    }

    pub(crate) fn new(command: String, output: &std::process::Output) -> Output {
        use std::os::unix::process::ExitStatusExt;
        let code = output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0));
        // `timeout` in front of every command tells so
        assert!(code != 124 || !command.starts_with("docker "), "still running after the limit: {command}");
        Output {
            command,
            code,
            bytes: output.stdout.clone(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Requires exit status 0.
    ///
    /// # Panics
    /// Otherwise, showing all output.
    #[track_caller]
    pub fn ok(self) -> Output {
        self.exits(0)
    }

    /// Requires this exit status.
    ///
    /// # Panics
    /// Otherwise, showing all output.
    #[track_caller]
    pub fn exits(self, code: i32) -> Output {
        assert!(self.code == code, "expected exit status {code}: {self}");
        self
    }

    /// Requires an exit status, and a text in standard error.
    ///
    /// # Panics
    /// Otherwise, showing all output.
    #[track_caller]
    pub fn fails(self, code: i32, text: &str) -> Output {
        let found = self.stderr.contains(text);
        assert!(self.code == code && found, "expected exit status {code} and {text:?}: {self}");
        self
    }

    /// Requires exit status 0 and exactly this standard output, but for blanks at its ends.
    ///
    /// # Panics
    /// Otherwise, showing all output.
    #[track_caller]
    pub fn prints(self, text: &str) -> Output {
        assert!(self.code == 0 && self.stdout.trim() == text, "expected {text:?}: {self}");
        self
    }

    /// Requires exit status 0 and this text somewhere in standard output.
    ///
    /// # Panics
    /// Otherwise, showing all output.
    #[track_caller]
    pub fn contains(self, text: &str) -> Output {
        assert!(self.code == 0 && self.stdout.contains(text), "expected a {text:?} in: {self}");
        self
    }

    /// Standard output without blanks at its ends.
    pub fn out(&self) -> &str {
        self.stdout.trim()
    }
}

impl std::fmt::Display for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Output { command, code, stdout, stderr, .. } = self;
        write!(f, "\n$ {command}\n{stdout}{stderr}[exit status {code}]")
    }
}

/// The command as a person would type it.
pub(crate) fn name(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|w| w.to_string_lossy())
        .collect();
    let start = words.iter().position(|w| w == "docker").unwrap_or(0);
    words[start..].join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_like_a_shell() {
        for (line, words) in [
            ("", vec![]),
            (" a  b ", vec!["a", "b"]),
            ("sh -c 'a \"b\" c' d", vec!["sh", "-c", "a \"b\" c", "d"]),
            ("x='1 2'3 ''", vec!["x=1 23", ""]),
        ] {
            assert_eq!(line.words(), words, "{line}");
        }
    }
}
