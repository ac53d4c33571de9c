//! `spatial-index` for owned memory: a node owns the nodes below it, the table owns the points.
//!
//! A leaf of boxes has plain pointers to the points of the table; one of counted pointers shares them. A query
//! borrows the tree, so its queue and its hits hold references, which cost nothing in any of the three; both are
//! allocated for each query.
//!
//! # Safety
//! 1. A [`Links::Link`] that is in the tree is to a point in the table: a point is put in the tree after it is put in
//!    the table, and taken out of the tree before its place in the table gets another. Points are never changed.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;

use super::{AtomicallyCounted, Boxes, Counted, Pointer};
use crate::bench::spatial_index::{self, Census, Index, MAX, MIN, Point, Rect, STAY, choose};
use crate::bench::{Outcome, Result};
use crate::options::Params;

/// How a leaf points to what the table owns.
pub trait Links: Pointer {
    type Link<T>;

    fn link<T>(owner: &Self::To<T>) -> Self::Link<T>;
    fn same<T>(one: &Self::Link<T>, owner: &Self::To<T>) -> bool;

    /// # Safety
    /// The owner must be alive for as long as the reference.
    unsafe fn look<T>(link: &Self::Link<T>) -> &T;
}

impl Links for Boxes {
    type Link<T> = NonNull<T>;

    fn link<T>(owner: &Box<T>) -> NonNull<T> {
        NonNull::from(&**owner)
    }

    fn same<T>(one: &NonNull<T>, owner: &Box<T>) -> bool {
        std::ptr::eq(one.as_ptr(), &**owner)
    }

    unsafe fn look<T>(link: &NonNull<T>) -> &T {
        // SAFETY: the caller says that the owner lives, and points are not changed.
        unsafe { link.as_ref() }
    }
}

macro_rules! counted {
    ($name:ident, $pointer:ident) => {
        impl Links for $name {
            type Link<T> = $pointer<T>;

            fn link<T>(owner: &$pointer<T>) -> $pointer<T> {
                $pointer::clone(owner)
            }

            fn same<T>(one: &$pointer<T>, owner: &$pointer<T>) -> bool {
                $pointer::ptr_eq(one, owner)
            }

            unsafe fn look<T>(link: &$pointer<T>) -> &T {
                link
            }
        }
    };
}

counted!(Counted, Rc);
counted!(AtomicallyCounted, Arc);

type Leaf<P> = <P as Links>::Link<Point>;
type Child<P> = <P as Pointer>::To<Node<P>>;

struct Node<P: Links> {
    level: u32,
    len: u32,
    rects: [Rect; MAX],
    below: Below<P>,
}

/// The entries; those behind the last are empty.
enum Below<P: Links> {
    Points([Option<Leaf<P>>; MAX]),
    Nodes([Option<Child<P>>; MAX]),
}

enum Entry<P: Links> {
    Point(Leaf<P>),
    Node(Child<P>),
}

/// What a split has taken off a node.
type Split<P> = Option<(Rect, Child<P>)>;

impl<P: Links> Node<P> {
    fn new(level: u32) -> Child<P> {
        let below = match level {
            0 => Below::Points([const { None }; MAX]),
            _ => Below::Nodes([const { None }; MAX]),
        };
        P::new(Node { level, len: 0, rects: [Rect::default(); MAX], below })
    }

    fn rects(&self) -> &[Rect] {
        &self.rects[..self.len as usize]
    }

    fn bounds(&self) -> Rect {
        Rect::around(self.rects().iter().copied())
    }

    fn children(&self) -> impl Iterator<Item = &Node<P>> {
        let nodes = match &self.below {
            Below::Nodes(nodes) => &nodes[..self.len as usize],
            Below::Points(_) => &[],
        };
        nodes.iter().flatten().map(|child| &**child)
    }

    /// The points of a leaf.
    fn points(&self) -> impl Iterator<Item = &Point> {
        let points = match &self.below {
            Below::Points(points) => &points[..self.len as usize],
            Below::Nodes(_) => &[],
        };
        // SAFETY: a link in the tree (1); the reference lives no longer than the tree is borrowed.
        points.iter().flatten().map(|link| unsafe { P::look(link) })
    }

    fn child(&mut self, index: usize) -> &mut Node<P> {
        match &mut self.below {
            Below::Nodes(nodes) => P::exclusive(nodes[index].as_mut().expect("an entry")),
            Below::Points(_) => unreachable!("a leaf has no nodes below"),
        }
    }

