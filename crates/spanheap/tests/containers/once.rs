//! Fields that are set once: by one of many threads, by an initialiser that panics or fails, while cycles run.

use crate::{Item, Mode, item, key_of};
use spanheap::{Gc, GcOnce, GcVec, Heap, Root, Rootable, Trace};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Trace)]
struct Lazy<'gc> {
    item: GcOnce<'gc, Gc<'gc, Item>>,
    all: GcOnce<'gc, GcVec<'gc, Gc<'gc, Item>>>,
}

type Held = Root<Rootable![Lazy<'_>]>;

fn lazy(heap: &Heap) -> Held {
    heap.enter(|mc| mc.root(mc.alloc(Lazy { item: GcOnce::new(), all: GcOnce::new() })))
}

#[test]
fn one_of_many_threads_sets_the_field_and_all_see_its_value() {
    const THREADS: usize = 4;
    let heap = Heap::builder().poison(true).collect_continuously(true).build().unwrap();
    for round in 0..50 {
        let (held, calls, start) = (lazy(&heap), AtomicU64::new(0), Barrier::new(THREADS));
        let seen: Vec<u64> = std::thread::scope(|scope| {
            let work = |thread: u64| {
                let (heap, held, calls, start) = (&heap, &held, &calls, &start);
                move || {
                    start.wait();
                    heap.enter(|mc| {
                        let lazy = held.get(mc);
                        let item = lazy.item.get_or_init(mc, || {
                            calls.fetch_add(1, Ordering::Relaxed);
                            std::thread::yield_now();
                            item(mc, round * 10 + thread)
                        });
                        key_of(*item)
                    })
                }
            };
            let threads: Vec<_> = (0..THREADS as u64).map(|t| scope.spawn(work(t))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(calls.into_inner(), 1);
        assert!(seen.iter().all(|&key| key == seen[0]), "{seen:?}");
        let _ = heap.collect();
        assert_eq!(heap.enter(|mc| key_of(*held.get(mc).item.get().unwrap())), seen[0]);
    }
}

#[test]
fn a_field_is_set_once_and_keeps_its_value_alive() {
    for mode in [Mode::Watched, Mode::Quiet] {
        let heap = mode.heap();
        let held = lazy(&heap);
        mode.step(&heap, |mc| {
            let lazy = held.get(mc);
            assert!(lazy.item.get().is_none());
            assert!(lazy.item.set(mc, item(mc, 7)).is_ok());
            assert_eq!(lazy.item.set(mc, item(mc, 8)).map_err(key_of), Err(8));
            let all = GcVec::from_iter(mc, (0..100).map(|key| item(mc, key)));
            assert!(lazy.all.set(mc, all).is_ok());
        });
        let _ = heap.collect();
        let _ = heap.collect();
        assert_eq!(heap.stats().live_objects, 1 + 1 + 1 + 100);
        heap.enter(|mc| {
            let lazy = held.get(mc);
            assert_eq!(key_of(*lazy.item.get_or_init(mc, || unreachable!())), 7);
            assert!(lazy.all.get().unwrap().iter().map(|&item| key_of(item)).eq(0..100));
        });
    }
}

/// Fault row 37, for a field: an initialiser that panics leaves it empty, and whoever waits tries next.
#[test]
fn fault_37_an_initialiser_that_panics_leaves_the_field_empty() {
    let heap = Mode::Watched.heap();
    let held = lazy(&heap);
    let attempts = AtomicU64::new(0);
    let outcomes: Vec<bool> = std::thread::scope(|scope| {
        let work = || {
            let attempt = || {
                heap.enter(|mc| {
                    let init = || {
                        let attempt = attempts.fetch_add(1, Ordering::Relaxed);
                        assert!(attempt >= 2, "the first two initialisers panic");
                        item(mc, attempt)
                    };
                    key_of(*held.get(mc).item.get_or_init(mc, init))
                })
            };
            catch_unwind(AssertUnwindSafe(attempt)).is_ok()
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(outcomes.iter().filter(|&&ok| !ok).count(), 2);
    assert_eq!(attempts.into_inner(), 3);
    let _ = heap.collect();
    assert_eq!(heap.enter(|mc| key_of(*held.get(mc).item.get().unwrap())), 2);
}

#[test]
fn an_initialiser_that_fails_or_needs_its_own_result_is_told_so() {
    let heap = Mode::Quiet.heap();
    let held = lazy(&heap);
    heap.enter(|mc| {
        let lazy = held.get(mc);
        let failed = lazy.item.get_or_try_init(mc, || Err::<Gc<'_, Item>, _>("no"));
        assert_eq!(failed.map(|item| key_of(*item)), Err("no"));
        let own = AssertUnwindSafe(|| {
            lazy.item.get_or_init(mc, || *lazy.item.get_or_init(mc, || item(mc, 1)));
        });
        let message = catch_unwind(own).unwrap_err();
        assert!(message.downcast_ref::<&str>().unwrap().contains("initialiser of a GcOnce"));
        assert_eq!(key_of(*lazy.item.get_or_init(mc, || item(mc, 2))), 2);
    });
    heap.enter(|mc| {
        let once = GcOnce::<'_, String>::with_value("owned".into());
        assert_eq!(once.get().map(String::as_str), Some("owned"));
        assert_eq!(once.into_inner().as_deref(), Some("owned"));
        mc.alloc(GcOnce::<'_, String>::with_value("dropped by the heap".into()));
    });
    let _ = heap.collect();
}

/// A closure that waits for an initialiser does not keep a cycle from going on in others, and an initialiser
/// may ask for a cycle.
#[test]
fn an_initialiser_may_ask_for_a_cycle() {
    let heap = Mode::Watched.heap();
    let held = lazy(&heap);
    heap.enter(|mc| {
        let lazy = held.get(mc);
        let made = lazy.item.get_or_init(mc, || {
            let _ = heap.collect();
            item(mc, 3)
        });
        assert_eq!(key_of(*made), 3);
    });
    let _ = heap.collect();
    assert_eq!(heap.enter(|mc| key_of(*held.get(mc).item.get().unwrap())), 3);
}
