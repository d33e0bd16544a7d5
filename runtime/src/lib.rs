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
mod plan;
mod protect;
mod seccomp;
mod state;
mod stats;
mod sys;
mod terminal;
mod userns;

pub use container::{Container, ExecOptions, Process, Status};
pub use error::{Error, ErrorKind, Step};
pub use launch::{CgroupManager, Launch, RootfsSource, Stdio};
pub use protect::protect_own_program;
pub use state::SavedState;
pub use stats::{BlockIo, BlockIoEntry, Cpu, Hugetlb, Memory, Pids, Pressure, Stats, Throttling};
pub use terminal::resize_terminal;
