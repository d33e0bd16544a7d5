//! COPY's options, and documents in the Dockerfile.

use wherry_tests::Host;

use super::{build, classic, dockerfile};
use crate::buildkit::has;

const FILES: &[(&str, &str)] =
    &[("1.txt", "1"), ("2.txt", "2"), ("n.md", "m"), ("a/3.txt", "3"), ("a/b/4.txt", "4"), ("a/b/5.md", "5")];

/// Builds this in a folder with [`FILES`].
fn copies(host: &Host, name: &str, text: &str) -> wherry_tests::Output {
    let mut files = FILES.to_vec();
    files.push(("Dockerfile", text));
    let folder = host.folder_with(name, &files);
    build(host, "--no-cache", &folder)
}

#[test]
fn files_stay_out() {
    let host = Host::new();
    let text = "FROM busybox
COPY --exclude=*.md --exclude=Dockerfile . /one/
COPY --exclude=a/b --exclude=**/*.md --exclude=Dockerfile . /two/
COPY --exclude=*.txt a/*.txt n* /three/
COPY --exclude=**/*.txt --exclude=!b/4.txt a /four
COPY --exclude=b a /five
ADD --exclude=*.txt a /six/
RUN for d in one two three four five six; do echo \"$d:\" $(cd /$d; find . -type f | sort); done
";
    let told = copies(&host, "x", text).ok().stderr;
    let lines = [
        "one: ./1.txt ./2.txt ./a/3.txt ./a/b/4.txt ./a/b/5.md",
        "two: ./1.txt ./2.txt ./a/3.txt",
        "three: ./3.txt ./n.md",
        "five: ./3.txt",
        "six: ./b/4.txt ./b/5.md",
    ];
    has(&told, &lines);
}

/// dockerd 28 has no `--parents` without another front end.
#[test]
fn folders_are_kept() {
    let host = Host::new();
    if wherry_tests::engine::Binary::from_environment().is_reference() {
        return;
    }
    let text = "FROM busybox
COPY --parents a/b/4.txt 1.txt /p/
COPY --parents a/./b/*.md /q/
COPY --parents **/*.txt /r/
COPY --parents a/** /s/
COPY --parents ./a/./**/5.md /t/
RUN for d in p q r s t; do echo \"$d:\" $(cd /$d; find . -type f | sort); done
";
    let lines = [
        "p: ./1.txt ./a/b/4.txt",
        "q: ./b/5.md",
        "r: ./1.txt ./2.txt ./a/3.txt ./a/b/4.txt",
        "s: ./a/3.txt ./a/b/4.txt ./a/b/5.md",
        "t: ./b/5.md",
    ];
    has(&copies(&host, "p", text).ok().stderr, &lines);
}

#[test]
fn modes_and_destinations_are_buildkits() {
    let host = Host::new();
    let text = "FROM busybox
COPY --chmod=0777 1.txt /n1/f
COPY --chmod=0666 1.txt /n2/f
COPY --chmod=0770 a /n3
COPY --chmod=4755 1.txt /n5/f
COPY --chmod=1777 a /n6/
COPY --chmod=u=rwx,go= a /n7
COPY --link --chmod=0777 a /n8/y
RUN stat -c '%n %a' /n1 /n2 /n3 /n3/b /n5 /n5/f /n6 /n6/b /n7 /n7/b /n8 /n8/y /n8/y/b
COPY *.txt /o1
COPY 1.txt 2.txt /o3
RUN mkdir /o4 && ln -s /o4 /l4
COPY 1.txt 2.txt /l4
COPY a 1.txt /o5
RUN for f in 1 3 4 5; do stat -c '%n %F' /o$f; done; cat /o1 /o3; ls /o4 /o5 | tr '\\n' ' '
";
    let told = copies(&host, "m", text).ok().stderr;
    let modes = [
        "/n1 755",
        "/n2 644",
        "/n3 750",
        "/n3/b 770",
        "/n5 755",
        "/n5/f 4755",
        "/n6 755",
        "/n6/b 1777",
        "/n7 755",
        "/n7/b 700",
        "/n8 755",
        "/n8/y 755",
        "/n8/y/b 777",
    ];
    has(&told, &modes);
    has(&told, &["/o1 regular file", "/o3 regular file", "/o4 directory", "/o5 directory"]);
    has(&told, &["22/o4: 1.txt 2.txt  /o5: 1.txt 3.txt b"]);
    has(
        &copies(&host, "f", "FROM busybox\nCOPY 1.txt a /o\n").exits(1).stderr,
        &["cannot copy to non-directory"],
    );
    // With the classic builder the destination of several must be a folder.
    let folder = host.folder_with("m", &[("Dockerfile", "FROM busybox\nCOPY 1.txt 2.txt /o\n")]);
    let told = classic(&host, "--no-cache", &folder, b"").exits(1).stderr;
    has(&told, &["the destination must be a directory and end with a /"]);
}

