//! The chunks of all user arenas of a heap, and the steps from "freed" to "free pages".
//!
//! | step | who | when |
//! |---|---|---|
//! | [`Arenas::free`] | anybody | at any time; the arena's chunks go onto the list of freed ones |
//! | [`Arenas::take_freed`] | the undertaker | before a grace period begins, or a cycle: these are *pending* |
//! | [`Arenas::quarantine_pending`] | the same | after that grace period, while no cycle marks: guards their pages, or shuts them |
//! | [`Arenas::clear_bits`] | the same | between the grace periods of a cycle |
//! | [`Arenas::end_quarantines`] | the same | after a cycle whose marks are complete |
//!
//! The *undertaker* is one thread at a time: the collector's, in cycles and between them, or, while that sleeps between two,
//! one that has freed an arena (`collect::undertaker`). It alone takes these steps.
//!
//! # Why it is right
//! *Guarding.* A closure that got a value before the arena was freed may use it until it ends; one that begins
//! later gets none. So when a grace period is over that began after the freeing, nobody uses the memory. Nor does
//! marking: it reads values of freed arenas as long as they are not quarantined, and no arena is while a cycle
//! marks. (A closure may have read pointers out of a value and stored them elsewhere, before the cycle's first
//! grace period was over. So an arena that is freed later than the cycle has begun is scanned by it like any other.)
//!
//! *Releasing.* A chunk that was in quarantine when marking began, and has no bit when it has ended, is not
//! pointed to by any object or value that lives, nor by any closure: whatever a closure holds that is open when
//! marking has ended has been marked. The same goes for the chunks of an abandoned arena in which nobody
//! allocates any more; these need no quarantine.
//!
//! *All of this together* is the model `arenas` of `tests/protocol_model.rs`, in every state of small heaps; each of
//! the conditions above is left out there once, and then something is lost, torn away, or used again too early.
//!
//! # Locking
//! [`Rank::UserArenas`] for the lists and the pool. The list of all chunks grows at its head under the lock, and is
//! shortened by the undertaker alone, which may therefore walk over it without. Whoever frees an arena has
//! its chunks on the list before he gives the arena's lock back, and the end of the heap takes that lock: it may come
//! at any time to a handle that outlives the heap.
//!
//! # Safety
//! Records are made in a pool of the heap's, and given back by the undertaker.
#![allow(unsafe_code)]

use super::order::{List, runs};
use super::usual::Usual;
use super::waiting::{Load, Waiting};
use super::{AlreadyFreed, ArenaCore, Taken, keep};
use crate::addr::{AddrRange, Bytes};
use crate::fatal::fatal;
use crate::heap::page_heap::PageHeap;
use crate::offheap::{FixedPool, Persistent};
use crate::os::{Category, Os, OsError};
use crate::span::sites::{Freed, Sites};
use crate::span::{Chunk, Layout, OwnedSpan, Span, Table};
use crate::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use crate::sync::{Lock, Rank};
use core::ptr::NonNull;
use std::sync::Arc;

/// Bytes in quarantine below which nobody minds: addresses cost next to nothing, and a cycle marks the whole heap.
const QUARANTINE_FLOOR: usize = 512 << 20;

/// How many times the heap in use they may be.
const QUARANTINE_SHARE: usize = 4;

/// For so many bytes the side tables go at once: each call to the system may interrupt the other processors, and the page
/// heap should not be locked for long.
const JOINED: Bytes = Bytes::new(16 << 20);

/// An arena that nobody will free.
struct Abandoned {
    core: Arc<ArenaCore>,
    /// Whether it had been abandoned when the running cycle began. No writer has been made since, and those that were
    /// open then are gone before the snapshot: the closures that have them end in the first grace period. (One that
    /// was forgotten is never given back, and is no reason to wait.)
    is_settled: bool,
}

pub(super) struct Lists {
    pool: FixedPool<Chunk>,
    /// All chunks that have pages, the newest first, linked by `older`.
    all: Option<NonNull<Chunk>>,
    /// Chunks that were freed and that no grace period has been begun for, linked by `next`.
    pub(super) freed: Option<NonNull<Chunk>>,
    /// Those for which one has, linked by `next`; the undertaker alone changes that.
    pub(super) pending: Option<NonNull<Chunk>>,
    pub(super) pending_load: Load,
    /// Arenas that nobody will free.
    abandoned: Vec<Abandoned>,
}

