//! The scavenger's work: free pages go back to the system.
//!
//! Which pages, the page allocator knows ([`crate::pages`]): the highest free ones of the chunks that are not
//! dense. When and how much is decided by the caller:
//!
//! | who | when | how much | forced |
//! |---|---|---|---|
//! | the collector's thread, at the pace of [`crate::heap::scavenge_pace`] | between cycles | down to the goals | no |
//! | an allocation that made the heap grow | after it has its pages | what the growth is over the goal | no |
//! | an allocation that meets the memory limit | before it is refused | what is missing | yes |
//! | `release_memory()` | on request | everything | yes |
//!
//! "Forced" takes dense chunks, too, and those that have been busy lately.
//!
//! # Goals
//! The *retained* memory is what spans use and what is free and not returned. The first goal follows the
//! heap's own goal (it may grow to that anyway, and a tenth more); the second is 95 % of a memory limit.
//!
//! # Locking
//! Pages are taken under the page heap's lock, returned to the system without it, and given back under it:
//! meanwhile they are allocated, as far as everybody else can see.
//!
//! # Safety
//! Free pages that were taken belong to the scavenger alone.
#![allow(unsafe_code)]

use super::{PageHeap, RECORDS_BYTES, tables};
use crate::addr::{AddrRange, Bytes, CHUNK_BYTES, PAGE_BYTES, PageCount};
use crate::heap::counters::MemoryState;
use crate::os::Os;
use crate::span::arena::{TABLES, table_bytes_for};
use crate::sync::atomic::Ordering;

/// Whether dense and busy chunks are taken from as well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Force {
    /// They are left alone.
    No,
    /// They are not.
    Yes,
}

/// The most that is returned between two looks at the lock.
const PIECE: Bytes = Bytes::new(4 << 20);

impl PageHeap {
    /// Returns free pages to the system, at least `bytes` of them or all that there are. The result is how
    /// many bytes: at most the rest of a huge page more than was asked for.
    pub fn scavenge(&self, os: &Os, bytes: Bytes, force: Force) -> Bytes {
        let mut released = Bytes::ZERO;
        while released < bytes {
            let piece = (bytes - released).min(PIECE);
            match self.scavenge_one(os, piece, force) {
                Bytes::ZERO => break,
                some => released += some,
            }
        }
        released
    }

    /// Returns all free pages to the system: those that earlier searches have given up as well.
    pub fn scavenge_all(&self, os: &Os) -> Bytes {
        self.inner.lock().pages.reset_scavenge_search();
        self.scavenge(os, Bytes::new(usize::MAX), Force::Yes)
    }

    fn scavenge_one(&self, os: &Os, bytes: Bytes, force: Force) -> Bytes {
        let page = os.page_size().get();
        let min = PageCount::new((page / PAGE_BYTES).max(1));
        let max = PageCount::new(bytes.get().div_ceil(PAGE_BYTES));
        let huge = match os.huge_page_size().get() {
            huge if huge > page => huge / PAGE_BYTES,
            _ => 0,
        };
        let forced = force == Force::Yes;
        let taken = self.inner.lock().pages.take_for_scavenging(forced, min, max, huge);
        let Some(range) = taken else { return Bytes::ZERO };
        // SAFETY: O1, O2: free pages of this heap, and nobody else can take them.
        unsafe { self.unuse(os, range, range.bytes()) };
        let mut inner = self.inner.lock();
        inner.pages.finish_scavenging(range);
        tables::put_away(&mut inner, os, range.base());
        range.bytes()
    }

    /// Returns memory to the system, of which `ready` bytes are ready, and remembers what that leaves behind.
    ///
    /// # Safety
    /// O1 and O2 for `range`, which lies in grown chunks.
    pub(super) unsafe fn unuse(&self, os: &Os, range: AddrRange, ready: Bytes) {
        if !os.zero_after_unused() {
            // What comes back is anything, even if nobody has ever written to it.
            super::soil(range);
        }
        // SAFETY: the caller's promise.
        unsafe { os.unused(range, ready) };
        let pages = PageCount::new(ready.get() / PAGE_BYTES);
        self.totals.shift(MemoryState::Free, MemoryState::Returned, pages);
    }

    /// Sets the retained bytes above which pages are returned; `None`: no amount is too much.
    pub fn set_retain_goal(&self, goal: Option<Bytes>) {
        let goal = goal.map_or(usize::MAX, Bytes::get);
        self.retain_goal.store(goal, Ordering::Relaxed);
    }

    /// Bytes that are ready: of spans, or free and not returned.
    pub fn retained(&self) -> Bytes {
        self.totals.retained()
    }

    /// Tells the index of free pages that a cycle has ended.
    pub fn next_scavenge_generation(&self) {
        self.inner.lock().pages.next_scavenge_generation();
    }

    /// Bytes that are retained, or ready, beyond the goals.
    pub fn excess(&self, os: &Os) -> Bytes {
        let goal = Bytes::new(self.retain_goal.load(Ordering::Relaxed));
        let retained = self.totals.retained().saturating_sub(goal);
        let limit = self.limit.map_or(Bytes::ZERO, |limit| {
            let goal = crate::heap::scavenge_pace::limit_goal(limit);
            os.accounting().ready().saturating_sub(goal)
        });
        retained.max(limit)
    }

    /// Returns what a growth by `grown` bytes has brought the heap over its goal.
    pub(super) fn scavenge_after_growth(&self, os: &Os, grown: Bytes) {
        let goal = Bytes::new(self.retain_goal.load(Ordering::Relaxed));
        let over = self.totals.retained().saturating_sub(goal);
        if grown != Bytes::ZERO && over != Bytes::ZERO {
            self.scavenge(os, over.min(grown), Force::No);
        }
    }

    /// Tries to make room below the limit for pages of `more` bytes, and for the tables and records that
    /// growing by them would take.
    pub(super) fn make_room(&self, os: &Os, more: Bytes) {
        let chunks = more.get().div_ceil(CHUNK_BYTES) + 1;
        let tables = table_bytes_for(Bytes::new(chunks * CHUNK_BYTES * TABLES));
        // Large physical pages become ready by whole chunks when the heap grows.
        let more = match super::ready::pages_are_small(os) {
            true => more,
            false => Bytes::new(chunks * CHUNK_BYTES),
        };
        let wanted = os.accounting().ready() + more + tables + Bytes::new(RECORDS_BYTES);
        let missing = wanted.saturating_sub(self.allowed());
        self.scavenge(os, missing, Force::Yes);
    }
}
