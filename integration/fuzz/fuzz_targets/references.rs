//! References and digests: what is read can be written, and is read again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wherry_image_ref::{Digest, Reference};

fuzz_target!(|text: &str| {
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string().parse::<Digest>().expect("a digest"), digest);
    }
    let Ok(reference) = text.parse::<Reference>() else { return };
    // the familiar form may mean another one (docker.io/a.b/c is shown as a.b/c), as with distribution/reference
    let _ = reference.familiar().parse::<Reference>();
    let whole = reference.to_string();
    assert_eq!(whole.parse::<Reference>().expect("its own form is read"), reference, "{whole}");
    assert!(!reference.path().split('/').any(|part| part.is_empty() || part == "." || part == ".."));
    assert!(!reference.domain().contains('/') && !reference.familiar_name().contains(['@', ' ']));
    let tagged = reference.clone().or_latest();
    assert!(tagged.tag().is_some() || tagged.digest().is_some());
    assert!(tagged.name_only().is_name_only());
});
