//! Contexts that are no folder: standard input and addresses; and what ADD downloads.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use wherry_tests::{Host, Output, Servant, poll};

use super::{build, classic, dockerfile, has_not};
use crate::buildkit::has;

/// A web server on the host's loopback with the files of `www`.
fn serve(host: &Host) -> Servant {
    let www = host.folder().join("www");
    fs::create_dir_all(&www).unwrap();
    let servant = host.serve("httpd", &format!("busybox httpd -f -p 127.0.0.1:8088 -h {}", www.display()));
    poll("the web server", 10, || host.in_network(|| std::net::TcpStream::connect("127.0.0.1:8088").is_ok()));
    servant
}

const WEB: &str = "http://127.0.0.1:8088";
const LISTS: &str = "FROM busybox\nCOPY . /c\nRUN cd /c; echo $(find . -type f | sort) $(cat f)\n";

fn context(host: &Host) -> PathBuf {
    host.folder_with(
        "c",
        &[
            ("Dockerfile", LISTS),
            ("f", "content\n"),
            ("s/D", "FROM busybox\nRUN echo another\n"),
            ("x.key", "hidden"),
            (".dockerignore", "*.key\n"),
        ],
    )
}

fn tar(folder: &Path, options: &str) -> Vec<u8> {
    let mut command = Command::new("tar");
    command.arg("-C").arg(folder).args([options, "."]);
    Output::of(command).ok().bytes
}

#[test]
fn dockerfiles_and_contexts_come_on_standard_input() {
    let host = Host::new();
    let folder = context(&host);
    let at = folder.display().to_string();
    let buildx = |options: &str, input: &[u8]| {
        host.docker_with_input(&format!("buildx build --progress plain --no-cache {options}"), input)
    };
    let text = b"FROM busybox\nCOPY f /\nRUN cat /f\n";
    has(&buildx(&format!("-f - {at}"), text).ok().stderr, &[" content"]);
    classic(&host, "--no-cache -f -", &folder, text).ok().contains("content\n");
    has(&buildx("-", b"FROM busybox\nRUN echo alone\n").ok().stderr, &[" alone"]);
    has(&buildx("-", b"FROM busybox\nCOPY f /\n").exits(1).stderr, &["\"/f\": not found"]);
    // An archive is as it is: nothing of it is ignored.
    let all = "./.dockerignore ./Dockerfile ./f ./s/D ./x.key content";
    has(&buildx("-", &tar(&folder, "-c")).ok().stderr, &[all]);
    has(&buildx("-f s/D -", &tar(&folder, "-cz")).ok().stderr, &[" another"]);
    has(
        &buildx("-f nope -", &tar(&folder, "-c")).exits(1).stderr,
        &["failed to read dockerfile: open nope: no such file or directory"],
    );
    has(
        &buildx("-", b"").exits(1).stderr,
        &["ERROR: failed to build: failed to solve: failed to read dockerfile: no local sources enabled"],
    );
}

#[test]
fn contexts_are_at_addresses() {
    let host = Host::new();
    let folder = context(&host);
    let _server = serve(&host);
    let www = host.folder().join("www");
    fs::write(www.join("c.tar"), tar(&folder, "-c")).unwrap();
    fs::write(www.join("c.tgz"), tar(&folder, "-cz")).unwrap();
    fs::copy(folder.join("s/D"), www.join("plain")).unwrap();
    let buildx = |options: &str, name: &str, input: &[u8]| {
        let line = format!("buildx build --progress plain --no-cache {options} {WEB}/{name}");
        host.docker_with_input(&line, input)
    };
    let all = "./.dockerignore ./Dockerfile ./f ./s/D ./x.key content";
    for name in ["c.tar", "c.tgz"] {
        has(&buildx("", name, b"").ok().stderr, &[all, "[internal] load remote build context"]);
    }
    has(&buildx("-f s/D", "c.tar", b"").ok().stderr, &[" another"]);
    has(&buildx("", "plain", b"").ok().stderr, &[" another"]);
    has(&buildx("-f -", "c.tar", b"FROM busybox\nCOPY f /\nRUN cat /f\n").ok().stderr, &[" content"]);
    let gone = "failed to read downloaded context: failed to load cache key: invalid response status 404";
    has(&buildx("", "none.tar", b"").exits(1).stderr, &[gone]);
}

