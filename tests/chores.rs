//! The chores (`cargo xtask`), run as a user runs them.

#![allow(clippy::unwrap_used)] // A test may stop where it stands.

mod download;
mod hub;
mod synth_weights;
mod train_tiny;

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};

/// No wait in these tests is longer.
const PATIENCE: Duration = Duration::from_secs(10);

/// The program, with an environment that the caller of the tests cannot change.
fn xtask() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
    for name in ["HF_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE"] {
        command.env_remove(name);
    }
    command
}

#[track_caller]
fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", told(&output));
    told(&output)
}

/// Runs a command that must end soon with this code: a pipe would be waited for without end.
#[track_caller]
fn fail(command: &mut Command, code: i32, words: &[&str]) -> String {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let began = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > PATIENCE {
            child.kill().unwrap();
            panic!("it does not end");
        }
        thread::sleep(Duration::from_millis(2));
    }
    let output = child.wait_with_output().unwrap();
    let told = told(&output);
    assert_eq!(output.status.code(), Some(code), "{told}");
    words.iter().for_each(|word| assert!(told.contains(word), "{word:?} is not in: {told}"));
    assert_eq!(told.matches("error: ").count(), 1, "{told}");
    told
}

fn told(output: &Output) -> String {
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    format!("{out}{err}")
}

/// The names of the files in a folder.
fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
