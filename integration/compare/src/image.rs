//! An image from `docker save`: its file system, flat, and its configuration.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tar::{Archive, EntryType};

/// A file as far as two builds must agree on it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    kind: char,
    mode: u32,
    owner: (u64, u64),
    /// Of a file its length and hash, of a link its target, of a device its numbers.
    content: String,
    attributes: BTreeMap<String, String>,
    /// Its other name that comes first, if it has several.
    same_as: Option<String>,
}

/// An image.
#[derive(Debug)]
pub(crate) struct Image {
    nodes: BTreeMap<String, Node>,
    config: Value,
}

impl Image {
    /// Reads an archive of one image.
    pub(crate) fn read(archive: &Path) -> Self {
        let manifest: Value = serde_json::from_slice(&member(archive, "manifest.json")).expect("a manifest");
        let config = manifest[0]["Config"].as_str().expect("a configuration").to_owned();
        let config = serde_json::from_slice(&member(archive, &config)).expect("a configuration");
        let mut nodes = BTreeMap::new();
        for layer in manifest[0]["Layers"].as_array().expect("layers") {
            let bytes = member(archive, layer.as_str().expect("a layer's name"));
            apply(&bytes, &mut nodes);
        }
        first_names(&mut nodes);
        Self { nodes, config }
    }

    /// Of an archive of its files, and what `docker image inspect` and `docker history` say of it.
    pub(crate) fn of_files(archive: &Path, inspected: &str, history: &str) -> Self {
        let mut nodes = BTreeMap::new();
        apply(&std::fs::read(archive).expect("read an archive"), &mut nodes);
        first_names(&mut nodes);
        let inspected: Value = serde_json::from_str(inspected).expect("JSON of the client");
        let entry = |line: &str| {
            let entry: Value = serde_json::from_str(line).expect("JSON of the client");
            json!({"created_by": entry["CreatedBy"], "comment": entry["Comment"], "size": entry["Size"]})
        };
        let config = json!({
            "architecture": inspected[0]["Architecture"],
            "os": inspected[0]["Os"],
            "config": inspected[0]["Config"],
            "rootfs": {"diff_ids": inspected[0]["RootFS"]["Layers"]},
            "history": history.lines().map(entry).collect::<Vec<_>>(),
        });
        Self { nodes, config }
    }

    /// How many files it has.
    pub(crate) fn files(&self) -> usize {
        self.nodes.len()
    }

    /// What differs, a line each: ours first.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        let paths: BTreeSet<&String> = self.nodes.keys().chain(other.nodes.keys()).collect();
        for path in paths {
            match (self.nodes.get(path), other.nodes.get(path)) {
                (Some(ours), Some(theirs)) if ours == theirs => {}
                (Some(ours), Some(theirs)) => lines.push(format!("{path}: {ours:?}, dockerd: {theirs:?}")),
                (Some(_), None) => lines.push(format!("{path}: dockerd has no such file")),
                (None, _) => lines.push(format!("{path}: only dockerd has it")),
            }
        }
        let [ours, theirs] = [comparable(&self.config), comparable(&other.config)];
        let keys: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
        for key in keys {
            let [ours, theirs] = [ours.get(key), theirs.get(key)];
            if ours != theirs {
                let show = |value: Option<&Value>| value.map_or("nothing".to_owned(), ToString::to_string);
                lines.push(format!("{key}: {}, dockerd: {}", show(ours), show(theirs)));
            }
        }
        lines
    }
}

/// A member of an archive, or what it is a link to.
fn member(archive: &Path, name: &str) -> Vec<u8> {
    let mut found = Archive::new(File::open(archive).expect("open an archive"));
    for entry in found.entries().expect("read an archive") {
        let mut entry = entry.expect("read an archive");
        if entry.path_bytes() == name.as_bytes() {
            if let Some(target) = entry.link_name().expect("a link") {
                let target = Path::new(name).parent().expect("a folder").join(target);
                return member(archive, &cleaned(&target.to_string_lossy()));
            }
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).expect("read an archive");
            return bytes;
        }
    }
    panic!("{} has no {name}", archive.display());
}

