//! Statistics of programs with derived types: what is counted is what the program has made and
//! kept.

use spanheap::{Collected, Gc, GcCell, Heap, Root, Rootable, Stats, Trace};
use std::sync::atomic::{AtomicBool, Ordering};

/// 16 bytes.
#[derive(Trace)]
struct Node<'gc> {
    key: u64,
    next: GcCell<'gc, Option<Gc<'gc, Node<'gc>>>>,
}

/// 32 bytes, and a string to drop.
#[derive(Trace)]
struct Named<'gc> {
    name: String,
    node: Gc<'gc, Node<'gc>>,
}

/// 328 bytes: a slot of 352.
#[derive(Trace)]
struct Wide<'gc> {
    numbers: [u64; 40],
    first: Gc<'gc, Named<'gc>>,
}

/// Pages of its own: 64 KiB.
#[derive(Trace)]
struct Large([u64; 8000]);

/// What one round of a program has made; a root keeps all of it: a node, a name, a table, a large
/// value.
#[derive(Trace)]
struct Round<'gc> {
    wide: Gc<'gc, Wide<'gc>>,
    large: Option<Gc<'gc, Large>>,
}

type Kept = Root<Rootable![Round<'_>]>;

const LARGE_EVERY: u64 = 16;

fn round(heap: &Heap, key: u64) -> Kept {
    heap.enter(|mc| {
        let node = mc.alloc(Node { key, next: GcCell::new(None) });
        node.next.set(mc, Some(node));
        let named = mc.alloc(Named { name: key.to_string(), node });
        let wide = mc.alloc(Wide { numbers: [key; 40], first: named });
        let large = (key % LARGE_EVERY == 0).then(|| mc.alloc(Large([key; 8000])));
        // A byte that nobody keeps.
        mc.alloc(key as u8);
        mc.root(mc.alloc(Round { wide, large }))
    })
}

fn check_moment(before: &Stats, now: &Stats) {
    let sums = [now, before].map(|stats| {
        let small: u64 = stats.by_size.iter().map(|size| size.allocated).sum();
        let freed: u64 = stats.by_size.iter().map(|size| size.freed).sum();
        let allocated = small + stats.large.allocated + stats.tiny_objects;
        assert_eq!(stats.allocated_objects, allocated);
        assert_eq!(stats.freed_objects, freed + stats.large.freed + stats.tiny_objects);
        let bytes = |count: fn(&spanheap::SizeStats) -> u64| -> u64 {
            stats.by_size.iter().map(|size| count(size) * size.slot_bytes as u64).sum()
        };
        assert_eq!(stats.allocated_bytes, bytes(|s| s.allocated) + stats.large.allocated_bytes);
        assert_eq!(stats.freed_bytes, bytes(|s| s.freed) + stats.large.freed_bytes);
        let objects = stats.allocated_bytes - stats.freed_bytes + bytes(|s| s.taken);
        assert!(objects <= stats.heap_bytes as u64);
        (stats.allocated_bytes, stats.freed_bytes, stats.allocated_objects)
    });
    assert!(sums[0].0 >= sums[1].0 && sums[0].1 >= sums[1].1 && sums[0].2 >= sums[1].2);
}

/// Objects present, by the size of their slots; large ones have size 0.
fn present(stats: &Stats, slot_bytes: usize) -> u64 {
    if slot_bytes == 0 {
        return stats.large.allocated - stats.large.freed;
    }
    let size = stats.by_size.iter().find(|size| size.slot_bytes == slot_bytes).expect("a size");
    assert_eq!(size.taken, 0, "{size:?}");
    size.allocated - size.freed
}

#[test]
fn what_is_counted_is_what_was_made_and_kept() {
    const ROUNDS: u64 = 2000;
    let heap = Heap::builder().poison(true).build().unwrap();
    let running = AtomicBool::new(true);
    let kept: Vec<Kept> = std::thread::scope(|scope| {
        let (heap, running) = (&heap, &running);
        let watcher = scope.spawn(move || {
            let mut before = heap.stats();
            while running.load(Ordering::Acquire) {
                let now = heap.stats();
                check_moment(&before, &now);
                before = now;
            }
        });
        let program = |first: u64| {
            scope.spawn(move || {
                let keys = first..first + ROUNDS;
                // Every fourth one is kept.
                keys.map(|key| round(heap, key)).step_by(4).collect::<Vec<_>>()
            })
        };
        let programs = [program(0), program(ROUNDS)];
        let kept = programs.map(|program| program.join());
        running.store(false, Ordering::Release);
        watcher.join().expect("what holds at every moment holds");
        kept.into_iter().flat_map(|kept| kept.expect("no panic")).collect()
    });
    for _ in 0..2 {
        assert_eq!(heap.collect(), Collected::Complete);
    }
    while heap.stats().owed_objects > 0 {
        std::thread::yield_now();
    }
    let stats = heap.stats();
    let rounds = kept.len() as u64;
    assert_eq!(rounds, 2 * ROUNDS / 4);
    // Nodes and rounds have 16 bytes.
    assert_eq!((present(&stats, 16), present(&stats, 32)), (2 * rounds, rounds));
    assert_eq!((present(&stats, 352), present(&stats, 0)), (rounds, 2 * ROUNDS / LARGE_EVERY));
    assert_eq!(stats.large.allocated_bytes, 2 * ROUNDS / LARGE_EVERY * (64 << 10));
    assert_eq!(stats.allocated_objects, 2 * ROUNDS * 5 + stats.large.allocated);
    let used = stats.allocated_bytes - stats.freed_bytes;
    assert_eq!((stats.used_bytes as u64, stats.live_objects), (used, present_all(&stats)));
    heap.enter(|mc| {
        for root in &kept {
            let wide = root.get(mc).wide;
            let key = wide.numbers[0];
            assert_eq!((wide.first.node.key, &wide.first.name), (key, &key.to_string()));
            assert_eq!(
                root.get(mc).large.map(|large| large.0[7999]),
                (key % 16 == 0).then_some(key)
            );
        }
    });
    drop(kept);
    assert_eq!(heap.collect(), Collected::Complete);
    while heap.stats().heap_bytes > 0 {
        std::thread::yield_now();
    }
    let stats = heap.stats();
    assert_eq!(stats.allocated_objects, stats.freed_objects);
    assert_eq!(stats.allocated_bytes, stats.freed_bytes);
    assert_eq!((stats.owed_objects, stats.owed_bytes), (0, 0));
    assert!(stats.free_bytes > 0);
}

fn present_all(stats: &Stats) -> u64 {
    stats.allocated_objects - stats.freed_objects
}

#[test]
fn the_explanation_names_what_was_allocated() {
    let heap = Heap::new();
    let kept: Vec<Kept> = (0..200).map(|key| round(&heap, key)).collect();
    let rss = heap.explain_rss();
    let larges = 200usize.div_ceil(16) * (64 << 10);
    assert!(rss.allocated_bytes >= larges, "{rss}");
    let pages = rss.retained_bytes + rss.allocated_bytes + rss.unswept_bytes + rss.owed_bytes;
    let pages = pages + rss.free_slots_bytes + rss.taken_pages_bytes + rss.free_pages_bytes;
    let pages = pages + rss.manual_bytes + rss.user_arenas_bytes + rss.huge_pages_bytes;
    assert_eq!(rss.heap_bytes(), pages + rss.metadata_bytes);
    assert!(rss.process_bytes.is_some_and(|process| process >= larges));
    assert!(rss.to_string().contains("objects allocated since"), "{rss}");
    drop(kept);
}
