//! `GET /images/json`.

use std::collections::{BTreeMap, HashMap};

use hyper::StatusCode;
use serde::Serialize;
use wherry_image_ref::{Digest, Reference};
use wherry_image_store::{Image, ImageId, chain_ids};

use super::{pattern, when};
use crate::clock;
use crate::engine::Engine;
use crate::error::Error;
use crate::server::filters::Filters;
use crate::server::{ApiVersion, Reply, Request, response};

const FILTERS: &[&str] = &["dangling", "label", "before", "since", "reference", "until"];

/// An image in the list, in dockerd's order of fields.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Summary {
    /// How many containers use it; -1 when that was not counted.
    pub(crate) containers: i64,
    /// Seconds since the epoch.
    pub(crate) created: i64,
    /// Its id.
    pub(crate) id: ImageId,
    labels: Option<BTreeMap<String, String>>,
    parent_id: String,
    repo_digests: Option<Vec<String>>,
    /// Its tags.
    pub(crate) repo_tags: Option<Vec<String>>,
    /// Bytes that it shares with other images; -1 when that was not computed.
    pub(crate) shared_size: i64,
    /// Bytes of all of its layers.
    pub(crate) size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    virtual_size: Option<u64>,
}

pub(super) fn list(engine: &Engine, request: &Request) -> Result<Reply, Error> {
    let mut filters = Filters::parse(request.query.get("filters"), FILTERS)?;
    if request.version < ApiVersion(1, 41)
        && let Some(pattern) = request.query.get("filter").filter(|pattern| !pattern.is_empty())
    {
        filters.add("reference", pattern);
    }
    let all = request.query.flag("all");
    let mut list = summaries(engine, &filters, all, request.query.flag("shared-size"))?;
    for summary in &mut list {
        summary.adapt(request.version);
    }
    Ok(response::json(StatusCode::OK, &list).into())
}

/// The images that pass the filters, the youngest first. Intermediate images of builds are left out unless `all`.
///
/// # Errors
/// 400 and 404 for bad filters.
pub(crate) fn summaries(
    engine: &Engine,
    filters: &Filters,
    all: bool,
    shared_size: bool,
) -> Result<Vec<Summary>, Error> {
    let selection = Selection::new(engine, filters, all)?;
    let images = engine.store.images();
    let references = engine.store.references();
    let parents: Vec<ImageId> = images.iter().filter_map(|image| image.parent).collect();
    let mut names: HashMap<ImageId, Vec<Reference>> = HashMap::new();
    for (reference, id) in references {
        names.entry(id).or_default().push(reference);
    }
    let mut containers: HashMap<String, i64> = HashMap::new();
    for container in engine.containers.all() {
        *containers.entry(container.record().image.clone()).or_default() += 1;
    }
    let mut users_of_chain: HashMap<Digest, usize> = HashMap::new();
    for chain in images.iter().filter(|_| shared_size).flat_map(|image| chain_ids(image.diff_ids())) {
        *users_of_chain.entry(chain).or_default() += 1;
    }
    let mut list = Vec::new();
    for image in &images {
        let named = names.remove(&image.id).unwrap_or_default();
        if let Some(names) = selection.select(image, named, parents.contains(&image.id))? {
            let mut summary = summary(image, names);
            summary.containers = containers.get(&image.id.to_string()).copied().unwrap_or(0);
            if shared_size {
                summary.shared_size = shared_bytes(engine, image, &users_of_chain);
            }
            list.push(summary);
        }
    }
    list.sort_by_key(|summary| std::cmp::Reverse(summary.created));
    Ok(list)
}

fn summary(image: &Image, names: Vec<Reference>) -> Summary {
    let (digests, tags): (Vec<_>, Vec<_>) = names.iter().partition(|name| name.digest().is_some());
    let familiar = |names: Vec<&Reference>| {
        Some(names.into_iter().map(Reference::familiar).collect())
            .filter(|names: &Vec<String>| !names.is_empty())
    };
    Summary {
        containers: 0,
        created: created_ns(image).map_or(0, |ns| ns.div_euclid(1_000_000_000)),
        id: image.id,
        labels: image.config().labels.clone(),
        parent_id: image.parent.map(|id| id.to_string()).unwrap_or_default(),
        repo_digests: familiar(digests),
        repo_tags: familiar(tags),
        shared_size: -1,
        size: image.size_bytes,
        virtual_size: None,
    }
}

