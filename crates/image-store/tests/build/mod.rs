//! Layers and archives for tests, made with another library than the one under test.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot prepare has failed")]

use std::io::Write;

use tar::{Builder, EntryType, Header};
use wherry_image_ref::Digest;
use wherry_image_store::Store;

pub fn store() -> (tempfile::TempDir, Store) {
    assert!(rustix::process::geteuid().is_root(), "the tests of the image store need root");
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    (dir, store)
}

pub struct Layer(Builder<Vec<u8>>);

impl Layer {
    pub fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    pub fn header(kind: EntryType, mode: u32) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(0);
        header
    }

    pub fn file(mut self, path: &str, content: &[u8]) -> Self {
        let mut header = Self::header(EntryType::Regular, 0o644);
        header.set_size(content.len() as u64);
        self.0.append_data(&mut header, path, content).unwrap();
        self
    }

    /// A file under a name that the library would refuse.
    pub fn raw_file(self, path: &str, content: &[u8]) -> Self {
        self.raw(EntryType::Regular, path, "", content)
    }

    pub fn raw(mut self, kind: EntryType, path: &str, link: &str, content: &[u8]) -> Self {
        let mut header = Self::header(kind, 0o644);
        header.set_size(content.len() as u64);
        let old = header.as_old_mut();
        old.name[..path.len()].copy_from_slice(path.as_bytes());
        old.linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    pub fn dir(mut self, path: &str, mode: u32) -> Self {
        self.0.append_data(&mut Self::header(EntryType::Directory, mode), path, &b""[..]).unwrap();
        self
    }

    pub fn link(mut self, path: &str, target: &str) -> Self {
        self.0.append_link(&mut Self::header(EntryType::Link, 0o644), path, target).unwrap();
        self
    }

    pub fn symlink(mut self, path: &str, target: &str) -> Self {
        self.0.append_link(&mut Self::header(EntryType::Symlink, 0o777), path, target).unwrap();
        self
    }

    pub fn with(mut self, change: impl FnOnce(&mut Builder<Vec<u8>>)) -> Self {
        change(&mut self.0);
        self
    }

    pub fn done(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

fn plain(layer: &[u8]) -> Vec<u8> {
    use std::io::Read;
    let mut out = Vec::new();
    match layer {
        [0x1f, 0x8b, ..] => drop(flate2::read::GzDecoder::new(layer).read_to_end(&mut out).unwrap()),
        [0x28, 0xb5, ..] => out = zstd::decode_all(layer).unwrap(),
        _ => out = layer.to_vec(),
    }
    out
}

pub fn config(container: &str, diff_ids: &[Digest]) -> String {
    let diff_ids = serde_json::to_string(diff_ids).unwrap();
    format!(
        r#"{{"architecture":"amd64","os":"linux","created":"2026-01-02T03:04:05Z","config":{container},"rootfs":{{"type":"layers","diff_ids":{diff_ids}}}}}"#
    )
}

pub fn docker_archive(layers: &[&[u8]], container: &str, tags: &[&str]) -> Vec<u8> {
    let diff_ids: Vec<Digest> = layers.iter().map(|layer| Digest::of(&plain(layer))).collect();
    archive(layers, &config(container, &diff_ids), tags)
}

pub fn docker_archive_with_diff_ids(layers: &[&[u8]], diff_ids: &[Digest]) -> Vec<u8> {
    archive(layers, &config("{}", diff_ids), &["a"])
}

fn archive(layers: &[&[u8]], config: &str, tags: &[&str]) -> Vec<u8> {
    let mut tar = Layer::new();
    let mut names = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        let name = format!("{number}/layer.tar");
        tar = tar.file(&name, layer);
        names.push(name);
    }
    let tags: Vec<String> = tags
        .iter()
        .map(|tag| if tag.contains(':') { (*tag).to_owned() } else { format!("{tag}:latest") })
        .collect();
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": tags, "Layers": names}]);
    tar.file("config.json", config.as_bytes()).file("manifest.json", manifest.to_string().as_bytes()).done()
}

pub fn oci_archive(layer: &[u8], name: &str) -> Vec<u8> {
    let own = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    oci_index(&[(own, layer)], name)
}

/// An image for several architectures, and for one more whose manifest is not in the archive.
pub fn oci_index(images: &[(&str, &[u8])], name: &str) -> Vec<u8> {
    let descriptor = |bytes: &[u8]| serde_json::json!({"digest": Digest::of(bytes), "size": bytes.len()});
    let for_platform = |mut descriptor: serde_json::Value, architecture: &str| {
        descriptor["platform"] = serde_json::json!({"architecture": architecture, "os": "linux"});
        descriptor
    };
    let mut blobs: Vec<Vec<u8>> = Vec::new();
    let mut manifests = vec![for_platform(descriptor(b"foreign"), "s390x")];
    for (architecture, layer) in images {
        let config = config("{}", &[Digest::of(&plain(layer))]).replace("amd64", architecture);
        let manifest = serde_json::json!({"schemaVersion": 2, "config": descriptor(config.as_bytes()), "layers": [descriptor(layer)]});
        let manifest = manifest.to_string().into_bytes();
        manifests.push(for_platform(descriptor(&manifest), architecture));
        blobs.extend([manifest, config.into_bytes(), layer.to_vec()]);
    }
    let nested = serde_json::json!({"schemaVersion": 2, "manifests": manifests}).to_string();
    let mut top = descriptor(nested.as_bytes());
    top["annotations"] = serde_json::json!({"io.containerd.image.name": name});
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [top]}).to_string();
    blobs.push(nested.into_bytes());
    let mut tar = Layer::new()
        .file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)
        .file("index.json", index.as_bytes());
    for bytes in blobs {
        tar = tar.file(&format!("blobs/sha256/{}", Digest::of(&bytes).hex()), &bytes);
    }
    tar.done()
}

/// An archive without one of its members.
pub fn without(archive: &[u8], name: &str) -> Vec<u8> {
    let mut kept = Builder::new(Vec::new());
    for entry in tar::Archive::new(archive).entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path().unwrap().to_str() != Some(name) {
            let header = entry.header().clone();
            kept.append(&header, &mut entry).unwrap();
        }
    }
    kept.into_inner().unwrap()
}
