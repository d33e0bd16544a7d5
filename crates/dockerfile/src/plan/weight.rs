//! How much memory a plan takes. A short file can ask for much of it: a thousand instructions, each after another one that has set
//! something large.

use super::history::words_of;
use super::{Action, ImageConfig, Step, TransferSource};
use crate::{Error, Result};

/// So many bytes may the steps of a plan take, all together.
pub(super) const MAX_BYTES: usize = 256 << 20;
/// What a text takes beside its bytes, about.
const TEXT: usize = 48;

/// What has been planned so far.
#[derive(Debug, Default)]
pub(super) struct Weight(usize);

impl Weight {
    /// Counts something that is kept.
    ///
    /// # Errors
    /// [`Error::TooLarge`].
    pub(super) fn add(&mut self, bytes: usize) -> Result<()> {
        self.0 = self.0.saturating_add(bytes);
        if self.0 > MAX_BYTES { Err(Error::TooLarge(MAX_BYTES)) } else { Ok(()) }
    }
}

/// Bytes of texts.
pub(super) fn of_texts<'a>(texts: impl IntoIterator<Item = &'a String>) -> usize {
    texts.into_iter().map(|text| text.len() + TEXT).sum()
}

/// Bytes of a configuration.
pub(super) fn of_config(config: &ImageConfig) -> usize {
    let commands = [&config.entrypoint, &config.cmd, &config.shell].into_iter().flatten().flatten();
    let probe = config.healthcheck.iter().flat_map(|check| &check.test);
    let labels = config.labels.iter().flat_map(|(name, value)| [name, value]);
    let plain = [&config.user, &config.working_dir, &config.stop_signal, &config.author];
    of_texts(&config.exposed_ports)
        + of_texts(&config.env)
        + of_texts(&config.volumes)
        + of_texts(&config.on_build)
        + of_texts(commands)
        + of_texts(probe)
        + of_texts(labels)
        + of_texts(plain)
}

/// Bytes of a step, but for its configuration.
pub(super) fn of_step(step: &Step) -> usize {
    let action = match &step.action {
        Action::Configure | Action::Refused(_) => 0,
        Action::Workdir { path, user } => path.len() + user.len(),
        Action::Run(run) => {
            let script = run.script.as_ref().map_or(0, |script| script.content.len());
            let targets = run.mounts.iter().map(|mount| &mount.mount.target);
            of_texts(run.args.iter().chain(&run.env).chain(&run.proxy)) + of_texts(targets) + script
        }
        Action::Transfer(transfer) => {
            let sources = transfer.sources.iter().map(|source| match source {
                TransferSource::Files { path, .. } => path.len(),
                TransferSource::Inline(file) => file.content.len(),
                TransferSource::Http { url, .. } => url.len(),
                TransferSource::Git { remote, .. } => remote.len(),
            });
            sources.sum::<usize>() + transfer.destination.len() + of_texts(&transfer.exclude)
        }
    };
    let history = of_texts(&step.history.created_by) + of_texts(words_of(&step.history.classic));
    let classic = step.classic.as_ref().map_or(0, |classic| classic.text.len());
    action + history + classic + of_texts(&step.name) + step.source.text.len()
}
