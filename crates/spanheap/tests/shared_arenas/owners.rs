//! Who frees an arena: whoever has the handle, an object's destructor, the collector, the end of the heap.

use crate::{Mortal, Node, NodeRoot, Tally, collect, done, heap, refusal, settle, with_value};
use spanheap::{ArenaGc, Gc, Heap, Root, Rootable, SharedArena, Trace};
use std::sync::Arc;

fn value(heap: &Heap, root: &NodeRoot) -> Option<u64> {
    heap.enter(|mc| root.get(mc).value.get().unwrap().get(mc).map(Node::check))
}

#[test]
fn dropping_the_handle_frees() {
    let heap = heap();
    let (arena, root) = with_value(&heap);
    assert_eq!(value(&heap, &root), Some(1));
    drop(arena);
    assert_eq!(value(&heap, &root), None);
    assert_eq!((heap.stats().arenas.open, heap.stats().arenas.freed), (0, 1));
    drop(root);
    settle(&heap);
}

#[test]
fn the_last_of_several_owners_frees() {
    let heap = heap();
    let (arena, root) = with_value(&heap);
    let first = Arc::new(arena);
    let second = first.clone();
    drop(first);
    assert_eq!(value(&heap, &root), Some(1));
    std::thread::spawn(move || drop(second)).join().unwrap();
    assert_eq!(value(&heap, &root), None);
}

#[derive(Trace)]
struct Owner<'gc> {
    arena: SharedArena,
    value: ArenaGc<'gc, Node<'gc>>,
    mortal: Gc<'gc, Mortal>,
}

#[test]
fn an_arena_in_an_object_is_freed_when_the_object_has_died() {
    let (heap, tally) = (heap(), Tally::default());
    // The values lead back to their owner, so all of it is one circle.
    let (owner, witness): (Root<Rootable![Owner<'_>]>, NodeRoot) = heap.enter(|mc| {
        let arena = heap.shared_arena();
        let back = mc.alloc(Node::new(5));
        let value = arena.alloc(mc, Node::leading(1, Some(back), None));
        back.value.set(mc, Some(value));
        let owner = mc.alloc(Owner { arena, value, mortal: tally.object(mc) });
        (mc.root(owner), mc.root(back))
    });
    collect(&heap);
    assert_eq!((heap.stats().arenas.open, value(&heap, &witness)), (1, Some(1)));
    assert!(heap.enter(|mc| !owner.get(mc).arena.is_freed() && owner.get(mc).mortal.0.get() == 0));
    assert_eq!(heap.enter(|mc| owner.get(mc).value.get(mc).map(Node::check)), Some(1));
    drop(owner);
    collect(&heap);
    tally.wait_for(1);
    let begun = std::time::Instant::now();
    while heap.stats().arenas.freed == 0 {
        assert!(begun.elapsed().as_secs() < 60, "the owner's destructor does not free");
        std::thread::yield_now();
    }
    assert_eq!(value(&heap, &witness), None);
    drop(witness);
    settle(&heap);
}

#[test]
fn an_abandoned_arena_goes_when_nothing_leads_there() {
    let heap = heap();
    let (arena, root) = with_value(&heap);
    let tally = Tally::default();
    heap.enter(|mc| {
        let mortal = tally.object(mc);
        assert_eq!(arena.alloc(mc, mortal).get(mc).unwrap().0.get(), 0);
    });
    arena.abandon();
    for _ in 0..3 {
        collect(&heap);
        assert_eq!(value(&heap, &root), Some(1));
        assert_eq!((heap.stats().arenas.open, heap.stats().arenas.freed), (1, 0));
    }
    tally.wait_for(1);
    drop(root);
    collect(&heap);
    let stats = heap.stats().arenas;
    assert_eq!((stats.open, stats.freed, stats.live_bytes), (0, 1, 0), "{stats:?}");
    assert_eq!(stats.escapes, 0, "nobody was taken by surprise");
    settle(&heap);
}

#[test]
fn an_arena_that_is_abandoned_by_an_open_closure_keeps_what_that_holds() {
    let heap = heap();
    let arena = heap.shared_arena();
    let root: NodeRoot = heap.enter(|mc| {
        let value = arena.alloc(mc, Node::new(1));
        arena.abandon();
        let _ = heap.collect(); // is requested, and cannot be completed before the closure has ended
        assert_eq!(value.get(mc).map(Node::check), Some(1));
        mc.root(mc.alloc(Node::leading(2, None, Some(value))))
    });
    collect(&heap);
    collect(&heap);
    assert_eq!(value(&heap, &root), Some(1));
    drop(root);
    collect(&heap);
    assert_eq!(heap.stats().arenas.open, 0);
}

