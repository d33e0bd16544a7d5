//! Plans, with the answers of dockerd 28.5.2 (its BuildKit, and its classic builder).

// A failed expectation is the test's result.
#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::collections::BTreeMap;

use wherry_dockerfile::plan::{
    Action, Frontend, ImageConfig, Plan, Planner, Platform, Request, Root, SuppliedImage, TransferSource,
};
use wherry_dockerfile::{Dockerfile, MountKind};

fn config(env: &[&str], on_build: &[&str]) -> ImageConfig {
    let strings = |of: &[&str]| of.iter().map(|text| (*text).to_owned()).collect();
    ImageConfig {
        env: strings(env),
        on_build: strings(on_build),
        cmd: Some(vec!["sh".into()]),
        ..ImageConfig::default()
    }
}

fn request(frontend: Frontend, args: &[(&str, &str)]) -> Request {
    let mut request = Request::new(frontend, |text| text.starts_with("SIG"));
    request.build_platform = "linux/amd64".parse().unwrap();
    request.build_args = args.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    request
}

/// Plans with images that are all alike but for their triggers.
fn plan_with(
    text: &str,
    request: Request,
    on_build: &BTreeMap<&str, Vec<&str>>,
) -> Result<(Plan, Vec<String>), String> {
    let file = Dockerfile::parse(text).map_err(|error| error.to_string())?;
    let mut planner = Planner::new(file, request);
    loop {
        let missing = planner.missing().map_err(|error| error.to_string())?;
        if missing.is_empty() {
            break;
        }
        for need in missing {
            let triggers = on_build.get(need.written.as_str()).cloned().unwrap_or_default();
            let config = config(&["PATH=/bin"], &triggers);
            let platform = need.platform.clone();
            planner.supply(need.id, SuppliedImage { config, platform, digest: None });
        }
    }
    let plan = planner.finish().map_err(|error| error.to_string())?;
    Ok((plan, planner.warnings().iter().map(|warning| warning.short()).collect()))
}

fn plan(text: &str) -> Plan {
    plan_with(text, request(Frontend::BuildKit, &[]), &BTreeMap::new()).unwrap().0
}

fn names(plan: &Plan) -> Vec<&str> {
    let from = plan.stages.iter().filter_map(|stage| stage.from_name.as_deref());
    from.chain(plan.steps.iter().filter_map(|step| step.name.as_deref())).collect()
}

fn created_by(plan: &Plan) -> Vec<&str> {
    let steps = plan.lineage(plan.target);
    steps.iter().filter_map(|&id| plan.steps[id].history.created_by.as_deref()).collect()
}

#[test]
fn a_base_of_another_platform_is_told() {
    let file = Dockerfile::parse("FROM --platform=linux/arm64 busybox\n").unwrap();
    let mut planner = Planner::new(file, request(Frontend::BuildKit, &[]));
    for need in planner.missing().unwrap() {
        let platform: Platform = "linux/amd64".parse().unwrap();
        planner.supply(need.id, SuppliedImage { config: config(&[], &[]), platform, digest: None });
    }
    planner.finish().unwrap();
    let warnings: Vec<String> = planner.warnings().iter().map(|warning| warning.short()).collect();
    let expect = "InvalidBaseImagePlatform: Base image busybox was pulled with platform \"linux/amd64\", expected \"linux/arm64\" for \
                  current build (line 1)";
    assert!(warnings.iter().any(|warning| warning == expect), "{warnings:?}");
}

