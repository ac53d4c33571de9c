//! [`Entry`]: the place of a key in a [`GcHashMap`], found once and then looked at, filled or emptied.

use super::GcHashMap;
use crate::mutator::Mutator;
use crate::trace::Trace;
use crate::vec::expect;
use core::fmt;
use core::hash::{BuildHasher, Hash};
use spanheap_core::heap::OutOfMemory;

/// The place of a key in a map: see [`GcHashMap::entry`].
pub enum Entry<'a, 'gc, K, V, S> {
    /// The key has an entry.
    Occupied(OccupiedEntry<'a, 'gc, K, V, S>),
    /// The key has none.
    Vacant(VacantEntry<'a, 'gc, K, V, S>),
}

/// An entry that is there.
pub struct OccupiedEntry<'a, 'gc, K, V, S> {
    map: &'a mut GcHashMap<'gc, K, V, S>,
    mc: &'a Mutator<'gc>,
    /// Its bucket.
    at: usize,
}

/// The place for an entry that is not there.
pub struct VacantEntry<'a, 'gc, K, V, S> {
    map: &'a mut GcHashMap<'gc, K, V, S>,
    mc: &'a Mutator<'gc>,
    tag: u64,
    key: K,
}

impl<'a, 'gc, K, V, S> Entry<'a, 'gc, K, V, S>
where
    K: Trace + Copy + Send + Sync + Eq + Hash + 'gc,
    V: Trace + Copy + Send + Sync + 'gc,
    S: BuildHasher,
{
    /// The key.
    pub fn key(&self) -> &K {
        match self {
            Entry::Occupied(entry) => entry.key(),
            Entry::Vacant(entry) => entry.key(),
        }
    }

    /// The value, which is `value` if there was none.
    ///
    /// # Panics
    /// When there is no room.
    #[track_caller]
    pub fn or_insert(self, value: V) -> &'a V {
        self.or_insert_with(|| value)
    }

    /// The value, which is what `make` returns if there was none. If it panics, there is none.
    ///
    /// # Panics
    /// When there is no room.
    #[track_caller]
    pub fn or_insert_with(self, make: impl FnOnce() -> V) -> &'a V {
        match self {
            Entry::Occupied(entry) => entry.into_ref(),
            Entry::Vacant(entry) => entry.insert(make()),
        }
    }

    /// The value, which is the default of its type if there was none.
    ///
    /// # Panics
    /// When there is no room.
    #[track_caller]
    pub fn or_default(self) -> &'a V
    where
        V: Default,
    {
        self.or_insert_with(V::default)
    }

    /// Changes the value, if there is one. If `change` panics, the value stays what it was.
    #[must_use = "this is the entry; the change is made"]
    pub fn and_modify(mut self, change: impl FnOnce(&mut V)) -> Self {
        if let Entry::Occupied(entry) = &mut self {
            let mut value = *entry.get();
            change(&mut value);
            entry.insert(value);
        }
        self
    }
}

impl<'a, 'gc, K, V, S> OccupiedEntry<'a, 'gc, K, V, S>
where
    K: Trace + Copy + Send + Sync + Eq + Hash + 'gc,
    V: Trace + Copy + Send + Sync + 'gc,
    S: BuildHasher,
{
    pub(super) fn new(
        map: &'a mut GcHashMap<'gc, K, V, S>,
        mc: &'a Mutator<'gc>,
        at: usize,
    ) -> Self {
        OccupiedEntry { map, mc, at }
    }

    fn entry(&self) -> (&K, &V) {
        self.map.slots()[self.at].entry().expect("the entry was found")
    }

    /// The key that is in the map.
    pub fn key(&self) -> &K {
        self.entry().0
    }

    /// The value.
    pub fn get(&self) -> &V {
        self.entry().1
    }

    /// The value, for as long as the map is borrowed.
    pub fn into_ref(self) -> &'a V {
        let map: &'a GcHashMap<'gc, K, V, S> = self.map;
        map.slots()[self.at].entry().expect("the entry was found").1
    }

    /// Gives the key another value; returns the one that it had.
    pub fn insert(&mut self, value: V) -> V {
        self.map.set_value(self.mc, self.at, value)
    }

    /// Takes the entry away; returns its value.
    pub fn remove(self) -> V {
        self.map.remove_at(self.mc, self.at).1
    }
}

impl<'a, 'gc, K, V, S> VacantEntry<'a, 'gc, K, V, S>
where
    K: Trace + Copy + Send + Sync + Eq + Hash + 'gc,
    V: Trace + Copy + Send + Sync + 'gc,
    S: BuildHasher,
{
    pub(super) fn new(
        map: &'a mut GcHashMap<'gc, K, V, S>,
        mc: &'a Mutator<'gc>,
        tag: u64,
        key: K,
    ) -> Self {
        VacantEntry { map, mc, tag, key }
    }

    /// The key that has no entry.
    pub fn key(&self) -> &K {
        &self.key
    }

    /// Gives the key a value.
    ///
    /// # Panics
    /// When there is no room.
    #[track_caller]
    pub fn insert(self, value: V) -> &'a V {
        expect(self.try_insert(value))
    }

    /// Gives the key a value, if there is memory.
    ///
    /// # Errors
    /// As [`Mutator::try_alloc`]; nothing has changed then.
    pub fn try_insert(self, value: V) -> Result<&'a V, OutOfMemory> {
        self.map.try_reserve(self.mc, 1)?;
        let at = self.map.put_new(self.mc, self.tag, self.key, value);
        let map: &'a GcHashMap<'gc, K, V, S> = self.map;
        Ok(map.slots()[at].entry().expect("the entry was just made").1)
    }
}

impl<K: fmt::Debug, V, S> fmt::Debug for Entry<'_, '_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Entry::Occupied(entry) => entry.fmt(f),
            Entry::Vacant(entry) => entry.fmt(f),
        }
    }
}

impl<K, V, S> fmt::Debug for OccupiedEntry<'_, '_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OccupiedEntry(bucket {})", self.at)
    }
}

impl<K: fmt::Debug, V, S> fmt::Debug for VacantEntry<'_, '_, K, V, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("VacantEntry").field(&self.key).finish()
    }
}
