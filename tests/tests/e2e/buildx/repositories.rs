//! Repositories: as contexts, and as what ADD brings. A git server is on the host's loopback.

use std::process::Command;

use serde_json::{Value, json};
use wherry_tests::{Host, Output, Servant, poll};

use super::{dockerfile, has_not};
use crate::buildkit::has;

/// Makes `repos/r.git`: `main` with a folder `sub` and a link to it, `feature` beside it, a tag and an annotated one; and with
/// a submodule, `withsub`.
const REPOSITORY: &str = r#"
export GIT_CONFIG_GLOBAL=$PWD/conf GIT_AUTHOR_DATE=2020-01-02T03:04:05Z GIT_COMMITTER_DATE=2020-01-02T03:04:05Z
git config --global user.email a@b; git config --global user.name n; git config --global init.defaultBranch main
git init -q sm; (cd sm; echo in the submodule >f; git add .; git commit -qm s); git clone -q --bare sm repos/sm.git
git init -q src; cd src; mkdir sub
cat >Dockerfile <<'E'
FROM busybox
COPY . /c
RUN cd /c; echo $(find . -not -path './.git/*' | sort) $(cat f g sm/f 2>/dev/null)
E
cp Dockerfile sub; echo on main >f; echo in sub >sub/g; echo x >no.key; echo '*.key' >.dockerignore; ln -s sub link
git add .; git commit -qm one; git tag v1; git tag -a -m annotated v1a
git checkout -q -b feature; echo on feature >f; git commit -qam two; git checkout -q main
cd ..; git clone -q --bare src repos/r.git; git -C repos/r.git config uploadpack.allowAnySHA1InWant true
git -C src rev-parse main feature"#;
/// What needs the server.
const SUBMODULE: &str = r"export GIT_CONFIG_GLOBAL=$PWD/conf
cd src; git checkout -q -b withsub; git submodule --quiet add git://127.0.0.1/sm.git sm; git commit -qm three
git push -q ../repos/r.git withsub";

const URL: &str = "git://127.0.0.1/r.git";

/// The server, and the commits of `main` and `feature`.
fn serve(host: &Host) -> (Servant, String, String) {
    let folder = host.folder().display().to_string();
    let mut command = Command::new("bash");
    command.args(["-euc", REPOSITORY]).current_dir(host.folder());
    let commits = Output::of(command).ok();
    let (main, feature) = commits.out().split_once('\n').expect("two commits");
    let servant = host.serve(
        "git-daemon",
        &format!(
            "$(git --exec-path)/git-daemon --base-path={folder}/repos --export-all --listen=127.0.0.1 \
             --reuseaddr --informative-errors"
        ),
    );
    poll("the git server", 10, || host.in_network(|| std::net::TcpStream::connect("127.0.0.1:9418").is_ok()));
    (servant, main.to_owned(), feature.to_owned())
}

fn context(host: &Host, options: &str, address: &str) -> Output {
    host.docker(&["buildx", "build", "--no-cache", "--progress", "plain", options, address])
}

