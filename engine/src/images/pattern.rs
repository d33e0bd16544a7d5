//! Go's `path.Match`, by which dockerd filters references.

/// The pattern itself is malformed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadPattern;

/// Whether the whole `text` matches: `*` and `?` stand for anything but a slash, `[a-z]` and `[^a]`
/// for characters, `\` takes the next one as it is.
pub(crate) fn matches(pattern: &str, text: &str) -> Result<bool, BadPattern> {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    check(&pattern)?;
    walk(&pattern, &text)
}

/// Go finds a malformed pattern even where matching would stop before it.
fn check(mut pattern: &[char]) -> Result<(), BadPattern> {
    while !pattern.is_empty() {
        pattern = token(pattern)?.1;
    }
    Ok(())
}

enum Token<'a> {
    Any,
    One,
    Char(char),
    Class { negated: bool, ranges: &'a [char] },
}

fn token(pattern: &[char]) -> Result<(Token<'_>, &[char]), BadPattern> {
    match pattern {
        ['*', rest @ ..] => Ok((Token::Any, rest)),
        ['?', rest @ ..] => Ok((Token::One, rest)),
        ['\\', escaped, rest @ ..] => Ok((Token::Char(*escaped), rest)),
        ['\\'] | [] => Err(BadPattern),
        ['[', rest @ ..] => {
            let (negated, body) = match rest {
                ['^', body @ ..] => (true, body),
                body => (false, body),
            };
            let mut at = 0;
            loop {
                match body.get(at) {
                    None => return Err(BadPattern),
                    Some(']') if at > 0 => break,
                    Some('\\') => at += 2,
                    Some(_) => at += 1,
                }
            }
            let (ranges, rest) = body.split_at_checked(at).ok_or(BadPattern)?;
            Ok((Token::Class { negated, ranges }, rest.get(1..).unwrap_or_default()))
        }
        [plain, rest @ ..] => Ok((Token::Char(*plain), rest)),
    }
}

fn walk(pattern: &[char], text: &[char]) -> Result<bool, BadPattern> {
    let (mut pattern, mut text) = (pattern, text);
    // Where the last star stands, and what it has not swallowed yet.
    let mut retry: Option<(&[char], &[char])> = None;
    loop {
        if pattern.is_empty() && text.is_empty() {
            return Ok(true);
        }
        let step = match (pattern.is_empty(), text.split_first()) {
            (true, _) => None,
            (false, first) => match (token(pattern)?, first) {
                ((Token::Any, rest), _) => {
                    retry = Some((rest, text));
                    Some((rest, text))
                }
                ((token, rest), Some((c, tail))) if fits(&token, *c) => Some((rest, tail)),
                _ => None,
            },
        };
        match (step, retry) {
            (Some(next), _) => (pattern, text) = next,
            (None, Some((after, [c, tail @ ..]))) if *c != '/' => {
                retry = Some((after, tail));
                (pattern, text) = (after, tail);
            }
            _ => return Ok(false),
        }
    }
}

fn fits(token: &Token<'_>, c: char) -> bool {
    match token {
        Token::Any => false,
        Token::One => c != '/',
        Token::Char(plain) => *plain == c,
        Token::Class { negated, ranges } => in_class(ranges, c) != *negated,
    }
}

fn in_class(mut ranges: &[char], c: char) -> bool {
    fn single(ranges: &[char]) -> Option<(char, &[char])> {
        match ranges {
            ['\\', escaped, rest @ ..] => Some((*escaped, rest)),
            [plain, rest @ ..] => Some((*plain, rest)),
            [] => None,
        }
    }
    while let Some((low, rest)) = single(ranges) {
        let (high, rest) = match rest {
            ['-', rest @ ..] => single(rest).unwrap_or((low, rest)),
            rest => (low, rest),
        };
        if (low..=high).contains(&c) {
            return true;
        }
        ranges = rest;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_go_does() {
        let check = |pattern: &str, text: &str, expect: Result<bool, BadPattern>| {
            assert_eq!(matches(pattern, text), expect, "{pattern} {text}");
        };
        check("busy*", "busybox", Ok(true));
        check("*box", "busybox", Ok(true));
        check("b*y*x", "busybox", Ok(true));
        check("busy*", "busy/box", Ok(false));
        check("*/min", "min", Ok(false));
        check("min:*", "min:1", Ok(true));
        check("m?n", "min", Ok(true));
        check("[a-c]x", "bx", Ok(true));
        check("[^a-c]x", "bx", Ok(false));
        check("\\*", "*", Ok(true));
        check("", "", Ok(true));
        check("[z", "a", Err(BadPattern));
        check("\\", "a", Err(BadPattern));
        check("*a*b*c*d*e*f*g", &"a".repeat(200), Ok(false));
    }
}
