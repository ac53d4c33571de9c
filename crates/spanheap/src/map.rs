//! [`GcHashMap`]: a hash map whose entries lie in the heap.
//!
//! Open addressing with linear probing. A bucket is a word that says what is in it, a key and a value:
//!
//! ```text
//!   tag   0: empty    1: removed    else: the hash of the key, with the highest bit set
//!   find  start at the bucket that the hash names; go on until the tag is 0;
//!         where the tag is the hash's, compare the keys
//! ```
//!
//! Hashes are kept, so growing calls no code of the user's, and most unequal keys are never compared. At most
//! three quarters of the buckets are not empty, so every search ends. When more would be, the entries move to a
//! new buffer: one of twice the size, or of the same, if it was removed buckets that filled it.
//!
//! A removed bucket is there to lead searches on. In front of an empty one it leads nowhere, so a removal that
//! leaves an empty bucket empties the removed ones before it, too: each of them once, and so in the time that it
//! took to remove them. A map without entries has no removed buckets, then, and all of its room.
//!
//! What the collector sees of the buffer and why that is right is in [`crate::buffer`]. Empty and removed
//! buckets hold null where a key and a value would have their pointers.
//!
//! | file | what |
//! |---|---|
//! | `map` | the map |
//! | `entry` | the place of a key, to be looked at and filled with one search |
//! | `iter` | iterators |
//!
//! # Safety
//! - B1. In a bucket whose tag has the highest bit, key and value are initialised.
//! - B2. `slots` is a power of two and at most the buffer's capacity, or 0; all tags of these are initialised.
//! - B3. At least one of them is 0, if there are any.
//!
//! No memory depends on it, but the room of a map does: no bucket that is removed comes before an empty one (the
//! first comes behind the last).
#![allow(unsafe_code)]

mod entry;
mod iter;

pub use entry::{Entry, OccupiedEntry, VacantEntry};
pub use iter::{Iter, Keys, Values};

use crate::buffer::Buffer;
use crate::mutator::Mutator;
use crate::trace::{Trace, Tracer};
use crate::vec::expect;
use core::borrow::Borrow;
use core::fmt;
use core::hash::{BuildHasher, Hash};
use core::mem::{MaybeUninit, offset_of};
use core::ops::Index;
use spanheap_core::heap::OutOfMemory;
use spanheap_core::span::layout::Shape;
use std::hash::RandomState;

/// Nothing is here, and nothing was, since the bucket was made.
const EMPTY: u64 = 0;
/// Something was here; a search goes on.
const REMOVED: u64 = 1;
/// The bit that all tags of entries have.
const FULL: u64 = 1 << 63;

/// The fewest buckets of a map that has any.
const SMALLEST: usize = 8;

/// The place of an entry.
pub(crate) struct Bucket<K, V> {
    tag: u64,
    key: MaybeUninit<K>,
    value: MaybeUninit<V>,
}

impl<K: Copy, V: Copy> Clone for Bucket<K, V> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K: Copy, V: Copy> Copy for Bucket<K, V> {}

impl<K, V> Bucket<K, V> {
    fn full(tag: u64, key: K, value: V) -> Self {
        debug_assert!(tag & FULL != 0);
        Bucket { tag, key: MaybeUninit::new(key), value: MaybeUninit::new(value) }
    }

    /// The entry, if there is one.
    #[inline(always)]
    fn entry(&self) -> Option<(&K, &V)> {
        // SAFETY: B1.
        let key = || unsafe { self.key.assume_init_ref() };
        // SAFETY: B1.
        let value = || unsafe { self.value.assume_init_ref() };
        (self.tag & FULL != 0).then(|| (key(), value()))
    }
}

// SAFETY: key and value are reported if they are there; else their pointer words are null.
unsafe impl<K: Trace, V: Trace> Trace for Bucket<K, V> {
    const SHAPE: Shape =
        Shape::NoScan.with(offset_of!(Self, key), K::SHAPE).with(offset_of!(Self, value), V::SHAPE);
    const EXACT: bool = K::EXACT && V::EXACT;