    fn set(&mut self, index: usize, rect: Rect, entry: Entry<P>) {
        self.rects[index] = rect;
        match (&mut self.below, entry) {
            (Below::Points(points), Entry::Point(point)) => points[index] = Some(point),
            (Below::Nodes(nodes), Entry::Node(node)) => nodes[index] = Some(node),
            _ => unreachable!("points are in leaves, and nodes in the others"),
        }
    }

    fn append(&mut self, rect: Rect, entry: Entry<P>) {
        self.set(self.len as usize, rect, entry);
        self.len += 1;
    }

    /// Takes an entry's pointer, which is not replaced.
    fn take(&mut self, index: usize) -> Entry<P> {
        match &mut self.below {
            Below::Points(points) => Entry::Point(points[index].take().expect("an entry")),
            Below::Nodes(nodes) => Entry::Node(nodes[index].take().expect("an entry")),
        }
    }

    /// Takes an entry out; the last one takes its place.
    fn remove(&mut self, index: usize) -> Entry<P> {
        let entry = self.take(index);
        self.len -= 1;
        let last = self.len as usize;
        if index < last {
            let moved = self.take(last);
            self.set(index, self.rects[last], moved);
        }
        entry
    }

    /// Appends an entry, or splits the node if it is full.
    fn add(&mut self, rect: Rect, entry: Entry<P>) -> Split<P> {
        if (self.len as usize) < MAX {
            self.append(rect, entry);
            return None;
        }
        let mut last = Some((rect, entry));
        let mut entries: [(Rect, Entry<P>); MAX + 1] = std::array::from_fn(|index| match index {
            MAX => last.take().expect("it is taken once"),
            _ => (self.rects[index], self.take(index)),
        });
        let all = Rect::around(entries.iter().map(|&(rect, _)| rect));
        entries.sort_by_key(|&(rect, _)| rect.centre(all));
        self.len = 0;
        let mut node = Node::<P>::new(self.level);
        let new = P::exclusive(&mut node);
        for (index, (rect, entry)) in entries.into_iter().enumerate() {
            if index < STAY { self.append(rect, entry) } else { new.append(rect, entry) }
        }
        Some((new.bounds(), node))
    }

    fn insert(&mut self, rect: Rect, entry: Entry<P>, level: u32) -> Split<P> {
        if self.level == level {
            return self.add(rect, entry);
        }
        let index = choose(self.rects(), rect);
        let child = self.child(index);
        match child.insert(rect, entry, level) {
            None => {
                self.rects[index] = self.rects[index].union(rect);
                None
            }
            Some((new, node)) => {
                self.rects[index] = child.bounds();
                self.add(new, Entry::Node(node))
            }
        }
    }

    /// Takes a point out of the nodes below. Those that become too small are put aside.
    fn remove_point(&mut self, point: &P::To<Point>, aside: &mut Vec<Child<P>>) -> bool {
        if let Below::Points(points) = &self.below {
            let is_it =
                |entry: &Option<Leaf<P>>| entry.as_ref().is_some_and(|link| P::same(link, point));
            let found = points[..self.len as usize].iter().position(is_it);
            found.map(|index| self.remove(index));
            return found.is_some();
        }
        for index in 0..self.len as usize {
            if !self.rects[index].contains(point.x, point.y) {
                continue;
            }
            let child = self.child(index);
            if !child.remove_point(point, aside) {
                continue;
            }
            if (child.len as usize) < MIN {
                if let Entry::Node(node) = self.remove(index) {
                    aside.push(node);
                }
            } else {
                self.rects[index] = child.bounds();
            }
            return true;
        }
        false
    }

    fn census(&self) -> Census {
        let points = self.points().fold(0, |sum: u64, point| sum.wrapping_add(point.last()));
        let own = Census { sum: points, nodes: 1, levels: u64::from(self.level) + 1 };
        self.children().map(Node::census).fold(own, |all, part| Census {
            sum: all.sum.wrapping_add(part.sum),
            nodes: all.nodes + part.nodes,
            ..all
        })
    }
}

struct Tree<P: Links> {
    root: Child<P>,
    table: Vec<P::To<Point>>,
}

pub fn spatial_index<P: Links>(params: &Params) -> Result<Outcome> {
    spatial_index::run::<Tree<P>>(params)
}

impl<P: Links> Tree<P> {
    /// Puts an entry in a node of this level, and a new root above the old one if that was split.
    fn insert(&mut self, rect: Rect, entry: Entry<P>, level: u32) {
        let root = P::exclusive(&mut self.root);
        if let Some((new, node)) = root.insert(rect, entry, level) {
            let (bounds, above) = (root.bounds(), root.level + 1);
            let old = std::mem::replace(&mut self.root, Node::<P>::new(above));
            let root = P::exclusive(&mut self.root);
            root.append(bounds, Entry::Node(old));
            root.append(new, Entry::Node(node));
        }
    }

