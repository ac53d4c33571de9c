//! User arenas: memory of many values that is freed at once.
//!
//! An arena is a list of [chunks](crate::span::chunk). Whoever allocates leases one of them for himself
//! ([`Lease`]) and moves its ends; so the usual allocation takes no lock. Values are marked one by one like
//! objects, so there are no roots in arenas: a value that nobody reaches keeps nothing alive. What differs from
//! objects is that their memory goes with the arena, and not by a sweep.
//!
//! | file | what |
//! |---|---|
//! | `mod` | one arena: its chunks, who has leased one, whether it was freed |
//! | `bury` | what becomes of freed chunks |
//! | `clean` | clearing the bits of chunks |
//! | `keep` | freed chunks that keep their memory until the next cycle |
//! | `lease` | allocating in a chunk |
//! | `order` | neighbours in lists of chunks |
//! | `refill` | getting chunks |
//! | `registry` | the chunks of all arenas of a heap, and what becomes of them |
//! | `usual` | what arenas usually have |
//! | `verify` | a look at all of them |
//! | `waiting` | freed chunks that nobody has begun a grace period for |
//!
//! # Freeing
//! Logical at once: [`ArenaCore::free`] takes all chunks off the arena, says in the record of each one's span that
//! it is freed, and puts them onto a list. What happens then is up to the layer above, which knows about closures
//! and cycles; its steps in this one are those of the [`registry`].
//!
//! # Colours
//! New objects are white, grey or black, by the phase of the closure that makes them. Values are white or black
//! ([`Colour`]): an object of the second arming phase is grey because a white one would be swept, and no sweep frees
//! values. Whatever a closure of that phase puts into one, it held, so that is marked; the protocol's model of arenas
//! has it so, in all of its states. *Black* matters for one reason: a closure of the marking phase
//! that made white values, stored them and overwrote them would hand the collector an unmarked one in every
//! round, and marking would not end. So the rest of a word of the side tables, a kibibyte, is marked and scanned in
//! advance when the first value begins in it (C3 of the chunk); and a closure of the second arming phase, whose values
//! have to be scanned if they are found, passes over what is left of it.
//!
//! # Locking
//! [`Rank::UserArena`] for the chunks of an arena, [`Rank::UserArenas`] for what is common to a heap. Chunks are
//! got from the page heap without either.
//!
//! # Safety
//! Chunk records are memory of the heap's: nobody looks at one after the arena has been told that the heap is
//! gone, which happens under the arena's lock.
#![allow(unsafe_code)]

mod bury;
mod clean;
mod keep;
mod lease;
mod order;
mod refill;
mod registry;
mod usual;
mod verify;
mod waiting;

pub use lease::{Colour, Lease};
pub use refill::Wanted;
pub use registry::{Arenas, Totals as ArenaTotals};
pub use waiting::{Load, PLENTY, Waiting};

use crate::addr::{Addr, AddrRange, Bytes};
use crate::heap::error::OutOfMemory;
use crate::span::sites::{Allocated, End, Freed, Sites};
use crate::span::{Chunk, Table, TypeInfo};
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Lock, Rank};
use core::fmt;
use core::panic::Location;
use core::ptr::NonNull;

/// The largest chunk that several values share.
pub const MAX_CHUNK: Bytes = Bytes::new(8 << 20);

/// The largest value, its header included, that shares a chunk.
pub const MAX_SHARED: Bytes = Bytes::new(MAX_CHUNK.get() / 4);

/// Why there is no room in an arena.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ArenaError {
    /// The arena has been freed.
    Freed,
    /// The arena was abandoned: it takes no more values.
    Abandoned,
    /// The arena belongs to another heap than the mutator.
    OtherHeap,
    /// More bytes of pages than the arena may have.
    LimitReached {
        /// The limit.
        limit: Bytes,
        /// What the arena has.
        reserved: Bytes,
    },
    /// The heap has no more.
    OutOfMemory(OutOfMemory),
}

impl fmt::Display for ArenaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ArenaError::Freed => write!(f, "the arena has been freed"),
            ArenaError::Abandoned => write!(f, "the arena was abandoned and takes no more values"),
            ArenaError::OtherHeap => write!(f, "the arena belongs to another heap"),
            ArenaError::LimitReached { limit, reserved } => {
                write!(f, "the arena has {reserved} of its limit {limit}")
            }
            ArenaError::OutOfMemory(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ArenaError {}

/// An arena was freed before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AlreadyFreed;

impl fmt::Display for AlreadyFreed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "arena double free: it has been freed before")
    }
}

impl std::error::Error for AlreadyFreed {}

/// How an arena stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stage {
    /// It takes values.
    Open,
    /// Nobody will free it: it goes when nobody reaches any of its values.
    Abandoned,
    /// It was freed, or its heap was dropped.
    Freed,
}

