//! Are these credentials good?

use hyper::{Method, StatusCode};

use crate::http::Ask;
use crate::repository::{PING_TIMEOUT, ping};
use crate::{Client, Credentials, Endpoint, Error, Result};

/// Logs in at a registry. What comes back is a token that takes the password's place, if the registry gives one.
///
/// # Errors
/// [`Error::Transport`], with a refused token in it; [`Error::Login`] for any other answer than 200.
pub async fn log_in(client: &Client, endpoint: &Endpoint, credentials: &Credentials) -> Result<String> {
    let challenge = ping(client, endpoint).await?;
    let mut ask = Ask::new(Method::GET, format!("{}/v2/", endpoint.url), endpoint.verify);
    ask.timeout = PING_TIMEOUT;
    let leave = challenge.log_in(client, credentials, endpoint.verify).await;
    let (grant, token) = leave.map_err(|error| error.of(&ask))?;
    ask.authorize(grant.header);
    match client.send(&ask).await?.status() {
        StatusCode::OK => Ok(token),
        status => Err(Error::Login { url: ask.url, status }),
    }
}
