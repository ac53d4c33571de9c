//! What is owed to dead objects: destructors and cleanups, between cycles and at the end of a heap.
//!
//! # Safety
//! What is left at the end of a heap is dropped when nobody can reach it; the caller says when.
#![allow(unsafe_code)]

use super::Central;
use crate::heap::drops::Batch;
use crate::span::Span;

impl Central {
    /// Runs destructors and cleanups; false when none is owed.
    pub fn run_owed(&self) -> bool {
        let cleaned = self.drops.run_cleanups();
        self.run_drops() || cleaned
    }

    /// Runs destructors; false when none is owed.
    pub fn run_drops(&self) -> bool {
        self.finish_drops(self.drops.run_batch(self.counters().shared()))
    }

    /// Runs the destructors and cleanups of everything that is left, for the end of a heap.
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
        // SAFETY: as above.
        unsafe { self.pages.for_each_span(|span| self.drops.clean_all(span)) };
    }

    /// Frees what a batch of destructors has emptied; false when there was no batch.
    pub fn finish_drops(&self, batch: Batch) -> bool {
        match batch {
            Batch::Idle => return false,
            Batch::Done => {}
            Batch::Emptied(span) => {
                self.pages.free_span(span);
                self.note_free_pages();
            }
        }
        true
    }
}
