//! The scavenger's work: free pages go back to the system.
//!
//! Which pages, the page allocator knows ([`crate::pages`]): the highest free ones of the chunks that are not
//! dense. When and how much is decided by the caller:
//!
//! | who | when | how much | forced |
//! |---|---|---|---|
//! | the collector's thread, at a steady pace ([`crate::heap::scavenge_pace`]) or in haste | between cycles | down to the goals | no |
//! | an allocation for which memory was made ready | after it has its pages | as much, but no more than is over the first goal | no |
//! | an allocation of a mebibyte or more that would grow the heap beyond its soft limit | before it has its pages | what is missing | yes |
//! | any that has done so | after it has its pages | as much, and 256 KiB | yes |
//! | an allocation that meets the hard limit | before it is refused | what is missing | yes |
//! | `release_memory()` | on request | everything | yes |
//!
//! "Forced" takes dense chunks, too, and those that have been busy lately.
//!
//! # Goals
//! The *retained* memory is what spans use and what is free and not returned. The first goal follows the
//! heap's own goal (it may grow to that anyway, and a little more); the second is 95 % of the lower limit.
//!
//! A heap that *settles*, because it has become much smaller, keeps hardly anything for its growth: its free
//! pages lie scattered over what it once was, each with side tables and neighbours that are not free. The
//! lowest pages are the next to be used, and cost a page fault each.
//!
//! # Locking
//! Pages are taken under the page heap's lock, returned to the system without it, and given back under it:
//! meanwhile they are allocated, as far as everybody else can see. Only the side tables of what has been
//! returned, a thirty-second of it, go under the lock.
//!
//! # Safety
//! Free pages that were taken belong to the scavenger alone.
#![allow(unsafe_code)]

use super::{PageHeap, tables};
use crate::addr::{Addr, AddrRange, Bytes, CHUNK_BYTES, PAGE_BYTES, PageCount};
use crate::heap::counters::MemoryState;
use crate::heap::limits::RECORDS_BYTES;
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

/// The part of the pages in use that a settling heap keeps free.
const SETTLING_SPARE: usize = 16;

/// The most that is returned between two looks at the lock.
const PIECE: Bytes = Bytes::new(4 << 20);

/// For so many bytes room is made below the soft limit before they are taken.
const LARGE: Bytes = Bytes::new(1 << 20);

/// What a growth beyond the soft limit returns besides what it brought.
const SOFT_PIECE: Bytes = Bytes::new(256 << 10);

impl PageHeap {
    /// Returns free pages to the system, at least `bytes` of them or all that there are. The result is how
    /// many bytes: at most the rest of a huge page more than was asked for.
    pub fn scavenge(&self, os: &Os, bytes: Bytes, force: Force) -> Bytes {
        let mut returned = Bytes::ZERO;
        while returned < bytes {
            let piece = (bytes - returned).min(PIECE);
            match self.scavenge_one(os, piece, force) {
                Bytes::ZERO => break,
                some => returned += some,
            }
        }
        returned
    }

    /// Returns all free pages to the system: those that earlier searches have given up as well.
    pub fn scavenge_all(&self, os: &Os) -> Bytes {
        self.inner.lock().pages.reset_scavenge_search();
        // No more than there is now: others may free pages for as long as they like.
        self.scavenge(os, self.retained(), Force::Yes)
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
        let mut inner = self.inner.lock();
        let taken = inner.pages.take_for_scavenging(forced, min, max, huge);
        let Some(range) = taken else { return Bytes::ZERO };
        inner.returns[0] += 1;
        drop(inner);
        // SAFETY: O1, O2: free pages of this heap, and nobody else can take them.
        unsafe { self.unuse(os, range, range.bytes()) };
        let mut inner = self.inner.lock();
        inner.pages.finish_scavenging(range);
        inner.returns[1] += 1;
        tables::put_away(&mut inner, os, range);
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
        let pages = ready.whole_pages();
        self.totals.shift(MemoryState::Free, MemoryState::Returned, pages);
    }

    /// Sets the retained bytes above which pages are returned; `None`: no amount is too much.
    ///
    /// Below the *line* lie so many bytes of pages. A heap that has shrunk has spans above it, scattered over
    /// what it once was; they are filled last, so that they drain.
    pub fn set_retain_goal(&self, goal: Option<Bytes>) {
        let mut left = goal.unwrap_or(Bytes::new(usize::MAX));
        self.retain_goal.store(left.get(), Ordering::Relaxed);
        let mut line = Addr::new(usize::MAX);
        for range in self.inner.lock().pages.in_use() {
            if left < range.bytes() {
                line = range.base() + left;
                break;
            }
            left -= range.bytes();
        }
        self.line.store(line.get(), Ordering::Relaxed);
    }

    /// Sets how many bytes may be retained beyond that goal, because user arenas come and go.
    pub fn set_arena_goal(&self, goal: Bytes) {
        self.arena_goal.store(goal.get(), Ordering::Relaxed);
    }

    /// Whether `n` pages in a row are free that begin below the line.
    pub fn has_room_below_line(&self, n: PageCount) -> bool {
        let lowest = self.inner.lock().pages.lowest_run(n);
        lowest.is_some_and(|lowest| !self.is_above_line(lowest))
    }

