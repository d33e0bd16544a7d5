//! How much is kept on disk.

use super::{Options, Reason};
use crate::text::{BINARY, DECIMAL, go_bool, go_quote, go_size};

/// json-file's bound without options: dockerd has none, until the disk is full. `max-size=-1` lifts it.
const DEFAULT_BYTES: u64 = 100_000_000;
const DEFAULT_FILES: u32 = 5;
/// The bounds of `local` and of caches, as dockerd has them.
const LOCAL_BYTES: u64 = 20 << 20;
const LOCAL_FILES: u32 = 5;

/// The bounds of a log's files.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Of one file; `None` without limit.
    pub(super) max_bytes: Option<u64>,
    pub(super) max_files: u32,
    /// Whether the older ones are compressed.
    pub(super) compress: bool,
}

impl Limits {
    /// Of json-file.
    pub(super) fn of_json_file(options: &Options) -> Result<Self, Reason> {
        let unlimited = options.get("max-size").is_some_and(|size| size == "-1");
        let given = options.get("max-size").filter(|_| !unlimited);
        let max_bytes = given.map(|size| go_size(size, DECIMAL)).transpose()?;
        if max_bytes == Some(0) {
            return Err("max-size must be a positive number".into());
        }
        let max_files = options.get("max-file").map(|count| integer(count)).transpose()?;
        if max_files.is_some_and(|count| count < 1) {
            return Err("max-file cannot be less than 1".into());
        }
        let compress = options.get("compress").map_or(Ok(false), |value| boolean(value))?;
        if compress && (max_files.unwrap_or(1) < 2 || max_bytes.is_none()) {
            return Err("compress cannot be true when max-file is less than 2 or max-size is not set".into());
        }
        let bounded = given.is_some() || unlimited;
        Ok(Self {
            max_bytes: if bounded { max_bytes } else { Some(DEFAULT_BYTES) },
            max_files: match max_files {
                Some(count) => u32::try_from(count).unwrap_or(u32::MAX),
                None if bounded => 1,
                None => DEFAULT_FILES,
            },
            compress,
        })
    }

    /// Of `local`.
    pub(super) fn of_local(options: &Options) -> Result<Self, Reason> {
        let wrong =
            |name: &str, value: &str, reason: Reason| format!("invalid value for {name}: {value}: {reason}");
        let max_bytes = match options.get("max-size") {
            None => LOCAL_BYTES,
            Some(size) => go_size(size, BINARY).map_err(|reason| wrong("max-size", size, reason))?,
        };
        let max_files = match options.get("max-file") {
            None => i64::from(LOCAL_FILES),
            Some(count) => integer(count).map_err(|reason| wrong("max-file", count, reason))?,
        };
        let compress = match options.get("compress") {
            None => true,
            Some(value) => boolean(value).map_err(|reason| wrong("compress", value, reason))?,
        };
        if compress && max_files <= 1 {
            return Err("compression cannot be enabled when max file count is 1".into());
        }
        if max_files < 1 {
            return Err("max file count cannot be less than 1".into());
        }
        let max_bytes = Some(max_bytes).filter(|bytes| *bytes > 0);
        Ok(Self { max_bytes, max_files: u32::try_from(max_files).unwrap_or(u32::MAX), compress })
    }

    /// Of the cache of a driver that cannot be read. What cannot be read here is left at its default, as dockerd does.
    pub(super) fn of_cache(options: &Options) -> Self {
        let given =
            ["max-size", "max-file", "compress"].map(|name| (name, options.get(&format!("cache-{name}"))));
        let given =
            given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.clone()))).collect();
        Self::of_local(&given).unwrap_or(Self {
            max_bytes: Some(LOCAL_BYTES),
            max_files: LOCAL_FILES,
            compress: true,
        })
    }
}

/// As Go's `strconv.Atoi`.
pub(super) fn integer(text: &str) -> Result<i64, Reason> {
    text.parse().map_err(|_| format!("strconv.Atoi: parsing {}: invalid syntax", go_quote(text)))
}

/// As Go's `strconv.ParseBool`.
pub(super) fn boolean(text: &str) -> Result<bool, Reason> {
    go_bool(text).ok_or_else(|| format!("strconv.ParseBool: parsing {}: invalid syntax", go_quote(text)))
}
