//! Threads share containers under locks, and cells.

use crate::{Item, Mode, item, key_of};
use spanheap::{Gc, GcCell, GcHashMap, GcRwLock, GcVec, Heap, Root, Rootable, Trace};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

#[derive(Trace)]
struct Table<'gc> {
    map: GcRwLock<'gc, GcHashMap<'gc, u64, Gc<'gc, Item>>>,
    log: GcRwLock<'gc, GcVec<'gc, Gc<'gc, Item>>>,
}

type Held = Root<Rootable![Table<'_>]>;

fn table(heap: &Heap) -> Held {
    heap.enter(|mc| {
        let (map, log) = (GcRwLock::new(GcHashMap::new()), GcRwLock::new(GcVec::new()));
        mc.root(mc.alloc(Table { map, log }))
    })
}

/// Each key belongs to one writer, who knows what it must hold. Readers find either nothing or the right item,
/// and readers of two entries of one writer find them of the same round.
#[test]
fn threads_share_a_map_that_is_read_and_written_while_cycles_run() {
    const WRITERS: u64 = 2;
    const KEYS: u64 = 50;
    const ROUNDS: u64 = 150;
    let heap = Mode::Watched.heap();
    let held = table(&heap);
    let (done, reads) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let (heap, held, done, reads) = (&heap, &held, &done, &reads);
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                scope.spawn(move || {
                    for round in 0..ROUNDS {
                        heap.enter(|mc| {
                            let table = held.get(mc);
                            let mut map = table.map.write(mc);
                            for key in 0..KEYS {
                                let key = key * WRITERS + writer;
                                let old = map.insert(mc, key, item(mc, key + round * 1000));
                                let before = old.map(|old| key_of(old) / 1000);
                                assert_eq!(
                                    before,
                                    round.checked_sub(1).filter(|_| round % 10 != 1)
                                );
                            }
                            if round % 10 == 0 {
                                map.retain(mc, |key, _| key % WRITERS != writer);
                            }
                            let last = item(mc, round);
                            table.log.write(mc).push(mc, last);
                        });
                    }
                })
            })
            .collect();
        let reader = move || {
            while !done.load(Ordering::Relaxed) {
                heap.enter(|mc| {
                    let map = held.get(mc).as_ref().map.read(mc);
                    let mut rounds: HashMap<u64, u64> = HashMap::new();
                    for (&key, &item) in &*map {
                        assert_eq!(key_of(item) % 1000, key);
                        let round = rounds.entry(key % WRITERS).or_insert(item.key / 1000);
                        assert_eq!(*round, item.key / 1000, "half a change was read");
                    }
                });
                reads.fetch_add(1, Ordering::Relaxed);
            }
        };
        let readers = [scope.spawn(reader), scope.spawn(reader)];
        writers.into_iter().for_each(|thread| thread.join().unwrap());
        // Readers have been at work, however the threads were scheduled.
        while reads.load(Ordering::Relaxed) < 10 {
            std::thread::yield_now();
        }
        done.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|thread| thread.join().unwrap());
    });
    heap.enter(|mc| {
        let log = held.get(mc).as_ref().log.read(mc);
        let mut rounds: Vec<u64> = log.iter().map(|&item| key_of(item)).collect();
        rounds.sort_unstable();
        let expected: Vec<u64> = (0..ROUNDS * WRITERS).map(|n| n / WRITERS).collect();
        assert_eq!(rounds, expected);
    });
}

/// The collector reads along with readers: a cycle completes while a read guard is held, in another closure than
/// the one that it waits for.
#[test]
fn readers_do_not_keep_the_collector_from_the_contents() {
    let heap = Heap::builder().poison(true).gc_percent_off().build().unwrap();
    let held = table(&heap);
    heap.enter(|mc| {
        let table = held.get(mc);
        table.map.write(mc).insert(mc, 1, item(mc, 1));
        std::mem::forget(table.map.read(mc));
    });
    let _ = heap.collect();
    assert!(!heap.stats().retained_everything);
    assert_eq!(heap.stats().live_objects, 3);
    heap.enter(|mc| {
        let table = held.get(mc);
        assert!(table.map.try_write(mc).is_none(), "the forgotten reader is still there");
        assert_eq!(key_of(table.map.read(mc)[&1]), 1);
    });
}

