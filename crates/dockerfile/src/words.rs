//! The forms of arguments: words, `name=value` pairs, JSON arrays, options.

use crate::instruction::Pair;
use crate::{Error, Result};

/// Splits at blanks, except in quotes and after the escape character. Quotes and escapes stay: variables
/// are replaced later, and then they go.
pub(crate) fn words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if quote.is_none() && c.is_whitespace() {
            if quoted || !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            quoted = false;
            continue;
        }
        let is_escape = c == escape && quote != Some('\'');
        if is_escape {
            // An escape character at the end is left out.
            if let Some(next) = chars.next() {
                word.push(c);
                word.push(next);
            }
            continue;
        }
        match quote {
            Some(open) if open == c => quote = None,
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                quoted = true;
            }
            _ => {}
        }
        word.push(c);
    }
    if quoted || !word.is_empty() {
        words.push(word);
    }
    words
}

/// `name=value …`, or in the old form `name value`.
pub(crate) fn pairs(text: &str, instruction: &'static str, escape: char) -> Result<Vec<Pair>> {
    let words = words(text, escape);
    let Some(first) = words.first() else { return Err(Error::AtLeastOne(instruction)) };
    let found = if first.contains('=') {
        let pair = |word: &String| {
            let (name, value) = word.split_once('=').ok_or_else(|| Error::NoEquals(word.clone()))?;
            Ok(Pair { name: name.to_owned(), value: value.to_owned(), legacy: false })
        };
        words.iter().map(pair).collect::<Result<Vec<_>>>()?
    } else {
        let (name, value) = text.split_once(blank).ok_or(Error::TwoArguments(instruction))?;
        let value = value.trim_start_matches(blank).to_owned();
        vec![Pair { name: name.to_owned(), value, legacy: true }]
    };
    match found.iter().all(|pair| !pair.name.is_empty()) {
        true => Ok(found),
        false => Err(Error::BlankName(instruction)),
    }
}

/// What separates words.
pub(crate) fn blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{b}' | '\u{c}')
}

/// A JSON array of strings; `None` if it is none.
pub(crate) fn json_array(text: &str) -> Result<Option<Vec<String>>> {
    let text = text.trim_start();
    if !text.starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text) else { return Ok(None) };
    let strings = values.into_iter().map(|value| match value {
        serde_json::Value::String(text) => Ok(text),
        _ => Err(Error::NotStrings),
    });
    strings.collect::<Result<Vec<_>>>().map(Some)
}

/// A JSON array of strings, or words separated by blanks.
pub(crate) fn list(text: &str) -> Result<Vec<String>> {
    let array = json_array(text)?;
    Ok(array.unwrap_or_else(|| blank_separated(text)))
}

/// Words separated by blanks, whatever quotes they have.
pub(crate) fn blank_separated(text: &str) -> Vec<String> {
    text.split(blank).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Takes the options (`--name=value`) off the front of an instruction's arguments.
pub(crate) fn options(text: &str, escape: char) -> (Vec<String>, &str) {
    let mut options = Vec::new();
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        let (option, tail) = option(rest, escape);
        if option == "--" {
            return (options, tail);
        }
        options.push(option);
        rest = tail.trim_start();
    }
    (options, rest)
}

/// One option, without its quotes and escapes, and what follows it.
fn option(text: &str, escape: char) -> (String, &str) {
    let mut option = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => return (option, text.get(at..).unwrap_or_default()),
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if open == c => quote = None,
            _ if c == escape => option.extend(chars.next().map(|(_, next)| next)),
            _ => option.push(c),
        }
    }
    (option, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_quotes_and_escapes() {
        let check = |text: &str, expect: &[&str]| assert_eq!(words(text, '\\'), expect, "{text}");
        check("a  b", &["a", "b"]);
        check("a='b c' d", &["a='b c'", "d"]);
        check(r#"a=b\ c d="x \" y""#, &[r"a=b\ c", r#"d="x \" y""#]);
        check("'' x", &["''", "x"]);
        check(r"'a\' b", &[r"'a\'", "b"]);
        check("a\\", &["a"]);
        check("  ", &[]);
    }

    #[test]
    fn options_come_first() {
        let check = |text: &str, expect: &[&str], rest: &str| {
            assert_eq!(
                options(text, '\\'),
                (expect.iter().map(|o| (*o).to_owned()).collect(), rest),
                "{text}"
            );
        };
        check("--a=1 --b='x y' CMD z", &["--a=1", "--b=x y"], "CMD z");
        check("CMD --a", &[], "CMD --a");
        check("--a -- --b", &["--a"], " --b");
        check("--a", &["--a"], "");
    }

    #[test]
    fn arrays_are_strings() {
        assert_eq!(json_array("[\"a\", \"b\"]"), Ok(Some(vec!["a".into(), "b".into()])));
        assert_eq!(json_array("[a]"), Ok(None));
        assert_eq!(json_array("a"), Ok(None));
        assert_eq!(json_array("[1]"), Err(Error::NotStrings));
        assert_eq!(list("a  b"), Ok(vec!["a".into(), "b".into()]));
    }
}
