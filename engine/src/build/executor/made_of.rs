//! Of what the target was made: all that its steps needed, known before or not.

use std::collections::BTreeSet;

use wherry_dockerfile::plan::{
    Action, Root, RunStep, Step, StepId as PlanStep, TransferSource, TransferStep,
};
use wherry_dockerfile::{MountKind, RunNetwork};
use wherry_image_ref::{Digest, Reference};
use wherry_image_store::{Image, chain_ids};

use super::{Executor, result_of};
use crate::build::origins::Origins;

impl Executor<'_> {
    /// All that the target's steps need from elsewhere.
    pub(super) fn origins(&self) -> Origins {
        let plan = &self.planned.plan;
        let mut origins = Origins::default();
        let mut waiting: Vec<&Root> =
            plan.stages.get(plan.target).map(|stage| &stage.root).into_iter().collect();
        let mut seen: BTreeSet<PlanStep> = BTreeSet::new();
        while let Some(root) = waiting.pop() {
            match root {
                Root::Scratch => {}
                Root::Context(name) => drop(origins.contexts.insert(name.clone().unwrap_or_default())),
                Root::Image(image) => self.add_image(*image, &mut origins),
                Root::Step(id) => {
                    let Some(step) = plan.steps.get(*id).filter(|_| seen.insert(*id)) else { continue };
                    waiting.extend(step.inputs());
                    self.add_step(*id, step, &mut origins);
                }
            }
        }
        origins
    }

    fn add_image(&self, number: usize, origins: &mut Origins) {
        let planned = self.planned.plan.images.get(number);
        let (Some(planned), Some(image)) = (planned, self.planned.images.get(number)) else { return };
        if let Some(result) = result_of(self.job, &planned.reference) {
            origins.add(&result.origins);
            return;
        }
        let name = (planned.reference.clone(), planned.platform.to_string());
        origins.images.insert(
            name,
            digest_of(&planned.reference, image, self.planned.manifests.get(number).copied().flatten()),
        );
    }

    fn add_step(&self, id: PlanStep, step: &Step, origins: &mut Origins) {
        match &step.action {
            Action::Run(run) => add_run(run, origins),
            Action::Transfer(transfer) => self.add_transfer(id, transfer, origins),
            Action::Configure | Action::Workdir { .. } | Action::Refused(_) => {}
        }
    }

    fn add_transfer(&self, id: PlanStep, transfer: &TransferStep, origins: &mut Origins) {
        let versions = self.versions.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let shown = self.shown.get(&id).copied();
        for (number, source) in transfer.sources.iter().enumerate() {
            // One that was not asked for again has none that would be known.
            let Some(version) = shown.and_then(|step| versions.get(&(step, number))) else { continue };
            match source {
                TransferSource::Git { remote, reference, .. } => {
                    origins.add_repository(remote, reference, version);
                }
                TransferSource::Http { url, .. } => {
                    origins.downloads.insert(crate::build::git::redacted(url), version.clone());
                }
                TransferSource::Files { .. } | TransferSource::Inline(_) => {}
            }
        }
    }
}

fn add_run(run: &RunStep, origins: &mut Origins) {
    origins.has_network |= run.network != RunNetwork::None;
    for mount in run.mounts.iter().map(|mount| &mount.mount) {
        let all = match mount.kind {
            MountKind::Secret => &mut origins.secrets,
            MountKind::Ssh => &mut origins.agents,
            _ => continue,
        };
        let id = if mount.id.is_empty() { "default".to_owned() } else { mount.id.clone() };
        *all.entry(id).or_default() |= mount.required;
    }
}

/// What dockerd calls an image by: of one that is here, its layers together; of one that its registry was asked for, its manifest.
fn digest_of(reference: &str, image: &Image, pulled: Option<Digest>) -> String {
    let parsed: Option<Reference> = reference.parse().ok();
    let named = parsed.as_ref().and_then(Reference::digest).copied().or(pulled);
    let layers = || chain_ids(image.diff_ids()).last().map(ToString::to_string);
    named.map(|digest| digest.to_string()).or_else(layers).unwrap_or_else(|| image.id.to_string())
}
