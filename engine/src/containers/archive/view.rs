//! What of a container's mounts is seen by `docker cp`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, fstat};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use wherry_image_store::{Bind, View, with_view as with_view_of};

use super::super::Container;
use super::super::files::EtcPaths;
use super::super::record::{MountExtra, Record};
use crate::engine::Engine;
use crate::error::Error;

/// Calls `work` with a view of the container. One that does not run is neither started nor removed meanwhile: its overlay
/// may be mounted once at a time. Blocking.
///
/// # Errors
/// Those of `work`, and of mounting.
pub(super) fn with_view<T: Send>(
    engine: &Engine,
    container: &Container,
    work: impl FnOnce(&View, &Binds) -> Result<T, Error> + Send,
) -> Result<T, Error> {
    let Some(init) = running(container) else {
        let _stays = container.transition.blocking_lock();
        // It may have been started, or have gone, before that.
        return view(engine, container, running(container), work);
    };
    view(engine, container, Some(init), work)
}

/// Init of a container that runs.
fn running(container: &Container) -> Option<OwnedFd> {
    let pid = Pid::from_raw(container.status().state.pid())?;
    // It may have ended at this moment.
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

fn view<T: Send>(
    engine: &Engine,
    container: &Container,
    init: Option<OwnedFd>,
    work: impl FnOnce(&View, &Binds) -> Result<T, Error> + Send,
) -> Result<T, Error> {
    let writable = engine.store.writable(&container.id)?;
    let record = container.record();
    let mounted = record.volumes().try_for_each(|volume| engine.volumes.mount(volume).map(drop));
    let done = mounted.and_then(|()| {
        let binds = Binds::of(engine, &record)?;
        let list: Vec<Bind<'_>> = binds.0.iter().map(Owned::bind).collect();
        with_view_of(&writable, init.as_ref().map(OwnedFd::as_fd), &list, |view| work(view, &binds))?
    });
    crate::volumes::release(engine, record.volumes());
    done
}

/// Volumes, binds and the files in `/etc` of a container.
pub(super) struct Binds(Vec<Owned>);

struct Owned {
    source: PathBuf,
    target: PathBuf,
    read_only: bool,
}

impl Owned {
    fn bind(&self) -> Bind<'_> {
        Bind { source: &self.source, target: &self.target, read_only: self.read_only }
    }
}

impl Binds {
    /// # Errors
    /// A folder in a volume, or a bind's source, that is not there.
    fn of(engine: &Engine, record: &Record) -> Result<Self, Error> {
        let etc = EtcPaths::of(&engine.config().data_root, &record.id);
        let files = [
            ("/etc/hosts", etc.hosts),
            ("/etc/hostname", etc.hostname),
            ("/etc/resolv.conf", etc.resolv_conf),
        ];
        let files = files.into_iter().filter(|(_, source)| source.exists());
        let mut binds: Vec<Owned> = files
            .map(|(target, source)| Owned {
                source,
                target: target.into(),
                read_only: record.host_config.readonly_rootfs,
            })
            .collect();
        let plain = MountExtra::default();
        for mount in record.mounts.iter().filter(|mount| mount.kind != "tmpfs") {
            // An image is mounted while the container runs only.
            if mount.kind == "image" && !Path::new(&mount.source).exists() {
                continue;
            }
            let extra = record.mount_extras.get(&mount.destination).unwrap_or(&plain);
            let source = match extra.subpath.as_str() {
                "" => PathBuf::from(&mount.source),
                below => super::super::spec::mounts::subpath(&mount.source, below)?.into(),
            };
            if mount.kind == "bind" {
                // Made as for a start: Compose puts files into containers that were never started.
                super::super::mount_sources::prepare_bind(Path::new(&mount.source), extra)?;
            }
            binds.retain(|bind| bind.target != Path::new(&mount.destination));
            binds.push(Owned { source, target: mount.destination.clone().into(), read_only: !mount.rw });
        }
        Ok(Self(binds))
    }

    /// Refuses, in dockerd's words, what is no folder or is read-only in the container.
    pub(super) fn may_write(&self, record: &Record, view: &View, folder: &OwnedFd) -> Result<(), Error> {
        let refuse = |text: &str| Err(Error::InvalidParameter(text.to_owned()));
        let kind = fstat(folder).map_err(|e| Error::io("stat", "the folder")(e.into()))?.st_mode;
        if FileType::from_raw_mode(kind) != FileType::Directory {
            return refuse("extraction point is not a directory");
        }
        let bind = view.bind_of(folder).map_err(Error::io("stat", "the folder"))?;
        match bind.and_then(|index| self.0.get(index)) {
            Some(bind) if bind.read_only => refuse("mounted volume is marked read-only"),
            None if record.host_config.readonly_rootfs => refuse("container rootfs is marked read-only"),
            _ => Ok(()),
        }
    }
}
