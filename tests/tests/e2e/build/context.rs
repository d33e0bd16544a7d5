//! Where a context comes from, and what of it a build gets to see.

use std::io::Write;
use std::process::{Command, Stdio};

use wherry_tests::Host;
use wherry_tests::engine::Binary;

use super::{context, output, post, text};

const FILES: super::Files<'_> =
    &[("Dockerfile", 0o644, "FROM busybox\nCOPY . /c\n"), ("f", 0o640, "content\n")];

#[test]
fn contexts_are_archives_of_all_kinds() {
    let host = Host::new();
    let tar = context(FILES);
    for program in ["gzip", "bzip2", "xz", "zstd"] {
        // The lab has no xz, which dockerd needs.
        if program == "xz" && Binary::from_environment().is_reference() {
            continue;
        }
        let packer = Command::new(program).arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut packer = packer.unwrap();
        let mut input = packer.stdin.take().unwrap();
        let bytes = tar.clone();
        let writer = std::thread::spawn(move || input.write_all(&bytes).unwrap());
        let packed = packer.wait_with_output().unwrap().stdout;
        writer.join().unwrap();
        let answer = post(&host, "t=made", &packed).expect(200);
        assert!(text(&answer).contains("Successfully built"), "{program}: {}", answer.text());
    }
    assert_eq!(output(&host, "made", "ls /c"), "Dockerfile\nf");
}

#[test]
fn the_files_of_the_builder_are_hidden_if_they_are_ignored() {
    let host = Host::new();
    let build = |ignore: &str| {
        let files: super::Files<'_> = &[
            ("Dockerfile", 0o644, "FROM busybox\nCOPY . /c\n"),
            (".dockerignore", 0o644, ignore),
            ("f", 0o644, ""),
        ];
        post(&host, "t=made", &context(files)).expect(200);
        output(&host, "made", "ls -A /c").replace('\n', " ")
    };
    // A client that does not look at the file itself sends all; dockerd takes away these two alone.
    assert_eq!(build("*.log\n"), ".dockerignore Dockerfile f");
    assert_eq!(build("Dockerfile\nf\n"), ".dockerignore f");
    assert_eq!(build(".dockerignore\nD*\n"), "f");
}

#[test]
fn the_stock_client_builds_from_folders_and_standard_input() {
    let host = Host::new();
    let folder = host.folder().join("ctx");
    std::fs::create_dir_all(folder.join("sub")).unwrap();
    std::fs::write(folder.join("D"), "FROM busybox\nCOPY . /c\nCMD cat /c/sub/f\n").unwrap();
    std::fs::write(folder.join("sub/f"), "from a folder\n").unwrap();
    std::fs::write(folder.join("no.key"), "").unwrap();
    std::fs::write(folder.join(".dockerignore"), "*.key\n").unwrap();
    let folder = folder.display().to_string();
    let docker = |arguments: &[&str], input: &[u8]| {
        let mut command = host.docker_command(arguments);
        command.env("DOCKER_BUILDKIT", "0");
        wherry_tests::Output::with_input(command, input)
    };
    let file = format!("{folder}/D");
    docker(&["build", "-f", &file, "-t", "made", &folder], b"")
        .ok()
        .contains("Successfully tagged made:latest");
    assert_eq!(output(&host, "made", "find /c -type f | sort"), "/c/.dockerignore\n/c/D\n/c/sub/f");
    docker(&["build", "-t", "made", "-"], b"FROM busybox\nRUN echo from standard input >/x\n").ok();
    assert_eq!(output(&host, "made", "cat /x"), "from standard input");
    let id = docker(&["build", "-q", "-"], b"FROM busybox\nRUN echo from standard input >/x\n")
        .ok()
        .out()
        .to_owned();
    assert_eq!(host.inspect("made")["Id"], id.as_str());
}

#[test]
fn contexts_can_be_at_an_address() {
    let host = Host::new();
    let folder = host.folder().join("www");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("ctx.tar"), context(FILES)).unwrap();
    std::fs::write(
        folder.join("Alone"),
        "FROM busybox\nADD http://127.0.0.1:8088/file.txt /x/\nRUN cat /x/file.txt\n",
    )
    .unwrap();
    std::fs::write(folder.join("file.txt"), "from a server\n").unwrap();
    let line = format!("busybox httpd -f -p 127.0.0.1:8088 -h {}", folder.display());
    let _server = host.serve("httpd", &line);
    wherry_tests::poll("the server answers", 10, || {
        host.in_network(|| std::net::TcpStream::connect("127.0.0.1:8088").is_ok())
    });
    let answer = post(&host, "t=made&remote=http://127.0.0.1:8088/ctx.tar", b"").expect(200);
    assert!(text(&answer).contains("Successfully tagged made:latest"), "{}", answer.text());
    assert_eq!(output(&host, "made", "cat /c/f"), "content");
    let answer = post(&host, "t=made&remote=http://127.0.0.1:8088/Alone", b"").expect(200);
    assert!(text(&answer).contains("\nfrom a server\n"), "{}", answer.text());
    assert_eq!(output(&host, "made", "stat -c '%a %u' /x/file.txt"), "600 0");
}
