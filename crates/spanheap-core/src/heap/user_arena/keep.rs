//! Freed chunks that keep their memory until the next cycle has looked at them.
//!
//! A page that goes back to the system and comes again costs a fault and zeros that nobody has asked for: ten times as
//! much as filling it with values. So what dies between two cycles is *shut* at first, as far as there is not much of it:
//! an access faults, the memory stays. A cycle that finds no pointer to it makes free pages of it, ready to be written; and
//! what it does find a pointer to is guarded, as everything else was at once.
//!
//! # How much
//! At most [`MOST`] or a quarter of the heap, and none when a hard limit of the heap's would feel it. When half of that
//! is there and marking is cheap, since the heap has no more than a quarter as much in it, a cycle is due. Whatever has
//! waited for [`AGE`] is given away.
//!
//! # Runs
//! Each range that is shut by itself costs mappings and two system calls, whatever its length. So chunks are shut in
//! runs that lie one behind the other, of [`LEAST`] bytes or more, and opened in such.
//!
//! # Locking
//! None: everything here is done by the collector's thread, and the counts may be read by anybody.
//!
//! # Safety
//! As the registry's.
#![allow(unsafe_code)]

use super::registry::{Arenas, joined, record, span_of, take_span};
use crate::addr::{AddrRange, Bytes};
use crate::heap::page_heap::PageHeap;
use crate::os::{Guarding, Os};
use crate::span::{Chunk, Table};
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use core::ptr::NonNull;
use std::time::{Duration, Instant};

/// So much may be kept in any heap.
const MOST: usize = 16 << 20;

/// What part of a larger heap may be kept: one in so many.
const SHARE: usize = 4;

/// The shortest run that is kept.
const LEAST: Bytes = Bytes::new(64 << 10);

/// How long it is kept at most.
const AGE: Duration = Duration::from_secs(1);

/// How much is kept, and since when.
pub(super) struct Kept {
    bytes: AtomicUsize,
    /// When something was kept last, see [`now`].
    since: AtomicU64,
    is_plenty: AtomicBool,
}

impl Kept {
    pub(super) const fn new() -> Kept {
        let (bytes, since) = (AtomicUsize::new(0), AtomicU64::new(0));
        Kept { bytes, since, is_plenty: AtomicBool::new(false) }
    }

    /// Bytes that are kept.
    pub(super) fn bytes(&self) -> Bytes {
        Bytes::new(self.bytes.load(Ordering::Relaxed))
    }

    /// Whether so much is kept that a cycle is due.
    pub(super) fn wants_cycle(&self) -> bool {
        self.is_plenty.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: Bytes, bound: Bytes, in_use: Bytes) {
        let kept = self.bytes.fetch_add(bytes.get(), Ordering::Relaxed) + bytes.get();
        self.since.store(now(), Ordering::Relaxed);
        if kept >= bound.get() / 2 && in_use.get() <= kept / SHARE {
            self.is_plenty.store(true, Ordering::Relaxed);
        }
    }

    fn sub(&self, bytes: Bytes) {
        self.bytes.fetch_sub(bytes.get(), Ordering::Relaxed);
        self.is_plenty.store(false, Ordering::Relaxed);
    }
}

/// Nanoseconds since a moment that is the same for the whole process.
fn now() -> u64 {
    static BEGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    u64::try_from(BEGIN.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// How much may be kept.
pub(super) fn bound(pages: &PageHeap) -> Bytes {
    match pages.limits().hard() {
        Some(_) => Bytes::new(pages.limits().allowed().get() / 64).min(Bytes::new(MOST)),
        None => Bytes::new(MOST.max(pages.in_use().get() / SHARE)),
    }
}

/// Chunks that nobody points to, one behind the other, linked by `next`.
#[derive(Default)]
pub(super) struct Run(Option<(NonNull<Chunk>, AddrRange)>);

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
        let mut next = Some(first);
        while let Some(at) = next.filter(|_| next != behind) {
            span_of(record(at)).set_shut(true);
            next = record(at).next();
        }
        self.kept.add(bytes, bound, pages.in_use());
        true
    }

    /// A cycle has marked completely: a chunk that is shut, and that nobody points to, goes into the run of those that
    /// are freed together; another one is guarded.
    ///
    /// # Safety
    /// As [`Arenas::end_quarantines`].
    pub(super) unsafe fn judge_shut(
        &self,
        run: &mut Run,
        at: NonNull<Chunk>,
        table: Table,
        os: &Os,
        pages: &PageHeap,
    ) {
        let chunk = record(at);
        if chunk.count_bits(table) > 0 {
            self.give_away(chunk, os, pages);
            return;
        }
        if let Some((first, range)) = run.0 {
            if let Some(joined) = joined(range, chunk.range()) {
                chunk.set_next(Some(first));
                run.0 = Some((at, joined));
                return;
            }
            // SAFETY: the same contract.
            unsafe { self.free_run(run, os, pages) };
        }
        chunk.set_next(None);
        run.0 = Some((at, chunk.range()));
    }

    /// Frees the chunks of the run, with their memory. If the system refuses, they wait for the next cycle.
    ///
    /// # Safety
    /// As [`Arenas::end_quarantines`], which has found nothing that points to them.
    pub(super) unsafe fn free_run(&self, run: &mut Run, os: &Os, pages: &PageHeap) {
        let Some((first, range)) = run.0.take() else { return };
        if !pages.open(os, range) {
            return;
        }
        self.kept.sub(range.bytes());
        self.note_released(range.bytes());
        let mut next = Some(first);
        while let Some(at) = next {
            let chunk = record(at);
            next = chunk.next();
            // SAFETY: the right to the span was put into the record.
            let span = unsafe { take_span(chunk) };
            // SAFETY: nobody points to it, by the caller's promise.
            unsafe { pages.free_chunk(span) };
            self.remove(at);
        }
    }

    /// Guards a chunk that was shut.
    fn give_away(&self, chunk: &Chunk, os: &Os, pages: &PageHeap) {
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
    /// This is the collector's thread, and no cycle marks.
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

    /// How long until what is kept has been for too long; `None` if nothing is.
    pub fn kept_for(&self) -> Option<Duration> {
        if self.kept.bytes() == Bytes::ZERO {
            return None;
        }
        let age = now().saturating_sub(self.kept.since.load(Ordering::Relaxed));
        Some(AGE.saturating_sub(Duration::from_nanos(age)))
    }
}
