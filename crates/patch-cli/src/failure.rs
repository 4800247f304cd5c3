//! How a run ends when it cannot go on.

use std::io;
use std::process::ExitCode;

use gpt2::visible::visible_line;

/// Why the program stops.
#[derive(Debug)]
pub enum Failure {
    /// What the user gave cannot be used: arguments, prompts, model files. Exit code 2.
    Input(String),
    /// Anything else, such as a full disk. Exit code 1.
    Other(String),
    /// A signal.
    Stopped {
        /// What has become of the work.
        message: String,
        /// 128 and the number of the signal.
        code: u8,
    },
    /// Nobody reads our output any more (`patch-cli | head`): that is no error.
    NobodyListens,
}

impl Failure {
    /// The same, with the place of what the user gave in front.
    pub fn at(self, place: &str) -> Self {
        match self {
            Self::Input(reason) => Self::Input(format!("{place}: {reason}")),
            other => other,
        }
    }

    /// Says what is wrong on stderr, and gives the exit code.
    pub fn report(self) -> ExitCode {
        let (message, code) = match self {
            Self::Input(message) => (message, 2),
            Self::Other(message) => (message, 1),
            Self::Stopped { message, code } => {
                anstream::eprintln!("{}", readable(&message));
                return ExitCode::from(code);
            }
            Self::NobodyListens => return ExitCode::SUCCESS,
        };
        let style = anstyle::Style::new().bold().fg_color(Some(anstyle::AnsiColor::Red.into()));
        anstream::eprintln!("{style}error:{style:#} {}", readable(&message));
        ExitCode::from(code)
    }
}

/// A message repeats what the user gave, which may be anything: what a terminal would obey or not show
/// is escaped, and of a line that is longer than anybody reads the middle is left out.
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
    message.lines().map(line).collect::<Vec<_>>().join("\n")
}

impl From<gpt2::Error> for Failure {
    fn from(error: gpt2::Error) -> Self {
        Self::Input(error.to_string())
    }
}

impl From<grids::Error> for Failure {
    fn from(error: grids::Error) -> Self {
        match error {
            grids::Error::Unwritable { .. } => Self::Other(error.to_string()),
            _ => Self::Input(error.to_string()),
        }
    }
}

impl From<lens::Error> for Failure {
    fn from(error: lens::Error) -> Self {
        Self::Input(error.to_string())
    }
}

impl From<patching::Error> for Failure {
    fn from(error: patching::Error) -> Self {
        Self::Input(error.to_string())
    }
}

impl From<patching::path::Error> for Failure {
    fn from(error: patching::path::Error) -> Self {
        Self::Input(error.to_string())
    }
}

impl From<patching::prompts::Error> for Failure {
    fn from(error: patching::prompts::Error) -> Self {
        Self::Input(error.to_string())
    }
}

impl From<io::Error> for Failure {
    /// An error of writing to stdout: all other files' errors are reported with their path.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::NobodyListens,
            _ => Self::Other(format!("cannot write the output: {error}")),
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        io::Error::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_shows_what_cannot_be_seen_and_leaves_out_the_middle_of_what_is_too_long() {
        assert_eq!(readable("a\u{1b}[31m\nb\tc"), "a\\x1b[31m\nb\\tc");
        let long = readable(&format!("start {} end", "é".repeat(100_000)));
        assert!(long.starts_with("start é") && long.ends_with("é end"));
        assert!(long.contains(" […98210 characters…] "), "{long}");
        assert!(long.chars().count() < 2000);
    }
}
