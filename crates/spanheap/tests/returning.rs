//! Memory that the program has stopped using leaves the process: by itself, for the limit, on request.
//!
//! What is asserted is that it goes, not when: the waits end as soon as it has, and are long enough for any
//! machine.

use spanheap::{Collected, Gc, Heap, Root, Rootable};
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

type Block = Root<Rootable![[u8]]>;

fn blocks(heap: &Heap, count: usize, bytes: usize) -> Vec<Block> {
    (0..count)
        .map(|_| heap.enter(|mc| mc.root(mc.alloc_slice((0..bytes).map(|i| i as u8)))))
        .collect()
}

/// Waits until the heap has at most `bytes` ready.
fn wait_for_ready_at_most(heap: &Heap, bytes: usize) {
    let begun = Instant::now();
    while heap.stats().ready_bytes > bytes {
        assert!(begun.elapsed() < Duration::from_secs(120), "{:?}", heap.stats());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_heap_that_has_shrunk_returns_its_memory_by_itself() {
    let heap = Heap::new();
    let small = blocks(&heap, 64, 16 << 10);
    for _ in 0..2 {
        let large = blocks(&heap, 128, MIB);
        assert!(heap.stats().ready_bytes > 128 * MIB);
        drop(large);
        assert_eq!(heap.collect(), Collected::Complete);
        // The goal of such a heap is 4 MiB; a chunk may be half full, and records and side tables remain.
        wait_for_ready_at_most(&heap, 24 * MIB);
        heap.enter(|mc| {
            let intact =
                |block: &Block| block.get(mc).iter().enumerate().all(|(i, &b)| b == i as u8);
            assert!(small.iter().all(intact));
        });
    }
}

#[test]
fn a_heap_that_has_shrunk_keeps_nothing_for_its_growth() {
    // With so many percent the heap may grow to 90 MiB, and as a rule keeps the memory for it.
    let heap = Heap::builder().gc_percent(1000).build().expect("a heap");
    let small = blocks(&heap, 8, MIB);
    drop(blocks(&heap, 160, MIB));
    assert_eq!(heap.collect(), Collected::Complete);
    assert!(heap.stats().goal_bytes > 80 * MIB, "{:?}", heap.stats());
    wait_for_ready_at_most(&heap, 32 * MIB);
    assert_eq!(small.len(), 8);
}

#[test]
fn memory_in_excess_of_the_limit_goal_goes_back_while_nothing_happens() {
    let heap = Heap::builder().gc_percent_off().memory_limit(100 * MIB).build().expect("a heap");
    let kept = blocks(&heap, 2, MIB);
    drop(blocks(&heap, 90, MIB));
    assert_eq!(heap.collect(), Collected::Complete);
    wait_for_ready_at_most(&heap, 95 * MIB);
    assert_eq!(kept.len(), 2);
}

#[test]
fn before_a_limit_refuses_free_memory_is_returned_for_it() {
    let heap = Heap::builder().gc_percent_off().hard_limit(72 * MIB).build().expect("a heap");
    let all = blocks(&heap, 44, MIB);
    // Every second block goes; what they leave are holes, in which nothing larger fits.
    let kept: Vec<Block> = all.into_iter().step_by(2).collect();
    assert_eq!(heap.collect(), Collected::Complete);
    let large: Block = heap.enter(|mc| {
        let large = mc.try_alloc_zeroed::<u8>(36 * MIB).expect("22 MiB of holes make room for it");
        assert!(large.iter().all(|&byte| byte == 0));
        mc.root(large)
    });
    assert!(heap.stats().ready_bytes <= 72 * MIB, "{:?}", heap.stats());
    heap.enter(|mc| {
        assert!(mc.try_alloc_zeroed::<u8>(36 * MIB).is_err(), "twice is too much");
        let small: Gc<'_, [u8]> = mc.alloc_slice([1, 2, 3]);
        assert_eq!(small.len() + large.get(mc).len(), 3 + 36 * MIB);
    });
    assert_eq!(kept.len(), 22);
}
