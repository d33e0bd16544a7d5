//! Questions about a Dockerfile instead of a build of it: `--check`, `--call targets`, `--call outline`.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wherry_buildkit::errdefs;
use wherry_buildkit::grpc::Status;
use wherry_dockerfile::plan::{Frontend, ImageConfig, Planner, Request, SuppliedImage};
use wherry_dockerfile::{Dockerfile, Ignore, Instruction, Lines, Source, Stage, Warning};

use super::attributes::Wanted;
use super::failure;
use super::files::Definition;
use crate::build::convert;
use crate::containers::signals;
use crate::engine::Engine;

/// The answer's metadata.
pub(super) type Metadata = BTreeMap<String, Vec<u8>>;

/// Answers a question.
///
/// # Errors
/// A question that is not known; what is wrong with the Dockerfile.
pub(super) fn answer(
    engine: &Engine,
    question: &str,
    wanted: &Wanted,
    definition: &Definition,
    ignore: Option<&str>,
) -> Result<Metadata, Status> {
    match question {
        "frontend.subrequests.describe" => Ok(document(&describe())),
        "frontend.targets" => Ok(document(&targets(&parse(definition)?, definition))),
        "frontend.outline" => {
            outline(&parse(definition)?, wanted, definition).map(|outline| document(&outline))
        }
        "frontend.lint" => Ok(lint(engine, wanted, definition, ignore)),
        other => {
            let mut status = Status::unknown(format!("unsupported request {other}"));
            status.details.push(errdefs::subrequest(other));
            Err(status)
        }
    }
}

fn document(value: &Value) -> Metadata {
    let text = serde_json::to_vec_pretty(value).unwrap_or_default();
    BTreeMap::from([("result.json".to_owned(), text), ("version".to_owned(), b"1.0.0".to_vec())])
}

fn parse(definition: &Definition) -> Result<Dockerfile, Status> {
    Dockerfile::parse(&definition.text).map_err(|error| failure::of_dockerfile(&error, definition))
}

fn describe() -> Value {
    let known = [
        ("frontend.outline", "List all parameters current build target supports"),
        ("frontend.targets", "List all targets current build supports"),
        ("frontend.lint", "Lint a Dockerfile"),
    ];
    let known = known.map(|(name, description)| {
        json!({ "Name": name, "Version": "1.0.0", "Type": "rpc", "Description": description, "Opts": [], "Metadata": [] })
    });
    json!(known)
}

fn location(lines: Lines) -> Value {
    json!({ "ranges": [{ "start": { "line": lines.first }, "end": { "line": lines.last } }] })
}

/// The text of the comment before a statement that begins with a name: what the name is for.
fn description(source: &Source, name: &str) -> Option<String> {
    let about =
        source.comments.iter().find_map(|comment| comment.trim().strip_prefix(name)?.strip_prefix(' '));
    about.map(|text| text.trim().to_owned())
}

fn sources(definition: &Definition) -> Value {
    use base64::Engine as _;
    json!([base64::engine::general_purpose::STANDARD.encode(&definition.text)])
}

fn targets(file: &Dockerfile, definition: &Definition) -> Value {
    let last = file.stages.len().saturating_sub(1);
    let targets: Vec<_> = file
        .stages
        .iter()
        .enumerate()
        .map(|(number, stage)| {
            let mut target = serde_json::Map::new();
            if let Some(name) = &stage.name {
                target.insert("name".into(), json!(name));
                if let Some(text) = description(&stage.source, name) {
                    target.insert("description".into(), json!(text));
                }
            }
            if number == last {
                target.insert("default".into(), json!(true));
            }
            target.insert("base".into(), json!(stage.base));
            if let Some(platform) = &stage.platform {
                target.insert("platform".into(), json!(platform));
            }
            target.insert("location".into(), location(stage.source.lines));
            Value::Object(target)
        })
        .collect();
    json!({ "targets": targets, "sources": sources(definition) })
}

/// The stage of a name or number.
fn stage_of(file: &Dockerfile, target: &str) -> Option<usize> {
    if target.is_empty() {
        return file.stages.len().checked_sub(1);
    }
    let is_named =
        |stage: &Stage| stage.name.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(target));
    let named = file.stages.iter().position(is_named);
    named.or_else(|| target.parse().ok().filter(|number| *number < file.stages.len()))
}

