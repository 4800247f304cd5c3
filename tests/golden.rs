//! The libraries against golden values. Each test prints its largest difference
//! (`cargo test golden -- --nocapture`).

use std::collections::HashMap;

use gpt2::tokenizer::END_OF_TEXT;
use gpt2::{Pretrained, Sampling, Site, no_hook};
use patching::{Ablation, Axis, Direction, Engine, Experiment, Metric, SiteKind, Sweep};
use serde_json::Value;
use tensor::Tensor;

use crate::util::{golden, ids, largest_difference, numbers};

fn tiny() -> Pretrained {
    Pretrained::tiny().unwrap()
}

/// The ids of a prompt, with `<|endoftext|>` in front where the golden values have it.
fn encode(tiny: &Pretrained, text: &Value, bos: &Value) -> Vec<u32> {
    let bos = if bos.as_bool().unwrap() { vec![END_OF_TEXT] } else { vec![] };
    [bos, tiny.tokenizer.encode(text.as_str().unwrap()).unwrap()].concat()
}

#[test]
fn logits_and_generated_text_are_those_of_transformers() {
    let tiny = tiny();
    let mut largest = 0.0_f32;
    for case in golden("logits").as_array().unwrap() {
        let prompt = encode(&tiny, &case["prompt"], &case["bos"]);
        assert_eq!(prompt, ids(&case["ids"]));
        let logits = tiny.model.forward(&prompt, &mut no_hook);
        let last = logits.row(prompt.len() - 1);

        let expected = numbers(&case["top20_logits"]);
        let got: Vec<f32> = ids(&case["top20_ids"]).iter().map(|&id| last[id as usize]).collect();
        largest = largest.max(largest_difference(&got, &expected));
        largest = largest.max(largest_difference(&last[..64], &numbers(&case["last_logits_first_64"])));
        let total = tensor::log_sum_exp(last);
        largest = largest.max((total - case["logsumexp"].as_f64().unwrap()).abs() as f32);

        let prob = |logit: &f32| (f64::from(*logit) - total).exp() as f32;
        let probs: Vec<f32> = got.iter().map(prob).collect();
        assert!(largest_difference(&probs, &numbers(&case["top20_probs"])) < 1e-4);
        assert_eq!(gpt2::generate::rank(last, 20), ids(&case["top20_ids"]));
        assert!(largest_difference(&tiny.model.next_token_logits(&prompt, &mut no_hook), last) < 1e-4);

        let log_prob = |pos: usize| gpt2::generate::log_prob(logits.row(pos), prompt[pos + 1]);
        let mean = (0..prompt.len() - 1).map(log_prob).sum::<f64>() / (prompt.len() - 1) as f64;
        assert!((mean - case["mean_log_prob"].as_f64().unwrap()).abs() < 1e-4);

        let end = Some(END_OF_TEXT);
        let written = tiny.model.generate(&prompt, 8, Sampling::GREEDY, end).unwrap();
        assert_eq!(written, ids(&case["greedy_8"]));
    }
    println!("logits: largest difference {largest:e}");
    assert!(largest < 1e-4, "largest difference {largest:e}");
}

#[test]
fn every_activation_is_that_of_transformer_lens() {
    let tiny = tiny();
    let golden = golden("activations");
    let prompt = encode(&tiny, &golden["prompt"], &golden["bos"]);
    let mut cache: HashMap<String, Tensor> = HashMap::new();
    let mut order = Vec::new();
    tiny.model.forward(&prompt, &mut |site, x| {
        order.push(site);
        cache.insert(site.to_string(), x.clone());
    });
    assert_eq!(order, Site::all(12).collect::<Vec<_>>());

    let expected = golden["hooks"].as_object().unwrap();
    assert_eq!(expected.len(), cache.len());
    let mut largest = 0.0_f32;
    for (name, expected) in expected {
        let got = &cache[name];
        assert_eq!(got.shape(), ids(&expected["shape"]).iter().map(|&n| n as usize).collect::<Vec<_>>());
        // −∞ above the diagonal of the scores is not part of the sums.
        let finite = || got.data().iter().copied().filter(|x| x.is_finite()).map(f64::from);
        let abs_sum = expected["abs_sum"].as_f64().unwrap();
        let scale = 1e-5 * abs_sum + 1e-4;
        assert!((finite().map(f64::abs).sum::<f64>() - abs_sum).abs() < scale, "{name}");
        assert!((finite().sum::<f64>() - expected["sum"].as_f64().unwrap()).abs() < scale, "{name}");
        let first = numbers(&expected["first"]);
        let difference = largest_difference(&got.data()[..first.len()], &first);
        largest = largest.max(difference);
        assert!(difference < 1e-4, "{name}: largest difference {difference:e}");
    }
    println!("activations: largest difference {largest:e}");
}

