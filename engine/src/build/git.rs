//! Repositories, brought by the host's own git(1).
//!
//! What the client lends for that, credentials of a web server or its SSH agent, comes to git in its environment, which only root
//! can read: it is no argument of a program, no part of a key or of a kept file, and no error says it.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use base64::Engine as _;
use rustix::fs::{Mode, OFlags};

use super::job::{Lends, Offered};
use crate::error::Error;

mod program;

/// Agents have names; this one is for repositories.
const AGENT: &str = "default";
/// Git asks this for the user that was in an address.
const CREDENTIALS: &str = "!printf %s \"$WHERRY_GIT_CREDENTIALS\" #";
const CREDENTIALS_VARIABLE: &str = "WHERRY_GIT_CREDENTIALS";
/// What stands in place of a user's name and password.
const HIDDEN: &str = "xxxxx";

/// A repository, and what of it is wanted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Repository<'a> {
    /// Its address.
    pub(super) remote: &'a str,
    /// A branch, a tag or a whole commit; empty for what the repository says.
    pub(super) reference: &'a str,
    /// What its commit begins with; may be empty.
    pub(super) checksum: &'a str,
    /// Whether those in it are brought, too.
    pub(super) submodules: bool,
    /// Whether `.git` will be looked at.
    pub(super) keeps_git_dir: bool,
}

/// Why there are no files of a repository.
#[derive(Debug, thiserror::Error)]
pub(super) enum GitError {
    /// Something else of ours failed.
    #[error(transparent)]
    Own(#[from] Error),
    /// git(1) failed.
    #[error("failed to fetch {remote}: {reason}")]
    Failed {
        /// The repository.
        remote: String,
        /// What it says.
        reason: String,
    },
    /// There is no repository, or it cannot be asked.
    #[error("{what} {remote}: git stderr:\n{reason}\n: exit status 128")]
    Unreachable {
        /// What was tried.
        what: &'static str,
        /// Where.
        remote: String,
        /// What git(1) says.
        reason: String,
    },
    /// The client has no agent for it.
    #[error("{0}")]
    NoAgent(String),
    /// What the client gives is no header of a request.
    #[error("secret {0} is no value of an Authorization header: it has more than one line")]
    Header(String),
    /// The repository has no such branch, tag or commit.
    #[error("repository does not contain ref {0}, output: \"\"")]
    NoReference(String),
    /// It has no such folder.
    #[error("invalid subdir /{path}: failed to lstat {name:?}: statat {name}: no such file or directory")]
    NoSubdir {
        /// The folder.
        path: String,
        /// The one above it that is not there, or it itself.
        name: String,
    },
    /// Something else is there.
    #[error("invalid subdir /{path}: git subpath \"/{path}\" contains non-directory {name:?}")]
    SubdirIsFile {
        /// The folder.
        path: String,
        /// The one above it that is none, or it itself.
        name: String,
    },
    /// No commit is called so.
    #[error("invalid checksum {0} for Git URL, expected hex commit hash")]
    NoCommit(String),
    /// The commit is not the one that was expected.
    #[error("expected checksum to match {expected}, got {actual}")]
    Commit {
        /// As the Dockerfile says.
        expected: String,
        /// What came.
        actual: String,
    },
}

/// Clones a repository into `folder`, and says of which commit its files are. `lender` has what the client lends.
///
/// # Errors
/// [`GitError`].
pub(super) async fn clone(
    wanted: &Repository<'_>,
    lender: Option<&dyn Lends>,
    folder: &Path,
) -> Result<String, GitError> {
    let Repository { remote, reference, checksum, submodules, keeps_git_dir } = *wanted;
    if !checksum.is_empty() && !is_hex(checksum) {
        return Err(GitError::NoCommit(checksum.to_owned()));
    }
    let named = if reference.is_empty() { "HEAD" } else { reference };
    if named.starts_with('-') {
        // Git would take it for an option. No branch or tag is called like that.
        let reason = format!("{named} is no name of a branch, tag or commit");
        return Err(GitError::Failed { remote: redacted(remote), reason });
    }
    let git = Git::new(remote, lender, folder).await?;
    git.run(&["init", "--quiet", "."]).await?;
    // Submodules may be beside it.
    git.run(&["remote", "add", "--", "origin", &git.address]).await?;
    let found = match git.fetch(named).await {
        Ok(()) => "FETCH_HEAD",
        // Not all servers give away a single commit.
        Err(_) if is_commit(named) => {
            let all = "+refs/heads/*:refs/remotes/origin/*";
            git.run(&["fetch", "--quiet", "--tags", "--", &git.address, all]).await?;
            named
        }
        Err(error) => return Err(git.why_not(named, error).await),
    };
    git.run(&["checkout", "--quiet", "--detach", found, "--"]).await?;
    let commit = git.run(&["rev-parse", "HEAD"]).await?.trim().to_owned();
    if !commit.starts_with(checksum) {
        return Err(GitError::Commit { expected: checksum.to_owned(), actual: commit });
    }
    if submodules {
        git.run(&["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"]).await?;
    }
    if keeps_git_dir {
        git.run(&["remote", "set-url", "--", "origin", &without_credentials(remote)]).await?;
        let branch = format!("refs/heads/{}", reference.strip_prefix("refs/heads/").unwrap_or(reference));
        // Of commits and tags there is no branch.
        if git.run(&["ls-remote", "--exit-code", "--", &git.address, &branch]).await.is_ok() {
            git.run(&["update-ref", &branch, "HEAD"]).await?;
        }
    }
    Ok(commit)
}

/// The client's agent. Its folder may have a name that is too long for the address of a socket, so it goes by another.
struct Agent {
    folder: OwnedFd,
    _offered: Offered,
}

impl Agent {
    fn new(offered: Offered) -> Result<Self, GitError> {
        let folder = offered.path.parent().unwrap_or(Path::new("/"));
        let opened =
            rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let opened = opened.map_err(|errno| Error::io("open", folder.display())(errno.into()))?;
        Ok(Self { folder: opened, _offered: offered })
    }

