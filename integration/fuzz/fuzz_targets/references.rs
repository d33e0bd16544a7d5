//! References and digests: what is read can be written, and is read again as the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wherry_image_ref::{Digest, Reference};

fuzz_target!(|text: &str| {
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string().parse::<Digest>().expect("a digest"), digest);
    }
    let Ok(reference) = text.parse::<Reference>() else { return };
    for form in [reference.familiar(), reference.to_string()] {
        assert_eq!(form.parse::<Reference>().expect("its own form is read"), reference, "{form}");
    }
    assert!(!reference.path().split('/').any(|part| part.is_empty() || part == "." || part == ".."));
    assert!(!reference.domain().contains('/') && !reference.familiar_name().contains(['@', ' ']));
    let whole = reference.clone().or_latest();
    assert!(whole.tag().is_some() || whole.digest().is_some());
    assert!(whole.name_only().is_name_only());
});
