//! The language of Dockerfiles: from text to typed instructions, as BuildKit's front end reads it.
//!
//! Pure: no files, no images, no clock; runs in whatever thread calls it. So far these are the
//! instructions that change an image's configuration, which is what `docker commit --change` and `docker import
//! --change` take. It must not know Docker's API nor what an instruction does to an image: the caller applies them.
//!
//! Reading goes in three steps, each in a room of its own: text → logical lines (`lines`), a line →
//! an [`Instruction`] (`instruction`), and [`Instruction::expand`] replaces variables (`shell`), which
//! depends on the instructions before it.

mod error;
mod health;
mod instruction;
mod lines;
mod ports;
mod shell;
mod words;

pub use error::Error;
pub use health::Healthcheck;
pub use instruction::{CommandLine, Instruction, Pair};
pub use ports::exposed;

use lines::logical_lines;

/// Result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;

/// Instructions, and the character that escapes in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// In their order.
    pub instructions: Vec<Instruction>,
    /// `\`, or what the directive `escape` says.
    pub escape: char,
}

/// Reads the changes of `docker commit` and `docker import`, each one line or more of a Dockerfile.
///
/// # Errors
/// What BuildKit says of malformed ones, and dockerd of instructions that are no changes.
pub fn parse_changes<S: AsRef<str>>(changes: &[S]) -> Result<Parsed> {
    let text = changes.iter().map(AsRef::as_ref).collect::<Vec<_>>().join("\n");
    let (lines, escape) = logical_lines(&text)?;
    let mut statements = Vec::with_capacity(lines.len());
    for line in &lines {
        statements.push(instruction::Statement::read(line, escape)?);
    }
    if let Some(other) = statements.iter().find(|statement| !statement.is_change()) {
        return Err(Error::NoChange(other.name.clone()));
    }
    let instructions = statements.into_iter().map(instruction::Statement::into_instruction);
    Ok(Parsed { instructions: instructions.collect::<Result<_>>()?, escape })
}
