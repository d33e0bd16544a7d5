//! Layers: tar, plain or compressed, unpacked into a store of which nothing else may change.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wherry_image_store::Expected;

fuzz_target!(|data: &[u8]| {
    let shop = wherry_fuzz::shop();
    let layer = shop.store.ingest(Expected::default(), data);
    shop.check();
    drop(layer);
});
