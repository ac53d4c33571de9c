//! Walks over arenas, pages and spans.
//!
//! None takes a lock: arenas only come, until the heap is released, and entries of the page map are atomic.
//! What a walk finds may have changed when it is looked at; each function says what its caller may do with it.
//!
//! # Safety
//! Records are published when they are finished and live until the heap is released.
#![allow(unsafe_code)]

use super::PageHeap;
use crate::addr::{ARENA_PAGES, Addr};
use crate::span::{HeapArena, Span};
use crate::sync::atomic::Ordering;

impl PageHeap {
    /// All arenas of the heap, newest first.
    pub fn arenas(&self) -> impl Iterator<Item = &HeapArena> {
        let mut arena = self.newest.load(Ordering::Acquire).cast_const();
        core::iter::from_fn(move || {
            // SAFETY: records are published when they are finished and live until `release`.
            let current = unsafe { arena.as_ref() }?;
            arena = current.previous();
            Some(current)
        })
    }

    /// Calls `visit` with each page that belongs to a span. Spans may come and go meanwhile: their records
    /// are not looked at.
    pub fn for_each_page(&self, mut visit: impl FnMut(Addr)) {
        for arena in self.arenas() {
            let pages = (0..ARENA_PAGES).filter(|&page| !arena.span(page).is_null());
            pages.for_each(|page| visit(arena.page_base(page)));
        }
    }

    /// Calls `visit` with the record of each span in use.
    ///
    /// # Safety
    /// Nobody allocates or frees a span meanwhile.
    pub unsafe fn for_each_span(&self, mut visit: impl FnMut(&Span)) {
        for arena in self.arenas() {
            let (mut page, used) = (0, arena.pages_used());
            while page < used {
                // SAFETY: the page map names records of spans, which stay: the caller's promise.
                let span = unsafe { arena.span(page).as_ref() };
                match span.filter(|span| span.is_in_use()) {
                    Some(span) => {
                        // A span that began in the arena below has been visited there.
                        if span.info().base == arena.page_base(page) {
                            visit(span);
                        }
                        let behind = span.info().range().end();
                        let arena_end = arena.page_base(ARENA_PAGES);
                        // A page map that is broken, which a verification may be about to find out, must not
                        // lead back.
                        page = match behind >= arena_end {
                            true => used,
                            false => behind.page_in_arena().max(page + 1),
                        };
                    }
                    None => page += 1,
                }
            }
        }
    }
}
