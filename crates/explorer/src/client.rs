//! The other side of a connection that is answered line by line: a JSON value on each.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;
use std::{io, io::Write as _};

use serde::Serialize;

use crate::http;
use crate::queue::Turn;

/// How often it is looked whether the other side is still there, and told how far the work is.
const INTERVAL: Duration = Duration::from_millis(50);

/// Who gets the answer.
pub struct Client(Mutex<Stream>);

struct Stream {
    stream: TcpStream,
    /// Whether a result was sent, after which progress would be old news.
    answered: bool,
}

/// What comes before the result.
const BEFORE: [&str; 5] = ["rows", "command", "preview", "part", PROGRESS];

const PROGRESS: &str = "progress";

impl Client {
    /// Begins the answer.
    pub fn begin(mut stream: TcpStream) -> io::Result<Self> {
        http::begin(&mut stream, "application/x-ndjson")?;
        Ok(Self(Mutex::new(Stream { stream, answered: false })))
    }

    /// Sends one value under a name, as `{"name": value}`. Whether that succeeds shows in [`Client::is_gone`].
    pub fn send(&self, name: &str, value: &impl Serialize) {
        // (Plain data can always be written as JSON. Not by way of a `Value`, which would make an f64 of each f32, with
        // other digits than the command line prints.)
        let Ok(value) = serde_json::to_string(value) else { return };
        let line = format!("{{\"{name}\":{value}}}\n");
        let mut to = self.lock();
        if name == PROGRESS && to.answered {
            return;
        }
        to.answered |= !BEFORE.contains(&name);
        let _ = to.stream.write_all(line.as_bytes());
    }

    fn is_gone(&self) -> bool {
        http::is_gone(&self.lock().stream)
    }

    fn lock(&self) -> MutexGuard<'_, Stream> {
        // A line is written whole or not at all.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the turn and does the work, unless nobody wants it any more. The work gets what it reports its
    /// progress to; meanwhile the other side is told of it, and the work is stopped if the other side goes.
    pub fn work(&self, turn: &Turn<'_>, work: impl FnOnce(&(dyn Fn(f64) + Sync))) {
        let done = AtomicBool::new(false);
        let share = Mutex::new(0.0);
        let progress = |more: f64| *share.lock().unwrap_or_else(PoisonError::into_inner) += more;
        thread::scope(|scope| {
            let watcher = scope.spawn(|| {
                let mut told = 0.0;
                while !done.load(Ordering::Acquire) {
                    thread::park_timeout(INTERVAL);
                    let now = *share.lock().unwrap_or_else(PoisonError::into_inner);
                    if now > told && !done.load(Ordering::Acquire) {
                        told = now;
                        self.send(PROGRESS, &now);
                    }
                    if self.is_gone() {
                        turn.abandon();
                        return;
                    }
                }
            });
            // Also if the work panics, or the scope would wait for ever.
            let _ends = OnDrop(|| {
                done.store(true, Ordering::Release);
                watcher.thread().unpark();
            });
            if turn.wait() {
                work(&progress);
            }
            if turn.stop.load(Ordering::Relaxed) {
                self.send("stopped", &true);
            }
        });
    }
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
