//! HTTP on Unix and TCP sockets: connections, requests, responses, and handing a
//! client's socket over to whoever will serve it longest. Knows no endpoint.

pub(crate) mod connection;
pub(crate) mod filters;
pub(crate) mod fold;
pub(crate) mod hijack;
pub(crate) mod json;
pub(crate) mod query;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod stream;
pub(crate) mod websocket;

pub(crate) use filters::Filters;
pub(crate) use hijack::Client;
pub(crate) use query::Query;
pub(crate) use request::{ApiVersion, Request};
pub(crate) use response::{Reply, Response};
