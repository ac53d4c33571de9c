//! From any number to the object that it points into.
//!
//! The number may be anything: an object's first byte or its last, a page that is free, a span that was
//! freed and serves another class by now, another heap's address, an address of the kernel, garbage.
//! Nothing is known of it, so nothing that it leads to may be believed before it has been checked, and
//! while it is checked, other threads allocate, sweep, free and reuse spans.
//!
//! ```text
//! find(addr):
//!     the arena map says: which heap?                not ours: foreign, or nowhere. Stop.
//!     the arena's page map says: which span record?  none: free
//!     the record's plate says: where, which slots?   (a seqlock: taken again if it has changed)
//!     a span of objects?                             no, a manual one: free; a chunk of a user arena: say so
//!     addr inside a slot?  by one multiplication     no: free
//!     side tables: does the slot hold an object?     no: free
//!     has the record or its generation changed?      yes: all over again
//! ```
//!
//! # Why it is safe
//! Another heap's arena record is never read: that heap may be dropped just now. The map knows its number
//! (M3). Our own arena records live as long as the heap. Span records are recycled but stay records until the
//! closure is left that the lookup is made in (P3); what is read of them is atomic (P4) and is used only if the record's epoch has not moved meanwhile; so
//! the slot that is computed is one that the span had at some moment of the call. Its side tables have
//! been mapped since its pages were grown (A1); if they have gone away meanwhile, the span has gone before,
//! and its record says so.
//!
//! # The order
//! [`Span::init`] makes the epoch odd, writes the plate and the generation, stores the state with release
//! and makes the epoch even with release; after that the page map is written, with release. Readers go the
//! other way: page map, epoch (acquire), state, fields, and the epoch again behind an acquire fence. A
//! reader that has seen a field of the next span sees the next epoch.
//!
//! # Which slots hold an object
//! With G the heap's generation and g the span's:
//!
//! | | allocated in `g.table()` | marked in `G.table()` |
//! |---|---|---|
//! | g = G: swept | object | (the running cycle's business) |
//! | g + 1 = G: to be swept, or just now | object if the sweep retains all | object |
//!
//! A sweep sets what stays in the second column before it clears the first, and moves the generation
//! last; so a reader that finds the generations unmoved has seen either all of a bit's history or enough
//! of it. Objects with a bit in the drops table are dead.
//!
//! # Safety
//! Records that the page map names are read, by P3 and P4; side tables by A1.
#![allow(unsafe_code)]

use super::{Generation, Info, Span, Table, bits, map};
use crate::addr::{Addr, AddrRange, Bytes, PageCount};
use crate::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use core::ptr::NonNull;

/// An object that was found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Object {
    /// Its first byte.
    pub start: Addr,
    /// The bytes of its slot.
    pub size: Bytes,
    /// How far behind the start the address lies that was asked for.
    pub offset: Bytes,
    /// The number of its slot in the span.
    pub index: usize,
    /// The number of its heap.
    pub heap: u64,
    /// The record of its span.
    pub(crate) span: NonNull<Span>,
}

/// A chunk of a user arena that an address lies in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct ArenaPlace {
    /// The number of its heap.
    pub heap: u64,
    /// The number of the arena in the heap.
    pub arena: u64,
    /// The addresses of the chunk.
    pub chunk: AddrRange,
    /// How it stands.
    pub state: ArenaState,
}

/// How a chunk of a user arena stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ArenaState {
    /// The arena has not been freed.
    Open,
    /// It has, and the memory is there as long as a closure may use it that had a value before.
    Freed,
    /// The memory is gone. The addresses are kept as long as somebody may point there.
    Quarantined,
}

/// What an address is to a heap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lookup {
    /// It lies in an object of the heap.
    Object(Object),
    /// It lies in an arena of the heap, but in no object: on a free page, in a free slot, behind the last
    /// slot of a span, in a manual span.
    Free,
    /// It lies in a chunk of a user arena of the heap: in a value, between two, or in none.
    Arena(ArenaPlace),
    /// It lies in an arena of the heap with this number.
    Foreign(u64),
    /// It lies in no heap.
    Nowhere,
}

impl Lookup {
    /// The object, if there is one.
    pub fn object(self) -> Option<Object> {
        match self {
            Lookup::Object(object) => Some(object),
            Lookup::Free | Lookup::Arena(_) | Lookup::Foreign(_) | Lookup::Nowhere => None,
        }
    }

    /// Whether the address lies in an arena of the heap that was asked.
    pub fn is_ours(self) -> bool {
        matches!(self, Lookup::Object(_) | Lookup::Free | Lookup::Arena(_))
    }
}

/// How the heap stands that is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    /// Its number.
    pub heap: u64,
    /// Its generation. The answer is good if the generation has not moved when it has been given.
    pub generation: Generation,
    /// Whether the sweep for this generation retains everything.
    pub retain: bool,
}

