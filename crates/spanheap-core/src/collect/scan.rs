//! Scanning a page: following the pointers of its objects.
//!
//! The span of the page says where the pointers are: nowhere (the bits are only counted), at fixed words,
//! or where a trace function says. An object whose trace function finds a container locked is put
//! aside: its scanned bit is cleared again and its page comes back later.
//!
//! What is found on the page itself is scanned in the same visit: see [`super::home`].
//!
//! # Pieces
//! A slice of more than [`PIECE`] bytes is scanned in pieces of that length, so that several workers share it, and
//! nobody who helps for a moment is at it for long: a piece full of pointers is 2048 of them, each of which may
//! lead to a mark that is in no cache. Whoever sets the scanned bit of the object queues the
//! pages with which its other pieces begin, and scans the first piece. Such a page lies inside of a span with
//! a single object and is not its first, so it has no mark bits, and nothing else is ever queued by its address.
//! A piece has the elements that *begin* in it.
//!
//! - Q1. A rescan finds objects and not pieces. So no piece is ever dropped: what a queue has no room for is
//!   scanned at once, by whoever has it. A piece that cannot be put aside makes its object unscanned again.
//!
//! # Safety
//! Reads words of marked objects: they are allocated, initialised before they were published, and are
//! not freed before marking ends.
#![allow(unsafe_code)]

use super::mark::{Marker, unqueue};
use crate::addr::{Addr, Bytes, GRANULE_BYTES, PAGE_BITMAP_WORDS, PageCount, WORD_BYTES};
use crate::fatal::contain_with;
use crate::span::alone::{Alone, Busy};
use crate::span::{HeapArena, Info, Layout, Reader, Table, TraceFn, Tracer, bits, map};
use crate::sync::atomic::{AtomicUsize, Ordering};

/// The length of a piece of a large object.
pub(super) const PIECE: Bytes = Bytes::new(16 << 10);

/// What a visit of a page costs, in bytes of objects, even if there is no pointer on it.
const VISIT: u64 = 64;

/// How many pieces are queued at once.
const BATCH: usize = 32;

/// Objects of one page, by granule.
pub(super) type Todo = [u64; PAGE_BITMAP_WORDS];

