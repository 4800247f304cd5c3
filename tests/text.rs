//! What a model writes after a text and how well it predicts one, against transformers' values.

use gpt2::tokenizer::END_OF_TEXT;
use gpt2::{Pretrained, Sampling};
use serde_json::{Value, json};

use crate::util::{Folder, golden, golden_case, ids, largest_difference, named, numbers};

const ALAN: &str = "Famous computer scientist Alan";

/// The JSON of `generate` with the tiny model.
fn generate(args: &[&str]) -> Value {
    let args = [&["generate", "--json"], args].concat();
    Folder::new().tiny(&args).success().json()
}

fn text(json: &Value) -> &str {
    json["text"].as_str().unwrap()
}

#[test]
fn greedy_texts_are_those_of_transformers() {
    let golden = golden("text");
    let prompts = crate::util::golden("logits");
    for (case, prompt) in by_name(&golden["greedy"], &prompts) {
        let bos: &[&str] = if case["bos"] == true { &["--bos"] } else { &[] };
        let args = [&[case["prompt"].as_str().unwrap()], bos].concat();
        let json = generate(&args);
        assert_eq!(json["prompt"]["ids"], prompt["ids"]);
        assert_eq!(json["ids"], case["ids"]);
        assert_eq!(json["finish_reason"], "end_of_text");
        let written = ids(&json["ids"]);
        let before_end = &written[..written.len() - 1];
        assert_eq!(text(&json), gpt2::Tokenizer::gpt2().decode(before_end));
        assert_eq!(json["tokens"][written.len() - 1], "<|endoftext|>");
    }
    let tiny = Pretrained::tiny().unwrap().model;
    for (case, prompt) in by_name(&golden["greedy_60"], &prompts) {
        let prompt = ids(&prompt["ids"]);
        let all = tiny.generate(&prompt, 60, Sampling::GREEDY, None).unwrap();
        assert_eq!(all[prompt.len()..], ids(&case["ids"]));
    }
}

/// Each case with the prompt of the same name.
fn by_name<'a>(cases: &'a Value, prompts: &'a Value) -> impl Iterator<Item = (&'a Value, &'a Value)> {
    let cases = cases.as_array().unwrap();
    assert_eq!(cases.len(), prompts.as_array().unwrap().len());
    cases.iter().map(|case| (case, named(prompts, case["name"].as_str().unwrap())))
}

#[test]
fn filtered_distributions_are_those_of_transformers() {
    let tiny = Pretrained::tiny().unwrap().model;
    let prompt = ids(&golden_case("logits", "jones")["ids"]);
    let logits = tiny.next_token_logits(&prompt, &mut gpt2::no_hook);
    for case in golden("text")["warped"].as_array().unwrap() {
        let sampling = Sampling {
            temperature: case["temperature"].as_f64().unwrap() as f32,
            top_k: case["top_k"].as_u64().map(|k| k as usize),
            top_p: case["top_p"].as_f64().map(|p| p as f32),
            seed: 0,
        };
        let got = sampling.distribution(&logits);
        assert_eq!(got.len() as u64, case["kept"].as_u64().unwrap(), "{case}");
        let expected = ids(&case["ids"]);
        let first = &got[..expected.len()];
        assert_eq!(first.iter().map(|it| it.0).collect::<Vec<_>>(), expected);
        let probs: Vec<f32> = first.iter().map(|it| it.1 as f32).collect();
        assert!(largest_difference(&probs, &numbers(&case["probs"])) < 1e-5);
    }
}

#[test]
fn log_probabilities_of_what_is_written_are_those_of_predict() {
    let sampled = ["--temperature", "1.3", "--top-k", "50", "--seed", "3"];
    for more in [&[][..], &sampled] {
        let json = generate(&[&["Her name was", "--max-new-tokens", "12"], more].concat());
        let whole = format!("Her name was{}", text(&json));
        let args = ["predict", &whole, "--all-positions", "--json"];
        let predicted = Folder::new().tiny(&args).success().json();
        let all = [&json["prompt"]["ids"], &json["ids"]].map(ids).concat();
        let read = ids(&predicted["ids"]);
        // Drawn tokens need not be those into which their text is cut.
        if all.starts_with(&read) {
            let got = &numbers(&json["log_probs"])[..read.len() - 3];
            let expected = &numbers(&predicted["log_probs"])[3..];
            assert!(largest_difference(got, expected) < 1e-4);
        } else {
            assert!(!more.is_empty(), "{all:?}, {read:?}");
        }
    }
}