/// What can be given to a build: the arguments of its stages, and the secrets and agents that its commands use.
fn outline(file: &Dockerfile, wanted: &Wanted, definition: &Definition) -> Result<Value, Status> {
    let target = stage_of(file, &wanted.target).ok_or_else(|| {
        Status::unknown(format!("target stage {} could not be found", crate::text::go_quote(&wanted.target)))
    })?;
    let mut stages = vec![target];
    // The stages that it begins from, of which each is before the one that names it.
    while let Some(stage) = stages.last().and_then(|number| file.stages.get(*number)) {
        let before = stages.last().copied().unwrap_or_default();
        match stage_of(file, &stage.base).filter(|number| *number < before) {
            Some(number) => stages.push(number),
            None => break,
        }
    }
    let (mut args, mut secrets, mut agents) = (Vec::new(), Vec::new(), Vec::new());
    let mut seen = std::collections::BTreeSet::new();
    for stage in stages.iter().rev().filter_map(|number| file.stages.get(*number)) {
        for statement in &stage.statements {
            let at = statement.source.lines;
            match &statement.instruction {
                Instruction::Arg(declared) => {
                    for arg in declared.iter().filter(|arg| seen.insert(arg.name.clone())) {
                        let mut shown = serde_json::Map::new();
                        shown.insert("name".into(), json!(arg.name));
                        if let Some(text) = description(&statement.source, &arg.name) {
                            shown.insert("description".into(), json!(text));
                        }
                        let value = wanted.build_args.get(&arg.name).cloned().or_else(|| arg.default.clone());
                        if let Some(value) = value.filter(|value| !value.is_empty()) {
                            shown.insert("value".into(), json!(value));
                        }
                        shown.insert("location".into(), location(at));
                        args.push(Value::Object(shown));
                    }
                }
                Instruction::Run(run) => {
                    for mount in &run.mounts {
                        let field =
                            |key: &str| mount.split(',').find_map(|f| f.strip_prefix(key)?.strip_prefix('='));
                        let list = match field("type") {
                            Some("secret") => &mut secrets,
                            Some("ssh") => &mut agents,
                            _ => continue,
                        };
                        let target = || field("target").and_then(|target| target.rsplit('/').next());
                        let name = field("id").or_else(target).unwrap_or("default");
                        let is_required = matches!(field("required"), Some("true" | "1"));
                        let mut shown = json!({ "name": name, "location": location(at) });
                        if let Some(fields) = shown.as_object_mut().filter(|_| is_required) {
                            fields.insert("required".into(), json!(true));
                        }
                        list.push(shown);
                    }
                }
                _ => {}
            }
        }
    }
    let mut outline = serde_json::Map::new();
    let stage = file.stages.get(target);
    if let Some((stage, name)) = stage.and_then(|stage| Some((stage, stage.name.as_ref()?))) {
        outline.insert("name".into(), json!(name));
        if let Some(text) = description(&stage.source, name) {
            outline.insert("description".into(), json!(text));
        }
    }
    for (key, list) in [("args", args), ("secrets", secrets), ("ssh", agents)] {
        if !list.is_empty() {
            outline.insert(key.into(), json!(list));
        }
    }
    outline.insert("sources".into(), sources(definition));
    Ok(Value::Object(outline))
}

/// Looks at the whole file. Images that are not here are taken to say nothing: a check brings none.
fn lint(engine: &Engine, wanted: &Wanted, definition: &Definition, ignore: Option<&str>) -> Metadata {
    let (warnings, error) = match Dockerfile::parse(&definition.text) {
        Err(error) => (Vec::new(), Some(error)),
        Ok(file) => {
            let mut planner = Planner::new(file, plan_request(wanted, ignore));
            let error = plan(engine, &mut planner).err();
            (planner.warnings().to_vec(), error)
        }
    };
    let status = if warnings.is_empty() && error.is_none() { "0" } else { "1" };
    let mut result = json!({ "warnings": null, "sources": [lint_source(definition)] });
    if let Some(fields) = result.as_object_mut() {
        if !warnings.is_empty() {
            fields.insert("warnings".into(), warnings.iter().map(shown).collect());
        }
        if let Some(error) = &error {
            let ranges: Vec<_> = error
                .lines
                .iter()
                .map(|lines| json!({ "start": { "line": lines.first }, "end": { "line": lines.last } }))
                .collect();
            let refused = json!({ "message": error.to_string(), "location": { "ranges": ranges } });
            fields.insert("buildError".into(), refused);
        }
    }
    let mut metadata = document(&result);
    metadata.insert("result.statuscode".into(), status.as_bytes().to_vec());
    metadata
}

fn plan(engine: &Engine, planner: &mut Planner) -> Result<(), wherry_dockerfile::LocatedError> {
    loop {
        let missing = planner.missing()?;
        if missing.is_empty() {
            return planner.finish().map(|_| ());
        }
        for need in missing {
            let here = engine.store.resolve(&need.reference).and_then(|id| engine.store.image(&id));
            let config =
                here.map_or_else(|_| ImageConfig::default(), |image| convert::of_document(&image.document));
            planner.supply(need.id, SuppliedImage { config, platform: need.platform, digest: None });
        }
    }
}

fn plan_request(wanted: &Wanted, ignore: Option<&str>) -> Request {
    let mut request = Request::new(Frontend::BuildKit, |text| signals::parse_signal(text).is_ok());
    request.target.clone_from(&wanted.target);
    request.build_args.clone_from(&wanted.build_args);
    request.labels.clone_from(&wanted.labels);
    request.all_stages = true;
    request.ignore = ignore.and_then(|text| Ignore::parse(text).ok());
    request.named_contexts =
        wanted.contexts.iter().map(|(name, place)| (name.clone(), place.as_named())).collect();
    request
}

fn shown(warning: &Warning) -> Value {
    json!({
        "ruleName": warning.rule.name(),
        "description": warning.rule.description(),
        "url": warning.rule.url(),
        "detail": warning.message,
        "location": location(warning.lines),
    })
}

fn lint_source(definition: &Definition) -> Value {
    use base64::Engine as _;
    let data = base64::engine::general_purpose::STANDARD.encode(&definition.text);
    json!({ "filename": definition.name, "data": data, "language": "Dockerfile" })
}
