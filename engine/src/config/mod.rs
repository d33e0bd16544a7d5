//! The daemon's settings: flags, daemon.json, defaults.
//!
//! [`options`] is the one table of what can be set; [`flags`] and [`mod@file`] read the two sources into the same
//! [`settings`]; here they become a [`Config`].

mod checks;
mod file;
mod flags;
mod options;
pub(crate) mod runtimes;
mod settings;
#[cfg(test)]
mod tests;
mod value;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use wherry_netd::protocol::{DefaultBridge, FirewallBackend, Settings as NetworkSettings};
use wherry_registry::Proxies;

use file::FileSettings;
use options::Effect;
use settings::Settings;
use value::Value;
pub(crate) use value::go_bool;

/// Where we listen when nothing is said.
const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";
const DEFAULT_FILE: &str = "/etc/docker/daemon.json";
/// What stands where dockerd names its commit.
pub(crate) const BUILD: &str = concat!("wherry-", env!("CARGO_PKG_VERSION"));

/// Why the daemon cannot be configured; `Display` is what the user reads.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// A wrong flag.
    #[error("{0}\nSee 'wherryd --help'.")]
    Usage(String),
    /// Wrong content of daemon.json, or a contradiction between it and the flags.
    #[error("unable to configure the Docker daemon with file {}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A value that does not go.
    #[error("{0}")]
    Invalid(String),
}

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Command {
    /// Run with these settings.
    Run(Box<Config>),
    /// Print this, and end well.
    Print(String),
}

/// All settings, defaults filled in.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    /// What lasts: images, containers, volumes, networks (`/var/lib/wherry`).
    pub(crate) data_root: PathBuf,
    /// What is gone after a boot: sockets, namespaces (`/run/wherry`).
    pub(crate) exec_root: PathBuf,
    /// Our process id is written there.
    pub(crate) pidfile: PathBuf,
    /// Where we listen, as given (`unix://…`, `tcp://…`, `fd://`).
    pub(crate) hosts: Vec<String>,
    /// Whether TCP without TLS was asked for in words (`--tls=false`).
    pub(crate) plain_tcp: bool,
    /// Group of the Unix socket.
    pub(crate) group: String,
    /// Whether debugging is on.
    pub(crate) debug: bool,
    /// `debug`, `info`, `warn`, `error`, `fatal`.
    pub(crate) log_level: String,
    /// Mirrors of docker.io, in order.
    pub(crate) registry_mirrors: Vec<String>,
    /// Registries (hosts or CIDRs) that may be spoken to without TLS; 127.0.0.0/8 always.
    pub(crate) insecure_registries: Vec<String>,
    /// Layers that are fetched at once; 0 means any number.
    pub(crate) max_downloads: usize,
    /// Layers that are sent at once; 0 means any number.
    pub(crate) max_uploads: usize,
    /// How often a layer is asked for in vain.
    pub(crate) max_download_attempts: u32,
    /// The proxies to registries, where they are not those of our environment.
    pub(crate) proxies: Proxies,
    /// Daemon-wide network settings.
    pub(crate) network: NetworkSettings,
    /// Driver options of networks that do not say otherwise, by driver.
    pub(crate) default_network_options: BTreeMap<String, BTreeMap<String, String>>,
    /// What `host-gateway` stands for; empty: the default bridge's addresses.
    pub(crate) host_gateways: Vec<IpAddr>,
    /// Default resolvers of containers.
    pub(crate) dns: Vec<IpAddr>,
    /// Default resolv.conf options of containers.
    pub(crate) dns_opts: Vec<String>,
    /// Default search domains of containers.
    pub(crate) dns_search: Vec<String>,
    /// Where specifications of CDI devices are looked for.
    pub(crate) cdi_spec_dirs: Vec<String>,
    /// The runtime of containers that ask for none.
    pub(crate) default_runtime: String,
    /// Runtimes by their names.
    pub(crate) runtimes: BTreeMap<String, runtimes::Runtime>,
    /// Default logging driver.
    pub(crate) log_driver: String,
    /// Its options.
    pub(crate) log_opts: BTreeMap<String, String>,
    /// Default ulimits: name → (soft, hard).
    pub(crate) default_ulimits: BTreeMap<String, (i64, i64)>,
    /// The daemon's labels, `key=value`.
    pub(crate) labels: Vec<String>,
    /// Whether cgroups are made through systemd.
    pub(crate) systemd_cgroup: bool,
    /// Parent of containers' cgroups; empty for the default (`/docker`, or `system.slice`).
    pub(crate) cgroup_parent: String,
    /// Whether containers go on when we are told to stop (SIGTERM). They always do when we crash.
    pub(crate) live_restore: bool,
    /// Seconds that containers get to stop when we are told to stop.
    pub(crate) shutdown_timeout_s: u64,
    /// Whether containers may be written to checkpoints, dockerd's one experimental feature that we have. As there, a reload
    /// does not change it.
    pub(crate) experimental: bool,
    /// Default size of /dev/shm, in bytes.
    pub(crate) default_shm_bytes: u64,
    /// Whether containers get an init process by default.
    pub(crate) init: bool,
    /// Options that were given and do nothing here, with the reason; for the log.
    pub(crate) without_effect: Vec<String>,
    source: Source,
}

