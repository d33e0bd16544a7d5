//! What the client lends for getting at repositories: credentials of a web server, its SSH agent.

use std::fs;
use std::process::Command;

use wherry_tests::engine::Binary;
use wherry_tests::{Host, Output, Servant, poll};

use super::{dockerfile, has_not};
use crate::buildkit::has;

pub(super) const TOKEN: &str = "hush-4711";
/// `x-access-token:hush-4711`.
const HEADER: &str = "basic eC1hY2Nlc3MtdG9rZW46aHVzaC00NzEx";

/// Makes `repos/r.git` of one commit, whose submodule is beside it, and secrets as files.
const REPOSITORY: &str = r#"
export GIT_CONFIG_GLOBAL=$PWD/conf GIT_AUTHOR_DATE=2020-01-02T03:04:05Z GIT_COMMITTER_DATE=2020-01-02T03:04:05Z
git config --global user.email a@b; git config --global user.name n; git config --global init.defaultBranch main
git init -q src; cd src; printf 'FROM busybox\nCOPY f /\nRUN cat /f\n' >Dockerfile; echo of the repository >f
git add .; git commit -qm one; cd ..; git clone -q --bare src repos/r.git
git init -q sm; cd sm; echo of the submodule >s; git add .; git commit -qm one; cd ..; git clone -q --bare sm repos/sm.git
git -C src -c protocol.file.allow=always submodule --quiet add "$PWD/repos/sm.git" sm
sed -i 's,url = .*,url = ../sm.git,' src/.gitmodules; git -C src commit -qam two; git -C src push -q ../repos/r.git HEAD:with
printf hush-4711 >token; printf wrong >wrong; printf 'basic eC1hY2Nlc3MtdG9rZW46aHVzaC00NzEx' >header"#;

pub(super) fn prepare(host: &Host) {
    let mut command = Command::new("bash");
    command.args(["-euc", REPOSITORY]).current_dir(host.folder());
    Output::of(command).ok();
}

const AT: &str = "127.0.0.1:8088";

/// A web server that gives the repositories to those who know the token. It writes down what programs run meanwhile.
fn serve(host: &Host) -> Servant {
    prepare(host);
    let at = host.folder().display();
    let script = format!(
        "#!/bin/sh\ncat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' >>{at}/seen\n\
         export GIT_PROJECT_ROOT={at}/repos GIT_HTTP_EXPORT_ALL=1 PATH=/usr/local/bin:/usr/bin:/bin\n\
         exec git -c safe.directory='*' http-backend\n"
    );
    fs::create_dir_all(host.folder().join("www/cgi-bin")).unwrap();
    fs::write(host.folder().join("www/cgi-bin/git"), script).unwrap();
    host.exec(&format!("chmod 755 {at}/www/cgi-bin/git")).ok();
    fs::write(host.folder().join("httpd.conf"), format!("/cgi-bin:x-access-token:{TOKEN}\n")).unwrap();
    let line = format!("busybox httpd -f -p {AT} -h {at}/www -c {at}/httpd.conf");
    let servant = host.serve("httpd", &line);
    poll("the web server", 10, || host.in_network(|| std::net::TcpStream::connect(AT).is_ok()));
    servant
}

/// Secrets by their ids, each a file of the host's folder.
pub(super) fn secrets(host: &Host, secrets: &[(&str, &str)]) -> Vec<String> {
    let option = |(id, file): &(&str, &str)| format!("id={id},src={}/{file}", host.folder().display());
    secrets.iter().flat_map(|secret| ["--secret".to_owned(), option(secret)]).collect()
}

pub(super) fn context(host: &Host, options: &[String], address: &str) -> Output {
    let mut line: Vec<&str> = vec!["buildx", "build", "--no-cache", "--progress", "plain", "-t", "built"];
    line.extend(options.iter().map(String::as_str));
    line.push(address);
    host.docker(line.as_slice())
}

