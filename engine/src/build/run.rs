//! `RUN`: a program over a step's layer, with what is mounted for it.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, OFlags, unlinkat};
use rustix::mount::{MoveMountFlags, move_mount};
use tokio::task::block_in_place;
use wherry_dockerfile::plan::RunStep;
use wherry_dockerfile::{Mount, MountKind, RunNetwork};
use wherry_image_ref::{Digest, Hasher};
use wherry_image_store::{Draft, Layer};

use super::cache_mounts::{self, CacheMounts, Held};
use super::files::{Copier, FileError, Root, clean, split};
use super::job::{Folder, Limits, Offered, Sources};
use crate::containers::config::{Config, MountPoint};
use crate::containers::record::MountExtra;
use crate::containers::spec::mounts::subpath;
use crate::containers::step::{self, MOUNTS, Step};
use crate::engine::Engine;
use crate::error::Error;

/// The name that steps' containers have for themselves.
const HOST_NAME: &str = "buildkitsandbox";
/// Where programs find an agent that is mounted without a target.
const SSH_TARGET: &str = "/run/buildkit/ssh_agent";
/// Tells programs where, unless the image does.
const SSH_VARIABLE: &str = "SSH_AUTH_SOCK=";

/// What a mount shows.
pub(super) enum Shown {
    /// A folder of the host: a context, and what is at the mount's source in it.
    Folder(Arc<Folder>, Digest),
    /// Layers, the lowest first.
    Layers(Vec<Arc<Layer>>),
}

/// A command with all that it needs.
pub(super) struct Run<'a> {
    pub(super) engine: &'a Arc<Engine>,
    pub(super) step: &'a RunStep,
    /// One for each mount.
    pub(super) shown: Vec<Shown>,
    pub(super) limits: &'a Limits,
    pub(super) sources: &'a dyn Sources,
    /// Folders that are kept between builds.
    pub(super) caches: &'a CacheMounts,
}

/// What was prepared for a command; what it holds is given back when it goes.
#[derive(Default)]
struct Prepared {
    mounts: Vec<(MountPoint, MountExtra)>,
    env: Vec<String>,
    /// Layers in which what is mounted writable is written, and forgotten.
    drafts: Vec<Draft>,
    held: Vec<Arc<Layer>>,
    caches: Held,
    /// Those at which agents answer.
    sockets: Vec<Offered>,
    /// How many agents were wished for, whether they are there or not.
    agents: usize,
}

