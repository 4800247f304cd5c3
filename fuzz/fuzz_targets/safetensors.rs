//! The input is a safetensors file.

#![no_main]

mod load;

use std::path::Path;

use gpt2::Checkpoint;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let checkpoint = Checkpoint::from_bytes(Path::new("model.safetensors"), bytes.to_vec());
    if let Err(error) = load::load(checkpoint) {
        assert!(!error.to_string().is_empty());
    }
});
