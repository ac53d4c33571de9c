//! Operations that change many elements of a `GcVec` at once do what the same changes of single elements do, and the
//! collector loses nothing by them. And what they cost, as a measurement:
//! `cargo test --release -p spanheap --test containers bulk_operations_cost -- --ignored --nocapture`.
//!
//! # Safety
//! Asks the system for the time.
#![allow(unsafe_code)]

use crate::{Item, Mode, item, key_of};
use spanheap::{Gc, GcCell, GcMutex, GcVec, Heap, Mutator, Root, Rootable, Trace};
use std::time::Duration;

/// A pointer, or none, behind and before words that are no pointers.
#[derive(Clone, Copy, Trace)]
struct Entry<'gc> {
    before: u64,
    item: Option<Gc<'gc, Item>>,
    behind: u64,
}

#[derive(Trace)]
struct Pair<'gc> {
    /// Changed by operations on many elements.
    bulk: GcMutex<'gc, GcVec<'gc, Entry<'gc>>>,
    /// Changed in the same way element by element.
    single: GcMutex<'gc, GcVec<'gc, Entry<'gc>>>,
}

fn entry<'gc>(mc: &Mutator<'gc>, key: u64) -> Entry<'gc> {
    // Null among the pointers.
    let item = (key % 5 != 0).then(|| item(mc, key));
    Entry { before: key, item, behind: !key }
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

type Cells = Root<Rootable![[GcCell<'_, Option<Gc<'_, Item>>>]]>;

type Entries<'gc> = GcVec<'gc, Entry<'gc>>;

/// One operation on all or many elements, and the same with single ones. Lengths are such that the barrier's buffer,
/// of 256 entries, is full in the midst of it, or just so, or not.
fn change<'gc>(
    mc: &Mutator<'gc>,
    bulk: &mut Entries<'gc>,
    single: &mut Entries<'gc>,
    n: &mut Numbers,
) {
    let len = bulk.len();
    let (low, high) = (n.below(len + 1), n.below(len + 1));
    let (low, high) = (low.min(high), low.max(high));
    let mut fresh = |most: usize| {
        let count = n.below(most + 1);
        (0..count).map(|_| entry(mc, n.below(1 << 20) as u64)).collect::<Vec<_>>()
    };
    match fresh(10).len() {
        0 => {
            bulk.reverse(mc);
            (0..len / 2).for_each(|at| single.swap(mc, at, len - 1 - at));
        }
        1 => {
            let value = fresh(1).pop().unwrap_or_else(|| entry(mc, 7));
            bulk.fill(mc, value);
            (0..len).for_each(|at| {
                single.set(mc, at, value);
            });
        }
        2 => {
            bulk.truncate(mc, low);
            (low..len).for_each(|_| {
                single.pop(mc);
            });
        }
        3 => {
            bulk.remove_range(mc, low..high);
            (low..high).for_each(|_| {
                single.remove(mc, low);
            });
        }
        4 => {
            let mut values = fresh(700);
            values.truncate(len - low);
            bulk.copy_from_slice(mc, low, &values);
            let places = low..;
            places.zip(values).for_each(|(at, value)| {
                single.set(mc, at, value);
            });
        }
        5 => {
            let value = entry(mc, len as u64);
            bulk.resize(mc, low + 256, value);
            (low + 256..len).for_each(|_| {
                single.pop(mc);
            });
            (len..low + 256).for_each(|_| single.push(mc, value));
        }
        6 => retain(mc, bulk, single),
        7 if len > 0 => rotate(mc, bulk, single, low % len),
        8 => insert(mc, bulk, single, low),
        _ => {
            let values = fresh(700);
            bulk.extend_from_slice(mc, &values);
            values.into_iter().for_each(|value| single.push(mc, value));
        }
    }
}

/// Most elements stay.
fn retain<'gc>(mc: &Mutator<'gc>, bulk: &mut Entries<'gc>, single: &mut Entries<'gc>) {
    let keep = |entry: &Entry<'_>| entry.before % 11 != 0;
    bulk.retain(mc, keep);
    for at in (0..single.len()).rev() {
        if !keep(&single[at]) {
            single.remove(mc, at);
        }
    }
}

