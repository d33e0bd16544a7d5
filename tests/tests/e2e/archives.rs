//! `docker save` and `docker load`, also between this engine and other tools: skopeo and umoci.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use wherry_tests::{Host, Output, engine::Binary};

/// Two images, one on the other.
fn two_images(host: &Host) {
    host.docker("run --name work busybox sh -c 'echo x >/f; rm /bin/ls'").ok();
    host.docker("commit -m top work top:1").ok();
    host.docker("tag top:1 top:2").ok();
    host.docker("rm work").ok();
}

fn save(host: &Host, line: &str) -> Vec<u8> {
    host.docker(line).ok().bytes
}

#[test]
fn an_archive_has_both_forms() {
    let host = Host::new();
    two_images(&host);
    let folder = unpacked(&host, "both", &save(&host, "save top:1 busybox"));
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).expect(name);
    let json = |name: &str| serde_json::from_str::<Value>(&read(name)).expect(name);
    assert_eq!(read("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#);
    let (top, base) = (host.inspect("top:1"), host.inspect("busybox"));
    let path = |digest: &Value| digest.as_str().unwrap().replace("sha256:", "blobs/sha256/");
    let manifest = json("manifest.json");
    let entries: BTreeMap<String, &Value> =
        manifest.as_array().unwrap().iter().map(|m| (m["RepoTags"][0].as_str().unwrap().into(), m)).collect();
    let entry = entries["top:1"];
    assert_eq!(entry["Config"], json!(path(&top["Id"])));
    let layers: Vec<String> = top["RootFS"]["Layers"].as_array().unwrap().iter().map(path).collect();
    assert_eq!(entry["Layers"], json!(layers));
    for (diff_id, source) in entry["LayerSources"].as_object().unwrap() {
        let bytes = std::fs::metadata(folder.join(path(&json!(diff_id)))).unwrap().len();
        let expect =
            json!({"mediaType": "application/vnd.oci.image.layer.v1.tar", "size": bytes, "digest": diff_id});
        assert_eq!(*source, expect);
    }
    assert_eq!(entries["busybox:latest"]["Config"], json!(path(&base["Id"])));
    let hex = |layer: &String| layer.rsplit('/').next().unwrap().to_owned();
    let expect = json!({"busybox": {"latest": hex(&layers[0])}, "top": {"1": hex(&layers[1])}});
    assert_eq!(json("repositories"), expect);
    // Every blob is what its name says, and the index leads to both images.
    for blob in std::fs::read_dir(folder.join("blobs/sha256")).unwrap() {
        let path = blob.unwrap().path();
        let sum = Output::of({
            let mut command = Command::new("sha256sum");
            command.arg(&path);
            command
        });
        assert!(sum.ok().stdout.starts_with(path.file_name().unwrap().to_str().unwrap()));
    }
    let index = json("index.json");
    let mut names = Vec::new();
    for descriptor in index["manifests"].as_array().unwrap() {
        let oci = json(&path(&descriptor["digest"]));
        assert_eq!(oci["mediaType"], "application/vnd.oci.image.manifest.v1+json");
        names.push((
            descriptor["annotations"]["io.containerd.image.name"].clone(),
            oci["config"]["digest"].clone(),
        ));
    }
    names.sort_by_key(|(name, _)| name.to_string());
    let expect = [("docker.io/library/busybox:latest", &base["Id"]), ("docker.io/library/top:1", &top["Id"])];
    assert_eq!(names, expect.map(|(name, id)| (json!(name), id.clone())));
}

#[test]
fn what_is_saved_is_the_same_every_time() {
    let host = Host::new();
    two_images(&host);
    if Binary::from_environment().is_reference() {
        return; // dockerd's archives have the time at which they were made
    }
    let first = save(&host, "save top:1 top:2 busybox");
    assert!(save(&host, "save top:1 top:2 busybox") == first);
    host.docker("rmi top:1 top:2 busybox").ok();
    host.docker("images -aq").prints("");
    host.docker_with_input("load", &first).ok();
    assert!(save(&host, "save top:1 top:2 busybox") == first, "after it was loaded again");
    host.docker_with_input("load", &first).ok();
    assert!(save(&host, "save top:1 top:2 busybox") == first, "after it was loaded twice");
}

#[test]
fn names_ids_and_repositories_are_saved() {
    let host = Host::new();
    two_images(&host);
    let tags = |line: &str| -> Vec<Value> {
        let folder = unpacked(&host, "tags", &save(&host, line));
        let manifest: Value =
            serde_json::from_slice(&std::fs::read(folder.join("manifest.json")).unwrap()).unwrap();
        manifest.as_array().unwrap().iter().map(|m| m["RepoTags"].clone()).collect()
    };
    let id = host.inspect("top:1")["Id"].as_str().unwrap().to_owned();
    assert_eq!(tags("save top:1"), [json!(["top:1"])]);
    assert_eq!(tags("save top"), [json!(["top:1", "top:2"])]);
    assert_eq!(tags("save top:2 top:2 top:1"), [json!(["top:2", "top:1"])]);
    assert_eq!(tags(&format!("save {id}")), [Value::Null]);
    assert_eq!(tags(&format!("save {}", &id[7..19])), [Value::Null]);
    host.docker("save nosuch").fails(1, "No such image: nosuch");
    host.docker("save top:nosuch").fails(1, "reference does not exist");
    host.docker("save UP").fails(1, "must be lowercase");
    host.docker("save --platform linux/s390x top:1")
        .fails(1, "no suitable export target found for platform linux/s390x");
}

#[test]
fn load_tells_of_names_ids_and_layers() {
    let host = Host::new();
    two_images(&host);
    let id = host.inspect("top:1")["Id"].as_str().unwrap().to_owned();
    let (named, nameless) = (save(&host, "save top:1 top:2"), save(&host, &format!("save {id}")));
    let layer = host.inspect("top:1")["RootFS"]["Layers"][1].as_str().unwrap()[7..19].to_owned();
    host.docker("rmi top:1 top:2").ok();
    let load = |query: &str, archive: &[u8]| {
        let headers = [("Content-Type", "application/x-tar")];
        host.connect()
            .request("POST", &format!("/v1.51/images/load{query}"), &headers, archive)
            .expect(200)
            .text()
    };
    let text = load("?quiet=0", &named);
    assert!(
        text.contains(&format!(r#""id":"{layer}""#))
            && text.contains(r#"{"status":"Loading layer","progressDetail":{"#),
        "{text}"
    );
    let ends = "{\"stream\":\"Loaded image: top:1\\n\"}\r\n{\"stream\":\"Loaded image: top:2\\n\"}\r\n";
    assert!(text.ends_with(ends), "{text}");
    assert_eq!(load("?quiet=0", &named), ends, "nothing is read twice");
    host.docker("rmi top:1 top:2").ok();
    let expect = format!("{{\"stream\":\"Loaded image ID: {id}\\n\"}}\r\n");
    assert_eq!(load("", &nameless), expect, "quiet is the default");
    assert_eq!(host.inspect(&id)["RepoTags"], json!([]));
    host.docker_with_input("load --platform linux/s390x", &named).prints("");
    host.docker("images -q top").prints("");
}

#[test]
fn the_images_of_an_archive_know_each_other() {
    let host = Host::new();
    two_images(&host);
    let (both, alone) = (save(&host, "save top:1 busybox"), save(&host, "save top:1"));
    let base = host.inspect("busybox")["Id"].clone();
    host.docker("rmi top:1 top:2 busybox").ok();
    host.docker_with_input("load", &both).ok();
    assert_eq!(host.inspect("top:1")["Parent"], base);
    host.docker("rmi busybox").prints("Untagged: busybox:latest");
    let output = host.docker("rmi top:1").ok().stdout;
    assert!(
        output.contains(&format!("Deleted: {}", base.as_str().unwrap())),
        "with its nameless parent: {output}"
    );
    host.docker_with_input("load", &alone).ok();
    assert_eq!(host.inspect("top:1")["Parent"], "");
}

#[test]
fn compressed_archives_are_loaded() {
    let host = Host::new();
    let archive = save(&host, "save busybox");
    for program in ["gzip", "bzip2", "xz", "zstd"] {
        if program == "xz" && Binary::from_environment().is_reference() {
            continue; // the lab's dockerd has none
        }
        let mut command = Command::new(program);
        command.args(["-q", "-c"]);
        let compressed = Output::with_input(command, &archive).ok().bytes;
        host.docker("rmi busybox").ok();
        host.docker_with_input("load", &compressed).prints("Loaded image: busybox:latest");
    }
    host.docker("run --rm busybox echo hi").prints("hi");
}

#[test]
fn skopeo_and_umoci_read_what_is_saved() {
    let host = Host::new();
    two_images(&host);
    let archive = host.folder().join("top.tar");
    std::fs::write(&archive, save(&host, "save top:1")).unwrap();
    let archive = archive.display();
    let config = skopeo(&format!("inspect --config docker-archive:{archive}")).ok().stdout;
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(config["rootfs"]["diff_ids"], host.inspect("top:1")["RootFS"]["Layers"]);
    let seen: Value =
        serde_json::from_str(&skopeo(&format!("inspect oci-archive:{archive}:1")).ok().stdout).unwrap();
    assert_eq!(seen["Layers"].as_array().map(Vec::len), Some(2));
    // umoci reads the layout, and unpacks what containers see.
    let layout = host.folder().join("layout");
    unpack(&layout, &std::fs::read(host.folder().join("top.tar")).unwrap());
    let bundle = host.folder().join("bundle");
    tool("umoci", &["unpack", "--image", &format!("{}:1", layout.display()), &bundle.display().to_string()])
        .ok();
    assert_eq!(std::fs::read_to_string(bundle.join("rootfs/f")).unwrap(), "x\n");
    assert!(!bundle.join("rootfs/bin/ls").exists() && bundle.join("rootfs/bin/busybox").exists());
}

#[test]
fn what_skopeo_and_umoci_write_is_loaded() {
    let host = Host::new();
    if Binary::from_environment().is_reference() {
        return; // dockerd loads no OCI layout that has no manifest.json
    }
    two_images(&host);
    let folder = host.folder().display().to_string();
    std::fs::write(host.folder().join("top.tar"), save(&host, "save top:1")).unwrap();
    let layers = host.inspect("top:1")["RootFS"]["Layers"].clone();
    for (form, name) in [("docker-archive", "sk:d"), ("oci-archive", "sk:o")] {
        let out = format!("{form}:{folder}/{form}.tar:{name}");
        skopeo(&format!("copy -q docker-archive:{folder}/top.tar {out}")).ok();
        host.docker(&["load", "-i", &format!("{folder}/{form}.tar")]).contains("Loaded image");
        assert_eq!(host.inspect(name)["RootFS"]["Layers"], layers, "{form}");
        host.docker(&["run", "--rm", name, "cat", "/f"]).prints("x");
    }
    // umoci adds a layer to a layout, with compressed blobs, and renames it.
    let layout = format!("{folder}/made");
    skopeo(&format!("copy -q docker-archive:{folder}/top.tar oci:{layout}:base")).ok();
    let bundle = format!("{folder}/made-bundle");
    tool("umoci", &["unpack", "--image", &format!("{layout}:base"), &bundle]).ok();
    std::fs::write(Path::new(&bundle).join("rootfs/new"), "by umoci\n").unwrap();
    std::fs::remove_file(Path::new(&bundle).join("rootfs/f")).unwrap();
    tool("umoci", &["repack", "--image", &format!("{layout}:um"), &bundle]).ok();
    tool(
        "umoci",
        &["config", "--image", &format!("{layout}:um"), "--config.cmd", "cat", "--config.cmd", "/new"],
    )
    .ok();
    skopeo(&format!("copy -q oci:{layout}:um oci-archive:{folder}/um.tar:umoci:1")).ok();
    host.docker(&["load", "-i", &format!("{folder}/um.tar")]).prints("Loaded image: umoci:1");
    host.docker("run --rm umoci:1").prints("by umoci");
    host.docker("run --rm umoci:1 cat /f").fails(1, "No such file");
    assert_eq!(host.inspect("umoci:1")["RootFS"]["Layers"].as_array().map(Vec::len), Some(3));
}

#[test]
fn an_archive_without_its_end_is_no_success() {
    let host = Host::new();
    if Binary::from_environment().is_reference() {
        return; // dockerd writes the error into the archive
    }
    let layer = host.inspect("busybox")["RootFS"]["Layers"][0].as_str().unwrap()[7..].to_owned();
    let file = host.root().join("data/overlay2").join(layer).join("diff/bin/busybox");
    std::fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(1000).unwrap();
    host.docker("save busybox").fails(1, "unexpected EOF");
}

fn tool(program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments);
    Output::of(command)
}

fn skopeo(line: &str) -> Output {
    let words: Vec<&str> = std::iter::once("--insecure-policy").chain(line.split(' ')).collect();
    tool("skopeo", &words)
}

/// An archive in a folder of the host.
fn unpacked(host: &Host, name: &str, archive: &[u8]) -> std::path::PathBuf {
    let folder = host.folder().join(name);
    let _ = std::fs::remove_dir_all(&folder);
    unpack(&folder, archive);
    folder
}

fn unpack(folder: &Path, archive: &[u8]) {
    std::fs::create_dir(folder).unwrap();
    let mut command = Command::new("tar");
    command.args(["-x", "-C"]).arg(folder);
    Output::with_input(command, archive).ok();
}