fn cleaned(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn apply(layer: &[u8], nodes: &mut BTreeMap<String, Node>) {
    let mut archive = Archive::new(layer);
    let mut added = BTreeSet::new();
    for entry in archive.entries().expect("a layer") {
        let mut entry = entry.expect("a layer");
        let records = records(&mut entry);
        let path = records.get("GNU.sparse.name").cloned();
        let path = path.unwrap_or_else(|| String::from_utf8_lossy(&entry.path_bytes()).into_owned());
        let path = cleaned(&path);
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
        if name == ".wh..wh..opq" {
            let below = format!("{folder}/");
            nodes.retain(|path, _| added.contains(path) || !path.starts_with(&below));
            continue;
        }
        if let Some(hidden) = name.strip_prefix(".wh.") {
            let hidden = cleaned(&format!("{folder}/{hidden}"));
            remove(nodes, &hidden);
            continue;
        }
        let node = node(&mut entry, &records, nodes);
        if node.kind != 'd' {
            remove(nodes, &path);
        }
        added.insert(path.clone());
        nodes.insert(path, node);
    }
}

fn remove(nodes: &mut BTreeMap<String, Node>, path: &str) {
    let below = format!("{path}/");
    nodes.retain(|other, _| other != path && !other.starts_with(&below));
}

/// The records of the header before an entry's own.
fn records(entry: &mut tar::Entry<'_, impl Read>) -> BTreeMap<String, String> {
    let extensions = entry.pax_extensions().ok().flatten().into_iter().flatten().flatten();
    let record = |extension: tar::PaxExtension<'_>| {
        let value = String::from_utf8_lossy(extension.value_bytes()).into_owned();
        (extension.key().unwrap_or_default().to_owned(), value)
    };
    extensions.map(record).collect()
}

/// The whole of a file that is stored without its holes (GNU's sparse format 1.0): a map, then the pieces.
fn filled(stored: Vec<u8>, records: &BTreeMap<String, String>) -> Vec<u8> {
    if records.get("GNU.sparse.major").map(String::as_str) != Some("1") {
        return stored;
    }
    let number = |text: Option<&[u8]>| -> usize {
        let text = text.and_then(|text| std::str::from_utf8(text).ok());
        text.and_then(|text| text.parse().ok()).expect("a number of a sparse map")
    };
    let mut numbers = stored.split(|byte| *byte == b'\n');
    let mut read = 0;
    let mut next = || {
        let text = numbers.next();
        read += text.map_or(0, <[u8]>::len) + 1;
        number(text)
    };
    let pieces: Vec<(usize, usize)> = (0..next()).map(|_| (next(), next())).collect();
    let mut data = stored.get(read.next_multiple_of(512)..).expect("the pieces");
    let mut whole = vec![0; number(records.get("GNU.sparse.realsize").map(String::as_bytes))];
    for (offset, length) in pieces {
        let (piece, rest) = data.split_at(length);
        whole.get_mut(offset..offset + length).expect("a place").copy_from_slice(piece);
        data = rest;
    }
    whole
}