/// The elements from `by` on come first.
fn rotate<'gc>(mc: &Mutator<'gc>, bulk: &mut Entries<'gc>, single: &mut Entries<'gc>, by: usize) {
    let len = bulk.len();
    bulk.edit(mc, |entries| entries.rotate_left(by));
    for _ in 0..by.min(20) {
        let first = single.remove(mc, 0);
        single.push(mc, first);
    }
    // The rest of the way at once, the other way around.
    single.edit(mc, |entries| entries.rotate_right(len - (by - by.min(20)) % len));
}

/// One more element, before that of an index.
fn insert<'gc>(
    mc: &Mutator<'gc>,
    bulk: &mut Entries<'gc>,
    single: &mut Entries<'gc>,
    index: usize,
) {
    let value = entry(mc, 3);
    bulk.insert(mc, index, value);
    single.push(mc, value);
    (index..single.len() - 1).rev().for_each(|at| single.swap(mc, at, at + 1));
}

fn assert_same(bulk: &[Entry<'_>], single: &[Entry<'_>]) {
    assert_eq!(bulk.len(), single.len());
    for (a, b) in bulk.iter().zip(single) {
        assert_eq!((a.before, a.behind), (b.before, !b.before));
        let address = |entry: &Entry<'_>| entry.item.map(|item| item.as_ptr());
        assert_eq!(address(a), address(b));
        assert!(a.item.is_none_or(|item| key_of(item) == a.before));
    }
}

/// What is taken out is gone afterwards; each cycle of these heaps is verified.
fn agree(mode: Mode, steps: usize) {
    let heap = mode.heap();
    let held: Root<Rootable![Pair<'_>]> = heap.enter(|mc| {
        let (bulk, single) = (GcMutex::new(GcVec::new()), GcMutex::new(GcVec::new()));
        mc.root(mc.alloc(Pair { bulk, single }))
    });
    let mut numbers = Numbers(0xb01c);
    for step in 0..steps {
        mode.step(&heap, |mc| {
            let pair = held.get(mc);
            let (mut bulk, mut single) = (pair.bulk.lock(mc), pair.single.lock(mc));
            (0..3).for_each(|_| change(mc, &mut bulk, &mut single, &mut numbers));
            if bulk.len() > 3000 {
                bulk.clear(mc);
                single.clear(mc);
            }
            assert_same(&bulk, &single);
        });
        if step % 16 == 0 {
            let _ = heap.collect();
        }
    }
    let _ = heap.collect();
    let _ = heap.collect();
    let live = heap.stats().live_objects;
    let reachable = heap.enter(|mc| {
        let pair = held.get(mc);
        let (bulk, single) = (pair.bulk.lock(mc), pair.single.lock(mc));
        assert_same(&bulk, &single);
        let mut items: Vec<_> =
            bulk.iter().filter_map(|entry| Some(entry.item?.as_ptr())).collect();
        items.sort();
        items.dedup();
        1 + usize::from(bulk.capacity() > 0) + usize::from(single.capacity() > 0) + items.len()
    });
    assert_eq!(live, reachable as u64);
}

#[test]
fn many_at_once_and_one_by_one_agree_while_cycles_run() {
    agree(Mode::Watched, 150);
}

#[test]
fn many_at_once_and_one_by_one_agree_between_cycles() {
    agree(Mode::Quiet, 600);
}

/// Elements that are turned around move from where the collector has not been to where it has, all of them, again and
/// again; nothing else holds them.
#[test]
fn a_vec_that_is_turned_around_while_it_is_scanned_keeps_its_elements() {
    const LEN: u64 = 50_000;
    let heap = Mode::Watched.heap();
    let held: Root<Rootable![Pair<'_>]> = heap.enter(|mc| {
        let entries = GcVec::from_iter(mc, (0..LEN).map(|key| entry(mc, key)));
        mc.root(mc.alloc(Pair { bulk: GcMutex::new(entries), single: GcMutex::new(GcVec::new()) }))
    });
    for round in 0..40 {
        Mode::Watched.step(&heap, |mc| {
            let pair = held.get(mc);
            let mut entries = pair.bulk.lock(mc);
            entries.reverse(mc);
            if round % 4 == 3 {
                // Of half of them the vector goes without a place for a while, which only this closure has.
                let behind = entries[LEN as usize / 2..].to_vec();
                entries.truncate(mc, LEN as usize / 2);
                entries.extend_from_slice(mc, &behind);
            }
        });
    }
    heap.enter(|mc| {
        let pair = held.get(mc);
        let entries = pair.bulk.lock(mc);
        let keys = entries.iter().map(|entry| entry.item.map_or(entry.before, key_of));
        assert!(keys.eq(0..LEN), "an even number of times");
    });
}

