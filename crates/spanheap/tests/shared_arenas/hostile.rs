//! Programs that want to break it: what happens in the middle of what, and when the heap ends meanwhile.
//!
//! # Safety
//! One type has a trace function of its own, and holds no pointers.
#![allow(unsafe_code)]

use crate::{Node, NodeRoot, collect, done, heap, refusal, settle, with_value};
use spanheap::{
    ArenaGc, Ephemeron, Gc, GcCell, GcMutex, GcVec, Heap, Root, Rootable, SharedArena, Trace,
    Tracer,
};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Barrier, Mutex};

/// A value whose pointers cannot be found from its granule, so each one has a chunk for itself.
#[derive(Trace)]
#[repr(align(16))]
struct Apart<'gc> {
    node: Option<Gc<'gc, Node<'gc>>>,
}

/// An arena of many chunks.
fn scattered(heap: &Heap, chunks: usize) -> SharedArena {
    let arena = heap.shared_arena();
    heap.enter(|mc| {
        for _ in 0..chunks {
            assert!(
                arena.alloc(mc, Apart { node: None }).get(mc).is_some_and(|it| it.node.is_none())
            );
        }
    });
    arena
}

#[test]
fn an_arena_is_freed_while_its_heap_ends() {
    // Of an arena with many chunks, because the one who frees it walks along them, while the heap's memory goes.
    for round in 0..40 {
        let heap = Heap::builder().gc_percent_off().build().unwrap();
        let arenas = [scattered(&heap, 400), scattered(&heap, 400)];
        let together = Barrier::new(1 + arenas.len());
        std::thread::scope(|scope| {
            for (number, arena) in arenas.into_iter().enumerate() {
                let together = &together;
                scope.spawn(move || {
                    together.wait();
                    (0..(round % 8) * 20_000).for_each(|_| std::hint::spin_loop());
                    match number {
                        0 => drop(arena),
                        _ => done(arena.try_free()),
                    }
                });
            }
            together.wait();
            drop(heap);
        });
    }
}

#[test]
fn an_arena_without_memory_goes_with_its_heap_too() {
    let heap = heap();
    let (empty, named) = (heap.shared_arena(), heap.shared_arena_builder().name("n").build());
    drop(heap);
    assert!(empty.is_freed() && empty.try_free().is_err());
    assert!(refusal(|| named.free()).starts_with("arena double free"));
}

#[test]
fn an_iterator_frees_the_arena_that_its_slice_is_for() {
    let heap = heap();
    for with_writer in [false, true] {
        let arena = heap.shared_arena();
        let kept: Root<Rootable![ArenaGc<'_, [Gc<'_, Node<'_>>]>]> = heap.enter(|mc| {
            let nodes = |n: u32| {
                if n == 20 {
                    arena.free();
                    assert!(arena.try_alloc(mc, n).is_err());
                }
                mc.alloc(Node::new(n.into()))
            };
            let slice = match with_writer {
                true => arena.writer(mc).alloc_slice((0..40).map(nodes)),
                false => arena.alloc_slice(mc, (0..40).map(nodes)),
            };
            assert!(slice.get(mc).is_none());
            mc.root(mc.alloc(slice))
        });
        collect(&heap);
        heap.enter(|mc| assert!(kept.get(mc).get(mc).is_none()));
    }
    settle(&heap);
}

#[test]
fn what_is_made_in_an_inner_closure_of_the_same_heap_is_the_same_arenas() {
    let heap = Heap::builder().collect_every(3).checkmark(true).poison(true).build().unwrap();
    let arena = heap.shared_arena();
    heap.enter(|mc| {
        let writer = arena.writer(mc);
        let mut values = Vec::new();
        for round in 0..50_u64 {
            values.push(writer.alloc_with(|| {
                let inner = heap.enter(|mc| {
                    let inner = arena.writer(mc);
                    let node = mc.alloc(Node::new(round));
                    let value = inner.alloc(Node::leading(round, Some(node), None));
                    let value = value.get(mc).unwrap();
                    value.check() + value.object.get().unwrap().check()
                });
                assert_eq!(inner, 2 * round);
                Node::leading(round, Some(mc.alloc(Node::new(round))), values.last().copied())
            }));
        }
        for (round, value) in values.iter().enumerate() {
            let value = value.get(mc).unwrap();
            assert_eq!(
                (value.check(), value.object.get().unwrap().check()),
                (round as u64, round as u64)
            );
        }
    });
    drop(arena);
    settle(&heap);
}

