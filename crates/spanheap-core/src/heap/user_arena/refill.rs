//! Chunks for those who allocate: somebody else's rest, or new pages.
//!
//! An arena begins with the smallest chunk that the system can guard, 8 KiB where pages are small, and each new one
//! is twice as large, up to a [`MOVE_UNIT`]. From there on chunks are whole units, one for as long as the arena is small
//! ([`CHUNK_SHARE`]), and lie at multiples of it, so that their memory can be [moved](super::keep) when they are freed.
//! Where arenas have [usually](super::usual) been large, one begins with a unit. A value that fits in no chunk
//! of the next size makes the next one larger; if it is larger than [`MAX_SHARED`], or its pointers could not be found
//! from its granule, it gets a chunk beside.
//!
//! Pages are got without the arena's lock, since that may sweep. What the arena is going to get is in `reserved`
//! meanwhile, so its limit holds.
//!
//! # Safety
//! Chunk records are described that nobody else knows yet; the length of a large slice is written into its chunk.
#![allow(unsafe_code)]

use super::lease::{Colour, Lease, colour_beside};
use super::{ArenaCore, ArenaError, MAX_CHUNK, MAX_SHARED, Step, Taken, chunk_for, whole};
use crate::addr::{Addr, AddrRange, Bytes, PageCount, WORD_BYTES};
use crate::heap::Central;
use crate::heap::page_heap::{LocalPages, Refused};
use crate::heap::stall::Cause;
use crate::os::{MOVE_UNIT, asan};
use crate::span::chunk::{HEADER_BYTES, MAX_COUNT, stride};
use crate::span::{Chunk, Counting, Info, Layout, Shape, TypeInfo};
use core::ptr::NonNull;
use std::sync::Arc;
use std::time::Instant;

/// From a unit on, a chunk has this part of what the arena has: one in so many.
const CHUNK_SHARE: usize = 32;

/// What is allocated.
#[derive(Clone, Copy, Debug)]
pub enum Wanted {
    /// So many bytes without pointers, aligned so.
    Leaf {
        /// Bytes.
        bytes: usize,
        /// A power of two.
        align: usize,
    },
    /// So many values with pointers, so many bytes together.
    Scanned {
        /// Their type.
        ty: &'static TypeInfo,
        /// How many.
        count: usize,
        /// Bytes together.
        bytes: usize,
    },
}

impl Wanted {
    /// `count` values of a type; `None` when the size overflows.
    #[inline(always)]
    pub fn of(ty: &'static TypeInfo, count: usize) -> Option<Wanted> {
        let bytes = ty.size.checked_mul(count).filter(|&bytes| bytes <= isize::MAX as usize)?;
        Some(match ty.shape {
            Shape::NoScan => Wanted::Leaf { bytes, align: ty.align },
            _ => Wanted::Scanned { ty, count, bytes },
        })
    }

    /// Takes it from a lease, if there is room.
    #[inline(always)]
    pub fn take(self, lease: &mut Lease) -> Option<NonNull<u8>> {
        match self {
            Wanted::Leaf { bytes, align } => lease.take_leaf(bytes, align),
            // The header holds less than any other number, and no other alignment.
            Wanted::Scanned { ty, count, bytes }
                if count <= MAX_COUNT && ty.align <= HEADER_BYTES =>
            {
                lease.take_scanned(ty, bytes, count)
            }
            Wanted::Scanned { .. } => None,
        }
    }

    /// Bytes of room in which it fits for certain; `None` if it shares no chunk.
    fn shared(self) -> Option<Bytes> {
        let need = match self {
            // The last granule is free as a whole, or not at all.
            Wanted::Leaf { bytes, align } => bytes.checked_add(align)?.checked_add(32)?,
            Wanted::Scanned { ty, count, bytes } => {
                if count > MAX_COUNT || ty.align > HEADER_BYTES {
                    return None;
                }
                stride(bytes).get()
            }
        };
        Some(Bytes::new(need)).filter(|&need| need <= MAX_SHARED)
    }

