//! Logical lines: comments and directives taken out, continued lines joined.

use crate::{Error, Result};

/// The logical lines of a Dockerfile, and its escape character.
pub(crate) fn logical_lines(text: &str) -> Result<(Vec<String>, char)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut directives = Directives { escape: '\\', seen: Vec::new(), open: true };
    let mut lines = Vec::new();
    let mut current: Option<String> = None;
    for raw in text.lines() {
        let line = raw.trim_end_matches('\r');
        match &mut current {
            None => {
                let line = line.trim_start();
                directives.read(line)?;
                if line.starts_with('#') {
                    continue;
                }
                let (line, continued) = continuation(line, directives.escape);
                if continued {
                    current = Some(line.to_owned());
                } else if !line.is_empty() {
                    lines.push(line.to_owned());
                }
            }
            Some(so_far) => {
                let trimmed = line.trim_start();
                if trimmed.starts_with('#') || trimmed.is_empty() {
                    continue; // an empty line within a continued one is ignored, with a warning of BuildKit's
                }
                let (line, continued) = continuation(line, directives.escape);
                so_far.push_str(line);
                if !continued {
                    lines.extend(current.take());
                }
            }
        }
    }
    lines.extend(current.filter(|line| !line.is_empty()));
    if lines.is_empty() { Err(Error::NoInstructions) } else { Ok((lines, directives.escape)) }
}

/// Cuts a continuation character off the end of a line. One that is itself escaped is none.
fn continuation(line: &str, escape: char) -> (&str, bool) {
    let trimmed = line.trim_end_matches([' ', '\t']);
    match trimmed.strip_suffix(escape) {
        Some(rest) if !rest.ends_with(escape) => (rest, true),
        _ => (line, false),
    }
}

/// `# name=value` lines before anything else.
struct Directives {
    escape: char,
    seen: Vec<String>,
    open: bool,
}

impl Directives {
    fn read(&mut self, line: &str) -> Result<()> {
        if !self.open {
            return Ok(());
        }
        let Some((name, value)) = directive(line) else {
            self.open = false;
            return Ok(());
        };
        let name = name.to_ascii_lowercase();
        if !["escape", "syntax", "check"].contains(&name.as_str()) {
            return Ok(());
        }
        if self.seen.contains(&name) {
            return Err(Error::DirectiveTwice(name));
        }
        if name == "escape" {
            self.escape = match value {
                "\\" => '\\',
                "`" => '`',
                other => return Err(Error::EscapeToken(other.to_owned())),
            };
        }
        self.seen.push(name);
        Ok(())
    }
}

fn directive(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.strip_prefix('#')?.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    let plain = name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.chars().all(|c| c.is_ascii_alphanumeric());
    (plain && !value.is_empty()).then_some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(logical_lines("# x\n\n"), Err(Error::NoInstructions));
        assert_eq!(logical_lines("# escape=x\nCMD").unwrap_err(), Error::EscapeToken("x".into()));
        assert_eq!(
            logical_lines("# escape=`\n# Escape=`\nCMD").unwrap_err(),
            Error::DirectiveTwice("escape".into())
        );
        assert_eq!(logical_lines("CMD\n# escape=`").unwrap().1, '\\');
    }
}
