//! A registry on a private host's loopback address, small enough to misbehave on demand.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::{Host, Output};

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// How it treats requests for layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// As it should.
    Honest,
    /// One byte of each layer is another.
    Corrupt,
    /// Closes the connection in the middle of each layer that is asked for from its beginning.
    Broken,
    /// Sends half a layer and then nothing more.
    Stuck,
}

#[derive(Debug, Default)]
struct Content {
    /// By repository and tag or digest.
    manifests: HashMap<String, Vec<u8>>,
    blobs: HashMap<String, Vec<u8>>,
    mood: Option<Mood>,
    requests: Vec<String>,
}

/// A running registry; it serves until the process ends.
#[derive(Debug, Clone)]
pub struct Registry {
    content: Arc<Mutex<Content>>,
}

impl Registry {
    /// Starts it on 127.0.0.1:`port` of the host.
    ///
    /// # Panics
    /// If the port is taken.
    pub fn start(host: &Host, port: u16) -> Registry {
        let listener =
            host.in_network(|| TcpListener::bind((Ipv4Addr::LOCALHOST, port))).expect("bind the registry");
        let registry = Registry { content: Arc::default() };
        let content = Arc::clone(&registry.content);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let content = Arc::clone(&content);
                std::thread::spawn(move || serve(&stream, &content));
            }
        });
        registry
    }

    /// Serves busybox with this configuration as `repository:tag`, its layer compressed; returns the manifest's digest.
    ///
    /// # Panics
    /// If the image cannot be made.
    pub fn add(&self, host: &Host, repository: &str, tag: &str, config: &str) -> String {
        self.add_archive(&host.image_archive("registry:image", config), repository, tag)
    }

    /// As [`Registry::add`], with the first image of a docker-archive.
    ///
    /// # Panics
    /// If the archive cannot be read.
    pub fn add_archive(&self, archive: &Path, repository: &str, tag: &str) -> String {
        let folder = archive.with_file_name(format!("registry-{tag}"));
        fs::create_dir_all(&folder).expect("make a folder");
        run("tar", &["-C", &text(&folder), "-xf", &text(archive)]);
        let list: Value =
            serde_json::from_slice(&fs::read(folder.join("manifest.json")).expect("manifest.json"))
                .expect("JSON");
        let config =
            fs::read(folder.join(list[0]["Config"].as_str().expect("a name"))).expect("the configuration");
        let mut layers = Vec::new();
        for name in list[0]["Layers"].as_array().expect("a list") {
            let layer = folder.join(name.as_str().expect("a name"));
            run("gzip", &["-nf", &text(&layer)]);
            layers.push(fs::read(format!("{}.gz", text(&layer))).expect("the layer"));
        }
        let descriptor = |kind: &str, blob: &[u8]| {
            let media_type = format!("application/vnd.docker.{kind}");
            json!({"mediaType": media_type, "size": blob.len(), "digest": digest(&folder, blob)})
        };
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "config": descriptor("container.image.v1+json", &config),
            "layers": layers.iter().map(|l| descriptor("image.rootfs.diff.tar.gzip", l)).collect::<Vec<_>>(),
        });
        let manifest = manifest.to_string().into_bytes();
        let name = digest(&folder, &manifest);
        let mut content = self.content.lock().expect("no thread fails");
        for blob in layers.into_iter().chain([config]) {
            content.blobs.insert(digest(&folder, &blob), blob);
        }
        for reference in [tag, &name] {
            content.manifests.insert(format!("{repository} {reference}"), manifest.clone());
        }
        name
    }

    /// Changes how layers are served from now on.
    ///
    /// # Panics
    /// Never: its threads do not fail.
    pub fn set_mood(&self, mood: Mood) {
        self.content.lock().expect("no thread fails").mood = Some(mood);
    }

    /// Method and path of all requests so far.
    ///
    /// # Panics
    /// Never: its threads do not fail.
    pub fn requests(&self) -> Vec<String> {
        self.content.lock().expect("no thread fails").requests.clone()
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn run(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments);
    Output::of(command).ok().stdout
}

