//! One engine that takes part, in its own host.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use serde_json::{Value, json};
use wherry_bench::client::Client;
use wherry_bench::contestant::Reference;
use wherry_tests::engine::Binary;
use wherry_tests::{HOST_ADDRESS, Host};

use crate::traffic;

/// The port that `server` publishes.
pub(crate) const PUBLISHED: u16 = 8080;

/// A running engine with two containers in a network of their own: `server`, whose port is published, and `client`.
#[derive(Debug)]
pub(crate) struct Contestant {
    pub(crate) name: &'static str,
    pub(crate) version: String,
    pub(crate) host: Host,
    client: Client,
    pub(crate) server: Ipv4Addr,
    /// Who resolves names in `client`.
    pub(crate) resolver: IpAddr,
}

/// Milliseconds of the parts of a container's life.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Life {
    pub(crate) start: f64,
    pub(crate) wait: f64,
    pub(crate) remove: f64,
}

impl Contestant {
    /// Ours, and those of the lab that are there.
    pub(crate) fn all() -> Vec<Contestant> {
        let mut all = vec![Contestant::start("wherry", Binary::from_environment())];
        let others = [Reference::Dockerd, Reference::Podman];
        all.extend(
            others.into_iter().filter_map(|other| Some(Contestant::start(other.name(), other.binary()?))),
        );
        all
    }

    fn start(name: &'static str, binary: Binary) -> Contestant {
        let host = Host::of(binary, &[]);
        let version = host.docker("version --format '{{.Server.Version}}'").ok().out().to_owned();
        host.docker("network create net").ok();
        host.docker("run -d --name server --network net -p 8080:80 busybox sleep 36000").ok();
        host.docker("run -d --name client --network net busybox sleep 36000").ok();
        let server = host.inspect("server")["NetworkSettings"]["Networks"]["net"]["IPAddress"].take();
        let server = server.as_str().and_then(|ip| ip.parse().ok()).expect("the server's address");
        let conf = host.docker("exec client cat /etc/resolv.conf").ok().stdout;
        let resolver = conf.lines().find_map(|line| line.strip_prefix("nameserver "));
        let resolver = resolver.and_then(|ip| ip.trim().parse().ok()).expect("a name server");
        Contestant { name, version, host, client: Client::default(), server, resolver }
    }

    pub(crate) fn request(&mut self, method: &str, path: &str, body: &Value) -> Value {
        self.client.request(&self.host, method, path, body).json()
    }

    /// One short container, with a published port or without any network.
    pub(crate) fn life(&mut self, published: bool) -> Life {
        let body = if published {
            let ports = json!({"80/tcp": [{"HostPort": ""}]});
            json!({"Image": "busybox", "Cmd": ["true"], "ExposedPorts": {"80/tcp": {}},
                   "HostConfig": {"NetworkMode": "default", "PortBindings": ports}})
        } else {
            json!({"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}})
        };
        let answer = self.request("POST", "/containers/create", &body);
        let id = answer["Id"].as_str().expect("an id").to_owned();
        let mut step = |method: &str, rest: &str| {
            let begin = Instant::now();
            self.client.request(&self.host, method, &format!("/containers/{id}{rest}"), &Value::Null);
            begin.elapsed().as_secs_f64() * 1000.0
        };
        Life { start: step("POST", "/start"), wait: step("POST", "/wait"), remove: step("DELETE", "") }
    }

    /// Gbit/s from `client` to `server`.
    pub(crate) fn direct(&self) -> f64 {
        let listener = self.host.in_container("server", || traffic::listen(81));
        traffic::flow(listener, |to| self.host.in_container("client", || to.connect(self.server, 81)))
    }

    /// Gbit/s from the host to the published port.
    pub(crate) fn published(&self) -> f64 {
        let listener = self.host.in_container("server", || traffic::listen(80));
        traffic::flow(listener, |to| self.host.in_network(|| to.connect(HOST_ADDRESS, PUBLISHED)))
    }

    /// Ends without the checks that a test would make.
    pub(crate) fn end(mut self) {
        for name in ["server", "client"] {
            self.request("DELETE", &format!("/containers/{name}?force=1"), &Value::Null);
        }
        self.host.discard();
    }
}
