//! What users type: texts that begin with a dash, places from the end, names as other tools spell them.

use serde_json::Value;

use crate::util::Folder;

/// Subcommands that take a text as it is, with what else each needs.
const OF_TEXTS: [&[&str]; 6] = [
    &["predict"],
    &["activations"],
    &["attention", "--head", "0.1"],
    &["detect"],
    &["lens"],
    &["ablate", "--metric", "kl"],
];

#[test]
fn a_text_may_begin_with_a_dash_and_an_option_may_not_be_wrong() {
    let folder = Folder::new();
    for args in OF_TEXTS {
        for text in ["- item", "-x the cat", "-5 degrees and", "--> he said"] {
            let given = [args, &[text, "--json"]].concat();
            let json = folder.tiny(&given).success().json();
            let prompt = json.get("prompt").unwrap_or(&json);
            assert_eq!(prompt["text"], *text, "{args:?}");
        }
        let behind = [args, &["--json", "--model", "tiny", "--", "--modle"]].concat();
        let json = folder.run(&behind).success().json();
        let prompt = json.get("prompt").unwrap_or(&json);
        assert_eq!(prompt["text"], "--modle", "{args:?}");
        for text in [&[][..], &["The cat"]] {
            let wrong = [args, text, &["--modle", "tiny"]].concat();
            let message = "unexpected argument '--modle'";
            folder.run(&wrong).failure(2, &[message, "'--model'"]);
        }
    }
    let json = folder.run(["tokens", "a", "-x the", "--json", "b"]).success().json();
    let texts: Vec<&Value> = json.as_array().unwrap().iter().map(|it| &it["text"]).collect();
    assert_eq!(texts, ["a", "-x the", "b"]);
    let message = ["unexpected argument '--jsno'", "'--json'"];
    folder.run(["tokens", "a", "--jsno"]).failure(2, &message);
    folder.tiny(&["predict", "-json"]).failure(2, &["unexpected argument '-j'"]);
    folder.tiny(&["predict", "-h"]).success();
}

#[test]
fn the_texts_of_options_may_begin_with_dashes() {
    let folder = Folder::new();
    let json = |args: &[&str]| folder.tiny(&[args, &["--json"]].concat()).success().json();
    let predicted = json(&["predict", "a", "--answer", "->", "--answer", "--", "--compare", "-b"]);
    assert_eq!(predicted["answers"][0]["text"], "->");
    assert_eq!(predicted["answers"][1]["text"], "--");
    assert_eq!(predicted["compare"]["text"], "-b");
    let swept = json(&[
        "sweep",
        "--clean",
        "- a b",
        "--corrupted",
        "- c b",
        "--logit-diff",
        "->",
        "==",
        "--positions",
        "-1",
    ]);
    assert_eq!((&swept["metric"]["a"], &swept["metric"]["b"]), (&"->".into(), &"==".into()));
    let swept = json(&["--metric", "logit", "--token", "-", "--layers", "-1"]);
    assert_eq!(swept["metric"]["a"], "-");
    let looked = json(&["lens", "a", "--answers", "-", "--", "--top", "1"]);
    assert_eq!(looked["answers"], serde_json::json!(["-", "--"]));
    let circuit = json(&["compose", "--head", "7.1", "--among", "- a", "--title", "-5"]);
    assert_eq!(circuit["provenance"]["prompts"][0]["text"], "- a");
    for args in [&["lens", "a", "--answers", " a"][..], &["--logit-diff", " a"]] {
        folder.tiny(args).failure(2, &[args[args.len() - 2], "2 values"]);
    }
    let sum = json(&["repeat", "--seq-len", "3", "--title", "- item"]);
    assert_eq!(sum["grids"].as_array().unwrap().len(), 6);
}

