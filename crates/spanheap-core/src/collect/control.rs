//! Requests for cycles, and who waits for them.
//!
//! A request is a ticket: a number that the next cycle *to begin* will serve. So whoever asks while a
//! cycle runs waits for the one after it, because the running one may have taken its snapshot before the
//! caller let go of things.
//!
//! # Locking
//! [`Rank::Control`].

use super::gap::Gap;
use crate::heap::verify::Verified;
use crate::sync::atomic::{AtomicU8, Ordering};
use crate::sync::{Condition, Lock, Rank};
use std::sync::Arc;

#[derive(Default)]
struct State {
    /// The last ticket given out.
    requested: u64,
    /// The last ticket that the running cycle serves.
    served: u64,
    /// The last ticket that a finished cycle has served.
    done: u64,
    shutdown: bool,
    /// Requests for a look at the whole heap.
    looks: Looks,
}

/// Requests for the heap to be verified: tickets, too, and an answer for all that a look has served.
#[derive(Default)]
struct Looks {
    requested: u64,
    served: u64,
    done: u64,
    outcome: Option<Arc<Verified>>,
    /// Whether no cycle has begun since the last one.
    was_last: bool,
}

/// The collector sleeps until somebody leaves a closure.
const COLLECTOR_WAITS: u8 = 1;

/// Somebody has freed arenas inside a closure.
const TO_BURY: u8 = 2;

/// Requests for cycles.
pub struct Control {
    state: Lock<State>,
    finished: Condition,
    /// Whether anybody wants to hear of mutators that leave: [`COLLECTOR_WAITS`], [`TO_BURY`].
    awaiting_leave: AtomicU8,
    /// Whether the gate of checkmark mode is closed.
    gate: Lock<bool>,
    gate_opened: Condition,
    gap: Gap,
}

/// What the collector is to do next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wish {
    /// Nothing was asked for.
    Nothing,
    /// A cycle.
    Cycle,
    /// A look at the whole heap.
    Verify,
    /// The end.
    Shutdown,
}

impl Control {
    /// Nobody asks for anything.
    pub const fn new() -> Control {
        let state = State {
            requested: 0,
            served: 0,
            done: 0,
            shutdown: false,
            looks: Looks { requested: 0, served: 0, done: 0, outcome: None, was_last: false },
        };
        Control {
            state: Lock::new(Rank::Control, state),
            finished: Condition::new(),
            awaiting_leave: AtomicU8::new(0),
            gate: Lock::new(Rank::Control, false),
            gate_opened: Condition::new(),
            gap: Gap::new(),
        }
    }

    /// Asks for a cycle; the result is a ticket for [`Control::wait`].
    pub fn request(&self) -> u64 {
        let mut state = self.state.lock();
        state.requested += 1;
        state.requested
    }

    /// Waits until a cycle that began after the request is complete. False when the heap is being
    /// dropped.
    pub fn wait(&self, ticket: u64) -> bool {
        let mut state = self.state.lock();
        while state.done < ticket && !state.shutdown {
            state = self.finished.wait(state, None);
        }
        state.done >= ticket
    }

    /// Whether a cycle that began after the request is complete.
    pub fn is_done(&self, ticket: u64) -> bool {
        let state = self.state.lock();
        state.done >= ticket || state.shutdown
    }

    /// What the collector is to do. Cycles and looks at the heap take turns, or a program that verifies all the
    /// time would have no cycles.
    pub fn wish(&self) -> Wish {
        let state = self.state.lock();
        let is_cycle = state.requested > state.served;
        if state.shutdown {
            Wish::Shutdown
        } else if state.looks.requested > state.looks.served && !(is_cycle && state.looks.was_last)
        {
            Wish::Verify
        } else if is_cycle {
            Wish::Cycle
        } else {
            Wish::Nothing
        }
    }

    /// Whether the heap was verified, and no cycle has begun since.
    pub fn has_just_verified(&self) -> bool {
        self.state.lock().looks.was_last
    }

    /// Asks for the heap to be verified and waits for the outcome of a look that begins after this; `None` when
    /// the heap is being dropped. `wake` is called when the collector can see the wish.
    pub fn wait_for_verification(&self, wake: impl FnOnce()) -> Option<Arc<Verified>> {
        let mut state = self.state.lock();
        state.looks.requested += 1;
        let ticket = state.looks.requested;
        wake();
        while state.looks.done < ticket && !state.shutdown {
            state = self.finished.wait(state, None);
        }
        state.looks.outcome.clone().filter(|_| state.looks.done >= ticket)
    }