#[test]
fn a_seed_can_be_written_again_and_samples_count_on_from_it() {
    let args = ["Her name was", "--top-p", "0.95"];
    let seed = |seed: &str| generate(&[&args[..], &["--seed", seed]].concat());
    let three = generate(&[&args[..], &["--seed", "5", "--samples", "3"]].concat());
    assert_eq!(three["temperature"], 1.0);
    assert_eq!(three["top_p"], 0.95);
    let more = three["more_samples"].as_array().unwrap();
    assert_eq!(more.len(), 2);
    for (sample, number) in [&three, &more[0], &more[1]].into_iter().zip(5..) {
        let alone = seed(&number.to_string());
        assert_eq!(sample["seed"], number);
        for key in ["ids", "tokens", "text", "log_probs", "finish_reason"] {
            assert_eq!(sample[key], alone[key], "{key}");
        }
    }
    assert_ne!(three["ids"], more[0]["ids"]);
    let greedy = generate(&args[..1]);
    assert_eq!((&greedy["temperature"], &greedy["seed"]), (&json!(0.0), &json!(0)));
    let one = generate(&["Her name was", "--top-k", "1", "--seed", "9"]);
    assert_eq!(one["ids"], greedy["ids"]);
}

#[test]
fn a_stop_text_may_lie_across_tokens_and_is_not_shown() {
    let whole = generate(&[ALAN]);
    assert_eq!(text(&whole), " Turing was late.");
    assert_eq!(whole["tokens"][2], " late");
    for (stop, expected) in [("ing was la", " Tur"), (" late", " Turing was"), (" Turing", "")] {
        let json = generate(&[ALAN, "--stop", "never", "--stop", stop]);
        assert_eq!(text(&json), expected);
        assert_eq!(json["finish_reason"], "stop");
        assert_eq!(json["stop_text"], stop);
        // All tokens that were written, with the one that completes the stop text.
        let count = if stop == " Turing" { 1 } else { 3 };
        assert_eq!(ids(&json["ids"]), ids(&whole["ids"])[..count]);
        assert_eq!(json["log_probs"].as_array().unwrap().len(), count);
    }
    // The prompt is not searched, and the beginning of a stop text is not a stop text.
    for stop in ["Famous", "late. And"] {
        let json = generate(&[ALAN, "--stop", stop]);
        assert_eq!((text(&json), &json["stop_text"]), (text(&whole), &Value::Null));
    }
}

#[test]
fn what_is_written_is_printed_with_the_reason_of_its_end() {
    let folder = Folder::new();
    let print = |more: &[&str]| {
        let args = [&["generate", ALAN], more].concat();
        folder.tiny(&args).success().stdout
    };
    let log_prob: f32 = numbers(&generate(&[ALAN])["log_probs"]).iter().sum();
    assert_eq!(
        print(&[]),
        format!(
            "F/amous/ computer/ scientist/ Alan\n37 10877 3644 11444 12246\n\
             without <|endoftext|> in front\n\n{ALAN} Turing was late.\n\n\
             5 tokens written by tiny, always the most likely one; \"<|endoftext|>\" ends the text\n\
             log probability {log_prob:.4}, {:.4} a token\n",
            log_prob / 5.0
        )
    );
    let length = print(&["--max-new-tokens", "1"]);
    assert!(length.contains(" Alan Turing\n\n1 token written"), "{length}");
    assert!(length.contains("; --max-new-tokens is reached\n"), "{length}");
    let stop = print(&["--stop", " late"]);
    assert!(stop.contains("Turing was\n\n3 tokens"), "{stop}");
    assert!(stop.contains("; the text contains \" late\"\n"), "{stop}");
    let samples = print(&["--samples", "2", "--seed", "4", "--top-k", "9"]);
    for part in [
        "\nsample 1 of 2, seed 4\nFamous",
        "\nsample 2 of 2, seed 5\nFamous",
        "drawn at temperature 1, top-k 9, seed 5; ",
    ] {
        assert!(samples.contains(part), "no «{part}» in:\n{samples}");
    }
}

#[test]
fn characters_of_several_tokens_are_never_shown_in_pieces() {
    // Far from the most likely tokens there are many that are a few bytes of a character.
    let more = ["--temperature", "1000", "--max-new-tokens", "120", "--seed"];
    let mut pieces = 0;
    for seed in ["1", "2", "3"] {
        let args = [&["Her"], &more[..], &[seed]].concat();
        let json = generate(&args);
        let bytes: Vec<u8> =
            (ids(&json["ids"]).iter()).flat_map(|&id| gpt2::Tokenizer::gpt2().bytes(id)).collect();
        assert_eq!(text(&json), String::from_utf8_lossy(&bytes));
        let tokens = json["tokens"].as_array().unwrap();
        let is_piece = |token: &&Value| token.as_str().unwrap().contains("\\x");
        pieces += tokens.iter().filter(is_piece).count();
        let args = [&["generate"], &args[..]].concat();
        let printed = Folder::new().tiny(&args).success().stdout;
        assert!(!printed.contains('\u{fffd}') && !printed.contains('\u{1b}'));
    }
    assert!(pieces > 0, "no token was a piece of a character");
}

