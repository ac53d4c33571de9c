//! `lru` for gc-arena: on one thread, an incremental step behind each operation, in its time. No lock is needed, so
//! none is taken.
//!
//! Buckets are divided into segments, for the reason given in `message_bus.rs`. The ends of the list are an object
//! of their own.

use std::cell::RefCell;

use gc_arena::barrier::unlock;
use gc_arena::lock::Lock;
use gc_arena::{Arena, Collect, Gc, Mutation, Rootable};

use super::pace;
use crate::bench::lru::{
    self, Cache, Found, Key, Sizes, VALUE, Want, misplaced, value_of, word_of,
};
use crate::bench::{Outcome, Result};
use crate::options::Params;

/// Buckets of a segment.
const SEGMENT: usize = 64;

type Link<'gc> = Option<Gc<'gc, Node<'gc>>>;
type Value<'gc> = Gc<'gc, [u64; VALUE]>;

#[derive(Collect)]
#[collect(no_drop)]
struct Node<'gc> {
    key: Key,
    /// The next one in its bucket.
    chain: Lock<Link<'gc>>,
    newer: Lock<Link<'gc>>,
    older: Lock<Link<'gc>>,
    value: Lock<Value<'gc>>,
    hits: Lock<u64>,
    replaced: Lock<u64>,
}

#[derive(Collect)]
#[collect(no_drop)]
struct Shard<'gc> {
    segments: Box<[Gc<'gc, [Lock<Link<'gc>>; SEGMENT]>]>,
    mask: usize,
    capacity: usize,
    ends: Gc<'gc, Ends<'gc>>,
}

/// The list by age.
#[derive(Collect)]
#[collect(no_drop)]
struct Ends<'gc> {
    newest: Lock<Link<'gc>>,
    oldest: Lock<Link<'gc>>,
    len: Lock<usize>,
}

type ShardArena = Arena<Rootable![Box<[Gc<'_, Shard<'_>>]>]>;

struct Shards {
    /// A collection wants the arena for itself.
    arena: RefCell<ShardArena>,
}

pub fn lru(params: &Params) -> Result<Outcome> {
    lru::local::<Shards>(params)
}

impl Cache for Shards {
    fn new(sizes: Sizes, params: &Params) -> Shards {
        let arena =
            Arena::new(|mc| (0..sizes.shards).map(|index| Shard::new(mc, sizes, index)).collect());
        pace(ShardArena::metrics(&arena), params);
        Shards { arena: RefCell::new(arena) }
    }

    fn operate(&self, shard: usize, key: Key, want: Want, salt: u64) -> Found {
        let mut arena = self.arena.borrow_mut();
        let found = arena.mutate(|mc, shards| shards[shard].operate(mc, key, want, salt));
        arena.collect_debt();
        found
    }

    fn count(&self, shard: usize) -> Result<usize> {
        self.arena.borrow().mutate(|_, shards| shards[shard].count())
    }
}

impl<'gc> Shard<'gc> {
    fn new(mc: &Mutation<'gc>, sizes: Sizes, index: usize) -> Gc<'gc, Shard<'gc>> {
        let buckets = sizes.buckets(index);
        let segment = |_| Gc::new(mc, std::array::from_fn(|_| Lock::new(None)));
        let segments = (0..buckets.div_ceil(SEGMENT)).map(segment).collect();
        let ends = Ends { newest: Lock::new(None), oldest: Lock::new(None), len: Lock::new(0) };
        let (mask, capacity) = (buckets - 1, sizes.capacity(index));
        Gc::new(mc, Shard { segments, mask, capacity, ends: Gc::new(mc, ends) })
    }

