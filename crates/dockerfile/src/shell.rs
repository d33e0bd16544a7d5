//! Variables and quotes in words, as BuildKit's `shell` package treats them: much like a shell's.
//!
//! `$name`, `${name}`, and `${name` followed by `-`, `+`, `?` (also after a colon), `#`, `##`, `%`, `%%`,
//! `/` or `//`. A word in quotes stays whole; single quotes keep all, double quotes all but variables.

mod pattern;

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};
use std::iter::Peekable;
use std::str::Chars;

use crate::{Error, Result};
use pattern::Pattern;

/// Variables by name; the last one of a name counts. One instruction's texts share it.
#[derive(Default)]
pub(crate) struct Environment<'a> {
    values: HashMap<&'a str, &'a str>,
    /// How many bytes these have made, in all texts.
    expanded: Cell<usize>,
}

impl<'a> Environment<'a> {
    pub(crate) fn of<S: AsRef<str>>(entries: &'a [S]) -> Self {
        let split = |entry: &'a S| entry.as_ref().split_once('=').unwrap_or((entry.as_ref(), ""));
        Self { values: entries.iter().map(split).collect(), expanded: Cell::new(0) }
    }

    /// The same, as if so many bytes had been made already.
    pub(crate) fn with_expanded(self, bytes: usize) -> Self {
        Self { expanded: Cell::new(bytes), ..self }
    }

    /// How many bytes have been made of its variables.
    pub(crate) fn expanded(&self) -> usize {
        self.expanded.get()
    }
}

/// Replaces variables.
#[derive(Clone, Copy)]
pub(crate) struct Lexer<'a> {
    escape: char,
    environment: &'a Environment<'a>,
    keep_quotes: bool,
    keep_escapes: bool,
    keep_unset: bool,
    plain_quotes: bool,
}

/// The names that were looked up for a text.
#[derive(Debug, Default)]
pub(crate) struct LookedUp {
    pub(crate) used: BTreeSet<String>,
    pub(crate) unset: BTreeSet<String>,
}

impl<'a> Lexer<'a> {
    pub(crate) fn new(escape: char, environment: &'a Environment<'a>) -> Self {
        Self {
            escape,
            environment,
            keep_quotes: false,
            keep_escapes: false,
            keep_unset: false,
            plain_quotes: false,
        }
    }

    /// Quotes do their work and stay.
    pub(crate) fn keep_quotes(self) -> Self {
        Self { keep_quotes: true, ..self }
    }

    /// Escape characters do their work and stay.
    pub(crate) fn keep_escapes(self) -> Self {
        Self { keep_escapes: true, ..self }
    }

    /// Variables that are not set stay as they are written.
    pub(crate) fn keep_unset(self) -> Self {
        Self { keep_unset: true, ..self }
    }

    /// Quotes are characters like others, as in documents.
    pub(crate) fn plain_quotes(self) -> Self {
        Self { plain_quotes: true, ..self }
    }

    /// The text with variables replaced and quotes gone.
    pub(crate) fn word(&self, text: &str) -> Result<String> {
        self.expand(text).0
    }

    /// The same, with the names of the variables, which are known also if there was an error.
    pub(crate) fn expand(&self, text: &str) -> (Result<String>, LookedUp) {
        let (output, names) = self.run(text);
        (output.map(|output| output.text), names)
    }

    /// The text, split at blanks outside of quotes.
    pub(crate) fn words(&self, text: &str) -> Result<Vec<String>> {
        self.run(text).0.map(Output::into_words)
    }

    fn run(&self, text: &str) -> (Result<Output>, LookedUp) {
        let chars = text.chars().peekable();
        let mut scanner = Scanner { lexer: self, chars, depth: 0, names: LookedUp::default() };
        let output = scanner.until(None, self.keep_escapes);
        let output = output.map_err(|reason| Error::Word { word: text.to_owned(), reason });
        (output, scanner.names)
    }
}

/// What has been made of a text so far, whole and as words.
#[derive(Default)]
struct Output {
    text: String,
    words: Vec<String>,
    word: String,
    in_word: bool,
}

impl Output {
    /// A character that ends a word if it is blank.
    fn add(&mut self, c: char) {
        if !c.is_whitespace() {
            self.word.push(c);
            self.in_word = true;
        } else if self.in_word && !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
            self.in_word = false;
        }
    }

    /// Text that belongs to the word whatever is in it.
    fn add_raw(&mut self, text: &str) {
        self.word.push_str(text);
        self.in_word = true;
    }

    fn into_words(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.words.push(self.word);
        }
        self.words
    }
}

type Parsed<T> = std::result::Result<T, String>;