    fn trace(&self, tracer: &mut Tracer<'_>) {
        if let Some((key, value)) = self.entry() {
            key.trace(tracer);
            value.trace(tracer);
        }
    }
}

/// A `HashMap` whose entries lie in the heap.
///
/// What it holds counts for the heap's goal and its limit to the byte, is scanned in pieces, and needs no
/// destructor. As a [`GcVec`](crate::GcVec) it can be a local value in a closure, a field of an object that does
/// not change any more, or changed by all threads in a [`GcMutex`](crate::GcMutex) or
/// [`GcRwLock`](crate::GcRwLock), where taking the lock costs nothing that grows with the number of entries.
///
/// - Keys and values are `Copy`, and their `Gc`s lie at fixed words, as with [`GcVec`](crate::GcVec).
/// - A `Gc` is hashed and compared as its object, so a map with `Gc<str>` for keys is searched with a `str`.
/// - Methods that change the map take the mutator. Where memory is short, those that may need more panic, and
///   leave everything as it was; those that begin with `try_` return [`OutOfMemory`].
///
/// ```
/// use spanheap::{Gc, GcHashMap, Heap};
///
/// Heap::new().enter(|mc| {
///     let mut ages: GcHashMap<Gc<str>, u32> = GcHashMap::new();
///     ages.insert(mc, mc.alloc_str("oak"), 300);
///     ages.entry(mc, mc.alloc_str("oak")).and_modify(|age| *age += 1).or_insert(0);
///     assert_eq!(ages["oak"], 301);
///     assert_eq!(ages.remove(mc, "oak"), Some(301));
///     assert!(ages.is_empty());
/// });
/// ```
pub struct GcHashMap<'gc, K, V, S = RandomState> {
    buckets: Buffer<'gc, Bucket<K, V>>,
    slots: usize,
    /// How many entries there are.
    len: usize,
    /// How many buckets are not empty: entries, and what was removed.
    used: usize,
    hasher: S,
}

impl<K, V> GcHashMap<'_, K, V> {
    /// An empty map without storage, with a hasher that nobody outside can predict.
    #[must_use]
    pub fn new() -> Self {
        GcHashMap::with_hasher(RandomState::new())
    }
}

impl<K, V, S: Default> Default for GcHashMap<'_, K, V, S> {
    fn default() -> Self {
        GcHashMap::with_hasher(S::default())
    }
}

impl<'gc, K, V, S> GcHashMap<'gc, K, V, S> {
    /// An empty map without storage.
    pub const fn with_hasher(hasher: S) -> Self {
        GcHashMap { buckets: Buffer::empty(), slots: 0, len: 0, used: 0, hasher }
    }

    /// What hashes the keys.
    pub fn hasher(&self) -> &S {
        &self.hasher
    }

    /// How many entries there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no entries.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many entries there is room for before more storage is needed. Places of removed entries may be missing
    /// in it as long as others are left. 0 means that there is no storage.
    pub fn capacity(&self) -> usize {
        self.len + (most(self.slots) - self.used)
    }

    /// The buckets.
    #[inline]
    fn slots(&self) -> &[Bucket<K, V>] {
        // SAFETY: B2, and nothing else in a bucket needs to be initialised. They change only through `&mut`;
        // the collector only reads.
        unsafe { core::slice::from_raw_parts(self.buckets.start().as_ptr(), self.slots) }
    }

    /// The entries, in no order.
    pub fn iter(&self) -> Iter<'_, K, V> {
        Iter::new(self.slots(), self.len)
    }

    /// The keys, in no order.
    pub fn keys(&self) -> Keys<'_, K, V> {
        Keys::new(self.iter())
    }

    /// The values, in the order of the keys.
    pub fn values(&self) -> Values<'_, K, V> {
        Values::new(self.iter())
    }
}

/// How many of `slots` buckets may be used.
const fn most(slots: usize) -> usize {
    slots / 4 * 3
}

/// Where the search for `tag` begins.
#[inline]
fn first(tag: u64, slots: usize) -> usize {
    // A hash that counts in its upper or its lower bits only spreads all the same.
    let mixed = tag.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ mixed >> 32) as usize & (slots - 1)
}

