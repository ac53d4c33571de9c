//! Many arenas: the memory that they use is in proportion to what is in them.

use crate::{PAGE, quiet};
use spanheap::{Heap, Mutator};

/// Faults 54 and W1: a small arena costs a small amount of memory, and the next one uses the same.
#[test]
fn fault_54_a_million_small_arenas_do_not_grow_the_heap() {
    let heap = quiet();
    let mut pages = 0;
    for round in 0..1000 {
        heap.enter(|mc| {
            for n in 0..1000_u64 {
                mc.arena(|arena| {
                    let values: &[u64; 12] = arena.alloc([n; 12]);
                    assert_eq!(values[11], n);
                });
            }
        });
        let stats = heap.stats();
        assert!(stats.manual_bytes <= PAGE);
        if round == 0 {
            pages = stats.mapped_bytes;
        }
        assert_eq!(stats.mapped_bytes, pages, "the heap has grown");
    }
}

fn nest(mc: &Mutator<'_>, depth: usize, deepest: &mut dyn FnMut()) {
    mc.arena(|arena| {
        let value = &*arena.alloc(depth);
        match depth {
            0 => deepest(),
            _ => nest(mc, depth - 1, deepest),
        }
        assert_eq!(*value, depth);
    });
}

/// Each has a run of pages, and no more.
#[test]
fn fault_54_ten_thousand_arenas_at_once_have_a_page_run_each() {
    const DEPTH: usize = 10_000;
    let heap = quiet();
    let run = || {
        let mut seen = 0;
        heap.enter(|mc| nest(mc, DEPTH - 1, &mut || seen = heap.stats().manual_bytes));
        assert_eq!(seen, DEPTH * PAGE);
        assert!(heap.stats().manual_bytes <= 8 * PAGE);
    };
    let stack = std::thread::Builder::new().stack_size(64 << 20);
    std::thread::scope(|s| {
        stack.spawn_scoped(s, run).unwrap().join().unwrap();
    });
    assert_eq!(heap.stats().manual_bytes, 0, "the thread has given back what it kept");
}

#[test]
fn an_arena_begins_with_the_largest_chunk_of_the_one_before() {
    let heap = quiet();
    heap.enter(|mc| {
        let fill = |bytes: usize| {
            mc.arena(|arena| {
                arena.alloc(0);
                let first = arena.reserved();
                (1..bytes / 64).for_each(|_| _ = arena.alloc([0_u64; 8]));
                (first, arena.reserved())
            })
        };
        assert_eq!(fill(100_000), (PAGE, 15 * PAGE));
        assert_eq!(fill(60_000), (8 * PAGE, 8 * PAGE), "it has all that it needs at once");
        assert_eq!(fill(100), (8 * PAGE, 8 * PAGE));
        // An arena with a limit takes what fits in it.
        let options = spanheap::ArenaOptions::new().limit(3 * PAGE);
        mc.arena_with(options, |arena| {
            arena.alloc(1);
            assert_eq!(arena.reserved(), 2 * PAGE);
        });
    });
}

#[test]
fn what_a_thread_keeps_is_bounded_and_goes_at_a_change_of_phase() {
    let heap = Heap::builder().gc_percent_off().build().unwrap();
    heap.enter(|mc| mc.arena(|arena| _ = arena.alloc_slice_fill_default::<u8>(1 << 20)));
    let large = heap.stats().manual_bytes;
    assert!(large <= 1 << 20, "{large}");
    heap.enter(|mc| {
        mc.arena(|arena| (0..100_000_u64).for_each(|n| _ = arena.alloc([n; 8])));
    });
    let kept = heap.stats().manual_bytes;
    assert!(kept > 256 << 10 && kept <= 1 << 20, "{kept}");
    let _ = heap.collect();
    heap.enter(|_| ());
    assert_eq!(heap.stats().manual_bytes, 0);
    // A thread that is outside, and does not come back, keeps nothing either.
    let (used, collected) = (std::sync::Barrier::new(2), std::sync::Barrier::new(2));
    std::thread::scope(|s| {
        s.spawn(|| {
            heap.enter(|mc| mc.arena(|arena| _ = arena.alloc([0_u8; 50_000])));
            used.wait();
            collected.wait();
        });
        used.wait();
        assert!(heap.stats().manual_bytes >= 50_000);
        let _ = heap.collect();
        let _ = heap.collect();
        assert_eq!(heap.stats().manual_bytes, 0);
        collected.wait();
    });
}
