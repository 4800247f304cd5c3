//! Gradients and attribution against `tests/golden/gradients.json`, which PyTorch computed in double precision.
//! Each test prints its largest differences (`cargo test -p patching --test gradients -- --nocapture`).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::HashMap;
use std::path::Path;

use gpt2::{Axis, Gradients, Kernel, Pretrained, Rules, Site, SiteKind, no_hook};
use patching::{Agreement, Direction, Engine, Experiment, Method, Metric, Sweep, attribute};
use serde_json::Value;
use tensor::Tensor;

fn cases() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/gradients.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

/// The largest difference, and the size of the largest expected number.
fn difference(got: &[f32], expected: &[f32]) -> [f32; 2] {
    assert_eq!(got.len(), expected.len());
    let largest = got.iter().zip(expected).map(|(x, y)| (x - y).abs());
    let largest = largest.fold(0.0, |a, b| if b > a || b.is_nan() { b } else { a });
    [largest, expected.iter().fold(0.0, |a, b| a.max(b.abs()))]
}

/// The tiny model, the experiment of a case, and its two answers: the metric is logit(b) − logit(a).
fn of_case(tiny: &Pretrained, case: &Value) -> (Experiment, [u32; 2]) {
    let text = |key: &str| case[key].as_str().unwrap();
    let encode = |key: &str| tiny.tokenizer.encode(text(key)).unwrap();
    let direction: Direction = text("direction").parse().unwrap();
    let experiment = Experiment::new(&tiny.model, encode("clean"), encode("corrupted"), direction).unwrap();
    let answer = |key: &str| tiny.tokenizer.to_single_token(text(key)).unwrap();
    (experiment, [answer("answer_a"), answer("answer_b")])
}

const BY_POS: &[Axis] = &[Axis::Layer, Axis::Pos];
const BY_HEAD: &[Axis] = &[Axis::Layer, Axis::Head];
const BY_BOTH: &[Axis] = &[Axis::Layer, Axis::Pos, Axis::Head];

/// The names of the attributions in the file, what they are of, and along which axes.
const GRIDS: [(&str, SiteKind, &[Axis]); 14] = [
    ("resid_pre", SiteKind::ResidPre, BY_POS),
    ("attn_out", SiteKind::AttnOut, BY_POS),
    ("resid_mid", SiteKind::ResidMid, BY_POS),
    ("mlp_out", SiteKind::MlpOut, BY_POS),
    ("resid_post", SiteKind::ResidPost, BY_POS),
    ("z", SiteKind::Z, BY_HEAD),
    ("z_by_pos", SiteKind::Z, BY_BOTH),
    ("q", SiteKind::Q, BY_HEAD),
    ("q_by_pos", SiteKind::Q, BY_BOTH),
    ("k", SiteKind::K, BY_HEAD),
    ("k_by_pos", SiteKind::K, BY_BOTH),
    ("v", SiteKind::V, BY_HEAD),
    ("v_by_pos", SiteKind::V, BY_BOTH),
    ("pattern", SiteKind::Pattern, BY_HEAD),
];

#[test]
fn atp_and_relp_are_those_of_pytorch() {
    let tiny = Pretrained::tiny().unwrap();
    let mut largest = 0.0_f32;
    for case in cases() {
        let (experiment, [a, b]) = of_case(&tiny, &case);
        let metric = Metric::LogitDiff { a: &[b], b: &[a] };
        for (method, name) in [(Method::Atp, "atp"), (Method::Relp, "relp")] {
            let stored = case[name].as_object().unwrap();
            let grids: Vec<_> = GRIDS.iter().filter(|(name, ..)| stored.contains_key(*name)).collect();
            assert_eq!(grids.len(), stored.len());
            let sweep =
                |(_, site, axes): &&(&str, SiteKind, &[Axis])| Sweep::over(&experiment, *site).by(axes);
            let sweeps: Vec<Sweep<'_>> = grids.iter().map(sweep).collect();
            let all = attribute(&tiny.model, &sweeps, metric, method, &|_| {}).unwrap();
            for (got, (grid, ..)) in all.iter().zip(&grids) {
                let expected = numbers(&stored[*grid]["values"]);
                let [difference, size] = difference(&got.changes.values, &expected);
                println!("{}, {method} of {grid}: {difference:e} of {size}", case["name"]);
                assert!(difference < 1e-5 * size + 2e-5, "{grid}: {difference:e} of {size}");
                largest = largest.max(difference);
                let [base, source] = ["base_metric", "source_metric"].map(|key| case[key].as_f64().unwrap());
                let ends = got.ends();
                let sum = f64::from(ends.clean) + f64::from(ends.corrupted);
                assert!((f64::from(ends.base) - base).abs() < 1e-4 && (sum - base - source).abs() < 1e-4);
            }
        }
    }
    println!("largest difference {largest:e}");
}

