//! The output on a real terminal: no foreign control sequence reaches it.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::process::{Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::json;

use crate::util::Folder;

/// Control sequences that set the title, ring, and switch colours and the direction.
const HOSTILE: &str = "\u{1b}]0;PWNED\u{7}\u{1b}[31m\u{9b}32m\u{9d}1;x\u{9c}\u{202e}\u{200b}";

/// What a run prints, stdout and stderr, on a pseudo-terminal.
fn on_a_terminal(mut command: Command) -> String {
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&controller).unwrap();
    unlockpt(&controller).unwrap();
    let name = ptsname(&controller, Vec::new()).unwrap().into_string().unwrap();
    let terminal = || OpenOptions::new().read(true).write(true).open(&name).unwrap();
    command.env("TERM", "xterm-256color");
    command.stdin(Stdio::null()).stdout(terminal()).stderr(terminal());
    let mut child = command.spawn().unwrap();
    drop(command); // and with it our own ends of the terminal
    let mut printed = Vec::new();
    // Linux ends it with an error when the last program has closed the terminal.
    let _ = File::from(controller).read_to_end(&mut printed);
    child.wait().unwrap();
    String::from_utf8(printed).unwrap()
}

/// A text without the colours that are ours.
fn without_colors(text: &str) -> String {
    let mut rest = text;
    let mut plain = String::new();
    while let Some(at) = rest.find("\u{1b}[") {
        plain += &rest[..at];
        let behind = &rest[at + 2..];
        let end = behind.find(|c: char| !c.is_ascii_digit() && c != ';').unwrap_or(behind.len());
        // Colours, and what the progress bar clears its line with.
        if behind[end..].starts_with(['m', 'K']) {
            rest = &behind[end + 1..];
        } else {
            return plain + &rest[at..]; // which the caller will not like
        }
    }
    plain + rest
}

/// Files whose names and contents are hostile.
fn hostile_folder() -> Folder {
    let folder = Folder::new();
    for model in [folder.file(&format!("weights/{HOSTILE}")), folder.file("m")] {
        fs::create_dir_all(&model).unwrap();
        let tiny = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../weights/tiny");
        for name in ["model.safetensors", "config.json"] {
            fs::copy(tiny.join(name), model.join(name)).unwrap();
        }
    }
    let grid = json!({
        "title": HOSTILE,
        "subtitle": [HOSTILE],
        "grids": [{
            "name": HOSTILE, "title": HOSTILE, "value_label": HOSTILE, "legend": [HOSTILE],
            "axes": [{"name": HOSTILE, "labels": [HOSTILE, "b"]}, {"name": "pos", "labels": [HOSTILE]}],
            "values": [1, 2],
        }],
    });
    for name in ["g.json", "h.json"] {
        fs::write(folder.file(name), grid.to_string()).unwrap();
    }
    let pairs = format!("clean,corrupted,{HOSTILE}\nMichelle Jones,Michelle Smith,x\n");
    fs::write(folder.file("pairs.csv"), pairs).unwrap();
    folder
}

#[test]
fn nothing_foreign_reaches_a_terminal_as_it_is() {
    let folder = hostile_folder();
    let png = format!("{HOSTILE}.png");
    let csv = format!("{HOSTILE}.csv");
    let weights = format!("weights/{HOSTILE}");
    let text = format!("Michelle{HOSTILE} Jones");
    for args in [
        &["models"][..],
        &["models", "--json"],
        &["predict", "--model", &weights, "Michelle"],
        &["predict", "--model", "tiny", &text, "--json"],
        &["predict", "--model", "tiny", &text],
        &["generate", "--model", "tiny", &text, "--max-new-tokens", "3"],
        &["tokens", &text],
        &["tokens", &text, "--json"],
        &["verify", "--model", &weights],
        &["diff", "g.json", "h.json"],
        &["diff", "g.json", "h.json", "--json"],
        &["plot", "g.json", "--out", &png],
        &["plot", "g.json", "--grid", HOSTILE],
        &["--model", "tiny", "--site", "z", "--out", &png, "--csv", &csv],
        &["--model", "tiny", "--title", HOSTILE, "--site", "z"],
        &["--model", "tiny", "--prompts", "pairs.csv", "--logit-diff", " Smith", " Jones"],
        &["--model", HOSTILE],
        &["--model", "tiny", "--layers", HOSTILE],
        &["--model", "tiny", "--site", HOSTILE],
        &["--model", "tiny", "--resume", HOSTILE],
        &["activations", "--model", "tiny", "a", "--save", &format!("{HOSTILE}.npy"), "--only", "z"],
        &[
            "activations",
            "--model",
            "tiny",
            "a",
            "--save",
            &format!("{HOSTILE}.npy"),
            "--only",
            "blocks.3.attn.hook_z",
        ],
        &[&format!("--{HOSTILE}")],
        &[HOSTILE],
        &["predict", "a", &format!("-{HOSTILE}")],
    ] {
        let mut command = folder.command();
        command.args(args);
        let printed = on_a_terminal(command);
        assert!(!printed.is_empty(), "{args:?}");
        let plain = without_colors(&printed);
        let is_foreign =
            |c: &char| (c.is_control() && !"\r\n\t".contains(*c)) || matches!(c, '\u{202e}' | '\u{200b}');
        let found: Vec<char> = plain.chars().filter(is_foreign).collect();
        assert!(found.is_empty(), "{args:?} prints {found:?} in {plain:?}");
        assert!(!printed.contains("\u{1b}[31mPWNED") && !plain.contains("\u{1b}"), "{printed:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_stderr_loses_no_run_and_a_full_stdout_is_an_error() {
    let folder = Folder::new();
    let full = || OpenOptions::new().write(true).open("/dev/full").unwrap();
    let run = |args: &[&str], stdout: Stdio, stderr: Stdio| {
        let mut command = folder.command();
        command.args(args).stdout(stdout).stderr(stderr).status().unwrap().code()
    };
    let quiet = || Stdio::null();
    assert_eq!(run(&["--layers", "99", "--model", "tiny"], quiet(), full().into()), Some(2));
    assert_eq!(run(&["--no-such-flag"], quiet(), full().into()), Some(2));
    // A warning (of words that the model does not know) does not stop a run.
    let warned = [
        "--model",
        "tiny",
        "--clean",
        "x y",
        "--corrupted",
        "x z",
        "--logit-diff",
        " a",
        " b",
        "--out",
        "a.png",
    ];
    assert_eq!(run(&warned, quiet(), full().into()), Some(0));
    assert_eq!(folder.files(), ["a.png"]);
    for args in
        [&["--help"][..], &["sweep", "--help"], &["--version"], &["tokens", "a"], &["tokens", "a", "--json"]]
    {
        assert_eq!(run(args, full().into(), Stdio::null()), Some(1), "{args:?}");
    }
}
