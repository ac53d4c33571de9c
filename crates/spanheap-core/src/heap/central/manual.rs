//! Manual spans of a heap, and whom it concerns that pages have become free between cycles.
//!
//! A manual span is accounted for as any other: whoever allocates one sweeps what is owed for its pages, and
//! a refusal sweeps everything and asks for a cycle.
//!
//! # Safety
//! The promises about a manual span are passed on.
#![allow(unsafe_code)]

use super::Central;
use crate::addr::Bytes;
use crate::heap::error::OutOfMemory;
use crate::heap::manual_chunk::ManualChunk;
use crate::heap::page_heap::{LocalPages, ManualSpan, Refused};

impl Central {
    /// Pages for memory that is not objects: at least one, at a multiple of `align`.
    pub fn alloc_manual(
        &self,
        bytes: Bytes,
        align: usize,
        local: &LocalPages,
    ) -> Result<ManualSpan, OutOfMemory> {
        let refused = |refused| self.out_of_memory(bytes, refused);
        let pages = bytes.max(Bytes::new(1)).checked_pages();
        let pages = pages.ok_or(Refused::TooLarge).map_err(refused)?;
        let align = Bytes::new(align);
        // What the reclaimer will sweep for it is not swept twice.
        self.keep_pace(pages.bytes(), pages);
        let attempt = || {
            self.reclaim(pages, align);
            self.pages.alloc_manual(&self.os, &self.memory, local, pages, align)
        };
        self.in_need(local, attempt).map_err(refused)
    }

    /// Frees a manual span.
    ///
    /// # Safety
    /// Nobody uses the memory any more. The span came from this heap.
    pub unsafe fn free_manual(&self, span: ManualSpan) {
        // SAFETY: the same contract.
        unsafe { self.pages.free_manual(span) };
        self.note_free_pages();
    }

    /// Frees a chunk, which leads to no other one and came from this heap.
    pub fn free_chunk(&self, chunk: ManualChunk) {
        // SAFETY: whoever had the chunk had its memory, and gives both up.
        unsafe { self.free_manual(chunk.into_span()) };
    }

    /// Wakes the scavenger if it has nothing to do but wait for pages that have just become free.
    pub(super) fn note_free_pages(&self) {
        if self.pages.ends_watch(&self.os) {
            self.alarm.ring();
        }
    }
}