    fn at(&self, name: &str) -> String {
        format!("/proc/{}/fd/{}/{name}", std::process::id(), self.folder.as_raw_fd())
    }
}

/// git(1) in a folder, for one repository.
struct Git<'a> {
    folder: &'a Path,
    /// As it is asked for, without what is in it of a user.
    address: String,
    /// As errors name it.
    shown: String,
    /// Of what is lent.
    environment: Vec<(OsString, OsString)>,
    /// What no error may say, if it is part of the address.
    user: Option<&'a str>,
    _agent: Option<Agent>,
}

impl<'a> Git<'a> {
    async fn new(remote: &'a str, lender: Option<&dyn Lends>, folder: &'a Path) -> Result<Git<'a>, GitError> {
        let mut settings: Vec<(String, OsString)> = Vec::new();
        let mut environment: Vec<(OsString, OsString)> = Vec::new();
        let (address, user) = match web_user(remote) {
            Some((address, user)) => {
                settings.push((format!("credential.{address}.helper"), CREDENTIALS.into()));
                let (name, password) = user.split_once(':').map_or((user, None), |(n, p)| (n, Some(p)));
                let lines = [("username", Some(name)), ("password", password)];
                let lines = lines.into_iter().filter_map(|(what, value)| {
                    Some([what.as_bytes(), b"=", &percent_decoded(value?), b"\n"].concat())
                });
                let lines = lines.collect::<Vec<_>>().concat();
                environment.push((CREDENTIALS_VARIABLE.into(), OsString::from_vec(lines)));
                (address, Some(user))
            }
            None => (remote.to_owned(), None),
        };
        let mut agent = None;
        let mut known_hosts = "/dev/null".to_owned();
        if let Some(lender) = lender {
            if is_ssh(remote) {
                let lent = Agent::new(lender.ssh(AGENT).await?.map_err(GitError::NoAgent)?)?;
                environment.push(("SSH_AUTH_SOCK".into(), lent.at("agent.sock").into()));
                known_hosts = lent.at("known_hosts");
                agent = Some(lent);
            } else if let Some(header) = authorization(remote, lender).await? {
                let scope = scope(&address);
                if scope == address {
                    // Git would send it on to whoever the repository's server names.
                    settings.push((format!("http.{scope}.followRedirects"), "false".into()));
                }
                settings.push((format!("http.{scope}.extraHeader"), header));
            }
        }
        // Without an agent, too: a repository of the web may have submodules that come by ssh.
        environment.push(("GIT_SSH_COMMAND".into(), ssh_command(&known_hosts).into()));
        environment.push(("GIT_CONFIG_COUNT".into(), settings.len().to_string().into()));
        for (number, (name, value)) in settings.into_iter().enumerate() {
            environment.push((format!("GIT_CONFIG_KEY_{number}").into(), name.into()));
            environment.push((format!("GIT_CONFIG_VALUE_{number}").into(), value));
        }
        Ok(Git { folder, address, shown: redacted(remote), environment, user, _agent: agent })
    }

    /// Fetches one commit alone where the server can do that.
    async fn fetch(&self, named: &str) -> Result<(), GitError> {
        // A name that begins with a dash is no option.
        match self.run(&["fetch", "--quiet", "--depth=1", "--", &self.address, named]).await {
            Err(GitError::Failed { reason, .. }) if reason.contains("shallow") => {
                self.run(&["fetch", "--quiet", "--", &self.address, named]).await.map(drop)
            }
            done => done.map(drop),
        }
    }

    /// Why a name could not be fetched, in BuildKit's words.
    async fn why_not(&self, wanted: &str, error: GitError) -> GitError {
        let what = if wanted == "HEAD" {
            "error fetching default branch for repository"
        } else {
            "failed to fetch remote"
        };
        match self.run(&["ls-remote", "--", &self.address, wanted]).await {
            Ok(found) if found.trim().is_empty() => GitError::NoReference(wanted.to_owned()),
            Ok(_) => error,
            Err(GitError::Failed { remote, reason }) => GitError::Unreachable { what, remote, reason },
            Err(other) => other,
        }
    }

    /// Runs git(1); what it writes.
    async fn run(&self, args: &[&str]) -> Result<String, GitError> {
        let failed = |reason: &str| {
            let hide = |text: &str| match self.user {
                Some(user) => text.replace(&format!("{user}@"), &format!("{}@", hidden(user))),
                None => text.to_owned(),
            };
            GitError::Failed { remote: self.shown.clone(), reason: hide(reason) }
        };
        let mut command = tokio::process::Command::new("git");
        command
            // No hooks, no configuration of whoever runs the engine, no questions, no transports that run programs, and nothing
            // that goes on in the background.
            .args([
                "-c",
                "core.hooksPath=/dev/null",
                "-c",
                "protocol.ext.allow=never",
                "-c",
                "protocol.file.allow=never",
                "-c",
                "maintenance.auto=false",
                "-c",
                "gc.auto=0",
            ])
            .args(args)
            .current_dir(self.folder)
            .env_clear()
            .envs(std::env::vars_os().filter(|(name, _)| is_for_git(name)))
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("HOME", "/nonexistent")
            .envs(self.environment.iter().map(|(name, value)| (name, value)));
        let output = program::output(command).await.map_err(|error| failed(&format!("git: {error}")))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(failed(String::from_utf8_lossy(&output.stderr).trim()))
    }
}

