//! The one idea: the engine is only a control plane. It is killed, and nothing that runs notices.
//! No dockerd passes these; `make test-reference` leaves them out.

use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use wherry_tests::http::Connection;
use wherry_tests::{HOST_ADDRESS, Host, Session, poll};

use crate::web::serve;

const OUTAGE: Duration = Duration::from_secs(5);

fn lines(file: &Path) -> Vec<String> {
    std::fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn state(host: &Host, name: &str) -> String {
    let state = host.inspect(name)["State"].take();
    format!("{} {}", state["Status"].as_str().unwrap_or_default(), state["ExitCode"])
}

/// Asks the published port again and again until told to end; answers and failures.
fn keep_requesting(host: &Host, stop: &AtomicBool) -> (usize, Vec<String>) {
    let (mut answers, mut failures) = (0, Vec::new());
    let begin = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        for address in [Ipv4Addr::LOCALHOST, HOST_ADDRESS] {
            match host.http_get((address, 8080), "/") {
                Some(page) if page.status == 200 && page.text() == "web\n" => answers += 1,
                other => failures.push(format!("after {:?} from {address}: {other:?}", begin.elapsed())),
            }
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    (answers, failures)
}

/// What runs while the engine is killed.
struct Scene {
    terminal: Session,
    short_terminal: Session,
    logs: Session,
    exec: Session,
    wait: Connection<UnixStream>,
}

fn set_scene(host: &Host, shared: &Path) -> Scene {
    let volume = format!("{}:/shared", shared.display());
    let background = |name: &str, options: &str, script: &str| {
        let mut line: Vec<&str> = vec!["run", "-d", "--name", name, "--network", "net", "-v", &volume];
        line.extend(options.split_whitespace());
        line.extend(["busybox", "sh", "-c", script]);
        host.docker(line.as_slice()).ok();
    };
    host.docker("network create net").ok();
    serve(host, "web", "--network net -p 8080:80");
    background("always", "--restart always", "echo started >>/shared/starts; exec sleep 600");
    background("ticker", "", "i=0; while :; do echo tick $i; i=$((i+1)); sleep .1; done");
    background(
        "resolver",
        "",
        "while :; do ping -c 1 -W 2 web >/dev/null && echo ok || echo failed; sleep .1; done >>/shared/resolved",
    );
    background("mortal", "", "while [ ! -e /shared/die ]; do sleep .05; done; echo last words; exit 5");
    let mut terminal = host.docker_terminal("run -it --name term --network net busybox sh");
    let mut short_terminal = host.docker_terminal("run -it --rm --name brief --network net busybox sh");
    let mut exec = host.docker_terminal("exec -it ticker sh");
    for session in [&mut terminal, &mut short_terminal, &mut exec] {
        session.expect("# ");
    }
    let mut logs = host.docker_session("logs -f ticker");
    logs.expect("tick 3\n");
    // Not the docker client, which does not tell when it has been heard.
    let mut wait = host.connect();
    wait.open("POST", "/v1.51/containers/mortal/wait", &[], b"");
    poll("the page", 10, || host.http_get((HOST_ADDRESS, 8080), "/").is_some());
    poll("the resolver", 10, || lines(&shared.join("resolved")).iter().any(|l| l == "ok"));
    Scene { terminal, short_terminal, logs, exec, wait }
}

/// Things that happen while there is no engine. Returns when it is over.
fn during_the_outage(host: &Host, shared: &Path, scene: &mut Scene, always: &str) {
    let end = Instant::now() + OUTAGE;
    scene.terminal.send("echo typed $((40+2))\n").expect("typed 42");
    scene.exec.send("echo exec $((20+2))\n").expect("exec 22");
    scene.short_terminal.send("exit 7\n");
    host.exec(&["kill", "-9", always]).ok();
    std::fs::File::create(shared.join("die")).expect("write where `mortal` looks");
    let seen = scene.logs.text().lines().count();
    poll("more of the followed logs", 4, || scene.logs.text().lines().count() >= seen + 10);
    poll("the second start of `always`", 4, || lines(&shared.join("starts")).len() == 2);
    poll("the end of `run -it` in the outage", 4, || !scene.short_terminal.is_running());
    let answer = scene.wait.chunk().flatten().unwrap_or_default();
    assert_eq!(String::from_utf8_lossy(&answer).trim(), r#"{"StatusCode":5}"#, "the answer of `wait`");
    assert!(!host.is_running(), "the engine is still dead");
    std::thread::sleep(end.saturating_duration_since(Instant::now()));
}

fn after_the_new_start(host: &Host, begin: u64, scene: Scene) {
    let Scene { mut terminal, short_terminal, mut logs, mut exec, .. } = scene;
    let (code, text) = short_terminal.wait();
    assert_eq!(code, 7, "run -it, ended during the outage: {text}");
    poll("the removal of `run --rm` that ended in the outage", 10, || host.docker("inspect brief").code == 1);

    // What happened meanwhile is known.
    assert_eq!(state(host, "mortal"), "exited 5");
    host.docker("logs mortal").prints("last words");
    host.docker("wait mortal").prints("5");
    assert_eq!(host.inspect("always")["RestartCount"], 1);
    let mut running: Vec<String> =
        host.docker(&["ps", "--format", "{{.Names}}"]).ok().stdout.lines().map(str::to_owned).collect();
    running.sort();
    assert_eq!(running, ["always", "resolver", "term", "ticker", "web"]);
    let since = begin.to_string();
    let until = (begin + 600).to_string();
    let mut events = host.docker_session(&[
        "events",
        "--since",
        &since,
        "--until",
        &until,
        "--filter",
        "type=container",
        "--format",
        "<{{.Action}} {{.Actor.Attributes.name}} {{.Actor.Attributes.exitCode}}>",
    ]);
    events.expect("<die mortal 5>");

    // And all of it obeys the new engine.
    terminal.send("echo again $((50+2))\n").expect("again 52");
    terminal.send("exit 9\n");
    let (code, text) = terminal.wait();
    assert_eq!(code, 9, "run -it, ended after the outage: {text}");
    exec.send("exit 4\n");
    assert_eq!(exec.wait().0, 4, "exec -it over the outage");
    for name in ["web", "always", "ticker", "resolver"] {
        host.docker(&["exec", name, "true"]).ok();
    }
    let mut second = host.docker_session("logs -f --tail 0 ticker");
    second.expect("tick");
    let last = logs.text().lines().count();
    poll("the first follower goes on", 5, || logs.text().lines().count() > last + 3);
    host.docker("stop -t 0 ticker web resolver always").ok();
    assert_eq!(logs.wait_for_end(), 0);
    assert_eq!(second.wait_for_end(), 0);
    let ticks = host.docker("logs ticker").ok().stdout;
    let expected: String = (0..ticks.lines().count()).map(|i| format!("tick {i}\n")).collect();
    assert!(ticks == expected && logs.text() == expected, "every line is there, once");
    for name in ["ticker", "web", "resolver", "always"] {
        assert_eq!(state(host, name), "exited 137", "{name}");
    }
    let meanwhile =
        ["<die always 137>", "<start always ", "<die brief 7>", "<destroy brief ", "<die mortal 5>"];
    let afterwards = ["<die term 9>", "<die web 137>", "<exec_create: true  web "];
    for event in meanwhile.iter().chain(&afterwards) {
        poll(&format!("{event} in the events:\n{}", events.text()), 5, || events.text().contains(event));
    }
    let text = events.text();
    assert_eq!(text.matches("<die mortal").count(), 1, "{text}");
}

#[test]
fn the_engine_under_load() {
    let host = Host::new();
    let shared = host.folder().join("shared");
    std::fs::create_dir(&shared).unwrap();
    let begin = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() - 1;
    let mut scene = set_scene(&host, &shared);
    let always = host.inspect("always")["State"]["Pid"].to_string();
    let stop = AtomicBool::new(false);
    let (answers, failures) = std::thread::scope(|scope| {
        let client = scope.spawn(|| keep_requesting(&host, &stop));
        // The client's thread must end, too, when something fails here.
        let ended = EndsWhenDropped(&stop);
        host.kill();
        during_the_outage(&host, &shared, &mut scene, &always);
        host.start();
        std::thread::sleep(Duration::from_millis(300));
        drop(ended);
        client.join().unwrap()
    });
    assert!(failures.is_empty() && answers > 50, "{answers} answers, failures: {failures:#?}");
    let resolved = lines(&shared.join("resolved"));
    let failed = resolved.iter().filter(|l| *l != "ok").count();
    assert!(failed == 0 && resolved.len() > 20, "{failed} of {} lookups failed", resolved.len());
    assert_eq!(lines(&shared.join("starts")).len(), 2);
    after_the_new_start(&host, begin, scene);
}

struct EndsWhenDropped<'a>(&'a AtomicBool);

impl Drop for EndsWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn the_engine_in_the_middle_of_commands() {
    let host = Host::new();
    host.docker("network create net").ok();
    for round in 0..8u64 {
        let mut clients: Vec<Session> = Vec::new();
        for i in 0..4 {
            let name = format!("r{round}c{i}");
            let network = if i % 2 == 0 { "net" } else { "bridge" };
            clients.push(host.docker_session(&[
                "run",
                "--rm",
                "--name",
                &name,
                "--network",
                network,
                "-p",
                "80",
                "busybox",
                "echo",
                "ran",
            ]));
        }
        clients.push(host.docker_session("create -v /anonymous busybox"));
        std::thread::sleep(Duration::from_millis(15 + round * 12));
        host.kill();
        drop(clients);
        host.start();
        // It answers, lists, and starts new ones, at once.
        host.docker("run --rm --network net busybox echo fine").prints("fine");
        let left = host.docker("ps -aq").ok();
        for id in left.stdout.split_whitespace() {
            host.docker(&["rm", "-fv", id]);
        }
        poll("all to be gone", 10, || host.docker("ps -aq").ok().out().is_empty());
    }
    assert_eq!(host.docker("images -q").ok().stdout.lines().count(), 1);
    host.docker("volume prune -f").ok();
}

#[test]
fn the_network_daemon() {
    let host = Host::new();
    host.docker("network create net").ok();
    serve(&host, "web", "--network net -p 8080:80");
    host.docker("run -d --name other --network net busybox sleep 600").ok();
    poll("the page", 10, || host.http_get((HOST_ADDRESS, 8080), "/").is_some());
    let (netd, _) =
        host.processes().into_iter().find(|(_, line)| line.contains("wherry-netd")).expect("netd runs");
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(i32::try_from(netd).unwrap()).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
    assert!(host.http_get((HOST_ADDRESS, 8080), "/").is_some(), "packets need no daemon");
    // The next thing that needs it has it again, with all that it knew.
    host.docker("run --rm --network net busybox ping -c 1 -W 5 web").ok();
    host.docker("exec other ping -c 1 -W 5 web").ok();
    poll("the page by 127.0.0.1", 5, || host.http_get((Ipv4Addr::LOCALHOST, 8080), "/").is_some());
    host.docker("run --rm -p 8080:80 busybox true").fails(125, "port is already allocated");
    host.docker("rm -f web").ok();
    assert!(host.http_get((HOST_ADDRESS, 8080), "/").is_none());
}

#[test]
fn a_pull_and_a_load_half_done() {
    let host = Host::new();
    let archive = std::fs::read(host.image_archive("half:1", r#"{"Cmd":["true"]}"#)).unwrap();
    for part in [1000, archive.len() / 2, archive.len() - 10_000] {
        let mut client = host.docker_session("load -q");
        client.send_bytes(&archive[..part]);
        host.kill();
        drop(client);
        host.start();
        host.docker("inspect half:1").fails(1, "No such object");
    }
    let leftovers: Vec<_> =
        std::fs::read_dir(host.root().join("data/tmp")).into_iter().flatten().flatten().collect();
    assert!(leftovers.is_empty(), "{leftovers:?}");
    host.docker_with_input("load -q", &archive).prints("Loaded image: half:1");
    host.docker("run --rm half:1").ok();
}

#[test]
fn nobody_only_an_orderly_restart() {
    let host = Host::with_arguments(&["--live-restore"]);
    host.docker("network create --label n=1 net").ok();
    host.docker("volume create --label v=1 vol").ok();
    host.docker("run -d --name on --network net -v vol:/v busybox sh -c 'echo hello; sleep 600'").ok();
    host.docker("run --name done busybox sh -c 'echo bye; exit 3'").exits(3);
    host.docker("create --name fresh busybox").ok();
    let before: Vec<_> =
        ["on", "done", "fresh", "net", "vol", "busybox"].map(|name| host.inspect(name)).into();
    assert_eq!(host.stop(), 0);
    assert!(!host.root().join("pid").exists(), "the pid file is gone");
    host.start();
    for (name, old) in ["on", "done", "fresh", "net", "vol", "busybox"].iter().zip(before) {
        let new = host.inspect(name);
        for (key, value) in old.as_object().unwrap() {
            assert_eq!(&new[key], value, "{key} of {name}");
        }
    }
    host.docker("logs on").prints("hello");
    host.docker("logs done").prints("bye");
    host.docker("exec on true").ok();
    host.docker("run --rm --network net busybox ping -c 1 -W 5 on").ok();
    host.docker("rm -f on done fresh").ok();
    host.docker("network rm net").ok();
    host.docker("volume rm vol").ok();
}
