//! Reading mounts as clients write them. Pure.

use super::super::config::{BindOptions, Mount};
use super::bad_mount;
use crate::error::Error;

/// The third part of a bind: flags, separated by commas.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Mode {
    /// Not `ro`.
    pub(super) writable: bool,
    /// `rprivate` and the like.
    pub(super) propagation: Option<String>,
    /// `nocopy`.
    pub(super) no_copy: bool,
}

impl Mode {
    /// Reads a mode, in which each kind of flag may be there once.
    ///
    /// # Errors
    /// `invalid mode: x`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut mode = Self { writable: true, propagation: None, no_copy: false };
        let mut seen = [false; 5];
        for flag in text.split(',').filter(|_| !text.is_empty()) {
            let kind = match flag {
                "rw" | "ro" => {
                    mode.writable = flag == "rw";
                    0
                }
                "z" | "Z" => 1,
                "private" | "rprivate" | "slave" | "rslave" | "shared" | "rshared" => {
                    mode.propagation = Some(flag.to_owned());
                    2
                }
                "nocopy" => {
                    mode.no_copy = true;
                    3
                }
                "consistent" | "cached" | "delegated" => 4,
                _ => return Err(format!("invalid mode: {text}")),
            };
            match seen.get_mut(kind) {
                Some(seen) if !*seen => *seen = true,
                _ => return Err(format!("invalid mode: {text}")),
            }
        }
        Ok(mode)
    }
}

/// An entry of `Binds`.
#[derive(Debug, PartialEq)]
pub(super) struct Bind {
    /// A path, a volume's name, or nothing for an anonymous volume.
    pub(super) source: String,
    /// Clean and absolute.
    pub(super) destination: String,
    /// As written.
    pub(super) raw_mode: String,
    /// What it means.
    pub(super) mode: Mode,
}

/// Reads an entry of `Binds`.
///
/// # Errors
/// dockerd's texts.
pub(super) fn bind(raw: &str) -> Result<Bind, String> {
    let refuse = |reason: &str| match reason {
        "" => format!("invalid volume specification: '{raw}'"),
        reason => format!("invalid volume specification: '{raw}': {reason}"),
    };
    let parts: Vec<&str> = raw.splitn(4, ':').collect();
    let (source, destination, raw_mode) = match parts.as_slice() {
        [""] | ["", ..] => return Err(refuse("")),
        [destination] => ("", *destination, ""),
        // A destination with a mode would be a volume without a name: not allowed.
        [_, mode] if Mode::parse(mode).is_ok() => return Err(refuse("")),
        [source, destination] => (*source, *destination, ""),
        [source, destination, mode] => (*source, *destination, *mode),
        _ => return Err(refuse("")),
    };
    let mode = Mode::parse(raw_mode)?;
    let kind = if source.starts_with('/') { "bind" } else { "volume" };
    let check = || {
        if destination.is_empty() {
            return Err("field Target must not be empty".to_owned());
        }
        check_destination(destination)?;
        match kind {
            "bind" if mode.no_copy => Err("field VolumeOptions must not be specified".to_owned()),
            "volume" if mode.propagation.is_some() => {
                Err("field BindOptions must not be specified".to_owned())
            }
            "volume" if source.is_empty() && !mode.writable => {
                Err("must not set ReadOnly mode when using anonymous volumes".to_owned())
            }
            _ => Ok(()),
        }
    };
    check().map_err(|reason| refuse(&bad_mount(kind, &reason)))?;
    let destination = clean_path(destination);
    Ok(Bind { source: source.to_owned(), destination, raw_mode: raw_mode.to_owned(), mode })
}

/// Whether something may be mounted there.
///
/// # Errors
/// dockerd's reasons.
pub(crate) fn check_destination(destination: &str) -> Result<(), String> {
    if clean_path(destination) == "/" {
        return Err("invalid specification: destination can't be '/'".into());
    }
    if destination.starts_with('/') {
        Ok(())
    } else {
        Err(format!("invalid mount path: '{destination}' mount path must be absolute"))
    }
}

/// Checks an entry of `Mounts`, except for what is on the host.
///
/// # Errors
/// 400 with dockerd's texts.
pub(super) fn check_mount(mount: &Mount) -> Result<(), Error> {
    let kind = mount.kind.as_str();
    let foreign = [
        ("BindOptions", mount.bind_options.is_some(), "bind"),
        ("VolumeOptions", mount.volume_options.is_some(), "volume"),
        ("TmpfsOptions", mount.tmpfs_options.is_some(), "tmpfs"),
        ("ImageOptions", mount.image_options.is_some(), "image"),
    ];
    if let Some((field, ..)) = foreign.iter().find(|(_, given, owner)| *given && *owner != kind) {
        return Err(Error::InvalidParameter(format!(
            "{field} must not be specified on mount type {}",
            crate::text::go_quote(kind)
        )));
    }
    let checked = match kind {
        _ if mount.target.is_empty() => Err("field Target must not be empty".to_owned()),
        "bind" => check_destination(&mount.target).and_then(|()| check_bind(mount)),
        "volume" => check_destination(&mount.target).and_then(|()| check_volume(mount)),
        "tmpfs" if !mount.source.is_empty() => Err("field Source must not be specified".into()),
        "tmpfs" => check_destination(&mount.target),
        "image" => check_destination(&mount.target).and_then(|()| check_image(mount)),
        _ => Err("mount type unknown".into()),
    };
    checked.map_err(|reason| Error::InvalidParameter(bad_mount(kind, &reason)))
}

