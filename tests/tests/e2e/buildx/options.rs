//! Networks, limits, platforms, times and rights of a build.

use wherry_tests::Host;

use super::{build, classic, dockerfile, has_not};
use crate::buildkit::has;

#[test]
fn steps_know_their_own_names_in_any_network() {
    let host = Host::new();
    let text = "FROM busybox\nRUN ls /sys/class/net | tr '\\n' ' '; grep -v '::' /etc/hosts; hostname; ping -c 1 -W 1 buildkitsandbox | head -1\n";
    let run = |name: &str, options: &str| dockerfile(&host, name, options, text).ok().stderr;
    for (name, options) in
        [("default", ""), ("none", "--network none"), ("host", "--network host --allow network.host")]
    {
        let told = run(name, options);
        has(&told, &["127.0.0.1\tlocalhost buildkitsandbox", "PING buildkitsandbox (127.0.0.1)"]);
        has_not(&told, "172.17.0.");
    }
    has(&run("none", "--network none"), &[" lo 127.0.0.1"]);
    has(&run("host", "--network host --allow network.host"), &["docker0"]);
    let hosts =
        "--add-host one:10.1.2.3 --add-host six:::1 --add-host two=10.1.2.4 --add-host gw:host-gateway";
    let text = "FROM busybox\nRUN cat /etc/hosts\n";
    let told = dockerfile(&host, "hosts", hosts, text).ok().stderr;
    has(&told, &["10.1.2.3\tone", "10.1.2.4\ttwo", "::1\tsix", "172.17.0.1\tgw"]);
    let told = dockerfile(&host, "bad", "--add-host one:nowhere", text).exits(1).stderr;
    has(&told, &["ERROR: failed to build: invalid host one:nowhere"]);
}

/// What the client has not allowed is refused before anything is done.
#[test]
fn rights_are_asked_for_first() {
    let host = Host::new();
    let text = "FROM busybox\nRUN echo begun\nRUN --network=host ls /sys/class/net\nRUN --network=none ls /sys/class/net\n";
    let told = dockerfile(&host, "no", "", text).exits(1).stderr;
    has(&told, &["ERROR: failed to build: failed to solve: failed to load LLB: network.host is not allowed"]);
    has_not(&told, " begun");
    has(&dockerfile(&host, "yes", "--allow network.host", text).ok().stderr, &["docker0"]);
    let told = dockerfile(&host, "insecure", "--allow security.insecure", "FROM busybox\nRUN true\n")
        .exits(1)
        .stderr;
    has(&told, &["granting entitlement security.insecure is not allowed by build daemon configuration"]);
}

#[test]
fn limits_are_the_steps() {
    let host = Host::new();
    let text = "FROM busybox\nRUN ulimit -n; ulimit -Hn; df -k /dev/shm | tail -1; sed 's/:[^:]*$/ &/' /proc/self/cgroup | head -2\n";
    let options = "--ulimit nofile=123:456 --shm-size 8m --cgroup-parent /doors-x";
    let told = dockerfile(&host, "limits", options, text).ok().stderr;
    has(&told, &[" 123", " 456", " 8192 ", "/doors-x/"]);
}

/// What a step builds in a tmpfs it runs there, too.
#[test]
fn mounts_are_for_programs() {
    let host = Host::new();
    let text = "FROM busybox
RUN --mount=type=tmpfs,target=/t,size=4m df -k /t | tail -1; grep ' /t ' /proc/mounts; cp /bin/busybox /t/true && /t/true && echo ran
RUN --mount=type=cache,target=/k,mode=0700,uid=33,gid=34 stat -c 'cache %a %u %g' /k; touch /k/a
RUN --mount=type=cache,target=/k,mode=0700,uid=33,gid=34,ro echo has $(ls /k); touch /k/b || echo read-only
RUN --mount=type=bind,target=/b,rw touch /b/x; echo with $(ls -A /b)
RUN --mount=type=bind,target=/b echo without $(ls -A /b)
WORKDIR /wd
RUN --mount=target=rel ls -A /wd/rel
RUN --mount=type=bind,source=Dockerfile,target=/x/y/z cat /x/y/z >/dev/null
RUN echo left $(ls -A / /wd)
";
    let told = dockerfile(&host, "m", "", text).ok().stderr;
    let seen = [
        " 4096 ",
        " ran",
        "cache 700 33 34",
        " has a",
        "read-only",
        "with Dockerfile x",
        "without Dockerfile",
    ];
    has(&told, &seen);
    has_not(&told, "noexec,relatime,size=4096k");
    let left = told.lines().find(|line| line.contains(" left /:")).unwrap();
    assert!(!left.contains(" x ") && left.ends_with("/wd:"), "{left}");
}