/// What a reload starts from.
#[derive(Debug, Clone)]
struct Source {
    flags: Settings,
    file: PathBuf,
    file_named: bool,
}

impl Config {
    /// Reads the command line (without the program's name) and the file that it names, or the usual one.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub(crate) fn load(args: impl IntoIterator<Item = OsString>) -> Result<Command, ConfigError> {
        let flags = flags::parse(args)?;
        let on = |id| flags.flag(id) == Some(true);
        if on("help") {
            return Ok(Command::Print(flags::help()));
        }
        if on("version") {
            return Ok(Command::Print(format!("Docker version {}, build {BUILD}\n", crate::ENGINE_VERSION)));
        }
        let (file, file_named) = match flags.text("config-file") {
            Some(path) => (PathBuf::from(path), true),
            None => (PathBuf::from(DEFAULT_FILE), false),
        };
        let validate = on("validate");
        let config = Self::from_source(Source { flags, file, file_named })?;
        Ok(if validate {
            Command::Print("configuration OK\n".into())
        } else {
            Command::Run(Box::new(config))
        })
    }

    /// The settings with what can be reloaded (debug, labels, registries, transfers, live restore, shutdown timeout, shm size) read
    /// anew from the file; everything else stays as it was at start.
    ///
    /// # Errors
    /// As [`Self::load`]; the present settings then stay.
    pub(crate) fn reloaded(&self) -> Result<Self, ConfigError> {
        let fresh = Self::from_source(self.source.clone())?;
        Ok(Self {
            debug: fresh.debug,
            labels: fresh.labels,
            insecure_registries: fresh.insecure_registries,
            registry_mirrors: fresh.registry_mirrors,
            max_downloads: fresh.max_downloads,
            max_uploads: fresh.max_uploads,
            max_download_attempts: fresh.max_download_attempts,
            live_restore: fresh.live_restore,
            shutdown_timeout_s: fresh.shutdown_timeout_s,
            default_shm_bytes: fresh.default_shm_bytes,
            ..self.clone()
        })
    }

    fn from_source(source: Source) -> Result<Self, ConfigError> {
        let in_file = |reason: String| ConfigError::File { path: source.file.clone(), reason };
        let file = FileSettings::read(&source.file, source.file_named).map_err(in_file)?;
        file.check_conflicts(&source.flags).map_err(in_file)?;
        let from_file_too = file.settings != Settings::default();
        let mut merged = source.flags.clone();
        for (id, value) in file.settings.iter() {
            merged.put(id, value.clone());
        }
        check_lists(&mut merged).and_then(|()| check_values(&merged)).map_err(|reason| {
            if from_file_too {
                in_file(format!(
                    "merged configuration validation from file and command line flags failed: {reason}"
                ))
            } else {
                ConfigError::Invalid(reason)
            }
        })?;
        let without_effect = check_effects(&merged).map_err(ConfigError::Invalid)?;
        let network = network_settings(&merged).map_err(ConfigError::Invalid)?;
        let options = default_network_options(&merged).map_err(ConfigError::Invalid)?;
        let runtimes = runtimes::read(merged.get("runtimes")).map_err(ConfigError::Invalid)?;
        if let Some(name) = merged.text("default-runtime").filter(|name| !runtimes::is_known(name, &runtimes))
        {
            return Err(ConfigError::Invalid(format!("specified default runtime '{name}' does not exist")));
        }
        let config = Self::with_defaults(&merged, network, runtimes, without_effect, source);
        Ok(Self { default_network_options: options, ..config })
    }

    fn with_defaults(
        given: &Settings,
        network: NetworkSettings,
        runtimes: BTreeMap<String, runtimes::Runtime>,
        without_effect: Vec<String>,
        source: Source,
    ) -> Self {
        let text = |id, default: &str| given.text(id).unwrap_or(default).to_string();
        fn counted<T: TryFrom<i64>>(given: Option<i64>, default: T) -> T {
            given.and_then(|n| T::try_from(n).ok()).unwrap_or(default)
        }
        let hosts = match given.list("hosts") {
            [] => vec![DEFAULT_HOST.to_string()],
            hosts => hosts.to_vec(),
        };
        let exec_root = PathBuf::from(text("exec-root", "/run/wherry"));
        Self {
            data_root: text("data-root", "/var/lib/wherry").into(),
            pidfile: given.text("pidfile").map_or_else(|| exec_root.join("wherryd.pid"), PathBuf::from),
            exec_root,
            hosts,
            plain_tcp: given.flag("tls") == Some(false) || given.flag("tlsverify") == Some(false),
            group: text("group", "docker"),
            debug: given.flag("debug").unwrap_or(false),
            log_level: text("log-level", "info"),
            registry_mirrors: given.list("registry-mirrors").to_vec(),
            insecure_registries: given.list("insecure-registries").to_vec(),
            max_downloads: counted(given.int("max-concurrent-downloads"), 3),
            max_uploads: counted(given.int("max-concurrent-uploads"), 5),
            max_download_attempts: counted(given.int("max-download-attempts"), 5),
            proxies: Proxies {
                http: text("http-proxy", ""),
                https: text("https-proxy", ""),
                exceptions: text("no-proxy", ""),
            },
            network,
            default_network_options: BTreeMap::new(),
            host_gateways: given.ips("host-gateway-ips").to_vec(),
            dns: given.ips("dns").to_vec(),
            dns_opts: given.list("dns-opts").to_vec(),
            dns_search: given.list("dns-search").to_vec(),
            log_driver: text("log-driver", "json-file"),
            cdi_spec_dirs: match given.list("cdi-spec-dirs") {
                [] => ["/etc/cdi", "/var/run/cdi"].map(str::to_owned).to_vec(),
                // An empty one switches it off.
                given => given.iter().filter(|folder| !folder.is_empty()).cloned().collect(),
            },
            default_runtime: text("default-runtime", runtimes::BUILT_IN),
            runtimes,
            log_opts: given.map("log-opts"),
            default_ulimits: match given.get("default-ulimits") {
                Some(Value::Ulimits(limits)) => limits.clone(),
                _ => BTreeMap::new(),
            },
            labels: given.list("labels").to_vec(),
            systemd_cgroup: given.list("exec-opts").iter().any(|o| o == "native.cgroupdriver=systemd"),
            cgroup_parent: text("cgroup-parent", ""),
            live_restore: given.flag("live-restore").unwrap_or(false),
            shutdown_timeout_s: given
                .int("shutdown-timeout")
                .map_or(15, |s| u64::try_from(s).unwrap_or(u64::MAX)),
            experimental: given.flag("experimental").unwrap_or(false),
            default_shm_bytes: given
                .int("default-shm-size")
                .and_then(|b| u64::try_from(b).ok())
                .unwrap_or(64 << 20),
            init: given.flag("init").unwrap_or(false),
            without_effect,
            source,
        }
    }
}