/// Frees an arena when it is traced, which no type should do.
struct Traitor(Mutex<Option<SharedArena>>);

// SAFETY: it holds no pointers.
unsafe impl Trace for Traitor {
    fn trace(&self, _: &mut Tracer<'_>) {
        drop(self.0.lock().unwrap().take());
    }
}

#[test]
fn an_arena_is_freed_by_a_trace_function() {
    let heap = heap();
    let (arena, pointer) = with_value(&heap);
    let own = heap.shared_arena();
    let traitors: Root<Rootable![(Gc<'_, Traitor>, Gc<'_, Traitor>)]> = heap.enter(|mc| {
        let other = mc.alloc(Traitor(Mutex::new(Some(own))));
        mc.root(mc.alloc((mc.alloc(Traitor(Mutex::new(Some(arena)))), other)))
    });
    collect(&heap);
    heap.enter(|mc| {
        assert!(pointer.get(mc).value.get().unwrap().get(mc).is_none());
        assert!(traitors.get(mc).0.0.lock().unwrap().is_none());
    });
    drop((pointer, traitors));
    settle(&heap);
}

/// Values of odd shapes: empty slices, elements without bytes, alignment, and more of them than a header counts.
#[test]
fn odd_shapes_are_marked_and_verified() {
    #[derive(Trace)]
    struct Nothing<'gc>([ArenaGc<'gc, u8>; 0]);
    type Kept<'gc> = (
        ArenaGc<'gc, [Nothing<'gc>]>,
        ArenaGc<'gc, [Apart<'gc>]>,
        ArenaGc<'gc, [Apart<'gc>]>,
        ArenaGc<'gc, [Gc<'gc, Node<'gc>>]>,
        ArenaGc<'gc, [()]>,
        ArenaGc<'gc, [GcCell<'gc, Option<Gc<'gc, Node<'gc>>>>]>,
    );
    const MANY: usize = (1 << 19) + 3;
    for every in [0, 2] {
        let heap =
            Heap::builder().collect_every(every).checkmark(true).poison(true).verify_trace(true);
        let heap = heap.build().unwrap();
        let arena = heap.shared_arena();
        let kept: Root<Rootable![Kept<'_>]> = heap.enter(|mc| {
            let to = arena.writer(mc);
            let empty = to.alloc_slice((0..0).map(|_| Apart { node: None }));
            let apart = (0..3_u32).map(|n| Apart { node: Some(mc.alloc(Node::new(n.into()))) });
            let many = to.alloc_zeroed::<GcCell<Option<Gc<Node>>>>(MANY);
            let many_cells = many.get(mc).unwrap();
            many_cells[0].set(mc, Some(mc.alloc(Node::new(7))));
            many_cells[MANY - 1].set(mc, Some(mc.alloc(Node::new(8))));
            let nothing = (0..MANY as u32).map(|_| Nothing([]));
            mc.root(mc.alloc((
                to.alloc_slice(nothing.collect::<Vec<_>>()),
                empty,
                to.alloc_slice(apart),
                to.alloc_slice(Vec::new()),
                to.alloc_zeroed(usize::MAX),
                many,
            )))
        });
        for _ in 0..3 {
            collect(&heap);
            heap.enter(|mc| {
                let kept = kept.get(mc);
                assert_eq!(kept.0.get(mc).map(<[_]>::len), Some(MANY));
                assert!(kept.0.get(mc).unwrap()[0].0.is_empty());
                assert_eq!(kept.1.get(mc).map(<[_]>::len), Some(0));
                for (n, apart) in kept.2.get(mc).unwrap().iter().enumerate() {
                    assert_eq!(apart.node.unwrap().check(), n as u64);
                    assert_eq!(std::ptr::from_ref(apart).addr() % 16, 0);
                }
                assert_eq!(kept.3.get(mc).map(<[_]>::len), Some(0));
                assert_eq!(kept.4.get(mc).map(<[_]>::len), Some(usize::MAX));
                let many = kept.5.get(mc).unwrap();
                let ends = [&many[0], &many[MANY - 1]].map(|cell| cell.get().unwrap().check());
                assert_eq!(ends, [7, 8]);
            });
            if let Err(findings) = heap.verify() {
                panic!("{findings:?}");
            }
        }
        arena.free();
        collect(&heap);
        heap.enter(|mc| assert!(kept.get(mc).5.get(mc).is_none()));
        collect(&heap);
        drop(kept);
        settle(&heap);
    }
}

