//! `cargo xtask synth-weights`: the files, the values, the refusals.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::{fail, names_in, sha256, succeed, xtask};

/// A checkpoint as it is on the disk.
struct Checkpoint {
    metadata: Value,
    tensors: BTreeMap<String, (Vec<u64>, Vec<f32>)>,
    data: Vec<u8>,
    start: usize,
}

impl Checkpoint {
    fn read(folder: &Path) -> Self {
        let bytes = fs::read(folder.join("model.safetensors")).unwrap();
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let start = 8 + length;
        let mut header: BTreeMap<String, Value> = serde_json::from_slice(&bytes[8..start]).unwrap();
        let metadata = header.remove("__metadata__").unwrap();
        let data = bytes[start..].to_vec();
        let tensors = header
            .into_iter()
            .map(|(name, entry)| {
                assert_eq!(entry["dtype"], "F32");
                let shape: Vec<u64> = serde_json::from_value(entry["shape"].clone()).unwrap();
                let [from, to]: [usize; 2] = serde_json::from_value(entry["data_offsets"].clone()).unwrap();
                let values: Vec<f32> = data[from..to]
                    .chunks_exact(4)
                    .map(|value| f32::from_le_bytes(value.try_into().unwrap()))
                    .collect();
                assert_eq!(values.len() as u64, shape.iter().product::<u64>(), "{name}");
                (name, (shape, values))
            })
            .collect();
        Self { metadata, tensors, data, start }
    }
}

fn synth(size: &str, seed: &str, folder: &Path) -> Command {
    let mut command = xtask();
    command.args(["synth-weights", size, "--seed", seed, "--out"]).arg(folder);
    command
}

fn make(size: &str, seed: &str) -> (TempDir, Checkpoint) {
    let folder = tempfile::tempdir().unwrap();
    succeed(&mut synth(size, seed, folder.path()));
    let checkpoint = Checkpoint::read(folder.path());
    (folder, checkpoint)
}

#[test]
fn the_names_and_shapes_are_those_of_gpt2_lm_head_model() {
    let (folder, checkpoint) = make("2x2x8", "1");
    let mut expected: BTreeMap<String, Vec<u64>> = BTreeMap::from([
        ("transformer.wte.weight".into(), vec![50257, 8]),
        ("transformer.wpe.weight".into(), vec![1024, 8]),
        ("transformer.ln_f.weight".into(), vec![8]),
        ("transformer.ln_f.bias".into(), vec![8]),
    ]);
    for layer in 0..2 {
        for (name, shape) in [
            ("ln_1.weight", vec![8]),
            ("ln_1.bias", vec![8]),
            ("attn.c_attn.weight", vec![8, 24]),
            ("attn.c_attn.bias", vec![24]),
            ("attn.c_proj.weight", vec![8, 8]),
            ("attn.c_proj.bias", vec![8]),
            ("ln_2.weight", vec![8]),
            ("ln_2.bias", vec![8]),
            ("mlp.c_fc.weight", vec![8, 32]),
            ("mlp.c_fc.bias", vec![32]),
            ("mlp.c_proj.weight", vec![32, 8]),
            ("mlp.c_proj.bias", vec![8]),
        ] {
            expected.insert(format!("transformer.h.{layer}.{name}"), shape);
        }
    }
    let found: BTreeMap<String, Vec<u64>> =
        checkpoint.tensors.iter().map(|(name, (shape, _))| (name.clone(), shape.clone())).collect();
    assert_eq!(found, expected);

    let values: usize = checkpoint.tensors.values().map(|(_, v)| v.len()).sum();
    assert_eq!(checkpoint.data.len(), 4 * values, "no gap and no overlap");
    assert_eq!(checkpoint.start % 8, 0, "the values are aligned");
    assert_eq!(checkpoint.metadata["format"], "pt");
    assert_eq!(checkpoint.metadata["seed"], "1");

    let config: Value =
        serde_json::from_slice(&fs::read(folder.path().join("config.json")).unwrap()).unwrap();
    assert_eq!(config["model_type"], "gpt2");
    assert_eq!(config["n_layer"], 2);
    assert_eq!(config["n_head"], 2);
    assert_eq!(config["n_embd"], 8);
    assert_eq!(config["vocab_size"], 50257);
    assert_eq!(config["n_positions"], 1024);
}

#[test]
fn a_seed_gives_the_same_values_everywhere() {
    let (_folder, checkpoint) = make("1x2x8", "7");
    // Written down once: it must not change with the machine, the profile or the threads.
    assert_eq!(sha256(&checkpoint.data), "64e987445adc0ae28afb16bd6c2037df894b9bbdd2702a131610223f85ad3fe1");
}

