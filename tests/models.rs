//! Where models are found, in one file or in several, and `patch-cli models`.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::util::{Folder, Run};

/// Writes the tiny model's files into a folder.
fn put_tiny(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("config.json"), gpt2_tiny::CONFIG).unwrap();
    fs::write(folder.join("model.safetensors"), gpt2_tiny::WEIGHTS).unwrap();
}

/// The header of a safetensors file, and its data.
fn parts(file: &[u8]) -> (Value, &[u8]) {
    let (length, rest) = file.split_first_chunk::<8>().unwrap();
    let (header, data) = rest.split_at(u64::from_le_bytes(*length) as usize);
    (serde_json::from_slice(header).unwrap(), data)
}

/// A safetensors file of some tensors of another, their names changed, and its data shifted by so
/// many bytes.
fn subset(
    file: &[u8],
    keep: &dyn Fn(&str) -> bool,
    rename: &dyn Fn(&str) -> String,
    shift: usize,
) -> Vec<u8> {
    let (header, data) = parts(file);
    let mut new_header = serde_json::Map::new();
    let mut new_data = Vec::new();
    for (name, info) in header.as_object().unwrap() {
        if name == "__metadata__" || !keep(name) {
            continue;
        }
        let place = |i: usize| info["data_offsets"][i].as_u64().unwrap() as usize;
        let start = new_data.len();
        new_data.extend(&data[place(0)..place(1)]);
        let mut info = info.clone();
        info["data_offsets"] = json!([start, new_data.len()]);
        new_header.insert(rename(name), info);
    }
    let mut header = Value::from(new_header).to_string();
    let odd = (8 - header.len() % 8) % 8 + shift;
    header += &" ".repeat(odd);
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), &new_data].concat()
}

/// The tiny model with F32 numbers.
fn as_f32(file: &[u8]) -> Vec<u8> {
    let (header, data) = parts(file);
    let mut header = header;
    let mut wide = Vec::new();
    let mut names: Vec<String> = header.as_object().unwrap().keys().cloned().collect();
    names.retain(|name| name != "__metadata__");
    for name in names {
        let place = |i: usize| header[&name]["data_offsets"][i].as_u64().unwrap() as usize;
        let start = wide.len();
        for number in data[place(0)..place(1)].as_chunks::<2>().0 {
            wide.extend(f16_to_f32(u16::from_le_bytes(*number)).to_le_bytes());
        }
        header[&name]["dtype"] = "F32".into();
        header[&name]["data_offsets"] = json!([start, wide.len()]);
    }
    let header = header.to_string();
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header.as_bytes(), &wide].concat()
}

/// A finite half-precision number.
fn f16_to_f32(bits: u16) -> f32 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let exponent = i32::from(bits >> 10 & 0x1f);
    let fraction = f32::from(bits & 0x3ff);
    match exponent {
        0 => sign * fraction * 2_f32.powi(-24),
        _ => sign * (1024.0 + fraction) * 2_f32.powi(exponent - 25),
    }
}

/// Writes weights in two files and their index.
fn put_sharded(folder: &Path, weights: &[u8]) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("config.json"), gpt2_tiny::CONFIG).unwrap();
    let (header, _) = parts(weights);
    let file = |name: &str| {
        if name.starts_with("h.") {
            "model-00001-of-00002.safetensors"
        } else {
            "model-00002-of-00002.safetensors"
        }
    };
    let names = header.as_object().unwrap().keys();
    let map: serde_json::Map<String, Value> =
        names.filter(|name| *name != "__metadata__").map(|name| (name.clone(), file(name).into())).collect();
    let index = json!({"metadata": {"total_size": 0}, "weight_map": map});
    fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
    for part in ["h.0.", "wte."].map(file) {
        let bytes = subset(weights, &|name| file(name) == part, &str::to_owned, 0);
        fs::write(folder.join(part), bytes).unwrap();
    }
}

fn predict(folder: &Folder, model: &str) -> Run {
    folder.run(["predict", "Her name was Alex", "--json", "--model", model])
}

