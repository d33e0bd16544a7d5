//! Pulls and pushes with real registries: Debian's docker-registry, plain, behind nginx with TLS and passwords, with a
//! token server, behind redirections, relays and proxies.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

use serde_json::{Value, json};
use wherry_tests::distribution::{Authority, Distribution, nginx};
use wherry_tests::engine::Binary;
use wherry_tests::registry::Registry;
use wherry_tests::relay::Relay;
use wherry_tests::tokens::{Tokens, USER};
use wherry_tests::{HOST_ADDRESS, Host, poll};

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// Logs the stock client in.
fn log_in(host: &Host, registry: &str, password: &str) -> wherry_tests::Output {
    host.docker_with_input(&["login", "-u", USER.0, "--password-stdin", registry], password.as_bytes())
}

fn repo_digest(host: &Host, name: &str) -> String {
    let digests = host.inspect(name)["RepoDigests"].clone();
    let repository = format!("{}@", name.rsplit_once(':').map_or(name, |(repository, _)| repository));
    let all: Vec<&str> = digests.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let found = all.iter().find(|digest| digest.starts_with(&repository));
    found.unwrap_or_else(|| panic!("{name} in {digests}")).rsplit_once('@').unwrap().1.to_owned()
}

/// How often a path was asked for.
fn count(relay: &Relay, method: &str, part: &str) -> usize {
    relay.requests().iter().filter(|r| r.starts_with(method) && r.contains(part)).count()
}