/// What `addr` is to the heap that is asked, which lives while it is. A closure of that heap is open.
pub(crate) fn find(asked: Asked, addr: Addr) -> Lookup {
    match map::owner(addr) {
        None => return Lookup::Nowhere,
        Some(owner) if owner != asked.heap => return Lookup::Foreign(owner),
        Some(_) => {}
    }
    // SAFETY: M1, M3: the arena is of a heap that lives while it is asked.
    let arena = unsafe { &*map::find(addr) };
    loop {
        let Some(at) = NonNull::new(arena.span(addr.page_in_arena())) else { return Lookup::Free };
        // SAFETY: P3, P4: the page map names records, which stay records while the caller's closure is open.
        let span = unsafe { at.as_ref() };
        if span.is_arena() {
            match find_in_chunk(asked, span, addr) {
                Ok(place) => return Lookup::Arena(place),
                Err(Changed) => continue,
            }
        }
        if let Ok(found) = find_in(asked, span, addr) {
            return found.map_or(Lookup::Free, Lookup::Object);
        }
        // A manual span has no objects. If the record describes another one by now than the page map has
        // named, it has left the page meanwhile, and the page was free then.
        if span.is_manual() {
            return Lookup::Free;
        }
        core::hint::spin_loop();
    }
}

/// The span whose object begins at `addr`, which may be any number, in the heap numbered `heap`: a slot that is
/// taken, and whose value is not dead already. For the threads of the collector, in a cycle: records stay
/// records then, and the spans of objects that can be reached stay what they are.
pub(crate) fn object_start(heap: u64, addr: Addr) -> Option<&'static Span> {
    if map::owner(addr) != Some(heap) {
        return None;
    }
    // SAFETY: M1, M3: the arena is of the heap whose collector asks.
    let arena = unsafe { &*map::find(addr) };
    // SAFETY: P3, P4: the page map names records, which stay records until the cycle is over.
    let span = unsafe { arena.span(addr.page_in_arena()).as_ref() }?;
    let (_, plate) = span.plate.read(span).ok()?;
    let (_, start) = plate.slot_of(addr).filter(|_| plate.pages.contains(addr))?;
    let is_object = start == addr
        && bits::is_set(span.generation().table(), addr)
        && !bits::is_set(Table::Drops, addr);
    is_object.then_some(span)
}

/// Whether the copy that lookups read says the same as the record. For whoever knows that nobody changes it.
pub(crate) fn agrees(span: &Span) -> bool {
    let info = span.info();
    let Ok((_, plate)) = span.plate.read(span) else { return false };
    let magic = info.size_class.map_or(0, |class| class.div_magic());
    let shape = (info.slot, info.slots, magic);
    (plate.slot, plate.slots, plate.div_magic) == shape && plate.pages == info.range()
}

/// Whether a value of a user arena of the heap numbered `heap` may begin at `addr`, which may be any number. For the
/// threads of the collector, in a cycle, as [`object_start`]. Of values with pointers this is believed if a header stands
/// in front: what lies inside of another value may look so. (Checkmark mode looks exactly.) In a chunk that is
/// quarantined, whatever may have been one is believed.
pub(crate) fn value_start(heap: u64, addr: Addr) -> bool {
    if map::owner(addr) != Some(heap) {
        return false;
    }
    // SAFETY: M1, M3: the arena is of the heap whose collector asks.
    let arena = unsafe { &*map::find(addr) };
    // SAFETY: P3, P4: the page map names records, which stay records until the cycle is over.
    let Some(span) = (unsafe { arena.span(addr.page_in_arena()).as_ref() }) else { return false };
    let Some(chunk) = span.chunk() else { return false };
    match span.is_quarantined() {
        true => chunk.may_have_begun_at(addr),
        // SAFETY: a chunk that is not quarantined has its memory until the cycle's marking is over.
        false => unsafe { chunk.may_begin_at(addr) },
    }
}

/// The record has changed while it was read.
struct Changed;

fn find_in(asked: Asked, span: &Span, addr: Addr) -> Result<Option<Object>, Changed> {
    let (epoch, plate) = span.plate.read(span)?;
    if !plate.pages.contains(addr) {
        // The record serves other pages since the page map was read.
        return Err(Changed);
    }
    let Some((index, start)) = plate.slot_of(addr) else { return Ok(None) };
    let generation = span.generation();
    let held = holds_object(asked, generation, start);
    fence(Ordering::Acquire);
    // A span that was freed meanwhile may have left its pages, and their bits, to another one.
    let stays = span.is_in_use() && !span.plate.has_moved(epoch);
    if !stays || span.generation() != generation {
        return Err(Changed);
    }
    Ok(held.then(|| Object {
        start,
        size: Bytes::new(plate.slot),
        offset: addr.bytes_since(start),
        index,
        heap: asked.heap,
        span: NonNull::from(span),
    }))
}

