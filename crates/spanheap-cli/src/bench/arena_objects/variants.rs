//! Making objects, in each kind of memory, and looking through them.

use std::time::Duration;

use spanheap::{Arena, ArenaGc, ArenaWriter, Gc, Heap, Mutator, Trace};

use super::{Options, Parts};
use crate::failure::Result;
use crate::process;

/// A kind of memory.
pub(super) trait Variant {
    /// Makes so many nodes, looks through them, and ends what they lie in. Returns what they weigh.
    fn nodes(&mut self, objects: u64, parts: &mut Parts) -> u64;

    /// The same for small objects.
    fn small(&mut self, objects: u64, parts: &mut Parts) -> u64;

    /// The heap that it has for itself, if it has one.
    fn heap(&self) -> Option<&Heap> {
        None
    }
}

/// All variants without the peers.
pub(super) fn all(options: &Options) -> Result<Vec<(&'static str, Box<dyn Variant>)>> {
    let heap = || Heap::builder().from_env().gc_percent(options.gc_percent).build();
    Ok(vec![
        ("heap", Box::new(OnHeap { heap: heap()? })),
        ("scoped", Box::new(Scoped { heap: heap()? })),
        ("shared", Box::new(Shared { heap: heap()? })),
    ])
}

/// The nodes before a node, the last one first.
pub(super) type Before<N> = [Option<N>; 4];

/// Calls `make` for so many nodes. Returns the last one.
#[inline(always)]
pub(super) fn graph<N: Copy>(objects: u64, mut make: impl FnMut(Before<N>, u64) -> N) -> Option<N> {
    let mut before = [None; 4];
    for number in 0..objects {
        let node = make(before, number);
        before = [Some(node), before[0], before[1], before[2]];
    }
    before[0]
}

/// Calls `make` for so many small objects. Returns the last one.
#[inline(always)]
pub(super) fn chain<N: Copy>(objects: u64, mut make: impl FnMut(Option<N>, u64) -> N) -> Option<N> {
    (0..objects).fold(None, |before, number| Some(make(before, number)))
}

/// Adds up the numbers of every fourth node, as far as there are four, and then of those that are left.
pub(super) fn weigh<N: Copy>(last: Option<N>, look: impl Fn(N) -> (Before<N>, u64)) -> u64 {
    let (mut weight, mut next) = (0, last);
    while let Some(node) = next {
        let (before, number) = look(node);
        weight += number;
        next = before[3].or(before[0]);
    }
    weight
}

/// What so many nodes weigh.
pub(super) fn nodes_weigh(objects: u64) -> u64 {
    let number = |node: u64| [1, 2, 3, 4].map(|back| node.checked_sub(back));
    weigh(objects.checked_sub(1), |node| (number(node), node))
}

/// Adds up the numbers of all small objects.
pub(super) fn weigh_chain<N: Copy>(last: Option<N>, look: impl Fn(N) -> (Option<N>, u64)) -> u64 {
    let (mut weight, mut next) = (0, last);
    while let Some(object) = next {
        let (before, number) = look(object);
        weight += number;
        next = before;
    }
    weight
}

/// A node with 56 bytes.
#[derive(Trace)]
struct Node<'gc> {
    children: Gc<'gc, [Option<Gc<'gc, Node<'gc>>>]>,
    values: [u64; 5],
}

impl<'gc> Node<'gc> {
    /// Those before it, and its number.
    fn look(node: Gc<'gc, Node<'gc>>) -> (Before<Gc<'gc, Node<'gc>>>, u64) {
        let children = node.children;
        ([children[0], children[1], children[2], children[3]], node.values[4])
    }
}

/// A small object.
#[derive(Trace)]
struct Small<'gc> {
    before: Option<Gc<'gc, Small<'gc>>>,
    number: u64,
}

/// The collected heap, which has no arena to end.
struct OnHeap {
    heap: Heap,
}

fn node<'gc>(
    mc: &Mutator<'gc>,
    before: Before<Gc<'gc, Node<'gc>>>,
    number: u64,
) -> Gc<'gc, Node<'gc>> {
    mc.alloc(Node { children: mc.alloc_slice(before), values: [number; 5] })
}

impl Variant for OnHeap {
    fn nodes(&mut self, objects: u64, parts: &mut Parts) -> u64 {
        self.heap.enter(|mc| {
            let last = graph(objects, |before, number| node(mc, before, number));
            parts.look(|| weigh(last, Node::look))
        })
    }

    fn small(&mut self, objects: u64, parts: &mut Parts) -> u64 {
        self.heap.enter(|mc| {
            let last = chain(objects, |before, number| mc.alloc(Small { before, number }));
            parts.look(|| weigh_chain(last, |small| (small.before, small.number)))
        })
    }

    fn heap(&self) -> Option<&Heap> {
        Some(&self.heap)
    }
}

/// What lies in an arena: a node with 56 bytes.
pub(super) struct PlainNode<'a> {
    pub(super) children: &'a [Option<&'a PlainNode<'a>>],
    pub(super) values: [u64; 5],
}

impl<'a> PlainNode<'a> {
    /// Those before it, and its number.
    pub(super) fn look(&'a self) -> (Before<&'a PlainNode<'a>>, u64) {
        let children = self.children;
        ([children[0], children[1], children[2], children[3]], self.values[4])
    }
}