fn top(folder: &Folder, model: &str) -> Value {
    predict(folder, model).success().json()["top"].take()
}

#[test]
fn every_form_of_a_file_gives_the_same_logits_to_the_bit() {
    let folder = Folder::new();
    let expected = top(&folder, "tiny");
    let all = |_: &str| true;
    let same = str::to_owned;
    let prefixed = |name: &str| format!("transformer.{name}");
    let f32 = as_f32(gpt2_tiny::WEIGHTS);
    for (form, bytes) in [
        ("f16", gpt2_tiny::WEIGHTS.to_vec()),
        ("f32", subset(&f32, &all, &same, 0)),
        ("f32-shifted-by-1", subset(&f32, &all, &same, 1)),
        ("f32-shifted-by-2", subset(&f32, &all, &same, 2)),
        ("f32-shifted-by-3", subset(&f32, &all, &same, 3)),
        ("prefixed", subset(&f32, &all, &prefixed, 0)),
    ] {
        let path = folder.file(form);
        fs::create_dir(&path).unwrap();
        fs::write(path.join("config.json"), gpt2_tiny::CONFIG).unwrap();
        fs::write(path.join("model.safetensors"), bytes).unwrap();
        assert_eq!(top(&folder, form), expected, "{form}");
    }
    for (form, weights) in [("sharded-f16", gpt2_tiny::WEIGHTS), ("sharded-f32", &f32[..])] {
        put_sharded(&folder.file(form), weights);
        let index = format!("{form}/model.safetensors.index.json");
        assert_eq!(top(&folder, form), expected, "{form}");
        assert_eq!(top(&folder, &index), expected, "{index}");
    }
}

#[test]
fn a_flaw_in_one_of_several_files_is_reported_with_the_file() {
    let folder = Folder::new();
    let path = folder.file("model");
    put_sharded(&path, gpt2_tiny::WEIGHTS);
    let index = path.join("model.safetensors.index.json");
    let text = fs::read_to_string(&index).unwrap();
    let first = "model-00001-of-00002.safetensors";

    let outside = text.replace(first, "../model-00001-of-00002.safetensors");
    fs::write(&index, outside).unwrap();
    predict(&folder, "model").failure(
        2,
        &[
            "model/model.safetensors.index.json: the file of tensor `h.0.",
            "only the name of a file beside the index is taken",
        ],
    );
    fs::write(&index, &text[..text.len() / 2]).unwrap();
    predict(&folder, "model").failure(2, &["a JSON object with a `weight_map`"]);
    fs::write(&index, text).unwrap();
    fs::remove_file(path.join(first)).unwrap();
    predict(&folder, "model").failure(2, &[first, "is not beside it; fetch all 2 files"]);
}

#[test]
fn weights_are_found_in_the_cache_of_the_python_hub_client() {
    let folder = Folder::new();
    let expected = top(&folder, "tiny");
    let repository = folder.file("hub/models--openai-community--gpt2-medium");
    put_tiny(&repository.join("snapshots/0123abcd"));
    fs::create_dir(repository.join("refs")).unwrap();
    fs::write(repository.join("refs/main"), "0123abcd").unwrap();
    for model in ["gpt2-medium", "openai-community/gpt2-medium"] {
        let args = ["predict", "Her name was Alex", "--json", "--model", model];
        let mut by_hub_cache = folder.command();
        let mut by_home = folder.command();
        for command in
            [by_hub_cache.env("HF_HUB_CACHE", folder.file("hub")), by_home.env("HF_HOME", folder.path())]
        {
            let output = command.args(args).output().unwrap();
            let json: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(json["top"], expected);
            assert_eq!(json["model"], model);
        }
    }
    // A folder of weights by that name comes before the cache.
    fs::create_dir_all(folder.file("weights/gpt2-medium")).unwrap();
    fs::write(folder.file("weights/gpt2-medium/model.safetensors"), "broken").unwrap();
    predict(&folder, "gpt2-medium").failure(2, &["weights/gpt2-medium/model.safetensors: not a"]);
}