/// What is known of the user arenas of a heap.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Totals {
    /// Arenas made so far.
    pub made: u64,
    /// Arenas freed so far, by their handles or because nobody reached them any more.
    pub freed: u64,
    /// Bytes of chunks of arenas that have not been freed.
    pub live: Bytes,
    /// Bytes of chunks that have been guarded so far.
    pub guarded: u64,
    /// Of these, how many an access does not fault in, because the system refused.
    pub unguardable: u64,
    /// Bytes of address space that have come back from quarantine.
    pub released: u64,
    /// Bytes in quarantine that have their memory still.
    pub kept: Bytes,
    /// Pointers into quarantined chunks that cycles have found, summed over all cycles.
    pub escapes: u64,
    /// Chunks and values of which a report would say nothing, for want of room to note them.
    pub unnoted: u64,
}

#[derive(Default)]
pub(super) struct Counts {
    made: AtomicU64,
    freed: AtomicU64,
    pub(super) live: AtomicUsize,
    /// Those of `live` that belong to arenas that were abandoned.
    pub(super) abandoned: AtomicUsize,
    /// Arenas that have nothing but the unit that they began with.
    pub(super) lone: AtomicUsize,
    pub(super) guarded: AtomicU64,
    pub(super) unguardable: AtomicU64,
    released: AtomicU64,
    escapes: AtomicU64,
}

/// The user arenas of a heap.
pub struct Arenas {
    pub(super) lists: Lock<Lists>,
    /// Whether the heap has ended.
    closed: AtomicBool,
    /// Bytes of the chunks in `freed`, and their number.
    pub(super) waiting: AtomicUsize,
    pub(super) waiting_chunks: AtomicUsize,
    /// Whether the collector's thread looks by itself soon.
    pub(super) watched: AtomicBool,
    /// Bytes in quarantine at which a cycle is due.
    patience: AtomicUsize,
    pub(super) counts: Counts,
    /// 1 + how many times a cycle has begun to mark ([`Arenas::begin_marking`]).
    pub(super) markings: AtomicU64,
    /// What is in quarantine with its memory.
    pub(super) kept: keep::Kept,
    /// What arenas usually have.
    pub(super) usual: Usual,
    /// What is told of the arenas at a fault.
    sites: Sites,
}

// SAFETY: chunk records are reached through the lists, whose lock is around them, or by their owners.
unsafe impl Send for Lists {}

impl Default for Arenas {
    fn default() -> Arenas {
        Arenas::new()
    }
}

impl Arenas {
    /// No arenas.
    pub const fn new() -> Arenas {
        let lists = Lists {
            pool: FixedPool::new(Category::Metadata),
            all: None,
            freed: None,
            pending: None,
            pending_load: Load::NONE,
            abandoned: Vec::new(),
        };
        let counts = Counts {
            made: AtomicU64::new(0),
            freed: AtomicU64::new(0),
            live: AtomicUsize::new(0),
            abandoned: AtomicUsize::new(0),
            lone: AtomicUsize::new(0),
            guarded: AtomicU64::new(0),
            unguardable: AtomicU64::new(0),
            released: AtomicU64::new(0),
            escapes: AtomicU64::new(0),
        };
        Arenas {
            lists: Lock::new(Rank::UserArenas, lists),
            closed: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            waiting_chunks: AtomicUsize::new(0),
            watched: AtomicBool::new(false),
            patience: AtomicUsize::new(QUARANTINE_FLOOR),
            counts,
            markings: AtomicU64::new(1),
            kept: keep::Kept::new(),
            usual: Usual::new(),
            sites: Sites::new(),
        }
    }

    /// What is told of the arenas at a fault.
    pub fn sites(&self) -> &Sites {
        &self.sites
    }

    /// A new arena of the heap numbered `heap`.
    pub fn make(&self, heap: u64, name: Box<str>, limit: Option<Bytes>) -> Arc<ArenaCore> {
        let number = self.counts.made.fetch_add(1, Ordering::Relaxed) + 1;
        Arc::new(ArenaCore::new(number, heap, name, limit))
    }

