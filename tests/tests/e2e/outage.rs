//! What happens while no engine is there, and after a reboot of the host: nothing is lost, the next engine reports it in order.
//! No dockerd passes these; `make test-reference` leaves them out.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use wherry_tests::{Host, poll};

/// All events of containers: action, name, exit code.
fn events(host: &Host) -> Vec<String> {
    let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs());
    let path =
        format!("/v1.51/events?since=1&until={}&filters=%7B%22type%22%3A%5B%22container%22%5D%7D", now + 1);
    let text = host.api("GET", &path, &Value::Null).expect(200).text();
    let parsed = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("an event"));
    parsed
        .map(|event| {
            let attribute =
                |name: &str| event["Actor"]["Attributes"][name].as_str().unwrap_or_default().to_owned();
            format!(
                "{} {} {}",
                attribute("name"),
                event["Action"].as_str().unwrap_or_default(),
                attribute("exitCode")
            )
        })
        .collect()
}

#[test]
fn no_event_is_lost_or_told_twice_when_the_engine_is_killed() {
    let host = Host::new();
    host.docker("run -d --name early busybox true").ok();
    poll("its end", 10, || host.inspect("early")["State"]["Status"] == json!("exited"));
    host.docker("run -d --name late busybox sh -c 'sleep 1; exit 5'").ok();
    host.docker("run -d --name again --restart on-failure:2 busybox sh -c 'sleep 1; exit 6'").ok();
    host.docker("run -d --rm --name away busybox sleep 1").ok();
    host.docker(
        "run -d --name sick --health-cmd false --health-interval 200ms --health-retries 1 busybox sleep 600",
    )
    .ok();
    host.kill();
    std::thread::sleep(std::time::Duration::from_secs(4));
    host.start();
    let gone = || host.docker("inspect away").code == 1;
    poll("the removal", 10, gone);
    // Once more, which must change nothing.
    host.kill();
    host.start();
    let all = events(&host);
    let of = |name: &str| -> Vec<&str> {
        all.iter().filter_map(|event| event.strip_prefix(name)?.strip_prefix(' ').map(str::trim)).collect()
    };
    assert_eq!(of("early"), ["create", "start", "die 0"], "{all:#?}");
    assert_eq!(of("late"), ["create", "start", "die 5"], "{all:#?}");
    assert_eq!(of("again"), ["create", "start", "die 6", "start", "die 6", "start", "die 6"], "{all:#?}");
    assert_eq!(of("away"), ["create", "start", "die 0", "destroy"], "{all:#?}");
    assert_eq!(
        of("sick").iter().filter(|e| e.starts_with("health_status: unhealthy")).count(),
        1,
        "{all:#?}"
    );
}

/// Ends all that runs, empties EXEC_ROOT, takes the network away, and gives the kernel another boot id.
fn reboot(host: &Host) {
    host.kill();
    // Again and again: netd's standby, when netd is killed first, has another one.
    poll("the end of all processes", 10, || {
        let left =
            host.processes().into_iter().filter(|(_, line)| !line.contains("host.sh") && !line.is_empty());
        let pids: Vec<String> = left.map(|(pid, _)| pid.to_string()).collect();
        if !pids.is_empty() {
            // Some may have ended with others.
            let _ = std::process::Command::new("kill").arg("-9").args(&pids).output();
        }
        pids.is_empty()
    });
    let root = host.root().join("exec");
    let script = format!(
        "grep -o '{root}/[^ ]*' /proc/mounts | sort -r | xargs -r umount -l; rm -rf {root}; \
         ip -o link | sed -n 's/^[0-9]*: \\([^:@]*\\).*/\\1/p' | grep -E '^(docker|br-|veth)' | xargs -r -n 1 ip link del; \
         iptables -F; iptables -t nat -F; iptables -t raw -F; iptables -t mangle -F; \
         cat /proc/sys/kernel/random/uuid >/run/boot_id; mount --bind /run/boot_id /proc/sys/kernel/random/boot_id",
        root = root.display()
    );
    host.exec(&["sh", "-c", &script]).ok();
    // Its cgroups are gone then, too.
    for folder in host.cgroups() {
        let mut find = std::process::Command::new("find");
        find.arg(folder).args(["-depth", "-type", "d", "-regextype", "egrep", "-regex", ".*/[0-9a-f]{64}"]);
        let _ = find.args(["-exec", "rmdir", "{}", "+"]).output();
    }
}

