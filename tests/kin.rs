//! GPT-2s by others, with their own tokens: read as transformers reads them, or refused by name.

use std::fs;
use std::path::Path;

use gpt2::{Checkpoint, Config, Gpt2, no_hook};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};

use crate::util::{Folder, golden, ids, numbers};

/// The tiny model's config with some of its entries changed, as text.
fn changed_config(changes: &Value) -> String {
    let mut config: Value = serde_json::from_str(gpt2_tiny::CONFIG).unwrap();
    for (name, value) in changes.as_object().unwrap() {
        config[name] = value.clone();
    }
    config.to_string()
}

/// The tiny model's weights, whose hidden layer has only its first columns.
fn with_inner(inner: usize) -> Vec<u8> {
    let file = SafeTensors::deserialize(gpt2_tiny::WEIGHTS).unwrap();
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = file
        .iter()
        .map(|(name, view)| {
            let (shape, data) = (view.shape().to_vec(), view.data());
            let (name, width) = (name.to_owned(), 2 * shape[shape.len() - 1]);
            if name.contains("mlp.c_fc") {
                let row = |row: &[u8]| row[..2 * inner].to_vec();
                let data = data.chunks(width).flat_map(row).collect();
                let shape = [&shape[..shape.len() - 1], &[inner]].concat();
                (name, shape, data)
            } else if name.ends_with("mlp.c_proj.weight") {
                (name, vec![inner, shape[1]], data[..inner * width].to_vec())
            } else {
                (name, shape, data.to_vec())
            }
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, data)| {
        let view = TensorView::new(Dtype::F16, shape.clone(), data).unwrap();
        (name.as_str(), view)
    });
    safetensors::serialize(views, None).unwrap()
}

#[test]
fn models_like_gpt2_have_the_logits_of_transformers() {
    let golden = golden("kin");
    let (prompt, tokens) = (ids(&golden["ids"]), ids(&golden["tokens"]));
    for case in golden["cases"].as_array().unwrap() {
        let config = Config::from_json(&changed_config(&case["config"]), Path::new("config.json"));
        let config = config.unwrap();
        let weights = match config.n_inner {
            Some(inner) => with_inner(inner),
            None => gpt2_tiny::WEIGHTS.to_vec(),
        };
        let checkpoint = Checkpoint::from_bytes(Path::new("model.safetensors"), weights).unwrap();
        let model = Gpt2::from_checkpoint(config, checkpoint).unwrap();
        let logits = model.next_token_logits(&prompt, &mut no_hook);
        let spread = logits.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
        for (token, expected) in tokens.iter().zip(numbers(&case["logits"])) {
            let got = logits[*token as usize];
            assert!(
                (got - expected).abs() <= 1e-4 * spread.max(1.0),
                "{}: token {token} has {got}, not {expected}",
                case["config"]
            );
        }
    }
}

#[test]
fn other_families_have_the_logits_and_sweeps_of_transformers() {
    let golden = golden("families");
    let text =
        |ids: &Value| ids.as_array().unwrap().iter().map(Value::to_string).collect::<Vec<_>>().join(" ");
    let (clean, corrupted) = (text(&golden["clean"]), text(&golden["corrupted"]));
    let answers = ["a", "b"].map(|key| format!("#{}", golden[key]));
    for (name, expected) in golden["models"].as_object().unwrap() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/families").join(name);
        let config = Config::from_file(&folder.join("config.json")).unwrap();
        let checkpoint = Checkpoint::open(&folder.join("model.safetensors")).unwrap();
        let model = Gpt2::from_checkpoint(config, checkpoint).unwrap();
        let logits = model.forward(&ids(&golden["clean"]), &mut no_hook);
        for (got, expected) in logits.data().iter().zip(numbers(&expected["logits"])) {
            assert!((got - expected).abs() < 2e-5, "{name}: {got}, not {expected}");
        }
        let model = folder.display().to_string();
        for engine in ["incremental", "plain"] {
            let prompts = ["--ids", "--clean", &clean, "--corrupted", &corrupted, "--direction", "noising"];
            let metric = ["--logit-diff", &answers[0], &answers[1], "--engine", engine, "--json"];
            let run = Folder::new().run([&["sweep", "--model", &model][..], &prompts, &metric].concat());
            let grid = numbers(&run.success().json()["grids"][0]["values"]);
            for (got, expected) in grid.iter().zip(numbers(&expected["resid_post"])) {
                assert!((got - expected).abs() < 2e-5, "{name}, {engine}: {got}, not {expected}");
            }
        }
    }
}

