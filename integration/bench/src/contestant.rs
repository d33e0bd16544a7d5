//! One engine that takes part, in its own host.

use std::fs::{self, File};
use std::path::Path;
use std::time::Instant;

use serde_json::{Value, json};
use wherry_tests::Host;
use wherry_tests::engine::Binary;

use crate::client::Client;
use crate::memory::Memory;

/// An engine of the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference {
    /// dockerd.
    Dockerd,
    /// Podman.
    Podman,
}

impl Reference {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Reference::Dockerd => "dockerd",
            Reference::Podman => "podman",
        }
    }

    /// It, in the place of ours; `None`, with a word about it, where the lab does not have it.
    pub fn binary(self) -> Option<Binary> {
        let lab = std::env::var("LAB").unwrap_or_else(|_| "/var/lib/wherry-lab".to_owned());
        let program = match self {
            Reference::Dockerd => "usr/sbin/dockerd",
            Reference::Podman => "usr/bin/podman",
        };
        if !Path::new(&lab).join("root").join(program).exists() {
            eprintln!("no {} in {lab}: it takes no part", self.name());
            return None;
        }
        let engines = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engines");
        Some(Binary::at(engines.join(self.name())))
    }
}

/// Waits until an engine has nothing left to do of what it was told: deleting, writing back.
pub fn rest(host: &Host) {
    let trash = host.root().join("data/overlay2/.trash");
    let is_empty = || fs::read_dir(&trash).map_or(true, |mut entries| entries.next().is_none());
    wherry_tests::poll("the end of the deletion", 110, is_empty);
    let folder = File::open(host.root()).expect("the engine's folder");
    rustix::fs::syncfs(folder).expect("write everything back");
}

/// A running engine with what is measured on it.
#[derive(Debug)]
pub struct Contestant {
    /// `wherry`, `dockerd` or `podman`.
    pub name: &'static str,
    /// As it says itself.
    pub version: String,
    /// Where it runs.
    pub host: Host,
    client: Client,
    idle: Vec<String>,
    exec_target: Option<String>,
}

impl Contestant {
    /// Ours, and those of the lab that are there.
    pub fn all() -> Vec<Contestant> {
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
        Contestant { name, version, host, client: Client::default(), idle: Vec::new(), exec_target: None }
    }

    /// Sends a request; a status of 400 and more is the end.
    pub fn request(&mut self, method: &str, path: &str, body: &Value) -> Value {
        self.client.request(&self.host, method, path, body).json()
    }

    /// Makes a container of busybox in this network; its id.
    pub fn create(&mut self, network: &str, command: &[&str]) -> String {
        let body = json!({"Image": "busybox", "Cmd": command, "HostConfig": {"NetworkMode": network}});
        let answer = self.request("POST", "/containers/create", &body);
        answer["Id"].as_str().expect("an id").to_owned()
    }

    /// Milliseconds of `docker run --rm busybox true`.
    pub fn run(&mut self, network: &str) -> f64 {
        let line = ["run", "--rm", "--network", network, "busybox", "true"];
        timed(|| {
            self.host.docker(&line).ok();
        })
    }

    /// Milliseconds of create, start, wait and remove.
    pub fn lifecycle(&mut self, network: &str) -> f64 {
        timed(|| {
            let id = self.create(network, &["true"]);
            self.request("POST", &format!("/containers/{id}/start"), &Value::Null);
            self.request("POST", &format!("/containers/{id}/wait"), &Value::Null);
            self.request("DELETE", &format!("/containers/{id}"), &Value::Null);
        })
    }

    /// Milliseconds of `true` executed in a running container, from its creation to the end of its streams.
    pub fn exec(&mut self) -> f64 {
        let target = match &self.exec_target {
            Some(id) => id.clone(),
            None => {
                let id = self.create("none", &["sleep", "3600"]);
                self.request("POST", &format!("/containers/{id}/start"), &Value::Null);
                self.exec_target.insert(id).clone()
            }
        };
        timed(|| {
            let body = json!({"Cmd": ["true"], "AttachStdout": true, "AttachStderr": true});
            let answer = self.request("POST", &format!("/containers/{target}/exec"), &body);
            let exec = answer["Id"].as_str().expect("an id").to_owned();
            // The stream has the connection for itself, and ends with it.
            let body = json!({"Detach": false, "Tty": false});
            Client::default().request(&self.host, "POST", &format!("/exec/{exec}/start"), &body);
        })
    }

    /// Milliseconds until a list of containers is here; reading it is the client's own affair.
    pub fn list(&mut self, all: bool) -> f64 {
        let path = if all { "/containers/json?all=1" } else { "/containers/json" };
        timed(|| {
            self.client.request(&self.host, "GET", path, &Value::Null);
        })
    }

    /// Milliseconds of the client for doing nearly nothing.
    pub fn client_alone(&mut self) -> f64 {
        timed(|| {
            self.host.docker("version --format '{{.Server.Os}}'").ok();
        })
    }

    /// Starts containers that sleep, on the default bridge.
    pub fn start_idle(&mut self, count: usize) {
        for _ in 0..count {
            let id = self.create("default", &["sleep", "3600"]);
            self.request("POST", &format!("/containers/{id}/start"), &Value::Null);
            self.idle.push(id);
        }
    }

    /// What its processes use now.
    pub fn memory(&self) -> Memory {
        Memory::of(&self.host.servants())
    }

    /// Ends and removes a running container. Podman's removal by force alone waits ten seconds for programs that ignore
    /// SIGTERM.
    pub fn remove_running(&mut self, id: &str) {
        self.request("POST", &format!("/containers/{id}/kill"), &Value::Null);
        self.request("DELETE", &format!("/containers/{id}?force=1"), &Value::Null);
    }

    /// Removes all, without the checks that a test would make.
    pub fn end(mut self) {
        let ids: Vec<String> = self.idle.drain(..).chain(self.exec_target.take()).collect();
        for id in ids {
            self.remove_running(&id);
        }
        self.host.discard();
    }
}

/// Milliseconds of some work.
pub fn timed(work: impl FnOnce()) -> f64 {
    let begin = Instant::now();
    work();
    begin.elapsed().as_secs_f64() * 1000.0
}