#[test]
fn web_servers_are_given_the_clients_credentials() {
    let host = Host::new();
    let _server = serve(&host);
    let url = format!("http://{AT}/cgi-bin/git/r.git");
    let of_host = |what: &str| format!("{what}.{AT}");
    let known = [
        vec![("GIT_AUTH_TOKEN", "token")],
        vec![("GIT_AUTH_HEADER", "header")],
        vec![(of_host("GIT_AUTH_TOKEN").leak() as &str, "token"), ("GIT_AUTH_TOKEN", "wrong")],
        // What is for this host goes before what is for all, and a header before a token.
        vec![(of_host("GIT_AUTH_TOKEN").leak() as &str, "token"), ("GIT_AUTH_HEADER", "wrong")],
        vec![("GIT_AUTH_HEADER", "header"), ("GIT_AUTH_TOKEN", "wrong")],
    ];
    for given in known {
        let told = context(&host, &secrets(&host, &given), &url).ok().stderr;
        has(&told, &[" of the repository", &format!("[internal] load git source {url}")]);
    }
    let refused = format!(
        "failed to read dockerfile: failed to load cache key: error fetching default branch for repository {url}: git stderr:"
    );
    let unasked = format!("fatal: could not read Username for 'http://{AT}': terminal prompts disabled");
    for given in [vec![], vec![("GIT_AUTH_TOKEN.example.com", "token")], vec![("GIT_AUTH_TOKEN", "wrong")]] {
        let told = context(&host, &secrets(&host, &given), &url).exits(1).stderr;
        has(&told, &[&refused, &unasked]);
    }
    // ADD, and a context by name.
    let token = secrets(&host, &[("GIT_AUTH_TOKEN", "token")]).join(" ");
    let text = format!("FROM busybox\nADD {url} /r\nCOPY --from=other f /o\nRUN cat /r/f /o; ls -A /r\n");
    let told = dockerfile(&host, "add", &format!("{token} --build-context other={url}"), &text).ok().stderr;
    assert_eq!(told.matches(" of the repository").count(), 2, "{told}");
    let kept = format!(
        "FROM busybox\nADD --keep-git-dir=true {url} /r\nRUN cat /r/.git/config; grep -r hush /r || echo none\n"
    );
    has(&dockerfile(&host, "keep", &token, &kept).ok().stderr, &["none", &format!("url = {url}")]);
    let told = dockerfile(&host, "without", "", &kept).exits(1).stderr;
    has(&told, &["failed to load cache key: error fetching default branch for repository"]);
    has_not(&host.docker("history --no-trunc built").ok().stdout, TOKEN);
    has_not(&host.log(), TOKEN);
    has_not(&host.log(), HEADER);
}

#[test]
fn downloads_are_given_the_clients_credentials() {
    let host = Host::new();
    let _server = serve(&host);
    let at = host.folder().display();
    // Its answer is what it was told.
    let script = "#!/bin/sh\nprintf 'Content-Type: text/plain\\r\\n\\r\\nFROM busybox\\nRUN echo told=[%s]\\n' \"$HTTP_AUTHORIZATION\"\n";
    fs::write(host.folder().join("www/told"), script).unwrap();
    fs::create_dir_all(host.folder().join("plain/cgi-bin")).unwrap();
    fs::rename(host.folder().join("www/told"), host.folder().join("plain/cgi-bin/told")).unwrap();
    host.exec(&format!("chmod 755 {at}/plain/cgi-bin/told")).ok();
    let _plain = host.serve("plain", &format!("busybox httpd -f -p 127.0.0.1:8089 -h {at}/plain"));
    poll("the other server", 10, || {
        host.in_network(|| std::net::TcpStream::connect("127.0.0.1:8089").is_ok())
    });
    let url = "http://127.0.0.1:8089/cgi-bin/told";
    let text = format!("FROM busybox\nADD {url} /f\nRUN cat /f\n");
    for (given, told) in [
        (vec![("HTTP_AUTH_TOKEN_127.0.0.1", "token")], "told=[Bearer hush-4711]"),
        // What is basic, this server keeps from its programs.
        (vec![("HTTP_AUTH_HEADER_127.0.0.1", "wrong")], "told=[wrong]"),
        (
            vec![("HTTP_AUTH_HEADER_127.0.0.1", "wrong"), ("HTTP_AUTH_TOKEN_127.0.0.1", "token")],
            "told=[Bearer hush-4711]",
        ),
        (vec![("HTTP_AUTH_TOKEN_example.com", "token")], "told=[]"),
    ] {
        let options = secrets(&host, &given);
        has(&dockerfile(&host, "d", &options.join(" "), &text).ok().stderr, &[told]);
        has(&context(&host, &options, url).ok().stderr, &[told]);
    }
    has_not(&host.log(), TOKEN);
}