#[test]
fn a_text_that_outgrows_the_model_says_what_is_read() {
    let long = "the ".repeat(126);
    let args = ["generate", long.trim_end(), "--max-new-tokens", "6", "--top-k", "3"];
    let run = Folder::new().tiny(&args).success();
    let json = Folder::new().tiny(&[&args[..], &["--json"]].concat());
    let count = ids(&json.success().json()["ids"]).len();
    let beyond = (126 + count - 1).saturating_sub(128);
    assert!(beyond > 1, "only {count} tokens were written");
    let part = format!("for the last {beyond} tokens, only the 128 tokens before were read");
    assert!(run.stdout.contains(&part), "no «{part}» in:\n{}", run.stdout);
}

#[test]
fn settings_that_cannot_be_used_are_named_with_their_values() {
    let folder = Folder::new();
    for (args, part) in [
        (&["--temperature", "-1"][..], "the temperature cannot be -1"),
        (&["--temperature", "nan"], "the temperature cannot be NaN"),
        (&["--temperature", "inf"], "the temperature cannot be inf"),
        (&["--top-k", "0"], "the top-k cannot be 0"),
        (&["--top-p", "0"], "the top-p cannot be 0"),
        (&["--top-p", "1.01"], "the top-p cannot be 1.01"),
        (&["--top-p", "-0.5"], "the top-p cannot be -0.5"),
        (&["--stop", ""], "--stop \"\": every text contains the empty text"),
        (&["--max-new-tokens", "0"], "0 is not in 1.."),
        (&["--samples", "0"], "0 is not in 1.."),
        (&["--seed", "-1"], "invalid value '-1' for '--seed <N>'"),
        (
            &["--samples", "2", "--temperature", "0"],
            "--samples 2 with --temperature 0 would write the same text 2 times",
        ),
    ] {
        folder.tiny(&[&["generate", "a"], args].concat()).failure(2, &[part]);
    }
    folder.tiny(&["generate", ""]).failure(2, &["the prompt is empty"]);
    folder
        .tiny(&["generate", &"the ".repeat(200)])
        .failure(2, &["the prompt has 201 tokens; this model reads at most 128"]);
    // A stop text may begin with a dash.
    folder.tiny(&["generate", "a", "--stop", "--"]).success();
}

#[test]
fn every_position_of_a_text_has_the_scores_of_transformers() {
    let folder = Folder::new();
    for case in golden("text")["texts"].as_array().unwrap() {
        let args = ["predict", case["text"].as_str().unwrap(), "--all-positions"];
        let json = folder.tiny(&[&args[..], &["--json"]].concat());
        let json = json.success().json();
        assert_eq!(json["ids"], case["ids"]);
        for (key, expected) in [("ranks", "ranks"), ("likeliest_ids", "likeliest_ids")] {
            assert_eq!(json[key][0], Value::Null);
            assert_eq!(json[key].as_array().unwrap()[1..], *case[expected].as_array().unwrap());
        }
        for (key, tolerance) in [("log_probs", 1e-4), ("likeliest_probs", 1e-5)] {
            assert_eq!(json[key][0], Value::Null);
            let largest = largest_difference(&numbers(&json[key])[1..], &numbers(&case[key]));
            println!("{key}: largest difference {largest:e}");
            assert!(largest < tolerance, "{key}: largest difference {largest:e}");
        }
        let [loss, perplexity] = ["loss", "perplexity"].map(|key| json[key].as_f64().unwrap());
        let expected = case["loss"].as_f64().unwrap();
        assert!((loss - expected).abs() < 1e-5, "{loss}, not {expected}");
        assert!((perplexity - expected.exp()).abs() < 1e-4, "{perplexity}");
        let count = ids(&case["ids"]).len() - 1;
        assert_eq!(json["scored_tokens"], count);
        let line = format!("mean loss {loss:.4} nats over {count} tokens, perplexity {perplexity:.4}");
        let run = folder.tiny(&args).success();
        assert!(run.stdout.contains(&line), "no «{line}» in:\n{}", run.stdout);
    }
    for case in golden("logits").as_array().unwrap() {
        let bos: &[&str] = if case["bos"] == true { &["--bos"] } else { &[] };
        let text = case["prompt"].as_str().unwrap();
        let args = [&["predict", text, "--all-positions", "--json"], bos].concat();
        let loss = folder.tiny(&args).success().json()["loss"].as_f64().unwrap();
        let expected = -case["mean_log_prob"].as_f64().unwrap();
        assert!((loss - expected).abs() < 1e-5, "{loss}, not {expected}");
    }
}

