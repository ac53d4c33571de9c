//! User arenas, as virtual machines and the safe API use them: made ([`Heap::new_arena`](super::Heap::new_arena)),
//! filled, looked into, freed.
//!
//! ```text
//!   let arena = heap.new_arena(ArenaOptions::default());
//!   closure:  writer = mutator.arena_writer(&arena); value = writer.alloc(TYPE); write it; let others have it
//!   closure:  mutator.is_arena_live(value)?  then use it until the closure ends
//!   arena.free()                             no later closure gets a value of it; the memory goes when none can
//! ```
//!
//! A pointer to a value is an edge like a pointer to an object: fields that hold one are written by
//! [`Mutator::write`] and reported by trace functions, and roots lead to it. As long as the arena is not freed the
//! value is there; the collector follows its pointers if it is reached, and only then.
//!
//! # The contract of values
//! U1 to U5 hold for values as for objects, with these differences:
//!
//! - A1. A value has no destructor: what `drop` of its type would do is never done.
//! - A2. Before a closure uses a value that it has not allocated itself, it asks [`Mutator::is_arena_live`]; a yes
//!   holds until the closure ends. Who does not ask has Go's contract: an access after the arena was freed reads
//!   what was there, until the memory is gone, and then it faults, or reads zeros where the system cannot do that
//!   ([`crate::os::Guarding`]). Nothing else is ever found at the address as long as anybody points to it.
//! - A3. A writer is used inside the closure that was open when it was made, and is dropped in it or forgotten.
//! - A4. No weak pointers, cleanups and finalizers for values.
//!
//! # Safety
//! The functions are unsafe where they hand out memory or believe an address.
#![allow(unsafe_code)]

use super::Mutator;
use crate::addr::{Addr, AddrRange, Bytes};
use crate::collect::{Collector, Phase, PhaseWord};
use crate::heap::debt::Purse;
use crate::heap::user_arena::{self, ArenaCore, Colour, Lease, Wanted};
use crate::heap::{AlreadyFreed, ArenaError};
use crate::span::TypeInfo;
use crate::span::sites::Freed;
use core::alloc::Layout;
use core::fmt;
use core::panic::Location;
use core::ptr::NonNull;
use std::sync::Arc;

/// How an arena is to be.
#[derive(Clone, Debug, Default)]
pub struct ArenaOptions {
    /// What it is called in messages.
    pub name: Option<Box<str>>,
    /// Bytes of pages that it may have; a request beyond is refused.
    pub limit: Option<Bytes>,
}

/// A user arena of a heap. Clones are the same arena; when the last one is dropped it is freed, unless it was
/// freed or abandoned before. It may outlive its heap, and is empty then.
#[derive(Clone)]
pub struct UserArena {
    handle: Arc<Handle>,
}

struct Handle {
    core: Arc<ArenaCore>,
    collector: Arc<Collector>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        // Elsewhere, the arena's lock may be held for ever. What was abandoned belongs to the collector.
        if self.collector.central().is_here() && !self.core.is_abandoned() {
            // That it was freed before is as well.
            let _ = self.collector.free_arena(&self.core, Freed::Dropped);
        }
    }
}

impl fmt::Debug for UserArena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "arena {} {:?} of heap {}", self.number(), self.name(), self.heap_number())
    }
}

impl UserArena {
    pub(super) fn new(collector: Arc<Collector>, options: ArenaOptions) -> UserArena {
        let central = collector.central();
        central.assert_here();
        let name = options.name.unwrap_or_default();
        let core = central.arenas().make(central.number(), name, options.limit);
        UserArena { handle: Arc::new(Handle { core, collector }) }
    }

    /// Its number in the heap, from 1 on.
    pub fn number(&self) -> u64 {
        self.handle.core.number()
    }

    /// The number of its heap.
    pub fn heap_number(&self) -> u64 {
        self.handle.core.heap()
    }

    /// What it is called; empty if it has no name.
    pub fn name(&self) -> &str {
        self.handle.core.name()
    }

    /// Bytes of pages that it may have.
    pub fn limit(&self) -> Option<Bytes> {
        self.handle.core.limit()
    }

    /// Frees all values, on any thread, inside of a closure or outside. From now on [`Mutator::is_arena_live`]
    /// says no; closures that have asked before may go on. The memory goes when they have ended, and the
    /// addresses are used again when nobody points to them.
    ///
    /// # Errors
    /// When it was freed before. (The end of the heap counts as that.)
    ///
    /// # Panics
    /// In a process that was forked from the heap's.
    #[track_caller]
    pub fn free(&self) -> Result<(), AlreadyFreed> {
        let collector = &self.handle.collector;
        collector.central().assert_here();
        collector.free_arena(&self.handle.core, Freed::At(Location::caller()))
    }

