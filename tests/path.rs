//! Path patching: against a straightforward PyTorch implementation, and as a user runs it.

use gpt2::Pretrained;
use patching::path::{HeadInput, PathPatching, Receivers, Senders};
use patching::{Direction, Engine, Experiment, Head, Metric, Watch};
use serde_json::Value;

use crate::util::{Folder, Run, golden, golden_case, ids, largest_difference, named, numbers};

const CLEAN: &str = "When John and Mary went to the shops, John gave the bag to";
const CORRUPTED: &str = "When John and Mary went to the shops, Mary gave the bag to";

fn paths(case: &Value) -> PathPatching {
    let head = |head: &Value| {
        let [layer, head] = ids(head)[..] else { panic!("{head} is not a head") };
        let (layer, head) = (layer as usize, head as usize);
        Head { layer, head }
    };
    let heads = case["receivers"].as_array().unwrap().iter().map(head);
    let receivers = match case["to"].as_str().unwrap() {
        "logits" => Receivers::Logits,
        "q" => Receivers::Heads(HeadInput::Q, heads.collect()),
        "k" => Receivers::Heads(HeadInput::K, heads.collect()),
        "v" => Receivers::Heads(HeadInput::V, heads.collect()),
        other => panic!("{other}"),
    };
    PathPatching {
        senders: Senders::Heads,
        receivers,
        pos: case["pos"].as_u64().map(|pos| pos as usize),
        through_mlps: case["through_mlps"].as_bool().unwrap(),
    }
}

#[test]
fn path_patching_agrees_with_a_plain_pytorch_implementation() {
    let tiny = Pretrained::tiny().unwrap();
    let mut largest = [0.0_f32; 2];
    for pair in golden("path").as_array().unwrap() {
        let text = |key: &str| pair[key].as_str().unwrap();
        let encode = |key: &str| tiny.tokenizer.encode(text(key)).unwrap();
        let token = |key: &str| tiny.tokenizer.to_single_token(text(key)).unwrap();
        let direction: Direction = text("direction").parse().unwrap();
        let experiment =
            Experiment::new(&tiny.model, encode("clean"), encode("corrupted"), direction).unwrap();
        let metric = Metric::LogitDiff { a: &[token("a")], b: &[token("b")] };
        for case in pair["cases"].as_array().unwrap() {
            let paths = paths(case);
            // The plain engine is slow: a few senders of one pair are enough.
            let engines = [Engine::default(), Engine::Plain];
            let is_short = pair["name"] == "surname, denoising" && paths.pos.is_none() && paths.through_mlps;
            let n_engines = if is_short { 2 } else { 1 };
            for (engine, largest) in engines.into_iter().zip(&mut largest).take(n_engines) {
                let outcome = paths.run(&tiny.model, &experiment, metric, engine, Watch::NOBODY).unwrap();
                let difference = largest_difference(&outcome.grid.values, &numbers(&case["values"]));
                *largest = largest.max(difference);
                assert!(
                    difference < 1e-4,
                    "{engine:?}, {direction}, {paths:?}: largest difference {difference:e}"
                );
                let base = match direction {
                    Direction::Denoising => outcome.corrupted_metric,
                    Direction::Noising => outcome.clean_metric,
                };
                assert!((base - pair["base_metric"].as_f64().unwrap() as f32).abs() < 1e-4);
                // Nothing at the receivers' layer and above is read: not a bit changes.
                if let Receivers::Heads(_, heads) = &paths.receivers {
                    let last = heads.iter().map(|head| head.layer).max().unwrap();
                    assert!(outcome.grid.values[last * 4..].iter().all(|x| *x == base));
                    assert!(outcome.grid.values[..last * 4].iter().any(|x| *x != base));
                }
            }
        }
    }
    println!("path patching: largest difference {:e} incremental, {:e} plain", largest[0], largest[1]);
}

fn path(folder: &Folder, more: &[&str]) -> Run {
    let pair = ["path", "--clean", CLEAN, "--corrupted", CORRUPTED];
    let metric = ["--logit-diff", " Mary", " John"];
    folder.tiny(&[&pair[..], &metric, more].concat())
}

#[test]
fn path_shows_the_strongest_senders_and_draws_them() {
    let folder = Folder::new();
    let noising = ["--direction", "noising", "--to", "q", "--receivers", "10.3,11.0"];
    let run = path(&folder, &noising).success();
    for part in [
        "clean      When/ John/ and/ Mary/ went",
        "path       z of each head to the queries of 10.3, 11.0, through MLPs, noising",
        "metric     change of logit(\" Mary\") − logit(\" John\")",
        "clean      +6.3409",
        "corrupted  -10.6210",
        "strongest senders\n  head     change\n",
        "48 senders in",
        "wrote path.png",
    ] {
        assert!(run.stdout.contains(part), "no «{part}» in:\n{}", run.stdout);
    }
    assert_eq!(run.stderr, "");
    assert_eq!(folder.files(), ["path.png"]);
}

