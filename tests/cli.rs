//! The binary as a user runs it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

use crate::util::{Folder, golden_case, ids, largest_difference, numbers};

const CLEAN: &str = "Michelle Jones was a top-notch student. Michelle";

/// The values of the main job's sweep.
fn golden_grid() -> Vec<f32> {
    numbers(&golden_case("sweeps", "surname, denoising")["sweeps"]["resid_post"]["values"])
}

#[test]
fn the_bare_command_does_the_whole_main_job() {
    let folder = Folder::new();
    let run = folder.tiny(&[]).success();
    for part in [
        "clean      Michelle/ Jones/ was/ a/ top/-/not/ch/ student/./ Michelle",
        "48736 4176 373 257 1353 12 1662 354 3710 13 16738",
        "11 tokens each; they differ at position 1 (\" Jones\" against \" Smith\")",
        "   0   5437  \" Jones\"      17.70   0.6118       0   4176  \" Smith\"",
        "logit(\" Smith\") − logit(\" Jones\")",
        "clean      -10.8279",
        "corrupted  +12.5715",
        "+12.6 -10.3 +12.6",
        "132 patched runs in",
        "wrote heatmap.png",
    ] {
        assert!(run.stdout.contains(part), "no «{part}» in:\n{}", run.stdout);
    }
    assert!(!run.stdout.contains('\u{1b}'), "colours in a pipe");
    assert_eq!(run.stderr, "");
    assert_eq!(folder.files(), ["heatmap.png"]);
    let file = BufReader::new(fs::File::open(folder.file("heatmap.png")).unwrap());
    let mut picture = png::Decoder::new(file).read_info().unwrap();
    let mut pixels = vec![0; picture.output_buffer_size().unwrap()];
    let frame = picture.next_frame(&mut pixels).unwrap();
    assert!(frame.width > 1000 && frame.height > 800);
}

#[test]
fn json_is_one_object_with_the_golden_grid() {
    let run = Folder::new().tiny(&["--json"]).success();
    let json = run.json();
    assert_eq!(run.stdout.lines().count(), 1);
    assert_eq!(json["model"], "tiny");
    assert_eq!(json["pairs"][0]["clean"]["text"], CLEAN);
    assert_eq!(ids(&json["pairs"][0]["corrupted"]["ids"])[..3], [48736, 4176, 373]);
    assert_eq!(json["pairs"][0]["clean"]["tokens"][1], " Jones");
    assert_eq!(json["bos"], false);
    assert_eq!(json["grids"][0]["name"], "resid_post");
    assert_eq!(json["direction"], "denoising");
    assert_eq!(
        json["metric"],
        serde_json::json!({
            "kind": "logit_diff",
            "scale": "value",
            "a": " Smith",
            "b": " Jones"
        })
    );
    assert_eq!(axes(&json), [("layer".to_owned(), 12), ("pos".to_owned(), 11)]);
    assert!(largest_difference(&numbers(&json["grids"][0]["values"]), &golden_grid()) < 1e-4);
    let seconds = |key: &str| json["seconds"][key].as_f64().unwrap();
    assert!(seconds("load") > 0.0 && seconds("sweep") > 0.0);
    assert!(seconds("total") >= seconds("load") + seconds("sweep"));
}

#[test]
fn the_number_of_threads_changes_no_bit() {
    let folder = Folder::new();
    let values = |threads: &str| {
        folder.tiny(&["--json", "--threads", threads]).success().json()["grids"][0]["values"].take()
    };
    let one = values("1");
    assert_eq!(values("2"), one);
    assert_eq!(values("5"), one);
}

