//! What becomes of freed chunks when their grace period is over: their addresses go into quarantine, and their memory
//! moves on, is kept, or goes back to the system.
//!
//! | chunk | memory | see |
//! |---|---|---|
//! | of 2 MiB or more | is moved to free addresses, for the next who wants some | [`crate::heap::page_heap`], `moving` |
//! | a smaller one, in a run of 64 KiB or more | is kept until a cycle has looked at it, then used again | [`super::keep`] |
//! | any other, or what neither of these will have | goes back | [`PageHeap::guard`] |
//!
//! No more is moved, and no more kept, than is *enough*, as [`super::keep`] says: free pages that are ready are counted
//! for the one, which is what was moved becomes, and what is kept for the other. What is not moved may be kept.
//!
//! Moving a unit takes as long as telling the other processors of it, however much is moved. So it is worth while for
//! whole units, and takes more time than it saves for pieces of them; and what large arenas leave behind does not
//! ask for a cycle before its addresses are many.
//!
//! # Safety
//! As the registry's.
#![allow(unsafe_code)]

use super::order::{sorted, stretch};
use super::registry::{Arenas, joined, record, span_of};
use crate::addr::{AddrRange, Bytes};
use crate::heap::page_heap::PageHeap;
use crate::offheap::Persistent;
use crate::os::{Guarding, MOVE_UNIT, Os};
use crate::span::Chunk;
use crate::sync::atomic::Ordering;
use core::ptr::NonNull;

impl Arenas {
    /// Guards the pages of what is pending, or shuts them ([`super::keep`]).
    ///
    /// # Safety
    /// A grace period that began after [`Arenas::take_freed`] is over, and no cycle marks. This is the
    /// undertaker.
    pub unsafe fn quarantine_pending(&self, os: &Os, memory: &Persistent, pages: &PageHeap) {
        let mut next = sorted(self.take_pending());
        let bound = self.kept.bound(pages, self.usual.held());
        let moves = os.can_move();
        while let Some(first) = next {
            // Chunks that lie one behind the other, in either direction, are guarded in one call.
            let mut range = self.bury(first);
            let room = bound.saturating_sub(self.kept.bytes());
            let (fits, is_movable) = (range.bytes() <= room, moves && is_movable(range));
            next = record(first).next();
            while let Some(at) = next {
                let range_of_it = record(at).range();
                // What may be kept is not made too long for it.
                let joined = joined(range, range_of_it)
                    .filter(|joined| is_movable || (joined.bytes() <= room) == fits)
                    .filter(|_| (moves && self::is_movable(range_of_it)) == is_movable);
                let Some(joined) = joined else { break };
                self.bury(at);
                range = joined;
                next = record(at).next();
            }
            if is_movable {
                // SAFETY: the chunks were freed, and nobody uses them, by the caller's promise.
                let moved = unsafe { self.move_on((os, memory, pages), range, bound) };
                if let Some(guarding) = moved {
                    self.note_guarded(first, next, guarding);
                    continue;
                }
            }
            // SAFETY: as above.
            if unsafe { self.try_keep(os, pages, (first, next), range, bound) } {
                self.note_guarded(first, next, Guarding::Faults);
                continue;
            }
            // SAFETY: as above.
            let guarding = unsafe { pages.guard(os, range) };
            self.note_guarded(first, next, guarding);
        }
    }

    /// Moves the memory of chunks that lie one behind the other to other addresses, and guards them; what is not moved
    /// goes back to the system. `None` if none can be moved, or there is enough: then nothing has changed.
    ///
    /// # Safety
    /// As [`Arenas::quarantine_pending`]; the chunks are buried.
    unsafe fn move_on(
        &self,
        (os, memory, pages): (&Os, &Persistent, &PageHeap),
        range: AddrRange,
        bound: Bytes,
    ) -> Option<Guarding> {
        let mut guarding = Guarding::Faults;
        let mut at = range.base();
        while at + MOVE_UNIT <= range.end() && pages.idle() + MOVE_UNIT <= bound {
            // SAFETY: the caller's promise.
            let moved = unsafe { pages.move_out(os, memory, AddrRange::at(at, MOVE_UNIT)) };
            let Some(moved) = moved else { break };
            guarding = guarding.and(moved);
            at = at + MOVE_UNIT;
        }
        if at == range.base() {
            return None;
        }
        // What has been moved is not for the scavenger.
        pages.set_arena_goal(self.needed(pages));
        let rest = AddrRange::new(at, range.end());
        if !rest.is_empty() {
            // SAFETY: as above.
            guarding = guarding.and(unsafe { pages.guard(os, rest) });
        }
        Some(guarding)
    }

    /// Notes what guarding the chunks from `first` up to `behind` has come to.
    fn note_guarded(
        &self,
        first: NonNull<Chunk>,
        behind: Option<NonNull<Chunk>>,
        guarding: Guarding,
    ) {
        let faults = guarding == Guarding::Faults;
        for at in stretch(first, behind) {
            let bytes = record(at).range().bytes().get() as u64;
            self.counts.guarded.fetch_add(bytes, Ordering::Relaxed);
            if !faults {
                self.counts.unguardable.fetch_add(bytes, Ordering::Relaxed);
            }
        }
    }

    /// Says in the span of a freed chunk that its memory is about to go; returns its addresses.
    fn bury(&self, at: NonNull<Chunk>) -> AddrRange {
        let chunk = record(at);
        self.clear(chunk);
        // SAFETY: the undertaker does this, while no cycle marks.
        unsafe { span_of(chunk).set_quarantined() };
        chunk.range()
    }
}

/// Whether a chunk begins with whole units.
fn is_movable(chunk: AddrRange) -> bool {
    chunk.base().is_aligned(MOVE_UNIT.get()) && chunk.bytes() >= MOVE_UNIT
}