impl<'gc, K: Eq + Hash, V, S: BuildHasher> GcHashMap<'gc, K, V, S> {
    /// The tag of an entry with that key.
    fn tag<Q: Hash + ?Sized>(&self, key: &Q) -> u64 {
        self.hasher.hash_one(key) | FULL
    }

    /// The bucket of the entry with that key.
    fn find<Q: Eq + ?Sized>(&self, tag: u64, key: &Q) -> Option<usize>
    where
        K: Borrow<Q>,
    {
        let slots = self.slots();
        if slots.is_empty() {
            return None;
        }
        let mut at = first(tag, slots.len());
        loop {
            let bucket = &slots[at];
            match bucket.entry() {
                Some((found, _)) if bucket.tag == tag && found.borrow() == key => return Some(at),
                None if bucket.tag == EMPTY => return None,
                _ => at = (at + 1) & (slots.len() - 1),
            }
        }
    }

    /// The value of a key.
    #[inline]
    pub fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.get_key_value(key).map(|(_, value)| value)
    }

    /// The entry of a key.
    #[inline]
    pub fn get_key_value<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<(&K, &V)>
    where
        K: Borrow<Q>,
    {
        let at = self.find(self.tag(key), key)?;
        self.slots()[at].entry()
    }

    /// Whether the key has an entry.
    #[inline]
    pub fn contains_key<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.find(self.tag(key), key).is_some()
    }
}

