//! What is mounted into a container: from `Binds`, `Mounts`, `VolumesFrom` and the image's
//! `VOLUME`s to resolved mount points, with the volumes made that they need.

mod parse;

use std::collections::BTreeMap;
use std::path::Path;

use super::config::{Config, HostConfig, Mount, MountPoint};
use super::record::MountExtra;
use crate::engine::Engine;
use crate::error::Error;
use crate::text::go_quote;

pub(super) use parse::check_destination;
pub(crate) use parse::clean_path;

/// The mode that dockerd shows for named volumes without one: shared by all containers, in SELinux's terms.
const SHARED_LABEL: &str = "z";

/// Anonymous volumes that were made for a container which is not yet there: removed again unless it comes to be.
#[derive(Debug)]
pub(super) struct NewVolumes<'a> {
    engine: &'a Engine,
    names: Vec<String>,
}

impl NewVolumes<'_> {
    /// The container has them now.
    pub(super) fn keep(mut self) {
        self.names.clear();
    }
}

impl Drop for NewVolumes<'_> {
    fn drop(&mut self) {
        for name in &self.names {
            if let Err(error) = crate::volumes::destroy(self.engine, name) {
                tracing::warn!(volume = %name, %error, "a volume of a container that was not created stays behind");
            }
        }
    }
}

/// The mounts of a container.
#[derive(Debug)]
pub(super) struct Resolved<'a> {
    /// In the order of their destinations.
    pub(super) mounts: Vec<MountPoint>,
    /// What only the start needs, by destination.
    pub(super) extras: BTreeMap<String, MountExtra>,
    /// To be kept once the container exists.
    pub(super) volumes: NewVolumes<'a>,
}

/// Resolves all mounts, and makes the volumes that are missing. Blocking.
///
/// # Errors
/// With dockerd's texts; anonymous volumes that were made are gone again then.
pub(super) fn resolve<'a>(
    engine: &'a Engine,
    id: &str,
    config: &Config,
    host: &HostConfig,
) -> Result<Resolved<'a>, Error> {
    let volumes = NewVolumes { engine, names: Vec::new() };
    let mut resolver = Resolver { id, host, points: BTreeMap::new(), volumes };
    for from in host.volumes_from.iter().flatten() {
        resolver.add_volumes_from(from)?;
    }
    let mut taken: Vec<String> = Vec::new();
    for raw in host.binds.iter().flatten() {
        let (point, extra) = resolver.bind(raw)?;
        let in_tmpfs = host.tmpfs.as_ref().is_some_and(|tmpfs| tmpfs.contains_key(&point.destination));
        if in_tmpfs || taken.contains(&point.destination) {
            return Err(duplicate(&point.destination));
        }
        taken.push(point.destination.clone());
        resolver.put(point, extra);
    }
    for mount in host.mounts.iter().flatten() {
        let (point, extra) = resolver.mount(mount)?;
        if taken.contains(&point.destination) {
            return Err(duplicate(&mount.target));
        }
        taken.push(point.destination.clone());
        resolver.put(point, extra);
    }
    resolver.add_anonymous(config)?;
    let mut resolved = Resolved { mounts: Vec::new(), extras: BTreeMap::new(), volumes: resolver.volumes };
    for (destination, (point, extra)) in resolver.points {
        if extra != MountExtra::default() {
            resolved.extras.insert(destination, extra);
        }
        resolved.mounts.push(point);
    }
    Ok(resolved)
}

fn duplicate(destination: &str) -> Error {
    Error::InvalidParameter(format!("Duplicate mount point: {destination}"))
}

struct Resolver<'a, 'h> {
    id: &'h str,
    host: &'h HostConfig,
    points: BTreeMap<String, (MountPoint, MountExtra)>,
    volumes: NewVolumes<'a>,
}

impl Resolver<'_, '_> {
    fn put(&mut self, point: MountPoint, extra: MountExtra) {
        self.points.insert(point.destination.clone(), (point, extra));
    }

