//! The arena map: from any address to the heap arena that holds it, or to nothing.
//!
//! One process-wide flat table with an entry for every 64 MiB of user address space: 2^21 pointers, 16
//! MiB of zero pages of which a program touches as many as it has heaps. A lookup is a shift and a load.
//! This is the only thing that heaps share, and the only static of the crate that ever changes.
//!
//! # Invariants
//! - M1. An entry goes from null to an arena once while the arena's heap lives, and back to null when the
//!   heap is dropped, with nothing attached. A later heap may then use the range again.
//! - M2. An entry names an arena whose record is initialised and outlives the entry.
//!
//! # Ordering
//! Entries are published with release and read with acquire. Readers hold a pointer into the arena or
//! are attached to its heap, so M1 keeps what they read alive.

use super::HeapArena;
use crate::addr::{ADDRESS_BITS, ARENA_BYTES, ARENA_SHIFT, Addr, ArenaIndex};
use crate::sync::atomic::{AtomicPtr, AtomicU64, AtomicUsize, Ordering};

/// Entries of the map.
const ENTRIES: usize = 1 << (ADDRESS_BITS - ARENA_SHIFT);

/// Where the first arena is asked for: an address that looks like nothing else in a memory dump.
const FIRST_HINT: usize = 0xc0 << 32;

/// Above this the search for room starts over.
const LAST_HINT: usize = 0x7e << 40;

/// The process-wide map.
struct ArenaMap {
    entries: [AtomicPtr<HeapArena>; ENTRIES],
    /// Where the search for address space begins for the next heap that knows no better: never above what
    /// has been returned.
    hint: AtomicUsize,
    /// Numbers of heaps given out so far.
    heaps: AtomicU64,
}

static MAP: ArenaMap = ArenaMap {
    entries: [const { AtomicPtr::new(core::ptr::null_mut()) }; ENTRIES],
    hint: AtomicUsize::new(FIRST_HINT),
    heaps: AtomicU64::new(0),
};

/// The record of the arena that holds `addr`, or null. Any number may be asked for.
#[inline]
pub fn find(addr: Addr) -> *const HeapArena {
    match MAP.entries.get(addr.get() >> ARENA_SHIFT) {
        Some(entry) => entry.load(Ordering::Acquire),
        None => core::ptr::null(),
    }
}

/// Whether the map can name the arena.
pub fn can_hold(index: ArenaIndex) -> bool {
    index.get() < ENTRIES
}

/// Enters an arena.
///
/// # Panics
/// When the place is taken: two heaps would own the same addresses.
pub fn publish(index: ArenaIndex, arena: *mut HeapArena) {
    let old = MAP.entries[index.get()].swap(arena, Ordering::AcqRel);
    assert!(old.is_null(), "two heaps own the arena at {}", index.base());
}

/// Removes an arena whose heap is dropped.
pub fn retract(index: ArenaIndex) {
    MAP.entries[index.get()].store(core::ptr::null_mut(), Ordering::Release);
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
        if !MAP.entries[end].load(Ordering::Relaxed).is_null() {
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

    #[test]
    fn any_number_may_be_looked_up() {
        for addr in [0, 1, FIRST_HINT, 1 << 46, (1 << 47) - 1, 1 << 47, usize::MAX] {
            let arena = find(Addr::new(addr));
            assert!(arena.is_null() || addr >= FIRST_HINT);
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
        publish(taken.arena(), record.as_mut_ptr());
        assert_ne!(hint_behind(taken, ARENA_BYTES), taken);
        assert_eq!(free_run(last - 7, 2, last), Some(last - 7));
        assert_eq!(free_run(last - 7, 3, last), Some(last - 4));
        assert_eq!(free_run(last - 7, 4, last), Some(last - 4));
        assert_eq!(free_run(last - 7, 5, last), None);
        retract(taken.arena());
        assert_eq!(free_run(last - 7, 7, last), Some(last - 7));
        assert_eq!(free_run(last - 7, 8, last), None);
    }
}
