//! What is being done, told step by step.

use std::fmt;

/// Told of each step of making a container or a process, when it is done: a line without its end, for a person who looks
/// for what goes wrong. Lines of a child come by the channel by which it also says what failed; a launch without this costs
/// nothing. Where runc has words for a step, the line has them, since tools look for these: "nsexec" is its name for that
/// part of a child in which namespaces are made and joined.
#[derive(Clone, Copy)]
pub struct Trace<'a>(&'a (dyn Fn(&str) + Sync));

impl<'a> Trace<'a> {
    /// Gives each line to `tell`.
    pub fn new(tell: &'a (dyn Fn(&str) + Sync)) -> Self {
        Trace(tell)
    }

    /// Tells a line.
    pub(crate) fn tell(self, line: &str) {
        (self.0)(line);
    }
}

impl fmt::Debug for Trace<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Trace")
    }
}

/// Tells a line, if anybody wants to know.
pub(crate) fn tell(trace: Option<Trace<'_>>, line: impl FnOnce() -> String) {
    if let Some(trace) = trace {
        trace.tell(&line());
    }
}