/// dockerd gives them to git as arguments, which everybody can read while it runs.
#[test]
fn credentials_are_nowhere_to_be_seen() {
    if Binary::from_environment().is_reference() {
        return;
    }
    let host = Host::new();
    let _server = serve(&host);
    let url = format!("http://{AT}/cgi-bin/git/r.git");
    let token = secrets(&host, &[("GIT_AUTH_TOKEN", "token")]);
    context(&host, &token, &url).ok();
    let with_user = format!("http://x-access-token:{TOKEN}@{AT}/cgi-bin/git/r.git");
    // The client's own arguments and its list of builds have the address; the file keeps them out of sight.
    let text = format!("FROM busybox\nADD --keep-git-dir=true {with_user} /r\nRUN cat /r/.git/config /r/f\n");
    let told = dockerfile(&host, "user", "-t user", &text).ok().stderr;
    has(&told, &[" of the repository", &format!("url = http://xxxxx:xxxxx@{AT}/cgi-bin/git/r.git")]);
    let seen = fs::read_to_string(host.folder().join("seen")).unwrap();
    assert!(seen.contains(" fetch "), "git is seen: {seen}");
    for secret in [TOKEN, HEADER] {
        assert!(!seen.contains(secret), "{seen}");
        has_not(&host.log(), secret);
    }
    let text = format!("FROM busybox\nADD http://x-access-token:wrong-one@{AT}/cgi-bin/git/r.git /r\n");
    let told = dockerfile(&host, "refused", "", &text).exits(1).stderr;
    let error = told.lines().find(|line| line.starts_with("ERROR: ")).unwrap();
    assert!(error.contains(&format!("http://xxxxx:xxxxx@{AT}/cgi-bin/git/r.git")), "{error}");
    // The Dockerfile says it, so only the errors count.
    for line in told.lines().filter(|line| line.contains("fatal: ") || line.starts_with("ERROR: ")) {
        assert!(!line.contains("wrong-one"), "{line}");
    }
}

/// Dropbear, for root with one key.
pub(super) fn ssh_server(host: &Host) -> (Servant, Servant, String) {
    prepare(host);
    let at = host.folder().display().to_string();
    let keys = "ssh-keygen -q -t ed25519 -N '' -f key; ssh-keygen -q -t ed25519 -N '' -f other; \
                dropbearkey -t ed25519 -f hostkey >/dev/null 2>&1";
    let mut command = Command::new("bash");
    command.args(["-euc", keys]).current_dir(host.folder());
    Output::of(command).ok();
    let script = format!(
        "mount -t tmpfs -o mode=700 none /root; mkdir -m 700 /root/.ssh; cp {at}/key.pub /root/.ssh/authorized_keys; \
         printf '[safe]\\ndirectory = *\\n' >/root/.gitconfig; exec dropbear -F -E -s -r {at}/hostkey -p 127.0.0.1:22"
    );
    fs::write(host.folder().join("dropbear.sh"), script).unwrap();
    let server = host.serve("dropbear", &format!("unshare -m sh -eu {at}/dropbear.sh"));
    poll("the ssh server", 10, || host.in_network(|| std::net::TcpStream::connect("127.0.0.1:22").is_ok()));
    let socket = format!("{at}/agent");
    let agent = host.serve("ssh-agent", &format!("ssh-agent -D -a {socket}"));
    poll("the agent", 10, || std::path::Path::new(&socket).exists());
    let mut command = Command::new("ssh-add");
    command.args(["-q", &format!("{at}/key")]).env("SSH_AUTH_SOCK", &socket);
    Output::of(command).ok();
    (server, agent, socket)
}

#[test]
fn repositories_come_by_ssh_with_the_clients_agent() {
    let host = Host::new();
    let (server, _agent, socket) = ssh_server(&host);
    let at = host.folder().display().to_string();
    let agent = ["--ssh".to_owned(), format!("default={socket}")];
    for url in [format!("ssh://root@127.0.0.1{at}/repos/r.git"), format!("root@127.0.0.1:{at}/repos/r.git")] {
        let told = context(&host, &agent, &url);
        assert_eq!(told.code, 0, "{told}\n{}", server.log());
        has(&told.stderr, &[" of the repository"]);
        let text = format!("FROM busybox\nADD {url} /r\nRUN cat /r/f\n");
        let told = dockerfile(&host, "add", &agent.join(" "), &text).ok().stderr;
        has(&told, &[" of the repository"]);
        let told = dockerfile(&host, "without", "", &text).exits(1).stderr;
        let unset = "failed to solve: unset ssh forward key default";
        has(&told, &[unset]);
        let other = format!("--ssh other={socket}");
        has(&dockerfile(&host, "another", &other, &text).exits(1).stderr, &[unset]);
        let key = format!("--ssh default={at}/other");
        let told = dockerfile(&host, "refused", &key, &text).exits(1).stderr;
        has(&told, &["root@127.0.0.1: Permission denied (publickey)."]);
    }
    let with = format!("ssh://root@127.0.0.1{at}/repos/r.git#with");
    let text = format!("FROM busybox\nADD {with} /r\nRUN cat /r/sm/s\n");
    has(&dockerfile(&host, "sm", &agent.join(" "), &text).ok().stderr, &[" of the submodule"]);
}
