//! Builds by BuildKit: the stock `docker build`, buildx and Compose, unmodified.

use std::fs;
use std::path::Path;

use serde_json::Value;
use wherry_tests::{Host, Output, poll};

/// `docker build OPTIONS FOLDER`, with its progress as plain text.
pub(crate) fn build(host: &Host, options: &str, folder: &Path) -> Output {
    host.docker(&format!("buildx build --progress plain {options} {}", folder.display()))
}

/// What `docker build -q` prints: the image's id.
fn id(host: &Host, options: &str, folder: &Path) -> String {
    host.docker(&format!("buildx build -q {options} {}", folder.display())).ok().out().to_owned()
}

/// Requires each of these in some line, whatever number its step has.
#[track_caller]
pub(crate) fn has(text: &str, lines: &[&str]) {
    let numbered = |line: &str| {
        line.trim_start_matches(|c: char| c == '#' || c.is_ascii_digit()).trim_start().to_owned()
    };
    for wanted in lines {
        assert!(text.lines().any(|line| numbered(line).contains(wanted)), "no line has {wanted:?}:\n{text}");
    }
}

#[test]
fn a_build_is_shown_cached_and_run() {
    let host = Host::new();
    let folder = host.folder_with("all",
        &[
            (
                "Dockerfile",
                "FROM busybox\nARG WHO=nobody\nRUN echo out; echo err >&2; echo $WHO >/who\nCOPY a.txt sub /data/\n\
                 RUN --mount=type=secret,id=s cat /run/secrets/s; ls /data\nCMD [\"cat\", \"/who\", \"/data/b.txt\"]\n",
            ),
            ("a.txt", "a\n"),
            ("sub/b.txt", "b\n"),
            ("x.key", "no"),
            (".dockerignore", "*.key\n"),
            ("secret", "hidden\n"),
        ],
    );
    let options = format!("-t all --build-arg WHO=me --secret id=s,src={}/secret", folder.display());
    let first = build(&host, &options, &folder).ok();
    has(
        &first.stderr,
        &[
            "[internal] load build definition from Dockerfile",
            "transferring dockerfile:",
            "[internal] load metadata for docker.io/library/busybox:latest",
            "[internal] load .dockerignore",
            "[internal] load build context",
            "2/4] RUN echo out; echo err >&2; echo me >/who",
            "3/4] COPY a.txt sub /data/",
            " out",
            " err",
            " hidden",
            "exporting to image",
            "writing image sha256:",
            "naming to docker.io/library/all",
        ],
    );
    host.docker("run --rm all").prints("me\nb");
    let before = host.inspect("all")["Id"].clone();
    let again = build(&host, &options, &folder).ok();
    let cached = again.stderr.lines().filter(|line| line.ends_with(" CACHED")).count();
    assert_eq!(cached, 3, "{}", again.stderr);
    assert_eq!(host.inspect("all")["Id"], before, "nothing has changed");

    fs::write(folder.join("sub/b.txt"), "changed\n").unwrap();
    build(&host, &options, &folder).ok();
    host.docker("run --rm all").prints("me\nchanged");
    let written = format!("--iidfile {0}/iid --metadata-file {0}/md {options}", host.folder().display());
    let quiet = id(&host, &written, &folder);
    assert_eq!(fs::read_to_string(host.folder().join("iid")).unwrap(), quiet);
    let metadata: Value = serde_json::from_slice(&fs::read(host.folder().join("md")).unwrap()).unwrap();
    assert_eq!(metadata["containerimage.digest"], *quiet);
    assert_eq!(metadata["containerimage.config.digest"], *quiet);
    assert_eq!(metadata["image.name"], "docker.io/library/all");
}

