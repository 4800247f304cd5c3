//! The subcommands of the studies, as a user runs them, against golden values.

use serde_json::Value;

use crate::util::{Folder, golden, golden_case, ids, largest_difference, numbers};

const CLEAN: &str = "Michelle Jones was a top-notch student. Michelle";
const CORRUPTED: &str = "Michelle Smith was a top-notch student. Michelle";

fn number(value: &Value) -> f32 {
    value.as_f64().unwrap() as f32
}

#[test]
fn predict_compares_two_prompts_and_their_answers() {
    let folder = Folder::new();
    let args = ["predict", CLEAN, "--compare", CORRUPTED, "--top", "2"];
    let args = [&args[..], &["--answer", " Smith", "--answer", " Jones"]].concat();
    let run = folder.tiny(&args).success();
    for part in [
        "prompt 2  Michelle   Smith   was",
        "performance on answer tokens after prompt 2\nrank     id  token       logit     prob\n   0",
        "logit(\" Smith\") − logit(\" Jones\") = -10.8279",
        "logit(\" Smith\") − logit(\" Jones\") = +12.5715",
        "   0   5437  \" Jones\"    17.70   0.6118       0   4176  \" Smith\"",
    ] {
        assert!(run.stdout.contains(part), "no «{part}» in:\n{}", run.stdout);
    }
    let json = folder.tiny(&[&args[..], &["--json"]].concat()).success().json();
    let expected = golden_case("logits", "jones");
    let top = json["top"].as_array().unwrap();
    assert_eq!(json["top"][1]["id"], expected["top20_ids"][1]);
    let got: Vec<f32> = top.iter().map(|row| number(&row["prob"])).collect();
    assert!(largest_difference(&got, &numbers(&expected["top20_probs"])[..2]) < 1e-5);
    assert_eq!(json["compare"]["answers"][0]["tokens"][0]["rank"], 0);
    assert_eq!(ids(&json["compare"]["ids"])[1], 4176);
}

#[test]
fn an_answer_of_several_tokens_is_read_token_by_token() {
    let folder = Folder::new();
    let text = "Michelle Jones was a top-notch student.";
    let args = ["predict", text, "--answer", " Michelle Jones"];
    folder.tiny(&args).failure(2, &["is 2 tokens (\" Michelle\", \" Jones\")"]);
    let json = folder.tiny(&[&args[..], &["--multi-token", "--json"]].concat()).success().json();
    let tokens = json["answers"][0]["tokens"].as_array().unwrap();
    // The second is what stands at the top after the whole main prompt.
    assert_eq!(tokens[1]["id"], 5437);
    assert!((number(&tokens[1]["prob"]) - 0.6117625).abs() < 1e-5);
    let log_prob: f32 = tokens.iter().map(|t| number(&t["prob"]).ln()).sum();
    assert!((number(&json["answers"][0]["log_prob"]) - log_prob).abs() < 1e-5);
}

#[test]
fn processed_weights_say_the_same_with_other_logits() {
    let folder = Folder::new();
    let predict = |more: &[&str]| {
        let args = [&["predict", CLEAN, "--json", "--answer", " Smith"], more].concat();
        folder.tiny(&args).success().json()
    };
    let raw = predict(&[]);
    for flags in [&["--process"][..], &["--process=default"], &["--fold-ln", "--center-unembed"]] {
        let processed = predict(flags);
        let of = |json: &Value, key: &str| -> Vec<f32> {
            let top = json["top"].as_array().unwrap();
            top.iter().map(|row| number(&row[key])).collect()
        };
        assert!(largest_difference(&of(&raw, "prob"), &of(&processed, "prob")) < 1e-5);
        assert!(largest_difference(&of(&raw, "logit"), &of(&processed, "logit")) > 0.01);
    }
    let steps = predict(&["--process=default"])["processing"].take();
    let expected = ["fold_ln", "center_writing_weights", "center_unembed", "fold_value_biases"];
    assert_eq!(steps, serde_json::json!(expected));
}

