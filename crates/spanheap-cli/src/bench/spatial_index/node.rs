//! Points and nodes, as they lie in the heap.
//!
//! ```text
//! Node   level, len, 32 rectangles, 32 pointers      784 bytes
//!        level 0: to points        above: to nodes of the level below
//! Point  id, version, place, a tag                   32 bytes, never changes
//! ```
//! A rectangle lies beside the pointer, not in what it points to, so a search reads the nodes on its way and no others.
//! Numbers in nodes are atomics and pointers are cells, as in every object that changes. One thread has a tree, so
//! relaxed order is enough: on the machine these are plain loads and stores.

use std::sync::atomic::{AtomicU32, Ordering};

use spanheap::{Gc, GcCell, Mutator, Trace};

use super::rect::{Rect, RectCell};

/// Entries of a full node.
pub(super) const MAX: usize = 32;
/// Entries that a node has at least, unless it is the root.
pub(super) const MIN: usize = 12;

/// A point.
#[derive(Trace)]
pub(super) struct Point {
    pub(super) id: u64,
    /// How often it has moved.
    pub(super) version: u64,
    pub(super) x: u32,
    pub(super) y: u32,
    tag: u64,
}

impl Point {
    pub(super) fn new(id: u64, version: u64, x: u32, y: u32) -> Point {
        Point { id, version, x, y, tag: id ^ version }
    }

    pub(super) fn rect(&self) -> Rect {
        Rect::at(self.x, self.y)
    }

    /// Whether it is as it was made.
    pub(super) fn is_intact(&self) -> bool {
        self.tag == self.id ^ self.version
    }
}

/// What an entry of a node points to.
#[derive(Clone, Copy)]
pub(super) enum Entry<'gc> {
    Point(Gc<'gc, Point>),
    Node(Gc<'gc, Node<'gc>>),
}

type Cells<'gc, T> = [GcCell<'gc, Option<Gc<'gc, T>>>; MAX];

#[derive(Trace)]
enum Below<'gc> {
    Points(Cells<'gc, Point>),
    Nodes(Cells<'gc, Node<'gc>>),
}

/// A node of a tree.
#[derive(Trace)]
pub(super) struct Node<'gc> {
    pub(super) level: u32,
    len: AtomicU32,
    rects: [RectCell; MAX],
    below: Below<'gc>,
}

const _: () = assert!(size_of::<Node<'_>>() == 784 && size_of::<Point>() == 32);

impl<'gc> Node<'gc> {
    /// An empty node.
    pub(super) fn new(mc: &Mutator<'gc>, level: u32) -> Gc<'gc, Node<'gc>> {
        fn empty<'gc, T>() -> Cells<'gc, T> {
            std::array::from_fn(|_| GcCell::new(None))
        }
        mc.alloc(Node {
            level,
            len: AtomicU32::new(0),
            rects: std::array::from_fn(|_| RectCell::default()),
            below: if level == 0 { Below::Points(empty()) } else { Below::Nodes(empty()) },
        })
    }

    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed) as usize
    }

    pub(super) fn rect(&self, index: usize) -> Rect {
        self.rects[index].get()
    }

    pub(super) fn set_rect(&self, index: usize, rect: Rect) {
        self.rects[index].set(rect);
    }

    /// The point at an index of a leaf; none in other nodes, and none behind the entries.
    pub(super) fn point(&self, index: usize) -> Option<Gc<'gc, Point>> {
        match &self.below {
            Below::Points(points) => points[index].get(),
            Below::Nodes(_) => None,
        }
    }

    /// The node at an index of a node that is no leaf.
    pub(super) fn node(&self, index: usize) -> Option<Gc<'gc, Node<'gc>>> {
        match &self.below {
            Below::Nodes(nodes) => nodes[index].get(),
            Below::Points(_) => None,
        }
    }

    /// What an entry points to; none behind the entries.
    pub(super) fn entry(&self, index: usize) -> Option<Entry<'gc>> {
        match &self.below {
            Below::Points(points) => points[index].get().map(Entry::Point),
            Below::Nodes(nodes) => nodes[index].get().map(Entry::Node),
        }
    }

    /// The smallest rectangle with all entries in it.
    pub(super) fn bounds(&self) -> Rect {
        (1..self.len()).fold(self.rect(0), |bounds, index| bounds.union(self.rect(index)))
    }

    /// Adds an entry behind the others, of which there are fewer than [`MAX`].
    pub(super) fn push(&self, mc: &Mutator<'gc>, rect: Rect, entry: Entry<'gc>) {
        let len = self.len();
        self.put(mc, len, rect, entry);
        self.set_len(len + 1);
    }

    /// Overwrites an entry.
    pub(super) fn put(&self, mc: &Mutator<'gc>, index: usize, rect: Rect, entry: Entry<'gc>) {
        self.set_rect(index, rect);
        match (&self.below, entry) {
            (Below::Points(points), Entry::Point(point)) => points[index].set(mc, Some(point)),
            (Below::Nodes(nodes), Entry::Node(node)) => nodes[index].set(mc, Some(node)),
            _ => panic!("an entry of level {} is for another level", self.level),
        }
    }

    /// Takes an entry out; the last one takes its place.
    pub(super) fn take_out(&self, mc: &Mutator<'gc>, index: usize) {
        let last = self.len() - 1;
        if let (true, Some(entry)) = (index < last, self.entry(last)) {
            self.put(mc, index, self.rect(last), entry);
        }
        self.truncate(mc, last);
    }

    /// Leaves the first `len` entries.
    pub(super) fn truncate(&self, mc: &Mutator<'gc>, len: usize) {
        for index in len..self.len() {
            match &self.below {
                Below::Points(points) => points[index].set(mc, None),
                Below::Nodes(nodes) => nodes[index].set(mc, None),
            }
        }
        self.set_len(len);
    }

    fn set_len(&self, len: usize) {
        self.len.store(len as u32, Ordering::Relaxed);
    }
}
