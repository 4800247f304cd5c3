//! Gradients and training against `tests/golden/training.json`, which PyTorch computed in double precision.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;

use gpt2::{Config, Gpt2};
use serde_json::Value;
use tensor::Tensor;
use training::{AdamW, Decay, Example, Trainer, TrainerConfig, loss_and_gradient};

fn golden() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/training.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

fn batch(golden: &Value) -> Vec<Example> {
    let ids = |ids: &Value| numbers(ids).iter().map(|id| *id as u32).collect::<Vec<u32>>();
    golden["batch"].as_array().unwrap().iter().map(|row| ids(row).into()).collect()
}

/// The model of a case, with its own numbers.
fn model(case: &Value) -> Gpt2 {
    let config = Config::from_json(&case["config"].to_string(), Path::new("config.json")).unwrap();
    let mut model = Gpt2::random(config, 1);
    if case["weights"].get("lm_head.weight").is_some() {
        model.lm_head = Some(model.wte.clone());
    }
    let weights = case["weights"].as_object().unwrap();
    assert_eq!(model.parameters().len(), weights.len());
    for (name, x) in model.parameters_mut() {
        *x = Tensor::new(x.shape(), numbers(&weights[&name]));
    }
    model
}

#[test]
fn the_gradient_of_every_parameter_is_that_of_pytorch() {
    let golden = golden();
    for case in golden["cases"].as_array().unwrap() {
        let (loss, gradient) = loss_and_gradient(&model(case), &batch(&golden));
        assert!((f64::from(loss) - case["loss"].as_f64().unwrap()).abs() < 1e-6);
        let mut largest = 0.0_f32;
        for (name, got) in gradient.parameters() {
            let expected = numbers(&case["gradient"][&name]);
            assert_eq!(got.data().len(), expected.len(), "{name}");
            for (got, expected) in got.data().iter().zip(&expected) {
                largest = largest.max((got - expected).abs());
                assert!((got - expected).abs() < 2e-6, "{}, {name}: {got}, not {expected}", case["name"]);
            }
        }
        println!("{}: largest difference of a gradient {largest:e}", case["name"]);
    }
}

#[test]
fn ten_steps_of_adamw_have_the_losses_of_pytorch() {
    let golden = golden();
    for case in golden["cases"].as_array().unwrap() {
        for run in case["runs"].as_array().unwrap() {
            let decay = match run["decay"].as_str().unwrap() {
                "all" => Decay::All,
                _ => Decay::Matrices,
            };
            let config = TrainerConfig {
                optimizer: AdamW {
                    learning_rate: 1e-3,
                    betas: [0.9, 0.999],
                    epsilon: 1e-8,
                    weight_decay: 0.01,
                    decay,
                },
                grad_norm_clip: run["clip"].as_f64().map(|clip| clip as f32),
                ..TrainerConfig::default()
            };
            let mut trainer = Trainer::new(model(case), config);
            let steps: Vec<_> = (0..10).map(|_| trainer.step(&batch(&golden))).collect();
            let (last, _) = loss_and_gradient(&trainer.model, &batch(&golden));
            let losses = steps.iter().map(|step| step.loss).chain([last]);
            let mut largest = 0.0_f32;
            for (got, expected) in losses.zip(numbers(&run["losses"])) {
                largest = largest.max((got - expected).abs());
            }
            println!(
                "{}, {decay:?}, clip {}: largest difference of a loss {largest:e}",
                case["name"], run["clip"]
            );
            assert!(largest < 5e-6, "{}: {largest:e}", case["name"]);
            for (step, expected) in steps.iter().zip(numbers(&run["norms"])) {
                assert!((step.gradient_norm - expected).abs() < 2e-5, "{step:?}, not {expected}");
            }
        }
    }
}