#[test]
fn path_prints_one_json_object_with_the_golden_change() {
    let folder = Folder::new();
    let pair = golden_case("path", "shops, denoising");
    assert_eq!((&pair["clean"], &pair["direction"]), (&CLEAN.into(), &"denoising".into()));
    let case = named(&pair["cases"], "v of 11.0, through MLPs");
    let args = ["--to", "v", "--receivers", "11.0", "--json"];
    let json = path(&folder, &args).success().json();
    assert_eq!(json["receivers"], serde_json::json!(["11.0"]));
    assert_eq!(json["through_mlps"], true);
    assert_eq!(json["direction"], "denoising");
    assert_eq!(json["pos"], Value::Null);
    let base = pair["base_metric"].as_f64().unwrap() as f32;
    let expected: Vec<f32> = numbers(&case["values"]).iter().map(|x| x - base).collect();
    let changes = numbers(&json["grids"][0]["values"]);
    assert!(largest_difference(&changes, &expected) < 1e-4);
    assert!(changes[44..].iter().all(|change| *change == 0.0), "{changes:?}");

    let plain = [&args[..], &["--engine", "plain"]].concat();
    let plain = path(&folder, &plain).success().json();
    assert_eq!(plain["engine"], "plain");
    assert!(largest_difference(&numbers(&plain["grids"][0]["values"]), &changes) < 1e-4);

    let normalized = [&args[..], &["--metric", "normalized"]].concat();
    let normalized = path(&folder, &normalized).success().json();
    let unit = (pair["source_metric"].as_f64().unwrap() as f32) - base;
    let expected: Vec<f32> = changes.iter().map(|x| x / unit).collect();
    assert!(largest_difference(&numbers(&normalized["grids"][0]["values"]), &expected) < 1e-5);
}

#[test]
fn names_of_senders_and_receivers_may_be_typed_in_capitals() {
    let folder = Folder::new();
    let typed = |from: &str, to: &str| {
        let args = ["--from", from, "--to", to, "--receivers", "8.1", "--json"];
        path(&folder, &args).success().json()
    };
    let (small, capital) = (typed("mlp_out", "k"), typed("MLP_OUT", "K"));
    assert_eq!((&small["from"], &small["to"]), (&"mlp_out".into(), &"k".into()));
    assert_eq!(small["grids"], capital["grids"]);
}

#[test]
fn path_takes_the_mean_over_a_set_of_pairs() {
    let folder = Folder::new();
    let args = ["path", "--prompt-set", "ioi", "--count", "3", "--pos", "end", "--json"];
    let json = folder.tiny(&args).success().json();
    let grids = json["grids"].as_array().unwrap();
    let names: Vec<&str> = grids.iter().map(|grid| grid["name"].as_str().unwrap()).collect();
    let expected = ["", ", low", ", high", ", pair 1", ", pair 2", ", pair 3"];
    assert_eq!(names, expected.map(|suffix| format!("z_to_logits{suffix}")));
    let values: Vec<Vec<f32>> = grids.iter().map(|grid| numbers(&grid["values"])).collect();
    for (cell, shown) in values[0].iter().enumerate() {
        let mean = (values[3][cell] + values[4][cell] + values[5][cell]) / 3.0;
        assert!((shown - mean).abs() < 1e-5);
        assert!(values[1][cell] <= values[2][cell]);
    }
    assert_eq!(json["pos"], "end");
    let run = folder.tiny(&args[..args.len() - 1]).success();
    for part in ["3 pairs, the first of which is", "logit(a) − logit(b)", "95 % interval"] {
        assert!(run.stdout.contains(part), "no «{part}» in:\n{}", run.stdout);
    }
}

#[test]
fn path_refuses_what_it_cannot_do_before_any_work() {
    let folder = Folder::new();
    for (more, parts) in [
        (&["--to", "q"][..], &["--to q needs the heads", "--receivers 8.6,8.10"][..]),
        (&["--receivers", "8.1"], &["which --to logits does not use"]),
        (
            &["--to", "k", "--receivers", "8.1,12.0"],
            &["there is no head 12.0: this model has the layers 0 to 11"],
        ),
        (&["--to", "k", "--receivers", "8"], &["invalid head \"8\": expected LAYER.HEAD"]),
        (&["--pos", "14"], &["there is no position 14: the prompts have 14 tokens"]),
        (&["--pos", "last"], &["give a number from 0, -1 for the last, or end"]),
        (&["--out", "path.txt"], &["ends in .png or .svg"]),
    ] {
        path(&folder, more).failure(2, parts);
    }
    assert_eq!(folder.files(), [""; 0]);
}