#[test]
fn failures_show_their_place() {
    let host = Host::new();
    let folder = host.folder_with(
        "bad",
        &[
            ("run", "FROM busybox\n\nRUN echo before; exit 3\n"),
            ("copy", "FROM busybox\nCOPY nothere /x\n"),
            ("word", "FROM busybox\nFOO bar\n"),
            ("good", "FROM busybox\nRUN true\n"),
            ("empty", ""),
        ],
    );
    let fails = |file: &str, more: &str| {
        let out = build(&host, &format!("{more} -f {}/{file}", folder.display()), &folder).exits(1);
        out.stderr
    };
    let text = fails("run", "");
    has(&text, &["before", ">>> RUN echo before; exit 3", "run:3"]);
    has(
        &text,
        &[
            "ERROR: failed to build: failed to solve: process \"/bin/sh -c echo before; exit 3\" did not complete successfully: exit code: 3",
        ],
    );
    has(&fails("copy", ""), &[">>> COPY nothere /x", "\"/nothere\": not found"]);
    has(
        &fails("word", ""),
        &[">>> FOO bar", "dockerfile parse error on line 2: unknown instruction: FOO (did you mean FROM?)"],
    );
    has(&fails("good", "--target nothere"), &["target stage \"nothere\" could not be found"]);
    has(&fails("empty", ""), &["failed to solve: the Dockerfile cannot be empty"]);
    has(&fails("good", "--output type=nonsense"), &["exporter \"nonsense\" could not be found"]);
    has(&fails("good", "--platform linux/nonsense/v9/x"), &["ERROR: failed to build"]);
    host.docker("ps -aq").prints("");
}

#[test]
fn results_go_to_the_client() {
    let host = Host::new();
    let folder = host.folder_with(
        "out",
        &[("Dockerfile", "FROM scratch\nCOPY a b/\nCOPY --chmod=750 a /c\n"), ("a", "content")],
    );
    let at = |name: &str| host.folder().join(name);
    let images = || host.docker("images -aq").ok().stdout;
    let before = images();
    build(&host, &format!("--output {}", at("local").display()), &folder).ok();
    assert_eq!(fs::read_to_string(at("local/b/a")).unwrap(), "content");
    let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(at("local/c")).unwrap().permissions());
    assert_eq!(mode & 0o7777, 0o750);
    build(&host, &format!("--output type=tar,dest={}", at("result.tar").display()), &folder).ok();
    let list = host.exec(&format!("tar tf {}", at("result.tar").display())).ok();
    assert_eq!(list.out().lines().collect::<Vec<_>>(), ["b/", "b/a", "c"]);
    build(&host, "--output type=cacheonly", &folder).ok();
    assert_eq!(images(), before);
}

#[test]
fn contexts_come_by_name_and_from_other_builds() {
    let host = Host::new();
    let folder = host.folder_with(
        "named",
        &[
            ("Dockerfile", "FROM busybox\nCOPY --from=other o.txt /\nRUN cat /o.txt\n"),
            ("image", "FROM base\nRUN echo on busybox >/base\n"),
            ("other/o.txt", "from the other\n"),
        ],
    );
    let other = format!("--build-context other={}/other", folder.display());
    has(&build(&host, &other, &folder).ok().stderr, &["[context other] load from client", "from the other"]);
    let image = format!("--build-context base=docker-image://busybox -f {}/image", folder.display());
    build(&host, &image, &folder).ok();
    let bake = "target \"one\" {\n  dockerfile-inline = \"FROM busybox\\nRUN echo first >/one\\n\"\n}\n\
                target \"two\" {\n  dockerfile-inline = \"FROM base\\nRUN cat /one\\n\"\n  tags = [\"two\"]\n  \
                contexts = { base = \"target:one\" }\n}\n";
    fs::write(folder.join("bake.hcl"), bake).unwrap();
    host.docker(&format!("buildx bake --progress plain -f {}/bake.hcl two", folder.display())).ok();
    host.docker("run --rm two cat /one").prints("first");
    let out = host.docker_with_input("buildx build -q -", b"FROM busybox\nRUN true\n");
    assert!(out.ok().out().starts_with("sha256:"));
}

#[test]
fn questions_are_answered_without_a_build() {
    let host = Host::new();
    let folder = host.folder_with(
        "asked",
        &[(
            "Dockerfile",
            "# what it is\nARG WHO=me\nfrom busybox AS first\nARG X=1\nFROM first\nENTRYPOINT ls\n",
        )],
    );
    let check = build(&host, "--check", &folder).exits(1);
    has(
        &check.stdout,
        &["WARNING: JSONArgsRecommended - https://docs.docker.com/go/dockerfile/rule/json-args-recommended/"],
    );
    build(&host, "--call targets", &folder).ok().contains("first");
    build(&host, "--call outline", &folder).ok().contains("BUILD ARG   VALUE   DESCRIPTION");
    host.docker("images -q --filter dangling=true").prints("");
}

