//! Rows 47 to 56 of the fault matrix. That types with destructors are refused (56) is shown in
//! `tests/ui/shared_arena`, too, and what becomes of accesses through bare addresses in the core's tests.

use crate::kernel::Probe;
use crate::{
    Mortal, Node, NodeRoot, Tally, collect, done, heap, object, refusal, settle, with_value,
};
use spanheap::{ArenaGc, Gc, GcCell, Heap, Root, Rootable, SharedArena, Trace};
use spanheap_core::addr::Addr;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};

#[test]
fn fault_47_a_second_free_is_always_detected() {
    let heap = heap();
    let named = heap.shared_arena_builder().name("twice").build();
    let (filled, _root) = with_value(&heap);
    for arena in [named, filled] {
        arena.free();
        for _ in 0..3 {
            let heard = refusal(|| arena.free());
            assert!(heard.starts_with("arena double free: SharedArena("), "{heard}");
            assert!(arena.try_free().is_err());
            collect(&heap);
        }
        drop(arena); // which is no second free
    }
    assert_eq!(heap.stats().arenas.freed, 2);
}

#[test]
fn fault_47_of_several_threads_that_free_one_succeeds() {
    const THREADS: usize = 4;
    let heap = heap();
    for _ in 0..200 {
        let (arena, root) = with_value(&heap);
        let (start, freed) = (Barrier::new(THREADS), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    start.wait();
                    if arena.try_free().is_ok() {
                        freed.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(freed.into_inner(), 1);
        assert!(heap.enter(|mc| root.get(mc).value.get().unwrap().get(mc).is_none()));
    }
    assert_eq!(heap.stats().arenas.freed, 200);
}

/// Pointers to every kind of value, spread over several chunks and parts of chunks.
#[derive(Trace)]
struct Everywhere<'gc> {
    nodes: Vec<ArenaGc<'gc, Node<'gc>>>,
    bytes: Vec<ArenaGc<'gc, u8>>,
    texts: Vec<ArenaGc<'gc, str>>,
    large: Vec<ArenaGc<'gc, [u64]>>,
    pointers: ArenaGc<'gc, [GcCell<'gc, Option<Gc<'gc, u64>>>]>,
}

fn everywhere(heap: &Heap, arena: &SharedArena, count: usize) -> Root<Rootable![Everywhere<'_>]> {
    heap.enter(|mc| {
        let to = arena.writer(mc);
        let everywhere = Everywhere {
            nodes: (0..count as u64).map(|id| to.alloc(Node::new(id))).collect(),
            bytes: (0..count).map(|n| to.alloc(n as u8)).collect(),
            texts: (0..count).map(|n| to.alloc_str(&n.to_string())).collect(),
            large: [100_000, 1_000_000].map(|len| to.alloc_zeroed(len)).into(),
            pointers: to.alloc_zeroed(400_000),
        };
        mc.root(mc.alloc(everywhere))
    })
}

impl<'gc> Everywhere<'gc> {
    /// How many values are there, and how many there are not.
    fn seen(&self, mc: &spanheap::Mutator<'gc>) -> (usize, usize) {
        let mut seen = (0, 0);
        let mut note = |there: bool| match there {
            true => seen.0 += 1,
            false => seen.1 += 1,
        };
        self.nodes.iter().for_each(|node| note(node.get(mc).map(Node::check).is_some()));
        self.bytes.iter().for_each(|byte| note(byte.get(mc).is_some()));
        self.texts.iter().for_each(|text| note(text.get(mc).is_some_and(|text| !text.is_empty())));
        self.large.iter().for_each(|large| note(large.get(mc).is_some()));
        note(self.pointers.get(mc).is_some());
        seen
    }

    /// The first and the last byte of every value.
    fn addresses(&self) -> Vec<usize> {
        fn ends(start: *const (), bytes: usize) -> [usize; 2] {
            [start.addr(), start.addr() + bytes.max(1) - 1]
        }
        let mut all = Vec::new();
        let slices =
            self.large.iter().map(|large| (large.as_ptr().cast(), large.as_ptr().len() * 8));
        all.extend(self.nodes.iter().map(|node| (node.as_ptr().cast(), size_of::<Node<'_>>())));
        all.extend(self.bytes.iter().map(|byte| (byte.as_ptr().cast(), 1)));
        all.extend(self.texts.iter().map(|text| (text.as_ptr().cast(), text.as_ptr().len_bytes())));
        all.extend(slices);
        all.push((self.pointers.as_ptr().cast(), self.pointers.as_ptr().len() * 8));
        all.into_iter().flat_map(|(start, bytes)| ends(start, bytes)).collect()
    }
}

/// The length of a string whose bytes may be gone.
trait LenBytes {
    fn len_bytes(self) -> usize;
}

impl LenBytes for *const str {
    fn len_bytes(self) -> usize {
        (self as *const [u8]).len()
    }
}

#[test]
fn fault_48_a_freed_value_is_none_wherever_it_lies() {
    let heap = heap();
    for count in [1, 100, 5000] {
        let arena = heap.shared_arena();
        let root = everywhere(&heap, &arena, count);
        let all = 3 * count + 3;
        let seen = || heap.enter(|mc| root.get(mc).seen(mc));
        assert_eq!(seen(), (all, 0));
        collect(&heap);
        assert_eq!(seen(), (all, 0));
        arena.free();
        assert_eq!(seen(), (0, all), "at once");
        for _ in 0..4 {
            collect(&heap);
            assert_eq!(seen(), (0, all), "and for ever");
        }
    }
}

#[test]
fn fault_48_every_byte_of_a_freed_arena_faults_when_its_memory_is_gone() {
    let heap = heap();
    let probe = Probe::new();
    for count in [1, 1000] {
        let arena = heap.shared_arena();
        let root = everywhere(&heap, &arena, count);
        let addresses = heap.enter(|mc| root.get(mc).addresses());
        let readable =
            || addresses.iter().filter(|&&at| probe.read(Addr::new(at)).is_some()).count();
        assert_eq!(readable(), addresses.len());
        arena.free();
        collect(&heap);
        assert_eq!(readable(), 0, "partial chunks and chunks beside included");
        // As long as there are pointers, nobody else gets these addresses.
        collect(&heap);
        assert_eq!(readable(), 0);
        assert!(heap.stats().arenas.quarantined_bytes > 0);
    }
}

#[test]
fn fault_49_free_during_marking_leaves_what_a_closure_holds() {
    let heap = Heap::builder().collect_continuously(true).checkmark(true).poison(true);
    let heap = heap.build().unwrap();
    let witness = object(&heap, 9);
    for round in 0..300_u64 {
        let (arena, root) = with_value(&heap);
        let inner: Root<Rootable![ArenaGc<'_, Node<'_>>]> = heap.enter(|mc| {
            let inner = arena.alloc(mc, Node::leading(3, Some(mc.alloc(Node::new(round))), None));
            root.get(mc).value.get().unwrap().get(mc).unwrap().value.set(mc, Some(inner));
            mc.root(mc.alloc(inner))
        });
        // The closure begins in any phase, and goes on through those that may come while it is open.
        heap.enter(|mc| {
            let value = root.get(mc).value.get().unwrap().get(mc).unwrap();
            let inner = inner.get(mc).get(mc).unwrap();
            arena.free();
            assert!(root.get(mc).value.get().unwrap().get(mc).is_none());
            if round % 3 == 0 {
                std::thread::sleep(std::time::Duration::from_micros(200));
            }
            // What was had before is whole, and what it leads to goes into the heap and stays.
            assert_eq!((value.check(), inner.check()), (1, 3));
            let object = inner.object.take(mc).unwrap();
            witness.get(mc).object.set(mc, Some(object));
        });
        heap.enter(|mc| assert_eq!(witness.get(mc).object.get().unwrap().check(), round));
    }
}

#[test]
fn fault_50_free_while_another_thread_reads() {
    let heap = Heap::builder().collect_continuously(true).poison(true).build().unwrap();
    for _ in 0..20 {
        let arena = heap.shared_arena();
        let list: NodeRoot = heap.enter(|mc| {
            let to = arena.writer(mc);
            let mut first = None;
            for id in 0..2000 {
                first = Some(to.alloc(Node::leading(id, None, first)));
            }
            mc.root(mc.alloc(Node::leading(0, None, first)))
        });
        let start = Barrier::new(3);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    start.wait();
                    // Reads until there is nothing any more: whole nodes, or none.
                    while heap.enter(|mc| {
                        let mut held = Vec::new();
                        let mut next = list.get(mc).value.get();
                        let mut last = None;
                        while let Some(node) = next.and_then(|next| next.get(mc)) {
                            let id = node.check();
                            assert!(last.is_none_or(|last| last == id + 1));
                            (last, next) = (Some(id), node.value.get());
                            held.push(node);
                        }
                        // What was had stays whole until the closure ends.
                        assert!((0..2000).rev().zip(&held).all(|(id, node)| node.check() == id));
                        !held.is_empty()
                    }) {}
                });
            }
            start.wait();
            std::thread::yield_now();
            arena.free();
        });
    }
}