/// The name of a sweep in the golden file, and what it patches over which axes.
const SWEEPS: [(&str, SiteKind, &[Axis]); 15] = {
    use Axis::{Dest, Head, Layer, Pos};
    use SiteKind::{AttnOut, K, MlpOut, Pattern, Q, ResidMid, ResidPost, ResidPre, V, Z};
    [
        ("resid_pre", ResidPre, &[Layer, Pos]),
        ("resid_mid", ResidMid, &[Layer, Pos]),
        ("resid_post", ResidPost, &[Layer, Pos]),
        ("attn_out", AttnOut, &[Layer, Pos]),
        ("mlp_out", MlpOut, &[Layer, Pos]),
        ("attn_head_out_all_pos", Z, &[Layer, Head]),
        ("attn_head_q_all_pos", Q, &[Layer, Head]),
        ("attn_head_k_all_pos", K, &[Layer, Head]),
        ("attn_head_v_all_pos", V, &[Layer, Head]),
        ("attn_head_pattern_all_pos", Pattern, &[Layer, Head]),
        ("attn_head_out_by_pos", Z, &[Layer, Pos, Head]),
        ("attn_head_q_by_pos", Q, &[Layer, Pos, Head]),
        ("attn_head_k_by_pos", K, &[Layer, Pos, Head]),
        ("attn_head_v_by_pos", V, &[Layer, Pos, Head]),
        ("attn_head_pattern_by_pos", Pattern, &[Layer, Head, Dest]),
    ]
};

#[test]
fn sweeps_are_those_of_transformer_lens() {
    let tiny = tiny();
    for case in golden("sweeps").as_array().unwrap() {
        let encode = |key: &str| tiny.tokenizer.encode(case[key].as_str().unwrap()).unwrap();
        let answer = |key: &str| tiny.tokenizer.to_single_token(case[key].as_str().unwrap()).unwrap();
        let direction: Direction = case["direction"].as_str().unwrap().parse().unwrap();
        let experiment =
            Experiment::new(&tiny.model, encode("clean"), encode("corrupted"), direction).unwrap();
        let metric = Metric::LogitDiff { a: &[answer("answer_b")], b: &[answer("answer_a")] };
        assert_eq!(case["sweeps"].as_object().unwrap().len(), SWEEPS.len());
        for (name, site, axes) in SWEEPS {
            let expected = &case["sweeps"][name];
            let shape: Vec<usize> = ids(&expected["shape"]).iter().map(|&n| n as usize).collect();
            let sweep = Sweep::over(&experiment, site).by(axes);
            // The plain engine is left out if it would take long.
            let engines = [Engine::default(), Engine::Plain];
            for engine in &engines[..if axes.len() == 2 { 2 } else { 1 }] {
                let outcome = sweep.run(&tiny.model, metric, *engine, &|_| {});
                assert_eq!(outcome.grid.shape(), shape, "{name}");
                let largest = largest_difference(&outcome.grid.values, &numbers(&expected["values"]));
                let what = format!("{name}, {direction}, {} tokens, {engine:?}", experiment.n_tokens());
                println!("{what}: largest difference {largest:e}");
                assert!(largest < 1e-4, "{what}: largest difference {largest:e}");
                for (got, key) in
                    [(outcome.clean_metric, "clean_metric"), (outcome.corrupted_metric, "corrupted_metric")]
                {
                    assert!((got - case[key].as_f64().unwrap() as f32).abs() < 1e-4, "{key}: {got}");
                }
            }
        }
    }
}

#[test]
fn ablations_are_those_of_transformer_lens() {
    let tiny = tiny();
    let golden = golden("ablations");
    let prompt = encode(&tiny, &golden["prompt"], &Value::Bool(false));
    let answer = |key: &str| {
        let text = golden[key].as_str().unwrap();
        tiny.tokenizer.to_single_token(text).unwrap()
    };
    let metric = Metric::LogitDiff { a: &[answer("answer_b")], b: &[answer("answer_a")] };
    for (name, site, ablation) in [
        ("head_zero", SiteKind::Z, Ablation::Zero),
        ("head_mean", SiteKind::Z, Ablation::Mean),
        ("mlp_zero", SiteKind::MlpOut, Ablation::Zero),
        ("attn_zero", SiteKind::AttnOut, Ablation::Zero),
    ] {
        let experiment = Experiment::ablation(&tiny.model, prompt.clone(), ablation).unwrap();
        for engine in [Engine::default(), Engine::Plain] {
            let sweep = Sweep::over(&experiment, site);
            let outcome = sweep.run(&tiny.model, metric, engine, &|_| {});
            let base = golden["base"].as_f64().unwrap() as f32;
            assert!((outcome.clean_metric - base).abs() < 1e-4);
            assert_eq!(outcome.clean_metric, outcome.corrupted_metric);
            let expected = numbers(&golden[name]["values"]);
            let largest = largest_difference(&outcome.grid.values, &expected);
            println!("{name}, {engine:?}: largest difference {largest:e}");
            assert!(largest < 1e-4, "{name}: largest difference {largest:e}");
        }
    }
}
