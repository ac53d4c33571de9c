//! Freed chunks that keep their memory until the next cycle has looked at them.
//!
//! A page that goes back to the system and comes again costs a fault and zeros that nobody has asked for: ten times as
//! much as filling it with values. So what dies between two cycles is *shut* at first, as far as there is not much of
//! it: an access faults, the memory stays. A cycle that finds no pointer to it makes free pages of it, ready to be
//! written; and what it does find a pointer to is guarded, as everything else was at once.
//!
//! # How much
//! At most the largest of [`MOST`], a quarter of the heap, and what is [usual](super::usual): all that arenas had
//! lately when one of them was freed, with what had been freed and waited for its grace period (up to
//! [`usual::MOST`]). So a program that fills arenas of thirty mebibytes one after the other keeps one of them; and
//! where the collector's thread does not get a processor as soon as it would like, the arenas of one turn become those
//! of the next. Of a limit of the heap's it takes the 64th part at most. When half of that is there and marking is
//! cheap, since the heap has no more than a quarter as much in it and the last cycle has looked at no more, a cycle is
//! due. Whatever has waited for a second is given away.
//!
//! # Runs
//! Each range that is shut by itself costs mappings and two system calls, whatever its length. So chunks are shut in
//! [runs](super::order) of [`LEAST`] bytes or more, and opened in such.
//!
//! # Locking
//! None: everything here is done by the undertaker, but that anybody may read the counts.
//!
//! # Safety
//! As the registry's.
#![allow(unsafe_code)]

use super::order::{Run, stretch};
use super::registry::{Arenas, record, span_of, take_span};
use super::usual::{self, left_since, now};
use crate::addr::{AddrRange, Bytes};
use crate::heap::page_heap::PageHeap;
use crate::os::{Guarding, Os};
use crate::span::Chunk;
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use core::ptr::NonNull;
use std::time::Duration;

/// So much may be kept in any heap.
pub(super) const MOST: Bytes = Bytes::new(64 << 20);

/// What part of a larger heap may be kept: one in so many.
const SHARE: usize = 4;

/// What part of a limit may be kept: one in so many.
const LIMIT_SHARE: usize = 64;

/// The shortest run that is kept.
const LEAST: Bytes = Bytes::new(64 << 10);

/// How much is kept, and since when.
pub(super) struct Kept {
    bytes: AtomicUsize,
    /// When something was kept last, see [`now`].
    since: AtomicU64,
    is_plenty: AtomicBool,
    /// Bytes that the last complete cycle has looked at.
    work: AtomicU64,
}

impl Kept {
    pub(super) const fn new() -> Kept {
        let (bytes, since) = (AtomicUsize::new(0), AtomicU64::new(0));
        let (is_plenty, work) = (AtomicBool::new(false), AtomicU64::new(0));
        Kept { bytes, since, is_plenty, work }
    }

    /// Bytes that are kept.
    pub(super) fn bytes(&self) -> Bytes {
        Bytes::new(self.bytes.load(Ordering::Relaxed))
    }

    /// Whether so much is kept that a cycle is due.
    pub(super) fn wants_cycle(&self) -> bool {
        self.is_plenty.load(Ordering::Relaxed)
    }

    /// A complete cycle has ended, which has looked at so many bytes.
    pub(super) fn end_cycle(&self, work: u64) {
        self.work.store(work, Ordering::Relaxed);
    }

    /// How much may be kept, when arenas usually hold `held`.
    pub(super) fn bound(&self, pages: &PageHeap, held: Bytes) -> Bytes {
        let plenty = MOST.get().max(pages.in_use().get() / SHARE).max(held.min(usual::MOST).get());
        let limit = pages.limits().target().map_or(usize::MAX, |limit| limit.get() / LIMIT_SHARE);
        Bytes::new(plenty.min(limit))
    }

    fn add(&self, bytes: Bytes, bound: Bytes, in_use: Bytes) {
        let kept = self.bytes.fetch_add(bytes.get(), Ordering::Relaxed) + bytes.get();
        self.since.store(now(), Ordering::Relaxed);
        let little = (kept / SHARE) as u64;
        let is_cheap = in_use.get() as u64 <= little && self.work.load(Ordering::Relaxed) <= little;
        if kept >= bound.get() / 2 && is_cheap {
            self.is_plenty.store(true, Ordering::Relaxed);
        }
    }

    fn sub(&self, bytes: Bytes) {
        self.bytes.fetch_sub(bytes.get(), Ordering::Relaxed);
        self.is_plenty.store(false, Ordering::Relaxed);
    }
}

impl Arenas {
    /// Shuts the pages of the chunks from `first` up to `behind`, which are `range`, if they are to be kept.
    ///
    /// # Safety
    /// As [`Arenas::quarantine_pending`]; the chunks are buried.
    pub(super) unsafe fn try_keep(
        &self,
        os: &Os,
        pages: &PageHeap,
        (first, behind): (NonNull<Chunk>, Option<NonNull<Chunk>>),
        range: AddrRange,
        bound: Bytes,
    ) -> bool {
        let bytes = range.bytes();
        if bytes < LEAST || self.kept.bytes() + bytes > bound {
            return false;
        }
        // SAFETY: the caller's promise.
        if !unsafe { pages.shut(os, range) } {
            return false;
        }
        stretch(first, behind).for_each(|at| span_of(record(at)).set_shut(true));
        self.kept.add(bytes, bound, pages.in_use());
        true
    }

    /// Frees the chunks of a run, which are shut, with their memory. If the system refuses, they are guarded, and wait for
    /// the next cycle: what is kept asks for cycles, and must not do so for ever.
    ///
    /// # Safety
    /// As [`Arenas::end_quarantines`], which has found nothing that points to them.
    pub(super) unsafe fn free_shut(&self, run: &Run, os: &Os, pages: &PageHeap) {
        if !pages.open(os, run.range) {
            run.chunks().for_each(|at| self.give_away(record(at), os, pages));
            return;
        }
        self.kept.sub(run.range.bytes());
        self.note_released(run.range.bytes());
        for at in run.chunks() {
            // SAFETY: the right to the span was put into the record.
            let span = unsafe { take_span(record(at)) };
            // SAFETY: nobody points to it, by the caller's promise.
            unsafe { pages.free_chunk(span) };
            self.remove(at);
        }
    }

    /// Guards a chunk that was shut.
    pub(super) fn give_away(&self, chunk: &Chunk, os: &Os, pages: &PageHeap) {
        let range = chunk.range();
        // SAFETY: the chunk was freed, and nobody uses it: it was shut.
        let guarding = unsafe { pages.guard(os, range) };
        span_of(chunk).set_shut(false);
        self.kept.sub(range.bytes());
        if guarding != Guarding::Faults {
            self.note_unguardable(range.bytes());
        }
    }

    /// Guards everything that was kept.
    ///
    /// # Safety
    /// This is the undertaker, and no cycle marks.
    pub unsafe fn give_kept_away(&self, os: &Os, pages: &PageHeap) {
        if self.kept.bytes() == Bytes::ZERO {
            return;
        }
        self.for_each(|at| {
            let chunk = record(at);
            if span_of(chunk).is_shut() {
                self.give_away(chunk, os, pages);
            }
        });
    }

    /// Bytes in quarantine that have their memory still.
    pub fn kept(&self) -> Bytes {
        self.kept.bytes()
    }

    /// How long until what is kept has been for too long; `None` if nothing is.
    pub fn kept_for(&self) -> Option<Duration> {
        (self.kept.bytes() > Bytes::ZERO).then(|| left_since(&self.kept.since))
    }
}
