//! The input is the tokenizer files of a folder: one byte for which, then the files with zeros between them.

#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

use gpt2::Tokenizer;
use libfuzzer_sys::fuzz_target;

/// A folder of this process's own.
static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("fuzz-tokenizer-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder for the files");
    folder
});

const TEXTS: [&str; 4] = [
    "The cat's 12 mats",
    " \n\t  <|endoftext|>",
    "e\u{301}日本🦀\0",
    "schön",
];

fuzz_target!(|bytes: &[u8]| {
    let Some((which, files)) = bytes.split_first() else {
        return;
    };
    let names: &[&str] = match which % 2 {
        0 => &[
            "tokenizer.json",
            "tokenizer_config.json",
            "special_tokens_map.json",
        ],
        _ => &[
            "vocab.json",
            "merges.txt",
            "tokenizer_config.json",
            "added_tokens.json",
        ],
    };
    let mut parts = files.splitn(names.len(), |byte| *byte == 0);
    let all = [
        "tokenizer.json",
        "vocab.json",
        "merges.txt",
        "tokenizer_config.json",
    ];
    for name in all
        .iter()
        .chain(&["special_tokens_map.json", "added_tokens.json"])
    {
        let _ = std::fs::remove_file(FOLDER.join(name));
    }
    for name in names {
        if let Some(part) = parts.next() {
            std::fs::write(FOLDER.join(name), part).expect("a file in the folder");
        }
    }
    match Tokenizer::in_folder(&FOLDER) {
        Ok(Some(tokenizer)) => {
            for text in TEXTS {
                let Ok(ids) = tokenizer.encode(text) else {
                    continue;
                };
                assert!(ids.iter().all(|id| (*id as usize) < tokenizer.n_tokens()));
                tokenizer.decode(&ids);
                assert!(tokenizer.tokens(&ids).iter().all(|token| !token.is_empty()));
            }
        }
        Ok(None) => {}
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
