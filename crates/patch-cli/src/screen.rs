//! The one door to the terminal: everything that is printed passes it.
//!
//! Names of folders, tensors and grids, paths, prompts and arguments are foreign, and a terminal obeys what
//! stands in them. So text has every character made visible that a terminal would obey or not show
//! ([`visible`]), whether stdout is a terminal or not. Only figures are written as they are: their
//! colours are escape sequences of ours, and their labels have been made visible before.

use std::io::{self, StderrLock, Stdout, StdoutLock, Write};
use std::path::Path;
use std::process::ExitCode;

use anstream::AutoStream;
use serde::Serialize;
use visible::{is_harmless, visible_line, visible_path, visible_text};

use terminal_size::Width;

use crate::failure::Failure;
use figures::{TerminalColor, TerminalStyle};

/// Stdout for text.
pub struct Screen {
    out: AutoStream<StdoutLock<'static>>,
    /// The beginning of a character whose other bytes have not come yet.
    begun: Vec<u8>,
}

/// Stdout, locked.
pub fn stdout() -> Screen {
    Screen { out: AutoStream::auto(raw_stdout()).lock(), begun: Vec::new() }
}

#[allow(clippy::disallowed_methods, reason = "this is the door")]
fn raw_stdout() -> Stdout {
    io::stdout()
}

/// Stderr, locked.
fn stderr() -> AutoStream<StderrLock<'static>> {
    #[allow(clippy::disallowed_methods, reason = "this is the door")]
    AutoStream::auto(io::stderr()).lock()
}

impl Screen {
    /// For what holds escape sequences of ours, and nothing foreign that has not been made visible.
    pub fn as_it_is(&mut self) -> &mut impl Write {
        &mut self.out
    }

    /// Whether it is a terminal.
    pub fn is_terminal(&self) -> bool {
        self.out.is_terminal()
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.begun.extend_from_slice(bytes);
        let (text, rest) = match std::str::from_utf8(&self.begun) {
            Ok(text) => (text.to_owned(), Vec::new()),
            Err(error) => match error.error_len() {
                Some(_) => (String::from_utf8_lossy(&self.begun).into_owned(), Vec::new()),
                None => {
                    let (whole, rest) = self.begun.split_at(error.valid_up_to());
                    (String::from_utf8_lossy(whole).into_owned(), rest.to_vec())
                }
            },
        };
        self.begun = rest;
        self.out.write_all(visible_text(&text).as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Says something that a user should know on stderr. If that is full or closed, the run continues.
pub fn note(text: &str) {
    let _ = writeln!(stderr(), "note: {}", visible_text(text));
}

/// Says what a user should know of a file that was read.
pub fn notes(texts: &[String]) {
    texts.iter().for_each(|text| note(text));
}

/// Says which files were written.
pub fn write_files<'a>(out: &mut impl Write, files: impl IntoIterator<Item = &'a Path>) -> io::Result<()> {
    files.into_iter().try_for_each(|file| writeln!(out, "wrote {}", visible_path(file)))
}

/// Warns of something on stderr, likewise.
pub fn warn(text: &str) {
    let _ = writeln!(stderr(), "warning: {}", visible_text(text));
}

/// Says why a run ends on stderr; `label` is printed in bold red in front.
pub fn complain(label: &str, message: &str) {
    let style = anstyle::Style::new().bold().fg_color(Some(anstyle::AnsiColor::Red.into()));
    let label = if label.is_empty() { String::new() } else { format!("{style}{label}{style:#} ") };
    // If stderr is full or closed, the exit code says it.
    let _ = writeln!(stderr(), "{label}{}", readable(message));
}

/// A message repeats what the user gave, which may be anything: what a terminal would obey or not show
/// is escaped, and of a line that is longer than anybody reads the middle is left out. Lines after the first
/// are indented, so that none can pass for a message of its own.
fn readable(message: &str) -> String {
    const LONGEST: usize = 2000;
    const FIRST: usize = 1500;
    const LAST: usize = 300;
    let line = |line: &str| {
        let line = visible_line(line);
        let length = line.chars().count();
        if length <= LONGEST {
            return line;
        }
        let first: String = line.chars().take(FIRST).collect();
        let last: String = line.chars().skip(length - LAST).collect();
        format!("{first} […{} characters…] {last}", length - FIRST - LAST)
    };
    message.lines().map(line).collect::<Vec<_>>().join("\n  ")
}

/// Prints a value as one line of JSON. What a terminal would obey is written as `\u…`, which any reader of the JSON
/// reads as the same text.
pub fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let json = visible_json(&serde_json::to_string(value)?);
    let mut out = stdout();
    writeln!(out.as_it_is(), "{json}")?;
    out.as_it_is().flush()?;
    Ok(())
}

/// JSON with every character visible. Outside of strings, JSON has only visible ones.
fn visible_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for character in json.chars() {
        if is_harmless(character) {
            shown.push(character);
        } else {
            let mut units = [0; 2];
            let units = character.encode_utf16(&mut units).iter();
            shown.extend(units.map(|unit| format!("\\u{unit:04x}")));
        }
    }
    shown
}

/// What clap has to say: help and the version on stdout, a mistake on stderr.
pub fn clap_says(error: &clap::Error) -> ExitCode {
    if error.use_stderr() {
        // It repeats the arguments, so it is printed without colours.
        let message = error.render().to_string();
        let message = message.strip_prefix("error: ").unwrap_or(&message);
        let style = anstyle::Style::new().bold().fg_color(Some(anstyle::AnsiColor::Red.into()));
        let _ = write!(stderr(), "{style}error:{style:#} {}", visible_text(message));
        return ExitCode::from(2);
    }
    let help = write!(stdout().as_it_is(), "{}", error.render().ansi());
    match help.and_then(|()| stdout().flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => Failure::from(error).report(),
    }
}

/// What stdout can show.
pub fn terminal_style() -> TerminalStyle {
    let colored = AutoStream::choice(&raw_stdout()) != anstream::ColorChoice::Never;
    let truecolor = std::env::var("COLORTERM").is_ok_and(|v| v == "truecolor" || v == "24bit");
    let color = match (colored, truecolor) {
        (false, _) => TerminalColor::None,
        (true, true) => TerminalColor::Truecolor,
        (true, false) => TerminalColor::Ansi256,
    };
    TerminalStyle { color, width: terminal_width() }
}

/// The columns of the terminal, or 80 where stdout is none.
pub fn terminal_width() -> usize {
    terminal_size::terminal_size_of(raw_stdout()).map_or(80, |(Width(width), _)| width.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_shows_what_cannot_be_seen_and_leaves_out_the_middle_of_what_is_too_long() {
        assert_eq!(readable("a\u{1b}[31m\nb\tc"), "a\\x1b[31m\n  b\\tc");
        let long = readable(&format!("start {} end", "é".repeat(100_000)));
        assert!(long.starts_with("start é") && long.ends_with("é end"));
        assert!(long.contains(" […98210 characters…] "), "{long}");
        assert!(long.chars().count() < 2000);
    }

    #[test]
    fn json_is_the_same_value_with_everything_visible() {
        let texts = ["a b\n\"\\\u{1b}]0;x\u{7}", "\u{9b}31m\u{202e}\u{200b}", "日本 é 😀 \u{e0041}", ""];
        let json = visible_json(&serde_json::to_string(&texts).unwrap());
        assert!(json.chars().all(is_harmless), "{json}");
        assert!(json.contains("日本 é 😀 \\udb40\\udc41"), "{json}");
        assert_eq!(serde_json::from_str::<Vec<String>>(&json).unwrap(), texts);
    }
}