#[test]
fn the_loss_of_a_single_token_is_none_and_said_to_be() {
    let folder = Folder::new();
    let args = ["predict", "When", "--all-positions"];
    let run = folder.tiny(&args).success();
    let line = "no loss: the text is one token, which has nothing before it (--bos";
    assert!(run.stdout.contains(line), "{}", run.stdout);
    assert!(!run.stdout.contains("perplexity") && !run.stdout.contains("NaN"));
    let json = |more: &[&str]| {
        let args = [&args[..], &["--json"], more].concat();
        folder.tiny(&args).success().json()
    };
    let alone = json(&[]);
    for key in ["loss", "perplexity"] {
        assert_eq!(alone[key], Value::Null);
    }
    assert_eq!((&alone["log_probs"], &alone["scored_tokens"]), (&json!([null]), &json!(0)));
    let bos = json(&["--bos"]);
    assert_eq!(bos["ids"][0], END_OF_TEXT);
    assert!(bos["loss"].as_f64().unwrap() == -bos["log_probs"][1].as_f64().unwrap());
    // Without the flag there are no scores.
    let plain = folder.tiny(&["predict", "When", "--json"]).success().json();
    assert!(plain.get("loss").is_none() && plain.get("log_probs").is_none());
}

#[test]
fn all_positions_go_with_answers_and_a_second_text() {
    let folder = Folder::new();
    let args = ["predict", "When John", "--compare", "When Mary and", "--answer", " and"];
    let args = [&args[..], &["--all-positions"]].concat();
    let run = folder.tiny(&args).success();
    for part in [
        "each token of prompt 1\n pos     id  token    log prob     prob  rank  most likely     prob",
        "   1   1757  \" John\"   -5.5025   0.0041    77  \" Felix\"      0.0065",
        "each token of prompt 2",
        "mean loss 5.5025 nats over 1 token, perplexity 245.3",
        "performance on answer token after prompt 1",
    ] {
        assert!(run.stdout.contains(part), "no «{part}» in:\n{}", run.stdout);
    }
    let args = [&args[..], &["--json"]].concat();
    let json = folder.tiny(&args).success().json();
    assert_eq!(json["scored_tokens"], 1);
    assert_eq!(json["compare"]["scored_tokens"], 2);
    // Processed weights have the same log probabilities.
    let processed = folder.tiny(&[&args[..], &["--process"]].concat());
    let processed = processed.success().json();
    let loss = |json: &Value| json["loss"].as_f64().unwrap();
    assert!((loss(&json) - loss(&processed)).abs() < 1e-4);
}

#[test]
fn logits_of_all_positions_are_listed_and_saved_when_asked_for() {
    let folder = Folder::new();
    let prompt = golden_case("logits", "jones")["prompt"].as_str().unwrap().to_owned();
    let golden = &golden("text")["logits"];
    let run = |more: &[&str]| folder.tiny(&[&["activations", &prompt], more].concat());
    let json = run(&["--json"]).success().json();
    let rows = json["activations"].as_array().unwrap();
    let last = rows.last().unwrap();
    assert_eq!((&last["name"], &last["shape"]), (&json!("logits"), &golden["shape"]));
    let [sum, abs_sum] = ["sum", "abs_sum"].map(|key| golden[key].as_f64().unwrap());
    assert!((last["sum"].as_f64().unwrap() - sum).abs() < 1e-6 * abs_sum);

    run(&["--only", "logits", "--save", "logits.npy"]).success();
    let bytes = std::fs::read(folder.file("logits.npy")).unwrap();
    assert!(String::from_utf8_lossy(&bytes[..128]).contains("'shape': (11, 50257)"));
    let floats = bytes[bytes.len() - 11 * 50257 * 4..].chunks_exact(4);
    let saved: Vec<f32> = floats.map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    assert!(largest_difference(&saved[..8], &numbers(&golden["first"])) < 1e-4);
    let words = std::fs::read(folder.file("logits.npy.json")).unwrap();
    let words: Value = serde_json::from_slice(&words).unwrap();
    let axes = &words["grids"][0]["axes"];
    assert_eq!((&axes[0]["name"], &axes[1]["name"]), (&json!("pos"), &json!("token")));
    assert_eq!(axes[1]["labels"][5437], " Jones");

    // Among others by name; not among all that are saved without --only.
    let names = |file: &str| {
        let bytes = std::fs::read(folder.file(file)).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        file.names().iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()
    };
    run(&["--only", "log*", "--only", "hook_embed", "--save", "two.safetensors"]).success();
    let mut two = names("two.safetensors");
    two.sort();
    assert_eq!(two, ["hook_embed", "logits"]);
    let all = run(&["--save", "all.safetensors"]).success().stdout;
    assert!(all.ends_with("(without the logits, which --only logits saves)\n"), "{all}");
    let all = names("all.safetensors");
    assert_eq!((all.len(), all.contains(&"logits".to_owned())), (220, false));
}
