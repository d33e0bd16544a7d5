//! A host of its own for each test: the test runs itself again in fresh namespaces, and starts netd there.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use wherry_netd::client::Client;
use wherry_netd::protocol::{
    DefaultBridge, Driver, EndpointSpec, FirewallBackend, Network, NetworkSpec, PortSpec, Protocol, Sandbox,
    SandboxSpec, Settings, SubnetSpec,
};

const NETD: &str = env!("CARGO_BIN_EXE_wherry-netd");
const INSIDE: &str = "WHERRY_NETD_TEST_INSIDE";
/// Set to run a test with nftables.
const NFTABLES: &str = "WHERRY_NETD_TEST_NFTABLES";

/// Runs `body` in namespaces of its own. The caller's name is the test's, as `module::name`.
pub(crate) fn alone(test: &str, body: impl FnOnce(&Host)) {
    alone_with(test, INSIDE, "1", body);
}

/// The same with a variable of the environment.
pub(crate) fn alone_with(test: &str, name: &str, value: &str, body: impl FnOnce(&Host)) {
    if std::env::var_os(INSIDE).is_some() {
        let host = Host::start();
        body(&host);
        return;
    }
    assert!(
        rustix::process::geteuid().is_root(),
        "the tests of netd need root: they make network namespaces"
    );
    let mut command = Command::new("unshare");
    command
        .args(["--net", "--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .env(INSIDE, "1")
        .env(name, value);
    passes(&mut command, test, "in its namespaces");
}

/// Runs the one test of this name. A name that no test has would succeed, too, without anything having run.
fn passes(command: &mut Command, test: &str, how: &str) {
    let command = command.args(["--exact", "--nocapture", test]).stderr(Stdio::inherit());
    let output = command.output().expect("run the test again (unshare is in the package util-linux)");
    let said = String::from_utf8_lossy(&output.stdout);
    print!("{said}");
    assert!(output.status.success() && said.contains(" 1 passed"), "{test} failed {how}");
}

/// Runs another test with netd's nftables backend.
pub(crate) fn again_with_nftables(test: &str) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    passes(command.env(NFTABLES, "1"), test, "with nftables");
}

/// The backend that this test runs with.
pub(crate) fn backend() -> FirewallBackend {
    if std::env::var_os(NFTABLES).is_some() { FirewallBackend::Nftables } else { FirewallBackend::Iptables }
}

/// What leads from the host to containers by IPv4, each as `tcp 0.0.0.0:8080 172.17.0.2:80`.
pub(crate) fn translations() -> Vec<String> {
    if backend() == FirewallBackend::Nftables {
        // An element on any address has one part fewer.
        let elements = [("published", "0.0.0.0 . "), ("published-at", "")].map(|(map, address)| {
            let text = out(&format!("nft list map ip docker-bridges {map}"));
            let inside = text.split_once("elements = {").map_or("", |(_, rest)| rest);
            let elements = inside.split([',', '}']).map(str::trim).filter(|e| e.contains(" : "));
            let parts = elements.map(|e| format!("{address}{e}").replace(" : ", " . "));
            let lines = parts.map(|parts| match parts.split(" . ").collect::<Vec<_>>()[..] {
                [at, protocol, port, to, container] => format!("{protocol} {at}:{port} {to}:{container}"),
                _ => panic!("{parts}"),
            });
            lines.collect::<Vec<_>>()
        });
        return elements.concat();
    }
    let rules = out("iptables -t nat -S DOCKER | grep DNAT");
    let rules = rules.lines().map(|rule| {
        let behind = |option: &str| {
            let mut words = rule.split(' ').skip_while(|word| *word != option).skip(1);
            words.next().map(str::to_owned)
        };
        let address = behind("-d").map_or("0.0.0.0".into(), |d| d.replace("/32", ""));
        let (protocol, port) = (behind("-p").unwrap(), behind("--dport").unwrap());
        format!("{protocol} {address}:{port} {}", behind("--to-destination").unwrap())
    });
    rules.collect()
}

/// A host with one address of its own and a running netd.
pub(crate) struct Host {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) client: Client,
}

/// The host's own address (a documentation address).
pub(crate) const HOST_IP: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 73);

impl Host {
    /// Another netd in this one's place, which finds no program that it needs.
    pub(crate) fn without_programs(&self) -> Client {
        self.another(Command::new(NETD).env("PATH", "/nosuch"))
    }

    /// Another netd in this one's place, which may have so many descriptors.
    pub(crate) fn with_descriptors(&self, most: usize) -> Client {
        self.another(Command::new("prlimit").arg(format!("--nofile={most}:{most}")).arg(NETD))
    }

