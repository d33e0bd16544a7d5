//! What repositories a registry has.

use hyper::{Method, StatusCode};
use serde::Deserialize;

use crate::http::{Ask, read};
use crate::manifest::go_syntax;
use crate::refusal::failure;
use crate::repository::{MAX_ERROR_BYTES, MAX_LIST_BYTES, next_page, origin_and_path, ping};
use crate::{Client, Credentials, Endpoint, Error, Result};

/// Pages that are read at most: a registry may be large, and somebody waits.
const MAX_PAGES: usize = 100;

/// The names of a registry's repositories, in its order; `None` if it does not tell.
///
/// # Errors
/// [`Error::Transport`], [`Error::Api`] when it is refused, [`Error::Json`].
pub async fn catalog(
    client: &Client,
    endpoint: &Endpoint,
    credentials: &Credentials,
) -> Result<Option<Vec<String>>> {
    #[derive(Deserialize)]
    struct Page {
        #[serde(default)]
        repositories: Option<Vec<String>>,
    }
    let challenge = ping(client, endpoint).await?;
    let scopes = ["registry:catalog:*".to_owned()];
    let mut url = format!("{}/v2/_catalog?n=1000", endpoint.url);
    let mut all = Vec::new();
    for _ in 0..MAX_PAGES {
        let mut ask = Ask::new(Method::GET, url, endpoint.verify);
        let leave = challenge.authorize(client, credentials, &scopes, endpoint.verify).await;
        ask.authorize(leave.map_err(|error| error.of(&ask))?.header);
        let response = client.send(&ask).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        if matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED) {
            return Ok(None);
        }
        if !status.is_success() {
            let body = read(&ask, response, MAX_ERROR_BYTES).await.unwrap_or_default();
            return Err(failure(status, &headers, &body));
        }
        let body = read(&ask, response, MAX_LIST_BYTES).await?;
        let page: Page =
            serde_json::from_slice(&body).map_err(|error| Error::Json(go_syntax(&body, &error)))?;
        all.extend(page.repositories.unwrap_or_default());
        match next_page(&headers) {
            Some(next) => url = origin_and_path(endpoint, &next),
            None => break,
        }
    }
    Ok(Some(all))
}
