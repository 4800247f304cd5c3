//! The one kind of error that a chore ends with: a message for the user and an exit code.

use std::fmt;

/// What the result of every chore is.
pub type Outcome<T = ()> = Result<T, Failure>;

/// Why a chore stopped, in words that say what was wrong and what to do next.
#[derive(Debug)]
pub struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    /// The user asked for something that cannot be done as asked (exit code 2).
    pub fn input(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 2 }
    }

    /// Something went wrong on the way: the network, the disk, the data (exit code 1).
    pub fn run(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 1 }
    }

    /// A signal stopped the work, and what was done is kept (exit code 130, as after Ctrl-C in a shell).
    pub fn interrupted(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 130 }
    }

    /// The exit code of the process.
    pub fn code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}
