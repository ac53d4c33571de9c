//! The states of grown pages, counted.
//!
//! ```text
//!   grown = in use + manual + free + released
//! ```
//!
//! In use: of spans with objects. Released: prepared, that is, returned to the system or never used. Free: all
//! others, those that a mutator keeps for itself included. The counters change after what they count and
//! are read one by one, so the sum holds when nothing happens meanwhile.

use crate::addr::{Bytes, PageCount};
use crate::sync::atomic::{AtomicUsize, Ordering::Relaxed};

#[derive(Default)]
pub(super) struct Totals {
    grown: AtomicUsize,
    in_use: AtomicUsize,
    manual: AtomicUsize,
    released: AtomicUsize,
}

/// How many bytes of a heap's pages are in which state.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PageAccount {
    /// Of all pages that the heap has grown by.
    pub grown: Bytes,
    /// In spans with objects.
    pub in_use: Bytes,
    /// In manual spans.
    pub manual: Bytes,
    /// Ready, and in no span.
    pub free: Bytes,
    /// In no span, and without memory behind them.
    pub released: Bytes,
}

fn bytes(pages: &AtomicUsize) -> Bytes {
    PageCount::new(pages.load(Relaxed)).bytes()
}

impl Totals {
    pub(super) fn read(&self) -> PageAccount {
        let (released, manual) = (bytes(&self.released), bytes(&self.manual));
        let (in_use, grown) = (bytes(&self.in_use), bytes(&self.grown));
        let free = grown.saturating_sub(in_use + manual + released);
        PageAccount { grown, in_use, manual, free, released }
    }

    pub(super) fn in_use(&self) -> Bytes {
        bytes(&self.in_use)
    }

    /// Ready pages: in spans, or free and not returned.
    pub(super) fn retained(&self) -> Bytes {
        bytes(&self.grown).saturating_sub(bytes(&self.released))
    }

    pub(super) fn grow(&self, pages: PageCount, released: bool) {
        if released {
            self.release(pages);
        }
        self.grown.fetch_add(pages.get(), Relaxed);
    }

    pub(super) fn release(&self, pages: PageCount) {
        self.released.fetch_add(pages.get(), Relaxed);
    }

    pub(super) fn take_released(&self, pages: PageCount) {
        self.released.fetch_sub(pages.get(), Relaxed);
    }

    pub(super) fn add_in_use(&self, pages: PageCount) {
        self.in_use.fetch_add(pages.get(), Relaxed);
    }

    pub(super) fn sub_in_use(&self, pages: PageCount) {
        self.in_use.fetch_sub(pages.get(), Relaxed);
    }

    pub(super) fn add_manual(&self, pages: PageCount) {
        self.manual.fetch_add(pages.get(), Relaxed);
    }

    pub(super) fn sub_manual(&self, pages: PageCount) {
        self.manual.fetch_sub(pages.get(), Relaxed);
    }
}