/// Cells, which other threads may change meanwhile: what each operation overwrites is retained.
#[test]
fn what_many_cells_held_is_retained_by_the_cycle_that_runs() {
    const CELLS: usize = 1000;
    let heap = Mode::Watched.heap();
    let held: Cells = heap.enter(|mc| mc.root(mc.alloc_zeroed(CELLS)));
    let mut numbers = Numbers(0xce11);
    for round in 0..60 {
        Mode::Watched.step(&heap, |mc| {
            let cells = held.get(mc);
            // Null among them, runs of which end anywhere in the barrier's buffer.
            let values: Vec<_> = (0..CELLS)
                .map(|key| (numbers.below(8) > round % 8).then(|| item(mc, key as u64)))
                .collect();
            let old: Vec<_> = cells.iter().map(|cell| cell.get()).collect();
            GcCell::copy_from_slice(&cells, mc, &values);
            let from = numbers.below(CELLS / 2);
            GcCell::copy_within(&cells, mc, from..from + 300, 100);
            GcCell::fill(&cells[..50], mc, None);
            // Held by this closure alone from here on, while cycles go on.
            let _ = heap.collect();
            for (key, old) in old.iter().enumerate() {
                assert!(old.is_none_or(|old| key_of(old) < CELLS as u64 && key < CELLS));
            }
            for (at, cell) in cells.iter().enumerate() {
                let source = match at {
                    0..50 => None,
                    100..400 => values[at - 100 + from],
                    _ => values[at],
                };
                assert_eq!(cell.get().map(key_of), source.map(key_of));
            }
        });
    }
}

/// What the measured vectors point to: a leaf of 16 bytes.
type Leaf = [u64; 2];

#[derive(Trace)]
struct Table<'gc> {
    slots: GcMutex<'gc, GcVec<'gc, Gc<'gc, Leaf>>>,
}

type Held = Root<Rootable![Table<'_>]>;

/// The processor's time of this thread, which is all that an operation costs by itself.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a `timespec` of ours, which the call may write.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) }, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn timed<R>(len: usize, change: impl FnOnce() -> R) -> f64 {
    let begun = cpu_time();
    std::hint::black_box(change());
    (cpu_time() - begun).as_nanos() as f64 / len as f64
}

/// The least, the one in the middle, the largest.
fn spread(mut times: Vec<f64>) -> [f64; 3] {
    times.sort_by(f64::total_cmp);
    [times[0], times[times.len() / 2], times[times.len() - 1]]
}