#[test]
fn both_engines_agree_and_little_memory_changes_no_bit() {
    let folder = Folder::new();
    let values = |more: &[&str]| {
        let args = [&["--json", "--site", "attn_out"], more].concat();
        let json = folder.tiny(&args).success().json();
        (json["engine"].clone(), json["grids"][0]["values"].clone())
    };
    let (engine, fast) = values(&[]);
    assert_eq!(engine, "incremental");
    assert_eq!(values(&["--memory", "1kB"]).1, fast);
    let (engine, plain) = values(&["--engine", "plain"]);
    assert_eq!(engine, "plain");
    assert!(largest_difference(&numbers(&fast), &numbers(&plain)) < 1e-4);
}

#[test]
fn another_pair_of_prompts_direction_and_site_can_be_swept() {
    let case = golden_case("sweeps", "shops, noising");
    let text = |key: &str| case[key].as_str().unwrap();
    let args = [
        "sweep",
        "--clean",
        text("clean"),
        "--corrupted",
        text("corrupted"),
        "--direction",
        "noising",
        "--logit-diff",
        text("answer_b"),
        text("answer_a"),
        "--site",
        "z",
        "--json",
    ];
    let json = Folder::new().tiny(&args).success().json();
    assert_eq!(axes(&json), [("layer".to_owned(), 12), ("head".to_owned(), 4)]);
    let expected = numbers(&case["sweeps"]["attn_head_out_all_pos"]["values"]);
    assert!(largest_difference(&numbers(&json["grids"][0]["values"]), &expected) < 1e-4);
}

#[test]
fn simpler_metrics_are_changes_from_the_clean_run() {
    let folder = Folder::new();
    for (metric, token) in [("logit_change", " Jones"), ("prob_change", " Jones"), ("prob_diff", " Smith")] {
        let json = folder.tiny(&["--metric", metric, "--json"]).success().json();
        assert_eq!(json["metric"]["kind"], metric);
        assert_eq!(json["metric"]["a"], token);
        let clean = json["clean_metric"].as_f64().unwrap();
        let corrupted = json["corrupted_metric"].as_f64().unwrap();
        match metric {
            // P(Smith) − P(Jones): −0.61 after the clean prompt, 0.41 after the corrupted one.
            "prob_diff" => assert!(clean < -0.6 && corrupted > 0.4, "{clean} {corrupted}"),
            _ => assert!(clean == 0.0 && corrupted < -0.6, "{clean} {corrupted}"),
        }
        // Patching the last position after the last layer restores the clean run.
        let last = numbers(&json["grids"][0]["values"])[131];
        assert!((last - clean as f32).abs() < 1e-6, "{last} instead of {clean}");
    }
}

#[test]
fn end_of_text_can_be_put_in_front() {
    let json = Folder::new().tiny(&["--bos", "--json"]).success().json();
    assert_eq!(json["bos"], true);
    assert_eq!(axes(&json)[1], ("pos".to_owned(), 12));
    assert_eq!(ids(&json["pairs"][0]["clean"]["ids"])[0], 50256);
    assert_eq!(json["pairs"][0]["clean"]["tokens"][0], "<|endoftext|>");
}

#[test]
fn colours_come_when_asked_for() {
    let folder = Folder::new();
    let plain = folder.tiny(&["--color", "never"]).success().stdout;
    assert!(!plain.contains('\u{1b}'));
    let colored = folder.tiny(&["--color", "always"]).success().stdout;
    assert!(colored.contains("\u{1b}[48;5;"), "no palette colours");
    let output = folder
        .command()
        .args(["--color", "always", "--model", "tiny"])
        .env("COLORTERM", "truecolor")
        .output()
        .unwrap();
    let truecolor = String::from_utf8(output.stdout).unwrap();
    assert!(truecolor.contains("\u{1b}[48;2;"), "no true colours");
}

#[test]
fn tokens_shows_each_text_with_its_ids() {
    let folder = Folder::new();
    let run = folder.run(["tokens", "Michelle Jones", "🦀"]).success();
    assert_eq!(
        run.stdout,
        "Michelle/ Jones\n48736 5437\n2 tokens\n\\xf0\\x9f/\\xa6/\\x80\n8582 99 222\n3 tokens\n"
    );
    let json = folder.run(["tokens", "--json", "Michelle Jones", ""]).success().json();
    let expected = serde_json::json!([
        {"text": "Michelle Jones", "ids": [48736, 5437], "tokens": ["Michelle", " Jones"]},
        {"text": "", "ids": [], "tokens": []},
    ]);
    assert_eq!(json, expected);
}

