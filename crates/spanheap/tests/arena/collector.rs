//! Arenas and the collector: objects that only an arena holds survive as long as the closure is open, and arenas
//! cause no cycles.

use spanheap::{Gc, GcCell, Heap, Root, Rootable, Trace};
use std::cell::Cell;

#[derive(Trace)]
struct Node<'gc> {
    key: u64,
    canary: u64,
    next: GcCell<'gc, Option<Gc<'gc, Node<'gc>>>>,
}

fn canary(key: u64) -> u64 {
    key.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5555
}

fn node<'gc>(
    mc: &spanheap::Mutator<'gc>,
    key: u64,
    next: Option<Gc<'gc, Node<'gc>>>,
) -> Gc<'gc, Node<'gc>> {
    mc.alloc(Node { key, canary: canary(key), next: GcCell::new(next) })
}

fn check(node: Gc<'_, Node<'_>>) {
    assert_eq!(node.canary, canary(node.key), "an object was freed while an arena held it");
}

/// A list is taken over from the heap into an arena, edge by edge: the heap forgets it. New objects are made that only
/// the arena knows. Then the heap gets all of it back, while cycles run one after the other.
#[test]
fn objects_that_only_an_arena_holds_live_while_the_closure_is_open() {
    const LENGTH: u64 = 60;
    let heap =
        Heap::builder().collect_continuously(true).checkmark(true).poison(true).build().unwrap();
    let head: Root<Rootable![Node<'_>]> = heap.enter(|mc| mc.root(node(mc, 0, None)));
    let mut watched = 0;
    for round in 0..400_u64 {
        heap.enter(|mc| {
            watched += u64::from(mc.is_collecting());
            let head = head.get(mc);
            mc.arena(|arena| {
                let mut taken = Vec::new();
                while let Some(node) = head.next.get() {
                    // The only pointer to the rest is in the arena now, in a cell without a barrier.
                    head.next.set(mc, node.next.get());
                    node.next.set(mc, None);
                    taken.push(&*arena.alloc(Cell::new(Some(node))));
                }
                assert_eq!(taken.len() as u64, if round == 0 { 0 } else { LENGTH });
                let fresh = (0..LENGTH).map(|key| &*arena.alloc((key, Cell::new(None))));
                let fresh: Vec<_> = fresh.collect();
                for (key, cell) in &fresh {
                    cell.set(Some(node(mc, *key, None)));
                }
                // Garbage, so that slots are taken and spans change hands.
                for key in 0..300 {
                    check(node(mc, key, None));
                }
                taken.iter().for_each(|cell| check(cell.get().unwrap()));
                for (key, cell) in fresh {
                    let (new, old) = (cell.take().unwrap(), taken.get(*key as usize));
                    check(new);
                    // Every other one of the old ones goes back.
                    let back = match old.and_then(|old| old.take()) {
                        Some(old) if (key + round) % 2 == 0 => old,
                        _ => new,
                    };
                    back.next.set(mc, head.next.get());
                    head.next.set(mc, Some(back));
                }
            });
        });
    }
    let _ = heap.collect();
    heap.enter(|mc| {
        let mut count = 0;
        let mut link = head.get(mc).next.get();
        while let Some(node) = link {
            check(node);
            (count, link) = (count + 1, node.next.get());
        }
        assert_eq!(count, LENGTH);
    });
    assert!(watched > 0, "no closure found a cycle running");
}

/// What a closure has found, as a list.
struct Held<'a, 'gc> {
    found: Option<Gc<'gc, Node<'gc>>>,
    before: Option<&'a Held<'a, 'gc>>,
}

/// A closure stays open, with an arena, while cycles wait for it: it sees all that it holds.
#[test]
fn an_arena_is_open_while_other_threads_make_garbage() {
    let heap =
        Heap::builder().collect_continuously(true).checkmark(true).poison(true).build().unwrap();
    let shared: Root<Rootable![GcCell<'_, Option<Gc<'_, Node<'_>>>>]> =
        heap.enter(|mc| mc.root(mc.alloc(GcCell::new(None))));
    std::thread::scope(|s| {
        for thread in 0..3_u64 {
            let (heap, shared) = (&heap, &shared);
            s.spawn(move || {
                for round in 0..300 {
                    heap.enter(|mc| {
                        mc.arena(|arena| {
                            let cell = shared.get(mc);
                            let mut held = None;
                            for key in 0..40 {
                                let found = cell.get();
                                held = Some(&*arena.alloc(Held { found, before: held }));
                                cell.set(
                                    mc,
                                    Some(node(mc, thread * 1_000_000 + round * 1000 + key, None)),
                                );
                            }
                            let mut link = held;
                            while let Some(&Held { found, before }) = link {
                                found.iter().for_each(|&node| check(node));
                                link = before;
                            }
                        });
                    });
                }
            });
        }
    });
    let _ = heap.collect();
    assert!(heap.stats().live_objects <= 2);
}

/// A gigabyte passes through arenas of a heap that would have run a dozen cycles for as many objects.
#[test]
fn arenas_cause_no_cycles() {
    let heap = Heap::new();
    for _ in 0..100 {
        heap.enter(|mc| {
            mc.arena(|arena| {
                for n in 0..160_000_u64 {
                    arena.alloc([n; 8]);
                }
                assert!(heap.stats().manual_bytes >= 10 << 20);
            });
        });
    }
    let stats = heap.stats();
    assert_eq!((stats.cycles, stats.allocated_bytes), (0, 0));
    assert!(stats.manual_bytes <= 1 << 20, "{}", stats.manual_bytes);
}

/// The collector does not look into arenas: what an arena held is garbage when the closure has ended.
#[test]
fn what_an_arena_held_dies_with_it() {
    let heap = Heap::builder().gc_percent_off().checkmark(true).build().unwrap();
    heap.enter(|mc| {
        mc.arena(|arena| {
            arena.alloc_slice_fill_with(1000, |key| node(mc, key as u64, None));
        });
    });
    let _ = heap.collect();
    assert_eq!(heap.stats().live_objects, 0);
}