/// The chunk of a user arena that `span` is, in which `addr` lies.
fn find_in_chunk(asked: Asked, span: &Span, addr: Addr) -> Result<ArenaPlace, Changed> {
    let (epoch, plate) = span.plate.read(span)?;
    let state = match span {
        span if span.is_open_arena() => ArenaState::Open,
        span if span.is_quarantined() => ArenaState::Quarantined,
        span if span.is_arena() => ArenaState::Freed,
        _ => return Err(Changed),
    };
    let chunk = span.chunk_address();
    fence(Ordering::Acquire);
    if !plate.pages.contains(addr) || span.plate.has_moved(epoch) {
        return Err(Changed);
    }
    // SAFETY: the epoch has not moved, so this was a chunk's span when its address was read; and the record of
    // a chunk stays one as long as the heap lives (C4).
    let arena = unsafe { &*chunk.as_ptr::<super::Chunk>() }.number();
    Ok(ArenaPlace { heap: asked.heap, arena, chunk: plate.pages, state })
}

/// Whether the slot at `start`, in a span of that generation, holds an object; see the table above.
fn holds_object(asked: Asked, generation: Generation, start: Addr) -> bool {
    // In this order: a sweep sets the mark before it clears the other bit.
    let allocated = bits::is_set(generation.table(), start);
    let object = if generation == asked.generation {
        allocated
    } else {
        // A span that is ahead was swept for a generation that the caller has not seen, and will.
        bits::is_set(asked.generation.table(), start) || (asked.retain && allocated)
    };
    object && !bits::is_set(Table::Drops, start)
}

/// What lookups read of a span: a copy of a part of its description, in atomics under a seqlock.
/// Zeroed memory is the plate of a record that was never used.
pub(super) struct Plate {
    /// Odd while the record is being described. Never goes back as long as anybody reads the record (P3).
    epoch: AtomicU64,
    base: AtomicUsize,
    pages: AtomicUsize,
    slot: AtomicUsize,
    slots: AtomicUsize,
    /// The multiplier that replaces a division by the slot size; 0 when there is one slot.
    div_magic: AtomicU32,
}

/// A plate as it was at one moment.
#[derive(Clone, Copy)]
struct Reading {
    pages: AddrRange,
    slot: usize,
    slots: usize,
    div_magic: u32,
}

impl Reading {
    /// The number and the start of the slot that holds `addr`.
    fn slot_of(self, addr: Addr) -> Option<(usize, Addr)> {
        let offset = addr.get().checked_sub(self.pages.base().get())?;
        if offset >= self.slot * self.slots {
            return None;
        }
        // Exact below the length of any span of slots: see `SizeClass::object_index`.
        let index = ((offset as u64).wrapping_mul(u64::from(self.div_magic)) >> 32) as usize;
        debug_assert_eq!(index, offset / self.slot);
        Some((index, self.pages.base() + Bytes::new(index * self.slot)))
    }
}

impl Plate {
    /// Whether the record was never described.
    pub(super) fn is_new(&self) -> bool {
        self.epoch.load(Ordering::Relaxed) == 0
    }

    /// Says that the record changes from here on. The owner alone does that.
    pub(super) fn begin_change(&self) -> u64 {
        let epoch = self.epoch.load(Ordering::Relaxed);
        debug_assert!(epoch % 2 == 0, "a record is described by two");
        self.epoch.store(epoch + 1, Ordering::Relaxed);
        // Partner of the acquire fence in `read`: whoever sees a new field sees the odd epoch.
        fence(Ordering::Release);
        epoch
    }

    pub(super) fn write(&self, info: &Info) {
        self.base.store(info.base.get(), Ordering::Relaxed);
        self.pages.store(info.pages.get(), Ordering::Relaxed);
        self.slot.store(info.slot, Ordering::Relaxed);
        self.slots.store(info.slots, Ordering::Relaxed);
        let div_magic = info.size_class.map_or(0, |class| class.div_magic());
        debug_assert!(div_magic != 0 || info.slots <= 1);
        self.div_magic.store(div_magic, Ordering::Relaxed);
    }

    /// Says that the record has changed, since `begin_change` returned `epoch`.
    pub(super) fn end_change(&self, epoch: u64) {
        self.epoch.store(epoch + 2, Ordering::Release);
    }

    /// The epoch, and what the plate says in it.
    fn read(&self, span: &Span) -> Result<(u64, Reading), Changed> {
        let epoch = self.epoch.load(Ordering::Acquire);
        // A dead span has left the page map before it died, so a second look will not lead here. A manual
        // span stays where it is, and has no slots.
        if epoch % 2 != 0 || span.is_dead() {
            return Err(Changed);
        }
        let base = Addr::new(self.base.load(Ordering::Relaxed));
        let pages = PageCount::new(self.pages.load(Ordering::Relaxed));
        let slot = self.slot.load(Ordering::Relaxed);
        let slots = self.slots.load(Ordering::Relaxed);
        let div_magic = self.div_magic.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        if self.has_moved(epoch) {
            return Err(Changed);
        }
        // Only now: what was read of two spans need not even be a range.
        let pages = AddrRange::at(base, pages.bytes());
        Ok((epoch, Reading { pages, slot, slots, div_magic }))
    }

    fn has_moved(&self, epoch: u64) -> bool {
        self.epoch.load(Ordering::Relaxed) != epoch
    }
}

#[cfg(test)]
mod tests;
