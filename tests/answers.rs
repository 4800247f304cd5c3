//! Answers that are sets, and the scales on which numbers are given.

use std::fs;

use gpt2::{Pretrained, no_hook};
use serde_json::Value;

use crate::util::{Folder, largest_difference, numbers};

const CLEAN: &str = "Michelle Jones was a top-notch student. Michelle";
const CORRUPTED: &str = "Michelle Smith was a top-notch student. Michelle";

fn json(folder: &Folder, args: &[&str]) -> Value {
    let args = [args, &["--json", "--out", "x.png"]].concat();
    folder.tiny(&args).success().json()
}

fn grid(json: &Value) -> Vec<f32> {
    numbers(&json["grids"][0]["values"])
}

/// Logits and probabilities of the token after a prompt.
fn after(tiny: &Pretrained, text: &str) -> (Vec<f32>, Vec<f64>) {
    let ids = tiny.tokenizer.encode(text).unwrap();
    let logits = tiny.model.next_token_logits(&ids, &mut no_hook);
    let total: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
    let probs = logits.iter().map(|x| f64::from(*x).exp() / total).collect();
    (logits, probs)
}

#[test]
fn sets_are_the_mean_of_logits_and_the_sum_of_probabilities() {
    let folder = Folder::new();
    let tiny = Pretrained::tiny().unwrap();
    let ids = [" Smith", " was", " Jones", " had", "'s"]
        .map(|text| tiny.tokenizer.to_single_token(text).unwrap() as usize);
    let sets = ["--a", " Smith", "--a", " was", "--b", " Jones", "--b", " had", "--b", "'s"];
    let of = |metric: &str| json(&folder, &[&sets[..], &["--metric", metric]].concat());
    let diff = of("logit_diff");
    let prob = of("prob_diff");
    assert_eq!(diff["metric"]["b"][2], "'s");
    for (text, key) in [(CLEAN, "clean_metric"), (CORRUPTED, "corrupted_metric")] {
        let (logits, probs) = after(&tiny, text);
        let mean = |ids: &[usize]| ids.iter().map(|i| logits[*i]).sum::<f32>() / ids.len() as f32;
        let sum = |ids: &[usize]| ids.iter().map(|i| probs[*i]).sum::<f64>();
        let got = diff[key].as_f64().unwrap() as f32;
        assert!((got - (mean(&ids[..2]) - mean(&ids[2..]))).abs() < 1e-4);
        // The engine's logits are rounded otherwise, by up to 10⁻⁵.
        let got = prob[key].as_f64().unwrap();
        assert!((got - (sum(&ids[..2]) - sum(&ids[2..]))).abs() < 2e-5);
    }
    // The same sets in a file, by text and by id.
    let line = serde_json::json!({
        "clean": CLEAN, "corrupt": CORRUPTED, "answers": [" Smith", ids[1]],
        "wrong_answers": [" Jones", " had", "'s"],
    });
    fs::write(folder.file("set.jsonl"), line.to_string()).unwrap();
    let of_file = json(&folder, &["--prompts", "set.jsonl"]);
    assert_eq!(grid(&of_file), grid(&diff));
    assert_eq!(of_file["pairs"][0]["a"][1], " was");
    let refused = [&sets[..], &["--metric", "rank"]].concat();
    folder.tiny(&refused).failure(2, &["rank is of one token, and here are 3"]);
    folder
        .tiny(&["--a", " Smith", "--b", " Smith", "--b", " had"])
        .failure(2, &["compare \" Smith\" with itself"]);
    folder.tiny(&["--a", " Smith"]).failure(2, &["on both sides: --logit-diff ' A' ' B'"]);
}

