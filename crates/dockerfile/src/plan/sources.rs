//! Where instructions take files from, and which stages that makes necessary.

use std::collections::BTreeSet;

use wherry_image_ref::Reference;

use super::planner::{Origin, Planner, Result};
use super::request::{Frontend, NamedContext};
use crate::file::{Lines, Statement};
use crate::instruction::Instruction;
use crate::shell::{Environment, Lexer};
use crate::{Error, LocatedError, Phase};

impl Planner {
    /// The last stage so far with a name.
    pub(super) fn stage_by_name(&self, name: &str) -> Option<usize> {
        let name = name.to_lowercase();
        self.drafts.iter().rposition(|draft| draft.name.as_deref() == Some(name.as_str()))
    }

    /// BuildKit takes `FROM Base` for an image even if there is a stage `base`.
    pub(super) fn stage_by_base(&self, name: &str) -> Option<usize> {
        let is_usable = self.request.frontend == Frontend::Classic || name == name.to_lowercase();
        self.stage_by_name(name).filter(|_| is_usable)
    }

    pub(super) fn named_context(&self, name: &str) -> Option<Origin> {
        let contexts = &self.request.named_contexts;
        if contexts.is_empty() || ["scratch", "context"].iter().any(|word| name.eq_ignore_ascii_case(word)) {
            return None;
        }
        let familiar = name.parse::<Reference>().ok().map(Reference::or_latest);
        let same = |other: &&String| {
            let other = other.parse::<Reference>().ok().map(Reference::or_latest);
            familiar.is_some() && other == familiar
        };
        let key = contexts.get_key_value(name).map(|(key, _)| key).or_else(|| contexts.keys().find(same))?;
        Some(match contexts.get(key)? {
            NamedContext::Image(reference) => {
                Origin::Given { name: name.to_owned(), reference: reference.clone() }
            }
            NamedContext::Files => Origin::Context(key.clone()),
        })
    }

    /// Finds what a stage's commands take files from.
    pub(super) fn find_sources(&mut self, at: usize) -> Result<()> {
        let Some(mut commands) = self.drafts.get_mut(at).map(|draft| std::mem::take(&mut draft.commands))
        else {
            return Ok(());
        };
        for command in &mut commands {
            if command.sources.is_empty() {
                command.sources = self.sources_of(&command.statement, at)?;
            }
        }
        if let Some(draft) = self.drafts.get_mut(at) {
            draft.commands = commands;
        }
        Ok(())
    }

    pub(super) fn sources_of(&self, statement: &Statement, at: usize) -> Result<Vec<Option<Origin>>> {
        match &statement.instruction {
            Instruction::Transfer(transfer) => match transfer.from() {
                Some(from) => self.copy_source(from, at).map(|origin| vec![Some(origin)]),
                None => Ok(Vec::new()),
            },
            Instruction::Run(run) => {
                let find = |from: &Option<String>| {
                    let from = from.as_deref()?;
                    Some(match self.stage_by_name(from) {
                        Some(stage) => Origin::Stage(stage),
                        None if from == "scratch" => Origin::Scratch,
                        None => self.named_context(from).unwrap_or_else(|| Origin::Named(from.to_owned())),
                    })
                };
                Ok(run.mount_sources.iter().map(find).collect())
            }
            _ => Ok(Vec::new()),
        }
    }

    pub(super) fn copy_source(&self, from: &str, at: usize) -> Result<Origin> {
        let environment = Environment::default();
        let expanded = Lexer::new(self.file.escape, &environment).word(from).map_err(LocatedError::whole)?;
        if expanded != from {
            return Err(LocatedError::whole(Error::FromVariable));
        }
        let by_name = self.stage_by_name(from).map(Origin::Stage);
        if self.request.frontend == Frontend::Classic {
            let number = from.parse::<i64>().ok();
            return match (by_name, number) {
                (Some(origin), _) => Ok(origin),
                (None, None) => Ok(Origin::Named(from.to_owned())),
                (None, Some(number)) => match usize::try_from(number) {
                    Ok(number) if number < at => Ok(Origin::Stage(number)),
                    Ok(number) if number == at => Err(classic_from(from, "refers to current build stage")),
                    _ => Err(classic_from(from, "index out of bounds")),
                },
            };
        }
        if let Ok(number) = from.parse::<i64>() {
            let stage = usize::try_from(number).ok().filter(|number| *number < self.drafts.len());
            return stage.map(Origin::Stage).ok_or_else(|| LocatedError::whole(Error::StageNumber(number)));
        }
        Ok(match by_name {
            Some(origin) => origin,
            None if from == "scratch" => Origin::Scratch,
            None => self.named_context(from).unwrap_or_else(|| Origin::Named(from.to_owned())),
        })
    }

    /// The stages that a stage needs, with the lines that say so.
    pub(super) fn needs_of(&self, at: usize) -> Vec<(usize, Lines)> {
        let Some(draft) = self.drafts.get(at) else { return Vec::new() };
        let base = match draft.base {
            Origin::Stage(stage) => Some((stage, draft.source.lines)),
            _ => None,
        };
        let sources = draft.commands.iter().flat_map(|command| {
            let lines = command.statement.source.lines;
            command.sources.iter().filter_map(move |source| match source {
                Some(Origin::Stage(stage)) => Some((*stage, lines)),
                _ => None,
            })
        });
        base.into_iter().chain(sources).collect()
    }

    pub(super) fn check_circles(&self) -> Result<()> {
        let mut visited = vec![false; self.drafts.len()];
        for start in 0..self.drafts.len() {
            let mut path = Vec::new();
            if let Some(mut lines) = self.circle(start, &mut path, &mut visited) {
                lines.reverse();
                let name = self.drafts.get(start).map(|draft| draft.display.clone()).unwrap_or_default();
                let error = Error::Circle(name);
                return Err(LocatedError { error, lines, phase: Phase::Whole });
            }
        }
        Ok(())
    }

    pub(super) fn circle(
        &self,
        at: usize,
        path: &mut Vec<usize>,
        visited: &mut [bool],
    ) -> Option<Vec<Lines>> {
        if path.contains(&at) {
            return Some(Vec::new());
        }
        if visited.get(at).copied().unwrap_or(true) {
            return None;
        }
        if let Some(seen) = visited.get_mut(at) {
            *seen = true;
        }
        path.push(at);
        for (next, lines) in self.needs_of(at) {
            if let Some(mut found) = self.circle(next, path, visited) {
                found.push(lines);
                return Some(found);
            }
        }
        path.pop();
        None
    }

    /// The stages that are built, in the order of the file.
    pub(super) fn reachable(&self) -> Vec<usize> {
        if self.request.all_stages || self.request.frontend == Frontend::Classic {
            return (0..self.drafts.len()).collect();
        }
        let mut reached = BTreeSet::new();
        let mut open = vec![self.target];
        while let Some(at) = open.pop() {
            if reached.insert(at) {
                open.extend(self.needs_of(at).into_iter().map(|(stage, _)| stage));
            }
        }
        reached.into_iter().collect()
    }
}

fn classic_from(from: &str, reason: &'static str) -> LocatedError {
    LocatedError::whole(Error::ClassicFrom(from.to_owned(), reason))
}
