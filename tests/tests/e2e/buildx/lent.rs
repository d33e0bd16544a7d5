//! What is lent for a repository is for that repository alone: no other server gets it, nothing of the engine's own host is taken
//! in its place, and nobody has it when the build has ended. (dockerd sends tokens on, and takes keys of root.)

use std::fs;
use std::net::{TcpListener, TcpStream};

use rustix::process::Signal;
use wherry_tests::engine::Binary;
use wherry_tests::{Host, Servant, poll};

use super::credentials::{TOKEN, context, prepare, secrets, ssh_server};
use super::dockerfile;
use crate::buildkit::has;

const FIRST: &str = "127.0.0.1:8090";
const OTHER: &str = "127.0.0.1:8091";

/// A web server on whose `/cgi-bin/git` this answers, with these locks.
fn web(host: &Host, name: &str, at: &str, (script, locks): (&str, &str)) -> Servant {
    let script = format!("#!/bin/sh\n{script}\n");
    let folder = host.folder_with(name, &[("cgi-bin/git", &script), ("conf", locks)]).display().to_string();
    host.exec(&format!("chmod 755 {folder}/cgi-bin/git")).ok();
    let servant = host.serve(name, &format!("busybox httpd -f -p {at} -h {folder} -c {folder}/conf"));
    poll("the web server", 10, || host.in_network(|| TcpStream::connect(at).is_ok()));
    servant
}

/// One that gives the repositories to all whom the locks let in, and writes to `asked` how each asked.
fn repositories(host: &Host, at: &str, locks: &str) -> Servant {
    let folder = host.folder().display();
    let script = format!(
        "echo \"$REQUEST_METHOD [$REMOTE_USER]\" >>{folder}/asked\n\
         export GIT_PROJECT_ROOT={folder}/repos GIT_HTTP_EXPORT_ALL=1 PATH=/usr/local/bin:/usr/bin:/bin\n\
         exec git -c safe.directory='*' http-backend"
    );
    web(host, "repositories", at, (&script, locks))
}

#[test]
fn tokens_are_not_sent_on_to_other_servers() {
    if Binary::from_environment().is_reference() {
        return;
    }
    let host = Host::new();
    prepare(&host);
    // It tells everybody what it has, and gives it to those who show the token.
    let lock = format!("/cgi-bin/git/r.git/git-upload-pack:x-access-token:{TOKEN}\n");
    let _other = repositories(&host, OTHER, &lock);
    let away = format!(
        "printf 'Status: 302 Found\\r\\nLocation: http://{OTHER}/cgi-bin/git%s?%s\\r\\n\\r\\n' \
         \"$PATH_INFO\" \"$QUERY_STRING\""
    );
    let _first = web(&host, "away", FIRST, (&away, ""));
    let asked = host.folder().join("asked");
    let token = secrets(&host, &[("GIT_AUTH_TOKEN", "token")]);
    let url = format!("http://{OTHER}/cgi-bin/git/r.git");
    has(&context(&host, &token, &url).ok().stderr, &[" of the repository"]);
    has(&fs::read_to_string(&asked).unwrap(), &["POST [x-access-token]"]);
    // Who lends nothing is sent on.
    let url = format!("http://{FIRST}/cgi-bin/git/r.git");
    fs::remove_file(&asked).unwrap();
    context(&host, &[], &url).exits(1);
    assert_eq!(fs::read_to_string(&asked).unwrap().lines().next(), Some("GET []"));
    fs::remove_file(&asked).unwrap();
    let refused = "The requested URL returned error: 302";
    has(&context(&host, &token, &url).exits(1).stderr, &[refused]);
    let text = format!("FROM scratch\nADD {url} /r\n");
    has(&dockerfile(&host, "add", &token.join(" "), &text).exits(1).stderr, &[refused]);
    assert!(!asked.exists(), "{}", fs::read_to_string(&asked).unwrap());
}

/// A repository of the web may say that a part of it comes by ssh, from wherever the engine can reach.
#[test]
fn submodules_are_not_fetched_with_keys_of_the_engine() {
    if Binary::from_environment().is_reference() {
        return;
    }
    let host = Host::new();
    let (server, _agent, _) = ssh_server(&host);
    let _web = repositories(&host, OTHER, "");
    let at = host.folder().display().to_string();
    // Root of the engine's host may log in there.
    let script = format!(
        "mount -t tmpfs -o mode=700 none /root; mkdir -m 700 /root/.ssh; cd /root/.ssh; install -m 600 {at}/key id_ed25519
         echo \"127.0.0.1 $(dropbearkey -y -f {at}/hostkey | grep ^ssh-)\" >known_hosts
         ssh -o BatchMode=yes root@127.0.0.1 echo logged in
         cd {at}/src; sed -i 's,url = .*,url = ssh://root@127.0.0.1{at}/repos/sm.git,' .gitmodules
         git -c user.name=n -c user.email=a@b commit -qam ssh; git push -q ../repos/r.git HEAD:by-ssh"
    );
    assert_eq!(host.exec(&["bash", "-euc", &script]).ok().out(), "logged in");
    let url = format!("http://{OTHER}/cgi-bin/git/r.git#by-ssh");
    let refused = "root@127.0.0.1: Permission denied (publickey).";
    has(&context(&host, &[], &url).exits(1).stderr, &[refused]);
    let text = format!("FROM scratch\nADD {url} /r\n");
    has(&dockerfile(&host, "add", "", &text).exits(1).stderr, &[refused]);
    // The classic door has nobody who lends.
    for address in [url.replace('#', "%23"), format!("ssh://root@127.0.0.1{at}/repos/r.git")] {
        let told = host.api("POST", &format!("/build?remote={address}"), &serde_json::Value::Null);
        has(&told.expect(500).text(), &["Permission denied (publickey)"]);
    }
    assert_eq!(server.log().matches("Pubkey auth succeeded").count(), 1, "{}", server.log());
    host.exec("umount /root").ok();
}

/// What an agent is for must not go on when the agent has been taken back.
#[test]
fn nothing_of_git_outlives_a_cancelled_build() {
    let host = Host::new();
    let key = host.folder().join("key").display().to_string();
    host.exec(&["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", &key]).ok();
    // It is connected to, and says nothing.
    let _silent = host.in_network(|| TcpListener::bind("127.0.0.1:22")).unwrap();
    let agent = format!("default={key}");
    let address = "ssh://root@127.0.0.1/r.git";
    let mut client = host.docker_session(&["buildx", "build", "--ssh", &agent, "-t", "built", address]);
    let is_there = || {
        let processes = host.processes();
        processes.iter().any(|(_, line)| line.starts_with("ssh ") && line.contains("git-upload-pack"))
    };
    poll("git's ssh", 20, is_there);
    client.signal(Signal::INT);
    client.wait_for_end();
    poll("its end", 10, || !is_there());
}
