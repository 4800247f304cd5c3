//! `patch-cli circuit`: scores, circuits and verdicts from outside. (The numbers themselves are held to PyTorch and to
//! hooked passes in `crates/patching`.)

use std::fs;

use serde_json::Value;

use crate::util::{Folder, named, numbers};

/// The names of the edges of a circuit.
fn edges(report: &Value) -> Vec<&str> {
    report["circuit"].as_array().unwrap().iter().map(|edge| edge["edge"].as_str().unwrap()).collect()
}

#[test]
fn scores_are_a_matrix_of_writers_and_readers() {
    let folder = Folder::new();
    let report = folder.tiny(&["circuit", "--method", "eap", "--edges", "5", "--json"]).success().json();
    assert_eq!(report["n_edges"], 4555);
    let grid = named(&report["grids"], "scores");
    let axis = |i: usize| {
        grid["axes"][i]["labels"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| it.as_str().unwrap())
            .collect::<Vec<_>>()
    };
    let (writers, readers) = (axis(0), axis(1));
    assert_eq!((writers.len(), readers.len(), writers[0], readers[156]), (61, 157, "input", "logits"));
    let values = numbers(&grid["values"]);
    assert_eq!(grid["values"].as_array().unwrap().iter().filter(|value| value.is_number()).count(), 4555);
    for edge in report["circuit"].as_array().unwrap() {
        let (writer, reader) = edge["edge"].as_str().unwrap().split_once("->").unwrap();
        let place = |names: &[&str], name: &str| names.iter().position(|other| *other == name).unwrap();
        let value = values[place(&writers, writer) * readers.len() + place(&readers, reader)];
        assert!((edge["score"].as_f64().unwrap() - f64::from(value)).abs() < 1e-6);
        // Cut in the corrupted run, the answer's edges move the metric towards the clean one's.
        assert!(value < 0.0, "{edge}");
    }
    assert!(report["base_metric"].as_f64() > report["source_metric"].as_f64());
    assert_eq!(folder.files(), ["circuit.png"]);
}

#[test]
fn a_circuit_is_read_as_it_was_written() {
    let folder = Folder::new();
    let common = ["circuit", "--direction", "noising", "--json"];
    let files = ["--graph", "c.json", "--dot", "c.dot", "--html", "c.html"];
    let args = [&common[..], &["--edges", "60", "--absolute"], &files].concat();
    let written = folder.tiny(&args).success().json();
    let read = folder.tiny(&[&common[..], &["--from", "c.json", "--out", "d.svg"]].concat()).success().json();
    assert_eq!(edges(&written), edges(&read));
    assert_eq!(written["verdict"], read["verdict"]);
    let file: Value = serde_json::from_str(&fs::read_to_string(folder.file("c.json")).unwrap()).unwrap();
    assert_eq!((&file["cfg"]["n_layers"], &file["cfg"]["d_model"]), (&12.into(), &64.into()));
    assert_eq!(file["edges"].as_object().unwrap().len(), 4555);
    let first = edges(&written)[0];
    assert_eq!(file["edges"][first]["in_graph"], true);
    let dot = fs::read_to_string(folder.file("c.dot")).unwrap();
    assert!(dot.starts_with("digraph") && dot.matches(" -> ").count() == edges(&written).len(), "{dot}");
    let page = fs::read_to_string(folder.file("c.html")).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.contains("a7.h1"), "{page}");
    let svg = fs::read_to_string(folder.file("d.svg")).unwrap();
    assert!(svg.contains("a7.h1"), "{svg}");
    let words =
        folder.tiny(&["circuit", "--from", "c.json", "--dot", "f.dot", "--out", "f.png"]).success().stdout;
    assert!(words.contains("denoising; cut edges carry what the source run writes"), "{words}");
    assert!(words.contains("the complement of the circuit"), "{words}");
    assert!(words.contains("wrote f.png") && words.contains("wrote f.dot"), "{words}");
    // Another choice from the same scores.
    let fewer = [&common[..], &["--from", "c.json", "--edges", "10", "--greedy", "--out", "e.png"]].concat();
    assert!(edges(&folder.tiny(&fewer).success().json()).len() <= 10);
}

#[test]
fn approximate_scores_are_compared_with_exact_ones() {
    let folder = Folder::new();
    let args = ["circuit", "--exact", "--direction", "noising", "--json", "--safetensors", "e.safetensors"];
    let report = folder.tiny(&args).success().json();
    assert!(report["pearson"].as_f64().unwrap() > 0.97, "{}", report["pearson"]);
    assert!(report["kendall"].as_f64().unwrap() > 0.2 && report["spearman"].as_f64().unwrap() > 0.3);
    let exact = ["circuit", "--method", "exact", "--direction", "noising", "--json", "--out", "x.png"];
    let exact = folder.tiny(&exact).success().json();
    let of = |report: &Value, name: &str| numbers(&named(&report["grids"], name)["values"]);
    let same = of(&report, "exact").into_iter().zip(of(&exact, "scores"));
    assert!(same.into_iter().all(|(x, y)| x == y || x.is_nan() && y.is_nan()));
    assert_eq!(folder.files(), ["circuit-scatter.png", "circuit.png", "e.safetensors", "x.png"]);
}

