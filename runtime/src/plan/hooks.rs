//! Hooks that run in the container's own process: `createContainer` and `startContainer`.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use oci_spec::runtime::Hook;

use super::annotations::{self, open_output};
use super::c_string;
use crate::sys::process::StringArray;
use crate::{Error, Launch};

/// A program that the child runs.
#[derive(Debug)]
pub(crate) struct ChildHook {
    /// Its list and its place there, for messages: `createContainer 0`.
    pub(crate) label: CString,
    pub(crate) path: CString,
    pub(crate) args: StringArray,
    pub(crate) env: StringArray,
    /// Milliseconds; `None` is no limit.
    pub(crate) timeout_ms: Option<i32>,
}

/// The hooks that concern the child.
#[derive(Debug, Default)]
pub(crate) struct ChildHooks {
    /// In the container's namespaces, before `pivot_root`.
    pub(crate) create_container: Vec<ChildHook>,
    /// In the container, after the start.
    pub(crate) start_container: Vec<ChildHook>,
    /// Whether `prestart` or `createRuntime` hooks run in the parent: the child tells it when to.
    pub(crate) in_parent: bool,
    /// Their standard input and output, if there are such hooks.
    pub(crate) files: Option<HookFiles>,
}

/// What hooks read and write: files in memory, so that nobody waits for anybody.
#[derive(Debug)]
pub(crate) struct HookFiles {
    /// The state, which the parent fills in once the pid is known.
    pub(crate) state: OwnedFd,
    /// What they say, of which those who fail are quoted.
    pub(crate) output: OwnedFd,
    /// Where standard output and standard error go instead, if annotations say so.
    pub(crate) redirected: [Option<OwnedFd>; 2],
}

impl HookFiles {
    /// Empty ones.
    pub(crate) fn make<'a>(annotation: impl Fn(&str) -> Option<&'a String>) -> Result<Self, Error> {
        Ok(HookFiles {
            state: memory_file(c"state")?,
            output: memory_file(c"output")?,
            redirected: [
                open_output(&annotation, annotations::HOOKS_STDOUT)?,
                open_output(&annotation, annotations::HOOKS_STDERR)?,
            ],
        })
    }

    /// Standard output (0) or standard error (1).
    pub(crate) fn stream(&self, number: usize) -> BorrowedFd<'_> {
        let redirected = self.redirected.get(number).and_then(Option::as_ref);
        redirected.unwrap_or(&self.output).as_fd()
    }
}

fn memory_file(name: &CStr) -> Result<OwnedFd, Error> {
    rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC)
        .map_err(|errno| Error::system("make", format!("the hooks' {}", name.to_string_lossy()), errno))
}

impl ChildHooks {
    /// Whether hooks must see the host's tree, so that `pivot_root` comes after them.
    pub(crate) fn before_pivot(&self) -> bool {
        self.in_parent || !self.create_container.is_empty()
    }
}

/// Compiles.
pub(crate) fn compile(launch: &Launch<'_>) -> Result<ChildHooks, Error> {
    let Some(hooks) = launch.spec.hooks() else { return Ok(ChildHooks::default()) };
    let list =
        |name: &'static str, hooks: &Option<Vec<Hook>>, env: &dyn Fn() -> Result<StringArray, Error>| {
            let all = hooks.iter().flatten().enumerate();
            all.map(|(index, one)| hook(&format!("{name} {index}"), one, env)).collect::<Result<Vec<_>, _>>()
        };
    let is_some = |hooks: &Option<Vec<Hook>>| hooks.as_ref().is_some_and(|list| !list.is_empty());
    let in_parent = is_some(hooks.prestart()) || is_some(hooks.create_runtime());
    let mut out = ChildHooks {
        // without a word about it: the runtime's environment, and in the container that of its program
        create_container: list("createContainer", hooks.create_container(), &|| {
            Ok(StringArray::new(inherited()))
        })?,
        start_container: list("startContainer", hooks.start_container(), &|| {
            strings(launch.spec.process().as_ref().and_then(|p| p.env().as_deref()).unwrap_or_default())
        })?,
        in_parent,
        files: None,
    };
    if !out.create_container.is_empty() || !out.start_container.is_empty() {
        let annotations = launch.spec.annotations().as_ref();
        out.files = Some(HookFiles::make(|name| annotations.and_then(|all| all.get(name)))?);
    }
    Ok(out)
}

fn strings(list: &[String]) -> Result<StringArray, Error> {
    Ok(StringArray::new(list.iter().map(|s| c_string("hooks", s)).collect::<Result<_, _>>()?))
}

fn hook(
    label: &str,
    hook: &Hook,
    default_env: &dyn Fn() -> Result<StringArray, Error>,
) -> Result<ChildHook, Error> {
    let path = hook.path().to_string_lossy().into_owned();
    let args = match hook.args() {
        Some(args) if !args.is_empty() => args.clone(),
        _ => vec![path.clone()],
    };
    Ok(ChildHook {
        label: c_string("hooks", label)?,
        path: c_string("hooks.path", &path)?,
        args: strings(&args)?,
        env: match hook.env() {
            Some(env) => strings(env)?,
            None => default_env()?,
        },
        timeout_ms: timeout_ms(hook),
    })
}

/// The caller's environment.
fn inherited() -> Vec<CString> {
    let entries = std::env::vars_os().filter_map(|(key, value)| {
        let entry = [key.as_encoded_bytes(), b"=", value.as_encoded_bytes()].concat();
        CString::new(entry).ok()
    });
    entries.collect()
}

/// A hook's timeout, given in seconds.
pub(crate) fn timeout_ms(hook: &Hook) -> Option<i32> {
    hook.timeout().filter(|s| *s > 0).map(|s| i32::try_from(s.saturating_mul(1000)).unwrap_or(i32::MAX))
}
