//! What steps get of the client and must not keep: secrets, and its SSH agent.

use std::process::Command;

use wherry_tests::{Host, Output, Servant, poll};

use super::{build, has_not};
use crate::buildkit::has;

/// ssh-add(1) with its libraries, as a context; and how a step runs it.
const TOOLS: &str =
    "mkdir -p tools && cp /usr/bin/ssh-add tools/ && cp -L $(ldd /usr/bin/ssh-add | grep -o '/[^ ]*') tools/";
const ADD: &str = "LD_LIBRARY_PATH=/t /t/ld-linux-* /t/ssh-add";

fn shell(host: &Host, script: &str) -> Output {
    let mut command = Command::new("bash");
    command.args(["-euc", script]).current_dir(host.folder());
    Output::of(command).ok()
}

/// An agent on the host that has one key.
fn agent(host: &Host) -> (Servant, String) {
    let socket = host.folder().join("agent").display().to_string();
    let servant = host.serve("ssh-agent", &format!("ssh-agent -D -a {socket}"));
    poll("the agent", 10, || std::path::Path::new(&socket).exists());
    let keys = "ssh-keygen -q -t ed25519 -N '' -C the-key -f key; ssh-keygen -q -t ed25519 -N '' -C another -f other";
    shell(host, &format!("{TOOLS}; {keys}; SSH_AUTH_SOCK={socket} ssh-add -q key"));
    (servant, socket)
}

#[test]
fn steps_reach_the_agents_of_the_client() {
    let host = Host::new();
    let (_agent, socket) = agent(&host);
    let text = |run: &str| format!("FROM busybox\nCOPY --from=tools . /t/\nRUN {run}\n");
    let tools = format!("--no-cache --build-context tools={}/tools", host.folder().display());
    let run = |name: &str, options: &str, run: &str| {
        let folder = host.folder_with(name, &[("Dockerfile", &text(run))]);
        build(&host, &format!("{tools} {options}"), &folder)
    };
    let plain =
        format!("--mount=type=ssh echo at $SSH_AUTH_SOCK; stat -c '%a %u %g %F' $SSH_AUTH_SOCK; {ADD} -l");
    let told = run("plain", &format!("--ssh default={socket}"), &plain).ok().stderr;
    has(&told, &["at /run/buildkit/ssh_agent.0", "600 0 0 socket", "the-key (ED25519)"]);
    // Without an agent the variable is there, and nothing at its place.
    let told = run("without", "", &plain).exits(1).stderr;
    has(&told, &["at /run/buildkit/ssh_agent.0", "can't stat '/run/buildkit/ssh_agent.0'"]);

    let own = format!(
        "--mount=type=ssh,id=k,target=/tmp/s.sock,mode=0666,uid=33,gid=34,required=true \
         stat -c '%a %u %g' $SSH_AUTH_SOCK; {ADD} -l\nRUN ls -A /tmp; echo now=$SSH_AUTH_SOCK"
    );
    let told = run("own", &format!("--ssh k={socket}"), &own).ok().stderr;
    has(&told, &["666 33 34", "the-key (ED25519)"]);
    assert!(told.lines().any(|line| line.ends_with(" now=")), "{told}");
    has_not(&told, " s.sock");
    // A key in place of an agent.
    let key = format!("--ssh k={}/other", host.folder().display());
    has_not(&run("by-key", &key, &own).ok().stderr, "the-key");
    for options in ["", &format!("--ssh default={socket}")] {
        let told = run("required", options, &own).exits(1).stderr;
        has(&told, &["ERROR: failed to build: failed to solve: unset ssh forward key k"]);
    }
    let many = "--mount=type=ssh --mount=type=ssh --mount=type=ssh ls -A /run/buildkit; echo $SSH_AUTH_SOCK\n\
                ENV SSH_AUTH_SOCK=/mine\nRUN --mount=type=ssh echo $SSH_AUTH_SOCK";
    let told = run("many", &format!("--ssh default={socket}"), many).ok().stderr;
    has(&told, &["ssh_agent.0", "ssh_agent.1", "ssh_agent.2", " /mine"]);
}

