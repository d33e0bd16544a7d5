//! The cache, as `docker buildx du` and `prune` see it.

use wherry_buildkit::grpc::Status;
use wherry_buildkit::pb::control::{PruneRequest, UsageRecord};

use super::filters::Filter;
use super::watch::timestamp;
use crate::build::usage::{self, Prune, Usage};
use crate::engine::Engine;
use crate::server::Filters;

/// What is kept, the last used first. Blocking.
///
/// # Errors
/// A filter that is not understood.
pub(super) fn list(engine: &Engine, filters: &[String]) -> Result<Vec<UsageRecord>, Status> {
    let filter = Filter::parse(filters).map_err(|error| {
        Status::unknown(format!("failed to parse diskusage filters [{}]: {error}", filters.join(" ")))
    })?;
    Ok(usage::usage(engine).iter().filter(|usage| fits(&filter, usage)).map(record).collect())
}

/// Removes what is kept and not used; what an image has, too, only if all is to go. Blocking.
///
/// # Errors
/// A filter that is not understood.
pub(super) fn prune(engine: &Engine, request: &PruneRequest) -> Result<Vec<UsageRecord>, Status> {
    let filter = Filter::parse(&request.filter).map_err(|error| {
        let filters = request.filter.join(" ");
        Status::unknown(format!("failed to parse prune filters [{filters}]: {error}"))
    })?;
    let bytes = |wished: i64| u64::try_from(wished).unwrap_or(0);
    let is_young = (request.keep_duration > 0).then(|| crate::clock::now_ns() - request.keep_duration);
    let wish = Prune {
        all: request.all,
        until_ns: is_young,
        reserved: bytes(request.reserved_space),
        max_used: bytes(request.max_used_space),
        min_free: bytes(request.min_free_space),
        filters: Filters::default(),
    };
    let gone = usage::prune_chosen(engine, &wish, &|usage| fits(&filter, usage));
    Ok(gone.iter().map(record).collect())
}

/// Whether a filter chooses it. What is only so or not has no value.
fn fits(filter: &Filter, usage: &Usage) -> bool {
    let flag = |is_so: bool| is_so.then_some("");
    filter.fits(&|field| match field {
        "id" => Some(&usage.id),
        "type" => Some(usage.kind),
        "description" => Some(&usage.description).filter(|text| !text.is_empty()).map(String::as_str),
        "inuse" => flag(usage.in_use),
        "immutable" => flag(true),
        "shared" => flag(usage.shared),
        "private" => flag(!usage.shared),
        _ => None,
    })
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
