//! The studies of `crates/lens` against golden values. Each test prints its largest difference
//! (`cargo test lens -- --nocapture`).

use gpt2::{Gpt2, Pretrained, SiteKind};
use lens::attribution::direct_logit_attribution;
use lens::composition::{
    Composition, all_composition_scores, full_ov_circuit, k_composition_circuit, strongest_pairs,
    top1_accuracy,
};
use lens::heads::{DetectOptions, ErrorMeasure, RepeatedTokens, detect, repeat_study};
use lens::logit_lens::logit_lens;
use lens::processing::{Flags, process};
use lens::transplant::mlp_transplant;
use lens::weights::head_weights;
use lens::{ioi, run_with_cache};
use serde_json::Value;
use tensor::{Tensor, log_sum_exp};

use crate::util::{golden, ids, largest_difference, numbers};

fn tiny() -> Pretrained {
    Pretrained::tiny().unwrap()
}

fn number(value: &Value) -> f32 {
    value.as_f64().unwrap() as f32
}

/// Prints the largest difference, and holds it to the tolerance.
#[track_caller]
fn assert_close(what: &str, got: &[f32], expected: &[f32], tolerance: f32) {
    let largest = largest_difference(got, expected);
    println!("{what}: largest difference {largest:e}");
    assert!(largest < tolerance, "{what}: largest difference {largest:e}");
}

/// A grid of a golden file: `{"shape": […], "values": […]}`.
#[track_caller]
fn assert_grid(what: &str, got: &Tensor, expected: &Value, tolerance: f32) {
    let shape: Vec<usize> = ids(&expected["shape"]).iter().map(|&n| n as usize).collect();
    assert_eq!(got.shape(), shape, "{what}");
    assert_close(what, got.data(), &numbers(&expected["values"]), tolerance);
}

fn repeated_tokens(golden: &Value) -> RepeatedTokens {
    RepeatedTokens { ids: ids(&golden["ids"]), seq_len: golden["seq_len"].as_u64().unwrap() as usize }
}

#[test]
fn head_scores_are_those_of_transformer_lens() {
    let golden = golden("repeated_tokens");
    let prompt = repeated_tokens(&golden);
    let study = repeat_study(&tiny().model, &[prompt]).unwrap();
    let expected = ["first_half_mean_log_prob", "second_half_mean_log_prob"];
    let expected = expected.map(|key| number(&golden[key]));
    assert_close("log probabilities", &study.mean_log_prob, &expected, 1e-4);
    let expected = ["first_half_accuracy", "second_half_accuracy"];
    let expected = expected.map(|key| number(&golden[key]));
    assert_close("accuracies", &study.accuracy, &expected, 1e-6);
    for (name, scores) in study.scores.all() {
        assert_grid(name, scores, &golden[name], 1e-5);
    }
}

#[test]
fn the_mlp_transplant_is_that_of_transformer_lens() {
    let golden = golden("repeated_tokens");
    let prompt = repeated_tokens(&golden);
    let grid = mlp_transplant(&tiny().model, &prompt, &|_| {}).unwrap();
    assert_grid("mlp_transplant", &grid, &golden["mlp_transplant"], 1e-4);
}

#[test]
fn logit_lens_and_attribution_are_those_of_transformer_lens() {
    let tiny = tiny();
    let golden = golden("attribution");
    let prompt = tiny.tokenizer.encode(golden["prompt"].as_str().unwrap()).unwrap();
    let answer = |key: &str| {
        let text = golden[key].as_str().unwrap();
        tiny.tokenizer.to_single_token(text).unwrap()
    };
    let [a, b] = ["answer_a", "answer_b"].map(answer);

    let lens = logit_lens(&tiny.model, &prompt, &[a, b]).unwrap();
    let expected = &golden["logit_lens"];
    let rows: Vec<&str> =
        expected["rows"].as_array().unwrap().iter().map(|row| row.as_str().unwrap()).collect();
    assert_eq!(lens.labels, rows);
    let last = (1..=rows.len()).map(|point| lens.answer_logits.row(point * prompt.len() - 1));
    assert_close("logit lens", &last.collect::<Vec<_>>().concat(), &numbers(&expected["values"]), 1e-4);

    let parts = direct_logit_attribution(&tiny.model, &prompt, prompt.len() - 1, b, a).unwrap();
    let expected = &golden["direct_logit_attribution"];
    let got = [parts.embed, parts.pos_embed, parts.ln_f_bias, parts.sum(), parts.logit_diff];
    let keys = ["embed", "pos_embed", "ln_f_bias", "sum_is", "sum_is"];
    assert_close("attribution", &got, &keys.map(|key| number(&expected[key])), 1e-4);
    assert_close("attribution to attn_out", &parts.attn_out, &numbers(&expected["attn_out"]), 1e-4);
    assert_close("attribution to mlp_out", &parts.mlp_out, &numbers(&expected["mlp_out"]), 1e-4);
    assert_grid("attribution to heads", &parts.heads, &expected["heads"], 1e-4);
}

