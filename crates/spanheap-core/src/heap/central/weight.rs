//! What a heap weighs: its objects, and what is accounted for outside; and waking the collector when that is enough
//! for a cycle.
//!
//! # Invariants
//! - **A ring is not repeated, and none is missing.** A mutator that finds the trigger reached rings unless `triggered`
//!   says that somebody has. That is taken back by nobody but the collector, each time that it is about to sleep, and
//!   then it looks again. So whoever rings for a trigger that was moved a moment ago, and thus for nothing, silences
//!   nobody for longer than the collector is awake.
//! - **Both sides swap.** Of two swaps of one word one comes first. If it is the mutator's, the collector's has read
//!   it, or one that came later, and so sees what was taken before it. If it is the collector's, the mutator finds that
//!   nobody has rung.
//! - **A trigger that falls** while somebody takes may be overlooked by whoever takes: he has looked at the old one.
//!   Whoever moves it rings, and the next one who takes sees it.
//!
//! # Locking
//! None but the alarm's. All of this is tried in every interleaving (`spanheap-interleavings`, `alarms`).

use super::Central;
use crate::addr::Bytes;
use crate::heap::outside::Outside;
use crate::sync::atomic::{AtomicUsize, Ordering};

impl Central {
    /// What is accounted for outside of the heap.
    pub fn outside(&self) -> &Outside {
        &self.outside
    }

    /// Accounts for `bytes` outside, or as many as can be counted: how many. Rings the alarm when that is
    /// enough for a cycle.
    pub fn grow_outside(&self, bytes: Bytes) -> Bytes {
        let grown = self.outside.grow(bytes);
        self.ring_if_triggered();
        grown
    }

    /// Bytes of objects, and what is accounted for outside of the heap, without [what needs no
    /// cycle](Central::expected): what the trigger is compared with.
    pub fn weight(&self) -> Bytes {
        let outside = self.outside.now();
        if outside == Bytes::ZERO {
            return self.live();
        }
        self.live().saturating_add(outside.saturating_sub(self.expected()))
    }

    /// Whether live bytes, with those outside, have reached the trigger.
    pub fn is_triggered(&self) -> bool {
        self.has_reached(&self.trigger)
    }

    /// Whether half of what may be added until the trigger is reached has been: to what the last cycle retained,
    /// and to what was accounted for outside then and is still.
    pub fn is_half_way(&self) -> bool {
        let trigger = self.outside.adjust(self.trigger.load(Ordering::Relaxed));
        let outside = self.outside.floor().saturating_sub(self.expected());
        let base = self.retained().get().saturating_add(outside.get());
        let room = trigger.saturating_sub(base);
        self.weight().get().saturating_sub(base) > room / 2
    }

    /// Whether the weight has reached one of the triggers.
    #[inline]
    pub(super) fn has_reached(&self, trigger: &AtomicUsize) -> bool {
        self.weight().get() >= self.outside.adjust(trigger.load(Ordering::Relaxed))
    }

    /// Moves the weight at which the alarm rings, and that at which it would without a limit; and rings, so that the
    /// collector looks whether it is reached already. The pace of the sweep stays as it is: its lines are the
    /// collector's to draw.
    pub fn move_trigger(&self, trigger: Bytes, unlimited: Bytes) {
        self.unlimited_trigger.store(unlimited.get(), Ordering::Relaxed);
        self.trigger.store(trigger.get(), Ordering::Relaxed);
        if self.is_here() {
            self.alarm.ring();
        }
    }

    /// Rings the alarm if the trigger is reached and nobody has done so since the collector was about to sleep. For
    /// whoever has added to the weight just now.
    #[inline]
    pub(super) fn ring_if_triggered(&self) {
        if self.is_triggered() && !self.triggered.swap(true, Ordering::Release) && self.is_here() {
            self.alarm.ring();
        }
    }

    /// Lets the alarm be rung again. True if the trigger is reached. For the collector, which is about to sleep and
    /// must not if it is.
    pub fn rearm(&self) -> bool {
        self.triggered.swap(false, Ordering::Acquire);
        self.is_triggered()
    }
}
