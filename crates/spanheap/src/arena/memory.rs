//! [`Memory`]: the bump pointer of an arena, and the pages behind it.
//!
//! ```text
//!   header | value | value | ... | cursor ->            free | end      the newest chunk
//!   header | value | ...                        | rest       | end      older ones, each leads to the next
//!                                                                       runs of their own, for large values
//! ```
//!
//! # The fast path
//! The cursor is a multiple of [`UNIT`], and sizes are rounded up to one, so that values with no more alignment
//! than that need no arithmetic but the addition: compare, add, store. An arena begins without a chunk, with a cursor
//! at its end; so an arena that is not used costs nothing, and the first value takes the slow path like any
//! other that finds the chunk full.
//!
//! # Growth
//! The first chunk is one run of pages (8 KiB), or the largest that the mutator has kept from arenas before; each is at
//! least twice as large as the one before it, up to 8 MiB. What is left of a chunk is lost until the arena is reset:
//! at most the size of the value that did not fit. Values larger than a quarter of the largest chunk lose
//! nothing of it, and do not need a chunk of their size: they get pages of their own, of which a record is kept in
//! the arena itself. A limit makes chunks smaller before it refuses anything, and so does the heap's.
//!
//! # Safety
//! - M1. `base <= cursor <= end`, all three in one chunk, the first of `chunks`, or equal and dangling if there is none. What
//!   lies from `cursor` to `end` is ready memory that nobody uses, and so is a multiple of `UNIT` long.
//! - M2. What lies between the beginning of a chunk's room and the cursor, or the end of older chunks, is nobody's but those
//!   who were given blocks in there. `give_back` and `resize` are told of blocks by who has them.
//! - M3. `beside` leads to records in the arena's chunks, each of which has a span that is used for one value.
//! - M4. Chunks and spans belong to the heap of `core`, inside which the thread stays as long as `core` is borrowed.
#![allow(unsafe_code)]

use super::error::ArenaError;
use super::options::ArenaOptions;
use core::alloc::Layout;
use core::cell::Cell;
use core::ptr::NonNull;
use spanheap_core::addr::{Addr, Bytes, PAGE_BYTES};
use spanheap_core::heap::{ManualChunk, ManualSpan};
use spanheap_core::mutator::Mutator as CoreMutator;

/// Blocks begin at multiples of this, and take multiples of it.
pub(super) const UNIT: usize = 8;

/// The largest chunk that an arena asks for.
pub(super) const LARGEST_CHUNK: usize = 8 << 20;

/// What is larger, together with what its alignment costs, has pages of its own.
pub(super) const LARGEST_INSIDE: usize = LARGEST_CHUNK / 4;

/// How many records of values with pages of their own are looked through for one that is given back early.
const RECORDS_SEEN: usize = 16;

const HEADER: usize = ManualChunk::HEADER.get();

const _: () = assert!(HEADER % UNIT == 0 && LARGEST_INSIDE + HEADER + PAGE_BYTES <= LARGEST_CHUNK);

/// A value with pages of its own.
struct Beside {
    before: Option<NonNull<Beside>>,
    span: ManualSpan,
}

/// The memory of an arena; see the top of the file.
pub(super) struct Memory<'env> {
    cursor: Cell<NonNull<u8>>,
    end: Cell<NonNull<u8>>,
    base: Cell<NonNull<u8>>,
    chunks: Cell<Option<ManualChunk>>,
    beside: Cell<Option<NonNull<Beside>>>,
    /// Bytes in use that do not lie in the newest chunk.
    elsewhere: Cell<usize>,
    reserved: Cell<usize>,
    options: ArenaOptions,
    core: &'env CoreMutator,
}

/// A size in whole units. It does not overflow: no layout is that large.
#[inline(always)]
const fn whole_units(size: usize) -> usize {
    (size + (UNIT - 1)) & !(UNIT - 1)
}

/// A size in whole pages.
const fn whole_pages(size: usize) -> usize {
    (size + (PAGE_BYTES - 1)) & !(PAGE_BYTES - 1)
}

/// The pointer to an address in memory of a heap.
fn pointer(addr: Addr) -> NonNull<u8> {
    NonNull::new(addr.as_ptr()).expect("pages do not lie at address 0")
}

/// A pointer that suits, for a block without bytes.
#[inline(always)]
fn nowhere(align: usize) -> NonNull<u8> {
    NonNull::new(core::ptr::without_provenance_mut(align)).expect("an alignment is not 0")
}