    fn insert_point(&mut self, id: usize) {
        let point = &self.table[id];
        let (rect, link) = (Rect::at(point.x, point.y), P::link(point));
        self.insert(rect, Entry::Point(link), 0);
    }

    fn remove_point(&mut self, id: usize) {
        let mut aside = Vec::new();
        let found = P::exclusive(&mut self.root).remove_point(&self.table[id], &mut aside);
        assert!(found, "the point {id} is not in the tree");
        for mut node in aside {
            let node = P::exclusive(&mut node);
            for index in 0..node.len as usize {
                let (rect, level) = (node.rects[index], node.level);
                self.insert(rect, node.take(index), level);
            }
        }
        let mut root = P::exclusive(&mut self.root);
        while root.level > 0 && root.len <= 1 {
            self.root = match root.len {
                0 => Node::<P>::new(0),
                _ => match root.take(0) {
                    Entry::Node(node) => node,
                    Entry::Point(_) => unreachable!("a root above the leaves has nodes"),
                },
            };
            root = P::exclusive(&mut self.root);
        }
    }
}

/// A node that is to be looked at; the nearest comes first.
struct Item<'a, P: Links> {
    distance: u64,
    node: &'a Node<P>,
}

impl<P: Links> Ord for Item<'_, P> {
    fn cmp(&self, other: &Self) -> Ordering {
        other.distance.cmp(&self.distance)
    }
}

impl<P: Links> PartialOrd for Item<'_, P> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<P: Links> PartialEq for Item<'_, P> {
    fn eq(&self, other: &Self) -> bool {
        self.distance == other.distance
    }
}

impl<P: Links> Eq for Item<'_, P> {}

/// The nearest points so far, in order.
struct Hits<'a> {
    hits: Vec<(u64, &'a Point)>,
    k: usize,
}

impl<'a> Hits<'a> {
    /// Whether something so far away can be among them.
    fn may_have(&self, distance: u64) -> bool {
        self.hits.len() < self.k || self.hits.last().is_none_or(|&(last, _)| distance <= last)
    }

    /// Puts a point in its place, if it has one.
    fn add(&mut self, distance: u64, point: &'a Point) {
        let comes_before = |&(other, hit): &(u64, &Point)| {
            distance < other || (distance == other && point.id < hit.id)
        };
        if self.hits.len() == self.k {
            if !self.hits.last().is_some_and(comes_before) {
                return;
            }
            self.hits.pop();
        }
        let mut place = self.hits.len();
        while place > 0 && comes_before(&self.hits[place - 1]) {
            place -= 1;
        }
        self.hits.insert(place, (distance, point));
    }
}

impl<P: Links> Index for Tree<P> {
    fn new(points: usize) -> Tree<P> {
        Tree { root: Node::<P>::new(0), table: Vec::with_capacity(points) }
    }

    fn add(&mut self, x: u32, y: u32) {
        let id = self.table.len();
        self.table.push(P::new(Point::new(id as u64, 0, x, y)));
        self.insert_point(id);
    }

    fn shift(&mut self, id: usize, dx: u32, dy: u32) {
        self.remove_point(id);
        self.table[id] = P::new(self.table[id].moved(dx, dy));
        self.insert_point(id);
    }

    fn query(&self, x: u32, y: u32, k: usize) -> u64 {
        let mut queue = BinaryHeap::with_capacity(MAX);
        let mut hits = Hits { hits: Vec::with_capacity(k), k };
        queue.push(Item { distance: 0, node: &*self.root });
        while let Some(Item { distance, node }) = queue.pop() {
            if !hits.may_have(distance) {
                break;
            }
            let distances = node.rects().iter().map(|rect| rect.distance(x, y));
            if node.level == 0 {
                for (distance, point) in distances.zip(node.points()) {
                    // Points that are too far away are not looked at.
                    if hits.may_have(distance) {
                        hits.add(distance, point);
                    }
                }
            } else {
                let items = distances.zip(node.children());
                let near = items.filter(|&(distance, _)| hits.may_have(distance));
                queue.extend(near.map(|(distance, node)| Item { distance, node }));
            }
        }
        let hits = hits.hits.iter().enumerate();
        hits.fold(0_u64, |sum, (place, &(distance, point))| {
            sum.wrapping_add(point.hit(place as u64, distance))
        })
    }

    fn finish(self) -> Census {
        let census = self.root.census();
        std::mem::forget(self);
        census
    }
}