fn node(
    entry: &mut tar::Entry<'_, impl Read>,
    records: &BTreeMap<String, String>,
    nodes: &BTreeMap<String, Node>,
) -> Node {
    let target =
        || entry.link_name_bytes().map(|t| String::from_utf8_lossy(&t).into_owned()).unwrap_or_default();
    let kind = entry.header().entry_type();
    if kind == EntryType::Link {
        let target = cleaned(&target());
        let linked = nodes.get(&target).expect("a link's target comes before it");
        return Node { same_as: Some(target), ..linked.clone() };
    }
    let numbers = || {
        let header = entry.header();
        let [major, minor] = [header.device_major(), header.device_minor()].map(|n| n.ok().flatten());
        format!("{}:{}", major.unwrap_or_default(), minor.unwrap_or_default())
    };
    let (kind, content) = match kind {
        EntryType::Directory => ('d', String::new()),
        EntryType::Symlink => ('l', target()),
        EntryType::Char => ('c', numbers()),
        EntryType::Block => ('b', numbers()),
        EntryType::Fifo => ('p', String::new()),
        _ => {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).expect("a file");
            let bytes = filled(bytes, records);
            let hash = Sha256::digest(&bytes);
            (
                'f',
                format!(
                    "{} bytes {}",
                    bytes.len(),
                    hash.iter().take(6).map(|b| format!("{b:02x}")).collect::<String>()
                ),
            )
        }
    };
    let header = entry.header();
    let owner = (header.uid().expect("an owner"), header.gid().expect("a group"));
    let mode = header.mode().expect("a mode") & 0o7777;
    let mut attributes = BTreeMap::new();
    let mut numbers = owner;
    for (key, value) in records {
        match key.as_str() {
            "uid" => numbers.0 = value.parse().unwrap_or_default(),
            "gid" => numbers.1 = value.parse().unwrap_or_default(),
            key => {
                if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                    attributes.insert(name.to_owned(), value.clone());
                }
            }
        }
    }
    // A link's mode means nothing.
    let mode = if kind == 'l' { 0o777 } else { mode };
    Node { kind, mode, owner: numbers, content, attributes, same_as: None }
}

/// Which of several names is in the archive as the file depends on the order of reading a folder.
fn first_names(nodes: &mut BTreeMap<String, Node>) {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (path, node) in nodes.iter() {
        if let Some(target) = &node.same_as {
            groups.entry(target.clone()).or_default().push(path.clone());
        }
    }
    for (target, mut names) in groups {
        if nodes.contains_key(&target) {
            names.push(target);
        }
        names.sort();
        let first = names.first().cloned().filter(|_| names.len() > 1);
        for name in &names {
            if let Some(node) = nodes.get_mut(name) {
                node.same_as = first.clone().filter(|first| first != name);
            }
        }
    }
}

/// The configuration without what must differ: times, ids, hashes of files.
fn comparable(config: &Value) -> BTreeMap<String, Value> {
    let mut flat = BTreeMap::new();
    for (key, value) in config.as_object().expect("an object") {
        match key.as_str() {
            "created"
            | "container"
            | "container_config"
            | "docker_version"
            | "moby.buildkit.buildinfo.v1" => {}
            "rootfs" => {
                let layers = value["diff_ids"].as_array().map_or(0, Vec::len);
                flat.insert("layers".to_owned(), layers.into());
            }
            "config" => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    // The id of the image that the last step began from.
                    if key != "Image" && key != "Hostname" {
                        flat.insert(format!("config.{key}"), value.clone());
                    }
                }
            }
            "history" => {
                for (number, entry) in value.as_array().into_iter().flatten().enumerate() {
                    let mut entry = entry.clone();
                    if let Some(fields) = entry.as_object_mut() {
                        fields.remove("created");
                    }
                    let text = entry["created_by"].as_str().map(without_hashes).unwrap_or_default();
                    entry["created_by"] = text.into();
                    flat.insert(format!("history[{number}]"), entry);
                }
            }
            _ => {
                flat.insert(key.clone(), value.clone());
            }
        }
    }
    flat
}

/// The classic builder's history has a hash of what was copied, which depends on times.
fn without_hashes(text: &str) -> String {
    let word = |word: &str| {
        let (kind, hash) =
            word.rsplit_once(':').map_or(("", word), |(_, hash)| word.split_at(word.len() - hash.len()));
        let is_hash = hash.len() == 64 && hash.chars().all(|c| c.is_ascii_hexdigit());
        if is_hash { format!("{kind}…") } else { word.to_owned() }
    };
    text.split(' ').map(word).collect::<Vec<_>>().join(" ")
}