#[test]
fn fault_51_both_directions_are_traced_and_end_when_the_arena_is_freed() {
    let (heap, tally) = (heap(), Tally::default());
    let arena = heap.shared_arena();
    #[derive(Trace)]
    struct Holder<'gc> {
        mortal: Gc<'gc, Mortal>,
        next: GcCell<'gc, Option<ArenaGc<'gc, Holder<'gc>>>>,
    }
    let root: Root<Rootable![Holder<'_>]> = heap.enter(|mc| {
        let value =
            |next| arena.alloc(mc, Holder { mortal: tally.object(mc), next: GcCell::new(next) });
        let inner = value(None);
        let next = GcCell::new(Some(value(Some(inner))));
        mc.root(mc.alloc(Holder { mortal: tally.object(mc), next }))
    });
    collect(&heap);
    collect(&heap);
    assert_eq!((tally.get(), heap.stats().live_objects), (0, 4));
    arena.free();
    heap.enter(|mc| assert!(root.get(mc).next.get().unwrap().get(mc).is_none()));
    collect(&heap);
    tally.wait_for(2);
    assert_eq!(heap.stats().live_objects, 2);
}

#[test]
fn fault_52_an_arena_that_nobody_frees_is_reclaimed_when_it_is_unreachable() {
    let heap = heap();
    for _ in 0..50 {
        let (arena, root) = with_value(&heap);
        heap.enter(|mc| done(arena.alloc_zeroed::<u8>(mc, 100_000)));
        arena.abandon();
        drop(root);
    }
    collect(&heap);
    let stats = heap.stats().arenas;
    assert_eq!((stats.made, stats.freed, stats.live_bytes), (50, 50, 0), "{stats:?}");
    settle(&heap);
    // One whose handle is lost altogether goes with the heap.
    std::mem::forget(with_value(&heap));
}

