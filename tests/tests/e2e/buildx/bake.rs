//! `docker buildx bake`.

use std::fs;

use serde_json::Value;
use wherry_tests::{Host, Output};

use crate::buildkit::has;

const FILE: &str = r#"
variable "TAG" { default = "t1" }
variable "LIST" { default = ["a", "b"] }
function "up" {
  params = [x]
  result = upper(x)
}
group "default" { targets = ["app", "mx"] }
target "base" {
  dockerfile-inline = "FROM busybox\nARG A=0\nARG B=0\nRUN echo A=$A B=$B >/v\n"
  args = { A = "1" }
  labels = { l1 = "base" }
}
target "app" {
  inherits = ["base"]
  args = { B = up("x${TAG}") }
  tags = ["bake-app:${TAG}"]
  labels = { l2 = "app" }
}
target "mx" {
  inherits = ["base"]
  name = "mx-${item}-${replace(v, ".", "-")}"
  matrix = {
    item = LIST
    v = ["1.0", "2.0"]
  }
  args = { A = item, B = v }
  tags = ["bake-mx:${item}-${v}"]
}
target "dep" {
  contexts = {
    app = "target:app"
    here = "."
  }
  dockerfile-inline = "FROM app\nCOPY --from=here f /\nRUN cat /v /f >/both\n"
  tags = ["bake-dep"]
}
target "out" {
  inherits = ["base"]
  output = ["type=local,dest=bo"]
}
target "secret" {
  dockerfile-inline = "FROM busybox\nRUN --mount=type=secret,id=s cat /run/secrets/s\n"
  secret = ["id=s,src=f"]
  no-cache = true
}
target "stages" {
  dockerfile-inline = "FROM busybox AS x\nRUN echo x >/x\nFROM busybox AS y\nCOPY --from=x /x /y\n"
  name = "stages-${tgt}"
  matrix = { tgt = ["x", "y"] }
  target = tgt
  tags = ["bake-stages:${tgt}"]
}
target "limited" {
  dockerfile-inline = "FROM busybox\nRUN ls /sys/class/net; ulimit -n; df -k /dev/shm | tail -1; cat /etc/hosts\n"
  shm-size = "16m"
  ulimits = ["nofile=100:200"]
  extra-hosts = { eh = "1.2.3.4" }
  network = "none"
}
group "mixed" { targets = ["app", "bad"] }
target "bad" { dockerfile-inline = "FROM busybox\nRUN exit 4\n" }
"#;

#[test]
fn targets_are_baked() {
    let host = Host::new();
    let folder = host.folder_with("bake", &[("docker-bake.hcl", FILE), ("f", "file\n")]);
    let bake_with = |arguments: &str, variables: &[(&str, &str)]| {
        let mut command = host.docker_command(&format!("buildx bake --progress plain {arguments}"));
        command.current_dir(&folder).envs(variables.iter().copied());
        Output::of(command)
    };
    let bake = |arguments: &str| bake_with(arguments, &[]);
    bake("--no-cache").ok();
    let of = |image: &str| host.docker(&format!("run --rm {image} cat /v")).ok().out().to_owned();
    assert_eq!(of("bake-app:t1"), "A=1 B=XT1");
    for (image, expect) in
        [("a-1.0", "A=a B=1.0"), ("a-2.0", "A=a B=2.0"), ("b-1.0", "A=b B=1.0"), ("b-2.0", "A=b B=2.0")]
    {
        assert_eq!(of(&format!("bake-mx:{image}")), expect);
    }
    let labels = host.inspect("bake-app:t1")["Config"]["Labels"].clone();
    assert_eq!(labels, serde_json::json!({"l1": "base", "l2": "app"}));
    let told = bake("--no-cache dep").ok().stderr;
    has(&told, &["[dep stage-0 1/3] COPY --from=here f /", "[dep stage-0 2/3] RUN cat /v /f"]);
    host.docker("run --rm bake-dep cat /both").prints("A=1 B=XT1\nfile");
    bake("--allow fs.write=bo out").ok();
    assert_eq!(fs::read_to_string(folder.join("bo/v")).unwrap(), "A=1 B=0\n");
    has(&bake("--allow fs.read=f secret").ok().stderr, &[" file"]);
    bake("--set app.args.A=9 --set *.tags=bake-set app").ok();
    assert_eq!(of("bake-set"), "A=9 B=XT1");
    bake_with("app", &[("TAG", "env")]).ok();
    assert_eq!(of("bake-app:env"), "A=1 B=XENV");
    bake("stages").ok();
    host.docker("run --rm bake-stages:y cat /y").prints("x");
    has(&bake("--no-cache limited").ok().stderr, &[" lo", " 100", " 16384 ", "1.2.3.4\teh"]);
    bake("--metadata-file md app").ok();
    let metadata: Value = serde_json::from_slice(&fs::read(folder.join("md")).unwrap()).unwrap();
    assert_eq!(metadata["app"]["image.name"], "docker.io/library/bake-app:t1");
    assert_eq!(metadata["app"]["containerimage.digest"], host.inspect("bake-app:t1")["Id"]);
    has(&bake("--check app").ok().stdout, &["Check complete, no warnings found."]);
    has(&bake("nosuch").exits(1).stderr, &["ERROR: failed to find target nosuch"]);
    let told = bake("mixed").exits(1).stderr;
    has(
        &told,
        &[
            "target bad: failed to solve: process \"/bin/sh -c exit 4\" did not complete successfully: exit code: 4",
        ],
    );
}

#[test]
fn services_of_compose_are_baked() {
    let host = Host::new();
    let file = "services:\n  web:\n    build:\n      context: .\n      dockerfile_inline: \"FROM busybox\\nARG Q\\nRUN echo q=$$Q\\n\"\n      args: {Q: \"5\"}\n    image: bake-compose\n";
    let folder = host.folder_with("compose", &[("compose.yaml", file)]);
    let mut command = host.docker_command("buildx bake --progress plain --no-cache");
    command.current_dir(&folder);
    has(&Output::of(command).ok().stderr, &[" q=5"]);
    assert!(host.inspect("bake-compose")["Id"].is_string());
}
