//! The random graph: objects of three sizes in a random order in memory, each with pointers to four others anywhere.
//!
//! The targets have a size each: a pointer to a small object, two to medium ones, one to a large one. So a pointer
//! has one type, as in most programs, and since half of the objects are medium, each object is as likely a target as
//! any other.

use spanheap::{Gc, GcCell, Heap, Mutator, Root, Rootable, Trace};

use super::BATCH;
use super::graph::{Link, Reached};
use crate::random::Random;

/// An object with so many words besides its pointers; the first is its number.
#[derive(Trace)]
struct Mixed<'gc, const WORDS: usize> {
    small: Link<'gc, Small<'gc>>,
    medium: [Link<'gc, Medium<'gc>>; 2],
    large: Link<'gc, Large<'gc>>,
    words: [u64; WORDS],
}

type Small<'gc> = Mixed<'gc, 2>;
type Medium<'gc> = Mixed<'gc, 4>;
type Large<'gc> = Mixed<'gc, 8>;

const _: () = assert!(size_of::<Small<'_>>() == 48);
const _: () = assert!(size_of::<Medium<'_>>() == 64 && size_of::<Large<'_>>() == 96);

/// What holds the graph: its first object of medium size.
pub(super) struct Held(Root<Rootable![Medium<'_>]>);

/// The sizes of the objects, in the order of their numbers; each with its index among those of its size.
struct Sizes {
    random: Random,
    seen: [usize; 3],
}

impl Sizes {
    fn new() -> Sizes {
        Sizes { random: Random::new(1), seen: [0; 3] }
    }
}

impl Iterator for Sizes {
    /// Small, medium or large, and the index.
    type Item = (usize, usize);

    fn next(&mut self) -> Option<(usize, usize)> {
        let size = [0, 1, 1, 2][self.random.below(4)];
        let index = self.seen[size];
        self.seen[size] += 1;
        Some((size, index))
    }
}

type AllSmall = Rootable![[Link<'_, Small<'_>>]];
type AllMedium = Rootable![[Link<'_, Medium<'_>>]];
type AllLarge = Rootable![[Link<'_, Large<'_>>]];

/// All objects, by size.
struct Groups {
    small: Root<AllSmall>,
    medium: Root<AllMedium>,
    large: Root<AllLarge>,
}

/// The same in a closure.
#[derive(Clone, Copy)]
struct Open<'gc> {
    small: Gc<'gc, [Link<'gc, Small<'gc>>]>,
    medium: Gc<'gc, [Link<'gc, Medium<'gc>>]>,
    large: Gc<'gc, [Link<'gc, Large<'gc>>]>,
}

impl Groups {
    /// Empty arrays for so many objects of each size.
    fn new(heap: &Heap, lengths: [usize; 3]) -> Groups {
        fn empty<'gc, T>(length: usize) -> impl ExactSizeIterator<Item = Link<'gc, T>> {
            (0..length).map(|_| Link::new(None))
        }
        heap.enter(|mc| Groups {
            small: mc.root(mc.alloc_slice(empty(lengths[0]))),
            medium: mc.root(mc.alloc_slice(empty(lengths[1]))),
            large: mc.root(mc.alloc_slice(empty(lengths[2]))),
        })
    }

    fn open<'gc>(&self, mc: &Mutator<'gc>) -> Open<'gc> {
        Open { small: self.small.get(mc), medium: self.medium.get(mc), large: self.large.get(mc) }
    }
}

