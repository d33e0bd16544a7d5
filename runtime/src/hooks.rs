//! Hooks that run in the caller's process: `prestart`, `createRuntime`, `poststart`, `poststop`.

use std::collections::HashMap;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use oci_spec::runtime::{Hook, Hooks};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

use crate::plan::hooks::timeout_ms;
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

    /// Stores the state for the hooks that run in the child.
    pub(crate) fn write_state(&self, file: &OwnedFd, pid: i32) -> Result<(), Error> {
        let state = self.state_text("creating", Some(pid))?;
        rustix::io::pwrite(file, &state, 0).map_err(|e| Error::system("write", "the hooks' state", e))?;
        Ok(())
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

    /// After the container has been removed. All run; a failure is only told.
    pub(crate) fn after_stop(&self) -> Result<(), Error> {
        let Some(hooks) = &self.hooks else { return Ok(()) };
        let mut result = Ok(());
        for hook in hooks.poststop().iter().flatten() {
            let one = self.run("poststop", &Some(vec![hook.clone()]), "stopped", None);
            result = result.and(one);
        }
        result
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

    fn state_text(&self, status: &str, pid: Option<i32>) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(&self.state(status, pid))
            .map_err(|e| Error::system("write", "the hooks' state", e))
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
        let state = self.state_text(status, pid)?;
        for (index, hook) in hooks.iter().enumerate() {
            run_one(hook, &state).map_err(|reason| Error::Hook { name, index, reason })?;
        }
        Ok(())
    }
}

fn run_one(hook: &Hook, state: &[u8]) -> Result<(), String> {
    let mut command = Command::new(hook.path());
    if let Some((first, rest)) = hook.args().as_deref().and_then(<[String]>::split_first) {
        command.arg0(first).args(rest);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // a hook without a word about its environment has the runtime's, as with runc and crun
    if let Some(env) = hook.env() {
        command.env_clear();
        command.envs(env.iter().filter_map(|entry| entry.split_once('=')));
    }
    let mut child = command.spawn().map_err(|e| format!("{}: {e}", hook.path().display()))?;
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(state); // one that does not read it does not want it
    }
    if !ends_in_time(&child, timeout_ms(hook)) {
        let _ = child.kill();
        let _ = child.wait();
        return Err("timed out".to_owned());
    }
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    Err(format!("{}, stdout and stderr: {}", output.status, text.trim()))
}

fn ends_in_time(child: &Child, timeout_ms: Option<i32>) -> bool {
    let Some(ms) = timeout_ms else { return true };
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let Some(Ok(pidfd)) = pid.map(|pid| pidfd_open(pid, PidfdFlags::empty())) else { return true };
    let timeout = Timespec { tv_sec: i64::from(ms / 1000), tv_nsec: i64::from(ms % 1000) * 1_000_000 };
    poll(&mut [PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)], Some(&timeout)) != Ok(0)
}
