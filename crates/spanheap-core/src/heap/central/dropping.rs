//! Destructors that nobody else runs: those that are owed when there is no thread for them, and those of
//! everything that is left at the end of a heap.
//!
//! # Safety
//! Dropping everything is the caller's promise passed on.
#![allow(unsafe_code)]

use super::Central;
use crate::span::Span;

impl Central {
    /// Runs destructors; false when none is owed.
    pub fn run_drops(&self) -> bool {
        self.finish_drops(self.drops.run_batch(self.counters().shared()))
    }

    /// Runs the destructors of everything that is left, for the end of a heap.
    ///
    /// # Safety
    /// No mutator is attached, no thread but the caller frees spans, and nobody uses the heap's objects any
    /// more.
    pub unsafe fn drop_everything(&self) {
        let drop_all = |span: &Span| {
            // SAFETY: the caller's promise; with all caches given back, allocation bits stand at
            // initialised objects only.
            unsafe { self.drops.drop_all(span) };
        };
        // SAFETY: without mutators, and with the drop thread gone, spans do not change.
        unsafe { self.pages.for_each_span(drop_all) };
    }
}
