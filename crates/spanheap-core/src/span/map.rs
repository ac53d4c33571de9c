//! The arena map: from any address to the heap arena that holds it, or to nothing.
//!
//! One process-wide flat table with an entry for every 64 MiB of user address space: 2^21 times two words,
//! 32 MiB of zero pages of which a program touches as many as it has heaps. A lookup is a shift and a
//! load. This is the only thing that heaps share, and the only static of the crate that ever changes.
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
    /// Where the next heap that knows no better asks for address space.
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

    fn hint(&self, bytes: usize) -> Addr {
        debug_assert!(bytes % ARENA_BYTES == 0);
        let next = |at: usize| {
            let at = if at.saturating_add(bytes) > LAST_HINT { FIRST_HINT } else { at };
            at.checked_add(bytes)
        };
        match self.hint.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
            Ok(at) if at.saturating_add(bytes) <= LAST_HINT => Addr::new(at),
            _ => Addr::new(FIRST_HINT),
        }
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

/// An address at which `bytes` (a multiple of the arena size) may be free. Each call gives another
/// range; what it says is a hint and nothing more.
pub fn hint(bytes: usize) -> Addr {
    MAP.hint(bytes)
}

/// A number for a new heap; never 0, never used before in this process.
pub fn new_heap_number() -> u64 {
    MAP.heaps.fetch_add(1, Ordering::Relaxed) + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::{Random, long};
    use std::collections::BTreeMap;

    #[test]
    fn any_number_may_be_looked_up() {
        for addr in [0, 1, FIRST_HINT, 1 << 46, (1 << 47) - 1, 1 << 47, usize::MAX] {
            let arena = find(Addr::new(addr));
            assert!(arena.is_null() || addr >= FIRST_HINT);
            assert!(owner(Addr::new(addr)).is_none() || addr >= FIRST_HINT);
        }
    }

    #[test]
    fn hints_move_on_and_stay_in_the_address_space() {
        let (a, b) = (hint(ARENA_BYTES), hint(3 * ARENA_BYTES));
        assert_ne!(a, b);
        assert!(a.is_aligned(ARENA_BYTES) && b.is_aligned(ARENA_BYTES));
        assert!(can_hold(b.arena()));
    }

    #[test]
    fn hints_begin_again_at_the_end_of_the_address_space() {
        static MAP: ArenaMap = ArenaMap::new();
        let step = 1 << 44;
        let hints: Vec<_> = (0..20).map(|_| MAP.hint(step).get()).collect();
        assert!(hints.iter().all(|&at| at >= FIRST_HINT && at + step <= LAST_HINT));
        let rounds = hints.iter().filter(|&&at| at == FIRST_HINT).count();
        assert!(rounds > 1, "{hints:x?}");
        assert!(hints.windows(2).all(|w| w[1] == w[0] + step || w[1] == FIRST_HINT));
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
        for step in 0..long(20_000, 1_000_000) {
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