    /// What is known.
    pub fn totals(&self) -> Totals {
        let Counts { made, freed, live, guarded, unguardable, released, escapes, .. } =
            &self.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Totals {
            made: read(made),
            freed: read(freed),
            live: Bytes::new(live.load(Ordering::Relaxed)),
            guarded: read(guarded),
            unguardable: read(unguardable),
            released: read(released),
            kept: self.kept.bytes(),
            escapes: read(escapes),
            unnoted: self.sites.missed(),
        }
    }

    /// A record for a chunk.
    pub(super) fn new_record(
        &self,
        os: &Os,
        memory: &Persistent,
    ) -> Result<NonNull<Chunk>, OsError> {
        self.lists.lock().pool.alloc(os, memory).map(|(chunk, _)| chunk)
    }

    /// Gives back a record that was taken and not used.
    pub(super) fn put_record(&self, chunk: NonNull<Chunk>) {
        // SAFETY: it came from this pool, and nobody knows it.
        unsafe { self.lists.lock().pool.free(chunk) };
    }

    /// Enters a chunk that has got its pages. Its owner's record is kept alive as long as it has them.
    pub(super) fn enter(&self, at: NonNull<Chunk>) {
        let mut lists = self.lists.lock();
        let chunk = record(at);
        chunk.set_newer(None);
        chunk.set_older(lists.all);
        if let Some(older) = lists.all {
            record(older).set_newer(Some(at));
        }
        lists.all = Some(at);
        drop(lists);
        self.counts.live.fetch_add(chunk.range().bytes().get(), Ordering::Relaxed);
    }

    /// Frees an arena, as `freed` says. Returns what waits from now on.
    pub fn free(&self, core: &ArenaCore, freed: Freed) -> Result<Waiting, AlreadyFreed> {
        if self.is_closed() {
            return Err(AlreadyFreed);
        }
        let waiting = core.free(&self.sites, freed, |taken| {
            self.note_lone(-isize::from(taken.was_lone));
            self.usual.note_one(shared_in(taken.chunks));
            self.take_in(taken)
        })?;
        self.counts.freed.fetch_add(1, Ordering::Relaxed);
        Ok(waiting)
    }

    /// Gives an arena up that nobody will free.
    pub fn abandon(&self, core: Arc<ArenaCore>) {
        if let Some(bytes) = core.abandon() {
            self.counts.abandoned.fetch_add(bytes.get(), Ordering::Relaxed);
            self.lists.lock().abandoned.push(Abandoned { core, is_settled: false });
        }
    }

    /// Calls `visit` with each chunk, which may remove it. For the undertaker.
    pub(super) fn for_each(&self, mut visit: impl FnMut(NonNull<Chunk>)) {
        let mut next = self.lists.lock().all;
        while let Some(at) = next {
            next = record(at).older();
            visit(at);
        }
    }

    /// How many values in chunks beside have been marked and then scanned, by the cycle with marks in `table`, and
    /// the bytes of their chunks. For the undertaker, when nobody marks any more.
    pub fn marked_beside(&self, table: Table, cycle: u32) -> (u64, Bytes) {
        let (mut values, mut bytes) = (0, Bytes::ZERO);
        self.for_each(|at| {
            let chunk = record(at);
            let layout = span_of(chunk).info().layout;
            let is_scanned = chunk.is_beside() && layout != Layout::NoScan;
            // What was made black has never been counted.
            if is_scanned && !chunk.is_blackened(cycle) && chunk.count_bits(table) > 0 {
                (values, bytes) = (values + 1, bytes + chunk.range().bytes());
            }
        });
        (values, bytes)
    }

    /// A cycle begins: notes which abandoned arenas it can decide about. Comes before the phase is published.
    pub fn note_abandoned(&self) {
        let mut abandoned = core::mem::take(&mut self.lists.lock().abandoned);
        // Those that somebody has freed after all are not asked about again.
        abandoned.retain(|arena| !arena.core.is_freed());
        abandoned.iter_mut().for_each(|arena| arena.is_settled = true);
        let mut lists = self.lists.lock();
        abandoned.append(&mut lists.abandoned);
        lists.abandoned = abandoned;
    }

