//! Logical lines: comments and directives taken out, continued lines joined, and the documents that follow them.

use crate::heredoc::Heredoc;
use crate::{Error, Lines, Result};

/// A physical line is no longer than this, its end included.
const LONGEST_LINE: usize = 65_536;

/// A `# name=value` line before anything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// In lower case: `syntax`, `escape` or `check`.
    pub name: String,
    /// What stands after `=`.
    pub value: String,
    /// Its line, from 1.
    pub line: usize,
}

/// What one instruction is written in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LogicalLine {
    pub(crate) text: String,
    pub(crate) lines: Lines,
    /// The comments before it, without `#`.
    pub(crate) comments: Vec<String>,
    /// The line at which there were empty lines in it.
    pub(crate) empty_continuation: bool,
}

/// Reads a Dockerfile from its beginning.
pub(crate) struct Reader<'t> {
    rest: &'t str,
    /// How many physical lines have been read.
    pub(crate) line: usize,
    directives: Directives,
}

impl<'t> Reader<'t> {
    pub(crate) fn new(text: &'t str) -> Self {
        let rest = text.strip_prefix('\u{feff}').unwrap_or(text);
        let directives = Directives { escape: '\\', found: Vec::new(), open: true };
        Self { rest, line: 0, directives }
    }

    pub(crate) fn escape(&self) -> char {
        self.directives.escape
    }

    pub(crate) fn into_directives(self) -> Vec<Directive> {
        self.directives.found
    }

    /// The next line that is neither empty nor a comment, with what continues it.
    pub(crate) fn next_logical(&mut self) -> Result<Option<LogicalLine>> {
        let mut comments = Vec::new();
        while let Some(raw) = self.physical()? {
            let line = raw.trim_end_matches(['\r', '\n']).trim_start();
            let is_directive = self.directives.read(line, self.line)?;
            if let Some(comment) = line.strip_prefix('#') {
                match comment.trim() {
                    "" => comments.clear(),
                    _ if is_directive => {}
                    comment => comments.push(comment.to_owned()),
                }
                continue;
            }
            let (text, continued) = continuation(line, self.escape());
            if text.is_empty() && !continued {
                continue;
            }
            let (text, first) = (text.to_owned(), self.line);
            let lines = Lines { first, last: first };
            let mut logical = LogicalLine { text, lines, comments, empty_continuation: false };
            if continued {
                self.continue_line(&mut logical)?;
            }
            return Ok(Some(logical));
        }
        Ok(None)
    }

    fn continue_line(&mut self, logical: &mut LogicalLine) -> Result<()> {
        while let Some(raw) = self.physical()? {
            let line = raw.trim_end_matches(['\r', '\n']);
            let trimmed = line.trim_start();
            // An empty line within a continued one is ignored, with a warning.
            logical.empty_continuation |= trimmed.is_empty();
            if trimmed.is_empty() || trimmed.starts_with('#') {
                continue;
            }
            let (text, continued) = continuation(line, self.escape());
            logical.text.push_str(text);
            if !continued {
                break;
            }
        }
        logical.lines.last = self.line;
        Ok(())
    }

    /// Reads a document up to the line with its name.
    pub(crate) fn document(&mut self, document: &mut Heredoc) -> Result<()> {
        while let Some(raw) = self.physical()? {
            let line = raw.trim_end_matches(['\r', '\n']);
            let line = if document.strip_tabs { line.trim_start_matches('\t') } else { line };
            if line == document.name {
                return Ok(());
            }
            document.content.push_str(raw);
        }
        Err(Error::UnterminatedHeredoc)
    }

    /// A line with its end.
    fn physical(&mut self) -> Result<Option<&'t str>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let end = self.rest.find('\n').map_or(self.rest.len(), |at| at + 1);
        if end > LONGEST_LINE {
            return Err(Error::LongLine(LONGEST_LINE - 1));
        }
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.line += 1;
        Ok(Some(line))
    }
}

