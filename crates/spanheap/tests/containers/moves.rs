//! Containers whose storage changes hands: swapped between objects under their locks, taken out of one and put into
//! another that is never changed, and replaced by local ones, in every phase of a cycle and by two threads.
//!
//! The pointer from a container to its storage is a plain word without a barrier of its own. What keeps the storage
//! is the barrier of the lock that it is taken out of, and of each word that is overwritten in it. So nothing here
//! keeps an element by other means, and each cycle is verified. The vectors are so long that marking takes a while,
//! and elements move from where it has not been yet to where it has.

use crate::{Item, Mode, item, key_of};
use spanheap::{
    Gc, GcCell, GcHashMap, GcMutex, GcRwLock, GcVec, Heap, Mutator, Root, Rootable, Trace,
};

type Items<'gc> = GcVec<'gc, Gc<'gc, Item>>;
type Names<'gc> = GcHashMap<'gc, u64, Gc<'gc, Item>>;

/// An object that does not change.
#[derive(Trace)]
struct Frozen<'gc> {
    items: Items<'gc>,
    names: Names<'gc>,
}

#[derive(Trace)]
struct Shelf<'gc> {
    items: GcMutex<'gc, Items<'gc>>,
    names: GcRwLock<'gc, Names<'gc>>,
    frozen: GcCell<'gc, Option<Gc<'gc, Frozen<'gc>>>>,
}

type Held = Root<Rootable![[Shelf<'_>]]>;

const SHELVES: usize = 4;

/// Items on each shelf in the beginning.
const ITEMS: u64 = 20_000;

fn shelves(heap: &Heap) -> Held {
    heap.enter(|mc| {
        let shelf = |_| Shelf {
            items: GcMutex::new(GcVec::from_iter(mc, (0..ITEMS).map(|key| item(mc, key)))),
            names: GcRwLock::new(GcHashMap::new()),
            frozen: GcCell::new(None),
        };
        mc.root(mc.alloc_slice((0..SHELVES).map(shelf)))
    })
}

/// Numbers that depend on the seed alone.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % end as u64) as usize
    }
}

/// One change. Locks are taken in the order of the shelves, and items before names.
fn change<'gc>(mc: &Mutator<'gc>, shelves: &[Shelf<'gc>], numbers: &mut Numbers) {
    let (a, b) = (numbers.below(SHELVES - 1), numbers.below(SHELVES));
    let (a, b) = (&shelves[a.min(b)], &shelves[if a == b { b + 1 } else { a.max(b) }]);
    let key = numbers.below(1000) as u64;
    match numbers.below(8) {
        0 => core::mem::swap(&mut *a.items.lock(mc), &mut *b.items.lock(mc)),
        1 => core::mem::swap(&mut *a.names.write(mc), &mut *b.names.write(mc)),
        2 => {
            let items = core::mem::take(&mut *a.items.lock(mc));
            let names = core::mem::take(&mut *a.names.write(mc));
            b.frozen.set(mc, Some(mc.alloc(Frozen { items, names })));
        }
        3 => {
            let Some(frozen) = b.frozen.take(mc) else { return };
            // Loaded before the locks are taken, and held by nothing but this closure from here on.
            let mut items = GcVec::from_slice(mc, &frozen.items);
            items.push(mc, item(mc, key));
            let mut names = GcHashMap::from_iter(mc, frozen.names.iter().map(|(&k, &v)| (k, v)));
            names.insert(mc, key, item(mc, key));
            core::mem::swap(&mut *a.items.lock(mc), &mut items);
            core::mem::swap(&mut *a.names.write(mc), &mut names);
        }
        4 => {
            let mut items = a.items.lock(mc);
            let middle = items.len() / 2;
            items.insert(mc, middle, item(mc, key));
            items.sort_by_key(mc, |item| core::cmp::Reverse(item.key));
        }
        5 => {
            let mut items = a.items.lock(mc);
            let mut names = b.names.write(mc);
            for _ in 0..500 {
                let Some(item) = items.pop(mc) else { break };
                names.insert(mc, key_of(item), item);
            }
            items.shrink_to_fit(mc);
        }
        6 => {
            let mut names = a.names.write(mc);
            let mut moved = Vec::new();
            names.retain(mc, |key, &item| {
                let moves = key % 4 == 0;
                moved.extend(moves.then_some(item));
                !moves
            });
            drop(names);
            b.items.lock(mc).extend(mc, moved);
        }
        _ => {
            let mut items = a.items.lock(mc);
            for number in 0..20 {
                items.push(mc, item(mc, key + number));
            }
            let len = items.len();
            items.edit(mc, |items| items.rotate_left(len / 3));
            items.truncate(mc, 2 * ITEMS as usize);
        }
    }
}

/// Looks at every item that can be reached.
fn check<'gc>(mc: &Mutator<'gc>, shelves: &[Shelf<'gc>]) {
    for shelf in shelves {
        shelf.items.lock(mc).iter().for_each(|&item| _ = key_of(item));
        for (&key, &item) in &*shelf.names.read(mc) {
            assert_eq!(key_of(item), key);
        }
        if let Some(frozen) = shelf.frozen.get() {
            frozen.items.iter().for_each(|&item| _ = key_of(item));
            frozen.names.iter().for_each(|(&key, &item)| assert_eq!(key_of(item), key));
        }
    }
}

fn run(mode: Mode, steps: usize) {
    let heap = mode.heap();
    let held = shelves(&heap);
    std::thread::scope(|scope| {
        for seed in [1, 2] {
            let (heap, held) = (&heap, &held);
            scope.spawn(move || {
                let mut numbers = Numbers(seed);
                for step in 0..steps {
                    mode.step(heap, |mc| {
                        let shelves = held.get(mc).as_ref();
                        for _ in 0..1 + numbers.below(4) {
                            change(mc, shelves, &mut numbers);
                        }
                        check(mc, shelves);
                    });
                    if mode == Mode::Quiet && step % 16 == 0 {
                        let _ = heap.collect();
                    }
                }
            });
        }
    });
    let _ = heap.collect();
    heap.enter(|mc| check(mc, held.get(mc).as_ref()));
}

#[test]
fn storage_that_changes_hands_while_cycles_run_keeps_its_elements() {
    run(Mode::Watched, 200);
}

#[test]
fn storage_that_changes_hands_between_cycles_keeps_its_elements() {
    run(Mode::Quiet, 100);
}
