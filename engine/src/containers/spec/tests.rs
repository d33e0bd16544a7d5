//! Whole specifications, compared with what dockerd 28.5 gave to runc for the same requests.

use std::path::PathBuf;

use super::super::config::{MountPoint, Ulimit};
use super::super::record::MountExtra;
use super::test_data::{ID, config, record};
use super::*;

fn spec_of(record: &Record) -> Value {
    let config = config();
    let user = ResolvedUser { uid: 0, gid: 0, additional_gids: vec![0], home: "/root".into() };
    let etc = EtcPaths {
        hosts: "/d/hosts".into(),
        hostname: "/d/hostname".into(),
        resolv_conf: "/d/resolv.conf".into(),
    };
    let host_network = record.host_config.network_mode == "host";
    let shm = PathBuf::from("/d/shm");
    generate(&Input {
        record,
        config: &config,
        user: &user,
        rootfs: Path::new("/d/rootfs"),
        netns: (!host_network).then_some(Path::new("/run/netns/x")),
        etc: &etc,
        pid_ns: None,
        ipc_ns: None,
        shm: (record.host_config.ipc_mode == "shareable").then_some(&shm),
        cgroup_v2: false,
        extra_env: &[],
    })
    .unwrap()
}

/// Compares with a golden file, without the seccomp profile's long lists (they have tests of their own).
fn check(record: &Record, golden: &str) {
    let mut spec = spec_of(record);
    if let Some(profile) = spec.pointer_mut("/linux/seccomp/syscalls") {
        let first = |rule: &Value| rule["names"][0].clone();
        *profile = profile.as_array().unwrap().iter().map(first).collect();
    }
    check_golden(&spec, golden);
    let full = serde_json::to_vec(&spec_of(record)).unwrap();
    serde_json::from_slice::<oci_spec::runtime::Spec>(&full).expect("a valid OCI specification");
}

fn check_golden(value: &Value, golden: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/containers/spec/golden").join(golden);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let text = serde_json::to_string_pretty(value).unwrap();
        std::fs::write(&path, text + "\n").unwrap();
    }
    let expected: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(*value, expected, "{}", path.display());
}

/// The whole default profile; `make bench-runtime` measures with this file.
#[test]
fn the_default_seccomp_profile() {
    check_golden(&spec_of(&record())["linux"]["seccomp"], "seccomp.json");
}

#[test]
fn a_plain_container() {
    check(&record(), "plain.json");
}

#[test]
fn a_privileged_container_with_a_terminal() {
    let mut record = record();
    record.config.tty = true;
    record.host_config.privileged = true;
    record.host_config.masked_paths = None;
    record.host_config.readonly_paths = None;
    let mut spec = spec_of(&record);
    let devices = spec["linux"]["devices"].take();
    assert!(devices.as_array().unwrap().iter().any(|d| d["path"] == "/dev/null"));
    assert_eq!(spec["linux"]["resources"]["devices"], json!([{ "allow": true, "access": "rwm" }]));
    for absent in ["seccomp", "maskedPaths", "readonlyPaths"] {
        assert!(spec["linux"].get(absent).is_none(), "{absent}");
    }
    assert!(spec["process"]["capabilities"]["bounding"].as_array().unwrap().len() > 30);
    assert_eq!(spec["process"]["terminal"], true);
    assert_eq!(spec["process"]["env"][2], "TERM=xterm");
    for place in [3, 4] {
        assert_eq!(spec["mounts"][place]["options"], json!(["nosuid", "noexec", "nodev"]));
    }
}

#[test]
fn all_namespaces_of_the_host() {
    let mut record = record();
    record.config.hostname = "vm".into();
    let host = &mut record.host_config;
    for mode in [&mut host.network_mode, &mut host.pid_mode, &mut host.ipc_mode, &mut host.uts_mode] {
        "host".clone_into(mode);
    }
    host.security_opt = Some(vec!["seccomp=unconfined".into(), "label=disable".into()]);
    host.cap_drop = Some(vec!["ALL".into()]);
    host.cap_add = Some(vec!["CHOWN".into()]);
    (host.memory, host.memory_swap, host.memory_swappiness) = (300_000_000, -1, Some(10));
    (host.cpu_period, host.cpu_quota) = (100_000, 50_000);
    host.cgroup_parent = "/foo".into();
    check(&record, "host-namespaces.json");
}