    /// The segment of a key's bucket, and the place there.
    fn bucket(&self, key: Key) -> (Gc<'gc, [Lock<Link<'gc>>; SEGMENT]>, usize) {
        let bucket = key[0] as usize & self.mask;
        (self.segments[bucket / SEGMENT], bucket % SEGMENT)
    }

    fn find(&self, key: Key) -> Link<'gc> {
        let (segment, place) = self.bucket(key);
        let mut link = segment[place].get();
        while let Some(node) = link {
            if node.key == key {
                return link;
            }
            link = node.chain.get();
        }
        None
    }

    fn operate(&self, mc: &Mutation<'gc>, key: Key, want: Want, salt: u64) -> Found {
        let Some(node) = self.find(key) else {
            return self.insert(mc, key, salt);
        };
        let word = word_of(key, &node.value.get());
        match want {
            // Numbers hold no pointers: no barrier.
            Want::Get => count_up(&node.as_ref().hits),
            Want::Replace => {
                let value = Gc::new(mc, value_of(key, salt));
                unlock!(Gc::write(mc, node), Node, value).set(value);
                count_up(&node.as_ref().replaced);
            }
        }
        if self.ends.newest.get().is_none_or(|newest| !Gc::ptr_eq(newest, node)) {
            self.unlink(mc, node);
            self.push(mc, node);
        }
        Found { hit: true, word }
    }

    fn insert(&self, mc: &Mutation<'gc>, key: Key, salt: u64) -> Found {
        let value = Gc::new(mc, value_of(key, salt));
        while self.ends.len.get() >= self.capacity.max(1) {
            self.evict(mc);
        }
        let (segment, place) = self.bucket(key);
        let none = || Lock::new(None);
        let node = Node {
            key,
            chain: Lock::new(segment[place].get()),
            newer: none(),
            older: none(),
            value: Lock::new(value),
            hits: Lock::new(0),
            replaced: Lock::new(0),
        };
        let node = Gc::new(mc, node);
        Gc::write(mc, segment)[place].unlock().set(Some(node));
        self.push(mc, node);
        Found { hit: false, word: value[0] }
    }

    /// Takes the oldest entry out.
    fn evict(&self, mc: &Mutation<'gc>) {
        let Some(oldest) = self.ends.oldest.get() else { return };
        self.unlink(mc, oldest);
        let after = oldest.chain.get();
        let (segment, place) = self.bucket(oldest.key);
        let is_it = |link: Link<'gc>| link.is_some_and(|node| Gc::ptr_eq(node, oldest));
        let mut link = segment[place].get();
        if is_it(link) {
            Gc::write(mc, segment)[place].unlock().set(after);
            return;
        }
        while let Some(node) = link {
            link = node.chain.get();
            if is_it(link) {
                unlock!(Gc::write(mc, node), Node, chain).set(after);
                return;
            }
        }
    }

    /// Puts a node that is not in the list to the front.
    fn push(&self, mc: &Mutation<'gc>, node: Gc<'gc, Node<'gc>>) {
        let ends = Gc::write(mc, self.ends);
        let newest = self.ends.newest.get();
        unlock!(Gc::write(mc, node), Node, older).set(newest);
        match newest {
            Some(newest) => unlock!(Gc::write(mc, newest), Node, newer).set(Some(node)),
            None => unlock!(ends, Ends, oldest).set(Some(node)),
        }
        unlock!(ends, Ends, newest).set(Some(node));
        unlock!(ends, Ends, len).set(self.ends.len.get() + 1);
    }

    /// Takes a node out of the list.
    fn unlink(&self, mc: &Mutation<'gc>, node: Gc<'gc, Node<'gc>>) {
        let ends = Gc::write(mc, self.ends);
        let own = Gc::write(mc, node);
        let newer = unlock!(own, Node, newer).replace(None);
        let older = unlock!(own, Node, older).replace(None);
        match newer {
            Some(newer) => unlock!(Gc::write(mc, newer), Node, older).set(older),
            None => unlock!(ends, Ends, newest).set(older),
        }
        match older {
            Some(older) => unlock!(Gc::write(mc, older), Node, newer).set(newer),
            None => unlock!(ends, Ends, oldest).set(newer),
        }
        unlock!(ends, Ends, len).set(self.ends.len.get() - 1);
    }

    fn count(&self) -> Result<usize> {
        let (mut count, mut newer, mut link) = (0, None, self.ends.newest.get());
        let same = |one: Link<'gc>, other: Link<'gc>| match (one, other) {
            (Some(one), Some(other)) => Gc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        while let Some(node) = link {
            count += 1;
            if !same(node.newer.get(), newer) || !same(self.find(node.key), link) {
                return Err(misplaced(node.key));
            }
            (newer, link) = (link, node.older.get());
        }
        Ok(count)
    }
}

fn count_up(number: &Lock<u64>) {
    let number = gc_arena::barrier::Write::from_static(number).unlock();
    number.set(number.get() + 1);
}