    /// A cycle has marked completely, with bits in `table`, and has looked at so many bytes: what nobody points to is
    /// given back. Returns the bytes of abandoned arenas that are gone.
    ///
    /// # Safety
    /// This is the undertaker, and the last closure that began before the cycle has ended.
    pub unsafe fn end_quarantines(
        &self,
        os: &Os,
        pages: &PageHeap,
        table: Table,
        work: u64,
    ) -> Bytes {
        let mut escapes = 0;
        let (mut shut, mut guarded): (List, List) = (None, None);
        self.for_each(|at| {
            let chunk = record(at);
            let span = span_of(chunk);
            if !span.is_quarantined() {
                return;
            }
            let escaped = chunk.take_escapes();
            escapes += escaped;
            // Whoever scans the page of a bit counts it here, so the bits need no look.
            debug_assert!(escaped > 0 || chunk.count_bits(table) == 0, "a pointer is not counted");
            if escaped == 0 {
                let list = if span.is_shut() { &mut shut } else { &mut guarded };
                chunk.set_next(*list);
                *list = Some(at);
            } else if span.is_shut() {
                self.give_away(chunk, os, pages);
            }
        });
        for run in runs(guarded) {
            run.chunks().for_each(|at| self.free_guarded(at, os, pages));
            let pieces = run.range.cut_at(JOINED.get());
            pieces.for_each(|piece| pages.put_tables_away(os, piece));
        }
        for run in runs(shut) {
            // SAFETY: as the caller's promise says.
            unsafe { self.free_shut(&run, os, pages) };
        }
        self.kept.end_cycle(work);
        self.usual.end_period();
        self.counts.escapes.fetch_add(escapes, Ordering::Relaxed);
        self.end_abandoned(pages, table)
    }

    /// Gives the pages of a chunk in quarantine back that nobody points to, and that has no memory.
    fn free_guarded(&self, at: NonNull<Chunk>, os: &Os, pages: &PageHeap) {
        let chunk = record(at);
        // SAFETY: the right to the span was put into the record.
        let span = unsafe { take_span(chunk) };
        match pages.end_quarantine(os, span) {
            Ok(()) => {
                self.note_released(chunk.range().bytes());
                self.remove(at);
            }
            // It is tried again after the next cycle.
            Err(span) => chunk.set_span(span.into_raw().as_ptr()),
        }
    }

    /// Frees the abandoned arenas that this cycle has found nothing of.
    fn end_abandoned(&self, pages: &PageHeap, table: Table) -> Bytes {
        let mut abandoned = core::mem::take(&mut self.lists.lock().abandoned);
        let mut freed = Bytes::ZERO;
        abandoned.retain(|arena| {
            if !arena.is_settled || !arena.core.is_unmarked(table) {
                return true;
            }
            let taken = arena.core.free(&self.sites, Freed::Unreachable, |taken| taken);
            if let Ok(Taken { mut chunks, was_lone, .. }) = taken {
                self.note_lone(-isize::from(was_lone));
                self.counts.freed.fetch_add(1, Ordering::Relaxed);
                while let Some(at) = chunks {
                    let chunk = record(at);
                    let bytes = chunk.range().bytes();
                    self.counts.abandoned.fetch_sub(bytes.get(), Ordering::Relaxed);
                    self.counts.live.fetch_sub(bytes.get(), Ordering::Relaxed);
                    freed += bytes;
                    chunks = chunk.next();
                    // SAFETY: as above.
                    let span = unsafe { take_span(chunk) };
                    // SAFETY: no closure is open that has been given a value, and none will be: see above.
                    unsafe { pages.free_chunk(span) };
                    self.remove(at);
                }
            }
            false
        });
        let mut lists = self.lists.lock();
        abandoned.append(&mut lists.abandoned);
        lists.abandoned = abandoned;
        freed
    }

    /// Takes a chunk that has no pages any more off the list of all, and recycles its record.
    pub(super) fn remove(&self, at: NonNull<Chunk>) {
        let chunk = record(at);
        // SAFETY: whoever had leased the chunk was in a closure that has ended, and it is leased to nobody again.
        unsafe { self.sites.end(chunk.sites()) };
        let mut lists = self.lists.lock();
        match chunk.newer() {
            Some(newer) => record(newer).set_older(chunk.older()),
            None => lists.all = chunk.older(),
        }
        if let Some(older) = chunk.older() {
            record(older).set_newer(chunk.newer());
        }
        let owner = chunk.owner();
        // SAFETY: it came from this pool; the span that named it is gone.
        unsafe { lists.pool.free(at) };
        drop(lists);
        // SAFETY: `enter` was given a count of the owner's record for this chunk.
        drop(unsafe { Arc::from_raw(owner.cast::<ArenaCore>().cast_const()) });
    }

