//! The client against a registry on the loopback: what it asks, in which order, and what it makes of the answers.
#![allow(clippy::unwrap_used, reason = "a test that cannot prepare has failed")]

mod server;

use server::{Answer, Seen, Server};
use wherry_image_ref::Digest;
use wherry_registry::{
    Access, Client, Credentials, Endpoint, ManifestDocument, Repository, Selected, Settings, Started,
    catalog, log_in,
};

fn endpoint(server: &Server) -> Endpoint {
    Endpoint { url: server.url(), mirror: false, verify: true }
}

fn client() -> Client {
    Client::new(Settings { user_agent: "test/1".into(), ..Settings::default() })
}

async fn connect(server: &Server, credentials: &Credentials) -> Result<Repository, String> {
    let connected =
        Repository::connect(&client(), &endpoint(server), "me/app", credentials, Access::Pull).await;
    connected.map_err(|e| e.to_string())
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
        _ => Answer::text(
            404,
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":1}]}"#,
        ),
    });
    let repository = anonymous(&server).await;
    let resolved = repository.resolve("latest").await.unwrap();
    assert!(resolved.digest == digest && resolved.body.is_none());
    let read = repository.manifest(&digest).await.unwrap();
    assert!(matches!(ManifestDocument::parse(&read).and_then(|d| d.select(None)), Ok(Selected::Image(_))));
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
    let expect = format!(
        "Head \"{}/v2/me/app/manifests/latest\": unauthorized: incorrect username or password",
        server.url()
    );
    assert_eq!(error.to_string(), expect);
    assert!(server.seen().iter().any(|s| s.path.starts_with("/token?account=u&scope=")));
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
    assert!(too_large.to_string().contains("larger than 3 bytes"), "{too_large}");
}

