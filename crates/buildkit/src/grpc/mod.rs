//! gRPC over HTTP/2 connections that were taken out of HTTP/1: framing, status, a server and a client of it.

mod client;
mod frame;
mod server;
mod status;

pub use client::Channel;
pub use frame::{MAX_MESSAGE_BYTES, Reader, Writer};
pub use server::{Call, Replier, Service, serve};
pub use status::{Code, Status};
