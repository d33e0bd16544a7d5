//! The options of a mount (`mounts[].options`): which are flags of the mount, which are for us,
//! and which are for the file system. Sources: the runtime specification's table, mount(8), runc.

use rustix::fs::StatVfsMountFlags;

use crate::sys::mount::MountAttr;

const RDONLY: u64 = 0x1;
const NOSUID: u64 = 0x2;
const NODEV: u64 = 0x4;
const NOEXEC: u64 = 0x8;
const ATIME_FIELD: u64 = 0x70;
const NOATIME: u64 = 0x10;
const STRICTATIME: u64 = 0x20;
const NODIRATIME: u64 = 0x80;
const NOSYMFOLLOW: u64 = 0x20_0000;

/// Flags of a mount that another user namespace may not clear.
const LOCKABLE: u64 = RDONLY | NOSUID | NODEV | NOEXEC;

/// A mount's options, sorted by who handles them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// For the mount itself.
    pub(crate) attr: MountAttr,
    /// For it and all mounts below (`rro`, `rnosuid`, ...).
    pub(crate) recursive: MountAttr,
    /// An `MS_*` propagation type, and whether it is for all mounts below, too.
    pub(crate) propagation: Option<(u64, bool)>,
    /// `bind` (`Some(false)`) or `rbind` (`Some(true)`).
    pub(crate) bind: Option<bool>,
    /// `tmpcopyup`: a tmpfs begins with what was below it.
    pub(crate) copy_up: bool,
    /// `idmap` (`Some(false)`) or `ridmap` (`Some(true)`).
    pub(crate) idmap: Option<bool>,
    /// What follows `idmap=`: mappings as crun writes them.
    pub(crate) idmap_text: Option<String>,
    /// For the file system: `(key, value)`.
    pub(crate) data: Vec<(String, Option<String>)>,
}

impl Options {
    /// Sorts a list of options.
    pub(crate) fn parse<'a>(options: impl IntoIterator<Item = &'a str>) -> Self {
        let mut parsed = Options::default();
        for option in options {
            parsed.add(option);
        }
        parsed
    }

    fn add(&mut self, option: &str) {
        if let Some((bits, set)) = flag(option) {
            return self.attr.change(bits, set);
        }
        if let Some((bits, set)) = option.strip_prefix('r').and_then(flag) {
            return self.recursive.change(bits, set);
        }
        match option {
            "defaults" | "" | "loud" | "silent" | "iversion" | "noiversion" => {}
            "bind" => self.bind = Some(self.bind.unwrap_or(false)),
            "rbind" => self.bind = Some(true),
            "tmpcopyup" => self.copy_up = true,
            "idmap" => self.idmap = Some(false),
            "ridmap" => self.idmap = Some(true),
            _ => match (propagation(option), idmap_with_mappings(option)) {
                (Some(propagation), _) => self.propagation = Some(propagation),
                (None, Some((recursive, text))) => {
                    self.idmap = Some(recursive);
                    self.idmap_text = Some(text.to_owned());
                }
                (None, None) => self.data.push(match option.split_once('=') {
                    Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                    None => (option.to_owned(), None),
                }),
            },
        }
    }

    /// Whether the mount is to be read-only.
    pub(crate) fn readonly(&self) -> bool {
        self.attr.set & RDONLY != 0
    }

    /// The options without `ro`, which is set later.
    pub(crate) fn take_readonly(&mut self) -> bool {
        let readonly = self.readonly();
        self.attr.set &= !RDONLY;
        readonly
    }
}

impl MountAttr {
    /// Read-only, and nothing else.
    pub(crate) const READONLY: MountAttr = MountAttr { set: RDONLY, clear: 0, propagation: 0, userns_fd: 0 };
    /// Only a propagation type.
    pub(crate) const fn propagation(propagation: u64) -> MountAttr {
        MountAttr { set: 0, clear: 0, propagation, userns_fd: 0 }
    }

