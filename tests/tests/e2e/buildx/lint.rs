//! Rules of Dockerfiles: each once broken, with what BuildKit says of it and where. The one about images of another platform needs a
//! registry that has such: see `crates/dockerfile/tests/plan.rs`.

use serde_json::Value;
use wherry_tests::Host;

/// A rule, a Dockerfile that breaks it, the lines where, and what is said.
const BROKEN: [(&str, &str, &[i64], &str); 21] = [
    ("StageNameCasing", "FROM scratch AS One\n", &[1], "Stage name 'One' should be lowercase"),
    ("FromAsCasing", "FROM scratch as one\n", &[1], "'as' and 'FROM' keywords' casing do not match"),
    ("NoEmptyContinuation", "FROM scratch\nENV A=1 \\\n\n  B=2\n", &[4], "Empty continuation line"),
    (
        "ConsistentInstructionCasing",
        "FROM scratch\nENV A=1\nenv B=2\n",
        &[3],
        "Command 'env' should match the case of the command majority (uppercase)",
    ),
    (
        "DuplicateStageName",
        "FROM scratch AS b\nFROM scratch AS b\n",
        &[2],
        "Duplicate stage name \"b\", stage names should be unique",
    ),
    (
        "ReservedStageName",
        "FROM scratch AS context\n",
        &[1],
        "Stage name should not use the same name as reserved stage \"context\"",
    ),
    (
        "JSONArgsRecommended",
        "FROM scratch\nCMD run it\n",
        &[2],
        "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
    ),
    (
        "MaintainerDeprecated",
        "FROM scratch\nMAINTAINER x\n",
        &[2],
        "Maintainer instruction is deprecated in favor of using label",
    ),
    (
        "UndefinedArgInFrom",
        "ARG VERSION=1\nFROM busybox${VERSON:-}\n",
        &[2],
        "FROM argument 'VERSON' is not declared (did you mean VERSION?)",
    ),
    (
        "WorkdirRelativePath",
        "FROM scratch\nWORKDIR a\n",
        &[2],
        "Relative workdir \"a\" can have unexpected results if the base image changes",
    ),
    (
        "UndefinedVar",
        "FROM scratch\nARG WHERE=x\nLABEL a=$WHER\n",
        &[3],
        "Usage of undefined variable '$WHER' (did you mean $WHERE?)",
    ),
    (
        "MultipleInstructionsDisallowed",
        "FROM scratch\nCMD [\"a\"]\nCMD [\"b\"]\n",
        &[2],
        "Multiple CMD instructions should not be used in the same stage because only the last one will be used",
    ),
    (
        "LegacyKeyValueFormat",
        "FROM scratch\nENV A 1\n",
        &[2],
        "\"ENV key=value\" should be used instead of legacy \"ENV key value\" format",
    ),
    (
        "RedundantTargetPlatform",
        "FROM --platform=$TARGETPLATFORM busybox\n",
        &[1],
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
    ),
    (
        "SecretsUsedInArgOrEnv",
        "FROM scratch\nENV MY_PASSWORD=x\n",
        &[2],
        "Do not use ARG or ENV instructions for sensitive data (ENV \"MY_PASSWORD\")",
    ),
    (
        "InvalidDefaultArgInFrom",
        "ARG TAG\nFROM busybox:$TAG\n",
        &[2],
        "Default value for ARG busybox:$TAG results in empty or invalid base image name",
    ),
    (
        "FromPlatformFlagConstDisallowed",
        "FROM --platform=linux/amd64 busybox\n",
        &[1],
        "FROM --platform flag should not use constant value \"linux/amd64\"",
    ),
    (
        "CopyIgnoredFile",
        "# check=experimental=CopyIgnoredFile\nFROM scratch\nCOPY ignored /\n",
        &[3],
        "Attempting to Copy file \"ignored\" that is excluded by .dockerignore",
    ),
    (
        "ExposeProtoCasing",
        "FROM scratch\nEXPOSE 80/TcP\n",
        &[2],
        "Defined protocol '80/TcP' in EXPOSE instruction should be lowercase",
    ),
    (
        "ExposeInvalidFormat",
        "FROM scratch\nEXPOSE 127.0.0.1:80:80\n",
        &[2],
        "EXPOSE instruction should not define an IP address or host-port mapping, found '127.0.0.1:80:80'",
    ),
    (
        "InvalidDefinitionDescription",
        "# check=experimental=InvalidDefinitionDescription\n# bar is a stage\nFROM scratch AS foo\n",
        &[3],
        "Comment for FROM should follow the format: `# foo <description>`",
    ),
];

#[test]
fn every_rule_is_told_with_its_place() {
    let host = Host::new();
    let mut wrong = Vec::new();
    for (rule, text, lines, detail) in BROKEN {
        let folder =
            host.folder_with(rule, &[("Dockerfile", text), (".dockerignore", "ignored\n"), ("ignored", "")]);
        let told = host.docker(&["build", "--call", "check,format=json", &folder.display().to_string()]);
        let found: Value = serde_json::from_str(&told.stdout).unwrap_or_default();
        let of_rule = found["warnings"].as_array().into_iter().flatten().find(|w| w["ruleName"] == rule);
        let Some(warning) = of_rule else {
            wrong.push(format!("{rule}: {told}"));
            continue;
        };
        let ranges = warning["location"]["ranges"].as_array().into_iter().flatten();
        let at: Vec<i64> = ranges.filter_map(|range| range["start"]["line"].as_i64()).collect();
        if (warning["detail"].as_str(), at.as_slice()) != (Some(detail), lines) {
            wrong.push(format!("{rule}: {warning}"));
        }
        let page = warning["url"].as_str().unwrap_or_default();
        if !page.starts_with("https://docs.docker.com/go/dockerfile/rule/") {
            wrong.push(format!("{rule}, without a page: {warning}"));
        }
        // A rule that is left out says nothing.
        let plain = text.strip_prefix(&format!("# check=experimental={rule}\n")).unwrap_or(text);
        let skipped = format!("# check=skip={rule}\n{plain}");
        let folder = host.folder_with(
            &format!("{rule}-skipped"),
            &[("Dockerfile", &skipped), (".dockerignore", "ignored\n"), ("ignored", "")],
        );
        let told = host.docker(&["build", "--call", "check,format=json", &folder.display().to_string()]);
        let found: Value = serde_json::from_str(&told.stdout).unwrap_or_default();
        let is_told = found["warnings"].as_array().into_iter().flatten().any(|w| w["ruleName"] == rule);
        if !found.is_object() || is_told {
            wrong.push(format!("{rule}, skipped: {told}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn warnings_can_be_errors() {
    let host = Host::new();
    let folder = host
        .folder_with("e", &[("Dockerfile", "# check=error=true\nFROM scratch AS One\nCOPY Dockerfile /\n")]);
    let told = super::build(&host, "", &folder).exits(1).stderr;
    crate::buildkit::has(&told, &["failed to solve: lint violation found for rules: StageNameCasing"]);
    let folder = host.folder_with("a", &[("Dockerfile", "FROM scratch AS One\nCOPY Dockerfile /\n")]);
    let told = super::build(&host, "--build-arg BUILDKIT_DOCKERFILE_CHECK=skip=all;error=true", &folder);
    told.ok();
}