#[test]
fn containers_come_up_after_a_reboot_in_the_order_of_their_needs() {
    let host = Host::new();
    host.docker("network create net").ok();
    // Made in the wrong order: `web` needs both others.
    let compose = "--label com.docker.compose.project=shop --label com.docker.compose.service";
    let needs =
        "com.docker.compose.depends_on=db:service_healthy:false,job:service_completed_successfully:true";
    host.docker(&format!("run -d --name web --restart always --network net {compose}=web --label {needs} -v shared:/shared busybox sh -c 'test -e /shared/ready && ping -c 1 -W 2 db >/dev/null && echo found; sleep 600'")).ok();
    host.docker(&format!("run -d --name db --restart unless-stopped --network net {compose}=db --health-cmd 'test -e /shared/ready' --health-interval 200ms -v shared:/shared busybox sh -c 'rm -f /shared/ready; sleep 1; touch /shared/ready; sleep 600'")).ok();
    host.docker(&format!("run -d --name job --restart on-failure --network net {compose}=job busybox sh -c 'sleep 1; [ -e /done ] || {{ touch /done; sleep 600; }}'")).ok();
    host.docker("run -d --name source --restart always busybox sleep 600").ok();
    host.docker("run -d --name linked --restart always --link source:alias -p 8080:80 busybox sleep 600")
        .ok();
    host.docker("run -d --name stopped --restart unless-stopped busybox sleep 600").ok();
    host.docker("stop -t 0 stopped").ok();
    host.docker("run -d --name plain busybox sleep 600").ok();
    poll("the job's first half", 10, || host.docker("exec job test -e /done").code == 0);
    let before: BTreeSet<String> = events(&host).into_iter().collect();
    reboot(&host);
    let rebooted = format!("{:.3}", std::time::UNIX_EPOCH.elapsed().map_or(0.0, |t| t.as_secs_f64()));
    host.start();
    let running = |name: &str| host.inspect(name)["State"]["Running"] == json!(true);
    poll("all that want to run", 30, || ["web", "db", "source", "linked"].iter().all(|name| running(name)));
    let started =
        |name: &str| host.inspect(name)["State"]["StartedAt"].as_str().unwrap_or_default().to_owned();
    assert!(started("db") < started("web"));
    assert!(
        host.inspect("job")["State"]["FinishedAt"].as_str().unwrap_or_default() < started("web").as_str()
    );
    assert!(started("source") < started("linked"));
    assert!(!running("stopped") && !running("plain"), "nobody wants these");
    assert_eq!(host.inspect("plain")["State"]["ExitCode"], json!(255));
    poll("a healthy db, by its name", 10, || {
        host.docker(&["logs", "--since", &rebooted, "web"]).stdout
            == "found
"
    });
    host.docker("exec linked ping -c 1 -W 2 alias").ok();
    let after = events(&host);
    assert!(before.iter().all(|event| after.contains(event)), "the past is still known");
    assert!(after.contains(&"plain die 255".to_owned()), "{after:#?}");
    host.exec("umount /proc/sys/kernel/random/boot_id").ok();
}

