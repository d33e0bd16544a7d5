//! Where results go, and what is told and kept of builds.

use std::fs;

use serde_json::{Value, json};
use wherry_tests::engine::Binary;
use wherry_tests::{Host, Output};

use super::build;
use crate::buildkit::has;

const TEXT: &str = "FROM busybox AS b
RUN mkdir -p /o/d && echo made >/o/d/m && ln -s d/m /o/l && ln /o/d/m /o/h && chown 33:34 /o/d/m && chmod 1777 /o/d && touch -d '2001-02-03 04:05:06' /o/l2
FROM scratch
COPY --from=b /o /
COPY a /b/
";

#[test]
fn results_are_archives_folders_and_images() {
    let host = Host::new();
    let folder = host.folder_with("o", &[("Dockerfile", TEXT), ("a", "content")]);
    let at = |name: &str| host.folder().join(name).display().to_string();
    let line = |options: &str| format!("buildx build -q {options} {}", folder.display());
    let archive = host.docker(&line("-o -")).ok().bytes;
    fs::write(at("out.tar"), archive).unwrap();
    let listed = host.exec(&format!("tar tvf {} --numeric-owner", at("out.tar"))).ok().stdout;
    for entry in ["drwxrwxrwt 0/0", "-rw-r--r-- 33/34", "2001-02-03", " l -> d/m", " h link to d/m", " b/a"] {
        assert!(listed.contains(entry), "{entry}: {listed}");
    }
    let both = format!("-o type=image,name=both -o type=local,dest={}", at("both"));
    build(&host, &both, &folder).ok();
    assert_eq!(fs::read_to_string(at("both/d/m")).unwrap(), "made\n");
    assert!(host.inspect("both")["Id"].is_string());
    for options in [
        "-t x1 --load",
        "-t x2 -o type=docker",
        "-o type=image,name=x3,compression=zstd,oci-mediatypes=true,unpack=true",
    ] {
        build(&host, options, &folder).ok();
    }
    for name in ["x1", "x2", "x3"] {
        assert_eq!(host.inspect(name)["Id"], host.inspect("both")["Id"], "{name}");
    }
    build(&host, "-t one:a -t two:b", &folder).ok();
    assert_eq!(host.inspect("one:a")["Id"], host.inspect("two:b")["Id"]);
    // What the driver does not do is said by the client.
    for kind in ["oci", "docker"] {
        let told = build(&host, &format!("-o type={kind},dest={}", at("no.tar")), &folder).exits(1).stderr;
        has(&told, &["exporter is not supported for the docker driver."]);
    }
    let push = build(&host, "--push -t 127.0.0.1:9/none", &folder).exits(1).stderr;
    has(&push, &["127.0.0.1:9: connect: connection refused"]);
}

#[test]
fn progress_is_told_to_programs() {
    let host = Host::new();
    let folder = host.folder_with("r", &[("Dockerfile", TEXT), ("a", "content")]);
    let raw = host.docker(&format!("buildx build --no-cache --progress rawjson {}", folder.display())).ok();
    let (mut ended, mut parts) = (Vec::new(), Vec::new());
    for line in raw.stderr.lines() {
        let message: Value = serde_json::from_str(line).unwrap();
        for vertex in message["vertexes"].as_array().into_iter().flatten() {
            assert!(vertex["digest"].as_str().unwrap().starts_with("sha256:"), "{line}");
            if vertex["completed"].is_string() {
                ended.push(vertex["name"].as_str().unwrap().to_owned());
            }
        }
        for status in message["statuses"].as_array().into_iter().flatten() {
            parts.push(status["id"].as_str().unwrap().to_owned());
        }
    }
    for name in [
        "[internal] load build context",
        "[stage-1 1/2] COPY --from=b /o /",
        "[stage-1 2/2] COPY a /b/",
        "exporting to image",
    ] {
        assert!(ended.iter().any(|ended| ended == name), "{name}: {ended:?}");
    }
    for id in ["transferring context:", "transferring dockerfile:", "exporting layers"] {
        assert!(parts.iter().any(|part| part == id), "{id}: {parts:?}");
    }
}

