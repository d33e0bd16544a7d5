//! What netd is asked, and what it answers. Plain data: netd knows nothing of
//! Docker's HTTP API, and keeps the strings that only the engine understands
//! (`labels`, `options`, `metadata`) untouched.
//!
//! One connection to `EXEC_ROOT/netd.sock` carries any number of [`Request`]s, each
//! answered by one `Result<Reply, Failure>` before the next is read. Frames are
//! `wherry_ipc`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use serde::{Deserialize, Serialize};

/// The version of this protocol and of the state files.
pub const VERSION: u32 = 1;
/// netd's socket in the engine's exec root.
pub const SOCKET: &str = "netd.sock";

/// A question or an order.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Request {
    /// Which version do you speak? Answered by [`Reply::Hello`].
    Hello,
    /// The daemon-wide settings, sent by every engine that starts or reloads; idempotent: bridges, rules
    /// and sysctls are brought to agree with it, what is right already stays. Answered by `Ok`.
    Configure(Settings),
    /// Makes a network. Answered by [`Reply::Network`] with everything filled in.
    CreateNetwork(NetworkSpec),
    /// Removes a network that has no endpoints. Answered by `Ok`.
    RemoveNetwork {
        /// Full id.
        network: String,
    },
    /// All networks with their endpoints. Answered by [`Reply::Networks`].
    Networks,
    /// Makes a container's network namespace with its endpoints (none: only loopback). If it fails,
    /// nothing is left. An existing sandbox of that id is released first. Answered by [`Reply::Sandbox`].
    CreateSandbox(SandboxSpec),
    /// Adds an endpoint to a sandbox. Answered by [`Reply::Sandbox`].
    Connect {
        /// The sandbox's id.
        sandbox: String,
        /// The endpoint.
        endpoint: EndpointSpec,
    },
    /// Removes a sandbox's endpoint in a network. Answered by [`Reply::Sandbox`].
    Disconnect {
        /// The sandbox's id.
        sandbox: String,
        /// Full network id.
        network: String,
    },
    /// Replaces the names of a sandbox's endpoint (rename). Answered by `Ok`.
    SetNames {
        /// The sandbox's id.
        sandbox: String,
        /// Full network id.
        network: String,
        /// As [`EndpointSpec::names`].
        names: Vec<String>,
        /// As [`EndpointSpec::container_name`]; empty: it stays.
        #[serde(default)]
        container: String,
    },
    /// Replaces what a sandbox's endpoint is linked to. Answered by `Ok`.
    SetLinked {
        /// The sandbox's id.
        sandbox: String,
        /// Full network id.
        network: String,
        /// As [`EndpointSpec::linked`].
        linked: BTreeSet<String>,
    },
    /// Removes a sandbox: endpoints, published ports, namespace. One that is not there is fine. Answered
    /// by `Ok` once its addresses, names and ports are free; slow kernel work may still go on.
    ReleaseSandbox {
        /// The sandbox's id.
        sandbox: String,
    },
    /// All sandboxes. Answered by [`Reply::Sandboxes`].
    Sandboxes,
    /// Does firewalld keep this host's firewall? Answered by [`Reply::Firewalld`].
    Firewalld,
    /// Ends netd; sandboxes, bridges and rules stay as they are. Answered by `Ok`.
    Shutdown,
}

/// The answers, by request.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Reply {
    /// Done.
    Ok,
    /// To [`Request::Hello`].
    Hello {
        /// [`VERSION`] of netd.
        version: u32,
        /// Its process id.
        pid: u32,
    },
    /// The network that was made.
    Network(Box<Network>),
    /// All of them, in order of creation.
    Networks(Vec<Network>),
    /// The sandbox as it is now.
    Sandbox(Box<Sandbox>),
    /// All of them.
    Sandboxes(Vec<Sandbox>),
    /// What is known of it; `None` if it does not run.
    Firewalld(Option<Firewalld>),
}