    /// For a bind mount of which some flags are asked for: the others are as for a new mount, not as on the source
    /// (as with mount(8) and runc). Those about access times are as for a new mount if one of them is set, else they
    /// stay. In a user namespace the flags that protect the source ([`LOCKABLE`]) stay, too.
    pub(crate) fn of_bind(self, user_namespace: bool) -> Self {
        if self.is_noop() {
            return self;
        }
        let others = if user_namespace { NOSYMFOLLOW } else { LOCKABLE | NOSYMFOLLOW };
        let clear = if self.sets_access_times() {
            self.clear | ATIME_FIELD | NODIRATIME & !self.set
        } else {
            self.clear & !NODIRATIME
        };
        MountAttr { clear: clear | others & !self.set, ..self }
    }

    /// Whether it says how access times are kept.
    fn sets_access_times(&self) -> bool {
        self.clear & ATIME_FIELD != 0 || self.set & NODIRATIME != 0
    }

    /// Whether a bind mount of a source with these flags (statvfs(3)) would lose what protects the source.
    pub(crate) fn unlocks(&self, source: StatVfsMountFlags) -> bool {
        // the bits are the same
        let lost = source.bits() & self.clear & LOCKABLE != 0;
        let times = [
            (StatVfsMountFlags::NOATIME, self.set & NOATIME != 0),
            (StatVfsMountFlags::NODIRATIME, self.set & NODIRATIME != 0),
            (StatVfsMountFlags::RELATIME, self.set & (NOATIME | STRICTATIME) == 0),
        ];
        lost || self.sets_access_times() && times.iter().any(|(flag, asked)| source.contains(*flag) != *asked)
    }

    fn change(&mut self, bits: u64, set: bool) {
        if bits == 0 && !set {
            return; // "as it was" (`atime`, `norelatime`)
        }
        if bits & ATIME_FIELD != 0 || bits == 0 {
            // one of several values of a field, not a bit: clear the field, then set the value
            self.set = (self.set & !ATIME_FIELD) | if set { bits } else { 0 };
            self.clear |= ATIME_FIELD;
        } else if set {
            self.set |= bits;
            self.clear &= !bits;
        } else {
            self.clear |= bits;
            self.set &= !bits;
        }
    }
}

/// `idmap=MAPPINGS` and `ridmap=MAPPINGS`: whether recursive, and the mappings.
fn idmap_with_mappings(option: &str) -> Option<(bool, &str)> {
    match option.split_once('=')? {
        ("idmap", text) => Some((false, text)),
        ("ridmap", text) => Some((true, text)),
        _ => None,
    }
}

/// Flags of a mount: bits, and whether the option sets or clears them. `relatime` is the
/// value 0 of the field of access times.
fn flag(option: &str) -> Option<(u64, bool)> {
    Some(match option {
        "ro" => (RDONLY, true),
        "rw" => (RDONLY, false),
        "nosuid" => (NOSUID, true),
        "suid" => (NOSUID, false),
        "nodev" => (NODEV, true),
        "dev" => (NODEV, false),
        "noexec" => (NOEXEC, true),
        "exec" => (NOEXEC, false),
        "nodiratime" => (NODIRATIME, true),
        "diratime" => (NODIRATIME, false),
        "nosymfollow" => (NOSYMFOLLOW, true),
        "symfollow" => (NOSYMFOLLOW, false),
        "relatime" => (0, true),
        "noatime" => (NOATIME, true),
        "strictatime" => (STRICTATIME, true),
        "norelatime" | "atime" | "nostrictatime" => (0, false),
        _ => return None,
    })
}

