//! Marking: setting bits, a page at a time.
//!
//! ```text
//! mark(object):   set its mark bit; if it was clear: queue its page, unless it is queued
//! scan(page):     leave the queue; todo = marked & !scanned; scanned |= todo
//!                 for each object in todo, for each of its pointers: mark
//! ```
//!
//! [`Marker`] is one worker: it marks, and keeps the pages that it has found or taken until they are scanned
//! or somebody else has them. What scanning a page means is in [`super::scan`], what the workers share in
//! [`super::crew`].
//!
//! # Where a page goes
//! ```text
//!   found --> out --(full)--> shared queue --(ring empty)--> ring --> scanned
//!              '--(ring and shared queue empty)---------------^ '--> somebody else's ring
//! ```
//! The shared queue is first in, first out for all workers together. Only when it is empty does a worker go on
//! with what it has found itself, without a lock: a list is followed by one worker and nobody is disturbed.
//!
//! # Prefetching
//! What was found waits in a line while the processor fetches the word with its mark bit ([`super::ahead`]); and
//! before a page is scanned, what will be read of the page behind it in the ring is asked for
//! ([`Marker::fetch_next`]).
//!
//! # What may go wrong, and what happens then
//! - The page queue is full: the page is not queued, and a rescan looks for it at the end. It goes over all
//!   pages of spans, and reads the record of a span only where it has found something to scan.
//! - More pages hold locked containers than can be put aside: a rescan looks for the others when those are
//!   tried again.
//! - A trace function panics: the cycle retains everything (see [`Marker::is_broken`]), and the next one
//!   tries again. Nothing is lost, and the panic stays with the worker.
//! - The heap is dropped while a container is locked: nobody will give the lock up, so its guard has been
//!   forgotten. The cycle ends like one that is broken.
//! - A pointer does not lie in this heap: it is ignored. The safe API cannot make one.
//! - A trace function reports what is no object: that is ignored, too, or ends the process, see
//!   [`Tracer::edge`].
//! - A trace function wants to use a heap: it panics ([`crate::span::alone`]).
//!
//! # Invariants
//! - T1. Objects with their mark bit set and their scanned bit clear lie in queued pages, in pages put
//!   aside, or a rescan is due, now or when what was put aside is tried again; or a worker has their page, or them
//!   ([`super::follow`], [`super::home`], [`super::leaves`]), and is busy, or is the collector thread; or the object is
//!   in the grey queue, or whoever has marked it is about to put it there and holds the queue's lock.
//! - T2. The words of an object that the collector reads are written atomically after the object was
//!   published (GcCell), or not at all.
//! - T3. Pages in `out` are no pieces of large objects: what they have to say can be found by a rescan.
//!
//! # Safety
//! Reads the page map for addresses that are objects'.
#![allow(unsafe_code)]

use super::ahead::{self, Ahead, BATCH, Waiting};
use super::buffer::Entries;
use super::crew::{Crew, Tally};
use super::dense::Patterns;
use super::fetch::prefetch;
use super::home::Home;
use super::kernel::Kernel;
use super::page_ring::{ENTRIES, PageRing};
use super::roots::RootTable;
use crate::addr::{Addr, Bytes};
use crate::fatal::fatal;
use crate::heap::Central;
use crate::span::{EdgeSink, EphemeronCell, Generation, HeapArena, Table, bits, lookup, map};
use crate::sync::atomic::{AtomicU64, Ordering};

/// How many entries of the grey queue are looked ahead for.
const GREY_AHEAD: usize = 8;

/// How many pages a worker gathers before it goes to the shared queue with them.
const GATHERED: usize = ENTRIES;

/// A marking worker of a cycle.
pub struct Marker<'a> {
    pub(super) central: &'a Central,
    pub(super) crew: &'a Crew,
    pub(super) ring: &'a PageRing,
    /// Which ring of the crew's that is; `None`: one that nobody else knows.
    seat: Option<usize>,
    heap: u64,
    pub(super) cycle: u32,
    pub(super) table: Table,
    pub(super) tally: Tally,
    /// How much of `tally.work` has been credited to mutators.
    credited: u64,
    /// What is to be done now and then.
    overseer: Option<&'a dyn Fn()>,
    /// The most pages that are taken from the shared queue, or gathered for it, at once.
    grip: usize,
    out: [Addr; GATHERED],
    out_len: usize,
    /// What was found and is not marked yet.
    pub(super) ahead: Ahead,
    /// What was found on the page that is being scanned.
    pub(super) home: Home,
    /// How pages are read.
    pub(super) kernel: Kernel,
    /// Where pointers lie on the pages of the classes that were met last.
    pub(super) patterns: Patterns,
    /// The type whose trace function runs.
    pub(super) tracing: fn() -> &'static str,
}