/// Builds a graph of so many objects, 1024 at least.
pub(super) fn build(heap: &Heap, objects: usize) -> Held {
    let mut sizes = Sizes::new();
    sizes.by_ref().take(objects).for_each(drop);
    let groups = Groups::new(heap, sizes.seen);

    let mut sizes = Sizes::new();
    for first in (0..objects).step_by(BATCH) {
        heap.enter(|mc| {
            let open = groups.open(mc);
            for number in first..objects.min(first + BATCH) {
                let Some((size, index)) = sizes.next() else { return };
                match size {
                    0 => open.small[index].set(mc, Some(object(mc, number))),
                    1 => open.medium[index].set(mc, Some(object(mc, number))),
                    _ => open.large[index].set(mc, Some(object(mc, number))),
                }
            }
        });
    }
    let (mut sizes, mut random) = (Sizes::new(), Random::new(2));
    for first in (0..objects).step_by(BATCH) {
        heap.enter(|mc| {
            let open = groups.open(mc);
            for _ in first..objects.min(first + BATCH) {
                let Some((size, index)) = sizes.next() else { return };
                match size {
                    0 => link(mc, &open.small[index], open, &mut random),
                    1 => link(mc, &open.medium[index], open, &mut random),
                    _ => link(mc, &open.large[index], open, &mut random),
                }
            }
        });
    }
    heap.enter(|mc| {
        let first = groups.medium.get(mc)[0].get();
        Held(mc.root(first.expect("half of 1024 objects and more are of medium size")))
    })
}

/// An object without pointers yet.
fn object<'gc, const WORDS: usize>(mc: &Mutator<'gc>, number: usize) -> Gc<'gc, Mixed<'gc, WORDS>> {
    let mut words = [0; WORDS];
    words[0] = number as u64;
    mc.alloc(Mixed {
        small: GcCell::new(None),
        medium: [GcCell::new(None), GcCell::new(None)],
        large: GcCell::new(None),
        words,
    })
}

/// Gives an object its four pointers.
fn link<'gc, const WORDS: usize>(
    mc: &Mutator<'gc>,
    place: &Link<'gc, Mixed<'gc, WORDS>>,
    open: Open<'gc>,
    random: &mut Random,
) {
    let Some(object) = place.get() else { return };
    object.small.set(mc, anyone(&open.small, random));
    for edge in &object.medium {
        edge.set(mc, anyone(&open.medium, random));
    }
    object.large.set(mc, anyone(&open.large, random));
}

/// A random object of a size, if there is one.
fn anyone<'gc, T>(group: &[Link<'gc, T>], random: &mut Random) -> Option<Gc<'gc, T>> {
    if group.is_empty() { None } else { group[random.below(group.len())].get() }
}

/// An object of any size.
enum Any<'gc> {
    Small(Gc<'gc, Small<'gc>>),
    Medium(Gc<'gc, Medium<'gc>>),
    Large(Gc<'gc, Large<'gc>>),
}

impl Held {
    /// Counts what can be reached, with a bit for each number.
    pub(super) fn walk(&self, mc: &Mutator<'_>, objects: usize, reached: &mut Reached) {
        let mut seen = vec![0_u64; objects.div_ceil(64)];
        let mut stack = vec![Any::Medium(self.0.get(mc))];
        while let Some(object) = stack.pop() {
            match object {
                Any::Small(object) => visit(object, &mut seen, &mut stack, reached),
                Any::Medium(object) => visit(object, &mut seen, &mut stack, reached),
                Any::Large(object) => visit(object, &mut seen, &mut stack, reached),
            }
        }
    }
}

/// Counts an object, unless it was counted before, and takes down what it points to.
fn visit<'gc, const WORDS: usize>(
    object: Gc<'gc, Mixed<'gc, WORDS>>,
    seen: &mut [u64],
    stack: &mut Vec<Any<'gc>>,
    reached: &mut Reached,
) {
    let number = object.words[0];
    let (word, bit) = ((number / 64) as usize, 1 << (number % 64));
    if seen[word] & bit != 0 {
        return;
    }
    seen[word] |= bit;
    reached.add(number, size_of::<Mixed<'_, WORDS>>());
    stack.extend(object.small.get().map(Any::Small));
    stack.extend(object.medium.iter().filter_map(GcCell::get).map(Any::Medium));
    stack.extend(object.large.get().map(Any::Large));
}
