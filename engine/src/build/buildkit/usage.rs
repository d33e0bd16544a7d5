//! The cache, as `docker buildx du` and `prune` see it.

use std::collections::BTreeMap;

use wherry_buildkit::grpc::Status;
use wherry_buildkit::pb::control::{PruneRequest, UsageRecord};

use super::watch::timestamp;
use crate::build::usage::{self, Prune, Usage};
use crate::engine::Engine;
use crate::server::Filters;

/// What one can choose by.
const KEYS: [&str; 6] = ["id", "type", "description", "inuse", "shared", "private"];

/// What is kept, the last used first. Blocking.
///
/// # Errors
/// A filter that is not understood.
pub(super) fn list(engine: &Engine, filters: &[String]) -> Result<Vec<UsageRecord>, Status> {
    let filters = read(filters)?;
    let fits = |usage: &Usage| {
        let text = |name: &str, own: &str| {
            let wanted = filters.values(name);
            wanted.is_empty() || wanted.iter().any(|value| value == own)
        };
        let flag = |name: &str, own: bool| filters.values(name).is_empty() || own;
        text("id", &usage.id)
            && text("type", usage.kind)
            && text("description", &usage.description)
            && flag("inuse", usage.in_use)
            && flag("shared", usage.shared)
            && flag("private", !usage.shared)
    };
    Ok(usage::usage(engine).iter().filter(|usage| fits(usage)).map(record).collect())
}

/// Removes what is kept and not used; what an image has, too, only if all is to go. Blocking.
///
/// # Errors
/// A filter that is not understood.
pub(super) fn prune(engine: &Engine, request: &PruneRequest) -> Result<Vec<UsageRecord>, Status> {
    let bytes = |wished: i64| u64::try_from(wished).unwrap_or(0);
    let is_young = (request.keep_duration > 0).then(|| crate::clock::now_ns() - request.keep_duration);
    let wish = Prune {
        all: request.all,
        until_ns: is_young,
        reserved: bytes(request.reserved_space),
        max_used: bytes(request.max_used_space),
        min_free: bytes(request.min_free_space),
        filters: read(&request.filter)?,
    };
    Ok(usage::prune(engine, &wish).iter().map(record).collect())
}

fn record(usage: &Usage) -> UsageRecord {
    UsageRecord {
        id: usage.id.clone(),
        in_use: usage.in_use,
        shared: usage.shared,
        size: i64::try_from(usage.size).unwrap_or(i64::MAX),
        created_at: Some(timestamp(usage.created_ns)),
        last_used_at: Some(timestamp(usage.used_ns)),
        usage_count: i64::try_from(usage.uses).unwrap_or(i64::MAX),
        description: usage.description.clone(),
        record_type: usage.kind.into(),
        ..UsageRecord::default()
    }
}

/// Conditions that are joined by commas: `type==regular,inuse`.
fn read(filters: &[String]) -> Result<Filters, Status> {
    let unknown = |part: &str| {
        Status::unknown(format!("filter {} is not supported by this engine", crate::text::go_quote(part)))
    };
    let mut chosen: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for part in filters.iter().flat_map(|text| text.split(',')).filter(|part| !part.is_empty()) {
        let (key, value) = part.split_once("==").unwrap_or((part, "true"));
        if !KEYS.contains(&key) {
            return Err(unknown(part));
        }
        chosen.entry(key).or_default().push(value.trim_matches('"'));
    }
    let text = serde_json::json!(chosen).to_string();
    Filters::parse(Some(&text), &KEYS).map_err(|_| unknown(&text))
}
