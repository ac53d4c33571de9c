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
    /// Where the next heap that knows no better asks for address space.
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

/// An address at which `bytes` (a multiple of the arena size) may be free. Each call gives another
/// range; what it says is a hint and nothing more.
pub fn hint(bytes: usize) -> Addr {
    debug_assert!(bytes % ARENA_BYTES == 0);
    let next = |at: usize| {
        let at = if at.saturating_add(bytes) > LAST_HINT { FIRST_HINT } else { at };
        at.checked_add(bytes)
    };
    match MAP.hint.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
        Ok(at) if at.saturating_add(bytes) <= LAST_HINT => Addr::new(at),
        _ => Addr::new(FIRST_HINT),
    }
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

    #[test]
    fn hints_move_on_and_stay_in_the_address_space() {
        let (a, b) = (hint(ARENA_BYTES), hint(3 * ARENA_BYTES));
        assert_ne!(a, b);
        assert!(a.is_aligned(ARENA_BYTES) && b.is_aligned(ARENA_BYTES));
        assert!(can_hold(b.arena()));
    }
}