#[test]
fn a_build_stays_in_the_history_and_what_it_made_in_the_cache() {
    let host = Host::new();
    let folder = host.folder_with("kept", &[("Dockerfile", "FROM busybox\nRUN echo kept; echo x >/x\n")]);
    build(&host, "", &folder).ok();
    let list = host.docker("buildx history ls --format json").ok();
    let record: Value = serde_json::from_str(list.out().lines().next().unwrap()).unwrap();
    assert_eq!((record["name"].as_str(), record["status"].as_str()), (Some("kept"), Some("Completed")));
    host.docker("buildx history logs").ok().stderr.contains("kept").then_some(()).unwrap();
    host.docker("buildx history inspect").contains("Build Steps:");
    host.docker("buildx du --verbose").contains("echo kept").contains("Reclaimable:");
    host.docker("buildx prune -af").contains("Total:");
    let anew = build(&host, "", &folder).ok();
    assert!(anew.stderr.lines().any(|line| line.ends_with(" kept")), "{}", anew.stderr);
    host.docker("buildx history rm --all").ok();
    assert_eq!(host.docker("buildx history ls --format json").ok().out(), "");
    host.docker("buildx inspect").contains("Driver:").contains("linux/amd64");
    host.docker("buildx ls").contains("default*");
}

/// How many bytes the context took, as the client was told.
fn transferred(build: &Output) -> f64 {
    let told = build.stderr.rsplit("transferring context: ").next().expect("a context was sent");
    let size = told.split_whitespace().next().expect("how much");
    let (number, unit) = size.split_at(size.find(|c: char| c.is_ascii_alphabetic()).expect("a unit"));
    let factor = match unit {
        "B" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        other => panic!("{other}: {build}"),
    };
    number.parse::<f64>().expect("a number") * factor
}

#[test]
fn only_what_has_changed_travels() {
    let host = Host::new();
    let large = "0123456789abcdef".repeat(1 << 16);
    let files = [
        ("Dockerfile", "FROM busybox\nCOPY . /c\n"),
        ("large", &large),
        ("sub/small", "one"),
        ("sub/other", "x"),
    ];
    let folder = host.folder_with("sent", &files);
    let sent = |options: &str| transferred(&build(&host, &format!("-t sent {options}"), &folder).ok());
    assert!(sent("") > 1e6);
    assert!(sent("--no-cache") < 1e3, "nothing has changed");
    fs::write(folder.join("sub/small"), "two").unwrap();
    assert!(sent("") < 1e3);
    host.docker("run --rm sent cat /c/sub/small").prints("two");
    let used = host.docker("buildx du --verbose").ok();
    assert!(
        used.stdout.contains("source.local") && used.stdout.contains("local source for context"),
        "{used}"
    );
    host.docker("buildx prune -af").ok();
    assert!(!host.docker("buildx du --verbose").ok().stdout.contains("source.local"));
    assert!(sent("") > 1e6, "it was given back");
    host.docker("run --rm sent cat /c/sub/small").prints("two");
}