#[test]
fn programs_that_cannot_run_fail_as_programs() {
    let host = Host::new();
    for (name, text, lines) in [
        (
            "none",
            "FROM busybox\nRUN [\"/nosuch\"]\n",
            [
                "exec: \"/nosuch\": stat /nosuch: no such file or directory",
                "failed to solve: process \"/nosuch\" did not complete successfully: exit code: 1",
            ],
        ),
        (
            "scratch",
            "FROM scratch\nRUN true\n",
            [
                "exec: \"/bin/sh\": stat /bin/sh: no such file or directory",
                "failed to solve: process \"/bin/sh -c true\" did not complete successfully: exit code: 1",
            ],
        ),
        (
            "user",
            "FROM busybox\nUSER nosuch\nRUN id\n",
            [
                ">>> RUN id",
                "failed to solve: process \"/bin/sh -c id\" did not complete successfully: unable to find user nosuch: no matching entries in passwd file",
            ],
        ),
    ] {
        has(&dockerfile(&host, name, "", text).exits(1).stderr, &lines);
    }
    let told = dockerfile(&host, "image", "", "FROM 127.0.0.1:9/x\n").exits(1).stderr;
    has(
        &told,
        &["failed to solve: 127.0.0.1:9/x: failed to resolve source metadata for 127.0.0.1:9/x:latest: "],
    );
}

#[test]
fn images_are_for_other_platforms_and_times() {
    let host = Host::new();
    let scratch = "FROM scratch\nCOPY Dockerfile /\nARG TARGETPLATFORM\nENV T=$TARGETPLATFORM\n";
    let of = |image: &str| {
        let shown = host.inspect(image);
        let text = |name: &str| shown[name].as_str().unwrap_or_default().to_owned();
        [
            text("Os"),
            text("Architecture"),
            text("Variant"),
            shown["Config"]["Env"][1].as_str().unwrap_or_default().to_owned(),
        ]
    };
    dockerfile(&host, "v7", "--platform linux/arm/v7 -t p", scratch).ok();
    assert_eq!(of("p"), ["linux", "arm", "v7", "T=linux/arm/v7"]);
    let told = dockerfile(&host, "w", "--platform windows/amd64", scratch).exits(1).stderr;
    has(&told, &["ERROR: failed to build: failed to solve: operating system is not supported"]);
    let folder = host.folder_with("c", &[("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n")]);
    classic(&host, "--platform linux/amd64 -t a", &folder, b"").ok();
    classic(&host, "--platform linux/arm64 -t p", &folder, b"").ok();
    assert_eq!(of("p")[1], "arm64");
    let cross = "FROM --platform=$BUILDPLATFORM busybox AS b\nARG TARGETARCH BUILDARCH\nRUN echo $BUILDARCH to $TARGETARCH\nFROM scratch\nCOPY --from=b /bin/busybox /\n";
    let told = dockerfile(&host, "x", "--platform linux/s390x", cross).ok().stderr;
    has(&told, &[" to s390x"]);

    let text = "FROM busybox\nARG SOURCE_DATE_EPOCH\nRUN echo epoch=$SOURCE_DATE_EPOCH\nWORKDIR /wd/sub\nLABEL a=b\n";
    let told = dockerfile(&host, "e", "-t e --build-arg SOURCE_DATE_EPOCH=1000000000", text).ok().stderr;
    has(&told, &["epoch=1000000000"]);
    assert_eq!(host.inspect("e")["Created"], "2001-09-09T01:46:40Z");
    let history = host.docker("history e --no-trunc --format {{.CreatedAt}}").ok().stdout;
    assert_eq!(history.matches("2001-09-09T01:46:40Z").count(), 4, "{history}");
    host.docker("run --rm e stat -c %Y /wd/sub").prints("1000000000");
    let told = dockerfile(&host, "b", "--build-arg SOURCE_DATE_EPOCH=x", text).exits(1).stderr;
    has(&told, &["invalid SOURCE_DATE_EPOCH: x: strconv.ParseInt: parsing \"x\": invalid syntax"]);
}