impl Marker<'_> {
    /// Follows the pointers of the marked objects of a page that are not scanned, or of the piece that begins
    /// with it.
    pub(super) fn scan_page(&mut self, page: Addr) {
        // SAFETY: queued pages hold objects of this heap.
        let arena = unsafe { &*map::find(page) };
        let index = page.page_in_arena();
        arena.unqueue(index);
        let Claimed { todo, objects, marked } = claim(arena, self.table, index);
        // SAFETY: a page with a marked object, or with a part of one, belongs to a span, which stays, and so
        // does its record (P3).
        let Some(span) = (unsafe { arena.span(index).as_ref() }) else { return };
        let info = span.info();
        self.tally.work += VISIT;
        if objects == 0 {
            if info.base != page && has_pieces(info) {
                self.scan_piece(info, page);
            }
            return;
        }
        self.take_up(arena, info, page, &todo, objects);
        if has_pieces(info) {
            self.split(info);
            return;
        }
        match info.layout {
            Layout::NoScan => {
                if let Some(chunk) = span.chunk() {
                    self.scan_chunk(span, chunk, page, &todo);
                }
                return;
            }
            Layout::Words { mask, period } => {
                self.home.open(page, &marked);
                self.scan_level(info, page, (&todo, objects), mask, period);
                self.scan_neighbours(arena, info, page, mask, period);
            }
            Layout::Traced(trace) => self.scan_traced(info, page, &todo, trace),
        }
        self.tally.work += objects * info.slot as u64;
    }

    /// Counts objects of a page that this worker has claimed, and marks the values of ephemerons that have waited for
    /// them.
    #[inline]
    pub(super) fn take_up(
        &mut self,
        arena: &HeapArena,
        info: &Info,
        page: Addr,
        todo: &Todo,
        objects: u64,
    ) {
        self.count_scanned(objects, Bytes::new(objects as usize * info.slot));
        if self.central.waiting().has_any() && arena.is_awaited(page.page_in_arena()) {
            self.release_waiting(info, page, todo);
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

    /// The elements of a slice that begin from `start` on and before `until`. The slot ends at `end`.
    #[inline]
    pub(super) fn scan_elements(
        &mut self,
        start: Addr,
        until: Addr,
        end: Addr,
        step: Bytes,
        mask: u64,
    ) {
        let bytes_to = |at: Addr| at.get().saturating_sub(start.get());
        let count = bytes_to(until).div_ceil(step.get()).min(bytes_to(end) / step.get());
        if self.scan_run(start, count, step, mask) {
            return;
        }
        let mut element = start;
        for _ in 0..count {
            self.scan_masked(element, mask);
            element = element + step;
        }
    }

    /// Marks what the words of `mask` behind `start` point to.
    #[inline]
    pub(super) fn scan_masked(&mut self, start: Addr, mask: u64) {
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
        let run = |marker: &mut Self| {
            let mut locked = 0;
            for_each_object(info, page, todo, |object| {
                // SAFETY: the object is marked, so it is initialised and stays.
                let count = unsafe { info.count(object) };
                // SAFETY: the span's layout says that the function is for objects like this one.
                if unsafe { marker.trace(trace, object, count) } {
                    marker.unscan(info, object);
                    locked += 1;
                }
            });
            locked
        };
        match self.contained(info, run) {
            Some(0) => {}
            // What does not fit is found by a rescan when it is time to try again.
            Some(_) => drop(self.crew.put_aside(page)),
            None => self.crew.set_broken(),
        }
    }

    /// Runs trace functions of the objects of `info`; `None` if one has panicked. These are the user's: they run in
    /// here, on any of our threads or in an allocation of his, and nowhere else.
    pub(super) fn contained<T>(
        &mut self,
        info: &Info,
        run: impl FnOnce(&mut Self) -> T,
    ) -> Option<T> {
        self.tracing = info.type_name;
        let central = self.central;
        let _alone = Alone::begin(Busy::Trace);
        contain_with(|| run(self), |payload| central.trace_panicked((info.type_name)(), payload))
    }

    /// Calls a trace function for `count` values at `start`; true if it has met a lock that was taken.
    ///
    /// # Safety
    /// The function is for such values, and so many of them, initialised, lie in an object that stays.
    pub(super) unsafe fn trace(&mut self, trace: TraceFn, start: Addr, count: usize) -> bool {
        let reader = Reader::Collector(self.cycle);
        // SAFETY: this is a worker of the collector's, and `cycle` is the running one.
        let mut tracer = unsafe { Tracer::new(self, reader) };
        // SAFETY: the caller's promise.
        unsafe { trace(start.as_ptr(), count, &mut tracer) };
        tracer.is_deferred()
    }

    /// Takes back that an object has been scanned; false if somebody else has done so.
    fn unscan(&mut self, info: &Info, object: Addr) -> bool {
        let mine = bits::clear(Table::Scanned, object);
        if mine {
            self.uncount(1, Bytes::new(info.slot));
        }
        mine
    }

    /// Counts objects of so many bytes together.
    #[inline]
    pub(super) fn count_scanned(&mut self, objects: u64, bytes: Bytes) {
        self.tally.objects = self.tally.objects.wrapping_add(objects);
        self.tally.bytes = self.tally.bytes.wrapping_add(bytes.get());
    }

    /// Takes back that objects of so many bytes together have been counted.
    pub(super) fn uncount(&mut self, objects: u64, bytes: Bytes) {
        self.tally.objects = self.tally.objects.wrapping_sub(objects);
        self.tally.bytes = self.tally.bytes.wrapping_sub(bytes.get());
    }

    /// Queues the pieces of the one object of a span, and scans the first one here.
    fn split(&mut self, info: &Info) {
        let mut piece = info.base + PIECE;
        while piece < info.limit() {
            let (mut batch, mut count) = ([Addr::NULL; BATCH], 0);
            while piece < info.limit() && count < BATCH {
                // SAFETY: a page of the object's span lies in an arena of this heap.
                let arena = unsafe { &*map::find(piece) };
                if arena.queue(piece.page_in_arena()) {
                    batch[count] = piece;
                    count += 1;
                }
                piece = piece + PIECE;
            }
            let pushed = self.crew.push(&batch[..count]);
            for &refused in &batch[pushed..count] {
                unqueue(refused);
                self.scan_piece(info, refused);
            }
        }
        self.scan_piece(info, info.base);
    }

    /// Follows the pointers of the elements that begin in the piece at `piece`.
    fn scan_piece(&mut self, info: &Info, piece: Addr) {
        let object = info.base;
        let until = info.limit().min(piece + PIECE);
        self.tally.work += until.bytes_since(piece).get() as u64;
        // The first element that does not begin before an address.
        let element_at = |at: Addr, step: usize| at.bytes_since(object).get().div_ceil(step);
        match info.layout {
            Layout::Words { mask, period } if period != 0 => {
                let step = period as usize * WORD_BYTES;
                let first = object + Bytes::new(element_at(piece, step) * step);
                self.scan_elements(first, until, info.limit(), Bytes::new(step), mask);
            }
            Layout::Traced(trace) => {
                // SAFETY: the object is marked, so it is initialised and stays.
                let count = unsafe { info.count(object) };
                let first = element_at(piece, info.element);
                let behind = element_at(until, info.element).min(count);
                if first < behind {
                    let start = object + Bytes::new(first * info.element);
                    self.trace_piece(info, piece, trace, start, behind - first);
                }
            }
            Layout::NoScan | Layout::Words { .. } => {}
        }
    }

    /// Calls the trace function for the `count` elements of a piece, from `start` on.
    fn trace_piece(&mut self, info: &Info, piece: Addr, trace: TraceFn, start: Addr, count: usize) {
        // SAFETY: the layout says that the function is for values like these, which lie in a marked object.
        match self.contained(info, |marker| unsafe { marker.trace(trace, start, count) }) {
            Some(false) => {}
            Some(true) => {
                if !self.crew.put_aside(piece) {
                    // Q1: all of the object comes back, with the rescan that tries it again.
                    self.unscan(info, info.base);
                }
            }
            None => self.crew.set_broken(),
        }
    }
}

/// Whether the span's one object is scanned in pieces.
fn has_pieces(info: &Info) -> bool {
    let repeats = match info.layout {
        Layout::NoScan => false,
        Layout::Words { period, .. } => period != 0,
        Layout::Traced(_) => info.element != 0,
    };
    repeats && info.slots == 1 && info.slot > PIECE.get()
}

/// What [`claim`] has taken.
struct Claimed {
    /// The objects that are this worker's.
    todo: Todo,
    /// How many there are.
    objects: u64,
    /// All marked objects of the page, these among them.
    marked: Todo,
}

/// Takes the marked objects of a page that are not scanned: they are this worker's from here on.
fn claim(arena: &HeapArena, table: Table, index: usize) -> Claimed {
    // SAFETY: the page of an object has been grown.
    let marks = unsafe { arena.line(table, index) };
    // SAFETY: as above.
    let scanned = unsafe { arena.line(Table::Scanned, index) };
    let nothing = [0u64; PAGE_BITMAP_WORDS];
    let (mut todo, mut objects, mut marked) = (nothing, 0, nothing);
    for word in 0..PAGE_BITMAP_WORDS {
        // Black runs set scanned before marked. Reading in the opposite order, whoever sees the mark
        // of a black slot sees that it is scanned.
        marked[word] = marks[word].load(Ordering::SeqCst);
        let new = marked[word] & !scanned[word].load(Ordering::SeqCst);
        if new != 0 {
            todo[word] = new & !scanned[word].fetch_or(new, Ordering::SeqCst);
            objects += u64::from(todo[word].count_ones());
        }
    }
    Claimed { todo, objects, marked }
}

/// Calls `visit` with each object of `todo`, which is about the page at `page`.
#[inline]
pub(super) fn for_each_object(info: &Info, page: Addr, todo: &Todo, mut visit: impl FnMut(Addr)) {
    for (index, &word) in todo.iter().enumerate() {
        bits::for_each_bit(word, |bit| {
            let granule = (index * 64 + bit as usize) * GRANULE_BYTES;
            visit(info.object_at(page + Bytes::new(granule)));
        });
    }
}

const _: () = assert!(PIECE.get() % PageCount::new(1).bytes().get() == 0);
