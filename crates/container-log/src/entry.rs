//! What a log is made of.

/// Which of the two output streams a piece of text came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stream {
    /// Standard output; all output of a terminal counts as this.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Its name in the log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    /// Its number in the 8-byte header of multiplexed output.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }
}

/// One entry of a log, borrowed from its [`crate::Reader`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The text, with its newline unless it is part of a longer line, or the output ended without.
    /// Valid UTF-8 unless another program wrote the file.
    pub text: &'a [u8],
    /// Where it came from.
    pub stream: Stream,
    /// Nanoseconds since the epoch.
    pub time_ns: i64,
    /// The attributes, a JSON object as it stands in the file; empty without any.
    pub attributes: &'a [u8],
}
