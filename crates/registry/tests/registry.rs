//! The client against a registry on the loopback: what it asks, in which order, and what it makes of the answers.
#![allow(clippy::unwrap_used, reason = "a test that cannot prepare has failed")]

mod server;

use server::{Answer, Seen, Server};
use wherry_image_ref::Digest;
use wherry_registry::{Client, Credentials, Endpoint, Manifest, Platform, Repository, Selected};

fn endpoint(server: &Server) -> Endpoint {
    Endpoint { url: server.url(), mirror: false, verify: true }
}

async fn connect(server: &Server, credentials: &Credentials) -> Result<Repository, String> {
    let client = Client::new("test/1", "/nonexistent");
    Repository::connect(&client, &endpoint(server), "me/app", credentials).await.map_err(|e| e.to_string())
}

async fn anonymous(server: &Server) -> Repository {
    connect(server, &Credentials::default()).await.unwrap()
}

fn user() -> Credentials {
    Credentials { username: "u".into(), password: "p".into(), ..Credentials::default() }
}

fn document() -> Vec<u8> {
    let digest = Digest::of(b"config");
    format!(r#"{{"schemaVersion":2,"config":{{"digest":"{digest}","size":6}},"layers":[]}}"#).into_bytes()
}

#[tokio::test]
async fn a_tag_is_resolved_by_head_and_the_manifest_read_by_digest() {
    let manifest = document();
    let digest = Digest::of(&manifest);
    let body = manifest.clone();
    let server = Server::start(move |seen| match (seen.method.as_str(), seen.path.as_str()) {
        (_, "/v2/") => Answer::text(200, "{}"),
        ("HEAD", "/v2/me/app/manifests/latest") => {
            Answer::text(200, "").header("docker-content-digest", &digest.to_string())
        }
        ("GET", path) if path == format!("/v2/me/app/manifests/{digest}") => Answer::bytes(200, body.clone()),
        _ => Answer::text(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#),
    });
    let repository = anonymous(&server).await;
    let resolved = repository.resolve("latest").await.unwrap();
    assert!(resolved.digest == digest && resolved.body.is_none());
    let read = repository.manifest(&digest).await.unwrap();
    assert!(matches!(Manifest::read(&read, &Platform::host()), Ok(Selected::Image(_))));
    let error = repository.resolve("other").await.unwrap_err();
    assert_eq!(error.to_string(), "manifest unknown: manifest unknown");
    assert_eq!(error.api().unwrap().code, "MANIFEST_UNKNOWN");
    let seen = server.seen();
    assert!(seen.iter().all(|s| s.header("user-agent") == Some("test/1")));
    assert!(seen[1].header("accept").unwrap().contains("manifest.list.v2+json"));
    assert_eq!(server.connections(), 1, "the connection is kept");
}

#[tokio::test]
async fn a_manifest_with_another_digest_is_refused() {
    let server = Server::start(|_| Answer::bytes(200, document()));
    let wanted = Digest::of(b"other");
    let error = anonymous(&server).await.manifest(&wanted).await.unwrap_err();
    assert_eq!(error.to_string(), format!("manifest verification failed for digest {wanted}"));
}

/// A registry with a token server of its own; `grant` decides by the `Authorization` of the token request.
fn with_tokens(grant: impl Fn(&Seen) -> Option<&'static str> + Send + Sync + 'static) -> Server {
    Server::start(move |seen| {
        if seen.path.starts_with("/token") {
            return match grant(seen) {
                Some(token) => Answer::text(200, &format!(r#"{{"token":"{token}"}}"#)),
                None => Answer::text(401, r#"{"details":"incorrect username or password"}"#),
            };
        }
        match seen.header("authorization") {
            Some("Bearer good") if seen.path.contains("manifests") => Answer::bytes(200, document()),
            Some("Bearer good") => Answer::text(200, r#"{"name":"me/app","tags":["a","b"]}"#),
            _ => {
                let realm =
                    format!("Bearer realm=\"http://{}/token\",service=\"reg\"", seen.header("host").unwrap());
                Answer::text(
                    401,
                    r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#,
                )
                .header("www-authenticate", &realm)
            }
        }
    })
}

#[tokio::test]
async fn a_token_is_fetched_once_and_used_for_all_requests() {
    let server = with_tokens(|_| Some("good"));
    let repository = anonymous(&server).await;
    assert_eq!(repository.tags().await.unwrap(), ["a", "b"]);
    assert_eq!(repository.resolve("latest").await.unwrap().digest, Digest::of(&document()));
    let seen = server.seen();
    let tokens: Vec<&Seen> = seen.iter().filter(|s| s.path.starts_with("/token")).collect();
    assert_eq!(tokens.len(), 1);
    assert_eq!(tokens[0].path, "/token?scope=repository%3Ame%2Fapp%3Apull&service=reg");
    assert_eq!(tokens[0].header("authorization"), None);
}

#[tokio::test]
async fn credentials_go_to_the_token_server() {
    let server = with_tokens(|seen| (seen.header("authorization") == Some("Basic dTpw")).then_some("good"));
    let repository = connect(&server, &user()).await.unwrap();
    repository.resolve("latest").await.unwrap();
    let wrong = Credentials { password: "x".into(), ..user() };
    let error = connect(&server, &wrong).await.unwrap().resolve("latest").await.unwrap_err();
    assert_eq!(error.to_string(), "unauthorized: incorrect username or password");
    assert!(server.seen().iter().any(|s| s.path.ends_with("&account=u")));
}

#[tokio::test]
async fn an_expired_token_is_replaced() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let first = AtomicBool::new(true);
    let server =
        with_tokens(move |_| Some(if first.swap(false, Ordering::SeqCst) { "stale" } else { "good" }));
    let repository = anonymous(&server).await;
    // The first request learns the stale token and fails; the next one finds that it is refused, and renews it.
    assert!(repository.tags().await.is_err());
    assert_eq!(repository.tags().await.unwrap(), ["a", "b"]);
}

#[tokio::test]
async fn basic_authentication_needs_credentials() {
    let server = Server::start(|seen| match seen.header("authorization") {
        Some("Basic dTpw") => Answer::bytes(200, document()),
        _ => Answer::text(401, "").header("www-authenticate", "Basic realm=\"r\""),
    });
    let error = anonymous(&server).await.resolve("latest").await.unwrap_err().to_string();
    assert_eq!(
        error,
        format!("Head \"{}/v2/me/app/manifests/latest\": no basic auth credentials", server.url())
    );
    connect(&server, &user()).await.unwrap().resolve("latest").await.unwrap();
}

#[tokio::test]
async fn redirections_leave_credentials_behind() {
    let content = b"blob".to_vec();
    let storage = Server::start(move |seen| {
        assert_eq!(seen.header("authorization"), None);
        Answer::bytes(200, content.clone())
    });
    let target = format!("{}/storage?signed=1", storage.url());
    let server = Server::start(move |seen| match seen.header("authorization") {
        Some("Basic dTpw") if seen.path.contains("/blobs/") => {
            Answer::text(307, "").header("location", &target)
        }
        _ => Answer::text(401, "").header("www-authenticate", "Basic realm=\"r\""),
    });
    let repository = connect(&server, &user()).await.unwrap();
    let blob = repository.small_blob(&Digest::of(b"blob"), 100).await.unwrap();
    assert_eq!(blob, &b"blob"[..]);
    let too_large = repository.small_blob(&Digest::of(b"blob"), 3).await.unwrap_err();
    assert!(too_large.to_string().contains("larger than 3 bytes"));
}

async fn read(repository: &Repository, digest: &Digest) -> Result<Vec<u8>, String> {
    let mut blob = repository.blob(digest).await.map_err(|e| e.to_string())?;
    let mut all = Vec::new();
    while let Some(bytes) = blob.next().await.map_err(|e| e.to_string())? {
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}

#[tokio::test]
async fn a_transfer_that_breaks_goes_on_where_it_ended() {
    for ranges in [true, false] {
        let content: Vec<u8> = (0..300_000_u32).map(|n| (n / 3) as u8).collect();
        let digest = Digest::of(&content);
        let served = content.clone();
        let server = Server::start(move |seen| {
            if !seen.path.contains("/blobs/") {
                return Answer::text(200, "{}");
            }
            let offset =
                seen.header("range").and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
            match offset {
                None => Answer::bytes(200, served.clone()).cut(100_000),
                Some(offset) if ranges => Answer::bytes(206, served[offset..].to_vec()).cut(100_000),
                Some(_) => Answer::bytes(200, served.clone()),
            }
        });
        assert!(read(&anonymous(&server).await, &digest).await.unwrap() == content, "ranges: {ranges}");
    }
}

#[tokio::test]
async fn failures_have_gos_words() {
    let gone = Server::start(|_| Answer::text(200, "{}"));
    let url = gone.url();
    let address = url.trim_start_matches("http://").to_owned();
    drop(gone);
    let dead = Endpoint { url: url.clone(), mirror: false, verify: true };
    let client = Client::new("test/1", "/nonexistent");
    let connect = async |endpoint: Endpoint| {
        Repository::connect(&client, &endpoint, "a", &Credentials::default()).await.unwrap_err().to_string()
    };
    assert_eq!(
        connect(dead).await,
        format!("Get \"{url}/v2/\": dial tcp {address}: connect: connection refused")
    );
    let unwell = Server::start(|_| Answer::text(503, "x"));
    assert_eq!(connect(endpoint(&unwell)).await, "received unexpected HTTP status: 503 Service Unavailable");
    let plain = Server::start(|_| Answer::text(200, "{}"));
    let https = plain.url().replace("http://", "https://");
    let error = connect(Endpoint { url: https.clone(), mirror: false, verify: true }).await;
    assert_eq!(error, format!("Get \"{https}/v2/\": http: server gave HTTP response to HTTPS client"));
    let unknown = Endpoint { url: "http://nobody.invalid".into(), mirror: false, verify: true };
    let error = connect(unknown).await;
    assert!(
        error.starts_with("Get \"http://nobody.invalid/v2/\": dial tcp: lookup nobody.invalid"),
        "{error}"
    );
    assert!(error.ends_with(": no such host"), "{error}");
}

#[tokio::test]
async fn tags_come_in_pages() {
    let server = Server::start(|seen| match seen.path.as_str() {
        "/v2/me/app/tags/list" => Answer::text(200, r#"{"tags":["a","b"]}"#)
            .header("link", "</v2/me/app/tags/list?last=b>; rel=\"next\""),
        "/v2/me/app/tags/list?last=b" => Answer::text(200, r#"{"tags":["c"]}"#),
        _ => Answer::text(200, "{}"),
    });
    assert_eq!(anonymous(&server).await.tags().await.unwrap(), ["a", "b", "c"]);
}