#[test]
fn iterators_that_panic_leave_room_that_nobody_looks_into() {
    let heap = Heap::builder().collect_every(5).checkmark(true).poison(true).verify_trace(true);
    let heap = heap.build().unwrap();
    let arena = heap.shared_arena();
    let list: NodeRoot = heap.enter(|mc| mc.root(mc.alloc(Node::new(0))));
    for round in 0..60_u64 {
        heap.enter(|mc| {
            let writer = arena.writer(mc);
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                writer.alloc_slice((0..30_u32).map(|n| {
                    let n = u64::from(n);
                    if n == round % 30 {
                        std::panic::resume_unwind(Box::new(()));
                    }
                    writer.alloc(Node::leading(n, Some(mc.alloc(Node::new(n))), None))
                }))
            }));
            assert!(outcome.is_err());
            let first = list.get(mc);
            first.value.set(mc, Some(writer.alloc(Node::leading(round, None, first.value.get()))));
        });
        if let Err(findings) = heap.verify() {
            panic!("{findings:?}");
        }
    }
    let count = heap.enter(|mc| {
        let first = list.get(mc).value.get().unwrap().get(mc);
        std::iter::successors(first, |node| node.value.get()?.get(mc)).map(Node::check).count()
    });
    assert_eq!(count, 60);
    drop((arena, list));
    settle(&heap);
}

#[test]
fn cycles_run_while_writers_come_and_go_and_the_arenas_are_freed() {
    let heap = Heap::builder().collect_continuously(true).checkmark(true).poison(true);
    let heap = heap.build().unwrap();
    let target = heap.stats().cycles + 100;
    let arena = Mutex::new(Arc::new(heap.shared_arena()));
    let board: Root<Rootable![GcMutex<'_, GcVec<'_, ArenaGc<'_, Node<'_>>>>]> =
        heap.enter(|mc| mc.root(mc.alloc(GcMutex::new(GcVec::new()))));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while heap.stats().cycles < target {
                let fresh = Arc::new(heap.shared_arena());
                let old = std::mem::replace(&mut *arena.lock().unwrap(), fresh);
                assert!(old.try_free().is_ok());
                std::thread::yield_now();
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                let mut round = 0;
                while heap.stats().cycles < target {
                    round += 1;
                    let mine = arena.lock().unwrap().clone();
                    heap.enter(|mc| {
                        let Ok(writer) = mine.try_writer(mc) else { return };
                        let board = board.get(mc);
                        let mut before = None;
                        for id in 0..50 {
                            let object = Some(mc.alloc(Node::new(id)));
                            match writer.try_alloc(Node::leading(id, object, before)) {
                                Ok(value) => before = Some(value),
                                Err(_) => break,
                            }
                        }
                        let mut board = board.lock(mc);
                        board.extend(mc, before);
                        if board.len() > 30 {
                            board.clear(mc);
                        }
                        let held: Vec<_> = board.iter().copied().collect();
                        drop(board);
                        for value in held.iter().filter_map(|value| value.get(mc)) {
                            value.check();
                            value.object.get().map(|object| object.check());
                        }
                    });
                    std::hint::black_box(round);
                }
            });
        }
    });
    drop((arena, board));
}

