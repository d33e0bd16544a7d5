//! The names of steps, as BuildKit shows them: `[build 2/5] RUN make`.

use super::Platform;
use super::variables::get;
use crate::shell::Lexer;

/// Names the steps of one stage.
pub(super) struct Names {
    stage: String,
    /// How many there are.
    pub(super) total: usize,
    number: usize,
    shows_platform: bool,
    /// Whether what comes next is a trigger.
    pub(super) is_trigger: bool,
}

impl Names {
    pub(super) fn new(stage: String, total: usize, shows_platform: bool) -> Self {
        Self { stage, total, number: 0, shows_platform, is_trigger: false }
    }

    /// Names a step; `environment` is asked for the platform that is built for.
    pub(super) fn next(&mut self, text: &str, platform: &Platform, environment: &[String]) -> String {
        if self.total == 0 {
            return text.to_owned();
        }
        self.number += 1;
        let width = self.total.to_string().len();
        let mut prefix = String::new();
        if self.shows_platform {
            prefix.push_str(&platform.to_string());
            prefix.push_str(&cross(platform, environment));
            prefix.push(' ');
        }
        if !self.stage.is_empty() {
            prefix.push_str(&self.stage);
            prefix.push(' ');
        }
        let trigger = if self.is_trigger { "ONBUILD " } else { "" };
        format!("[{prefix}{:width$}/{}] {trigger}{text}", self.number, self.total)
    }
}

/// `->arm64`: a stage that runs on one platform and builds for another.
fn cross(platform: &Platform, environment: &[String]) -> String {
    let whole = get(environment, "TARGETPLATFORM").and_then(|text| text.parse::<Platform>().ok());
    let target = whole.or_else(|| {
        let part = |name| get(environment, name);
        part("TARGETOS").or(part("TARGETARCH")).or(part("TARGETVARIANT"))?;
        let or = |name, default| part(name).filter(|text| !text.is_empty()).unwrap_or(default);
        let (os, architecture) = (or("TARGETOS", &platform.os), or("TARGETARCH", &platform.architecture));
        Some(Platform::normal(os, architecture, part("TARGETVARIANT").unwrap_or_default()))
    });
    match target {
        Some(target) if target.os != platform.os => format!("->{target}"),
        Some(target) if target.architecture != platform.architecture => {
            let variant = if target.variant.is_empty() { "" } else { "/" };
            format!("->{}{variant}{}", target.architecture, target.variant)
        }
        _ => String::new(),
    }
}

/// An instruction's text for its name: variables replaced, its keyword in capitals.
pub(super) fn shown(text: &str, lexer: &Lexer<'_>) -> String {
    let text = lexer.word(text).unwrap_or_else(|_| text.to_owned());
    match text.split_once(' ') {
        Some((keyword, rest)) => format!("{} {rest}", keyword.to_uppercase()),
        None => text.to_uppercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_counted() {
        let platform: Platform = "linux/amd64".parse().unwrap();
        let mut names = Names::new("build".into(), 10, false);
        assert_eq!(names.next("FROM a", &platform, &[]), "[build  1/10] FROM a");
        names.is_trigger = true;
        assert_eq!(names.next("RUN b", &platform, &[]), "[build  2/10] ONBUILD RUN b");
        let mut names = Names::new(String::new(), 2, true);
        let environment = ["TARGETPLATFORM=linux/arm/v7".to_owned()];
        assert_eq!(names.next("RUN b", &platform, &environment), "[linux/amd64->arm/v7 1/2] RUN b");
        assert_eq!(Names::new(String::new(), 0, false).next("x", &platform, &[]), "x");
    }
}
