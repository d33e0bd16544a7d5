//! Reading `config.json` and the process of an exec.

use std::io::Read;
use std::path::Path;

use oci_spec::runtime::{Process, Spec};
use wherry_runtime::{parse_process, parse_spec};

use crate::failure::Failure;
use crate::log::Log;

/// The specification of the bundle in that folder.
pub(crate) fn load_spec(bundle: &Path, log: &Log) -> Result<Spec, Failure> {
    let path = bundle.join("config.json");
    let text = match read(&path) {
        Err(Failure::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            return Err(Failure::NoSpecification);
        }
        other => other?,
    };
    let mut warnings = Vec::new();
    let spec = parse_spec(&text, &mut warnings).map_err(Failure::malformed(&path))?;
    check(spec.process().as_ref())?;
    log.warnings(&warnings);
    Ok(spec)
}

/// A process from a file.
pub(crate) fn load_process(path: &Path, log: &Log) -> Result<Process, Failure> {
    let mut warnings = Vec::new();
    let process = parse_process(&read(path)?, &mut warnings).map_err(Failure::malformed(path))?;
    check(Some(&process))?;
    log.warnings(&warnings);
    Ok(process)
}

/// A file's content; one that is larger than any specification is refused.
fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    const LARGEST: u64 = 32 << 20;
    let mut text = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut text));
    match read {
        Ok(length) if length as u64 > LARGEST => Err(Failure::TooLarge { path: path.to_owned() }),
        Ok(_) => Ok(text),
        Err(error) => Err(Failure::file("read", path)(error)),
    }
}

/// What runc asks of every process, in its words.
pub(crate) fn check(process: Option<&Process>) -> Result<(), Failure> {
    let Some(process) = process else {
        return Err(Failure::Arguments("process property must not be empty"));
    };
    let cwd = process.cwd();
    if cwd.as_os_str().is_empty() {
        return Err(Failure::Arguments("Cwd property must not be empty"));
    }
    if !cwd.is_absolute() {
        return Err(Failure::Arguments("Cwd must be an absolute path"));
    }
    if process.args().as_ref().is_none_or(Vec::is_empty) {
        return Err(Failure::Arguments("args must not be empty"));
    }
    Ok(())
}