#[test]
fn an_ephemeron_keeps_the_address_of_a_freed_value_as_long_as_its_key_lives() {
    let heap = heap();
    let arena = heap.shared_arena();
    type Pair<'gc> = (Ephemeron<'gc, Node<'gc>, ArenaGc<'gc, Node<'gc>>>,);
    let (key, pair): (NodeRoot, Root<Rootable![Pair<'_>]>) = heap.enter(|mc| {
        let key = mc.alloc(Node::new(1));
        let value = arena.alloc(mc, Node::leading(2, Some(key), None));
        let pair = mc.ephemeron(key, mc.alloc(value));
        (mc.root(key), mc.root(mc.alloc((pair,))))
    });
    let opened = || {
        let value = |mc: &spanheap::Mutator<'_>| {
            let (_, value) = pair.get(mc).0.entry(mc)?;
            Some(value.get(mc).map(Node::check))
        };
        heap.enter(value)
    };
    collect(&heap);
    assert_eq!(opened(), Some(Some(2)));
    arena.free();
    for _ in 0..3 {
        collect(&heap);
        assert_eq!(opened(), Some(None));
        let stats = heap.stats().arenas;
        assert!(stats.quarantined_bytes > 0 && stats.escapes > 0, "{stats:?}");
    }
    drop(key);
    collect(&heap);
    assert_eq!(opened(), None);
    settle(&heap);
}

/// Alignments beyond pages, chunks, and what the heap maps at once; values without bytes have them too.
#[test]
fn values_of_any_alignment_are_aligned_or_refused() {
    macro_rules! aligned {
        ($heap:ident, $arena:ident: $($align:literal)*) => {$({
            #[derive(Trace)]
            #[repr(align($align))]
            struct Aligned([u8; 0]);
            #[derive(Trace)]
            struct Pointing<'gc>([Aligned; 0], Option<Gc<'gc, Node<'gc>>>);
            let root: Option<Root<Rootable![ArenaGc<'_, [Aligned]>]>> = $heap.enter(|mc| {
                let none = $arena.try_alloc_slice(mc, (0..3_u32).map(|_| Aligned([]))).ok()?;
                let values = none.get(mc).unwrap();
                assert_eq!((values.len(), values.as_ptr().addr() % $align), (3, 0));
                let empty = $arena.try_alloc_slice(mc, Vec::<Pointing<'_>>::new()).ok()?;
                assert_eq!(empty.get(mc).unwrap().as_ptr().addr() % $align, 0);
                Some(mc.root(mc.alloc(none)))
            });
            assert!(root.is_some() || $align > 1 << 26, "there is room for {}", $align);
            collect(&$heap);
            if let Some(root) = root {
                $heap.enter(|mc| assert_eq!(root.get(mc).get(mc).map(<[_]>::len), Some(3)));
            }
        })*};
    }
    let heap = heap();
    let arena = heap.shared_arena();
    aligned!(heap, arena: 16 4096 8192 65536 1048576 2097152 8388608 67108864 268435456);
    arena.free();
    settle(&heap);
}

/// The limit of the heap is reached in the midst of an arena: nothing is lost, and freeing makes room.
#[test]
fn a_heap_without_room_refuses_values_and_keeps_those_that_it_has() {
    let heap =
        Heap::builder().gc_percent_off().checkmark(true).hard_limit(24 << 20).build().unwrap();
    for _ in 0..3 {
        let arena = heap.shared_arena();
        let root = heap.enter(|mc| {
            // The object comes first: there is no room for it later on.
            let root = mc.alloc(Node::new(0));
            let writer = arena.writer(mc);
            let mut list = None;
            let mut id = 0;
            while let Ok(value) = writer.try_alloc(Node::leading(id, None, list)) {
                (list, id) = (Some(value), id + 1);
            }
            assert!(writer.try_alloc_zeroed::<u8>(1 << 24).is_err() && id > 1000);
            root.value.set(mc, list);
            (mc.root(root), id)
        });
        let (root, count): (NodeRoot, u64) = root;
        collect(&heap);
        heap.enter(|mc| {
            let root = root.get(mc);
            let first = root.value.get().unwrap().get(mc);
            let list = std::iter::successors(first, |node| node.value.get()?.get(mc));
            assert_eq!(list.map(Node::check).count() as u64, count);
        });
        arena.free();
        drop(root);
        settle(&heap);
    }
}