impl Summary {
    /// What older clients expect.
    fn adapt(&mut self, version: ApiVersion) {
        if version < ApiVersion(1, 51) {
            self.containers = -1;
        }
        if version < ApiVersion(1, 44) {
            self.virtual_size = Some(self.size);
        }
        if version >= ApiVersion(1, 43) {
            self.repo_tags.get_or_insert_default();
            self.repo_digests.get_or_insert_default();
        } else if self.repo_tags.is_none() && self.repo_digests.is_none() {
            self.repo_tags = Some(vec!["<none>:<none>".into()]);
            self.repo_digests = Some(vec!["<none>@<none>".into()]);
        }
    }
}

/// When the image was made, in nanoseconds since the epoch.
pub(super) fn created_ns(image: &Image) -> Option<i64> {
    image.document.created.as_deref().and_then(clock::parse_rfc3339)
}

/// Bytes of the layers that other images have, too, with all below them.
fn shared_bytes(engine: &Engine, image: &Image, users_of_chain: &HashMap<Digest, usize>) -> i64 {
    let layers = image.diff_ids().iter().zip(chain_ids(image.diff_ids()));
    let shared = layers.filter(|(_, chain)| users_of_chain.get(chain).is_some_and(|users| *users > 1));
    shared.filter_map(|(diff_id, _)| engine.store.layer_size(diff_id)).map(|size| size as i64).sum()
}

/// The filters, read.
struct Selection<'a> {
    filters: &'a Filters,
    all: bool,
    dangling: Option<bool>,
    before_ns: Option<i64>,
    since_ns: Option<i64>,
}

impl<'a> Selection<'a> {
    fn new(engine: &Engine, filters: &'a Filters, all: bool) -> Result<Self, Error> {
        let dangling = filters.boolean("dangling")?;
        let created_of = |name: &String| -> Result<Option<i64>, Error> {
            let image = engine.store.image(&engine.store.resolve(name)?)?;
            Ok(created_ns(&image))
        };
        let (mut before_ns, mut since_ns) = (None, None);
        for name in filters.values("before") {
            before_ns = least(before_ns, created_of(name)?);
        }
        for text in filters.values("until") {
            before_ns = least(before_ns, Some(when::until(text)?));
        }
        for name in filters.values("since") {
            since_ns = since_ns.max(created_of(name)?);
        }
        Ok(Self { filters, all, dangling, before_ns, since_ns })
    }

    /// The names under which the image is listed; `None` leaves it out.
    fn select(
        &self,
        image: &Image,
        names: Vec<Reference>,
        has_children: bool,
    ) -> Result<Option<Vec<Reference>>, Error> {
        let created = created_ns(image);
        let too_young = self.before_ns.is_some_and(|limit| created.is_none_or(|ns| ns >= limit));
        let too_old = self.since_ns.is_some_and(|limit| created.is_none_or(|ns| ns <= limit));
        let no_labels = BTreeMap::new();
        let labels = image.config().labels.as_ref().unwrap_or(&no_labels);
        if too_young || too_old || !self.filters.labels(labels) {
            return Ok(None);
        }
        let patterns = self.filters.values("reference");
        let mut listed = Vec::new();
        for name in names {
            if patterns.is_empty() || matches_any(patterns, &name)? {
                listed.push(name);
            }
        }
        let is_listed = if listed.is_empty() {
            (self.all || !has_children) && self.dangling != Some(false) && patterns.is_empty()
        } else {
            self.dangling != Some(true) || listed.iter().all(|name| name.digest().is_some())
        };
        let is_head = self.dangling != Some(true) || !has_children;
        Ok((is_listed && is_head).then_some(listed))
    }
}

fn least(a: Option<i64>, b: Option<i64>) -> Option<i64> {
    [a, b].into_iter().flatten().min()
}

fn matches_any(patterns: &[String], name: &Reference) -> Result<bool, Error> {
    let (whole, repository) = (name.familiar(), name.familiar_name());
    for text in patterns {
        let bad = |pattern::BadPattern| Error::server("syntax error in pattern");
        if pattern::matches(text, &whole).map_err(bad)? || pattern::matches(text, &repository).map_err(bad)? {
            return Ok(true);
        }
    }
    Ok(false)
}