#[test]
fn repositories_are_contexts() {
    let host = Host::new();
    let (_server, main, feature) = serve(&host);
    let at = |more: &str| context(&host, "--pull=false", &format!("{URL}{more}"));
    let all = "./.dockerignore ./Dockerfile ./f ./link ./no.key ./sub ./sub/Dockerfile ./sub/g";
    let (on_main, on_feature) = (format!("{all} on main"), format!("{all} on feature"));
    let sub = ". ./Dockerfile ./g in sub";
    for (more, expect) in [
        ("", on_main.as_str()),
        ("#feature", &on_feature),
        ("#refs/heads/feature", &on_feature),
        ("#feature:sub", sub),
        ("#:sub", sub),
        ("#v1", &on_main),
        ("#v1a", &on_main),
        (&format!("#{feature}"), &on_feature),
        ("#main:..", &on_main),
        ("?branch=feature&subdir=sub", sub),
        ("?tag=v1", &on_main),
        (&format!("?ref=feature&checksum={feature}"), &on_feature),
    ] {
        let told = at(more).ok().stderr;
        has(&told, &[expect, &format!("[internal] load git source {URL}{more}")]);
    }
    for (more, expect) in [
        (
            "#nope",
            "failed to read dockerfile: failed to load cache key: repository does not contain ref nope, output: \"\"",
        ),
        (
            "#main:nosuch",
            "failed to read dockerfile: invalid subdir /nosuch: failed to lstat \"nosuch\": statat nosuch: no such file or directory",
        ),
        (
            "#main:sub/no/x",
            "invalid subdir /sub/no/x: failed to lstat \"sub/no\": statat sub/no: no such file or directory",
        ),
        ("#main:f", "invalid subdir /f: git subpath \"/f\" contains non-directory \"f\""),
        ("#main:link", "invalid subdir /link: git subpath \"/link\" contains non-directory \"link\""),
        ("?foo=1", "failed to solve: unexpected query \"foo\""),
    ] {
        has(&at(more).exits(1).stderr, &[expect]);
    }
    let none = context(&host, "--pull=false", "git://127.0.0.1/none.git").exits(1).stderr;
    has(
        &none,
        &[
            "failed to read dockerfile: failed to load cache key: error fetching default branch for repository git://127.0.0.1/none.git: git stderr:",
        ],
    );
    let other = context(&host, "--file=sub/Dockerfile", &format!("{URL}#main")).ok().stderr;
    has(&other, &[&on_main]);
    has(
        &context(&host, "--file=nofile", URL).exits(1).stderr,
        &["failed to read dockerfile: open nofile: no such file or directory"],
    );
    let kept = context(&host, "--build-arg=BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", URL).ok().stderr;
    has(&kept, &["./.git ./Dockerfile"]);
    let from = format!("buildx build --no-cache --progress plain --build-context src={URL}#feature -");
    let told = host.docker_with_input(&from, b"FROM busybox\nCOPY --from=src f /\nRUN cat /f\n").ok().stderr;
    has(&told, &[" on feature", &format!("load git source {URL}#feature")]);
    let script = format!("cd {}; {SUBMODULE}", host.folder().display());
    host.exec(&["bash", "-euc", &script]).ok();
    has(&at("#withsub").ok().stderr, &["in the submodule"]);
    assert_ne!(main, feature);
}

#[test]
fn repositories_are_added() {
    let host = Host::new();
    let (_server, main, feature) = serve(&host);
    let text = format!(
        "FROM busybox
ADD {URL} /src
ADD --chown=33:34 --chmod=700 {URL}#feature:sub /sub/
ADD --exclude=sub --exclude=*.key {URL} /part
RUN ls -A /src | tr '\\n' ' '; ls -A /part | tr '\\n' ' '; stat -c '%n %a %u %g' /src /src/f /sub /sub/g
ADD --keep-git-dir=true {URL}#feature /kept
RUN cat /kept/.git/HEAD; grep url /kept/.git/config; cat /kept/.git/refs/heads/feature; ls /src/.git 2>&1 || true
ADD --checksum={main} {URL}#main /sum
ADD --checksum={} {URL}#v1 /sum
RUN cat /sum/f
",
        &main[..12]
    );
    let told = dockerfile(&host, "add", "", &text).ok().stderr;
    has(
        &told,
        &[
            ".dockerignore Dockerfile f link no.key sub .dockerignore Dockerfile f link ",
            "/src 755 0 0",
            "/src/f 644 0 0",
            "/sub/g 700 33 34",
            "url = git://127.0.0.1/r.git",
            "ls: /src/.git: No such file or directory",
            "on main",
        ],
    );
    let written = told.lines().filter(|line| line.ends_with(&format!(" {feature}"))).count();
    assert!(written >= 2, "HEAD and the branch: {told}");
    let fails = |name: &str, line: &str, expect: &str| {
        let text = format!("FROM busybox\n{line}\n");
        has(&dockerfile(&host, name, "", &text).exits(1).stderr, &[expect]);
    };
    let bad = format!("failed to solve: expected checksum to match {feature}, got {main}");
    fails("bad", &format!("ADD --checksum={feature} {URL}#main /s"), &bad);
    fails(
        "short",
        &format!("ADD --checksum=0000000 {URL}#main /s"),
        "expected checksum to match 0000000, got ",
    );
    fails(
        "none",
        &format!("ADD --checksum=xyz {URL}#main /s"),
        "failed to load cache key: invalid checksum xyz for Git URL, expected hex commit hash",
    );
    fails(
        "name",
        &format!("ADD {URL}#nope /s"),
        "failed to load cache key: repository does not contain ref nope, output: \"\"",
    );
    fails("copy", &format!("COPY {URL} /s"), "source can't be a git ref for COPY");
}