    /// The mounts of another container: `NAME[:MODE]`.
    fn add_volumes_from(&mut self, from: &str) -> Result<(), Error> {
        let (name, mode) = from.split_once(':').unwrap_or((from, "rw"));
        if name.is_empty() {
            return Err(Error::InvalidParameter(
                "volumes-from specification cannot be an empty string".into(),
            ));
        }
        let given = mode;
        let mode = parse::Mode::parse(given).map_err(Error::InvalidParameter)?;
        if mode.no_copy || mode.propagation.is_some() {
            return Err(Error::InvalidParameter(format!("invalid mode: {given}")));
        }
        let other = self.volumes.engine.containers.find(name);
        let other = other.map_err(|e| Error::InvalidParameter(e.to_string()))?.record();
        for point in &other.mounts {
            let extra = other.mount_extras.get(&point.destination).cloned().unwrap_or_default();
            let mut point =
                MountPoint { rw: point.rw && mode.writable, mode: String::new(), ..point.clone() };
            if point.kind == "image" {
                // The other's goes with the other.
                point.source = self.image_place(&point.destination);
            }
            self.put(point, MountExtra { copy_up: false, ..extra });
        }
        Ok(())
    }

    /// An entry of `Binds`: `[SOURCE:]DESTINATION[:MODE]`.
    fn bind(&mut self, raw: &str) -> Result<(MountPoint, MountExtra), Error> {
        let bind = parse::bind(raw).map_err(Error::server)?;
        if bind.source.starts_with('/') {
            let source = clean_path(&bind.source);
            let propagation = self.propagation(&source, bind.mode.propagation.as_deref());
            let point = MountPoint {
                kind: "bind".into(),
                source,
                destination: bind.destination,
                mode: bind.raw_mode,
                rw: bind.mode.writable,
                propagation,
                ..MountPoint::default()
            };
            return Ok((point, MountExtra { create_source: true, ..MountExtra::default() }));
        }
        let driver = self.host.volume_driver.clone();
        let mode = if bind.raw_mode.is_empty() { SHARED_LABEL.to_owned() } else { bind.raw_mode };
        let mut volume = self.volume(&bind.source, None, &driver, None)?;
        volume.0 = MountPoint { destination: bind.destination, mode, rw: bind.mode.writable, ..volume.0 };
        volume.1.copy_up = !bind.mode.no_copy;
        Ok(volume)
    }

    /// An entry of `Mounts`.
    fn mount(&mut self, mount: &Mount) -> Result<(MountPoint, MountExtra), Error> {
        parse::check_mount(mount)?;
        let destination = clean_path(&mount.target);
        match mount.kind.as_str() {
            "bind" => self.bind_mount(mount, destination),
            "volume" => self.volume_mount(mount, destination),
            "image" => self.image_mount(mount, destination),
            _ => {
                let options = parse::tmpfs_options(mount)?;
                let point = MountPoint {
                    kind: "tmpfs".into(),
                    destination,
                    rw: !mount.read_only,
                    ..MountPoint::default()
                };
                Ok((point, MountExtra { options, ..MountExtra::default() }))
            }
        }
    }

    fn image_mount(&self, mount: &Mount, destination: String) -> Result<(MountPoint, MountExtra), Error> {
        let engine = self.volumes.engine;
        let image = engine.store.resolve(&mount.source)?.to_string();
        let point = MountPoint {
            kind: "image".into(),
            name: mount.source.clone(),
            source: self.image_place(&destination),
            destination,
            propagation: "rprivate".into(),
            ..MountPoint::default()
        };
        let subpath = mount.image_options.clone().unwrap_or_default().subpath;
        Ok((point, MountExtra { image, subpath, ..MountExtra::default() }))
    }

    /// Where the image is mounted that this container has at `destination`.
    fn image_place(&self, destination: &str) -> String {
        let exec_root = &self.volumes.engine.config().exec_root;
        super::image_mounts::place(exec_root, self.id, destination).to_string_lossy().into_owned()
    }

