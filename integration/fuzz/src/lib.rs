//! What several targets share: a specification to change, a store to throw things at, a tar to wrap them in.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use oci_spec::runtime::Spec;
use serde_json::{Value, json};
use wherry_image_store::Store;
use wherry_runtime::{Launch, RootfsSource};

/// A specification that is fine but for what a target puts into it.
pub fn spec_with(pointer: &str, value: Value) -> Value {
    let mut spec = json!({
        "ociVersion": "1.2.0",
        "process": { "user": { "uid": 0, "gid": 0 }, "cwd": "/", "args": ["true"] },
        "root": { "path": "rootfs" },
        "mounts": [],
        "linux": { "namespaces": [{ "type": "mount" }, { "type": "uts" }, { "type": "network" }] }
    });
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    spec.pointer_mut(parent).expect("a parent")[key] = value;
    spec
}

/// Compiles a specification as if a container were to be made.
pub fn validate(spec: &Spec) {
    let rootfs = RootfsSource::Bundle;
    let result = Launch::new("fuzz", Path::new("/nosuch"), spec, &rootfs).validate();
    if let Err(error) = result {
        assert!(!error.to_string().contains('\n'), "more than one line: {error}");
    }
}

/// A store in a folder of its own, and what must not change around it.
pub struct Shop {
    folder: tempfile::TempDir,
    pub store: Store,
}

impl Shop {
    fn new() -> Self {
        // in memory: nothing here has to survive
        let folder =
            tempfile::Builder::new().prefix("wherry-fuzz-").tempdir_in("/dev/shm").expect("a folder");
        fs::write(folder.path().join("canary"), "sings").expect("a canary");
        let store = Store::open(&folder.path().join("data")).expect("a store");
        Shop { folder, store }
    }

    /// Nothing outside of the layers has been touched.
    pub fn check(&self) {
        let names = |path: PathBuf| -> Vec<String> {
            let entries = fs::read_dir(path).expect("a folder").flatten();
            let mut names: Vec<_> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        };
        assert_eq!(
            names(self.folder.path().into()),
            ["canary", "data"],
            "something was made beside the store"
        );
        assert_eq!(fs::read(self.folder.path().join("canary")).expect("a canary"), b"sings");
        assert_eq!(
            names(self.folder.path().join("data")),
            ["image", "overlay2"],
            "something was made in the store"
        );
        let overlay = self.folder.path().join("data/overlay2");
        for name in names(overlay.clone()) {
            let layer = overlay.join(&name);
            if name.starts_with('.') {
                continue;
            }
            assert_eq!(
                names(layer.clone()),
                ["diff", "headers.zst", "layer.json"],
                "something was made beside a layer"
            );
            let mut list = [0_u8; 256];
            let length = rustix::fs::llistxattr(&layer, &mut list[..]).expect("attributes");
            assert_eq!(length, 0, "attributes were set beside a layer");
        }
    }

    /// Removes all images and, with them, all layers.
    pub fn clear(&self) {
        for image in self.store.images() {
            let (_, result) = self.store.remove(&image.id.to_string(), true, false, &|_| Vec::new());
            result.expect("an image can be removed");
        }
    }
}

/// The store of this process.
pub fn shop() -> &'static Shop {
    static SHOP: LazyLock<Shop> = LazyLock::new(Shop::new);
    &SHOP
}

/// A tar of these files.
pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, content) in files {
        let mut header = [0_u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000644");
        header[108..115].copy_from_slice(b"0000000");
        header[116..123].copy_from_slice(b"0000000");
        header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[136..147].copy_from_slice(b"00000000000");
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}
