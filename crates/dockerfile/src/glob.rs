//! Patterns of paths: Go's `filepath.Match`, by which `COPY` finds its sources, and the same with `**`, as
//! `.dockerignore` has it.

use crate::{Error, Result};

/// Whether a path has characters of patterns.
#[must_use]
pub fn has_wildcards(path: &str) -> bool {
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Char(char),
    /// `?`: anything but a slash.
    One,
    /// `*`: anything without a slash.
    Star,
    /// `**` at the end: anything.
    Rest,
    /// `**/`: nothing, or anything that ends with a slash.
    Folders,
    /// `[…]`.
    Class {
        ranges: Vec<(char, char)>,
        is_negated: bool,
    },
}

/// A pattern of paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    tokens: Vec<Token>,
    /// The pattern, part by part, for prefixes; `None` is a part with `**`.
    parts: Vec<Option<Vec<Token>>>,
}

impl Glob {
    /// Reads a pattern of `filepath.Match`, in which `**` is no more than `*`.
    ///
    /// # Errors
    /// [`Error::Pattern`].
    pub fn parse(pattern: &str) -> Result<Self> {
        Self::read(pattern, false)
    }

    /// Reads a pattern in which `**` crosses slashes.
    pub(crate) fn parse_deep(pattern: &str) -> Result<Self> {
        Self::read(pattern, true)
    }

    fn read(pattern: &str, deep: bool) -> Result<Self> {
        if let Some(end) = pattern.strip_prefix("**").filter(|end| deep && is_plain_end(end)) {
            // Here `**` crosses slashes even if none follows: what ends like this matches.
            let tokens = std::iter::once(Token::Rest).chain(end.chars().map(Token::Char)).collect();
            return Ok(Self { tokens, parts: vec![None] });
        }
        let part = |part: &str| match deep && part.contains("**") {
            true => Ok(None),
            false => tokens(part, deep).map(Some),
        };
        let parts = pattern.split('/').map(part).collect::<Result<Vec<_>>>();
        // A slash in a class is no end of a part.
        Ok(Self { tokens: tokens(pattern, deep)?, parts: parts.unwrap_or_else(|_| vec![None]) })
    }

    /// Whether the whole path matches.
    #[must_use]
    pub fn matches(&self, path: &str) -> bool {
        matches(&self.tokens, path)
    }

    /// Whether something below a folder can match.
    #[must_use]
    pub fn can_match_below(&self, folder: &str) -> bool {
        let mut parts = self.parts.iter();
        for name in folder.split('/').filter(|name| !name.is_empty() && *name != ".") {
            match parts.next() {
                None => return false,
                Some(None) => return true,
                Some(Some(part)) if !matches(part, name) => return false,
                Some(Some(_)) => {}
            }
        }
        parts.next().is_some()
    }
}

/// Whether nothing but letters follow, and no slash comes first.
fn is_plain_end(end: &str) -> bool {
    !end.is_empty() && !end.starts_with('/') && !end.contains(['*', '?', '[', ']', '\\'])
}

fn tokens(pattern: &str, deep: bool) -> Result<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        tokens.push(match c {
            '*' if deep && chars.next_if_eq(&'*').is_some() => {
                chars.next_if_eq(&'/');
                if chars.peek().is_some() { Token::Folders } else { Token::Rest }
            }
            '*' => Token::Star,
            '?' => Token::One,
            '\\' => Token::Char(chars.next().ok_or(Error::Pattern)?),
            '[' => class(&mut chars)?,
            c => Token::Char(c),
        });
    }
    Ok(tokens)
}

fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Token> {
    let is_negated = chars.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && chars.next_if_eq(&']').is_some() {
            return Ok(Token::Class { ranges, is_negated });
        }
        let low = class_char(chars)?;
        let high = if chars.next_if_eq(&'-').is_some() { class_char(chars)? } else { low };
        ranges.push((low, high));
    }
}

