//! COPY and ADD by the classic builder.

use wherry_tests::Host;

use super::{build, context, failure, messages, output, post, text};

/// `stat` of files, a line each.
fn stats(host: &Host, image: &str, paths: &str) -> Vec<String> {
    let script = format!("stat -c '%n %A %u:%g %h' {paths}");
    output(host, image, &script).lines().map(str::to_owned).collect()
}

#[test]
fn files_come_as_they_are_but_belong_to_root() {
    let host = Host::new();
    let dockerfile = "FROM busybox\nCOPY d /new\nCOPY d/f /n1/n2/f\nCOPY d/f top /many/\nCOPY d/f /etc\nCOPY link /followed\nCOPY --chown=3:4 d /own/deep\n\
                      COPY --chown=9 top /own9\nCOPY --chown=nobody top /own-nobody\nRUN ln -s /etc /lnk\nCOPY top /lnk/thing\nCOPY d/s* /star/\nWORKDIR /w\nCOPY top .\nCOPY top rel/\n";
    let files: super::Files<'_> = &[
        ("Dockerfile", 0o644, dockerfile),
        ("top", 0o640, "x"),
        ("d/", 0o700, ""),
        ("d/f", 0o600, "f"),
        ("d/l -> f", 0o777, ""),
        ("d/sub/", 0o711, ""),
        ("d/sub/g", 0o755, "g"),
        ("link -> d/f", 0o777, ""),
    ];
    let answer = post(&host, "t=made", &context(files)).expect(200);
    assert!(text(&answer).contains("Successfully built"), "{}", answer.text());
    let paths = "/new /new/f /new/l /new/sub /new/sub/g /n1 /n1/n2/f /many/top /etc/f /followed /own /own/deep /own/deep/f \
                 /own9 /own-nobody /etc/thing /star /star/g /w/top /w/rel/top";
    let expect = [
        "/new drwxr-xr-x 0:0 3",
        "/new/f -rw------- 0:0 1",
        "/new/l lrwxrwxrwx 0:0 1",
        "/new/sub drwx--x--x 0:0 2",
        "/new/sub/g -rwxr-xr-x 0:0 1",
        "/n1 drwxr-xr-x 0:0 3",
        "/n1/n2/f -rw------- 0:0 1",
        "/many/top -rw-r----- 0:0 1",
        "/etc/f -rw------- 0:0 1",
        "/followed -rw------- 0:0 1",
        "/own drwxr-xr-x 0:0 3",
        "/own/deep drwxr-xr-x 3:4 3",
        "/own/deep/f -rw------- 3:4 1",
        "/own9 -rw-r----- 9:9 1",
        "/own-nobody -rw-r----- 65534:65534 1",
        "/etc/thing -rw-r----- 0:0 1",
        "/star drwxr-xr-x 0:0 2",
        "/star/g -rwxr-xr-x 0:0 1",
        "/w/top -rw-r----- 0:0 1",
        "/w/rel/top -rw-r----- 0:0 1",
    ];
    assert_eq!(stats(&host, "made", paths), expect);
    assert_eq!(
        output(&host, "made", "stat -c %Y /new/f /new/sub /w/top"),
        "1000000000\n1000000000\n1000000000"
    );
}

#[test]
fn files_of_stages_and_images_keep_their_owners() {
    let host = Host::new();
    let dockerfile = "FROM busybox AS a\nRUN mkdir -p /o/p; echo x >/o/p/f; chown -R 7:8 /o/p; chmod 750 /o/p; ln -s /o/p /o/l\n\
                      FROM busybox\nCOPY --from=a /o /o2\nCOPY --from=0 --chown=1:2 /o/p/f /f\nCOPY --from=busybox /etc/passwd /pw\n";
    build(&host, "t=made", dockerfile).expect(200);
    let expect =
        ["/o2 drwxr-xr-x 0:0 3", "/o2/p drwxr-x--- 7:8 2", "/o2/p/f -rw-r--r-- 7:8 1", "/f -rw-r--r-- 1:2 1"];
    assert_eq!(stats(&host, "made", "/o2 /o2/p /o2/p/f /f"), expect);
    assert_eq!(output(&host, "made", "readlink /o2/l; cmp /pw /etc/passwd && echo same"), "/o/p\nsame");
}

#[test]
fn archives_are_unpacked_by_add_alone() {
    let host = Host::new();
    let archive = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, &context(&[("in/", 0o700, ""), ("in/f", 0o600, "in")]))
            .unwrap();
        encoder.finish().unwrap()
    };
    let mut tar = tar::Builder::new(Vec::new());
    let dockerfile = "FROM busybox\nADD a.tgz /add\nCOPY a.tgz /copy\nADD f /plain\nADD a.tgz f /both/\n";
    for (name, bytes) in [("Dockerfile", dockerfile.as_bytes()), ("a.tgz", &archive), ("f", b"no archive")] {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, name, bytes).unwrap();
    }
    let answer = post(&host, "t=made", &tar.into_inner().unwrap()).expect(200);
    assert!(text(&answer).contains("Successfully built"), "{}", answer.text());
    let expect =
        ["/add drwxr-xr-x 0:0 3", "/add/in drwx------ 1234:4321 2", "/add/in/f -rw------- 1234:4321 1"];
    assert_eq!(stats(&host, "made", "/add /add/in /add/in/f"), expect);
    assert_eq!(
        output(&host, "made", "cat /plain; [ -f /copy ] && echo; echo /both/*"),
        "no archive\n/both/f /both/in"
    );
}