impl<'gc, K, V, S> GcHashMap<'gc, K, V, S>
where
    K: Trace + Copy + Send + Sync + Eq + Hash + 'gc,
    V: Trace + Copy + Send + Sync + 'gc,
    S: BuildHasher,
{
    /// The entries of an iterator, in a map with a hasher of the default kind.
    ///
    /// # Panics
    /// When there is no room.
    #[track_caller]
    pub fn from_iter(mc: &Mutator<'gc>, entries: impl IntoIterator<Item = (K, V)>) -> Self
    where
        S: Default,
    {
        let mut new = GcHashMap::default();
        new.extend(mc, entries);
        new
    }

    /// Makes room for `additional` more entries.
    ///
    /// # Panics
    /// When there is no room.
    #[track_caller]
    pub fn reserve(&mut self, mc: &Mutator<'gc>, additional: usize) {
        expect(self.try_reserve(mc, additional));
    }

    /// Makes room for `additional` more entries, if there is memory.
    ///
    /// # Errors
    /// As [`Mutator::try_alloc`]; nothing has changed then.
    #[inline]
    pub fn try_reserve(&mut self, mc: &Mutator<'gc>, additional: usize) -> Result<(), OutOfMemory> {
        if additional > most(self.slots) - self.used {
            self.grow(mc, additional)?;
        }
        Ok(())
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, mc: &Mutator<'gc>, additional: usize) -> Result<(), OutOfMemory> {
        let needed = self.len.saturating_add(additional);
        // With what was removed out of the way, half of the room is to be left, or the next one comes soon.
        let wanted = needed.max(self.len.saturating_add(self.len / 2));
        self.set_slots(mc, slots_for(wanted))
    }

    /// Moves to a buffer of `slots` buckets, which have room for all entries.
    fn set_slots(&mut self, mc: &Mutator<'gc>, slots: usize) -> Result<(), OutOfMemory> {
        let mut new = Buffer::<Bucket<K, V>>::try_new(mc, slots, true)?;
        for bucket in self.slots().iter().filter(|bucket| bucket.tag & FULL != 0) {
            let mut at = first(bucket.tag, slots);
            // SAFETY: `slots` buckets, all zeros but for what was put in here (B2).
            let taken = unsafe { core::slice::from_raw_parts(new.start().as_ptr(), slots) };
            while taken[at].tag != EMPTY {
                at = (at + 1) & (slots - 1);
            }
            // SAFETY: `at` is less than `slots`; an entry of the old buffer.
            unsafe { new.put(mc, at, bucket) };
        }
        self.buckets.replace_by(mc, new);
        (self.slots, self.used) = (slots, self.len);
        Ok(())
    }

    /// Gives up storage that is not used. Where memory is short, nothing changes.
    pub fn shrink_to_fit(&mut self, mc: &Mutator<'gc>) {
        if self.len == 0 {
            self.buckets.replace_by(mc, Buffer::empty());
            (self.slots, self.used) = (0, 0);
        } else if slots_for(self.len) < self.slots {
            // A refusal leaves everything as it is, and that is a map with room to spare.
            let _ = self.set_slots(mc, slots_for(self.len));
        }
    }

    /// Gives the key a value; returns the one that it had. A key that is there already stays as it is.
    ///
    /// # Panics
    /// When there is no room.
    #[inline]
    #[track_caller]
    pub fn insert(&mut self, mc: &Mutator<'gc>, key: K, value: V) -> Option<V> {
        expect(self.try_insert(mc, key, value))
    }

    /// Gives the key a value, if there is memory; returns the one that it had.
    ///
    /// # Errors
    /// As [`Mutator::try_alloc`]; nothing has changed then. A key that is there already always gets its value.
    pub fn try_insert(
        &mut self,
        mc: &Mutator<'gc>,
        key: K,
        value: V,
    ) -> Result<Option<V>, OutOfMemory> {
        let tag = self.tag(&key);
        match self.find(tag, &key) {
            Some(at) => Ok(Some(self.set_value(mc, at, value))),
            None => {
                self.try_reserve(mc, 1)?;
                self.put_new(mc, tag, key, value);
                Ok(None)
            }
        }
    }

    /// Puts an entry in whose key has none. There is room. Returns its bucket.
    fn put_new(&mut self, mc: &Mutator<'gc>, tag: u64, key: K, value: V) -> usize {
        let slots = self.slots();
        let mut at = first(tag, slots.len());
        while slots[at].tag & FULL != 0 {
            at = (at + 1) & (slots.len() - 1);
        }
        self.used += usize::from(slots[at].tag == EMPTY);
        self.len += 1;
        // SAFETY: a bucket; key and value are the closure's.
        unsafe { self.buckets.put(mc, at, &Bucket::full(tag, key, value)) };
        at
    }

    /// Gives the entry in a bucket another value; returns the one that it had.
    fn set_value(&mut self, mc: &Mutator<'gc>, at: usize, value: V) -> V {
        let bucket = self.slots()[at];
        let (&key, &old) = bucket.entry().expect("an entry was found here");
        // SAFETY: a bucket; key and value are the closure's.
        unsafe { self.buckets.put(mc, at, &Bucket::full(bucket.tag, key, value)) };
        old
    }

    /// Takes the entry in a bucket away.
    fn remove_at(&mut self, mc: &Mutator<'gc>, at: usize) -> (K, V) {
        let slots = self.slots();
        let bucket = slots[at];
        let (&key, &value) = bucket.entry().expect("an entry was found here");
        let next = slots[(at + 1) & (slots.len() - 1)].tag;
        self.len -= 1;
        if next == EMPTY {
            self.empty_back_from(mc, at);
        } else {
            self.set_tag(mc, at, REMOVED);
        }
        (key, value)
    }

    /// Makes a bucket empty behind which no search goes on, so that none has to be led over it, nor over removed
    /// buckets before it.
    fn empty_back_from(&mut self, mc: &Mutator<'gc>, mut at: usize) {
        loop {
            self.set_tag(mc, at, EMPTY);
            self.used -= 1;
            at = at.wrapping_sub(1) & (self.slots - 1);
            if self.slots()[at].tag != REMOVED {
                return;
            }
        }
    }

    /// Makes a bucket empty or removed.
    fn set_tag(&mut self, mc: &Mutator<'gc>, at: usize, tag: u64) {
        let (key, value) = (MaybeUninit::zeroed(), MaybeUninit::zeroed());
        // SAFETY: a bucket; pointer words are null.
        unsafe { self.buckets.put(mc, at, &Bucket { tag, key, value }) };
    }

    /// Takes the entry of a key away; returns its value.
    #[inline]
    pub fn remove<Q: Eq + Hash + ?Sized>(&mut self, mc: &Mutator<'gc>, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.remove_entry(mc, key).map(|(_, value)| value)
    }

    /// Takes the entry of a key away; returns it.
    pub fn remove_entry<Q: Eq + Hash + ?Sized>(
        &mut self,
        mc: &Mutator<'gc>,
        key: &Q,
    ) -> Option<(K, V)>
    where
        K: Borrow<Q>,
    {
        let at = self.find(self.tag(key), key)?;
        Some(self.remove_at(mc, at))
    }

    /// The place of a key: see [`Entry`].
    pub fn entry<'a>(&'a mut self, mc: &'a Mutator<'gc>, key: K) -> Entry<'a, 'gc, K, V, S> {
        let tag = self.tag(&key);
        match self.find(tag, &key) {
            Some(at) => Entry::Occupied(OccupiedEntry::new(self, mc, at)),
            None => Entry::Vacant(VacantEntry::new(self, mc, tag, key)),
        }
    }

    /// Gives the keys of an iterator their values. If it panics, those stay that it had given.
    ///
    /// # Panics
    /// When there is no room.
    #[track_caller]
    pub fn extend(&mut self, mc: &Mutator<'gc>, entries: impl IntoIterator<Item = (K, V)>) {
        for (key, value) in entries {
            self.insert(mc, key, value);
        }
    }

    /// Keeps the entries for which `keep` is true. If it panics, those that it has not seen stay.
    pub fn retain(&mut self, mc: &Mutator<'gc>, mut keep: impl FnMut(&K, &V) -> bool) {
        for at in 0..self.slots {
            let entry = self.slots()[at].entry();
            if entry.is_some_and(|(key, value)| !keep(key, value)) {
                self.remove_at(mc, at);
            }
        }
    }

    /// Takes all entries away. The storage stays.
    pub fn clear(&mut self, mc: &Mutator<'gc>) {
        for at in 0..self.slots {
            if self.slots()[at].tag != EMPTY {
                self.set_tag(mc, at, EMPTY);
            }
        }
        (self.len, self.used) = (0, 0);
    }
}

