//! When cycles begin by themselves, as a program sees it. The arithmetic has tests of its own in the core.
//!
//! The waits end as soon as what they wait for has happened, and are long enough for any machine.

use spanheap::{Collected, Heap, Root, Rootable, Trace};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

const MIB: usize = 1 << 20;

/// Counts its death.
#[derive(Trace)]
struct Mortal(#[trace(leaf)] Arc<AtomicU32>);

impl Drop for Mortal {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

type Block = Root<Rootable![[u8]]>;

fn blocks(heap: &Heap, count: usize) -> Vec<Block> {
    (0..count)
        .map(|_| heap.enter(|mc| mc.root(mc.alloc_slice((0..MIB).map(|i| i as u8)))))
        .collect()
}

fn wait_until(heap: &Heap, what: impl Fn() -> bool) {
    let begun = Instant::now();
    while !what() {
        assert!(begun.elapsed() < Duration::from_secs(120), "{:?}", heap.stats());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn fault_19_destructors_run_in_a_heap_that_nobody_uses() {
    let period = Some(Duration::from_millis(20));
    let heap = Heap::builder().periodic_collection(period).build().expect("a heap");
    let deaths = Arc::new(AtomicU32::new(0));
    heap.enter(|mc| {
        for _ in 0..100 {
            mc.alloc(Mortal(deaths.clone()));
        }
    });
    wait_until(&heap, || deaths.load(Ordering::Relaxed) == 100);
}

#[test]
fn a_heap_that_is_collected_on_demand_has_no_periodic_cycles() {
    let period = Some(Duration::ZERO);
    let builder = Heap::builder().gc_percent_off().periodic_collection(period);
    let heap = builder.build().expect("a heap");
    let kept = blocks(&heap, 20);
    assert_eq!(heap.stats().cycles, 0);
    assert_eq!(heap.collect(), Collected::Complete);
    assert_eq!((heap.stats().cycles, kept.len()), (1, 20));
}

#[test]
fn fault_17_any_percent_gives_a_goal_and_a_heap_that_works() {
    for percent in [0, 1, 50, 100, 1000, u32::MAX] {
        let heap = Heap::builder().gc_percent(percent).build().expect("a heap");
        let kept = blocks(&heap, 8);
        assert_eq!(heap.collect(), Collected::Complete);
        let stats = heap.stats();
        let smallest = (4 * MIB as u128 * u128::from(percent) / 100).min(usize::MAX as u128);
        assert!(stats.goal_bytes as u128 >= smallest.max(8 * MIB as u128), "{stats:?}");
        heap.enter(|mc| {
            assert!(kept.iter().all(|block| block.get(mc)[MIB - 1] == 255));
        });
    }
}

#[test]
fn a_heap_is_collected_before_it_has_grown_twice_as_large() {
    let heap = Heap::new();
    let kept = blocks(&heap, 40);
    assert_eq!(heap.collect(), Collected::Complete);
    let cycles = heap.stats().cycles;
    // Nobody else allocates, so the trigger is where the plan was, well below 80 MiB.
    for _ in 0..45 {
        drop(blocks(&heap, 1));
    }
    wait_until(&heap, || heap.stats().cycles > cycles);
    assert_eq!(kept.len(), 40);
}