#[test]
fn an_abandoned_arena_without_values_goes_too() {
    let heap = heap();
    heap.shared_arena().abandon();
    collect(&heap);
    assert_eq!((heap.stats().arenas.open, heap.stats().arenas.freed), (0, 1));
}

#[test]
fn a_handle_that_outlives_its_heap_is_harmless() {
    let heap = heap();
    let arenas: Vec<_> = (0..4).map(|_| with_value(&heap)).collect();
    let empty = heap.shared_arena();
    drop(heap);
    assert_eq!((empty.used(), empty.reserved()), (0, 0));
    let another = crate::heap();
    for (n, (arena, root)) in arenas.into_iter().enumerate() {
        assert!(arena.is_freed(), "everything went with the heap");
        assert_eq!((arena.used(), arena.reserved()), (0, 0));
        assert!(arena.try_free().is_err());
        let heard = refusal(|| another.enter(|mc| done(arena.alloc(mc, 1_u64))));
        assert!(heard.starts_with("an arena of heap"), "{heard}");
        match n {
            0 => arena.abandon(),
            1 => drop(root),
            _ => drop(arena),
        }
    }
}

#[test]
fn a_heap_ends_with_arenas_in_all_states() {
    let heap = heap();
    let (open, _root) = with_value(&heap);
    let (freed, _pointer) = with_value(&heap);
    freed.free();
    let (quarantined, _kept) = with_value(&heap);
    quarantined.free();
    collect(&heap);
    let (abandoned, _other) = with_value(&heap);
    abandoned.abandon();
    // One whose writer was forgotten, and one that owns the last handle of nothing but itself.
    let leased = heap.shared_arena();
    heap.enter(|mc| {
        let writer = leased.writer(mc);
        writer.alloc(1_u64);
        std::mem::forget(writer);
        let owned = heap.shared_arena();
        let value = owned.alloc(mc, 1_u64);
        assert_eq!(value.get(mc), Some(&1));
        mc.alloc(Handle { arena: owned });
    });
    #[derive(Trace)]
    struct Handle {
        #[allow(dead_code, reason = "it is dropped")]
        arena: SharedArena,
    }
    drop(heap);
    assert!(open.is_freed() && leased.is_freed());
}

#[test]
fn large_arenas_come_and_go() {
    // Chunks of 8 MiB, larger than what the heap maps at once: their pages and side tables go and come back by turns.
    let heap = heap();
    for round in 0..40_u64 {
        let arena = heap.shared_arena();
        let root: NodeRoot = heap.enter(|mc| {
            let writer = arena.writer(mc);
            let mut first = None;
            while arena.used() < 20 << 20 {
                writer.alloc_zeroed::<u8>(100_000);
                first = Some(writer.alloc(Node::leading(round, None, first)));
            }
            mc.root(mc.alloc(Node::leading(round, None, first)))
        });
        if round % 3 == 0 {
            collect(&heap);
        }
        let count = heap.enter(|mc| {
            let (mut node, mut count) = (root.get(mc).value.get(), 0);
            while let Some(this) = node {
                let this = this.get(mc).unwrap();
                assert_eq!(this.check(), round);
                (node, count) = (this.value.get(), count + 1);
            }
            count
        });
        assert!(count > 200, "{count}");
        arena.free();
        drop(root);
        if round % 2 == 0 {
            collect(&heap);
            collect(&heap);
        }
    }
    settle(&heap);
}

#[test]
fn a_writer_that_was_forgotten_costs_the_rest_of_its_chunk() {
    let heap = heap();
    let arena = heap.shared_arena();
    heap.enter(|mc| {
        for n in 0..100_u64 {
            let writer = arena.writer(mc);
            assert_eq!(writer.alloc(Node::new(n)).get(mc).map(Node::check), Some(n));
            std::mem::forget(writer);
        }
    });
    let tally = Tally::default();
    heap.enter(|mc| {
        let value = arena.alloc(mc, tally.object(mc));
        assert!(value.get(mc).is_some());
    });
    collect(&heap);
    tally.wait_for(1);
    arena.free();
    settle(&heap);
}