/// The arena of `target` if that lies in the heap numbered `heap`.
#[inline]
fn arena_of(heap: u64, target: Addr) -> Option<&'static HeapArena> {
    // SAFETY: M2: the map names arenas whose records live; this heap's arenas live until it is dropped,
    // and a foreign arena is only asked for its heap's number while its heap is attached to.
    let arena = unsafe { map::find(target).as_ref() }?;
    (arena.heap() == heap).then_some(arena)
}

/// Sets the mark bit of the object at `target`, which lies in `arena`; true if it was clear.
#[inline]
fn set_mark(arena: &HeapArena, table: Table, target: Addr) -> bool {
    // SAFETY: a pointer to an object lies in a page that has been grown (A1).
    let (word, bit) = unsafe { arena.bit(table, target) };
    // Most pointers lead to marked objects: a plain load keeps their lines shared.
    word.load(Ordering::SeqCst) & bit == 0 && word.fetch_or(bit, Ordering::SeqCst) & bit == 0
}

/// Whether the object at `target` is marked. An address outside of the heap counts as marked: nothing is to be
/// done about it.
#[inline]
pub fn is_marked(heap: u64, table: Table, target: Addr) -> bool {
    // SAFETY: M2: as in `set_mark`.
    let arena = unsafe { map::find(target).as_ref() };
    let Some(arena) = arena.filter(|arena| arena.heap() == heap) else { return true };
    // SAFETY: a pointer to an object lies in a page that has been grown (A1).
    let (word, bit) = unsafe { arena.bit(table, target) };
    word.load(Ordering::SeqCst) & bit != 0
}

/// Marks an object without queueing its page, for a mutator; true if it was not marked. Then the object has to go to
/// the grey queue in the same step, or a rescan has to follow. An address outside of the heap counts as marked.
pub fn mark_directly(heap: u64, cycle: u32, target: Addr) -> bool {
    let table = Generation::new(cycle).table();
    arena_of(heap, target).is_some_and(|arena| set_mark(arena, table, target))
}

/// Forgets those of `targets` that are marked. Nothing waits for one mark before it looks for the next one, so the
/// processor has as many on their way as it can.
pub fn keep_unmarked(heap: u64, table: Table, targets: &mut Entries<'_>) {
    let Some(first) = targets.iter().next() else { return };
    // To find the arena is half of the work, and most of what is overwritten together lies in one.
    match arena_of(heap, first) {
        Some(arena) if targets.iter().all(|target| target.arena() == first.arena()) => {
            targets.retain(|target| {
                // SAFETY: a pointer to an object lies in a page that has been grown (A1), and this one lies in `arena`.
                let (word, bit) = unsafe { arena.bit(table, target) };
                word.load(Ordering::SeqCst) & bit == 0
            });
        }
        _ => targets.retain(|target| !is_marked(heap, table, target)),
    }
}

/// Asks for the mark of the object at `target`.
#[inline]
fn prefetch_mark(heap: u64, table: Table, target: Addr) {
    if let Some(arena) = arena_of(heap, target) {
        // SAFETY: a pointer to an object lies in a page that has been grown (A1).
        prefetch(unsafe { arena.bit(table, target) }.0);
    }
}

