//! A `GcVec` of pointers and a `Vec` of numbers do the same.

use crate::{Item, Mode, item, key_of};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use spanheap::{Gc, GcMutex, GcVec, Heap, Mutator, Root, Rootable, Trace};

/// An element with a pointer between words that hold none.
#[derive(Clone, Copy, Trace)]
struct Pair<'gc> {
    left: u64,
    item: Option<Gc<'gc, Item>>,
    right: u64,
}

#[derive(Trace)]
struct Holder<'gc> {
    pairs: GcMutex<'gc, GcVec<'gc, Pair<'gc>>>,
}

type Held = Root<Rootable![Holder<'_>]>;

#[derive(Clone, Debug)]
enum Op {
    Push(u64),
    Pop,
    Insert(usize, u64),
    Remove(usize),
    SwapRemove(usize),
    Set(usize, u64),
    Swap(usize, usize),
    Truncate(usize),
    Extend(Vec<u64>),
    Resize(usize, u64),
    Retain(u64),
    Sort,
    Rotate(usize),
    Shrink,
    Reserve(usize),
    Clear,
    Collect,
}

fn op() -> impl Strategy<Value = Op> {
    let (at, key) = (0usize..40, 0u64..1000);
    prop_oneof![
        4 => key.clone().prop_map(Op::Push),
        2 => Just(Op::Pop),
        3 => (at.clone(), key.clone()).prop_map(|(at, key)| Op::Insert(at, key)),
        3 => at.clone().prop_map(Op::Remove),
        2 => at.clone().prop_map(Op::SwapRemove),
        3 => (at.clone(), key.clone()).prop_map(|(at, key)| Op::Set(at, key)),
        2 => (at.clone(), at.clone()).prop_map(|(a, b)| Op::Swap(a, b)),
        1 => at.clone().prop_map(Op::Truncate),
        3 => proptest::collection::vec(key.clone(), 0..20).prop_map(Op::Extend),
        1 => (at.clone(), key).prop_map(|(at, key)| Op::Resize(at, key)),
        1 => (2u64..5).prop_map(Op::Retain),
        1 => Just(Op::Sort),
        1 => at.clone().prop_map(Op::Rotate),
        1 => Just(Op::Shrink),
        1 => at.prop_map(Op::Reserve),
        1 => Just(Op::Clear),
        2 => Just(Op::Collect),
    ]
}

fn pair<'gc>(mc: &Mutator<'gc>, key: u64) -> Pair<'gc> {
    // Every seventh has no item: null among the pointers.
    let item = (key % 7 != 0).then(|| item(mc, key));
    Pair { left: key, item, right: !key }
}

fn key_in(pair: &Pair<'_>) -> u64 {
    let key = pair.item.map_or(pair.left, key_of);
    assert_eq!((pair.left, pair.right), (key, !key));
    key
}

/// One step on both.
fn apply<'gc>(mc: &Mutator<'gc>, op: &Op, vec: &mut GcVec<'gc, Pair<'gc>>, twin: &mut Vec<u64>) {
    let len = twin.len();
    match *op {
        Op::Push(key) => {
            vec.push(mc, pair(mc, key));
            twin.push(key);
        }
        Op::Pop => assert_eq!(vec.pop(mc).as_ref().map(key_in), twin.pop()),
        Op::Insert(at, key) => {
            vec.insert(mc, at % (len + 1), pair(mc, key));
            twin.insert(at % (len + 1), key);
        }
        Op::Remove(at) if len > 0 => {
            assert_eq!(key_in(&vec.remove(mc, at % len)), twin.remove(at % len));
        }
        Op::SwapRemove(at) if len > 0 => {
            assert_eq!(key_in(&vec.swap_remove(mc, at % len)), twin.swap_remove(at % len));
        }
        Op::Set(at, key) if len > 0 => {
            let old = vec.set(mc, at % len, pair(mc, key));
            assert_eq!(key_in(&old), std::mem::replace(&mut twin[at % len], key));
        }
        Op::Swap(a, b) if len > 0 => {
            vec.swap(mc, a % len, b % len);
            twin.swap(a % len, b % len);
        }
        Op::Truncate(to) => {
            vec.truncate(mc, to);
            twin.truncate(to);
        }
        Op::Extend(ref keys) => {
            vec.extend(mc, keys.iter().map(|&key| pair(mc, key)));
            twin.extend(keys);
        }
        Op::Resize(to, key) => {
            vec.resize(mc, to, pair(mc, key));
            twin.resize(to, key);
        }
        Op::Retain(of) => {
            vec.retain(mc, |pair| key_in(pair) % of != 0);
            twin.retain(|key| key % of != 0);
        }
        Op::Sort => {
            vec.sort_by_key(mc, key_in);
            twin.sort();
        }
        Op::Rotate(by) if len > 0 => {
            vec.edit(mc, |pairs| pairs.rotate_left(by % len));
            twin.rotate_left(by % len);
        }
        Op::Shrink => {
            vec.shrink_to_fit(mc);
            assert!(vec.capacity() >= len);
        }
        Op::Reserve(more) => {
            vec.reserve(mc, more);
            assert!(vec.capacity() >= len + more);
        }
        Op::Clear => {
            vec.clear(mc);
            twin.clear();
        }
        _ => {}
    }
}

