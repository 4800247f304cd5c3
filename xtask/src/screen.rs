//! Printing. Control characters are made visible, because paths and the answers of servers are foreign.

use std::io::{self, Write as _};

use visible::visible_line;

/// Prints a line on stdout; an error is ignored.
pub fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{}", visible_line(line));
}

/// Prints a line on stderr, likewise.
pub fn warn(line: &str) {
    let _ = writeln!(io::stderr(), "{}", visible_line(line));
}
