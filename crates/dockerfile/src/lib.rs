//! The language of Dockerfiles: from text to typed instructions, and to the graph of a build, as BuildKit's front end
//! reads it.
//!
//! Pure: no files, no images, no clock; runs in whatever thread calls it. It must not know Docker's API nor how a
//! step is run: the caller gives it the configurations of images and runs the steps.
//!
//! Reading goes in three steps, each in a room of its own: text → logical lines (`lines`), a line →
//! an instruction (`draft`, `instruction`), and `shell` replaces variables, which depends on the
//! instructions before. [`Dockerfile::parse`] reads a whole file, [`parse_changes`] what `docker commit --change`
//! and `docker import --change` take. [`plan`] makes the graph of a build of it, [`Ignore`] says which files of a context
//! stay out, and warnings have the names of BuildKit's linter.

mod draft;
mod error;
mod file;
mod flags;
pub mod glob;
mod go;
mod health;
mod heredoc;
mod ignore;
mod instruction;
mod lines;
mod lint;
mod mount;
pub mod plan;
mod ports;
mod run;
mod shell;
mod suggest;
mod transfer;
mod words;

pub use error::{Error, LocatedError, Phase};
pub use file::{Dockerfile, GlobalArgs, Lines, Source, Stage, Statement};
pub use go::go_quote;
pub use health::Healthcheck;
pub use heredoc::Heredoc;
pub use ignore::Ignore;
pub use instruction::{Arg, Change, CommandLine, Instruction, Pair};
pub use lines::Directive;
pub use lint::{CheckOptions, Rule, Warning};
pub use mount::{Mount, MountError, MountKind, Sharing};
pub use ports::{PortError, exposed};
pub use run::{Run, RunNetwork};
pub use transfer::{InlineFile, Transfer, TransferKind};

use draft::Drafts;

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Changes, and the character that escapes in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// In their order.
    pub changes: Vec<Change>,
    /// `\`, or what the directive `escape` says.
    pub escape: char,
}

/// Reads the changes of `docker commit` and `docker import`, each one line or more of a Dockerfile.
///
/// # Errors
/// What BuildKit says of malformed ones, and dockerd of instructions that are no changes.
pub fn parse_changes<S: AsRef<str>>(changes: &[S]) -> Result<Parsed> {
    let text = changes.iter().map(AsRef::as_ref).collect::<Vec<_>>().join("\n");
    let drafts = Drafts::read(&text).map_err(|located| located.error)?;
    if let Some(other) = drafts.statements.iter().find(|statement| !statement.is_change()) {
        return Err(Error::NoChange(other.name.clone()));
    }
    let mut changes = Vec::with_capacity(drafts.statements.len());
    for draft in drafts.statements {
        let name = draft.name.clone();
        match draft.into_instruction()? {
            Instruction::Change(change) => changes.push(change),
            _ => return Err(Error::NoChange(name)),
        }
    }
    Ok(Parsed { changes, escape: drafts.escape })
}