impl<'a> Marker<'a> {
    /// A worker for `cycle` that has done nothing yet, on a ring of the crew's. 0 is the collector thread's;
    /// for another one, the caller is busy.
    pub fn new(central: &'a Central, crew: &'a Crew, worker: usize, cycle: u32) -> Marker<'a> {
        let marker = Marker::on(central, crew, crew.ring(worker), cycle);
        Marker { seat: Some(worker), ..marker }
    }

    /// The same on a ring of the caller's own, which is empty.
    pub fn on(central: &'a Central, crew: &'a Crew, ring: &'a PageRing, cycle: u32) -> Marker<'a> {
        debug_assert!(ring.len() == 0);
        Marker {
            central,
            crew,
            ring,
            seat: None,
            heap: central.number(),
            cycle,
            table: Generation::new(cycle).table(),
            tally: Tally::default(),
            credited: 0,
            overseer: None,
            grip: GATHERED,
            out: [Addr::NULL; GATHERED],
            out_len: 0,
            ahead: Ahead::new(),
            home: Home::new(),
            kernel: Kernel::best(),
            patterns: Patterns::new(),
            tracing: || "nothing",
        }
    }

    /// Reads pages with another kernel than the best, if one is given.
    pub fn with_kernel(self, kernel: Option<Kernel>) -> Marker<'a> {
        Marker { kernel: kernel.unwrap_or(self.kernel), ..self }
    }

    /// Bounds the number of pages that the worker has in hand.
    pub fn with_grip(self, pages: usize) -> Marker<'a> {
        Marker { grip: pages.clamp(1, GATHERED), ..self }
    }

    /// Has `look` called each time that the worker has no pages in hand.
    pub fn with_overseer(self, look: &'a dyn Fn()) -> Marker<'a> {
        Marker { overseer: Some(look), ..self }
    }

    /// What this worker has done.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Whether a trace function has panicked, or a container was never free: then what is marked says
    /// nothing.
    pub fn is_broken(&self) -> bool {
        self.crew.is_broken()
    }

    /// Whether an object has been marked since the last call, by this worker, which is the collector thread, or
    /// by anybody else who is not at work any more.
    pub fn take_found(&mut self) -> bool {
        self.mark_ahead();
        core::mem::take(&mut self.tally.found) | self.crew.take_found()
    }

    /// Marks an object without pointers after marking has ended, when nothing is queued any more.
    pub fn keep(&mut self, object: Addr, bytes: Bytes) {
        // In this order, as for black runs.
        bits::set(Table::Scanned, object);
        let Some(arena) = arena_of(self.heap, object) else { return };
        if set_mark(arena, self.table, object) {
            self.tally.objects = self.tally.objects.wrapping_add(1);
            self.tally.bytes = self.tally.bytes.wrapping_add(bytes.get());
        }
    }

    /// Asks for a rescan.
    pub fn want_rescan(&mut self) {
        self.crew.want_rescan();
    }

    /// Marks the object at `target`, soon.
    #[inline]
    pub fn mark(&mut self, target: Addr) {
        self.mark_in(ahead::block_of(target.get()), ahead::bit_of(target.get()));
    }

    /// The same for all objects at `targets`. Those of one block that follow each other cost little more than one.
    #[inline]
    pub(super) fn mark_all(&mut self, targets: &[usize]) {
        let mut rest = targets.iter();
        let Some(&first) = rest.next() else { return };
        let (mut block, mut bits) = (ahead::block_of(first), ahead::bit_of(first));
        for &target in rest {
            let its = ahead::block_of(target);
            if its != block {
                self.mark_in(block, bits);
                (block, bits) = (its, 0);
            }
            bits |= ahead::bit_of(target);
        }
        self.mark_in(block, bits);
    }

    /// Marks the objects of a block, soon.
    #[inline]
    fn mark_in(&mut self, block: usize, bits: u64) {
        if self.home.add(block, bits) {
            return;
        }
        if self.ahead.join(block, bits) {
            return;
        }
        let base = ahead::base_of(block);
        let Some(arena) = arena_of(self.heap, base) else { return };
        // SAFETY: a pointer to an object lies in a page that has been grown (A1).
        let (word, _) = unsafe { arena.bit(self.table, base) };
        prefetch(word);
        if self.ahead.push(Waiting { arena, word, bits, block }) {
            self.mark_batch();
        }
    }

    /// Marks those who have waited longest.
    #[inline(never)]
    fn mark_batch(&mut self) {
        let (mut news, mut count) = ([0u8; BATCH], 0);
        for behind in 0..BATCH {
            let waiting = self.ahead.peek(behind);
            // SAFETY: W1.
            let word = unsafe { &*waiting.word };
            // Stored in any case: which of them are marked is what no processor guesses.
            news[count] = behind as u8;
            count += usize::from(waiting.bits & !word.load(Ordering::SeqCst) != 0);
        }
        let mut leaves = 0;
        for index in 0..count {
            let behind = news[index];
            news[leaves] = behind;
            leaves += usize::from(self.mark_or_defer(usize::from(behind)));
        }
        for &behind in &news[..leaves] {
            let waiting = *self.ahead.peek(usize::from(behind));
            self.finish_or_queue(&waiting, waiting.bits);
        }
        self.ahead.forget(BATCH);
    }

    /// Marks objects of a block, and queues their page if one of them is news and may have pointers.
    #[inline]
    fn mark_now(&mut self, waiting: Waiting) {
        let news = self.set_marks(&waiting);
        if news != 0 {
            self.finish_or_queue(&waiting, news);
        }
    }

    /// Sets the mark bits of objects of a block; which of them were clear.
    #[inline]
    pub(super) fn set_marks(&self, waiting: &Waiting) -> u64 {
        // SAFETY: W1.
        let word = unsafe { &*waiting.word };
        // Most pointers lead to marked objects: a plain load keeps their lines shared.
        let missing = waiting.bits & !word.load(Ordering::SeqCst);
        if missing == 0 { 0 } else { missing & !word.fetch_or(missing, Ordering::SeqCst) }
    }

    /// Notes that the object at `target` is news, and queues its page.
    #[inline]
    pub(super) fn found_on(&mut self, arena: &HeapArena, target: Addr) {
        self.tally.found = true;
        let page = target.page_in_arena();
        if arena.queue(page) {
            self.gather(arena.page_base(page));
        }
    }

    /// Takes objects over from the grey queue: whoever has put one there while marking ran has marked it, and
    /// nobody but the queue knew of it. Those of an arming phase are marked here.
    pub fn take_grey(&mut self, targets: &[Addr]) {
        for (index, &target) in targets.iter().enumerate() {
            if let Some(&later) = targets.get(index + GREY_AHEAD) {
                prefetch_mark(self.heap, self.table, later);
            }
            if let Some(arena) = arena_of(self.heap, target) {
                set_mark(arena, self.table, target);
                self.found_on(arena, target);
            }
        }
    }

    /// Marks what was found and waits for that.
    fn mark_ahead(&mut self) {
        while let Some(oldest) = self.ahead.pop() {
            self.mark_now(oldest);
        }
    }

    /// Takes in a page that was found. Its queued bit is set.
    #[inline]
    fn gather(&mut self, page: Addr) {
        if self.out_len >= self.grip {
            self.hand_out();
        }
        self.out[self.out_len] = page;
        self.out_len += 1;
    }

    /// Puts what was found into the shared queue.
    #[cold]
    fn hand_out(&mut self) {
        let pushed = self.crew.push(&self.out[..self.out_len]);
        self.leave_to_rescan(pushed);
    }

    /// Leaves what was found to a rescan, from the page numbered `first` on (T3), and forgets the rest, which
    /// somebody else has.
    fn leave_to_rescan(&mut self, first: usize) {
        for index in first..core::mem::take(&mut self.out_len) {
            unqueue(self.out[index]);
            self.crew.want_rescan();
        }
    }

    /// The page to scan next. `None`: there is none in the shared queue, and none that could be stolen.
    fn next_page(&mut self) -> Option<Addr> {
        loop {
            if let Some(page) = self.ring.pop() {
                return Some(page);
            }
            if self.out_len == 0 && self.crew.waiting() == 0 {
                self.follow();
            }
            self.mark_ahead();
            self.give_credit();
            if self.crew.waiting() > 0 {
                let out = &self.out[..self.out_len];
                let pushed = self.crew.exchange(out, self.ring, self.grip);
                self.leave_to_rescan(pushed);
            } else if self.out_len > 0 {
                for index in 0..core::mem::take(&mut self.out_len) {
                    let fits = self.ring.push(self.out[index]);
                    debug_assert!(fits, "an empty ring has room for all that is gathered");
                }
            } else if !self.crew.steal(self.seat, self.ring, self.grip) {
                return None;
            }
        }
    }

    /// Scans pages as long as there are any, and `go_on` says so.
    pub fn work(&mut self, mut go_on: impl FnMut(&Tally) -> bool) {
        while go_on(&self.tally) {
            let Some(page) = self.next_page() else { return };
            self.fetch_next();
            self.scan_page(page);
            if self.crew.is_hungry() {
                self.share();
            }
        }
    }

    /// Scans roots, some at a time, as long as there are any, and `go_on` says so.
    pub fn scan_roots(&mut self, roots: &RootTable, mut go_on: impl FnMut() -> bool) {
        while self.crew.has_roots() && go_on() {
            if !roots.scan_some(|root| self.mark(root)) {
                self.crew.set_has_roots(false);
            }
        }
    }

    /// Gives somebody who has nothing a half of what this worker has.
    #[cold]
    fn share(&mut self) {
        self.mark_ahead();
        if self.out_len > 0 && self.out_len + self.ring.len() > 1 {
            self.hand_out();
        } else if self.ring.len() > 1 {
            let mut loot = [Addr::NULL; ENTRIES];
            let mut count = 0;
            self.ring.steal(ENTRIES, |page| {
                loot[count] = page;
                count += 1;
            });
            self.give_away(&loot[..count]);
        }
    }

    /// Puts pages that were in the ring into the shared queue. There may be pieces of large objects among them,
    /// which no rescan would find; so what the queue has no room for is scanned here.
    fn give_away(&mut self, pages: &[Addr]) {
        let pushed = self.crew.push(pages);
        pages[pushed..].iter().for_each(|&page| self.scan_page(page));
    }

    /// Ends the work of somebody busy: gives all pages away, and tells what was done.
    pub fn leave(mut self) {
        self.mark_ahead();
        while let Some(page) = self.ring.pop() {
            self.give_away(&[page]);
            self.mark_ahead();
        }
        self.hand_out();
        self.give_credit();
        self.crew.leave(self.tally);
    }

    /// Notes the work done since the last time, and credits mutators with it, if this is no mutator's.
    fn give_credit(&mut self) {
        let work = self.tally.work - self.credited;
        self.credited = self.tally.work;
        self.central.debt().note_done(work);
        if self.seat.is_some() {
            self.central.debt().give(work);
        }
        if let Some(look) = self.overseer {
            look();
        }
    }

    /// Follows pointers until no page is queued, together with everybody else. True when nothing is left to
    /// do; false when objects with locked containers were put aside, and the caller has to come back. For the
    /// collector thread alone.
    pub fn drain(&mut self) -> bool {
        loop {
            self.work(|_| true);
            if !self.crew.is_all_done() {
                continue;
            }
            if !self.crew.take_rescan() {
                break;
            }
            self.scan_differing_pages();
        }
        !self.crew.has_aside()
    }

    /// Queues the pages that were put aside.
    pub fn retry_aside(&mut self) {
        let (pages, count) = self.crew.take_aside();
        for &page in &pages[..count] {
            // SAFETY: the page holds objects of this heap.
            let arena = unsafe { &*map::find(page) };
            if arena.queue(page.page_in_arena()) && self.crew.push(&[page]) == 0 {
                // It may be a piece of a large object, as in `give_away`.
                self.scan_page(page);
            }
        }
    }

    /// Gives up what was put aside. The cycle has to retain everything then.
    pub fn abandon_aside(&mut self) {
        self.crew.abandon_aside();
    }

    /// Scans every page that has a marked object which is not scanned. Such a page belongs to a span that
    /// stays; no record of any other span is looked at, for these may come and go.
    fn scan_differing_pages(&mut self) {
        let central = self.central;
        let table = self.table;
        central.pages().for_each_page(|page| {
            let (marks, scanned) = (bits::line(table, page), bits::line(Table::Scanned, page));
            let differs = |(m, s): (&AtomicU64, &AtomicU64)| {
                m.load(Ordering::SeqCst) & !s.load(Ordering::SeqCst) != 0
            };
            if marks.iter().zip(scanned).any(differs) {
                self.scan_page(page);
            }
        });
    }
}

