//! A small harness: runs the binary in a folder of its own.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// An empty folder in which the binary runs.
pub struct Folder(TempDir);

/// What a run of the binary left behind.
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// A command of the binary, with an environment that the tests' caller cannot change.
    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_patch-cli"));
        command.current_dir(self.path());
        for name in [
            "PATCH_WEIGHTS",
            "HF_HUB_CACHE",
            "HF_HOME",
            "XDG_CACHE_HOME",
            "NO_COLOR",
            "CLICOLOR",
            "CLICOLOR_FORCE",
            "COLORTERM",
        ] {
            command.env_remove(name);
        }
        // No weights of the caller's hub cache.
        command.env("HOME", self.path());
        command.env("USERPROFILE", self.path());
        command
    }

    /// Runs the binary to its end.
    pub fn run(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Run {
        let Output { status, stdout, stderr } = self.command().args(args).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Run { code: status.code(), stdout: text(stdout), stderr: text(stderr) }
    }

    /// Runs the binary with the tiny model.
    pub fn tiny(&self, args: &[&str]) -> Run {
        self.run(args.iter().chain(&["--model", "tiny"]))
    }

    /// The files in the folder, by name.
    pub fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Run {
    #[track_caller]
    pub fn success(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.stderr);
        self
    }

    /// Asserts an error with this exit code, whose message has all these parts, and nothing on
    /// stdout.
    #[track_caller]
    pub fn failure(self, code: i32, parts: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        for part in parts {
            assert!(self.stderr.contains(part), "no «{part}» in:\n{}", self.stderr);
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        assert_eq!(self.stdout, "");
        self
    }

    /// Stdout as one JSON value.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {}", self.stdout))
    }
}

/// Numbers of a JSON array.
#[track_caller]
pub fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().map_or(f32::NEG_INFINITY, |x| x as f32)).collect()
}

/// Token ids of a JSON array.
#[track_caller]
pub fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect()
}

/// The values of `tests/golden/NAME.json`.
pub fn golden(name: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../tests/golden/{name}.json"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// The case with this name in `tests/golden/FILE.json`, which is a list of cases.
#[track_caller]
pub fn golden_case(file: &str, name: &str) -> Value {
    named(&golden(file), name).clone()
}

/// The case with this name in a list of cases.
#[track_caller]
pub fn named<'a>(cases: &'a Value, name: &str) -> &'a Value {
    let cases = cases.as_array().unwrap();
    let found = cases.iter().find(|case| case["name"] == name);
    found.unwrap_or_else(|| {
        let names: Vec<&Value> = cases.iter().map(|case| &case["name"]).collect();
        panic!("no case {name:?} among {names:?}")
    })
}

/// The largest difference between two rows of numbers.
#[track_caller]
pub fn largest_difference(got: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(got.len(), expected.len());
    let difference = |(x, y): (&f32, &f32)| if x == y { 0.0 } else { (x - y).abs() };
    got.iter().zip(expected).map(difference).fold(0.0, |a, b| if b > a || b.is_nan() { b } else { a })
}