    /// A look at the heap begins, and serves all requests so far.
    pub fn verification_begins(&self) {
        let mut state = self.state.lock();
        state.looks.served = state.looks.requested;
    }

    /// What was found, for all who wait for it.
    pub fn verified(&self, outcome: Verified) {
        let mut state = self.state.lock();
        let looks = &mut state.looks;
        looks.done = looks.served;
        (looks.outcome, looks.was_last) = (Some(Arc::new(outcome)), true);
        self.finished.notify_all();
    }

    /// A cycle begins, and serves all requests so far.
    pub fn cycle_begins(&self) {
        let mut state = self.state.lock();
        state.served = state.requested;
        state.looks.was_last = false;
    }

    /// The cycle is complete.
    pub fn cycle_ends(&self) {
        let mut state = self.state.lock();
        state.done = state.served;
        self.finished.notify_all();
    }

    /// Tells the collector to stop, and everybody who waits for a cycle to give up.
    pub fn shut_down(&self) {
        self.state.lock().shutdown = true;
        self.finished.notify_all();
    }

    /// Whether anybody wants to hear of mutators that leave.
    #[inline]
    pub fn is_awaiting_leave(&self) -> bool {
        self.awaiting_leave.load(Ordering::Relaxed) != 0
    }

    /// Says whether the collector wants to hear of mutators that leave.
    pub fn set_awaiting_leave(&self, awaiting: bool) {
        if awaiting {
            self.awaiting_leave.fetch_or(COLLECTOR_WAITS, Ordering::SeqCst);
        } else {
            self.awaiting_leave.fetch_and(!COLLECTOR_WAITS, Ordering::SeqCst);
        }
    }

    /// Whoever leaves next is to bury freed arenas. The caller is inside, so somebody will leave.
    pub fn ask_to_bury(&self) {
        self.awaiting_leave.fetch_or(TO_BURY, Ordering::Relaxed);
    }

    /// Whether the collector wants to hear of a mutator that has left. That one is to bury freed arenas; nobody
    /// else will be told so.
    pub fn take_leave(&self) -> bool {
        self.awaiting_leave.fetch_and(!TO_BURY, Ordering::Relaxed) & COLLECTOR_WAITS != 0
    }

    /// Where mutators that have held the collector up let it act.
    pub fn gap(&self) -> &Gap {
        &self.gap
    }

    /// Closes the gate, or opens it and lets in who waits there.
    pub fn set_gate(&self, closed: bool) {
        *self.gate.lock() = closed;
        self.gate_opened.notify_all();
    }

    /// Waits while the gate is closed.
    pub fn wait_at_gate(&self) {
        let mut closed = self.gate.lock();
        while *closed {
            closed = self.gate_opened.wait(closed, None);
        }
    }
}

impl Default for Control {
    fn default() -> Control {
        Control::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_look_that_began_before_the_request_is_no_answer() {
        let control = Control::new();
        let (asked, has_asked) = mpsc::channel();
        std::thread::scope(|scope| {
            control.verification_begins();
            let waits = scope.spawn(|| control.wait_for_verification(move || _ = asked.send(())));
            assert_eq!(has_asked.recv(), Ok(()));
            control.verified(Verified { spans: 1, ..Verified::default() });
            assert_eq!(control.wish(), Wish::Verify, "the request was taken for answered");
            control.verification_begins();
            assert_eq!(control.wish(), Wish::Nothing);
            control.verified(Verified { spans: 2, ..Verified::default() });
            assert_eq!(waits.join().expect("no panic").map(|found| found.spans), Some(2));
        });
    }

    #[test]
    fn cycles_and_looks_take_turns() {
        let control = Control::new();
        let ask = || control.state.lock().looks.requested += 1;
        ask();
        let ticket = control.request();
        assert_eq!(control.wish(), Wish::Verify);
        control.verification_begins();
        ask();
        control.verified(Verified::default());
        assert_eq!(control.wish(), Wish::Cycle, "somebody verifies in a loop");
        control.cycle_begins();
        control.request();
        assert_eq!(control.wish(), Wish::Verify);
        control.cycle_ends();
        assert!(control.wait(ticket) && !control.has_just_verified());
        control.shut_down();
        assert_eq!(control.wish(), Wish::Shutdown);
        assert!(control.wait_for_verification(|| ()).is_none());
    }
}