#[test]
fn predict_shows_the_top_and_the_answers_place() {
    let folder = Folder::new();
    let run = folder.tiny(&["predict", CLEAN, "--answer", " Smith", "--top", "3"]).success();
    for part in [
        "top 3 of tiny",
        "   0   5437  \" Jones\"    17.70   0.6118",
        "performance on answer token\nrank     id  token",
        " 104   4176  \" Smith\"     6.87   0.0000",
    ] {
        assert!(run.stdout.contains(part), "no «{part}» in:\n{}", run.stdout);
    }
    let json = folder.tiny(&["predict", CLEAN, "--answer", " was", "--json"]).success().json();
    assert_eq!(json["top"].as_array().unwrap().len(), 20);
    assert_eq!(json["top"][1]["token"], " was");
    let answer = &json["answers"][0];
    assert_eq!((&answer["text"], &answer["tokens"][0]), (&" was".into(), &json["top"][1]));
    let json = folder.tiny(&["predict", CLEAN, "--json"]).success().json();
    assert_eq!((&json["answers"], &json["compare"]), (&serde_json::json!([]), &serde_json::Value::Null));
}

#[test]
fn words_that_the_tiny_model_never_saw_are_named_once() {
    let run = Folder::new().tiny(&["predict", "The quantum zebra"]).success();
    assert_eq!(run.stderr.lines().count(), 1, "{}", run.stderr);
    assert!(run.stderr.contains("was not trained on \" quantum\""), "{}", run.stderr);
}

#[test]
fn without_gpt2_weights_one_line_names_the_tiny_model() {
    let weights =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../weights/gpt2/model.safetensors");
    if weights.exists() {
        println!("skipped: GPT-2 small is downloaded, so it is the default");
        return;
    }
    let run = Folder::new().run(["predict", CLEAN]).success();
    let lines: Vec<&str> =
        run.stdout.lines().filter(|line| line.contains("cargo xtask download-weights")).collect();
    assert!(lines.len() == 1 && lines[0].contains("tiny"), "{}", run.stdout);
    let json = Folder::new().run(["predict", CLEAN, "--json"]).success();
    assert_eq!(json.json()["model"], "tiny");
    assert!(json.stderr.contains("cargo xtask download-weights"), "{}", json.stderr);
}

#[test]
fn a_model_can_be_a_folder_a_file_or_a_name() {
    let folder = Folder::new();
    let model = folder.file("weights-here/my-model");
    fs::create_dir_all(&model).unwrap();
    fs::write(model.join("config.json"), gpt2_tiny::CONFIG).unwrap();
    fs::write(model.join("model.safetensors"), gpt2_tiny::WEIGHTS).unwrap();
    let grid = |model: &str| {
        let command = folder
            .command()
            .args(["--json", "--model", model])
            .env("PATCH_WEIGHTS", folder.file("weights-here"))
            .output();
        let json: serde_json::Value = serde_json::from_slice(&command.unwrap().stdout).unwrap();
        numbers(&json["grids"][0]["values"])
    };
    let tiny = grid("tiny");
    assert_eq!(grid("weights-here/my-model"), tiny);
    assert_eq!(grid("weights-here/my-model/model.safetensors"), tiny);
    assert_eq!(grid("my-model"), tiny);
    // Without config.json the sizes are read off the shapes.
    fs::remove_file(model.join("config.json")).unwrap();
    assert_eq!(grid("weights-here/my-model"), tiny);
}