#[test]
fn fault_53_threads_share_an_arena() {
    let heap = Heap::builder().collect_continuously(true).poison(true).build().unwrap();
    let arena = heap.shared_arena();
    let filled: Vec<NodeRoot> = std::thread::scope(|scope| {
        let fill = |thread: u64| {
            let (heap, arena) = (&heap, &arena);
            scope.spawn(move || {
                let list: NodeRoot = heap.enter(|mc| mc.root(mc.alloc(Node::new(0))));
                for round in 0..40 {
                    heap.enter(|mc| {
                        let writer = arena.writer(mc);
                        let list = list.get(mc);
                        for n in 0..50 {
                            let id = thread << 32 | (50 * round + n);
                            let node = Node::leading(id, None, list.value.get());
                            let node = match n % 5 {
                                0 => arena.alloc(mc, node),
                                _ => writer.alloc(node),
                            };
                            list.value.set(mc, Some(node));
                        }
                    });
                }
                list
            })
        };
        let threads: Vec<_> = (0..4).map(fill).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    heap.enter(|mc| {
        for (thread, list) in (0..).zip(&filled) {
            let mut node = list.get(mc).value.get();
            for n in (0..2000).rev() {
                let this = node.unwrap().get(mc).unwrap();
                assert_eq!(this.check(), thread << 32 | n);
                node = this.value.get();
            }
            assert!(node.is_none());
        }
    });
}

#[test]
fn fault_54_many_small_arenas_one_after_the_other() {
    let heap = Heap::new();
    let rounds = match std::env::var_os("SPANHEAP_LONG") {
        Some(_) => 1_000_000,
        None => 30_000,
    };
    let mut most = 0;
    for round in 0..rounds {
        let arena = heap.shared_arena();
        heap.enter(|mc| assert_eq!(arena.alloc(mc, [round; 12]).get(mc), Some(&[round; 12])));
        drop(arena);
        if round % 1000 == 0 {
            let stats = heap.stats();
            most = most.max(stats.mapped_bytes + stats.arenas.quarantined_bytes);
        }
    }
    let stats = heap.stats().arenas;
    assert_eq!((stats.made, stats.freed), (rounds, rounds));
    // Addresses wait for a cycle, which is due at 512 MiB at the latest.
    assert!(most < 1024 << 20, "{most} bytes of addresses");
}

#[test]
fn fault_54_ten_thousand_small_arenas_at_once() {
    let heap = Heap::builder().gc_percent_off().build().unwrap();
    let arenas: Vec<_> = (0..10_000_u64)
        .map(|n| {
            let arena = heap.shared_arena();
            let root: Root<Rootable![ArenaGc<'_, [u64; 12]>]> =
                heap.enter(|mc| mc.root(mc.alloc(arena.alloc(mc, [n; 12]))));
            (arena, root)
        })
        .collect();
    let stats = heap.stats().arenas;
    assert_eq!(stats.open, 10_000);
    assert!(stats.live_bytes <= 10_000 * 8192, "a page for each: {stats:?}");
    collect(&heap);
    heap.enter(|mc| {
        for (n, (arena, root)) in (0..).zip(&arenas) {
            assert_eq!(root.get(mc).get(mc), Some(&[n; 12]));
            assert!(arena.reserved() <= 8192);
        }
    });
    // Every second one; the others are not touched by that.
    let mut kept = Vec::new();
    for (n, (arena, root)) in arenas.into_iter().enumerate() {
        match n % 2 {
            0 => drop(arena),
            _ => kept.push((n as u64, arena, root)),
        }
    }
    collect(&heap);
    collect(&heap);
    heap.enter(|mc| assert!(kept.iter().all(|(n, _, r)| r.get(mc).get(mc) == Some(&[*n; 12]))));
    drop(kept);
    settle(&heap);
    assert_eq!(heap.stats().arenas.freed, 10_000);
}

#[test]
fn fault_55_a_value_larger_than_a_chunk_has_pages_of_its_own_that_are_freed_with_the_arena() {
    let heap = heap();
    let arena = heap.shared_arena();
    type Large = Root<Rootable![ArenaGc<'_, [GcCell<'_, Option<Gc<'_, u64>>>]>]>;
    const LEN: usize = 2 << 20; // 16 MiB
    let root: Large = heap.enter(|mc| {
        let small = arena.alloc(mc, 1_u64);
        let cells: ArenaGc<'_, [GcCell<'_, Option<Gc<'_, u64>>>]> = arena.alloc_zeroed(mc, LEN);
        cells.get(mc).unwrap()[LEN - 1].set(mc, Some(mc.alloc(7)));
        assert_eq!(small.get(mc), Some(&1));
        mc.root(mc.alloc(cells))
    });
    assert!(arena.reserved() >= 8 * LEN && arena.reserved() <= 8 * LEN + (64 << 10));
    collect(&heap);
    let last = || heap.enter(|mc| root.get(mc).get(mc)?[LEN - 1].get().map(|object| *object));
    assert_eq!((last(), heap.stats().live_objects), (Some(7), 2));
    arena.free();
    assert_eq!(last(), None);
    collect(&heap);
    let stats = heap.stats();
    assert_eq!((stats.live_objects, stats.arenas.live_bytes), (1, 0));
    assert!(stats.arenas.quarantined_bytes >= 8 * LEN);
    drop(root);
    settle(&heap);
}

#[test]
fn fault_56_what_needs_a_destructor_lies_in_an_object_that_the_value_leads_to() {
    let (heap, tally) = (heap(), Tally::default());
    let arena = heap.shared_arena();
    heap.enter(|mc| {
        let value = arena.alloc(mc, (1_u64, tally.object(mc)));
        assert_eq!(value.get(mc).unwrap().1.0.get(), 0);
    });
    arena.free();
    collect(&heap);
    tally.wait_for(1);
}
