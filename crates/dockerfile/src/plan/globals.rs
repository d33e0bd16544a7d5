//! Arguments before the first `FROM`, and those that every build has.

use super::request::{Frontend, PROXIES, Request};
use super::variables::{get, set_last};
use crate::file::{Dockerfile, GlobalArgs};
use crate::shell::{Environment, Lexer};
use crate::{LocatedError, Phase};

/// What `FROM` can use, `NAME=value` each.
#[derive(Debug, Clone, Default)]
pub(super) struct Globals {
    pub(super) entries: Vec<String>,
    /// Names that are declared, with or without a value.
    pub(super) declared: Vec<String>,
}

impl Globals {
    /// Those of a build; without `build_args`, as they are by default.
    pub(super) fn read(file: &Dockerfile, request: &Request, by_default: bool) -> Result<Self, LocatedError> {
        let mut globals = match request.frontend {
            Frontend::BuildKit => Self { entries: platforms(file, request), declared: Vec::new() },
            Frontend::Classic => Self::default(),
        };
        let mut expanded = 0;
        for global in &file.global_args {
            globals.declare(global, file.escape, request, by_default, &mut expanded)?;
        }
        if request.frontend == Frontend::Classic {
            for name in PROXIES {
                if let Some(value) = request.build_args.get(name) {
                    set_last(&mut globals.entries, name, value);
                }
            }
        }
        Ok(globals)
    }

    fn declare(
        &mut self,
        global: &GlobalArgs,
        escape: char,
        request: &Request,
        by_default: bool,
        expanded: &mut usize,
    ) -> Result<(), LocatedError> {
        for arg in &global.args {
            let given = request.build_args.get(&arg.name).filter(|_| !by_default);
            let value = match (given, &arg.default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => {
                    let environment = Environment::of(&self.entries).with_expanded(*expanded);
                    let value = Lexer::new(escape, &environment).word(default);
                    *expanded = environment.expanded();
                    let located = |error| LocatedError::new(error, global.source.lines, Phase::Whole);
                    Some(value.map_err(located)?)
                }
                (None, None) => None,
            };
            if let Some(value) = value {
                set_last(&mut self.entries, &arg.name, &value);
            }
            self.declared.push(arg.name.clone());
        }
        Ok(())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        get(&self.entries, name)
    }

    /// All names that may be used, for "did you mean".
    pub(super) fn names(&self) -> Vec<&str> {
        let set = self.entries.iter().map(|entry| super::variables::name_of(entry));
        set.chain(self.declared.iter().map(String::as_str)).collect()
    }
}

fn platforms(file: &Dockerfile, request: &Request) -> Vec<String> {
    let (build, target) = (&request.build_platform, request.target_platform());
    let last = file.stages.last().and_then(|stage| stage.name.as_deref()).unwrap_or_default();
    let stage = [request.target.as_str(), last, "default"].into_iter().find(|name| !name.is_empty());
    let values = [
        ("BUILDPLATFORM", build.to_string()),
        ("BUILDOS", build.os.clone()),
        ("BUILDOSVERSION", String::new()),
        ("BUILDARCH", build.architecture.clone()),
        ("BUILDVARIANT", build.variant.clone()),
        ("TARGETPLATFORM", target.to_string()),
        ("TARGETOS", target.os.clone()),
        ("TARGETOSVERSION", String::new()),
        ("TARGETARCH", target.architecture.clone()),
        ("TARGETVARIANT", target.variant.clone()),
        ("TARGETSTAGE", stage.unwrap_or_default().to_owned()),
    ];
    let value_of = |(name, value): (&str, String)| {
        let value = request.build_args.get(name).cloned().unwrap_or(value);
        format!("{name}={value}")
    };
    values.into_iter().map(value_of).collect()
}
