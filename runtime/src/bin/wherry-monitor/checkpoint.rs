//! The container's processes written to files, and brought back from them.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use wherry_monitor_api::{Failure, FailureKind, StartSpec};
use wherry_runtime::{CheckpointOptions, Container, CriuOptions, Launch, RestoreOptions};

use crate::control::failure;
use crate::launch::{Parsed, runtime_failure};
use crate::monitor::Monitor;

/// Starts the program, or what a checkpoint holds of it. Gives the terminal's master, if there is a terminal.
pub(crate) fn run_or_restore(
    launch: &Launch<'_>,
    checkpoint: Option<&Path>,
) -> Result<(Container, Option<OwnedFd>), Failure> {
    let made = match checkpoint {
        None => Container::run(launch),
        Some(images) => {
            let work = work_folder(launch.spec);
            Container::restore(launch, &options(images, &work), &RestoreOptions::default())
        }
    };
    made.map_err(|error| runtime_failure(&error))
}

/// What containerd's shim asks of runc: the network's devices are somebody else's, and nothing special.
fn options<'a>(images: &'a Path, work: &'a Path) -> CriuOptions<'a> {
    CriuOptions { work: Some(work), empty_network: true, ..CriuOptions::new(images) }
}

/// Where criu leaves its log, which outlives images that came to nothing: beside the root file system's place.
fn work_folder(spec: &Spec) -> PathBuf {
    let root = spec.root().as_ref().map_or(Path::new("/"), |root| root.path());
    root.with_file_name("criu")
}

impl Monitor {
    /// Writes all processes to files. Meanwhile they stand still, and so does this monitor. With `exit` they are killed then,
    /// which is noticed as any end is.
    pub(crate) fn checkpoint(&self, images: &Path, exit: bool) -> Result<(), Failure> {
        let run = self.running()?;
        if let Some(external) = &run.external {
            return external.checkpoint(images, exit);
        }
        let plan = self.plan.as_ref().map(|plan| serde_json::from_slice::<StartSpec>(&plan.spec));
        let mut start = plan
            .and_then(Result::ok)
            .ok_or_else(|| failure(FailureKind::Protocol, "the start that was kept does not parse"))?;
        let parsed = Parsed::take(&mut start)?;
        let own = CheckpointOptions { leave_running: !exit, ..CheckpointOptions::default() };
        let work = work_folder(&parsed.spec);
        run.container.checkpoint(&parsed.spec, &options(images, &work), &own).map_err(|e| runtime_failure(&e))
    }
}
