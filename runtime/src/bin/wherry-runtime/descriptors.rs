//! Which of the caller's descriptors the processes of containers get: those of socket activation
//! (sd_listen_fds(3)), then those of `--preserve-fds`.

use oci_spec::runtime::Spec;

use crate::command_line::{Command, ProcessOptions};
use crate::failure::Failure;

/// So many descriptors, from 3 on.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Descriptors {
    listen: u32,
    preserve: u32,
}

impl Descriptors {
    /// What that command hands on. Must be asked before anything else is opened, or that would be taken for the caller's.
    pub(crate) fn of(command: &Command) -> Result<Self, Failure> {
        let (options, listen) = match command {
            Command::Create(options) | Command::Run(options) => (&options.process, listen_fds()),
            Command::Exec(options) => (&options.process, 0),
            _ => return Ok(Descriptors::default()),
        };
        let ProcessOptions { preserve_fds: preserve, .. } = *options;
        for index in 0..preserve {
            let fd = listen.saturating_add(index).saturating_add(3);
            if std::fs::symlink_metadata(format!("/proc/self/fd/{fd}")).is_err() {
                return Err(Failure::NoDescriptor { index, count: preserve });
            }
        }
        Ok(Descriptors { listen, preserve })
    }

    /// How many they are.
    pub(crate) fn all(self) -> u32 {
        self.listen.saturating_add(self.preserve)
    }

    /// Tells the program about those of socket activation, in its environment.
    pub(crate) fn announce(self, spec: &mut Spec) {
        if self.listen > 0
            && let Some(process) = spec.process_mut()
        {
            let mut env = process.env().clone().unwrap_or_default();
            env.extend([format!("LISTEN_FDS={}", self.listen), "LISTEN_PID=1".to_owned()]);
            process.set_env(Some(env));
        }
    }
}

/// How many descriptors systemd passes, if it means this process.
fn listen_fds() -> u32 {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<u32>().ok());
    let ours = number("LISTEN_PID") == Some(std::process::id());
    number("LISTEN_FDS").filter(|_| ours).unwrap_or(0)
}