/// A monitor may cut off its engine and live on: then the container is the monitor's still, and the engine comes back to it.
#[test]
fn a_broken_connection_ends_no_container() {
    let host = Host::new();
    let id = host.docker("run -d --restart always --name box busybox sleep 600").ok().out().to_owned();
    let before = host.inspect("box")["State"].take();
    let monitor = format!("wherry-monitor {id}");
    let found = host.processes().into_iter().find(|(_, line)| line.ends_with(&monitor));
    cut_off(found.expect("its monitor").0);
    poll("the engine and the monitor together again", 10, || host.docker("exec box true").code == 0);
    assert_eq!(host.inspect("box")["State"], before);
    assert_eq!(host.inspect("box")["RestartCount"], json!(0));
    host.docker("stop -t 0 box").ok();
    assert_eq!(host.inspect("box")["State"]["ExitCode"], json!(137));
}

/// Ends the connections of a process that listens, but not its listening socket.
fn cut_off(pid: u32) {
    use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
    let known = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a pid");
    let process = pidfd_open(known, PidfdFlags::empty()).expect("pidfd_open");
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).expect("its descriptors").flatten() {
        let is_socket =
            std::fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"));
        let Some(number) =
            entry.file_name().to_str().filter(|_| is_socket).and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let socket = pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).expect("pidfd_getfd");
        if rustix::net::sockopt::socket_acceptconn(&socket) == Ok(false) {
            rustix::net::shutdown(&socket, rustix::net::Shutdown::Both).expect("shutdown");
        }
    }
}

/// Monitors are killed: one with its container, as when memory is gone; others alone. What is left of their containers is ended, as
/// it is when a shim of dockerd's has died, and who wants to run again does.
#[test]
fn a_killed_monitor_leaves_nothing() {
    let runtime = format!("other={}", crate::runtimes::runtime().display());
    let host = Host::with_arguments(&["--add-runtime", &runtime]);
    let (again, away) = ("--restart always", "--rm");
    let all = [("both", ""), ("alone", ""), ("again", again), ("away", away), ("foreign", "--runtime other")];
    for (name, options) in all {
        host.docker(&format!("run -d --name {name} {options} busybox sh -c 'sleep 600; : {name}'")).ok();
    }
    let id = |name: &str| host.inspect(name)["Id"].as_str().unwrap_or_default().to_owned();
    let process = |line: &str| {
        let found = host.processes().into_iter().find(|(_, other)| other.ends_with(line));
        found.map(|(pid, _)| pid.to_string())
    };
    let monitor = |name: &str| process(&format!("wherry-monitor {}", id(name))).expect("its monitor");
    let init = |name: &str| process(&format!("sleep 600; : {name}"));
    let again = init("again");
    let folders = |id: &str| -> usize {
        let found = |folder: std::path::PathBuf| {
            let mut find = std::process::Command::new("find");
            let output = find.arg(folder).args(["-name", id]).output().expect("find");
            output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count()
        };
        host.cgroups().into_iter().map(found).sum()
    };
    let ids = ["both", "alone", "away", "foreign"].map(id);
    assert!(ids.iter().all(|id| folders(id) > 0), "where they are looked for");
    let victims = all.map(|(name, _)| monitor(name)).into_iter().chain(init("both"));
    // The engine may have been quicker with what the first of them has left.
    std::process::Command::new("kill").arg("-9").args(victims).status().expect("kill");
    for name in ["both", "alone", "foreign"] {
        poll(name, 10, || host.inspect(name)["State"]["Status"] == json!("exited"));
        assert_eq!(host.inspect(name)["State"]["ExitCode"], json!(255), "{name}");
    }
    poll("the one that is to be restarted", 10, || {
        let now = init("again");
        host.inspect("again")["State"]["Running"] == json!(true) && now.is_some() && now != again
    });
    poll("the one that is to be removed", 10, || host.docker("inspect away").code == 1);
    assert_eq!(init("alone"), None, "it ran on with nobody to look after it");
    assert_eq!(ids.map(|id| folders(&id)), [0; 4]);
    for name in ["alone", "foreign"] {
        host.docker(&["start", name]).ok();
        host.docker(&["exec", name, "true"]).ok();
    }
}
