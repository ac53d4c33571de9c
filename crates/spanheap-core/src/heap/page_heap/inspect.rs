//! What each page of the heap is used for, for those who explain and check.
//!
//! The lock of the page heap is held for one chunk of 4 MiB at a time. Spans are looked at under it
//! while others allocate from them, sweep them and give them up.
//!
//! # Safety
//! Reading the description of a span that the page map names is sound under the lock, although its
//! owner may be giving the span up at this moment:
//! - I1. A span leaves the page map before its record goes back to the pool, which happens under the
//!   lock. A record is taken from the pool under the lock, perhaps to be kept by a mutator for a while,
//!   and is described before it enters the page map. So what the map names under the lock has been
//!   described, and is not described anew before the lock is free.
#![allow(unsafe_code)]

use super::PageHeap;
use crate::addr::{Addr, AddrRange, CHUNK_PAGES, ChunkIndex, PageCount};
use crate::bitmap;
use crate::span::{HeapArena, Span};

/// What a page is used for.
#[derive(Clone, Copy)]
pub enum PageUse<'a> {
    /// It belongs to a span.
    Span(&'a Span),
    /// It belongs to a manual span.
    Manual,
    /// It belongs to a chunk of a user arena.
    Arena,
    /// It belonged to one that was freed, and has no memory.
    Quarantined,
    /// It is taken, and belongs to no span: it is changing hands, or kept by a mutator.
    Taken,
    /// It is free and ready.
    Free,
    /// It is free and has no memory, as far as we know.
    Returned,
    /// It was never made a page of the heap.
    Reserved,
}

impl PageHeap {
    /// Calls `visit` with each page of a chunk of `arena` and what it is used for. The lock is held
    /// meanwhile, so `visit` takes no lock, allocates nothing and does not keep spans.
    pub fn for_each_page_of(
        &self,
        arena: &HeapArena,
        chunk: ChunkIndex,
        mut visit: impl FnMut(Addr, PageUse<'_>),
    ) {
        let inner = self.inner.lock();
        let view = inner.pages.chunk(chunk);
        for page in 0..CHUNK_PAGES {
            let addr = chunk.base() + PageCount::new(page);
            let usage = match &view {
                None => PageUse::Reserved,
                Some(view) if bitmap::test(view.scavenged, page) => PageUse::Returned,
                Some(view) if !bitmap::test(view.allocated, page) => PageUse::Free,
                // SAFETY: the page map names span records (P3), and I1.
                Some(_) => match unsafe { arena.span(addr.page_in_arena()).as_ref() } {
                    Some(span) if span.is_in_use() => PageUse::Span(span),
                    Some(span) if span.is_manual() => PageUse::Manual,
                    Some(span) if span.is_shut() => PageUse::Arena,
                    Some(span) if span.is_quarantined() => PageUse::Quarantined,
                    Some(span) if span.is_arena() => PageUse::Arena,
                    _ => PageUse::Taken,
                },
            };
            visit(addr, usage);
        }
    }

    /// Calls `visit` with the memory of the page allocator's tables. The lock is held meanwhile.
    pub fn for_each_table(&self, visit: &mut dyn FnMut(AddrRange)) {
        self.inner.lock().pages.for_each_table(visit);
    }

    /// Calls `visit` with the blocks of span records, which have memory in part. The lock is held meanwhile.
    pub fn for_each_record_block(&self, visit: &mut dyn FnMut(AddrRange)) {
        self.inner.lock().spans.for_each_block(visit);
    }
}
