//! Allocating in a chunk that one thread has leased.
//!
//! Two cursors with nothing but loads and stores of one's own: values with pointers go up from the bottom, leaves
//! down from the top. Whatever does not fit, or needs more than that, is `None`, and the caller refills.
//!
//! # Safety
//! Headers, and gaps in place of them, are written into the free part of the leased chunk, which is nobody else's (C1
//! of the chunk).
#![allow(unsafe_code)]

use crate::addr::{Addr, Bytes, GRANULE_BYTES};
use crate::os::asan;
use crate::span::chunk::{Chunk, HEADER_BYTES, Header, MAX_COUNT, stride};
use crate::span::{Table, TypeInfo, bits, map};
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use core::ptr::NonNull;

/// Bytes of a chunk whose granules share a word of a side table.
const WORD: usize = 64 * GRANULE_BYTES;

/// The cursor of no chunk.
static NOWHERE: AtomicUsize = AtomicUsize::new(0);

/// How new values are coloured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Colour {
    /// Not marked. No cycle that marks before the closure has ended will look at them.
    White,
    /// Not marked, in the second arming phase of the cycle of that number. It marks while the closure may still be open,
    /// and finds such a value or not: no sweep would free it, and what a closure puts into it, it held. Nothing is
    /// allocated where the cycle has marked in advance, because what it does find has to be scanned.
    Pale(u32),
    /// Marked, for the cycle of that number, and never scanned.
    Black(u32),
}

impl Colour {
    /// Bytes that a lease of this colour finds in a chunk that nobody has leased.
    pub(super) fn room_in(self, chunk: &Chunk) -> Bytes {
        let (low, limit) = self.bounds(chunk);
        Bytes::new(limit.get().saturating_sub(low.get()))
    }

    /// Where values begin in the chunk, and where they end.
    fn bounds(self, chunk: &Chunk) -> (Addr, Addr) {
        let (low, high) = (chunk.low(), chunk.high());
        match self {
            // C3: the rest of the word behind a header, and before a leaf, may have been marked.
            Colour::Pale(cycle) if chunk.is_blackened(cycle) => {
                (low.checked_align_up(WORD).unwrap_or(high), high.align_down(WORD))
            }
            _ => (low, high.align_down(GRANULE_BYTES)),
        }
    }
}

/// A chunk that one thread has for itself, or none.
pub struct Lease {
    chunk: Option<NonNull<Chunk>>,
    /// Where the next header goes, as the chunk says: there is no copy that would have to be written for each value.
    low: &'static AtomicUsize,
    /// The end of the granules that are free.
    limit: usize,
    /// Where the last leaf begins.
    high: usize,
    /// Headers from here on need a word marked first; nowhere if values are not black.
    black_to: usize,
    /// Leaves below need one.
    black_from: usize,
    colour: Colour,
    /// Bytes of the chunk that was got last, until somebody asks.
    got: Bytes,
}

impl Lease {
    /// No chunk, and values of that colour.
    pub const fn none(colour: Colour) -> Lease {
        let (black_to, got) = (usize::MAX, Bytes::ZERO);
        Lease {
            chunk: None,
            low: &NOWHERE,
            limit: 0,
            high: 0,
            black_to,
            black_from: 0,
            colour,
            got,
        }
    }

    /// The colour of its values.
    pub fn colour(&self) -> Colour {
        self.colour
    }

    /// A new chunk was got, of so many bytes.
    pub(super) fn note_got(&mut self, bytes: Bytes) {
        self.got = bytes;
    }

    /// Bytes of the chunk that was got since somebody has asked last, if one was.
    pub fn take_got(&mut self) -> Bytes {
        core::mem::take(&mut self.got)
    }

    /// Takes a chunk that has just been leased.
    pub(super) fn begin(&mut self, chunk: NonNull<Chunk>) {
        debug_assert!(self.chunk.is_none());
        // SAFETY: the lessee's chunk.
        let record = unsafe { chunk.as_ref() };
        let (low, limit) = self.colour.bounds(record);
        if record.low() < low {
            // Walks look for headers in what is passed over.
            asan::permit(record.low(), low.bytes_since(record.low()));
            let mut header = record.low();
            while header < low.min(limit) {
                // SAFETY: the free part of a chunk that has just been leased.
                unsafe { &*header.as_ptr::<AtomicU64>() }.store(0, Ordering::Relaxed);
                header = header + Bytes::new(GRANULE_BYTES);
            }
        }
        record.set_low(low);
        (self.low, self.limit) = (record.low_cursor(), limit.get().max(low.get()));
        self.high = record.high().get();
        if limit < record.high().align_down(GRANULE_BYTES) {
            self.high = self.limit;
        }
        (self.black_to, self.black_from) = (usize::MAX, 0);
        match self.colour {
            Colour::White => {}
            Colour::Pale(cycle) => record.set_paled(cycle),
            Colour::Black(cycle) => {
                record.set_blackened(cycle);
                // That cycle may be over, and the chunk one that somebody has got since then.
                record.set_clean(0);
                (self.black_to, self.black_from) = (low.get(), self.high);
            }
        }
        self.chunk = Some(chunk);
    }

