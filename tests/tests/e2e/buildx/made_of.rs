//! What metadata files say of contexts and images that came from elsewhere.

use std::fs;

use serde_json::{Value, json};
use wherry_tests::distribution::Distribution;
use wherry_tests::{Host, Output, poll};

const NAME: &str = "127.0.0.1:5000/made";

/// What buildx writes of a build, with all that it may have to say.
fn provenance(host: &Host, line: &[&str], input: &[u8]) -> Value {
    let file = host.folder().join("metadata.json").display().to_string();
    let line = [&["buildx"], line, &["--progress", "plain", "--metadata-file", &file]].concat();
    let mut command = host.docker_command(line.as_slice());
    command.env("BUILDX_METADATA_PROVENANCE", "max");
    Output::with_input(command, input).ok();
    let mut found: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let built = if found["top"].is_object() { &mut found["top"] } else { &mut found };
    built["buildx.build.provenance"].take()
}

/// An archive of a folder, and its digest.
fn archive(host: &Host, folder: &str, dockerfile: &str) -> (Vec<u8>, Value) {
    let folder = host.folder_with(folder, &[("Dockerfile", dockerfile), ("f", "file\n")]);
    let file = host.folder().join("context.tar").display().to_string();
    host.exec(&["tar", "-C", &folder.display().to_string(), "-cf", &file, "."]).ok();
    let sum = host.exec(&["sha256sum", &file]).ok();
    (fs::read(file).unwrap(), json!({ "sha256": sum.out().split(' ').next().unwrap() }))
}

fn materials_are_complete(found: &Value) -> &Value {
    &found["metadata"]["completeness"]["materials"]
}

#[test]
fn archives_are_materials() {
    let host = Host::new();
    let (bytes, digest) = archive(&host, "archive", "FROM scratch\nCOPY f /\n");
    let found = provenance(&host, &["build", "-"], &bytes);
    let uri = found["materials"][0]["uri"].as_str().unwrap_or_default().to_owned();
    assert!(uri.starts_with("http://buildkit-session/"), "{found:#}");
    assert_eq!(found["materials"], json!([{ "uri": uri, "digest": digest }]));
    let source = json!({ "uri": uri, "digest": digest, "entryPoint": "Dockerfile" });
    assert_eq!(found["invocation"]["configSource"], source);
    assert_eq!(materials_are_complete(&found), true);

    let at = "127.0.0.1:8092";
    let _server = host.serve("files", &format!("busybox httpd -f -p {at} -h {}", host.folder().display()));
    poll("the web server", 10, || host.in_network(|| std::net::TcpStream::connect(at).is_ok()));
    let uri = format!("http://{at}/context.tar");
    let found = provenance(&host, &["build", &uri], b"");
    assert_eq!(found["materials"], json!([{ "uri": uri, "digest": digest }]));
    let source = json!({ "uri": uri, "digest": digest, "entryPoint": "Dockerfile" });
    assert_eq!(found["invocation"]["configSource"], source);
    assert_eq!(materials_are_complete(&found), true);

    // A build is made of the client's files if one is whose result it uses.
    archive(&host, "archive", "FROM base\nCOPY f /\n");
    let bake = format!(
        "target \"base\" {{ dockerfile-inline = \"FROM scratch\\nCOPY f /g\" }}\n\
         target \"top\" {{\n contexts = {{ base = \"target:base\" }}\n context = \"{uri}\"\n}}\n"
    );
    let folder = host.folder_with("bake", &[("docker-bake.hcl", &bake), ("f", "")]).display().to_string();
    let allow = format!("--allow=fs.read={folder}");
    let file = format!("{folder}/docker-bake.hcl");
    let inner = format!("base.context={folder}");
    let found = provenance(&host, &["bake", &allow, "-f", &file, "--set", &inner, "top"], b"");
    assert_eq!(materials_are_complete(&found), false, "{found:#}");
    assert_eq!(found["invocation"]["parameters"]["locals"], json!([{ "name": "context" }]), "{found:#}");
}

#[test]
fn images_are_known_by_their_manifests_where_the_build_pulled_them() {
    let host = Host::new();
    let _registry = Distribution::start(&host, 5000);
    host.docker(&["tag", "busybox", NAME]).ok();
    host.docker(&["push", "-q", NAME]).ok();
    let image = host.inspect(NAME);
    let prefix = format!("{NAME}@sha256:");
    let names = image["RepoDigests"].as_array().unwrap().iter().filter_map(Value::as_str);
    let manifest = names.filter_map(|name| name.strip_prefix(&prefix)).next().unwrap().to_owned();
    let layers = image["RootFS"]["Layers"][0].as_str().unwrap().trim_start_matches("sha256:").to_owned();
    host.docker(&["rmi", NAME]).ok();
    let text = format!("FROM {NAME}\nRUN true\n");
    let folder = host.folder_with("pulled", &[("Dockerfile", &text)]).display().to_string();
    let known = |options: &str| {
        let found = provenance(&host, &["build", options, &folder], b"");
        found["materials"][0]["digest"]["sha256"].as_str().unwrap_or_default().to_owned()
    };
    assert_eq!(known("--pull=false"), manifest);
    // One that is here is known by what is here of it.
    host.docker(&["pull", "-q", NAME]).ok();
    assert_eq!(known("--pull=false"), layers);
    assert_eq!(known("--pull"), manifest);
}
