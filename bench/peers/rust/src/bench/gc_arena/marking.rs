//! `marking` for gc-arena: `finish_cycle`, which marks and sweeps everything.
//!
//! A graph is built in one closure, in which nothing is collected, so that plain vectors on the stack can name its
//! objects.

use gc_arena::barrier::field;
use gc_arena::lock::Lock;
use gc_arena::{Arena, Collect, Gc, Mutation, Rootable};

use super::pace;
use crate::bench::marking::{
    self, Graph, LISTS, NODE, Reached, Seen, Size, any, leaves, mixed_bytes, sizes, targets,
};
use crate::bench::{Failure, Outcome, Result};
use crate::options::Params;
use crate::random::Random;

/// An object of the tree and of the lists: 64 bytes.
#[derive(Collect)]
#[collect(no_drop)]
struct Node<'gc> {
    edges: [Lock<Option<Gc<'gc, Node<'gc>>>>; 4],
    number: u64,
    rest: [u64; 3],
}

/// An object of the random graph.
#[derive(Collect)]
#[collect(no_drop)]
struct Mixed<'gc, const REST: usize> {
    small: Lock<Option<Gc<'gc, Small<'gc>>>>,
    medium: [Lock<Option<Gc<'gc, Medium<'gc>>>>; 2],
    large: Lock<Option<Gc<'gc, Large<'gc>>>>,
    number: u64,
    rest: [u64; REST],
}

type Small<'gc> = Mixed<'gc, 1>;
type Medium<'gc> = Mixed<'gc, 3>;
type Large<'gc> = Mixed<'gc, 7>;

/// An object without pointers: 32 bytes, or 1024.
#[derive(Collect)]
#[collect(require_static)]
struct Plain<const REST: usize> {
    number: u64,
    rest: [u64; REST],
}

const _: () = assert!(size_of::<Node<'_>>() == 64 && size_of::<Plain<3>>() == 32);
const _: () = assert!(size_of::<Small<'_>>() == 48 && size_of::<Large<'_>>() == 96);

type Leaves<'gc> = Box<[Gc<'gc, Plain<3>>]>;

/// What holds a graph.
#[derive(Collect)]
#[collect(no_drop)]
enum Held<'gc> {
    Node(Gc<'gc, Node<'gc>>),
    Nodes(Box<[Gc<'gc, Node<'gc>>]>),
    Random(Option<Gc<'gc, Medium<'gc>>>),
    Arrays(Box<[Gc<'gc, Leaves<'gc>>]>),
    Blocks(Box<[Gc<'gc, Plain<127>>]>),
}

struct Marking {
    arena: Arena<Rootable![Held<'_>]>,
    objects: usize,
}

pub fn marking(params: &Params) -> Result<Outcome> {
    if params.threads > 1 {
        return Err(Failure::not_applicable("an arena belongs to one thread"));
    }
    let (shape, objects) = (params.get("shape"), params.get("objects") as usize);
    let arena = Arena::<Rootable![Held<'_>]>::new(|mc| build(mc, shape, objects));
    pace(arena.metrics(), params);
    marking::measure(params, Marking { arena, objects })
}

fn build<'gc>(mc: &Mutation<'gc>, shape: u64, objects: usize) -> Held<'gc> {
    match shape {
        1 => Held::Random(random(mc, objects)),
        4 => {
            let leaf = |number| Gc::new(mc, Plain { number, rest: [0; 3] });
            Held::Arrays(
                leaves(objects).map(|part| Gc::new(mc, part.map(leaf).collect())).collect(),
            )
        }
        5 => {
            let block = |number| Gc::new(mc, Plain { number, rest: [0; 127] });
            Held::Blocks((0..objects as u64).map(block).collect())
        }
        _ => {
            let nodes: Vec<Gc<'gc, Node<'gc>>> =
                (0..objects as u64).map(|number| node(mc, number)).collect();
            for (number, &node) in nodes.iter().enumerate() {
                for (edge, target) in targets(shape, objects, number) {
                    field!(Gc::write(mc, node), Node, edges)[edge]
                        .unlock()
                        .set(Some(nodes[target]));
                }
            }
            match shape {
                3 => Held::Nodes(nodes[..LISTS.min(objects)].into()),
                _ => Held::Node(nodes[0]),
            }
        }
    }
}

fn node<'gc>(mc: &Mutation<'gc>, number: u64) -> Gc<'gc, Node<'gc>> {
    let edges = std::array::from_fn(|_| Lock::new(None));
    Gc::new(mc, Node { edges, number, rest: [0; 3] })
}

fn mixed<'gc, const REST: usize>(mc: &Mutation<'gc>, number: u64) -> Gc<'gc, Mixed<'gc, REST>> {
    let (small, large) = (Lock::new(None), Lock::new(None));
    let medium = std::array::from_fn(|_| Lock::new(None));
    Gc::new(mc, Mixed { small, medium, large, number, rest: [0; REST] })
}

