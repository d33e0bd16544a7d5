//! What is pulled and loaded: made once, kept outside of the repository.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use wherry_tests::{Host, Output};

/// Archives and a registry's storage in the cache.
#[derive(Debug)]
pub(crate) struct Archives {
    cache: PathBuf,
}

impl Archives {
    /// Makes what is missing.
    pub(crate) fn prepare() -> Archives {
        let default =
            || PathBuf::from(std::env::var("HOME").unwrap_or("/root".into())).join(".cache/wherry-bench");
        let cache = std::env::var("BENCH_CACHE").map_or_else(|_| default(), PathBuf::from);
        fs::create_dir_all(&cache).expect("make the cache");
        let archives = Archives { cache };
        archives.make_big();
        archives.make_many();
        archives
    }

    /// The ten-layer image `big:latest`.
    pub(crate) fn big(&self) -> PathBuf {
        self.cache.join("big.tar")
    }

    /// A thousand small images.
    pub(crate) fn many(&self) -> PathBuf {
        self.cache.join("many.tar")
    }

    fn make_big(&self) {
        if self.big().exists() {
            return;
        }
        let lab = std::env::var("LAB").unwrap_or_else(|_| "/var/lib/wherry-lab".to_owned());
        let program = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/lab/mkbig.py");
        let program = std::env::var("MKBIG").unwrap_or_else(|_| program.to_owned());
        eprintln!("making {}", self.big().display());
        let new = self.cache.join("big.tar.new");
        let mut command = Command::new("python3");
        command.arg(program).arg(Path::new(&lab).join("root")).arg(&new);
        Output::of(command).ok();
        fs::rename(new, self.big()).expect("rename");
    }

    /// One layer, and configurations that differ by one word.
    fn make_many(&self) {
        if self.many().exists() {
            return;
        }
        let work = tempfile::tempdir().expect("a temporary folder");
        let write = |name: &str, text: &[u8]| fs::write(work.path().join(name), text).expect("write a file");
        write("layer.tar", &[0; 10240]);
        let mut command = Command::new("sha256sum");
        command.arg(work.path().join("layer.tar"));
        let diff_id = Output::of(command).ok().stdout[..64].to_owned();
        let mut manifest = Vec::new();
        for n in 0..1000 {
            let config = serde_json::json!({
                "architecture": "amd64", "os": "linux", "created": "2024-01-01T00:00:00Z",
                "config": {"Cmd": ["true"], "Labels": {"number": n.to_string()}},
                "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{diff_id}")]},
            });
            write(&format!("{n}.json"), config.to_string().as_bytes());
            manifest.push(serde_json::json!(
                {"Config": format!("{n}.json"), "RepoTags": [format!("many{n}:latest")], "Layers": ["layer.tar"]}
            ));
        }
        write("manifest.json", serde_json::Value::from(manifest).to_string().as_bytes());
        let new = self.cache.join("many.tar.new");
        let mut command = Command::new("tar");
        command.arg("-C").arg(work.path()).arg("-cf").arg(&new).arg(".");
        Output::of(command).ok();
        fs::rename(new, self.many()).expect("rename");
    }

    /// Starts a registry on port 5000 of the host's loopback address; the first time, the host's engine pushes to it.
    pub(crate) fn serve(&self, host: &Host) {
        let (storage, filled) = (self.cache.join("registry"), self.cache.join("registry-filled"));
        if !filled.exists() {
            let _ = fs::remove_dir_all(&storage);
        }
        let file = host.folder().join("registry.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"127.0.0.1:5000\"}}\n",
            storage.display()
        );
        fs::write(&file, text).expect("write a file");
        let line = format!("exec docker-registry serve {} >/dev/null 2>&1", file.display());
        let mut command = host.command(&["setsid", "-f", "sh", "-c", &line]);
        assert!(command.status().expect("start the registry").success()); // it ends with the host
        wherry_tests::poll("the registry", 20, || {
            host.http_get(([127, 0, 0, 1], 5000), "/v2/").is_some_and(|answer| answer.status == 200)
        });
        if !filled.exists() {
            eprintln!("filling {}", storage.display());
            host.docker(&["load", "-q", "-i", &self.big().display().to_string()]).ok();
            host.docker("tag big:latest 127.0.0.1:5000/big:latest").ok();
            host.docker("push -q 127.0.0.1:5000/big:latest").ok();
            host.docker("rmi big:latest 127.0.0.1:5000/big:latest").ok();
            fs::write(filled, "").expect("note that the registry is filled");
        }
    }
}