impl Run<'_> {
    /// Runs it over `draft`, which nobody else has when it has run; output goes to `output`. If this future is dropped, the draft
    /// and all that is held for the program stay until its end.
    ///
    /// # Errors
    /// What keeps it from being started. The exit code is not an error here.
    pub(super) async fn carry_out<F>(
        &self,
        draft: &Arc<Draft>,
        output: impl FnMut(u8, Vec<u8>) -> F + Send,
    ) -> Result<i32, Error>
    where
        F: Future<Output = ()> + Send,
    {
        let id = crate::id::hex64();
        let dir = wherry_monitor_api::run_dir(&step::exec_root(self.engine), &id);
        let mounts = dir.join(MOUNTS);
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&mounts);
        made.map_err(Error::io("create", mounts.display()))?;
        let folder = step::Folder::new(dir);
        let mounts_and_shown = || self.step.mounts.iter().map(|mount| &mount.mount).zip(&self.shown);
        let caches = mounts_and_shown().filter(|(wish, _)| wish.kind == MountKind::Cache);
        let wishes = caches.map(|(wish, shown)| (cache_name(wish, shown), wish.sharing.unwrap_or_default()));
        let mut prepared = Prepared { caches: self.caches.hold(wishes).await, ..Prepared::default() };
        for (index, (wish, shown)) in mounts_and_shown().enumerate() {
            self.prepare(wish, shown, &mounts.join(index.to_string()), &mut prepared).await?;
        }
        self.script(&mounts, &mut prepared)?;
        let mount_points = block_in_place(|| missing_mount_points(draft, &prepared.mounts))?;
        let step = Step {
            id,
            writable: draft.writable(),
            config: self.config(&prepared),
            host: self.host_config(),
            mounts: std::mem::take(&mut prepared.mounts),
            folder,
            held: Box::new((prepared, draft.clone())),
        };
        // Why the step failed says more than what came of that.
        let code = step::run(self.engine, step, output).await?;
        block_in_place(|| remove_mount_points(draft, &mount_points))?;
        Ok(code)
    }

    fn config(&self, prepared: &Prepared) -> Config {
        let env = self.step.env.iter().chain(&self.step.proxy).chain(&prepared.env).cloned();
        Config {
            hostname: HOST_NAME.into(),
            user: self.step.user.clone(),
            working_dir: self.step.working_dir.clone(),
            env: Some(env.collect()),
            cmd: Some(self.step.args.clone()),
            ..Config::default()
        }
    }

    fn host_config(&self) -> crate::containers::config::HostConfig {
        let mut host = self.limits.host_config();
        match self.step.network {
            RunNetwork::Default => {}
            RunNetwork::None => "none".clone_into(&mut host.network_mode),
            RunNetwork::Host => "host".clone_into(&mut host.network_mode),
        }
        host.privileged = self.step.insecure;
        host
    }

    /// A document that is the program.
    fn script(&self, mounts: &Path, prepared: &mut Prepared) -> Result<(), Error> {
        let Some(script) = &self.step.script else { return Ok(()) };
        let path = mounts.join("script");
        write_file(&path, script.content.as_bytes(), 0o755, (0, 0))?;
        prepared.bind(&path, &format!("/dev/pipes/{}", script.name), true);
        Ok(())
    }

    async fn prepare(
        &self,
        wish: &Mount,
        shown: &Shown,
        place: &Path,
        prepared: &mut Prepared,
    ) -> Result<(), Error> {
        match wish.kind {
            MountKind::Bind => block_in_place(|| self.bind(wish, shown, place, prepared)),
            MountKind::Cache => self.cache(wish, shown, prepared),
            MountKind::Tmpfs => {
                let size = (wish.size_bytes > 0).then(|| format!("size={}", wish.size_bytes));
                // Unlike those of containers: what a step builds there it runs there, too.
                let options = ["exec".to_owned(), "dev".to_owned()].into_iter().chain(size).collect();
                let extra = MountExtra { options, ..MountExtra::default() };
                let point = MountPoint {
                    kind: "tmpfs".into(),
                    destination: wish.target.clone(),
                    rw: true,
                    ..MountPoint::default()
                };
                prepared.mounts.push((point, extra));
                Ok(())
            }
            MountKind::Secret => self.secret(wish, place, prepared).await,
            MountKind::Ssh => self.ssh(wish, prepared).await,
        }
    }

    /// Read-only it is the folder or the layers themselves; writable it is a layer over them, which nobody gets to see.
    fn bind(&self, wish: &Mount, shown: &Shown, place: &Path, prepared: &mut Prepared) -> Result<(), Error> {
        let source = match shown {
            Shown::Folder(folder, _) if wish.read_only => path_of(&folder.root)?,
            Shown::Folder(folder, _) => {
                let draft = self.engine.store.draft(&[])?;
                let root = draft.mount()?;
                let (from, to) = (Root(folder.root.as_fd()), Root(root.as_fd()));
                copy(from, to).map_err(|error| Error::server(error.to_string()))?;
                attach(&root, place)?;
                prepared.drafts.push(draft);
                place.to_owned()
            }
            Shown::Layers(layers) => {
                let ids: Vec<_> = layers.iter().map(|layer| layer.diff_id()).collect();
                prepared.held.extend(layers.iter().cloned());
                if wish.read_only {
                    attach(&self.engine.store.mount_layers(&ids)?, place)?;
                } else {
                    let draft = self.engine.store.draft(&ids)?;
                    attach(&draft.mount()?, place)?;
                    prepared.drafts.push(draft);
                }
                place.to_owned()
            }
        };
        let below = clean(&wish.source);
        let source = match below.as_str() {
            "" => source,
            below => subpath(&source.to_string_lossy(), below).map(PathBuf::from).map_err(|_| {
                Error::NotFound(format!("failed to calculate checksum of ref: \"/{below}\": not found"))
            })?,
        };
        prepared.bind(&source, &wish.target, wish.read_only);
        Ok(())
    }

    fn cache(&self, wish: &Mount, shown: &Shown, prepared: &mut Prepared) -> Result<(), Error> {
        let folder =
            cache_mounts::folders(self.engine).join(prepared.caches.folder(&cache_name(wish, shown)));
        if !folder.exists() {
            block_in_place(|| cache_mounts::begin(self.engine, &folder, wish, shown))?;
        }
        prepared.bind(&folder, &wish.target, wish.read_only);
        Ok(())
    }

    async fn secret(&self, wish: &Mount, place: &Path, prepared: &mut Prepared) -> Result<(), Error> {
        let Some(bytes) = self.sources.secret(&wish.id).await? else {
            return match wish.required {
                true => Err(Error::NotFound(format!("secret {}: not found", wish.id))),
                false => Ok(()),
            };
        };
        if let Some(name) = &wish.env {
            let name = if name.is_empty() { &wish.id } else { name };
            prepared.env.push(format!("{name}={}", String::from_utf8_lossy(&bytes)));
            if wish.target.is_empty() {
                return Ok(());
            }
        }
        let owner = (wish.uid.unwrap_or(0), wish.gid.unwrap_or(0));
        write_file(place, &bytes, wish.mode.unwrap_or(0o400), owner)?;
        prepared.bind(place, &wish.target, true);
        Ok(())
    }

    async fn ssh(&self, wish: &Mount, prepared: &mut Prepared) -> Result<(), Error> {
        let id = if wish.id.is_empty() { "default" } else { &wish.id };
        let target = match wish.target.as_str() {
            "" => format!("{SSH_TARGET}.{}", prepared.agents),
            target => target.to_owned(),
        };
        // The first one's, whether there is an agent or not.
        if prepared.agents == 0 && !self.step.env.iter().any(|entry| entry.starts_with(SSH_VARIABLE)) {
            prepared.env.push(format!("{SSH_VARIABLE}{target}"));
        }
        prepared.agents += 1;
        let offered = match self.sources.ssh(id).await? {
            Ok(offered) => offered,
            Err(reason) if wish.required => return Err(Error::NotFound(reason)),
            Err(_) => return Ok(()),
        };
        let socket = &offered.path;
        let failed = |e: std::io::Error| Error::io("prepare the agent at", socket.display())(e);
        chown(socket, Some(wish.uid.unwrap_or(0)), Some(wish.gid.unwrap_or(0))).map_err(failed)?;
        let mode = std::fs::Permissions::from_mode(wish.mode.unwrap_or(0o600));
        std::fs::set_permissions(socket, mode).map_err(failed)?;
        prepared.bind(socket, &target, false);
        prepared.sockets.push(offered);
        Ok(())
    }
}