#[test]
fn records_are_chosen_by_filters() {
    let host = Host::new();
    let text = "FROM busybox\nRUN --mount=type=cache,target=/k echo first >/f; echo k >/k/k\nRUN echo second >/s\nCOPY Dockerfile /\n";
    let folder = host.folder_with("u", &[("Dockerfile", text)]);
    let made = || drop(build(&host, "-t used", &folder).ok());
    made();
    let listed = |filter: &str| {
        let line = ["buildx", "du", "--filter", filter, "--format", "{{.Type}} {{.Description}}"];
        host.docker(&line).ok().stdout
    };
    assert!(listed("type=exec.cachemount").starts_with("exec.cachemount cached mount"));
    assert_eq!(listed("type=exec.cachemount").lines().count(), 1);
    let second = listed("description~=second");
    assert!(second.lines().count() == 1 && second.contains("second"), "{second}");
    assert!(listed("type!=regular").lines().all(|line| !line.starts_with("regular")));
    // What is only so or not has no value.
    for filter in ["shared=true", "private=1", "foo=bar"] {
        assert_eq!(listed(filter).trim(), "", "{filter}");
    }
    let count = || listed("until=1h").lines().count();
    let before = count();
    for filter in ["until=1h", "description~=nothing", "foo=bar"] {
        host.docker(&["buildx", "prune", "-f", "--filter", filter]).ok();
        assert_eq!(count(), before, "{filter}");
    }
    host.docker(&["buildx", "prune", "-f", "--filter", "type=exec.cachemount"]).ok();
    assert_eq!(listed("type=exec.cachemount").trim(), "");
    assert!(count() < before);
    host.docker("buildx prune -af --max-used-space 100GB --min-free-space 1MB --reserved-space 1GB").ok();
    assert!(listed("description~=second").contains("second"), "there is room for it");
    host.docker("buildx prune -af").contains("Total:");
    assert_eq!(count(), 0);
}

/// Not asked of dockerd 28.5.2: `buildx history ls` ends it with a nil pointer in BuildKit's filterHistoryEvents.
#[test]
fn builds_are_remembered() {
    let host = Host::new();
    if Binary::from_environment().is_reference() {
        return;
    }
    let folder = host.folder_with(
        "kept",
        &[("Dockerfile", "FROM busybox\nRUN echo told\n"), ("bad", "FROM busybox\nRUN exit 3\n")],
    );
    build(&host, "-t kept", &folder).ok();
    build(&host, &format!("-f {}/bad", folder.display()), &folder).exits(1);
    let listed = |options: &str| {
        let line = format!("buildx history ls {options} --format {{{{.Name}}}}/{{{{.Status}}}}");
        host.docker(&line).ok().out().to_owned()
    };
    assert_eq!(listed("").lines().count(), 2);
    assert!(listed("--filter status=error").ends_with("/Error"));
    assert!(listed("--filter status!=error").ends_with("/Completed"));
    host.docker("buildx history logs ^1").ok();
    let failed = host.docker("buildx history inspect").ok().stdout;
    has(&failed, &["process \"/bin/sh -c exit 3\" did not complete successfully: exit code: 3"]);
    let json: Value =
        serde_json::from_str(host.docker("buildx history inspect --format json ^1").ok().out()).unwrap();
    assert_eq!(
        (json["Status"].as_str(), json["Dockerfile"].as_str()),
        (Some("completed"), Some("Dockerfile"))
    );
    let file = host.folder().join("exported").display().to_string();
    host.docker(&format!("buildx history export -o {file} ^1")).ok();
    assert!(host.exec(&format!("tar tf {file}")).ok().stdout.contains("index.json"));
    host.docker("buildx history rm nosuchref").fails(1, "failed to load ref nosuchref: not found");
    host.docker("buildx history rm --all").ok();
    assert_eq!(listed(""), "");
    host.docker("buildx inspect").contains("Driver:        docker").contains("Status:           running");
}