#[test]
fn acdc_decides_alike_with_one_test_at_a_time() {
    let folder = Folder::new();
    let args = [
        "circuit",
        "--method",
        "acdc",
        "--threshold",
        "0.5",
        "--metric",
        "kl",
        "--direction",
        "noising",
        "--json",
    ];
    let chains = folder.tiny(&args).success().json();
    let one = folder.tiny(&[&args[..], &["--engine", "plain"]].concat()).success().json();
    assert_eq!(edges(&chains), edges(&one));
    assert_eq!(chains["tests"], one["tests"]);
    assert!(one["runs"] == one["tests"] && chains["runs"].as_u64() >= chains["tests"].as_u64());
    let kept = edges(&chains).len();
    assert!((5..300).contains(&kept), "{kept}");
    let early = folder.tiny(&[&args[..], &["--order", "early-first"]].concat()).success().json();
    assert_ne!(edges(&chains), edges(&early));
}

#[test]
fn a_circuit_of_many_pairs_is_judged() {
    let folder = Folder::new();
    let args = [
        "circuit",
        "--prompt-set",
        "ioi",
        "--count",
        "4",
        "--direction",
        "noising",
        "--judge",
        "--edges",
        "200",
        "--json",
    ];
    let report = folder.tiny(&args).success().json();
    let verdict = &report["verdict"];
    assert_eq!(verdict["pairs"].as_array().unwrap().len(), 4);
    let faithfulness = verdict["faithfulness"].as_f64().unwrap();
    assert!((0.3..1.5).contains(&faithfulness), "{faithfulness}");
    let curve = verdict["curve"].as_array().unwrap();
    assert_eq!((curve.len(), &curve[9][1]), (10, &4555.0.into()));
    assert!((curve[9][2].as_f64().unwrap() - 1.0).abs() < 1e-4);
    assert_eq!(verdict["completeness"].as_array().unwrap().len(), 10);
    assert!(!verdict["minimality"].as_array().unwrap().is_empty());
    let jaccard = report["jaccard"].as_f64().unwrap();
    assert!((0.2..=1.0).contains(&jaccard), "{jaccard}");
    assert!(report["circuit"][0]["stability"].as_f64().is_some());
    for key in ["granularity", "components", "ablation", "positions", "direction", "cut"] {
        assert!(report["choices"][key].is_string(), "{key}");
    }
}

#[test]
fn a_ranking_is_compared_with_what_is_known() {
    let folder = Folder::new();
    fs::write(folder.file("heads.txt"), "7.1 8.3 # they copy the name\n").unwrap();
    let args = ["circuit", "--direction", "noising", "--known", "heads.txt", "--json"];
    let report = folder.tiny(&args).success().json();
    assert!(report["auc"].as_f64().unwrap() > 0.85, "{}", report["auc"]);
    assert_eq!(report["roc"][0], serde_json::json!([0.0, 0.0]));
    // The heads of the papers are those of another model.
    folder.tiny(&["circuit", "--known", "ioi"]).failure(2, &["12 layers with 4 heads", "no head"]);
}

#[test]
fn what_cannot_be_asked_of_a_circuit_is_refused() {
    let folder = Folder::new();
    fs::write(folder.file("no.json"), "[]").unwrap();
    for (args, parts) in [
        (&["--method", "acdc"][..], &["--threshold"][..]),
        (&["--method", "acdc", "--threshold", "1", "--edges", "4"], &["--edges", "--threshold"]),
        (&["--method", "eap", "--steps", "3"], &["--steps", "eap"]),
        (&["--order", "early-first"], &["--order", "acdc"]),
        (&["--metric", "rank", "--token", " Jones"], &["no gradient"]),
        (&["--ablation", "zero"], &["eap"]),
        (&["--as", "normalized"], &["changes of the metric"]),
        (&["--from", "no.json"], &["no.json", "EAP-IG"]),
        (&["--from", "none.json"], &["none.json"]),
        (&["--method", "epa"], &["eap"]),
        (&["--edges", "5", "--threshold", "1"], &["--threshold"]),
    ] {
        folder.tiny(&[&["circuit"], args].concat()).failure(2, parts);
    }
    folder.tiny(&["circuit", "--html", "page.png"]).failure(2, &["--html page.png", ".html"]);
    assert_eq!(folder.files(), ["no.json"]);
}
