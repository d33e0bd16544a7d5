//! What flags and files together come to.

use std::path::Path;

use super::*;

fn load(file: &str, flags: &[&str]) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("daemon.json");
    std::fs::write(&path, file).unwrap();
    load_at(&path, flags)
}

fn load_at(path: &Path, flags: &[&str]) -> Result<Config, String> {
    let args = [OsString::from("--config-file"), path.into()];
    match Config::load(args.into_iter().chain(flags.iter().map(OsString::from))) {
        Ok(Command::Run(config)) => Ok(*config),
        Ok(Command::Print(text)) => Err(text),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn defaults_are_ours_where_two_daemons_would_clash_and_dockers_elsewhere() {
    let config = load("", &[]).unwrap();
    assert_eq!(config.data_root, Path::new("/var/lib/wherry"));
    assert_eq!(config.pidfile, Path::new("/run/wherry/wherryd.pid"));
    assert_eq!(config.hosts, ["unix:///var/run/docker.sock"]);
    assert_eq!((config.group.as_str(), config.log_driver.as_str()), ("docker", "json-file"));
    assert_eq!((config.shutdown_timeout_s, config.default_shm_bytes), (15, 64 << 20));
    let network = config.network;
    assert!(network.iptables && network.ip_forward && network.ip_masq && network.userland_proxy);
    assert_eq!(network.default_bridge.unwrap().interface, "docker0");
    assert_eq!(network.default_pools.len(), 16);
    let other = load("", &["--exec-root", "/run/other"]).unwrap();
    assert_eq!(other.pidfile, Path::new("/run/other/wherryd.pid"));
}

#[test]
fn flags_and_file_are_put_together() {
    let file = r#"{"registry-mirrors":["http://127.0.0.1:5555"],"default-ulimits":{"nofile":{"Name":"nofile","Hard":9,"Soft":5}},
        "exec-opts":["native.cgroupdriver=systemd"],"dns":["1.1.1.1"],"features":{"buildkit":true},"bip":"10.9.0.1/24"}"#;
    let config = load(file, &["--bridge", "br9", "--iptables=false", "-D", "--tls=false"]).unwrap();
    assert_eq!(config.registry_mirrors, ["http://127.0.0.1:5555/"]);
    assert_eq!(config.default_ulimits["nofile"], (5, 9));
    assert!(config.systemd_cgroup && config.debug && config.plain_tcp && !config.network.iptables);
    let bridge = config.network.default_bridge.unwrap();
    assert_eq!(
        (bridge.interface.as_str(), bridge.address.unwrap().to_string().as_str()),
        ("br9", "10.9.0.1/24")
    );
    assert_eq!(config.without_effect, ["--feature has no effect: there are none to switch"]);
    assert_eq!(load("", &[]).unwrap().network.firewall, FirewallBackend::Iptables);
    let nftables = load(r#"{"firewall-backend":"nftables"}"#, &[]).unwrap().network.firewall;
    assert_eq!(nftables, FirewallBackend::Nftables);
    assert_eq!(load("", &["--bridge=none"]).unwrap().network.default_bridge, None);
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let merged = "merged configuration validation from file and command line flags failed: ";
    let check = |file: &str, flags: &[&str], expect: &str| {
        let error = load(file, flags).unwrap_err();
        let text = error.split_once("daemon.json: ").map_or(error.as_str(), |(_, text)| text);
        assert_eq!(text, expect);
    };
    check(r#"{"labels":["a"]}"#, &[], &format!("{merged}bad attribute format: a"));
    check(r#"{"log-level":"foo"}"#, &[], &format!("{merged}invalid logging level: foo"));
    check("", &["--log-level=foo"], "invalid logging level: foo");
    check("", &["--default-runtime=crun"], "specified default runtime 'crun' does not exist");
    let backends = "invalid firewall-backend: allowed values are \"iptables\" and \"nftables\"";
    check("", &["--firewall-backend=ufw"], backends);
    check(r#"{"firewall-backend":"ufw"}"#, &[], &format!("{merged}{backends}"));
    check("", &["--mtu=-1"], "invalid default MTU: -1");
    check("", &["--max-concurrent-downloads=-1"], "invalid max concurrent downloads: -1");
    check("", &["--max-concurrent-uploads=-1"], "invalid max concurrent uploads: -1");
    check("", &["--max-download-attempts=0"], "invalid max download attempts: 0");
    check("", &["--exec-opt=foo"], "invalid exec-opt (foo): must be formatted 'opt=value'");
    check(r#"{"exec-opts":["a=b"]}"#, &[], &format!("{merged}invalid exec-opt (a=b): unknown option: 'a'"));
    check("", &["--label", "a=b", "--label", "a=c"], "conflict labels for a=c and a=b");
    check(r#"{"nosuch":1}"#, &[], "the following directives don't match any configuration option: nosuch");
    let missing = load_at(Path::new("/nosuch"), &[]).unwrap_err();
    assert_eq!(
        missing,
        "unable to configure the Docker daemon with file /nosuch: open /nosuch: no such file or directory"
    );
}

#[test]
fn what_would_be_ignored_to_the_users_surprise_is_refused() {
    for flags in [
        &["--tlsverify"][..],
        &["--tls"],
        &["--userns-remap=default"],
        &["--authorization-plugin=x"],
        &["--storage-driver=vfs"],
        &["--no-new-privileges"],
    ] {
        assert!(load("", flags).unwrap_err().contains(" is not supported: "), "{flags:?}");
    }
    for flags in [&["--storage-driver=overlay2"][..], &["--default-runtime=runc"], &["--ipv6=false"]] {
        load("", flags).unwrap();
    }
}

#[test]
fn printing_commands_print() {
    assert_eq!(load("{}", &["--validate"]).unwrap_err(), "configuration OK\n");
    assert_eq!(load("{}", &["-v"]).unwrap_err(), format!("Docker version 28.5.2, build {BUILD}\n"));
}

#[test]
fn a_reload_changes_what_can_be_reloaded_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("daemon.json");
    std::fs::write(&path, r#"{"labels":["a=b"]}"#).unwrap();
    let config = load_at(&path, &["--mtu=1400"]).unwrap();
    std::fs::write(&path, r#"{"labels":["c=d"],"debug":true,"dns":["1.1.1.1"],"shutdown-timeout":7}"#)
        .unwrap();
    let reloaded = config.reloaded().unwrap();
    assert_eq!(reloaded.labels, ["c=d"]);
    assert!(reloaded.debug && reloaded.dns.is_empty());
    assert_eq!((reloaded.shutdown_timeout_s, reloaded.network.mtu), (7, 1400));
    std::fs::write(&path, r#"{"nosuch":1}"#).unwrap();
    assert!(reloaded.reloaded().is_err());
}

#[test]
fn registries_have_settings() {
    let config = load("", &[]).unwrap();
    assert_eq!((config.max_downloads, config.max_uploads, config.max_download_attempts), (3, 5, 5));
    let file = r#"{"max-concurrent-downloads":1,"max-concurrent-uploads":0,"max-download-attempts":2,
        "insecure-registries":["http://my.reg:5000","10.0.0.0/8"],
        "proxies":{"http-proxy":"http://p:1","https-proxy":"http://p:2","no-proxy":"*.test"}}"#;
    let config = load(file, &[]).unwrap();
    assert_eq!((config.max_downloads, config.max_uploads, config.max_download_attempts), (1, 0, 2));
    assert_eq!(config.insecure_registries, ["my.reg:5000", "10.0.0.0/8"]);
    let proxies = config.proxies;
    assert_eq!((proxies.http.as_str(), proxies.https.as_str()), ("http://p:1", "http://p:2"));
    assert_eq!(proxies.exceptions, "*.test");
    let error = load("", &["--insecure-registry", "a:99999"]).unwrap_err();
    assert!(error.contains("insecure registry a:99999 is not valid"), "{error}");
}