/// A grid of a study's JSON, by name: its shape and numbers (NaN for null).
fn grid(json: &Value, name: &str) -> (Vec<usize>, Vec<f32>) {
    let grids = json["grids"].as_array().unwrap();
    let grid = grids.iter().find(|grid| grid["name"] == name);
    let grid = grid.unwrap_or_else(|| panic!("no grid {name} among {}", grids.len()));
    let axes = grid["axes"].as_array().unwrap();
    let lengths = axes.iter().map(|axis| axis["labels"].as_array().unwrap().len());
    let values = grid["values"].as_array().unwrap().iter();
    let values = values.map(|x| x.as_f64().map_or(f32::NAN, |x| x as f32));
    (lengths.collect(), values.collect())
}

/// Asserts that a grid of a study's JSON has golden values, and prints the largest difference.
#[track_caller]
fn assert_grid(json: &Value, name: &str, shape: &[usize], expected: &[f32], tolerance: f32) {
    let (lengths, got) = grid(json, name);
    assert_eq!(lengths, shape, "{name}");
    let largest = largest_difference(&got, expected);
    println!("{name}: largest difference {largest:e}");
    assert!(largest < tolerance, "{name}: largest difference {largest:e}");
}

#[track_caller]
fn assert_parts(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no «{part}» in:\n{text}");
    }
}

/// The size of a PNG.
fn size_of(path: &std::path::Path) -> (u32, u32) {
    let file = std::io::BufReader::new(std::fs::File::open(path).unwrap());
    let reader = png::Decoder::new(file).read_info().unwrap();
    (reader.info().width, reader.info().height)
}

