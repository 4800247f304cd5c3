//! The progress of a long piece of work: a bar on a terminal, plain lines elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::disk::bytes;
use crate::screen;

/// The pause between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The progress of one file, shown on stderr.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    name: String,
    last_line: Instant,
}

impl Progress {
    /// Begins with `done` bytes of `total` there already.
    pub fn begin(name: &str, total: u64, done: u64) -> Self {
        let template =
            "{msg} [{bar:30}] {decimal_bytes} of {decimal_total_bytes} ({decimal_bytes_per_sec}, {eta} left)";
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(total)
            .with_style(style.progress_chars("=> "))
            .with_message(name.to_owned())
            .with_position(done);
        bar.reset_eta();
        Self { bar, name: name.to_owned(), last_line: Instant::now() }
    }

    /// Counts more bytes.
    pub fn add(&mut self, count: u64) {
        self.bar.inc(count);
        if self.last_line.elapsed() >= LINE_EVERY && self.bar.is_hidden() {
            self.last_line = Instant::now();
            screen::warn(&format!(
                "{}: {} of {} ({}/s, {} s left)",
                self.name,
                bytes(self.bar.position()),
                bytes(self.bar.length().unwrap_or_default()),
                bytes(self.bar.per_sec() as u64),
                self.bar.eta().as_secs()
            ));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
