//! What a mutator keeps of the page heap for itself: the free pages of one block of 64, a few span
//! records, spans that have not got back into their classes, and a shard of the counters. Most small spans come from
//! here without the page heap's lock.
//!
//! To everybody else these pages are allocated and these records in use. They go back when the mutator's
//! caches do, at each change of phase and when it goes away.
//!
//! # Locking
//! None: the owner's, as the caches around it are.
//!
//! # Safety
//! Records are handed on and given back as they came; nothing here looks into one.
#![allow(unsafe_code)]

use super::{Inner, PageHeap};
use crate::addr::{Addr, PageCount};
use crate::heap::class::Class;
use crate::heap::counters::{MemoryState, Seat, Writer};
use crate::offheap::Persistent;
use crate::os::{Os, OsError};
use crate::pages::{PageCache, PageRun};
use crate::span::Span;
use core::cell::Cell;
use core::ptr::NonNull;

/// Longer runs than these are not asked of a mutator's pages: they would seldom be found there.
pub(super) const LOCAL_PAGES: PageCount = PageCount::new(16);

/// How many records there is room for. Half of them are fetched at once.
const RECORDS: usize = 16;

/// How many late spans there is room for.
const LATE: usize = 16;

/// A used-up span that has not got back into its class yet, because that was locked.
#[derive(Clone, Copy)]
pub(in crate::heap) struct Late {
    pub(in crate::heap) span: NonNull<Span>,
    pub(in crate::heap) class: &'static Class,
    pub(in crate::heap) has_room: bool,
}

/// A place for one. Zeroed memory is a valid value: nothing.
#[derive(Default)]
struct LatePlace {
    span: Cell<Option<NonNull<Span>>>,
    class: Cell<Option<&'static Class>>,
    has_room: Cell<bool>,
}

impl LatePlace {
    fn set(&self, late: Option<Late>) {
        self.span.set(late.map(|late| late.span));
        self.class.set(late.map(|late| late.class));
        self.has_room.set(late.is_some_and(|late| late.has_room));
    }

    fn take(&self) -> Option<Late> {
        let (span, class) = (self.span.take()?, self.class.take()?);
        Some(Late { span, class, has_room: self.has_room.take() })
    }

    fn is_empty(&self) -> bool {
        self.span.get().is_none()
    }
}

/// A mutator's pages and span records. Zeroed memory is a valid value without any.
#[derive(Default)]
pub struct LocalPages {
    pages: Cell<PageCache>,
    records: [Cell<Option<NonNull<Span>>>; RECORDS],
    count: Cell<usize>,
    late: [LatePlace; LATE],
    seat: Seat,
}

impl LocalPages {
    /// The lowest `n` pages in a row that are here, with a record for their span; `None` if either is
    /// missing. `commit` is asked before they are handed out, and may refuse.
    pub(super) fn take(
        &self,
        n: PageCount,
        commit: impl FnOnce(&PageRun) -> bool,
    ) -> Option<(NonNull<Span>, PageRun)> {
        if n >= LOCAL_PAGES || self.count.get() == 0 {
            return None;
        }
        let mut pages = self.pages.get();
        let run = pages.alloc(n)?;
        if !commit(&run) {
            return None;
        }
        self.pages.set(pages);
        Some((self.take_record()?, run))
    }

    /// A record, if there is one.
    pub(super) fn take_record(&self) -> Option<NonNull<Span>> {
        let last = self.count.get().checked_sub(1)?;
        self.count.set(last);
        self.records[last].take()
    }

    /// Puts a record back that was taken and not used.
    pub(super) fn put_record(&self, record: NonNull<Span>) {
        let count = self.count.get();
        self.records[count].set(Some(record));
        self.count.set(count + 1);
    }

    /// Fetches records until half of the room for them is used, or there are no more; at least one is here
    /// afterwards.
    pub(super) fn fetch_records(
        &self,
        inner: &mut Inner,
        os: &Os,
        memory: &Persistent,
    ) -> Result<(), OsError> {
        while self.count.get() < RECORDS / 2 {
            match inner.spans.alloc(os, memory) {
                Ok(record) => self.put_record(record),
                Err(error) if self.count.get() == 0 => return Err(error),
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// Where the pages lie that were fetched last; null before the first.
    pub(in crate::heap) fn place(&self) -> Addr {
        self.pages.get().base()
    }

    /// Whether no page is here.
    pub(in crate::heap) fn is_without_pages(&self) -> bool {
        self.pages.get().is_empty()
    }

    /// Takes pages in; there were none.
    pub(super) fn put_pages(&self, pages: PageCache) {
        debug_assert!(self.is_without_pages());
        self.pages.set(pages);
    }

    /// Keeps a late span; it comes back when there are too many.
    pub(in crate::heap) fn put_late(&self, late: Late) -> Result<(), Late> {
        match self.late.iter().find(|place| place.is_empty()) {
            Some(place) => place.set(Some(late)),
            None => return Err(late),
        }
        Ok(())
    }

    /// A late span, the one first that has been here for longest.
    pub(in crate::heap) fn take_late(&self) -> Option<Late> {
        let first = self.late[0].take()?;
        // The others move up.
        (1..LATE).for_each(|place| self.late[place - 1].set(self.late[place].take()));
        Some(first)
    }

    /// How many late spans are here.
    #[inline]
    pub(in crate::heap) fn count_late(&self) -> usize {
        match self.late[0].is_empty() {
            true => 0,
            false => self.late.iter().take_while(|place| !place.is_empty()).count(),
        }
    }

    /// The pages that are here.
    #[cfg(test)]
    pub(super) fn pages_now(&self) -> PageCache {
        self.pages.get()
    }

    /// The mutator's place among those who count.
    pub(in crate::heap) fn seat(&self) -> &Seat {
        &self.seat
    }
}

/// How many of the pages in `pages` have memory.
pub(super) fn ready_pages(pages: &PageCache) -> PageCount {
    PageCount::new((pages.free_bits() & !pages.scavenged_bits()).count_ones() as usize)
}

impl PageHeap {
    /// Takes back the pages and the records that a mutator has; false if it had no pages.
    pub fn take_back(&self, os: &Os, memory: &Persistent, local: &LocalPages) -> bool {
        let mut pages = local.pages.take();
        let had_pages = !pages.is_empty();
        if !had_pages && local.count.get() == 0 {
            return false;
        }
        let (writer, ready) = (self.writer(os, memory, local), ready_pages(&pages));
        // Before they are free: who takes one of them then counts that, and there are never less than none.
        self.totals.change(writer, MemoryState::Cached, MemoryState::Free, ready);
        let mut inner = self.inner.lock();
        pages.flush(&mut inner.pages);
        while let Some(record) = local.take_record() {
            // SAFETY: the record came from this pool, and describes nothing that anybody has.
            unsafe { inner.spans.free(record) };
        }
        had_pages
    }

    /// The right to count for the mutator that `local` belongs to.
    pub(super) fn writer(&self, os: &Os, memory: &Persistent, local: &LocalPages) -> Writer<'_> {
        self.counters().writer(&local.seat, os, memory)
    }
}
