//! What goes wrong inside containers: panics of the user's code, forgotten guards, refusals, sizes at the edge,
//! two heaps in one process.

use crate::{Item, Mode, item, key_of};
use spanheap::{Gc, GcHashMap, GcRwLock, GcVec, Heap, Root, Rootable, Trace};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

fn panics(f: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(f)).is_err()
}

/// Fault row 30: objects of two heaps in one process are told apart by their brands (`tests/ui/api` has what the
/// compiler refuses). A root is the one thing that has no brand, and says so when it is opened in the wrong heap.
#[test]
fn fault_30_containers_of_two_heaps_do_not_mix() {
    let (one, other) = (Mode::Watched.heap(), Mode::Watched.heap());
    let held: Root<Rootable![Item]> = one.enter(|mc| mc.root(item(mc, 1)));
    one.enter(|mc| {
        let mut ours = GcVec::from_slice(mc, &[held.get(mc)]);
        other.enter(|other_mc| {
            let mut theirs = GcVec::from_slice(other_mc, &[item(other_mc, 2)]);
            assert!(panics(|| theirs.push(other_mc, held.get(other_mc))));
            assert_eq!(theirs.iter().map(|&item| key_of(item)).collect::<Vec<_>>(), [2]);
        });
        ours.push(mc, item(mc, 3));
        assert_eq!(ours.iter().map(|&item| key_of(item)).collect::<Vec<_>>(), [1, 3]);
    });
}

#[derive(Trace)]
struct Big<'gc> {
    first: Gc<'gc, Item>,
    rest: [u64; 500],
}

/// Fault row 37: a constructor that panics leaves a slot that nobody looks into, whether its type has pointers, a
/// destructor, or neither; a constructor may allocate, and ask for a cycle.
#[test]
fn fault_37_a_panic_in_a_constructor_leaves_no_object() {
    struct Counted<'a>(&'a AtomicU64);
    static DROPS: AtomicU64 = AtomicU64::new(0);
    #[derive(Trace)]
    #[trace(leaf)]
    struct Owner {
        #[trace(leaf)]
        _counted: Counted<'static>,
    }
    impl Drop for Counted<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    for mode in [Mode::Watched, Mode::Quiet] {
        let heap = mode.heap();
        for round in 0..40u64 {
            mode.step(&heap, |mc| {
                assert!(panics(|| {
                    mc.alloc_with(|| -> Big<'_> {
                        item(mc, round);
                        let _ = heap.collect();
                        panic!("the constructor of a type with pointers")
                    });
                }));
                assert!(panics(|| {
                    mc.alloc_with(|| -> Owner { panic!("of a type with a destructor") });
                }));
                assert!(panics(|| {
                    mc.alloc_with(|| -> [u64; 100] { panic!("of a type with neither") });
                }));
                let big = mc.alloc_with(|| Big { first: item(mc, round), rest: [round; 500] });
                assert_eq!(key_of(big.first) + big.rest[499], 2 * round);
                assert!(mc.try_alloc_with(|| Owner { _counted: Counted(&DROPS) }).is_ok());
            });
        }
        let _ = heap.collect();
        assert_eq!(heap.stats().live_objects, 0);
    }
    // Both heaps have gone, and each of the owners that were made was dropped once.
    assert_eq!(DROPS.load(Ordering::Relaxed), 80);
}

#[derive(Trace)]
struct Shared<'gc> {
    items: GcRwLock<'gc, GcVec<'gc, Gc<'gc, Item>>>,
}

/// A write guard that is forgotten keeps cycles from completing until the heap is dropped, and then all is
/// retained and released.
#[test]
fn a_forgotten_writer_does_not_keep_a_heap_from_its_end() {
    let heap = Heap::builder().poison(true).gc_percent_off().build().unwrap();
    let held: Root<Rootable![Shared<'_>]> = heap.enter(|mc| {
        let items = GcVec::from_iter(mc, (0..10).map(|key| item(mc, key)));
        let shared = mc.alloc(Shared { items: GcRwLock::new(items) });
        std::mem::forget(shared.items.write(mc));
        assert!(shared.items.try_read(mc).is_none());
        mc.root(shared)
    });
    // Inside a closure a cycle is requested only; it cannot complete.
    heap.enter(|_| assert_eq!(heap.collect(), spanheap::Collected::Requested));
    drop(heap);
    drop(held);
}

/// A panic under a lock gives it up and leaves the contents as they are.
#[test]
fn a_panic_under_a_lock_leaves_the_contents_as_they_are() {
    for mode in [Mode::Watched, Mode::Quiet] {
        let heap = mode.heap();
        mode.step(&heap, |mc| {
            let items = GcVec::from_iter(mc, (0..10).map(|key| item(mc, key)));
            let shared = mc.alloc(Shared { items: GcRwLock::new(items) });
            assert!(panics(|| {
                shared.items.write(mc).retain(mc, |item| match key_of(*item) {
                    7 => panic!("in the middle"),
                    key => key % 2 == 1,
                });
            }));
            let keys: Vec<u64> = shared.items.read(mc).iter().map(|&item| key_of(item)).collect();
            assert_eq!(keys, [1, 3, 5, 7, 8, 9]);
            assert!(panics(|| {
                shared.items.write(mc).sort_by(mc, |_, _| panic!("a comparison"));
            }));
            assert!(panics(|| {
                let mut left = 3;
                shared.items.write(mc).extend(
                    mc,
                    std::iter::from_fn(|| {
                        left -= 1;
                        assert!(left > 0, "an iterator");
                        Some(item(mc, 100 + left))
                    }),
                );
            }));
            let keys: Vec<u64> = shared.items.read(mc).iter().map(|&item| key_of(item)).collect();
            assert_eq!(keys, [1, 3, 5, 7, 8, 9, 102, 101]);
        });
    }
}