/// The way to other hosts is what git may know of our environment.
fn is_for_git(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name == "PATH" || name.to_lowercase().ends_with("_proxy")
}

/// How git runs ssh(1): with the client's agent at most, never with keys or settings of whoever runs the engine. A host's key that is
/// not known to the system is believed at the first connection, as BuildKit does, and is then the host's for this repository.
fn ssh_command(known_hosts: &str) -> String {
    format!(
        "ssh -F /dev/null -o BatchMode=yes -o IdentityFile=none -o StrictHostKeyChecking=accept-new \
         -o UserKnownHostsFile={known_hosts}"
    )
}

/// What the client wants to be sent to a web server: the first of these secrets that it has, those of the host before the others.
async fn authorization(remote: &str, lender: &dyn Lends) -> Result<Option<OsString>, GitError> {
    let Some(host) = web_host(remote) else { return Ok(None) };
    let names = [
        (format!("GIT_AUTH_HEADER.{host}"), false),
        (format!("GIT_AUTH_TOKEN.{host}"), true),
        ("GIT_AUTH_HEADER".to_owned(), false),
        ("GIT_AUTH_TOKEN".to_owned(), true),
    ];
    for (name, is_token) in names {
        let Some(secret) = lender.secret(&name).await? else { continue };
        let mut value = b"Authorization: ".to_vec();
        if is_token {
            let user = [b"x-access-token:".as_slice(), &secret].concat();
            let user = base64::engine::general_purpose::STANDARD.encode(user);
            value.extend_from_slice(format!("basic {user}").as_bytes());
        } else {
            value.extend_from_slice(secret.trim_ascii_end());
        }
        if value.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            return Err(GitError::Header(name));
        }
        return Ok(Some(OsString::from_vec(value)));
    }
    Ok(None)
}

/// For which addresses a header is: this one's, and, as repositories there name each other, all of GitHub's.
fn scope(address: &str) -> &str {
    let of_github = ["https://github.com/", "https://www.github.com/"];
    of_github.into_iter().find(|prefix| address.starts_with(prefix)).unwrap_or(address)
}

/// What stands between `://` and the next slash.
fn authority(remote: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = remote.split_once("://")?;
    Some((scheme, rest.split(['/', '?', '#']).next().unwrap_or(rest)))
}