/// What a folder is called that is kept: there is one for each id and each of the things that it can begin with.
fn cache_name(wish: &Mount, shown: &Shown) -> String {
    let mut hasher = Hasher::default();
    hasher.update(if wish.id.is_empty() { &wish.target } else { &wish.id }.as_bytes());
    let mut begins_with = |digest: &Digest| hasher.update(digest.to_string().as_bytes());
    match shown {
        Shown::Folder(_, content) => begins_with(content),
        Shown::Layers(layers) => layers.iter().for_each(|layer| begins_with(&layer.diff_id().0)),
    }
    // What else a new one is made by; most have none of it.
    let is_below = !clean(&wish.source).is_empty();
    if is_below || wish.uid.is_some() || wish.gid.is_some() || wish.mode.is_some() {
        let made_by = (wish.uid.unwrap_or(0), wish.gid.unwrap_or(0), wish.mode.unwrap_or(0o755));
        hasher.update(format!("{made_by:?} {}", clean(&wish.source)).as_bytes());
    }
    hasher.finish().hex()
}

impl Prepared {
    fn bind(&mut self, source: &Path, target: &str, read_only: bool) {
        let point = MountPoint {
            kind: "bind".into(),
            source: source.to_string_lossy().into_owned(),
            destination: target.to_owned(),
            rw: !read_only,
            propagation: "rprivate".into(),
            ..MountPoint::default()
        };
        self.mounts.push((point, MountExtra::default()));
    }
}

