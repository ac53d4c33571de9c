//! The arena map: from any address to the heap arena that holds it, or to nothing.
//!
//! One process-wide flat table with an entry for every 64 MiB of user address space: 2^21 times two words,
//! 32 MiB of zero pages of which a program touches as many as it has heaps. A lookup is a shift and a
//! load. This is the only thing that heaps share.
//!
//! An entry is the arena's record and, beside it, the number of the heap that owns the arena. The number
//! is there because whoever asks about *any* address may meet the arena of a heap that is dropped just
//! now: a number can be compared, where the record could not even be read.
//!
//! # Invariants
//! - M1. An entry goes from null to an arena once while the arena's heap lives, and back to null when the
//!   heap is dropped, with nothing attached. A later heap may then use the range again.
//! - M2. An entry names an arena whose record is initialised and outlives the entry.
//! - M3. While an entry has an owner, it names an arena of that owner.
//!
//! # Ordering
//! Entries are published with release and read with acquire. Readers hold a pointer into the arena or
//! are attached to its heap, so M1 keeps what they read alive. An owner is entered after its arena and
//! removed before it; heap numbers are never used twice.

use super::HeapArena;
use crate::addr::{ADDRESS_BITS, ARENA_BYTES, ARENA_SHIFT, Addr, ArenaIndex};
use crate::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

/// Entries of the map.
const ENTRIES: usize = 1 << (ADDRESS_BITS - ARENA_SHIFT);

/// Where the first arena is asked for: an address that looks like nothing else in a memory dump.
const FIRST_HINT: usize = 0xc0 << 32;

/// Above this the search for room starts over.
const LAST_HINT: usize = 0x7e << 40;

/// What is known about 64 MiB of address space.
struct Entry {
    arena: AtomicPtr<HeapArena>,
    /// The number of the heap that the arena belongs to; 0: none.
    owner: AtomicU64,
}

impl Entry {
    const fn nobody() -> Entry {
        Entry { arena: AtomicPtr::new(core::ptr::null_mut()), owner: AtomicU64::new(0) }
    }
}

/// The process-wide map.
struct ArenaMap {
    entries: [Entry; ENTRIES],
    /// Where the search for address space begins for the next heap that knows no better: never above what
    /// has been returned.
    hint: AtomicUsize,
    /// Numbers of heaps given out so far.
    heaps: AtomicU64,
}

static MAP: ArenaMap = ArenaMap::new();

impl ArenaMap {
    const fn new() -> ArenaMap {
        ArenaMap {
            entries: [const { Entry::nobody() }; ENTRIES],
            hint: AtomicUsize::new(FIRST_HINT),
            heaps: AtomicU64::new(0),
        }
    }

    #[inline]
    fn find(&self, addr: Addr) -> *const HeapArena {
        match self.entries.get(addr.get() >> ARENA_SHIFT) {
            Some(entry) => entry.arena.load(Ordering::Acquire),
            None => core::ptr::null(),
        }
    }

    #[inline]
    fn owner(&self, addr: Addr) -> Option<u64> {
        let owner = self.entries.get(addr.get() >> ARENA_SHIFT)?.owner.load(Ordering::Acquire);
        (owner != 0).then_some(owner)
    }

    fn publish(&self, index: ArenaIndex, arena: *mut HeapArena, owner: u64) {
        debug_assert!(owner != 0 && !arena.is_null());
        let entry = &self.entries[index.get()];
        let old = entry.arena.swap(arena, Ordering::AcqRel);
        assert!(old.is_null(), "two heaps own the arena at {}", index.base());
        entry.owner.store(owner, Ordering::Release);
    }

    fn retract(&self, index: ArenaIndex) {
        let entry = &self.entries[index.get()];
        entry.owner.store(0, Ordering::Release);
        entry.arena.store(core::ptr::null_mut(), Ordering::Release);
    }
}

