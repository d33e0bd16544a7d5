//! Annotations that are wishes to the runtime, by crun's names: Podman and others set them. All others are only told to hooks
//! and to seccomp's agents.

use std::fs::{File, OpenOptions};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;

use oci_spec::runtime::Spec;

use crate::Error;

/// A file of the host to which all hooks' standard output is appended.
pub(crate) const HOOKS_STDOUT: &str = "run.oci.hooks.stdout";
/// The same for their standard error.
pub(crate) const HOOKS_STDERR: &str = "run.oci.hooks.stderr";
/// Processes keep the caller's supplementary groups (Podman's `--group-add keep-groups`).
pub(crate) const KEEP_GROUPS: &str = "run.oci.keep_original_groups";
/// A system call that a seccomp profile names and nobody knows is an error; else it does not count.
pub(crate) const FAIL_UNKNOWN_SYSCALL: &str = "run.oci.seccomp_fail_unknown_syscall";

/// Whether that annotation is there, and not `0`.
pub(crate) fn is_set(spec: &Spec, name: &str) -> bool {
    let value = spec.annotations().as_ref().and_then(|all| all.get(name));
    value.is_some_and(|value| value != "0")
}

/// Opens the file that the annotation names, if it is there; a new one is its owner's alone.
pub(crate) fn open_output<'a>(
    get: impl Fn(&str) -> Option<&'a String>,
    name: &'static str,
) -> Result<Option<OwnedFd>, Error> {
    let Some(path) = get(name) else { return Ok(None) };
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    file.map(|file: File| Some(file.into())).map_err(|e| Error::system("open", format!("{path} ({name})"), e))
}
