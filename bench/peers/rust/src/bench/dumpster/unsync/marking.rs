//! `marking` for dumpster: what its detector takes for a graph that stays.
//!
//! A collection looks at what was made suspect by the drop of a pointer, so each begins with the copy and the drop
//! of one to every object that holds the graph. The detector then finds all that is reachable from there, twice,
//! with hash tables of what it has seen. It recurses along the graph: with stacks of a gigabyte it gets through a
//! million objects in a line. Shapes that are deeper are left out, as a program that tried would end with an
//! overflow of the stack.

use std::cell::OnceCell;

use dumpster::Trace;
use dumpster::unsync::{Gc, collect};

use crate::bench::marking::{
    self, Graph, LISTS, NODE, Reached, Seen, Size, any, leaves, mixed_bytes, sizes, targets,
};
use crate::bench::{Failure, Outcome, Result, STACK, on_stacks};
use crate::options::Params;
use crate::random::Random;

/// Bytes of stack for each object on a path.
const FRAME: usize = 1024;
/// The longest path.
const DEEPEST: usize = 1 << 20;

/// An object of the tree and of the lists. It has 96 bytes instead of 64, since an empty cell needs a word beside
/// the pointer.
#[derive(Trace)]
struct Node {
    edges: [OnceCell<Gc<Node>>; 4],
    number: u64,
    rest: [u64; 3],
}

/// An object of the random graph.
#[derive(Trace)]
struct Mixed<const REST: usize> {
    small: OnceCell<Gc<Mixed<1>>>,
    medium: [OnceCell<Gc<Mixed<3>>>; 2],
    large: OnceCell<Gc<Mixed<7>>>,
    number: u64,
    rest: [u64; REST],
}

/// An object without pointers: 32 bytes, or 1024.
#[derive(Trace)]
struct Plain<const REST: usize> {
    number: u64,
    rest: [u64; REST],
}

/// What holds a graph.
enum Held {
    Node(Gc<Node>),
    Nodes(Gc<[Gc<Node>]>),
    Random(Option<Gc<Mixed<3>>>),
    Arrays(Gc<[Gc<[Gc<Plain<3>>]>]>),
    Blocks(Gc<[Gc<Plain<127>>]>),
}

struct Marking {
    held: Held,
    objects: usize,
}

pub fn run(params: &Params) -> Result<Outcome> {
    if params.threads > 1 {
        return Err(Failure::not_applicable("its objects belong to one thread"));
    }
    let (shape, objects) = (params.get("shape"), params.get("objects") as usize);
    let depth = match shape {
        0 | 4 | 5 => 64,
        3 => objects.div_ceil(LISTS),
        _ => objects,
    };
    if depth > DEEPEST {
        return Err(Failure::not_applicable(
            "its detector recurses, and paths are too long for a stack",
        ));
    }
    let work = |_| marking::measure(params, Marking { held: build(shape, objects), objects });
    let outcomes = on_stacks(1, STACK + depth * FRAME, work)?;
    outcomes.into_iter().next().ok_or_else(|| Failure::new("nothing was measured"))
}

fn build(shape: u64, objects: usize) -> Held {
    match shape {
        1 => Held::Random(random(objects)),
        4 => {
            let leaf = |number| Gc::new(Plain { number, rest: [0; 3] });
            Held::Arrays(leaves(objects).map(|part| part.map(leaf).collect()).collect())
        }
        5 => {
            let block = |number| Gc::new(Plain { number, rest: [0; 127] });
            Held::Blocks((0..objects as u64).map(block).collect())
        }
        _ => {
            let nodes: Vec<Gc<Node>> = (0..objects as u64).map(node).collect();
            for (number, node) in nodes.iter().enumerate() {
                for (edge, target) in targets(shape, objects, number) {
                    node.edges[edge].get_or_init(|| nodes[target].clone());
                }
            }
            match shape {
                3 => Held::Nodes(nodes[..LISTS.min(objects)].into()),
                _ => Held::Node(nodes[0].clone()),
            }
        }
    }
}

fn node(number: u64) -> Gc<Node> {
    Gc::new(Node { edges: [const { OnceCell::new() }; 4], number, rest: [0; 3] })
}

fn mixed<const REST: usize>(number: u64) -> Gc<Mixed<REST>> {
    let (small, large) = (OnceCell::new(), OnceCell::new());
    let medium = [const { OnceCell::new() }; 2];
    Gc::new(Mixed { small, medium, large, number, rest: [0; REST] })
}

