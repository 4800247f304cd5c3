//! Edges against `tests/golden/gradients.json`, which PyTorch computed in double precision.
//! It prints its largest differences (`cargo test -p patching --test circuits -- --nocapture`).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;

use gpt2::Pretrained;
use gpt2::graph::Edge;
use patching::circuit::{Prediction, Replacement, Runs, Scores, ranking};
use patching::{Agreement, Direction, Engine, Experiment, Metric, Watch};
use serde_json::Value;

fn cases() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/gradients.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The edges of a list of the file, with their numbers.
fn listed(list: &Value) -> Vec<(Edge, f32)> {
    let edge = |pair: &Value| (pair[0].as_str().unwrap().parse().unwrap(), pair[1].as_f64().unwrap() as f32);
    list.as_array().unwrap().iter().map(edge).collect()
}

fn with_runs(case: &Value, then: impl Fn(&Runs<'_>)) {
    let tiny = Pretrained::tiny().unwrap();
    let text = |key: &str| case[key].as_str().unwrap();
    let encode = |key: &str| tiny.tokenizer.encode(text(key)).unwrap();
    let direction: Direction = text("direction").parse().unwrap();
    let experiment = Experiment::new(&tiny.model, encode("clean"), encode("corrupted"), direction).unwrap();
    let answer = |key: &str| tiny.tokenizer.to_single_token(text(key)).unwrap();
    let (a, b) = ([answer("answer_a")], [answer("answer_b")]);
    let metric = Metric::LogitDiff { a: &b, b: &a };
    then(&Runs::new(&tiny.model, &experiment, metric, Replacement::Source, Watch::NOBODY).unwrap().unwrap());
}

fn check(scores: &Scores, golden: &Value, name: &str) {
    let sum = |of: &dyn Fn(f32) -> f32| scores.iter().map(|(_, score)| f64::from(of(score))).sum::<f64>();
    let sums = [(sum(&|x| x), "sum"), (sum(&f32::abs), "abs_sum")];
    for (got, key) in sums {
        let expected = golden[key].as_f64().unwrap();
        assert!((got - expected).abs() < 2e-3, "{name}, {key}: {got}, not {expected}");
    }
    let mut largest = 0.0_f32;
    for (edge, expected) in listed(&golden["top"]) {
        let got = scores.at(edge);
        largest = largest.max((got - expected).abs());
        assert!((got - expected).abs() < 5e-5, "{name}, {edge}: {got}, not {expected}");
    }
    println!(
        "{name}: largest difference {largest:e}, of sums {:e}",
        (sums[0].0 - golden["sum"].as_f64().unwrap()).abs()
    );
}

#[test]
fn predicted_effects_of_edges_are_those_of_pytorch() {
    for case in cases() {
        with_runs(&case, |runs| {
            let golden = &case["edges"];
            assert_eq!(golden["count"].as_u64().unwrap() as usize, runs.graph().edges().count());
            let predict = |prediction| runs.predict(prediction).unwrap().unwrap();
            check(&predict(Prediction::Eap), &golden["eap"], "eap");
            check(&predict(Prediction::EapIg { steps: 5 }), &golden["eap_ig_5"], "eap-ig");
        });
    }
}

#[test]
fn exact_effects_of_edges_are_those_of_pytorch() {
    for case in cases() {
        with_runs(&case, |runs| {
            let golden = listed(&case["edges"]["exact"]);
            let edges: Vec<Edge> = golden.iter().map(|(edge, _)| *edge).collect();
            let measured = runs.measure(&edges, Engine::default()).unwrap();
            let differences = golden.iter().map(|(edge, expected)| (measured.at(*edge) - expected).abs());
            let largest = differences.fold(0.0, |a, b| if b > a || b.is_nan() { b } else { a });
            println!("exact: largest difference {largest:e}");
            assert!(largest < 1e-4, "{largest:e}");
        });
    }
}

#[test]
fn predictions_agree_with_all_exact_edges() {
    for case in cases().iter().step_by(2) {
        with_runs(case, |runs| {
            let edges: Vec<Edge> = runs.graph().edges().collect();
            let exact = runs.measure(&edges, Engine::default()).unwrap();
            let list = |scores: &Scores| scores.iter().map(|(_, score)| score).collect::<Vec<f32>>();
            let of = |prediction| {
                let predicted = list(&runs.predict(prediction).unwrap().unwrap());
                let agreement = Agreement::of(&list(&exact), &predicted);
                println!(
                    "{prediction:?}: Pearson {:.4}, Kendall {:.3}",
                    agreement.pearson,
                    ranking::kendall(&list(&exact), &predicted)
                );
                agreement.pearson
            };
            assert!(of(Prediction::Eap) > 0.7);
            assert!(of(Prediction::EapIg { steps: 5 }) > 0.9);
            of(Prediction::EapIgActivations { steps: 5 });
            of(Prediction::CleanCorrupted);
        });
    }
}
