//! `sweep` beyond the main job, and `ablate`.

use gpt2::{Config, Gpt2};
use serde_json::Value;

use crate::util::{Folder, golden, golden_case, largest_difference, numbers};

fn grid<'a>(json: &'a Value, name: &str) -> &'a Value {
    let grids = json["grids"].as_array().unwrap();
    grids.iter().find(|grid| grid["name"] == name).unwrap()
}

fn labels(grid: &Value, axis: usize) -> Vec<&str> {
    let labels = grid["axes"][axis]["labels"].as_array().unwrap();
    labels.iter().map(|label| label.as_str().unwrap()).collect()
}

#[test]
fn the_sites_of_heads_and_of_blocks_are_swept_in_one_go() {
    let folder = Folder::new();
    let golden = &golden_case("sweeps", "surname, denoising")["sweeps"];
    for (flags, grids) in [
        (
            &["--site", "heads"][..],
            &[
                ("z", "attn_head_out_all_pos"),
                ("q", "attn_head_q_all_pos"),
                ("k", "attn_head_k_all_pos"),
                ("v", "attn_head_v_all_pos"),
                ("pattern", "attn_head_pattern_all_pos"),
            ][..],
        ),
        (
            &["--site", "heads", "--by-pos"],
            &[
                ("z", "attn_head_out_by_pos"),
                ("q", "attn_head_q_by_pos"),
                ("k", "attn_head_k_by_pos"),
                ("v", "attn_head_v_by_pos"),
                ("pattern", "attn_head_pattern_by_pos"),
            ],
        ),
        (
            &["--site", "blocks"],
            &[("resid_pre", "resid_pre"), ("attn_out", "attn_out"), ("mlp_out", "mlp_out")],
        ),
    ] {
        let json = folder.tiny(&[flags, &["--json"]].concat()).success().json();
        let names: Vec<&Value> = json["grids"].as_array().unwrap().iter().map(|g| &g["name"]).collect();
        assert_eq!(names, grids.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        for (name, expected) in grids {
            let values = numbers(&grid(&json, name)["values"]);
            let largest = largest_difference(&values, &numbers(&golden[*expected]["values"]));
            assert!(largest < 1e-4, "{name}: {largest:e}");
        }
    }
}

#[test]
fn a_subset_is_a_part_of_the_whole_sweep() {
    let folder = Folder::new();
    let part = |flags: &[&str]| folder.tiny(&[flags, &["--json"]].concat()).success().json();
    let whole = numbers(&golden_case("sweeps", "surname, denoising")["sweeps"]["resid_post"]["values"]);
    let json = part(&["--layers", "5..7,11", "--positions", " Jones,10"]);
    let grid = &json["grids"][0];
    assert_eq!(labels(grid, 0), ["5", "6", "11"]);
    assert_eq!(labels(grid, 1), [" Smith", " Michelle"]);
    assert_eq!(grid["axes"][1]["places"], serde_json::json!([1, 10]));
    let expected = [5, 6, 11].map(|layer| [whole[layer * 11 + 1], whole[layer * 11 + 10]]);
    assert!(largest_difference(&numbers(&grid["values"]), &expected.concat()) < 1e-4);

    let whole =
        numbers(&golden_case("sweeps", "surname, denoising")["sweeps"]["attn_head_out_all_pos"]["values"]);
    let json = part(&["--site", "z", "--heads", "8.1,3.2"]);
    let values = json["grids"][0]["values"].as_array().unwrap();
    let close = |value: &Value, expected: f32| (value.as_f64().unwrap() as f32 - expected).abs() < 1e-4;
    assert!(close(&values[1], whole[3 * 4 + 2]) && close(&values[2], whole[8 * 4 + 1]));
    assert!(values[0].is_null() && values[3].is_null());
}

#[test]
fn the_metrics_say_what_they_are_of_the_two_ends() {
    let folder = Folder::new();
    for (metric, token, clean, corrupted) in [
        ("normalized", None, Some(1.0), Some(0.0)),
        ("kl", None, Some(0.0), None),
        ("rank", Some(" Jones"), Some(0.0), None),
        ("logit", Some(" Jones"), None, None),
        ("prob", Some(" Smith"), None, None),
        ("log_prob", Some(" Smith"), None, None),
        ("loss", None, None, None),
    ] {
        let json = folder.tiny(&["--metric", metric, "--json"]).success().json();
        assert_eq!(json["metric"]["kind"], metric);
        let of = |key: &str| json[key].as_f64().unwrap();
        for (key, expected) in [("clean_metric", clean), ("corrupted_metric", corrupted)] {
            if let Some(expected) = expected {
                assert!((of(key) - expected).abs() < 1e-4, "{metric}: {key} {}", of(key));
            }
        }
        if token.is_none() {
            assert_eq!(json["metric"].get("b").is_some(), metric == "normalized");
        }
        // The last cell is the clean run: its logits, though not its own prompt's losses.
        let values = numbers(&json["grids"][0]["values"]);
        if metric != "loss" {
            assert!((values[131] - of("clean_metric") as f32).abs() < 1e-4, "{metric}");
        }
    }
}

#[test]
fn many_pairs_are_averaged_with_an_interval() {
    let folder = Folder::new();
    let set = ["--prompt-set", "ioi-tutorial", "--site", "z", "--json"];
    let json = folder.tiny(&set).success().json();
    assert_eq!(json["pairs"].as_array().unwrap().len(), 8);
    let values = |name: &str| numbers(&grid(&json, name)["values"]);
    let (mean, low, high) = (values("z"), values("z, low"), values("z, high"));
    let by_pair: Vec<Vec<f32>> = (1..=8).map(|i| values(&format!("z, pair {i}"))).collect();
    for cell in 0..48 {
        let expected = by_pair.iter().map(|values| values[cell]).sum::<f32>() / 8.0;
        assert!((mean[cell] - expected).abs() < 1e-4);
        assert!(low[cell] <= mean[cell] && mean[cell] <= high[cell]);
    }
    // The fourth pair alone is the same sweep.
    let pair = &json["pairs"][3];
    let alone = folder.tiny(&[
        "--clean",
        pair["clean"]["text"].as_str().unwrap(),
        "--corrupted",
        pair["corrupted"]["text"].as_str().unwrap(),
        "--logit-diff",
        pair["a"].as_str().unwrap(),
        pair["b"].as_str().unwrap(),
        "--site",
        "z",
        "--json",
    ]);
    assert_eq!(numbers(&alone.success().json()["grids"][0]["values"]), by_pair[3]);
}

#[test]
fn every_set_from_templates_runs_in_sweeps_and_attribution() {
    let folder = Folder::new();
    for set in ["greater-than", "gender", "subject-verb", "capitals"] {
        for command in ["sweep", "attribute"] {
            let args = [command, "--prompt-set", set, "--count", "2", "--site", "z", "--json"];
            let json = folder.tiny(&args).success().json();
            assert_eq!(json["pairs"].as_array().unwrap().len(), 2, "{set}");
            assert!(numbers(&json["grids"][0]["values"]).iter().all(|value| value.is_finite()));
        }
    }
    // The tiny model knows capitals: the clean runs favour theirs.
    let args = ["sweep", "--prompt-set", "capitals", "--count", "10", "--site", "z", "--json"];
    let json = folder.tiny(&args).success().json();
    assert!(json["clean_metric"].as_f64().unwrap() > 5.0);
    assert!(json["corrupted_metric"].as_f64().unwrap() < -5.0);
    let greater = ["sweep", "--prompt-set", "greater-than", "--count", "1", "--site", "z"];
    let text = folder.tiny(&[&greater[..], &["--metric", "prob_diff"]].concat()).success();
    assert!(text.stdout.contains("The/ ") && text.stdout.contains(" tokens}"), "{}", text.stdout);
    assert!(text.stderr.contains("was not trained on"), "{}", text.stderr);
}

#[test]
fn pairs_of_a_file_are_checked_first_and_aligned_by_role() {
    let folder = Folder::new();
    let jones = "Michelle Jones was a top-notch student. Michelle";
    let smith = "Michelle Smith was a top-notch student. Michelle";
    let csv = format!(
        "clean,corrupted,a,b\n{jones},{smith}, Jones, Smith\nHe met{0},He met{1}, Jones, Smith\n",
        format_args!(" {jones}"),
        format_args!(" {smith}")
    );
    std::fs::write(folder.file("pairs.csv"), &csv).unwrap();
    let args = ["--prompts", "pairs.csv", "--align", "first-difference", "--json"];
    let json = folder.tiny(&args).success().json();
    let mean = grid(&json, "resid_post");
    assert_eq!(labels(mean, 1)[..3], ["diff−1", "diff", "diff+1"]);
    assert_eq!(labels(mean, 1).len(), 11);
    folder.tiny(&["--prompts", "pairs.csv"]).failure(2, &["line 2 have 11", "line 3 have 13"]);

    std::fs::write(folder.file("bad.csv"), csv + "one,two words, Jones, Smith\n").unwrap();
    folder.tiny(&["--prompts", "bad.csv"]).failure(2, &["bad.csv, line 4", "one", "two/"]);
    assert_eq!(folder.files(), ["bad.csv", "heatmap.png", "pairs.csv"]);
}

#[test]
fn a_sweep_resumes_from_its_own_export_only() {
    let folder = Folder::new();
    let run = |more: &[&str]| folder.tiny(&[&["--site", "attn_out", "--json"], more].concat());
    let whole = run(&["--safetensors", "whole.safetensors"]).success().json();
    let again = run(&["--resume", "whole.safetensors"]).success().json();
    assert_eq!(again["grids"][0]["values"], whole["grids"][0]["values"]);

    // All that determines a number must be the same.
    for (more, fact) in [
        (&["--metric", "prob_diff"][..], "metric: LogitDiff, value"),
        (&["--as", "change"], "metric: LogitDiff, value"),
        (&["--direction", "noising"], "direction: denoising there, noising here"),
        (&["--bos"], "bos: none there, 50256 here"),
        (&["--engine", "plain"], "engine: incremental there, plain here"),
        (&["--logit-diff", " Jones", " Smith"], "answers: "),
        (&["--prompt-set", "ioi", "--count", "3"], "tokens: "),
        (&["--process"], "processing: none there, fold_ln"),
    ] {
        let resumed = run(&[&["--resume", "whole.safetensors"], more].concat());
        resumed.failure(2, &["of another computation (", fact]);
    }
    let other_site = ["--site", "mlp_out", "--resume", "whole.safetensors"];
    folder.tiny(&other_site).failure(2, &["site: attn_out there, mlp_out here"]);
    run(&["--resume", "none.safetensors"]).failure(2, &["none.safetensors"]);
}

#[test]
fn a_set_is_not_resumed_with_other_draws_or_prompts() {
    let folder = Folder::new();
    let set = ["--prompt-set", "ioi", "--count", "4", "--site", "z", "--json"];
    let run = |more: &[&str]| folder.tiny(&[&set[..], more].concat());
    let whole = run(&["--csv", "set.csv"]).success().json();
    let again = run(&["--resume", "set.csv", "--csv", "again.csv"]).success().json();
    assert_eq!(again["grids"], whole["grids"]);
    assert_eq!(again["provenance"]["fingerprint"], whole["provenance"]["fingerprint"]);
    for (more, fact) in [
        (&["--seed", "1"][..], "tokens: "),
        (&["--resamples", "10"], "mean: 1000 draws"),
        (&["--align", "end"], "positions from the first token there"),
    ] {
        let resumed = run(&[&["--resume", "set.csv"], more].concat());
        resumed.failure(2, &["of another computation (", fact]);
    }
}

#[test]
fn a_sweep_is_not_resumed_with_other_weights_of_the_same_name() {
    let folder = Folder::new();
    let sizes =
        Config { vocab_size: 9, block_size: 8, n_layer: 2, n_head: 2, n_embd: 8, ..Config::default() };
    let model = |seed| crate::kin::write_model(&folder.file("m"), &Gpt2::random(sizes, seed));
    let args =
        ["--model", "m", "--ids", "--clean", "1 2 3", "--corrupted", "1 4 3", "--logit-diff", "#1", "#2"];
    let run = |more: &[&str]| folder.run([&args[..], more].concat());
    model(1);
    run(&["--safetensors", "a.safetensors"]).success();
    run(&["--resume", "a.safetensors"]).success();
    model(2);
    run(&["--resume", "a.safetensors"]).failure(2, &["of another computation (weights: "]);
}

#[test]
fn what_cannot_be_swept_is_refused_with_what_there_is() {
    let folder = Folder::new();
    for (args, parts) in [
        (&["--layers", "12"][..], &["no layer 12", "0 to 11"][..]),
        (&["--layers", "3-5"], &["neither a number nor a range"]),
        (&["--positions", "11"], &["no pos 11", "0 to 10"]),
        (&["--positions", " Brown"], &["Brown", "/ Jones/"]),
        (&["--site", "z", "--heads", "3.4"], &["no head 4", "0 to 3"]),
        (&["--site", "z", "--heads", "3"], &["LAYER.HEAD"]),
        (&["--heads", "3.1"], &["resid_post over layer × pos has no head"]),
        (&["--site", "z", "--positions", "1"], &["--by-pos"]),
        (&["--site", "z", "--by-dest"], &["--by-dest is for --site pattern"]),
        (&["--metric", "loss", "--loss-at", "3..11"], &["0..10"]),
        (&["--loss-at", "3..4"], &["--metric loss"]),
        (&["--metric", "kl", "--token", " Jones"], &["--token", "kl"]),
        (&["--prompt-set", "ioi", "--count", "0"], &["0"]),
        (&["--prompt-set", "gendr"], &["gendr", "gender"]),
        (&["--prompt-set", "capitals", "--count", "9999"], &["9999", "at most 5040"]),
        (&["--prompt-set", "gender", "--corruption", "abc"], &["--corruption is for --prompt-set ioi"]),
        (&["--corruption", "abc"], &["--prompt-set ioi"]),
        (&["--prompts", "none.csv"], &["none.csv"]),
        (&["ablate", "--with", "nothing"], &["zero, mean, other-position N or resample"]),
        (&["ablate", "--with", "other-position", "11"], &["no pos 11"]),
        (&["ablate", "--with", "resample"], &["--others"]),
        (&["ablate", "--with", "mean", "--site", "pattern"], &["pattern"]),
        (&["ablate", "--with", "zero", "Her name"], &["--logit-diff"]),
    ] {
        folder.tiny(args).failure(2, parts);
    }
    assert!(folder.files().is_empty());
}

#[test]
fn ablations_are_those_of_transformer_lens() {
    let folder = Folder::new();
    let golden = golden("ablations");
    for (args, name) in [
        (&["--site", "z", "--with", "zero"][..], "head_zero"),
        (&["--site", "z", "--with", "mean"], "head_mean"),
        (&["--site", "mlp_out"], "mlp_zero"),
        (&["--site", "attn_out"], "attn_zero"),
    ] {
        let json = folder.tiny(&[&["ablate", "--json"], args].concat()).success().json();
        let values = numbers(&json["grids"][0]["values"]);
        let largest = largest_difference(&values, &numbers(&golden[name]["values"]));
        assert!(largest < 1e-4, "{name}: {largest:e}");
        assert!((json["unablated"].as_f64().unwrap() - golden["base"].as_f64().unwrap()).abs() < 1e-4);
    }
}

#[test]
fn heads_are_ablated_where_no_site_is_named() {
    let folder = Folder::new();
    let json = folder.tiny(&["ablate", "--json"]).success().json();
    assert_eq!(json["grids"][0]["name"], "z");
    let values = numbers(&json["grids"][0]["values"]);
    let expected = numbers(&golden("ablations")["head_zero"]["values"]);
    assert!(largest_difference(&values, &expected) < 1e-4);
}

#[test]
fn resampling_is_the_mean_of_patching_from_the_other_prompts() {
    let folder = Folder::new();
    let jones = "Michelle Jones was a top-notch student. Michelle";
    let others = ["Smith", "Hart"].map(|name| jones.replace("Jones", name));
    std::fs::write(folder.file("others.txt"), others.join("\n")).unwrap();
    let args = ["ablate", "--with", "resample", "--others", "others.txt", "--site", "mlp_out", "--json"];
    let got = numbers(&folder.tiny(&args).success().json()["grids"][0]["values"]);
    let mut expected = vec![0.0; 132];
    for other in &others {
        let args = [
            "--clean",
            jones,
            "--corrupted",
            other,
            "--direction",
            "noising",
            "--logit-diff",
            " Smith",
            " Jones",
            "--site",
            "mlp_out",
            "--json",
        ];
        let values = numbers(&folder.tiny(&args).success().json()["grids"][0]["values"]);
        expected.iter_mut().zip(values).for_each(|(sum, value)| *sum += value / 2.0);
    }
    assert!(largest_difference(&got, &expected) < 1e-4);
    // And the mean over other prompts is of any length.
    let args = ["ablate", "--with", "mean", "--others", "ioi", "--count", "3", "--site", "z", "--json"];
    folder.tiny(&args).success();
}

#[test]
fn a_sweep_given_an_edit_differs_and_says_what_stays() {
    let folder = Folder::new();
    let run = |more: &[&str]| folder.tiny(&[&["--site", "z", "--json"], more].concat()).success().json();
    let plain = run(&[]);
    let given = run(&["--given", "z8.3=zero", "--safetensors", "a.safetensors"]);
    assert_eq!(given["given"], serde_json::json!(["z8.3=zero"]));
    assert_eq!(given["clean_metric"], plain["clean_metric"], "the source run has no edits");
    assert_ne!(given["corrupted_metric"], plain["corrupted_metric"]);
    assert!(given["title"].as_str().unwrap().contains("given z8.3=zero"));
    // Patching an activation with a lasting edit undoes the edit.
    let whole = folder.tiny(&["--site", "resid_post", "--given", "resid_post11", "--json"]).success().json();
    let values = numbers(&grid(&whole, "resid_post")["values"]);
    assert!((values[131] as f64 - whole["clean_metric"].as_f64().unwrap()).abs() < 1e-5);
    folder
        .tiny(&["--site", "z", "--resume", "a.safetensors"])
        .failure(2, &["given: z8.3=zero there, not given here"]);
    folder.tiny(&["--given", "z99.0"]).failure(2, &["--given: there is no layer 99"]);
    folder.tiny(&["--given", "z1.0@77"]).failure(2, &["--given: there is no pos 77"]);
}

#[test]
fn neurons_and_what_heads_write_are_swept() {
    let folder = Folder::new();
    let run = |args: &[&str]| folder.tiny(&[args, &["--json"]].concat()).success().json();
    let neurons = run(&["--site", "mlp_post", "--by-neuron", "--neurons", "3,7..9", "--layers", "2"]);
    let axes = &grid(&neurons, "mlp_post")["axes"];
    assert_eq!(
        (&axes[1]["name"], &axes[1]["labels"]),
        (&"neuron".into(), &serde_json::json!(["3", "7", "8"]))
    );
    // z and the result of its head are the same patch.
    let values = |site: &str| numbers(&run(&["--site", site])["grids"][0]["values"]);
    assert!(largest_difference(&values("z"), &values("result")) < 1e-5);
    folder.tiny(&["--site", "z", "--by-neuron"]).failure(2, &["--by-neuron is for --site mlp_pre"]);
    folder.tiny(&["--site", "mlp_post", "--neurons", "3"]).failure(2, &["has no neuron to choose from"]);
}
