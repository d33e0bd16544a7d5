//! Documents of images. The first byte says which one the rest is, and what is around it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};
use wherry_image_store::Document;
use wherry_registry::{ManifestDocument, Platform};

const CONFIG: &[u8] = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;

fn hex(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An OCI layout with these blobs.
fn layout(index: &[u8], blobs: &[&[u8]]) -> Vec<u8> {
    let names: Vec<String> = blobs.iter().map(|blob| format!("blobs/sha256/{}", hex(blob))).collect();
    let mut files: Vec<(&str, &[u8])> =
        vec![("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#), ("index.json", index)];
    files.extend(names.iter().map(String::as_str).zip(blobs.iter().copied()));
    wherry_fuzz::tar(&files)
}

fn archive(kind: u8, text: &[u8]) -> Vec<u8> {
    match kind {
        0 => text.to_vec(),
        1 => wherry_fuzz::tar(&[("config.json", CONFIG), ("manifest.json", text)]),
        2 => wherry_fuzz::tar(&[
            ("config.json", text),
            ("manifest.json", br#"[{"Config":"config.json","RepoTags":["a:b"]}]"#),
        ]),
        3 => layout(text, &[CONFIG]),
        _ => {
            let index = format!(r#"{{"manifests":[{{"digest":"sha256:{}"}}]}}"#, hex(text));
            layout(index.as_bytes(), &[CONFIG, text])
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((kind, text)) = data.split_first() else { return };
    match kind % 8 {
        5 => drop(ManifestDocument::parse(text).map(|document| document.select(Some(&Platform::host())))),
        6 => drop(serde_json::from_slice::<Document>(text)),
        7 => drop(std::str::from_utf8(text).map(Platform::parse)),
        kind => {
            let shop = wherry_fuzz::shop();
            let loaded = shop.store.load(archive(kind, text).as_slice(), &|_| {});
            shop.check();
            if loaded.is_ok() {
                for image in shop.store.images() {
                    shop.store
                        .save(&[saved(&shop.store, &image)], std::io::sink())
                        .expect("what was loaded can be saved");
                }
            }
            shop.clear();
        }
    }
});

fn saved(store: &wherry_image_store::Store, image: &wherry_image_store::Image) -> wherry_image_store::Saved {
    let names = store.references().into_iter().filter(|(_, id)| *id == image.id).map(|(name, _)| name);
    wherry_image_store::Saved { id: image.id, references: names.collect() }
}
