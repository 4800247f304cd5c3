//! Numbers that cannot be computed are never shown as one: models whose logits overflow.

use std::fs;

use gpt2::{Config, Gpt2};
use patching::{Direction, Engine, Experiment, Metric, SiteKind, Sweep};
use serde_json::{Value, json};

use crate::kin::write_model;
use crate::util::{Folder, Run};

fn small() -> Gpt2 {
    let config =
        Config { vocab_size: 9, block_size: 8, n_layer: 3, n_head: 2, n_embd: 8, ..Config::default() };
    Gpt2::random(config, 3)
}

/// All logits of this model are infinite.
fn overflowing(folder: &Folder) -> String {
    let mut model = small();
    model.wte.data_mut().iter_mut().for_each(|x| *x *= 1e38);
    model.ln_f.weight.data_mut().fill(1e10);
    write_model(&folder.file("overflowing"), &model);
    "overflowing".to_owned()
}

/// The logit of token 8 overflows after some runs only: where one number of the last row is large.
fn sometimes_overflowing(folder: &Folder) -> (Gpt2, String) {
    let mut model = small();
    let mut head = model.wte.clone();
    head.row_mut(8).fill(0.0);
    head.row_mut(8)[0] = f32::MAX;
    model.lm_head = Some(head);
    write_model(&folder.file("sometimes"), &model);
    (model, "sometimes".to_owned())
}

/// Pairs of prompts whose unpatched runs have a finite divergence; first those of which some patched run
/// has none, then those of which every one has it.
fn pairs(model: &Gpt2) -> [Vec<[String; 2]>; 2] {
    let mut found = [Vec::new(), Vec::new()];
    for (a, b, end) in (0..8).flat_map(|a| (0..8).flat_map(move |b| [0, 1].map(|end| (a, b, end)))) {
        let [clean, corrupted] = [a, b].map(|id| vec![id, 2, 3, if end == 0 { id } else { 4 }]);
        let words = [&clean, &corrupted].map(|ids| {
            let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
            ids.join(" ")
        });
        let Ok(experiment) = Experiment::new(model, clean, corrupted, Direction::Denoising) else {
            continue;
        };
        let sweep = Sweep::over(&experiment, SiteKind::ResidPost);
        let outcome = sweep.run(model, Metric::Kl, Engine::Plain, &|_| {});
        if outcome.clean_metric.is_finite() && outcome.corrupted_metric.is_finite() {
            found[usize::from(outcome.missing == 0)].push(words);
        }
    }
    assert!(found.iter().all(|pairs| !pairs.is_empty()), "{found:?}");
    found
}

fn grid<'a>(report: &'a Value, name: &str) -> &'a Value {
    let grids = report["grids"].as_array().unwrap();
    grids.iter().find(|grid| grid["name"] == name).unwrap()
}

fn nulls(grid: &Value) -> usize {
    let values = grid["values"].as_array().unwrap();
    values.iter().filter(|value| value.is_null()).count()
}

fn has_note(grid: &Value, note: &str) -> bool {
    let legend = grid["legend"].as_array().unwrap();
    legend.iter().any(|line| line.as_str().unwrap().contains(note))
}

#[test]
fn a_model_whose_logits_overflow_is_refused_by_every_metric() {
    let folder = Folder::new();
    let model = overflowing(&folder);
    let refused = |args: &[&str]| -> Run {
        let ids = ["--ids", "--model", &model];
        let run = folder.run(args.iter().chain(&ids));
        run.failure(2, &["not a finite number"])
    };
    let pair = ["--clean", "1 2 3", "--corrupted", "1 4 3", "--out", "x.png"];
    for metric in [
        &["--metric", "kl"][..],
        &["--metric", "loss"],
        &["--metric", "rank", "--token", "#5"],
        &["--metric", "prob", "--token", "#5"],
        &["--metric", "log_prob", "--token", "#5"],
        &["--metric", "logit", "--token", "#5"],
        &["--metric", "prob_diff", "--logit-diff", "#5", "#6"],
        &["--metric", "normalized", "--logit-diff", "#5", "#6"],
        &["--logit-diff", "#5", "#6"],
    ] {
        let args = |command: &'static str| [&[command], &pair[..], metric].concat();
        let run = refused(&args("sweep"));
        assert!(run.stderr.contains("the metric of the clean run is NaN: after 3 tokens"));
        refused(&args("path"));
        let ablated = [&["ablate", "1 2 3", "--out", "x.png"][..], metric].concat();
        if !metric.contains(&"normalized") {
            assert!(refused(&ablated).stderr.contains("the unablated run"));
        }
    }
    for args in [
        &["predict", "1 2 3"][..],
        &["predict", "1 2 3", "--answer", "#5"],
        &["predict", "1 2 3", "--all-positions"],
        &["lens", "1 2 3"],
        &["lens", "1 2 3", "--answers", "#5", "#6"],
    ] {
        refused(args);
    }
    assert_eq!(folder.files(), ["overflowing"]);
    for args in [&["repeat", "--seq-len", "3", "--no-bos"][..], &["verify"]] {
        let run = folder.run(args.iter().chain(&["--model", &model]));
        assert!(run.code == Some(2), "{}", run.stderr);
        assert!(run.stderr.contains("not a finite number"), "{}", run.stderr);
    }
}

