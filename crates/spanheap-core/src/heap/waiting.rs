//! Ephemerons that the collector has met before their keys.
//!
//! ```text
//!   an ephemeron is traced:  its key is marked -> mark its value
//!                            else: wait; set the key's page awaited; look at the key's mark once more
//!   a page is scanned:       is it awaited? for each object that was scanned now:
//!                            take what waits for it, and mark the values
//! ```
//!
//! Each ephemeron waits once in a cycle and is taken once, by a look into a chain of a hash table; so a
//! chain of n ephemerons, each the key of the next, costs n steps, in whatever order they are met. (Going over
//! all ephemerons until nothing changes costs n squared.) Marking pays for it with one load per scanned page.
//!
//! **No key slips through.** Whoever waits first makes it known and then looks at the mark; whoever scans has
//! marked before and then looks who waits, all sequentially consistent. So at least one of them sees the
//! other. Objects that are marked and never scanned are new in this cycle, and an ephemeron whose key
//! is not marked when it is traced has a key that is older than that.
//!
//! **Memory.** Chains are linked through the ephemerons themselves, and the table begins with a few chains of
//! its own. A larger one is asked of the system when chains get long. If it is refused, they get longer:
//! slower, but nothing is ever lost.
//!
//! # Invariants
//! - W1. What is in a chain is a marked ephemeron of the heap, in exactly one chain, that of its key.
//! - W2. The table is empty between cycles.
//!
//! # Locking
//! [`Rank::Waiting`].
//!
//! # Safety
//! Ephemerons in chains are read and linked under the lock. They are marked, so they stay (W1).
#![allow(unsafe_code)]

use crate::addr::{Addr, AddrRange, Bytes, GRANULE_BYTES};
use crate::os::{Category, Os};
use crate::span::EphemeronCell;
use crate::sync::atomic::{AtomicBool, Ordering};
use crate::sync::{Lock, Rank};

/// Chains that the table has of its own.
const FEW: usize = 64;

/// Chains of the first table that comes from the system.
const MANY: usize = 8192;

/// Ephemerons that wait for their keys.
pub struct Waiting {
    /// Whether any has waited in this cycle.
    any: AtomicBool,
    table: Lock<Chains>,
}

struct Chains {
    few: [Addr; FEW],
    /// A table from the system, or null.
    many: Addr,
    /// How many chains it has: a power of two, or 0.
    capacity: usize,
    /// How many ephemerons wait.
    len: usize,
    /// When the table is to grow.
    grow_at: usize,
    /// Ephemerons looked at so far, in all cycles.
    steps: u64,
}

/// The ephemeron at `at`, which is in a chain.
fn cell(at: Addr) -> Option<&'static EphemeronCell> {
    // SAFETY: W1; callers have the lock, and keep the reference no longer.
    unsafe { EphemeronCell::at(at) }
}

/// Two addresses in one granule are of one object, as far as marks are concerned.
fn granule(object: Addr) -> usize {
    object.get() / GRANULE_BYTES
}

impl Chains {
    fn head(&mut self, key: Addr) -> &mut Addr {
        let hash = (granule(key) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        if self.capacity == 0 {
            return &mut self.few[(hash >> 58) as usize];
        }
        let index = (hash >> 32) as usize & (self.capacity - 1);
        let head = self.many + Bytes::new(index * size_of::<Addr>());
        // SAFETY: the table has so many entries, and is reached under the lock.
        unsafe { &mut *head.as_ptr::<Addr>() }
    }

    fn push(&mut self, at: Addr) {
        let Some(ephemeron) = cell(at) else { return };
        let head = self.head(ephemeron.key());
        ephemeron.set_next(*head);
        *head = at;
    }

    fn bytes(&self, os: &Os) -> AddrRange {
        let bytes = Bytes::new(self.capacity * size_of::<Addr>());
        let whole = bytes.checked_align_up(os.page_size().get()).unwrap_or(bytes);
        AddrRange::at(self.many, whole)
    }

    /// Takes everything out of the table, as one chain.
    fn take_all(&mut self) -> Addr {
        let mut all = Addr::NULL;
        let capacity = self.capacity;
        for index in 0..FEW.max(capacity) {
            let mut at = match capacity {
                0 => core::mem::replace(&mut self.few[index], Addr::NULL),
                _ => {
                    let head = self.many + Bytes::new(index * size_of::<Addr>());
                    // SAFETY: as in `head`.
                    unsafe { core::mem::replace(&mut *head.as_ptr::<Addr>(), Addr::NULL) }
                }
            };
            while let Some(ephemeron) = cell(at) {
                let next = ephemeron.next();
                ephemeron.set_next(all);
                all = at;
                at = next;
            }
        }
        all
    }

    /// Makes the table larger, if the system allows it.
    fn grow(&mut self, os: &Os) {
        self.grow_at = self.len * 2;
        let capacity = (self.capacity * 4).max(MANY);
        let bytes = Bytes::new(capacity * size_of::<Addr>());
        let bytes = bytes.checked_align_up(os.page_size().get());
        let Some(Ok(many)) = bytes.map(|bytes| os.alloc(bytes, Category::MarkQueue)) else {
            return;
        };
        let mut all = self.take_all();
        self.release(os);
        (self.many, self.capacity, self.grow_at) = (many, capacity, capacity * 2);
        while let Some(ephemeron) = cell(all) {
            let next = ephemeron.next();
            self.push(all);
            self.steps += 1;
            all = next;
        }
    }

    /// Returns the memory of the table, which is empty.
    fn release(&mut self, os: &Os) {
        if self.capacity > 0 {
            let range = self.bytes(os);
            let bytes = range.bytes();
            // SAFETY: O1: the table came from the heap's `Os`. O2: it is forgotten below.
            unsafe { os.release(range, Category::MarkQueue, bytes, bytes) };
        }
        (self.many, self.capacity, self.grow_at) = (Addr::NULL, 0, FEW * 2);
    }
}

impl Waiting {
    /// Nobody waits.
    pub const fn new() -> Waiting {
        let table = Chains {
            few: [Addr::NULL; FEW],
            many: Addr::NULL,
            capacity: 0,
            len: 0,
            grow_at: FEW * 2,
            steps: 0,
        };
        Waiting { any: AtomicBool::new(false), table: Lock::new(Rank::Waiting, table) }
    }

