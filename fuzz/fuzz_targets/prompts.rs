//! The input is a file of prompt pairs: one byte for its format and whether it holds ids, then the file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use patching::prompts::{Format, PromptSet, Written};

fuzz_target!(|bytes: &[u8]| {
    let Some((format, file)) = bytes.split_first() else {
        return;
    };
    let formats = [Format::Jsonl, Format::Csv, Format::Json, Format::Tsv];
    let (ids, format) = (format & 4 != 0, formats[usize::from(format % 4)]);
    match PromptSet::parse("pairs", file, format, ids) {
        Ok(set) => {
            // Every pair has a number of its own, in order, and nothing is made up.
            let mut before = 0;
            for pair in &set.pairs {
                assert!(before < pair.line && pair.line <= 1 + file.len());
                before = pair.line;
                for prompt in [&pair.clean, &pair.corrupted] {
                    match prompt {
                        // A list of JSON may hold an escaped character: six bytes for at most three.
                        Written::Text(text) => assert!(text.len() <= file.len()),
                        Written::Ids(ids) => assert!(ids.len() <= file.len()),
                    }
                }
                // All later years may be the answers of one.
                assert!(pair.a.len() + pair.b.len() <= file.len() + 100);
            }
            assert!(!set.pairs.is_empty());
        }
        Err(error) => {
            let message = error.to_string();
            assert!(message.starts_with("pairs") && message.len() < 2000);
        }
    }
});