#[test]
fn composition_scores_are_those_of_transformer_lens() {
    let tiny = tiny();
    let golden = golden("composition");
    for kind in Composition::ALL {
        let scores = all_composition_scores(&tiny.model, kind);
        let expected = &golden[kind.to_string()];
        let sum: f64 = scores.data().iter().map(|x| f64::from(*x)).sum();
        let difference = (sum - expected["sum"].as_f64().unwrap()).abs();
        println!("sum of {kind}-composition: difference {difference:e}");
        assert!(difference < 1e-3, "{sum}");
        let top = expected["top"].as_array().unwrap();
        let pairs = strongest_pairs(&scores, top.len());
        let got: Vec<f32> = pairs.iter().map(|pair| pair.score).collect();
        let expected: Vec<f32> = top.iter().map(|row| number(&row[4])).collect();
        assert_close(&format!("{kind}-composition"), &got, &expected, 1e-5);
        for row in top {
            let [l1, h1, l2, h2] = [0, 1, 2, 3].map(|i| row[i].as_u64().unwrap() as usize);
            let got = scores.row((l1 * 4 + h1) * 12 + l2)[h2];
            assert!((got - number(&row[4])).abs() < 1e-5, "{row}: {got}");
        }
    }
}

#[test]
fn a_processed_model_is_that_of_transformer_lens() {
    let tiny = tiny();
    let golden = golden("processed");
    let prompt = tiny.tokenizer.encode(golden["prompt"].as_str().unwrap()).unwrap();
    let processed = process(&tiny.model, Flags::DEFAULT);
    assert_close(
        "b_U",
        &processed.lm_head_bias.as_ref().unwrap().data()[..8],
        &numbers(&golden["b_U_first_8"]),
        1e-5,
    );

    let logits = processed.forward(&prompt, &mut gpt2::no_hook);
    let last = logits.row(prompt.len() - 1);
    assert_close("processed logits", &last[..16], &numbers(&golden["logits_last_first_16"]), 1e-4);
    let change = log_prob_change(&logits, &tiny.model, &prompt);
    println!("log probabilities: largest change {change:e}");
    assert!(change < 5e-5, "{change:e}");

    let cache = run_with_cache(&processed, &prompt).unwrap();
    let hooks = golden["hooks"].as_object().unwrap();
    assert_eq!(hooks.len(), 3 * 12 + 2);
    let mut largest = 0.0_f32;
    for (name, expected) in hooks {
        let got = cache.by_name(name).unwrap().data();
        let first = numbers(&expected["first"]);
        let difference = largest_difference(&got[..first.len()], &first);
        assert!(difference < 1e-4, "{name}: {difference:e}");
        largest = largest.max(difference);
        let abs_sum: f64 = got.iter().map(|x| f64::from(x.abs())).sum();
        let expected_sum = expected["abs_sum"].as_f64().unwrap();
        assert!((abs_sum - expected_sum).abs() < 1e-5 * expected_sum, "{name}: {abs_sum}");
        let sum: f64 = got.iter().map(|x| f64::from(*x)).sum();
        let difference = (sum - expected["sum"].as_f64().unwrap()).abs();
        assert!(difference < 1e-5 * expected_sum + 1e-3, "{name}: {sum}");
    }
    println!("processed activations: largest difference {largest:e}");
}

/// The largest change of any log probability of any position.
fn log_prob_change(logits: &Tensor, model: &Gpt2, prompt: &[u32]) -> f32 {
    let expected = model.forward(prompt, &mut gpt2::no_hook);
    let rows = (0..prompt.len()).map(|pos| [logits.row(pos), expected.row(pos)]);
    let log_probs = rows.map(|rows| {
        rows.map(|row| {
            let total = log_sum_exp(row);
            let log_prob = |x: &f32| (f64::from(*x) - total) as f32;
            row.iter().map(log_prob).collect::<Vec<f32>>()
        })
    });
    log_probs.fold(0.0, |largest, [got, expected]| largest.max(largest_difference(&got, &expected)))
}

#[test]
fn the_ioi_table_is_that_of_transformer_lens() {
    let tiny = tiny();
    let golden = golden("ioi");
    let cases = golden.as_array().unwrap();
    assert_eq!(cases.len(), 2 * ioi::PROMPTS.len());
    for bos in [true, false] {
        let table = ioi::table(&tiny.model, &tiny.tokenizer, bos.then_some(50256)).unwrap();
        let cases: Vec<&Value> = cases.iter().filter(|case| case["bos"] == bos).collect();
        for (row, case) in table.rows.iter().zip(&cases) {
            assert_eq!(case["prompt"], row.prompt);
            assert_eq!(case["correct"], row.correct);
            assert_eq!(case["incorrect"], row.incorrect);
        }
        let got: Vec<f32> = table.rows.iter().map(|row| row.logit_diff).collect();
        let expected: Vec<f32> = cases.iter().map(|case| number(&case["logit_diff"])).collect();
        assert_close(&format!("ioi, bos {bos}"), &got, &expected, 1e-4);
        let mean = expected.iter().sum::<f32>() / expected.len() as f32;
        assert_close("its mean", &[table.mean], &[mean], 1e-4);
    }
}

