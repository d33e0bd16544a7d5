//! Checkpoint and restore, done by criu (<https://criu.org>): a container's processes become files, and files become
//! processes. Which options there are, and what is told to criu, is as in runc, so that images can be exchanged.

mod criu;
mod externals;
mod protobuf;
mod restore;

use std::fs::{DirBuilder, File};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

pub use self::restore::RestoreOptions;

use self::criu::{Criu, Request, Setup};
use self::protobuf::Fields;
use crate::cgroup::Hierarchies;
use crate::{Container, Error, Launch, RootfsSource, Status};

/// Where a container's descriptors 0, 1 and 2 lead is kept in this file of the images.
const DESCRIPTORS: &str = "descriptors.json";

/// What becomes of the cgroups' settings (criu's `--manage-cgroups`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CgroupsMode {
    /// Properties are restored in cgroups that criu has to make; others are left alone.
    #[default]
    Soft,
    /// All cgroups and properties are restored.
    Full,
    /// As `Full`, and there must be none yet.
    Strict,
    /// They are not looked at.
    Ignore,
}

/// What [`Container::checkpoint`] and [`Container::restore`] have in common.
#[derive(Debug, Clone, Copy)]
pub struct CriuOptions<'a> {
    /// The folder of the images.
    pub images: &'a Path,
    /// Where criu puts its log and what else it writes while it works; the images' folder if `None`.
    pub work: Option<&'a Path>,
    /// TCP connections that stand.
    pub tcp_established: bool,
    /// Leave out connections that are being made.
    pub tcp_skip_in_flight: bool,
    /// Unix sockets whose other end is outside.
    pub external_unix_sockets: bool,
    /// Processes that belong to the caller's session and terminal.
    pub shell_job: bool,
    /// File locks.
    pub file_locks: bool,
    /// Deleted files that are still open get a name.
    pub link_remap: bool,
    /// Memory is fetched when it is needed.
    pub lazy_pages: bool,
    /// Leave out the network namespace's devices and addresses: somebody else makes them.
    pub empty_network: bool,
    /// Remove from earlier images what newer ones have.
    pub auto_dedup: bool,
    /// The cgroups.
    pub cgroups: CgroupsMode,
}

impl<'a> CriuOptions<'a> {
    /// Images in this folder, and nothing special.
    pub fn new(images: &'a Path) -> Self {
        CriuOptions {
            images,
            work: None,
            tcp_established: false,
            tcp_skip_in_flight: false,
            external_unix_sockets: false,
            shell_job: false,
            file_locks: false,
            link_remap: false,
            lazy_pages: false,
            empty_network: false,
            auto_dedup: false,
            cgroups: CgroupsMode::default(),
        }
    }

    /// What both requests say. The descriptors must stay open until criu has ended.
    fn fields(&self, folders: &Folders, log: &str, spec: &Spec) -> Fields {
        let mut fields = Fields::default();
        fields.number(1, folders.images.as_raw_fd());
        if let Some(work) = &folders.work {
            fields.number(17, work.as_raw_fd());
        }
        fields.flag(4, self.external_unix_sockets);
        fields.flag(5, self.tcp_established);
        fields.flag(7, self.shell_job);
        fields.flag(8, self.file_locks);
        fields.number(9, 4);
        fields.text(10, log);
        fields.flag(12, true); // notifications
        fields.flag(16, self.auto_dedup);
        fields.flag(18, self.link_remap);
        fields.flag(24, true);
        let mode = match self.cgroups {
            CgroupsMode::Ignore => 0,
            CgroupsMode::Soft => 3,
            CgroupsMode::Full => 4,
            CgroupsMode::Strict => 5,
        };
        fields.number(34, mode);
        if self.empty_network {
            fields.number(38, libc::CLONE_NEWNET);
        }
        fields.flag(46, self.tcp_skip_in_flight);
        fields.flag(48, self.lazy_pages);
        fields.flag(50, true); // a terminal's master comes back to us
        if let Some(file) = config_file(spec) {
            fields.text(51, &file);
        }
        fields
    }

    fn log(&self, name: &str) -> PathBuf {
        self.work.unwrap_or(self.images).join(name)
    }
}

/// Options of [`Container::checkpoint`] alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct CheckpointOptions<'a> {
    /// Images of an earlier [`CheckpointOptions::pre_dump`], relative to this one's folder; only what has changed since is kept.
    pub parent: Option<&'a Path>,
    /// Let the container go on; else it ends.
    pub leave_running: bool,
    /// Only take the memory, and let it go on: the next checkpoint is then shorter.
    pub pre_dump: bool,
    /// Gets a byte when a page server for [`CriuOptions::lazy_pages`] is ready.
    pub status: Option<BorrowedFd<'a>>,
    /// Address and port of a page server, which gets the memory instead of the images' folder.
    pub page_server: Option<(&'a str, u16)>,
}

