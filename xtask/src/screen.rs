//! What is printed, with everything made visible that a terminal would obey: paths and what servers say
//! are foreign.

use std::io::{self, Write as _};

use visible::visible_line;

/// Prints a line on stdout. Whether anybody reads it changes nothing.
pub fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{}", visible_line(line));
}

/// Prints a line on stderr, likewise.
pub fn warn(line: &str) {
    let _ = writeln!(io::stderr(), "{}", visible_line(line));
}
