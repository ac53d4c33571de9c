//! What a heap weighs: its objects, and what is accounted for outside; and whether that is enough for a cycle.

use super::Central;
use crate::addr::Bytes;
use crate::heap::outside::Outside;
use crate::sync::atomic::{AtomicUsize, Ordering, fence};

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

    /// What is accounted for and will probably be freed without a cycle: user arenas that the program frees itself.
    /// In a heap with a limit everything counts.
    pub fn expected(&self) -> Bytes {
        match self.pages.limits().target() {
            None => self.arenas.expected(),
            Some(_) => Bytes::ZERO,
        }
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

    /// Rings the alarm, once for each trigger, and once for each time that the collector is about to sleep.
    ///
    /// Whoever saw a trigger that was moved a moment later rings for nothing, and has said that it was rung for. So the
    /// collector [takes that back](Central::rearm) before it sleeps, or nobody would ring for the new one.
    #[inline]
    pub(super) fn ring_if_triggered(&self) {
        // SeqCst: see `rearm`. (What has just been taken was added by an atomic operation.)
        if self.is_triggered() && !self.triggered.swap(true, Ordering::SeqCst) && self.is_here() {
            self.alarm.ring();
        }
    }

    /// Lets the alarm be rung again. True if the trigger has been reached meanwhile, perhaps without its being rung.
    /// For the collector, which is about to sleep.
    pub fn rearm(&self) -> bool {
        self.triggered.store(false, Ordering::SeqCst);
        // Between taking it back and looking, as between taking bytes and looking there: one of both sees the other.
        fence(Ordering::SeqCst);
        self.is_triggered()
    }
}
