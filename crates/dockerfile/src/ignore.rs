//! `.dockerignore`: which files of a context stay out.

use crate::glob::Glob;
use crate::{Error, Result};

/// The patterns of a `.dockerignore`, or of `--exclude`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ignore {
    patterns: Vec<Pattern>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    glob: Glob,
    /// `!pattern`: what matches stays in.
    is_exception: bool,
}

impl Ignore {
    /// Reads a file: a pattern a line, comments begin with `#` in the first column.
    ///
    /// # Errors
    /// [`Error::IgnorePattern`].
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let lines = text.lines().filter(|line| !line.starts_with('#')).map(str::trim);
        let patterns: Vec<String> = lines.filter(|line| !line.is_empty()).map(relative).collect();
        Self::of(&patterns)
    }

    /// Takes patterns as they are.
    ///
    /// # Errors
    /// [`Error::IgnorePattern`].
    pub fn of<S: AsRef<str>>(patterns: &[S]) -> Result<Self> {
        let mut read = Vec::with_capacity(patterns.len());
        for written in patterns.iter().map(|pattern| pattern.as_ref().trim()) {
            if written.is_empty() {
                continue;
            }
            let written = cleaned(written);
            let (text, is_exception) = match written.strip_prefix('!') {
                Some("") => return Err(Error::LoneException),
                Some(text) => (text, true),
                None => (written.as_str(), false),
            };
            let glob = Glob::parse_deep(text);
            let glob = glob.map_err(|_| Error::IgnorePattern(text.to_owned()))?;
            read.push(Pattern { glob, is_exception });
        }
        Ok(Self { patterns: read })
    }

    /// Whether there is no pattern.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether a path, relative to the context, stays out: the last pattern that matches it, or a folder that it
    /// is in, decides.
    #[must_use]
    pub fn is_ignored(&self, path: &str) -> bool {
        let path = cleaned(path.trim_start_matches('/'));
        if path == "." {
            return false;
        }
        let mut is_ignored = false;
        for pattern in &self.patterns {
            // A pattern that would change nothing need not be looked at.
            if pattern.is_exception == is_ignored && pattern.matches(&path) {
                is_ignored = !pattern.is_exception;
            }
        }
        is_ignored
    }

    /// Whether a folder and all in it stay out, so that a walk need not look into it.
    #[must_use]
    pub fn can_skip(&self, folder: &str) -> bool {
        let folder = cleaned(folder.trim_start_matches('/'));
        let mut exceptions = self.patterns.iter().filter(|pattern| pattern.is_exception);
        self.is_ignored(&folder) && !exceptions.any(|pattern| pattern.glob.can_match_below(&folder))
    }
}

impl Pattern {
    /// Whether it matches the path or a folder that it is in.
    fn matches(&self, path: &str) -> bool {
        let folders = path.match_indices('/').filter_map(|(at, _)| path.get(..at));
        self.glob.matches(path) || folders.into_iter().any(|folder| self.glob.matches(folder))
    }
}

/// A line's pattern, relative to the context.
fn relative(line: &str) -> String {
    let (exception, pattern) = match line.strip_prefix('!') {
        Some(pattern) => ("!", pattern.trim()),
        None => ("", line),
    };
    if pattern.is_empty() {
        return exception.to_owned();
    }
    let pattern = cleaned(pattern);
    let pattern = pattern.strip_prefix('/').filter(|rest| !rest.is_empty()).unwrap_or(&pattern);
    format!("{exception}{pattern}")
}

/// Go's `filepath.Clean`.
fn cleaned(path: &str) -> String {
    let is_absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            ".." if is_absolute => {}
            part => parts.push(part),
        }
    }
    match (is_absolute, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".into(),
        (false, false) => parts.join("/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_ignored() {
        let check = |text: &str, ignored: &[&str], kept: &[&str]| {
            let ignore = Ignore::parse(text).unwrap();
            ignored.iter().for_each(|path| assert!(ignore.is_ignored(path), "{text:?} {path}"));
            kept.iter().for_each(|path| assert!(!ignore.is_ignored(path), "{text:?} {path}"));
        };
        check("\u{feff}# c\n\n /a/ \n", &["a", "a/b/c"], &["b/a", "ab"]);
        check(" # x\n", &["# x"], &["x"]);
        check("*.log", &["x.log"], &["d/x.log", "."]);
        check("**/*.log", &["x.log", "d/e/x.log"], &["x.lo"]);
        check("*/t*", &["a/tmp", "a/t/x"], &["tmp", "a/b/tmp"]);
        check("a\n!a/b\na/b/c", &["a/x", "a/b/c/d"], &["a/b", "a/b/x"]);
        check("*\n!keep\n! other", &["x", "x/keep"], &["keep", "keep/x", "other"]);
        check("./a/../b", &["b"], &["a"]);
        check("a?c\n[d-f]", &["abc", "e"], &["g"]);
        check("**", &["a", "a/b"], &[]);
        check("foo/**", &["foo/a"], &["foo"]);
        check("!a\na", &["a"], &[]);
        check("**.log", &["a.log", "d/a.log"], &["a.logs"]);
        check(".", &[], &["a"]);
    }

    #[test]
    fn folders_are_skipped() {
        let check = |text: &str, folder: &str, expect: bool| {
            assert_eq!(Ignore::parse(text).unwrap().can_skip(folder), expect, "{text:?} {folder}");
        };
        check("a", "a", true);
        check("a\n!a/b/c", "a", false);
        check("a\n!a/b/c", "a/b", false);
        check("a\n!a/b/c", "a/x", true);
        check("*\n!**/x", "a/b", false);
        check("*\n!b", "a", true);
        check("b", "a", false);
    }

    #[test]
    fn patterns_that_are_none_are_refused() {
        let fails = |text: &str| Ignore::parse(text).unwrap_err().to_string();
        assert_eq!(fails("!/./"), "illegal exclusion pattern: \"!\"");
        assert_eq!(fails("!"), "illegal exclusion pattern: \"!\"");
        assert_eq!(fails("[a"), "syntax error in pattern: [a");
    }
}
