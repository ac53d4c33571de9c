//! [`Tree`]: an R-tree, after Guttman.
//!
//! A new entry goes to the child whose rectangle grows least. A node that is too full is divided along its longer side
//! in the middle of its entries, which for points is quick and leaves little overlap. A node that becomes too empty is
//! taken out and its entries are inserted again.
//!
//! What is looked for when a point is removed is the very object, in every leaf that may have it.

use spanheap::{Gc, GcCell, Mutator, Trace};

use super::node::{Entry, MAX, MIN, Node, Point};
use super::rect::Rect;

type NodeGc<'gc> = Gc<'gc, Node<'gc>>;

/// The root.
#[derive(Trace)]
pub(super) struct Tree<'gc> {
    root: GcCell<'gc, NodeGc<'gc>>,
}

/// What there is in one tree or in several.
#[derive(Default, Debug)]
pub(super) struct Census {
    pub(super) points: u64,
    pub(super) nodes: u64,
    pub(super) levels: u64,
    /// A checksum of all points.
    pub(super) sum: u64,
}

impl Census {
    pub(super) fn add(&mut self, other: &Census) {
        self.points += other.points;
        self.nodes += other.nodes;
        self.levels = self.levels.max(other.levels);
        self.sum = self.sum.wrapping_add(other.sum);
    }

    fn count(&mut self, point: &Point) {
        let place = u64::from(point.x) + u64::from(point.y);
        let weight = (point.id + 1).wrapping_mul(point.version + 1);
        self.points += 1;
        self.sum = self.sum.wrapping_add(weight).wrapping_add(place);
    }
}

impl<'gc> Tree<'gc> {
    /// A tree without points.
    pub(super) fn new(mc: &Mutator<'gc>) -> Tree<'gc> {
        Tree { root: GcCell::new(Node::new(mc, 0)) }
    }

    pub(super) fn root(&self) -> NodeGc<'gc> {
        self.root.get()
    }

    /// Adds a point.
    pub(super) fn insert(&self, mc: &Mutator<'gc>, rect: Rect, entry: Entry<'gc>) {
        self.insert_at(mc, rect, entry, 0);
    }

    /// Adds an entry to a node of a level.
    fn insert_at(&self, mc: &Mutator<'gc>, rect: Rect, entry: Entry<'gc>, level: u32) {
        let root = self.root();
        let Some(other) = add(mc, root, rect, entry, level) else { return };
        let top = Node::new(mc, root.level + 1);
        top.push(mc, root.bounds(), Entry::Node(root));
        top.push(mc, other.bounds(), Entry::Node(other));
        self.root.set(mc, top);
    }

    /// Takes a point out. Says whether it was there.
    pub(super) fn remove(&self, mc: &Mutator<'gc>, point: Gc<'gc, Point>) -> bool {
        // Nodes that were taken out, the lowest first. One for each level at most: this allocates seldom.
        let mut emptied = Vec::new();
        let found = take_out(mc, self.root(), point, &mut emptied);
        for node in emptied {
            for index in 0..node.len() {
                if let Some(entry) = node.entry(index) {
                    self.insert_at(mc, node.rect(index), entry, node.level);
                }
            }
        }
        while let (1, Some(only)) = (self.root().len(), self.root().node(0)) {
            self.root.set(mc, only);
        }
        found
    }

    /// Checks everything, and calls `known` with each point. What is wrong is an error.
    pub(super) fn check(
        &self,
        mut known: impl FnMut(Gc<'gc, Point>) -> bool,
    ) -> Result<Census, String> {
        let root = self.root();
        let mut census = Census { levels: u64::from(root.level) + 1, ..Census::default() };
        if root.level > 0 && root.len() < 2 {
            return Err(format!("a root of level {} has {} entries", root.level, root.len()));
        }
        let mut stack = vec![root];
        while let Some(node) = stack.pop() {
            census.nodes += 1;
            if !Gc::ptr_eq(node, root) && node.len() < MIN {
                return Err(format!("a node of level {} has {} entries", node.level, node.len()));
            }
            for index in 0..MAX {
                let (inside, rect) = (index < node.len(), node.rect(index));
                let fits = match node.entry(index) {
                    None => !inside,
                    Some(Entry::Point(point)) => {
                        census.count(&point);
                        inside && point.is_intact() && rect == point.rect() && known(point)
                    }
                    Some(Entry::Node(child)) => {
                        stack.push(child);
                        inside && rect == child.bounds() && child.level + 1 == node.level
                    }
                };
                if !fits {
                    return Err(format!("entry {index} of a node of level {}", node.level));
                }
            }
        }
        Ok(census)
    }
}

/// Adds an entry below a node. Returns a new node for its parent, if it had to be divided.
fn add<'gc>(
    mc: &Mutator<'gc>,
    node: NodeGc<'gc>,
    rect: Rect,
    entry: Entry<'gc>,
    level: u32,
) -> Option<NodeGc<'gc>> {
    if node.level == level {
        return push_or_split(mc, node, rect, entry);
    }
    let index = choose(&node, rect);
    let child = node.node(index)?;
    match add(mc, child, rect, entry, level) {
        None => {
            node.set_rect(index, node.rect(index).union(rect));
            None
        }
        Some(other) => {
            node.set_rect(index, child.bounds());
            push_or_split(mc, node, other.bounds(), Entry::Node(other))
        }
    }
}