/// A small object in an arena.
pub(super) struct PlainSmall<'a> {
    pub(super) before: Option<&'a PlainSmall<'a>>,
    pub(super) number: u64,
}

/// A scoped arena for each set.
struct Scoped {
    heap: Heap,
}

#[inline(always)]
fn plain_node<'a>(
    arena: &'a Arena<'_>,
    children: Before<&'a PlainNode<'a>>,
    number: u64,
) -> &'a PlainNode<'a> {
    arena.alloc(PlainNode { children: arena.alloc_slice_copy(&children), values: [number; 5] })
}

#[inline(always)]
fn plain_small<'a>(
    arena: &'a Arena<'_>,
    before: Option<&'a PlainSmall<'a>>,
    number: u64,
) -> &'a PlainSmall<'a> {
    arena.alloc(PlainSmall { before, number })
}

impl Scoped {
    /// Calls `look` with an arena. From when it returns the arena ends.
    fn arena(
        &self,
        parts: &mut Parts,
        look: impl for<'a> FnOnce(&'a Arena<'_>, &mut Parts) -> u64,
    ) -> u64 {
        let mut end = Duration::ZERO;
        let weight = self.heap.enter(|mc| {
            mc.arena(|arena| {
                let weight = look(arena, parts);
                end = process::thread_cpu_time();
                weight
            })
        });
        parts.free_since(end);
        weight
    }
}

impl Variant for Scoped {
    fn nodes(&mut self, objects: u64, parts: &mut Parts) -> u64 {
        self.arena(parts, |arena, parts| {
            let last = graph(objects, |before, number| plain_node(arena, before, number));
            parts.look(|| weigh(last, PlainNode::look))
        })
    }

    fn small(&mut self, objects: u64, parts: &mut Parts) -> u64 {
        self.arena(parts, |arena, parts| {
            let last = chain(objects, |before, number| plain_small(arena, before, number));
            parts.look(|| weigh_chain(last, |small| (small.before, small.number)))
        })
    }

    fn heap(&self) -> Option<&Heap> {
        Some(&self.heap)
    }
}

/// A shared arena for each set.
struct Shared {
    heap: Heap,
}

/// A node with 56 bytes.
#[derive(Trace)]
struct SharedNode<'gc> {
    children: ArenaGc<'gc, [Option<ArenaGc<'gc, SharedNode<'gc>>>]>,
    values: [u64; 5],
}

/// A small object.
#[derive(Trace)]
struct SharedSmall<'gc> {
    before: Option<ArenaGc<'gc, SharedSmall<'gc>>>,
    number: u64,
}

/// What is said when a value is gone. The arena is freed behind the last look.
const GONE: &str = "the arena is freed after the last look";

impl<'gc> SharedNode<'gc> {
    #[inline(always)]
    fn make(
        writer: &ArenaWriter<'gc, '_>,
        children: Before<ArenaGc<'gc, SharedNode<'gc>>>,
        number: u64,
    ) -> ArenaGc<'gc, SharedNode<'gc>> {
        writer.alloc(SharedNode { children: writer.alloc_copy(&children), values: [number; 5] })
    }

    /// Those before it, and its number.
    fn look(
        mc: &Mutator<'gc>,
        node: ArenaGc<'gc, SharedNode<'gc>>,
    ) -> (Before<ArenaGc<'gc, SharedNode<'gc>>>, u64) {
        let node = node.get(mc).expect(GONE);
        let children = node.children.get(mc).expect(GONE);
        ([children[0], children[1], children[2], children[3]], node.values[4])
    }
}

impl Variant for Shared {
    fn nodes(&mut self, objects: u64, parts: &mut Parts) -> u64 {
        let arena = self.heap.shared_arena();
        let weight = self.heap.enter(|mc| {
            let writer = arena.writer(mc);
            let last = graph(objects, |before, number| SharedNode::make(&writer, before, number));
            parts.look(|| weigh(last, |node| SharedNode::look(mc, node)))
        });
        parts.free(|| drop(arena));
        weight
    }

    fn small(&mut self, objects: u64, parts: &mut Parts) -> u64 {
        let arena = self.heap.shared_arena();
        let weight = self.heap.enter(|mc| {
            let writer = arena.writer(mc);
            let last =
                chain(objects, |before, number| writer.alloc(SharedSmall { before, number }));
            parts.look(|| {
                weigh_chain(last, |small| {
                    let small = small.get(mc).expect(GONE);
                    (small.before, small.number)
                })
            })
        });
        parts.free(|| drop(arena));
        weight
    }

    fn heap(&self) -> Option<&Heap> {
        Some(&self.heap)
    }
}

const _: () = assert!(size_of::<SharedNode<'_>>() == 56 && size_of::<SharedSmall<'_>>() == 16);
const _: () = assert!(size_of::<Node<'_>>() == 56 && size_of::<PlainNode<'_>>() == 56);
const _: () = assert!(size_of::<Small<'_>>() == 16 && size_of::<PlainSmall<'_>>() == 16);

#[cfg(test)]
mod tests {
    use super::nodes_weigh;

    #[test]
    fn a_graph_weighs_what_lies_on_the_way_through_it() {
        for (objects, weight) in
            [(0, 0), (1, 0), (2, 1), (4, 6), (5, 4), (6, 6), (9, 12), (10, 9 + 5 + 1)]
        {
            assert_eq!(nodes_weigh(objects), weight, "{objects} objects");
        }
    }
}