fn compare(vec: &[Pair<'_>], twin: &[u64]) {
    assert_eq!(vec.iter().map(key_in).collect::<Vec<_>>(), twin);
}

fn run(mode: Mode, heap: &Heap, ops: &[Op]) {
    let held: Held =
        heap.enter(|mc| mc.root(mc.alloc(Holder { pairs: GcMutex::new(GcVec::new()) })));
    let mut twin = Vec::new();
    for op in ops {
        if let Op::Collect = op {
            let _ = heap.collect();
        }
        mode.step(heap, |mc| {
            let holder = held.get(mc);
            let mut vec = holder.pairs.lock(mc);
            apply(mc, op, &mut vec, &mut twin);
            compare(&vec, &twin);
        });
    }
    // What was taken out is retained by nobody.
    let _ = heap.collect();
    let kept = twin.iter().filter(|&key| key % 7 != 0).count();
    let storage = heap.enter(|mc| usize::from(held.get(mc).pairs.lock(mc).capacity() > 0));
    let _ = heap.collect();
    let live = heap.stats().live_objects;
    let distinct = heap.enter(|mc| {
        let holder = held.get(mc);
        let vec = holder.pairs.lock(mc);
        let mut items: Vec<_> = vec.iter().filter_map(|pair| Some(pair.item?.as_ptr())).collect();
        items.sort();
        items.dedup();
        items.len()
    });
    assert!(distinct <= kept);
    assert_eq!(live, (1 + storage + distinct) as u64);
}

fn check(mode: Mode, cases: u32, steps: usize) {
    // The seed is fixed: the generator's own.
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let heap = mode.heap();
    let programs = proptest::collection::vec(op(), 1..steps);
    let result = runner.run(&programs, |ops| {
        run(mode, &heap, &ops);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{mode:?}: {error}"));
}

#[test]
fn a_vec_and_its_twin_agree_while_cycles_run() {
    check(Mode::Watched, 6, 50);
}

#[test]
fn a_vec_and_its_twin_agree_between_cycles() {
    check(Mode::Quiet, 32, 100);
}

/// The elements of a type without pointers, and without size.
#[test]
fn leaves_are_edited_in_place_and_empty_types_take_no_memory() {
    for mode in [Mode::Watched, Mode::Quiet] {
        let heap = mode.heap();
        mode.step(&heap, |mc| {
            let mut bytes = GcVec::from_iter(mc, 0..=255u8);
            bytes.as_mut_slice().reverse();
            assert!(bytes.iter().eq((0..=255).rev().collect::<Vec<u8>>().iter()));
            let mut nothing = GcVec::new();
            (0..1000).for_each(|_| nothing.push(mc, ()));
            assert_eq!((nothing.len(), nothing.pop(mc)), (1000, Some(())));
            nothing.insert(mc, 0, ());
            nothing.truncate(mc, 5);
            assert_eq!((nothing.len(), nothing.capacity()), (5, usize::MAX));
        });
    }
}

/// A vector that is a local value is held by its closure alone, whatever the collector does meanwhile.
#[test]
fn a_local_vec_survives_cycles_that_others_wait_for() {
    let heap = Mode::Watched.heap();
    for round in 0..5u64 {
        Mode::Watched.step(&heap, |mc| {
            let mut vec = GcVec::new();
            for key in 0..500 {
                vec.push(mc, pair(mc, round * 1000 + key));
                if key % 50 == 0 {
                    let _ = heap.collect();
                    std::thread::yield_now();
                }
            }
            let expected: Vec<u64> = (0..500).map(|key| round * 1000 + key).collect();
            compare(&vec, &expected);
        });
    }
}

/// A vector of a million pointers in one buffer, changed all over while it is scanned.
#[test]
fn a_large_vec_is_scanned_while_it_changes() {
    const LEN: usize = 200_000;
    let heap = Heap::builder().poison(true).collect_continuously(true).build().unwrap();
    let held: Held = heap.enter(|mc| {
        let pairs = GcVec::from_iter(mc, (0..LEN as u64).map(|key| pair(mc, key)));
        mc.root(mc.alloc(Holder { pairs: GcMutex::new(pairs) }))
    });
    for round in 0..30u64 {
        Mode::Watched.step(&heap, |mc| {
            let holder = held.get(mc);
            let mut vec = holder.pairs.lock(mc);
            // Elements move from the end, which is scanned last, to the start, which has been.
            for index in 0..1000 {
                vec.swap(mc, index, LEN - 1 - (index * 7 + round as usize) % 1000);
            }
            let last = vec.pop(mc).unwrap();
            vec.insert(mc, 0, last);
        });
    }
    heap.enter(|mc| {
        let holder = held.get(mc);
        let mut keys: Vec<u64> = holder.pairs.lock(mc).iter().map(key_in).collect();
        keys.sort_unstable();
        assert!(keys.into_iter().eq(0..LEN as u64));
    });
}
