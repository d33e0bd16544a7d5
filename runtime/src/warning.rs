//! What is not as it was asked for, and is no reason to stop.

use std::fmt;

/// Something that a specification asks for and does not get, where the runtime specification or runc has it that the
/// container starts all the same. Whoever makes containers is given these, to tell them; the library itself writes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// Names in `process.capabilities` that this library does not know (a newer kernel's, or misspelt ones) or that the
    /// caller has not got itself and so cannot give. They are left out: runtime specification, "Process", has it that a
    /// container must not fail for them.
    Capabilities {
        /// The names.
        names: Vec<String>,
    },
    /// A capability of the ambient set that is not in the inheritable one: the kernel leaves it out.
    AmbientCapability {
        /// Its name.
        name: String,
    },
    /// Letters in `linux.resources.devices[].access` that are none of `r`, `w` and `m`. The others count.
    DeviceAccess {
        /// All of the letters.
        access: String,
    },
}

impl fmt::Display for Warning {
    /// Where runc has words for it, in these.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::Capabilities { names } => {
                write!(f, "ignoring unknown or unavailable capabilities: [{}]", names.join(" "))
            }
            Warning::AmbientCapability { name } => {
                write!(f, "can't raise ambient capability {name}: operation not permitted")
            }
            Warning::DeviceAccess { access } => {
                write!(f, "linux.resources.devices: the access {access:?} has other letters than r, w and m")
            }
        }
    }
}
