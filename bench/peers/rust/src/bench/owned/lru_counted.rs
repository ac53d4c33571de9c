//! `lru` for `Rc` and `Arc`, in safe code: an entry is owned by its bucket's chain and by the list, which has weak
//! pointers back.
//!
//! What changes of an entry is behind a cell: a `RefCell`, or a `Mutex` where threads share the cache. The lock of
//! the shard makes the second one idle, but safe Rust has no way to say so. Counts go up and down with each step
//! along a chain and each move in the list; that, and the cells, is the price of sharing without a collector.
//!
//! The lists would be freed by a recursion as deep as they are long. They are not torn down.

use std::cell::RefCell;
use std::ops::DerefMut;
use std::rc::{self, Rc};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{self, Arc, Mutex, PoisonError};

use super::{AtomicallyCounted, Counted, Pointer};
use crate::bench::lru::{
    self, Cache, Found, Key, Sizes, Value, Want, misplaced, value_of, word_of,
};
use crate::bench::{Outcome, Result};
use crate::options::Params;

/// Counted pointers, with the weak pointers and cells that go with them.
pub trait Shared: Pointer {
    type Weak<T>: Default;
    type Cell<T>;

    fn share<T>(pointer: &Self::To<T>) -> Self::To<T>;
    fn same<T>(one: &Self::To<T>, other: &Self::To<T>) -> bool;
    fn downgrade<T>(pointer: &Self::To<T>) -> Self::Weak<T>;
    fn upgrade<T>(weak: &Self::Weak<T>) -> Option<Self::To<T>>;
    fn cell<T>(value: T) -> Self::Cell<T>;
    fn open<T>(cell: &Self::Cell<T>) -> impl DerefMut<Target = T>;
    fn counter() -> Self::Counter;
    fn count(counter: &Self::Counter);
    /// A number that goes up.
    type Counter;
}

impl Shared for Counted {
    type Weak<T> = rc::Weak<T>;
    type Cell<T> = RefCell<T>;
    type Counter = std::cell::Cell<u64>;

    fn share<T>(pointer: &Rc<T>) -> Rc<T> {
        Rc::clone(pointer)
    }

    fn same<T>(one: &Rc<T>, other: &Rc<T>) -> bool {
        Rc::ptr_eq(one, other)
    }

    fn downgrade<T>(pointer: &Rc<T>) -> rc::Weak<T> {
        Rc::downgrade(pointer)
    }

    fn upgrade<T>(weak: &rc::Weak<T>) -> Option<Rc<T>> {
        weak.upgrade()
    }

    fn cell<T>(value: T) -> RefCell<T> {
        RefCell::new(value)
    }

    fn open<T>(cell: &RefCell<T>) -> impl DerefMut<Target = T> {
        cell.borrow_mut()
    }

    fn counter() -> std::cell::Cell<u64> {
        std::cell::Cell::new(0)
    }

    fn count(counter: &std::cell::Cell<u64>) {
        counter.set(counter.get() + 1);
    }
}

impl Shared for AtomicallyCounted {
    type Weak<T> = sync::Weak<T>;
    type Cell<T> = Mutex<T>;
    type Counter = AtomicU64;

    fn share<T>(pointer: &Arc<T>) -> Arc<T> {
        Arc::clone(pointer)
    }

    fn same<T>(one: &Arc<T>, other: &Arc<T>) -> bool {
        Arc::ptr_eq(one, other)
    }

    fn downgrade<T>(pointer: &Arc<T>) -> sync::Weak<T> {
        Arc::downgrade(pointer)
    }

    fn upgrade<T>(weak: &sync::Weak<T>) -> Option<Arc<T>> {
        weak.upgrade()
    }

    fn cell<T>(value: T) -> Mutex<T> {
        Mutex::new(value)
    }

