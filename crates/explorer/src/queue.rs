//! Whose turn it is to compute.
//!
//! One study runs at a time: each uses all cores. The others wait, sweeps in front of what looks closer, and otherwise
//! in the order in which they came. A tab that asks anew no longer wants what it asked before: that is stopped, whether
//! it waits or runs.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// What is not kept waiting by what looks closer.
pub const SWEEP: &str = "sweep";

/// What no other question of its tab stops.
pub const EXPORT: &str = "export";

/// The turns.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    next: u64,
    /// The one that runs.
    running: Option<u64>,
    /// Those that wait, by whether they may wait for sweeps, and by number.
    waiting: BTreeSet<(bool, u64)>,
    /// What each tab wants of each kind.
    newest: HashMap<(String, &'static str), Wanted>,
    closed: bool,
}

/// The newest request of a tab.
struct Wanted {
    /// Its number in the queue.
    number: u64,
    /// Its number in the tab: requests may arrive in another order than they were sent in.
    asked: u64,
    stop: Arc<AtomicBool>,
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

    /// Takes a place for the tab's request with the number `asked`, in the stead of an earlier one of the same kind.
    pub fn enter(&self, tab: &str, kind: &'static str, asked: u64) -> Turn<'_> {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        let stop = Arc::new(AtomicBool::new(state.closed));
        let key = (tab.to_owned(), kind);
        if kind == SWEEP {
            // What looks closer at an earlier question is asked for again after the sweep.
            let is_of_earlier = |((of, kind), wanted): &(&(String, &str), &Wanted)| {
                of == tab && *kind != EXPORT && wanted.asked < asked
            };
            let earlier = state.newest.iter().filter(is_of_earlier);
            earlier.for_each(|(_, wanted)| wanted.stop.store(true, Ordering::Relaxed));
            self.changed.notify_all();
        }
        match state.newest.get(&key) {
            Some(newer) if newer.asked > asked => stop.store(true, Ordering::Relaxed),
            earlier => {
                if let Some(earlier) = earlier {
                    earlier.stop.store(true, Ordering::Relaxed);
                }
                state.newest.insert(key.clone(), Wanted { number, asked, stop: stop.clone() });
            }
        }
        state.waiting.insert((kind != SWEEP, number));
        Turn { queue: self, number, key, stop }
    }

    /// Stops everything, now and later.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.newest.values().for_each(|wanted| wanted.stop.store(true, Ordering::Relaxed));
        self.changed.notify_all();
    }
}

impl Turn<'_> {
    fn place(&self) -> (bool, u64) {
        (self.key.1 != SWEEP, self.number)
    }

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
            if state.running == Some(self.number) {
                return true;
            }
            if state.running.is_none() && state.waiting.first() == Some(&self.place()) {
                state.waiting.pop_first();
                state.running = Some(self.number);
                return true;
            }
            state = self.queue.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.waiting.remove(&self.place());
        if state.running == Some(self.number) {
            state.running = None;
        }
        if state.newest.get(&self.key).is_some_and(|wanted| wanted.number == self.number) {
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
        let first = queue.enter("a", "sweep", 0);
        let other = queue.enter("b", "sweep", 0);
        let look = queue.enter("a", "look", 0);
        assert!(first.wait());
        let second = queue.enter("a", "sweep", 0);
        assert!(first.stop.load(Ordering::Relaxed) && !first.wait());
        assert!(!other.stop.load(Ordering::Relaxed) && !look.stop.load(Ordering::Relaxed));
        drop(first);
        // In the order in which they came, but sweeps first.
        assert!(other.wait());
        drop(other);
        assert!(second.wait());
        drop(look);
        // One that was sent earlier and arrives later is not wanted.
        let (look, export) = (queue.enter("a", "look", 1), queue.enter("a", EXPORT, 1));
        let newer = queue.enter("a", "sweep", 2);
        assert!(look.stop.load(Ordering::Relaxed) && !export.stop.load(Ordering::Relaxed));
        drop((look, export));
        assert!(!queue.enter("a", "sweep", 1).wait() && !newer.stop.load(Ordering::Relaxed));
        drop((second, newer));
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
                    let turn = queue.enter(&tab.to_string(), "sweep", 0);
                    assert!(turn.wait());
                    assert!(!busy.swap(true, Ordering::SeqCst));
                    thread::yield_now();
                    busy.store(false, Ordering::SeqCst);
                });
            }
        });
        let waits = queue.enter("a", "sweep", 0);
        queue.close();
        assert!(!waits.wait() && !queue.enter("b", "sweep", 0).wait());
    }
}
