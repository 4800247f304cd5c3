//! The progress of a long piece of work: a bar on a terminal, plain lines elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::disk::bytes;
use crate::screen;

/// The pause between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The progress of one file or one training, shown on stderr.
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
        Self::with_template(template, name, total, done)
    }

    /// Begins with `done` steps of `total` done already.
    pub fn of_steps(name: &str, total: u64, done: u64) -> Self {
        Self::with_template(
            "{msg} [{bar:30}] {pos} of {len} steps ({per_sec}, {eta} left)",
            name,
            total,
            done,
        )
    }

    fn with_template(template: &str, name: &str, total: u64, done: u64) -> Self {
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
        if self.is_line_due() {
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

    /// Counts a step, after which `state` is worth knowing.
    pub fn add_step(&mut self, state: &str) {
        self.bar.inc(1);
        self.bar.set_message(format!("{}, {state}", self.name));
        if self.is_line_due() {
            screen::warn(&format!(
                "{}: {} of {} steps, {state} ({:.1} steps/s, {} s left)",
                self.name,
                self.bar.position(),
                self.bar.length().unwrap_or_default(),
                self.bar.per_sec(),
                self.bar.eta().as_secs()
            ));
        }
    }

    /// Whether plain lines are shown, and it is time for one.
    fn is_line_due(&mut self) -> bool {
        let is_due = self.last_line.elapsed() >= LINE_EVERY && self.bar.is_hidden();
        if is_due {
            self.last_line = Instant::now();
        }
        is_due
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