/// Runs the checks of lists on what came from the file; flags went through them already, and the checks change nothing
/// the second time.
fn check_lists(given: &mut Settings) -> Result<(), String> {
    for spec in options::OPTIONS {
        if let (value::Kind::List(check), Some(Value::List(list))) = (spec.kind, given.get(spec.id())) {
            let checked = list.iter().map(|text| check(text)).collect::<Result<_, _>>()?;
            given.put(spec.id(), Value::List(checked));
        }
    }
    Ok(())
}

/// dockerd's validation of values that stand for themselves.
fn check_values(given: &Settings) -> Result<(), String> {
    if let Some(level) = given.text("log-level")
        && !["debug", "info", "warn", "error", "fatal"].contains(&level)
    {
        return Err(format!("invalid logging level: {level}"));
    }
    if let Some(mtu) = given.int("mtu").filter(|m| *m < 0 || *m > i64::from(u16::MAX)) {
        return Err(format!("invalid default MTU: {mtu}"));
    }
    for what in ["max-concurrent-downloads", "max-concurrent-uploads"] {
        if let Some(number) = given.int(what).filter(|n| *n < 0) {
            return Err(format!("invalid {}: {number}", what.replace('-', " ")));
        }
    }
    if let Some(number) = given.int("max-download-attempts").filter(|n| *n <= 0) {
        return Err(format!("invalid max download attempts: {number}"));
    }
    for (family, name) in [(IpAddr::is_ipv4 as fn(&IpAddr) -> bool, "IPv4"), (IpAddr::is_ipv6, "IPv6")] {
        if given.ips("host-gateway-ips").iter().filter(|ip| family(ip)).count() > 1 {
            return Err(format!("only one {name} host gateway IP address can be specified"));
        }
    }
    if !matches!(given.text("firewall-backend"), None | Some("" | "iptables" | "nftables")) {
        return Err("invalid firewall-backend: allowed values are \"iptables\" and \"nftables\"".into());
    }
    for option in given.list("exec-opts") {
        match option.split_once('=') {
            None => return Err(format!("invalid exec-opt ({option}): must be formatted 'opt=value'")),
            Some(("native.cgroupdriver", "cgroupfs" | "systemd")) => {}
            Some(("native.cgroupdriver", other)) => {
                return Err(format!(
                    "invalid exec-opt ({option}): native.cgroupdriver is \"cgroupfs\" or \"systemd\", not {}",
                    crate::text::go_quote(other)
                ));
            }
            Some((name, _)) => return Err(format!("invalid exec-opt ({option}): unknown option: '{name}'")),
        }
    }
    let mut keys: BTreeMap<&str, &String> = BTreeMap::new();
    for label in given.list("labels") {
        let key = label.split_once('=').map_or(label.as_str(), |(key, _)| key);
        if let Some(other) = keys.insert(key, label).filter(|other| *other != label) {
            return Err(format!("conflict labels for {label} and {other}"));
        }
    }
    Ok(())
}

