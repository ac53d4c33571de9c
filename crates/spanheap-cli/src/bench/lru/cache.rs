//! [`Cache`]: a hash map and a list by age, in shards, all of it in the heap.
//!
//! ```text
//! root -> shards -> Shard: buckets -> Node -> next of the bucket      a node has 64 bytes:
//!                          list (locked): newest, oldest              a key of 16, four pointers,
//!                          Node <-> Node <-> Node                     16 of statistics
//!                          Node -> value, 128 bytes
//! ```
//! Whoever holds the lock of a shard's list may change all of the shard: buckets and links are cells, and the
//! lock is what keeps two threads from changing them at once. A hit moves a node to the front, which is six
//! stores of pointers into old objects: the write barrier is what such a cache costs a collector.
//!
//! Since nobody else changes anything meanwhile, nothing but the lock is an atomic exchange: what is changed is loaded
//! and then stored. An exchange waits until all that was stored before is in the cache, and whatever is loaded after
//! it waits for the exchange; and each operation misses the cache four times, in the node, its value, and its two
//! neighbours. With exchanges these are waited for one by one, without them together.
//!
//! What an operation allocates is allocated before it changes anything. So one that finds no memory has changed
//! nothing, and can be repeated.

use std::sync::atomic::{AtomicU64, Ordering};

use spanheap::{Gc, GcCell, GcMutex, Heap, Mutator, OutOfMemory, Root, Rootable, Trace};

/// Words of a value: 128 bytes.
const VALUE: usize = 16;
type Value = [u64; VALUE];

type Link<'gc> = Option<Gc<'gc, Node<'gc>>>;
type LinkCell<'gc> = GcCell<'gc, Link<'gc>>;

/// An entry.
#[derive(Trace)]
struct Node<'gc> {
    key: [u64; 2],
    /// The next one in its bucket.
    chain: LinkCell<'gc>,
    newer: LinkCell<'gc>,
    older: LinkCell<'gc>,
    value: GcCell<'gc, Gc<'gc, Value>>,
    hits: AtomicU64,
    replaced: AtomicU64,
}

const _: () = assert!(size_of::<Node<'_>>() == 64 && size_of::<Value>() == 128);

#[derive(Trace)]
struct Shard<'gc> {
    buckets: Gc<'gc, [LinkCell<'gc>]>,
    capacity: u64,
    list: GcMutex<'gc, List<'gc>>,
}

/// The ends of the list by age.
#[derive(Trace)]
struct List<'gc> {
    newest: Link<'gc>,
    oldest: Link<'gc>,
    len: u64,
}

/// What an operation is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::bench) enum Want {
    /// Read the value; make it if it is not there.
    Get,
    /// Give the key another value.
    Replace,
}

/// What it has found.
#[derive(Clone, Copy, Debug)]
pub(in crate::bench) struct Found {
    pub(in crate::bench) hit: bool,
    /// A word of the value that the key had, or has got.
    pub(in crate::bench) word: u64,
}

type Shards = Rootable![[Gc<'_, Shard<'_>>]];

/// A cache in a heap.
pub(in crate::bench) struct Cache {
    shards: Root<Shards>,
}

/// Buckets for so many entries: one and a third for each on average, and a power of two.
fn buckets(entries: u64) -> u64 {
    entries.max(1).next_power_of_two()
}

/// Entries of the shard `index`.
fn capacity(entries: u64, shards: u64, index: u64) -> u64 {
    entries / shards + u64::from(index < entries % shards)
}

