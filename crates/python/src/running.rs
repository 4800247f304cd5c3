//! Computing without the interpreter's lock.
//!
//! Work runs on a thread of its own. The calling thread waits without the lock, and takes it a few times a second to
//! see whether a signal has come (Ctrl-C raises `KeyboardInterrupt`) and to report progress. To stop, it sets the flag
//! that engines check between two steps of a block.

use std::panic::{self, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use patching::Watch;
use pyo3::prelude::*;

use crate::failure::Failure;

/// How often signals are looked at.
const TICK: Duration = Duration::from_millis(50);

/// The stack of the thread that works.
const STACK_BYTES: usize = 16 << 20;

/// Work under way.
#[derive(Default)]
pub struct Job {
    stop: AtomicBool,
    /// The share that is done.
    done: Mutex<f64>,
    /// What a function of the caller's has raised.
    raised: Mutex<Option<PyErr>>,
    ended: Mutex<bool>,
    end: Condvar,
}

/// What is thrown to leave a single run of a model.
struct Left;

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Job {
    /// What sets the work's end.
    pub fn flag(&self) -> &AtomicBool {
        &self.stop
    }

    /// Adds a share to what is done.
    pub fn advance(&self, share: f64) {
        *locked(&self.done) += share;
    }

    /// Stops the work because a function of the caller's has raised an exception.
    pub fn raise(&self, error: PyErr) {
        locked(&self.raised).get_or_insert(error);
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether it is to stop.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Leaves the work, if it is to stop, by unwinding up to [`run`]. For hooks.
    pub fn leave_if_stopped(&self) {
        if self.is_stopped() {
            panic::resume_unwind(Box::new(Left));
        }
    }

    /// Waits for the end, but no longer than a tick. Says whether it has come.
    fn wait(&self) -> bool {
        let ended = locked(&self.ended);
        let waited = self.end.wait_timeout_while(ended, TICK, |ended| !*ended);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    fn set_ended(&self) {
        *locked(&self.ended) = true;
        self.end.notify_all();
    }
}

/// How work ended.
enum End<T> {
    Result(T),
    Left,
    Panic(String),
}

/// Runs `work` without the interpreter's lock. `progress` is called with the share that is done.
///
/// # Errors
/// What a signal or a function of the caller's raises; that of `work`; or a `RuntimeError` where it panics.
pub fn run<T: Send>(
    py: Python<'_>,
    progress: Option<&Bound<'_, PyAny>>,
    work: impl FnOnce(&Job) -> Result<T, Failure> + Send,
) -> Result<T, Failure> {
    let job = Job::default();
    let worker = || {
        let ended = panic::catch_unwind(AssertUnwindSafe(|| work(&job)));
        job.set_ended();
        match ended {
            Ok(result) => End::Result(result),
            Err(payload) if payload.is::<Left>() => End::Left,
            Err(payload) => End::Panic(words_of(&*payload)),
        }
    };
    let (end, interrupted) = thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, worker)?;
        let interrupted = watch(py, &job, progress).err();
        if interrupted.is_some() {
            job.stop.store(true, Ordering::Relaxed);
        }
        let end = py.detach(|| thread.join()).unwrap_or_else(|payload| End::Panic(words_of(&*payload)));
        Ok::<_, Failure>((end, interrupted))
    })?;
    let raised = locked(&job.raised).take();
    if let Some(error) = interrupted.or(raised) {
        return Err(error.into());
    }
    match end {
        End::Result(result) => {
            if let Some(progress) = progress {
                progress.call1((1.0,))?;
            }
            result
        }
        End::Left => Err(Failure::bug("stopped")),
        End::Panic(words) => Err(Failure::bug(format!("a bug in gpt2_patching: {words}"))),
    }
}

/// Waits until the work has ended, or something is raised.
fn watch(py: Python<'_>, job: &Job, progress: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
    let mut reported = 0.0;
    while !py.detach(|| job.wait()) {
        py.check_signals()?;
        let done = locked(&job.done).min(1.0);
        if let (Some(progress), true) = (progress, done > reported) {
            reported = done;
            progress.call1((done,))?;
        }
    }
    Ok(())
}

/// What a panic says.
fn words_of(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "it panicked".to_owned())
}

/// How the engines of `patching` are observed and stopped: one share of all work at a time.
pub struct Observed<'a> {
    job: &'a Job,
    report: Box<dyn Fn(f64) + Sync + 'a>,
}

impl<'a> Observed<'a> {
    /// Observes one of `parts` equal parts of a job.
    pub fn part_of(job: &'a Job, parts: usize) -> Self {
        Self { job, report: Box::new(move |share| job.advance(share / parts.max(1) as f64)) }
    }

    /// As engines take it.
    pub fn watch(&self) -> Watch<'_> {
        Watch { progress: &*self.report, stop: self.job.flag() }
    }
}