/// Propagation types: `MS_*` value, and whether recursive.
pub(crate) fn propagation(option: &str) -> Option<(u64, bool)> {
    Some(match option {
        "private" => (libc::MS_PRIVATE, false),
        "rprivate" => (libc::MS_PRIVATE, true),
        "shared" => (libc::MS_SHARED, false),
        "rshared" => (libc::MS_SHARED, true),
        "slave" => (libc::MS_SLAVE, false),
        "rslave" => (libc::MS_SLAVE, true),
        "unbindable" => (libc::MS_UNBINDABLE, false),
        "runbindable" => (libc::MS_UNBINDABLE, true),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_the_mount() {
        let o = Options::parse(["nosuid", "noexec", "nodev", "ro"]);
        assert_eq!(o.attr.set, RDONLY | NOSUID | NODEV | NOEXEC);
        assert_eq!((o.attr.clear, o.data.len()), (0, 0));
    }

    #[test]
    fn the_last_of_two_contradicting_flags_wins() {
        let o = Options::parse(["ro", "rw", "suid", "nosuid"]);
        assert_eq!((o.attr.set, o.attr.clear), (NOSUID, RDONLY));
    }

    #[test]
    fn access_times_are_one_field() {
        let o = Options::parse(["noatime", "strictatime"]);
        assert_eq!((o.attr.set, o.attr.clear), (STRICTATIME, ATIME_FIELD));
        let o = Options::parse(["noatime", "relatime"]);
        assert_eq!((o.attr.set, o.attr.clear), (0, ATIME_FIELD));
    }

    #[test]
    fn access_times_of_a_bind() {
        let clear = |options: &[&str]| {
            Options::parse(options.iter().copied()).attr.of_bind(false).clear & (ATIME_FIELD | NODIRATIME)
        };
        assert_eq!(clear(&["ro"]), 0);
        assert_eq!(clear(&["ro", "diratime"]), 0, "as with mount(8)");
        assert_eq!(clear(&["nodiratime"]), ATIME_FIELD);
        assert_eq!(clear(&["relatime"]), ATIME_FIELD | NODIRATIME);
        assert_eq!(clear(&["noatime", "nodiratime"]), ATIME_FIELD);
    }

    #[test]
    fn what_protects_a_source() {
        let unlocks = |options: &[&str], source| {
            Options::parse(options.iter().copied()).attr.of_bind(true).unlocks(source)
        };
        let (noatime, relatime) = (StatVfsMountFlags::NOATIME, StatVfsMountFlags::RELATIME);
        assert!(!unlocks(&[], noatime) && !unlocks(&["ro"], noatime) && !unlocks(&["noatime"], noatime));
        assert!(unlocks(&["relatime"], noatime) && unlocks(&["noatime"], relatime));
        assert!(unlocks(&["strictatime"], relatime) && unlocks(&["nodiratime"], relatime));
        assert!(!unlocks(&["strictatime"], StatVfsMountFlags::empty()) && !unlocks(&["relatime"], relatime));
        assert!(unlocks(&["rw"], StatVfsMountFlags::RDONLY) && !unlocks(&["rw"], relatime));
    }

    #[test]
    fn recursive_flags() {
        let o = Options::parse(["rbind", "rro", "rnosuid", "rprivate"]);
        assert_eq!(o.recursive.set, RDONLY | NOSUID);
        assert!(o.attr.is_noop());
        assert_eq!(o.bind, Some(true));
        assert_eq!(o.propagation, Some((libc::MS_PRIVATE, true)));
    }

    #[test]
    fn relatime_is_not_a_recursive_elatime() {
        let o = Options::parse(["relatime"]);
        assert!(o.recursive.is_noop());
        assert!(o.data.is_empty());
        let o = Options::parse(["rrelatime"]);
        assert_eq!(o.recursive.clear, ATIME_FIELD);
    }

    #[test]
    fn the_rest_is_for_the_file_system() {
        let o = Options::parse(["size=65536k", "newinstance", "mode=755"]);
        assert_eq!(
            o.data,
            vec![
                ("size".into(), Some("65536k".into())),
                ("newinstance".into(), None),
                ("mode".into(), Some("755".into()))
            ]
        );
    }
}