#[test]
fn what_other_families_ask_for_and_is_not_computed_is_refused_by_name() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/families");
    for (family, from, to, part) in [
        (
            "opt",
            "\"do_layer_norm_before\": true",
            "\"do_layer_norm_before\": false",
            "`do_layer_norm_before` is false",
        ),
        ("opt", "\"word_embed_proj_dim\": 12", "\"word_embed_proj_dim\": 6", "`word_embed_proj_dim` is 6"),
        ("opt", "\"enable_bias\": true", "\"enable_bias\": false", "`enable_bias` is false"),
        ("gpt_neo", "\"global\",\n        \"local\"", "\"round\"", "`attention_types` is"),
        ("gpt_neo", "\"num_layers\": 3", "\"num_layers\": 5", "about 3 layers, and there are 5"),
        ("gpt_neo", "\"window_size\": 4", "\"window_size\": 0", "`window_size` is 0"),
        ("gpt_neo", "\"gpt_neo\"", "\"gpt_neox\"", "only gpt2, gpt_neo and opt"),
    ] {
        let text = fs::read_to_string(folder.join(family).join("config.json")).unwrap();
        assert!(text.contains(from), "{from}");
        let error =
            Config::from_json(&text.replacen(from, to, 1), Path::new("c.json")).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

/// A folder with a small random model of this vocabulary, and one of the tokenizers of tests/tokenizers.
fn put_model(folder: &Path, vocab_size: usize, tokenizer: Option<&str>) -> Gpt2 {
    let config = Config { vocab_size, block_size: 32, n_layer: 2, n_head: 2, n_embd: 8, ..Config::default() };
    let model = Gpt2::random(config, 3);
    write_model(folder, &model);
    if let Some(name) = tokenizer {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/tokenizers");
        for entry in fs::read_dir(from.join(name)).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
        }
    }
    model
}

/// Writes a model as transformers does, with a head of its own if it has one.
pub fn write_model(folder: &Path, model: &Gpt2) {
    fs::create_dir_all(folder).unwrap();
    let tensors = model.parameters();
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(_, x)| x.data().iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
    let views = tensors.iter().zip(&bytes).map(|((name, x), bytes)| {
        let view = TensorView::new(Dtype::F32, x.shape().to_vec(), bytes).unwrap();
        (name.as_str(), view)
    });
    let file = safetensors::serialize(views, None).unwrap();
    fs::write(folder.join("model.safetensors"), file).unwrap();
    let config = json!({
        "model_type": "gpt2", "vocab_size": model.config.vocab_size,
        "n_positions": model.config.block_size, "n_embd": model.config.n_embd,
        "n_layer": model.config.n_layer, "n_head": model.config.n_head, "bos_token_id": 1,
        "tie_word_embeddings": model.lm_head.is_none(),
    });
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
}