    /// Whether a span at `base` lies where the heap should not need any.
    pub fn is_above_line(&self, base: Addr) -> bool {
        base.get() >= self.line.load(Ordering::Relaxed)
    }

    /// Bytes that are ready: of spans, or free and not returned.
    pub fn retained(&self) -> Bytes {
        self.totals.retained()
    }

    /// Tells the index of free pages that a cycle has ended.
    pub fn next_scavenge_generation(&self) {
        self.inner.lock().pages.next_scavenge_generation();
    }

    /// From here on somebody waits for pages that become free.
    pub fn watch(&self) {
        self.watched.store(true, Ordering::Relaxed);
    }

    /// Whether no page has become free since [`PageHeap::watch`] while there was an excess.
    pub fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Relaxed)
    }

    /// Pages have just become free; true if somebody has to hear of it who can do something about it.
    pub fn ends_watch(&self, os: &Os) -> bool {
        self.is_watched()
            && self.excess(os) >= os.page_size()
            && self.watched.swap(false, Ordering::Relaxed)
    }

    /// Says whether the heap settles.
    pub fn set_settling(&self, settling: bool) {
        self.settling.store(settling, Ordering::Relaxed);
    }

    /// Bytes that are retained beyond the first goal.
    fn over_goal(&self) -> Bytes {
        let arenas = Bytes::new(self.arena_goal.load(Ordering::Relaxed));
        let goal = Bytes::new(self.retain_goal.load(Ordering::Relaxed)).saturating_add(arenas);
        let over = self.totals.retained().saturating_sub(goal);
        if !self.settling.load(Ordering::Relaxed) {
            return over;
        }
        let spare = Bytes::new(self.in_use().get() / SETTLING_SPARE).max(arenas);
        over.max(self.totals.idle().saturating_sub(spare))
    }

    /// Bytes that are retained, or ready, beyond the goals.
    pub fn excess(&self, os: &Os) -> Bytes {
        let retained = self.over_goal();
        let limit = self.limits.lowest().map_or(Bytes::ZERO, |limit| {
            let goal = crate::heap::scavenge_pace::limit_goal(limit);
            // A heap may be above its soft limit for good, and only what is free can be returned.
            let free = self.totals.idle();
            os.accounting().ready().saturating_sub(goal).min(free)
        });
        retained.max(limit)
    }

    /// Returns what a growth by `grown` bytes has brought the heap over its goal, or over its soft limit.
    pub(super) fn scavenge_after_growth(&self, os: &Os, grown: Bytes) {
        if grown == Bytes::ZERO {
            return;
        }
        if self.limits.grown_beyond(os.accounting().ready()) != Bytes::ZERO {
            self.keep_below_soft_limit(os, grown);
            return;
        }
        let over = self.over_goal();
        if over != Bytes::ZERO {
            self.scavenge(os, over.min(grown), Force::No);
        }
    }

    /// Before a run of `n` pages is taken that nothing free has room for: returns free pages as far as it would
    /// bring the heap over its soft limit, and no more than a piece beside what is taken: the limit may just have been
    /// lowered by gigabytes. Runs of less than a mebibyte do not matter so much; what they are over is returned
    /// after them.
    pub(super) fn make_soft_room(&self, os: &Os, n: PageCount, align: Bytes) {
        if self.limits.soft().is_none() || n.bytes() < LARGE {
            return;
        }
        let missing = self.limits.grown_beyond(os.accounting().ready() + n.bytes());
        if missing != Bytes::ZERO && !self.fits(n, align) {
            self.scavenge(os, missing.min(n.bytes() + SOFT_PIECE), Force::Yes);
        }
    }

    /// Returns free pages, dense and busy ones too, because the heap has grown by `grown` bytes and is above
    /// its soft limit. As much as it has grown by, or a piece more, lest one allocation work for all.
    #[cold]
    fn keep_below_soft_limit(&self, os: &Os, grown: Bytes) {
        let over = self.limits.grown_beyond(os.accounting().ready());
        self.scavenge(os, over.min(grown + SOFT_PIECE), Force::Yes);
        if self.limits.grown_beyond(os.accounting().ready()) != Bytes::ZERO {
            self.limits.note_over();
        }
    }

    /// Tries to make room below the hard limit for pages of `more` bytes, and for the tables and records that
    /// growing by them would take; `beside`: for that many bytes of other tables, too. The result is how much
    /// was returned.
    pub(super) fn make_room(&self, os: &Os, more: Bytes, beside: Bytes) -> Bytes {
        let chunks = more.get().div_ceil(CHUNK_BYTES) + 1;
        let tables = table_bytes_for(Bytes::new(chunks * CHUNK_BYTES * TABLES)) + beside;
        let wanted = os.accounting().ready() + more + tables + Bytes::new(RECORDS_BYTES);
        let missing = wanted.saturating_sub(self.limits.allowed());
        self.scavenge(os, missing, Force::Yes)
    }

    /// Waits until somebody has finished to return what was on its way when this was called, if anything
    /// was: whoever finds no page to return, because others have just taken them all, has room after that.
    pub(super) fn wait_for_returns(&self) {
        let [begun, _] = self.inner.lock().returns;
        // He is in a system call for 4 MiB at most, holds no lock and waits for nobody.
        while self.inner.lock().returns[1] < begun {
            std::thread::yield_now();
        }
    }
}