impl Cache {
    /// What a full cache weighs in bytes, or none if that overflows.
    pub(in crate::bench) fn weight(entries: u64, shards: u64) -> Option<u64> {
        let each = (size_of::<Node<'_>>() + size_of::<Value>()) as u64;
        // Shards differ by an entry at most, and so by a factor of two in their buckets.
        let slots = (entries / shards).checked_add(1)?.checked_next_power_of_two()?;
        let fixed = slots.checked_mul(8)?.checked_add(size_of::<Shard<'_>>() as u64 + 16)?;
        entries.checked_mul(each)?.checked_add(shards.checked_mul(fixed)?)
    }

    /// An empty cache for `entries` entries in `shards` shards.
    pub(in crate::bench) fn new(
        heap: &Heap,
        entries: u64,
        shards: u64,
    ) -> Result<Cache, OutOfMemory> {
        let shards = heap.enter(|mc| -> Result<_, OutOfMemory> {
            let mut all = Vec::new();
            for index in 0..shards {
                let capacity = capacity(entries, shards, index);
                let buckets = mc.try_alloc_zeroed(buckets(capacity) as usize)?;
                let list = GcMutex::new(List { newest: None, oldest: None, len: 0 });
                all.push(mc.try_alloc(Shard { buckets, capacity, list })?);
            }
            Ok(mc.root(mc.try_alloc_slice(all)?))
        })?;
        Ok(Cache { shards })
    }

    /// Does one operation with a key, in the shard `shard`.
    pub(in crate::bench) fn operate(
        &self,
        mc: &Mutator<'_>,
        shard: usize,
        key: [u64; 2],
        want: Want,
        salt: u64,
    ) -> Result<Found, OutOfMemory> {
        self.shards.get(mc)[shard].operate(mc, key, want, salt)
    }

    /// How many entries there are. Walks along the lists in both directions; what does not fit together
    /// is an error.
    pub(in crate::bench) fn count(&self, heap: &Heap) -> Result<u64, String> {
        let mut count = 0;
        let shards = heap.enter(|mc| self.shards.get(mc).len());
        for index in 0..shards {
            // A closure for each: a walk over everything would hold the collector up.
            count += heap.enter(|mc| self.shards.get(mc)[index].count(mc))?;
        }
        Ok(count)
    }
}

/// Counts one more. The lock of the shard is held.
fn count_up(count: &AtomicU64) {
    count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

/// A value for a key.
fn value_of(key: [u64; 2], salt: u64) -> Value {
    let mut value = [key[1] ^ salt; VALUE];
    value[VALUE - 1] = key[0];
    value
}

impl<'gc> Shard<'gc> {
    fn bucket(&self, key: [u64; 2]) -> &LinkCell<'gc> {
        &self.buckets[key[0] as usize & (self.buckets.len() - 1)]
    }

    fn find(&self, key: [u64; 2]) -> Link<'gc> {
        let mut link = self.bucket(key).get();
        while let Some(node) = link {
            if node.key == key {
                return link;
            }
            link = node.chain.get();
        }
        None
    }

    fn operate(
        &self,
        mc: &Mutator<'gc>,
        key: [u64; 2],
        want: Want,
        salt: u64,
    ) -> Result<Found, OutOfMemory> {
        let mut list = self.list.lock(mc);
        let Some(node) = self.find(key) else {
            let value = mc.try_alloc(value_of(key, salt))?;
            let word = value[0];
            let node = mc.try_alloc(Node {
                key,
                chain: GcCell::new(None),
                newer: GcCell::new(None),
                older: GcCell::new(None),
                value: GcCell::new(value),
                hits: AtomicU64::new(0),
                replaced: AtomicU64::new(0),
            })?;
            while list.len >= self.capacity.max(1) {
                self.evict(mc, &mut list);
            }
            let bucket = self.bucket(key);
            node.chain.set(mc, bucket.get());
            bucket.set(mc, Some(node));
            list.push(mc, node);
            return Ok(Found { hit: false, word });
        };
        let word = node.value.get()[0];
        assert!(node.value.get()[VALUE - 1] == key[0], "the value of another key");
        match want {
            Want::Get => count_up(&node.hits),
            Want::Replace => {
                let value = mc.try_alloc(value_of(key, salt))?;
                node.value.set(mc, value);
                count_up(&node.replaced);
            }
        }
        if list.newest.is_none_or(|newest| !Gc::ptr_eq(newest, node)) {
            list.unlink(mc, node);
            list.push(mc, node);
        }
        Ok(Found { hit: true, word })
    }

    /// Takes the oldest entry out.
    fn evict(&self, mc: &Mutator<'gc>, list: &mut List<'gc>) {
        let Some(oldest) = list.oldest else { return };
        list.unlink(mc, oldest);
        let mut place = self.bucket(oldest.key);
        while let Some(node) = place.get() {
            if Gc::ptr_eq(node, oldest) {
                place.set(mc, node.chain.get());
                return;
            }
            place = &node.as_ref().chain;
        }
    }

    fn count(&self, mc: &Mutator<'gc>) -> Result<u64, String> {
        let list = self.list.lock(mc);
        let (mut count, mut newer, mut link) = (0, None::<Gc<'gc, Node<'gc>>>, list.newest);
        while let Some(node) = link {
            count += 1;
            let back = node.newer.get();
            let fits = match (back, newer) {
                (Some(back), Some(newer)) => Gc::ptr_eq(back, newer),
                (None, None) => true,
                _ => false,
            };
            if !fits || self.find(node.key).is_none_or(|found| !Gc::ptr_eq(found, node)) {
                return Err(format!("the entry {:#x} is not where it should be", node.key[0]));
            }
            (newer, link) = (link, node.older.get());
        }
        match count == list.len {
            true => Ok(count),
            false => Err(format!("a list of {} entries has {count}", list.len)),
        }
    }
}

impl<'gc> List<'gc> {
    /// Puts a node that is in no list to the front.
    fn push(&mut self, mc: &Mutator<'gc>, node: Gc<'gc, Node<'gc>>) {
        node.older.set(mc, self.newest);
        match self.newest {
            Some(newest) => newest.newer.set(mc, Some(node)),
            None => self.oldest = Some(node),
        }
        self.newest = Some(node);
        self.len += 1;
    }

    /// Takes a node out of the list.
    fn unlink(&mut self, mc: &Mutator<'gc>, node: Gc<'gc, Node<'gc>>) {
        let (newer, older) = (node.newer.get(), node.older.get());
        node.newer.set(mc, None);
        node.older.set(mc, None);
        match newer {
            Some(newer) => newer.older.set(mc, older),
            None => self.newest = older,
        }
        match older {
            Some(older) => older.newer.set(mc, newer),
            None => self.oldest = newer,
        }
        self.len -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use spanheap::Heap;

    use super::{Cache, Want};
    use crate::random::Random;

    #[test]
    fn it_forgets_what_was_used_longest_ago() {
        let heap = Heap::builder().collect_continuously(true).build().expect("a heap");
        let cache = Cache::new(&heap, 20, 1).expect("memory");
        let mut twin: VecDeque<u64> = VecDeque::new();
        let mut random = Random::new(11);
        for step in 0..20_000 {
            let key = random.below(60) as u64;
            let want = if random.below(10) == 0 { Want::Replace } else { Want::Get };
            // Few buckets for the keys: chains have several entries.
            let found = heap.enter(|mc| cache.operate(mc, 0, [key % 7, key], want, step));
            let at = twin.iter().position(|&other| other == key);
            assert_eq!(found.expect("memory").hit, at.is_some(), "step {step}");
            at.map(|at| twin.remove(at));
            twin.push_front(key);
            twin.truncate(20);
        }
        assert_eq!(cache.count(&heap), Ok(20));
        let _ = heap.collect();
        // Entries and their values; the shard, its buckets, and the slice of shards.
        assert_eq!(heap.stats().live_objects, 2 * 20 + 3);
    }
}
