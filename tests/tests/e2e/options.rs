//! What `docker run` can say about the program's surroundings.

use wherry_tests::Host;

#[test]
fn environment_user_and_folder() {
    let host = Host::new();
    for (command, text) in [
        (
            "run --rm -e A=1 -e B=two busybox sh -c 'echo $A $B $HOME $PATH'",
            "1 two /root /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        ),
        (
            "run --rm -u 33 busybox sh -c 'id; echo $HOME'",
            "uid=33(www-data) gid=33(www-data) groups=33(www-data),44(video)\n/var/www",
        ),
        (
            "run --rm -u www-data busybox id",
            "uid=33(www-data) gid=33(www-data) groups=33(www-data),44(video)",
        ),
        ("run --rm -u 1234 busybox id", "uid=1234 gid=0(root) groups=0(root)"),
        ("run --rm -u 1234:99 busybox id", "uid=1234 gid=99 groups=99"),
        ("run --rm -u www-data:video busybox id", "uid=33(www-data) gid=44(video) groups=44(video)"),
        ("run --rm --group-add 44 --group-add 777 busybox id -G", "0 44 777"),
        ("run --rm -w /var/www busybox pwd", "/var/www"),
        ("run --rm -w /made/up busybox pwd", "/made/up"),
        ("run --rm --hostname named busybox sh -c 'hostname; cat /etc/hostname'", "named\nnamed"),
        ("run --rm --entrypoint echo busybox one two", "one two"),
    ] {
        host.docker(command).prints(text);
    }
    let id = host.docker("create --name box busybox").ok().out().to_owned();
    assert_eq!(host.inspect("box")["Config"]["Hostname"], id[..12]);
}

#[test]
fn configuration_of_the_image() {
    let host = Host::new();
    host.load_image(
        "fixture:1",
        r#"{"Env":["PATH=/bin","FROM=image"],"Entrypoint":["sh","-c"],"Cmd":["echo $FROM $(pwd) $(id -u)"],
            "WorkingDir":"/srv","User":"33","Labels":{"a":"image","b":"image"},"ExposedPorts":{"80/tcp":{}},
            "Volumes":{"/data":{}},"StopSignal":"SIGINT"}"#,
    );
    host.docker("run --rm fixture:1").prints("image /srv 33");
    host.docker("run --rm -e FROM=run -w / -u 0 fixture:1").prints("run / 0");
    host.docker("run --rm fixture:1 'echo other'").prints("other");
    host.docker("run --rm --entrypoint env fixture:1").contains("FROM=image");
    host.docker("create --name box --label a=run --label c=run fixture:1").ok();
    let box_ = host.inspect("box");
    assert_eq!(box_["Config"]["Labels"], serde_json::json!({"a": "run", "b": "image", "c": "run"}));
    assert_eq!(box_["Config"]["Entrypoint"], serde_json::json!(["sh", "-c"]));
    assert_eq!(
        (&box_["Path"], &box_["Args"]),
        (&"sh".into(), &serde_json::json!(["-c", "echo $FROM $(pwd) $(id -u)"]))
    );
    assert_eq!(box_["Config"]["StopSignal"], "SIGINT");
    assert_eq!(box_["Mounts"][0]["Destination"], "/data");
    // An entrypoint of the command line drops the image's command.
    host.docker("run --rm --entrypoint '' fixture:1").fails(125, "no command specified");
}

#[test]
fn names_and_addresses_in_etc() {
    let host = Host::new();
    let hosts = host.docker("run --rm --hostname me --add-host other:10.1.2.3 --add-host gate:host-gateway busybox cat /etc/hosts").ok();
    for line in ["127.0.0.1\tlocalhost", "10.1.2.3\tother", "172.17.0.1\tgate", "172.17.0.2\tme"] {
        assert!(hosts.stdout.lines().any(|l| l == line), "{line:?} in {hosts}");
    }
    host.docker("run --rm --hostname me --domainname example.org busybox cat /etc/hosts")
        .contains("172.17.0.2\tme.example.org me\n");
    // However the full name was given.
    host.docker("run --rm --hostname me.example.org busybox tail -1 /etc/hosts")
        .prints("172.17.0.2\tme.example.org me");
    host.docker("run --rm --add-host bad busybox true").fails(125, "bad format for add-host");
    let resolv = host.docker("run --rm --dns 192.0.2.53 --dns-search example.org --dns-option ndots:3 busybox cat /etc/resolv.conf").ok();
    for line in [
        "nameserver 192.0.2.53",
        "search example.org",
        "options ndots:3",
        "# Overrides: [nameservers search options]",
        "# Option ndots from: override",
    ] {
        assert!(resolv.stdout.lines().any(|l| l == line), "{line:?} in {resolv}");
    }
    host.docker("run --rm busybox cat /etc/resolv.conf").contains("nameserver 198.51.100.73");
    // They are the container's own files: writable, and gone with it.
    host.docker("run --rm busybox sh -c 'echo 10.9.9.9 mine >>/etc/hosts && grep -c mine /etc/hosts'")
        .prints("1");
}

