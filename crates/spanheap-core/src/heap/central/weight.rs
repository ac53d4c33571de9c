//! What a heap weighs: its objects, and what is accounted for outside; and whether that is enough for a cycle.

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

    /// Bytes of objects, and what is accounted for outside of the heap: what the trigger is compared with.
    pub fn weight(&self) -> Bytes {
        Bytes::new(self.live().get().saturating_add(self.outside.now().get()))
    }

    /// Whether live bytes, with those outside, have reached the trigger.
    pub fn is_triggered(&self) -> bool {
        self.has_reached(&self.trigger)
    }

    /// Whether half of what may be added until the trigger is reached has been: to what the last cycle retained,
    /// and to what was accounted for outside then and is still.
    pub fn is_half_way(&self) -> bool {
        let trigger = self.outside.adjust(self.trigger.load(Ordering::Relaxed));
        let base = self.retained().get().saturating_add(self.outside.floor().get());
        let room = trigger.saturating_sub(base);
        self.weight().get().saturating_sub(base) > room / 2
    }

    /// Whether the weight has reached one of the triggers.
    #[inline]
    pub(super) fn has_reached(&self, trigger: &AtomicUsize) -> bool {
        self.weight().get() >= self.outside.adjust(trigger.load(Ordering::Relaxed))
    }

    /// Rings the alarm, once for each trigger.
    #[inline]
    pub(super) fn ring_if_triggered(&self) {
        if self.is_triggered() && !self.triggered.swap(true, Ordering::Relaxed) && self.is_here() {
            self.alarm.ring();
        }
    }
}
