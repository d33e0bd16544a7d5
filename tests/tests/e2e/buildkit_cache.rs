//! Build caches that travel: from one engine to another that has never built, by a registry or an archive.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use wherry_tests::distribution::Distribution;
use wherry_tests::registry::{Mood, Registry};
use wherry_tests::{Engine, Host, Output};

const PORT: u16 = 5000;
const NAME: &str = "127.0.0.1:5000/made";

/// Each program that is run writes something that no other run would. What makes `/first` is large enough that its blob is
/// no document to the registry that misbehaves.
const DOCKERFILE: &str = "FROM busybox AS builder\nRUN head -c 16 /dev/urandom | od -x >/built\n\
    FROM busybox\nRUN head -c 50000 /dev/urandom >/first\nCOPY file /file\n\
    RUN head -c 16 /dev/urandom | od -x >/second\nCOPY --from=builder /built /built\nENV A=b\n\
    CMD cat /built /second /file; md5sum /first\n";

fn folder(host: &Host) -> PathBuf {
    host.folder_with("cached", &[("Dockerfile", DOCKERFILE), ("file", "same\n")])
}

fn build(engine: &Engine, options: &str, folder: &Path) -> Output {
    engine.docker(&format!("buildx build --progress plain {options} {}", folder.display())).ok()
}

/// The steps that were not done again, images to begin from left out: the lines behind `CACHED` name nothing, so the numbers are looked up.
fn cached(built: &Output) -> Vec<String> {
    let lines: Vec<&str> = built.stderr.lines().collect();
    let name = |number: &str| {
        let named = lines.iter().filter_map(|line| line.strip_prefix(number)?.strip_prefix(' '));
        let mut steps = named.filter(|name| name.starts_with('[') && !name.contains("] FROM "));
        steps.next().map(str::to_owned)
    };
    let mut found: Vec<String> =
        lines.iter().filter_map(|line| name(line.strip_suffix(" CACHED")?)).collect();
    found.sort();
    found
}

fn result(engine: &Engine, image: &str) -> String {
    engine.docker(&["run", "--rm", "--network", "none", image]).ok().stdout
}

/// An engine without any results, in the place of the host's own.
fn fresh(host: &Host, name: &str) -> Engine {
    if host.is_running() {
        assert_eq!(host.stop(), 0);
    }
    let engine = host.another_engine(name, &[]);
    engine.start();
    let archive = host.image_archive("busybox:latest", "");
    engine.docker(&["load", "-q", "-i", &archive.display().to_string()]).ok();
    engine
}

#[test]
fn an_image_brings_its_cache_to_another_engine() {
    let host = Host::new();
    let registry = Distribution::start(&host, PORT);
    let folder = folder(&host);
    let first = build(&host, &format!("--cache-to type=inline -t {NAME}"), &folder);
    assert!(first.stderr.contains("preparing layers for inline cache"), "{first}");
    assert!(!first.stderr.contains("left out"), "{first}");
    let made = result(&host, NAME);
    host.docker(&["push", "-q", NAME]).ok();

    let other = fresh(&host, "other");
    let from = format!("--cache-from {NAME}");
    let again = build(&other, &format!("{from} -t again"), &folder);
    assert!(again.stderr.contains(&format!("importing cache manifest from {NAME}")), "{again}");
    assert_eq!(cached(&again).len(), 5, "{again}");
    assert_eq!(result(&other, "again"), made);
    // From now on it is the engine's own.
    assert_eq!(cached(&build(&other, "-t own", &folder)).len(), 5);
    assert_eq!(result(&other, "own"), made);

    // Only what comes after a change is done again.
    fs::write(folder.join("file"), "changed\n").unwrap();
    let changed = build(&other, &format!("--cache-from type=registry,ref={NAME} -t changed"), &folder);
    let steps = cached(&changed);
    assert!(steps.iter().any(|step| step.contains("/first")), "{changed}");
    assert!(!steps.iter().any(|step| step.contains("/second")), "{changed}");
    let text = result(&other, "changed");
    assert!(text.contains("changed") && text.lines().last() == made.lines().last(), "{text}\n{made}");
    assert_eq!(cached(&build(&other, &format!("--no-cache {from} -t anew"), &folder)), Vec::<String>::new());
    assert_eq!(other.stop(), 0);
    drop(registry);
}

