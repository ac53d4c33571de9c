//! What verifies a heap at run time, or tells of its cycles, and can be switched on and off while it lives.
//!
//! All of it is read on slow paths only: at the beginning of a run of slots, at a change of phase, by a sweep, in
//! a cycle. So none of it costs the allocation fast path anything, and a switch takes effect for a thread when it
//! gets to the next of these places.
//!
//! **Collecting at every n-th allocation.** What is counted is slots. Normally a mutator takes a whole run of
//! slots at a time, and the heap does not see which it uses; so while this is on, runs are one slot long, and each
//! allocation takes the slow path. Several values that share one slot (small ones without pointers) count
//! as one. The n-th slot asks for a cycle and does not wait for it: the cycle begins at once, and is complete when
//! all closures that are open now have ended. Requests that come while one is waiting are one.
//!
//! **Types apart.** Spans hold objects of one layout, and types of equal layout share them. So that reports can
//! name a type exactly, and sizes are known to the byte, verification modes make the type a part of the
//! class. What was allocated before stays where it is, and its type is known by its layout only.

use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What verifies a heap, and whether it tells of its cycles.
#[derive(Default, Debug)]
pub struct Switches {
    checkmark: AtomicBool,
    verify_trace: AtomicBool,
    poison: AtomicBool,
    /// 0: never.
    collect_every: AtomicU64,
    /// Slots counted since that was set.
    counted: AtomicU64,
    /// Whether the count has asked for a cycle that has not begun yet.
    asks: AtomicBool,
    trace_cycles: AtomicBool,
}

impl Switches {
    /// Everything is off.
    pub const fn new() -> Switches {
        Switches {
            checkmark: AtomicBool::new(false),
            verify_trace: AtomicBool::new(false),
            poison: AtomicBool::new(false),
            collect_every: AtomicU64::new(0),
            counted: AtomicU64::new(0),
            asks: AtomicBool::new(false),
            trace_cycles: AtomicBool::new(false),
        }
    }

    /// Whether cycles are verified by a second mark.
    pub fn checkmark(&self) -> bool {
        self.checkmark.load(Ordering::Relaxed) || self.verify_trace()
    }

    /// Switches that on or off.
    pub fn set_checkmark(&self, on: bool) {
        self.checkmark.store(on, Ordering::Relaxed);
    }

    /// Whether the second mark looks for pointers that trace functions do not report.
    pub fn verify_trace(&self) -> bool {
        self.verify_trace.load(Ordering::Relaxed)
    }

    /// Switches that on or off.
    pub fn set_verify_trace(&self, on: bool) {
        self.verify_trace.store(on, Ordering::Relaxed);
    }

    /// Whether types have spans of their own.
    pub fn types_apart(&self) -> bool {
        self.checkmark()
    }

    /// Whether freed slots are filled with a pattern.
    pub fn poison(&self) -> bool {
        self.poison.load(Ordering::Relaxed)
    }

    /// Switches that on or off.
    pub fn set_poison(&self, on: bool) {
        self.poison.store(on, Ordering::Relaxed);
    }

    /// Whether a line is written for each cycle.
    pub fn trace_cycles(&self) -> bool {
        self.trace_cycles.load(Ordering::Relaxed)
    }

    /// Switches that on or off.
    pub fn set_trace_cycles(&self, on: bool) {
        self.trace_cycles.store(on, Ordering::Relaxed);
    }

    /// Asks for a cycle at each `slots`-th slot from here on; 0: no more.
    pub fn set_collect_every(&self, slots: u64) {
        self.counted.store(0, Ordering::Relaxed);
        self.collect_every.store(slots, Ordering::Relaxed);
    }

    /// Whether slots are counted, so that they have to be taken one by one.
    pub fn counts_slots(&self) -> bool {
        self.collect_every.load(Ordering::Relaxed) != 0
    }

    /// Counts a slot, if slots are counted; true when a cycle is to begin.
    pub fn count_slot(&self) -> bool {
        let every = self.collect_every.load(Ordering::Relaxed);
        if every == 0 || (self.counted.fetch_add(1, Ordering::Relaxed) + 1) % every != 0 {
            return false;
        }
        !self.asks.swap(true, Ordering::Relaxed)
    }

    /// Whether the count has asked for a cycle.
    pub fn asks(&self) -> bool {
        self.asks.load(Ordering::Relaxed)
    }

    /// A cycle begins.
    pub fn cycle_begins(&self) {
        self.asks.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_third_slot_asks_for_a_cycle() {
        let switches = Switches::new();
        assert!((0..100).all(|_| !switches.count_slot()));
        switches.set_collect_every(3);
        let asked: Vec<u32> = (1..=9)
            .filter(|_| {
                let asked = switches.count_slot();
                switches.cycle_begins();
                asked
            })
            .collect();
        assert_eq!(asked, [3, 6, 9]);
        // Until the cycle begins, the second request is no other one.
        assert_eq!((0..9).filter(|_| switches.count_slot()).count(), 1);
        assert!(switches.asks());
        switches.set_collect_every(0);
        assert!(!switches.counts_slots() && !switches.count_slot());
    }

    #[test]
    fn looking_for_missed_pointers_is_a_kind_of_checkmark() {
        let switches = Switches::new();
        switches.set_verify_trace(true);
        assert!(switches.checkmark() && switches.types_apart());
        switches.set_verify_trace(false);
        assert!(!switches.checkmark());
    }
}