fn class_char(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<char> {
    match chars.next() {
        None | Some('-' | ']') => Err(Error::Pattern),
        Some('\\') => chars.next().ok_or(Error::Pattern),
        Some(c) => Ok(c),
    }
}

/// Follows all ways through the tokens at once, so that no pattern takes longer than its length times the path's.
fn matches(tokens: &[Token], path: &str) -> bool {
    // Twice the place of a token; one more within `Folders`.
    let mut places = vec![false; tokens.len() * 2 + 2];
    enter(tokens, 0, &mut places);
    for c in path.chars() {
        let mut next = vec![false; places.len()];
        for (place, _) in places.iter().enumerate().filter(|(_, is_there)| **is_there) {
            step(tokens, place, c, &mut next);
        }
        places = next;
    }
    places.get(tokens.len() * 2).copied().unwrap_or(false)
}

fn step(tokens: &[Token], place: usize, c: char, next: &mut [bool]) {
    let at = place / 2;
    let Some(token) = tokens.get(at) else { return };
    match token {
        Token::Char(wanted) if c == *wanted => enter(tokens, at + 1, next),
        Token::One if c != '/' => enter(tokens, at + 1, next),
        Token::Star if c != '/' => enter(tokens, at, next),
        Token::Rest => enter(tokens, at, next),
        Token::Folders => {
            if let Some(inside) = next.get_mut(at * 2 + 1) {
                *inside = true;
            }
            if c == '/' {
                enter(tokens, at + 1, next);
            }
        }
        Token::Class { ranges, is_negated } if c != '/' => {
            let is_in = ranges.iter().any(|(low, high)| (*low..=*high).contains(&c));
            if is_in != *is_negated {
                enter(tokens, at + 1, next);
            }
        }
        _ => {}
    }
}

/// Goes to a token, and past it if it can stand for nothing.
fn enter(tokens: &[Token], at: usize, places: &mut [bool]) {
    let mut at = at;
    loop {
        if let Some(place) = places.get_mut(at * 2) {
            *place = true;
        }
        match tokens.get(at) {
            Some(Token::Star | Token::Rest | Token::Folders) => at += 1,
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_go_s() {
        let check = |pattern: &str, path: &str, expect: bool| {
            assert_eq!(Glob::parse(pattern).unwrap().matches(path), expect, "{pattern} {path}");
        };
        check("*.go", "a.go", true);
        check("*.go", "d/a.go", false);
        check("a*b*c", "axxbyyc", true);
        check("a?c", "abc", true);
        check("a?c", "a/c", false);
        check("d/*/f", "d/x/f", true);
        check("**", "a/b", false);
        check("[a-c]x", "bx", true);
        check("[^a-c]x", "bx", false);
        check("[^a]", "/", false);
        check("a\\*", "a*", true);
        check("a\\*", "ab", false);
        check("é?", "éü", true);
        for bad in ["[", "[a", "[]", "a\\", "[-a]", "[a-]", "[]a]"] {
            assert_eq!(Glob::parse(bad).err(), Some(Error::Pattern), "{bad}");
        }
    }

    #[test]
    fn deep_patterns_cross_slashes() {
        let check = |pattern: &str, path: &str, expect: bool| {
            assert_eq!(Glob::parse_deep(pattern).unwrap().matches(path), expect, "{pattern} {path}");
        };
        check("**/x", "x", true);
        check("**/x", "a/b/x", true);
        check("**/x", "ax", false);
        check("a/**", "a/b/c", true);
        check("a/**", "a", false);
        check("a/**/z", "a/z", true);
        check("a/**/z", "a/b/c/z", true);
        check("a**/b", "axx/b", true);
        check("**", "a/b", true);
        check("**.go", "a/b.go", true);
        check("**.g*", "a/b.go", false);
        check("**x/y", "a/bx/y", true);
    }

    #[test]
    fn folders_are_looked_into_if_something_can_match() {
        let check = |pattern: &str, folder: &str, expect: bool| {
            assert_eq!(
                Glob::parse_deep(pattern).unwrap().can_match_below(folder),
                expect,
                "{pattern} {folder}"
            );
        };
        check("a/b/c", "a", true);
        check("a/b/c", "a/b", true);
        check("a/b/c", "a/b/c", false);
        check("a/b/c", "b", false);
        check("*/b", "x", true);
        check("**/b", "x/y/z", true);
        check("a/**/b", "a/x/y", true);
        check("a", ".", true);
    }

    #[test]
    fn wildcards_are_seen() {
        assert!(has_wildcards("a*") && has_wildcards("[a]") && has_wildcards("\\\\?"));
        assert!(!has_wildcards("a\\*") && !has_wildcards("a"));
    }
}