#[test]
fn an_image_that_is_here_is_a_cache_without_its_registry() {
    let host = Host::new();
    let folder = folder(&host);
    // As buildx spells it for those who set it in the Dockerfile's arguments.
    build(&host, "--build-arg BUILDKIT_INLINE_CACHE=1 -t made", &folder);
    let made = result(&host, "made");
    let archive = host.folder().join("made.tar").display().to_string();
    host.docker(&["save", "-o", &archive, "made"]).ok();

    let other = fresh(&host, "other");
    other.docker(&["load", "-q", "-i", &archive]).ok();
    let again = build(&other, "--cache-from made --cache-to type=inline -t again", &folder);
    assert_eq!(cached(&again).len(), 5, "{again}");
    assert_eq!(result(&other, "again"), made);
    assert_eq!(other.inspect("again")["RootFS"], other.inspect("made")["RootFS"]);

    // What came from a cache goes on in the next one.
    other.docker(&["save", "-o", &archive, "again"]).ok();
    assert_eq!(other.stop(), 0);
    let third = host.another_engine("third", &[]);
    third.start();
    third.docker(&["load", "-q", "-i", &host.image_archive("busybox:latest", "").display().to_string()]).ok();
    third.docker(&["load", "-q", "-i", &archive]).ok();
    assert_eq!(cached(&build(&third, "--cache-from again -t once-more", &folder)).len(), 5);
    assert_eq!(third.stop(), 0);
}

#[test]
fn stages_are_known_by_what_makes_them() {
    let host = Host::new();
    let dockerfile = "FROM busybox AS tools\nCOPY file /tool\nRUN head -c 16 /dev/urandom | od -x >/id\n\
        FROM busybox AS builder\nWORKDIR /work\n\
        RUN --mount=type=bind,from=tools,target=/t cat /t/id /t/tool >built; head -c 16 /dev/urandom | od -x >>built\n\
        FROM busybox\nCOPY --from=builder /work/built /built\n\
        RUN --mount=type=bind,from=tools,target=/t cat /t/tool >/tool\nCMD cat /built /tool\n";
    let folder = host.folder_with("stages", &[("Dockerfile", dockerfile), ("file", "one\n")]);
    build(&host, "--cache-to type=inline -t made", &folder);
    let made = result(&host, "made");
    let archive = host.folder().join("made.tar").display().to_string();
    host.docker(&["save", "-o", &archive, "made"]).ok();

    let other = fresh(&host, "other");
    other.docker(&["load", "-q", "-i", &archive]).ok();
    // The files of a stage that is not made count, too.
    fs::write(folder.join("file"), "two\n").unwrap();
    let changed = build(&other, "--cache-from made -t changed", &folder);
    assert_eq!(cached(&changed), Vec::<String>::new(), "{changed}");
    let text = result(&other, "changed");
    assert!(text.contains("two") && !text.contains("one"), "{text}");
    fs::write(folder.join("file"), "one\n").unwrap();
    let again = build(&other, "--cache-from made -t again", &folder);
    assert_eq!(cached(&again).len(), 6, "{again}");
    assert_eq!(result(&other, "again"), made);
    assert_eq!(other.stop(), 0);
}