#[test]
fn prompts_of_different_lengths_are_shown_side_by_side() {
    let run = Folder::new().tiny(&[
        "--clean",
        CLEAN,
        "--corrupted",
        "Michelle Smith was a student. Michelle",
        "--logit-diff",
        " Smith",
        " Jones",
    ]);
    run.failure(
        2,
        &[
            "the clean prompt has 11 tokens and the corrupted one 7; patching needs equally many",
            "position   0         1       2     3   4         5  6",
            "clean      Michelle   Jones   was   a   top      -  not",
            "corrupted  Michelle   Smith   was   a   student  .   Michelle",
            "Change a word for one of as many tokens",
        ],
    );
}

#[test]
fn what_cannot_be_used_is_named_with_what_to_do() {
    let folder = Folder::new();
    let long = "the ".repeat(200);
    let pair = ["--clean", CLEAN, "--corrupted", "Michelle Smith was a top-notch student. Michelle"];
    let with = |more: &[&'static str]| [&pair[..], more].concat();
    for (args, parts) in [
        (
            vec!["--clean", CLEAN, "--corrupted", CLEAN, "--logit-diff", " Smith", " Jones"],
            vec!["are the same 11 tokens: there is nothing to patch"],
        ),
        (
            with(&["--logit-diff", " Smith", "Turing"]),
            vec!["\"Turing\" is 2 tokens (\"T\", \"uring\")", "\" Turing\" is a single token"],
        ),
        (with(&["--logit-diff", " Smith", " Smith"]), vec!["compares \" Smith\" with itself"]),
        (with(&["--logit-diff", " Smith", ""]), vec!["the answer is empty"]),
        (with(&[]), vec!["--logit-diff ' A' ' B'"]),
        (with(&["--metric", "logit_change"]), vec!["--token ' Jones'"]),
        (vec!["--token", " Jones"], vec!["--token is for the metrics about one token"]),
        (vec!["--clean", CLEAN], vec!["--corrupted <TEXT>"]),
        (
            vec!["--clean", "", "--corrupted", "a", "--logit-diff", " a", " b"],
            vec!["the clean prompt: the prompt is empty: give at least one token (from 1 to 128"],
        ),
        (vec!["predict", ""], vec!["the prompt is empty"]),
        (vec!["predict", &long], vec!["the prompt has 201 tokens; this model reads at most 128"]),
        (vec!["predict", "a", "--answer", "Turing"], vec!["\" Turing\" is a single token"]),
        (vec!["--site", "resid"], vec!["invalid value 'resid'", "resid_pre, resid_mid, resid_post"]),
        (
            vec!["--metric", "vibes"],
            vec!["invalid value 'vibes'", "logit_diff, normalized, normalized_by_pair, prob_diff"],
        ),
        (vec!["--direction", "sideways"], vec!["invalid value 'sideways'", "denoising, noising"]),
        (vec!["--memory", "lots"], vec!["\"lots\" is not a size: write 512MiB, 2GB or a number of bytes"]),
        (vec!["--engine", "steam"], vec!["invalid value 'steam'", "incremental, plain"]),
        (vec!["--threads", "0"], vec!["0 is not in 1..=65535"]),
        (vec!["--top=-1"], vec!["invalid value '-1' for '--top <K>'"]),
        (vec!["frobnicate"], vec!["frobnicate"]),
        (vec!["tokens"], vec!["<TEXT>"]),
    ] {
        folder.tiny(&args.iter().map(|arg| &**arg).collect::<Vec<_>>()).failure(2, &parts);
    }
    assert!(folder.files().is_empty(), "{:?}", folder.files());
}

#[test]
fn a_missing_model_is_reported_with_the_way_to_get_it() {
    let folder = Folder::new();
    let missing = |model: &str| folder.run(["predict", "a", "--model", model]);
    missing("gpt2-xl").failure(
        2,
        &[
            "no weights for `gpt2-xl` found; looked in ",
            "weights/gpt2-xl",
            "fetch them with: cargo xtask download-weights gpt2-xl",
        ],
    );
    missing("gpt5")
        .failure(2, &["no weights for `gpt5` found", "one of these names: tiny, gpt2, gpt2-medium"]);
    missing("no/such/file.safetensors").failure(2, &["no/such/file.safetensors"]);
    fs::create_dir(folder.file("empty")).unwrap();
    missing("empty").failure(2, &["cannot read empty/model.safetensors: No such file"]);
}

#[test]
fn broken_weights_are_named_with_the_place() {
    let folder = Folder::new();
    let write = |name: &str, config: &str, weights: &[u8]| {
        fs::create_dir(folder.file(name)).unwrap();
        fs::write(folder.file(name).join("config.json"), config).unwrap();
        fs::write(folder.file(name).join("model.safetensors"), weights).unwrap();
        folder.run(["predict", "a", "--model", name])
    };
    let weights = gpt2_tiny::WEIGHTS;
    write("cut", gpt2_tiny::CONFIG, &weights[..weights.len() / 2])
        .failure(2, &["cut/model.safetensors: not a whole safetensors file: tensor `", "it is cut off"]);
    write("foreign", gpt2_tiny::CONFIG, b"PK\x03\x04 something else entirely")
        .failure(2, &["foreign/model.safetensors: not a whole safetensors file"]);
    write("deeper", &gpt2_tiny::CONFIG.replace("\"n_layer\": 12", "\"n_layer\": 13"), weights)
        .failure(2, &["deeper/model.safetensors: tensor `h.12.ln_1.weight`: is missing"]);
    write("shallower", &gpt2_tiny::CONFIG.replace("\"n_layer\": 12", "\"n_layer\": 11"), weights)
        .failure(2, &["shallower/model.safetensors: tensor `h.11.attn.c_attn.bias`: is not part of a GPT-2"]);
    write("wider", &gpt2_tiny::CONFIG.replace("\"n_embd\": 64", "\"n_embd\": 128"), weights)
        .failure(2, &["tensor `wte.weight`: has shape [50257, 64]; [50257, 128] is expected"]);
    write("no-json", "sizes: 12", weights).failure(2, &["no-json/config.json: not a JSON object"]);
}

#[test]
fn an_unwritable_output_stops_the_run_before_any_work() {
    let folder = Folder::new();
    fs::write(folder.file("notes.png"), "mine").unwrap();
    for (path, part) in [
        ("notes.png", "it exists, and is not a file that patch-cli made"),
        ("none/heatmap.png", "No such file or directory"),
        (".", "it is a folder"),
        ("/dev/full", "it is not a regular file"),
    ] {
        folder.tiny(&["--out", path]).failure(1, &[&format!("cannot write {path}: "), part]);
    }
    assert_eq!(folder.files(), ["notes.png"]);
    assert_eq!(fs::read_to_string(folder.file("notes.png")).unwrap(), "mine");
}

#[test]
fn a_second_run_replaces_the_first_ones_picture() {
    let folder = Folder::new();
    folder.tiny(&[]).success();
    let first = fs::read(folder.file("heatmap.png")).unwrap();
    folder.tiny(&["--direction", "noising"]).success();
    assert_ne!(fs::read(folder.file("heatmap.png")).unwrap(), first);
    assert_eq!(folder.files(), ["heatmap.png"]);
}

#[test]
fn a_reader_that_goes_away_ends_the_run_quietly() {
    let folder = Folder::new();
    let mut child = folder
        .command()
        .args(["--model", "tiny", "--top", "50257"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("clean"), "{line}");
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
    assert_eq!(output.status.code(), Some(0));
}

/// The axes of the first grid: names and lengths.
fn axes(json: &serde_json::Value) -> Vec<(String, usize)> {
    let axes = json["grids"][0]["axes"].as_array().unwrap();
    let axis = |axis: &serde_json::Value| {
        let name = axis["name"].as_str().unwrap().to_owned();
        (name, axis["labels"].as_array().unwrap().len())
    };
    axes.iter().map(axis).collect()
}
