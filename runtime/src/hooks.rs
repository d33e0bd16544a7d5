//! Hooks that run in the caller's process: `prestart`, `createRuntime`, `poststart`, `poststop`.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use oci_spec::runtime::{Hook, Hooks};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::error::hook_ended;
use crate::plan::hooks::{HookFiles, timeout_ms};
use crate::{Error, Launch};

/// A container's hooks, and what they are told.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct HookRunner {
    id: String,
    bundle: PathBuf,
    annotations: HashMap<String, String>,
    hooks: Option<Hooks>,
}

/// The state as hooks and seccomp's listeners read it (runtime specification, "State").
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct State<'a> {
    pub(crate) oci_version: &'a str,
    id: &'a str,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<i32>,
    bundle: &'a Path,
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    annotations: &'a HashMap<String, String>,
}

impl HookRunner {
    /// The hooks of a launch.
    pub(crate) fn new(launch: &Launch<'_>) -> Self {
        let hooks = launch.spec.hooks().clone();
        let seccomp = launch.spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
        if hooks.is_none() && seccomp.is_none_or(|seccomp| seccomp.listener_path().is_none()) {
            return HookRunner::default(); // nobody is told anything
        }
        HookRunner {
            id: launch.id.to_owned(),
            bundle: launch.bundle.to_owned(),
            annotations: launch.spec.annotations().clone().unwrap_or_default(),
            hooks,
        }
    }

    /// Stores the state for hooks to read.
    pub(crate) fn write_state(&self, file: &OwnedFd, status: &str, pid: Option<i32>) -> Result<(), Error> {
        let failed = |error: std::io::Error| Error::system("write", "the hooks' state", error);
        let state = serde_json::to_vec(&self.state(status, pid)).map_err(|e| failed(e.into()))?;
        rustix::io::pwrite(file, &state, 0).map(drop).map_err(|errno| failed(errno.into()))
    }

    /// Before `pivot_root`: `prestart`, then `createRuntime`.
    pub(crate) fn before_pivot(&self, pid: i32) -> Result<(), Error> {
        let Some(hooks) = &self.hooks else { return Ok(()) };
        self.run("prestart", hooks.prestart(), "creating", Some(pid))?;
        self.run("createRuntime", hooks.create_runtime(), "creating", Some(pid))
    }

    /// After the program has been executed.
    pub(crate) fn after_start(&self, pid: i32) -> Result<(), Error> {
        let Some(hooks) = &self.hooks else { return Ok(()) };
        self.run("poststart", hooks.poststart(), "running", Some(pid))
    }

    /// After the container has been removed. All run; failures are only told, all of them with the first.
    pub(crate) fn after_stop(&self) -> Result<(), Error> {
        let Some(hooks) = &self.hooks else { return Ok(()) };
        let mut first: Option<Error> = None;
        for (index, hook) in hooks.poststop().iter().flatten().enumerate() {
            let one = self.run("poststop", &Some(vec![hook.clone()]), "stopped", None);
            match (one, &mut first) {
                (Err(Error::Hook { name, reason, .. }), None) => {
                    first = Some(Error::Hook { name, index, reason })
                }
                (Err(Error::Hook { reason: other, .. }), Some(Error::Hook { reason, .. })) => {
                    *reason = format!("{reason}; hook #{index}: {other}");
                }
                (Err(other), None) => first = Some(other),
                _ => {}
            }
        }
        first.map_or(Ok(()), Err)
    }

    /// The state with that status.
    pub(crate) fn state<'a>(&'a self, status: &'a str, pid: Option<i32>) -> State<'a> {
        State {
            oci_version: "1.2.0",
            id: &self.id,
            status,
            pid,
            bundle: &self.bundle,
            annotations: &self.annotations,
        }
    }

    fn run(
        &self,
        name: &'static str,
        hooks: &Option<Vec<Hook>>,
        status: &str,
        pid: Option<i32>,
    ) -> Result<(), Error> {
        let hooks = hooks.as_deref().unwrap_or_default();
        if hooks.is_empty() {
            return Ok(());
        }
        for (index, hook) in hooks.iter().enumerate() {
            let failed = |reason| Error::Hook { name, index, reason };
            let files =
                HookFiles::make(|name| self.annotations.get(name)).map_err(|e| failed(e.to_string()))?;
            self.write_state(&files.state, status, pid)?;
            run_one(hook, files).map_err(failed)?;
        }
        Ok(())
    }
}

fn run_one(hook: &Hook, files: HookFiles) -> Result<(), String> {
    let copy = |number| files.stream(number).try_clone_to_owned().map_err(|e| e.to_string());
    let (stdout, stderr) = (copy(0)?, copy(1)?);
    let output = File::from(files.output);
    let mut command = Command::new(hook.path());
    if let Some((first, rest)) = hook.args().as_deref().and_then(<[String]>::split_first) {
        command.arg0(first).args(rest);
    }
    command.stdin(files.state).stdout(stdout).stderr(stderr);
    // a hook without a word about its environment has the runtime's, as with runc and crun
    if let Some(env) = hook.env() {
        command.env_clear();
        command.envs(env.iter().filter_map(|entry| entry.split_once('=')));
    }
    let mut child = command.spawn().map_err(|e| format!("{}: {e}", hook.path().display()))?;
    if !ends_in_time(&child, timeout_ms(hook)) {
        let _ = child.kill();
        let _ = child.wait();
        return Err("timed out".to_owned());
    }
    let status = child.wait().map_err(|e| e.to_string())?;
    if status.success() {
        return Ok(());
    }
    Err(hook_ended(status.code(), status.signal(), &last_words(&output)))
}

/// The end of what a hook has said.
fn last_words(output: &File) -> String {
    const MOST: u64 = 16 << 10;
    let length = output.metadata().map_or(0, |metadata| metadata.len());
    let mut words = vec![0; usize::try_from(length.min(MOST)).unwrap_or(0)];
    let read = output.read_at(&mut words, length.saturating_sub(MOST)).unwrap_or(0);
    String::from_utf8_lossy(words.get(..read).unwrap_or_default()).into_owned()
}

fn ends_in_time(child: &Child, timeout_ms: Option<i32>) -> bool {
    let Some(ms) = timeout_ms else { return true };
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let Some(Ok(pidfd)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else { return true };
    let timeout = Timespec { tv_sec: i64::from(ms / 1000), tv_nsec: i64::from(ms % 1000) * 1_000_000 };
    poll(&mut [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)], Some(&timeout)) != Ok(0)
}