#[test]
fn gradients_are_those_of_pytorch() {
    let tiny = Pretrained::tiny().unwrap();
    for case in cases() {
        let (experiment, [a, b]) = of_case(&tiny, &case);
        let mut dlogits = Tensor::zeros(&[experiment.n_tokens(), 50257]);
        let last = dlogits.row_mut(experiment.n_tokens() - 1);
        (last[b as usize], last[a as usize]) = (1.0, -1.0);
        for kernel in [Kernel::Plain, Kernel::Fast] {
            let activations = tiny.model.record(kernel, experiment.base(), &mut no_hook);
            let mut gradients: HashMap<Site, Tensor> = HashMap::new();
            let mut keep = |site: Site, dx: &Tensor| drop(gradients.insert(site, dx.clone()));
            let to = Gradients { hook: Some(&mut keep), parameters: None };
            tiny.model.backward(&activations, tiny.model.unembed_backward(&dlogits), &Rules::default(), to);
            for (name, expected) in case["gradient"].as_object().unwrap() {
                let kind: SiteKind = name.parse().unwrap();
                let norm = |x: &Tensor| x.data().iter().map(|x| x * x).sum::<f32>().sqrt();
                let norms: Vec<f32> = (0..12).map(|layer| norm(&gradients[&kind.at(layer)])).collect();
                let of_layer = gradients[&kind.at(3)].data();
                let ends = [&of_layer[..12], &of_layer[of_layer.len() - 12..]];
                let [off, size] = difference(&norms, &numbers(&expected["norms"]));
                assert!(off < 1e-5 * size, "{name}: {off:e} of {size}");
                for (got, key) in ends.iter().zip(["first_of_layer_3", "last_of_layer_3"]) {
                    let [off, _] = difference(got, &numbers(&expected[key]));
                    println!("{}, {kernel:?}, gradient of {name}: {off:e} of {size}", case["name"]);
                    assert!(off < 1e-5 * size, "{name}, {key}: {off:e} of {size}");
                }
            }
        }
    }
}

#[test]
fn predictions_of_the_tiny_model_correlate_with_its_sweeps() {
    let tiny = Pretrained::tiny().unwrap();
    for case in cases() {
        let (experiment, [a, b]) = of_case(&tiny, &case);
        let metric = Metric::LogitDiff { a: &[b], b: &[a] };
        // What was measured with PyTorch: at least 0.95 with atp, and 0.98 with relp.
        for (method, least) in [(Method::Atp, 0.94), (Method::Relp, 0.975), (Method::Ig { steps: 5 }, 0.9)] {
            let sweep = Sweep::over(&experiment, SiteKind::ResidPost);
            let exact = sweep.run(&tiny.model, metric, Engine::default(), &|_| {});
            let got = attribute(&tiny.model, &[sweep], metric, method, &|_| {}).unwrap();
            let agreement = Agreement::of(&exact.grid.values, &got[0].values().unwrap().values);
            println!("{}, {method}: {agreement:?}", case["name"]);
            assert!(agreement.pearson > least, "{method}: {agreement:?}");
        }
    }
}
