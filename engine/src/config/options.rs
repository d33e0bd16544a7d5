//! The one table of options: flags, daemon.json keys, kinds, and what we do about each.

use super::checks;
use super::value::Kind;

/// What an option does here.
#[derive(Debug, Clone, Copy)]
pub(super) enum Effect {
    /// What dockerd's does.
    Full,
    /// Accepted, told in the log, and without effect for this reason.
    None(&'static str),
    /// An error when set, since ignoring it would surprise; values in the list (and `false`) are fine.
    Refused(&'static [&'static str], &'static str),
}

/// A row of the table.
#[derive(Debug)]
pub(super) struct Spec {
    /// The flag's name without dashes; empty when it can only stand in the file.
    pub(super) flag: &'static str,
    /// Its short form.
    pub(super) short: Option<char>,
    /// daemon.json's key; empty when it is only a flag.
    pub(super) key: &'static str,
    pub(super) kind: Kind,
    pub(super) effect: Effect,
    pub(super) help: &'static str,
}

impl Spec {
    /// What the option's value is kept under.
    pub(super) fn id(&self) -> &'static str {
        if self.key.is_empty() { self.flag } else { self.key }
    }

    /// The flag in messages: `-D, --debug`.
    pub(super) fn shown(&self) -> String {
        match self.short {
            Some(short) => format!("-{short}, --{}", self.flag),
            None => format!("--{}", self.flag),
        }
    }

    const fn short(self, short: char) -> Self {
        Self { short: Some(short), ..self }
    }

    const fn key(self, key: &'static str) -> Self {
        Self { key, ..self }
    }

    /// An option that cannot stand in the file.
    const fn flag_only(self) -> Self {
        Self { key: "", ..self }
    }

    /// A key without a flag.
    const fn file_only(self) -> Self {
        Self { flag: "", ..self }
    }

    const fn no_effect(self, why: &'static str) -> Self {
        Self { effect: Effect::None(why), ..self }
    }

    const fn refused(self, unless: &'static [&'static str], why: &'static str) -> Self {
        Self { effect: Effect::Refused(unless, why), ..self }
    }
}

/// A row whose flag and key are the same word.
const fn option(name: &'static str, kind: Kind, help: &'static str) -> Spec {
    Spec { flag: name, short: None, key: name, kind, effect: Effect::Full, help }
}

/// The row of a flag.
pub(super) fn by_flag(flag: &str) -> Option<&'static Spec> {
    OPTIONS.iter().find(|o| !o.flag.is_empty() && o.flag == flag)
}

/// The row of a short flag.
pub(super) fn by_short(short: char) -> Option<&'static Spec> {
    OPTIONS.iter().find(|o| o.short == Some(short))
}

/// The row of a key of daemon.json.
pub(super) fn by_key(key: &str) -> Option<&'static Spec> {
    OPTIONS.iter().find(|o| !o.key.is_empty() && o.key == key)
}

const CONTAINERD: &str = "containers run without containerd";
const TLS: &str =
    "TLS is not supported yet; reach the daemon over SSH (docker -H ssh://…) or its Unix socket";
const TLS_FILE: &str = "TLS is not supported yet";
const REALTIME: &str = "realtime budgets are not handed out by the daemon";

