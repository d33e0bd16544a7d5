//! Documents in a Dockerfile: `<<NAME`, and the lines after the instruction up to one with `NAME`.

use crate::shell::{Environment, Lexer};
use crate::{Error, Result};

/// A document, named in an instruction and written below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// What ends it; for `COPY` also the file's name.
    pub name: String,
    /// The number before `<<`, or 0.
    pub descriptor: u32,
    /// Whether `COPY` and `ADD` replace variables in it: nothing of the name is quoted.
    pub expand: bool,
    /// `<<-`: tabs at the beginning of its lines are dropped.
    pub strip_tabs: bool,
    /// The lines as they stand in the Dockerfile, with their ends and tabs.
    pub content: String,
}

impl Heredoc {
    /// Reads `[number]<<[-]name`, and nothing else; `None` if the word is none.
    ///
    /// # Errors
    /// [`Error::Word`] for quotes that do not end.
    pub(crate) fn parse(word: &str) -> Result<Option<Self>> {
        let digits = word.len() - word.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, rest) = word.split_at(digits);
        let Some(rest) = rest.strip_prefix("<<") else { return Ok(None) };
        let (rest, strip_tabs) = match rest.strip_prefix('-') {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        let rest = rest.trim_start();
        if rest.is_empty() || rest.contains('<') {
            return Ok(None);
        }
        let environment = Environment::default();
        let lexer = Lexer::new('\\', &environment).keep_unset();
        let words = lexer.words(rest)?;
        let [name] = words.as_slice() else { return Ok(None) };
        // A name that differs when its quotes are kept has some.
        let raw = lexer.keep_quotes().words(rest)?;
        let quotes = |text: &str| text.matches(['\'', '"']).count();
        let expand = raw.first().is_some_and(|raw| quotes(raw) == quotes(name));
        let descriptor = number.parse().unwrap_or(0);
        Ok(Some(Self { name: name.clone(), descriptor, expand, strip_tabs, content: String::new() }))
    }

    /// The documents that a line names, still empty.
    pub(crate) fn of_line(line: &str) -> Result<Vec<Self>> {
        let environment = Environment::default();
        let lexer = Lexer::new('\\', &environment).keep_unset().keep_quotes().keep_escapes();
        // Quotes that do not end are the shell's to complain of.
        let words = lexer.words(line).unwrap_or_default();
        let documents = words.iter().map(|word| Self::parse(word));
        Ok(documents.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    /// The content, without the tabs that `<<-` drops.
    #[must_use]
    pub fn text(&self) -> String {
        if !self.strip_tabs {
            return self.content.clone();
        }
        self.content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }

    /// The first line, and an ellipsis for the others, as step names show it.
    pub(crate) fn summary(&self) -> String {
        let text = self.content.trim();
        match text.split_once('\n') {
            Some((first, _)) => format!("{}...", first.trim_end_matches('\r')),
            None => text.to_owned(),
        }
    }
}

/// A document where none can be.
pub(crate) fn refuse(word: &str, instruction: &'static str, place: &'static str) -> Result<()> {
    match Heredoc::parse(word) {
        Ok(Some(_)) => Err(Error::MisplacedHeredoc(instruction, place)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        let check = |word: &str, expect: Option<(&str, u32, bool, bool)>| {
            let found = Heredoc::parse(word).unwrap();
            let found = found.as_ref().map(|d| (d.name.as_str(), d.descriptor, d.expand, d.strip_tabs));
            assert_eq!(found, expect, "{word}");
        };
        check("<<EOF", Some(("EOF", 0, true, false)));
        check("3<<-EOF", Some(("EOF", 3, true, true)));
        check("<<'EOF'", Some(("EOF", 0, false, false)));
        check("<<E\"O\"F", Some(("EOF", 0, false, false)));
        check("<< EOF", Some(("EOF", 0, true, false)));
        check("<<$X", Some(("$X", 0, true, false)));
        for none in ["<EOF", "<<<EOF", "<<", "x<<EOF", "<<a b", "EOF"] {
            check(none, None);
        }
    }

    #[test]
    fn lines_name_documents() {
        let names = |line: &str| -> Vec<String> {
            Heredoc::of_line(line).unwrap().into_iter().map(|document| document.name).collect()
        };
        assert_eq!(names("COPY <<a.txt <<-'b' /x/"), ["a.txt", "b"]);
        assert_eq!(names("RUN cat <<EOF | grep '<<NO' >x"), ["EOF"]);
        assert!(names("RUN echo \"<<EOF\" $((1<<2))").is_empty());
    }

    #[test]
    fn tabs_go() {
        let content = "\t\ta\n\t b\n".to_owned();
        let name = "E".to_owned();
        let document = Heredoc { name, descriptor: 0, expand: true, strip_tabs: true, content };
        assert_eq!(document.text(), "a\n b\n");
        assert_eq!(document.summary(), "a...");
    }
}
