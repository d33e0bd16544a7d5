//! Platforms: `os/architecture/variant`, as containerd reads and writes them.

use std::fmt;
use std::str::FromStr;

/// An operating system and a processor.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`.
    pub architecture: String,
    /// `v7`, or empty.
    pub variant: String,
}

/// A text that names no platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlatformError {
    /// Something is wrong with one of its parts.
    #[error(
        "{part:?} is an invalid component of {text:?}: platform specifier component must match \
         \"^[A-Za-z0-9_.-]+$\": invalid argument"
    )]
    Component {
        /// The part.
        part: String,
        /// The whole.
        text: String,
    },
    /// One word that is neither a known system nor a known processor.
    #[error("{0:?}: unknown operating system or architecture: invalid argument")]
    Unknown(String),
    /// More than three parts.
    #[error("{0:?}: cannot parse platform specifier: invalid argument")]
    Parts(String),
}

const SYSTEMS: [&str; 17] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];

const ARCHITECTURES: [&str; 26] = [
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "armbe",
    "arm64",
    "arm64be",
    "loong64",
    "mips",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "mipsle",
    "ppc",
    "ppc64",
    "ppc64le",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
    "ppcle",
    "wasm32",
];

impl Platform {
    /// The platform of this program.
    #[must_use]
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "x86" => "386",
            "aarch64" => "arm64",
            "powerpc64" => "ppc64le",
            "loongarch64" => "loong64",
            other => other,
        };
        Self::normal("linux", architecture, "")
    }

    /// With the names that images use: `x86_64` is `amd64`, `aarch64` is `arm64`, and so on.
    #[must_use]
    pub fn normal(os: &str, architecture: &str, variant: &str) -> Self {
        let os = match os.to_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        let (architecture, variant) = (architecture.to_lowercase(), variant.to_lowercase());
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("i386", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64", variant) => ("amd64", variant),
            ("aarch64" | "arm64", "8" | "v8") => ("arm64", ""),
            ("aarch64", variant) => ("arm64", variant),
            ("armhf", _) => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("arm", "" | "7") => ("arm", "v7"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "6") => ("arm", "v6"),
            ("arm", "8") => ("arm", "v8"),
            other => other,
        };
        Self { os, architecture: architecture.to_owned(), variant: variant.to_owned() }
    }
}

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let parts: Vec<&str> = text.split('/').collect();
        for (at, part) in parts.iter().enumerate() {
            // A system may have its version behind it.
            let name = part.split_once('(').filter(|(_, rest)| at == 0 && rest.ends_with(')'));
            let name = name.map_or(*part, |(name, _)| name);
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
            if name.is_empty() || !name.chars().all(plain) {
                return Err(PlatformError::Component { part: (*part).to_owned(), text: text.to_owned() });
            }
        }
        let os_of = |part: &str| part.split('(').next().unwrap_or_default().to_owned();
        match parts.as_slice() {
            [one] => {
                let host = Self::host();
                let as_os = Self::normal(&os_of(one), "", "").os;
                if SYSTEMS.contains(&as_os.as_str()) {
                    return Ok(Self { os: as_os, ..host });
                }
                let platform = Self::normal(&host.os, one, "");
                match ARCHITECTURES.contains(&platform.architecture.as_str()) {
                    true => Ok(platform),
                    false => Err(PlatformError::Unknown(text.to_owned())),
                }
            }
            [os, architecture] => Ok(Self::normal(&os_of(os), architecture, "")),
            [os, architecture, variant] => Ok(Self::normal(&os_of(os), architecture, variant)),
            _ => Err(PlatformError::Parts(text.to_owned())),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [&self.os, &self.architecture, &self.variant];
        let given: Vec<&str> =
            parts.into_iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
        f.write_str(&given.join("/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn platforms_are_read() {
        let check = |text: &str, expect: &str| {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), expect, "{text}");
        };
        check("linux/amd64", "linux/amd64");
        check("Linux/x86_64", "linux/amd64");
        check("linux/arm64/v8", "linux/arm64");
        check("linux/arm", "linux/arm/v7");
        check("linux/arm/v6", "linux/arm/v6");
        check("aarch64", "linux/arm64");
        check("macos", &format!("darwin/{}", Platform::host().architecture));
        let fails = |text: &str| text.parse::<Platform>().unwrap_err().to_string();
        assert_eq!(fails("foo"), "\"foo\": unknown operating system or architecture: invalid argument");
        assert!(fails("a/b/c/d").contains("cannot parse platform specifier"));
        assert!(fails("linux/").contains("is an invalid component of \"linux/\""));
    }
}