#[test]
fn a_layout_in_a_folder_of_the_client_is_a_cache() {
    let host = Host::new();
    let folder = folder(&host);
    build(&host, "--cache-to type=inline -t made", &folder);
    let made = result(&host, "made");
    let layout = host.folder().join("layout");
    fs::create_dir_all(&layout).unwrap();
    let archive = host.folder().join("made.tar").display().to_string();
    host.docker(&["save", "-o", &archive, "made"]).ok();
    host.exec(&["tar", "-C", &layout.display().to_string(), "-xf", &archive]).ok();
    let index: Value = serde_json::from_slice(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap();

    let other = fresh(&host, "other");
    let from = format!("--cache-from type=local,src={},digest={digest}", layout.display());
    let again = build(&other, &format!("{from} -t again"), &folder);
    assert_eq!(cached(&again).len(), 5, "{again}");
    assert_eq!(result(&other, "again"), made);
    // One that has gone is told, and no more than that.
    let blob = layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
    fs::remove_file(blob).unwrap();
    let without = build(&other, &format!("{from} -t without"), &folder);
    assert!(without.stderr.contains("failed to configure local cache importer"), "{without}");
    assert_eq!(other.stop(), 0);
}

/// Caches in BuildKit's own form know steps by digests of BuildKit's own graph: they are read, and of no use.
#[test]
fn caches_that_buildkit_wrote_for_itself_fail_no_build() {
    const CONFIG: &str = "application/vnd.buildkit.cacheconfig.v0";
    let host = Host::new();
    let folder = folder(&host);
    let layout = host.folder().join("cache");
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let blob = |media_type: &str, content: &Value| {
        let text = content.to_string();
        fs::write(blobs.join("new"), &text).unwrap();
        let sum = host.exec(&["sha256sum", &blobs.join("new").display().to_string()]).ok();
        let sum = sum.out().split(' ').next().unwrap().to_owned();
        fs::rename(blobs.join("new"), blobs.join(&sum)).unwrap();
        json!({ "mediaType": media_type, "digest": format!("sha256:{sum}"), "size": text.len() })
    };
    let mut layer = blob("application/vnd.oci.image.layer.v1.tar", &json!("no archive"));
    let created = "2026-01-02T03:04:05Z";
    layer["annotations"] =
        json!({ "containerd.io/uncompressed": layer["digest"], "buildkit/createdat": created });
    let step = |n: u8| format!("sha256:{n:064}");
    let config = blob(
        CONFIG,
        &json!({
            "layers": [{ "blob": layer["digest"], "parent": -1 }],
            "records": [
                { "digest": step(1) },
                { "digest": step(2), "inputs": [[{ "link": 0 }]], "layers": [{ "layer": 0, "createdAt": created }] },
            ],
        }),
    );
    let (list, manifest) =
        ("application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json");
    let all = json!([layer, config]);
    let forms = [
        blob(list, &json!({ "schemaVersion": 2, "mediaType": list, "manifests": all })),
        blob(
            manifest,
            &json!({ "schemaVersion": 2, "mediaType": manifest, "config": config, "layers": [layer] }),
        ),
    ];
    for form in forms {
        let from = format!("type=local,src={},digest={}", layout.display(), form["digest"].as_str().unwrap());
        host.docker("builder prune -af").ok();
        let built = build(&host, &format!("--cache-from {from} -t x"), &folder);
        assert!(built.stderr.contains("importing cache manifest from local:"), "{built}");
        assert!(!built.stderr.contains("ERROR"), "{built}");
        assert_eq!(cached(&built), Vec::<String>::new());
    }
}

/// dockerd keeps its cache otherwise.
#[test]
fn what_a_crash_left_of_the_cache_goes_at_the_next_start() {
    if wherry_tests::engine::Binary::from_environment().is_reference() {
        return;
    }
    let host = Host::new();
    let text = "FROM busybox\nRUN --mount=type=cache,target=/k ls /k; touch /k/kept\n";
    let mounted = host.folder_with("mounted", &[("Dockerfile", text)]);
    assert!(!build(&host, "", &mounted).stderr.contains(" kept"));
    let data = host.folder().join("engine/data/build");
    let folders = data.join("mounts");
    let names = || {
        let names = fs::read_dir(&folders).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.to_string_lossy().into_owned()).collect::<Vec<_>>()
    };
    let before = names();
    assert_eq!(before.len(), 1, "{before:?}");
    host.kill();
    // A mount that was being begun, one that was being removed, and a context that was being fetched.
    let left = [
        folders.join(format!("{}.0123", before[0])),
        folders.join(".4567"),
        data.join("contexts/0123456789abcdef"),
    ];
    for folder in &left {
        fs::create_dir_all(folder.join("below")).unwrap();
        fs::write(folder.join("below/file"), "left").unwrap();
    }
    host.start();
    wherry_tests::poll("what was left to go", 20, || !left.iter().any(|folder| folder.exists()));
    assert_eq!(names(), before);
    assert!(build(&host, "--no-cache", &mounted).stderr.contains(" kept"));
}

#[test]
fn caches_that_are_of_no_use_fail_no_build() {
    let host = Host::new();
    let folder = folder(&host);
    let fails = |options: &str, why: &str| {
        let built = build(&host, &format!("{options} -t x"), &folder);
        assert!(built.stderr.contains(why), "{options}: {built}");
    };
    fails("--cache-from 127.0.0.1:9/none", "failed to configure registry cache importer");
    fails("--cache-from type=nonsense,x=y", "unknown cache importer: nonsense");
    let nothing = build(&host, "--cache-from busybox -t x", &folder);
    assert!(!nothing.stderr.contains("ERROR"), "{nothing}");
    let refused = |options: &str, why: &str| {
        let line = format!("buildx build {options} {}", folder.display());
        let out = host.docker(&line).exits(1);
        assert!(out.stderr.contains(why), "{options}: {out}");
    };
    let not_here = "Cache export is not supported for the docker driver.";
    refused("--cache-to type=registry,ref=127.0.0.1:9/none", not_here);
    refused(&format!("--cache-to type=local,dest={}/c", host.folder().display()), not_here);
}