/// The record of the arena that holds `addr`, or null. Any number may be asked for; the record may be
/// read by those whom M1 promises that it lives.
#[inline]
pub fn find(addr: Addr) -> *const HeapArena {
    MAP.find(addr)
}

/// The number of the heap in one of whose arenas `addr` lies. Any number may be asked for. The answer
/// about another heap than one's own may be out of date at once.
#[inline]
pub fn owner(addr: Addr) -> Option<u64> {
    MAP.owner(addr)
}

/// Whether the map can name the arena.
pub fn can_hold(index: ArenaIndex) -> bool {
    index.get() < ENTRIES
}

/// Enters an arena of the heap with the number `owner`.
///
/// # Panics
/// When the place is taken: two heaps would own the same addresses.
pub fn publish(index: ArenaIndex, arena: *mut HeapArena, owner: u64) {
    MAP.publish(index, arena, owner);
}

/// Removes an arena whose heap is dropped.
pub fn retract(index: ArenaIndex) {
    MAP.retract(index);
}

/// An address at which `bytes` (a multiple of the arena size) may be free: no heap has it, nor has another
/// call been told the same since a range below it came back. It is a hint and nothing more.
pub fn hint(bytes: usize) -> Addr {
    debug_assert!(bytes % ARENA_BYTES == 0);
    let arenas = bytes >> ARENA_SHIFT;
    let mut found = FIRST_HINT >> ARENA_SHIFT;
    let next = |at: usize| {
        let (first, last) = (FIRST_HINT >> ARENA_SHIFT, LAST_HINT >> ARENA_SHIFT);
        let here = free_run(at >> ARENA_SHIFT, arenas, last);
        found = here.or_else(|| free_run(first, arenas, last))?;
        Some((found + arenas) << ARENA_SHIFT)
    };
    // Without room for so much, nothing is better than the beginning, and the system decides.
    let _ = MAP.hint.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    Addr::new(found << ARENA_SHIFT)
}

/// Where a heap asks for `bytes` to follow its range that ends at `end`: there, or where [`hint`] says if
/// another heap has the place.
pub fn hint_behind(end: Addr, bytes: usize) -> Addr {
    let here = end.get() >> ARENA_SHIFT;
    let free = free_run(here, bytes >> ARENA_SHIFT, ENTRIES) == Some(here);
    if free { end } else { hint(bytes) }
}

/// Says that a range of a dropped heap has been returned to the system: hints begin there again. Otherwise a
/// program that makes heaps and drops them would use up the address space, and the whole map with it.
pub fn returned(base: Addr) {
    if base.get() >= FIRST_HINT {
        MAP.hint.fetch_min(base.get(), Ordering::Relaxed);
    }
}

/// The first entry at or behind `from` that begins so many empty ones in a row, all below `last`.
fn free_run(from: usize, arenas: usize, last: usize) -> Option<usize> {
    let (mut start, mut end) = (from, from);
    while end - start < arenas {
        if end >= last {
            return None;
        }
        if !MAP.entries[end].arena.load(Ordering::Relaxed).is_null() {
            start = end + 1;
        }
        end += 1;
    }
    Some(start)
}

