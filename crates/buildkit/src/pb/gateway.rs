//! `moby.buildkit.v1.frontend.LLBBridge`: how buildx asks the front end, on the control connection.

use std::collections::BTreeMap;

use super::RpcStatus;
use super::control::{CacheOptionsEntry, WorkerRecord};
use super::ops::{Definition, Platform, Range, SourceInfo};
use super::services::Stat;

/// What the two sides can do.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PongResponse {
    #[prost(message, repeated, tag = "1")]
    pub frontend_api_caps: Vec<ApiCap>,
    #[prost(message, repeated, tag = "2")]
    pub llb_caps: Vec<ApiCap>,
    #[prost(message, repeated, tag = "3")]
    pub workers: Vec<WorkerRecord>,
}

/// One thing that can, or cannot, be done.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ApiCap {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(bool, tag = "2")]
    pub enabled: bool,
    #[prost(bool, tag = "3")]
    pub deprecated: bool,
    #[prost(string, tag = "5")]
    pub disabled_reason_msg: String,
}

/// Work for the front end.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SolveRequest {
    #[prost(message, optional, tag = "1")]
    pub definition: Option<Definition>,
    #[prost(string, tag = "2")]
    pub frontend: String,
    #[prost(btree_map = "string, string", tag = "3")]
    pub frontend_opt: BTreeMap<String, String>,
    #[prost(message, repeated, tag = "12")]
    pub cache_imports: Vec<CacheOptionsEntry>,
    #[prost(btree_map = "string, message", tag = "13")]
    pub frontend_inputs: BTreeMap<String, Definition>,
    #[prost(bool, tag = "14")]
    pub evaluate: bool,
}

/// The front end's answer.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SolveResponse {
    #[prost(message, optional, tag = "3")]
    pub result: Option<Result>,
}

/// A result: references to what can be built, and metadata.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Result {
    #[prost(message, optional, tag = "3")]
    pub r#ref: Option<Ref>,
    #[prost(message, optional, tag = "4")]
    pub refs: Option<RefMap>,
    #[prost(btree_map = "string, bytes", tag = "10")]
    pub metadata: BTreeMap<String, Vec<u8>>,
}

/// Something that can be built.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Ref {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "2")]
    pub def: Option<Definition>,
}

/// One for each platform.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct RefMap {
    #[prost(btree_map = "string, message", tag = "1")]
    pub refs: BTreeMap<String, Ref>,
}

/// The end of the front end's work.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ReturnRequest {
    #[prost(message, optional, tag = "1")]
    pub result: Option<Result>,
    #[prost(message, optional, tag = "2")]
    pub error: Option<RpcStatus>,
}

/// The graphs that a build was given by name.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct InputsResponse {
    #[prost(btree_map = "string, message", tag = "1")]
    pub definitions: BTreeMap<String, Definition>,
}

/// A question about an image.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ResolveImageConfigRequest {
    #[prost(string, tag = "1")]
    pub r#ref: String,
    #[prost(message, optional, tag = "2")]
    pub platform: Option<Platform>,
    #[prost(string, tag = "3")]
    pub resolve_mode: String,
    #[prost(string, tag = "4")]
    pub log_name: String,
}

/// The image.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ResolveImageConfigResponse {
    #[prost(string, tag = "1")]
    pub digest: String,
    #[prost(bytes = "vec", tag = "2")]
    pub config: Vec<u8>,
    #[prost(string, tag = "3")]
    pub r#ref: String,
}

/// A file of a result.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ReadFileRequest {
    #[prost(string, tag = "1")]
    pub r#ref: String,
    #[prost(string, tag = "2")]
    pub file_path: String,
    #[prost(message, optional, tag = "3")]
    pub range: Option<FileRange>,
}

/// A part of a file.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct FileRange {
    #[prost(int64, tag = "1")]
    pub offset: i64,
    #[prost(int64, tag = "2")]
    pub length: i64,
}

/// Its bytes.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ReadFileResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub data: Vec<u8>,
}

/// A folder of a result.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ReadDirRequest {
    #[prost(string, tag = "1")]
    pub r#ref: String,
    #[prost(string, tag = "2")]
    pub dir_path: String,
    #[prost(string, tag = "3")]
    pub include_pattern: String,
}

/// Its entries.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ReadDirResponse {
    #[prost(message, repeated, tag = "1")]
    pub entries: Vec<Stat>,
}

/// Anything of a result.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StatFileRequest {
    #[prost(string, tag = "1")]
    pub r#ref: String,
    #[prost(string, tag = "2")]
    pub path: String,
}

/// What it is.
#[derive(Clone, PartialEq, prost::Message)]
pub struct StatFileResponse {
    #[prost(message, optional, tag = "1")]
    pub stat: Option<Stat>,
}

/// Wish to have a result built now.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct EvaluateRequest {
    #[prost(string, tag = "1")]
    pub r#ref: String,
}

/// A warning of the client's own.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct WarnRequest {
    #[prost(string, tag = "1")]
    pub digest: String,
    #[prost(int64, tag = "2")]
    pub level: i64,
    #[prost(bytes = "vec", tag = "3")]
    pub short: Vec<u8>,
    #[prost(bytes = "vec", repeated, tag = "4")]
    pub detail: Vec<Vec<u8>>,
    #[prost(string, tag = "5")]
    pub url: String,
    #[prost(message, optional, tag = "6")]
    pub info: Option<SourceInfo>,
    #[prost(message, repeated, tag = "7")]
    pub ranges: Vec<Range>,
}