#[test]
fn one_stage_has_names_histories_and_a_configuration() {
    let text = r#"FROM busybox
ENV X=1
ARG X=2
RUN echo $X; env
WORKDIR /a/../b/
WORKDIR c/..
HEALTHCHECK --retries=65 --interval=1m30s CMD ["a","b c"]
ENTRYPOINT ["x","\\u00e9\"\n"]
VOLUME /a /b
SHELL ["/bin/sh","-c"]
EXPOSE 90/UDP 80-82
LABEL a="b c" d=$X
COPY --chown=1:2 --chmod=644 a /x/.
"#;
    let mut request = request(Frontend::BuildKit, &[]);
    request.labels.insert("foo".into(), "bar".into());
    let (plan, warnings) = plan_with(text, request, &BTreeMap::new()).unwrap();
    let expect = [
        "[1/5] FROM docker.io/library/busybox:latest",
        "[2/5] RUN echo 2; env",
        "[3/5] WORKDIR /a/../b/",
        "[4/5] WORKDIR c/..",
        "[5/5] COPY --chown=1:2 --chmod=644 a /x/.",
    ];
    assert_eq!(names(&plan), expect);
    let expect = [
        "ENV X=1",
        "ARG X=2",
        "RUN |1 X=2 /bin/sh -c echo $X; env # buildkit",
        "WORKDIR /a/../b/",
        "WORKDIR /b",
        r#"HEALTHCHECK &{["CMD" "a" "b c"] "1m30s" "0s" "0s" "0s" 'A'}"#,
        r#"ENTRYPOINT ["x" "\\u00e9\"\n"]"#,
        "VOLUME [/a /b]",
        "SHELL [/bin/sh -c]",
        "EXPOSE [80/tcp 81/tcp 82/tcp 90/udp]",
        "LABEL a=b c d=2",
        "COPY --chown=1:2 --chmod=644 a /x/. # buildkit",
    ];
    assert_eq!(created_by(&plan), expect);
    let casing =
        "ExposeProtoCasing: Defined protocol '90/UDP' in EXPOSE instruction should be lowercase (line 11)";
    assert_eq!(warnings, [casing]);
    let config = &plan.stages[plan.target].config;
    assert_eq!((config.env.join(" "), config.working_dir.as_str()), ("PATH=/bin X=1".into(), "/b"));
    assert_eq!(config.labels["foo"], "bar");
    assert_eq!(config.cmd, None);
    let Action::Run(run) = &plan.steps[2].action else { panic!() };
    assert_eq!(run.env, ["PATH=/bin", "X=2"]);
    let Action::Transfer(copy) = &plan.steps.last().unwrap().action else { panic!() };
    assert_eq!(copy.destination, "/x/");
}

#[test]
fn stages_that_nobody_needs_are_left_out() {
    let text = "FROM a AS one\nRUN 1\nFROM b AS two\nRUN 2\nFROM one\nCOPY --from=c /x /y\nRUN --mount=from=two,target=/t 3\n";
    let plan = plan(text);
    let expect = [
        "[one 1/2] FROM docker.io/library/a:latest",
        "[two 1/2] FROM docker.io/library/b:latest",
        "[one 2/2] RUN 1",
        "[two 2/2] RUN 2",
        "[stage-2 1/2] COPY --from=c /x /y",
        "[stage-2 2/2] RUN --mount=from=two,target=/t 3",
    ];
    assert_eq!(names(&plan), expect);
    assert_eq!(plan.images.len(), 3);
    let last = plan.steps.last().unwrap();
    assert_eq!(last.inputs(), [&Root::Step(2), &Root::Step(1)]);
    assert_eq!(plan.lineage(plan.target), [0, 2, 3]);
    let mut only_one = request(Frontend::BuildKit, &[]);
    only_one.target = "ONE".into();
    let (plan, _) = plan_with(text, only_one, &BTreeMap::new()).unwrap();
    assert_eq!((plan.stages.len(), plan.images.len()), (1, 1));
}

#[test]
fn arguments_have_scopes() {
    let text = "ARG BASE=busybox TAG\nARG FULL=$BASE:${TAG:-9}\nFROM $FULL AS first\nARG TAG\nARG D=${TAG}x\nENV E=$D\nRUN a\nFROM first\nRUN b\n";
    let (plan, warnings) =
        plan_with(text, request(Frontend::BuildKit, &[("TAG", "7")]), &BTreeMap::new()).unwrap();
    assert!(warnings.is_empty(), "{warnings:?}");
    assert_eq!(plan.images[0].reference, "docker.io/library/busybox:7");
    let expect = [
        "ARG TAG=7",
        "ARG D=7x",
        "ENV E=7x",
        "RUN |2 TAG=7 D=7x /bin/sh -c a # buildkit",
        "RUN |2 TAG=7 D=7x /bin/sh -c b # buildkit",
    ];
    assert_eq!(created_by(&plan), expect);
    let text =
        "FROM --platform=$BUILDPLATFORM busybox\nARG TARGETPLATFORM TARGETARCH\nARG HTTP_PROXY\nRUN a\n";
    let mut cross = request(Frontend::BuildKit, &[("http_proxy", "p")]);
    cross.platform = Some("linux/arm64".parse().unwrap());
    let (plan, _) = plan_with(text, cross, &BTreeMap::new()).unwrap();
    assert_eq!(plan.images[0].platform, "linux/amd64".parse::<Platform>().unwrap());
    let Action::Run(run) = &plan.steps.last().unwrap().action else { panic!() };
    assert_eq!(run.env, ["PATH=/bin", "TARGETPLATFORM=linux/arm64", "TARGETARCH=arm64"]);
    assert_eq!(run.proxy, ["HTTP_PROXY=p", "http_proxy=p"]);
}

