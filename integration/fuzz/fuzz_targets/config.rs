//! `config.json`: read, checked, compiled.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    match wherry_runtime::parse_spec(data, &mut Vec::new()) {
        Ok(spec) => wherry_fuzz::validate(&spec),
        Err(error) => assert!(!error.to_string().contains('\n'), "more than one line: {error}"),
    }
});