/// A request that failed; nothing of it is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Failure {
    /// A network of that name exists.
    #[error("network with name {0} already exists")]
    NameTaken(String),
    /// No network of that id.
    #[error("network {0} not found")]
    NoSuchNetwork(String),
    /// No sandbox of that id.
    #[error("sandbox {0} not found")]
    NoSuchSandbox(String),
    /// The sandbox has no endpoint in that network.
    #[error("sandbox {sandbox} is not connected to network {network}")]
    NotConnected {
        /// The sandbox's id.
        sandbox: String,
        /// The network's name.
        network: String,
    },
    /// The sandbox has an endpoint in that network already.
    #[error("endpoint with name {name} already exists in network {network}")]
    AlreadyConnected {
        /// The container's name.
        name: String,
        /// The network's name.
        network: String,
    },
    /// The network has endpoints and cannot be removed.
    #[error("network {name} has active endpoints")]
    HasEndpoints {
        /// The network's name.
        name: String,
        /// (container's name, endpoint id) of each.
        endpoints: Vec<(String, String)>,
    },
    /// The subnet overlaps another network's.
    #[error("Pool overlaps with other one on this address space")]
    PoolOverlap,
    /// All default address pools are used up.
    #[error("all predefined address pools have been fully subnetted")]
    PoolsExhausted,
    /// The network has no free address.
    #[error("no available {family} addresses on this network's address pools: {network}")]
    AddressesExhausted {
        /// `IPv4` or `IPv6`.
        family: String,
        /// Name and id.
        network: String,
    },
    /// The asked address is in use.
    #[error("Address already in use")]
    AddressInUse,
    /// The asked address is in none of the network's subnets, or the network's subnet was not chosen by the user.
    #[error("{0}")]
    BadAddress(String),
    /// What is asked for is not to be had here, whoever asks.
    #[error("{0}")]
    Forbidden(String),
    /// The network or endpoint is described wrongly.
    #[error("{0}")]
    Invalid(String),
    /// The port is published by another sandbox of this netd.
    #[error("Bind for {ip}:{port} failed: port is already allocated")]
    PortAllocated {
        /// Host address.
        ip: IpAddr,
        /// Host port.
        port: u16,
    },
    /// The port cannot be bound on the host; `reason` is the system's text in lower case, like
    /// `address already in use` or `cannot assign requested address`.
    #[error("failed to bind host port for {ip}:{port}:{container_ip}:{container_port}/{protocol}: {reason}")]
    PortBind {
        /// Host address.
        ip: IpAddr,
        /// Host port.
        port: u16,
        /// The endpoint's address.
        container_ip: IpAddr,
        /// The container's port.
        container_port: u16,
        /// The protocol.
        protocol: Protocol,
        /// Why.
        reason: String,
    },
    /// A step that the system refused: what was done, on what, and the system's answer.
    #[error("{step} {subject}: {reason}")]
    System {
        /// Like "create bridge".
        step: String,
        /// Like "docker0".
        subject: String,
        /// The error's text.
        reason: String,
        /// errno, where a system call failed.
        errno: Option<i32>,
    },
    /// The request could not be understood.
    #[error("netd protocol: {0}")]
    Protocol(String),
}

/// Settings for all networks of this netd.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Whether firewall and NAT rules are made (dockerd's `--iptables`).
    pub iptables: bool,
    /// The same for IPv6 (`--ip6tables`).
    #[serde(default)]
    pub ip6tables: bool,
    /// Who writes them (`--firewall-backend`).
    #[serde(default)]
    pub firewall: FirewallBackend,
    /// Whether /proc/sys/net/ipv4/ip_forward is switched on, and the FORWARD policy set to DROP then.
    pub ip_forward: bool,
    /// Whether the FORWARD policy stays as it is all the same (`--ip-forward-no-drop`).
    #[serde(default)]
    pub ip_forward_no_drop: bool,
    /// Whether published ports may be reached from elsewhere by the containers' own addresses, too
    /// (`--allow-direct-routing`).
    #[serde(default)]
    pub allow_direct_routing: bool,
    /// Whether bridges masquerade (`--ip-masq`).
    pub ip_masq: bool,
    /// The default bridge; `None` when it is disabled (`--bridge none`).
    pub default_bridge: Option<DefaultBridge>,
    /// Default MTU of networks (1500).
    pub mtu: u32,
    /// Where subnets of networks without one come from: (pool, prefix length of each), of both families. Docker's:
    /// 172.17.0.0/16 … 172.31.0.0/16 each a /16, then 192.168.0.0/16 in /20s, and a /48 of the host's own in /64s.
    pub default_pools: Vec<(IpNetwork, u8)>,
    /// Address that published ports bind to when none is given (0.0.0.0).
    pub default_host_ip: IpAddr,
    /// Whether netd relays connections that the kernel's NAT does not catch (`--userland-proxy`).
    pub userland_proxy: bool,
}

