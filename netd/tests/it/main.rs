//! netd as its engine sees it: the real binary in fresh network and mount namespaces, driven through the client,
//! with real packets. Needs root.

mod dns;
mod ports;
mod restart;
mod sandboxes;
mod support;
mod timing;