#[test]
fn push_and_pull_of_a_plain_registry() {
    let host = Host::new();
    let registry = Distribution::start(&host, 5000);
    let relay = Relay::start(&host, loopback(5010), registry.address());
    let name = "127.0.0.1:5010/team/app";
    host.docker(&["tag", "busybox", &format!("{name}:1")]).ok();
    host.load_image(&format!("{name}:2"), r#"{"Cmd":["echo","two"]}"#);
    let pushed = host.docker(&["push", "-a", name]).ok();
    let lines: Vec<&str> = pushed.stdout.lines().collect();
    assert_eq!(lines[0], format!("The push refers to repository [{name}]"), "{pushed}");
    assert!(lines[1].ends_with(": Preparing"), "{pushed}");
    assert!(lines.iter().any(|l| l.ends_with(": Pushed")), "{pushed}");
    assert!(lines.iter().any(|l| l.starts_with("1: digest: sha256:") && l.contains(" size: ")), "{pushed}");
    assert!(lines.iter().any(|l| l.starts_with("2: digest: sha256:")), "{pushed}");
    assert_eq!(count(&relay, "PATCH", "/v2/team/app/blobs/uploads/"), 1, "both images have the same layer");
    let digest = repo_digest(&host, &format!("{name}:1"));

    // What the registry has is not sent again, and what it has elsewhere neither.
    relay.forget();
    let again = host.docker(&["push", &format!("{name}:1")]).ok();
    assert!(again.stdout.contains(": Layer already exists"), "{again}");
    let other = "127.0.0.1:5010/other/app:1";
    host.docker(&["tag", "busybox", other]).ok();
    let mounted = host.docker(&["push", other]).ok();
    assert!(mounted.stdout.contains(": Mounted from team/app"), "{mounted}");
    assert_eq!(repo_digest(&host, other), digest, "the manifest is the same");
    assert_eq!(count(&relay, "PATCH", ""), 0);
    let answer =
        host.api("POST", "/v1.51/images/127.0.0.1:5010/team/app/push?tag=1", &Value::Null).expect(200);
    let last: Value = serde_json::from_str(answer.text().lines().last().unwrap()).unwrap();
    let aux = &last["aux"];
    assert_eq!((&aux["Tag"], &aux["Digest"]), (&json!("1"), &json!(digest)));
    assert!(aux["Size"].as_u64() > Some(200) && last["progressDetail"] == json!({}), "{last}");

    // Everything back: by tag, by digest, all tags.
    let ids =
        [host.inspect(&format!("{name}:1"))["Id"].clone(), host.inspect(&format!("{name}:2"))["Id"].clone()];
    host.docker(
        "rmi -f busybox 127.0.0.1:5010/team/app:1 127.0.0.1:5010/team/app:2 127.0.0.1:5010/other/app:1",
    )
    .ok();
    let pinned = format!("{name}@{digest}");
    let by_digest = host.docker(&["pull", &pinned]).ok();
    assert!(
        by_digest.stdout.contains(&format!("Status: Downloaded newer image for {pinned}")),
        "{by_digest}"
    );
    host.docker(&["rmi", "-f", &pinned]).ok();
    let all = host.docker(&["pull", "-a", name]).ok();
    assert!(
        all.stdout.contains("1: Pulling from team/app") && all.stdout.contains("2: Pulling from team/app")
    );
    assert_eq!(
        ids,
        [host.inspect(&format!("{name}:1"))["Id"].clone(), host.inspect(&format!("{name}:2"))["Id"].clone()]
    );
    host.docker(&["run", "--rm", &format!("{name}:2")]).prints("two");

    // An image that has not changed costs one question.
    relay.forget();
    let unchanged = host.docker(&["pull", &format!("{name}:1")]).ok();
    assert!(unchanged.stdout.contains("Status: Image is up to date"), "{unchanged}");
    let asked: Vec<String> = relay.requests().into_iter().filter(|r| !r.ends_with(" /v2/")).collect();
    assert_eq!(asked, ["HEAD /v2/team/app/manifests/1"]);
    host.docker("push 127.0.0.1:5010/nothere")
        .fails(1, "An image does not exist locally with the tag: 127.0.0.1:5010/nothere");
    host.docker("push 127.0.0.1:5010/team/app:9").fails(1, "tag does not exist: 127.0.0.1:5010/team/app:9");
    let inspected =
        host.api("GET", "/v1.51/distribution/127.0.0.1:5010/team/app:1/json", &Value::Null).expect(200);
    assert_eq!(inspected.json()["Descriptor"]["digest"], json!(digest));
    assert_eq!(inspected.json()["Platforms"][0]["os"], "linux");
}

#[test]
fn passwords_behind_nginx_with_a_certificate_of_its_own() {
    let host = Host::new();
    let registry = Distribution::start(&host, 5000);
    let authority = Authority::new(&host);
    authority.issue(&host, "server", "DNS:docker-host");
    authority.issue(&host, "client", "DNS:client");
    let passwords = host.folder().join("htpasswd");
    host.exec(&["htpasswd", "-bBc", &passwords.display().to_string(), USER.0, USER.1]).ok();
    let _front = nginx(
        &host,
        5443,
        &format!(
            "listen 5443 ssl; ssl_certificate {}; ssl_certificate_key {}; ssl_client_certificate {}; ssl_verify_client optional;
             location / {{ if ($ssl_client_verify != SUCCESS) {{ return 400; }}
               auth_basic registry; auth_basic_user_file {}; proxy_pass http://{};
               proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Proto $scheme; }}",
            authority.path("server.crt"),
            authority.path("server.key"),
            authority.path("ca.crt"),
            passwords.display(),
            registry.address()
        ),
    );
    let name = "docker-host:5443";
    log_in(&host, name, USER.1).fails(
        1,
        "Get \"https://docker-host:5443/v2/\": tls: failed to verify certificate: x509: certificate signed by unknown authority",
    );
    let folder = format!("/etc/docker/certs.d/{name}");
    host.exec(["mkdir", "-p", folder.as_str()].as_slice()).ok();
    let install = |from: &str, to: &str| {
        host.exec(["cp", authority.path(from).as_str(), format!("{folder}/{to}").as_str()].as_slice()).ok();
    };
    install("ca.crt", "ca.crt");
    log_in(&host, name, USER.1)
        .fails(1, "login attempt to https://docker-host:5443/v2/ failed with status: 400 Bad Request");
    install("client.crt", "client.cert");
    install("client.key", "client.key");
    log_in(&host, name, "wrong")
        .fails(1, "login attempt to https://docker-host:5443/v2/ failed with status: 401 Unauthorized");
    let image = format!("{name}/secret:1");
    host.docker(&["tag", "busybox", &image]).ok();
    host.docker(&["push", &image]).fails(1, "no basic auth credentials");
    host.docker(&["pull", &image])
        .fails(1, "Head \"https://docker-host:5443/v2/secret/manifests/1\": no basic auth credentials");
    let good = log_in(&host, name, USER.1).ok();
    assert!(good.stdout.contains("Login Succeeded"), "{good}");
    host.docker(&["push", &image]).ok();
    host.docker(&["rmi", &image, "busybox"]).ok();
    // The client of a build is asked for them.
    let text = format!("FROM {image}\nRUN echo built on it\n");
    let built = host.docker_with_input("buildx build --progress plain -", text.as_bytes()).ok();
    assert!(built.stderr.contains(" built on it"), "{built}");
    host.docker(&["pull", "-q", &image]).prints(&image);
    host.docker(&["run", "--rm", &image, "echo", "in"]).prints("in");
    host.docker(&["logout", name]).ok();
    host.docker(&["pull", &image]).fails(1, "no basic auth credentials");
}

#[test]
fn search_asks_the_index_that_is_named() {
    let host = Host::new();
    let found = r#"{"num_results":3,"query":"tool","results":[
        {"name":"me/tool","description":"mine","star_count":3,"is_official":false,"is_automated":false},
        {"name":"tool","description":"the tool","star_count":30,"is_official":true,"is_automated":false},
        {"name":"other/tool","description":"","star_count":7,"is_official":false,"is_automated":true}]}"#;
    let _index = nginx(
        &host,
        5090,
        &format!(
            "listen 5090; default_type application/json; location = /v1/_ping {{ return 200 '{{}}'; }}
             location = /v1/search {{ if ($arg_q != tool) {{ return 404; }} return 200 '{found}'; }}"
        ),
    );
    let search = |options: &str, term: &str| {
        let format = "{{.Name}} {{.Description}} {{.StarCount}} {{.IsOfficial}}";
        let mut line = vec!["search", "--format", format];
        line.extend(options.split_whitespace());
        line.push(term);
        host.docker(line.as_slice())
    };
    let (tool, other, mine) = ("tool the tool 30 [OK]", "other/tool  7", "me/tool mine 3");
    for (options, expect) in [
        ("", vec![mine, tool, other]),
        ("--filter is-official=true", vec![tool]),
        ("--filter is-official=false", vec![mine, other]),
        ("--filter stars=5", vec![tool, other]),
        ("--filter stars=5 --filter is-official=false", vec![other]),
        ("--filter is-automated=true", vec![]),
    ] {
        let output = search(options, "127.0.0.1:5090/tool").ok();
        let lines: Vec<&str> = output.stdout.lines().map(str::trim_end).collect();
        assert_eq!(lines, expect, "{options}");
    }
    search("", "127.0.0.1:5090/others").fails(1, "Unexpected status code 404");
    search("--limit 101", "127.0.0.1:5090/tool").fails(1, "limit 101 is outside the range of [1, 100]");
    search("--filter stars=x", "127.0.0.1:5090/tool").fails(1, "invalid filter 'stars=x'");
    search("--filter nosuch=x", "127.0.0.1:5090/tool").fails(1, "invalid filter 'nosuch'");
    search("", "http://127.0.0.1:5090/tool").fails(1, "should not have a scheme");
    search("", "127.0.0.1:9/tool")
        .fails(1, "invalid registry endpoint \"http://127.0.0.1:9/v1/\". HTTPS attempt: ");
    if Binary::from_environment().is_reference() {
        return;
    }
    // A registry has no search, but a catalog, which dockerd does not look for.
    let _registry = Distribution::start(&host, 5010);
    host.docker("tag busybox 127.0.0.1:5010/team/app:1").ok();
    host.docker("push -q 127.0.0.1:5010/team/app:1").ok();
    search("", "127.0.0.1:5010/app").prints("team/app  0");
    search("", "127.0.0.1:5010/nothing").prints("");
}

