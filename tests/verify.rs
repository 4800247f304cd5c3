//! `patch-cli verify`: the checks for every model pass on the tiny one, and the published numbers of GPT-2
//! small are not compared with it.

use std::fs;

use crate::util::Folder;

#[test]
fn what_holds_for_every_model_holds_for_the_tiny_one() {
    let folder = Folder::new();
    let run = folder.tiny(&["verify"]).success();
    for part in [
        "model tiny (tiny, which is built in)",
        "attention rows sum to                              1",
        "residual stream − sum of all writes                0",
        "logits changed by patching with itself             0           0              pass",
        "4 of 4 pass",
    ] {
        assert!(run.stdout.contains(part), "no «{part}» in:\n{}", run.stdout);
    }
    assert!(!run.stdout.contains("FAIL") && !run.stdout.contains("--as gpt2"));
    assert_eq!(run.stderr, "");

    let json = folder.tiny(&["verify", "--json"]).success().json();
    assert_eq!((&json["pass"], &json["published"]), (&true.into(), &false.into()));
    for line in json["lines"].as_array().unwrap() {
        assert_eq!(line["pass"], true, "{line}");
        assert_eq!(line["group"], "every model");
    }
}

#[test]
fn a_model_of_few_positions_is_checked_on_a_shorter_prompt() {
    // The tiny model's table of positions, cut to the first 5.
    let folder = Folder::new();
    let (length, rest) = gpt2_tiny::WEIGHTS.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    let mut header: serde_json::Value = serde_json::from_slice(header).unwrap();
    let place = |i: usize| header["wpe.weight"]["data_offsets"][i].as_u64().unwrap();
    let (start, end) = (place(0), place(1));
    let kept = 5 * 64 * 2;
    let cut = end - start - kept;
    header["wpe.weight"]["shape"][0] = 5.into();
    for (_, info) in header.as_object_mut().unwrap() {
        let offsets = info.get_mut("data_offsets").and_then(|offsets| offsets.as_array_mut());
        for offset in offsets.into_iter().flatten() {
            if offset.as_u64().unwrap() >= end {
                *offset = (offset.as_u64().unwrap() - cut).into();
            }
        }
    }
    let header = header.to_string();
    let data = [&data[..(start + kept) as usize], &data[end as usize..]].concat();
    let file = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat();
    fs::write(folder.file("short.safetensors"), file).unwrap();
    let run = folder.run(["verify", "--model", "short.safetensors"]).success();
    assert!(run.stdout.contains("4 of 4 pass"), "{}", run.stdout);
}

#[test]
fn published_numbers_are_not_asked_of_a_model_of_other_sizes() {
    let folder = Folder::new();
    folder.tiny(&["verify", "--as", "gpt2"]).failure(
        2,
        &[
            "has 12 layers, 4 heads, width 64, 128 positions, 50257 tokens, and GPT-2 small has 12 \
             layers, 12 heads, width 768",
            "without --as",
        ],
    );
    folder.tiny(&["verify", "--as", "gpt3"]).failure(2, &["invalid value 'gpt3'"]);
    folder.tiny(&["verify", "--bos"]).failure(2, &["leave out --bos"]);
}
