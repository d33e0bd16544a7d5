//! What the cache takes, and giving it back: `system df`, `builder prune`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use hyper::StatusCode;
use serde_json::{Map, Value, json};
use wherry_image_store::DiffId;

use super::cache_mounts;
use crate::clock;
use crate::engine::{Engine, blocking};
use crate::error::Error;
use crate::server::{Filters, Reply, Request, response};

/// Layers that steps have left.
pub(crate) const REGULAR: &str = "regular";
/// Folders that `RUN --mount=type=cache` keeps.
pub(crate) const MOUNT: &str = "exec.cachemount";

/// What a client sent of a context.
pub(crate) const LOCAL: &str = "source.local";

/// The filters of a prune.
const FILTERS: [&str; 8] = ["until", "id", "parent", "type", "description", "inuse", "shared", "private"];

/// Something that builds keep.
#[derive(Debug, Clone)]
pub(crate) struct Usage {
    /// Names it.
    pub(crate) id: String,
    /// [`REGULAR`], [`MOUNT`] or [`LOCAL`].
    pub(crate) kind: &'static str,
    /// The instruction that it comes from.
    pub(crate) description: String,
    /// Whether a build uses it now.
    pub(crate) in_use: bool,
    /// Whether an image has it, too.
    pub(crate) shared: bool,
    /// Bytes.
    pub(crate) size: u64,
    /// Nanoseconds since the epoch.
    pub(crate) created_ns: i64,
    /// Nanoseconds since the epoch.
    pub(crate) used_ns: i64,
    /// How often it was of use.
    pub(crate) uses: u64,
    place: Place,
}

#[derive(Debug, Clone)]
enum Place {
    Cache(super::cache::Key),
    Mount(String),
    Local(PathBuf),
}

/// What is to be given back. All that fits, or, with limits, what was not of use for the longest time until they hold.
#[derive(Debug, Default)]
pub(crate) struct Prune {
    /// Also what images have.
    pub(crate) all: bool,
    /// Only what was not of use since. Nanoseconds since the epoch.
    pub(crate) until_ns: Option<i64>,
    /// So many bytes may stay in any case.
    pub(crate) reserved: u64,
    /// At most so many bytes are to stay; 0 for any number.
    pub(crate) max_used: u64,
    /// So many bytes are to be free on the disk.
    pub(crate) min_free: u64,
    /// Filters besides `until`.
    pub(crate) filters: Filters,
}

/// All that builds keep, the last used first. Blocking.
pub(crate) fn usage(engine: &Engine) -> Vec<Usage> {
    let images = engine.store.images();
    let named: HashSet<&DiffId> = images.iter().flat_map(|image| image.diff_ids()).collect();
    let cache = &engine.builds.cache;
    let mut found: Vec<Usage> = cache
        .all()
        .into_iter()
        .map(|(key, record, size)| Usage {
            id: key.hex().chars().take(25).collect(),
            kind: REGULAR,
            in_use: cache.is_in_use(&key),
            shared: named.contains(&record.diff_id),
            description: record.description,
            size,
            created_ns: record.created_ns,
            used_ns: record.used_ns,
            uses: record.uses,
            place: Place::Cache(key),
        })
        .collect();
    for entry in std::fs::read_dir(cache_mounts::folders(engine)).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        // One that is being made is not there yet.
        if name.contains('.') {
            continue;
        }
        let metadata = entry.metadata();
        found.push(Usage {
            id: name.chars().take(25).collect(),
            kind: MOUNT,
            description: "cached mount".into(),
            in_use: engine.builds.mounts.is_in_use(&name),
            shared: false,
            size: size_of(&entry.path()),
            created_ns: metadata.as_ref().map_or(0, |m| nanoseconds(m.created())),
            used_ns: metadata.as_ref().map_or(0, |m| nanoseconds(m.modified())),
            uses: 1,
            place: Place::Mount(name),
        });
    }
    found.extend(engine.builds.locals.all().into_iter().map(|kept| Usage {
        id: kept.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        kind: LOCAL,
        description: "local source for context".into(),
        in_use: kept.in_use,
        shared: false,
        size: size_of(&kept.path),
        created_ns: nanoseconds(Ok(kept.created)),
        used_ns: nanoseconds(Ok(kept.used)),
        uses: 1,
        place: Place::Local(kept.path),
    }));
    found.sort_by_key(|usage| std::cmp::Reverse(usage.used_ns));
    found
}

/// Since the epoch; 0 where it is not known.
fn nanoseconds(time: std::io::Result<SystemTime>) -> i64 {
    let since = time.ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    since.and_then(|since| i64::try_from(since.as_nanos()).ok()).unwrap_or(0)
}

/// The size of all files in a folder; links are not followed.
pub(super) fn size_of(folder: &Path) -> u64 {
    let mut size = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => folders.push(entry.path()),
                Ok(metadata) => size += metadata.len(),
                Err(_) => {}
            }
        }
    }
    size
}

/// Gives back; what has gone. Blocking.
pub(crate) fn prune(engine: &Engine, wish: &Prune) -> Vec<Usage> {
    prune_chosen(engine, wish, &|_| true)
}

/// As [`prune`], of those that are `chosen`.
pub(super) fn prune_chosen(engine: &Engine, wish: &Prune, chosen: &dyn Fn(&Usage) -> bool) -> Vec<Usage> {
    let all = usage(engine);
    let mut total: u64 = all.iter().map(|usage| usage.size).sum();
    let keep = keep_bytes(engine, wish, total);
    let mut gone = Vec::new();
    for usage in all.into_iter().rev() {
        if keep.is_some_and(|keep| total <= keep) {
            break;
        }
        if !usage.fits(wish) || !chosen(&usage) || !remove(engine, &usage) {
            continue;
        }
        total = total.saturating_sub(usage.size);
        gone.push(usage);
    }
    if !gone.is_empty() {
        engine.builds.cache.save();
    }
    gone
}