async fn read(repository: &Repository, digest: &Digest) -> Result<Vec<u8>, String> {
    let mut blob = repository.blob(digest);
    let mut all = Vec::new();
    let mut breaks = 0;
    loop {
        match blob.next().await {
            Ok(Some(bytes)) => all.extend_from_slice(&bytes),
            Ok(None) => return Ok(all),
            Err(error) if error.is_passing() && breaks < 3 => breaks += 1,
            Err(error) => return Err(error.to_string()),
        }
    }
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
            let offset: Option<usize> =
                seen.header("range").and_then(|r| r.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
            match offset {
                None => Answer::bytes(200, served.clone()).cut(100_000),
                Some(offset) if ranges => {
                    let range = format!("bytes {offset}-{}/{}", served.len() - 1, served.len());
                    Answer::bytes(206, served[offset..].to_vec()).header("content-range", &range).cut(100_000)
                }
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
    let client = client();
    let connect = async |endpoint: Endpoint| {
        let nobody = Credentials::default();
        Repository::connect(&client, &endpoint, "a", &nobody, Access::Pull).await.unwrap_err().to_string()
    };
    assert_eq!(
        connect(dead).await,
        format!("Get \"{url}/v2/\": dial tcp {address}: connect: connection refused")
    );
    let unwell = Server::start(|_| Answer::text(503, "x"));
    let error = anonymous(&unwell).await.resolve("latest").await.unwrap_err().to_string();
    assert_eq!(error, "received unexpected HTTP status: 503 Service Unavailable");
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

async fn pieces(parts: &[&'static str]) -> wherry_registry::Pieces {
    let (sender, pieces) = tokio::sync::mpsc::channel(parts.len() + 1);
    for part in parts {
        sender.send(Ok(part.as_bytes().into())).await.unwrap();
    }
    pieces
}

async fn pushing(server: &Server) -> Repository {
    Repository::connect(&client(), &endpoint(server), "me/app", &user(), Access::Push).await.unwrap()
}

#[tokio::test]
async fn a_blob_goes_up_in_pieces_and_the_manifest_after_it() {
    let server = Server::start(|seen| match (seen.method.as_str(), seen.path.as_str()) {
        ("HEAD", _) => Answer::text(404, ""),
        ("POST", _) => Answer::text(202, "").header("location", "/v2/me/app/blobs/uploads/1?state=a"),
        ("PATCH", _) => Answer::text(202, "").header("location", "/v2/me/app/blobs/uploads/1?state=b"),
        ("PUT", _) => Answer::text(201, ""),
        _ => Answer::text(200, "{}"),
    });
    let repository = pushing(&server).await;
    let digest = Digest::of(b"onetwo");
    assert_eq!(repository.blob_size(&digest).await.unwrap(), None);
    let Started::Upload(mut upload) = repository.start_upload(None).await.unwrap() else {
        panic!("no upload")
    };
    upload.send(pieces(&["one", "two"]).await).await.unwrap();
    upload.finish(&digest, Default::default()).await.unwrap();
    repository.put_manifest("1", "application/x", document().into()).await.unwrap();
    let seen: Vec<Seen> = server.seen().split_off(2);
    let shown: Vec<String> = seen.iter().map(|s| format!("{} {}", s.method, s.path)).collect();
    let hex = digest.hex();
    assert_eq!(
        shown,
        [
            "POST /v2/me/app/blobs/uploads/".to_owned(),
            "PATCH /v2/me/app/blobs/uploads/1?state=a".to_owned(),
            format!("PUT /v2/me/app/blobs/uploads/1?state=b&digest=sha256%3A{hex}"),
            "PUT /v2/me/app/manifests/1".to_owned(),
        ]
    );
    assert_eq!(seen[1].body, b"onetwo");
    assert_eq!((seen[3].header("content-type"), &seen[3].body), (Some("application/x"), &document()));
}

#[tokio::test]
async fn an_upload_that_breaks_off_never_looks_whole() {
    let server = Server::start(|seen| match seen.method.as_str() {
        "POST" => Answer::text(202, "").header("location", "/v2/u"),
        _ => Answer::text(200, "{}"),
    });
    let Started::Upload(mut upload) = pushing(&server).await.start_upload(None).await.unwrap() else {
        panic!("no upload")
    };
    let (sender, pieces) = tokio::sync::mpsc::channel(2);
    sender.send(Ok("half".into())).await.unwrap();
    sender.send(Err(std::io::Error::other("the disk fails"))).await.unwrap();
    drop(sender);
    assert!(upload.send(pieces).await.is_err());
    assert!(server.seen().iter().all(|seen| seen.method != "PATCH"));
}

#[tokio::test]
async fn a_mount_asks_for_leave_to_read_the_other_repository() {
    let server = Server::start(|seen| {
        if seen.path.starts_with("/token") {
            return Answer::text(200, r#"{"access_token":"good"}"#);
        }
        if seen.header("authorization") != Some("Bearer good") {
            let realm = format!("Bearer realm=\"http://{}/token\"", seen.header("host").unwrap());
            return Answer::text(401, "").header("www-authenticate", &realm);
        }
        Answer::text(if seen.path.contains("from=") { 201 } else { 500 }, "")
    });
    let digest = Digest::of(b"");
    let started = pushing(&server).await.start_upload(Some((&digest, "other/app"))).await.unwrap();
    assert!(matches!(started, Started::Mounted));
    let seen = server.seen();
    assert_eq!(
        seen[1].path,
        "/token?account=u&scope=repository%3Ame%2Fapp%3Apush%2Cpull&scope=repository%3Aother%2Fapp%3Apull"
    );
    assert!(seen[2].path.starts_with("/v2/me/app/blobs/uploads/?from=other%2Fapp&mount=sha256%3A"));
}

#[tokio::test]
async fn credentials_are_not_sent_where_an_upload_leads() {
    let storage = Server::start(|seen| {
        assert_eq!(seen.header("authorization"), None);
        Answer::text(201, "")
    });
    let target = format!("{}/elsewhere", storage.url());
    let server = Server::start(move |seen| match seen.header("authorization") {
        Some(_) => Answer::text(202, "").header("location", &target),
        None => Answer::text(401, "").header("www-authenticate", "Basic realm=\"r\""),
    });
    pushing(&server).await.put_blob(&Digest::of(b"x"), "x".into()).await.unwrap();
    assert_eq!(storage.seen().len(), 1);
}

#[tokio::test]
async fn a_login_is_told_as_dockerd_tells_it() {
    let log_in = async |server: &Server, who: &Credentials| {
        log_in(&client(), &endpoint(server), who).await.map_err(|e| e.to_string())
    };
    let basic = Server::start(|seen| match seen.header("authorization") {
        Some("Basic dTpw") => Answer::text(200, "{}"),
        _ => Answer::text(401, "").header("www-authenticate", "Basic realm=\"r\""),
    });
    assert_eq!(log_in(&basic, &user()).await, Ok(String::new()));
    let wrong = Credentials { password: "no".into(), ..user() };
    let expect = format!("login attempt to {}/v2/ failed with status: 401 Unauthorized", basic.url());
    assert_eq!(log_in(&basic, &wrong).await, Err(expect));
    let expect = format!("Get \"{}/v2/\": no basic auth credentials", basic.url());
    assert_eq!(log_in(&basic, &Credentials::default()).await, Err(expect));
    let tokens = Server::start(|seen| {
        if seen.path.starts_with("/token") {
            return Answer::text(200, r#"{"token":"good","refresh_token":"lasting"}"#);
        }
        match seen.header("authorization") {
            Some("Bearer good") => Answer::text(200, "{}"),
            _ => {
                let realm = format!("Bearer realm=\"http://{}/token\"", seen.header("host").unwrap());
                Answer::text(401, "").header("www-authenticate", &realm)
            }
        }
    });
    assert_eq!(log_in(&tokens, &user()).await, Ok("lasting".into()));
    assert_eq!(tokens.seen()[1].path, "/token?account=u&client_id=docker&offline_token=true");
}

#[tokio::test]
async fn a_catalog_is_read_if_there_is_one() {
    let server = Server::start(|seen| match seen.path.as_str() {
        "/v2/_catalog?n=1000" => Answer::text(200, r#"{"repositories":["a"]}"#)
            .header("link", "</v2/_catalog?last=a>; rel=\"next\""),
        "/v2/_catalog?last=a" => Answer::text(200, r#"{"repositories":["b/c"]}"#),
        _ => Answer::text(200, "{}"),
    });
    let found = catalog(&client(), &endpoint(&server), &user()).await.unwrap();
    assert_eq!(found, Some(vec!["a".to_owned(), "b/c".to_owned()]));
    let without = Server::start(|seen| Answer::text(if seen.path == "/v2/" { 200 } else { 404 }, "{}"));
    assert_eq!(catalog(&client(), &endpoint(&without), &user()).await.unwrap(), None);
}