/// What the host's firewall rules are written with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FirewallBackend {
    /// The programs iptables-restore and ip6tables-restore.
    #[default]
    Iptables,
    /// The program nft, in tables of our own: `ip docker-bridges` and `ip6 docker-bridges`.
    Nftables,
}

/// A firewalld that runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firewalld {
    /// When it last reloaded its rules while netd listened: seconds since 1970.
    pub reloaded_s: Option<u64>,
}

/// The default bridge network, called `bridge`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct DefaultBridge {
    /// Interface (`docker0`). One that exists under another name than `docker0` keeps its address.
    pub interface: String,
    /// The bridge's address with prefix (`--bip`); `None`: 172.17.0.1/16, or the next free pool where that overlaps a route of the host.
    pub address: Option<Ipv4Network>,
    /// Whether its containers may talk to each other (`--icc`).
    pub icc: bool,
    /// Its containers' addresses come from this part of its subnet (`--fixed-cidr`).
    #[serde(default)]
    pub range: Option<Ipv4Network>,
    /// Whether it has IPv6, too (`--ipv6`).
    #[serde(default)]
    pub ipv6: bool,
    /// Its IPv6 subnet (`--fixed-cidr-v6`); `None`: from the default pools.
    #[serde(default)]
    pub subnet_v6: Option<Ipv6Network>,
    /// The bridge's IPv6 address with prefix (`--bip6`).
    #[serde(default)]
    pub address_v6: Option<Ipv6Network>,
    /// Where its containers' default route leads, if not to the bridge (`--default-gateway`).
    #[serde(default)]
    pub gateway: Option<Ipv4Addr>,
    /// The same for IPv6 (`--default-gateway-v6`).
    #[serde(default)]
    pub gateway_v6: Option<Ipv6Addr>,
}

/// A network to be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// Full id, 64 hex digits, chosen by the engine.
    pub id: String,
    /// Name, unique in this netd.
    pub name: String,
    /// Kind.
    pub driver: Driver,
    /// Whether it has IPv4.
    #[serde(default = "yes")]
    pub ipv4: bool,
    /// Whether it has IPv6.
    #[serde(default)]
    pub ipv6: bool,
    /// Subnets; of a family without one, one is taken from the default pools. Those of a family that is not enabled
    /// are kept and mean nothing.
    pub subnets: Vec<SubnetSpec>,
    /// Whether there is no way out of it.
    pub internal: bool,
    /// The bridge's interface name; `None`: `br-` and the first 12 digits of the id.
    pub bridge: Option<String>,
    /// MTU; `None` for the default.
    pub mtu: Option<u32>,
    /// Whether its containers may talk to each other.
    pub icc: bool,
    /// Whether its addresses are masqueraded on the way out.
    pub masquerade: bool,
    /// Default host address of its published ports; `None` for the daemon's.
    pub host_binding: Option<IpAddr>,
    /// What becomes of IPv4 traffic between it and the outside.
    #[serde(default)]
    pub gateway_mode_v4: GatewayMode,
    /// The same for IPv6.
    #[serde(default)]
    pub gateway_mode_v6: GatewayMode,
    /// Whether the bridge gets no IPv4 address, and its containers no way out by it.
    #[serde(default)]
    pub inhibit_ipv4: bool,
    /// Host interfaces through which outsiders may reach its containers' own addresses.
    #[serde(default)]
    pub trusted_interfaces: Vec<String>,
    /// Whether nobody is told where the addresses of its containers are, when these come: neighbours find out in time.
    #[serde(default)]
    pub unannounced: bool,
    /// Containers' interfaces are called this, and a number; `None`: `eth`.
    #[serde(default)]
    pub interface_prefix: Option<String>,
    /// Of macvlan and ipvlan networks: what they are on.
    #[serde(default)]
    pub sub: Option<SubInterfaces>,
    /// The engine's own data (labels, driver options, creation time …), given back as it is.
    pub metadata: serde_json::Value,
}