/// A number for a new heap; never 0, never used before in this process.
pub fn new_heap_number() -> u64 {
    MAP.heaps.fetch_add(1, Ordering::Relaxed) + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{Random, steps};
    use std::collections::BTreeMap;

    #[test]
    fn any_number_may_be_looked_up() {
        for addr in [0, 1, FIRST_HINT, 1 << 46, (1 << 47) - 1, 1 << 47, usize::MAX] {
            let arena = find(Addr::new(addr));
            assert!(arena.is_null() || addr >= FIRST_HINT);
            assert!(owner(Addr::new(addr)).is_none() || addr >= FIRST_HINT);
        }
    }

    /// The tests of this crate run at the same time and make heaps, so all that can be said of a hint is
    /// what holds whatever they do.
    #[test]
    fn hints_stay_in_the_address_space() {
        for arenas in [1, 3, 1000] {
            let at = hint(arenas * ARENA_BYTES);
            assert!(at.is_aligned(ARENA_BYTES) && at.get() >= FIRST_HINT);
            assert!(at.get() + arenas * ARENA_BYTES <= LAST_HINT);
        }
        // More than there is, and a range that ends where no other can begin.
        assert_eq!(hint(1 << ADDRESS_BITS), Addr::new(FIRST_HINT));
        assert!(hint_behind(Addr::new(1 << ADDRESS_BITS), ARENA_BYTES).get() < LAST_HINT);
    }

    #[test]
    fn a_search_skips_what_heaps_have() {
        // Up here the tests that make heaps do not come.
        let last = LAST_HINT >> ARENA_SHIFT;
        let mut record = core::mem::MaybeUninit::<HeapArena>::uninit();
        let taken = Addr::new((last - 5) << ARENA_SHIFT);
        assert_eq!(hint_behind(taken, ARENA_BYTES), taken);
        publish(taken.arena(), record.as_mut_ptr(), u64::MAX);
        assert_ne!(hint_behind(taken, ARENA_BYTES), taken);
        assert_eq!(free_run(last - 7, 2, last), Some(last - 7));
        assert_eq!(free_run(last - 7, 3, last), Some(last - 4));
        assert_eq!(free_run(last - 7, 4, last), Some(last - 4));
        assert_eq!(free_run(last - 7, 5, last), None);
        retract(taken.arena());
        assert_eq!(free_run(last - 7, 7, last), Some(last - 7));
        assert_eq!(free_run(last - 7, 8, last), None);
    }

    /// Addresses at the edges of an arena and inside it, and numbers that are no addresses.
    fn some_address(random: &mut Random, index: usize) -> usize {
        match random.below(8) {
            0 => index << ARENA_SHIFT,
            1 => (index << ARENA_SHIFT).wrapping_sub(1),
            2 => ((index + 1) << ARENA_SHIFT) - 1,
            3 => (index << ARENA_SHIFT) + random.below(ARENA_BYTES),
            4 => random.below(1 << ADDRESS_BITS),
            5 => random.next() as usize | 1 << random.below(64),
            6 => (ENTRIES << ARENA_SHIFT) + random.below(ARENA_BYTES),
            _ => usize::MAX - random.below(ARENA_BYTES),
        }
    }

    #[test]
    fn the_map_is_a_map_from_arenas_to_records_and_owners() {
        static MAP: ArenaMap = ArenaMap::new();
        let mut random = Random::new(0xa3a9);
        let mut twin: BTreeMap<usize, (usize, u64)> = BTreeMap::new();
        for step in 0..steps(20_000, 1_000_000) {
            // Few arenas, next to each other and at both ends of the map.
            let index = match random.below(4) {
                0 => random.below(4),
                1 => ENTRIES - 1 - random.below(4),
                _ => 0x3000 + random.below(12),
            };
            let at = ArenaIndex::new(index);
            match random.below(6) {
                0 if !twin.contains_key(&index) => {
                    let (record, owner) = (8 * (step + 1), 1 + random.below(3) as u64);
                    MAP.publish(at, core::ptr::without_provenance_mut(record), owner);
                    twin.insert(index, (record, owner));
                }
                1 if twin.remove(&index).is_some() => MAP.retract(at),
                _ => {}
            }
            let addr = some_address(&mut random, index);
            let known = twin.get(&(addr >> ARENA_SHIFT));
            assert_eq!(MAP.find(Addr::new(addr)).addr(), known.map_or(0, |known| known.0));
            assert_eq!(MAP.owner(Addr::new(addr)), known.map(|known| known.1), "{addr:#x}");
        }
    }

    #[test]
    #[should_panic(expected = "two heaps own the arena")]
    fn a_place_that_is_taken_is_not_given_away() {
        static MAP: ArenaMap = ArenaMap::new();
        for record in [8, 16] {
            MAP.publish(ArenaIndex::new(77), core::ptr::without_provenance_mut(record), 1);
        }
    }
}
