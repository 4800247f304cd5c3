//! How far a long piece of work is: a bar on a terminal, plain lines elsewhere.

use std::io::{IsTerminal as _, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::disk::bytes;
use crate::screen;

/// The pause between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The progress of one file, told on stderr.
#[derive(Debug)]
pub struct Progress {
    bar: Option<ProgressBar>,
    name: String,
    total: u64,
    start: u64,
    done: u64,
    began: Instant,
    told: Instant,
}

impl Progress {
    /// Begins to tell of `name`, of which `done` bytes out of `total` are there already.
    pub fn begin(name: &str, total: u64, done: u64) -> Self {
        let bar = stderr().is_terminal().then(|| terminal_bar(name, total));
        if let Some(bar) = &bar {
            bar.set_position(done);
            bar.reset_eta();
        }
        let now = Instant::now();
        Self { bar, name: name.to_owned(), total, start: done, done, began: now, told: now }
    }

    /// Counts more bytes.
    pub fn add(&mut self, count: u64) {
        self.done += count;
        match &self.bar {
            Some(bar) => bar.set_position(self.done),
            None if self.told.elapsed() >= LINE_EVERY => self.tell_line(),
            None => {}
        }
    }

    fn tell_line(&mut self) {
        self.told = Instant::now();
        let seconds = self.began.elapsed().as_secs_f64();
        let speed = (self.done - self.start) as f64 / seconds.max(1e-3);
        let left = self.total.saturating_sub(self.done) as f64 / speed.max(1.0);
        screen::warn(&format!(
            "{}: {} of {} ({}/s, {left:.0} s left)",
            self.name,
            bytes(self.done),
            bytes(self.total),
            bytes(speed as u64),
        ));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn terminal_bar(name: &str, total: u64) -> ProgressBar {
    let template = "{msg} [{bar:30}] {decimal_bytes} of {decimal_total_bytes} \
                    ({decimal_bytes_per_sec}, {eta} left)";
    let style = ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ");
    ProgressBar::new(total).with_style(style).with_message(name.to_owned())
}