#[test]
fn mounts_limits_and_users_settings() {
    let mut record = record();
    record.config.working_dir = "/a/b".into();
    record.config.domainname = "x".into();
    record.config.env = Some(vec!["A=b".into(), "HOME=/x".into(), "Q".into()]);
    let host = &mut record.host_config;
    (host.memory, host.memory_swap, host.memory_reservation) = (20_000_000, 40_000_000, 10_000_000);
    (host.nano_cpus, host.cpu_shares, host.cpuset_cpus) = (1_500_000_000, 5, "0".into());
    (host.pids_limit, host.oom_score_adj) = (Some(77), 100);
    host.cap_add = Some(vec!["NET_ADMIN".into(), "cap_sys_admin".into()]);
    host.cap_drop = Some(vec!["MKNOD".into()]);
    let tmpfs = [("/t", ""), ("/t2", "size=1m,exec,uid=3")];
    host.tmpfs = Some(tmpfs.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    host.ulimits = Some(vec![Ulimit { name: "nofile".into(), hard: 200, soft: -1 }]);
    host.sysctls = Some([("net.core.somaxconn".to_owned(), "5".to_owned())].into());
    host.security_opt = Some(vec!["no-new-privileges".into()]);
    host.device_cgroup_rules = Some(vec!["c 7:* rwm".into(), "b *:* r".into()]);
    host.annotations = Some([("a.b".to_owned(), "c".to_owned())].into());
    (host.ipc_mode, host.cgroupns_mode, host.readonly_rootfs) = ("shareable".into(), "private".into(), true);
    let bind = |destination: &str, rw, propagation: &str| MountPoint {
        kind: "bind".into(),
        source: "/tmp".into(),
        destination: destination.into(),
        rw,
        propagation: propagation.into(),
        ..MountPoint::default()
    };
    record.mounts = vec![
        bind("/deep/er/est", true, "rprivate"),
        bind("/bb", true, "rprivate"),
        bind("/cc", false, "rprivate"),
        MountPoint { kind: "volume".into(), ..bind("/vv", true, "") },
        MountPoint { kind: "tmpfs".into(), source: String::new(), ..bind("/t4", false, "") },
        bind("/etc/hosts", true, "rprivate"),
    ];
    let extra = |options: &[&str]| MountExtra {
        options: options.iter().map(ToString::to_string).collect(),
        ..MountExtra::default()
    };
    record.mount_extras =
        [("/cc".to_owned(), extra(&["bind"])), ("/t4".to_owned(), extra(&["ro", "mode=700"]))].into();
    check(&record, "settings.json");
}

#[test]
fn cgroups_are_where_dockerd_puts_them() {
    let mut config = config();
    let mut record = record();
    let check = |record: &Record, config: &Config, expected: &str| {
        assert_eq!(cgroups_path(record, config), expected.replace("ID", ID));
    };
    check(&record, &config, "/docker/ID");
    config.cgroup_parent = "/lab/".into();
    check(&record, &config, "/lab/ID");
    record.host_config.cgroup_parent = "own".into();
    check(&record, &config, "own/ID");
    config.systemd_cgroup = true;
    config.cgroup_parent = String::new();
    record.host_config.cgroup_parent = String::new();
    check(&record, &config, "system.slice:docker:ID");
}

#[test]
fn a_shared_mount_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut record = record();
    let mount = MountPoint {
        kind: "bind".into(),
        source: dir.path().join("missing").to_string_lossy().into_owned(),
        destination: "/x".into(),
        propagation: "rshared".into(),
        ..MountPoint::default()
    };
    record.mounts = vec![mount];
    let error = mounts::gather(
        &Input {
            record: &record,
            config: &config(),
            user: &ResolvedUser::default(),
            rootfs: dir.path(),
            netns: None,
            etc: &EtcPaths { hosts: PathBuf::new(), hostname: PathBuf::new(), resolv_conf: PathBuf::new() },
            pid_ns: None,
            ipc_ns: None,
            shm: None,
            cgroup_v2: false,
            extra_env: &[],
        },
        false,
    )
    .err()
    .map(|e| e.to_string());
    assert!(error.is_some_and(|e| e.starts_with("resolve ") && e.contains("missing")));
}
