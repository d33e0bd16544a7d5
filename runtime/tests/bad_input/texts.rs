//! A `config.json` that is none.

use serde_json::json;

use crate::scene::Scene;

#[test]
fn what_is_no_specification() {
    let scene = Scene::new();
    let path = format!("wherry-runtime run failed: parse {}/config.json: ", scene.path());
    let valid = scene.bundle.spec.to_string();
    let long = json!({ "annotations": { "x": "y".repeat(33 << 20) } }).to_string();
    let deep_list = format!("{{\"hooks\":{}", "[".repeat(200_000));
    let deep_object = "{\"linux\":".repeat(200_000);
    let cases: Vec<(&[u8], String)> = vec![
        (b"", format!("{path}EOF while parsing a value at line 1 column 0")),
        (b"{", format!("{path}EOF while parsing an object")),
        (b"[]", format!("{path}it is not a JSON object")),
        (b"null", format!("{path}it is not a JSON object")),
        (b"\xef\xbb\xbf{}", format!("{path}it is not a JSON object")),
        (b"{}", "wherry-runtime run failed: ".into()),
        (b"{\"ociVersion\":\"\xff\"}", format!("{path}invalid unicode code point")),
        (b"{\"ociVersion\":\"1.2.0\",\"ociVersion\":\"1.2.0\"}", "wherry-runtime run failed: ".into()),
        (b"{\"ociVersion\":\"1.2.0\"", format!("{path}EOF while parsing an object")),
        (b"{} {}", format!("{path}trailing characters")),
        (b"{\"annotations\":{\"a\":1e999}}", format!("{path}number out of range")),
        (deep_list.as_bytes(), format!("{path}hooks")),
        (deep_object.as_bytes(), path.clone()),
        (
            long.as_bytes(),
            format!("wherry-runtime run failed: read {}/config.json: it is larger than 32 MiB", scene.path()),
        ),
        (&valid.as_bytes()[..valid.len() / 2], path.clone()),
    ];
    for (text, expect) in cases {
        scene.write(text);
        let message = scene.refused("run");
        assert!(
            message.starts_with(&expect),
            "{}: {message}",
            String::from_utf8_lossy(&text[..text.len().min(80)])
        );
    }
}

#[test]
fn no_bundle_and_no_file() {
    let scene = Scene::new();
    let message = scene.refused("create");
    assert_eq!(message, "wherry-runtime create failed: JSON specification file config.json not found");
    let message = scene.refused_by(scene.command(&["run", "-b", "/nosuch/bundle", scene.id()]), 1);
    assert_eq!(
        message,
        "wherry-runtime run failed: open bundle /nosuch/bundle: No such file or directory (os error 2)"
    );
    std::fs::create_dir(scene.bundle.path().join("config.json")).unwrap();
    let message = scene.refused("run");
    assert!(message.ends_with("config.json: Is a directory (os error 21)"), "{message}");
}