    /// Bytes and alignment of a chunk for it alone.
    fn beside(self) -> Option<(Bytes, usize)> {
        match self {
            Wanted::Leaf { bytes, align } => Some((Bytes::new(bytes.max(1)), align)),
            Wanted::Scanned { ty, count: 1, bytes } => Some((Bytes::new(bytes.max(1)), ty.align)),
            Wanted::Scanned { ty, count, .. } => {
                Some((ty.slice_extent(count)?.1.max(Bytes::new(1)), ty.align))
            }
        }
    }

    /// Bytes that the program asked for.
    pub fn requested(self) -> Bytes {
        match self {
            Wanted::Leaf { bytes, .. } | Wanted::Scanned { bytes, .. } => Bytes::new(bytes),
        }
    }
}

/// What a chunk is to be.
struct Request {
    /// Its length.
    bytes: Bytes,
    /// Of its base.
    align: usize,
    /// What the program asked for.
    requested: Bytes,
    /// Whether it is for one value.
    beside: bool,
    /// How the first value is coloured.
    colour: Colour,
}

impl Central {
    /// Room for something that does not fit in what is leased: finds another chunk, or makes one for it alone.
    #[cold]
    #[inline(never)]
    pub fn arena_room(
        &self,
        core: &Arc<ArenaCore>,
        lease: &mut Lease,
        wanted: Wanted,
        local: &LocalPages,
    ) -> Result<NonNull<u8>, ArenaError> {
        self.assert_here();
        let Some(need) = wanted.shared() else {
            let begun = Instant::now();
            let room = self.beside(core, lease, wanted, local);
            self.stalls().record(Cause::Allocation, begun);
            return room;
        };
        // Whoever has set a limit on an arena thinks of it as small.
        let is_large = self.arenas().are_large() && core.limit().is_none() && self.os().can_move();
        let first = if is_large { MOVE_UNIT } else { self.chunk_unit() };
        match core.begin_refill(lease, need, (self.chunk_unit(), first))? {
            // The usual thing for whoever allocates without keeping a writer: no more than a short lock.
            Step::Done => {}
            Step::Get(bytes, least, lone) => {
                self.arenas().note_lone(lone);
                let begun = Instant::now();
                let colour = lease.colour();
                let chunk = self.new_chunk(core, wanted, (bytes, colour), local);
                let chunk = match chunk {
                    Err(ArenaError::OutOfMemory(_)) if least < bytes => {
                        core.reserve(least)?;
                        self.new_chunk(core, wanted, (least, colour), local)?
                    }
                    other => other?,
                };
                self.stalls().record(Cause::Allocation, begun);
                self.take_on(core, lease, chunk)?;
                // SAFETY: the lessee's chunk.
                lease.note_got(unsafe { chunk.as_ref() }.range().bytes());
            }
        }
        let found = wanted.take(lease);
        Ok(found.expect("a chunk that was got for a value has room for it"))
    }

    /// A new chunk that values share; its bytes have been reserved, and are not if it is refused.
    fn new_chunk(
        &self,
        core: &Arc<ArenaCore>,
        wanted: Wanted,
        (bytes, colour): (Bytes, Colour),
        local: &LocalPages,
    ) -> Result<NonNull<Chunk>, ArenaError> {
        let requested = wanted.requested();
        let request =
            Request { bytes, align: align_for(bytes, 1), requested, beside: false, colour };
        self.chunk_with(core, request, local, Info::chunk)
    }

