//! Memory outside of a heap, accounted for by a value that says how much it is.
//!
//! The value may lie in an object of the very heap (that is what it is for), so it holds the collector's
//! shared part and not the heap: a heap that its own objects held would never end. Beyond the end of the
//! heap it counts on, and nobody looks.

use crate::addr::Bytes;
use crate::collect::Collector;
use crate::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

/// Bytes outside of a heap that count for its trigger and its goal. What is accounted for is taken off when the
/// value is dropped.
pub struct OutsideMemory {
    collector: Arc<Collector>,
    bytes: AtomicUsize,
}

impl OutsideMemory {
    pub(super) fn new(collector: Arc<Collector>, bytes: Bytes) -> OutsideMemory {
        let account = OutsideMemory { collector, bytes: AtomicUsize::new(0) };
        account.grow(bytes);
        account
    }

    /// How many bytes are accounted for.
    pub fn bytes(&self) -> Bytes {
        Bytes::new(self.bytes.load(Ordering::Relaxed))
    }

    /// Adds bytes; they may make a cycle begin. (All accounts of a heap together stop at half of all
    /// addresses.)
    pub fn grow(&self, bytes: Bytes) {
        let grown = self.collector.central().grow_outside(bytes);
        self.bytes.fetch_add(grown.get(), Ordering::Relaxed);
    }

    /// Takes bytes off, but no more than there are.
    pub fn shrink(&self, bytes: Bytes) {
        let left = |now: usize| Some(now.saturating_sub(bytes.get()));
        let before = self.bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
        let off = before.map_or(0, |before| before.min(bytes.get()));
        self.collector.central().outside().shrink(Bytes::new(off));
    }

    /// Makes it that many bytes, by growing or shrinking. When two threads resize one account at once, both
    /// differences count.
    pub fn resize(&self, bytes: Bytes) {
        let now = self.bytes();
        match bytes > now {
            true => self.grow(bytes - now),
            false => self.shrink(now - bytes),
        }
    }
}

impl Drop for OutsideMemory {
    fn drop(&mut self) {
        self.shrink(self.bytes());
    }
}
