//! Options of mounts: one mount a line, its type first, then its target, then options between commas.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

fuzz_target!(|text: &str| {
    let mounts: Vec<Value> = text.lines().take(8).map(mount).collect();
    let spec = wherry_fuzz::spec_with("/mounts", mounts.into());
    wherry_fuzz::validate(&serde_json::from_value(spec).expect("mounts of strings are always read"));
});

fn mount(line: &str) -> Value {
    let mut words = line.split(',');
    let (kind, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let options: Vec<&str> = words.collect();
    json!({ "type": kind, "destination": target, "source": "/", "options": options })
}