    /// Leaves the arena to the collector: it takes no more values, and is freed after a cycle that has reached
    /// none of them, however long its handles live. Does nothing if it was freed or abandoned before.
    ///
    /// # Panics
    /// In a process that was forked from the heap's.
    pub fn abandon(&self) {
        let central = self.handle.collector.central();
        central.assert_here();
        central.arenas().abandon(self.handle.core.clone());
    }

    /// Whether it has been freed, or the heap is gone.
    pub fn is_freed(&self) -> bool {
        let arenas = self.handle.collector.central().arenas();
        self.handle.core.is_freed() || arenas.is_closed()
    }

    /// The addresses of its chunks; none when it is freed.
    ///
    /// # Panics
    /// In a process that was forked from the heap's.
    pub fn chunks(&self) -> Vec<AddrRange> {
        self.handle.collector.central().assert_here();
        let mut chunks = Vec::new();
        self.handle.core.for_each_chunk(|range| chunks.push(range));
        chunks
    }

    /// Bytes of values, with what was lost between them; 0 when it is freed.
    ///
    /// # Panics
    /// In a process that was forked from the heap's.
    pub fn used(&self) -> Bytes {
        self.handle.collector.central().assert_here();
        self.handle.core.used()
    }

    /// Bytes of pages; 0 when it is freed.
    ///
    /// # Panics
    /// In a process that was forked from the heap's.
    pub fn reserved(&self) -> Bytes {
        self.handle.collector.central().assert_here();
        self.handle.core.reserved()
    }
}

/// How a closure that entered with `word` colours what it allocates.
fn colour(word: PhaseWord) -> Colour {
    match word.phase() {
        Phase::Idle | Phase::ArmingA => Colour::White,
        Phase::ArmingB => Colour::Pale(word.cycle()),
        Phase::Marking => Colour::Black(word.cycle()),
    }
}

/// Allocates in an arena without a lock: has a chunk for itself until it is dropped.
pub struct ArenaWriter<'m> {
    mutator: &'m Mutator,
    core: Arc<ArenaCore>,
    lease: Lease,
}

impl Mutator {
    /// A new arena of the mutator's heap: see [`Heap::new_arena`](super::Heap::new_arena).
    ///
    /// # Panics
    /// In a process that was forked from the heap's.
    pub fn new_arena(&self, options: ArenaOptions) -> UserArena {
        UserArena::new(self.collector.clone(), options)
    }

    /// A writer for an arena, for as long as the closure is open.
    ///
    /// # Errors
    /// When the arena belongs to another heap. (That it was freed is noticed when it is used.)
    ///
    /// # Safety
    /// A closure is open, and A3.
    pub unsafe fn arena_writer(&self, arena: &UserArena) -> Result<ArenaWriter<'_>, ArenaError> {
        debug_assert!(self.is_inside());
        if arena.heap_number() != self.heap_number() {
            return Err(ArenaError::OtherHeap);
        }
        let lease = Lease::none(colour(self.word.get()));
        Ok(ArenaWriter { mutator: self, core: arena.handle.core.clone(), lease })
    }

    /// Whether the value's arena has not been freed. A yes holds until the closure ends (A2).
    ///
    /// # Safety
    /// A closure is open and holds a pointer to a value of an arena of this heap, by its first byte or by any other.
    #[inline(always)]
    pub unsafe fn is_arena_live(&self, value: NonNull<u8>) -> bool {
        debug_assert!(self.is_inside());
        user_arena::is_live(Addr::of(value.as_ptr()))
    }

    /// Allocates one value without keeping a writer: see [`ArenaWriter::alloc`]. Takes the arena's lock.
    ///
    /// # Errors
    /// As [`ArenaWriter::alloc`]; and when the arena belongs to another heap.
    ///
    /// # Safety
    /// As [`Mutator::arena_writer`] and [`ArenaWriter::alloc`].
    #[track_caller]
    pub unsafe fn arena_alloc(
        &self,
        arena: &UserArena,
        ty: &'static TypeInfo,
    ) -> Result<NonNull<u8>, ArenaError> {
        // SAFETY: the same contract; the writer is gone when this returns.
        let mut writer = unsafe { self.arena_writer(arena) }?;
        // SAFETY: the same contract.
        unsafe { writer.alloc(ty) }
    }
}

impl Mutator {
    /// Marks for a while, if what this mutator has taken in the marking phase so far has not been paid for: chunks are
    /// paid for like runs of objects, but for those that the program will probably free itself.
    fn pay_for_chunks(&self, purse: &Purse) {
        let debt = self.collector.central().debt();
        if self.tint.get().black && !purse.may_take(debt) {
            purse.take_pause();
            self.collector.assist(purse, self.word.get());
            // What is granted then is for this.
            purse.may_take(debt);
        }
    }

    /// What this mutator owes to the cycle that marks.
    #[cfg(test)]
    pub(crate) fn dues(&self) -> Bytes {
        self.record.caches().purse().due()
    }
}