/// What the lock of an arena protects.
struct Inside {
    stage: Stage,
    /// All chunks, linked by `next`.
    chunks: Option<NonNull<Chunk>>,
    /// Those that nobody has leased and that have room, linked by `next_partial`.
    partial: Option<NonNull<Chunk>>,
    /// Bytes of all chunks, and of those that somebody is getting.
    reserved: Bytes,
    /// What the next chunk has.
    next_chunk: Bytes,
    /// Whether it has nothing but the unit that it began with.
    lone: bool,
}

/// An arena.
pub struct ArenaCore {
    number: u64,
    heap: u64,
    name: Box<str>,
    limit: Option<Bytes>,
    /// Whether it was freed: what [`Stage::Freed`] says, without the lock.
    freed: AtomicBool,
    inside: Lock<Inside>,
}

// SAFETY: chunks are reached under the lock, or by the one who has leased them.
unsafe impl Send for ArenaCore {}
// SAFETY: as above.
unsafe impl Sync for ArenaCore {}

/// What was freed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Taken {
    /// The chunks, linked by `next`.
    pub chunks: Option<NonNull<Chunk>>,
    /// Whether the arena had been abandoned.
    pub was_abandoned: bool,
    /// Whether the arena had nothing but the unit that it began with.
    pub was_lone: bool,
}

/// Where a refill stands.
enum Step {
    /// Somebody else's rest was leased.
    Done,
    /// A chunk of so many bytes is to be got, which are reserved. If it is refused, one of so many may do. And: how many
    /// more arenas have nothing but the unit that they began with.
    Get(Bytes, Bytes, isize),
}

impl ArenaCore {
    /// A new arena of the heap numbered `heap`, which has no memory yet.
    pub fn new(number: u64, heap: u64, name: Box<str>, limit: Option<Bytes>) -> ArenaCore {
        let inside = Inside {
            stage: Stage::Open,
            chunks: None,
            partial: None,
            reserved: Bytes::ZERO,
            next_chunk: Bytes::ZERO,
            lone: false,
        };
        let freed = AtomicBool::new(false);
        ArenaCore { number, heap, name, limit, freed, inside: Lock::new(Rank::UserArena, inside) }
    }

    /// Its number in the heap, from 1 on.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The number of its heap.
    pub fn heap(&self) -> u64 {
        self.heap
    }

    /// What the program calls it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The most bytes of pages that it may have.
    pub fn limit(&self) -> Option<Bytes> {
        self.limit
    }

    /// Whether it has been freed, or its heap dropped.
    pub fn is_freed(&self) -> bool {
        self.freed.load(Ordering::Acquire)
    }

    /// Bytes of its chunks.
    pub fn reserved(&self) -> Bytes {
        self.inside.lock().reserved
    }

    /// Bytes of its values, with headers and with what was lost between them.
    pub fn used(&self) -> Bytes {
        let inside = self.inside.lock();
        let mut sum = Bytes::ZERO;
        inside.for_each_chunk(|chunk| sum += chunk.used());
        sum
    }

    /// Calls `visit` with the addresses of each chunk; the arena's lock is held meanwhile.
    pub fn for_each_chunk(&self, mut visit: impl FnMut(AddrRange)) {
        self.inside.lock().for_each_chunk(|chunk| visit(chunk.range()));
    }

    /// No more values; the arena goes when nobody reaches any of it. Returns the bytes of its chunks, which will not
    /// become more; `None` if it was freed or abandoned before.
    pub(super) fn abandon(&self) -> Option<Bytes> {
        let mut inside = self.inside.lock();
        if inside.stage != Stage::Open {
            return None;
        }
        inside.stage = Stage::Abandoned;
        let mut sum = Bytes::ZERO;
        inside.for_each_chunk(|chunk| sum += chunk.range().bytes());
        Some(sum)
    }

    /// Whether it was abandoned, and not freed since.
    pub fn is_abandoned(&self) -> bool {
        self.inside.lock().stage == Stage::Abandoned
    }

    /// Whether no value has its bit set in `table`.
    pub(super) fn is_unmarked(&self, table: Table) -> bool {
        let mut marks = 0;
        self.inside.lock().for_each_chunk(|chunk| marks += chunk.count_bits(table));
        marks == 0
    }

    /// Frees the arena: from here on nobody gets a value of it who has not had it before. Its chunks go to `take`,
    /// which is called with the arena's lock: the end of the heap waits for that ([`ArenaCore::lose`]), and so the
    /// records are there as long as somebody is about to put them onto another list.
    pub(super) fn free<R>(
        &self,
        sites: &Sites,
        freed: Freed,
        take: impl FnOnce(Taken) -> R,
    ) -> Result<R, AlreadyFreed> {
        let mut inside = self.inside.lock();
        if inside.stage == Stage::Freed {
            return Err(AlreadyFreed);
        }
        if sites.is_asked() {
            let end = End::now(self.number, &self.name, freed);
            inside.for_each_chunk(|chunk| sites.free(chunk.sites(), chunk.range(), &end));
        }
        inside.for_each_chunk(|chunk| {
            // SAFETY: the span of a chunk that an arena has is described by its record.
            unsafe { &*chunk.span() }.set_freed();
        });
        let was_abandoned = inside.stage == Stage::Abandoned;
        let taken = Taken { chunks: inside.chunks, was_abandoned, was_lone: inside.lone };
        inside.forget();
        self.freed.store(true, Ordering::Release);
        Ok(take(taken))
    }