#[test]
fn tokens_are_fetched_for_what_is_done() {
    let host = Host::new();
    let authority = Authority::new(&host);
    let tokens = Tokens::start(&host, &authority, 5001);
    let _registry = Distribution::with(&host, 5000, &tokens.configuration());
    let image = "127.0.0.1:5000/team/app:1";
    host.docker(&["tag", "busybox", image]).ok();
    host.docker(&["push", image]).fails(1, "denied: requested access to the resource is denied");
    log_in(&host, "127.0.0.1:5000", "wrong")
        .fails(1, "Get \"http://127.0.0.1:5000/v2/\": unauthorized: incorrect username or password");
    log_in(&host, "127.0.0.1:5000", USER.1).ok();
    let config = fs::read_to_string(host.folder().join("docker-config/config.json")).unwrap();
    assert!(config.contains("lasting"), "the token that lasts takes the password's place: {config}");
    // The client then sends that token; this server wants the password, as most do in continuous integration.
    fs::remove_file(host.folder().join("docker-config/config.json")).unwrap();
    let auth = json!({"username": USER.0, "password": USER.1}).to_string();
    let auth = base64_url(auth.as_bytes());
    let push = |path: &str| {
        let headers = [("X-Registry-Auth", auth.as_str())];
        host.connect().request("POST", path, &headers, b"").expect(200)
    };
    let pushed = push("/v1.51/images/127.0.0.1:5000/team/app/push?tag=1");
    assert!(pushed.text().contains("Pushed") && pushed.text().contains("\"aux\""), "{}", pushed.text());
    host.docker(&["tag", "busybox", "127.0.0.1:5000/team/other:1"]).ok();
    let mounted = push("/v1.51/images/127.0.0.1:5000/team/other/push?tag=1");
    assert!(mounted.text().contains("Mounted from team/app"), "{}", mounted.text());
    let asked = tokens.requests();
    let scope =
        |scope: &str| asked.iter().any(|path| path.contains(&scope.replace(':', "%3A").replace('/', "%2F")));
    assert!(scope("scope=repository:team/app:push%2Cpull"), "{asked:?}");
    assert!(scope("scope=repository:team/other:push%2Cpull&scope=repository:team/app:pull"), "{asked:?}");
    // Strangers may read.
    host.docker(&["rmi", "busybox", image, "127.0.0.1:5000/team/other:1"]).ok();
    host.docker(&["pull", "-q", image]).prints(image);
}