/// Substitutions within substitutions go no deeper.
const MAX_DEPTH: u32 = 64;
/// So many bytes may variables make of one instruction's texts: no program takes as much, and `A=$A$A` doubles.
const MAX_EXPANDED: usize = 1 << 20;
/// So many may a replacement make, before it is seen how many they are.
const MAX_REPLACED: usize = 64 << 20;

fn too_much() -> String {
    format!("variables make more than {MAX_EXPANDED} bytes of it")
}

struct Scanner<'a> {
    lexer: &'a Lexer<'a>,
    chars: Peekable<Chars<'a>>,
    depth: u32,
    names: LookedUp,
}

impl Scanner<'_> {
    /// Reads to `stop`, or to the end if there is none. With `raw`, escape characters stay.
    fn until(&mut self, stop: Option<char>, raw: bool) -> Parsed<Output> {
        let mut output = Output::default();
        while let Some(&c) = self.chars.peek() {
            if Some(c) == stop {
                self.chars.next();
                return Ok(output);
            }
            match c {
                '$' => {
                    let value = self.dollar()?;
                    output.text.push_str(&value);
                    value.chars().for_each(|c| output.add(c));
                }
                '<' => {
                    let angle = self.angle();
                    output.text.push_str(&angle);
                    output.add_raw(&angle);
                }
                '\'' | '"' if !self.lexer.plain_quotes => {
                    let quoted = if c == '"' { self.double_quoted(raw)? } else { self.single_quoted()? };
                    output.text.push_str(&quoted);
                    output.add_raw(&quoted);
                }
                _ => self.plain(raw, &mut output),
            }
        }
        match stop {
            Some(stop) => Err(format!("unexpected end of statement while looking for matching {stop}")),
            None => Ok(output),
        }
    }

    fn plain(&mut self, raw: bool, output: &mut Output) {
        let Some(c) = self.chars.next() else { return };
        if c != self.lexer.escape {
            output.text.push(c);
            output.add(c);
            return;
        }
        if raw {
            output.text.push(c);
            output.add_raw(c.encode_utf8(&mut [0; 4]));
        }
        if let Some(escaped) = self.chars.next() {
            output.text.push(escaped);
            output.add_raw(escaped.encode_utf8(&mut [0; 4]));
        }
    }

    /// `<`, or `<<` with the blanks after it, by which a document's name is one word with it.
    fn angle(&mut self) -> String {
        let mut text: String = self.chars.next().into_iter().collect();
        if let Some(second) = self.chars.next_if_eq(&'<') {
            text.push(second);
            while let Some(space) = self.chars.next_if(|c| matches!(c, ' ' | '\t' | '\r')) {
                text.push(space);
            }
        }
        text
    }

    /// The quote at which the scanner stands, if quotes are kept.
    fn quote(&mut self) -> String {
        let quote = self.chars.next().filter(|_| self.lexer.keep_quotes);
        quote.into_iter().collect()
    }

    fn single_quoted(&mut self) -> Parsed<String> {
        let mut text = self.quote();
        while let Some(&c) = self.chars.peek() {
            if c == '\'' {
                text.push_str(&self.quote());
                return Ok(text);
            }
            self.chars.next();
            text.push(c);
        }
        Err("unexpected end of statement while looking for matching single-quote".into())
    }

    fn double_quoted(&mut self, raw: bool) -> Parsed<String> {
        let mut text = self.quote();
        while let Some(&c) = self.chars.peek() {
            if c == '$' {
                text.push_str(&self.dollar()?);
                continue;
            }
            if c == '"' {
                text.push_str(&self.quote());
                return Ok(text);
            }
            self.chars.next();
            if c != self.lexer.escape {
                text.push(c);
                continue;
            }
            if raw {
                text.push(c);
            }
            match self.chars.peek() {
                None => {}
                Some(&next) if next == '"' || next == '$' || next == self.lexer.escape => {
                    self.chars.next();
                    text.push(next);
                }
                Some(_) => text.push(c),
            }
        }
        Err("unexpected end of statement while looking for matching double-quote".into())
    }

    fn dollar(&mut self) -> Parsed<String> {
        let value = self.substitution()?;
        let expanded = &self.lexer.environment.expanded;
        expanded.set(expanded.get().saturating_add(value.len()));
        if expanded.get() > MAX_EXPANDED { Err(too_much()) } else { Ok(value) }
    }

    fn substitution(&mut self) -> Parsed<String> {
        self.chars.next();
        if self.chars.peek() != Some(&'{') {
            let name = self.name();
            return Ok(match self.value(&name) {
                _ if name.is_empty() => "$".into(),
                None if self.lexer.keep_unset => format!("${name}"),
                value => value.unwrap_or_default(),
            });
        }
        self.chars.next();
        match self.chars.peek() {
            None => return Err("syntax error: missing '}'".into()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".into()),
            Some(_) => {}
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err("syntax error: substitutions are nested too deeply".into());
        }
        let replaced = self.braces();
        self.depth -= 1;
        replaced
    }

    /// What stands in braces, after the first one.
    fn braces(&mut self) -> Parsed<String> {
        let name = self.name();
        let unsupported = |modifier: &str| format!("unsupported modifier ({modifier}) in substitution");
        let (kind, empty_is_unset) = match self.chars.next() {
            Some(':') => match self.chars.next() {
                Some(kind @ ('-' | '+' | '?')) => (kind, true),
                Some(other) => return Err(unsupported(&format!(":{other}"))),
                None => return Err("syntax error: missing '}'".into()),
            },
            Some(kind) => (kind, false),
            None => return Err(unsupported("\u{fffd}")),
        };
        match kind {
            '}' => Ok(match self.value(&name) {
                None if self.lexer.keep_unset => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            }),
            '-' | '+' | '?' | '#' | '%' => {
                let word = self.rest_of_braces(matches!(kind, '#' | '%'))?;
                let value = self.value(&name);
                match (kind, value) {
                    (kind, None) if self.lexer.keep_unset => {
                        let colon = if empty_is_unset { ":" } else { "" };
                        Ok(format!("${{{name}{colon}{kind}{word}}}"))
                    }
                    ('#' | '%', value) => trim(kind, &word, &value.unwrap_or_default()),
                    (kind, value) => conditional(&name, kind, value, word, empty_is_unset),
                }
            }
            '/' => self.replacement(&name),
            other => Err(unsupported(&other.to_string())),
        }
    }

    fn rest_of_braces(&mut self, raw: bool) -> Parsed<String> {
        let word = self.until(Some('}'), raw);
        word.map(|output| output.text).map_err(|reason| match self.chars.peek() {
            None => "syntax error: missing '}'".into(),
            Some(_) => reason,
        })
    }

    /// `${name/pattern/text}`, after the first slash.
    fn replacement(&mut self, name: &str) -> Parsed<String> {
        let all = self.chars.next_if_eq(&'/').is_some();
        let text = match self.until(Some('/'), true) {
            Ok(output) => output.text,
            Err(_) if self.chars.peek().is_none() => return Err("syntax error: missing '/' in ${}".into()),
            Err(reason) => return Err(reason),
        };
        let by = self.rest_of_braces(true)?;
        let value = match self.value(name) {
            None if self.lexer.keep_unset => return Ok(format!("${{{name}/{text}/{by}}}")),
            value => value.unwrap_or_default(),
        };
        let pattern = Pattern::parse(&text)
            .map_err(|reason| format!("invalid pattern ({text}) in substitution: {reason}"))?;
        // What it makes cannot be more.
        if value.len().saturating_add(1).saturating_mul(by.len()) > MAX_REPLACED {
            return Err(too_much());
        }
        Ok(pattern.replace(&value, &by, all))
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.chars.peek() {
            Some(c) if c.is_numeric() => {
                while let Some(digit) = self.chars.next_if(|c| c.is_numeric()) {
                    name.push(digit);
                }
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => name.extend(self.chars.next()),
            _ => {
                while let Some(c) = self.chars.next_if(|c| c.is_alphanumeric() || *c == '_') {
                    name.push(c);
                }
            }
        }
        name
    }

    fn value(&mut self, name: &str) -> Option<String> {
        let value = self.lexer.environment.values.get(name).map(|value| (*value).to_owned());
        let names = if value.is_some() { &mut self.names.used } else { &mut self.names.unset };
        if !name.is_empty() {
            names.insert(name.to_owned());
        }
        value
    }
}

/// `-`, `+` and `?`, with or without a colon before them, by which empty counts as unset.
fn conditional(
    name: &str,
    kind: char,
    value: Option<String>,
    word: String,
    empty_is_unset: bool,
) -> Parsed<String> {
    let usable = value.filter(|value| !empty_is_unset || !value.is_empty());
    match (kind, usable) {
        ('+', usable) => Ok(usable.map_or_else(String::new, |_| word)),
        (_, Some(value)) => Ok(value),
        ('-', None) => Ok(word),
        (_, None) if !word.is_empty() => Err(format!("{name}: {word}")),
        (_, None) if empty_is_unset => Err(format!("{name}: is not allowed to be empty")),
        (_, None) => Err(format!("{name}: is not allowed to be unset")),
    }
}

/// `#` and `%`: takes the shortest match off the front or the end; doubled, the longest.
fn trim(kind: char, word: &str, value: &str) -> Parsed<String> {
    let (text, greedy) = match word.strip_prefix(kind) {
        Some(rest) => (rest, true),
        None => (word, false),
    };
    let pattern = Pattern::parse(text)
        .map_err(|reason| format!("invalid pattern ({text}) in substitution: {reason}"))?;
    let trimmed =
        if kind == '#' { pattern.trim_start(value, greedy) } else { pattern.trim_end(value, greedy) };
    Ok(trimmed.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> Vec<String> {
        ["A=b c", "EMPTY=", "P=/usr/local/bin/x.tar.gz", "Q=a*b"].map(str::to_owned).to_vec()
    }

    #[test]
    fn variables_are_replaced() {
        let entries = environment();
        let environment = Environment::of(&entries);
        let lexer = Lexer::new('\\', &environment);
        let check = |text: &str, expect: &str| assert_eq!(lexer.word(text).unwrap(), expect, "{text}");
        check("x$A-${A}y", "xb c-b cy");
        check("'$A'\"$A\"", "$Ab c");
        check(r"\$A", "$A");
        check(r#""\$A \x""#, r"$A \x");
        check("$", "$");
        check("$NONE.", ".");
        check("${NONE-d}${NONE:-e}${EMPTY-f}${EMPTY:-g}", "deg");
        check("${A+x}${EMPTY+y}${EMPTY:+z}", "xy");
        check("${A?no}", "b c");
        check("${NONE:-${A}}", "b c");
        check("${P#*/}", "usr/local/bin/x.tar.gz");
        check("${P##*/}", "x.tar.gz");
        check("${P%.*}", "/usr/local/bin/x.tar");
        check("${P%%.*}", "/usr/local/bin/x");
        check(r"${P/\/usr/x}", "x/local/bin/x.tar.gz");
        check("${P//a/A}", "/usr/locAl/bin/x.tAr.gz");
        check(r"${Q#a\*}", "b");
    }

    #[test]
    fn what_stays_stays() {
        let entries = environment();
        let environment = Environment::of(&entries);
        let lexer = Lexer::new('\\', &environment);
        let named = lexer.keep_quotes().keep_unset();
        let check = |text: &str, expect: &str| assert_eq!(named.word(text).unwrap(), expect, "{text}");
        check(
            "run echo '$A' \"$A\" $NO ${NO:-$A} ${NO/a/b}",
            "run echo '$A' \"b c\" $NO ${NO:-b c} ${NO/a/b}",
        );
        assert_eq!(lexer.plain_quotes().word("it's $A \"x\"").unwrap(), "it's b c \"x\"");
        assert_eq!(lexer.words("a << EOF b").unwrap(), ["a", "<< EOF", "b"]);
        let (text, names) = lexer.expand("$A$NO${EMPTY}");
        assert_eq!((text.unwrap().as_str(), names.used.len(), names.unset.len()), ("b c", 2, 1));
        let (error, names) = lexer.expand("${NO:?x}");
        assert!(error.is_err() && names.unset.contains("NO"));
    }

    #[test]
    fn what_is_malformed_says_so() {
        let entries = environment();
        let environment = Environment::of(&entries);
        let lexer = Lexer::new('\\', &environment);
        let fails = |text: &str, expect: &str| {
            let Err(Error::Word { reason, .. }) = lexer.word(text) else { panic!("{text}") };
            assert_eq!(reason, expect, "{text}");
        };
        fails("${", "syntax error: missing '}'");
        fails("${}", "syntax error: bad substitution");
        fails("'a", "unexpected end of statement while looking for matching single-quote");
        fails("\"a", "unexpected end of statement while looking for matching double-quote");
        fails("${NONE?}", "NONE: is not allowed to be unset");
        fails("${EMPTY:?}", "EMPTY: is not allowed to be empty");
        fails("${NONE:?why}", "NONE: why");
        fails("${A^}", "unsupported modifier (^) in substitution");
        fails("${A:x}", "unsupported modifier (:x) in substitution");
        fails("${A/x", "syntax error: missing '/' in ${}");
        fails(&"${A:-".repeat(100), "syntax error: substitutions are nested too deeply");
    }

    #[test]
    fn words_end_at_blanks_outside_of_quotes() {
        let entries = environment();
        let environment = Environment::of(&entries);
        let lexer = Lexer::new('\\', &environment);
        assert_eq!(lexer.words("$A '$A x' d").unwrap(), ["b", "c", "$A x", "d"]);
        assert_eq!(lexer.words("$NONE").unwrap(), Vec::<String>::new());
    }
}