impl Default for NetworkSpec {
    /// A bridge network in which nothing is asked for.
    fn default() -> Self {
        Self {
            id: String::new(),
            name: String::new(),
            driver: Driver::Bridge,
            ipv4: true,
            ipv6: false,
            subnets: Vec::new(),
            internal: false,
            bridge: None,
            mtu: None,
            icc: true,
            masquerade: true,
            host_binding: None,
            gateway_mode_v4: GatewayMode::Nat,
            gateway_mode_v6: GatewayMode::Nat,
            inhibit_ipv4: false,
            trusted_interfaces: Vec::new(),
            unannounced: false,
            interface_prefix: None,
            sub: None,
            metadata: serde_json::Value::Null,
        }
    }
}

fn yes() -> bool {
    true
}

/// What becomes of traffic between a bridge network and the outside.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum GatewayMode {
    /// Published ports are translated; unpublished ones cannot be reached.
    #[default]
    Nat,
    /// As `Nat`, but all ports can be reached by the containers' own addresses.
    NatUnprotected,
    /// Nothing is translated; published ports can be reached by the containers' own addresses.
    Routed,
    /// Only for internal networks: the host has no address in it, either.
    Isolated,
}

/// What a macvlan or ipvlan network's interfaces are on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubInterfaces {
    /// The host's interface, `NAME.VLAN` for a VLAN of it that is made if it is not there; empty: a dummy of its
    /// own, so that containers see only each other.
    pub parent: String,
    /// Mode, as the driver calls it: `bridge`, `private`, `vepa`, `passthru`; `l2`, `l3`, `l3s`.
    pub mode: String,
    /// ipvlan's flag: `bridge`, `private`, `vepa`.
    #[serde(default)]
    pub flag: String,
}

/// Kinds of networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Driver {
    /// A Linux bridge with NAT.
    Bridge,
    /// The host's own network namespace (one network, made by netd).
    Host,
    /// Loopback only (one network, made by netd).
    Null,
    /// Interfaces with addresses of their own on a host interface (see [`SubInterfaces`]).
    Macvlan,
    /// The same with the host interface's hardware address.
    Ipvlan,
    /// No network, only a description that others refer to: netd keeps it.
    Description,
}

impl Driver {
    /// Whether containers get an interface with addresses in it.
    pub fn has_links(self) -> bool {
        match self {
            Self::Bridge | Self::Macvlan | Self::Ipvlan => true,
            Self::Host | Self::Null | Self::Description => false,
        }
    }
}

/// A subnet to be used.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SubnetSpec {
    /// The subnet; `None`: from the default pools.
    pub subnet: Option<IpNetwork>,
    /// Dynamic addresses come from this part of it.
    pub ip_range: Option<IpNetwork>,
    /// The bridge's address; `None`: the first one of the range.
    pub gateway: Option<IpAddr>,
    /// Further addresses that are not given out. In bridge networks the one that is called as [`GATEWAYS`] says is where the
    /// containers' default route leads, instead of the bridge.
    pub reserved: BTreeMap<String, IpAddr>,
}

/// Names of reserved addresses that are gateways: of IPv4 and of IPv6.
pub const GATEWAYS: [&str; 2] = ["DefaultGatewayIPv4", "DefaultGatewayIPv6"];

impl SubnetSpec {
    /// The reserved address that is the gateway.
    pub fn other_gateway(&self) -> Option<IpAddr> {
        let [v4, v6] = GATEWAYS;
        self.reserved.get(if self.subnet?.is_ipv4() { v4 } else { v6 }).copied()
    }
}

/// A network as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// What was asked, with `bridge`, `mtu` and each subnet's `subnet` and `gateway` filled in (the gateway only
    /// where there is one).
    pub spec: NetworkSpec,
    /// Whether it is the default bridge.
    pub default_bridge: bool,
    /// When it was made, in milliseconds since 1970.
    pub created_ms: u64,
    /// Sandbox id → its endpoint. (Boxed: most networks have few, and a map has room for eleven.)
    pub endpoints: BTreeMap<String, Box<Endpoint>>,
}

/// A container's network namespace to be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// The container's id.
    pub id: String,
    /// Its endpoints, in the order of the interfaces (`eth0` …).
    pub endpoints: Vec<EndpointSpec>,
    /// The resolvers that names unknown to us are passed on to, from the sandbox's own namespace; if empty, those of
    /// the host's resolv.conf at each lookup, from the host's, unless all its networks are internal.
    pub upstreams: Vec<IpAddr>,
    /// Whether addresses of names of one label are asked of nobody outside (there is an option `ndots`).
    #[serde(default)]
    pub single_labels_stay: bool,
    /// Settings below /proc/sys/net in the namespace, name with dots → value.
    pub sysctls: BTreeMap<String, String>,
    /// Whether 127.0.0.11 answers in it: true if any endpoint is in a user-defined network.
    pub resolver: bool,
}