    /// The heap is gone, and the chunks with it.
    pub(super) fn lose(&self) {
        self.inside.lock().forget();
        self.freed.store(true, Ordering::Release);
    }
}

impl Inside {
    fn for_each_chunk(&self, mut visit: impl FnMut(&Chunk)) {
        let mut next = self.chunks;
        while let Some(at) = next {
            // SAFETY: records of chunks in the list live, see the head of this file.
            let chunk = unsafe { at.as_ref() };
            next = chunk.next();
            visit(chunk);
        }
    }

    fn forget(&mut self) {
        self.stage = Stage::Freed;
        (self.chunks, self.partial, self.reserved) = (None, None, Bytes::ZERO);
        self.lone = false;
    }

    fn check_open(&self) -> Result<(), ArenaError> {
        match self.stage {
            Stage::Open => Ok(()),
            Stage::Abandoned => Err(ArenaError::Abandoned),
            Stage::Freed => Err(ArenaError::Freed),
        }
    }

    /// Takes in a chunk that was leased.
    fn put_back(&mut self, at: NonNull<Chunk>) {
        if self.stage == Stage::Freed {
            // It has gone with the others.
            return;
        }
        // SAFETY: as in `for_each_chunk`.
        let chunk = unsafe { at.as_ref() };
        if self.stage == Stage::Open && room(chunk) > Bytes::ZERO {
            chunk.set_next_partial(self.partial);
            self.partial = Some(at);
        }
    }

    /// Leases a chunk with room for `need` bytes that nobody else has.
    fn take_partial(&mut self, need: Bytes, colour: Colour) -> Option<NonNull<Chunk>> {
        let mut before: Option<NonNull<Chunk>> = None;
        let mut next = self.partial;
        while let Some(at) = next {
            // SAFETY: as in `for_each_chunk`.
            let chunk = unsafe { at.as_ref() };
            next = chunk.next_partial();
            if colour.room_in(chunk) < need {
                before = Some(at);
                continue;
            }
            match before {
                // SAFETY: as above.
                Some(before) => unsafe { before.as_ref() }.set_next_partial(next),
                None => self.partial = next,
            }
            chunk.set_next_partial(None);
            return Some(at);
        }
        None
    }
}

/// Bytes between the two ends of a chunk.
fn room(chunk: &Chunk) -> Bytes {
    chunk.high().bytes_since(chunk.low())
}

/// The bytes of the chunk for a value of `need` bytes, when the arena would have got one of `next`.
fn chunk_for(need: Bytes, next: Bytes) -> Bytes {
    let wanted = need.get().checked_next_power_of_two().unwrap_or(usize::MAX);
    Bytes::new(next.get().max(wanted).min(MAX_CHUNK.get()))
}

/// `need` in whole units.
fn whole(need: Bytes, unit: Bytes) -> Option<Bytes> {
    need.checked_align_up(unit.get())
}

/// Whether `addr` lies in one of the pages of a chunk that is not freed.
#[inline(always)]
pub fn is_live(addr: Addr) -> bool {
    // SAFETY: the caller's closure holds a pointer to a value, so its arena belongs to a heap that lives, and the
    // chunk stays in the page map at least until that closure has ended.
    let arena = unsafe { &*crate::span::map::find(addr) };
    // SAFETY: as above.
    unsafe { &*arena.span(addr.page_in_arena()) }.is_open_arena()
}

/// Notes a value of `bytes` bytes that was just allocated, and where in the program.
///
/// # Safety
/// `at` is the first byte of a value of an arena of the heap that `sites` belong to, which was allocated in the open
/// closure of this thread.
pub unsafe fn note_value(
    sites: &Sites,
    at: NonNull<u8>,
    bytes: Bytes,
    ty: Option<&'static TypeInfo>,
    site: &'static Location<'static>,
) {
    let start = Addr::of(at.as_ptr());
    // SAFETY: as in `is_live`: the closure is open in which the value was allocated.
    let arena = unsafe { &*crate::span::map::find(start) };
    // SAFETY: as above.
    let span = unsafe { &*arena.span(start.page_in_arena()) };
    if let Some(chunk) = span.chunk() {
        let is_slice = ty.is_some_and(|ty| ty.size != bytes.get());
        let value = Allocated { start, bytes, ty, is_slice, site };
        sites.note(chunk.sites(), chunk.range(), &value);
    }
}

#[cfg(test)]
mod tests;