#[test]
fn stages_are_built_anew() {
    let host = Host::new();
    let text = "FROM busybox AS one\nRUN cat /proc/sys/kernel/random/uuid >/1\nFROM busybox AS two\nRUN cat /proc/sys/kernel/random/uuid >/2\nFROM busybox\nCOPY --from=one /1 /\nCOPY --from=two /2 /\n";
    let folder = host.folder_with("n", &[("Dockerfile", text)]);
    let values = |options: &str| {
        build(&host, &format!("-t n {options}"), &folder).ok();
        let read = |file: &str| host.docker(&format!("run --rm n cat /{file}")).ok().out().to_owned();
        (read("1"), read("2"))
    };
    let first = values("");
    assert_eq!(values("--no-cache-filter nosuch"), first);
    assert_eq!(values("--no-cache-filter 0"), first, "stages have names");
    let second = values("--no-cache-filter ONE");
    assert!(second.0 != first.0 && second.1 == first.1);
    let third = values("--no-cache-filter one,two");
    assert!(third.0 != second.0 && third.1 != second.1);
}

/// What the docker driver of buildx does not do, it says itself; the engine has what it asks for.
#[test]
fn labels_and_annotations_are_taken() {
    let host = Host::new();
    let text = "FROM busybox\nLABEL own=1 both=file\n";
    dockerfile(&host, "l", "-t l --label x=1 --label both=cli --label y --annotation a=b", text).ok();
    let labels = host.inspect("l")["Config"]["Labels"].clone();
    assert_eq!(labels, serde_json::json!({"both": "cli", "own": "1", "x": "1", "y": ""}));
    for options in ["--provenance=true", "--sbom=true", "--attest type=provenance,mode=max"] {
        let told = dockerfile(&host, "a", options, text).exits(1).stderr;
        has(&told, &["Attestation is not supported for the docker driver."]);
    }
}

/// The classic builder comes to a step before it refuses it, and reads its parameters as dockerd does.
#[test]
fn the_classic_builder_refuses_at_the_step() {
    let host = Host::new();
    let told = |name: &str, text: &str| {
        let folder = host.folder_with(name, &[("Dockerfile", text), ("f", "")]);
        classic(&host, "--no-cache", &folder, b"").exits(1)
    };
    let refused =
        told("mount", "FROM busybox\nRUN echo first\nRUN --mount=type=cache,target=/x true\nRUN echo last\n");
    assert!(
        refused.stdout.contains("\nfirst\n") && refused.stdout.contains("Step 3/4 : RUN --mount"),
        "{refused}"
    );
    has(&refused.stderr, &["the --mount option requires BuildKit."]);
    let refused = told("chmod", "FROM busybox\nCOPY --chmod=755 f /\n");
    assert!(refused.stdout.contains("Step 2/2 : COPY --chmod"), "{refused}");
    has(&refused.stderr, &["the --chmod option requires BuildKit."]);
    let post = |query: &str| crate::build::build(&host, query, "FROM busybox\nRUN echo said\n");
    assert_eq!(post("securityopt=a").expect(400).message(), "security options are not supported on linux");
    let refused = post("shmsize=x").expect(500);
    assert_eq!(refused.message(), "strconv.ParseInt: parsing \"x\": invalid syntax");
    let refused = post("ulimits=x").expect(400).message().to_owned();
    assert!(refused.starts_with("error reading ulimit settings: invalid character 'x'"), "{refused}");
    assert!(post("memory=x&cpushares=y&nocache=1").expect(200).text().contains("said"));
}

/// A program's output is passed on as it is.
#[test]
fn output_is_whole() {
    let host = Host::new();
    let text = "FROM busybox\nRUN for i in $(seq 3); do echo out$i; echo err$i >&2; done; cat; printf 'no newline'\n";
    let folder = host.folder_with("o", &[("Dockerfile", text)]);
    let raw = host.docker(&format!("buildx build --no-cache --progress rawjson {}", folder.display())).ok();
    let mut logs = String::new();
    for line in raw.stderr.lines() {
        let message: serde_json::Value = serde_json::from_str(line).unwrap();
        for log in message["logs"].as_array().into_iter().flatten() {
            use base64::Engine as _;
            let data = log["data"].as_str().unwrap_or_default();
            let bytes = base64::engine::general_purpose::STANDARD.decode(data).unwrap();
            logs.push_str(&String::from_utf8(bytes).unwrap());
        }
    }
    for part in ["out1\n", "out3\n", "err1\n", "err3\n", "no newline"] {
        assert!(logs.contains(part), "{part}: {logs:?}");
    }
}
