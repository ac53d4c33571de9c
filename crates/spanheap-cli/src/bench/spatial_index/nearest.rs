//! The nearest neighbours of a place: best first, after Hjaltason and Samet.
//!
//! ```text
//! queue: nodes, the nearest one first        hits: the `k` nearest points so far, in order
//! take the nearest node:  a leaf's points go to the hits,  other nodes' children to the queue
//! until the nearest node is farther away than the last of `k` hits
//! ```
//! Both are arrays on the collected heap, as they would be in a language that has no other; the queue grows by
//! doubling. Three kilobytes of garbage are left when the closure ends. Of points at equal distances the one with the
//! lower id is nearer, so the result does not depend on the order in which they are found.

use std::sync::atomic::{AtomicU64, Ordering};

use spanheap::{Gc, GcCell, Mutator, Trace};

use super::node::{Node, Point};
use super::tree::Tree;

/// How many nodes a queue has room for at first.
const ROOM: usize = 32;

/// A distance, and what is there.
#[derive(Trace)]
struct Item<'gc, T> {
    distance: AtomicU64,
    what: GcCell<'gc, Option<Gc<'gc, T>>>,
}

const _: () = assert!(size_of::<Item<'_, Point>>() == 16);

impl<'gc, T> Item<'gc, T> {
    fn empty() -> Item<'gc, T> {
        Item { distance: AtomicU64::new(0), what: GcCell::new(None) }
    }

    fn distance(&self) -> u64 {
        self.distance.load(Ordering::Relaxed)
    }

    fn set(&self, mc: &Mutator<'gc>, distance: u64, what: Option<Gc<'gc, T>>) {
        self.distance.store(distance, Ordering::Relaxed);
        self.what.set(mc, what);
    }
}

/// Calls `visit` with the index, the squared distance and the point for each of the `k` nearest points, the nearest
/// first; for all, if there are fewer.
pub(super) fn nearest<'gc>(
    mc: &Mutator<'gc>,
    tree: &Tree<'gc>,
    place: [u32; 2],
    k: usize,
    mut visit: impl FnMut(usize, u64, Gc<'gc, Point>),
) {
    let mut queue = Queue { items: items(mc, ROOM), len: 0 };
    let mut hits = Hits { items: items(mc, k), len: 0 };
    queue.push(mc, 0, tree.root());
    while let Some((distance, node)) = queue.pop(mc) {
        if distance > hits.reach() {
            break;
        }
        for index in 0..node.len() {
            let distance = node.rect(index).distance(place);
            if distance > hits.reach() {
                continue;
            }
            if let Some(child) = node.node(index) {
                queue.push(mc, distance, child);
            } else if let Some(point) = node.point(index) {
                hits.add(mc, distance, point);
            }
        }
    }
    for (index, item) in hits.items[..hits.len].iter().enumerate() {
        if let Some(point) = item.what.get() {
            visit(index, item.distance(), point);
        }
    }
}

type Items<'gc, T> = Gc<'gc, [Item<'gc, T>]>;

fn items<'gc, T: Trace + Send + Sync + 'gc>(mc: &Mutator<'gc>, room: usize) -> Items<'gc, T> {
    mc.alloc_slice((0..room).map(|_| Item::empty()))
}

/// A heap in an array: no item is nearer than the one at half its index.
struct Queue<'gc> {
    items: Items<'gc, Node<'gc>>,
    len: usize,
}

impl<'gc> Queue<'gc> {
    fn push(&mut self, mc: &Mutator<'gc>, distance: u64, node: Gc<'gc, Node<'gc>>) {
        if self.len == self.items.len() {
            self.grow(mc);
        }
        let mut place = self.len;
        self.len += 1;
        while place > 0 {
            let above = &self.items[(place - 1) / 2];
            if above.distance() <= distance {
                break;
            }
            self.items[place].set(mc, above.distance(), above.what.get());
            place = (place - 1) / 2;
        }
        self.items[place].set(mc, distance, Some(node));
    }

    fn pop(&mut self, mc: &Mutator<'gc>) -> Option<(u64, Gc<'gc, Node<'gc>>)> {
        self.len = self.len.checked_sub(1)?;
        let first = &self.items[0];
        let result = (first.distance(), first.what.get()?);
        // The last one looks for its place from the top.
        let last = &self.items[self.len];
        let (distance, node) = (last.distance(), last.what.get());
        last.what.set(mc, None);
        let mut place = 0;
        loop {
            let mut below = 2 * place + 1;
            if below >= self.len {
                break;
            }
            let right = below + 1;
            if right < self.len && self.items[right].distance() < self.items[below].distance() {
                below = right;
            }
            let nearer = &self.items[below];
            if nearer.distance() >= distance {
                break;
            }
            self.items[place].set(mc, nearer.distance(), nearer.what.get());
            place = below;
        }
        if self.len > 0 {
            self.items[place].set(mc, distance, node);
        }
        Some(result)
    }

    fn grow(&mut self, mc: &Mutator<'gc>) {
        let larger = items(mc, 2 * self.items.len());
        for (new, old) in larger.iter().zip(self.items.iter()) {
            new.set(mc, old.distance(), old.what.get());
        }
        self.items = larger;
    }
}

/// The nearest points so far, in the order of distances and ids.
struct Hits<'gc> {
    items: Items<'gc, Point>,
    len: usize,
}

impl<'gc> Hits<'gc> {
    /// What is farther away is no hit.
    fn reach(&self) -> u64 {
        match self.len == self.items.len() {
            true => self.items[self.len - 1].distance(),
            false => u64::MAX,
        }
    }

    /// Puts a point in its place. The last one is out if there are too many, and so is a point that would come behind
    /// it.
    fn add(&mut self, mc: &Mutator<'gc>, distance: u64, point: Gc<'gc, Point>) {
        let behind = |item: &Item<'gc, Point>| {
            let other = item.distance();
            other > distance
                || other == distance && item.what.get().is_some_and(|other| other.id > point.id)
        };
        let mut place = self.len;
        if self.len == self.items.len() {
            place -= 1;
            if !behind(&self.items[place]) {
                return;
            }
        } else {
            self.len += 1;
        }
        while place > 0 && behind(&self.items[place - 1]) {
            let before = &self.items[place - 1];
            self.items[place].set(mc, before.distance(), before.what.get());
            place -= 1;
        }
        self.items[place].set(mc, distance, Some(point));
    }
}