/// A key whose hash or equality panics.
#[derive(Clone, Copy, PartialOrd, Ord, Trace)]
struct Fickle(u64);

impl std::hash::Hash for Fickle {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        assert!(self.0 != 13, "a hash");
        state.write_u64(self.0 % 3);
    }
}

impl PartialEq for Fickle {
    fn eq(&self, other: &Fickle) -> bool {
        assert!(self.0 != 14 && other.0 != 14, "an equality");
        self.0 == other.0
    }
}

impl Eq for Fickle {}

#[test]
fn keys_that_panic_leave_a_map_as_it_is() {
    for mode in [Mode::Watched, Mode::Quiet] {
        let heap = mode.heap();
        mode.step(&heap, |mc| {
            let mut map = GcHashMap::from_iter(mc, (0..10).map(|key| (Fickle(key), item(mc, key))));
            let map: &mut GcHashMap<'_, Fickle, Gc<'_, Item>> = &mut map;
            for key in [13, 14] {
                assert!(panics(|| assert!(map.insert(mc, Fickle(key), item(mc, key)).is_none())));
                assert!(panics(|| assert!(map.remove(mc, &Fickle(key)).is_none())));
            }
            assert!(panics(|| map.retain(mc, |key, _| {
                assert!(key.0 % 3 != 2, "a condition");
                true
            })));
            assert!(panics(|| {
                map.entry(mc, Fickle(1)).and_modify(|_| panic!("a change")).or_insert(item(mc, 0));
            }));
            assert_eq!(map.len(), 10);
            assert!((0..10).all(|key| key_of(map[&Fickle(key)]) == key));
        });
    }
}

/// Refusals, at any size, change nothing.
#[test]
fn what_is_too_large_is_refused_and_nothing_changes() {
    let heap = Heap::builder().hard_limit(16 << 20).poison(true).build().unwrap();
    heap.enter(|mc| {
        let mut vec = GcVec::from_iter(mc, (0..100).map(|key| item(mc, key)));
        let capacity = vec.capacity();
        for additional in [4 << 20, usize::MAX / 16, usize::MAX / 8, usize::MAX / 2, usize::MAX] {
            assert!(vec.try_reserve(mc, additional).is_err(), "{additional}");
            assert!(GcVec::<u64>::try_with_capacity(mc, additional).is_err());
            let mut map = GcHashMap::<u64, u64>::new();
            map.insert(mc, 1, 2);
            assert!(map.try_reserve(mc, additional).is_err(), "{additional}");
            assert_eq!((map.len(), map[&1]), (1, 2));
        }
        assert_eq!((vec.len(), vec.capacity()), (100, capacity));
        assert!(vec.iter().map(|&item| key_of(item)).eq(0..100));

        // Filled to the limit: the last push that succeeds leaves a vector that is whole.
        let mut full = GcVec::new();
        while full.try_push(mc, full.len() as u64).is_ok() {}
        assert!(full.iter().copied().eq(0..full.len() as u64));
        let mut map = GcHashMap::<u64, u64>::new();
        while map.try_insert(mc, map.len() as u64, 1).is_ok() {}
        assert!((0..map.len() as u64).all(|key| map.contains_key(&key)));
        assert_eq!(
            map.try_insert(mc, 0, 5).ok(),
            Some(Some(1)),
            "a key that is there gets its value"
        );
    });
}

/// Capacities fill the slot that they get, and are counted to the byte.
#[test]
fn storage_fills_its_slot_at_every_size() {
    let heap = Heap::builder().gc_percent_off().build().unwrap();
    for capacity in (1..200).chain([1023, 1024, 1025, 4095, 4096, 4097, 100_000]) {
        heap.enter(|mc| {
            let mut vec = GcVec::<[u64; 3]>::with_capacity(mc, capacity);
            let room = vec.capacity();
            assert!(
                room >= capacity && room * 24 <= (capacity * 24 * 9 / 8).max(capacity * 24 + 8192)
            );
            for index in 0..room {
                vec.push(mc, [index as u64; 3]);
            }
            assert_eq!(vec.capacity(), room);
            assert!(vec.iter().enumerate().all(|(index, value)| *value == [index as u64; 3]));
        });
    }
    let before = heap.stats().allocated_bytes;
    heap.enter(|mc| GcVec::<u64>::with_capacity(mc, 1 << 17).len());
    assert_eq!(heap.stats().allocated_bytes - before, 1 << 20);
    let _ = heap.collect();
    assert_eq!(heap.stats().live_objects, 0);
}
