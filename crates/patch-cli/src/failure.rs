//! How a run ends when it cannot go on.

use std::io;
use std::process::ExitCode;

use crate::screen;

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
    /// Nobody reads our output any more (`patch-cli | head`), which is not an error.
    BrokenPipe,
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
        let (label, message, code) = match self {
            Self::Input(message) => ("error:", message, 2),
            Self::Other(message) => ("error:", message, 1),
            Self::Stopped { message, code } => ("", message, code),
            Self::BrokenPipe => return ExitCode::SUCCESS,
        };
        screen::complain(label, &message);
        ExitCode::from(code)
    }
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

impl From<figures::Undrawable> for Failure {
    fn from(error: figures::Undrawable) -> Self {
        Self::Input(error.to_string())
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
            io::ErrorKind::BrokenPipe => Self::BrokenPipe,
            _ => Self::Other(format!("cannot write the output: {error}")),
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        io::Error::from(error).into()
    }
}
