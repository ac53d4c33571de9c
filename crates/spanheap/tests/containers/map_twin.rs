//! A `GcHashMap` with strings in the heap for keys and a `HashMap` do the same.

use crate::{Item, Mode, item, key_of};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use spanheap::{Gc, GcHashMap, GcRwLock, Heap, Mutator, Root, Rootable, Trace};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher, Hasher};

/// A hasher whose numbers do not differ from run to run.
type Fixed = BuildHasherDefault<DefaultHasher>;

/// A hasher that knows four numbers: nearly all keys collide.
#[derive(Default)]
struct Poor(u64);

impl Hasher for Poor {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |sum, &byte| sum.wrapping_add(u64::from(byte)));
    }

    fn finish(&self) -> u64 {
        self.0 % 4
    }
}

type Map<'gc, S> = GcHashMap<'gc, Gc<'gc, str>, Option<Gc<'gc, Item>>, S>;

#[derive(Trace)]
struct Holder<'gc, S: Send + Sync + 'static> {
    map: GcRwLock<'gc, Map<'gc, S>>,
}

#[derive(Clone, Debug)]
enum Op {
    Insert(u64, u64),
    Remove(u64),
    Entry(u64, u64),
    EntryRemove(u64),
    Retain(u64),
    Extend(Vec<(u64, u64)>),
    Clear,
    Shrink,
    Reserve(usize),
    Collect,
}

fn op() -> impl Strategy<Value = Op> {
    let (key, value) = (0u64..60, 0u64..1000);
    prop_oneof![
        6 => (key.clone(), value.clone()).prop_map(|(key, value)| Op::Insert(key, value)),
        5 => key.clone().prop_map(Op::Remove),
        3 => (key.clone(), value.clone()).prop_map(|(key, value)| Op::Entry(key, value)),
        2 => key.clone().prop_map(Op::EntryRemove),
        1 => (2u64..5).prop_map(Op::Retain),
        1 => proptest::collection::vec((key, value), 0..40).prop_map(Op::Extend),
        1 => Just(Op::Clear),
        1 => Just(Op::Shrink),
        1 => (0usize..100).prop_map(Op::Reserve),
        2 => Just(Op::Collect),
    ]
}

fn name(key: u64) -> String {
    format!("the name of {key}")
}

fn value_of<'gc>(mc: &Mutator<'gc>, value: u64) -> Option<Gc<'gc, Item>> {
    (value % 5 != 0).then(|| item(mc, value))
}

fn number(value: Option<Gc<'_, Item>>) -> Option<u64> {
    value.map(key_of)
}

/// What the twin has for a value.
fn twin_of(value: u64) -> Option<u64> {
    (value % 5 != 0).then_some(value)
}

type Twin = HashMap<String, Option<u64>>;

fn apply<'gc, S: std::hash::BuildHasher>(
    mc: &Mutator<'gc>,
    op: &Op,
    map: &mut Map<'gc, S>,
    twin: &mut Twin,
) {
    let text = |key| mc.alloc_str(&name(key));
    match *op {
        Op::Insert(key, value) => {
            let old = map.insert(mc, text(key), value_of(mc, value));
            assert_eq!(old.map(number), twin.insert(name(key), twin_of(value)));
        }
        Op::Remove(key) => {
            assert_eq!(map.remove(mc, name(key).as_str()).map(number), twin.remove(&name(key)));
        }
        Op::Entry(key, value) => {
            let entry = map.entry(mc, text(key)).and_modify(|value| *value = None);
            let found = number(*entry.or_insert(value_of(mc, value)));
            let twin = twin.entry(name(key)).and_modify(|value| *value = None);
            assert_eq!(found, *twin.or_insert(twin_of(value)));
        }
        Op::EntryRemove(key) => {
            let removed = match map.entry(mc, text(key)) {
                spanheap::map::Entry::Occupied(entry) => Some(number(entry.remove())),
                spanheap::map::Entry::Vacant(_) => None,
            };
            assert_eq!(removed, twin.remove(&name(key)));
        }
        Op::Retain(of) => {
            map.retain(mc, |key, _| key.len() as u64 % of != 0);
            twin.retain(|key, _| key.len() as u64 % of != 0);
        }
        Op::Extend(ref entries) => {
            map.extend(mc, entries.iter().map(|&(key, value)| (text(key), value_of(mc, value))));
            twin.extend(entries.iter().map(|&(key, value)| (name(key), twin_of(value))));
        }
        Op::Clear => {
            map.clear(mc);
            twin.clear();
        }
        Op::Shrink => map.shrink_to_fit(mc),
        Op::Reserve(more) => {
            map.reserve(mc, more);
            assert!(map.capacity() >= map.len() + more);
        }
        Op::Collect => {}
    }
}

fn compare<S: std::hash::BuildHasher>(map: &Map<'_, S>, twin: &Twin) {
    assert_eq!(map.len(), twin.len());
    assert_eq!(map.iter().len(), twin.len());
    // A map that is empty has all of its room, or no storage.
    assert!(!twin.is_empty() || map.capacity() == 0 || map.capacity() >= 6, "{}", map.capacity());
    let found: Twin = map.iter().map(|(key, &value)| (key.to_string(), number(value))).collect();
    assert_eq!(&found, twin);
    for key in 0..60 {
        let found = map.get(name(key).as_str()).map(|&value| number(value));
        assert_eq!(found.as_ref(), twin.get(&name(key)));
        assert_eq!(map.contains_key(name(key).as_str()), twin.contains_key(&name(key)));
    }
}

