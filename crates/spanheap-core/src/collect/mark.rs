//! Marking: setting bits, a page at a time.
//!
//! ```text
//! mark(object):   set its mark bit; if it was clear: queue its page, unless it is queued
//! scan(page):     leave the queue; todo = marked & !scanned; scanned |= todo
//!                 for each object in todo, for each of its pointers: mark
//! ```
//!
//! The span of the page says where the pointers are: nowhere (the bits are only counted), at fixed words,
//! or where a trace function says. An object whose trace function finds a container locked is put
//! aside: its scanned bit is cleared again and its page comes back later.
//!
//! # What may go wrong, and what happens then
//! - The page queue is full: the page is not queued, and a rescan looks for it at the end. It goes over all
//!   pages of spans, and reads the record of a span only where it has found something to scan.
//! - More pages hold locked containers than can be put aside: a rescan looks for the others when those are
//!   tried again.
//! - A trace function panics: the cycle retains everything (see [`Marker::is_broken`]), and the next one
//!   tries again. Nothing is lost, and the panic stays on the collector's thread.
//! - The heap is dropped while a container is locked: nobody will give the lock up, so its guard has been
//!   forgotten. The cycle ends like one that is broken.
//! - A pointer does not lie in this heap: it is ignored. The safe API cannot make one.
//!
//! # Invariants
//! - T1. Objects with their mark bit set and their scanned bit clear lie in queued pages, in pages put
//!   aside, or a rescan is due, now or when what was put aside is tried again.
//! - T2. The words of an object that the collector reads are written atomically after the object was
//!   published (GcCell), or not at all.
//!
//! # Safety
//! Reads words of marked objects: they are allocated, initialised before they were published, and are
//! not freed before marking ends.
#![allow(unsafe_code)]

use super::page_queue::PageQueue;
use crate::addr::{Addr, Bytes, PAGE_BITMAP_WORDS, WORD_BYTES};
use crate::fatal::contain;
use crate::heap::Central;
use crate::span::{
    EdgeSink, EphemeronCell, Generation, HeapArena, Info, Layout, Reader, Table, TraceFn, Tracer,
    bits, map,
};
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// How many pages with locked containers can be put aside; the others are looked for when it is time to try
/// again.
const ASIDE: usize = 256;

/// What a cycle has marked so far.
#[derive(Clone, Copy, Default, Debug)]
pub struct Marked {
    /// Objects found by marking.
    pub objects: u64,
    /// Bytes of their slots.
    pub bytes: Bytes,
}

/// The marking worker of a cycle.
pub struct Marker<'a> {
    central: &'a Central,
    queue: &'a mut PageQueue,
    cycle: u32,
    table: Table,
    marked: Marked,
    /// Whether an object has been marked since the flag was last looked at.
    found: bool,
    rescan: bool,
    broken: bool,
    aside: [Addr; ASIDE],
    aside_len: usize,
    /// Whether more pages than that were to be put aside: then a rescan comes when they are tried again.
    aside_overflows: bool,
}

