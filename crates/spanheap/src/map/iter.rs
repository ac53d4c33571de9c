//! Iterators over the entries of a [`GcHashMap`](super::GcHashMap), in the order of the buckets.

use super::Bucket;
use core::fmt;
use core::iter::FusedIterator;
use core::slice;

/// The entries of a map: see [`GcHashMap::iter`](super::GcHashMap::iter).
pub struct Iter<'a, K, V> {
    buckets: slice::Iter<'a, Bucket<K, V>>,
    /// How many entries are still to come.
    left: usize,
}

impl<'a, K, V> Iter<'a, K, V> {
    pub(super) fn new(buckets: &'a [Bucket<K, V>], len: usize) -> Self {
        Iter { buckets: buckets.iter(), left: len }
    }
}

impl<K, V> Clone for Iter<'_, K, V> {
    fn clone(&self) -> Self {
        Iter { buckets: self.buckets.clone(), left: self.left }
    }
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        // The buckets behind the last entry need not be looked at.
        self.left = self.left.checked_sub(1)?;
        self.buckets.find_map(Bucket::entry)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<K, V> ExactSizeIterator for Iter<'_, K, V> {}
impl<K, V> FusedIterator for Iter<'_, K, V> {}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for Iter<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.clone()).finish()
    }
}

macro_rules! halves {
    ($($name:ident, $item:ident, $index:tt, $what:literal;)*) => {
        $(
            #[doc = $what]
            pub struct $name<'a, K, V> {
                entries: Iter<'a, K, V>,
            }

            impl<'a, K, V> $name<'a, K, V> {
                pub(super) fn new(entries: Iter<'a, K, V>) -> Self {
                    $name { entries }
                }
            }

            impl<K, V> Clone for $name<'_, K, V> {
                fn clone(&self) -> Self {
                    $name { entries: self.entries.clone() }
                }
            }

            impl<'a, K, V> Iterator for $name<'a, K, V> {
                type Item = &'a $item;

                fn next(&mut self) -> Option<Self::Item> {
                    Some(self.entries.next()?.$index)
                }

                fn size_hint(&self) -> (usize, Option<usize>) {
                    self.entries.size_hint()
                }
            }

            impl<K, V> ExactSizeIterator for $name<'_, K, V> {}
            impl<K, V> FusedIterator for $name<'_, K, V> {}

            impl<K, V> fmt::Debug for $name<'_, K, V>
            where
                $item: fmt::Debug,
            {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.debug_list().entries(self.clone()).finish()
                }
            }
        )*
    };
}

halves! {
    Keys, K, 0, "The keys of a map: see [`GcHashMap::keys`](super::GcHashMap::keys).";
    Values, V, 1, "The values of a map: see [`GcHashMap::values`](super::GcHashMap::values).";
}