#[test]
fn what_was_sent_becomes_what_the_client_has_now() {
    let host = Host::new();
    let folder = host.folder_with(
        "moving",
        &[
            ("Dockerfile", "FROM busybox\nCOPY . /c\n"),
            ("removed", "x"),
            ("before", "renamed"),
            ("to-folder", "x"),
            ("to-file/inner/x", "x"),
            ("to-link", "x"),
            ("from-link", "aim"),
            ("mode", "x"),
            ("same-size", "old"),
            ("older", "new text"),
            ("first", "linked"),
            ("gone/deep/er", "x"),
        ],
    );
    let at = |name: &str| folder.join(name);
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, at(name)).unwrap();
    link("first", "link");
    fs::hard_link(at("first"), at("second")).unwrap();
    // What the image has, told by the image; the same files through the other door are what it should be.
    let script = "cd /c && find . | sort | while read -r f; do stat -c '%n %F %a %u %g' \"$f\"; \
                  [ -d \"$f\" ] || stat -c '%s %Y' \"$f\"; [ ! -L \"$f\" ] || readlink \"$f\"; \
                  [ ! -f \"$f\" ] || cat \"$f\"; done";
    let picture = |image: &str| host.docker(&["run", "--rm", image, "sh", "-c", script]).ok().stdout;
    let compare = || {
        build(&host, "-t kept", &folder).ok();
        let mut command = host.docker_command(&format!("build --no-cache -t anew {}", folder.display()));
        command.env("DOCKER_BUILDKIT", "0");
        Output::of(command).ok();
        let picture_of_kept = picture("kept");
        assert_eq!(picture_of_kept, picture("anew"));
        picture_of_kept
    };
    let before = compare();
    let replace = |name: &str| {
        if at(name).is_dir() {
            fs::remove_dir_all(at(name)).unwrap()
        } else {
            fs::remove_file(at(name)).unwrap()
        }
    };
    let touch =
        |name: &str, time: &str| host.exec(&["touch", "-h", "-d", time, at(name).to_str().unwrap()]).ok();
    for name in ["removed", "to-folder", "to-file", "to-link", "from-link", "link", "gone"] {
        replace(name);
    }
    fs::rename(at("before"), at("after")).unwrap();
    fs::create_dir(at("to-folder")).unwrap();
    fs::write(at("to-folder/x"), "now below").unwrap();
    fs::write(at("to-file"), "now a file").unwrap();
    link("mode", "to-link");
    fs::write(at("from-link"), "aim").unwrap();
    link("after", "link");
    fs::set_permissions(at("mode"), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
    fs::write(at("same-size"), "NEW").unwrap();
    fs::write(at("older"), "old text").unwrap();
    touch("older", "2001-02-03 04:05:06");
    // Two files now, where there was one with two names.
    replace("second");
    fs::write(at("second"), "by itself").unwrap();
    let after = compare();
    assert_ne!(after, before);
    // A link that leads elsewhere, with the size and the time of the one before.
    touch("link", "2001-02-03 04:05:06");
    build(&host, "", &folder).ok();
    replace("link");
    link("older", "link");
    touch("link", "2001-02-03 04:05:06");
    assert!(compare().contains("\nolder\n"));
}

#[test]
fn a_client_that_vanishes_takes_its_build_along() {
    let host = Host::new();
    let folder = host.folder_with("endless", &[("Dockerfile", "FROM busybox\nRUN echo begun; sleep 4711\n")]);
    let mut session = host.docker_session(&format!("buildx build --progress plain {}", folder.display()));
    let sleeps = || {
        host.processes()
            .iter()
            .any(|(_, command)| command.contains("sleep 4711") && !command.contains("docker"))
    };
    poll("the step to run", 60, sleeps);
    session.signal(rustix::process::Signal::INT);
    session.wait_for_end();
    poll("the step to end", 30, || !sleeps());
}

/// dockerd has no monitors.
#[test]
fn a_step_does_not_go_on_without_its_monitor() {
    if wherry_tests::engine::Binary::from_environment().is_reference() {
        return;
    }
    let host = Host::new();
    let folder = host.folder_with("orphan", &[("Dockerfile", "FROM busybox\nRUN echo begun; sleep 4712\n")]);
    let mut session = host.docker_session(&format!("buildx build --progress plain {}", folder.display()));
    let found = |what: &str| {
        let all = host.processes();
        all.into_iter().find(|(_, command)| command.contains(what) && !command.contains("docker"))
    };
    poll("the step to run", 60, || found("sleep 4712").is_some());
    let (monitor, _) = found("wherry-monitor").unwrap();
    let monitor = rustix::process::Pid::from_raw(monitor.cast_signed()).unwrap();
    rustix::process::kill_process(monitor, rustix::process::Signal::KILL).unwrap();
    session.wait_for_end();
    poll("the step to end", 30, || found("sleep 4712").is_none());
}

