//! Which images the stages need, and the triggers that these bring along.

use wherry_image_ref::Reference;

use super::planner::{Command, ImageNeed, Origin, Planner, Result};
use super::{Frontend, Platform};
use crate::file::{Lines, parse_trigger};
use crate::instruction::{Change, Instruction};
use crate::{Error, LocatedError, Phase};

impl Planner {
    /// Numbers the images of all stages that are built, and puts triggers in whose images are known, until neither
    /// finds anything new.
    pub(super) fn discover(&mut self) -> Result<()> {
        loop {
            let mut has_new = false;
            for at in self.reachable() {
                self.number_images(at)?;
                has_new |= self.pull_triggers(at)?;
            }
            if !has_new {
                return Ok(());
            }
            self.check_circles()?;
        }
    }

    fn number_images(&mut self, at: usize) -> Result<()> {
        let Some(draft) = self.drafts.get(at) else { return Ok(()) };
        let mut draft = draft.clone();
        let (lines, platform) = (draft.source.lines, draft.platform.clone());
        draft.base = self.numbered(draft.base, platform.as_ref(), lines)?;
        for command in &mut draft.commands {
            let lines = command.statement.source.lines;
            for source in &mut command.sources {
                if let Some(origin) = source.take() {
                    *source = Some(self.numbered(origin, None, lines)?);
                }
            }
        }
        if let Some(place) = self.drafts.get_mut(at) {
            *place = draft;
        }
        Ok(())
    }

    fn numbered(&mut self, origin: Origin, platform: Option<&Platform>, lines: Lines) -> Result<Origin> {
        let origin = match origin {
            Origin::Named(written) => self.named_context(&written).unwrap_or(Origin::Named(written)),
            origin => origin,
        };
        match origin {
            // A context may name an image of the same name.
            Origin::Given { name, reference } => {
                self.image(&reference, (&name, Some(&reference)), platform, lines)
            }
            Origin::Named(written) => self.image(&written, (&written, None), platform, lines),
            origin => Ok(origin),
        }
    }

    fn image(
        &mut self,
        reference: &str,
        (written, given): (&str, Option<&str>),
        platform: Option<&Platform>,
        lines: Lines,
    ) -> Result<Origin> {
        let reference = match (reference.parse::<Reference>(), self.request.frontend) {
            (Ok(parsed), _) => parsed.or_latest().to_string(),
            // The classic builder takes an image's id too.
            (Err(_), Frontend::Classic) => reference.to_owned(),
            (Err(error), Frontend::BuildKit) => {
                let error = Error::BaseReference(reference.to_owned(), error.to_string());
                return Err(LocatedError::new(error, lines, Phase::Whole));
            }
        };
        let platform = platform.unwrap_or_else(|| self.request.target_platform()).clone();
        let known = |need: &ImageNeed| need.reference == reference && need.platform == platform;
        if let Some(need) = self.needs.iter().find(|need| known(need)) {
            return Ok(Origin::Image(need.id));
        }
        let id = self.needs.len();
        let (written, context) = (written.to_owned(), given.map(str::to_owned));
        self.needs.push(ImageNeed { id, reference, written, context, platform, lines, supplied: None });
        Ok(Origin::Image(id))
    }

    /// Puts the triggers of a stage's base before its own instructions; says whether there were any.
    fn pull_triggers(&mut self, at: usize) -> Result<bool> {
        let Some(draft) = self.drafts.get(at).filter(|draft| !draft.has_triggers) else { return Ok(false) };
        let triggers: Vec<String> = match draft.base {
            Origin::Stage(base) => {
                let commands = self.drafts.get(base).map(|base| base.commands.as_slice()).unwrap_or_default();
                let trigger = |command: &Command| match &command.statement.instruction {
                    Instruction::Change(Change::OnBuild(trigger)) => Some(trigger.clone()),
                    _ => None,
                };
                commands.iter().filter_map(trigger).collect()
            }
            Origin::Image(id) => match self.needs.get(id).and_then(|need| need.supplied.as_ref()) {
                Some(image) if !draft.is_replaced => image.config.on_build.clone(),
                Some(_) => Vec::new(),
                None => return Ok(false),
            },
            _ => Vec::new(),
        };
        let lines = draft.source.lines;
        let mut commands = Vec::with_capacity(triggers.len());
        for trigger in &triggers {
            let statement = parse_trigger(trigger, lines);
            let statement = statement.map_err(|error| LocatedError::new(error, lines, Phase::Whole))?;
            let sources = self.sources_of(&statement, at)?;
            commands.push(Command { statement, sources, is_trigger: true });
        }
        if let Some(draft) = self.drafts.get_mut(at) {
            draft.has_triggers = true;
            draft.total += commands.len();
            draft.commands.splice(0..0, commands);
        }
        Ok(!triggers.is_empty())
    }
}