/// Cuts a continuation character off the end of a line. One that is itself escaped is none.
fn continuation(line: &str, escape: char) -> (&str, bool) {
    let trimmed = line.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape) {
        Some(rest) if !rest.ends_with(escape) => (rest, true),
        _ => (line, false),
    }
}

struct Directives {
    escape: char,
    found: Vec<Directive>,
    open: bool,
}

impl Directives {
    /// Says whether the line is one.
    fn read(&mut self, line: &str, number: usize) -> Result<bool> {
        let read = if self.open { directive(line) } else { None };
        let Some((name, value)) = read else {
            self.open = false;
            return Ok(false);
        };
        if self.found.iter().any(|found| found.name == name) {
            return Err(Error::DirectiveTwice(name));
        }
        if name == "escape" {
            self.escape = match value {
                "\\" => '\\',
                "`" => '`',
                other => return Err(Error::EscapeToken(other.to_owned())),
            };
        }
        self.found.push(Directive { name, value: value.to_owned(), line: number });
        Ok(true)
    }
}

/// A known name and its value. An unknown name is a comment like any other, and ends the directives.
fn directive(line: &str) -> Option<(String, &str)> {
    let (name, value) = line.strip_prefix('#')?.split_once('=')?;
    let (name, value) = (name.trim().to_ascii_lowercase(), value.trim());
    let known = ["escape", "syntax", "check"].contains(&name.as_str());
    (known && !value.is_empty()).then_some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logical_lines(text: &str) -> Result<(Vec<String>, char)> {
        let mut reader = Reader::new(text);
        let mut lines = Vec::new();
        while let Some(line) = reader.next_logical()? {
            lines.push(line.text);
        }
        Ok((lines, reader.escape()))
    }

    #[test]
    fn lines_are_joined_and_comments_left_out() {
        let check = |text: &str, expect: &[&str]| {
            assert_eq!(logical_lines(text).unwrap().0, expect, "{text}");
        };
        check("CMD x", &["CMD x"]);
        check("  CMD x\r\n\n# c\nUSER y", &["CMD x", "USER y"]);
        check("CMD a \\\nb", &["CMD a b"]);
        check("CMD a \\  \n# c\n\n  b", &["CMD a   b"]);
        check("CMD a \\\\\nUSER b", &["CMD a \\\\", "USER b"]);
        check("# escape=`\nCMD a `\nb\\", &["CMD a b\\"]);
        check("CMD a \\", &["CMD a "]);
        check("# x\n\n", &[]);
        check("# other=1\n# escape=`\nCMD a\\\nb", &["CMD ab"]);
        assert_eq!(logical_lines("# escape=x\nCMD").unwrap_err(), Error::EscapeToken("x".into()));
        assert_eq!(
            logical_lines("# escape=`\n# Escape=`\nCMD").unwrap_err(),
            Error::DirectiveTwice("escape".into())
        );
        assert_eq!(logical_lines("CMD\n# escape=`").unwrap().1, '\\');
        assert_eq!(logical_lines(&"x".repeat(70_000)).unwrap_err(), Error::LongLine(65_535));
    }

    #[test]
    fn lines_know_where_they_stand() {
        let mut reader = Reader::new("# syntax=a/b\n\n# note\nRUN a \\\n\n b\n#\n# x\n#\nCMD y\n");
        let line = reader.next_logical().unwrap().unwrap();
        assert_eq!(line.lines, Lines { first: 4, last: 6 });
        assert_eq!((line.comments, line.empty_continuation), (vec!["note".to_owned()], true));
        let line = reader.next_logical().unwrap().unwrap();
        assert_eq!((line.lines, line.comments.len()), (Lines { first: 10, last: 10 }, 0));
        let directive = Directive { name: "syntax".into(), value: "a/b".into(), line: 1 };
        assert_eq!(reader.into_directives(), [directive]);
    }
}
