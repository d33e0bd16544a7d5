//! `RUN --mount`.

use crate::suggest::nearest;

/// What is mounted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum MountKind {
    /// A folder or file of the context, of another stage or of an image.
    #[default]
    Bind,
    /// A folder that is kept between builds.
    Cache,
    /// An empty folder in memory.
    Tmpfs,
    /// A file, or variable, that the client gives.
    Secret,
    /// The client's SSH agent.
    Ssh,
}

impl MountKind {
    const ALL: [Self; 5] = [Self::Bind, Self::Cache, Self::Tmpfs, Self::Secret, Self::Ssh];

    /// As `type=` names it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }
}

/// Who may use a cache at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Sharing {
    /// Everybody.
    #[default]
    Shared,
    /// Each concurrent step gets its own.
    Private,
    /// The second step waits.
    Locked,
}

impl Sharing {
    const ALL: [(&'static str, Self); 3] =
        [("shared", Self::Shared), ("private", Self::Private), ("locked", Self::Locked)];
}

/// A mount, as the options say it: what was not given is `None` or empty.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Mount {
    /// What is mounted.
    pub kind: MountKind,
    /// Stage or image.
    pub from: String,
    /// Path in it; for a secret its id.
    pub source: String,
    /// Path in the container.
    pub target: String,
    /// Whether the step cannot write to it.
    pub read_only: bool,
    /// Of a tmpfs, in bytes; 0 is no limit.
    pub size_bytes: i64,
    /// Of a cache, secret or agent.
    pub id: String,
    /// Of a cache; `None` counts as shared.
    pub sharing: Option<Sharing>,
    /// Without the secret or agent the step fails.
    pub required: bool,
    /// The variable that gets a secret; empty names it as the secret.
    pub env: Option<String>,
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

/// What is wrong with a mount, in BuildKit's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// Quotes where none can be.
    #[error("failed to parse csv mounts: {0}")]
    Csv(String),
    /// An option without its value.
    #[error("invalid field '{0}' must be a key=value pair")]
    NoPair(String),
    /// An option that this kind of mount does not have.
    #[error("unexpected key '{key}' for mount type '{kind}'")]
    KeyForKind {
        /// The option.
        key: String,
        /// `type=`.
        kind: &'static str,
    },
    /// An option that no mount has.
    #[error("unexpected key '{key}' in '{field}'{}", meant(.suggestion))]
    UnknownKey {
        /// The option.
        key: String,
        /// With its value.
        field: String,
        /// What was probably meant.
        suggestion: Option<String>,
    },
    /// A variable where it would come too late.
    #[error("'{0}' doesn't support variable expansion, define alias stage instead")]
    Variable(String),
    /// No such kind.
    #[error("unsupported mount type {kind:?}{}", meant(.suggestion))]
    Kind {
        /// What was given.
        kind: String,
        /// What was probably meant.
        suggestion: Option<String>,
    },
    /// No such way to share.
    #[error("unsupported sharing value {sharing:?}{}", meant(.suggestion))]
    Sharing {
        /// What was given.
        sharing: String,
        /// What was probably meant.
        suggestion: Option<String>,
    },
    /// A value that does not fit.
    #[error("invalid value for {0}: {1}")]
    Value(String, String),
    /// A number that is none.
    #[error("invalid value {1} for {0}")]
    Number(String, String),
    /// Owner or mode of a mount that has none.
    #[error("{0} not allowed for {1:?} type mounts")]
    NotAllowed(&'static str, &'static str),
    /// `sharing` of something that is no cache.
    #[error("invalid cache sharing set for {0} mount")]
    NoCache(&'static str),
    /// Options that contradict each other.
    #[error("{0}")]
    Contradiction(&'static str),
}

fn meant(suggestion: &Option<String>) -> String {
    suggestion.as_ref().map(|word| format!(" (did you mean {word}?)")).unwrap_or_default()
}

type Result<T> = std::result::Result<T, MountError>;

/// The stage or image that a mount names; checked before variables are known, so it cannot have any.
pub(crate) fn source_of(text: &str) -> Result<Option<String>> {
    let mut from = None;
    for field in fields(text)? {
        let Some((key, value)) = field.split_once('=') else { continue };
        if key.eq_ignore_ascii_case("from") {
            if value.find('$').is_some_and(|at| at + 1 != value.len()) {
                return Err(MountError::Variable(key.to_lowercase()));
            }
            from = Some(value.to_owned()).filter(|from| !from.is_empty());
        }
    }
    Ok(from)
}

/// Where a mount goes, as written, for a message.
pub(crate) fn target_of(text: &str) -> String {
    let fields = fields(text).unwrap_or_default();
    let target =
        fields.iter().rev().filter_map(|field| field.split_once('=')).find(|(key, _)| {
            ["target", "dst", "destination"].iter().any(|name| key.eq_ignore_ascii_case(name))
        });
    target.map(|(_, value)| value.to_owned()).unwrap_or_default()
}

impl Mount {
    /// Reads a mount; `expand` replaces variables in values.
    pub(crate) fn parse(
        text: &str,
        mut expand: impl FnMut(&str) -> crate::Result<String>,
    ) -> crate::Result<Self> {
        let mut mount = Self {
            kind: MountKind::Bind,
            from: String::new(),
            source: String::new(),
            target: String::new(),
            read_only: false,
            size_bytes: 0,
            id: String::new(),
            sharing: None,
            required: false,
            env: None,
            mode: None,
            uid: None,
            gid: None,
        };
        let mut read_only = None;
        for field in fields(text)? {
            let Some((key, value)) = field.split_once('=') else {
                mount.bare(&field, &mut read_only)?;
                continue;
            };
            let value = expand(value)?;
            mount.set(&key.to_lowercase(), value, &field, &mut read_only)?;
        }
        mount.read_only = read_only.unwrap_or(!matches!(mount.kind, MountKind::Cache | MountKind::Tmpfs));
        mount.check()?;
        Ok(mount)
    }

    fn bare(&mut self, field: &str, read_only: &mut Option<bool>) -> Result<()> {
        match field.to_lowercase().as_str() {
            "readonly" | "ro" => *read_only = Some(true),
            "readwrite" | "rw" => *read_only = Some(false),
            "required" => {
                self.only_for("required", &[MountKind::Secret, MountKind::Ssh])?;
                self.required = true;
            }
            _ => return Err(MountError::NoPair(field.to_owned())),
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: String, field: &str, read_only: &mut Option<bool>) -> Result<()> {
        match key {
            "type" => {
                let kind = MountKind::ALL.into_iter().find(|kind| value.eq_ignore_ascii_case(kind.as_str()));
                self.kind = kind.ok_or_else(|| MountError::Kind {
                    suggestion: nearest(&value, &MountKind::ALL.map(MountKind::as_str)),
                    kind: value,
                })?;
            }
            "from" => self.from = value,
            "source" | "src" => self.source = value,
            "target" | "dst" | "destination" => self.target = value,
            "readonly" | "ro" => *read_only = Some(boolean(key, &value)?),
            "readwrite" | "rw" => *read_only = Some(!boolean(key, &value)?),
            "required" => {
                self.only_for(key, &[MountKind::Secret, MountKind::Ssh])?;
                self.required = boolean(key, &value)?;
            }
            "size" => {
                self.only_for(key, &[MountKind::Tmpfs])?;
                self.size_bytes = size(&value).ok_or_else(|| MountError::Value(key.to_owned(), value))?;
            }
            "id" => self.id = value,
            "sharing" => {
                let known = Sharing::ALL.into_iter().find(|(name, _)| value.eq_ignore_ascii_case(name));
                let (_, sharing) = known.ok_or_else(|| MountError::Sharing {
                    suggestion: nearest(&value, &Sharing::ALL.map(|(name, _)| name)),
                    sharing: value,
                })?;
                self.sharing = Some(sharing);
            }
            "mode" => self.mode = Some(number(key, &value, 8)?),
            "uid" => self.uid = Some(number(key, &value, 10)?),
            "gid" => self.gid = Some(number(key, &value, 10)?),
            "env" => self.env = Some(value),
            _ => {
                return Err(MountError::UnknownKey {
                    suggestion: nearest(key, &KEYS),
                    key: key.to_owned(),
                    field: field.to_owned(),
                });
            }
        }
        Ok(())
    }

    fn only_for(&self, key: &str, kinds: &[MountKind]) -> Result<()> {
        match kinds.contains(&self.kind) {
            true => Ok(()),
            false => Err(MountError::KeyForKind { key: key.to_owned(), kind: self.kind.as_str() }),
        }
    }

    fn check(&self) -> Result<()> {
        let kind = self.kind.as_str();
        if matches!(self.kind, MountKind::Bind | MountKind::Tmpfs) {
            let given = [("mode", self.mode), ("uid", self.uid), ("gid", self.gid)];
            if let Some((name, _)) = given.into_iter().find(|(_, value)| value.is_some()) {
                return Err(MountError::NotAllowed(name, kind));
            }
        }
        if self.kind == MountKind::Secret {
            let contradictions = [
                (!self.from.is_empty(), "secret mount should not have a from"),
                (self.sharing.is_some(), "secret mount should not define sharing"),
                (
                    self.source.is_empty() && self.target.is_empty() && self.id.is_empty(),
                    "invalid secret mount. one of source, target required",
                ),
                (!self.source.is_empty() && !self.id.is_empty(), "both source and id can't be set"),
            ];
            if let Some((_, text)) = contradictions.into_iter().find(|(is_so, _)| *is_so) {
                return Err(MountError::Contradiction(text));
            }
        }
        if self.kind == MountKind::Ssh && !self.source.is_empty() {
            return Err(MountError::Contradiction("ssh does not support source"));
        }
        match self.sharing.is_some() && self.kind != MountKind::Cache {
            true => Err(MountError::NoCache(kind)),
            false => Ok(()),
        }
    }
}

const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

/// Go's `strconv.ParseBool`.
fn boolean(key: &str, value: &str) -> Result<bool> {
    go_bool(value).ok_or_else(|| MountError::Value(key.to_owned(), value.to_owned()))
}

/// The words that Go reads as yes and no.
pub(crate) fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Some(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Some(false),
        _ => None,
    }
}

fn number(key: &str, value: &str, radix: u32) -> Result<u32> {
    let parsed = u32::from_str_radix(value, radix).ok().filter(|_| !value.starts_with('+'));
    parsed.ok_or_else(|| MountError::Number(key.to_owned(), value.to_owned()))
}

/// `64m`, `1.5GiB` …: a number of bytes by powers of 1024, as Docker's `units` reads it.
#[allow(clippy::cast_possible_truncation, reason = "a size beyond i64 saturates, and no disk has it")]
fn size(text: &str) -> Option<i64> {
    let digits = text.rfind(|c: char| c.is_ascii_digit() || c == '.')? + 1;
    let (number, unit) = text.split_at_checked(digits)?;
    let number: f64 = number.trim().parse().ok().filter(|number| *number >= 0.0)?;
    let unit = unit.trim_start().to_lowercase();
    let power = match unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit) {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    Some((number * 1024_f64.powi(power)) as i64)
}

/// The fields of one line of comma-separated values.
fn fields(text: &str) -> Result<Vec<String>> {
    let bare = || MountError::Csv("bare \" in non-quoted-field".into());
    let mut fields = Vec::new();
    let mut rest = Some(text);
    while let Some(text) = rest {
        let Some(quoted) = text.strip_prefix('"') else {
            let (field, tail) =
                text.split_once(',').map_or((text, None), |(field, tail)| (field, Some(tail)));
            if field.contains('"') {
                return Err(bare());
            }
            fields.push(field.to_owned());
            rest = tail;
            continue;
        };
        let (field, tail) = quoted_field(quoted)?;
        fields.push(field);
        rest = match tail.strip_prefix(',') {
            Some(tail) => Some(tail),
            None if tail.is_empty() => None,
            None => return Err(MountError::Csv("extraneous or missing \" in quoted-field".into())),
        };
    }
    Ok(fields)
}

/// What stands in quotes, where two quotes mean one, and what follows.
fn quoted_field(text: &str) -> Result<(String, &str)> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let Some((part, tail)) = rest.split_once('"') else {
            return Err(MountError::Csv("extraneous or missing \" in quoted-field".into()));
        };
        field.push_str(part);
        match tail.strip_prefix('"') {
            Some(tail) => {
                field.push('"');
                rest = tail;
            }
            None => return Ok((field, tail)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> crate::Result<Mount> {
        Mount::parse(text, |value| Ok(value.replace("$V", "value")))
    }

    #[test]
    fn mounts_are_read() {
        let mount = parse("type=cache,target=/c/$V,ID=x,sharing=Locked,mode=0755,uid=7").unwrap();
        assert_eq!((mount.kind, mount.sharing), (MountKind::Cache, Some(Sharing::Locked)));
        assert_eq!((mount.target.as_str(), mount.id.as_str()), ("/c/value", "x"));
        assert_eq!((mount.mode, mount.uid, mount.read_only), (Some(0o755), Some(7), false));
        assert!(parse("target=/x").unwrap().read_only);
        assert!(!parse("target=/x,rw").unwrap().read_only);
        assert!(!parse("target=/x,ro=false").unwrap().read_only);
        assert_eq!(parse("type=tmpfs,target=/t,size=1.5m").unwrap().size_bytes, 1_572_864);
        assert_eq!(parse("type=bind,\"source=a,b\",target=/x").unwrap().source, "a,b");
        assert!(parse("type=secret,id=a,required").unwrap().required);
        assert_eq!(source_of("type=bind,from=base,target=/x").unwrap().as_deref(), Some("base"));
    }

    #[test]
    fn what_is_wrong_says_so() {
        let fails =
            |text: &str, expect: &str| assert_eq!(parse(text).unwrap_err().to_string(), expect, "{text}");
        fails("type=bnd", "unsupported mount type \"bnd\" (did you mean bind?)");
        fails("type=cache,sharing=x,target=/a", "unsupported sharing value \"x\"");
        fails("typ=bind", "unexpected key 'typ' in 'typ=bind' (did you mean type?)");
        fails("target", "invalid field 'target' must be a key=value pair");
        fails("required", "unexpected key 'required' for mount type 'bind'");
        fails("type=cache,size=1,target=/x", "unexpected key 'size' for mount type 'cache'");
        fails("target=/x,mode=7", "mode not allowed for \"bind\" type mounts");
        fails("type=cache,mode=9,target=/x", "invalid value 9 for mode");
        fails("type=secret", "invalid secret mount. one of source, target required");
        fails("type=ssh,sharing=locked", "invalid cache sharing set for ssh mount");
        fails("ro=x", "invalid value for ro: x");
        let variable = source_of("from=$X,target=/x").unwrap_err().to_string();
        assert_eq!(variable, "'from' doesn't support variable expansion, define alias stage instead");
    }
}