/// A web server's host, with its port if the address says it.
pub(super) fn web_host(remote: &str) -> Option<&str> {
    let (scheme, authority) = authority(remote)?;
    let is_web = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    is_web.then(|| authority.rsplit_once('@').map_or(authority, |(_, host)| host))
}

/// The address of a web server without the user that is in it, and the user.
fn web_user(remote: &str) -> Option<(String, &str)> {
    let host = web_host(remote)?;
    let (scheme, authority) = authority(remote)?;
    let user = authority.strip_suffix(host)?.strip_suffix('@')?;
    let path = remote.get(scheme.len() + "://".len() + authority.len()..)?;
    Some((format!("{scheme}://{host}{path}"), user))
}

/// `%40` is `@`; what is no such code stays. A line's end or a zero, which no name has, is left out.
fn percent_decoded(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let (mut decoded, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while let Some(byte) = bytes.get(at) {
        let code = bytes.get(at + 1..at + 3).and_then(|code| std::str::from_utf8(code).ok());
        let code = code.filter(|_| *byte == b'%').and_then(|code| u8::from_str_radix(code, 16).ok());
        decoded.push(code.unwrap_or(*byte));
        at += if code.is_some() { 3 } else { 1 };
    }
    decoded.retain(|byte| !matches!(byte, b'\n' | b'\r' | 0));
    decoded
}

pub(super) fn is_ssh(remote: &str) -> bool {
    match remote.split_once("://") {
        Some((scheme, _)) => scheme.eq_ignore_ascii_case("ssh"),
        None => remote.contains('@') && remote.contains(':'),
    }
}

fn hidden(user: &str) -> String {
    if user.contains(':') { format!("{HIDDEN}:{HIDDEN}") } else { HIDDEN.to_owned() }
}

/// As BuildKit's errors name an address: without any user.
pub(super) fn redacted(remote: &str) -> String {
    let Some((scheme, authority)) = authority(remote) else { return remote.to_owned() };
    match authority.rsplit_once('@') {
        Some((user, host)) if !user.is_empty() => {
            let path = remote.get(scheme.len() + "://".len() + authority.len()..).unwrap_or_default();
            format!("{scheme}://{}@{host}{path}", hidden(user))
        }
        _ => remote.to_owned(),
    }
}

/// An address as it may be shown while it is worked on: a password is none's business, who logs in by ssh may be told.
pub(super) fn without_credentials(address: &str) -> Cow<'_, str> {
    match web_user(address) {
        Some((plain, user)) if !user.is_empty() => {
            Cow::Owned(plain.replacen("://", &format!("://{}@", hidden(user)), 1))
        }
        _ => Cow::Borrowed(address),
    }
}

/// Whether it is the whole name of a commit.
fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && is_hex(text) && !text.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_hex(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn references_are_no_options() {
        let folder = tempfile::tempdir().unwrap();
        let wanted = Repository {
            remote: "/nowhere",
            reference: "--orphan=x",
            checksum: "",
            submodules: true,
            keeps_git_dir: false,
        };
        let refused = clone(&wanted, None, folder.path()).await.unwrap_err();
        assert!(refused.to_string().contains("--orphan=x is no name"), "{refused}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn users_in_addresses_are_not_shown() {
        let check = |address: &str, shown: &str| assert_eq!(without_credentials(address), shown, "{address}");
        check("https://u:p%40@h:1/a@b.git", "https://xxxxx:xxxxx@h:1/a@b.git");
        check("https://token@h/a.git", "https://xxxxx@h/a.git");
        check("https://h/a@b.git", "https://h/a@b.git");
        check("git@h:a.git", "git@h:a.git");
        check("ssh://git@h/a.git", "ssh://git@h/a.git");
        assert_eq!(redacted("ssh://git@h:1/a.git"), "ssh://xxxxx@h:1/a.git");
        assert_eq!(web_user("http://u:p@h/x"), Some(("http://h/x".to_owned(), "u:p")));
        assert_eq!(web_host("https://u@h:8443/x"), Some("h:8443"));
        assert_eq!(web_host("ssh://git@h/x"), None);
        assert_eq!(percent_decoded("a%40b%4%zz%0a"), b"a@b%4%zz");
    }

    #[test]
    fn agents_are_for_ssh_alone() {
        assert!(is_ssh("git@github.com:a/b") && is_ssh("ssh://h/a"));
        assert!(!is_ssh("https://u@h:1/a.git") && !is_ssh("git://h/a"));
    }

    #[test]
    fn a_header_is_for_one_repository_or_all_of_github() {
        assert_eq!(scope("https://github.com/a/b.git"), "https://github.com/");
        assert_eq!(scope("https://h/a/b.git"), "https://h/a/b.git");
    }
}