#[test]
fn activations_are_listed_by_name_and_saved_with_these_names() {
    let folder = Folder::new();
    let golden = golden("activations");
    let json = folder.tiny(&["activations", CLEAN, "--json"]).success().json();
    let rows = json["activations"].as_array().unwrap();
    let hooks = golden["hooks"].as_object().unwrap();
    // The logits, which do not belong to a hook, come last.
    assert_eq!(rows.len(), hooks.len() + 1);
    for row in &rows[..hooks.len()] {
        let expected = &hooks[row["name"].as_str().unwrap()];
        assert_eq!(row["shape"], expected["shape"]);
        let [sum, abs_sum] = ["sum", "abs_sum"].map(|key| number(&expected[key]));
        assert!((number(&row["sum"]) - sum).abs() < 1e-5 * abs_sum + 1e-3, "{row}");
    }

    let save = ["--only", "blocks.?.hook_resid_post", "--only", "hook_embed"];
    let args = [&["activations", CLEAN, "--save", "some.safetensors"][..], &save].concat();
    let run = folder.tiny(&args).success();
    assert_parts(&run.stdout, &["blocks.9.hook_resid_post  11 × 64", "wrote some.safetensors"]);
    assert!(!run.stdout.contains("hook_resid_pre"), "{}", run.stdout);
    let bytes = std::fs::read(folder.file("some.safetensors")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(file.len(), 11);
    let saved = file.tensor("blocks.3.hook_resid_post").unwrap();
    assert_eq!(saved.shape(), [11, 64]);
    let first: Vec<f32> = (saved.data().chunks_exact(4).take(8))
        .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
        .collect();
    let expected = numbers(&hooks["blocks.3.hook_resid_post"]["first"]);
    assert!(largest_difference(&first, &expected) < 1e-4);

    let one = ["--only", "*.0.attn.hook_pattern", "--save", "one.npy"];
    folder.tiny(&[&["activations", CLEAN], &one[..]].concat()).success();
    let npy = std::fs::read(folder.file("one.npy")).unwrap();
    assert!(String::from_utf8_lossy(&npy[..128]).contains("'shape': (4, 11, 11)"));
    for (args, parts) in [
        (&["--save", "all.npy"][..], &["holds one array, and there will be 220"][..]),
        (&["--save", "all.bin"], &["ends in .safetensors"]),
        (&["--only", "blocks.12.*"], &["no activation is called \"blocks.12.*\"", "layers 0 to 11"]),
    ] {
        folder.tiny(&[&["activations", CLEAN], args].concat()).failure(2, parts);
    }
    assert_eq!(folder.files(), ["one.npy", "one.npy.json", "some.safetensors"]);
}

#[test]
fn repeated_tokens_name_the_heads_that_notice_and_draw_them() {
    let folder = Folder::new();
    let args = ["repeat", "--seq-len", "20", "--seed", "3"];
    let pictures = ["--out", "heads.png", "--out-curve", "curve.png"];
    let run = folder.tiny(&[&args[..], &pictures, &["--out-transplant", "mlp.png"]].concat()).success();
    assert_parts(
        &run.stdout,
        &[
            "1 sequence of 20 random tokens (seed 3), twice over, with <|endoftext|> in front",
            "drawn from the 1145 tokens that tiny knows",
            "accuracy                  0.0000       1.0000",
            "\ninduction  ",
            "wrote mlp.png",
        ],
    );
    assert_eq!(folder.files(), ["curve.png", "heads.png", "mlp.png"]);
    assert!(size_of(&folder.file("heads.png")).0 > 1000);

    let json =
        folder.tiny(&[&args[..], &["--json", "--transplant", "--batch", "1"]].concat()).success().json();
    let ids = ids(&json["ids"][0]);
    assert_eq!((ids.len(), ids[0]), (41, 50256));
    assert_eq!(ids[1..21], ids[21..]);
    // The same numbers as those of the library, which golden tests compare with TransformerLens.
    let tiny = gpt2::Pretrained::tiny().unwrap().model;
    let prompt = lens::heads::RepeatedTokens::new(&ids[1..21], Some(50256));
    let study = lens::heads::repeat_study(&tiny, std::slice::from_ref(&prompt)).unwrap();
    for (name, scores) in study.scores.all() {
        assert_grid(&json, name, &[12, 4], scores.data(), 1e-6);
    }
    let (shape, curve) = grid(&json, "log_probs");
    assert_eq!(shape, [41]);
    assert!(curve[0].is_nan());
    assert!(largest_difference(&curve[1..], &study.log_probs) < 1e-5);
    assert!((number(&json["mean_log_prob"][1]) - study.mean_log_prob[1]).abs() < 1e-6);
    let transplant = lens::transplant::mlp_transplant(&tiny, &prompt, &|_| {}).unwrap();
    assert_grid(&json, "mlp_transplant", &[12, 20], transplant.data(), 1e-6);

    // Without <|endoftext|>, from all tokens, in the mean over two sequences.
    let more = ["repeat", "--no-bos", "--vocab", "all", "--batch", "2", "--json"];
    let json = folder.tiny(&more).success().json();
    assert_eq!(grid(&json, "log_probs").0, [100]);
    assert_eq!(json["ids"][1].as_array().unwrap().len(), 100);
}

#[test]
fn what_cannot_be_repeated_is_named() {
    let folder = Folder::new();
    folder
        .tiny(&["repeat", "--seq-len", "64"])
        .failure(2, &["64 tokens cannot be repeated: this model takes sequences of 1 to 63 tokens"]);
    folder.tiny(&["repeat", "--batch", "0"]).failure(2, &["0 is not in 1..=4096"]);
    folder
        .tiny(&["repeat", "--out", "a.png", "--out-curve", "a.png"])
        .failure(2, &["two pictures cannot both be a.png"]);
    folder
        .tiny(&["repeat", "--npy", "a.npy"])
        .failure(2, &["an .npy file holds one array, and there will be 6"]);
    assert!(folder.files().is_empty());
}

#[test]
fn attention_patterns_are_shown_for_the_named_heads_or_all() {
    let folder = Folder::new();
    let run = folder.tiny(&["attention", CLEAN, "--head", "8.3,6.2", "--out", "two.svg"]).success();
    assert_parts(&run.stdout, &["head 8.3", "head 6.2", "wrote two.svg"]);
    let json = folder.tiny(&["attention", CLEAN, "--head", "0.0", "--json"]).success().json();
    let golden = &golden("activations")["hooks"]["blocks.0.attn.hook_pattern"];
    let (shape, pattern) = grid(&json, "0.0");
    assert_eq!(shape, [11, 11]);
    let first = numbers(&golden["first"]);
    assert!(largest_difference(&pattern[..first.len()], &first) < 1e-5);
    assert_eq!(json["grids"][0]["axes"][1]["labels"][1], " Jones");

    let run = folder.tiny(&["attention", CLEAN, "--all", "--out", "all.png"]).success();
    assert_parts(&run.stdout, &["mean attention to", "\n11.3  ", "wrote all.png"]);
    let json = folder.tiny(&["attention", CLEAN, "--all", "--json"]).success().json();
    let (shape, patterns) = grid(&json, "pattern");
    assert_eq!(shape, [12, 4, 11, 11]);
    assert_eq!(patterns[..121], pattern[..]);
    let sum: f32 = patterns.iter().sum();
    assert!((sum - 12.0 * 4.0 * 11.0).abs() < 1e-2, "{sum}");

    for (head, part) in [
        ("12.0", "there is no head 12.0: this model has the layers 0 to 11"),
        ("5", "invalid head \"5\": expected LAYER.HEAD"),
    ] {
        folder.tiny(&["attention", CLEAN, "--head", head]).failure(2, &[part]);
    }
    folder.tiny(&["attention", CLEAN]).failure(2, &["--head"]);
}

#[test]
fn heads_of_a_kind_are_detected_as_transformer_lens_does() {
    let golden = golden("lens");
    let ids = ids(&golden["ids"]);
    assert_eq!(ids[0], 50256);
    let text = gpt2::Tokenizer::gpt2().decode(&ids[1..]);
    let folder = Folder::new();
    for case in golden["detect"].as_array().unwrap() {
        let kind = case["kind"].as_str().unwrap();
        let measure = case["error_measure"].as_str().unwrap();
        let mut args = vec!["detect", &text, "--bos", "--json", "--kind", kind];
        args.extend(["--error-measure", measure]);
        for flag in ["exclude_bos", "exclude_current_token"] {
            if case[flag] == true {
                args.push(match flag {
                    "exclude_bos" => "--exclude-bos",
                    _ => "--exclude-current-token",
                });
            }
        }
        let json = folder.tiny(&args).success().json();
        // `abs` rounds to three places, and another rounding of a sum may tip one over.
        let tolerance = if measure == "mul" { 1e-5 } else { 1.1e-3 };
        let expected = numbers(&case["values"]);
        assert_grid(&json, kind, &[12, 4], &expected, tolerance);
    }
    let run = folder.tiny(&["detect", &text, "--out", "kinds.png"]).success();
    assert_parts(&run.stdout, &["previous_token_head   6.2", "duplicate_token_head", "wrote"]);
    folder
        .tiny(&["detect", "a", "--kind", "induction"])
        .failure(2, &["there is no head kind \"induction\"", "induction_head"]);
    folder.tiny(&["detect", "a"]).failure(2, &["the prompt has 1 tokens; heads can be told apart"]);
}

#[test]
fn the_lens_and_the_attribution_are_golden_and_add_up() {
    let folder = Folder::new();
    let golden = golden("attribution");
    let args = ["lens", CLEAN, "--answers", " Smith", " Jones"];
    let json = folder.tiny(&[&args[..], &["--json"]].concat()).success().json();
    let expected = &golden["direct_logit_attribution"];
    let heads = numbers(&expected["heads"]["values"]);
    assert_grid(&json, "heads", &[12, 4], &heads, 1e-4);
    let attribution = &json["attribution"];
    let sum = number(&expected["sum_is"]);
    assert!((number(&attribution["sum"]) - sum).abs() < 1e-4);
    assert!((number(&attribution["logit_diff"]) - sum).abs() < 1e-4);
    let components = attribution["components"].as_array().unwrap();
    let shares: Vec<f32> = components.iter().map(|c| number(&c["share"])).collect();
    assert!((shares.iter().sum::<f32>() - sum).abs() < 1e-3);
    assert_eq!(components[2]["component"], "0_attn_out");
    assert!((shares[2] - number(&expected["attn_out"][0])).abs() < 1e-4);
    // The lens of the last position: logit( Jones), logit( Smith).
    let rows = numbers(&golden["logit_lens"]["values"]);
    let expected: Vec<f32> = rows.chunks(2).map(|pair| pair[1] - pair[0]).collect();
    let (shape, diff) = grid(&json, "logit_diff");
    assert_eq!(shape, [25, 11]);
    let last: Vec<f32> = diff.chunks(11).map(|row| row[10]).collect();
    assert!(largest_difference(&last, &expected) < 2e-4);
    assert_eq!(json["top_tokens"][24][10], " Jones");

    let pictures = ["--out", "lens.png", "--out-heads", "heads.svg"];
    let pictures = [&pictures[..], &["--out-components", "parts.png"]].concat();
    let run = folder.tiny(&[&args[..], &pictures].concat()).success();
    assert_parts(
        &run.stdout,
        &[
            "final_post  \" and\" 0.21",
            "logit(\" Smith\") − logit(\" Jones\")",
            "sum          -10.8279  (the model's logit difference: -10.8279)",
            "heads with the largest shares\n7.1",
            "wrote lens.png",
        ],
    );
    assert_eq!(folder.files(), ["heads.svg", "lens.png", "parts.png"]);
}

#[test]
fn the_lens_works_without_answers_and_at_another_position() {
    let folder = Folder::new();
    let json = folder.tiny(&["lens", CLEAN, "--json"]).success().json();
    assert_eq!(json["grids"].as_array().unwrap().len(), 1);
    assert_eq!(json["attribution"], Value::Null);
    let (_, prob) = grid(&json, "top_prob");
    assert!((prob[25 * 11 - 1] - 0.6117625).abs() < 1e-5);
    let args = ["lens", CLEAN, "--answers", " a", " the"];
    let json = folder.tiny(&[&args[..], &["--pos", "2", "--json"]].concat()).success().json();
    let at = |name: &str, i: usize| grid(&json, name).1[i];
    let difference = number(&json["attribution"]["logit_diff"]);
    assert!((at("logit_diff", 24 * 11 + 2) - difference).abs() < 1e-3);
    for (more, part) in [
        (&["--pos", "11"][..], "there is no position 11: the prompt has 11 tokens"),
        (&["--pos", "x"], "invalid value 'x'"),
    ] {
        folder.tiny(&[&args[..], more].concat()).failure(2, &[part]);
    }
    folder
        .tiny(&["lens", CLEAN, "--answers", " a", " a"])
        .failure(2, &["--answers compares \" a\" with itself"]);
    folder.tiny(&["lens", CLEAN, "--out-heads", "a.png"]).failure(2, &["--answers"]);
}

#[test]
fn compose_has_the_scores_and_circuits_of_transformer_lens() {
    let folder = Folder::new();
    let raw = golden("composition");
    let processed = &golden("studies")["composition_processed"];
    for (flags, golden) in [(&[][..], None), (&["--process=default"], Some(processed))] {
        let args = [&["compose", "--json", "--top", "3"], flags].concat();
        let json = folder.tiny(&args).success().json();
        for kind in ["q", "k", "v"] {
            let (shape, scores) = grid(&json, &format!("{kind}_composition"));
            assert_eq!(shape, [48, 48]);
            // A pair for every two layers in order, and nothing elsewhere.
            let pairs = scores.iter().filter(|score| !score.is_nan());
            assert_eq!(pairs.clone().count(), 66 * 16);
            let sum: f32 = pairs.sum();
            let expected = number(&golden.unwrap_or(&raw)[kind]["sum"]);
            println!("{kind}: sum differs by {:e}", sum - expected);
            assert!((sum - expected).abs() < 2e-3, "{kind}: {sum}, not {expected}");
        }
        if golden.is_none() {
            let top = &raw["k"]["top"][0];
            let best = &json["pairs"][1]["strongest"][0];
            assert_eq!(best["first"], format!("{}.{}", top[0], top[1]));
            assert_eq!(best["second"], format!("{}.{}", top[2], top[3]));
            assert!((number(&best["score"]) - number(&top[4])).abs() < 1e-5);
        }
    }
    let lens = golden("lens");
    for case in lens["k_composition_circuits"].as_array().unwrap() {
        let heads = ids(&case["heads"]);
        let [previous, induction] = [0, 2].map(|i| format!("{}.{}", heads[i], heads[i + 1]));
        let args = ["compose", "--json", "--circuit", &previous, &induction];
        let json = folder.tiny(&args).success().json();
        // One token of the 1,145 may tip over by rounding.
        for (key, expected) in [("top1_accuracy", "by_rows"), ("top1_accuracy_of_keys", "by_columns")] {
            let difference = number(&json["circuit"][key]) - number(&case[expected]);
            assert!(difference.abs() < 1.5 / 1145.0, "{key}: {difference}");
        }
    }
}

#[test]
fn the_circuits_of_one_head_are_measured_and_drawn() {
    let folder = Folder::new();
    let args = ["compose", "--head", "7.1", "--circuit", "6.2", "7.1", "--among", CLEAN];
    let run = folder.tiny(&[&args[..], &["--out", "head.png"]].concat()).success();
    assert_parts(
        &run.stdout,
        &[
            "circuits between the 1145 tokens that tiny knows",
            "head 7.1, where it looks: W_Q W_Kᵀ",
            "singular values 6.201, 5.931, 5.480",
            "copying score",
            "induction by 6.2 → 7.1",
            "wrote head.png",
        ],
    );
    let json = folder.tiny(&[&args[..], &["--json"]].concat()).success().json();
    let golden = golden("lens");
    let singular = numbers(&json["head"]["ov_singular_values"]);
    assert!(largest_difference(&singular, &numbers(&golden["singular_values"])) < 1e-4);
    let names: Vec<&str> =
        (json["grids"].as_array().unwrap().iter()).map(|grid| grid["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["k_composition_circuit", "qk_circuit", "ov_circuit", "singular_values"]);
    for (args, part) in [
        (&["--circuit", "7.1", "6.2"][..], "a head of layer 7 cannot feed a head of layer 6"),
        (&["--head", "7.4"], "there is no head 7.4"),
        (&["--head", "7.1", "--kind", "q"], "--kind is for the pairs of heads"),
        (&["--vocab", "all"], "--vocab is for circuits between tokens"),
        (&["--circuit", "6.2", "7.1", "--out", "a.png"], "give --among TEXT to draw it"),
        (&["--kind", "x"], "there is no composition \"x\"; give q, k or v"),
    ] {
        folder.tiny(&[&["compose"], args].concat()).failure(2, &[part]);
    }
    assert_eq!(folder.files(), ["head.png"]);
}

#[test]
fn ioi_has_the_golden_table_attribution_and_sweep() {
    let folder = Folder::new();
    let golden_rows = golden("ioi");
    let golden = golden("studies");
    let args = ["ioi", "--process=default", "--json"];
    let json = folder.tiny(&args).success().json();
    for (row, case) in json["prompts"].as_array().unwrap().iter().zip(golden_rows.as_array().unwrap()) {
        assert_eq!((&row["prompt"], &row["correct"]), (&case["prompt"], &case["correct"]));
        assert!((number(&row["logit_diff"]) - number(&case["logit_diff"])).abs() < 2e-4);
    }
    let expected = numbers(&golden["head_attribution"]);
    assert_grid(&json, "attribution", &[12, 4], &expected, 1e-4);
    let decomposed = numbers(&golden["decomposed"]);
    let (_, components) = grid(&json, "components");
    // TransformerLens's components are followed by the bias of ln_f, which is folded away here.
    assert!(largest_difference(&components[..decomposed.len()], &decomposed) < 1e-4);
    assert_grid(&json, "sweep_z", &[12, 4], &numbers(&golden["sweep_z"]), 1e-5);

    let args = ["ioi", "--site", "pattern", "--json"];
    let json = folder.tiny(&args).success().json();
    let expected = numbers(&golden["sweep_pattern"]);
    assert_grid(&json, "sweep_pattern", &[12, 4], &expected, 1e-5);

    let run = folder.tiny(&["ioi", "--out", "ioi.png"]).success();
    assert_parts(&run.stdout, &["mean", "+8.9811", "8.1   0.4999", "wrote ioi.png"]);
    let json = folder.tiny(&["ioi", "--no-sweep", "--no-bos", "--json"]).success().json();
    assert_eq!(json["grids"].as_array().unwrap().len(), 3);
    assert_eq!(json["bos"], false);
    folder
        .tiny(&["ioi", "--site", "resid_post"])
        .failure(2, &["\"resid_post\" is not an activation of a head; give z, q, k, v or pattern"]);
}

#[test]
fn printed_studies_can_be_drawn_again_and_read_by_others() {
    let folder = Folder::new();
    let json = folder.tiny(&["detect", CLEAN, "--json"]).success();
    std::fs::write(folder.file("run.json"), &json.stdout).unwrap();
    let args = ["plot", "run.json", "--grid", "induction_head", "--out", "again.png"];
    folder.run(args).success();
    let args = ["detect", CLEAN, "--kind", "previous_token_head", "--npy", "p.npy", "--csv", "p.csv"];
    folder.tiny(&args).success();
    let csv = std::fs::read_to_string(folder.file("p.csv")).unwrap();
    assert_eq!(csv.lines().count(), 1 + 48);
    assert!(csv.starts_with("grid,layer,head,value\nprevious_token_head,0,0,"), "{csv}");
}

/// F11 of the inputs' maker has the same check for a model of random weights: the last point says what the
/// model says once ln_f's bias is added, and processed weights, whose biases stand elsewhere, say the same.
#[test]
fn the_last_point_of_the_lens_says_what_the_model_says() {
    let folder = Folder::new();
    let lens = ["lens", CLEAN, "--answers", " Jones", " Smith", "--json"];
    for more in [&[][..], &["--process"], &["--fold-ln"]] {
        let json = folder.tiny(&[&lens, more].concat()).success().json();
        let grids = json["grids"].as_array().unwrap();
        let named = |name: &str| grids.iter().find(|grid| grid["name"] == name).unwrap();
        let last = |name: &str| *numbers(&named(name)["values"]).last().unwrap();
        let said = json["attribution"]["logit_diff"].as_f64().unwrap() as f32;
        assert!((last("logit_diff") - said).abs() < 1e-3, "{more:?}");
        let bias = last("components"); // of ln_f and the unembedding
        assert!((last("accumulated") + bias - said).abs() < 1e-3, "{more:?}");
        let embedded: f32 = numbers(&named("components")["values"])[..2].iter().sum();
        let first = numbers(&named("accumulated")["values"])[0];
        assert!((first - embedded).abs() < 1e-3, "{more:?}");
        let title = named("accumulated")["title"].as_str().unwrap();
        assert!(title.ends_with("without its bias"), "{title}");
    }
}