    /// Whether any ephemeron has come to wait since the last [`Waiting::finish`].
    #[inline]
    pub fn has_any(&self) -> bool {
        self.any.load(Ordering::SeqCst)
    }

    /// Lets an ephemeron wait whose key is there. The caller sets the key's page awaited next, and then looks
    /// at the key's mark.
    ///
    /// # Safety
    /// The ephemeron is a marked object of the heap, and does not wait yet.
    pub unsafe fn insert(&self, os: &Os, ephemeron: &EphemeronCell) {
        self.any.store(true, Ordering::SeqCst);
        let mut table = self.table.lock();
        table.len += 1;
        if table.len > table.grow_at {
            table.grow(os);
        }
        table.push(Addr::of(core::ptr::from_ref(ephemeron)));
    }

    /// Keeps everybody else from the table.
    #[cfg(test)]
    pub fn hold(&self) -> crate::sync::Guard<'_, impl Sized> {
        self.table.lock()
    }

    /// Takes out an ephemeron that waits for `key`, and returns its value.
    pub fn take(&self, key: Addr) -> Option<Addr> {
        let mut table = self.table.lock();
        let (mut before, mut at) = (None::<&EphemeronCell>, *table.head(key));
        while let Some(ephemeron) = cell(at) {
            table.steps += 1;
            if granule(ephemeron.key()) == granule(key) {
                match before {
                    Some(before) => before.set_next(ephemeron.next()),
                    None => *table.head(key) = ephemeron.next(),
                }
                table.len -= 1;
                return Some(ephemeron.value());
            }
            before = Some(ephemeron);
            at = ephemeron.next();
        }
        None
    }

    /// Clears every ephemeron that still waits: its key is dead.
    pub fn clear_all(&self) {
        let mut table = self.table.lock();
        let mut at = table.take_all();
        table.len = 0;
        while let Some(ephemeron) = cell(at) {
            let next = ephemeron.next();
            ephemeron.clear();
            at = next;
        }
    }

    /// Forgets who waits, and gives the memory back. The objects themselves are left alone.
    pub fn finish(&self, os: &Os) {
        let mut table = self.table.lock();
        // Not through the chains: the cycle may have ended in any way.
        table.few = [Addr::NULL; FEW];
        table.len = 0;
        table.release(os);
        drop(table);
        self.any.store(false, Ordering::SeqCst);
    }

    /// Ephemerons looked at so far, in all cycles: what they have cost.
    #[cfg(test)]
    pub fn steps(&self) -> u64 {
        self.table.lock().steps
    }
}

impl Default for Waiting {
    fn default() -> Waiting {
        Waiting::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::SimOs;
    use crate::tests::Random;
    use std::collections::BTreeMap;

    /// Against a map, with and without memory for a larger table.
    #[test]
    fn every_ephemeron_is_taken_once_by_its_key_or_cleared() {
        const CELLS: usize = 30_000;
        for refused in [false, true] {
            let mut random = Random::new(0x3a17);
            let sim = SimOs::builder().build();
            let os = Os::simulated(sim.clone());
            sim.set_fail_from(refused.then_some(0));
            let waiting = Waiting::new();
            let key = |n: usize| Addr::new(0x1000_0000 + n * GRANULE_BYTES);
            let cells: Vec<_> = (0..CELLS)
                .map(|n| EphemeronCell::new(key(random.below(CELLS / 2)), Addr::new(16 * n + 16)))
                .collect();
            let mut twin: BTreeMap<Addr, Vec<Addr>> = BTreeMap::new();
            // Without memory, chains are long: then a tenth will do.
            let count = if refused { CELLS / 10 } else { CELLS };
            for cell in &cells[..count] {
                // SAFETY: the cell outlives the table, and waits once.
                unsafe { waiting.insert(&os, cell) };
                twin.entry(cell.key()).or_default().push(cell.value());
            }
            assert_eq!(waiting.table.lock().capacity == 0, refused);
            for n in (0..CELLS / 2).step_by(2) {
                let mut values = twin.remove(&key(n)).unwrap_or_default();
                // The key's own address, or one in the middle of its granule.
                while let Some(value) = waiting.take(key(n) + Bytes::new(8 * random.below(2))) {
                    let at = values.iter().position(|&other| other == value);
                    values.swap_remove(at.expect("it waits for this key"));
                }
                assert_eq!(values, []);
            }
            waiting.clear_all();
            for cell in &cells[..count] {
                assert_eq!(cell.key().is_null(), cell.value().is_null());
                let rest = twin.values().flatten().any(|&value| value == cell.value());
                assert!(!rest, "a value was left in the table");
            }
            let cleared = cells[..count].iter().filter(|cell| cell.key().is_null()).count();
            assert_eq!(cleared, twin.values().map(Vec::len).sum::<usize>());
            assert!(waiting.has_any());
            waiting.finish(&os);
            assert!(!waiting.has_any() && waiting.take(key(1)).is_none());
            assert_eq!(os.accounting().mapped_total(), Bytes::ZERO);
        }
    }
}