impl<'env> Memory<'env> {
    #[inline]
    pub(super) fn new(core: &'env CoreMutator, options: ArenaOptions) -> Memory<'env> {
        let nowhere = NonNull::<u64>::dangling().cast();
        Memory {
            cursor: Cell::new(nowhere),
            end: Cell::new(nowhere),
            base: Cell::new(nowhere),
            chunks: Cell::new(None),
            beside: Cell::new(None),
            elsewhere: Cell::new(0),
            reserved: Cell::new(0),
            options,
            core,
        }
    }

    pub(super) fn options(&self) -> &ArenaOptions {
        &self.options
    }

    pub(super) fn reserved(&self) -> usize {
        self.reserved.get()
    }

    pub(super) fn used(&self) -> usize {
        self.elsewhere.get() + self.used_here()
    }

    fn used_here(&self) -> usize {
        self.cursor.get().as_ptr().addr() - self.base.get().as_ptr().addr()
    }

    /// A block in the newest chunk, if it fits: aligned, uninitialised and the caller's alone until the memory is
    /// reset. Nothing is used up for one without bytes.
    #[inline(always)]
    pub(super) fn bump(&self, layout: Layout) -> Option<NonNull<u8>> {
        if layout.size() == 0 {
            return Some(nowhere(layout.align()));
        }
        let cursor = self.cursor.get().as_ptr();
        let start = if layout.align() > UNIT {
            let start = (cursor.addr() + (layout.align() - 1)) & !(layout.align() - 1);
            cursor.wrapping_add(start - cursor.addr())
        } else {
            cursor
        };
        // No overflow: pages lie below 2^48, and size and alignment of a layout are below 2^63 together.
        let next = start.wrapping_add(whole_units(layout.size()));
        if next.addr() > self.end.get().as_ptr().addr() {
            return None;
        }
        // SAFETY: it is not below the cursor, which is not null, and nothing has overflowed.
        self.cursor.set(unsafe { NonNull::new_unchecked(next) });
        // SAFETY: as above.
        Some(unsafe { NonNull::new_unchecked(start) })
    }

    /// A block that did not fit into the newest chunk.
    #[cold]
    #[inline(never)]
    pub(super) fn refill(&self, layout: Layout) -> Result<NonNull<u8>, ArenaError> {
        // As much as the layout could need behind a cursor; layouts are too small for an overflow.
        let bytes = whole_units(layout.size()) + layout.align().saturating_sub(UNIT);
        if bytes > LARGEST_INSIDE {
            return self.place_beside(layout);
        }
        let least = whole_pages(bytes + HEADER);
        let room = self.room();
        if least > room {
            return Err(self.over_limit(least));
        }
        let before = self.chunks.take();
        let double = before.as_ref().map_or(PAGE_BYTES, |chunk| 2 * chunk.range().bytes().get());
        self.chunks.set(before);
        let usual = double.min(LARGEST_CHUNK).max(least.next_power_of_two()).min(room);
        let take = |bytes| self.core.take_chunk(Bytes::new(bytes), Bytes::new(room));
        let chunk = match take(usual) {
            Err(_) if usual > least => take(least)?,
            outcome => outcome?,
        };
        self.begin(chunk);
        Ok(self.bump(layout).expect("the chunk was made for the block"))
    }

    /// Continues in a new chunk.
    fn begin(&self, mut chunk: ManualChunk) {
        self.reserved.set(self.reserved.get() + chunk.range().bytes().get());
        self.elsewhere.set(self.used());
        chunk.link(self.chunks.take());
        self.rewind(chunk);
    }

    /// Continues at the beginning of a chunk, which is the newest.
    fn rewind(&self, chunk: ManualChunk) {
        let room = chunk.room();
        let base = pointer(room.base());
        self.base.set(base);
        self.cursor.set(base);
        self.end.set(pointer(room.end()));
        self.chunks.set(Some(chunk));
    }

    /// How many bytes of pages the limit leaves.
    fn room(&self) -> usize {
        let limit = self.options.limit & !(PAGE_BYTES - 1);
        limit.saturating_sub(self.reserved.get())
    }

    fn over_limit(&self, requested: usize) -> ArenaError {
        let (reserved, limit) = (self.reserved.get(), self.options.limit);
        ArenaError::Limit { requested, reserved, limit, arena: self.options.name }
    }

    /// A block with pages of its own.
    fn place_beside(&self, layout: Layout) -> Result<NonNull<u8>, ArenaError> {
        let pages = whole_pages(layout.size());
        let own = Layout::new::<Beside>();
        // The record first: it is small, and given back if there is nothing to record.
        let record = self.bump(own).map_or_else(|| self.refill(own), Ok)?.cast::<Beside>();
        let span = if pages > self.room() {
            Err(self.over_limit(pages))
        } else {
            self.core.alloc_manual(Bytes::new(pages), layout.align()).map_err(ArenaError::Heap)
        };
        let span = span.inspect_err(|_| {
            // SAFETY: M2: nobody knows the record.
            unsafe { self.give_back(record.cast(), own.size()) };
        })?;
        let range = span.range();
        self.reserved.set(self.reserved.get() + range.bytes().get());
        self.elsewhere.set(self.elsewhere.get() + range.bytes().get());
        // SAFETY: the block is as large and aligned as a record, and ours.
        unsafe { record.write(Beside { before: self.beside.get(), span }) };
        self.beside.set(Some(record));
        Ok(pointer(range.base()))
    }

    /// Whether a block of `size` bytes is the last one in the newest chunk.
    #[inline]
    fn is_last(&self, block: NonNull<u8>, size: usize) -> bool {
        block.as_ptr().wrapping_add(whole_units(size)) == self.cursor.get().as_ptr()
    }

    /// Takes a block back, if it is the last one, or has pages of its own; else it stays until the reset.
    ///
    /// # Safety
    /// The block came from here with a layout of that size, which is not 0, or was resized to it; and nobody
    /// uses it any more.
    pub(super) unsafe fn give_back(&self, block: NonNull<u8>, size: usize) {
        if self.is_last(block, size) {
            // M1: it begins behind the beginning of the chunk, and nobody uses what comes from there on.
            self.cursor.set(block);
        } else if size > LARGEST_INSIDE / 2 {
            // SAFETY: the caller's promise.
            unsafe { self.free_beside(block) };
        }
    }

    /// Frees the pages of a block that has some of its own, and is not among many younger ones.
    ///
    /// # Safety
    /// As [`Memory::give_back`].
    unsafe fn free_beside(&self, block: NonNull<u8>) {
        let (mut after, mut link) = (None::<NonNull<Beside>>, self.beside.get());
        for _ in 0..RECORDS_SEEN {
            let Some(record) = link else { return };
            // SAFETY: M3; nobody has a reference to a record.
            let before = unsafe { (*record.as_ptr()).before };
            // SAFETY: M3.
            let range = unsafe { (*record.as_ptr()).span.range() };
            if range.base().get() == block.as_ptr().addr() {
                match after {
                    None => self.beside.set(before),
                    // SAFETY: M3.
                    Some(after) => unsafe { (*after.as_ptr()).before = before },
                }
                // SAFETY: M3, and nothing leads to the record any more.
                self.free(unsafe { record.read() }.span);
                self.reserved.set(self.reserved.get() - range.bytes().get());
                self.elsewhere.set(self.elsewhere.get() - range.bytes().get());
                return;
            }
            (after, link) = (Some(record), before);
        }
    }

    /// Frees pages of which nothing is used any more.
    fn free(&self, span: ManualSpan) {
        // A process that was forked off has nobody to give them to.
        if self.core.is_here() {
            // SAFETY: M4, and the caller says that nobody uses them.
            unsafe { self.core.free_manual(span) };
        }
    }

    /// Makes a block larger or smaller where it is, if that is possible: always if the new size takes no more units.
    ///
    /// # Safety
    /// As [`Memory::give_back`], except that whoever asks goes on using the block. The sizes are those of layouts.
    pub(super) unsafe fn resize(&self, block: NonNull<u8>, old: usize, new: usize) -> bool {
        if self.is_last(block, old) {
            let next = block.as_ptr().wrapping_add(whole_units(new));
            if next.addr() > self.end.get().as_ptr().addr() {
                return false;
            }
            // SAFETY: not below the block, and no overflow, as in `bump`.
            self.cursor.set(unsafe { NonNull::new_unchecked(next) });
            return true;
        }
        whole_units(new) <= whole_units(old)
    }

    /// Gives everything back but the largest chunk, and begins at its beginning. Nobody has a block any more.
    pub(super) fn reset(&mut self) {
        self.free_all_beside();
        let mut largest = self.chunks.take();
        let mut rest = largest.as_mut().and_then(ManualChunk::unlink);
        while let Some(mut chunk) = rest {
            rest = chunk.unlink();
            let is_larger = |kept: &ManualChunk| chunk.range().bytes() > kept.range().bytes();
            let smaller = match largest.take_if(|kept| is_larger(kept)) {
                Some(smaller) => {
                    largest = Some(chunk);
                    smaller
                }
                None => chunk,
            };
            self.core.keep_chunk(smaller);
        }
        self.elsewhere.set(0);
        self.reserved.set(0);
        if let Some(chunk) = largest {
            self.reserved.set(chunk.range().bytes().get());
            self.rewind(chunk);
        }
    }

    fn free_all_beside(&mut self) {
        while let Some(record) = self.beside.get() {
            // SAFETY: M3: the record lies in a chunk that is still here, and nothing leads to it after this.
            let Beside { before, span } = unsafe { record.read() };
            self.beside.set(before);
            self.free(span);
        }
    }
}

impl Drop for Memory<'_> {
    #[inline]
    fn drop(&mut self) {
        if self.beside.get().is_some() {
            self.free_all_beside();
        }
        let mut rest = self.chunks.take();
        while let Some(mut chunk) = rest {
            rest = chunk.unlink();
            self.core.keep_chunk(chunk);
        }
    }
}
