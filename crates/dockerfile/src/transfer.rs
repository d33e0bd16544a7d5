//! `COPY` and `ADD`.

use crate::flags::{Flags, Takes};
use crate::heredoc::{self, Heredoc};
use crate::{Error, Result};

/// Files that go into the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transfer {
    /// Which of the two, with what only one of them has.
    pub kind: TransferKind,
    /// Paths, patterns, and for `ADD` addresses.
    pub sources: Vec<String>,
    /// Files that stand in the Dockerfile.
    pub documents: Vec<InlineFile>,
    /// Where they go.
    pub destination: String,
    /// `--chown`, or empty.
    pub chown: String,
    /// `--chmod`, or empty.
    pub chmod: String,
    /// `--link`.
    pub link: bool,
    /// `--exclude`.
    pub exclude: Vec<String>,
}

/// `COPY` or `ADD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TransferKind {
    /// `COPY`.
    Copy {
        /// `--from`: a stage's name or number, or an image.
        from: Option<String>,
        /// `--parents`.
        parents: bool,
    },
    /// `ADD`.
    Add {
        /// `--keep-git-dir`, if given.
        keep_git_dir: Option<bool>,
        /// `--checksum`, or empty.
        checksum: String,
        /// `--unpack`, if given.
        unpack: Option<bool>,
    },
}

/// A file whose content stands in the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InlineFile {
    /// Its name.
    pub name: String,
    /// Its content.
    pub content: String,
    /// Whether variables in the content are replaced.
    pub expand: bool,
}

impl Transfer {
    pub(crate) fn read_copy(words: Vec<String>, documents: &[Heredoc], options: &[String]) -> Result<Self> {
        if words.len() < 2 {
            return Err(Error::NoDestination("COPY"));
        }
        let known = [
            ("chown", Takes::Text),
            ("from", Takes::Text),
            ("chmod", Takes::Text),
            ("link", Takes::Bool),
            ("exclude", Takes::Texts),
            ("parents", Takes::Bool),
        ];
        let flags = Flags::parse(options, &known)?;
        let from = flags.text("from").filter(|from| !from.is_empty());
        let kind = TransferKind::Copy { from, parents: flags.bool("parents").unwrap_or(false) };
        Self::read(kind, words, documents, &flags)
    }

    pub(crate) fn read_add(words: Vec<String>, documents: &[Heredoc], options: &[String]) -> Result<Self> {
        if words.len() < 2 {
            return Err(Error::NoDestination("ADD"));
        }
        let known = [
            ("chown", Takes::Text),
            ("chmod", Takes::Text),
            ("link", Takes::Bool),
            ("keep-git-dir", Takes::Bool),
            ("checksum", Takes::Text),
            ("unpack", Takes::Bool),
            ("exclude", Takes::Texts),
        ];
        let flags = Flags::parse(options, &known)?;
        let kind = TransferKind::Add {
            keep_git_dir: flags.bool("keep-git-dir"),
            checksum: flags.text("checksum").unwrap_or_default(),
            unpack: flags.bool("unpack"),
        };
        Self::read(kind, words, documents, &flags)
    }

    fn read(
        kind: TransferKind,
        mut words: Vec<String>,
        documents: &[Heredoc],
        flags: &Flags,
    ) -> Result<Self> {
        let destination = words.pop().unwrap_or_default();
        let mut transfer = Self {
            kind,
            sources: Vec::new(),
            documents: Vec::new(),
            destination,
            chown: flags.text("chown").unwrap_or_default(),
            chmod: flags.text("chmod").unwrap_or_default(),
            link: flags.bool("link").unwrap_or(false),
            exclude: flags.texts("exclude").collect(),
        };
        heredoc::refuse(&transfer.destination, transfer.name(), "a destination")?;
        for word in words {
            match Heredoc::parse(&word).unwrap_or_default() {
                Some(named) => {
                    let document = documents.iter().rfind(|document| document.name == named.name);
                    let content = document.map(Heredoc::text).unwrap_or_default();
                    let (name, expand) = (named.name, named.expand);
                    transfer.documents.push(InlineFile { name, content, expand });
                }
                None => transfer.sources.push(word),
            }
        }
        Ok(transfer)
    }

    /// `COPY` or `ADD`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self.kind {
            TransferKind::Copy { .. } => "COPY",
            TransferKind::Add { .. } => "ADD",
        }
    }

    /// The stage or image that the files come from, if not the context.
    #[must_use]
    pub fn from(&self) -> Option<&str> {
        match &self.kind {
            TransferKind::Copy { from, .. } => from.as_deref(),
            TransferKind::Add { .. } => None,
        }
    }

    /// Replaces variables: `word` in paths and options, `document` in documents.
    pub(crate) fn expand_with(
        mut self,
        word: &mut dyn FnMut(&str) -> Result<String>,
        document: &dyn Fn(&str) -> Result<String>,
    ) -> Result<Self> {
        self.chown = word(&self.chown)?;
        self.chmod = word(&self.chmod)?;
        if let TransferKind::Add { checksum, .. } = &mut self.kind {
            *checksum = word(checksum)?;
        }
        for source in &mut self.sources {
            *source = word(source)?;
        }
        self.destination = word(&self.destination)?;
        for file in self.documents.iter_mut().filter(|file| file.expand) {
            file.content = document(&file.content)?;
        }
        Ok(self)
    }
}