fn check_bind(mount: &Mount) -> Result<(), String> {
    if mount.source.is_empty() {
        return Err("field Source must not be empty".into());
    }
    let propagation = mount.bind_options.as_ref().map_or("", |o| o.propagation.as_str());
    let known = ["", "private", "rprivate", "slave", "rslave", "shared", "rshared"];
    if !known.contains(&propagation) {
        return Err(format!("invalid propagation mode: {propagation}"));
    }
    if mount.source.starts_with('/') {
        Ok(())
    } else {
        Err(format!("invalid mount path: '{}' mount path must be absolute", mount.source))
    }
}

/// What contradicts itself in the options of a bind; dockerd says so at the start.
pub(super) fn read_only_conflict(read_only: bool, options: &BindOptions) -> String {
    let (top, all) = (options.read_only_non_recursive, options.read_only_force_recursive);
    let what = match (read_only, top, all) {
        (false, true, _) => "!ReadOnly && BindOptions.ReadOnlyNonRecursive",
        (false, _, true) => "!ReadOnly && BindOptions.ReadOnlyForceRecursive",
        (true, true, true) => "ReadOnlyNonRecursive && BindOptions.ReadOnlyForceRecursive",
        _ => return String::new(),
    };
    format!("mount options conflict: {what}")
}

fn check_volume(mount: &Mount) -> Result<(), String> {
    let subpath = mount.volume_options.as_ref().map_or("", |o| o.subpath.as_str());
    if mount.source.is_empty() && !subpath.is_empty() {
        return Err("must not set Subpath when using anonymous volumes".into());
    }
    if leaves(subpath) {
        return Err("subpath must be a relative path within the volume".into());
    }
    if mount.source.is_empty() && mount.read_only {
        return Err("must not set ReadOnly mode when using anonymous volumes".into());
    }
    Ok(())
}

fn check_image(mount: &Mount) -> Result<(), String> {
    if mount.source.is_empty() {
        return Err("field Source must not be empty".into());
    }
    let subpath = mount.image_options.as_ref().map_or("", |o| o.subpath.as_str());
    if leaves(subpath) {
        return Err("subpath must be a relative path within the volume".into());
    }
    Ok(())
}

fn leaves(subpath: &str) -> bool {
    subpath.starts_with('/') || clean_path(subpath).split('/').next() == Some("..")
}

/// The options of a tmpfs of `Mounts`, in mount(8)'s words.
///
/// # Errors
/// 400 `… invalid option: x`.
pub(super) fn tmpfs_options(mount: &Mount) -> Result<Vec<String>, Error> {
    let mut options = Vec::new();
    if mount.read_only {
        options.push("ro".to_owned());
    }
    let Some(given) = &mount.tmpfs_options else { return Ok(options) };
    if given.mode != 0 {
        options.push(format!("mode={:o}", given.mode));
    }
    if given.size_bytes != 0 {
        let units = [(30, "g"), (20, "m"), (10, "k")];
        let unit = units.iter().find(|(shift, _)| given.size_bytes % (1 << shift) == 0);
        options.push(match unit {
            Some((shift, suffix)) => format!("size={}{suffix}", given.size_bytes >> shift),
            None => format!("size={}", given.size_bytes),
        });
    }
    for option in given.options.iter().flatten() {
        match option.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
            [flag @ ("exec" | "noexec")] => options.push((*flag).to_owned()),
            other => {
                let reason = match other {
                    [name] | [name, _] => format!("invalid option: {name}"),
                    _ => "invalid option array length".to_owned(),
                };
                return Err(Error::InvalidParameter(bad_mount("tmpfs", &reason)));
            }
        }
    }
    Ok(options)
}

/// A path without `.`, `..`, double and trailing slashes, by its text alone (as Go's `filepath.Clean`).
pub(crate) fn clean_path(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if absolute => {}
            part => parts.push(part),
        }
    }
    match (absolute, parts.join("/")) {
        (true, rest) => format!("/{rest}"),
        (false, rest) if rest.is_empty() => ".".into(),
        (false, rest) => rest,
    }
}

#[cfg(test)]
mod tests;
