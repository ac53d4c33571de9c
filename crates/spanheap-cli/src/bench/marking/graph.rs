//! [`Graph`]: one of the shapes, and what holds it.
//!
//! Objects are made in the order of their numbers, [`BATCH`] in a closure, and linked through an array of all of
//! them, which is dropped when the graph is complete.

use spanheap::{Gc, GcCell, Heap, Mutator, Root, Rootable, Trace};

use super::BATCH;
use super::random::{self, Held};
use crate::bench::share;

/// How many lists there are in shape 3.
const LISTS: usize = 1024;
/// How many arrays there are in shape 4.
const ARRAYS: usize = 32;

pub(super) type Link<'gc, T> = GcCell<'gc, Option<Gc<'gc, T>>>;

/// An object of trees and lists.
#[derive(Trace)]
pub(super) struct Node<'gc> {
    edges: [Link<'gc, Node<'gc>>; 4],
    /// The number, and nothing.
    words: [u64; 4],
}

/// An object of shape 4: its number, and nothing.
type Leaf = [u64; 4];
/// An object of shape 5.
type Block = [u64; 128];

const _: () = assert!(size_of::<Node<'_>>() == 64 && size_of::<Leaf>() == 32);

type Nodes = Root<Rootable![[Link<'_, Node<'_>>]]>;
type Leaves = Rootable![[Gc<'_, Leaf>]];
type Arrays = Rootable![[Gc<'_, [Gc<'_, Leaf>]>]];
type Blocks = Rootable![[Link<'_, Block>]];

/// A graph, held as the shape wants it.
pub(super) enum Graph {
    /// A tree or a list.
    One(Root<Rootable![Node<'_>]>),
    Random(Held),
    Lists(Nodes),
    Arrays(Root<Arrays>),
    Blocks(Root<Blocks>),
}

/// What can be reached in a graph.
#[derive(Default)]
pub(super) struct Reached {
    /// Objects with numbers.
    pub(super) objects: u64,
    pub(super) bytes: u64,
    /// The numbers of all of them, each plus one.
    pub(super) sum: u64,
    /// Objects without numbers.
    pub(super) arrays: u64,
}

impl Reached {
    /// Counts an object.
    pub(super) fn add(&mut self, number: u64, bytes: usize) {
        self.objects += 1;
        self.bytes += bytes as u64;
        self.sum = self.sum.wrapping_add(number).wrapping_add(1);
    }
}

/// How many bytes there are for each object of a shape at most, the array that is needed to build it included.
pub(super) fn weight(shape: u64) -> u64 {
    let object = match shape {
        1 => 68,
        4 => size_of::<Leaf>(),
        5 => size_of::<Block>(),
        _ => size_of::<Node<'_>>(),
    };
    (object + size_of::<usize>()) as u64
}

impl Graph {
    /// Builds a graph of the shape with this number.
    pub(super) fn build(heap: &Heap, shape: u64, objects: usize) -> Graph {
        match shape {
            1 => Graph::Random(random::build(heap, objects)),
            4 => arrays(heap, objects),
            5 => blocks(heap, objects),
            _ => {
                let nodes = nodes(heap, objects);
                link_all(heap, &nodes, shape);
                let first = |mc: &Mutator<'_>| nodes.get(mc)[0].get().map(|node| mc.root(node));
                match (shape, heap.enter(first)) {
                    (0 | 2, Some(first)) => Graph::One(first),
                    _ => Graph::Lists(ends(heap, &nodes)),
                }
            }
        }
    }

    /// Walks along all pointers. No object of the shapes but the random one has two pointers to it.
    pub(super) fn walk(&self, heap: &Heap, objects: usize) -> Reached {
        let mut reached = Reached::default();
        heap.enter(|mc| match self {
            Graph::One(root) => follow(vec![root.get(mc)], &mut reached),
            Graph::Lists(ends) => {
                reached.arrays = 1;
                follow(ends.get(mc).iter().filter_map(GcCell::get).collect(), &mut reached);
            }
            Graph::Random(held) => held.walk(mc, objects, &mut reached),
            Graph::Arrays(arrays) => {
                let arrays = arrays.get(mc);
                reached.arrays = 1 + arrays.len() as u64;
                let leaves = arrays.iter().flat_map(|array| array.iter());
                leaves.for_each(|leaf| reached.add(leaf[0], size_of::<Leaf>()));
            }
            Graph::Blocks(blocks) => {
                reached.arrays = 1;
                let blocks = blocks.get(mc).as_ref().iter().filter_map(GcCell::get);
                blocks.for_each(|block| reached.add(block[0], size_of::<Block>()));
            }
        });
        reached
    }
}

/// Counts what can be reached from `stack`, if there is one way only to each object.
fn follow<'gc>(mut stack: Vec<Gc<'gc, Node<'gc>>>, reached: &mut Reached) {
    while let Some(node) = stack.pop() {
        reached.add(node.words[0], size_of::<Node<'_>>());
        stack.extend(node.edges.iter().filter_map(GcCell::get));
    }
}

/// Makes the objects, and an array of them.
fn nodes(heap: &Heap, objects: usize) -> Nodes {
    let nodes: Nodes =
        heap.enter(|mc| mc.root(mc.alloc_slice((0..objects).map(|_| Link::new(None)))));
    for first in (0..objects).step_by(BATCH) {
        heap.enter(|mc| {
            let nodes = nodes.get(mc);
            for number in first..objects.min(first + BATCH) {
                let edges = std::array::from_fn(|_| Link::new(None));
                let node = Node { edges, words: [number as u64, 0, 0, 0] };
                nodes[number].set(mc, Some(mc.alloc(node)));
            }
        });
    }
    nodes
}

/// Links the objects as the shape wants it.
fn link_all(heap: &Heap, nodes: &Nodes, shape: u64) {
    let objects = heap.enter(|mc| nodes.get(mc).len());
    for first in (0..objects).step_by(BATCH) {
        heap.enter(|mc| {
            let nodes = nodes.get(mc);
            for number in first..objects.min(first + BATCH) {
                let targets = match shape {
                    0 => [3 * number + 1, 3 * number + 2, 3 * number + 3],
                    2 => [number + 1, objects, objects],
                    _ => [number + LISTS, objects, objects],
                };
                link(mc, &nodes, number, targets);
            }
        });
    }
}

/// Lets an object point to others; a number that no object has stands for nothing.
fn link<'gc>(
    mc: &Mutator<'gc>,
    nodes: &[Link<'gc, Node<'gc>>],
    number: usize,
    targets: [usize; 3],
) {
    let Some(node) = nodes[number].get() else { return };
    for (edge, target) in node.edges.iter().zip(targets) {
        edge.set(mc, nodes.get(target).and_then(GcCell::get));
    }
}

/// An array of the first objects of all lists.
fn ends(heap: &Heap, nodes: &Nodes) -> Nodes {
    heap.enter(|mc| {
        let nodes = nodes.get(mc);
        mc.root(mc.alloc_slice((0..LISTS).map(|number| Link::new(nodes[number].get()))))
    })
}

fn arrays(heap: &Heap, objects: usize) -> Graph {
    let mut number = 0;
    let mut parts: Vec<Root<Leaves>> = Vec::with_capacity(ARRAYS);
    for index in 0..ARRAYS {
        let part = heap.enter(|mc| {
            let numbers = number..number + share(objects as u64, ARRAYS, index);
            number = numbers.end;
            let leaves: Vec<Gc<'_, Leaf>> = numbers.map(|n| mc.alloc([n, 0, 0, 0])).collect();
            mc.root(mc.alloc_slice(leaves))
        });
        parts.push(part);
    }
    Graph::Arrays(heap.enter(|mc| mc.root(mc.alloc_slice(parts.iter().map(|part| part.get(mc))))))
}

fn blocks(heap: &Heap, objects: usize) -> Graph {
    let blocks: Root<Blocks> =
        heap.enter(|mc| mc.root(mc.alloc_slice((0..objects).map(|_| Link::new(None)))));
    for first in (0..objects).step_by(BATCH) {
        heap.enter(|mc| {
            let blocks = blocks.get(mc);
            for number in first..objects.min(first + BATCH) {
                let mut block = [0; 128];
                block[0] = number as u64;
                blocks[number].set(mc, Some(mc.alloc(block)));
            }
        });
    }
    Graph::Blocks(blocks)
}