/// Copies all of a folder. Blocking.
pub(super) fn copy(from: Root<'_>, to: Root<'_>) -> Result<(), FileError> {
    let (source, target) = (from.open_folder(b"")?, to.open_folder(b"")?);
    Copier::new(None, None, &|_, _| false).contents(source.as_fd(), target.as_fd())
}

pub(super) fn open_folder(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, rustix::fs::Mode::empty());
    opened.map_err(|errno| Error::io("open", path.display())(errno.into()))
}

/// Where an open folder of the host is.
fn path_of(folder: &OwnedFd) -> Result<PathBuf, Error> {
    let link = format!("/proc/self/fd/{}", folder.as_raw_fd());
    std::fs::read_link(&link).map_err(Error::io("read", link))
}

/// Attaches a mount at a new folder.
fn attach(root: &OwnedFd, place: &Path) -> Result<(), Error> {
    std::fs::create_dir(place).map_err(Error::io("create", place.display()))?;
    move_mount(root, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(|errno| Error::io("mount on", place.display())(errno.into()))
}

fn write_file(path: &Path, bytes: &[u8], mode: u32, (uid, gid): (u32, u32)) -> Result<(), Error> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let written = || {
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        file.write_all(bytes)?;
        std::os::unix::fs::fchown(&file, Some(uid), Some(gid))?;
        file.set_permissions(std::fs::Permissions::from_mode(mode))
    };
    written().map_err(Error::io("write", path.display()))
}

/// The paths at which mount points will have to be made, each with the folders above it that are missing, too; the lowest last.
fn missing_mount_points(draft: &Draft, mounts: &[(MountPoint, MountExtra)]) -> Result<Vec<String>, Error> {
    let root = draft.mount()?;
    let mut missing: Vec<String> = Vec::new();
    for (mount, _) in mounts {
        let target = clean(&mount.destination);
        let ends = target.match_indices('/').map(|(at, _)| at).chain([target.len()]);
        for path in ends.filter_map(|end| target.get(..end)) {
            let there = Root(root.as_fd()).stat(path.as_bytes());
            // Below a file there is nothing to be made.
            if matches!(there, Ok(None)) && !missing.iter().any(|known| known == path) {
                missing.push(path.to_owned());
            }
        }
    }
    Ok(missing)
}

/// Removes mount points that were made for the step alone, unless it has put something there.
fn remove_mount_points(draft: &Draft, made: &[String]) -> Result<(), Error> {
    if made.is_empty() {
        return Ok(());
    }
    let root = draft.mount()?;
    for path in made.iter().rev() {
        let (above, name) = split(path.as_bytes());
        let Ok(folder) = Root(root.as_fd()).open(above, OFlags::RDONLY | OFlags::DIRECTORY) else { continue };
        let Ok(stat) = rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let before = rustix::fs::fstat(&folder);
        let removed = match rustix::fs::FileType::from_raw_mode(stat.st_mode) {
            // One that is not empty stays.
            rustix::fs::FileType::Directory => unlinkat(&folder, name, AtFlags::REMOVEDIR),
            rustix::fs::FileType::RegularFile if stat.st_size == 0 => {
                unlinkat(&folder, name, AtFlags::empty())
            }
            _ => continue,
        };
        if let (Ok(()), Ok(before)) = (removed, before) {
            // As far as that can be told, the folder is as it was.
            let _ = rustix::fs::futimens(&folder, &super::files::times(&before));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_that_begin_otherwise_are_others() {
        let plain = Mount { id: "a".into(), target: "/t".into(), ..Mount::default() };
        let name = |wish: &Mount| cache_name(wish, &Shown::Layers(Vec::new()));
        assert_eq!(name(&plain), name(&Mount { source: "/".into(), ..plain.clone() }));
        let others = [
            plain.clone(),
            Mount { uid: Some(1000), ..plain.clone() },
            Mount { gid: Some(1000), ..plain.clone() },
            Mount { mode: Some(0o700), ..plain.clone() },
            Mount { source: "/a".into(), ..plain.clone() },
            Mount { source: "/b".into(), ..plain },
        ];
        let names: std::collections::BTreeSet<_> = others.iter().map(name).collect();
        assert_eq!(names.len(), others.len());
    }
}