#[test]
fn the_listing_of_activations_has_the_sums_of_transformer_lens() {
    let tiny = tiny();
    let golden = golden("activations");
    let text = golden["prompt"].as_str().unwrap();
    let prompt = tiny.tokenizer.encode(text).unwrap();
    let summaries = run_with_cache(&tiny.model, &prompt).unwrap().summaries();
    assert_eq!(summaries.len(), golden["hooks"].as_object().unwrap().len());
    for row in summaries {
        let expected = &golden["hooks"][&row.name];
        let shape = row.shape.iter().map(|&n| n as u32).collect::<Vec<_>>();
        assert_eq!(shape, ids(&expected["shape"]), "{}", row.name);
        let [sum, abs_sum] = ["sum", "abs_sum"].map(|key| expected[key].as_f64().unwrap());
        let tolerance = 1e-5 * abs_sum + 1e-4;
        assert!((row.sum - sum).abs() < tolerance, "{}: {}", row.name, row.sum);
    }
}

#[test]
fn heads_of_a_kind_are_those_that_transformer_lens_detects() {
    let tiny = tiny();
    let golden = golden("lens");
    for case in golden["detect"].as_array().unwrap() {
        let options = DetectOptions {
            error_measure: case["error_measure"].as_str().unwrap().parse().unwrap(),
            exclude_bos: case["exclude_bos"].as_bool().unwrap(),
            exclude_current_token: case["exclude_current_token"].as_bool().unwrap(),
        };
        let kind = case["kind"].as_str().unwrap().parse().unwrap();
        let scores = detect(&tiny.model, &ids(&golden["ids"]), kind, options).unwrap();
        let what = format!("{kind}, {options:?}");
        // `abs` rounds to three places, and another rounding of a sum may tip one over.
        let tolerance = match options.error_measure {
            ErrorMeasure::Mul => 1e-5,
            ErrorMeasure::Abs => 1.1e-3,
        };
        assert_close(&what, scores.data(), &numbers(&case["values"]), tolerance);
    }
}

#[test]
fn circuits_and_their_spectra_are_those_of_transformer_lens() {
    let tiny = tiny();
    let golden = golden("lens");
    let ov = head_weights(&tiny.model, 7, 1).unwrap().ov();
    let single = |values: Vec<f64>| values.iter().map(|x| *x as f32).collect::<Vec<f32>>();
    let got = single(ov.svd().s);
    assert_close("singular values", &got, &numbers(&golden["singular_values"]), 1e-4);
    let got = single(ov.eigenvalues().iter().map(|x| x.abs()).collect());
    assert_close("eigenvalues", &got, &numbers(&golden["eigenvalues_abs"]), 1e-5);

    let mut known: Vec<u32> = tiny.known_tokens.unwrap().into_iter().collect();
    known.sort_unstable();
    // One token of the 1,145 may tip over by rounding.
    let tolerance = 1.5 / known.len() as f32;
    for case in golden["k_composition_circuits"].as_array().unwrap() {
        let heads: Vec<usize> = ids(&case["heads"]).iter().map(|&n| n as usize).collect();
        let [previous, induction] = [(heads[0], heads[1]), (heads[2], heads[3])];
        let circuit = k_composition_circuit(&tiny.model, previous, induction, Some(&known)).unwrap();
        let got = [top1_accuracy(&circuit), top1_accuracy(&circuit.t())];
        let expected = [&case["by_rows"], &case["by_columns"]].map(number);
        assert_close("K-composition circuit", &got, &expected, tolerance);
    }
    for case in golden["ov_circuits"].as_array().unwrap() {
        let head: Vec<usize> = ids(&case["head"]).iter().map(|&n| n as usize).collect();
        let circuit = full_ov_circuit(&tiny.model, (head[0], head[1]), Some(&known)).unwrap();
        let expected = [number(&case["by_rows"])];
        assert_close("OV circuit", &[top1_accuracy(&circuit)], &expected, tolerance);
    }
}

#[test]
fn a_refactored_model_is_that_of_transformer_lens() {
    let golden = golden("lens");
    let (ids, expected) = (ids(&golden["ids"]), &golden["all_flags"]);
    let processed = process(&tiny().model, Flags::ALL);
    let logits = processed.forward(&ids, &mut gpt2::no_hook);
    let got = &logits.row(ids.len() - 1)[..16];
    assert_close("refactored logits", got, &numbers(&expected["logits_last_first_16"]), 1e-4);
    let cache = run_with_cache(&processed, &ids).unwrap();
    for layer in 0..12 {
        // Up to the arbitrary signs of singular vectors.
        for (site, key) in [(SiteKind::Z.at(layer), "z_abs_last"), (SiteKind::Q.at(layer), "q_abs_last")] {
            let x = cache[site].data();
            let got: Vec<f32> = x[x.len() - 64..].iter().map(|x| x.abs()).collect();
            assert_close(&format!("|{site}|"), &got, &numbers(&expected[key][layer]), 1e-3);
        }
    }
}
