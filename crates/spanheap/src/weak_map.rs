//! [`WeakMap`]: a table whose entries die with their keys.
//!
//! The table is an ordinary one behind a [`GcMutex`], from the address of a key to an [`Ephemeron`]. Objects do not
//! move, so the address is the key's identity. The collector clears the ephemerons of dead keys; the table still
//! has their places until it finds out: when the same address is asked for again (there may be a new object by
//! then), when it has doubled, or when it is gone through.
//!
//! # Safety
//! Two implementations of [`Trace`], which report every pointer.
#![allow(unsafe_code)]

use crate::ephemeron::Ephemeron;
use crate::gc::Gc;
use crate::mutator::Mutator;
use crate::mutex::GcMutex;
use crate::trace::{Trace, Tracer};
use core::fmt;
use core::hash::{BuildHasherDefault, Hasher};
use spanheap_core::span::layout::Shape;
use std::collections::HashMap;

/// Below so many places the table is not searched for dead ones.
const FEW: usize = 16;

/// Addresses, mixed by a multiplication.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_usize(usize::from(byte)));
    }

    fn write_usize(&mut self, address: usize) {
        // The table takes its index from the low bits and a tag from the high ones.
        let mixed = (self.0 ^ address as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 32;
    }
}

struct Entries<'gc, K, V> {
    places: HashMap<usize, Ephemeron<'gc, K, V>, BuildHasherDefault<AddressHasher>>,
    /// With so many places the table looks for dead ones.
    purge_at: usize,
}

impl<K, V> Entries<'_, K, V> {
    fn purge(&mut self) {
        self.places.retain(|_, ephemeron| !ephemeron.is_cleared());
        self.purge_at = (self.places.len() * 2).max(FEW);
    }
}

// SAFETY: all ephemerons are reported, by the map; there are no other pointers.
unsafe impl<K, V> Trace for Entries<'_, K, V> {
    const SHAPE: Shape = Shape::Opaque;
    const EXACT: bool = true;

    fn trace(&self, tracer: &mut Tracer<'_>) {
        self.places.values().for_each(|ephemeron| ephemeron.trace(tracer));
    }
}

/// A map from objects, by identity, to other objects. An entry dies when its key does, even if its value, or
/// the values of other entries, lead to the key.
///
/// It is a value to be put into an object, and is shared and changed by all threads of the heap.
///
/// ```
/// use spanheap::{Gc, Heap, Root, Rootable, WeakMap};
///
/// let heap = Heap::new();
/// let (names, key): (Root<Rootable![WeakMap<'_, u64, String>]>, Root<Rootable![u64]>) =
///     heap.enter(|mc| (mc.root(mc.alloc(WeakMap::new())), mc.root(mc.alloc(7))));
/// heap.enter(|mc| {
///     names.get(mc).insert(mc, key.get(mc), mc.alloc(String::from("seven")));
/// });
/// let _ = heap.collect();
/// heap.enter(|mc| assert_eq!(names.get(mc).get(mc, key.get(mc)).unwrap().as_str(), "seven"));
/// drop(key);
/// let _ = heap.collect();
/// heap.enter(|mc| assert_eq!(names.get(mc).len(mc), 0));
/// ```
///
/// A key of less than 16 bytes without pointers shares its memory with others, and its entry dies with the last of
/// them. Objects that a [`FinalizerQueue`](crate::FinalizerQueue) revives have lost their entries.
pub struct WeakMap<'gc, K, V> {
    entries: GcMutex<'gc, Entries<'gc, K, V>>,
}

impl<'gc, K, V> WeakMap<'gc, K, V> {
    /// An empty map.
    #[must_use]
    pub fn new() -> WeakMap<'gc, K, V> {
        let entries = Entries { places: HashMap::default(), purge_at: FEW };
        WeakMap { entries: GcMutex::new(entries) }
    }

    /// The value that belongs to `key`.
    pub fn get(&self, mc: &Mutator<'gc>, key: Gc<'gc, K>) -> Option<Gc<'gc, V>> {
        // An ephemeron of a former object at this address is cleared, so it is not mistaken for the key's.
        self.entries.lock(mc).places.get(&key.addr().get())?.value_for(key)
    }

    /// Makes `value` belong to `key`, and returns what did before.
    ///
    /// # Panics
    /// When there is no room for the entry.
    #[track_caller]
    pub fn insert(
        &self,
        mc: &Mutator<'gc>,
        key: Gc<'gc, K>,
        value: Gc<'gc, V>,
    ) -> Option<Gc<'gc, V>> {
        // Made before the lock is taken: making it may have to sweep.
        let ephemeron = mc.ephemeron(key, value);
        let mut entries = self.entries.lock(mc);
        if entries.places.len() >= entries.purge_at {
            entries.purge();
        }
        entries.places.insert(key.addr().get(), ephemeron)?.value_for(key)
    }

    /// Takes the entry of `key` out, and returns its value.
    pub fn remove(&self, mc: &Mutator<'gc>, key: Gc<'gc, K>) -> Option<Gc<'gc, V>> {
        self.entries.lock(mc).places.remove(&key.addr().get())?.value_for(key)
    }

    /// How many entries there are, those left out whose keys were dead when the last cycle ended. Costs a pass
    /// over the map.
    pub fn len(&self, mc: &Mutator<'gc>) -> usize {
        let mut entries = self.entries.lock(mc);
        entries.purge();
        entries.places.len()
    }

    /// Whether there is no entry, as far as [`WeakMap::len`] knows.
    pub fn is_empty(&self, mc: &Mutator<'gc>) -> bool {
        self.len(mc) == 0
    }

    /// All entries whose keys are alive, in no order. The keys stay alive as long as the closure is open.
    pub fn entries(&self, mc: &Mutator<'gc>) -> Vec<(Gc<'gc, K>, Gc<'gc, V>)> {
        let entries = self.entries.lock(mc);
        entries.places.values().filter_map(|ephemeron| ephemeron.entry(mc)).collect()
    }
}

impl<K, V> Default for WeakMap<'_, K, V> {
    fn default() -> Self {
        WeakMap::new()
    }
}

impl<K, V> fmt::Debug for WeakMap<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WeakMap(..)")
    }
}

// SAFETY: the one field is reported.
unsafe impl<K, V> Trace for WeakMap<'_, K, V> {
    const SHAPE: Shape = Shape::Opaque;
    const EXACT: bool = true;

    fn trace(&self, tracer: &mut Tracer<'_>) {
        self.entries.trace(tracer);
    }
}