    /// A chunk for one value.
    fn beside(
        &self,
        core: &Arc<ArenaCore>,
        lease: &mut Lease,
        wanted: Wanted,
        local: &LocalPages,
    ) -> Result<NonNull<u8>, ArenaError> {
        let too_large = || {
            let overflow = Bytes::new(usize::MAX);
            ArenaError::OutOfMemory(self.out_of_memory(overflow, Refused::TooLarge))
        };
        let (bytes, align) = wanted.beside().ok_or_else(too_large)?;
        let bytes = whole(bytes, self.chunk_unit()).ok_or_else(too_large)?;
        core.reserve(bytes)?;
        let describe = |base, pages| match wanted {
            Wanted::Leaf { .. } => Info::chunk(base, pages),
            Wanted::Scanned { ty, count, .. } => Info::chunk_beside(base, pages, ty, count),
        };
        let requested = wanted.requested();
        let align = align_for(bytes, align);
        let request = Request { bytes, align, requested, beside: true, colour: lease.colour() };
        let at = self.chunk_with(core, request, local, describe)?;
        // SAFETY: nobody else knows the chunk.
        let chunk = unsafe { at.as_ref() };
        let range = chunk.range();
        chunk.set_low(range.end());
        chunk.set_high(range.end());
        asan::permit(range.base(), requested);
        if let Wanted::Scanned { ty, count, .. } = wanted {
            if let Layout::Words { .. } = ty.slice_layout() {
                // Elements are scanned up to the end, the zeros behind the last one included.
                asan::permit_range(range);
            }
            if count != 1 && ty.slice_counting() == Counting::Trailer {
                let trailer = range.end() - Bytes::new(WORD_BYTES);
                asan::permit(trailer, Bytes::new(WORD_BYTES));
                // SAFETY: the last word of the chunk, behind the values, which nobody else knows.
                unsafe { trailer.as_ptr::<usize>().write(count) };
            }
        }
        colour_beside(lease.colour(), chunk);
        self.keep_or_free(core, at)?;
        lease.note_got(bytes);
        Ok(NonNull::new(range.base().as_ptr()).expect("no chunk lies at address 0"))
    }

    /// Gets pages and a record.
    fn chunk_with(
        &self,
        core: &Arc<ArenaCore>,
        request: Request,
        local: &LocalPages,
        describe: impl Fn(Addr, PageCount) -> Info,
    ) -> Result<NonNull<Chunk>, ArenaError> {
        let Request { bytes, align, requested, beside, colour } = request;
        let refused = |refused| {
            core.unreserve(bytes);
            ArenaError::OutOfMemory(self.out_of_memory(requested, refused))
        };
        let record = self.arenas().new_record(self.os(), self.memory());
        let record = record.map_err(|error| refused(error.into()))?;
        let owner = Arc::into_raw(core.clone()).cast_mut().cast();
        // SAFETY: a record of the pool, zeroed or a former one (C4), which lives as long as the heap.
        let chunk: &'static Chunk = unsafe { record.as_ref() };
        let info = |base: Addr, pages: PageCount| {
            chunk.describe(AddrRange::at(base, pages.bytes()), core.number(), owner, beside);
            describe(base, pages)
        };
        // What several values share is written by each of them.
        let place = (Bytes::new(align), beside);
        match self.alloc_chunk(bytes, place, local, chunk, info) {
            Ok(span) => {
                chunk.set_span(span.into_raw().as_ptr());
                if colour == Colour::White {
                    // Bits of free pages are clear, and no cycle marks before the open closure has ended.
                    chunk.set_clean(self.arenas().markings());
                }
                self.arenas().enter(record);
                self.grow_outside(bytes);
                Ok(record)
            }
            Err(why) => {
                // SAFETY: the count that was made above.
                drop(unsafe { Arc::from_raw(owner.cast::<ArenaCore>().cast_const()) });
                self.arenas().put_record(record);
                Err(refused(why))
            }
        }
    }

    /// Makes a new chunk the arena's, and leases it.
    fn take_on(
        &self,
        core: &Arc<ArenaCore>,
        lease: &mut Lease,
        chunk: NonNull<Chunk>,
    ) -> Result<(), ArenaError> {
        self.keep_or_free(core, chunk)?;
        core.lease(lease, chunk)
    }

    /// Makes a new chunk the arena's. If that was freed or abandoned meanwhile, the chunk is freed.
    fn keep_or_free(&self, core: &ArenaCore, at: NonNull<Chunk>) -> Result<(), ArenaError> {
        let kept = core.keep(at);
        if kept.is_err() {
            // SAFETY: the chunk is nobody's, and its span is described.
            let chunk = unsafe { at.as_ref() };
            let bytes = chunk.range().bytes();
            core.unreserve(bytes);
            // SAFETY: as above.
            unsafe { &*chunk.span() }.set_freed();
            let (was_abandoned, was_lone) = (false, false);
            let taken = Taken { chunks: Some(at), was_abandoned, was_lone };
            let waiting = self.arenas().take_in(taken);
            self.outside().shrink(waiting.new);
            self.tell_of(waiting);
        }
        kept
    }
}

