//! Variables of Dockerfiles, as programs and the image get them.

use serde_json::json;
use wherry_tests::Host;

use super::dockerfile;
use crate::buildkit::has;

#[test]
fn modifiers_are_buildkits() {
    let host = Host::new();
    let text = r#"FROM busybox
ARG V=abcabc E=
LABEL a1=${V:-w} a2=${N:-w} a3=${E:-w} a4=${E-w} a5=${N-w} b1=${V:+w} b2=${N:+w} b3=${E:+w} b4=${E+w}
LABEL c1=${V#a*c} c2=${V##a*c} c3=${V%b*c} c4=${V%%b*c} d1=${V/b/X} d2=${V//b/X} d3=${V//?c/Y} e1=${V:?no} e2=${N:-${V}x} e3=\${V} e4='$V'
"#;
    dockerfile(&host, "m", "-t m", text).ok();
    let labels = host.inspect("m")["Config"]["Labels"].clone();
    let expected = json!({
        "a1": "abcabc", "a2": "w", "a3": "w", "a4": "", "a5": "w", "b1": "w", "b2": "", "b3": "", "b4": "w",
        "c1": "abc", "c2": "", "c3": "abca", "c4": "a", "d1": "aXcabc", "d2": "aXcaXc", "d3": "aYaY",
        "e1": "abcabc", "e2": "abcabcx", "e3": "${V}", "e4": "$V",
    });
    assert_eq!(labels, expected, "{labels:#}");
    for (name, modifier, told) in [
        ("unset", "\"${N?is not there}\"", "N: is not there"),
        ("empty", "\"${E:?is empty}\"", "E: is empty"),
        ("bad", "${V!}", "unsupported modifier (!) in substitution"),
    ] {
        let text = format!("FROM busybox\nARG V=x E=\nLABEL a={modifier}\n");
        has(&dockerfile(&host, name, "", &text).exits(1).stderr, &[told]);
    }
}

#[test]
fn arguments_have_their_scopes() {
    let host = Host::new();
    let text = "ARG G=global\nARG BASE=busybox\nFROM $BASE AS one\nRUN echo n1=[$G]\nARG G\nRUN echo n2=[$G]\nARG G=own\nRUN echo n3=[$G]\n\
                ENV G=env\nARG G=later\nRUN echo n4=[$G]\nFROM one\nRUN echo n5=[$G][$X]\nARG X\nRUN echo n6=[$X][$HTTP_PROXY][$ftp_proxy][$no_proxy]\n\
                ARG TARGETPLATFORM TARGETOS TARGETARCH TARGETVARIANT BUILDPLATFORM BUILDOS BUILDARCH TARGETSTAGE\n\
                RUN echo n7=[$TARGETPLATFORM][$TARGETOS][$TARGETARCH][$TARGETVARIANT][$BUILDPLATFORM][$BUILDOS][$BUILDARCH]\n";
    let options = "--build-arg X=given --build-arg HTTP_PROXY=http://127.0.0.1:9 --build-arg ftp_proxy=f --build-arg no_proxy=n -t scopes";
    let told = dockerfile(&host, "s", options, text).ok().stderr;
    let seen = [
        "n1=[]",
        "n2=[global]",
        "n3=[own]",
        "n4=[later]",
        "n5=[env][]",
        "n6=[given][http://127.0.0.1:9][f][n]",
        "n7=[linux/amd64][linux][amd64][][linux/amd64][linux][amd64]",
    ];
    has(&told, &seen);
    let history = host.docker("history --no-trunc scopes").ok().stdout;
    assert!(!history.contains("127.0.0.1:9"), "proxies are no part of an image: {history}");
    let told = dockerfile(
        &host,
        "over",
        "--build-arg G=asked",
        "ARG G=global\nFROM busybox\nARG G\nRUN echo [$G]\n",
    );
    has(&told.ok().stderr, &[" [asked]"]);
}

#[test]
fn names_and_values_have_all_forms() {
    let host = Host::new();
    let text = "FROM busybox\nENV A=1 B=\"two words\" C=three\\ words D='$A' E=$A\nENV F old  form\nLABEL l1=x \"l 2\"=\"y \\\"z\\\"\" l3=\"a\\\nb\"\n\
                EXPOSE 80 81/udp 90-92 $A/sctp\n";
    dockerfile(&host, "f", "-t f", text).ok();
    let config = host.inspect("f")["Config"].clone();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    assert_eq!(
        config["Env"],
        json!([path, "A=1", "B=two words", "C=three words", "D=$A", "E=", "F=old  form"])
    );
    assert_eq!(config["Labels"], json!({ "l1": "x", "l 2": "y \"z\"", "l3": "ab" }));
    let ports: Vec<&String> = config["ExposedPorts"].as_object().unwrap().keys().collect();
    assert_eq!(ports, ["1/sctp", "80/tcp", "81/udp", "90/tcp", "91/tcp", "92/tcp"]);
}