/// All options, in the order of `--help`.
pub(super) static OPTIONS: &[Spec] = &[
    option("add-runtime", Kind::Map, "Register an additional OCI compatible runtime").key("runtimes"),
    option(
        "allow-direct-routing",
        Kind::Bool,
        "Allow remote access to published ports on container IP addresses",
    ),
    option("authorization-plugin", Kind::List(checks::any), "Authorization plugins to load")
        .key("authorization-plugins")
        .refused(&[], "plugins are not supported"),
    option("bip", Kind::Text, "IPv4 address for the default bridge"),
    option("bip6", Kind::Text, "IPv6 address for the default bridge"),
    option("bridge", Kind::Text, "Attach containers to a network bridge").short('b'),
    option("builder", Kind::Opaque, "Builder settings")
        .file_only()
        .no_effect("the build cache is kept until it is pruned"),
    option("cdi-spec-dir", Kind::List(checks::any), "CDI specification directories to use")
        .key("cdi-spec-dirs"),
    option("cgroup-parent", Kind::Text, "Set parent cgroup for all containers"),
    option("config-file", Kind::Text, "Daemon configuration file (default \"/etc/docker/daemon.json\")")
        .flag_only(),
    option("containerd", Kind::Text, "containerd grpc address").no_effect(CONTAINERD),
    option("containerd-namespace", Kind::Text, "Containerd namespace to use").no_effect(CONTAINERD),
    option("containerd-plugins-namespace", Kind::Text, "Containerd namespace to use for plugins")
        .no_effect(CONTAINERD),
    option("cpu-rt-period", Kind::Int, "Limit the CPU real-time period in microseconds").no_effect(REALTIME),
    option("cpu-rt-runtime", Kind::Int, "Limit the CPU real-time runtime in microseconds")
        .no_effect(REALTIME),
    option("cri-containerd", Kind::Bool, "start containerd with cri").no_effect(CONTAINERD),
    option("data-root", Kind::Text, "Root directory of persistent state (default \"/var/lib/wherry\")"),
    option("debug", Kind::Bool, "Enable debug mode").short('D'),
    option("default-address-pool", Kind::Pools, "Default address pools for node specific local networks")
        .key("default-address-pools"),
    option("default-cgroupns-mode", Kind::Text, "Default mode for containers cgroup namespace")
        .no_effect("it is private on cgroup v2 and host on v1, unless a container asks otherwise"),
    option("default-gateway", Kind::Ip, "Default gateway IPv4 address for the default bridge network"),
    option("default-gateway-v6", Kind::Ip, "Default gateway IPv6 address for the default bridge network"),
    option("default-ipc-mode", Kind::Text, "Default mode for containers ipc (\"shareable\" | \"private\")")
        .refused(&["private"], "containers are private unless they ask for --ipc=shareable"),
    option("default-network-opt", Kind::NestedMap, "Default network options").key("default-network-opts"),
    option("default-runtime", Kind::Text, "Default OCI runtime for containers"),
    option("default-shm-size", Kind::Bytes, "Default shm size for containers (default 64MiB)"),
    option("default-ulimit", Kind::Ulimits, "Default ulimits for containers").key("default-ulimits"),
    option("dns", Kind::Ips, "DNS server to use"),
    option("dns-opt", Kind::List(checks::any), "DNS options to use").key("dns-opts"),
    option("dns-search", Kind::List(checks::domain), "DNS search domains to use"),
    option("exec-opt", Kind::List(checks::any), "Runtime execution options").key("exec-opts"),
    option("exec-root", Kind::Text, "Root directory for execution state files (default \"/run/wherry\")"),
    option("experimental", Kind::Bool, "Enable experimental features"),
    option("feature", Kind::Opaque, "Enable feature in the daemon")
        .key("features")
        .no_effect("there are none to switch"),
    option(
        "firewall-backend",
        Kind::Text,
        "What firewall rules are written with (\"iptables\"|\"nftables\") (default \"iptables\")",
    ),
    option("fixed-cidr", Kind::Text, "IPv4 subnet for the default bridge network"),
    option("fixed-cidr-v6", Kind::Text, "IPv6 subnet for the default bridge network"),
    option("group", Kind::Text, "Group for the unix socket (default \"docker\")").short('G'),
    option("help", Kind::Bool, "Print usage").flag_only(),
    option("host", Kind::List(checks::host), "Daemon socket(s) to connect to").short('H').key("hosts"),
    option("host-gateway-ip", Kind::Ips, "IP addresses that 'host-gateway' in --add-host resolves to")
        .key("host-gateway-ips"),
    option("http-proxy", Kind::Text, "HTTP proxy URL to use for outgoing traffic"),
    option("https-proxy", Kind::Text, "HTTPS proxy URL to use for outgoing traffic"),
    option(
        "icc",
        Kind::Bool,
        "Enable inter-container communication for the default bridge network (default true)",
    ),
    option("init", Kind::Bool, "Run an init in the container to forward signals and reap processes"),
    option("init-path", Kind::Text, "Path to the docker-init binary")
        .no_effect("the init process is built in"),
    option(
        "insecure-registry",
        Kind::List(checks::insecure_registry),
        "Enable insecure registry communication",
    )
    .key("insecure-registries"),
    option("ip", Kind::Ip, "Host IP for port publishing from the default bridge network (default 0.0.0.0)"),
    option("ip-forward", Kind::Bool, "Enable IP forwarding in system configuration (default true)"),
    option(
        "ip-forward-no-drop",
        Kind::Bool,
        "Do not set the filter-FORWARD policy to DROP when enabling IP forwarding",
    ),
    option("ip-masq", Kind::Bool, "Enable IP masquerading for the default bridge network (default true)"),
    option("ip6tables", Kind::Bool, "Enable addition of ip6tables rules (default true)"),
    option("iptables", Kind::Bool, "Enable addition of iptables rules (default true)"),
    option("ipv6", Kind::Bool, "Enable IPv6 networking for the default bridge network"),
    option("label", Kind::List(checks::label), "Set key=value labels to the daemon").key("labels"),
    option("live-restore", Kind::Bool, "Leave containers running when the daemon is told to stop"),
    option("log-driver", Kind::Text, "Default driver for container logs (default \"json-file\")"),
    option("log-format", Kind::Text, "Set the logging format (\"text\")")
        .refused(&["text"], "the daemon's log is text"),
    option(
        "log-level",
        Kind::Text,
        "Set the logging level (\"debug\"|\"info\"|\"warn\"|\"error\"|\"fatal\") (default \"info\")",
    )
    .short('l'),
    option("log-opt", Kind::Map, "Default log driver options for containers").key("log-opts"),
    option("max-concurrent-downloads", Kind::Int, "Set the max concurrent downloads (default 3)"),
    option("max-concurrent-uploads", Kind::Int, "Set the max concurrent uploads (default 5)"),
    option("max-download-attempts", Kind::Int, "Set the max download attempts for each pull (default 5)"),
    option("metrics-addr", Kind::Text, "Set default address and port to serve the metrics api on")
        .refused(&[""], "there is no metrics endpoint"),
    option("mtu", Kind::Int, "Set the MTU for the default \"bridge\" network (default 1500)"),
    option("network-control-plane-mtu", Kind::Int, "Network Control plane MTU")
        .no_effect("swarm mode comes later"),
    option("no-new-privileges", Kind::Bool, "Set no-new-privileges by default for new containers")
        .refused(&[], "give --security-opt no-new-privileges to the containers"),
    option("no-proxy", Kind::Text, "Hosts or IP addresses for which the proxy is skipped"),
    option("node-generic-resource", Kind::List(checks::any), "Advertise user-defined resource")
        .key("node-generic-resources")
        .no_effect("swarm mode comes later"),
    option("pidfile", Kind::Text, "Path to use for daemon PID file (default \"EXEC_ROOT/wherryd.pid\")")
        .short('p'),
    option("raw-logs", Kind::Bool, "Full timestamps without ANSI coloring").no_effect("logs are always so"),
    option("registry-mirror", Kind::List(checks::mirror), "Preferred Docker registry mirror")
        .key("registry-mirrors"),
    option("rootless", Kind::Bool, "Enable rootless mode").flag_only().refused(&[], "it needs root"),
    option("seccomp-profile", Kind::Text, "Path to seccomp profile")
        .refused(&["", "builtin"], "give --security-opt seccomp=FILE to the containers"),
    option("selinux-enabled", Kind::Bool, "Enable selinux support")
        .refused(&[], "SELinux labels are not set"),
    option("shutdown-timeout", Kind::Int, "Set the default shutdown timeout (default 15)"),
    option("storage-driver", Kind::Text, "Storage driver to use (\"overlay2\")")
        .short('s')
        .refused(&["", "overlay2"], "layers are kept for overlay2 only"),
    option("storage-opt", Kind::List(checks::any), "Storage driver options")
        .key("storage-opts")
        .refused(&[], "overlay2 has no options here"),
    option(
        "swarm-default-advertise-addr",
        Kind::Text,
        "Set default address or interface for swarm advertised address",
    )
    .no_effect("swarm mode comes later"),
    option("tls", Kind::Bool, "Use TLS; implied by --tlsverify. --tls=false allows tcp:// without it")
        .refused(&[], TLS),
    option("tlscacert", Kind::Text, "Trust certs signed only by this CA").no_effect(TLS_FILE),
    option("tlscert", Kind::Text, "Path to TLS certificate file").no_effect(TLS_FILE),
    option("tlskey", Kind::Text, "Path to TLS key file").no_effect(TLS_FILE),
    option("tlsverify", Kind::Bool, "Use TLS and verify the remote").refused(&[], TLS),
    option("userland-proxy", Kind::Bool, "Use userland proxy for loopback traffic (default true)"),
    option("userland-proxy-path", Kind::Text, "Path to the userland proxy binary")
        .no_effect("the network daemon relays by itself"),
    option("userns-remap", Kind::Text, "User/Group setting for user namespaces")
        .refused(&[""], "user namespaces are not supported"),
    option("validate", Kind::Bool, "Validate daemon configuration and exit").flag_only(),
    option("version", Kind::Bool, "Print version information and quit").short('v').flag_only(),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_stands_once() {
        let mut names: Vec<&str> = OPTIONS.iter().map(|o| o.flag).filter(|f| !f.is_empty()).collect();
        assert!(names.is_sorted(), "help is in alphabetical order");
        names.dedup();
        assert_eq!(names.len(), OPTIONS.iter().filter(|o| !o.flag.is_empty()).count());
        let mut shorts: Vec<char> = OPTIONS.iter().filter_map(|o| o.short).collect();
        shorts.sort_unstable();
        assert!(shorts.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