#[test]
fn triggers_come_first_and_may_need_more_images() {
    let triggers = [("parent", vec!["COPY --from=tool /t /t", "RUN trigger $A", "ENV A=1"])];
    let text = "FROM parent AS base\nONBUILD RUN later\nRUN own\nFROM base\n";
    let (plan, _) = plan_with(text, request(Frontend::BuildKit, &[]), &BTreeMap::from(triggers)).unwrap();
    let expect = [
        "[base 1/2] FROM docker.io/library/parent:latest",
        "[base 2/5] ONBUILD COPY --from=tool /t /t",
        "[base 3/5] ONBUILD RUN trigger $A",
        "[base 4/5] RUN own",
        "[stage-1 1/1] ONBUILD RUN later",
    ];
    assert_eq!(names(&plan), expect);
    assert_eq!(plan.images[1].reference, "docker.io/library/tool:latest");
    assert_eq!(plan.stages[0].config.on_build, ["RUN later"]);
    assert!(plan.stages[1].config.on_build.is_empty());
}

#[test]
fn mounts_and_documents_are_completed() {
    let text = "FROM a\nWORKDIR /w\nENV T=/t\nRUN --mount=type=cache,target=c --mount=type=secret,id=k/s,env= --mount=target=$T <<EOF\nx\ny\nEOF\nRUN <<'E'\n#!/bin/py\nz\nE\nCOPY <<a.txt b /d\n$T '\na.txt\n";
    let plan = plan(text);
    let Action::Run(run) = &plan.steps[2].action else { panic!() };
    assert_eq!(run.args, ["/bin/sh", "-c", "x\ny\n"]);
    let kinds: Vec<MountKind> = run.mounts.iter().map(|mount| mount.mount.kind).collect();
    assert_eq!(kinds, [MountKind::Cache, MountKind::Secret, MountKind::Bind]);
    assert_eq!((run.mounts[0].mount.target.as_str(), run.mounts[0].mount.id.as_str()), ("/w/c", "c"));
    assert_eq!(run.mounts[1].mount.env.as_deref(), Some("k/s"));
    assert_eq!((run.mounts[2].mount.target.as_str(), &run.mounts[2].root), ("/t", &Root::Context(None)));
    let name = "[stage-0 3/5] RUN --mount=type=cache,target=c --mount=type=secret,id=k/s,env= --mount=target=/t <<EOF (x...)";
    assert_eq!(plan.steps[2].name.as_deref(), Some(name));
    let Action::Run(script) = &plan.steps[3].action else { panic!() };
    assert_eq!(script.args, ["/bin/sh", "-c", "/dev/pipes/E"]);
    assert_eq!(script.script.as_ref().unwrap().content, "#!/bin/py\nz\n");
    let Action::Transfer(copy) = &plan.steps[4].action else { panic!() };
    let TransferSource::Inline(file) = &copy.sources[1] else { panic!() };
    assert_eq!((file.name.as_str(), file.content.as_str()), ("a.txt", "/t '\n"));
    assert_eq!(copy.destination, "/d");
}