/// Refuses options that would be ignored to the user's surprise; answers those that may be ignored, for the log.
fn check_effects(given: &Settings) -> Result<Vec<String>, String> {
    let mut ignored = Vec::new();
    for spec in options::OPTIONS {
        let Some(value) = given.get(spec.id()) else { continue };
        let name = if spec.flag.is_empty() { spec.key.to_string() } else { format!("--{}", spec.flag) };
        match spec.effect {
            Effect::Full => {}
            Effect::None(why) => ignored.push(format!("{name} has no effect: {why}")),
            Effect::Refused(unless, why) => {
                let shown = value.to_string();
                let harmless = matches!(value, Value::Bool(false)) || unless.contains(&shown.as_str());
                if !harmless && shown != "[]" && shown != "map[]" {
                    return Err(format!("{name}={shown} is not supported: {why}"));
                }
            }
        }
    }
    Ok(ignored)
}

fn network_settings(given: &Settings) -> Result<NetworkSettings, String> {
    let on = |id| given.flag(id).unwrap_or(true);
    let bip = given.text("bip");
    let bridge = given.text("bridge");
    if bip.is_some() && bridge.is_some_and(|b| b == "none") {
        return Err("You specified -b & --bip, mutually exclusive options. Please specify only one".into());
    }
    let address =
        match bip {
            Some(text) if text.contains('/') => Some(text.parse::<Ipv4Network>().map_err(|_| {
                format!("invalid CIDR address: {text}: --bip needs an IPv4 address with prefix")
            })?),
            Some(text) => return Err(format!("invalid CIDR address: {text}")),
            None => None,
        };
    let range = network_of::<Ipv4Network>(given, "fixed-cidr")?;
    let default_bridge = match bridge {
        Some("none") => None,
        other => Some(DefaultBridge {
            interface: other.unwrap_or("docker0").to_string(),
            // A range without an address is the subnet.
            address: address.or_else(|| range.and_then(first_address)),
            icc: on("icc"),
            range,
            ipv6: given.flag("ipv6") == Some(true),
            subnet_v6: network_of::<Ipv6Network>(given, "fixed-cidr-v6")?,
            address_v6: network_of::<Ipv6Network>(given, "bip6")?,
            gateway: gateway(given, "default-gateway")?,
            gateway_v6: gateway(given, "default-gateway-v6")?,
        }),
    };
    let default_host_ip = match given.text("ip").map(str::parse) {
        Some(Ok(ip)) => ip,
        _ => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    };
    Ok(NetworkSettings {
        iptables: on("iptables"),
        firewall: match given.text("firewall-backend") {
            Some("nftables") => FirewallBackend::Nftables,
            _ => FirewallBackend::Iptables,
        },
        ip6tables: on("ip6tables"),
        ip_forward: on("ip-forward"),
        ip_forward_no_drop: given.flag("ip-forward-no-drop") == Some(true),
        allow_direct_routing: given.flag("allow-direct-routing") == Some(true),
        ip_masq: on("ip-masq"),
        default_bridge,
        mtu: given.int("mtu").filter(|m| *m > 0).and_then(|m| u32::try_from(m).ok()).unwrap_or(1500),
        default_pools: match given.get("default-address-pools") {
            Some(Value::Pools(pools)) if !pools.is_empty() => pools.clone(),
            _ => docker_pools(),
        },
        default_host_ip,
        userland_proxy: on("userland-proxy"),
    })
}

