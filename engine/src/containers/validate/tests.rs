//! Texts as dockerd 28.5 answers them.

use super::super::config::PortBinding;
use super::*;

fn check(host: HostConfig, expected: &str) {
    assert_eq!(check_host_config(&host).map_err(|e| e.to_string()), Err(expected.to_owned()));
}

fn policy(name: &str, maximum_retry_count: i64) -> HostConfig {
    let restart_policy = RestartPolicy { name: name.into(), maximum_retry_count };
    HostConfig { restart_policy, ..HostConfig::default() }
}

#[test]
fn names() {
    for name in ["ab", "/ab", "a_.-b", "0x"] {
        assert!(check_name(name).is_ok(), "{name}");
    }
    for name in ["", "/", "w", "a b", "-ab", "a/b", "é1", "aé"] {
        let expected = format!("Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed");
        assert_eq!(check_name(name).map_err(|e| e.to_string()), Err(expected));
    }
}

#[test]
fn restart_policies() {
    assert!(check_host_config(&policy("on-failure", 3)).is_ok());
    let only = "invalid restart policy: maximum retry count can only be used with 'on-failure'";
    check(policy("always", 3), only);
    check(policy("", 3), only);
    check(policy("on-failure", -3), "invalid restart policy: maximum retry count cannot be negative");
    check(
        policy("foo", 0),
        "invalid restart policy: unknown policy 'foo'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
    );
    check(
        HostConfig { auto_remove: true, ..policy("always", 0) },
        "can't create 'AutoRemove' container with restart policy",
    );
}

#[test]
fn published_ports() {
    let publish = |port: &str, host_port: &str| {
        let binding = PortBinding { host_ip: String::new(), host_port: host_port.into() };
        HostConfig {
            port_bindings: Some([(port.to_owned(), Some(vec![binding]))].into()),
            ..HostConfig::default()
        }
    };
    for (port, host_port) in [("80", "80"), ("80/tcp", ""), ("80/foo", "80-90"), ("/tcp", "80")] {
        assert!(check_host_config(&publish(port, host_port)).is_ok(), "{port} {host_port}");
    }
    for (port, host_port, bad) in [
        ("foo", "", "foo"),
        ("80/tcp", "x", "x"),
        ("80/tcp", "70000", "70000"),
        ("99999/tcp", "80", "99999"),
        ("80-82/tcp", "80", "80-82"),
        ("80/tcp", "90-80", "90-80"),
    ] {
        check(publish(port, host_port), &format!("invalid port specification: \"{bad}\""));
    }
}

#[test]
fn limits_of_memory_and_processors() {
    let host = HostConfig::default;
    check(HostConfig { memory: 1000, ..host() }, "Minimum memory limit allowed is 6MB");
    check(
        HostConfig { memory: 10_000_000, memory_swap: 5_000_000, ..host() },
        "Minimum memoryswap limit should be larger than memory limit, see usage",
    );
    check(
        HostConfig { memory_swap: 5_000_000, ..host() },
        "You should always set the Memory limit when using Memoryswap limit, see usage",
    );
    check(
        HostConfig { memory_swappiness: Some(101), ..host() },
        "Invalid value: 101, valid memory swappiness range is 0-100",
    );
    check(HostConfig { memory_reservation: 2000, ..host() }, "Minimum memory reservation allowed is 6MB");
    check(
        HostConfig { nano_cpus: 1_000_000_000, cpu_period: 5, ..host() },
        "Conflicting options: Nano CPUs and CPU Period cannot both be set",
    );
    check(HostConfig { cpu_quota: 5, ..host() }, "CPU cfs quota can not be less than 1ms (i.e. 1000)");
    check(
        HostConfig { cpu_shares: -5, ..host() },
        "invalid CPU shares (-5): value must be a positive integer",
    );
    check(
        HostConfig { cpuset_cpus: "x".into(), ..host() },
        "Invalid value x for cpuset cpus: invalid format: x",
    );
    check(
        HostConfig { oom_score_adj: 5000, ..host() },
        "Invalid value 5000, range for oom score adj is [-1000, 1000]",
    );
    check(HostConfig { shm_size: -5, ..host() }, "SHM size can not be less than 0");
}

#[test]
fn namespaces_and_what_excludes_each_other() {
    check(HostConfig { pid_mode: "foo".into(), ..HostConfig::default() }, "invalid PID mode: foo");
    check(
        HostConfig { ipc_mode: "container:".into(), ..HostConfig::default() },
        "invalid IPC mode: container:",
    );
    check(
        HostConfig { extra_hosts: Some(vec!["x".into()]), ..HostConfig::default() },
        "bad format for add-host: \"x\"",
    );
    check(
        HostConfig { extra_hosts: Some(vec!["x:bad".into()]), ..HostConfig::default() },
        "invalid IP address in add-host: \"bad\"",
    );
    let pair = |hostname: &str, host: HostConfig| {
        let config = Config { hostname: hostname.into(), ..Config::default() };
        check_pair(&config, &host).map_err(|e| e.to_string())
    };
    let joined = || HostConfig { network_mode: "container:x".into(), ..HostConfig::default() };
    assert_eq!(pair("", joined()), Ok(()));
    assert_eq!(pair("h", joined()), Err("conflicting options: hostname and the network mode".into()));
    assert_eq!(
        pair("", HostConfig { publish_all_ports: true, ..joined() }),
        Err("conflicting options: port publishing and the container type network mode".into())
    );
    let uts = HostConfig { uts_mode: "host".into(), ..HostConfig::default() };
    assert_eq!(pair("h", uts), Err("conflicting options: hostname and the UTS mode".into()));
}

#[test]
fn programs_and_probes() {
    let check = |config: Config, expected: &str| {
        assert_eq!(check_config(&config).map_err(|e| e.to_string()), Err(expected.to_owned()));
    };
    check(
        Config { working_dir: "rel".into(), ..Config::default() },
        "the working directory 'rel' is invalid, it needs to be an absolute path",
    );
    check(Config { stop_signal: "FOO".into(), ..Config::default() }, "invalid signal: FOO");
    check(Config { env: Some(vec!["=x".into()]), ..Config::default() }, "invalid environment variable: =x");
    let probe = HealthConfig { interval: 5, ..HealthConfig::default() };
    check(
        Config { healthcheck: Some(probe), ..Config::default() },
        "Interval in Healthcheck cannot be less than 1ms",
    );
}