/// The folders' descriptors.
#[derive(Debug)]
struct Folders {
    images: File,
    work: Option<File>,
}

impl Folders {
    /// Opens them; `make` makes those that are missing.
    fn open(options: &CriuOptions<'_>, make: bool) -> Result<Self, Error> {
        let open = |path: &Path, make: bool| {
            if make && !path.exists() {
                DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(path)
                    .map_err(|e| Error::system("make", path.display(), e))?;
            }
            File::open(path).map_err(|e| Error::system("open", path.display(), e))
        };
        Ok(Folders {
            images: open(options.images, make)?,
            work: options.work.map(|work| open(work, true)).transpose()?,
        })
    }

    fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [Some(&self.images), self.work.as_ref()].into_iter().flatten().map(AsFd::as_fd)
    }
}

impl Container {
    /// Writes the container's processes to files (criu's `dump`). `spec` is the specification that it was made from. Unless
    /// it is left running, all processes have ended afterwards, and it is to be deleted.
    ///
    /// # Errors
    /// [`Error::State`] unless it runs or is paused, [`Error::Criu`].
    pub fn checkpoint(
        &self,
        spec: &Spec,
        options: &CriuOptions<'_>,
        own: &CheckpointOptions<'_>,
    ) -> Result<(), Error> {
        match self.status() {
            Status::Running | Status::Paused => {}
            status => return Err(Error::State { action: "checkpoint", status }),
        }
        let folders = Folders::open(options, true)?;
        if own.pre_dump || options.lazy_pages {
            let criu = Criu::start(Setup::plain(Vec::new(), options.log("dump.log")))?;
            if !criu.has_features(own.pre_dump, options.lazy_pages)? {
                return Err(Error::Unsupported {
                    what: if own.pre_dump { "a checkpoint's pre-dump" } else { "lazy migration of memory" }
                        .into(),
                    why: "criu says that this kernel cannot do it",
                });
            }
        }
        let mut fields = options.fields(&folders, "dump.log", spec);
        fields.number(2, self.pid());
        fields.flag(3, own.leave_running || own.pre_dump);
        if let Some(parent) = own.parent {
            fields.text(14, &parent.to_string_lossy());
        }
        fields.flag(15, own.pre_dump || own.parent.is_some());
        if let Some((address, port)) = own.page_server {
            let mut server = Fields::default();
            server.text(1, address);
            server.number(2, port.into());
            fields.message(11, &server);
        }
        if let Some(status) = own.status {
            fields.number(49, status.as_raw_fd());
        }
        if let Some(freezer) = self.facts.cgroup.freezer() {
            fields.text(44, &freezer.to_string_lossy());
        }
        let root = rootfs(spec, self.bundle())?;
        fields.text(13, &root.to_string_lossy());
        if !own.pre_dump {
            let hierarchies = Hierarchies::detect()?;
            let launch = Launch::new(self.id(), self.bundle(), spec, &RootfsSource::Bundle);
            let plan = crate::plan::compile(&launch, &hierarchies, &self.facts.cgroup, false)?;
            externals::of_dump(&mut fields, &plan, &self.facts.cgroup, spec, self.pid())?;
            self.keep_descriptors(options.images)?;
        }
        let pass = folders.descriptors().chain(own.status).collect();
        let criu = Criu::start(Setup::plain(pass, options.log("dump.log")))?;
        let kind = if own.pre_dump { Request::PreDump } else { Request::Dump };
        criu.perform(kind, &fields, |_| Ok(())).map(drop)
    }

    /// Where its standard descriptors lead, for the one who restores it.
    fn keep_descriptors(&self, images: &Path) -> Result<(), Error> {
        let links: Vec<String> = (0..3)
            .map(|number| {
                let link = std::fs::read_link(format!("/proc/{}/fd/{number}", self.pid()));
                link.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
            })
            .collect();
        let path = images.join(DESCRIPTORS);
        let text = serde_json::to_vec(&links).map_err(|e| Error::system("write", path.display(), e))?;
        let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).open(&path);
        file.and_then(|mut file| std::io::Write::write_all(&mut file, &text))
            .map_err(|e| Error::system("write", path.display(), e))
    }
}

/// criu's settings for this container, or for all: they come before what is told here.
fn config_file(spec: &Spec) -> Option<String> {
    let own = spec.annotations().as_ref().and_then(|all| all.get("org.criu.config"));
    let usual = || Some("/etc/criu/runc.conf").filter(|path| Path::new(path).exists()).map(str::to_owned);
    own.cloned().or_else(usual).filter(|path| !path.is_empty())
}

/// The root file system's folder.
fn rootfs(spec: &Spec, bundle: &Path) -> Result<PathBuf, Error> {
    let root = spec.root().as_ref().ok_or_else(|| Error::spec("root", "is missing"))?;
    let path = bundle.join(root.path());
    std::fs::canonicalize(&path).map_err(|e| Error::system("open", path.display(), e))
}