#[test]
fn places_count_from_the_end_and_heads_have_three_spellings() {
    let folder = Folder::new();
    let json = |args: &[&str]| folder.tiny(&[args, &["--json"]].concat()).success().json();
    let grids = |args: &[&str]| json(args)["grids"].clone();
    for (from_end, from_start) in [
        (&["--layers", "-1"][..], &["--layers", "11"][..]),
        (&["--layers", "-3.."], &["--layers", "9..12"]),
        (&["--layers", "0,-2..=-1"], &["--layers", "0,10,11"]),
        (&["--positions", "-1"], &["--positions", "10"]),
        (&["--positions", "end,-2"], &["--positions", "9,10"]),
        (&["--site", "z", "--heads", "L9H1"], &["--site", "z", "--heads", "9.1"]),
        (&["--site", "Hook_Z", "--heads", "a9.h1"], &["--site", "z", "--heads", "9.1"]),
    ] {
        assert_eq!(grids(from_end), grids(from_start), "{from_end:?}");
    }
    let text = "Michelle Jones was";
    let answers = ["lens", text, "--answers", " Jones", " Smith", "--pos"];
    let at = |pos: &str| json(&[&answers[..], &[pos]].concat())["attribution"].clone();
    assert_eq!(at("-2"), at("1"));
    assert_eq!(at("end"), at("-1"));
    let paths = |pos: &str| json(&["path", "--pos", pos])["grids"][0]["values"].clone();
    assert_eq!(paths("-1"), paths("end"));
    assert_eq!(paths("-2"), paths("9"));
    let ablated = |pos: &str| grids(&["ablate", "--with", "other-position", pos]);
    assert_eq!(ablated("-1")[0]["values"], ablated("10")[0]["values"]);
    let heads = grids(&["attention", text, "--head", "l5H1,A5.H2"]);
    assert_eq!((&heads[0]["name"], &heads[1]["name"]), (&"5.1".into(), &"5.2".into()));
    let pairs = |kind: &str| json(&["compose", "--kind", kind])["pairs"].clone();
    assert_eq!(pairs("K,v"), pairs("k,V"));

    for (args, part) in [
        (
            &["--layers", "-13"][..],
            "--layers: there is no layer -13: from the end, counting runs from -1 to -12",
        ),
        (&["--layers", "-1..-3"], "--layers: -1..-3 is an empty range of the 12 layers"),
        (&["--positions", "-12"], "--positions: there is no position -12"),
        (&["lens", text, "--answers", " a", " b", "--pos", "-9"], "--pos: there is no position -9"),
        (&["path", "--pos", "-12"], "--pos: there is no position -12"),
        (&["ablate", "--with", "other-position", "-12"], "other-position: there is no position -12"),
        (&["--site", "z", "--heads", "9"], "invalid head \"9\": expected LAYER.HEAD"),
    ] {
        folder.tiny(args).failure(2, &[part]);
    }
}

#[test]
fn activations_are_named_as_transformer_lens_users_do() {
    let folder = Folder::new();
    let names = |only: &str| -> Vec<String> {
        let json = folder.tiny(&["activations", "a b", "--only", only, "--json"]).success().json();
        let rows = json["activations"].as_array().unwrap().iter();
        rows.map(|row| row["name"].as_str().unwrap().to_owned()).collect()
    };
    let all: Vec<String> = (0..12).map(|layer| format!("blocks.{layer}.hook_resid_post")).collect();
    for only in ["resid_post", "hook_resid_post", "blocks.*.hook_resid_post", "blocks.*.resid_post"] {
        assert_eq!(names(only), all, "{only}");
    }
    assert_eq!(names("attn.hook_z"), names("z"));
    assert_eq!(names("blocks.3.attn.z"), ["blocks.3.attn.hook_z"]);
    assert_eq!(names("embed"), ["hook_embed"]);
    // A pattern of whole names stays one.
    assert_eq!(names("hook_*"), ["hook_embed", "hook_pos_embed"]);
    let args = ["activations", "a", "--only", "resid"];
    folder.tiny(&args).failure(2, &["no activation is called \"resid\""]);
}

#[test]
fn an_empty_text_behind_end_of_text_is_a_prompt_of_one_token() {
    let folder = Folder::new();
    let json = folder.tiny(&["predict", "", "--bos", "--json"]).success().json();
    assert_eq!(json["ids"], serde_json::json!([50256]));
    folder.tiny(&["predict", ""]).failure(2, &["empty"]);
}