#[test]
fn mounts_for_scratch() {
    let host = Host::new();
    host.docker("run --rm --tmpfs /scratch:size=1m,mode=700 busybox sh -c 'grep /scratch /proc/mounts; stat -c %a /scratch'").contains("size=1024k");
    let full = host
        .docker("run --rm --tmpfs /scratch:size=64k busybox sh -c 'head -c 1000000 /dev/zero >/scratch/x'");
    assert!(full.code == 1 && full.stderr.contains("head: "), "{full}");
    host.docker("run --rm --read-only busybox sh -c 'touch /x'").fails(1, "Read-only file system");
    host.docker("run --rm --read-only --tmpfs /tmp busybox sh -c 'touch /tmp/x && echo fine'").prints("fine");
    host.docker("run --rm --read-only busybox sh -c 'echo x >/dev/shm/x && echo fine'").prints("fine");
    host.docker("run --rm busybox sh -c 'touch /x && ls /x'").prints("/x");
}

#[test]
fn namespaces_shared_with_others() {
    let host = Host::new();
    host.docker("run -d --name first --hostname first busybox sleep 600").ok();
    host.docker("run --rm --network container:first busybox hostname").prints("first");
    host.docker("run --rm --pid container:first busybox sh -c 'ps -o comm | grep -c sleep'").prints("1");
    let mine = host.exec("readlink /proc/self/ns/net").ok();
    host.docker("run --rm --network host busybox readlink /proc/self/ns/net").prints(mine.out());
    let uts = host.exec("readlink /proc/self/ns/uts").ok();
    host.docker("run --rm --uts host busybox readlink /proc/self/ns/uts").prints(uts.out());
    host.docker("run --rm --ipc host busybox true").ok();
    host.docker("run --rm --ipc container:first busybox true").fails(125, "non-shareable IPC");
    host.docker("run -d --name giver --ipc shareable busybox sleep 600").ok();
    host.docker("run --rm --ipc container:giver busybox sh -c 'echo shared >/dev/shm/x'").ok();
    host.docker("exec giver cat /dev/shm/x").prints("shared");
    host.docker("run --rm --pid host busybox sh -c 'ps -o args | grep -q \"[s]leep 600\"'").ok();
    host.docker("run --rm --network container:nosuch busybox true").fails(125, "No such container: nosuch");
}

#[test]
fn an_init_that_reaps() {
    let host = Host::with_arguments(&["--init-path", "/usr/bin/tini-static"]);
    host.docker("run -d --name box --init busybox sh -c 'sleep 0.1 & exec sleep 600'").ok();
    let first = host.docker("exec box cat /proc/1/cmdline").ok().stdout.replace('\0', " ");
    assert!(first.contains("init") && first.contains("sh -c"), "{first}");
    host.docker("stop -t 5 box").ok();
    assert_eq!(host.inspect("box")["State"]["ExitCode"], 143, "the init passes SIGTERM on");
}

#[test]
fn devices() {
    let host = Host::new();
    host.docker("run --rm --device /dev/null:/dev/mine busybox sh -c 'echo x >/dev/mine && ls -l /dev/mine | cut -c1'").prints("c");
    host.docker("run --rm --device /dev/nosuch busybox true").fails(127, "no such file or directory");
    let listing = host.docker("run --rm busybox ls /dev").ok();
    // (core is there where the kernel has /proc/kcore)
    let names: Vec<&str> = listing.stdout.split_whitespace().filter(|name| *name != "core").collect();
    assert_eq!(
        names,
        [
            "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout",
            "tty", "urandom", "zero"
        ]
    );
}