#[test]
fn metadata_files_name_repositories() {
    let host = Host::new();
    let (_server, main, feature) = serve(&host);
    let file = host.folder().join("metadata.json").display().to_string();
    let provenance = |line: &[&str]| {
        let line = [&["buildx", "build", "-q", "--metadata-file", &file], line].concat();
        host.docker(line.as_slice()).ok();
        let found: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
        found["buildx.build.provenance"].clone()
    };
    let git = |uri: &str, commit: &str| json!({ "uri": uri, "digest": { "sha1": commit } });
    let found = provenance(&[&format!("{URL}#feature")]);
    let with_reference = format!("{URL}#feature");
    let mut source = git(&with_reference, &feature);
    source["entryPoint"] = "Dockerfile".into();
    assert_eq!(found["invocation"]["configSource"], source, "{found:#}");
    assert_eq!(found["materials"][1], git(&with_reference, &feature));
    let tokens = json!([
        { "id": "GIT_AUTH_HEADER", "optional": true },
        { "id": "GIT_AUTH_TOKEN", "optional": true },
    ]);
    let parameters = json!({ "frontend": "dockerfile.v0", "secrets": tokens });
    assert_eq!(found["invocation"]["parameters"], parameters, "{found:#}");
    // Another state of the same repository is no context.
    let text = format!("FROM scratch\nADD {URL} /r\nCOPY f /f\n");
    let line = ["buildx", "build", "-q", "--metadata-file", &file, "-f", "-", &with_reference];
    host.docker_with_input(&line[..], text.as_bytes()).ok();
    let found: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    let found = &found["buildx.build.provenance"];
    let mut source = git(&with_reference, &feature);
    source["entryPoint"] = found["invocation"]["configSource"]["entryPoint"].clone();
    assert_eq!(found["invocation"]["configSource"], source, "{found:#}");
    assert_eq!(found["materials"], json!([git(URL, &main), git(&with_reference, &feature)]));
    let text = format!("FROM scratch\nADD {URL} /r\n");
    let folder = host.folder_with("added", &[("Dockerfile", &text)]);
    let found = provenance(&[&folder.display().to_string()]);
    assert_eq!(found["materials"], json!([git(URL, &main)]));
    assert_eq!(found["invocation"]["parameters"]["secrets"], tokens);
}

#[test]
fn the_classic_builder_takes_repositories() {
    let host = Host::new();
    let _server = serve(&host);
    let build =
        |more: &str| host.api("POST", &format!("/build?nocache=1&remote={URL}%23{more}"), &Value::Null);
    let told = build("feature").expect(200).text();
    assert!(told.contains("./.git ./Dockerfile ./f ./link ./no.key ./sub"), "{told}");
    for more in ["feature:sub", "main:link"] {
        let told = build(more).expect(200).text();
        assert!(told.contains(". ./Dockerfile ./g in sub"), "{told}");
        has_not(&told, ".git ");
    }
    let refused = build("nope").expect(500);
    assert_eq!(refused.message(), "error fetching: fatal: couldn't find remote ref nope\n: exit status 128");
    build("main:nosuch").expect(500);
}