/// The objects of a random graph, by size.
#[derive(Default)]
struct Groups {
    small: Vec<Gc<Mixed<1>>>,
    medium: Vec<Gc<Mixed<3>>>,
    large: Vec<Gc<Mixed<7>>>,
}

impl Groups {
    /// Gives an object its four pointers.
    fn link<const REST: usize>(&self, random: &mut Random, object: &Mixed<REST>) {
        fn set<T: Trace>(cell: &OnceCell<Gc<T>>, target: Option<&Gc<T>>) {
            if let Some(target) = target {
                cell.get_or_init(|| target.clone());
            }
        }
        set(&object.small, any(random, &self.small));
        set(&object.medium[0], any(random, &self.medium));
        set(&object.medium[1], any(random, &self.medium));
        set(&object.large, any(random, &self.large));
    }
}

/// A random graph. Returns its first medium object.
fn random(objects: usize) -> Option<Gc<Mixed<3>>> {
    let mut groups = Groups::default();
    for (number, size) in sizes(objects) {
        match size {
            Size::Small => groups.small.push(mixed(number)),
            Size::Medium => groups.medium.push(mixed(number)),
            Size::Large => groups.large.push(mixed(number)),
        }
    }
    let mut random = Random::new(2);
    let [mut small, mut medium, mut large] = [0; 3];
    let next = |index: &mut usize| {
        *index += 1;
        *index - 1
    };
    for (_, size) in sizes(objects) {
        match size {
            Size::Small => groups.link(&mut random, &groups.small[next(&mut small)]),
            Size::Medium => groups.link(&mut random, &groups.medium[next(&mut medium)]),
            Size::Large => groups.link(&mut random, &groups.large[next(&mut large)]),
        }
    }
    groups.medium.first().cloned()
}

impl Graph for Marking {
    fn collect(&mut self) {
        match &self.held {
            Held::Node(node) => drop(node.clone()),
            Held::Nodes(nodes) => drop(nodes.clone()),
            Held::Random(first) => drop(first.clone()),
            Held::Arrays(arrays) => drop(arrays.clone()),
            Held::Blocks(blocks) => drop(blocks.clone()),
        }
        collect();
    }

    fn walk(&self) -> Reached {
        let mut reached = Reached::default();
        match &self.held {
            Held::Node(node) => walk(vec![node], &mut reached),
            Held::Nodes(nodes) => walk(nodes.iter().collect(), &mut reached),
            Held::Random(first) => walk_random(first.as_ref(), self.objects, &mut reached),
            Held::Arrays(arrays) => {
                let leaves = arrays.iter().flat_map(|array| array.iter());
                leaves.for_each(|leaf| reached.add(leaf.number + leaf.rest[0], 32));
            }
            Held::Blocks(blocks) => {
                blocks.iter().for_each(|block| reached.add(block.number + block.rest[0], 1024));
            }
        }
        reached
    }
}

fn walk(mut stack: Vec<&Gc<Node>>, reached: &mut Reached) {
    while let Some(node) = stack.pop() {
        reached.add(node.number + node.rest[0], NODE);
        stack.extend(node.edges.iter().filter_map(OnceCell::get));
    }
}

/// An object that was found and not yet looked at.
enum Found<'a> {
    Small(&'a Mixed<1>),
    Medium(&'a Mixed<3>),
    Large(&'a Mixed<7>),
}

fn walk_random(first: Option<&Gc<Mixed<3>>>, objects: usize, reached: &mut Reached) {
    let mut seen = Seen::new(objects);
    let mut stack: Vec<Found<'_>> = first.into_iter().map(|first| Found::Medium(first)).collect();
    while let Some(found) = stack.pop() {
        match found {
            Found::Small(object) => look(object, &mut seen, &mut stack, reached),
            Found::Medium(object) => look(object, &mut seen, &mut stack, reached),
            Found::Large(object) => look(object, &mut seen, &mut stack, reached),
        }
    }
}

fn look<'a, const REST: usize>(
    object: &'a Mixed<REST>,
    seen: &mut Seen,
    stack: &mut Vec<Found<'a>>,
    reached: &mut Reached,
) {
    if seen.first(object.number) {
        reached.add(object.number + object.rest[0], mixed_bytes(REST));
        stack.extend(object.small.get().map(|object| Found::Small(object)));
        let medium = object.medium.iter().filter_map(OnceCell::get);
        stack.extend(medium.map(|object| Found::Medium(object)));
        stack.extend(object.large.get().map(|object| Found::Large(object)));
    }
}
