//! What can be seen in the file alone.

use super::{Linter, Rule};
use crate::file::{Dockerfile, Source, Stage};
use crate::instruction::Instruction;
use crate::{Arg, Lines};

/// Looks at a file before anything is built of it.
pub(crate) fn look_at_file(file: &Dockerfile, linter: &mut Linter) {
    for &line in &file.empty_continuations {
        let lines = Lines { first: line, last: line };
        linter.warn(Rule::NoEmptyContinuation, lines, "Empty continuation line".into());
    }
    for global in &file.global_args {
        arg_description(&global.args, &global.source, linter);
    }
    for stage in &file.stages {
        look_at_from(stage, linter);
        for statement in &stage.statements {
            match &statement.instruction {
                Instruction::Maintainer(_) => linter.warn(
                    Rule::MaintainerDeprecated,
                    statement.source.lines,
                    "Maintainer instruction is deprecated in favor of using label".into(),
                ),
                Instruction::Arg(args) => arg_description(args, &statement.source, linter),
                _ => {}
            }
        }
    }
    look_at_names(file, linter);
    look_at_case(file, linter);
}

fn look_at_from(stage: &Stage, linter: &mut Linter) {
    let lines = stage.source.lines;
    if let [_, keyword, name] = stage.words.as_slice() {
        if *name != name.to_lowercase() {
            linter.warn(Rule::StageNameCasing, lines, format!("Stage name '{name}' should be lowercase"));
        }
        let from = &stage.keyword;
        let matches = match (*from == from.to_lowercase(), *from == from.to_uppercase()) {
            (true, _) => *keyword == keyword.to_lowercase(),
            (false, true) => *keyword == keyword.to_uppercase(),
            // A keyword in mixed case has a warning of its own.
            (false, false) => true,
        };
        if !matches {
            let message = format!("'{keyword}' and '{from}' keywords' casing do not match");
            linter.warn(Rule::FromAsCasing, lines, message);
        }
    }
    if let Some(name) = &stage.name {
        invalid_description("FROM", std::slice::from_ref(name), &stage.source, linter);
    }
}

fn arg_description(args: &[Arg], source: &Source, linter: &mut Linter) {
    let names: Vec<String> = args.iter().map(|arg| arg.name.clone()).collect();
    invalid_description("ARG", &names, source, linter);
}

/// A comment before `ARG` and `FROM … AS` describes what is named there.
fn invalid_description(kind: &str, names: &[String], source: &Source, linter: &mut Linter) {
    let (Some(comment), Some(first)) = (source.comments.last(), names.first()) else { return };
    let described = comment.split(' ').next().unwrap_or_default();
    if names.iter().any(|name| name == described) {
        return;
    }
    let example = if names.len() > 1 { "<arg_key>" } else { first };
    let message = format!("Comment for {kind} should follow the format: `# {example} <description>`");
    linter.warn(Rule::InvalidDefinitionDescription, source.lines, message);
}

fn look_at_names(file: &Dockerfile, linter: &mut Linter) {
    let mut seen: Vec<&str> = Vec::new();
    for stage in &file.stages {
        let Some(name) = stage.name.as_deref() else { continue };
        let lines = stage.source.lines;
        if ["context", "scratch"].contains(&name) {
            let message = format!("Stage name should not use the same name as reserved stage {name:?}");
            linter.warn(Rule::ReservedStageName, lines, message);
        }
        if seen.contains(&name) {
            let message = format!("Duplicate stage name {name:?}, stage names should be unique");
            linter.warn(Rule::DuplicateStageName, lines, message);
        }
        seen.push(name);
    }
}

fn look_at_case(file: &Dockerfile, linter: &mut Linter) {
    let keywords: Vec<(&str, Lines)> = file
        .stages
        .iter()
        .flat_map(|stage| {
            let own = stage.statements.iter();
            let own = own.map(|statement| (statement.keyword.as_str(), statement.source.lines));
            std::iter::once((stage.keyword.as_str(), stage.source.lines)).chain(own)
        })
        .collect();
    let lower = keywords.iter().filter(|(word, _)| *word == word.to_lowercase()).count();
    let upper = keywords.iter().filter(|(word, _)| *word == word.to_uppercase()).count();
    for (word, lines) in keywords {
        let (expected, case) = match lower > upper {
            true => (word.to_lowercase(), "lowercase"),
            false => (word.to_uppercase(), "uppercase"),
        };
        if word != expected {
            let message = format!("Command '{word}' should match the case of the command majority ({case})");
            linter.warn(Rule::ConsistentInstructionCasing, lines, message);
        }
    }
}