#[test]
fn another_seed_gives_other_values_in_every_tensor() {
    let (_first_folder, first) = make("1x1x8", "1");
    let (_second_folder, second) = make("1x1x8", "2");
    for (name, (_, values)) in &first.tensors {
        let others = &second.tensors[name].1;
        assert!(values.iter().zip(others).all(|(a, b)| a != b) || values.len() > 1000);
        assert_ne!(values, others, "{name}");
    }
}

#[test]
fn every_parameter_is_spread_around_its_mean_as_documented() {
    let (_folder, checkpoint) = make("2x4x64", "3");
    for (name, (_, values)) in &checkpoint.tensors {
        let expected = match name.rsplit_once("h.").map_or(name.as_str(), |(_, end)| &end[2..]) {
            "transformer.wte.weight" => (0.0, 0.5),
            "transformer.wpe.weight" => (0.0, 0.25),
            "attn.c_attn.weight" => (0.0, 0.25),
            "attn.c_proj.weight" => (0.0, 0.0625),
            "mlp.c_fc.weight" => (0.0, 0.1875),
            "mlp.c_proj.weight" => (0.0, 0.0375),
            "attn.c_proj.bias" | "mlp.c_proj.bias" => (0.0, 0.05),
            norm if norm.contains("ln_") && norm.ends_with("weight") => (1.0, 0.1),
            _ => (0.0, 0.1),
        };
        let count = values.len() as f64;
        let mean = values.iter().map(|&value| f64::from(value)).sum::<f64>() / count;
        let square = |value: &f32| (f64::from(*value) - mean).powi(2);
        let deviation = (values.iter().map(square).sum::<f64>() / count).sqrt();
        // Five standard errors: the seed is fixed, so this passes always or never.
        let tolerance = 5.0 * expected.1 / count.sqrt();
        assert!((mean - expected.0).abs() < tolerance, "{name}: mean {mean}");
        assert!((deviation - expected.1).abs() < tolerance, "{name}: deviation {deviation}");
        assert!(values.iter().all(|value| value.is_finite()));
    }
}

#[test]
fn a_size_that_makes_no_model_is_refused_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    for (size, words) in [
        ("12x5x768", "5 heads do not divide a width of 768"),
        ("12x0x768", "0 heads: give at least 1"),
        ("0x1x8", "0 layers: give 1 to 1000"),
        ("1x1x0", "a width of 0: give 1 to 65536"),
        ("gpt3", "give gpt2, gpt2-medium"),
        ("1x1", "or three numbers: 12x12x768"),
        ("1x1x8x8", "or three numbers: 12x12x768"),
        ("1x1x99999999999999999999", "or three numbers: 12x12x768"),
    ] {
        fail(&mut synth(size, "1", &out), 2, &[size, words]);
    }
    fail(&mut synth("1x1x8", "-1", &out), 2, &["--seed"]);
    assert!(!out.exists(), "nothing is written");
}

#[test]
fn its_own_files_are_replaced_and_others_only_by_force() {
    let (folder, first) = make("1x1x8", "1");
    succeed(&mut synth("1x2x8", "2", folder.path()));
    assert_ne!(Checkpoint::read(folder.path()).data, first.data);

    for name in ["model.safetensors", "config.json"] {
        let path = folder.path().join(name);
        fs::write(&path, "{\"mine\": true}").unwrap();
        let words = [name, "was not made by synth-weights", "--out", "--force"];
        fail(&mut synth("1x1x8", "1", folder.path()), 2, &words);
        assert_eq!(fs::read(&path).unwrap(), b"{\"mine\": true}");
        succeed(synth("1x1x8", "1", folder.path()).arg("--force"));
    }
    assert_eq!(Checkpoint::read(folder.path()).data, first.data);
    assert_eq!(
        names_in(folder.path()),
        [".lock", "config.json", "model.safetensors"],
        "no temporary file stays"
    );
}

#[test]
fn a_model_larger_than_the_disk_is_refused_before_writing() {
    let folder = tempfile::tempdir().unwrap();
    fail(
        &mut synth("1000x1x65536", "1", folder.path()),
        1,
        &["not enough disk space", "are free", "make room"],
    );
    assert_eq!(names_in(folder.path()), [".lock"]);
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    fail(&mut synth("1x1x8", "1", &file.join("out")), 1, &["cannot write", "choose another folder"]);
}

#[test]
fn two_writers_do_not_meet() {
    let folder = tempfile::tempdir().unwrap();
    let lock = fs::File::create(folder.path().join(".lock")).unwrap();
    lock.lock().unwrap();
    fail(&mut synth("1x1x8", "1", folder.path()), 1, &["another `cargo xtask` is writing", "wait"]);
    drop(lock);
    succeed(&mut synth("1x1x8", "1", folder.path()));
}