#[test]
fn files_are_downloaded() {
    let host = Host::new();
    let folder = context(&host);
    let _server = serve(&host);
    let www = host.folder().join("www");
    fs::write(www.join("a.txt"), "added\n").unwrap();
    let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_118_000_000);
    fs::File::open(www.join("a.txt")).unwrap().set_modified(time).unwrap();
    fs::write(www.join("c.tar"), tar(&folder, "-c")).unwrap();
    let mut sum = Command::new("sha256sum");
    let sum = Output::of({
        sum.arg(www.join("a.txt"));
        sum
    });
    let sum = sum.ok().out().split_once(' ').unwrap().0.to_owned();
    let text = format!(
        "FROM busybox
ADD {WEB}/a.txt {WEB}/c.tar /d/
ADD --chmod=755 --chown=33:34 {WEB}/a.txt?x=1 /e
ADD --checksum=sha256:{sum} {WEB}/a.txt /s/x
ADD --unpack=true {WEB}/c.tar /un/
RUN stat -c '%n %a %u %g %Y' /d/a.txt /e; ls /d /un | tr '\\n' ' '; cat /s/x
"
    );
    let told = dockerfile(&host, "add", "", &text).ok().stderr;
    let names = "/d: a.txt c.tar  /un: Dockerfile f s x.key added";
    has(&told, &["/d/a.txt 600 0 0 1118000000", "/e 755 33 34 1118000000", names]);
    let fails = |name: &str, line: &str, expect: &str| {
        let text = format!("FROM busybox\n{line}\n");
        has(&dockerfile(&host, name, "", &text).exits(1).stderr, &[expect]);
    };
    let other = sum.replace(|c: char| c.is_ascii_alphabetic(), "0");
    fails(
        "sum",
        &format!("ADD --checksum=sha256:{other} {WEB}/a.txt /x"),
        &format!("digest mismatch sha256:{sum}"),
    );
    fails(
        "kind",
        &format!("ADD --checksum=md5:00 {WEB}/a.txt /x"),
        "failed to solve: unsupported digest algorithm",
    );
    fails("gone", &format!("ADD {WEB}/none /x"), "failed to load cache key: invalid response status 404");
}

/// Contexts by name: images in place of stages and of what FROM names, and what the client shows of that.
#[test]
fn images_are_given_by_name() {
    let host = Host::new();
    let text = "FROM base\nCOPY --from=dir . /d\nRUN ls -A /d; cat /d/f\n";
    let folder = host.folder_with(
        "named",
        &[("Dockerfile", text), ("o/f", "of o\n"), ("o/x.key", ""), ("o/.dockerignore", "*.key\n")],
    );
    let o = format!("--build-context dir={}/o", folder.display());
    for name in ["base", "docker.io/library/base:latest"] {
        let options = format!("--no-cache {o} --build-context {name}=docker-image://busybox");
        let told = build(&host, &options, &folder).ok().stderr;
        let steps = [
            "[context base] load metadata for busybox",
            "[context base] busybox",
            "[stage-0 1/3] COPY --from=dir . /d",
            "[stage-0 2/3] RUN ls",
            " of o",
        ];
        has(&told, &steps);
        has_not(&told, "x.key");
    }
    let stages = "FROM busybox AS one\nRUN exit 1\nFROM busybox\nCOPY --from=one /etc/passwd /p\n";
    let options = "--build-context one=docker-image://busybox";
    has(&dockerfile(&host, "stages", options, stages).ok().stderr, &["[context one] busybox"]);
    let named = "FROM busybox\nRUN --mount=type=bind,from=dir,target=/m ls -A /m; touch /m/x || echo read-only\nRUN --mount=type=bind,from=dir,source=f,target=/m/f,rw cat /m/f; echo new >/m/f\n";
    has(&dockerfile(&host, "bind", &o, named).ok().stderr, &["read-only", " of o"]);
    assert_eq!(fs::read_to_string(folder.join("o/f")).unwrap(), "of o\n");
}

/// `.dockerignore` beside the Dockerfile goes before the context's own.
#[test]
fn what_is_ignored_stays_with_the_client() {
    let host = Host::new();
    let list = "FROM busybox\nCOPY . /c\nRUN cd /c; echo files $(find . -type f | sort)\n";
    let folder = host.folder_with(
        "i",
        &[
            ("Dockerfile", list),
            ("Other", list),
            ("a", ""),
            ("b", ""),
            (".dockerignore", "a\n"),
            ("Other.dockerignore", "b\nOther*\n"),
        ],
    );
    let at = folder.display();
    has(
        &build(&host, "--no-cache", &folder).ok().stderr,
        &["files ./.dockerignore ./Dockerfile ./Other ./Other.dockerignore ./b"],
    );
    let other = format!("--no-cache -f {at}/Other");
    has(&build(&host, &other, &folder).ok().stderr, &["files ./.dockerignore ./Dockerfile ./a"]);
    fs::write(folder.join(".dockerignore"), "*\n!a\n!Dockerfile\n").unwrap();
    has(&build(&host, "--no-cache", &folder).ok().stderr, &["files ./Dockerfile ./a"]);
}