fn default_network_options(given: &Settings) -> Result<BTreeMap<String, BTreeMap<String, String>>, String> {
    match given.get("default-network-opts") {
        Some(Value::Opaque(json)) => serde_json::from_value(json.clone())
            .map_err(|e| format!("invalid default-network-opts {json}: {e}")),
        _ => Ok(BTreeMap::new()),
    }
}

/// A network in CIDR notation, with what is in its host part.
fn network_of<N: std::str::FromStr>(given: &Settings, key: &str) -> Result<Option<N>, String> {
    match given.text(key) {
        None | Some("") => Ok(None),
        Some(text) if text.contains('/') => {
            text.parse().map(Some).map_err(|_| format!("invalid CIDR address: {text}: of --{key}"))
        }
        Some(text) => Err(format!("invalid CIDR address: {text}: of --{key}")),
    }
}

/// An address of the family that is asked for.
fn gateway<A: std::str::FromStr>(given: &Settings, key: &str) -> Result<Option<A>, String> {
    let parsed = given.text(key).map(str::parse).transpose();
    parsed.map_err(|_| format!("--{key} is an address of the other family"))
}

/// A subnet's first address, with its prefix.
fn first_address(subnet: Ipv4Network) -> Option<Ipv4Network> {
    Ipv4Network::new(subnet.nth(1)?, subnet.prefix()).ok()
}

/// 172.17.0.0/16 … 172.31.0.0/16 whole, then 192.168.0.0/16 in pieces of 4096 addresses.
fn docker_pools() -> Vec<(IpNetwork, u8)> {
    let whole = (17..32).map(|second| (Ipv4Addr::new(172, second, 0, 0), 16, 16));
    whole
        .chain([(Ipv4Addr::new(192, 168, 0, 0), 16, 20)])
        .filter_map(|(base, prefix, size)| Some((IpNetwork::new(base.into(), prefix).ok()?, size)))
        .collect()
}