fn tokenizer_cases(name: &str) -> Value {
    let path = format!("{}/../../tests/tokenizers/{name}/expected.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn tokens_are_those_of_the_models_own_files() {
    let folder = Folder::new();
    let model = put_model(&folder.file("mine"), 5000, Some("german"));
    let text = "Der Hund läuft über";
    let run = folder.run(["predict", text, "--model", "mine", "--json"]);
    let json = run.success().json();
    let (cut, expected) = (ids(&json["ids"]), gpt2::Tokenizer::in_folder(&folder.file("mine")));
    let tokenizer = expected.unwrap().unwrap();
    assert_eq!(cut, tokenizer.encode(text).unwrap());
    assert_ne!(cut, gpt2::Tokenizer::gpt2().encode(text).unwrap());
    let logits = model.next_token_logits(&cut, &mut no_hook);
    let top = json["top"][0]["id"].as_u64().unwrap() as usize;
    assert_eq!(top, tensor::argmax(&logits));
    // `tokens` needs no weights for that.
    let folder_of_files = folder.file("files");
    fs::create_dir(&folder_of_files).unwrap();
    fs::copy(folder.file("mine/tokenizer.json"), folder_of_files.join("tokenizer.json")).unwrap();
    let run = folder.run(["tokens", text, "--model", "files", "--json"]);
    assert_eq!(ids(&run.success().json()[0]["ids"]), cut);
    assert!(!tokenizer_cases("german").is_null());
}

#[test]
fn a_model_whose_files_open_a_text_gets_it_opened() {
    let folder = Folder::new();
    put_model(&folder.file("opt"), 5000, Some("opt"));
    let tokenizer = gpt2::Tokenizer::in_folder(&folder.file("opt")).unwrap().unwrap();
    let bos = tokenizer.bos().unwrap();
    assert!(tokenizer.opens_texts());
    let run = |more: &[&str]| {
        let args = [&["predict", "the cat", "--model", "opt", "--json"], more].concat();
        folder.run(args).success().json()
    };
    let opened = run(&[]);
    assert_eq!((ids(&opened["ids"])[0], &opened["bos"]), (bos, &true.into()));
    let closed = run(&["--no-bos"]);
    assert_eq!(ids(&closed["ids"])[..], ids(&opened["ids"])[1..]);
    assert_eq!(closed["bos"], false);
}

#[test]
fn a_model_without_a_tokenizer_takes_ids() {
    let folder = Folder::new();
    let model = put_model(&folder.file("mine"), 90, None);
    folder
        .run(["predict", "the cat", "--model", "mine"])
        .failure(2, &["has no tokenizer: give token ids", "no tokenizer files"]);
    let args = [
        "sweep",
        "--ids",
        "--clean",
        "5 6 70",
        "--corrupted",
        "5,9,70",
        "--logit-diff",
        "#11",
        "#23",
        "--model",
        "mine",
        "--json",
    ];
    let json = folder.run(args).success().json();
    assert_eq!(json["metric"]["a"], "#11");
    let logits = model.next_token_logits(&[5, 6, 70], &mut no_hook);
    let clean = json["clean_metric"].as_f64().unwrap() as f32;
    assert!((clean - (logits[11] - logits[23])).abs() < 1e-5);
    // The config's token opens a text.
    let args = ["predict", "--ids", "5 6", "--bos", "--model", "mine", "--json"];
    assert_eq!(ids(&folder.run(args).success().json()["ids"]), [1, 5, 6]);
    for (given, message) in
        [("5 x", "\"x\" is not a token id"), ("5 90", "there is no token 90"), ("", "the prompt is empty")]
    {
        let args = ["predict", "--ids", given, "--model", "mine"];
        folder.run(args).failure(2, &[message]);
    }
}

#[test]
fn a_tokenizer_of_more_tokens_than_the_model_is_refused() {
    let folder = Folder::new();
    put_model(&folder.file("mine"), 90, Some("german"));
    let ids = ["predict", "--ids", "5 6", "--model", "mine", "--json"];
    let run = folder.run(ids).success();
    assert!(run.stderr.contains("tokens have no texts: "), "{}", run.stderr);
    assert_eq!(run.json()["tokens"][0], "#5");
    let run = folder.run(["predict", "Hund", "--model", "mine"]);
    run.failure(2, &["tokens and the model only 90: they do not belong together"]);
}

#[test]
fn a_folder_of_a_known_models_name_is_pointed_to() {
    let folder = Folder::new();
    fs::create_dir(folder.file("distilgpt2")).unwrap();
    folder
        .run(["predict", "x", "--model", "distilgpt2"])
        .failure(2, &["./distilgpt2 is here: --model ./distilgpt2"]);
    folder
        .run(["predict", "x", "--model", "gpt2-small"])
        .failure(2, &["no weights for `gpt2` found", "download-weights gpt2\n"]);
}

#[test]
fn what_a_missing_config_leaves_open_is_said_in_one_line() {
    let folder = Folder::new();
    fs::create_dir(folder.file("tiny")).unwrap();
    fs::write(folder.file("tiny/model.safetensors"), gpt2_tiny::WEIGHTS).unwrap();
    let run = folder.run(["predict", "Her name", "--model", "./tiny"]).success();
    let notes: Vec<&str> = run.stderr.lines().collect();
    assert!(notes[0].contains("no config.json beside the weights: 4 heads, gelu_new,"));
    assert!(notes[1].contains("no tokenizer files beside the weights"));
    assert_eq!(notes.len(), 2, "{notes:?}");
}

/// The tiny model, one token's embedding of which is so large that its logit overflows.
fn put_diverged(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let config = changed_config(&json!({"tie_word_embeddings": false}));
    fs::write(folder.join("config.json"), config).unwrap();
    let file = SafeTensors::deserialize(gpt2_tiny::WEIGHTS).unwrap();
    let wte = file.iter().find(|(name, _)| name.ends_with("wte.weight"));
    let (_, wte) = wte.unwrap();
    let f16 = |bytes: &[u8]| half::f16::from_le_bytes([bytes[0], bytes[1]]).to_f32();
    let mut head: Vec<f32> = wte.data().chunks(2).map(f16).collect();
    head[64 * 262..64 * 263].fill(f32::MAX);
    let head: Vec<u8> = head.iter().flat_map(|x| x.to_le_bytes()).collect();
    let head = TensorView::new(Dtype::F32, wte.shape().to_vec(), &head).unwrap();
    let views = file.iter().chain([("lm_head.weight", head)]);
    let bytes = safetensors::serialize(views, None).unwrap();
    fs::write(folder.join("model.safetensors"), bytes).unwrap();
}

#[test]
fn logits_that_are_not_finite_are_never_shown_as_numbers() {
    let folder = Folder::new();
    put_diverged(&folder.file("inf"));
    let message = "the logit of token 262 is";
    for args in [
        &["predict", "Her name was"][..],
        &["predict", "Her name was", "--all-positions"],
        &["generate", "Her name was"],
        &["lens", "Her name was"],
        &["sweep"],
        &["sweep", "--metric", "kl"],
        &["sweep", "--metric", "rank"],
        &["sweep", "--metric", "prob"],
        &["sweep", "--metric", "loss"],
        &["sweep", "--prompt-set", "ioi-tutorial", "--metric", "log_prob"],
        &["path", "--metric", "kl"],
        &["ablate", "--metric", "kl"],
        &["ablate", "--metric", "logit", "--token", " the"],
        &["repeat", "--seq-len", "5"],
    ] {
        let run = folder.run([args, &["--model", "inf"]].concat());
        assert_eq!(run.code, Some(2), "{args:?}: {}", run.stdout);
        assert!(run.stderr.contains(message), "{args:?}: {}", run.stderr);
    }
    assert_eq!(folder.files(), ["inf"], "nothing is drawn");
}