fn base64_url(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE.encode(bytes)
}

#[test]
fn redirections_and_broken_connections() {
    let host = Host::new();
    let registry = Distribution::start(&host, 5000);
    let passwords = host.folder().join("htpasswd");
    host.exec(&["htpasswd", "-bBc", &passwords.display().to_string(), USER.0, USER.1]).ok();
    let (front, storage) = (5080, 5081);
    // Blobs are elsewhere, where a password has no business.
    let _storage = nginx(
        &host,
        storage,
        &format!(
            "listen {storage}; location / {{ if ($http_authorization) {{ return 400; }} proxy_pass http://{}; }}",
            registry.address()
        ),
    );
    let relay = Relay::start(&host, loopback(5082), loopback(storage));
    let _front = nginx(
        &host,
        front,
        &format!(
            "listen {front}; set $redirected $request_method;
             location ~ /blobs/sha256: {{ auth_basic r; auth_basic_user_file {passwords};
               if ($request_method = GET) {{ return 307 http://127.0.0.1:5082$request_uri; }}
               proxy_pass http://{registry}; proxy_set_header Host $http_host; }}
             location / {{ auth_basic r; auth_basic_user_file {passwords}; proxy_pass http://{registry};
               proxy_set_header Host $http_host; }}",
            passwords = passwords.display(),
            registry = registry.address()
        ),
    );
    let image = "127.0.0.1:5080/team/app:1";
    log_in(&host, "127.0.0.1:5080", USER.1).ok();
    host.docker(&["tag", "busybox", image]).ok();
    host.docker(&["push", image]).ok();
    host.docker(&["rmi", image, "busybox"]).ok();
    // Each connection breaks after 400 kB: the pull goes on where it was.
    relay.cut(Some(400_000));
    let pulled = host.docker(&["pull", image]).ok();
    assert!(pulled.stdout.contains("Pull complete"), "{pulled}");
    assert!(pulled.stdout.contains("Retrying in 1 second"), "{pulled}");
    let layers = count(&relay, "GET", "/blobs/");
    assert!(layers >= 3, "{layers}: {:?}", relay.requests());
    host.docker(&["run", "--rm", image, "echo", "whole"]).prints("whole");
}

#[test]
fn clients_share_a_download() {
    let host = Host::new();
    let registry = Distribution::start(&host, 5000);
    let relay = Relay::start(&host, loopback(5010), registry.address());
    let [one, two] = ["127.0.0.1:5010/app:1", "127.0.0.1:5010/app:2"];
    host.docker(&["tag", "busybox", one]).ok();
    host.load_image(two, r#"{"Cmd":["echo","two"]}"#);
    host.docker("push -a 127.0.0.1:5010/app").ok();
    let remove = || host.docker(&["rmi", "-f", one, two, "busybox"]);
    remove().ok();
    relay.forget();
    relay.hold(true);
    // A client that goes away leaves the layer to those who wait for it, too.
    let mut first = host.docker_session(&["pull", one]);
    first.expect("Pulling fs layer");
    poll("the layer's request", 20, || count(&relay, "GET", "/blobs/") == 2);
    let mut second = host.docker_session(&["pull", two]);
    second.expect("Pulling fs layer");
    let mut third = host.docker_session(&["pull", one]);
    third.expect("Pulling fs layer");
    drop(first);
    relay.hold(false);
    let (code, text) = second.wait();
    assert!(code == 0 && text.contains("Pull complete"), "{text}");
    let (code, text) = third.wait();
    assert!(code == 0 && text.contains("Pull complete"), "{text}");
    let configurations_and_layer = count(&relay, "GET", "/blobs/");
    assert!((3..=4).contains(&configurations_and_layer), "{:?}", relay.requests());
    let layer = host.inspect(one)["RootFS"]["Layers"].clone();
    assert_eq!(layer, host.inspect(two)["RootFS"]["Layers"]);
    host.docker(&["run", "--rm", two]).prints("two");

    // When nobody wants it any more, it ends, and nothing of it is left.
    remove().ok();
    relay.hold(true);
    let mut only = host.docker_session(&["pull", one]);
    only.expect("Pulling fs layer");
    drop(only);
    let staging = host.root().join("data/overlay2/.staging");
    poll("the unfinished layer's end", 20, || {
        fs::read_dir(&staging).is_ok_and(|mut left| left.next().is_none())
    });
    relay.hold(false);
    host.docker(&["pull", "-q", one]).ok();
}

#[test]
fn mirrors_are_tried_in_order() {
    // The first is not there, the second has nothing, the third has the image.
    let mirrors = ["http://127.0.0.1:5551", "http://127.0.0.1:5552", "http://127.0.0.1:5553"];
    let arguments: Vec<&str> = mirrors.iter().flat_map(|mirror| ["--registry-mirror", *mirror]).collect();
    let host = Host::with_arguments(&arguments);
    let empty = Distribution::start(&host, 5562);
    let second = Relay::start(&host, loopback(5552), empty.address());
    let full = Registry::start(&host, 5553);
    full.add(&host, "library/app", "latest", r#"{"Cmd":["echo","mirrored"]}"#);
    host.docker("pull -q app").prints("docker.io/library/app:latest");
    host.docker("run --rm app").prints("mirrored");
    assert_eq!(count(&second, "HEAD", "/v2/library/app/manifests/latest"), 1);
    // What no mirror has is asked of Docker Hub, which is not to be reached here: that is the error.
    host.docker("pull nosuch")
        .fails(1, "Get \"https://registry-1.docker.io/v2/\": dial tcp: lookup registry-1.docker.io");
    // Mirrors are for reading.
    host.docker("push app").fails(1, "registry-1.docker.io");
    assert!(full.requests().iter().all(|request| !request.starts_with("POST")));
}

#[test]
fn proxies_lead_to_registries() {
    let proxy = format!("http://{HOST_ADDRESS}:3128");
    let host = Host::with_arguments(&[
        "--http-proxy",
        &proxy,
        "--https-proxy",
        &proxy,
        "--no-proxy",
        "direct.test",
        "--insecure-registry",
        "registry.test:5000",
    ]);
    let registry = Distribution::start(&host, 5000);
    let relay = Relay::proxy(&host, (HOST_ADDRESS, 3128).into(), registry.address());
    host.docker("tag busybox registry.test:5000/app:1").ok();
    host.docker("push registry.test:5000/app:1").ok();
    host.docker("rmi busybox registry.test:5000/app:1").ok();
    host.docker("pull -q registry.test:5000/app:1").ok();
    assert!(count(&relay, "CONNECT", "registry.test:5000") > 0, "TLS is tried first: {:?}", relay.requests());
    assert!(count(&relay, "PATCH", "http://registry.test:5000/v2/app/") > 0, "{:?}", relay.requests());
    assert!(count(&relay, "GET", "http://registry.test:5000/v2/app/blobs/") > 0);
    relay.forget();
    host.docker("pull direct.test:5000/app:1").fails(1, "lookup direct.test");
    host.docker("pull 127.0.0.1:5000/app:1").ok();
    assert_eq!(relay.requests(), [""; 0], "neither exceptions nor the loopback go through it");
}