/// How many bytes may stay; `None` if it is not about that.
fn keep_bytes(engine: &Engine, wish: &Prune, total: u64) -> Option<u64> {
    if wish.reserved == 0 && wish.max_used == 0 && wish.min_free == 0 {
        return None;
    }
    let mut keep = wish.max_used;
    let root = engine.config().data_root.clone();
    let free =
        rustix::fs::statvfs(&root).map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    if wish.min_free > free {
        let after = total.saturating_sub(wish.min_free - free);
        keep = if keep == 0 { after } else { keep.min(after) };
    }
    Some(keep.max(wish.reserved))
}

fn remove(engine: &Engine, usage: &Usage) -> bool {
    match &usage.place {
        Place::Cache(key) => engine.builds.cache.remove(key),
        Place::Local(path) => engine.builds.locals.remove(path),
        Place::Mount(name) => {
            let folders = cache_mounts::folders(engine);
            let removed = match engine.builds.mounts.put_aside(&folders, name) {
                // A step has begun to use it.
                Ok(None) => return false,
                Ok(Some(aside)) => std::fs::remove_dir_all(aside),
                Err(error) => Err(error),
            };
            if let Err(error) = &removed {
                tracing::warn!(%name, %error, "a folder of the build cache could not be removed");
            }
            removed.is_ok()
        }
    }
}

impl Usage {
    fn fits(&self, wish: &Prune) -> bool {
        let text = |name: &str, own: &str| {
            let wanted = wish.filters.values(name);
            wanted.is_empty() || wanted.iter().any(|value| *value == own)
        };
        let flag = |name: &str, own: bool| {
            let wanted = wish.filters.values(name);
            wanted.is_empty()
                || wanted.iter().any(|value| (value.is_empty() || *value == "true" || *value == "1") == own)
        };
        let by_id = wish.filters.values("id");
        let id_fits = by_id.is_empty() || by_id.iter().any(|id| self.id.starts_with(id.as_str()));
        !self.in_use
            && (wish.all || !self.shared)
            && wish.until_ns.is_none_or(|until| self.used_ns < until)
            && id_fits
            // Nothing here has a parent by which it could be named.
            && wish.filters.values("parent").is_empty()
            && text("type", self.kind)
            && text("description", &self.description)
            && flag("inuse", self.in_use)
            && flag("shared", self.shared)
            && flag("private", !self.shared)
    }

    /// As `GET /system/df` shows it.
    pub(crate) fn to_json(&self) -> Value {
        let mut fields = Map::new();
        let mut add = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
        add("ID", json!(self.id));
        add("Type", json!(self.kind));
        add("Description", json!(self.description));
        add("InUse", json!(self.in_use));
        add("Shared", json!(self.shared));
        add("Size", json!(self.size));
        add("CreatedAt", json!(clock::rfc3339(self.created_ns)));
        add("LastUsedAt", json!(clock::rfc3339(self.used_ns)));
        add("UsageCount", json!(self.uses));
        Value::Object(fields)
    }
}

/// `POST /build/prune`.
///
/// # Errors
/// 400 with dockerd's texts.
pub(super) async fn handle_prune(engine: Arc<Engine>, request: Request) -> Result<Reply, Error> {
    let bytes = |name: &str| {
        let Some(text) = request.query.get(name) else { return Ok(0) };
        text.parse::<i64>().map(|bytes| u64::try_from(bytes).unwrap_or(0)).map_err(|_| {
            let quoted = crate::text::go_quote(text);
            Error::InvalidParameter(format!(
                "{name} is in bytes and expects an integer, got {text}: strconv.Atoi: parsing {quoted}: invalid syntax"
            ))
        })
    };
    let reserved = bytes("reserved-space")?.max(bytes("keep-storage")?);
    let failed = |reason: String| Error::InvalidParameter(format!("failed to prune build cache: {reason}"));
    let filters =
        Filters::parse(request.query.get("filters"), &FILTERS).map_err(|e| failed(e.to_string()))?;
    let until = filters.values("until").first().map(|text| {
        crate::images::when::until(text).map_err(|_| {
            let quoted = crate::text::go_quote(text);
            failed(format!(
                "\"until\" filter expects a duration (e.g., '24h') or a timestamp: failed to parse value as time or duration: {quoted}"
            ))
        })
    });
    let wish = Prune {
        all: request.query.flag("all"),
        until_ns: until.transpose()?,
        reserved,
        max_used: bytes("max-used-space")?,
        min_free: bytes("min-free-space")?,
        filters,
    };
    let task_engine = engine.clone();
    let gone = blocking(move || Ok(prune(&task_engine, &wish))).await?;
    let reclaimed: u64 = gone.iter().filter(|usage| !usage.shared).map(|usage| usage.size).sum();
    let ids: Vec<&str> = gone.iter().map(|usage| usage.id.as_str()).collect();
    let deleted = if ids.is_empty() { Value::Null } else { json!(ids) };
    let attributes = std::collections::BTreeMap::from([("reclaimed".to_owned(), reclaimed.to_string())]);
    engine.events.publish("builder", "prune", "", attributes);
    Ok(response::json(StatusCode::OK, &json!({ "CachesDeleted": deleted, "SpaceReclaimed": reclaimed }))
        .into())
}
