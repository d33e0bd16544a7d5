//! What must hold for every text.

// A failed expectation is the test's result.
#![allow(clippy::expect_used, clippy::unwrap_used)]

use proptest::prelude::*;
use wherry_dockerfile::plan::{Frontend, ImageConfig, Plan, Planner, Request, Root, SuppliedImage};
use wherry_dockerfile::{Change, Dockerfile, Ignore, Instruction, glob::Glob};

/// Words of which Dockerfiles are made, and some that break them.
fn word() -> impl Strategy<Value = String> {
    let words = [
        "FROM a",
        "FROM a AS b",
        "from b",
        "RUN x",
        "RUN --mount=type=cache,target=/c",
        "COPY",
        "--from=b",
        "ADD",
        "ENV",
        "A=1",
        "ARG",
        "B=$A",
        "${A:-x}",
        "${A#*}",
        "LABEL",
        "EXPOSE 80",
        "CMD [\"a\"]",
        "ENTRYPOINT",
        "WORKDIR /w",
        "USER",
        "VOLUME [\"/v\"]",
        "HEALTHCHECK --retries=1 CMD",
        "ONBUILD",
        "SHELL [\"s\"]",
        "STOPSIGNAL 9",
        "MAINTAINER",
        "<<EOF",
        "EOF",
        "<<-'E'",
        "E",
        "\n",
        "\\\n",
        "# escape=`\n",
        "# c\n",
        "#",
        "\"",
        "'",
        "$",
        "{",
        "}",
        "\\",
        " ",
        "\t",
        "é",
        "\u{feff}",
        "http://h/f",
        "https://h/a.git#b",
        "--chmod=7",
        "a",
        "/b/",
        "*",
        "[",
        "\r\n",
    ];
    prop::sample::select(words.to_vec()).prop_map(str::to_owned)
}

fn text() -> impl Strategy<Value = String> {
    let glue = prop::sample::select(vec![" ", "", "\n"]);
    prop::collection::vec((word(), glue), 0..40)
        .prop_map(|words| words.into_iter().map(|(word, glue)| word + glue).collect())
}

fn planned(text: &str, frontend: Frontend) -> Option<Plan> {
    let file = Dockerfile::parse(text).ok()?;
    let mut planner = Planner::new(file, Request::new(frontend, |text| !text.is_empty()));
    loop {
        let missing = planner.missing().ok()?;
        if missing.is_empty() {
            return planner.finish().ok();
        }
        for need in missing {
            let config = ImageConfig { on_build: vec!["RUN trigger".into()], ..ImageConfig::default() };
            let platform = need.platform.clone();
            planner.supply(need.id, SuppliedImage { config, platform, digest: None });
        }
    }
}

fn check_plan(plan: &Plan) {
    for (id, step) in plan.steps.iter().enumerate() {
        assert!(step.stage < plan.stages.len());
        for input in step.inputs() {
            match input {
                Root::Step(other) => assert!(*other < id, "step {id} comes before its input {other}"),
                Root::Image(image) => assert!(*image < plan.images.len()),
                Root::Scratch | Root::Context(_) => {}
            }
        }
    }
    let mut placed: Vec<usize> = plan.stages.iter().flat_map(|stage| stage.steps.clone()).collect();
    placed.sort_unstable();
    assert_eq!(placed, (0..plan.steps.len()).collect::<Vec<_>>(), "each step is in one stage");
    let lineage = plan.lineage(plan.target);
    assert!(lineage.is_sorted());
}

/// `filepath.Match`, written the slow and plain way.
fn matches_plainly(pattern: &[char], path: &[char]) -> bool {
    match (pattern, path) {
        ([], []) => true,
        (['*', rest @ ..], _) => {
            matches_plainly(rest, path)
                || matches!(path, [c, tail @ ..] if *c != '/' && matches_plainly(pattern, tail))
        }
        (['?', rest @ ..], [c, tail @ ..]) => *c != '/' && matches_plainly(rest, tail),
        ([p, rest @ ..], [c, tail @ ..]) => p == c && matches_plainly(rest, tail),
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_text_breaks_the_parser(text in text()) {
        let lines = text.split('\n').count().max(1);
        match Dockerfile::parse(&text) {
            Err(error) => prop_assert!(error.lines.iter().all(|at| at.first <= at.last && at.last <= lines)),
            Ok(file) => {
                let sources = file.stages.iter().flat_map(|stage| stage.statements.iter().map(|s| &s.source));
                let mut last = 0;
                for at in sources.map(|source| source.lines) {
                    prop_assert!(last < at.first && at.first <= at.last && at.last <= lines);
                    last = at.last;
                }
            }
        }
    }

    #[test]
    fn every_plan_can_be_run_in_its_order(text in text()) {
        for frontend in [Frontend::BuildKit, Frontend::Classic] {
            if let Some(plan) = planned(&format!("FROM a AS b\n{text}"), frontend) {
                check_plan(&plan);
            }
        }
    }

    #[test]
    fn no_bytes_break_it(text in "\\PC*") {
        let _ = planned(&format!("FROM a\nENV A=1\n{text}"), Frontend::BuildKit);
        let _ = Ignore::parse(&text).map(|ignore| ignore.is_ignored(&text) & ignore.can_skip(&text));
    }

    #[test]
    fn a_quoted_value_stays_what_it_is(value in "[^\\x00-\\x1f']*") {
        let file = Dockerfile::parse(&format!("FROM a\nENV A='{value}'\n")).unwrap();
        let statement = &file.stages[0].statements[0];
        let Instruction::Change(change) = statement.instruction.clone() else { panic!() };
        let Change::Env(pairs) = change.expand(&[], '\\').unwrap() else { panic!() };
        prop_assert_eq!(&pairs[0].value, &value);
    }

    #[test]
    fn patterns_match_as_the_plain_way(pattern in "[ab*?/]{0,8}", path in "[ab/]{0,8}") {
        let chars = |text: &str| text.chars().collect::<Vec<_>>();
        let expect = matches_plainly(&chars(&pattern), &chars(&path));
        prop_assert_eq!(Glob::parse(&pattern).unwrap().matches(&path), expect);
    }

    #[test]
    fn nothing_in_a_skipped_folder_is_kept(
        patterns in prop::collection::vec("!?[ab*]{1,3}(/[ab*]{1,3}){0,2}", 1..5),
        folder in "[ab]{1,2}(/[ab]){0,2}",
        below in "[ab]{1,2}(/[ab]){0,2}",
    ) {
        let ignore = Ignore::of(&patterns).unwrap();
        if ignore.can_skip(&folder) {
            let path = format!("{folder}/{below}");
            prop_assert!(ignore.is_ignored(&path), "{patterns:?} {path}");
        }
    }
}
