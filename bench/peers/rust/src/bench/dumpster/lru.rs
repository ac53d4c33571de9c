//! `lru` for dumpster: the list by age goes in both directions, so all entries of a shard are in cycles.
//!
//! There are no weak pointers, and none are needed: an entry that is evicted is taken out of the list and freed by
//! its count, and what a program forgot to take apart would be found by the detector. But each pointer that is
//! copied for a step along a chain, and dropped behind it, makes its object suspect, and the detector walks through
//! everything that suspects reach, which is the whole shard. It does so whenever more pointers were dropped than
//! there are.
//!
//! The walk recurses along the list, which is as long as a shard has entries; the threads have stacks for that, and
//! what is used of them is in the memory of the process.

use dumpster::Trace;

use super::{Cell, Gc, cell, open};
use crate::bench::lru::{Cache, Found, Key, Sizes, Value, Want, misplaced, value_of, word_of};
use crate::bench::{Failure, Result};
use crate::options::Params;

/// Bytes of stack for an entry of a list.
pub const FRAME: usize = 1024;

/// The most entries of a shard: more stack than a gigabyte is no way to run a program.
const DEEPEST: u64 = 1 << 20;

type Link = Option<Gc<Node>>;

#[derive(Trace)]
struct Node {
    key: Key,
    state: Cell<State>,
}

/// What changes.
#[derive(Trace)]
struct State {
    /// The next one in its bucket.
    chain: Link,
    newer: Link,
    older: Link,
    value: Gc<Value>,
    hits: u64,
    replaced: u64,
}

struct Shard {
    buckets: Box<[Link]>,
    capacity: usize,
    newest: Link,
    oldest: Link,
    len: usize,
}

pub struct Shards(Box<[Cell<Shard>]>);

/// Refuses caches whose lists are too deep for a stack.
pub fn check(params: &Params) -> Result<()> {
    match params.get("entries") / params.get("shards") {
        0..DEEPEST => Ok(()),
        _ => Err(Failure::not_applicable(
            "its detector recurses, and the lists are too long for a stack",
        )),
    }
}

impl Cache for Shards {
    fn new(sizes: Sizes, _: &Params) -> Shards {
        let shard = |index| {
            let buckets = (0..sizes.buckets(index)).map(|_| None).collect();
            let capacity = sizes.capacity(index);
            cell(Shard { buckets, capacity, newest: None, oldest: None, len: 0 })
        };
        Shards((0..sizes.shards).map(shard).collect())
    }

    fn operate(&self, shard: usize, key: Key, want: Want, salt: u64) -> Found {
        open(&self.0[shard]).operate(key, want, salt)
    }

    fn count(&self, shard: usize) -> Result<usize> {
        open(&self.0[shard]).count()
    }
}

fn same(one: &Link, other: &Link) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Gc::ptr_eq(one, other),
        (one, other) => one.is_none() && other.is_none(),
    }
}

impl Shard {
    fn bucket(&mut self, key: Key) -> &mut Link {
        let mask = self.buckets.len() - 1;
        &mut self.buckets[key[0] as usize & mask]
    }

    fn find(&mut self, key: Key) -> Link {
        let mut link = self.bucket(key).clone();
        while let Some(node) = link {
            if node.key == key {
                return Some(node);
            }
            link = open(&node.state).chain.clone();
        }
        None
    }

    fn operate(&mut self, key: Key, want: Want, salt: u64) -> Found {
        let Some(node) = self.find(key) else {
            return self.insert(key, salt);
        };
        let mut state = open(&node.state);
        let word = word_of(key, &state.value);
        match want {
            Want::Get => state.hits += 1,
            Want::Replace => {
                state.value = Gc::new(value_of(key, salt));
                state.replaced += 1;
            }
        }
        drop(state);
        if self.newest.as_ref().is_none_or(|newest| !Gc::ptr_eq(newest, &node)) {
            self.unlink(&node);
            self.push(node);
        }
        Found { hit: true, word }
    }

    fn insert(&mut self, key: Key, salt: u64) -> Found {
        let value = Gc::new(value_of(key, salt));
        let word = value[0];
        while self.len >= self.capacity.max(1) {
            self.evict();
        }
        let bucket = self.bucket(key);
        let chain = bucket.take();
        let state = State { chain, newer: None, older: None, value, hits: 0, replaced: 0 };
        let node = Gc::new(Node { key, state: cell(state) });
        *bucket = Some(node.clone());
        self.push(node);
        Found { hit: false, word }
    }

    /// Takes the oldest entry out, and with it the last pointers to it.
    fn evict(&mut self) {
        let Some(oldest) = self.oldest.clone() else { return };
        self.unlink(&oldest);
        let after = open(&oldest.state).chain.take();
        let bucket = self.bucket(oldest.key);
        let is_it = |link: &Link| link.as_ref().is_some_and(|node| Gc::ptr_eq(node, &oldest));
        if is_it(bucket) {
            *bucket = after;
            return;
        }
        let mut link = bucket.clone();
        while let Some(node) = link {
            let mut state = open(&node.state);
            if is_it(&state.chain) {
                state.chain = after;
                return;
            }
            link = state.chain.clone();
        }
    }

    /// Puts a node that is not in the list to the front.
    fn push(&mut self, node: Gc<Node>) {
        match &self.newest {
            Some(newest) => open(&newest.state).newer = Some(node.clone()),
            None => self.oldest = Some(node.clone()),
        }
        open(&node.state).older = self.newest.take();
        self.newest = Some(node);
        self.len += 1;
    }

    /// Takes a node out of the list.
    fn unlink(&mut self, node: &Gc<Node>) {
        let mut state = open(&node.state);
        let (newer, older) = (state.newer.take(), state.older.take());
        drop(state);
        match &older {
            Some(older) => open(&older.state).newer = newer.clone(),
            None => self.oldest = newer.clone(),
        }
        match newer {
            Some(newer) => open(&newer.state).older = older,
            None => self.newest = older,
        }
        self.len -= 1;
    }

    fn count(&mut self) -> Result<usize> {
        let (mut count, mut newer, mut link) = (0, None, self.newest.clone());
        while let Some(node) = link {
            count += 1;
            let state = open(&node.state);
            let (back, older) = (state.newer.clone(), state.older.clone());
            drop(state);
            let (found, here) = (self.find(node.key), Some(node.clone()));
            if !same(&back, &newer) || !same(&found, &here) {
                return Err(misplaced(node.key));
            }
            (newer, link) = (here, older);
        }
        Ok(count)
    }
}