/// An operation on a vector whose elements are `all`; afterwards it has as many again. Returns what it took for each.
type Change = for<'gc> fn(&Mutator<'gc>, &mut GcVec<'gc, Gc<'gc, Leaf>>, &[Gc<'gc, Leaf>]) -> f64;

/// The same on a plain vector.
type Plain = for<'a> fn(&mut Vec<&'a Leaf>, &[&'a Leaf]) -> f64;

const CHANGES: [(&str, Change, Plain); 7] = [
    (
        "rotate on a copy",
        |mc, vec, all| timed(all.len(), || vec.edit(mc, |slots| slots.rotate_left(1))),
        |vec, all| timed(all.len(), || vec.rotate_left(1)),
    ),
    (
        "reverse",
        |mc, vec, all| timed(all.len(), || vec.reverse(mc)),
        |vec, all| timed(all.len(), || vec.reverse()),
    ),
    (
        "fill",
        |mc, vec, all| timed(all.len(), || vec.fill(mc, all[0])),
        |vec, all| timed(all.len(), || vec.fill(all[0])),
    ),
    (
        "clear",
        |mc, vec, all| timed(all.len(), || vec.clear(mc)),
        |vec, all| timed(all.len(), || vec.clear()),
    ),
    (
        "extend_from_slice",
        |mc, vec, all| {
            vec.clear(mc);
            timed(all.len(), || vec.extend_from_slice(mc, all))
        },
        |vec, all| {
            vec.clear();
            timed(all.len(), || vec.extend_from_slice(all))
        },
    ),
    (
        "from_slice",
        |mc, _, all| timed(all.len(), || GcVec::from_slice(mc, all)),
        |_, all| timed(all.len(), || all.to_vec()),
    ),
    (
        "insert and remove in front",
        |mc, vec, all| {
            timed(2 * all.len(), || {
                let first = vec.remove(mc, 0);
                vec.insert(mc, 0, first);
            })
        },
        |vec, all| {
            timed(2 * all.len(), || {
                let first = vec.remove(0);
                vec.insert(0, first);
            })
        },
    ),
];

/// Cells so many that cycles begin and mark while they are turned around: what is read in front is stored behind, where the
/// collector may have been, and the other way round.
#[test]
fn cells_that_are_turned_around_as_a_whole_lose_nothing() {
    const LEN: u64 = 50_000;
    let heap = Mode::Watched.heap();
    let held: Cells = heap.enter(|mc| {
        let cells: Gc<'_, [GcCell<'_, Option<Gc<'_, Item>>>]> = mc.alloc_zeroed(LEN as usize);
        let items: Vec<_> = (0..LEN).map(|key| Some(item(mc, key))).collect();
        GcCell::copy_from_slice(&cells, mc, &items);
        mc.root(cells)
    });
    for _ in 0..100 {
        Mode::Watched.step(&heap, |mc| {
            let cells = held.get(mc);
            let turned: Vec<_> = cells.iter().rev().map(|cell| cell.get()).collect();
            GcCell::copy_from_slice(&cells, mc, &turned);
        });
    }
    heap.enter(|mc| {
        assert!(held.get(mc).iter().map(|cell| cell.get().map_or(0, key_of)).eq(0..LEN));
    });
}

/// Prints what each element costs, in nanoseconds; nothing is asserted about times.
#[test]
#[ignore = "a measurement, for a release build"]
fn what_bulk_operations_cost() {
    const LEN: usize = 1_000_000;
    const ROUNDS: usize = 21;
    let heap = |marking: bool| {
        let builder = Heap::builder();
        let builder =
            if marking { builder.collect_continuously(true) } else { builder.gc_percent_off() };
        builder.build().expect("a heap")
    };
    let leaves = vec![[1u64; 2]; LEN];
    let all: Vec<&Leaf> = leaves.iter().collect();
    for (name, change, plain) in CHANGES {
        let mut vec = all.clone();
        let base = (0..ROUNDS).map(|_| {
            vec.clear();
            vec.extend_from_slice(&all);
            plain(&mut vec, &all)
        });
        let base = spread(base.collect());
        let [idle, marking] = [false, true].map(|marking| {
            let heap = heap(marking);
            let held: Held = heap.enter(|mc| {
                let leaves: Vec<_> = (0..LEN).map(|_| mc.alloc([1u64; 2])).collect();
                let slots = GcVec::from_slice(mc, &leaves);
                mc.root(mc.alloc(Table { slots: GcMutex::new(slots) }))
            });
            let mut times = Vec::new();
            while times.len() < ROUNDS {
                heap.enter(|mc| {
                    let table = held.get(mc);
                    if mc.is_collecting() == marking {
                        let mut vec = table.slots.lock(mc);
                        let all = vec.to_vec();
                        times.push(change(mc, &mut vec, &all));
                        vec.clear(mc);
                        vec.extend_from_slice(mc, &all);
                    }
                });
                if marking {
                    std::thread::yield_now();
                }
            }
            spread(times)
        });
        println!("{name:28} plain {base:5.2?}  idle {idle:5.2?}  marking {marking:5.2?}");
    }
}
