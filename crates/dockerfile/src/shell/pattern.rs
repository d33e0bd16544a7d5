//! Patterns of substitutions: `*`, `?`, and `\` before those.

enum Token {
    Any,
    One,
    Char(char),
}

/// A pattern that is matched against parts of a value.
pub(super) struct Pattern(Vec<Token>);

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Any,
                '?' => Token::One,
                // A brace or slash had to be escaped because of what stands around the pattern.
                '\\' => match chars.next() {
                    Some(c @ ('*' | '?' | '\\' | '}' | '/')) => Token::Char(c),
                    Some(c) => return Err(format!("invalid escape '\\{c}'")),
                    None => return Err("invalid escape '\\'".into()),
                },
                c => Token::Char(c),
            });
        }
        Ok(Self(tokens))
    }

    /// `value` without the shortest, or longest, match at its beginning.
    pub(super) fn trim_start<'v>(&self, value: &'v str, greedy: bool) -> &'v str {
        self.at_start(value, greedy).and_then(|end| value.get(end..)).unwrap_or(value)
    }

    /// `value` without the shortest, or longest, match at its end.
    pub(super) fn trim_end<'v>(&self, value: &'v str, greedy: bool) -> &'v str {
        let mut starts = boundaries(value);
        let is_match = |start: &usize| {
            value.get(*start..).is_some_and(|tail| self.ends(tail).last() == Some(&tail.len()))
        };
        let start = if greedy { starts.find(is_match) } else { starts.rfind(is_match) };
        start.and_then(|start| value.get(..start)).unwrap_or(value)
    }

    /// `value` with its first match, or all, replaced.
    pub(super) fn replace(&self, value: &str, by: &str, all: bool) -> String {
        let mut replaced = String::new();
        let mut rest = value;
        while !rest.is_empty() {
            match self.at_start(rest, true).filter(|end| *end > 0) {
                Some(end) => {
                    replaced.push_str(by);
                    rest = rest.get(end..).unwrap_or_default();
                    if !all {
                        break;
                    }
                }
                None => {
                    let mut chars = rest.chars();
                    replaced.extend(chars.next());
                    rest = chars.as_str();
                }
            }
        }
        replaced.push_str(rest);
        replaced
    }

    fn at_start(&self, value: &str, greedy: bool) -> Option<usize> {
        let ends = self.ends(value);
        if greedy { ends.last().copied() } else { ends.first().copied() }
    }

    /// Where matches that begin at the start of `value` can end, in ascending order.
    fn ends(&self, value: &str) -> Vec<usize> {
        let mut ends = vec![0];
        for token in &self.0 {
            let step = |end: &usize, fits: &dyn Fn(char) -> bool| {
                let c = value.get(*end..)?.chars().next().filter(|c| fits(*c))?;
                Some(end + c.len_utf8())
            };
            ends = match token {
                Token::Any => match ends.first() {
                    Some(&first) => boundaries(value).filter(|at| *at >= first).collect(),
                    None => Vec::new(),
                },
                Token::One => ends.iter().filter_map(|end| step(end, &|_| true)).collect(),
                Token::Char(wanted) => ends.iter().filter_map(|end| step(end, &|c| c == *wanted)).collect(),
            };
        }
        ends
    }
}

fn boundaries(value: &str) -> impl DoubleEndedIterator<Item = usize> {
    value.char_indices().map(|(at, _)| at).chain(std::iter::once(value.len()))
}