/// An endpoint to be made.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EndpointSpec {
    /// Full network id.
    pub network: String,
    /// The endpoint's id, 64 hex digits, chosen by the engine.
    pub id: String,
    /// The container's name, for messages and `HasEndpoints`.
    pub container_name: String,
    /// Names that peers in the network resolve to this endpoint (container name, short id, hostname, aliases).
    /// The first one is the PTR answer, followed by `.NETWORK`.
    pub names: Vec<String>,
    /// Names that only this sandbox resolves (links): alias → the target's sandbox id, or one of its names in the same network,
    /// whoever has it when it is asked for.
    pub links: BTreeMap<String, String>,
    /// Fixed address; `None` for the next free one.
    pub ipv4: Option<Ipv4Addr>,
    /// The same for IPv6.
    #[serde(default)]
    pub ipv6: Option<Ipv6Addr>,
    /// Further addresses of the link-local ranges.
    #[serde(default)]
    pub link_local: Vec<IpAddr>,
    /// The interface's name in the container; `None` for the network's prefix and the next number.
    #[serde(default)]
    pub interface: Option<String>,
    /// Settings of the interface: names below /proc/sys with dots, in which `IFNAME` stands for it → value.
    #[serde(default)]
    pub sysctls: Vec<(String, String)>,
    /// MAC as `02:42:…`; `None` for a random, locally administered one.
    pub mac: Option<String>,
    /// Published ports.
    pub ports: Vec<PortSpec>,
    /// The container's ports that it offers to those who are linked to it.
    #[serde(default)]
    pub exposed: Vec<(Protocol, u16)>,
    /// The sandboxes whose exposed ports in the same network are open to this one, also where containers may not talk.
    #[serde(default)]
    pub linked: BTreeSet<String>,
    /// The greatest becomes the default route; with equal ones the alphabetically first network name.
    pub gateway_priority: i32,
}

/// A port to be published.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PortSpec {
    /// The protocol.
    pub protocol: Protocol,
    /// The container's port.
    pub container_port: u16,
    /// Host address; `None` for the default, on IPv6 too (`[::]`).
    pub host_ip: Option<IpAddr>,
    /// First and last host port to choose from; 0, 0 for an ephemeral one (32768–60999).
    pub host_ports: (u16, u16),
}

/// Protocols of published ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// A container's network namespace as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sandbox {
    /// The container's id.
    pub id: String,
    /// The namespace, bind-mounted there; empty if it is the host's (an endpoint in the network `host`).
    pub netns: PathBuf,
    /// Its endpoints, in the order of the interfaces.
    pub endpoints: Vec<Endpoint>,
    /// What was asked, but for the endpoints: each has its own.
    pub spec: SandboxSpec,
}

/// An endpoint as it is.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// What was asked.
    pub spec: EndpointSpec,
    /// Interface in the container (`eth0`).
    pub interface: String,
    /// Interface on the host (`veth…`).
    pub host_interface: String,
    /// Address and prefix length; `None` in networks of drivers host and null.
    pub ipv4: Option<Ipv4Network>,
    /// Gateway; `None` in internal networks.
    pub gateway: Option<Ipv4Addr>,
    /// IPv6 address and prefix length, where the network has IPv6.
    #[serde(default)]
    pub ipv6: Option<Ipv6Network>,
    /// Its gateway.
    #[serde(default)]
    pub gateway_v6: Option<Ipv6Addr>,
    /// MAC as `02:42:…`.
    pub mac: String,
    /// Whether the default route goes through it.
    pub default_route: bool,
    /// Whether the IPv6 default route goes through it.
    #[serde(default)]
    pub default_route_v6: bool,
    /// Published ports as bound: (container port, protocol, host address, host port), also IPv6 ones.
    pub ports: Vec<BoundPort>,
}

/// A published port as bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundPort {
    /// The protocol.
    pub protocol: Protocol,
    /// The container's port.
    pub container_port: u16,
    /// Host address (`0.0.0.0`, `::`, or one address).
    pub host_ip: IpAddr,
    /// Host port.
    pub host_port: u16,
}