#[test]
fn connections_are_taken_over_for_h2c_only() {
    let host = Host::new();
    host.api("POST", "/grpc", &Value::Null)
        .expect(500)
        .message()
        .eq("no upgrade proto in request")
        .then_some(())
        .unwrap();
    host.api("POST", "/session", &Value::Null)
        .expect(400)
        .message()
        .eq("no upgrade proto in request")
        .then_some(())
        .unwrap();
    for (path, status) in [("/grpc", 500), ("/session", 400)] {
        let upgrade = [("Connection", "Upgrade"), ("Upgrade", "tcp")];
        let refused = host.connect().request("POST", path, &upgrade, b"").expect(status);
        assert_eq!(refused.message(), "protocol tcp not supported");
    }
    assert_eq!(host.connect().request("GET", "/_ping", &[], b"").header("builder-version"), "2");
}

#[test]
fn what_is_left_out_is_told() {
    let host = Host::new();
    if wherry_tests::engine::Binary::from_environment().is_reference() {
        return;
    }
    let folder = host.folder_with("asks", &[("Dockerfile", "FROM busybox\nRUN true\n")]);
    let told = build(&host, "--build-arg BUILDKIT_SANDBOX_HOSTNAME=x", &folder).ok();
    assert!(
        told.stderr.contains("not supported, and left out: build-arg:BUILDKIT_SANDBOX_HOSTNAME"),
        "{told}"
    );
    assert!(!build(&host, "", &folder).ok().stderr.contains("left out"));
}

#[test]
fn an_archive_is_unpacked_or_not_whatever_was_done_with_it_before() {
    let host = Host::new();
    let folder = host.folder_with("ways", &[("f", "content\n")]);
    let mut tar = tar::Builder::new(fs::File::create(folder.join("a.tar")).unwrap());
    tar.append_path_with_name(folder.join("f"), "in").unwrap();
    tar.finish().unwrap();
    let result = |line: &str| {
        fs::write(folder.join("Dockerfile"), format!("FROM scratch\n{line}\n")).unwrap();
        let out = host.folder().join("result");
        build(&host, &format!("--output {}", out.display()), &folder).ok();
        let names = fs::read_dir(out.join("x")).unwrap().map(|entry| entry.unwrap().file_name());
        let names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
        fs::remove_dir_all(&out).unwrap();
        names
    };
    assert_eq!(result("ADD a.tar /x/"), ["in"]);
    assert_eq!(result("ADD --unpack=false a.tar /x/"), ["a.tar"]);
}

#[test]
fn cached_folders_are_named_twice_locked_and_begun_with_files() {
    let host = Host::new();
    let mount = |target: &str| format!("--mount=type=cache,id=same,sharing=locked,target={target}");
    let dockerfile = format!(
        "FROM busybox\nRUN {} {} touch /a/x && ls /b\n\
         RUN --mount=type=cache,id=begun,from=other,target=/c cat /c/o.txt; touch /c/more\n\
         RUN --mount=type=cache,id=begun,target=/c echo others: $(ls /c)\n\
         RUN --mount=type=cache,id=begun,from=other,target=/c echo again: $(ls /c)\n\
         COPY . /all\n\
         RUN --mount=type=bind,source=app/[slug],target=/s ls /s\n",
        mount("/a"),
        mount("/b")
    );
    let files =
        [("Dockerfile", dockerfile.as_str()), ("other/o.txt", "of a context\n"), ("app/[slug]/page", "")];
    let folder = host.folder_with("caches", &files);
    let options = format!("--build-context other={}/other", folder.display());
    let text = build(&host, &options, &folder).ok().stderr;
    has(&text, &[" x", " of a context", " again: more o.txt", " page"]);
    assert!(text.lines().any(|line| line.ends_with(" others:")), "{text}");
}

/// dockerd leaves them running.
#[test]
fn an_engine_that_is_told_to_end_ends_its_steps() {
    if wherry_tests::engine::Binary::from_environment().is_reference() {
        return;
    }
    let host = Host::new();
    let folder = host.folder_with("ended", &[("Dockerfile", "FROM busybox\nRUN echo begun; sleep 4712\n")]);
    let mut session = host.docker_session(&format!("buildx build --progress plain {}", folder.display()));
    let sleeps = || {
        let is_step = |command: &str| command.contains("sleep 4712") && !command.contains("docker");
        host.processes().iter().any(|(_, command)| is_step(command))
    };
    poll("the step to run", 60, sleeps);
    assert_eq!(host.stop(), 0);
    poll("the step to end", 10, || !sleeps());
    session.wait_for_end();
    host.start();
}
