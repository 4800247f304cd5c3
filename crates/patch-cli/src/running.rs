//! The arguments that say how sweeps are run, and what happens while they are.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use indicatif::{ProgressBar, ProgressStyle};
use patching::Engine;
use signal_hook::{consts, flag};

use crate::failure::Failure;
use crate::names;

/// Arguments of every subcommand that runs sweeps.
#[derive(Clone, clap::Args)]
pub struct EngineArgs {
    /// Engine: incremental recomputes only what can change; plain runs a whole forward pass for every patch,
    /// for comparison
    #[arg(long, default_value_t, value_parser = names::engines())]
    pub engine: Engine,

    /// Memory that the incremental engine may use beyond the weights
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = parse_size)]
    pub memory: usize,
}

impl EngineArgs {
    /// The engine.
    pub fn engine(&self) -> Engine {
        self.engine.with_memory(self.memory)
    }
}

/// Set by the signals that ask a program to end: the sweeps then come to an end soon, so that what they
/// have can be written. A second signal ends the program at once.
#[derive(Default)]
pub struct Interrupt {
    stop: Arc<AtomicBool>,
    signal: Arc<AtomicUsize>,
}

/// Ctrl-C; what batch systems and `kill` send; and what a closed terminal sends.
#[cfg(unix)]
const SIGNALS: [i32; 3] = [consts::SIGINT, consts::SIGTERM, consts::SIGHUP];
#[cfg(not(unix))]
const SIGNALS: [i32; 2] = [consts::SIGINT, consts::SIGTERM];

impl Interrupt {
    /// Listens for these signals.
    ///
    /// # Errors
    /// [`Failure::Other`] if the system does not allow that.
    pub fn listen() -> Result<Self, Failure> {
        let stop = Arc::new(AtomicBool::new(false));
        let signal = Arc::new(AtomicUsize::new(0));
        for number in SIGNALS.into_iter().filter(|&number| !is_ignored_hangup(number)) {
            let exit_code = i32::from(exit_code(number as usize));
            // In this order: the first signal finds the flag unset, and sets it.
            flag::register_conditional_shutdown(number, exit_code, stop.clone())
                .and_then(|_| flag::register_usize(number, signal.clone(), number as usize))
                .and_then(|_| flag::register(number, stop.clone()))
                .map_err(|e| Failure::Other(format!("cannot listen for Ctrl-C: {e}")))?;
        }
        Ok(Self { stop, signal })
    }

    /// The flag.
    pub fn flag(&self) -> &AtomicBool {
        &self.stop
    }

    /// How a run ends that was stopped, and what it says.
    pub fn stopped(&self, message: String) -> Failure {
        Failure::Stopped { message, code: exit_code(self.signal.load(Ordering::Relaxed)) }
    }
}

/// The exit code of a program that a signal ended, as shells have it.
fn exit_code(signal: usize) -> u8 {
    128 + signal as u8
}

/// Whether it is SIGHUP, and whoever started this program (`nohup`, say) has told it to ignore that. Only
/// Linux tells.
fn is_ignored_hangup(signal: i32) -> bool {
    let ignored = || {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    };
    const SIGHUP: i32 = 1;
    signal == SIGHUP && ignored().is_some_and(|mask| mask & 1 == 1)
}

/// A bar on stderr (nothing where stderr is not a terminal) over `sweeps` sweeps with `cells` patched runs
/// in all, and what moves it on: the share of one sweep that has been done. A bar is
/// cleared when it is dropped, as where a run ends early.
pub fn progress_bar(sweeps: usize, cells: usize) -> (ProgressBar, impl Fn(f64) + Sync) {
    let bar = ProgressBar::new(cells as u64);
    let template = "patching {bar:30} {pos}/{len} cells, {per_sec}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    let (shown, done) = (bar.clone(), Mutex::new(0.0));
    let progress = move |share: f64| {
        // A poisoned lock would mean that a thread panicked, which ends the program anyway.
        if let Ok(mut done) = done.lock() {
            *done += share / sweeps as f64;
            shown.set_position((*done * cells as f64) as u64);
        }
    };
    (bar, progress)
}

/// A number of bytes such as `512MiB`, `2GB` or `1000000`.
fn parse_size(text: &str) -> Result<usize, String> {
    const UNITS: [(&str, u64); 7] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("B", 1),
    ];
    let (number, unit) =
        UNITS.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit))).unwrap_or((text, 1));
    number
        .trim()
        .parse::<u64>()
        .ok()
        .and_then(|number| number.checked_mul(unit))
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or_else(|| format!("\"{text}\" is not a size: write 512MiB, 2GB or a number of bytes"))
}
