//! Dockerfiles and `.dockerignore`: read, planned for both builders, and every plan can be run in its order.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wherry_dockerfile::plan::{Frontend, ImageConfig, Planner, Request, Root, SuppliedImage};
use wherry_dockerfile::{Dockerfile, Ignore, parse_changes};

fuzz_target!(|text: &str| {
    let _ = parse_changes(&[text]);
    if let Ok(ignore) = Ignore::parse(text) {
        for path in text.lines().take(4) {
            assert!(!ignore.can_skip(path) || ignore.is_ignored(path));
        }
    }
    let lines = text.split('\n').count();
    let file = match Dockerfile::parse(text) {
        Ok(file) => file,
        Err(error) => {
            assert!(error.lines.iter().all(|at| at.first <= at.last && at.last <= lines), "{error:?}");
            return;
        }
    };
    for frontend in [Frontend::BuildKit, Frontend::Classic] {
        let mut request = Request::new(frontend, |text| !text.is_empty());
        request.build_args.insert("A".into(), "b c".into());
        plan(Planner::new(file.clone(), request));
    }
});

fn plan(mut planner: Planner) {
    while let Ok(missing) = planner.missing() {
        if missing.is_empty() {
            break;
        }
        for need in missing {
            let on_build = vec!["COPY --from=tool /a /b".into(), "ENV B=$A".into()];
            let config = ImageConfig { on_build, ..ImageConfig::default() };
            let platform = need.platform.clone();
            planner.supply(need.id, SuppliedImage { config, platform, digest: None });
        }
    }
    let Ok(plan) = planner.finish() else { return };
    for (id, step) in plan.steps.iter().enumerate() {
        let later = |root: &&Root| matches!(root, Root::Step(other) if *other >= id);
        assert!(!step.inputs().iter().any(later), "step {id} comes before its input");
    }
    assert!(plan.lineage(plan.target).is_sorted());
}