    /// Gives the chunk up.
    pub(super) fn end(&mut self) -> Option<NonNull<Chunk>> {
        let chunk = self.chunk.take();
        *self = Lease::none(self.colour);
        chunk
    }

    /// Room for `count` values with pointers, `bytes` together. What is in it is anything.
    #[inline(always)]
    pub fn take_scanned(
        &mut self,
        ty: &'static TypeInfo,
        bytes: usize,
        count: usize,
    ) -> Option<NonNull<u8>> {
        let need = stride(bytes).get();
        let at = self.low.load(Ordering::Relaxed);
        if need > self.limit - at {
            return None;
        }
        if at >= self.black_to {
            self.blacken(at);
        }
        debug_assert!(count <= MAX_COUNT && ty.align <= HEADER_BYTES);
        let header = Addr::new(at);
        asan::permit(header, Bytes::new(HEADER_BYTES + bytes));
        // SAFETY: below the limit, the chunk is the lessee's.
        let word = unsafe { &*header.as_ptr::<AtomicU64>() };
        word.store(Header::new(ty, count).bits(), Ordering::Relaxed);
        // As `Chunk::set_low`. A lease with room has a chunk.
        self.low.store(at + need, Ordering::Release);
        // SAFETY: chunks do not lie at address 0.
        Some(unsafe { NonNull::new_unchecked((header + Bytes::new(HEADER_BYTES)).as_ptr()) })
    }

    /// Room for `bytes` bytes without pointers. What is in it is anything. A value without bytes gets one, lest it lie
    /// in somebody else's page.
    #[inline(always)]
    pub fn take_leaf(&mut self, bytes: usize, align: usize) -> Option<NonNull<u8>> {
        let start = self.high.checked_sub(bytes.max(1))? & !(align - 1);
        let limit = start & !(GRANULE_BYTES - 1);
        if limit < self.low.load(Ordering::Relaxed) {
            return None;
        }
        // An empty lease ends below its beginning.
        let chunk = self.chunk?;
        if start < self.black_from {
            self.blacken_leaf(limit);
        }
        (self.high, self.limit) = (start, limit);
        asan::permit(Addr::new(start), Bytes::new(bytes));
        // SAFETY: the lessee's chunk.
        unsafe { chunk.as_ref() }.set_high(Addr::new(start));
        // SAFETY: as above.
        Some(unsafe { NonNull::new_unchecked(Addr::new(start).as_ptr()) })
    }

    /// Marks the granules from `at` to the end of its word, as far as they are free.
    #[cold]
    #[inline(never)]
    fn blacken(&mut self, at: usize) {
        let end = (at & !(WORD - 1)) + WORD;
        self.set_black(at, end.min(self.limit));
        self.black_to = end;
    }

    /// Marks the granules from the beginning of the word of `granule` to its end, as far as they are free.
    #[cold]
    #[inline(never)]
    fn blacken_leaf(&mut self, granule: usize) {
        let begin = granule & !(WORD - 1);
        let low = self.low.load(Ordering::Relaxed);
        self.set_black(begin.max(low), granule + GRANULE_BYTES);
        self.black_from = begin;
    }

    /// Sets the bits of the granules from `from` to `to`, which share a word: scanned, then marked, as for any
    /// black run.
    fn set_black(&self, from: usize, to: usize) {
        let Colour::Black(cycle) = self.colour else { return };
        let mask = Addr::new(from).granule_in_arena() % 64;
        let count = (to - from) / GRANULE_BYTES;
        let ones = if count >= 64 { u64::MAX } else { (1 << count) - 1 };
        // SAFETY: M1, M2: the chunk's arena lives.
        let arena = unsafe { &*map::find(Addr::new(from)) };
        let marks = crate::span::Generation::new(cycle).table();
        for table in [Table::Scanned, marks] {
            // SAFETY: the pages of a span are grown (A1).
            let (word, _) = unsafe { arena.bit(table, Addr::new(from)) };
            word.fetch_or(ones << mask, Ordering::SeqCst);
        }
    }
}

/// Colours the one value of a chunk beside.
pub(super) fn colour_beside(colour: Colour, chunk: &Chunk) {
    match colour {
        Colour::White => {}
        Colour::Pale(cycle) => chunk.set_paled(cycle),
        Colour::Black(cycle) => {
            let start = chunk.range().base();
            chunk.set_blackened(cycle);
            bits::set(Table::Scanned, start);
            bits::set(crate::span::Generation::new(cycle).table(), start);
        }
    }
}
