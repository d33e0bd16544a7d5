//! `RUN`.

use crate::flags::{Flags, Takes};
use crate::heredoc::Heredoc;
use crate::instruction::CommandLine;
use crate::mount;
use crate::{Error, Result};

/// A command that is run in the build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The command, without its documents.
    pub command: CommandLine,
    /// The documents that the command names, in order.
    pub documents: Vec<Heredoc>,
    /// The values of `--mount`, as written: variables are not replaced.
    pub mounts: Vec<String>,
    /// The stage or image of each mount, if it names one.
    pub mount_sources: Vec<Option<String>>,
    /// `--network`.
    pub network: RunNetwork,
    /// `--security=insecure`.
    pub insecure: bool,
    /// `--device`.
    pub devices: Vec<String>,
    /// The first option that was given: the classic builder knows none.
    pub first_flag: Option<&'static str>,
}

/// `RUN --network`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum RunNetwork {
    /// What the build has.
    #[default]
    Default,
    /// None but loopback.
    None,
    /// The host's.
    Host,
}

impl Run {
    pub(crate) fn read(command: CommandLine, documents: Vec<Heredoc>, options: &[String]) -> Result<Self> {
        let known = [
            ("mount", Takes::Texts),
            ("network", Takes::Text),
            ("security", Takes::Text),
            ("device", Takes::Texts),
        ];
        let flags = Flags::parse(options, &known)?;
        let mounts: Vec<String> = flags.texts("mount").collect();
        let mount_sources = mounts.iter().map(|text| Ok(mount::source_of(text)?)).collect::<Result<_>>()?;
        let network = match flags.text("network").as_deref() {
            None | Some("default") => RunNetwork::Default,
            Some("none") => RunNetwork::None,
            Some("host") => RunNetwork::Host,
            Some(other) => return Err(Error::NetworkMode(other.to_owned())),
        };
        let insecure = match flags.text("security").as_deref() {
            None | Some("sandbox") => false,
            Some("insecure") => true,
            Some(other) => return Err(Error::Security(other.to_owned())),
        };
        let devices = flags.texts("device").collect();
        let first_flag = flags.first();
        Ok(Self { command, documents, mounts, mount_sources, network, insecure, devices, first_flag })
    }
}
