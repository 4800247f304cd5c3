//! `cargo xtask train-tiny`: what it writes, interruptions, the refusals.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::{PATIENCE, fail, names_in, succeed, told, xtask};

fn train(folder: &Path) -> Command {
    let mut command = xtask();
    command.args(["train-tiny", "--out"]).arg(folder);
    command
}

const FILES: [&str; 5] = [".lock", "config.json", "known_tokens.json", "loss.png", "model.safetensors"];

#[test]
fn an_interrupted_training_ends_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, parts] = ["whole", "parts"].map(|name| folder.path().join(name));
    let steps = ["--steps", "9", "--seed", "3"];
    let words = succeed(train(&whole).args(steps));
    for word in ["the model is in", "this model", "the shipped one", "Turing", "0.968", "best induction head"]
    {
        assert!(words.contains(word), "{word:?} is not in: {words}");
    }
    assert_eq!(names_in(&whole), FILES);

    // The state is written before the first step.
    let state = parts.join("training.safetensors");
    let mut child = train(&parts).args(steps).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    while !state.exists() {
        assert!(began.elapsed() < PATIENCE, "no state is written");
    }
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success() && child.wait().is_ok());
    let output = child.wait_with_output().unwrap();
    let words = told(&output);
    assert_eq!(output.status.code(), Some(130), "{words}");
    assert!(words.contains("of 9 steps: continue with --resume"), "{words}");
    assert_eq!(names_in(&parts), [".lock", "training.safetensors"]);
    fail(train(&parts).args(steps), 2, &["a training was interrupted", "--resume", "--out"]);

    // On one thread instead of two.
    succeed(train(&parts).arg("--resume").env("RAYON_NUM_THREADS", "1"));
    assert_eq!(names_in(&parts), FILES);
    for name in &FILES[1..] {
        let [whole, parts] = [&whole, &parts].map(|folder| fs::read(folder.join(name)).unwrap());
        assert!(whole == parts, "{name} differs");
    }
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../weights/tiny/known_tokens.json");
    let known = [shipped, whole.join("known_tokens.json")].map(|path| fs::read_to_string(path).unwrap());
    let [shipped, known] = known.map(|known| serde_json::from_str::<Vec<u32>>(&known).unwrap());
    assert_eq!(known, shipped);

    fail(train(&whole).args(steps), 2, &["there is a model in", "replaces none", "--out"]);
    let words = succeed(train(&whole).arg("--scores"));
    assert!(words.contains("this model") && words.contains("0.968"), "{words}");
}

#[test]
fn what_cannot_be_trained_is_refused_with_a_hint() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    fail(train(folder).args(["--steps", "0"]), 2, &["give at least 1 step"]);
    fail(train(folder).args(["--resume", "--seed", "1"]), 2, &["--resume", "--seed"]);
    fail(train(folder).arg("--resume"), 2, &["no training.safetensors", "leave out --resume"]);
    fail(train(folder).arg("--scores"), 2, &["model.safetensors"]);
    fs::write(folder.join("training.safetensors"), "{}").unwrap();
    fail(train(folder).arg("--resume"), 2, &["training.safetensors is not the state of a training"]);
    assert_eq!(fs::read_to_string(folder.join("training.safetensors")).unwrap(), "{}");
}