/// The objects of a random graph, by size.
#[derive(Default)]
struct Groups<'gc> {
    small: Vec<Gc<'gc, Small<'gc>>>,
    medium: Vec<Gc<'gc, Medium<'gc>>>,
    large: Vec<Gc<'gc, Large<'gc>>>,
}

impl<'gc> Groups<'gc> {
    /// Gives an object its four pointers.
    fn link<const REST: usize>(
        &self,
        mc: &Mutation<'gc>,
        random: &mut Random,
        object: Gc<'gc, Mixed<'gc, REST>>,
    ) {
        let write = Gc::write(mc, object);
        field!(write, Mixed, small).unlock().set(any(random, &self.small).copied());
        let medium = field!(write, Mixed, medium);
        medium[0].unlock().set(any(random, &self.medium).copied());
        medium[1].unlock().set(any(random, &self.medium).copied());
        field!(write, Mixed, large).unlock().set(any(random, &self.large).copied());
    }
}

/// A random graph. Returns its first medium object.
fn random<'gc>(mc: &Mutation<'gc>, objects: usize) -> Option<Gc<'gc, Medium<'gc>>> {
    let mut groups = Groups::default();
    for (number, size) in sizes(objects) {
        match size {
            Size::Small => groups.small.push(mixed(mc, number)),
            Size::Medium => groups.medium.push(mixed(mc, number)),
            Size::Large => groups.large.push(mixed(mc, number)),
        }
    }
    let mut random = Random::new(2);
    let (mut small, mut medium, mut large) =
        (groups.small.iter(), groups.medium.iter(), groups.large.iter());
    for (_, size) in sizes(objects) {
        match size {
            Size::Small => {
                small.next().into_iter().for_each(|&object| groups.link(mc, &mut random, object))
            }
            Size::Medium => {
                medium.next().into_iter().for_each(|&object| groups.link(mc, &mut random, object))
            }
            Size::Large => {
                large.next().into_iter().for_each(|&object| groups.link(mc, &mut random, object))
            }
        }
    }
    groups.medium.first().copied()
}

impl Graph for Marking {
    fn collect(&mut self) {
        self.arena.finish_cycle();
    }

    fn walk(&self) -> Reached {
        let objects = self.objects;
        self.arena.mutate(|_, held| {
            let mut reached = Reached::default();
            match held {
                Held::Node(node) => walk(vec![*node], &mut reached),
                Held::Nodes(nodes) => walk(nodes.to_vec(), &mut reached),
                Held::Random(first) => walk_random(*first, objects, &mut reached),
                Held::Arrays(arrays) => {
                    let leaves = arrays.iter().flat_map(|array| array.iter());
                    leaves.for_each(|leaf| reached.add(leaf.number + leaf.rest[0], 32));
                }
                Held::Blocks(blocks) => {
                    blocks.iter().for_each(|block| reached.add(block.number + block.rest[0], 1024));
                }
            }
            reached
        })
    }
}

fn walk<'gc>(mut stack: Vec<Gc<'gc, Node<'gc>>>, reached: &mut Reached) {
    while let Some(node) = stack.pop() {
        reached.add(node.number + node.rest[0], NODE);
        stack.extend(node.edges.iter().filter_map(Lock::get));
    }
}

/// An object that was found and not yet looked at.
enum Found<'gc> {
    Small(Gc<'gc, Small<'gc>>),
    Medium(Gc<'gc, Medium<'gc>>),
    Large(Gc<'gc, Large<'gc>>),
}

fn walk_random<'gc>(first: Option<Gc<'gc, Medium<'gc>>>, objects: usize, reached: &mut Reached) {
    let mut seen = Seen::new(objects);
    let mut stack: Vec<Found<'gc>> = first.into_iter().map(Found::Medium).collect();
    while let Some(found) = stack.pop() {
        match found {
            Found::Small(object) => look(object, &mut seen, &mut stack, reached),
            Found::Medium(object) => look(object, &mut seen, &mut stack, reached),
            Found::Large(object) => look(object, &mut seen, &mut stack, reached),
        }
    }
}

fn look<'gc, const REST: usize>(
    object: Gc<'gc, Mixed<'gc, REST>>,
    seen: &mut Seen,
    stack: &mut Vec<Found<'gc>>,
    reached: &mut Reached,
) {
    if seen.first(object.number) {
        reached.add(object.number + object.rest[0], mixed_bytes(REST));
        stack.extend(object.small.get().map(Found::Small));
        stack.extend(object.medium.iter().filter_map(Lock::get).map(Found::Medium));
        stack.extend(object.large.get().map(Found::Large));
    }
}
