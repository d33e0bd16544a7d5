//! `COPY` and `ADD` as steps.

use super::git::GitSource;
use super::names::{Names, shown};
use super::planner::Planner;
use super::request::Frontend;
use super::state::{Made, State, clean};
use super::{Action, ClassicHistory, History, Root, TransferSource, TransferStep};
use crate::glob::has_wildcards;
use crate::lint::Rule;
use crate::shell::{Environment, Lexer};
use crate::transfer::{Transfer, TransferKind};
use crate::{Error, Result, Source};

impl State {
    pub(super) fn transfer(
        &mut self,
        transfer: &Transfer,
        roots: &[Option<Root>],
        planner: &mut Planner,
        names: &mut Names,
        source: &Source,
    ) -> Result<Made> {
        if self.frontend == Frontend::Classic && !transfer.chmod.is_empty() {
            return Err(Error::NeedsBuildKit("chmod".into()));
        }
        check_chmod(&transfer.chmod)?;
        check_checksum(transfer)?;
        let root = roots.first().cloned().flatten().unwrap_or(Root::Context(None));
        if self.frontend == Frontend::BuildKit && root == Root::Context(None) {
            warn_ignored(transfer, planner, source);
        }
        let mut sources = Vec::with_capacity(transfer.sources.len() + transfer.documents.len());
        for written in &transfer.sources {
            sources.push(self.source(transfer, written, &root)?);
        }
        sources.extend(transfer.documents.iter().cloned().map(TransferSource::Inline));
        let environment = self.environment(&planner.request);
        let variables = Environment::of(&environment);
        let text = shown(&source.text, &Lexer::new(self.escape, &variables));
        let name = Some(names.next(&text, &self.platform, &environment));
        let is_add = matches!(transfer.kind, TransferKind::Add { .. });
        let destination = self.destination(&transfer.destination);
        let history = self.transfer_history(transfer);
        let step = TransferStep {
            sources,
            destination,
            chown: transfer.chown.clone(),
            chmod: transfer.chmod.clone(),
            link: transfer.link && self.frontend == Frontend::BuildKit,
            exclude: transfer.exclude.clone(),
            is_add,
        };
        Ok(Made { name, action: Action::Transfer(Box::new(step)), history })
    }

    /// An absolute path; a slash at the end says that it is a folder.
    fn destination(&self, written: &str) -> String {
        let is_folder = written.is_empty()
            || written.ends_with('/')
            || written.ends_with("/.")
            || matches!(written, "." | "..");
        let path = match written.starts_with('/') {
            true => clean(written),
            false => clean(&format!("{}/{written}", self.config.working_dir)),
        };
        match is_folder && path != "/" {
            true => format!("{path}/"),
            false => path,
        }
    }

    fn transfer_history(&self, transfer: &Transfer) -> History {
        let mut words = vec![transfer.name().to_owned()];
        if let TransferKind::Copy { parents: true, .. } = transfer.kind {
            words.push("--parents".into());
        }
        for (flag, value) in [("chown", &transfer.chown), ("chmod", &transfer.chmod)] {
            if !value.is_empty() {
                words.push(format!("--{flag}={value}"));
            }
        }
        words.extend(transfer.sources.iter().cloned());
        words.extend(transfer.documents.iter().map(|document| format!("<<{}", document.name)));
        words.push(transfer.destination.clone());
        let chown = match transfer.chown.as_str() {
            "" => String::new(),
            chown => format!("--chown={chown} "),
        };
        let shell = self.config.shell();
        let before = format!("#(nop) {} {chown}", transfer.name());
        let after = format!(" in {} ", transfer.destination);
        History {
            created_by: Some(format!("{} # buildkit", words.join(" "))),
            is_empty_layer: false,
            classic: ClassicHistory::Transfer { shell, before, after },
        }
    }

    fn source(&self, transfer: &Transfer, written: &str, root: &Root) -> Result<TransferSource> {
        let (checksum, keep, unpack) = match &transfer.kind {
            TransferKind::Add { checksum, keep_git_dir, unpack } => {
                (checksum.as_str(), *keep_git_dir, *unpack)
            }
            TransferKind::Copy { .. } => ("", None, None),
        };
        let is_add = matches!(transfer.kind, TransferKind::Add { .. });
        // The classic builder knows addresses of files only.
        let git = match self.frontend {
            Frontend::BuildKit => GitSource::parse(written)?,
            Frontend::Classic => None,
        };
        if let Some(git) = git {
            if !is_add {
                return Err(Error::CopyGit);
            }
            return git.into_source(keep, checksum);
        }
        if is_url(written) {
            if !is_add {
                return Err(match self.frontend {
                    Frontend::BuildKit => Error::CopyUrl,
                    Frontend::Classic => Error::ClassicCopyUrl,
                });
            }
            return Ok(TransferSource::Http {
                url: written.to_owned(),
                name: url_name(written),
                checksum: checksum.to_owned(),
                unpack: unpack.unwrap_or(false),
            });
        }
        let (path, parents) = match transfer.kind {
            TransferKind::Copy { parents: true, .. } => {
                let (pivot, pattern) = written.split_once("/./").unwrap_or(("/", written));
                (clean(pivot), Some(clean(pattern).trim_start_matches('/').to_owned()))
            }
            // The classic builder's patterns stay as they are: one that ends with a slash matches nothing.
            _ if self.frontend == Frontend::Classic && has_wildcards(written) => {
                let pattern = written.trim_start_matches('/');
                (format!("/{}", pattern.strip_prefix("./").unwrap_or(pattern)), None)
            }
            // It refuses these, when it comes to the step.
            _ if self.frontend == Frontend::Classic && leads_out(written) => {
                let path = written.strip_prefix('/').unwrap_or(written);
                (path.strip_prefix("./").unwrap_or(path).to_owned(), None)
            }
            _ => (clean(written), None),
        };
        let unpack = unpack.unwrap_or(is_add);
        Ok(TransferSource::Files { root: root.clone(), path, parents, unpack })
    }
}