#[test]
fn each_study_gives_its_numbers_on_every_scale() {
    let folder = Folder::new();
    for study in [&["sweep", "--site", "z"][..], &["path", "--to", "logits"]] {
        for direction in ["denoising", "noising"] {
            let on = |scale: &str| {
                let more = ["--direction", direction, "--as", scale];
                json(&folder, &[study, &more[..]].concat())
            };
            let (value, change, normalized) = (on("value"), on("change"), on("normalized"));
            let of = |key: &str| value[key].as_f64().unwrap() as f32;
            let (clean, corrupted) = (of("clean_metric"), of("corrupted_metric"));
            let base = if direction == "noising" { clean } else { corrupted };
            let expected: Vec<f32> = grid(&value).iter().map(|x| x - base).collect();
            assert!(largest_difference(&grid(&change), &expected) < 1e-5);
            let unit = clean - corrupted;
            let scaled = |x: &f32| (x - corrupted) / unit;
            let expected: Vec<f32> = grid(&value).iter().map(scaled).collect();
            assert!(largest_difference(&grid(&normalized), &expected) < 1e-6);
            for (json, word) in [(&value, "(values)"), (&change, "(changes)")] {
                let title = json["title"].as_str().unwrap();
                assert!(title.ends_with(word), "{title}");
            }
            assert_eq!(normalized["metric"]["scale"], "normalized");
        }
    }
    let ablated = |scale: &str| json(&folder, &["ablate", "--as", scale]);
    let (value, change) = (ablated("value"), ablated("change"));
    let base = value["unablated"].as_f64().unwrap() as f32;
    let expected: Vec<f32> = grid(&value).iter().map(|x| x - base).collect();
    assert!(largest_difference(&grid(&change), &expected) < 1e-5);
    folder.tiny(&["ablate", "--as", "normalized"]).failure(2, &["too close to each other"]);
}

#[test]
fn means_over_pairs_are_on_one_scale_unless_asked_for_by_pair() {
    let folder = Folder::new();
    let of = |metric: &str| {
        let args = ["--prompt-set", "ioi-tutorial", "--site", "z", "--bos"];
        json(&folder, &[&args[..], &["--metric", metric]].concat())
    };
    // Head 8.1, by TransformerLens: 0.500 on one scale, and 0.487 in the mean of each pair's own.
    let head = |json: &Value| (grid(json)[8 * 4 + 1] * 1000.0).round() / 1000.0;
    let (means, by_pair) = (of("normalized"), of("normalized_by_pair"));
    assert_eq!((head(&means), head(&by_pair)), (0.5, 0.487));
    // It is the scale of `ioi`.
    let ioi = folder.tiny(&["ioi", "--json"]).success().json();
    let grids = ioi["grids"].as_array().unwrap();
    let sweep = numbers(&grids[3]["values"]);
    assert!(largest_difference(&grid(&means), &sweep) < 1e-4);
    let text = folder.tiny(&[
        "--prompt-set",
        "ioi-tutorial",
        "--site",
        "z",
        "--metric",
        "normalized",
        "--out",
        "x.png",
    ]);
    let text = text.success().stdout;
    assert!(text.contains("Means over 8 pairs, on one scale."), "{text}");
    assert!(text.contains("answers a: \""), "{text}");
}

#[test]
fn sweeps_ablations_and_paths_run_on_processed_weights() {
    let folder = Folder::new();
    let tiny = Pretrained::tiny().unwrap();
    let flags = lens::processing::Flags::DEFAULT;
    let processed = lens::processing::process(&tiny.model, flags);
    let ids = tiny.tokenizer.encode(CLEAN).unwrap();
    let [smith, jones] = [4176_usize, 5437];
    for (args, is_same) in [
        (&["sweep", "--site", "resid_post"][..], true),
        (&["sweep", "--site", "z", "--metric", "kl"], true),
        (&["path", "--to", "logits"], true),
        (&["ablate", "--with", "mean"], true),
        // Zero means something else once the biases of the values are folded into that of the output.
        (&["ablate", "--with", "zero"], false),
        (&["sweep", "--metric", "logit"], false),
    ] {
        let raw = json(&folder, args);
        let other = json(&folder, &[args, &["--process=default"]].concat());
        assert_eq!(other["processing"].as_array().unwrap().len(), 4);
        let difference = largest_difference(&grid(&raw), &grid(&other));
        assert_eq!(difference < 2e-3, is_same, "{args:?}: {difference}");
    }
    // The zero ablation is that of the library with the processed model and a hook.
    let ablated = json(&folder, &["ablate", "--process=default"]);
    let logits = processed.next_token_logits(&ids, &mut |site, x| {
        if site == gpt2::SiteKind::Z.at(3) {
            for pos in 0..ids.len() {
                x.row_mut(pos * 4 + 2).fill(0.0);
            }
        }
    });
    let got = grid(&ablated)[3 * 4 + 2];
    assert!((got - (logits[smith] - logits[jones])).abs() < 1e-3);
    // An export of raw weights is not resumed.
    let export = ["--site", "z", "--safetensors", "z.safetensors"];
    json(&folder, &export);
    let resumed = ["--site", "z", "--process", "--resume", "z.safetensors"];
    folder.tiny(&resumed).failure(2, &["processing: none there, fold_ln"]);
}