/// Sets the mark bit of the object at `target` in the table of its heap, numbered `heap`. `None`: the
/// address does not lie in the heap.
#[inline]
fn set_mark(heap: u64, table: Table, target: Addr) -> Option<(&'static HeapArena, bool)> {
    // SAFETY: M2: the map names arenas whose records live; this heap's arenas live until it is dropped,
    // and a foreign arena is only asked for its heap's number while its heap is attached to.
    let arena = unsafe { map::find(target).as_ref() }?;
    if arena.heap() != heap {
        return None;
    }
    // SAFETY: a pointer to an object lies in a page that has been grown (A1).
    let (word, bit) = unsafe { arena.bit(table, target) };
    // Most pointers lead to marked objects: a plain load keeps their lines shared.
    if word.load(Ordering::SeqCst) & bit != 0 {
        return Some((arena, false));
    }
    Some((arena, word.fetch_or(bit, Ordering::SeqCst) & bit == 0))
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

/// Marks an object without queueing its page, for a mutator that finds the grey queue without memory. A
/// rescan has to follow.
pub fn mark_directly(heap: u64, cycle: u32, target: Addr) {
    let _ = set_mark(heap, Generation::new(cycle).table(), target);
}

impl<'a> Marker<'a> {
    /// A worker for `cycle` that has done nothing yet. The queue is empty.
    pub fn new(central: &'a Central, queue: &'a mut PageQueue, cycle: u32) -> Marker<'a> {
        Marker {
            central,
            queue,
            cycle,
            table: Generation::new(cycle).table(),
            marked: Marked::default(),
            found: false,
            rescan: false,
            broken: false,
            aside: [Addr::NULL; ASIDE],
            aside_len: 0,
            aside_overflows: false,
        }
    }

    /// What has been marked.
    pub fn marked(&self) -> Marked {
        self.marked
    }

    /// Whether a trace function has panicked, or a container was never free: then what is marked says
    /// nothing.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Whether an object has been marked since the last call.
    pub fn take_found(&mut self) -> bool {
        core::mem::take(&mut self.found)
    }

    /// Marks an object without pointers after marking has ended, when nothing is queued any more.
    pub fn keep(&mut self, object: Addr, bytes: Bytes) {
        // In this order, as for black runs.
        bits::set(Table::Scanned, object);
        if let Some((_, true)) = set_mark(self.central.number(), self.table, object) {
            self.marked.objects += 1;
            self.marked.bytes += bytes;
        }
    }

    /// Asks for a rescan.
    pub fn want_rescan(&mut self) {
        self.rescan = true;
    }

    /// Marks the object at `target`.
    #[inline]
    pub fn mark(&mut self, target: Addr) {
        let Some((arena, new)) = set_mark(self.central.number(), self.table, target) else {
            return;
        };
        if new {
            self.found = true;
            let page = target.page_in_arena();
            if arena.queue(page) {
                self.push(arena, page);
            }
        }
    }

    #[inline]
    fn push(&mut self, arena: &HeapArena, page: usize) {
        if !self.queue.push(arena.page_base(page)) {
            arena.unqueue(page);
            self.rescan = true;
        }
    }

    /// Follows pointers until no page is queued. True when nothing is left to do; false when objects
    /// with locked containers were put aside, and the caller has to come back.
    pub fn drain(&mut self) -> bool {
        loop {
            while let Some(page) = self.queue.pop() {
                self.scan_page(page);
            }
            if !core::mem::take(&mut self.rescan) {
                break;
            }
            self.scan_differing_pages();
        }
        self.aside_len == 0 && !self.aside_overflows
    }

    /// Queues the pages that were put aside.
    pub fn retry_aside(&mut self) {
        self.rescan |= core::mem::take(&mut self.aside_overflows);
        for index in 0..core::mem::take(&mut self.aside_len) {
            let page = self.aside[index];
            // SAFETY: the page holds objects of this heap.
            let arena = unsafe { &*map::find(page) };
            if arena.queue(page.page_in_arena()) {
                self.push(arena, page.page_in_arena());
            }
        }
    }

    /// Gives up what was put aside. The cycle has to retain everything then.
    pub fn abandon_aside(&mut self) {
        (self.aside_len, self.aside_overflows, self.broken) = (0, false, true);
    }

    fn put_aside(&mut self, page: Addr) {
        match self.aside.get_mut(self.aside_len) {
            Some(place) => {
                *place = page;
                self.aside_len += 1;
            }
            // Not a rescan now: it would find the same locks taken, and ask for the next one.
            None => self.aside_overflows = true,
        }
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

    /// Follows the pointers of the marked objects of a page that are not scanned.
    fn scan_page(&mut self, page: Addr) {
        // SAFETY: queued pages hold objects of this heap.
        let arena = unsafe { &*map::find(page) };
        let index = page.page_in_arena();
        arena.unqueue(index);
        // SAFETY: as above; the page of an object has been grown.
        let marks = unsafe { arena.line(self.table, index) };
        // SAFETY: as above.
        let scanned = unsafe { arena.line(Table::Scanned, index) };
        let mut todo = [0u64; PAGE_BITMAP_WORDS];
        let mut objects = 0;
        for word in 0..PAGE_BITMAP_WORDS {
            // Black runs set scanned before marked. Reading in the opposite order, whoever sees the mark
            // of a black slot sees that it is scanned.
            let marked = marks[word].load(Ordering::SeqCst);
            let new = marked & !scanned[word].load(Ordering::SeqCst);
            if new != 0 {
                todo[word] = new & !scanned[word].fetch_or(new, Ordering::SeqCst);
                objects += u64::from(todo[word].count_ones());
            }
        }
        if objects == 0 {
            return;
        }
        // SAFETY: a page with a marked object belongs to a span, which stays, and so does its record (P3).
        let span = unsafe { arena.span(index).as_ref() };
        let Some(span) = span else { return };
        let info = span.info();
        self.marked.objects += objects;
        self.marked.bytes += Bytes::new(objects as usize * info.slot);
        if self.central.waiting().has_any() && arena.is_awaited(index) {
            self.release_waiting(info, page, &todo);
        }
        match info.layout {
            Layout::NoScan => {}
            Layout::Words { mask, period: 0 } => self.scan_words(info, page, &todo, mask),
            Layout::Words { mask, period } => self.scan_repeated(info, page, &todo, mask, period),
            Layout::Traced(trace) => self.scan_traced(info, page, &todo, trace),
        }
    }

    /// Marks the values of ephemerons that have waited for one of these keys.
    #[cold]
    fn release_waiting(&mut self, info: &Info, page: Addr, todo: &Todo) {
        for_each_object(info, page, todo, |key| {
            while let Some(value) = self.central.waiting().take(key) {
                self.mark(value);
            }
        });
    }

    /// Objects with pointers at fixed words.
    fn scan_words(&mut self, info: &Info, page: Addr, todo: &Todo, mask: u64) {
        for_each_object(info, page, todo, |object| self.scan_masked(object, mask));
    }

    /// Slices: the mask repeats up to the end of the slot.
    fn scan_repeated(&mut self, info: &Info, page: Addr, todo: &Todo, mask: u64, period: u32) {
        let step = Bytes::new(period as usize * WORD_BYTES);
        for_each_object(info, page, todo, |object| {
            let end = object + Bytes::new(info.slot);
            let mut element = object;
            while element + step <= end {
                self.scan_masked(element, mask);
                element = element + step;
            }
        });
    }

    /// Marks what the words of `mask` behind `start` point to.
    #[inline]
    fn scan_masked(&mut self, start: Addr, mask: u64) {
        bits::for_each_bit(mask, |word| {
            let field = start + Bytes::new(word as usize * WORD_BYTES);
            // SAFETY: the word lies in a marked object, is aligned, and changes only atomically (T2).
            let field = unsafe { &*field.as_ptr::<AtomicUsize>() };
            // Acquire: the object that is found was published by the store that is read.
            let target = field.load(Ordering::Acquire);
            if target != 0 {
                self.mark(Addr::new(target));
            }
        });
    }

    /// Objects whose type knows where its pointers are.
    fn scan_traced(&mut self, info: &Info, page: Addr, todo: &Todo, trace: TraceFn) {
        let run = || {
            let mut locked = 0;
            for_each_object(info, page, todo, |object| {
                let reader = Reader::Collector(self.cycle);
                // SAFETY: this is the collector, and `cycle` is the running one.
                let mut tracer = unsafe { Tracer::new(self, reader) };
                // SAFETY: the object is marked, so it is initialised and stays.
                let count = unsafe { info.count(object) };
                // SAFETY: the span's layout says that the function is for objects like this one.
                unsafe { trace(object.as_ptr(), count, &mut tracer) };
                if tracer.is_deferred() {
                    bits::clear(Table::Scanned, object);
                    locked += 1;
                }
            });
            locked
        };
        match contain(run) {
            Some(0) => {}
            Some(locked) => {
                self.marked.objects -= locked;
                self.marked.bytes -= Bytes::new(locked as usize * info.slot);
                self.put_aside(page);
            }
            None => self.broken = true,
        }
    }
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
        let heap = self.central.number();
        if is_marked(heap, self.table, key) {
            return self.mark(cell.value());
        }
        // SAFETY: the ephemeron is marked, or it would not be traced; and it is traced once in a cycle, because
        // its trace function defers nothing.
        unsafe { self.central.waiting().insert(self.central.os(), cell) };
        // SAFETY: M2: the key is an object of this heap.
        unsafe { &*map::find(key) }.set_awaited(key.page_in_arena());
        while is_marked(heap, self.table, key) {
            let Some(value) = self.central.waiting().take(key) else { break };
            self.mark(value);
        }
    }
}

/// Objects of one page, by granule.
type Todo = [u64; PAGE_BITMAP_WORDS];

/// Calls `visit` with each object of `todo`, which is about the page at `page`.
#[inline]
fn for_each_object(info: &Info, page: Addr, todo: &Todo, mut visit: impl FnMut(Addr)) {
    for (index, &word) in todo.iter().enumerate() {
        bits::for_each_bit(word, |bit| {
            let granule = (index * 64 + bit as usize) * crate::addr::GRANULE_BYTES;
            visit(info.object_at(page + Bytes::new(granule)));
        });
    }
}

#[cfg(test)]
mod tests;