impl ArenaWriter<'_> {
    /// Room for one value of `ty`. What is in it is anything ([`ArenaWriter::clear`]). The value is written before
    /// anything leads to it; nothing has to be called then, unlike [`Mutator::publish`] for objects.
    ///
    /// # Errors
    /// When the arena has been freed or abandoned, has reached its limit, or there is no memory; the last two leave
    /// everything as it was. A writer notices that the arena was freed when its chunk is used up; until then, what
    /// it returns is not live.
    ///
    /// # Safety
    /// A3; U2 and U4 for values (A1).
    #[inline(always)]
    #[track_caller]
    pub unsafe fn alloc(&mut self, ty: &'static TypeInfo) -> Result<NonNull<u8>, ArenaError> {
        // SAFETY: the same contract.
        unsafe { self.alloc_slice(ty, 1) }
    }

    /// Room for `len` values of `ty` in a row. What is in it is anything.
    ///
    /// # Errors
    /// As [`ArenaWriter::alloc`]; also when their size overflows.
    ///
    /// # Safety
    /// As [`ArenaWriter::alloc`].
    #[inline(always)]
    #[track_caller]
    pub unsafe fn alloc_slice(
        &mut self,
        ty: &'static TypeInfo,
        len: usize,
    ) -> Result<NonNull<u8>, ArenaError> {
        debug_assert!(self.mutator.is_inside());
        match Wanted::of(ty, len).and_then(|wanted| wanted.take(&mut self.lease)) {
            Some(room) => Ok(room),
            None => self.refill_for(ty, len),
        }
    }

    /// What is wanted is put together again here, so that the usual way never has it in memory.
    #[cold]
    #[inline(never)]
    #[track_caller]
    fn refill_for(&mut self, ty: &'static TypeInfo, len: usize) -> Result<NonNull<u8>, ArenaError> {
        match Wanted::of(ty, len) {
            Some(wanted) => self.refill(wanted, Some(ty)),
            None => Err(self.overflow()),
        }
    }

    /// Room for what `layout` says, which holds no pointers into a heap. What is in it is anything.
    ///
    /// # Errors
    /// As [`ArenaWriter::alloc`].
    ///
    /// # Safety
    /// As [`ArenaWriter::alloc`].
    #[inline(always)]
    #[track_caller]
    pub unsafe fn alloc_leaf(&mut self, layout: Layout) -> Result<NonNull<u8>, ArenaError> {
        debug_assert!(self.mutator.is_inside());
        let wanted = Wanted::Leaf { bytes: layout.size(), align: layout.align() };
        match wanted.take(&mut self.lease) {
            Some(room) => Ok(room),
            None => self.refill(wanted, None),
        }
    }

    /// Room that is not in what is leased. In a heap that notes its values nothing is leased between two of them, so
    /// each of them comes here.
    #[cold]
    #[inline(never)]
    #[track_caller]
    fn refill(
        &mut self,
        wanted: Wanted,
        ty: Option<&'static TypeInfo>,
    ) -> Result<NonNull<u8>, ArenaError> {
        let central = self.mutator.collector.central();
        let caches = self.mutator.record.caches();
        self.mutator.pay_for_chunks(caches.purse());
        let room = central.arena_room(&self.core, &mut self.lease, wanted, caches.local_pages());
        if self.mutator.tint.get().black {
            let got = central.unexpected(self.lease.take_got());
            caches.purse().charge(central.debt(), got);
        }
        let (room, sites) = (room?, central.arenas().sites());
        if sites.notes_values() {
            let (bytes, site) = (wanted.requested(), Location::caller());
            // SAFETY: the room has just been made, in the open closure.
            unsafe { user_arena::note_value(sites, room, bytes, ty, site) };
            self.core.end_lease(&mut self.lease);
        }
        Ok(room)
    }

    /// Makes new room zeros, all of its `bytes` bytes. (What is so large that it shares its pages with nothing is so
    /// already.)
    ///
    /// # Safety
    /// The room came from this writer for so many bytes, and nothing has been written into it.
    #[inline]
    pub unsafe fn clear(&self, room: NonNull<u8>, bytes: usize) {
        if bytes <= user_arena::MAX_SHARED.get() {
            // SAFETY: the caller's promise.
            unsafe { room.write_bytes(0, bytes) };
        }
    }

    #[cold]
    fn overflow(&self) -> ArenaError {
        ArenaError::OutOfMemory(self.mutator.collector.out_of_memory(Bytes::new(usize::MAX)))
    }

    /// Whether the arena has been freed.
    pub fn is_freed(&self) -> bool {
        self.core.is_freed()
    }
}

impl Drop for ArenaWriter<'_> {
    fn drop(&mut self) {
        // Elsewhere, the arena's lock may be held for ever.
        if self.mutator.collector.central().is_here() {
            self.core.end_lease(&mut self.lease);
        }
    }
}