/// How a chunk of so many bytes is aligned, whose values need no less than `align`.
fn align_for(bytes: Bytes, align: usize) -> usize {
    if bytes < MOVE_UNIT { align } else { align.max(MOVE_UNIT.get()) }
}

impl ArenaCore {
    /// Gives back what is leased, and leases a chunk with room for `need` bytes, if there is one; else says what is
    /// to be got.
    fn begin_refill(
        &self,
        lease: &mut Lease,
        need: Bytes,
        (unit, first): (Bytes, Bytes),
    ) -> Result<Step, ArenaError> {
        let mut inside = self.inside.lock();
        if let Some(chunk) = lease.end() {
            inside.put_back(chunk);
        }
        inside.check_open()?;
        if let Some(chunk) = inside.take_partial(need, lease.colour()) {
            lease.begin(chunk);
            return Ok(Step::Done);
        }
        let largest = MAX_CHUNK.max(unit);
        let mut next = inside.next_chunk.max(first);
        if next >= MOVE_UNIT {
            let share = Bytes::new(inside.reserved.get() / CHUNK_SHARE).max(MOVE_UNIT);
            next = Bytes::new(share.get() & !(MOVE_UNIT.get() - 1));
        }
        let next = next.min(largest);
        let least = need.checked_align_up(unit.get()).expect("a shared value is small");
        let bytes = chunk_for(need, next).max(least);
        let bytes = whole(bytes, unit).expect("a chunk is small");
        let is_first = inside.reserved == Bytes::ZERO;
        let bytes = match inside.reserve(bytes, self.limit) {
            Ok(()) => bytes,
            Err(_) => {
                inside.reserve(least, self.limit)?;
                least
            }
        };
        inside.next_chunk = Bytes::new(bytes.get().saturating_mul(2).min(largest.get()));
        let is_lone = is_first && bytes == MOVE_UNIT;
        let was_lone = core::mem::replace(&mut inside.lone, is_lone);
        Ok(Step::Get(bytes, least, isize::from(is_lone) - isize::from(was_lone)))
    }

    /// Reserves bytes for a chunk beside.
    fn reserve(&self, bytes: Bytes) -> Result<(), ArenaError> {
        let mut inside = self.inside.lock();
        inside.check_open()?;
        inside.reserve(bytes, self.limit)
    }

    /// Gives up bytes that were reserved and not got.
    fn unreserve(&self, bytes: Bytes) {
        let mut inside = self.inside.lock();
        inside.reserved = inside.reserved.saturating_sub(bytes);
    }

    /// Takes a new chunk in.
    fn keep(&self, at: NonNull<Chunk>) -> Result<(), ArenaError> {
        let mut inside = self.inside.lock();
        inside.check_open()?;
        // SAFETY: the record of a chunk that nobody else knows.
        unsafe { at.as_ref() }.set_next(inside.chunks);
        inside.chunks = Some(at);
        Ok(())
    }

    /// Leases a chunk that was just taken in.
    fn lease(&self, lease: &mut Lease, at: NonNull<Chunk>) -> Result<(), ArenaError> {
        let inside = self.inside.lock();
        inside.check_open()?;
        lease.begin(at);
        Ok(())
    }

    /// Gives back what is leased.
    pub fn end_lease(&self, lease: &mut Lease) {
        if let Some(chunk) = lease.end() {
            self.inside.lock().put_back(chunk);
        }
    }
}

impl super::Inside {
    fn reserve(&mut self, bytes: Bytes, limit: Option<Bytes>) -> Result<(), ArenaError> {
        let sum = self.reserved.saturating_add(bytes);
        match limit {
            Some(limit) if sum > limit => {
                Err(ArenaError::LimitReached { limit, reserved: self.reserved })
            }
            _ => {
                self.reserved = sum;
                Ok(())
            }
        }
    }
}