/// Steps that run at the same time have the client's agent each as its own.
#[test]
fn agents_of_steps_at_the_same_time_have_their_own_owners() {
    let host = Host::new();
    let (_agent, socket) = agent(&host);
    let run = |uid: u32| {
        let mount = format!("--mount=type=ssh,uid={uid},mode=0{uid}00");
        format!("RUN {mount} sleep 1; stat -c '{uid} has %a %u' $SSH_AUTH_SOCK; echo >/f\n")
    };
    let text = format!(
        "FROM busybox AS a\n{}FROM busybox AS b\n{}FROM busybox\nCOPY --from=a /f /a\nCOPY --from=b /f /b\n",
        run(6),
        run(7)
    );
    let folder = host.folder_with("both", &[("Dockerfile", &text)]);
    let told = build(&host, &format!("--no-cache --ssh default={socket}"), &folder).ok().stderr;
    has(&told, &["6 has 600 6", "7 has 700 7"]);
}

#[test]
fn secrets_are_shown_to_a_step_and_stay_nowhere() {
    let host = Host::new();
    let text = "FROM busybox
RUN --mount=type=secret,id=s stat -c 'a %a %u %g %s' /run/secrets/s; cat /run/secrets/s; touch /run/secrets/s || echo read-only
RUN --mount=type=secret,id=s,target=/root/x/.tok,mode=0440,uid=33,gid=34 stat -c 'b %a %u %g' /root/x/.tok; stat -c 'c %a %u' /root/x
RUN --mount=type=secret,id=s,env=TOK echo \"d=[$TOK]\"; ls /run/secrets 2>&1 || true
RUN --mount=type=secret,id=s,env=TOK,target=/tok echo \"e=$TOK\"; cat /tok
RUN --mount=type=secret,id=none ls /run/secrets 2>&1; echo fine
RUN --mount=type=secret,target=/run/secrets/s cat /run/secrets/s
RUN --mount=type=secret,src=s,dst=/elsewhere cat /elsewhere
";
    let folder = host.folder_with("s", &[("Dockerfile", text), ("secret", "hush\n")]);
    let options = format!("-t s --no-cache --secret id=s,src={}/secret", folder.display());
    let told = build(&host, &options, &folder).ok().stderr;
    let seen = ["a 400 0 0 5", " hush", "read-only", "b 440 33 34", "c 755 0", "d=[hush", "e=hush", " fine"];
    has(&told, &seen);
    has(&told, &["ls: /run/secrets: No such file or directory"]);
    let left = "find / -xdev -name .tok -o -xdev -name tok -o -xdev -name secrets -o -xdev -path /root/x; ls -A /root; \
                grep -r hush /root /run /tmp 2>/dev/null || true";
    host.docker(&["run", "--rm", "s", "sh", "-c", left]).prints("");
    let history = host.docker("history --no-trunc s").ok().stdout;
    has_not(&history, "hush");

    let required = "FROM busybox\nRUN --mount=type=secret,id=v,required=true cat /run/secrets/v\n";
    let folder = host.folder_with("r", &[("Dockerfile", required)]);
    let told = build(&host, "--no-cache", &folder).exits(1).stderr;
    has(&told, &[">>> RUN --mount=type=secret,id=v", "failed to solve: secret v: not found"]);
    let mut command = host.docker_command(&format!(
        "buildx build --progress plain --no-cache --secret id=v,env=THE_V {}",
        folder.display()
    ));
    command.env("THE_V", "of a variable");
    has(&Output::of(command).ok().stderr, &[" of a variable"]);
}

/// Whatever a secret says, a step that had another one before is done.
#[test]
fn a_secret_is_no_part_of_a_step() {
    let host = Host::new();
    let text = "FROM busybox\nRUN --mount=type=secret,id=s md5sum /run/secrets/s >/sum\n";
    let folder = host.folder_with("s", &[("Dockerfile", text), ("one", "1"), ("two", "2")]);
    let id = |secret: &str| {
        let options = format!("buildx build -q --secret id=s,src={0}/{secret} {0}", folder.display());
        host.docker(&options).ok().stdout
    };
    assert_eq!(id("one"), id("two"));
}