    fn bind_mount(&self, mount: &Mount, destination: String) -> Result<(MountPoint, MountExtra), Error> {
        let source = clean_path(&mount.source);
        let bind_options = mount.bind_options.clone().unwrap_or_default();
        if !bind_options.create_mountpoint && !Path::new(&source).exists() {
            return Err(Error::InvalidParameter(format!(
                "invalid mount config for type \"bind\": bind source path does not exist: {source}"
            )));
        }
        let given = Some(bind_options.propagation.as_str()).filter(|p| !p.is_empty());
        let conflict = parse::read_only_conflict(mount.read_only, &bind_options);
        let mut options = Vec::new();
        if bind_options.non_recursive {
            options.push("bind".to_owned());
        }
        if bind_options.read_only_non_recursive {
            options.push("ro".to_owned());
        }
        let point = MountPoint {
            kind: "bind".into(),
            propagation: self.propagation(&source, given),
            source,
            destination,
            rw: !mount.read_only,
            ..MountPoint::default()
        };
        let create_source = bind_options.create_mountpoint;
        Ok((point, MountExtra { options, create_source, conflict, ..MountExtra::default() }))
    }

    fn volume_mount(
        &mut self,
        mount: &Mount,
        destination: String,
    ) -> Result<(MountPoint, MountExtra), Error> {
        let options = mount.volume_options.clone().unwrap_or_default();
        let driver = options.driver_config.unwrap_or_default();
        let (mut point, mut extra) =
            self.volume(&mount.source, options.labels, &driver.name, driver.options)?;
        point = MountPoint { destination, mode: SHARED_LABEL.into(), rw: !mount.read_only, ..point };
        extra.copy_up = !options.no_copy;
        extra.subpath = options.subpath;
        Ok((point, extra))
    }

    /// The volume of that name, made if there is none; a new one without a name.
    fn volume(
        &mut self,
        name: &str,
        labels: Option<BTreeMap<String, String>>,
        driver: &str,
        options: Option<BTreeMap<String, String>>,
    ) -> Result<(MountPoint, MountExtra), Error> {
        let engine = self.volumes.engine;
        let named = Some(name).filter(|n| !n.is_empty());
        let volume = crate::volumes::ensure(engine, named, labels, driver, options)?;
        if named.is_none() {
            self.volumes.names.push(volume.name.clone());
        }
        let point = MountPoint {
            kind: "volume".into(),
            name: volume.name.clone(),
            source: volume.mountpoint.to_string_lossy().into_owned(),
            driver: "local".into(),
            ..MountPoint::default()
        };
        Ok((point, MountExtra { anonymous: named.is_none(), ..MountExtra::default() }))
    }

    /// Anonymous volumes for `Config.Volumes`, where nothing else is mounted.
    fn add_anonymous(&mut self, config: &Config) -> Result<(), Error> {
        for path in config.volumes.iter().flatten().map(|(path, _)| path) {
            let destination = clean_path(path);
            let in_tmpfs = self.host.tmpfs.as_ref().is_some_and(|tmpfs| tmpfs.contains_key(&destination));
            if in_tmpfs || self.points.contains_key(&destination) {
                continue;
            }
            let driver = self.host.volume_driver.clone();
            let (point, extra) = self.volume("", None, &driver, None)?;
            self.put(MountPoint { destination, rw: true, ..point }, MountExtra { copy_up: true, ..extra });
        }
        Ok(())
    }

    /// As asked; else private, except for what holds our own data: unmounting on the host must reach the container, or
    /// what is mounted there could not be removed.
    fn propagation(&self, source: &str, given: Option<&str>) -> String {
        let data_root = &self.volumes.engine.config().data_root;
        let ours = Path::new(source).starts_with(data_root) || data_root.starts_with(source);
        given.unwrap_or(if ours { "rslave" } else { "rprivate" }).to_owned()
    }
}

/// The text of a mount that cannot be, by its type.
fn bad_mount(kind: &str, reason: &str) -> String {
    format!("invalid mount config for type {}: {reason}", go_quote(kind))
}
