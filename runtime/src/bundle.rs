//! A bundle on disk.

use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use crate::{Error, Launch, RootfsSource, Warning, parse_spec};

/// A folder with a `config.json` and, in most cases, a root file system (runtime specification,
/// "Filesystem Bundle").
///
/// ```no_run
/// # fn main() -> Result<(), wherry_runtime::Error> {
/// use wherry_runtime::{Bundle, Container};
///
/// let bundle = Bundle::open("/var/lib/bundles/web".as_ref())?;
/// let (mut container, _terminal) = Container::create(&bundle.launch("web-1"))?;
/// container.start()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Bundle {
    path: PathBuf,
    /// Its specification. It can be changed before the launch; the file stays as it is.
    pub spec: Spec,
    /// What the file has and the specification has not.
    pub warnings: Vec<Warning>,
}

impl Bundle {
    /// Reads a bundle's `config.json` (runtime specification, "Configuration").
    ///
    /// # Errors
    /// [`Error::System`] if the folder or the file cannot be read, [`Error::Malformed`] with the field that is wrong.
    pub fn open(path: &Path) -> Result<Bundle, Error> {
        let folder =
            std::fs::canonicalize(path).map_err(|e| Error::system("open bundle", path.display(), e))?;
        let file = folder.join("config.json");
        let text = std::fs::read(&file).map_err(|e| Error::system("read", file.display(), e))?;
        let mut warnings = Vec::new();
        Ok(Bundle { path: folder, spec: parse_spec(&text, &mut warnings)?, warnings })
    }

    /// Its absolute path, without symbolic links.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A launch of it, as [`Launch::new`]: inherited standard input and output, cgroups in the file system.
    pub fn launch<'a>(&'a self, id: &'a str) -> Launch<'a> {
        Launch::new(id, &self.path, &self.spec, &RootfsSource::Bundle)
    }
}
