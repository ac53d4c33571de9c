//! `lru` for boxes: each entry is a box, and the bucket chains and the list by age go through it by plain pointers.
//!
//! That is how a cache is written in Rust when it has to be fast: the shard owns all its entries, and nothing is
//! counted. It is what malloc and free can do at best here, and it is not safe code.
//!
//! # Safety
//! 1. A link points to a node that was made by `Box::leak` in this shard, and every node that a link points to is
//!    freed by `evict` alone, after all links to it were changed: it is in one bucket's chain and in the list, and
//!    taken out of both.
//! 2. Links are followed through `&mut Shard` only, which the lock gives to one thread at a time, and a reference to
//!    a node is gone before the next link is followed. So no two references to a node exist at a time.

use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use crate::bench::lru::{
    self, Cache, Found, Key, Sizes, Value, Want, misplaced, value_of, word_of,
};
use crate::bench::{Outcome, Result};
use crate::options::Params;

type Link = Option<NonNull<Node>>;

struct Node {
    key: Key,
    /// The next one in its bucket.
    chain: Link,
    newer: Link,
    older: Link,
    value: Box<Value>,
    hits: u64,
    replaced: u64,
}

const _: () = assert!(size_of::<Node>() == 64);

struct Shard {
    buckets: Box<[Link]>,
    capacity: usize,
    newest: Link,
    oldest: Link,
    len: usize,
}

// SAFETY: a shard owns its nodes, which have no links to other shards (1).
unsafe impl Send for Shard {}

struct Shards(Box<[Mutex<Shard>]>);

pub fn lru_boxes(params: &Params) -> Result<Outcome> {
    lru::shared::<Shards>(params, 0)
}

impl Cache for Shards {
    fn new(sizes: Sizes, _: &Params) -> Shards {
        let shard = |index| {
            let buckets = vec![None; sizes.buckets(index)].into_boxed_slice();
            let capacity = sizes.capacity(index);
            Mutex::new(Shard { buckets, capacity, newest: None, oldest: None, len: 0 })
        };
        Shards((0..sizes.shards).map(shard).collect())
    }

    fn operate(&self, shard: usize, key: Key, want: Want, salt: u64) -> Found {
        self.0[shard].lock().unwrap_or_else(PoisonError::into_inner).operate(key, want, salt)
    }

    fn count(&self, shard: usize) -> Result<usize> {
        self.0[shard].lock().unwrap_or_else(PoisonError::into_inner).count()
    }
}

impl Shard {
    /// The node of a link.
    fn at(&mut self, mut link: NonNull<Node>) -> &mut Node {
        // SAFETY: it lives (1) and there is no other reference to it (2).
        unsafe { link.as_mut() }
    }

    fn bucket(&mut self, key: Key) -> &mut Link {
        let mask = self.buckets.len() - 1;
        &mut self.buckets[key[0] as usize & mask]
    }

    fn find(&mut self, key: Key) -> Link {
        let mut link = *self.bucket(key);
        while let Some(found) = link {
            let node = self.at(found);
            if node.key == key {
                return link;
            }
            link = node.chain;
        }
        None
    }

    fn operate(&mut self, key: Key, want: Want, salt: u64) -> Found {
        let Some(link) = self.find(key) else {
            return self.insert(key, salt);
        };
        let node = self.at(link);
        let word = word_of(key, &node.value);
        match want {
            Want::Get => node.hits += 1,
            Want::Replace => {
                // The workload is about another object in place of the old one, not about its contents.
                #[expect(clippy::replace_box)]
                let () = node.value = Box::new(value_of(key, salt));
                node.replaced += 1;
            }
        }
        if self.newest != Some(link) {
            self.unlink(link);
            self.push(link);
        }
        Found { hit: true, word }
    }

    fn insert(&mut self, key: Key, salt: u64) -> Found {
        let value = Box::new(value_of(key, salt));
        let word = value[0];
        let node = Node { key, chain: None, newer: None, older: None, value, hits: 0, replaced: 0 };
        let link = NonNull::from(Box::leak(Box::new(node)));
        while self.len >= self.capacity.max(1) {
            self.evict();
        }
        let chain = self.bucket(key).replace(link);
        self.at(link).chain = chain;
        self.push(link);
        Found { hit: false, word }
    }

    /// Takes the oldest entry out and frees it.
    fn evict(&mut self) {
        let Some(oldest) = self.oldest else { return };
        self.unlink(oldest);
        let node = self.at(oldest);
        let (key, after) = (node.key, node.chain);
        let first = self.bucket(key);
        if *first == Some(oldest) {
            *first = after;
        } else {
            let mut link = *first;
            while let Some(before) = link {
                let node = self.at(before);
                link = node.chain;
                if link == Some(oldest) {
                    node.chain = after;
                    break;
                }
            }
        }
        // SAFETY: no link to it is left (1).
        drop(unsafe { Box::from_raw(oldest.as_ptr()) });
    }

    /// Puts a node that is not in the list to the front.
    fn push(&mut self, link: NonNull<Node>) {
        let newest = self.newest.replace(link);
        self.at(link).older = newest;
        match newest {
            Some(newest) => self.at(newest).newer = Some(link),
            None => self.oldest = Some(link),
        }
        self.len += 1;
    }

    /// Takes a node out of the list.
    fn unlink(&mut self, link: NonNull<Node>) {
        let node = self.at(link);
        let (newer, older) = (node.newer.take(), node.older.take());
        match newer {
            Some(newer) => self.at(newer).older = older,
            None => self.newest = older,
        }
        match older {
            Some(older) => self.at(older).newer = newer,
            None => self.oldest = newer,
        }
        self.len -= 1;
    }

    fn count(&mut self) -> Result<usize> {
        let (mut count, mut newer, mut link) = (0, None, self.newest);
        while let Some(found) = link {
            let node = self.at(found);
            let (key, back, older) = (node.key, node.newer, node.older);
            if back != newer || self.find(key) != link {
                return Err(misplaced(key));
            }
            count += 1;
            (newer, link) = (link, older);
        }
        Ok(count)
    }
}
