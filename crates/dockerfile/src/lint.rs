//! Warnings, with the names and texts of BuildKit's linter, and the directive `# check=skip=…;error=true`.

mod rules;
mod statics;

pub use rules::Rule;
pub(crate) use statics::look_at_file;

use crate::mount::go_bool;
use crate::{Error, Lines, Result};

/// A warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// What it is about.
    pub rule: Rule,
    /// What is wrong, in one sentence.
    pub message: String,
    /// Where.
    pub lines: Lines,
}

impl Warning {
    /// As progress shows it: `Rule: message (line 3)`.
    #[must_use]
    pub fn short(&self) -> String {
        format!("{}: {} (line {})", self.rule.name(), self.message, self.lines.first)
    }
}

/// A choice of rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Rules {
    #[default]
    None,
    Some(Vec<String>),
    All,
}

impl Rules {
    fn read(text: &str) -> Self {
        match text.trim() {
            "all" => Self::All,
            names => Self::Some(names.split(',').map(|name| name.trim().to_owned()).collect()),
        }
    }

    fn contains(&self, rule: Rule) -> bool {
        match self {
            Self::None => false,
            Self::Some(names) => names.iter().any(|name| name == rule.name()),
            Self::All => true,
        }
    }
}

/// What is checked, and what follows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckOptions {
    skip: Rules,
    experimental: Rules,
    is_error: bool,
}

impl CheckOptions {
    /// Reads `skip=A,B;error=true;experimental=all`, the value of the directive `check` or of the build argument
    /// `BUILDKIT_DOCKERFILE_CHECK`.
    ///
    /// # Errors
    /// [`Error::CheckOption`].
    pub fn parse(text: &str) -> Result<Self> {
        let mut options = Self::default();
        if text.trim().is_empty() {
            return Ok(options);
        }
        for part in text.trim().splitn(3, ';') {
            let invalid = || Error::CheckOption(part.to_owned());
            let (name, value) = part.split_once('=').ok_or_else(invalid)?;
            match name.trim() {
                "skip" => options.skip = Rules::read(value),
                "experimental" => options.experimental = Rules::read(value),
                "error" => {
                    let value = value.trim();
                    options.is_error = go_bool(value).ok_or_else(|| Error::CheckBool {
                        option: part.to_owned(),
                        value: value.to_owned(),
                    })?;
                }
                other => return Err(Error::CheckOption(other.to_owned())),
            }
        }
        Ok(options)
    }
}

/// Collects warnings.
#[derive(Debug, Default)]
pub(crate) struct Linter {
    options: CheckOptions,
    warnings: Vec<Warning>,
}

impl Linter {
    pub(crate) fn new(options: CheckOptions) -> Self {
        Self { options, warnings: Vec::new() }
    }

    /// One that says nothing.
    pub(crate) fn silent() -> Self {
        Self::new(CheckOptions { skip: Rules::All, ..CheckOptions::default() })
    }

    pub(crate) fn warn(&mut self, rule: Rule, lines: Lines, message: String) {
        let is_wanted = match rule.is_experimental() {
            true => self.options.experimental.contains(rule),
            false => !self.options.skip.contains(rule),
        };
        if is_wanted {
            self.warnings.push(Warning { rule, message, lines });
        }
    }

    pub(crate) fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// With `error=true`, warnings end the build.
    pub(crate) fn verdict(&self) -> Result<()> {
        if !self.options.is_error || self.warnings.is_empty() {
            return Ok(());
        }
        let mut names: Vec<&str> = Vec::new();
        for warning in &self.warnings {
            if !names.contains(&warning.rule.name()) {
                names.push(warning.rule.name());
            }
        }
        Err(Error::Lint(names.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_choose_rules() {
        let count = |options: &str| {
            let mut linter = Linter::new(CheckOptions::parse(options).unwrap());
            let lines = Lines { first: 1, last: 1 };
            linter.warn(Rule::StageNameCasing, lines, String::new());
            linter.warn(Rule::CopyIgnoredFile, lines, String::new());
            (linter.warnings().len(), linter.verdict().err().map(|error| error.to_string()))
        };
        assert_eq!(count(""), (1, None));
        assert_eq!(count("skip=JSONArgsRecommended, StageNameCasing"), (0, None));
        assert_eq!(count("skip=all;error=true"), (0, None));
        assert_eq!(count("experimental=all"), (2, None));
        let verdict = "lint violation found for rules: StageNameCasing".to_owned();
        assert_eq!(count("error=true"), (1, Some(verdict)));
        let fails = |text: &str| CheckOptions::parse(text).unwrap_err().to_string();
        assert_eq!(fails("foo"), "failed to parse check options: invalid check option \"foo\"");
        assert_eq!(fails("foo=1"), "failed to parse check options: invalid check option \"foo\"");
    }
}
