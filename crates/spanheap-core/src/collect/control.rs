//! Requests for cycles, and who waits for them.
//!
//! A request is a ticket: a number that the next cycle *to begin* will serve. So whoever asks while a
//! cycle runs waits for the one after it, because the running one may have taken its snapshot before the
//! caller let go of things.
//!
//! # Locking
//! [`Rank::Control`].

use crate::heap::verify::Verified;
use crate::sync::atomic::{AtomicBool, Ordering};
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
    /// Who waits for the heap to be verified: how many, and what was found.
    verifiers: u64,
    verified: Option<Arc<Verified>>,
    /// How often it has been verified.
    verifications: u64,
}

/// Requests for cycles.
pub struct Control {
    state: Lock<State>,
    finished: Condition,
    /// Whether the collector sleeps until somebody leaves a closure.
    awaiting_leave: AtomicBool,
    /// Whether the gate of checkmark mode is closed.
    gate: Lock<bool>,
    gate_opened: Condition,
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
            verifiers: 0,
            verified: None,
            verifications: 0,
        };
        Control {
            state: Lock::new(Rank::Control, state),
            finished: Condition::new(),
            awaiting_leave: AtomicBool::new(false),
            gate: Lock::new(Rank::Control, false),
            gate_opened: Condition::new(),
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

    /// What the collector is to do.
    pub fn wish(&self) -> Wish {
        let state = self.state.lock();
        match (state.shutdown, state.requested > state.served) {
            (true, _) => Wish::Shutdown,
            (false, _) if state.verifiers > 0 => Wish::Verify,
            (false, true) => Wish::Cycle,
            (false, false) => Wish::Nothing,
        }
    }

    /// Asks for the heap to be verified and waits for the outcome; `None` when the heap is being dropped. `wake`
    /// is called when the collector can see the wish.
    pub fn wait_for_verification(&self, wake: impl FnOnce()) -> Option<Arc<Verified>> {
        let mut state = self.state.lock();
        state.verifiers += 1;
        let before = state.verifications;
        wake();
        while state.verifications == before && !state.shutdown {
            state = self.finished.wait(state, None);
        }
        state.verified.clone().filter(|_| state.verifications != before)
    }

    /// What was found, for all who wait for it.
    pub fn verified(&self, outcome: Verified) {
        let mut state = self.state.lock();
        state.verifiers = 0;
        state.verifications += 1;
        state.verified = Some(Arc::new(outcome));
        self.finished.notify_all();
    }

    /// A cycle begins, and serves all requests so far.
    pub fn cycle_begins(&self) {
        let mut state = self.state.lock();
        state.served = state.requested;
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

    /// Whether the collector wants to hear of mutators that leave.
    #[inline]
    pub fn is_awaiting_leave(&self) -> bool {
        self.awaiting_leave.load(Ordering::Relaxed)
    }

    /// Says whether the collector wants to hear of mutators that leave.
    pub fn set_awaiting_leave(&self, awaiting: bool) {
        self.awaiting_leave.store(awaiting, Ordering::SeqCst);
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
