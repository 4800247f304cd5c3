//! Runs that are ended by a signal, and the files that they leave.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::util::{Folder, Run, numbers};

/// Many pairs, each of which takes a moment.
const SET: [&str; 8] = ["--prompt-set", "ioi", "--count", "4000", "--site", "z", "--resamples", "1"];

/// Starts a run with the tiny model, and sends it a signal after a while: one for which it was
/// too early (the run did not handle signals yet) has no exit code, and the next one waits longer.
fn stopped(folder: &Folder, signal: &str, command: impl Fn() -> Command) -> Run {
    let stopped_after = |milliseconds: u64| {
        let mut child = command().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        let kill = Command::new("kill").args([&format!("-{signal}"), &child.id().to_string()]).status();
        assert!(kill.unwrap().success(), "the run ended before the signal");
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        Run { code: child.wait().unwrap().code(), stdout: String::new(), stderr }
    };
    let has_listened = |run: &Run| {
        // A run that did not handle the signal ended at once, and left nothing.
        assert!(run.code.is_some() || folder.files().is_empty(), "{:?}", folder.files());
        run.code.is_some()
    };
    [300, 600, 1200, 2400, 4800, 9600].into_iter().map(stopped_after).find(has_listened).unwrap()
}

fn sweep(folder: &Folder, args: &[&str]) -> Command {
    let mut command = folder.command();
    command.args(args).args(["--model", "tiny"]);
    command
}

/// The numbers of "stopped after 12 of 480 cells".
fn cells(run: &Run) -> [usize; 2] {
    let words: Vec<&str> = run.stderr.split_whitespace().collect();
    let after = words.iter().position(|word| *word == "after").unwrap_or_else(|| panic!("{}", run.stderr));
    [words[after + 1], words[after + 3]].map(|number| number.parse().unwrap())
}

#[test]
fn a_signal_ends_a_sweep_over_many_pairs_with_what_it_has() {
    for (signal, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let folder = Folder::new();
        let args = [&SET[..], &["--safetensors", "part.safetensors"]].concat();
        let run = stopped(&folder, signal, || sweep(&folder, &args));
        assert_eq!(run.code, Some(code), "{}", run.stderr);
        let [reached, all] = cells(&run);
        assert!(reached < all && all == 4000 * 48, "{}", run.stderr);
        assert!(run.stderr.contains("--resume part.safetensors"), "{}", run.stderr);
        assert_eq!(folder.files(), ["part.safetensors"]);
    }
}

#[test]
fn a_stopped_run_is_finished_bit_for_bit() {
    let folder = Folder::new();
    // The plain engine over both positions of every pattern takes long.
    let args = ["--site", "pattern", "--by-dest-src", "--engine", "plain"];
    let with = |more: &[&'static str]| [&args[..], more].concat();
    let run = stopped(&folder, "TERM", || sweep(&folder, &with(&["--npy", "part.npy"])));
    assert_eq!(run.code, Some(143), "{}", run.stderr);
    let [reached, all] = cells(&run);
    assert!(reached < all, "{}", run.stderr);
    assert_eq!(folder.files(), ["part.npy", "part.npy.json"]);
    let other = ["--site", "pattern", "--by-dest-src", "--resume", "part.npy"];
    folder.tiny(&other).failure(2, &["engine: plain there, incremental here"]);
    let rest = folder.tiny(&with(&["--resume", "part.npy", "--npy", "part.npy", "--json"])).success().json();
    assert_eq!(rest["complete"], true);
    let whole = folder.tiny(&with(&["--json"])).success().json();
    assert_eq!(numbers(&rest["grids"][0]["values"]), numbers(&whole["grids"][0]["values"]));
}

#[test]
fn ablations_and_paths_that_are_stopped_write_nothing() {
    let ablate = ["ablate", "--site", "pattern", "--by-dest-src", "--engine", "plain"];
    let others = ["ablate", "--with", "mean", "--others", "ioi", "--count", "20000"];
    let path = ["path", "--prompt-set", "ioi", "--count", "2000", "--to", "q", "--receivers", "11.0"];
    for args in [&ablate[..], &others, &path] {
        let folder = Folder::new();
        let args = [args, &["--safetensors", "a.safetensors", "--out", "a.png"]].concat();
        let run = stopped(&folder, "TERM", || sweep(&folder, &args));
        assert_eq!(run.code, Some(143), "{}", run.stderr);
        assert!(run.stderr.contains("stopped: nothing was written"), "{}", run.stderr);
        assert!(folder.files().is_empty(), "{:?}", folder.files());
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_run_that_was_told_to_ignore_hangups_does() {
    let folder = Folder::new();
    let args = ["--site", "blocks", "--engine", "plain", "--json"];
    let mut command = Command::new("sh");
    command.current_dir(folder.path()).args(["-c", "trap '' HUP; exec \"$@\"", "sh"]);
    command.arg(sweep(&folder, &[]).get_program()).args(args).args(["--model", "tiny"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    for _ in 0..5 {
        std::thread::sleep(Duration::from_millis(100));
        Command::new("kill").args(["-HUP", &child.id().to_string()]).stderr(Stdio::null()).status().unwrap();
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(folder.files(), ["heatmap.png"]);
}

#[test]
fn files_of_a_killed_run_are_in_nobodys_way() {
    let folder = Folder::new();
    // Like the file of a run that was killed while it wrote, under any process id.
    for pid in [1, 4, std::process::id()] {
        std::fs::write(folder.file(&format!("heatmap.png.{pid}-0.part")), "half").unwrap();
    }
    folder.tiny(&["--site", "mlp_out"]).success();
    assert_eq!(folder.files(), ["heatmap.png"]);
}