#[test]
fn heads_without_a_number_are_not_among_the_strongest() {
    let folder = Folder::new();
    let mut model = small();
    // Attention of layer 1 cannot be computed, nor what follows it; that of layer 0 can.
    let weight = model.h[1].attn.c_attn.weight.data_mut();
    weight.iter_mut().for_each(|x| *x *= 1e37);
    write_model(&folder.file("attention"), &model);
    let ids = ["--ids", "--model", "attention"];
    let detect = |more: &[&str]| {
        let args = [&["detect", "1 2 1 2", "--kind", "previous_token_head"], &ids[..], more].concat();
        folder.run(args).success()
    };
    let words = detect(&[]).stdout;
    let listed = words.lines().find(|line| line.starts_with("previous_token_head  ")).unwrap();
    assert!(listed.contains(" 0.0 ") && listed.contains(" 0.1 "), "{words}");
    assert!(!listed.contains("NaN") && !listed.contains(" 1.0 "), "{words}");
    assert_eq!(nulls(grid(&detect(&["--json"]).json(), "previous_token_head")), 4);
    // Every number of an activation that cannot be computed is missing; a masked score is not one of them.
    let all = folder.run([&["activations", "1 2 1 2", "--json"], &ids[..]].concat()).success().json();
    let text = all.to_string();
    assert!(text.contains("\"norm\":null") && text.contains("\"max\":null"), "{text}");
    let among = ["compose", "--head", "1.1", "--among", "1 2 3", "--json"];
    let composed = folder.run([&among[..], &ids].concat()).success().json();
    assert_eq!(nulls(grid(&composed, "qk_circuit")), 9);
}

#[test]
fn a_run_without_a_number_is_missing_in_every_form() {
    let folder = Folder::new();
    let (gpt2, model) = sometimes_overflowing(&folder);
    let [lacking, _] = pairs(&gpt2);
    let [clean, corrupted] = &lacking[0];
    let sweep =
        ["sweep", "--ids", "--metric", "kl", "--model", &model, "--clean", clean, "--corrupted", corrupted];
    let forms = ["--csv", "a.csv", "--npy", "a.npy", "--safetensors", "a.safetensors"];
    let json = folder.run([&sweep[..], &forms, &["--json", "--out", "a.png"]].concat()).success();
    let report = json.json();
    let shown = grid(&report, "resid_post");
    let missing = nulls(shown);
    assert!(missing > 0 && missing < shown["values"].as_array().unwrap().len());
    assert!(has_note(shown, "no finite metric"), "{shown}");

    // What is read back is the same, and NaN equals NaN; a number beside it would not.
    fs::write(folder.file("a.json"), &json.stdout).unwrap();
    for form in ["a.csv", "a.npy", "a.safetensors"] {
        let run = folder.run(["diff", "a.json", form, "--tolerance", "0"]).success();
        assert!(run.stdout.contains("all equal"), "{}", run.stdout);
        for picture in ["b.png", "b.svg"] {
            folder.run(["plot", form, "--out", picture]).success();
        }
        assert!(fs::read_to_string(folder.file("b.svg")).unwrap().contains("not a finite number"));
        fs::remove_file(folder.file("b.svg")).unwrap();
        fs::remove_file(folder.file("b.png")).unwrap();
    }
    let mut filled = report.clone();
    let values = filled["grids"][0]["values"].as_array_mut().unwrap();
    values.iter_mut().filter(|x| x.is_null()).for_each(|x| *x = json!(0.0));
    fs::write(folder.file("filled.json"), filled.to_string()).unwrap();
    let differ = ["diff", "a.json", "filled.json", "--tolerance", "1e9"];
    let run = folder.run(differ);
    assert_eq!(run.code, Some(1), "{}", run.stdout);

    // Resuming from it computes the same.
    let resume = ["--resume", "a.safetensors", "--json", "--out", "c.png"];
    let again = folder.run([&sweep[..], &resume].concat()).success().json();
    assert_eq!(again["complete"], true);
    assert_eq!(grid(&again, "resid_post")["values"], shown["values"]);

    // A grid of nothing but missing numbers is a picture, too.
    let values = filled["grids"][0]["values"].as_array_mut().unwrap();
    values.iter_mut().for_each(|x| *x = Value::Null);
    fs::write(folder.file("nothing.json"), filled.to_string()).unwrap();
    for picture in ["d.png", "d.svg"] {
        folder.run(["plot", "nothing.json", "--out", picture]).success();
    }
}

#[test]
fn a_mean_names_the_pairs_that_leave_it_without_a_number() {
    let folder = Folder::new();
    let (gpt2, model) = sometimes_overflowing(&folder);
    let [lacking, whole] = pairs(&gpt2);
    let lines: Vec<String> = [&whole[0], &lacking[0]]
        .map(|[clean, corrupted]| json!({"clean": clean, "corrupted": corrupted}).to_string())
        .to_vec();
    fs::write(folder.file("set.jsonl"), lines.join("\n")).unwrap();
    let args = [
        "sweep",
        "--ids",
        "--metric",
        "kl",
        "--model",
        &model,
        "--prompts",
        "set.jsonl",
        "--json",
        "--csv",
        "all.csv",
        "--out",
        "x.png",
    ];
    let report = folder.run(args).success().json();
    let of_pair = grid(&report, "resid_post, pair 2");
    for name in ["resid_post", "resid_post, low", "resid_post, high"] {
        let mean = grid(&report, name);
        assert_eq!(nulls(mean), nulls(of_pair), "{name}");
        assert!(nulls(mean) > 0);
        assert!(has_note(mean, "(of 2)"), "{mean}");
    }
    assert_eq!(nulls(grid(&report, "resid_post, pair 1")), 0);
}