/// How many buckets `entries` entries need.
fn slots_for(entries: usize) -> usize {
    let least = entries.saturating_add(entries / 3).saturating_add(1);
    // The largest power of two is refused for its size, like whatever is more.
    let slots = least.max(SMALLEST).checked_next_power_of_two();
    slots.unwrap_or(1 << (usize::BITS - 1))
}

// SAFETY: the buffer's one pointer is reported; entries are found there. The hasher is 'static.
unsafe impl<'gc, K, V, S: 'static> Trace for GcHashMap<'gc, K, V, S> {
    const SHAPE: Shape =
        Shape::NoScan.with(offset_of!(Self, buckets), <Buffer<'gc, Bucket<K, V>> as Trace>::SHAPE);
    const EXACT: bool = true;

    #[inline]
    fn trace(&self, tracer: &mut Tracer<'_>) {
        self.buckets.trace(tracer);
    }
}

impl<K, V, S, Q: ?Sized> Index<&Q> for GcHashMap<'_, K, V, S>
where
    K: Eq + Hash + Borrow<Q>,
    Q: Eq + Hash,
    S: BuildHasher,
{
    type Output = V;
    #[track_caller]
    fn index(&self, key: &Q) -> &V {
        self.get(key).expect("the key has no entry")
    }
}

impl<'a, K, V, S> IntoIterator for &'a GcHashMap<'_, K, V, S> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;
    fn into_iter(self) -> Iter<'a, K, V> {
        self.iter()
    }
}

impl<K: Eq + Hash, V: PartialEq, S: BuildHasher> PartialEq for GcHashMap<'_, K, V, S> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().all(|(key, value)| other.get(key) == Some(value))
    }
}

impl<K: Eq + Hash, V: Eq, S: BuildHasher> Eq for GcHashMap<'_, K, V, S> {}

impl<K: fmt::Debug, V: fmt::Debug, S> fmt::Debug for GcHashMap<'_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}