#[derive(Debug, Trace)]
struct Link<'gc> {
    item: Gc<'gc, Item>,
    next: Option<Gc<'gc, Link<'gc>>>,
}

#[derive(Trace)]
struct Stack<'gc> {
    top: GcCell<'gc, Option<Gc<'gc, Link<'gc>>>>,
}

/// A stack without locks: what is pushed is popped once, whatever comes in between.
#[test]
fn a_stack_of_compared_and_exchanged_pointers_loses_and_doubles_nothing() {
    const THREADS: u64 = 3;
    const EACH: u64 = 2000;
    let heap = Mode::Watched.heap();
    let stack: Root<Rootable![Stack<'_>]> =
        heap.enter(|mc| mc.root(mc.alloc(Stack { top: GcCell::new(None) })));
    let sum = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let (heap, stack, sum) = (&heap, &stack, &sum);
        let work = move |thread: u64| {
            for number in 0..EACH {
                heap.enter(|mc| {
                    let (top, item) = (&stack.get(mc).as_ref().top, item(mc, number * 8 + thread));
                    let pushed =
                        top.fetch_update(mc, |next| Some(Some(mc.alloc(Link { item, next }))));
                    assert!(pushed.is_ok());
                    if number % 3 != 0 {
                        let popped = top.fetch_update(mc, |top| Some(top?.next)).unwrap();
                        sum.fetch_add(key_of(popped.unwrap().item), Ordering::Relaxed);
                    }
                });
            }
        };
        let threads: Vec<_> =
            (0..THREADS).map(|thread| scope.spawn(move || work(thread))).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    heap.enter(|mc| {
        let mut rest = stack.get(mc).top.take(mc);
        while let Some(link) = rest {
            sum.fetch_add(key_of(link.item), Ordering::Relaxed);
            rest = link.next;
        }
        assert!(stack.get(mc).top.get().is_none());
    });
    let all: u64 = (0..THREADS).flat_map(|t| (0..EACH).map(move |n| n * 8 + t)).sum();
    assert_eq!(sum.into_inner(), all);
}

#[test]
fn cells_exchange_what_they_are_told_to() {
    let heap = Mode::Quiet.heap();
    heap.enter(|mc| {
        let (a, b) = (item(mc, 1), item(mc, 2));
        let cell = GcCell::new(Some(a));
        let found = cell.compare_exchange(mc, Some(b), None).unwrap_err();
        assert_eq!(found.map(key_of), Some(1));
        assert!(cell.compare_exchange(mc, None, Some(b)).is_err());
        assert_eq!(cell.compare_exchange(mc, Some(a), Some(b)).unwrap().map(key_of), Some(1));
        assert_eq!(cell.replace(mc, None).map(key_of), Some(2));
        assert_eq!(cell.fetch_update(mc, |_| None).unwrap_err().map(key_of), None);
        assert!(cell.compare_exchange(mc, None, Some(a)).unwrap().is_none());
        assert_eq!(cell.take(mc).map(key_of), Some(1));
        assert!(cell.into_inner().is_none());
    });
}

/// The pointer that an exchange takes out of an object is retained for the closure that has it, and for where it
/// puts it: it is hidden from the collector behind what was scanned already.
#[test]
fn what_an_exchange_takes_out_is_handed_to_the_collector() {
    #[derive(Trace)]
    struct Slots<'gc> {
        slots: Gc<'gc, [GcCell<'gc, Option<Gc<'gc, Item>>>]>,
    }
    let heap = Mode::Watched.heap();
    let held: Root<Rootable![Slots<'_>]> = heap.enter(|mc| {
        let slots = mc.alloc_slice((0..64u32).map(|key| GcCell::new(Some(item(mc, key.into())))));
        mc.root(mc.alloc(Slots { slots }))
    });
    for round in 0..300 {
        Mode::Watched.step(&heap, |mc| {
            let slots = held.get(mc).slots;
            let (from, to) = (round * 7 % 64, round * 13 % 64);
            let moved = slots[from].get();
            let other = slots[to].get();
            slots[from].compare_exchange(mc, moved, other).unwrap();
            slots[to].replace(mc, moved);
            let mut keys: Vec<u64> =
                slots.as_ref().iter().map(|slot| key_of(slot.get().unwrap())).collect();
            keys.sort_unstable();
            assert!(keys.into_iter().eq(0..64));
        });
    }
}