/// The child whose rectangle grows least; of several, the smallest one.
fn choose(node: &Node<'_>, rect: Rect) -> usize {
    let (mut best, mut best_cost) = (0, (u64::MAX, u64::MAX));
    for index in 0..node.len() {
        let own = node.rect(index);
        let area = own.area();
        let cost = (own.union(rect).area() - area, area);
        if cost < best_cost {
            (best, best_cost) = (index, cost);
        }
    }
    best
}

fn push_or_split<'gc>(
    mc: &Mutator<'gc>,
    node: NodeGc<'gc>,
    rect: Rect,
    entry: Entry<'gc>,
) -> Option<NodeGc<'gc>> {
    if node.len() < MAX {
        node.push(mc, rect, entry);
        return None;
    }
    let bounds = node.bounds().union(rect);
    let axis = usize::from(bounds.side(0) < bounds.side(1));
    let at = |index: usize| match index {
        MAX => (rect, entry),
        _ => (node.rect(index), node.entry(index).expect("a full node has all entries")),
    };
    let entries: [(Rect, Entry<'gc>); MAX + 1] = std::array::from_fn(at);
    let mut order: [(u64, usize); MAX + 1] =
        std::array::from_fn(|index| (entries[index].0.middle(axis), index));
    order.sort_unstable();
    let (stay, go) = order.split_at(MAX / 2 + 1);
    for (place, &(_, index)) in stay.iter().enumerate() {
        node.put(mc, place, entries[index].0, entries[index].1);
    }
    node.truncate(mc, stay.len());
    let other = Node::new(mc, node.level);
    for &(_, index) in go {
        other.push(mc, entries[index].0, entries[index].1);
    }
    Some(other)
}

/// Takes a point out below a node. Says whether it was there. Nodes that it leaves too empty are out of the tree, and
/// in `emptied`.
fn take_out<'gc>(
    mc: &Mutator<'gc>,
    node: NodeGc<'gc>,
    point: Gc<'gc, Point>,
    emptied: &mut Vec<NodeGc<'gc>>,
) -> bool {
    for index in 0..node.len() {
        if !node.rect(index).contains(point.x, point.y) {
            continue;
        }
        match node.entry(index) {
            Some(Entry::Point(found)) if Gc::ptr_eq(found, point) => {
                node.take_out(mc, index);
                return true;
            }
            Some(Entry::Node(child)) if take_out(mc, child, point, emptied) => {
                if child.len() < MIN {
                    emptied.push(child);
                    node.take_out(mc, index);
                } else {
                    node.set_rect(index, child.bounds());
                }
                return true;
            }
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use spanheap::{Gc, Heap};

    use super::{Entry, Point, Tree};
    use crate::random::Random;

    #[test]
    fn it_stays_in_order_while_points_come_and_go() {
        let heap = Heap::builder().gc_percent_off().build().expect("a heap");
        heap.enter(|mc| {
            let (tree, mut random) = (Tree::new(mc), Random::new(5));
            let mut points: Vec<Gc<'_, Point>> = Vec::new();
            let mut most = 0;
            for step in 0..6000_u64 {
                // Up to some two thousand points, and down to none; many at the same place.
                let grows = random.below(6000) as u64 > step;
                if grows || points.is_empty() {
                    let mut side = || random.below(50) as u32;
                    let point = mc.alloc(Point::new(step, 0, side(), side()));
                    tree.insert(mc, point.rect(), Entry::Point(point));
                    points.push(point);
                } else {
                    let point = points.swap_remove(random.below(points.len()));
                    assert!(tree.remove(mc, point), "step {step}");
                    assert!(!tree.remove(mc, point), "step {step}: it is gone");
                }
                if step % 50 == 0 {
                    let known = |point| points.iter().any(|&other| Gc::ptr_eq(other, point));
                    let census = tree.check(known).expect("in order");
                    assert_eq!(census.points, points.len() as u64, "step {step}");
                    most = census.levels.max(most);
                }
            }
            assert_eq!(most, 3, "a thousand points and more have three levels");
            for point in points {
                assert!(tree.remove(mc, point));
            }
            let census = tree.check(|_| false).expect("in order");
            assert_eq!((census.points, census.nodes, census.levels), (0, 1, 1));
        });
    }
}
