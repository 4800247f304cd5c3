//! `patch-cli attribute`: predictions beside the sweep that they predict. (The numbers themselves are held to PyTorch
//! in `crates/patching`.)

use serde_json::Value;

use crate::util::{Folder, largest_difference, named, numbers};

fn values(report: &Value, name: &str) -> Vec<f32> {
    numbers(&named(&report["grids"], name)["values"])
}

#[test]
fn exact_effects_are_those_of_the_sweep() {
    let folder = Folder::new();
    for site in [&["--site", "resid_post"][..], &["--site", "z", "--by-pos", "--direction", "noising"]] {
        let attribute = [&["attribute", "--exact", "--json"], site].concat();
        let attribute = folder.tiny(&attribute).success().json();
        let sweep = [&["sweep", "--as", "change", "--json"], site].concat();
        let sweep = folder.tiny(&sweep).success().json();
        let exact = values(&attribute, "exact");
        assert!(largest_difference(&exact, &numbers(&sweep["grids"][0]["values"])) < 1e-4);
        let [base, source] = ["base_metric", "source_metric"].map(|key| attribute[key].as_f64().unwrap());
        let [clean, corrupted] = ["clean_metric", "corrupted_metric"].map(|key| sweep[key].as_f64().unwrap());
        let expected =
            if attribute["direction"] == "noising" { (clean, corrupted) } else { (corrupted, clean) };
        assert!((base - expected.0).abs() < 1e-4 && (source - expected.1).abs() < 1e-4);
        // Equal tokens have no difference to attribute.
        let predicted = values(&attribute, "attribution");
        assert_eq!(predicted.len(), exact.len());
        assert!(predicted[0] == 0.0 && exact[0] == 0.0);
        assert!(attribute["pearson"].as_f64().unwrap() > 0.98, "{}", attribute["pearson"]);
        assert!(attribute["spearman"].as_f64().unwrap() > 0.9, "{}", attribute["spearman"]);
    }
    assert_eq!(folder.files(), ["attribution-scatter.png", "attribution.png", "heatmap.png"]);
}

#[test]
fn predictions_are_plotted_against_the_exact_numbers() {
    let folder = Folder::new();
    let args = ["attribute", "--exact", "--site", "mlp_out", "--scatter", "s.svg", "--json"];
    let report = folder.tiny(&args).success().json();
    assert_eq!(report["scatter"], "s.svg");
    let svg = std::fs::read_to_string(folder.file("s.svg")).unwrap();
    for words in
        ["Attribution (atp) of mlp_out", "Pearson 0.9", "layer 11", "exact: change of ", "predicted "]
    {
        assert!(svg.contains(words), "{words}: {svg}");
    }
    // A dot for each cell, and one for each layer in the key.
    assert_eq!(svg.matches("h0").count(), 12 * 11 + 12);
    // Of several sites, a group for each; the cells that were not run have no number.
    let args = ["attribute", "--site", "heads", "--verify-top", "5", "--scatter", "t.svg", "--out", "t.png"];
    let run = folder.tiny(&args).success();
    assert!(run.stdout.contains("t.svg"), "{}", run.stdout);
    let svg = std::fs::read_to_string(folder.file("t.svg")).unwrap();
    assert!(svg.contains(">pattern<") && svg.contains("Left out: "), "{svg}");
    assert_eq!(folder.files(), ["attribution.png", "s.svg", "t.png", "t.svg"]);
    folder.tiny(&["attribute", "--scatter", "u.png"]).failure(2, &["--exact", "--verify-top"]);
    let twice = ["attribute", "--exact", "--scatter", "u.png", "--out", "u.png"];
    folder.tiny(&twice).failure(2, &["two pictures", "u.png"]);
}

#[test]
fn magnitudes_are_held_to_magnitudes() {
    let folder = Folder::new();
    let args = ["attribute", "--site", "z", "--method", "atp-star", "--exact", "--json"];
    let report = folder.tiny(&args).success().json();
    assert!(values(&report, "exact").iter().any(|change| *change < -0.1));
    assert!(report["pearson"].as_f64().unwrap() > 0.9, "{}", report["pearson"]);
}

#[test]
fn each_method_predicts_in_its_own_way() {
    let folder = Folder::new();
    let of_method = |method: &[&str]| {
        let args = [&["attribute", "--site", "q", "--json"], method].concat();
        values(&folder.tiny(&args).success().json(), "attribution")
    };
    let all = [
        of_method(&[]),
        of_method(&["--method", "relp"]),
        of_method(&["--method", "atp-star"]),
        of_method(&["--method", "ig"]),
        of_method(&["--method", "ig", "--steps", "2"]),
    ];
    for (i, a) in all.iter().enumerate() {
        assert!(all[..i].iter().all(|b| largest_difference(a, b) > 1e-3));
    }
    assert!(all[2].iter().all(|effect| *effect >= 0.0), "magnitudes: {:?}", all[2]);
}

#[test]
fn only_the_largest_predictions_are_verified() {
    let folder = Folder::new();
    let args = ["attribute", "--site", "z", "--verify-top", "3", "--csv", "a.csv"];
    let run = folder.tiny(&args).success();
    assert!(run.stdout.contains("over 3 cells"), "{}", run.stdout);
    let report = folder.tiny(&["attribute", "--site", "z", "--verify-top", "3", "--json"]).success().json();
    let exact = named(&report["grids"], "exact")["values"].as_array().unwrap();
    assert_eq!(exact.iter().filter(|value| value.is_number()).count(), 3);
    assert_eq!(folder.files(), ["a.csv", "a.csv.json", "attribution.png"]);
}

#[test]
fn a_set_has_means_intervals_and_magnitudes() {
    let folder = Folder::new();
    let args = ["attribute", "--prompt-set", "ioi", "--count", "3", "--site", "z", "--json"];
    let report = folder.tiny(&args).success().json();
    let (mean, magnitude) = (values(&report, "attribution"), values(&report, "magnitude"));
    assert!(mean.iter().zip(&magnitude).all(|(mean, magnitude)| mean.abs() <= magnitude + 1e-5));
    let [low, high] = ["attribution, low", "attribution, high"].map(|name| values(&report, name));
    assert!(low.iter().zip(&high).all(|(low, high)| low <= high || low.is_nan() || low.is_infinite()));
    assert_eq!(report["pairs"].as_array().unwrap().len(), 3);
}

#[test]
fn what_has_no_gradient_is_refused() {
    let folder = Folder::new();
    let refused = |args: &[&str], parts: &[&str]| {
        folder.tiny(&[&["attribute"], args].concat()).failure(2, parts);
    };
    refused(&["--metric", "rank"], &["a rank has no gradient", "a log probability"]);
    refused(&["--steps", "3"], &["--steps is for --method ig"]);
    refused(&["--method", "atp-star", "--as", "value"], &["magnitude"]);
    refused(&["--method", "lrp"], &["atp", "relp", "atp-star", "ig"]);
    assert!(folder.files().is_empty());
}