    fn another(&self, command: &mut Command) -> Client {
        self.client.shutdown().unwrap();
        let socket = self.dir.path().join("exec/netd.sock");
        eventually("netd has ended", || !socket.exists());
        let command = command.args(["--background", "--exec-root"]).arg(self.dir.path().join("exec"));
        let started = command.arg("--data-root").arg(self.dir.path().join("data")).status();
        assert!(started.unwrap().success(), "it starts all the same");
        Client::new(socket)
    }

    fn start() -> Self {
        for line in [
            "mount -t tmpfs tmpfs /run",
            // A new namespace has it as the machine does.
            "echo 0 >/proc/sys/net/ipv4/ip_forward; echo 0 >/proc/sys/net/ipv6/conf/all/forwarding",
            "ip link set lo up",
            "ip link add eth0 type veth peer name eth0-peer",
            "ip link set eth0-peer up",
            "ip addr add 198.51.100.73/24 dev eth0",
            "ip link set eth0 up",
            "ip route add default via 198.51.100.1",
        ] {
            sh(line);
        }
        // netd's resolver must see ours.
        sh("mount -t tmpfs tmpfs /mnt && echo 'nameserver 198.51.100.73' >/mnt/resolv.conf");
        sh("mount --bind /mnt/resolv.conf $(readlink -f /etc/resolv.conf)");
        let dir = tempfile::tempdir().unwrap();
        let client = launch(dir.path());
        client.configure(settings()).unwrap();
        Self { dir, client }
    }

    pub(crate) fn network(&self, name: &str) -> Network {
        self.create(network_spec(name))
    }

    pub(crate) fn create(&self, spec: NetworkSpec) -> Network {
        self.client.create_network(spec).unwrap()
    }

    pub(crate) fn default_bridge(&self) -> Network {
        self.client.networks().unwrap().into_iter().find(|n| n.default_bridge).unwrap()
    }

    /// A sandbox in these networks, by the name of its container.
    pub(crate) fn sandbox(&self, name: &str, networks: &[&Network]) -> Sandbox {
        self.client.create_sandbox(sandbox_spec(name, networks)).unwrap()
    }

    /// One with one published port, in the default bridge.
    pub(crate) fn publisher(&self, name: &str, ports: &[PortSpec]) -> Sandbox {
        let mut spec = sandbox_spec(name, &[&self.default_bridge()]);
        spec.endpoints[0].ports = ports.to_vec();
        self.client.create_sandbox(spec).unwrap()
    }

    pub(crate) fn netd_pid(&self) -> i32 {
        self.client.hello().unwrap().1 as i32
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("exec/netd/netd.log")).unwrap_or_default()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("netd's log:\n{}", self.log());
            eprintln!("{}", out("ip addr; ip route; iptables-save; nft list ruleset"));
        }
        let _ = self.client.shutdown();
        for path in self.namespaces() {
            let _ = rustix::mount::unmount(&path, rustix::mount::UnmountFlags::DETACH);
        }
        let _ =
            rustix::mount::unmount(self.dir.path().join("exec/netns"), rustix::mount::UnmountFlags::DETACH);
    }
}

impl Host {
    /// The namespaces that are mounted.
    pub(crate) fn namespaces(&self) -> Vec<PathBuf> {
        let folder = self.dir.path().join("exec/netns");
        std::fs::read_dir(folder).map(|d| d.map(|e| e.unwrap().path()).collect()).unwrap_or_default()
    }
}

pub(crate) fn launch(dir: &Path) -> Client {
    let binary = Path::new(env!("CARGO_BIN_EXE_wherry-netd"));
    wherry_netd::ensure_running(&dir.join("exec"), &dir.join("data"), binary).unwrap()
}

pub(crate) fn settings() -> Settings {
    let pool = |text: &str, length| (text.parse().unwrap(), length);
    Settings {
        iptables: true,
        firewall: backend(),
        ip6tables: true,
        ip_forward: true,
        ip_forward_no_drop: false,
        allow_direct_routing: false,
        ip_masq: true,
        default_bridge: Some(DefaultBridge {
            interface: "docker0".into(),
            icc: true,
            ..DefaultBridge::default()
        }),
        mtu: 1500,
        default_pools: vec![
            pool("172.17.0.0/16", 16),
            pool("172.18.0.0/16", 16),
            pool("172.19.0.0/16", 16),
            pool("172.20.0.0/14", 16),
            pool("192.168.0.0/16", 20),
            pool("fd00:dd::/48", 64),
        ],
        default_host_ip: Ipv4Addr::UNSPECIFIED.into(),
        userland_proxy: true,
    }
}

/// 64 hex digits that belong to a name.
pub(crate) fn id(name: &str) -> String {
    let mut id: String = name.bytes().map(|b| format!("{b:02x}")).collect();
    while id.len() < 64 {
        id.push('0');
    }
    id.truncate(64);
    id
}

pub(crate) fn network_spec(name: &str) -> NetworkSpec {
    NetworkSpec {
        id: id(name),
        name: name.into(),
        metadata: serde_json::json!({ "labels": { "a": "b" } }),
        ..NetworkSpec::default()
    }
}