/// Notes that a page is in no queue.
pub(super) fn unqueue(page: Addr) {
    // SAFETY: pages that were queued hold objects of a heap that is being marked.
    let arena = unsafe { &*map::find(page) };
    arena.unqueue(page.page_in_arena());
}

impl EdgeSink for Marker<'_> {
    #[inline]
    fn edge(&mut self, target: Addr) {
        self.mark(target);
    }

    /// Marks the value if the key is marked; else the ephemeron waits. See [`crate::heap::waiting`].
    fn ephemeron(&mut self, cell: &EphemeronCell) {
        let key = cell.key();
        if key.is_null() {
            return;
        }
        if is_marked(self.heap, self.table, key) {
            return self.mark(cell.value());
        }
        // SAFETY: the ephemeron is marked, or it would not be traced; and it is traced once in a cycle, because
        // its trace function defers nothing.
        unsafe { self.central.waiting().insert(self.central.os(), cell) };
        // SAFETY: M2: the key is an object of this heap.
        unsafe { &*map::find(key) }.set_awaited(key.page_in_arena());
        while is_marked(self.heap, self.table, key) {
            let Some(value) = self.central.waiting().take(key) else { break };
            self.mark(value);
        }
    }

    fn claim(&mut self, target: Addr) {
        let heap = self.central.number();
        if lookup::object_start(heap, target).is_some() || lookup::value_start(heap, target) {
            self.mark(target);
        } else if cfg!(debug_assertions) || self.central.switches().checkmark() {
            let (name, what) = ((self.tracing)(), self.central.find_object(target));
            fatal(format_args!(
                "the trace function of {name} (or of a type with the same one) reports {target}, where no \
                 object of this heap begins: {what:?}"
            ));
        }
    }
}

#[cfg(test)]
mod tests;
