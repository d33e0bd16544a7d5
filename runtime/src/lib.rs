//! An OCI container runtime as a library: makes containers, runs further processes in
//! them, controls and removes them.
//!
//! It must not know Docker's API, networks, images or logs, and it links no async runtime.
//! It starts no threads and keeps no global state; everything runs in the caller's thread.
//! The caller becomes the parent of the processes that it starts, and reaps them.
//!
//! # How a container starts
//!
//! 1. The specification is compiled into a plan (`plan`): every string, number and buffer
//!    that the child will need. All allocation happens here.
//! 2. The cgroups are made, and their descriptors opened.
//! 3. `clone3` puts the child straight into its new namespaces (and, with cgroup v2, into its cgroup).
//! 4. The child (`child`) carries the plan out: mounts by descriptor, `pivot_root`, identity,
//!    seccomp, `execve`. Meanwhile the parent writes the cgroup's limits.
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
//! **Not supported, and refused:** Intel RDT, `netDevices`, flags of `personality`, a container without a mount namespace
//! of its own.
//!
//! **Own program.** A caller that containers must not be able to overwrite by way of `/proc/PID/exe` (CVE-2019-5736)
//! calls [`protect_own_program`] first, or is started from a sealed copy.
//!
//! **Callers with many threads.** A child of a process with threads may find any lock
//! taken, the allocator's included. That is why the child allocates nothing, takes no lock and
//! calls no libc function beyond thin wrappers of system calls.

mod cgroup;
mod child;
mod container;
mod create;
mod error;
mod exec;
mod hooks;
mod launch;
mod parse;
mod plan;
mod prepare;
mod protect;
mod seccomp;
mod state;
mod stats;
mod sys;
mod terminal;
mod userns;

pub use container::{Container, ExecOptions, Process, Status, SubCgroup};
pub use create::is_container_id;
pub use error::{Error, ErrorKind, Step};
pub use launch::{CgroupManager, Launch, RootfsSource, Stdio};
pub use parse::{parse_process, parse_resources, parse_spec};
pub use protect::protect_own_program;
pub use state::SavedState;
pub use stats::{BlockIo, BlockIoEntry, Cpu, Hugetlb, Memory, Pids, Pressure, Stats, Throttling};
pub use terminal::resize_terminal;