/// Whether a path, seen from the root of a context or an image, leads out of it.
#[must_use]
pub fn leads_out(path: &str) -> bool {
    let mut depth = 0i64;
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return true;
        }
    }
    false
}

fn is_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// The last part of an address' path.
fn url_name(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    let path = rest.get(..end).unwrap_or_default().split_once('/').map_or("", |(_, path)| path);
    match path.trim_end_matches('/').rsplit('/').next().unwrap_or_default() {
        "" | "." => "__unnamed__".into(),
        name => percent_decoded(name),
    }
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let code = tail.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let code = code.filter(|_| byte == b'%').and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match code {
            Some(code) => {
                bytes.push(code);
                rest = tail.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn check_checksum(transfer: &Transfer) -> Result<()> {
    let TransferKind::Add { checksum, .. } = &transfer.kind else { return Ok(()) };
    if checksum.is_empty() {
        return Ok(());
    }
    let [source] = transfer.sources.as_slice() else { return Err(Error::ChecksumCount) };
    match (GitSource::parse(source)?, is_url(source)) {
        (Some(_), _) => Ok(()),
        (None, true) => check_digest(checksum),
        (None, false) => Err(Error::ChecksumSource),
    }
}

/// Go's words for what is no digest.
fn check_digest(text: &str) -> Result<()> {
    let Some((algorithm, hex)) =
        text.split_once(':').filter(|(algorithm, hex)| !algorithm.is_empty() && !hex.is_empty())
    else {
        return Err(Error::ChecksumDigest("invalid checksum digest format"));
    };
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Err(Error::ChecksumDigest("unsupported digest algorithm")),
    };
    let is_hex = hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    match (is_hex, hex.len() == length) {
        (true, true) => Ok(()),
        (_, false) => Err(Error::ChecksumDigest("invalid checksum digest length")),
        (false, _) => Err(Error::ChecksumDigest("invalid checksum digest format")),
    }
}

/// An octal number up to 07777, or a symbolic mode: `u+x,go=rX`.
fn check_chmod(text: &str) -> Result<()> {
    if text.is_empty() {
        return Ok(());
    }
    if let Ok(mode) = u32::from_str_radix(text, 8) {
        return if mode <= 0o7777 { Ok(()) } else { Err(Error::Chmod(text.to_owned())) };
    }
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(Error::Chmod(text.to_owned()));
    }
    match text.split(',').all(is_symbolic) {
        true => Ok(()),
        false => Err(Error::ChmodSyntax),
    }
}

fn is_symbolic(clause: &str) -> bool {
    let mut rest = clause.trim_start_matches(['u', 'g', 'o', 'a']);
    let mut has_action = false;
    while let Some(tail) = rest.strip_prefix(['+', '-', '=']) {
        has_action = true;
        rest = match tail.strip_prefix(['u', 'g', 'o']) {
            Some(copied) => copied,
            None => tail.trim_start_matches(['r', 'w', 'x', 'X', 's', 't']),
        };
    }
    has_action && rest.is_empty()
}

fn warn_ignored(transfer: &Transfer, planner: &mut Planner, source: &Source) {
    let Some(ignore) = &planner.request.ignore else { return };
    let local = transfer.sources.iter().filter(|path| !is_url(path));
    let ignored: Vec<String> = local.filter(|path| ignore.is_ignored(path)).cloned().collect();
    let verb = if transfer.name() == "ADD" { "Add" } else { "Copy" };
    for path in ignored {
        let path = crate::go_quote(&path);
        let message = format!("Attempting to {verb} file {path} that is excluded by .dockerignore");
        planner.linter.warn(Rule::CopyIgnoredFile, source.lines, message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_names() {
        let check = |url: &str, expect: &str| assert_eq!(url_name(url), expect, "{url}");
        check("https://a/b/c.tar.gz?x=/y#z", "c.tar.gz");
        check("https://a/b/c%20d", "c d");
        check("https://a/b/", "b");
        check("https://a", "__unnamed__");
        check("http://a/", "__unnamed__");
    }

    #[test]
    fn paths_that_leave_the_context_are_known() {
        for (path, out) in [
            ("a/../b", false),
            ("../x", true),
            ("a/../../b", true),
            ("/x", false),
            ("..", true),
            ("/../x", true),
        ] {
            assert_eq!(leads_out(path), out, "{path}");
        }
    }

    #[test]
    fn modes_are_checked() {
        for good in ["", "0644", "7777", "u+x", "go=rX,u=rw", "a=u", "+x-w", "="] {
            assert_eq!(check_chmod(good), Ok(()), "{good}");
        }
        for bad in ["99", "77777", "1x"] {
            assert_eq!(check_chmod(bad), Err(Error::Chmod(bad.into())));
        }
        for bad in ["foo", "u", "u+q", "u+x,"] {
            assert_eq!(check_chmod(bad), Err(Error::ChmodSyntax), "{bad}");
        }
    }
}