#[test]
fn documents_are_files_and_programs() {
    let host = Host::new();
    let text = "FROM busybox
ARG V=val
RUN <<E
echo one $V
false
echo two
E
RUN <<'E'
echo \"$V\" '$V'
E
RUN <<E cat -
text $V
E
RUN cat <<A <<B | tr a-z A-Z
first
A
second $V
B
RUN <<-E
	echo dashed
	E
RUN <<E
#!/bin/cat
a program of its own
E
COPY <<E /f1
copied $V \\$V
E
COPY <<'E' /f2
raw $V
E
COPY <<one <<\"two\" /d/
1 $V
one
2 $V
two
ADD --chmod=755 --chown=33:34 <<run.sh /bin/
#!/bin/sh
echo ran
run.sh
COPY <<E /empty
E
RUN cat /f1 /f2 /d/one /d/two; run.sh; stat -c '%n %a %u %g %s' /f1 /bin/run.sh /empty
RUN 3<<E cat <&3
fd three
E
";
    let told = dockerfile(&host, "h", "", text).ok().stderr;
    let seen = [
        "RUN <<E (echo one val...)",
        "one val",
        "two",
        "val $V",
        "text val",
        "SECOND VAL",
        "dashed",
        "a program of its own",
        "copied val $V",
        "raw $V",
        "1 val",
        "2 $V",
        "ran",
        "/f1 644 0 0 14",
        "/bin/run.sh 755 33 34 19",
        "/empty 644 0 0 0",
        "fd three",
    ];
    has(&told, &seen);
    let told = dockerfile(&host, "open", "", "FROM busybox\nRUN <<E\necho no end\n").exits(1).stderr;
    has(&told, &["failed to solve: unterminated heredoc"]);
    let told = dockerfile(&host, "code", "", "FROM busybox\nRUN <<E\nexit 7\nE\n").exits(1).stderr;
    has(&told, &["process \"/bin/sh -c exit 7\\n\" did not complete successfully: exit code: 7"]);
    let base = "FROM busybox\nONBUILD RUN <<E\necho triggered\nE\nONBUILD COPY <<E /q\nq\nE\n";
    dockerfile(&host, "base", "-t base", base).ok();
    let told = dockerfile(&host, "child", "", "FROM base\nRUN cat /q\n").ok().stderr;
    let steps = [
        "[1/2] FROM docker.io/library/base",
        "[2/4] ONBUILD RUN <<E (echo triggered)",
        "[4/4] RUN cat /q",
        " triggered",
    ];
    has(&told, &steps);
    // The classic builder reads them and has no use for them.
    let folder = host.folder_with("classic", &[("Dockerfile", "FROM busybox\nRUN <<E\necho unheard\nE\n")]);
    let told = classic(&host, "--no-cache", &folder, b"").ok();
    assert!(!told.stdout.contains("unheard"), "{told}");
}

#[test]
fn names_of_one_file_in_several_folders() {
    let host = Host::new();
    let text = "FROM busybox AS made
RUN mkdir -p /s/a1 /s/a2 /s/b1 /s/b2; echo one >/s/a1/f; ln /s/a1/f /s/a2/g
RUN echo one >/s/b1/f; ln /s/b1/f /s/b2/g; echo other >/s/b2/f
FROM busybox
COPY --from=made /s/a* /linked/
COPY --from=made /s/b* /replaced/
RUN cat /linked/f /linked/g | tr '\\n' ' '
RUN cat /replaced/f /replaced/g | tr '\\n' ' '
";
    let told = dockerfile(&host, "links", "", text).ok().stderr;
    has(&told, &[" one one", " other one"]);
}

#[test]
fn what_a_layer_cannot_have_is_refused() {
    let host = Host::new();
    let text = "FROM busybox
COPY . /new/
";
    let folder = host.folder_with("nodes", &[("Dockerfile", text)]);
    // In a layer it would say that a file is gone.
    host.exec(&format!("mknod {}/gone c 0 0", folder.display())).ok();
    build(&host, "--no-cache", &folder).fails(1, "peration not permitted");
}
