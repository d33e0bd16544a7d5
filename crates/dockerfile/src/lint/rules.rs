//! The rules.

/// What a warning is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "their descriptions say what they are")]
pub enum Rule {
    StageNameCasing,
    FromAsCasing,
    NoEmptyContinuation,
    ConsistentInstructionCasing,
    DuplicateStageName,
    ReservedStageName,
    JsonArgsRecommended,
    MaintainerDeprecated,
    UndefinedArgInFrom,
    WorkdirRelativePath,
    UndefinedVar,
    MultipleInstructionsDisallowed,
    LegacyKeyValueFormat,
    InvalidBaseImagePlatform,
    RedundantTargetPlatform,
    SecretsUsedInArgOrEnv,
    InvalidDefaultArgInFrom,
    FromPlatformFlagConstDisallowed,
    CopyIgnoredFile,
    InvalidDefinitionDescription,
    ExposeProtoCasing,
    ExposeInvalidFormat,
}

impl Rule {
    /// As `skip=` names it.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.entry().0
    }

    /// What the rule is, for all of its warnings.
    #[must_use]
    pub fn description(self) -> &'static str {
        self.entry().2
    }

    /// Where it is explained; empty if it is not.
    #[must_use]
    pub fn url(self) -> String {
        match self.entry().1 {
            "" => String::new(),
            page => format!("https://docs.docker.com/go/dockerfile/rule/{page}/"),
        }
    }

    /// Whether it must be asked for.
    #[must_use]
    pub fn is_experimental(self) -> bool {
        matches!(self, Self::CopyIgnoredFile | Self::InvalidDefinitionDescription)
    }

    fn entry(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::StageNameCasing => {
                ("StageNameCasing", "stage-name-casing", "Stage names should be lowercase")
            }
            Self::FromAsCasing => (
                "FromAsCasing",
                "from-as-casing",
                "The 'as' keyword should match the case of the 'from' keyword",
            ),
            Self::NoEmptyContinuation => (
                "NoEmptyContinuation",
                "no-empty-continuation",
                "Empty continuation lines will become errors in a future release",
            ),
            Self::ConsistentInstructionCasing => (
                "ConsistentInstructionCasing",
                "consistent-instruction-casing",
                "All commands within the Dockerfile should use the same casing (either upper or lower)",
            ),
            Self::DuplicateStageName => {
                ("DuplicateStageName", "duplicate-stage-name", "Stage names should be unique")
            }
            Self::ReservedStageName => (
                "ReservedStageName",
                "reserved-stage-name",
                "Reserved words should not be used as stage names",
            ),
            Self::JsonArgsRecommended => (
                "JSONArgsRecommended",
                "json-args-recommended",
                "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS \
                 signals",
            ),
            Self::MaintainerDeprecated => (
                "MaintainerDeprecated",
                "maintainer-deprecated",
                "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
            ),
            Self::UndefinedArgInFrom => {
                ("UndefinedArgInFrom", "undefined-arg-in-from", "FROM command must use declared ARGs")
            }
            Self::WorkdirRelativePath => (
                "WorkdirRelativePath",
                "workdir-relative-path",
                "Relative workdir without an absolute workdir declared within the build can have unexpected \
                 results if the base image changes",
            ),
            Self::UndefinedVar => {
                ("UndefinedVar", "undefined-var", "Variables should be defined before their use")
            }
            Self::MultipleInstructionsDisallowed => (
                "MultipleInstructionsDisallowed",
                "multiple-instructions-disallowed",
                "Multiple instructions of the same type should not be used in the same stage",
            ),
            Self::LegacyKeyValueFormat => (
                "LegacyKeyValueFormat",
                "legacy-key-value-format",
                "Legacy key/value format with whitespace separator should not be used",
            ),
            Self::InvalidBaseImagePlatform => (
                "InvalidBaseImagePlatform",
                "",
                "Base image platform does not match expected target platform",
            ),
            _ => self.later_entry(),
        }
    }

    fn later_entry(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::RedundantTargetPlatform => (
                "RedundantTargetPlatform",
                "redundant-target-platform",
                "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default \
                 behavior",
            ),
            Self::SecretsUsedInArgOrEnv => (
                "SecretsUsedInArgOrEnv",
                "secrets-used-in-arg-or-env",
                "Sensitive data should not be used in the ARG or ENV commands",
            ),
            Self::InvalidDefaultArgInFrom => (
                "InvalidDefaultArgInFrom",
                "invalid-default-arg-in-from",
                "Default value for global ARG results in an empty or invalid base image name",
            ),
            Self::FromPlatformFlagConstDisallowed => (
                "FromPlatformFlagConstDisallowed",
                "from-platform-flag-const-disallowed",
                "FROM --platform flag should not use a constant value",
            ),
            Self::CopyIgnoredFile => (
                "CopyIgnoredFile",
                "copy-ignored-file",
                "Attempting to Copy file that is excluded by .dockerignore",
            ),
            Self::ExposeProtoCasing => (
                "ExposeProtoCasing",
                "expose-proto-casing",
                "Protocol in EXPOSE instruction should be lowercase",
            ),
            Self::ExposeInvalidFormat => (
                "ExposeInvalidFormat",
                "expose-invalid-format",
                "IP address and host-port mapping should not be used in EXPOSE instruction. This will become \
                 an error in a future release",
            ),
            _ => (
                "InvalidDefinitionDescription",
                "invalid-definition-description",
                "Comment for build stage or argument should follow the format: `# <arg/stage name> \
                 <description>`. If this is not intended to be a description comment, add an empty line or \
                 comment between the instruction and the comment.",
            ),
        }
    }
}