#[test]
fn errors_are_buildkits() {
    let fails = |text: &str, expect: &str| {
        let result = plan_with(text, request(Frontend::BuildKit, &[]), &BTreeMap::new());
        assert_eq!(result.map(drop).expect_err(text), expect, "{text}");
    };
    let name = "failed to parse stage name \"Base\": invalid reference format: repository name (library/Base) must be lowercase";
    fails("FROM busybox AS base\nFROM Base\n", name);
    fails("FROM a\nCOPY --chmod=foo a /x\n", "invalid syntax");
    fails(
        "FROM a\nCOPY --chmod=99 a /x\n",
        "invalid chmod parameter: '99'. it should be octal string and between 0 and 07777",
    );
    fails("FROM a\nCOPY --from=1 a /x\n", "invalid stage index 1");
    fails("FROM a\nSTOPSIGNAL FOO\n", "invalid signal: FOO");
    let circle = "circular dependency detected on stage: a";
    fails("FROM x AS a\nCOPY --from=b /b /x\nFROM x AS b\nCOPY --from=a /b /x\n", circle);
    fails("FROM a\nRUN --mount=type=bnd x\n", "unsupported mount type \"bnd\" (did you mean bind?)");
    fails("FROM $X\n", "base name ($X) should not be blank");
    fails("FROM a\nCOPY http://x/y /\n", "source can't be a URL for COPY");
}

#[test]
fn what_would_grow_without_end_is_refused() {
    let fails = |text: &str, expect: &str| {
        let result = plan_with(text, request(Frontend::BuildKit, &[]), &BTreeMap::new());
        let error = result.map(drop).expect_err(expect);
        assert!(error.contains(expect), "{}", &error[..error.len().min(200)]);
    };
    let too_much = "variables make more than 1048576 bytes of it";
    fails(&format!("FROM a\nENV A=x\n{}", "ENV A=$A$A\n".repeat(40)), too_much);
    let word = "y".repeat(60_000);
    let long = format!("FROM a\nENV A={}\nENV B=${{A//x/{word}}}\n", "x".repeat(60_000));
    fails(&long, too_much);
    let large = |keyword: &str| {
        let (first, ten) = ("v".repeat(60_000), "$V".repeat(10));
        format!("{keyword} V={first}\n{keyword} A={ten}")
    };
    let (env, arg) = (large("ENV"), large("ARG"));
    fails(&format!("FROM a\n{env}\nENV B1=$A B2=$A\n"), too_much);
    fails(&format!("FROM a\n{arg}\nARG B1=$A B2=$A\n"), too_much);
    fails(&format!("{arg}\nARG B1=$A\nARG B2=$A\nFROM a\n"), too_much);
    let too_large = "what its instructions set takes more than 268435456 bytes, all steps together";
    let ports = "1-65535 1-65535/udp 1-65535/sctp";
    let envs: String = (0..990).map(|number| format!("ENV A{number}=1\n")).collect();
    fails(&format!("FROM a\nEXPOSE {ports}\n{envs}"), too_large);
    let envs: String = (0..20).map(|number| format!("ENV A{number}=$A\n")).collect();
    let runs = "RUN true\n".repeat(400);
    fails(&format!("FROM a\n{arg}\n{envs}{runs}"), too_large);
    let args: String = (0..20).map(|number| format!("ARG A{number}=$A\n")).collect();
    let stages: String = (0..100).map(|number| format!("FROM s{number} AS s{}\n", number + 1)).collect();
    fails(&format!("FROM a AS s0\n{arg}\n{args}{stages}"), too_large);
    fails(&format!("{arg}\nFROM a\nARG {}\n", "A ".repeat(1000)), too_large);
    plan(&format!("FROM a\nEXPOSE {ports}\n{}", "RUN true\n".repeat(30)));
    plan(&format!("FROM a\n{}", "ENV A=1\n".repeat(999)));
    let many = "more than 1000 instructions or ports are not supported by this engine";
    fails(&format!("FROM a\n{}", "ENV A=1\n".repeat(1000)), many);
    let chain = "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed";
    fails(&format!("FROM a\n{}RUN x\n", "ONBUILD ".repeat(8_000)), chain);
    plan("FROM a\nEXPOSE 1-65535 1-65535/udp 1-65535/sctp\n");
    fails(&format!("FROM a\nEXPOSE {}\n", "1-65535 ".repeat(4)), "more than 196605 instructions or ports");
    fails("FROM a\nRUN --device=x.org/y=z true\n", "RUN --device=x.org/y=z is not supported by this engine");
}

