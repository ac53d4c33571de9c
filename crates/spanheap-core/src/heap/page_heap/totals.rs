//! The states of grown pages, counted: the one place where a page's change of state is noted.
//!
//! ```text
//!   grown = in use + manual + arena + quarantined + free + cached + returned
//! ```
//!
//! In use: of spans with objects. Arena, quarantined: of chunks of user arenas, before they are guarded and after. Returned: prepared, that is, given back to the system or never used. Cached:
//! ready, and in a mutator's own pages. Free: all others. Everything is counted twice: in the
//! [`Counters`], for statistics that are consistent; and, as far as the heap itself decides by it,
//! in plain numbers that cost nothing to read, which change after what they count.

use crate::addr::{Bytes, PageCount};
use crate::heap::counters::{Counters, MemoryState, Writer};
use crate::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// How many pages are in which state.
#[derive(Default)]
pub(super) struct Totals {
    counters: Counters,
    grown: AtomicUsize,
    in_use: AtomicUsize,
    manual: AtomicUsize,
    arena: AtomicUsize,
    quarantined: AtomicUsize,
    returned: AtomicUsize,
}

fn bytes(pages: &AtomicUsize) -> Bytes {
    PageCount::new(pages.load(Relaxed)).bytes()
}

impl Totals {
    pub(super) fn counters(&self) -> &Counters {
        &self.counters
    }

    pub(super) fn in_use(&self) -> Bytes {
        bytes(&self.in_use)
    }

    /// Ready pages that belong to no span.
    pub(super) fn idle(&self) -> Bytes {
        let taken = bytes(&self.in_use) + bytes(&self.manual) + bytes(&self.arena);
        self.retained().saturating_sub(taken)
    }

    /// Pages of chunks that are guarded.
    pub(super) fn quarantined(&self) -> Bytes {
        bytes(&self.quarantined)
    }

    /// Ready pages, whoever has them.
    pub(super) fn retained(&self) -> Bytes {
        bytes(&self.grown).saturating_sub(bytes(&self.returned) + bytes(&self.quarantined))
    }

    /// The heap has grown by `pages`, which have no memory yet.
    pub(super) fn grow(&self, pages: PageCount) {
        self.returned.fetch_add(pages.get(), Relaxed);
        self.grown.fetch_add(pages.get(), Relaxed);
        self.counters.pages().update().mapped(MemoryState::Returned, pages.bytes());
    }

    /// Pages change from one state to another.
    pub(super) fn change(
        &self,
        writer: Writer<'_>,
        from: MemoryState,
        to: MemoryState,
        pages: PageCount,
    ) {
        if pages == PageCount::ZERO {
            return;
        }
        writer.update().moved(from, to, pages.bytes());
        for (state, count) in [
            (MemoryState::InUse, &self.in_use),
            (MemoryState::Manual, &self.manual),
            (MemoryState::Arena, &self.arena),
            (MemoryState::Quarantined, &self.quarantined),
            (MemoryState::Returned, &self.returned),
        ] {
            if to == state {
                count.fetch_add(pages.get(), Relaxed);
            }
            if from == state {
                count.fetch_sub(pages.get(), Relaxed);
            }
        }
    }

    /// The same, noted by the page heap.
    pub(super) fn shift(&self, from: MemoryState, to: MemoryState, pages: PageCount) {
        self.change(self.counters.pages(), from, to, pages);
    }
}