type Held<S> = Root<Rootable!['gc => Holder<'gc, S>]>;

fn run<S>(mode: Mode, heap: &Heap, ops: &[Op])
where
    S: std::hash::BuildHasher + Default + Trace + Send + Sync + 'static,
{
    let held: Held<S> = heap.enter(|mc| {
        mc.root(mc.alloc(Holder { map: GcRwLock::new(GcHashMap::with_hasher(S::default())) }))
    });
    let mut twin = Twin::new();
    for op in ops {
        if let Op::Collect = op {
            let _ = heap.collect();
        }
        mode.step(heap, |mc| {
            let holder = held.get(mc);
            apply(mc, op, &mut holder.map.write(mc), &mut twin);
            compare(&holder.map.read(mc), &twin);
        });
    }
    let _ = heap.collect();
    let _ = heap.collect();
    let (live, storage) = (
        heap.stats().live_objects,
        heap.enter(|mc| u64::from(held.get(mc).map.read(mc).capacity() > 0)),
    );
    let values = twin.values().flatten().count() as u64;
    assert_eq!(
        live,
        1 + storage + twin.len() as u64 + values,
        "what was removed is still retained"
    );
}

fn check<S>(mode: Mode, cases: u32, steps: usize)
where
    S: std::hash::BuildHasher + Default + Trace + Send + Sync + 'static,
{
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    // The seed is fixed: the generator's own.
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let heap = mode.heap();
    let result = runner.run(&proptest::collection::vec(op(), 1..steps), |ops| {
        run::<S>(mode, &heap, &ops);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{mode:?}: {error}"));
}

#[test]
fn a_map_and_its_twin_agree_while_cycles_run() {
    check::<Fixed>(Mode::Watched, 5, 40);
}

#[test]
fn a_map_and_its_twin_agree_between_cycles() {
    check::<Fixed>(Mode::Quiet, 24, 150);
}

#[test]
fn a_map_whose_keys_nearly_all_collide_and_its_twin_agree() {
    check::<BuildHasherDefault<Poor>>(Mode::Quiet, 16, 100);
}

/// Entries that come and go do not fill a map with what was removed.
#[test]
fn a_map_of_few_entries_stays_small_however_many_pass_through() {
    let heap = Mode::Quiet.heap();
    heap.enter(|mc| {
        let mut map = GcHashMap::<u64, u64, Fixed>::default();
        for key in 0..100_000 {
            map.insert(mc, key, !key);
            if key >= 10 {
                assert_eq!(map.remove(mc, &(key - 10)), Some(!(key - 10)));
            }
        }
        assert_eq!(map.len(), 10);
        assert!(map.capacity() <= 48, "{}", map.capacity());
    });
}

type Numbers<'gc> = GcRwLock<'gc, GcHashMap<'gc, u64, u64, Fixed>>;

/// What was removed takes no room in a map without entries, whatever the order was in which entries came and
/// went. So a map whose room is 0 has no storage, and who counts objects may rely on it.
#[test]
fn an_empty_map_has_all_of_its_room() {
    let heap = Mode::Quiet.heap();
    let held: Root<Rootable![Numbers<'_>]> =
        heap.enter(|mc| mc.root(mc.alloc(GcRwLock::new(GcHashMap::default()))));
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |bound: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random >> 33) as usize % bound
    };
    let (mut emptied, mut next) = (0, 0);
    for _ in 0..20 {
        heap.enter(|mc| {
            let mut map = held.get(mc).as_ref().write(mc);
            let mut keys = Vec::new();
            for _ in 0..2000 {
                // Six keys are all that the smallest storage has room for.
                if keys.len() < 6 && below(2) == 0 {
                    next += 1;
                    keys.push(next);
                    map.insert(mc, next, !next);
                } else if !keys.is_empty() {
                    let key = keys.swap_remove(below(keys.len()));
                    assert_eq!(map.remove(mc, &key), Some(!key));
                    emptied += usize::from(keys.is_empty());
                }
                assert!(map.len() == keys.len() && map.capacity() >= keys.len());
                assert!(next == 0 || !keys.is_empty() || map.capacity() >= 6, "after {next}");
            }
            keys.iter().for_each(|key| _ = map.remove(mc, key));
        });
        assert_eq!(heap.collect(), spanheap::Collected::Complete);
        assert_eq!(heap.stats().live_objects, 2, "the map and its storage");
        heap.enter(|mc| assert!(held.get(mc).as_ref().read(mc).capacity() >= 6));
    }
    assert!(emptied > 1000, "{emptied}");
    heap.enter(|mc| held.get(mc).as_ref().write(mc).shrink_to_fit(mc));
    let _ = heap.collect();
    assert_eq!(heap.collect(), spanheap::Collected::Complete);
    assert_eq!(heap.stats().live_objects, 1, "the map");
    heap.enter(|mc| assert_eq!(held.get(mc).as_ref().read(mc).capacity(), 0));
}