    fn open<T>(cell: &Mutex<T>) -> impl DerefMut<Target = T> {
        cell.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn counter() -> AtomicU64 {
        AtomicU64::new(0)
    }

    fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

type Link<P> = Option<<P as Pointer>::To<Node<P>>>;

struct Node<P: Shared> {
    key: Key,
    links: P::Cell<Links<P>>,
    hits: P::Counter,
    replaced: P::Counter,
}

/// What changes.
struct Links<P: Shared> {
    /// The next one in its bucket.
    chain: Link<P>,
    older: Link<P>,
    newer: P::Weak<Node<P>>,
    value: P::To<Value>,
}

struct Shard<P: Shared> {
    buckets: Box<[Link<P>]>,
    capacity: usize,
    newest: Link<P>,
    oldest: P::Weak<Node<P>>,
    len: usize,
}

struct Shards<P: Shared>(Box<[P::Cell<Shard<P>>]>);

pub fn lru_rc(params: &Params) -> Result<Outcome> {
    lru::local::<Shards<Counted>>(params)
}

pub fn lru_arc(params: &Params) -> Result<Outcome> {
    lru::shared::<Shards<AtomicallyCounted>>(params, 0)
}

impl<P: Shared> Cache for Shards<P> {
    fn new(sizes: Sizes, _: &Params) -> Shards<P> {
        let shard = |index| {
            let buckets = (0..sizes.buckets(index)).map(|_| None).collect();
            let capacity = sizes.capacity(index);
            let oldest = P::Weak::default();
            P::cell(Shard { buckets, capacity, newest: None, oldest, len: 0 })
        };
        Shards((0..sizes.shards).map(shard).collect())
    }

    fn operate(&self, shard: usize, key: Key, want: Want, salt: u64) -> Found {
        P::open(&self.0[shard]).operate(key, want, salt)
    }

    fn count(&self, shard: usize) -> Result<usize> {
        P::open(&self.0[shard]).count()
    }
}

impl<P: Shared> Shard<P> {
    fn bucket(&mut self, key: Key) -> &mut Link<P> {
        let mask = self.buckets.len() - 1;
        &mut self.buckets[key[0] as usize & mask]
    }

    fn find(&mut self, key: Key) -> Link<P> {
        let mut link = self.bucket(key).as_ref().map(P::share);
        while let Some(node) = link {
            if node.key == key {
                return Some(node);
            }
            link = P::open(&node.links).chain.as_ref().map(P::share);
        }
        None
    }

    fn operate(&mut self, key: Key, want: Want, salt: u64) -> Found {
        let Some(node) = self.find(key) else {
            return self.insert(key, salt);
        };
        let mut links = P::open(&node.links);
        let word = word_of(key, &links.value);
        match want {
            Want::Get => P::count(&node.hits),
            Want::Replace => {
                links.value = P::new(value_of(key, salt));
                P::count(&node.replaced);
            }
        }
        drop(links);
        if self.newest.as_ref().is_none_or(|newest| !P::same(newest, &node)) {
            self.unlink(&node);
            self.push(node);
        }
        Found { hit: true, word }
    }

    fn insert(&mut self, key: Key, salt: u64) -> Found {
        let value = P::new(value_of(key, salt));
        let word = value[0];
        while self.len >= self.capacity.max(1) {
            self.evict();
        }
        let bucket = self.bucket(key);
        let links = Links { chain: bucket.take(), older: None, newer: P::Weak::default(), value };
        let (hits, replaced) = (P::counter(), P::counter());
        let node = P::new(Node { key, links: P::cell(links), hits, replaced });
        *bucket = Some(P::share(&node));
        self.push(node);
        Found { hit: false, word }
    }

    /// Takes the oldest entry out, and with it the last pointers to it.
    fn evict(&mut self) {
        let Some(oldest) = P::upgrade(&self.oldest) else { return };
        self.unlink(&oldest);
        let after = P::open(&oldest.links).chain.take();
        let bucket = self.bucket(oldest.key);
        let is_it = |link: &Link<P>| link.as_ref().is_some_and(|node| P::same(node, &oldest));
        if is_it(bucket) {
            *bucket = after;
            return;
        }
        let mut link = bucket.as_ref().map(P::share);
        while let Some(node) = link {
            let mut links = P::open(&node.links);
            if is_it(&links.chain) {
                links.chain = after;
                return;
            }
            link = links.chain.as_ref().map(P::share);
        }
    }

    /// Puts a node that is not in the list to the front.
    fn push(&mut self, node: P::To<Node<P>>) {
        match &self.newest {
            Some(newest) => P::open(&newest.links).newer = P::downgrade(&node),
            None => self.oldest = P::downgrade(&node),
        }
        P::open(&node.links).older = self.newest.take();
        self.newest = Some(node);
        self.len += 1;
    }

    /// Takes a node out of the list.
    fn unlink(&mut self, node: &P::To<Node<P>>) {
        let mut links = P::open(&node.links);
        let older = links.older.take();
        let newer = std::mem::take(&mut links.newer);
        drop(links);
        let newer_node = P::upgrade(&newer);
        match &older {
            Some(older) => P::open(&older.links).newer = newer,
            None => self.oldest = newer,
        }
        match newer_node {
            Some(newer) => P::open(&newer.links).older = older,
            None => self.newest = older,
        }
        self.len -= 1;
    }

    fn count(&mut self) -> Result<usize> {
        let (mut count, mut newer, mut link) = (0, None, self.newest.as_ref().map(P::share));
        while let Some(node) = link {
            count += 1;
            let links = P::open(&node.links);
            let older = links.older.as_ref().map(P::share);
            let back = P::upgrade(&links.newer);
            drop(links);
            let same = |one: &Link<P>, other: &Link<P>| match (one, other) {
                (Some(one), Some(other)) => P::same(one, other),
                (one, other) => one.is_none() && other.is_none(),
            };
            let found = self.find(node.key);
            let link_here = Some(node);
            if !same(&back, &newer) || !same(&found, &link_here) {
                return Err(misplaced(link_here.map_or([0; 2], |node| node.key)));
            }
            (newer, link) = (link_here, older);
        }
        Ok(count)
    }
}