fn digest(folder: &Path, bytes: &[u8]) -> String {
    let file = folder.join("bytes");
    fs::write(&file, bytes).expect("write a file");
    format!("sha256:{}", &run("sha256sum", &[&text(&file)])[..64])
}

/// Answers the requests of one connection.
fn serve(stream: &TcpStream, content: &Mutex<Content>) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    while let Some(request) = lines.next() {
        let range = lines.by_ref().take_while(|line| !line.is_empty()).find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            let from = value.strip_prefix("bytes=")?.trim_end_matches('-').parse().ok();
            from.filter(|_: &usize| name.eq_ignore_ascii_case("range"))
        });
        // The rest of the head, if the range ended the search.
        if range.is_some() {
            lines.by_ref().take_while(|line| !line.is_empty()).for_each(drop);
        }
        if answer(stream, &request, range, content).is_none() {
            return;
        }
    }
}

/// `None` if the connection is to be closed.
fn answer(
    mut stream: &TcpStream,
    request: &str,
    from: Option<usize>,
    content: &Mutex<Content>,
) -> Option<()> {
    let mut words = request.split(' ');
    let (method, path) = (words.next()?, words.next()?);
    let mut content = content.lock().ok()?;
    content.requests.push(format!("{method} {path}"));
    let parts: Vec<&str> = path.trim_start_matches("/v2/").split('/').collect();
    let (repository, kind, reference) = match parts.as_slice() {
        [repository @ .., kind, reference] if !repository.is_empty() => {
            (repository.join("/"), *kind, *reference)
        }
        _ => (String::new(), "", ""),
    };
    let mood = content.mood.unwrap_or(Mood::Honest);
    let (status, media_type, body) = match kind {
        "manifests" => match content.manifests.get(&format!("{repository} {reference}")) {
            Some(manifest) => ("200 OK", MANIFEST, manifest.clone()),
            None => (
                "404 Not Found",
                "application/json",
                br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":"no such tag"}]}"#.to_vec(),
            ),
        },
        "blobs" => match content.blobs.get(reference) {
            Some(blob) => ("200 OK", "application/octet-stream", blob.clone()),
            None => (
                "404 Not Found",
                "application/json",
                br#"{"errors":[{"code":"BLOB_UNKNOWN","message":"blob unknown to registry","detail":"no such blob"}]}"#.to_vec(),
            ),
        },
        _ => ("200 OK", "application/json", b"{}".to_vec()),
    };
    let is_layer = kind == "blobs" && body.len() > 10_000;
    drop(content);
    let rest = from.map_or(body.as_slice(), |from| body.get(from..).unwrap_or_default());
    let status = if from.is_some() { "206 Partial Content" } else { status };
    let mut head =
        format!("HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n", rest.len());
    if let Some(from) = from {
        head += &format!("Content-Range: bytes {from}-{}/{}\r\n", body.len() - 1, body.len());
    }
    if kind == "manifests" && reference.starts_with("sha256:") {
        head += &format!("Docker-Content-Digest: {reference}\r\n");
    }
    stream
        .write_all(format!("{head}Docker-Distribution-Api-Version: registry/2.0\r\n\r\n").as_bytes())
        .ok()?;
    if method == "HEAD" {
        return Some(());
    }
    match mood {
        Mood::Corrupt if is_layer => {
            let mut wrong = rest.to_vec();
            let middle = wrong.len() / 2;
            wrong[middle] ^= 1;
            stream.write_all(&wrong).ok()
        }
        Mood::Broken if is_layer && from.is_none() => {
            stream.write_all(&rest[..rest.len() / 2]).ok()?;
            None
        }
        Mood::Stuck if is_layer => {
            stream.write_all(&rest[..rest.len() / 2]).ok()?;
            std::thread::sleep(std::time::Duration::from_secs(120));
            None
        }
        _ => stream.write_all(rest).ok(),
    }
}
