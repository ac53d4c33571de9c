//! A heap that nobody does anything with is collected all the same, after a while.
//!
//! The waits end as soon as that has happened, and are long enough for any machine. How long the
//! while is when nothing happens is a matter of numbers, which the pacer's own tests are about.

#[allow(dead_code, reason = "each test program uses some of it")]
mod objects;

use objects::{BLOCK, fill};
use spanheap_core::collect::{Options, Policy};
use spanheap_core::mutator::Heap;
use spanheap_core::observe::Stats;
use spanheap_core::os::Os;
use std::time::{Duration, Instant};

fn heap(percent: Option<u32>, periodic: Option<Duration>) -> Heap {
    let policy = Policy { percent, limit: None };
    Heap::new(Os::native(), Options { policy, periodic, ..Options::default() }).expect("memory")
}

#[test]
fn fault_19_an_idle_heap_is_collected_and_its_garbage_goes() {
    let heap = heap(Some(100), Some(Duration::from_millis(20)));
    // Far less than the trigger: nothing but the time sets off a cycle.
    let kept = fill(&heap, &BLOCK, 100);
    drop(fill(&heap, &BLOCK, 400));
    let begun = Instant::now();
    let is_collected = |stats: &Stats| {
        stats.cycles >= 2 && stats.counted.bytes().present() < 200 * 1024 && stats.roots == 100
    };
    while !is_collected(&Stats::of(&heap)) {
        assert!(begun.elapsed() < Duration::from_secs(120), "{:?}", Stats::of(&heap));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(Stats::of(&heap).trigger.get() > 3 << 20, "the trigger was never near");
    assert_eq!(kept.len(), 100);
}

#[test]
fn a_period_without_bounds_is_as_good_as_none() {
    for periodic in [Some(Duration::MAX), None] {
        let heap = heap(Some(100), periodic);
        let kept = fill(&heap, &BLOCK, 10);
        heap.collect();
        assert_eq!(Stats::of(&heap).cycles, 1, "only what was asked for");
        assert_eq!(kept.len(), 10);
    }
}