    /// Whether so many addresses are in quarantine that a cycle is due.
    pub fn wants_cycle(&self, pages: &PageHeap) -> bool {
        pages.quarantined().get() > self.patience.load(Ordering::Relaxed) || self.kept.wants_cycle()
    }

    /// Says how much of it is too much, from what a cycle has left: no cycle is due for what the last one has
    /// found pointers to.
    pub fn revise_patience(&self, pages: &PageHeap) {
        let heap = pages.in_use().get().saturating_mul(QUARANTINE_SHARE);
        let left = pages.quarantined().get().saturating_mul(2);
        self.patience.store(QUARANTINE_FLOOR.max(heap).max(left), Ordering::Relaxed);
    }

    /// An access to so many bytes that have been guarded does not fault.
    pub(super) fn note_unguardable(&self, bytes: Bytes) {
        self.counts.unguardable.fetch_add(bytes.get() as u64, Ordering::Relaxed);
    }

    /// Bytes that have come back from quarantine.
    pub(super) fn note_released(&self, bytes: Bytes) {
        self.counts.released.fetch_add(bytes.get() as u64, Ordering::Relaxed);
    }

    /// Whether the heap has ended.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// The heap has ended: no arena will look at a chunk again.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let mut lists = self.lists.lock();
        let mut next = lists.all.take();
        (lists.freed, lists.pending) = (None, None);
        lists.pending_load = Load::NONE;
        let abandoned = core::mem::take(&mut lists.abandoned);
        drop(lists);
        drop(abandoned);
        while let Some(at) = next {
            next = record(at).older();
            // SAFETY: as in `remove`.
            let owner =
                unsafe { Arc::from_raw(record(at).owner().cast::<ArenaCore>().cast_const()) };
            // Waits for who is freeing the arena; from here on nobody does.
            owner.lose();
            // SAFETY: no mutator is attached, so nobody allocates.
            unsafe { self.sites.end(record(at).sites()) };
        }
    }
}

/// A chunk's record. Records of the lists live as long as the heap.
pub(super) fn record<'a>(at: NonNull<Chunk>) -> &'a Chunk {
    // SAFETY: records are recycled as such (C4), and their memory goes with the heap, when the lists are empty.
    unsafe { at.as_ref() }
}

/// What values that share chunks have in those of a list.
fn shared_in(first: Option<NonNull<Chunk>>) -> Bytes {
    let chunks = core::iter::successors(first, |&at| record(at).next()).map(record);
    chunks.filter(|chunk| !chunk.is_beside()).map(Chunk::used).sum()
}

/// The span of a chunk that has pages. That it is another one's is no matter that could be survived.
pub(super) fn span_of(chunk: &Chunk) -> &Span {
    // SAFETY: the span of a chunk with pages is described, and is the chunk's until its record is recycled.
    let span = unsafe { &*chunk.span() };
    let range = chunk.range();
    if !is_own(chunk, span) {
        let (number, info) = (chunk.number(), span.info());
        fatal(format_args!("a chunk of user arena {number} at {range:?} has the span of {info:?}"));
    }
    span
}

/// Whether a span is that of a chunk.
pub(super) fn is_own(chunk: &Chunk, span: &Span) -> bool {
    let named = span.chunk().is_some_and(|named| core::ptr::eq(named, chunk));
    named && span.info().range() == chunk.range()
}

/// Takes the right to a chunk's span out of its record.
///
/// # Safety
/// It is there.
pub(super) unsafe fn take_span(chunk: &Chunk) -> OwnedSpan {
    let span = NonNull::from(span_of(chunk));
    // SAFETY: the caller's promise: nobody else makes one of it.
    unsafe { OwnedSpan::from_raw(span) }
}

/// Two ranges that touch, as one.
pub(super) fn joined(a: AddrRange, b: AddrRange) -> Option<AddrRange> {
    if a.end() == b.base() {
        Some(AddrRange::new(a.base(), b.end()))
    } else if b.end() == a.base() {
        Some(AddrRange::new(b.base(), a.end()))
    } else {
        None
    }
}
