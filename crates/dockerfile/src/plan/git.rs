//! Repositories as sources of `ADD` and as contexts: addresses, and what stands after `#` and `?` in them.

use super::TransferSource;
use crate::mount::go_bool;
use crate::{Error, Result};

/// A repository, and what of it is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GitSource {
    remote: String,
    reference: String,
    subdir: String,
    checksum: String,
    keep_git_dir: Option<bool>,
    submodules: Option<bool>,
}

impl GitSource {
    /// Reads an address; `None` if it is not one of a repository.
    ///
    /// # Errors
    /// [`Error::GitQuery`].
    pub fn parse(text: &str) -> Result<Option<Self>> {
        let (address, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (remote, query) = address.split_once('?').unwrap_or((address, ""));
        let is_git = match remote.split_once("://") {
            Some((scheme, _)) => match scheme.to_ascii_lowercase().as_str() {
                "git" | "ssh" => true,
                "http" | "https" => remote.ends_with(".git"),
                _ => false,
            },
            None => is_scp(remote),
        };
        if !is_git {
            return Ok(None);
        }
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        let mut git = Self {
            remote: remote.to_owned(),
            reference: reference.to_owned(),
            subdir: subdir.to_owned(),
            ..Self::default()
        };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            git.set(pair)?;
        }
        Ok(Some(git))
    }

    fn set(&mut self, pair: &str) -> Result<()> {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let boolean = || {
            let yes = if value.is_empty() { Some(true) } else { go_bool(value) };
            yes.ok_or_else(|| Error::GitQuery(format!("invalid {name} value: {value:?}")))
        };
        if value.is_empty() && !["submodules", "keep-git-dir"].contains(&name) {
            return Err(Error::GitQuery(format!("query {name:?} has no value")));
        }
        match name {
            "ref" => merge(&mut self.reference, value.to_owned(), "ref"),
            "tag" => merge(&mut self.reference, prefixed("refs/tags/", value), "ref"),
            "branch" => merge(&mut self.reference, prefixed("refs/heads/", value), "ref"),
            "subdir" => merge(&mut self.subdir, value.to_owned(), "subdir"),
            "checksum" | "commit" => {
                self.checksum = value.to_owned();
                Ok(())
            }
            "keep-git-dir" => {
                self.keep_git_dir = Some(boolean()?);
                Ok(())
            }
            "submodules" => {
                self.submodules = Some(boolean()?);
                Ok(())
            }
            _ => Err(Error::GitQuery(format!("unexpected query {name:?}"))),
        }
    }

    /// The source, with what the instruction's options say.
    ///
    /// # Errors
    /// [`Error::GitKeepConflict`] and [`Error::GitChecksumConflict`].
    pub fn into_source(self, keep: Option<bool>, checksum: &str) -> Result<TransferSource> {
        if let (Some(option), Some(own)) = (keep, self.keep_git_dir)
            && option != own
        {
            return Err(Error::GitKeepConflict);
        }
        if !checksum.is_empty() && !self.checksum.is_empty() && checksum != self.checksum {
            return Err(Error::GitChecksumConflict(checksum.to_owned(), self.checksum));
        }
        let checksum = if self.checksum.is_empty() { checksum.to_owned() } else { self.checksum };
        Ok(TransferSource::Git {
            remote: self.remote,
            reference: self.reference,
            subdir: self.subdir,
            checksum,
            keep_git_dir: self.keep_git_dir.or(keep).unwrap_or(false),
            submodules: self.submodules.unwrap_or(true),
        })
    }
}

/// `user@host:path`.
fn is_scp(text: &str) -> bool {
    let Some((user, rest)) = text.split_once('@') else { return false };
    let Some((host, path)) = rest.split_once(':') else { return false };
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let is_name = |text: &str| !text.is_empty() && text.chars().all(plain);
    is_name(user) && is_name(host) && !path.is_empty()
}

fn prefixed(prefix: &str, value: &str) -> String {
    if value.starts_with(prefix) { value.to_owned() } else { format!("{prefix}{value}") }
}

fn merge(place: &mut String, value: String, name: &str) -> Result<()> {
    if !place.is_empty() && *place != value {
        return Err(Error::GitQuery(format!("{name} conflicts: {place:?} vs {value:?}")));
    }
    *place = value;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories_are_known_by_their_addresses() {
        let check = |text: &str, expect: Option<(&str, &str, &str)>| {
            let found = GitSource::parse(text).unwrap();
            let found = found.as_ref().map(|g| (g.remote.as_str(), g.reference.as_str(), g.subdir.as_str()));
            assert_eq!(found, expect, "{text}");
        };
        check("https://github.com/a/b.git#v1:sub", Some(("https://github.com/a/b.git", "v1", "sub")));
        check("git@github.com:a/b", Some(("git@github.com:a/b", "", "")));
        check("git://host/a", Some(("git://host/a", "", "")));
        check("https://h/a.git?tag=v1&subdir=x", Some(("https://h/a.git", "refs/tags/v1", "x")));
        check("https://github.com/a/b", None);
        check("github.com/a/b.git", None);
        check("./a@b:c", None);
        check("file.txt", None);
        for (query, expect) in
            [("", true), ("?submodules=false", false), ("?submodules=1", true), ("?submodules", true)]
        {
            let found = GitSource::parse(&format!("https://h/a.git{query}")).unwrap().unwrap();
            let source = found.into_source(None, "").unwrap();
            assert!(
                matches!(source, TransferSource::Git { submodules, .. } if submodules == expect),
                "{query}"
            );
        }
        let fails = |text: &str| GitSource::parse(text).unwrap_err().to_string();
        assert_eq!(fails("https://h/a.git?x=1"), "unexpected query \"x\"");
        assert_eq!(fails("https://h/a.git?ref=b#c"), "ref conflicts: \"c\" vs \"b\"");
    }
}