/// What a metadata file says of a build, with a variable for the client.
fn metadata(host: &Host, options: &str, mode: &str, context: &str) -> Value {
    let file = host.folder().join("metadata.json");
    let line = format!("buildx build -q --metadata-file {} {options} {context}", file.display());
    let mut command = host.docker_command(&line);
    command.env("BUILDX_METADATA_PROVENANCE", mode);
    Output::of(command).ok();
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

fn keys(metadata: &Value) -> Vec<&str> {
    metadata.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn metadata_files_say_what_was_built_of_what() {
    let host = Host::new();
    let text = "FROM busybox AS one\nARG A\nRUN --mount=type=secret,id=s --mount=type=ssh,id=k echo $A >/f\n\
                FROM busybox AS never\nRUN --mount=type=secret,id=unused true\n\
                FROM scratch\nCOPY --from=one /f /f\nCOPY --from=other x /\n";
    let folder = host.folder_with("m", &[("Dockerfile", text), ("s", "hush"), ("o/x", "")]);
    let at = folder.display().to_string();
    let options = format!(
        "--build-arg A=2 --label l=1 --secret id=s,src={at}/s --build-context other={at}/o --no-cache"
    );
    let busybox =
        host.inspect("busybox")["RootFS"]["Layers"][0].as_str().unwrap()["sha256:".len()..].to_owned();
    let expected = json!({
        "builder": { "id": "" },
        "buildType": "https://mobyproject.org/buildkit@v1",
        "materials": [{ "uri": "pkg:docker/busybox@latest?platform=linux%2Famd64", "digest": { "sha256": busybox } }],
        "invocation": {
            "configSource": { "entryPoint": "Dockerfile" },
            "parameters": {
                "frontend": "dockerfile.v0",
                "args": {
                    "build-arg:A": "2",
                    "label:l": "1",
                    "context:other": "local:other",
                    "frontend.caps": "moby.buildkit.frontend.contexts+forward",
                    "no-cache": "",
                },
                "secrets": [{ "id": "s", "optional": true }],
                "ssh": [{ "id": "k", "optional": true }],
                "locals": [{ "name": "context" }, { "name": "dockerfile" }, { "name": "other" }],
            },
            "environment": { "platform": "linux/amd64" },
        },
    });
    let found = metadata(&host, &format!("-t meta {options}"), "", &at);
    let of_image = [
        "buildx.build.provenance",
        "buildx.build.ref",
        "containerimage.config.digest",
        "containerimage.digest",
        "image.name",
    ];
    assert_eq!(keys(&found), of_image);
    assert_eq!(found["buildx.build.provenance"], expected, "{found:#}");
    let id = host.inspect("meta")["Id"].clone();
    assert_eq!((&found["containerimage.digest"], &found["containerimage.config.digest"]), (&id, &id));
    assert_eq!(found["image.name"], "docker.io/library/meta");
    let build = found["buildx.build.ref"].as_str().unwrap().rsplit('/').next().unwrap().to_owned();
    // The record of the build has it, too.
    let kind = "https://slsa.dev/provenance/v0.2";
    let kept = host.docker(&["buildx", "history", "inspect", "attachment", "--type", kind, &build]).ok();
    let kept: Value = serde_json::from_str(kept.out()).unwrap();
    assert_eq!(kept["invocation"], expected["invocation"]);
    let shown = host.docker(&["buildx", "history", "inspect", &build]).ok().stdout;
    has(&shown, &["pkg:docker/busybox@latest?platform=linux%2Famd64", kind, id.as_str().unwrap()]);

    let out = format!("-o type=local,dest={}", host.folder().join("out").display());
    let found = metadata(&host, &format!("{out} {options}"), "min", &at);
    assert_eq!(keys(&found), ["buildx.build.provenance", "buildx.build.ref"]);
    assert_eq!(found["buildx.build.provenance"], expected);
    assert_eq!(keys(&metadata(&host, &out, "disabled", &format!("{options} {at}"))), ["buildx.build.ref"]);
    let found = metadata(&host, &options, "max", &at);
    let more = &found["buildx.build.provenance"]["metadata"];
    assert_eq!(
        more["completeness"],
        json!({ "parameters": true, "environment": true, "materials": false }),
        "{found:#}"
    );
    assert_eq!(more["reproducible"], false);
    assert!(more["buildStartedOn"].as_str() < more["buildFinishedOn"].as_str(), "{more:#}");
    let source = &more["https://mobyproject.org/buildkit@v1#metadata"]["source"]["infos"][0];
    assert_eq!((&source["filename"], &source["language"]), (&json!("Dockerfile"), &json!("Dockerfile")));
}
