//! The services of the client's session: files, credentials, secrets, agents.

use std::collections::BTreeMap;

/// What a [`Packet`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum PacketType {
    /// A file's properties; without any, the end of the list.
    Stat = 0,
    /// Wish for a file's bytes.
    Req = 1,
    /// Some of them; none: the file's end.
    Data = 2,
    /// All has been said.
    Fin = 3,
    /// It cannot go on.
    Err = 4,
}

/// One message of a transfer of files (`fsutil.types.Packet`).
#[derive(Clone, PartialEq, prost::Message)]
pub struct Packet {
    #[prost(enumeration = "PacketType", tag = "1")]
    pub r#type: i32,
    #[prost(message, optional, tag = "2")]
    pub stat: Option<Stat>,
    #[prost(uint32, tag = "3")]
    pub id: u32,
    #[prost(bytes = "bytes", tag = "4")]
    pub data: bytes::Bytes,
}

/// A file's properties. `mode` has the bits of Go's `FileMode`; `mod_time` counts nanoseconds since the epoch.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Stat {
    #[prost(string, tag = "1")]
    pub path: String,
    #[prost(uint32, tag = "2")]
    pub mode: u32,
    #[prost(uint32, tag = "3")]
    pub uid: u32,
    #[prost(uint32, tag = "4")]
    pub gid: u32,
    #[prost(int64, tag = "5")]
    pub size: i64,
    #[prost(int64, tag = "6")]
    pub mod_time: i64,
    #[prost(string, tag = "7")]
    pub linkname: String,
    #[prost(int64, tag = "8")]
    pub devmajor: i64,
    #[prost(int64, tag = "9")]
    pub devminor: i64,
    #[prost(btree_map = "string, bytes", tag = "10")]
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// Question for a registry's credentials.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CredentialsRequest {
    #[prost(string, tag = "1")]
    pub host: String,
}

/// They.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CredentialsResponse {
    #[prost(string, tag = "1")]
    pub username: String,
    #[prost(string, tag = "2")]
    pub secret: String,
}

/// Wish that the client fetch a token, so that its credentials stay with it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct FetchTokenRequest {
    #[prost(string, tag = "1")]
    pub client_id: String,
    #[prost(string, tag = "2")]
    pub host: String,
    #[prost(string, tag = "3")]
    pub realm: String,
    #[prost(string, tag = "4")]
    pub service: String,
    #[prost(string, repeated, tag = "5")]
    pub scopes: Vec<String>,
}

/// The token.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct FetchTokenResponse {
    #[prost(string, tag = "1")]
    pub token: String,
    #[prost(int64, tag = "2")]
    pub expires_in: i64,
    #[prost(int64, tag = "3")]
    pub issued_at: i64,
}

/// Question for a secret.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct GetSecretRequest {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub annotations: BTreeMap<String, String>,
}

/// The secret.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct GetSecretResponse {
    #[prost(bytes = "vec", tag = "1")]
    pub data: Vec<u8>,
}

/// Question whether there is an agent.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CheckAgentRequest {
    #[prost(string, tag = "1")]
    pub id: String,
}
