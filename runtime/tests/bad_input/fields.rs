//! Fields that are wrong, one after the other.

use serde_json::{Value, json};

use crate::scene::Scene;
use crate::support::unified;

/// Each case: the fields to set (`null` removes, `/-` appends), and what the message must say after "run failed: ".
type Case = (Vec<(&'static str, Value)>, &'static str);

const UTSCP: &str = "unable to start container process: ";

fn check(cases: Vec<Case>) {
    let scene = Scene::new();
    let mut wrong = Vec::new();
    for (fields, expect) in cases {
        scene.write_with(&fields);
        let message = scene.refused("run");
        let (_, text) = message.split_once("run failed: ").unwrap_or_else(|| panic!("{message}"));
        let text = text.strip_prefix(UTSCP).unwrap_or(text);
        if !text.contains(expect) {
            wrong.push(format!("{fields:?}:\n  {text}\n  is not\n  {expect}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// One field.
fn one(pointer: &'static str, value: Value, expect: &'static str) -> Case {
    (vec![(pointer, value)], expect)
}

/// One more mount.
fn mount(mount: Value, expect: &'static str) -> Case {
    one("/mounts/-", mount, expect)
}

#[test]
fn of_the_process() {
    let id = u32::MAX;
    check(vec![
        one("/process", Value::Null, "process property must not be empty"),
        one("/process", json!([]), "config.json: process"),
        one("/process/args", Value::Null, "args must not be empty"),
        one("/process/args", json!([]), "args must not be empty"),
        one("/process/args", json!("sh"), "config.json: process.args: invalid type: string \"sh\""),
        one("/process/args", json!(["sh", 1]), "config.json: process.args[1]: invalid type: integer `1`"),
        one("/process/args", json!(["a\0b"]), "process.args: has a NUL byte"),
        one("/process/args", json!([""]), r#"exec: "": executable file not found in $PATH"#),
        one("/process/args", json!(["/etc/passwd"]), r#"exec: "/etc/passwd": permission denied"#),
        one("/process/args", json!(["/bin"]), r#"exec: "/bin": is a directory"#),
        one("/process/cwd", Value::Null, "Cwd property must not be empty"),
        one("/process/cwd", json!("tmp"), "Cwd must be an absolute path"),
        one("/process/cwd", json!(""), "Cwd property must not be empty"),
        one(
            "/process/cwd",
            json!("/bin/busybox"),
            "chdir to cwd (\"/bin/busybox\") set in config.json failed",
        ),
        one("/process/cwd", json!("/a\0b"), "process.cwd: has a NUL byte"),
        one("/process/env", json!(["PATH=/bin", "NAME"]), "process.env: \"NAME\" has no '='"),
        one("/process/env", json!(["=x"]), "process.env: \"=x\" has no name"),
        one("/process/env", json!(["A=\0"]), "process.env: has a NUL byte"),
        one("/process/user/uid", json!(-1), "process.user.uid: invalid value: integer `-1`"),
        one("/process/user/uid", json!(1_u64 << 32), "process.user.uid: invalid value: integer `4294967296`"),
        one("/process/user/uid", json!("0"), "process.user.uid: invalid type: string \"0\""),
        one("/process/user/uid", json!(id), "process.user.uid: 4294967295 is no id"),
        one("/process/user/gid", json!(id), "process.user.gid: 4294967295 is no id"),
        one("/process/user/additionalGids", json!([id]), "process.user.additionalGids: 4294967295 is no id"),
        one("/process/user/umask", json!(0o1000), "process.user.umask: 512 is more than 0777"),
        one("/process/capabilities/ambient", json!("x"), "process.capabilities.ambient"),
        one(
            "/process/rlimits",
            json!([{ "type": "RLIMIT_FOO", "soft": 1, "hard": 1 }]),
            "process.rlimits[0].type",
        ),
        one(
            "/process/rlimits",
            json!([{ "type": "RLIMIT_NOFILE", "soft": 9, "hard": 9 }, { "type": "RLIMIT_NOFILE", "soft": 9, "hard": 9 }]),
            "process.rlimits: RLIMIT_NOFILE is there twice",
        ),
        one(
            "/process/rlimits",
            json!([{ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 10 }]),
            "process.rlimits: RLIMIT_NOFILE: soft is more than hard",
        ),
        one(
            "/process/rlimits",
            json!([{ "type": "RLIMIT_CORE", "soft": -1, "hard": 1 }]),
            "process.rlimits[0].soft",
        ),
        one("/process/oomScoreAdj", json!(5000), "process.oomScoreAdj: 5000 is not in -1000 to 1000"),
        one("/process/oomScoreAdj", json!("5"), "process.oomScoreAdj: invalid type"),
        one("/process/scheduler", json!({ "policy": "SCHED_FOO" }), "process.scheduler.policy"),
        one("/process/scheduler", json!({ "policy": "SCHED_DEADLINE" }), "process.scheduler"),
        one("/process/ioPriority", json!({ "class": "FOO", "priority": 1 }), "process.ioPriority.class"),
        one(
            "/process/ioPriority",
            json!({ "class": "IOPRIO_CLASS_BE", "priority": 9 }),
            "process.ioPriority.priority",
        ),
        one("/process/terminal", json!("yes"), "process.terminal: invalid type"),
        one("/process/consoleSize", json!({ "height": -1, "width": 1 }), "process.consoleSize.height"),
    ]);
}

#[test]
fn of_the_root_and_the_names() {
    check(vec![
        one(
            "/ociVersion",
            json!("9.0.0"),
            "ociVersion: \"9.0.0\" is not a version 1 of the runtime specification",
        ),
        one("/ociVersion", json!("abc"), "ociVersion: \"abc\" is not"),
        one("/root", Value::Null, "root: is missing"),
        one("/root/path", json!("nosuch"), "nosuch: there is no such directory"),
        one("/root/path", json!("config.json"), "config.json: there is no such directory"),
        one("/root/path", json!("a\0"), "root.path: has a NUL byte"),
        one("/root/path", json!(7), "root.path: invalid type"),
        one("/hostname", json!("x".repeat(65)), "hostname: is longer than 64 bytes"),
        one("/hostname", json!("a\0"), "hostname: has a NUL byte"),
        one("/domainname", json!("x".repeat(65)), "domainname: is longer than 64 bytes"),
        one("/annotations", json!({ "a": 1 }), "annotations.a: invalid type"),
        one("/linux", Value::Null, "linux: is missing"),
        one("/linux", json!([]), "linux: invalid type: sequence, expected a map"),
    ]);
}

#[test]
fn of_mounts() {
    let ids = json!([{ "containerID": 0, "hostID": 0, "size": 1 }]);
    let long = format!("/{}", "a".repeat(300));
    check(vec![
        one("/mounts", json!("x"), "mounts: invalid type"),
        mount(json!({ "type": "tmpfs", "source": "x" }), "mounts[7]: missing field `destination`"),
        mount(json!({ "destination": "", "type": "tmpfs" }), "mounts.destination:  is on the top of rootfs"),
        mount(
            json!({ "destination": "/x/..", "type": "tmpfs" }),
            "mounts.destination: /x/.. is on the top of rootfs",
        ),
        mount(json!({ "destination": "/a\0b", "type": "tmpfs" }), "has a NUL byte"),
        mount(json!({ "destination": long, "type": "tmpfs", "source": "x" }), "file name too long"),
        mount(
            json!({ "destination": "/x", "type": "nosuchfs", "source": "s" }),
            r#"error mounting "s" to rootfs at "/x": mount src=s, dst=/x: no such device"#,
        ),
        mount(
            json!({ "destination": "/x", "type": "tmpfs", "options": ["nosuch"] }),
            "mounts.options: \"nosuch\"",
        ),
        mount(
            json!({ "destination": "/x", "type": "tmpfs", "options": ["nosuch=1"] }),
            "mounts.options: \"nosuch\"",
        ),
        mount(
            json!({ "destination": "/x", "type": "tmpfs", "options": ["size=abc"] }),
            "mounts.options: \"size\"",
        ),
        mount(
            json!({ "destination": "/x", "type": "tmpfs", "options": ["mode=9"] }),
            "mounts.options: \"mode\"",
        ),
        mount(
            json!({ "destination": "/x", "type": "proc", "options": ["hidepid=77"] }),
            "mounts.options: \"hidepid\"",
        ),
        mount(
            json!({ "destination": "/x", "type": "bind", "source": "/etc", "options": ["rbind", "nosuch"] }),
            "\"nosuch\": bind mounts cannot have any filesystem-specific options applied",
        ),
        mount(
            json!({ "destination": "/x", "type": "bind", "options": ["rbind"] }),
            "mounts.source: the bind mount on /x has none",
        ),
        mount(
            json!({ "destination": "/x", "type": "bind", "source": "/nosuch/x", "options": ["rbind"] }),
            "open mount source /nosuch/x: No such file or directory",
        ),
        mount(
            json!({ "destination": "/bin/busybox", "type": "bind", "source": "/etc", "options": ["rbind"] }),
            "not a directory: Are you trying to mount a directory onto a file",
        ),
        mount(
            json!({ "destination": "/tmp", "type": "bind", "source": "/etc/passwd", "options": ["bind"] }),
            "not a directory: Are you trying to mount a directory onto a file",
        ),
        mount(
            json!({ "destination": "/x", "type": "bind", "source": "/etc", "options": ["rbind", "idmap"] }),
            "mounts.options: idmap needs uidMappings and gidMappings",
        ),
        mount(
            json!({ "destination": "/x", "type": "bind", "source": "/etc", "options": ["rbind"], "uidMappings": ids }),
            "id-mapped mounts must have both uid and gid mappings specified",
        ),
        mount(
            json!({ "destination": "/x", "type": "tmpfs", "uidMappings": ids, "gidMappings": ids }),
            "id-mapped mounts are only supported for bind-mounts",
        ),
    ]);
}

#[test]
fn of_hooks() {
    check(vec![
        one(
            "/hooks",
            json!({ "prestart": [{ "path": "bin/true" }] }),
            "hooks.prestart: \"bin/true\" is not an absolute path",
        ),
        one(
            "/hooks",
            json!({ "createRuntime": [{ "path": "x" }] }),
            "hooks.createRuntime: \"x\" is not an absolute path",
        ),
        one(
            "/hooks",
            json!({ "createContainer": [{ "path": "" }] }),
            "hooks.createContainer: \"\" is not an absolute path",
        ),
        one(
            "/hooks",
            json!({ "startContainer": [{ "path": "./x" }] }),
            "hooks.startContainer: \"./x\" is not",
        ),
        one(
            "/hooks",
            json!({ "poststart": [{ "path": "x" }] }),
            "hooks.poststart: \"x\" is not an absolute path",
        ),
        one(
            "/hooks",
            json!({ "poststop": [{ "path": "x" }] }),
            "hooks.poststop: \"x\" is not an absolute path",
        ),
        one("/hooks", json!({ "poststop": [{ "args": ["x"] }] }), "hooks.poststop[0]: missing field `path`"),
        one(
            "/hooks",
            json!({ "prestart": [{ "path": "/bin/true", "timeout": 0 }] }),
            "hooks.prestart: the timeout must be",
        ),
        one(
            "/hooks",
            json!({ "prestart": [{ "path": "/bin/true", "timeout": -1 }] }),
            "hooks.prestart: the timeout must be",
        ),
        one("/hooks", json!({ "prestart": [{ "path": "/nosuch" }] }), "error running prestart hook #0: "),
        one(
            "/hooks",
            json!({ "createRuntime": [{ "path": "/bin/false" }] }),
            "error running createRuntime hook #0: ",
        ),
        one(
            "/hooks",
            json!({ "createContainer": [{ "path": "/nosuch" }] }),
            "error running createContainer hook #0: ",
        ),
        one(
            "/hooks",
            json!({ "startContainer": [{ "path": "/nosuch" }] }),
            "error running startContainer hook #0: ",
        ),
        one(
            "/hooks",
            json!({ "poststart": [{ "path": "/bin/false" }] }),
            "error running poststart hook #0: ",
        ),
    ]);
}

#[test]
fn of_namespaces() {
    let with = |namespace: Value| {
        vec![("/linux/namespaces", json!([{ "type": "mount" }, namespace])), ("/hostname", Value::Null)]
    };
    let ids = |size: u32| json!([{ "containerID": 0, "hostID": 100_000, "size": size }]);
    let overlap = json!([{ "containerID": 0, "hostID": 1000, "size": 10 }, { "containerID": 9, "hostID": 2000, "size": 10 }]);
    let userns = |uids: Value, gids: Value| {
        vec![
            ("/linux/namespaces/-", json!({ "type": "user" })),
            ("/linux/uidMappings", uids),
            ("/linux/gidMappings", gids),
        ]
    };
    check(vec![
        one(
            "/linux/namespaces/-",
            json!({ "type": "foo" }),
            "linux.namespaces[5].type: unknown variant `foo`",
        ),
        one("/linux/namespaces/-", json!({ "type": "pid" }), "linux.namespaces: Pid is there twice"),
        one("/linux/namespaces/-", json!({ "path": "/x" }), "linux.namespaces[5]: missing field `type`"),
        (
            with(json!({ "type": "network", "path": "/nosuch" })),
            "open namespace /nosuch: No such file or directory",
        ),
        (
            with(json!({ "type": "network", "path": "etc" })),
            "linux.namespaces: \"etc\" is not an absolute path",
        ),
        (
            with(json!({ "type": "network", "path": "/proc/self/ns/uts" })),
            "linux.namespaces: /proc/self/ns/uts is not a namespace of the type it is listed as",
        ),
        (
            with(json!({ "type": "pid", "path": "/proc/self/ns/uts" })),
            "linux.namespaces: /proc/self/ns/uts is not a namespace of the type it is listed as",
        ),
        (
            with(json!({ "type": "ipc", "path": "/etc/passwd" })),
            "linux.namespaces: /etc/passwd is not a namespace",
        ),
        one(
            "/linux/namespaces/-",
            json!({ "type": "user" }),
            "linux.uidMappings: a new user namespace needs",
        ),
        one("/linux/uidMappings", ids(1), "linux.uidMappings: there is no user namespace to map ids in"),
        (userns(ids(0), ids(1)), "linux.uidMappings: [0] has the size 0"),
        (userns(ids(1), ids(u32::MAX)), "linux.gidMappings: [0] goes beyond the greatest id"),
        (userns(overlap, ids(1)), "linux.uidMappings: [1] overlaps with one before"),
        one(
            "/linux/timeOffsets",
            json!({ "monotonic": { "secs": 1 } }),
            "linux.timeOffsets: there is no new time namespace",
        ),
        (
            vec![
                ("/linux/namespaces/-", json!({ "type": "time" })),
                ("/linux/timeOffsets", json!({ "x": { "secs": 1 } })),
            ],
            "linux.timeOffsets: \"x\" is neither monotonic nor boottime",
        ),
        (
            vec![("/linux/namespaces", json!([{ "type": "mount" }])), ("/hostname", json!("x"))],
            "hostname: cannot be set without a UTS namespace",
        ),
    ]);
}

#[test]
fn of_linux() {
    let device = |device: Value| vec![("/linux/devices", json!([device]))];
    check(vec![
        (
            device(json!({ "path": "/dev/x", "type": "z", "major": 1, "minor": 3 })),
            "linux.devices[0].type: unknown variant `z`",
        ),
        (
            device(json!({ "path": "/dev/x", "type": "a", "major": 1, "minor": 3 })),
            "linux.devices: type a is for rules only",
        ),
        (
            device(json!({ "path": "/dev/x", "type": "c", "major": -1, "minor": 3 })),
            "linux.devices: -1 is no device number",
        ),
        (
            device(json!({ "path": "/dev/x", "type": "c", "major": 1_u64 << 40, "minor": 3 })),
            "is no device number",
        ),
        (
            device(json!({ "path": "/", "type": "c", "major": 1, "minor": 3 })),
            "linux.devices: \"/\" is no path of a device",
        ),
        (
            device(json!({ "path": "/dev/x", "type": "c", "major": 1, "minor": 3, "uid": u32::MAX })),
            "linux.devices: \"/dev/x\" cannot belong to id 4294967295",
        ),
        one(
            "/linux/resources/devices/-",
            json!({ "allow": true, "type": "z" }),
            "linux.resources.devices[10].type",
        ),
        one(
            "/linux/resources/devices/-",
            json!({ "allow": true, "access": "x" }),
            "linux.resources.devices: the access \"x\"",
        ),
        one("/linux/rootfsPropagation", json!("foo"), "linux.rootfsPropagation: \"foo\" is unknown"),
        one(
            "/linux/sysctl",
            json!({ "vm.swappiness": "1" }),
            "linux.sysctl: \"vm.swappiness\" is not in a separate kernel namespace",
        ),
        one(
            "/linux/sysctl",
            json!({ "net.nosuch.x": "1" }),
            "write sysctl sys/net/nosuch/x: no such file or directory",
        ),
        one(
            "/linux/sysctl",
            json!({ "net.ipv4.ip_forward": "abc" }),
            "write sysctl sys/net/ipv4/ip_forward: invalid argument",
        ),
        one(
            "/linux/sysctl",
            json!({ "net/../kernel/core_pattern": "x" }),
            "linux.sysctl: \"net/../kernel/core_pattern\" is malformed",
        ),
        one("/linux/sysctl", json!({ "net.ipv4.ip_forward": 1 }), "linux.sysctl"),
        one(
            "/linux/personality",
            json!({ "domain": "FOO" }),
            "linux.personality.domain: unknown variant `FOO`",
        ),
        one("/linux/maskedPaths", json!([7]), "linux.maskedPaths[0]: invalid type"),
        one("/linux/intelRdt", json!({ "closID": "x" }), "linux.intelRdt is not supported"),
    ]);
}

#[test]
fn of_seccomp() {
    let rule = |rule: Value| {
        vec![("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] }))]
    };
    let argument = |index: u32, op: &str| json!({ "names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{ "index": index, "value": 0, "op": op }] });
    check(vec![
        one("/linux/seccomp", json!({}), "linux.seccomp: missing field `defaultAction`"),
        one(
            "/linux/seccomp",
            json!({ "defaultAction": "SCMP_ACT_FOO" }),
            "linux.seccomp.defaultAction: unknown variant `SCMP_ACT_FOO`",
        ),
        one(
            "/linux/seccomp",
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_FOO"] }),
            "linux.seccomp.architectures[0]: unknown variant `SCMP_ARCH_FOO`",
        ),
        one(
            "/linux/seccomp",
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "flags": ["FOO"] }),
            "linux.seccomp.flags[0]: unknown variant",
        ),
        one(
            "/linux/seccomp",
            json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 500_000 }),
            "linux.seccomp.defaultErrnoRet: 500000 is no error number",
        ),
        (
            rule(json!({ "names": ["read"], "action": "SCMP_ACT_FOO" })),
            "linux.seccomp.syscalls[0].action: unknown variant",
        ),
        (
            rule(json!({ "names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4096 })),
            "linux.seccomp.syscalls: 4096 is no error number",
        ),
        (rule(argument(0, "SCMP_CMP_FOO")), "linux.seccomp.syscalls[0].args[0].op: unknown variant"),
        (rule(argument(6, "SCMP_CMP_EQ")), "linux.seccomp.syscalls.args: there is no argument 6"),
    ]);
}

#[test]
fn of_resources() {
    check(vec![
        one("/linux/cgroupsPath", json!("/a/../../x"), "linux.cgroupsPath: /a/../../x has a .."),
        one("/linux/cgroupsPath", json!("/a\0b"), "linux.cgroupsPath: has a NUL byte"),
        one("/linux/resources/memory", json!({ "limit": "x" }), "linux.resources.memory.limit: invalid type"),
        one("/linux/resources/memory", json!({ "limit": -5 }), "memory"),
        one(
            "/linux/resources/memory",
            json!({ "swappiness": 500 }),
            "linux.resources.memory.swappiness: 500 is not in 0 to 100",
        ),
        one("/linux/resources/memory", json!({ "limit": 64 << 20, "swap": 1 << 20 }), "mem"),
        one("/linux/resources/cpu", json!({ "shares": -1 }), "linux.resources.cpu.shares: invalid value"),
        one("/linux/resources/cpu", json!({ "quota": 1 }), "cpu"),
        one("/linux/resources/cpu", json!({ "cpus": "abc" }), "cpuset"),
        one("/linux/resources/cpu", json!({ "mems": "77" }), "cpuset"),
        one("/linux/resources/pids", json!({ "limit": "x" }), "linux.resources.pids.limit: invalid type"),
        one("/linux/resources/rdma", json!({ "mlx": { "hcaHandles": 1 } }), "rdma"),
        one("/linux/resources/hugepageLimits", json!([{ "pageSize": "7KB", "limit": 1 }]), "hugetlb"),
        one(
            "/linux/resources/hugepageLimits",
            json!([{ "pageSize": "../../x", "limit": 1 }]),
            "linux.resources.hugepageLimits: the page size \"../../x\" is not like 2MB",
        ),
        one(
            "/linux/resources/unified",
            json!({ "../x": "1" }),
            "linux.resources.unified: \"../x\" is not the name of a cgroup's file",
        ),
        one(
            "/linux/resources/network",
            json!({ "classID": -1 }),
            "linux.resources.network.classID: invalid value",
        ),
        one(
            "/linux/resources/network",
            json!({ "priorities": [{ "name": "nosuch0", "priority": 1 }] }),
            if unified() {
                "linux.resources.network: cgroup version 2 has no such limit"
            } else {
                "net_prio"
            },
        ),
    ]);
}

/// On a kernel without these modules; with them, labels are written where the kernel takes them.
#[test]
fn of_security_modules() {
    let mut cases = Vec::new();
    if !std::path::Path::new("/sys/module/apparmor").exists() {
        cases.push(one(
            "/process/apparmorProfile",
            json!("nosuch"),
            "the AppArmor profile \"nosuch\" is not supported",
        ));
    }
    if !std::path::Path::new("/sys/fs/selinux/enforce").exists() {
        cases.push(one(
            "/process/selinuxLabel",
            json!("a:b:c:s0"),
            "the SELinux label \"a:b:c:s0\" is not supported",
        ));
        cases.push(one(
            "/linux/mountLabel",
            json!("a:b:c:s0"),
            "linux.mountLabel without SELinux is not supported",
        ));
    }
    check(cases);
}
