//! Manual spans: pages for memory that is not objects.
//!
//! The collector neither marks in them nor sweeps them, and a lookup finds no object there. Their memory is
//! part of the heap (its limit and its statistics hold for it), and they are allocated and freed by hand,
//! by whoever holds the value.
//!
//! # Safety
//! Descriptions of manual spans are made here, with the record and the pages that the page heap gave out.
#![allow(unsafe_code)]

use super::{LocalPages, PageHeap, Refused};
use crate::addr::{AddrRange, Bytes, PAGE_BYTES, PageCount};
use crate::heap::counters::MemoryState;
use crate::offheap::Persistent;
use crate::os::{Os, asan};
use crate::span::{Info, OwnedSpan, Span};

/// Pages that belong to whoever holds this value. It may outlive its heap, and is of no use then.
#[derive(Debug)]
#[must_use = "a manual span that nobody holds stays until its heap is dropped"]
pub struct ManualSpan {
    heap: u64,
    range: AddrRange,
    zeroed: bool,
    span: OwnedSpan,
}

impl ManualSpan {
    /// The addresses of the pages: ready memory, for the holder alone.
    pub fn range(&self) -> AddrRange {
        self.range
    }

    /// Whether the memory was all zeros when it was handed out.
    pub fn is_zeroed(&self) -> bool {
        self.zeroed
    }

    /// The number of the heap that owns the pages.
    pub fn heap(&self) -> u64 {
        self.heap
    }
}

impl PageHeap {
    /// A manual span of `pages` pages at a multiple of `align`.
    pub fn alloc_manual(
        &self,
        os: &Os,
        memory: &Persistent,
        local: &LocalPages,
        pages: PageCount,
        align: Bytes,
    ) -> Result<ManualSpan, Refused> {
        let taken = self.take(os, memory, local, pages, align.max(Bytes::new(PAGE_BYTES)))?;
        let info = Info::manual(taken.base, pages);
        let writer = self.writer(os, memory, local);
        self.totals.change(writer, MemoryState::Free, MemoryState::Manual, pages);
        asan::permit_range(info.range());
        // SAFETY: the record is ours alone and describes nothing.
        let span = unsafe { Span::init_manual(taken.record, info) };
        super::set_page_map(info.range(), taken.record.as_ptr());
        let (heap, range, zeroed) = (self.number, info.range(), taken.dirty_to == taken.base);
        Ok(ManualSpan { heap, range, zeroed, span })
    }

    /// Gives the pages of a manual span back.
    ///
    /// # Safety
    /// Nobody uses the memory any more. The span came from this heap.
    pub unsafe fn free_manual(&self, manual: ManualSpan) {
        debug_assert!(manual.heap == self.number);
        self.give_back(manual.span, MemoryState::Manual);
    }
}