pub(crate) fn subnet(subnet: &str) -> SubnetSpec {
    SubnetSpec {
        subnet: Some(subnet.parse().unwrap()),
        ip_range: None,
        gateway: None,
        reserved: BTreeMap::new(),
    }
}

pub(crate) fn endpoint(container: &str, network: &Network) -> EndpointSpec {
    EndpointSpec {
        network: network.spec.id.clone(),
        id: id(&format!("{container}-{}", network.spec.name)),
        container_name: container.into(),
        names: vec![container.into(), id(container)[..12].into()],
        ..EndpointSpec::default()
    }
}

pub(crate) fn sandbox_spec(name: &str, networks: &[&Network]) -> SandboxSpec {
    SandboxSpec {
        id: id(name),
        endpoints: networks.iter().map(|n| endpoint(name, n)).collect(),
        upstreams: Vec::new(),
        single_labels_stay: false,
        sysctls: BTreeMap::new(),
        resolver: networks.iter().any(|n| !n.default_bridge && n.spec.driver == Driver::Bridge),
    }
}

pub(crate) fn port(protocol: Protocol, host_ip: Option<&str>, host: u16, container: u16) -> PortSpec {
    PortSpec {
        protocol,
        container_port: container,
        host_ip: host_ip.map(|ip| ip.parse().unwrap()),
        host_ports: (host, host),
    }
}

pub(crate) fn ip(sandbox: &Sandbox) -> Ipv4Addr {
    sandbox.endpoints[0].ipv4.unwrap().ip()
}

/// Runs a shell command of the host's; it must succeed.
pub(crate) fn sh(line: &str) -> String {
    let output = run(line);
    assert!(
        output.status.success(),
        "{line}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a shell command prints, whether it succeeds or not.
pub(crate) fn out(line: &str) -> String {
    String::from_utf8_lossy(&run(line).stdout).into_owned()
}

fn run(line: &str) -> Output {
    Command::new("sh").args(["-c", line]).output().unwrap()
}

/// Runs `work` in a network namespace.
pub(crate) fn inside<T: Send>(netns: &Path, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let namespace = std::fs::File::open(netns).unwrap();
            let kind = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(namespace.as_fd(), kind).unwrap();
            work()
        });
        match thread.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// A server in a namespace that answers each TCP connection with its name and the client's address, then echoes.
pub(crate) fn serve(netns: &Path, port: u16, name: &'static str) {
    let listener = inside(netns, || std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { return };
            std::thread::spawn(move || {
                use std::io::{Read, Write};
                let peer = connection.peer_addr().unwrap().ip();
                let _ = writeln!(connection, "{name} {peer}");
                let mut buffer = [0; 1024];
                while let Ok(n @ 1..) = connection.read(&mut buffer) {
                    if connection.write_all(&buffer[..n]).is_err() {
                        break;
                    }
                }
            });
        }
    });
}

/// The first line that a server says, from the calling thread's namespace.
pub(crate) fn greeting(to: impl Into<IpAddr>, port: u16) -> std::io::Result<String> {
    use std::io::{BufRead, BufReader};
    let to = std::net::SocketAddr::new(to.into(), port);
    let connection = std::net::TcpStream::connect_timeout(&to, Duration::from_secs(2))?;
    connection.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut line = String::new();
    BufReader::new(connection).read_line(&mut line)?;
    Ok(line.trim_end().into())
}

/// Polls until `check` is true.
#[track_caller]
pub(crate) fn eventually(what: &str, mut check: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !check() {
        assert!(begun.elapsed() < Duration::from_secs(10), "{what}: not within 10 s");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// How often the rules of the calling thread's network namespace have been changed, as nftables counts it.
pub(crate) fn rule_changes() -> u32 {
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink};
    const GET_GENERATION: u16 = 10 << 8 | 16;
    const REQUEST: u16 = 1;
    let flags = SocketFlags::CLOEXEC;
    let kind = SocketType::RAW;
    let socket =
        rustix::net::socket_with(AddressFamily::NETLINK, kind, flags, Some(netlink::NETFILTER)).unwrap();
    let mut message = 20u32.to_ne_bytes().to_vec();
    message.extend(GET_GENERATION.to_ne_bytes());
    message.extend(REQUEST.to_ne_bytes());
    message.extend([0; 12]);
    rustix::net::send(&socket, &message, SendFlags::empty()).unwrap();
    let mut answer = [0; 256];
    rustix::net::recv(&socket, &mut answer[..], RecvFlags::empty()).unwrap();
    // The first attribute behind both headers is the generation.
    assert_eq!(answer[20..24], [8, 0, 1, 0]);
    u32::from_be_bytes(answer[24..28].try_into().unwrap())
}
