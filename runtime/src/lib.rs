//! An OCI container runtime as a library: makes containers, runs further processes in
//! them, controls and removes them.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use wherry_runtime::{Bundle, Container, ExecOptions, Stdio, parse_process, protect_own_program};
//!
//! protect_own_program()?; // first thing: it executes this program again
//! let bundle = Bundle::open("/var/lib/bundles/web".as_ref())?;
//! let (mut container, _terminal) = Container::create(&bundle.launch("web-1"))?;
//! container.start()?;
//! let process = parse_process(br#"{ "cwd": "/", "args": ["/bin/ls"] }"#, &mut Vec::new())?;
//! let ls = container.exec(&process, Stdio::Inherit, &ExecOptions::default())?;
//! println!("pid {} uses {} bytes", ls.pid, container.stats()?.memory.usage_bytes);
//! container.kill(15)?;
//! container.delete(true)?;
//! # Ok(())
//! # }
//! ```
//!
//! The operations of the OCI runtime specification (1.2, "Runtime and Lifecycle"), and what else there is:
//!
//! | operation | here |
//! | --- | --- |
//! | "Query State" | [`Container::status`], [`Container::id`], [`Container::pid`], [`Container::bundle`] |
//! | "Create" | [`Container::create`]; [`Container::run`] starts at once |
//! | "Start" | [`Container::start`] |
//! | "Kill" | [`Container::kill`], [`Container::kill_all`] |
//! | "Delete" | [`Container::delete`], [`SavedState::remove`] |
//! | beyond the specification | [`Container::exec`], [`Container::pause`], [`Container::resume`], [`Container::update`], [`Container::stats`], [`Container::processes`], [`Container::oom_watch`] |
//! | from one process to another | [`Container::save`], [`SavedState::open`] |
//!
//! It must not know Docker's API, networks, images or logs, and it links no async runtime.
//! What is not as it was asked for and does not stop a container is given back as [`Warning`]s ([`Container::warnings`],
//! [`Launch::validate`]); nothing is written anywhere. Who wants to know
//! what is being done gives a [`Trace`].
//! It keeps no global state, and everything runs in the caller's thread, but for two steps that need a mount namespace for a
//! moment (restoring onto an overlay, devices that the host has not): these have a thread that ends before the call returns.
//! The caller becomes the parent of the processes that it starts, and reaps them.
//!
//! # How a container starts
//!
//! 1. The specification is compiled into a plan (`plan`): every string, number and buffer
//!    that the child will need. All allocation happens here.
//! 2. `clone3` puts the child straight into its new namespaces and, with cgroup v2, into its cgroup.
//! 3. The child (`child`) carries the plan out: network namespace, mounts by descriptor, `pivot_root`, identity,
//!    seccomp, `execve`.
//! 4. Meanwhile the parent makes the folders of cgroup v1, sends the child their descriptors, by which it enters,
//!    and writes the limits.
//! 5. The child says over a close-on-exec socket pair what failed, as step, subject and errno; when the
//!    socket closes without a word, `execve` has succeeded.
//!
//! The host's tree is let go of (`pivot_root`) *before* any path of the container is looked up, unless hooks
//! must see both; from then on every path is walked by the kernel inside the new root (`openat2`,
//! `RESOLVE_IN_ROOT`), and what is mounted there comes from descriptors that were opened before.
//! A further process ([`Container::exec`]) joins all namespaces at once, by init's pidfd.
//!
//! **Cgroups.** An own thin layer (see `cgroup`): version 1, hybrid and version 2 through the
//! file system, or made by systemd, asked over D-Bus ([`CgroupManager::Systemd`]).
//!
//! **Not supported, and refused:** Intel RDT, flags of `personality` (the specification defines none), the host's own mount
//! namespace by path.
//!
//! **Own program.** A caller that containers must not be able to overwrite by way of `/proc/PID/exe` (CVE-2019-5736)
//! calls [`protect_own_program`] first, or is started from a sealed copy.
//!
//! **Callers with many threads.** A child of a process with threads may find any lock
//! taken, the allocator's included. That is why the child allocates nothing, takes no lock and
//! calls no libc function beyond thin wrappers of system calls. All descriptors are close-on-exec from their first
//! moment, children are waited for by pidfd and never by "any child", and no thread's namespaces, working
//! directory, umask or signal mask change. So all calls may be made from any number of threads at once, on different
//! containers, or on the same by `&self`: `tests/threads.rs` does it with 50 containers from 8 threads and
//! counts what is left. Two things are the process's own and are the caller's to arrange: [`protect_own_program`] comes before
//! the first thread, and `SIGCHLD` must not be ignored (the kernel would reap before us).

mod bundle;
mod cgroup;
mod checkpoint;
mod child;
mod container;
mod create;
mod error;
mod exec;
mod facts;
mod hooks;
mod host_root;
mod launch;
mod mountinfo;
mod netlink;
mod parse;
mod plan;
mod prepare;
mod protect;
mod seccomp;
mod state;
mod stats;
mod sys;
mod terminal;
mod trace;
mod userns;
mod warning;

pub use bundle::Bundle;
pub use checkpoint::{CgroupsMode, CheckpointOptions, CriuOptions, RestoreOptions};
pub use container::{Container, ExecOptions, Process, Status, SubCgroup};
pub use create::is_container_id;
pub use error::{Error, ErrorKind, Step};
pub use launch::{CgroupManager, Launch, RootfsSource, Stdio};
pub use parse::{parse_process, parse_resources, parse_spec};
pub use protect::{protect_own_program, protect_own_program_traced};
pub use state::SavedState;
pub use stats::{BlockIo, BlockIoEntry, Cpu, Hugetlb, Memory, Pids, Pressure, Stats, Throttling};
pub use terminal::resize_terminal;
pub use trace::Trace;
pub use warning::Warning;