#[test]
fn what_cannot_be_copied_is_told() {
    let host = Host::new();
    let check = |dockerfile: &str, expect: &str| {
        let answer = build(&host, "", &format!("FROM busybox\n{dockerfile}\n")).expect(200);
        assert_eq!(failure(&answer).0, expect, "{dockerfile}");
    };
    check(
        "COPY nothere /x",
        "COPY failed: file not found in build context or excluded by .dockerignore: stat nothere: file does not exist",
    );
    let several = "When using COPY with more than one source file, the destination must be a directory and end with a /";
    check("COPY f f /x", several);
    for (line, path) in [
        ("COPY ../f /x", "../f"),
        ("COPY [\"../f\", \"/x\"]", "../f"),
        ("ARG P=../f\nCOPY f $P /x/", "../f"),
        ("COPY /../f /x", "../f"),
        ("COPY ./../f /x", "../f"),
        ("COPY a/../../f /x", "a/../../f"),
        ("COPY --from=busybox ../etc/passwd /x", "../etc/passwd"),
    ] {
        check(line, &format!("COPY failed: forbidden path outside the build context: {path} ()"));
    }
    check("COPY ../f* /x", "COPY failed: no source files were specified");
    let buildkit = |option: &str| {
        format!(
            "the {option} option requires BuildKit. Refer to https://docs.docker.com/go/buildkit/ to learn how to build \
             images with BuildKit enabled"
        )
    };
    check("COPY --chmod=600 f /x", &buildkit("--chmod"));
    check("RUN --mount=type=cache,target=/x true", &buildkit("--mount"));
    check("COPY <<E /x\nhi\nE", "COPY failed: no source files were specified");
    let nobody = "unable to convert uid/gid chown string to host mapping: can't find uid for user nosuch: no such user: nosuch";
    check("COPY --chown=nosuch f /x", nobody);
    let empty = build(&host, "", "FROM scratch\n").expect(200);
    assert_eq!(failure(&empty).0, "No image was generated. Is your Dockerfile empty?");
}

#[test]
fn scratch_has_nothing_but_what_is_copied() {
    let host = Host::new();
    let answer = build(&host, "t=made", "FROM scratch\nCOPY f /a/\nCMD [\"x\"]\n").expect(200);
    let heads: Vec<String> = messages(&answer).into_iter().take(3).collect();
    assert_eq!(heads[2], r#"{"stream":" ---\u003e \n"}"#, "{heads:?}");
    host.docker("create --name cc made").ok();
    let path = host.folder().join("made.tar");
    host.docker(&["export", "-o", &path.display().to_string(), "cc"]).ok();
    let mut archive = tar::Archive::new(std::fs::File::open(&path).unwrap());
    let names = archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string());
    // What each container has is there, too.
    let own: Vec<String> = names.filter(|name| name.starts_with("a/")).collect();
    assert_eq!(own, ["a/", "a/f"]);
}

#[test]
fn what_was_made_of_scratch_is_known_again_if_it_was_made_here() {
    let host = Host::new();
    let dockerfile = "FROM scratch\nCOPY f /a/\nENV A=b\n";
    let known = || {
        let answer = build(&host, "t=made", dockerfile).expect(200);
        assert!(text(&answer).contains("Successfully built"), "{}", answer.text());
        text(&answer).matches("Using cache").count()
    };
    assert_eq!((known(), known()), (0, 2));
    // An image that comes from elsewhere can say anything of its making.
    let path = host.folder().join("made.tar");
    host.docker(&["save", "-o", &path.display().to_string(), "made"]).ok();
    host.docker("rmi made").ok();
    host.docker(&["load", "-i", &path.display().to_string()]).ok();
    assert_eq!(known(), 0);
}

/// What a context says leads nowhere else.
#[test]
fn links_of_a_context_do_not_lead_out_of_it() {
    let host = Host::new();
    let files: super::Files<'_> = &[
        ("Dockerfile", 0o644, "FROM busybox\nCOPY out/passwd /x\n"),
        ("out -> /etc", 0o777, ""),
        ("up -> ../../../../../../etc", 0o777, ""),
    ];
    let answer = post(&host, "", &context(files)).expect(200);
    assert!(failure(&answer).0.contains("failed"), "{}", answer.text());
    let files: super::Files<'_> = &[
        ("Dockerfile", 0o644, "FROM busybox\nCOPY up/passwd /x\n"),
        ("up -> ../../../../../../etc", 0o777, ""),
    ];
    let answer = post(&host, "", &context(files)).expect(200);
    assert!(failure(&answer).0.contains("failed"), "{}", answer.text());
    // Nor do those of an image.
    let dockerfile =
        "FROM busybox\nRUN ln -s ../../../../../../../../tmp/escaped /l; ln -s /tmp /t\nCOPY f /t/inside\n";
    build(&host, "t=made", dockerfile).expect(200);
    assert_eq!(output(&host, "made", "cat /tmp/inside"), "content");
    assert!(!std::path::Path::new("/tmp/inside").exists());
}