#[test]
fn the_classic_builder_counts_and_remembers_otherwise() {
    let text = "ARG V=latest\nFROM busybox:$V AS a\nENV A=9\nONBUILD ENV Q=1\nFROM a\nARG A=1 B=${A}2\nARG V\nRUN echo\n\
                HEALTHCHECK --retries=3 CMD [\"x\"]\nHEALTHCHECK NONE\nSHELL [\"/bin/sh\",\"-e\"]\nWORKDIR /w/../q/\n\
                COPY --chown=1 a /x/\nCMD\nENTRYPOINT []\n";
    let mut request = request(Frontend::Classic, &[("HTTP_PROXY", "p"), ("UNUSED", "1")]);
    request.labels.insert("l".into(), "$m".into());
    let (plan, warnings) = plan_with(text, request, &BTreeMap::new()).unwrap();
    assert!(warnings.is_empty());
    let steps = plan.steps.iter().filter_map(|step| step.classic.as_ref());
    let stages = plan.stages.iter().map(|stage| &stage.classic);
    let mut printed: Vec<_> = plan.classic_globals.iter().chain(stages).chain(steps).collect();
    printed.sort_by_key(|step| step.number);
    assert!(printed.iter().all(|step| step.total == 16));
    assert_eq!(printed.iter().map(|step| step.number).collect::<Vec<_>>(), (1..=16).collect::<Vec<_>>());
    assert_eq!(printed[15].text, "LABEL l=$m");
    assert_eq!(plan.unused_args, ["UNUSED"]);
    let steps = plan.lineage(plan.target);
    let history: Vec<String> =
        steps.iter().map(|&id| plan.steps[id].history.classic.text("dir:12")).collect();
    let expect = [
        "/bin/sh -c #(nop)  ENV A=9",
        "/bin/sh -c #(nop)  ONBUILD ENV Q=1",
        "/bin/sh -c #(nop)  ENV Q=1",
        "/bin/sh -c #(nop)  ARG A=1 B=92",
        "/bin/sh -c #(nop)  ARG V",
        "|2 B=92 V=latest /bin/sh -c echo",
        "/bin/sh -c #(nop)  HEALTHCHECK &{[CMD x] 0s 0s 0s 0s 3}",
        "/bin/sh -c #(nop)  HEALTHCHECK &{[NONE] 0s 0s 0s 0s 0}",
        "/bin/sh -e #(nop)  SHELL [/bin/sh -e]",
        "/bin/sh -e #(nop) WORKDIR /q",
        "/bin/sh -e #(nop) COPY --chown=1 dir:12 in /x/ ",
        "/bin/sh -e #(nop)  CMD [\"/bin/sh\" \"-e\"]",
        "/bin/sh -e #(nop)  ENTRYPOINT []",
        "/bin/sh -e #(nop)  LABEL l=$m",
    ];
    assert_eq!(history, expect);
    let config = &plan.stages[plan.target].config;
    assert_eq!((&config.cmd, &config.entrypoint), (&None, &None));
    assert_eq!(config.healthcheck.as_ref().map(|check| check.retries), Some(3));
    let Action::Run(run) = &plan.steps[5].action else { panic!() };
    assert_eq!(run.env, ["PATH=/bin", "A=9", "Q=1", "B=92", "V=latest", "HTTP_PROXY=p"]);
}

#[test]
fn the_classic_builder_refuses_what_it_does_not_know() {
    let fails = |text: &str, expect: &str| {
        let result = plan_with(text, request(Frontend::Classic, &[]), &BTreeMap::new());
        // Most of it is found out at the step, and no other comes after that.
        let refused = match result.map(|(plan, _)| plan.steps.last().map(|step| step.action.clone())) {
            Ok(Some(Action::Refused(error))) => error.to_string(),
            result => result.map(drop).expect_err(text).to_string(),
        };
        assert_eq!(refused, expect, "{text}");
    };
    let mount = "the --mount option requires BuildKit. Refer to https://docs.docker.com/go/buildkit/ to learn how to build images with BuildKit enabled";
    fails("FROM a\nRUN --mount=target=/x true\n", mount);
    fails("FROM a AS x\nFROM b AS X\n", "x stage name already used");
    fails("FROM a\nCOPY --from=0 a /x\n", "invalid from flag value 0: refers to current build stage");
    fails("FROM a\nCOPY --from=3 a /x\n", "invalid from flag value 3: index out of bounds");
    fails("FROM a\nEXPOSE x\n", "Invalid containerPort: x");
    fails("FROM a\nWORKDIR \"\"\n", "cannot normalize nothing");
}