#[test]
fn a_cache_is_fetched_as_far_as_it_is_needed_and_checked() {
    let host = Host::new();
    let folder = folder(&host);
    build(&host, "--cache-to type=inline -t made", &folder);
    let archive = host.folder().join("made.tar");
    host.docker(&["save", "-o", &archive.display().to_string(), "made"]).ok();
    let registry = Registry::start(&host, PORT);
    registry.add_archive(&archive, "made", "latest");
    let layers = |registry: &Registry| {
        let mut blobs: Vec<String> =
            registry.requests().into_iter().filter(|line| line.contains("/blobs/")).collect();
        blobs.sort();
        blobs.dedup();
        // The configuration is one of them.
        blobs.len().saturating_sub(1)
    };
    let from = format!("--cache-from {NAME}");

    let other = fresh(&host, "other");
    let dockerfile = DOCKERFILE.replace("head -c 50000", "head -c 50001");
    let changed = host.folder_with("changed", &[("Dockerfile", &dockerfile), ("file", "same\n")]);
    build(&other, &format!("{from} -t x"), &changed);
    assert_eq!(layers(&registry), 0, "nothing fits: {:?}", registry.requests());

    if wherry_tests::engine::Binary::from_environment().is_reference() {
        // The rest is what we promise, whatever others do.
        assert_eq!(other.stop(), 0);
        return;
    }
    registry.set_mood(Mood::Corrupt);
    let spoilt = build(&other, &format!("{from} -t spoilt"), &folder);
    assert!(spoilt.stderr.contains("ERROR: "), "{spoilt}");
    assert!(result(&other, "spoilt").contains("same"), "it was built without the cache");

    other.docker("builder prune -af").ok();
    other.docker("rmi -f x spoilt").ok();
    registry.set_mood(Mood::Honest);
    let honest = build(&other, &format!("{from} -t honest"), &folder);
    assert_eq!(cached(&honest).len(), 5, "{honest}");
    assert_eq!(other.stop(), 0);
}

#[test]
fn bake_and_compose_name_caches() {
    let host = Host::new();
    let registry = Distribution::start(&host, PORT);
    let folder = folder(&host);
    let target = |name: &str, tag: &str, cache: &str| {
        let context = folder.display();
        format!("target \"{name}\" {{\n context = \"{context}\"\n tags = [\"{tag}\"]\n {cache}\n}}\n")
    };
    let bake = target("default", NAME, "cache-to = [\"type=inline\"]")
        + &target("again", "again", &format!("cache-from = [\"type=registry,ref={NAME}\"]"));
    fs::write(folder.join("docker-bake.hcl"), bake).unwrap();
    let compose = format!(
        "services:\n  app:\n    image: composed\n    build:\n      context: .\n      cache_from: [\"{NAME}\"]\n      cache_to: [\"type=inline\"]\n"
    );
    fs::write(folder.join("compose.yaml"), compose).unwrap();
    let file = folder.join("docker-bake.hcl").display().to_string();
    let allow = format!("--allow=fs.read={}", folder.display());
    host.docker(&["buildx", "bake", &allow, "-f", &file]).ok();
    host.docker(&["push", "-q", NAME]).ok();
    let made = result(&host, NAME);

    let other = fresh(&host, "other");
    let baked = other.docker(&["buildx", "bake", &allow, "--progress", "plain", "-f", &file, "again"]).ok();
    assert_eq!(cached(&baked).len(), 5, "{baked}");
    assert_eq!(result(&other, "again"), made);
    other.docker("rmi again").ok();
    other.docker("builder prune -af").ok();
    let project = folder.display().to_string();
    other.docker(&["compose", "--ansi", "never", "--project-directory", &project, "build"]).ok();
    assert_eq!(result(&other, "composed"), made);
    assert_eq!(other.stop(), 0);
    drop(registry);
}
