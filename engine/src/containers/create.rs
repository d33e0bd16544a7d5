//! `POST /containers/create`.

use std::sync::Arc;

use crate::engine::Engine;
use crate::error::Error;
use crate::server::{Reply, Request};

/// Makes a container.
pub(crate) async fn create(engine: Arc<Engine>, request: Request) -> Result<Reply, Error> {
    let _ = (engine, request);
    Err(Error::PageNotFound)
}

/// Removes nulls, since Go takes null for any type's zero value.
pub(super) fn strip_nulls(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(fields) => {
            fields.retain(|_, field| !field.is_null());
            fields.values_mut().for_each(strip_nulls);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}
