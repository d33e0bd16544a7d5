//! The words of histories.

use super::{ClassicHistory, ImageConfig};
use crate::Healthcheck;
use crate::go;
use crate::instruction::Pair;

/// The texts of which the classic builder's entry is made.
pub(super) fn words_of(history: &ClassicHistory) -> impl Iterator<Item = &String> {
    let (words, last) = match history {
        ClassicHistory::Command(words) => (words, None),
        ClassicHistory::Transfer { shell, before, after } => (shell, Some([before, after])),
    };
    words.iter().chain(last.into_iter().flatten())
}

/// ` name=value` of each.
pub(super) fn pairs_text(pairs: &[Pair]) -> String {
    pairs.iter().map(|pair| format!(" {}={}", pair.name, pair.value)).collect()
}

/// BuildKit's entry of a command: its declared arguments, then its words.
pub(super) fn buildkit_run(args: &[String], declared: &[(String, String)]) -> String {
    let mut words = Vec::new();
    if !declared.is_empty() {
        words.push(format!("|{}", declared.len()));
        words.extend(declared.iter().map(|(name, value)| format!("{name}={value}")));
    }
    words.extend(args.iter().cloned());
    format!("RUN {} # buildkit", words.join(" "))
}

/// As Go prints a pointer to the structure: with `%q` for BuildKit, with `%v` for the classic builder.
pub(super) fn healthcheck(check: &Healthcheck) -> (String, String) {
    let times = [check.interval_ns, check.timeout_ns, check.start_period_ns, check.start_interval_ns];
    let times = times.map(go::duration);
    let quoted: Vec<String> = times.iter().map(|time| go::go_quote(time)).collect();
    let (test, retries) = (go::quote_all(&check.test), go::quote_number(check.retries));
    let buildkit = format!("HEALTHCHECK &{{{test} {} {retries}}}", quoted.join(" "));
    let (test, retries) = (check.test.join(" "), check.retries);
    (buildkit, format!("HEALTHCHECK &{{[{test}] {} {retries}}}", times.join(" ")))
}

/// The classic builder's entry of most instructions that run nothing.
pub(super) fn comment(config: &ImageConfig, text: &str) -> ClassicHistory {
    let comment = ["#(nop) ".to_owned(), text.to_owned()];
    ClassicHistory::Command(config.shell().into_iter().chain(comment).collect())
}

/// That of `WORKDIR`.
pub(super) fn short_comment(config: &ImageConfig, text: &str) -> ClassicHistory {
    let comment = format!("#(nop) {text}");
    ClassicHistory::Command(config.shell().into_iter().chain([comment]).collect())
}

/// That of a command; `is_shown` says which of the given arguments are.
pub(super) fn classic_run(
    args: &[String],
    given: &[String],
    is_shown: impl Fn(&str) -> bool,
) -> ClassicHistory {
    let mut words = Vec::new();
    if !given.is_empty() {
        let shown = given.iter().filter(|entry| is_shown(super::variables::name_of(entry)));
        let mut shown: Vec<String> = shown.cloned().collect();
        shown.sort();
        words.push(format!("|{}", shown.len()));
        words.extend(shown);
    }
    words.extend(args.iter().cloned());
    ClassicHistory::Command(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_are_printed_as_go_does() {
        let check = Healthcheck {
            test: vec!["CMD".into(), "a".into(), "b c".into()],
            interval_ns: 90_000_000_000,
            retries: 65,
            ..Healthcheck::default()
        };
        let expect = r#"HEALTHCHECK &{["CMD" "a" "b c"] "1m30s" "0s" "0s" "0s" 'A'}"#;
        let classic = "HEALTHCHECK &{[CMD a b c] 1m30s 0s 0s 0s 65}";
        assert_eq!(healthcheck(&check), (expect.to_owned(), classic.to_owned()));
    }
}
