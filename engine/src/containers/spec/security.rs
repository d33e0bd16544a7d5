//! `--security-opt`.

use crate::error::Error;
use crate::text::{go_bool, go_quote};

/// What the options of a container ask for.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct SecurityOptions {
    /// The seccomp profile.
    pub(crate) seccomp: Seccomp,
    /// Whether no program may gain privileges.
    pub(crate) no_new_privileges: bool,
    /// Whether the cgroup file system is writable.
    pub(crate) writable_cgroups: Option<bool>,
}

/// A seccomp profile.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) enum Seccomp {
    /// Docker's.
    #[default]
    Default,
    /// None.
    Unconfined,
    /// A document in Docker's format, as given.
    Custom(String),
}

/// Reads `HostConfig.SecurityOpt`. Labels and AppArmor profiles are accepted and have no effect on
/// kernels without SELinux and AppArmor, as with dockerd.
///
/// # Errors
/// 500 `invalid --security-opt 2: "x=y"`.
pub(crate) fn parse(options: Option<&[String]>) -> Result<SecurityOptions, Error> {
    let mut parsed = SecurityOptions::default();
    for option in options.unwrap_or_default() {
        match option.as_str() {
            "no-new-privileges" => {
                parsed.no_new_privileges = true;
                continue;
            }
            "disable" => continue,
            _ => {}
        }
        // Of old, a colon was allowed where the equals sign stands.
        let pair = option.split_once('=').or_else(|| option.split_once(':'));
        let Some((key, value)) = pair else { return Err(invalid(1, option)) };
        match key {
            "label" | "apparmor" => {}
            "seccomp" => {
                parsed.seccomp = match value {
                    "unconfined" => Seccomp::Unconfined,
                    "builtin" => Seccomp::Default,
                    profile => Seccomp::Custom(profile.to_owned()),
                }
            }
            "no-new-privileges" => {
                parsed.no_new_privileges = go_bool(value).ok_or_else(|| invalid(2, option))?;
            }
            "writable-cgroups" => {
                parsed.writable_cgroups = Some(go_bool(value).ok_or_else(|| invalid(2, option))?);
            }
            _ => return Err(invalid(2, option)),
        }
    }
    Ok(parsed)
}

fn invalid(form: u8, option: &str) -> Error {
    Error::server(format!("invalid --security-opt {form}: {}", go_quote(option)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(options: &[&str]) -> Result<SecurityOptions, String> {
        let options: Vec<String> = options.iter().map(ToString::to_string).collect();
        parse(Some(&options)).map_err(|e| e.to_string())
    }

    #[test]
    fn options_are_read_as_dockerd_does() {
        let options = parsed(&["seccomp:unconfined", "label=disable", "no-new-privileges:true"]).unwrap();
        assert_eq!(options.seccomp, Seccomp::Unconfined);
        assert!(options.no_new_privileges);
        assert_eq!(parsed(&["foo"]), Err("invalid --security-opt 1: \"foo\"".into()));
        assert_eq!(parsed(&["foo=bar"]), Err("invalid --security-opt 2: \"foo=bar\"".into()));
        let maybe = "no-new-privileges=maybe";
        assert_eq!(parsed(&[maybe]), Err(format!("invalid --security-opt 2: \"{maybe}\"")));
    }
}