#[test]
fn a_missing_model_was_also_searched_in_the_hub_cache() {
    let folder = Folder::new();
    let cache = folder.file(".cache/huggingface/hub");
    let cache = cache.to_str().unwrap();
    predict(&folder, "distilgpt2").failure(
        2,
        &[
            "no weights for `distilgpt2` found; looked in ",
            &format!("{cache}/models--distilbert--distilgpt2"),
            &format!("{cache}/models--distilgpt2"),
            "fetch them with: cargo xtask download-weights distilgpt2",
        ],
    );
    fs::create_dir(folder.file("torch")).unwrap();
    fs::write(folder.file("torch/pytorch_model.bin"), "PK").unwrap();
    predict(&folder, "torch").failure(
        2,
        &[
            "cannot read torch/model.safetensors: No such file",
            "pytorch_model.bin is PyTorch's own form",
            "save_pretrained('torch/safetensors')",
        ],
    );
}

#[test]
fn irregular_files_and_another_vocabulary_are_refused() {
    let folder = Folder::new();
    predict(&folder, "/dev/zero").failure(2, &["cannot read /dev/zero: it is not a regular file"]);
    let path = folder.file("small-words");
    put_tiny(&path);
    let config = gpt2_tiny::CONFIG.replace("50257", "21128");
    fs::write(path.join("config.json"), config).unwrap();
    predict(&folder, "small-words")
        .failure(2, &["tensor `wte.weight`: has shape [50257, 64]; [21128, 64] is expected"]);
}

#[test]
fn models_lists_the_known_ones_what_is_here_and_the_default() {
    let folder = Folder::new();
    put_tiny(&folder.file("here/my-model"));
    put_tiny(&folder.file("here/gpt2-xl"));
    put_sharded(&folder.file("weights/gpt2-xl"), gpt2_tiny::WEIGHTS);
    let run = |args: &[&str]| {
        let output = folder
            .command()
            .arg("models")
            .args(args)
            .env("PATCH_WEIGHTS", folder.file("here"))
            .output()
            .unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let json: Value = serde_json::from_str(&run(&["--json"])).unwrap();
    let model = |name: &str| {
        let all = json.as_array().unwrap().iter();
        all.filter(|model| model["name"] == name).collect::<Vec<_>>()[0].clone()
    };
    assert_eq!(model("tiny")["built_in"], true);
    assert_eq!(model("gpt2")["sizes"]["parameters"], 124_439_808);
    let fetch = "cargo xtask download-weights gpt2-large";
    assert_eq!(model("gpt2-large")["fetch"], fetch);
    assert_eq!(model("my-model")["sizes"], Value::Null);
    let found = model("gpt2-xl")["found"].clone();
    assert_eq!(found.as_array().unwrap().len(), 2);
    let path = |i: usize| found[i]["path"].as_str().unwrap().to_owned();
    assert!(path(0).ends_with("weights/gpt2-xl/model.safetensors.index.json"), "{found}");
    assert!(path(1).ends_with("here/gpt2-xl/model.safetensors"), "{found}");
    let bytes = |i: usize| found[i]["bytes"].as_u64().unwrap();
    assert_eq!(bytes(1), gpt2_tiny::WEIGHTS.len() as u64);
    assert!(bytes(0).abs_diff(bytes(1)) < 4096, "{found}");

    let table = run(&[]);
    for part in [
        "model        parameters  layers  heads  width      file  weights",
        "gpt2-large        774 M      36     20   1280   3.25 GB  not here: cargo xtask",
        "also ",
        "my-model",
        "in the program itself",
        "* runs without --model",
    ] {
        assert!(table.contains(part), "no «{part}» in:\n{table}");
    }
    let starred = table.lines().filter(|line| line.starts_with("* ")).count();
    assert_eq!(starred, 2, "one model and the explanation:\n{table}");
}
