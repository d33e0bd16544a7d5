//! What belongs to BuildKit's build graph (`pb`), as far as it crosses the wire to or from clients.

use std::collections::BTreeMap;

use bytes::Bytes;

/// What an image or a worker is made for.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Platform {
    #[prost(string, tag = "1")]
    pub architecture: String,
    #[prost(string, tag = "2")]
    pub os: String,
    #[prost(string, tag = "3")]
    pub variant: String,
    #[prost(string, tag = "4")]
    pub os_version: String,
}

/// A graph: serialised operations, the last of which names the result.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Definition {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub def: Vec<bytes::Bytes>,
    #[prost(btree_map = "string, message", tag = "2")]
    pub metadata: BTreeMap<String, OpMetadata>,
}

/// What is said of an operation.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct OpMetadata {
    #[prost(btree_map = "string, string", tag = "2")]
    pub description: BTreeMap<String, String>,
}

/// An operation, as far as [`Definition`]s name our own results with it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Op {
    #[prost(message, repeated, tag = "1")]
    pub inputs: Vec<Input>,
    #[prost(message, optional, tag = "3")]
    pub source: Option<SourceOp>,
}

/// An operation's input: another operation by its digest.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Input {
    #[prost(string, tag = "1")]
    pub digest: String,
    #[prost(int64, tag = "2")]
    pub index: i64,
}

/// An operation that brings something from outside.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SourceOp {
    #[prost(string, tag = "1")]
    pub identifier: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub attrs: BTreeMap<String, String>,
}

/// A file that errors and warnings point into.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SourceInfo {
    #[prost(string, tag = "1")]
    pub filename: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub data: Bytes,
    #[prost(string, tag = "4")]
    pub language: String,
}

/// Lines of a [`SourceInfo`].
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Range {
    #[prost(message, optional, tag = "1")]
    pub start: Option<Position>,
    #[prost(message, optional, tag = "2")]
    pub end: Option<Position>,
}

impl Range {
    /// Whole lines, counted from 1.
    #[must_use]
    pub fn lines(first: usize, last: usize) -> Self {
        let at = |line: usize| Some(Position { line: i32::try_from(line).unwrap_or(i32::MAX), character: 0 });
        Self { start: at(first), end: at(last) }
    }
}

/// A place in a file.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Position {
    #[prost(int32, tag = "1")]
    pub line: i32,
    #[prost(int32, tag = "2")]
    pub character: i32,
}

/// A group under which clients show several vertexes as one.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ProgressGroup {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(bool, tag = "3")]
    pub weak: bool,
}
