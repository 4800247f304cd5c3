//! Whose turn it is to compute.
//!
//! One study runs at a time: each uses all cores. The others wait in the order in which they came. A tab that asks anew
//! no longer wants what it asked before: that is stopped, whether it waits or runs.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The turns.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    next: u64,
    /// Those that wait, and first the one that runs.
    waiting: VecDeque<u64>,
    /// What each tab wants of each kind, with its number.
    newest: HashMap<(String, &'static str), (u64, Arc<AtomicBool>)>,
    closed: bool,
}

/// A place in the queue, and later the turn itself; it ends when this is dropped.
pub struct Turn<'a> {
    queue: &'a Queue,
    number: u64,
    key: (String, &'static str),
    /// Set once nobody wants the answer any more.
    pub stop: Arc<AtomicBool>,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a place for a tab, in the stead of what it asked for of the same kind.
    pub fn enter(&self, tab: &str, kind: &'static str) -> Turn<'_> {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        let stop = Arc::new(AtomicBool::new(state.closed));
        let key = (tab.to_owned(), kind);
        if let Some((_, earlier)) = state.newest.insert(key.clone(), (number, stop.clone())) {
            earlier.store(true, Ordering::Relaxed);
        }
        state.waiting.push_back(number);
        self.changed.notify_all();
        Turn { queue: self, number, key, stop }
    }

    /// Stops everything, now and later.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.newest.values().for_each(|(_, stop)| stop.store(true, Ordering::Relaxed));
        self.changed.notify_all();
    }
}

impl Turn<'_> {
    /// Says that nobody wants the answer any more.
    pub fn abandon(&self) {
        // Under the lock, so that it is not missed between a look at the flag and the wait.
        let _state = self.queue.lock();
        self.stop.store(true, Ordering::Relaxed);
        self.queue.changed.notify_all();
    }

    /// Waits until it is this one's turn; false if nobody wants the answer any more.
    pub fn wait(&self) -> bool {
        let mut state = self.queue.lock();
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return false;
            }
            if state.waiting.front() == Some(&self.number) {
                return true;
            }
            state = self.queue.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.waiting.retain(|number| *number != self.number);
        if state.newest.get(&self.key).is_some_and(|(number, _)| *number == self.number) {
            state.newest.remove(&self.key);
        }
        self.queue.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn the_newest_request_of_a_tab_stops_its_earlier_one() {
        let queue = Queue::default();
        let first = queue.enter("a", "sweep");
        let other = queue.enter("b", "sweep");
        let look = queue.enter("a", "look");
        assert!(first.wait());
        let second = queue.enter("a", "sweep");
        assert!(first.stop.load(Ordering::Relaxed) && !first.wait());
        assert!(!other.stop.load(Ordering::Relaxed) && !look.stop.load(Ordering::Relaxed));
        drop(first);
        // In the order in which they came.
        assert!(other.wait());
        drop((other, look));
        assert!(second.wait());
        drop(second);
        assert!(queue.lock().waiting.is_empty() && queue.lock().newest.is_empty());
    }

    #[test]
    fn only_one_computes_and_a_closed_queue_lets_nobody_in() {
        let queue = Queue::default();
        let busy = AtomicBool::new(false);
        thread::scope(|scope| {
            for tab in 0..16 {
                let (queue, busy) = (&queue, &busy);
                scope.spawn(move || {
                    let turn = queue.enter(&tab.to_string(), "sweep");
                    assert!(turn.wait());
                    assert!(!busy.swap(true, Ordering::SeqCst));
                    thread::yield_now();
                    busy.store(false, Ordering::SeqCst);
                });
            }
        });
        let waits = queue.enter("a", "sweep");
        queue.close();
        assert!(!waits.wait() && !queue.enter("b", "sweep").wait());
    }
}
