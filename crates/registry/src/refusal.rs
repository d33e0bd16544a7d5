//! Answers that are no success: what they say, in dockerd's words.

use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderMap};
use serde::Deserialize;

use crate::error::ApiError;
use crate::{Error, Result, auth, manifest};

/// An answer that is no success, in dockerd's words.
pub(crate) fn failure(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Error {
    if !status.is_client_error() {
        return Error::Status(status);
    }
    let found = body_errors(status, headers, body);
    let mut errors = challenge_errors(headers);
    match found {
        Ok(found) => errors.extend(found),
        Err(_) if !errors.is_empty() => {}
        Err(_) if status == StatusCode::UNAUTHORIZED => errors.push(ApiError::of("UNAUTHORIZED", None)),
        Err(error) => return error,
    }
    Error::Api(errors)
}

/// What a token server's refusal says in `WWW-Authenticate`.
fn challenge_errors(headers: &HeaderMap) -> Vec<ApiError> {
    let values = headers.get_all(hyper::header::WWW_AUTHENTICATE).iter().filter_map(|v| v.to_str().ok());
    let mut errors = Vec::new();
    for (scheme, parameters) in values.filter_map(auth::parse) {
        let code = match parameters.get("error").map(String::as_str) {
            Some("invalid_token") if scheme == "bearer" => "UNAUTHORIZED",
            Some("insufficient_scope") if scheme == "bearer" => "DENIED",
            _ => continue,
        };
        let message = parameters.get("error_description").filter(|d| !d.is_empty());
        errors.push(ApiError::of(code, message.cloned()));
    }
    errors
}

/// The errors in an answer's body.
fn body_errors(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Result<Vec<ApiError>> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(default)]
        errors: Option<Vec<Entry>>,
        #[serde(default)]
        details: Option<String>,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: Option<String>,
        #[serde(default)]
        detail: serde_json::Value,
    }
    let shown = String::from_utf8_lossy(body.get(..body.len().min(4096)).unwrap_or_default()).into_owned();
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_lowercase();
    if kind != "application/json" && kind != "application/vnd.api+json" {
        return Ok(vec![ApiError::of(code_of(status), Some(shown))]);
    }
    let bad = |reason: String| Error::ErrorBody { status: status.as_u16(), reason, body: shown.clone() };
    let parsed: Body =
        serde_json::from_slice(body).map_err(|error| bad(manifest::go_syntax(body, &error)))?;
    if let Some(details) = parsed.details.filter(|details| !details.is_empty()) {
        return Ok(vec![ApiError::of(code_of(status), Some(details))]);
    }
    let entries = parsed.errors.unwrap_or_default();
    if entries.is_empty() {
        return Err(bad("no error details found in HTTP response body".into()));
    }
    let error = |entry: Entry| {
        ApiError::entry(&entry.code, entry.message.unwrap_or_default(), !entry.detail.is_null())
    };
    Ok(entries.into_iter().map(error).collect())
}

/// The code for an answer that has none.
fn code_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::UNAUTHORIZED => "UNAUTHORIZED",
        StatusCode::FORBIDDEN => "DENIED",
        StatusCode::TOO_MANY_REQUESTS => "TOOMANYREQUESTS",
        _ => "UNKNOWN",
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn failures_are_told_in_dockerds_words() {
        let check = |status: u16, kind: &'static str, body: &str, expect: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
            let error = failure(StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes());
            assert_eq!(error.to_string(), expect);
        };
        let json = "application/json; charset=utf-8";
        let entry = |code: &str, rest: &str| format!(r#"{{"errors":[{{"code":"{code}"{rest}}}]}}"#);
        let unknown = entry("MANIFEST_UNKNOWN", r#","message":"manifest unknown","detail":{}"#);
        check(404, json, &unknown, "manifest unknown: manifest unknown");
        check(404, json, &entry("MANIFEST_UNKNOWN", r#","message":"manifest unknown""#), "manifest unknown");
        check(404, json, &entry("MANIFEST_UNKNOWN", r#","message":"gone""#), "manifest unknown: gone");
        check(404, json, &entry("DENIED", ""), "denied");
        check(404, json, &entry("OWN_CODE", r#","message":"what""#), "unknown: what");
        check(401, "text/html", "<html>", "unauthorized: <html>");
        check(401, json, "<html>", "unauthorized: authentication required");
        check(403, "", "no", "denied: no");
        check(404, "text/plain", "no", "unknown: no");
        check(401, json, r#"{"details":"bad"}"#, "unauthorized: bad");
        check(429, "text/plain", "slow down", "toomanyrequests: slow down");
        let empty =
            "error parsing HTTP 404 response body: no error details found in HTTP response body: \"{}\"";
        check(404, json, "{}", empty);
        let bad = "error parsing HTTP 400 response body: invalid character 'b' looking for beginning of value: \"bad\"";
        check(400, json, "bad", bad);
        check(500, json, &unknown, "received unexpected HTTP status: 500 Internal Server Error");
    }

    #[test]
    fn a_refused_token_is_a_denial() {
        let mut headers = HeaderMap::new();
        let value = HeaderValue::from_static(r#"Bearer realm="x",error="insufficient_scope""#);
        headers.insert(hyper::header::WWW_AUTHENTICATE, value);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let error = failure(StatusCode::UNAUTHORIZED, &headers, b"");
        assert_eq!(error.api().map(|error| (error.code, error.status())), Some(("DENIED", 403)));
        assert_eq!(error.to_string(), "denied: requested access to the resource is denied");
    }
}
