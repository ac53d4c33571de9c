//! Where the resident memory is, on a simulated system: there the process is the heap, the system
//! knows the state of each page, and the table must be exact.
//!
//! # Safety
//! The programs keep U1 to U5 of the runtime API.

mod objects;

use objects::{BLOCK, LARGE, MIB, fill, heap_on, thin_out, trace_nothing};
use spanheap_core::addr::Bytes;
use spanheap_core::mutator::Heap;
use spanheap_core::observe::{MemoryState, Rss, Stats};
use spanheap_core::os::{Os, SimOs};
use spanheap_core::span::{Shape, TypeInfo};
use std::sync::atomic::{AtomicBool, Ordering};

/// While this is set, values are not dropped.
static HOLD: AtomicBool = AtomicBool::new(false);

unsafe fn drop_when_allowed(_: *mut u8, _: usize) {
    while HOLD.load(Ordering::Acquire) {
        std::thread::yield_now();
    }
}

static MORTAL: TypeInfo =
    TypeInfo::new(|| "mortal", 1024, 8, Shape::NoScan, trace_nothing, Some(drop_when_allowed));

#[test]
fn on_a_simulated_system_the_table_is_exact() {
    for page in [4096, 16384, 65536] {
        let sim = SimOs::builder().page_size(Bytes::new(page)).build();
        let heap = heap_on(Os::simulated(sim.clone()));
        let check = |heap: &Heap| {
            let rss = Rss::of(heap);
            assert_eq!(rss.process, Some(sim.ready()));
            // The empty grey queue and so on are all there is besides; nothing is left over.
            assert_eq!((rss.rest, rss.sum()), (Bytes::ZERO, sim.ready()), "\n{rss}");
            assert_eq!(rss.huge_pages, Bytes::ZERO);
            let counted = Stats::of(heap).counted;
            assert_eq!(rss.free_pages, counted.pages(MemoryState::Free));
            let spans = rss.retained + rss.allocated + rss.unswept + rss.owed + rss.free_slots;
            assert_eq!(spans, counted.pages(MemoryState::InUse));
            assert_eq!(rss.owed, counted.owed().1);
            rss
        };
        check(&heap);
        let mut blocks = fill(&heap, &BLOCK, 5000);
        let mortals = fill(&heap, &MORTAL, 1000);
        let larges = fill(&heap, &LARGE, 3);
        let rss = check(&heap);
        assert_eq!(rss.allocated, Bytes::new((6000 << 10) + 3 * MIB));
        heap.collect();
        let rss = check(&heap);
        assert_eq!(
            (rss.retained, rss.allocated),
            (Bytes::new((6000 << 10) + 3 * MIB), Bytes::ZERO)
        );
        thin_out(&mut blocks);
        drop(larges);
        HOLD.store(true, Ordering::Release);
        drop(mortals);
        heap.collect();
        let rss = check(&heap);
        assert_eq!(rss.retained, Bytes::new(blocks.len() << 10));
        assert_eq!(rss.owed, Bytes::new(1000 << 10));
        HOLD.store(false, Ordering::Release);
        while Stats::of(&heap).counted.owed().0 > 0 {
            std::thread::yield_now();
        }
        drop(blocks);
        heap.collect();
        let text = check(&heap).to_string();
        assert!(text.contains("free pages") && !text.contains("objects retained"), "{text}");
    }
}

#[test]
fn the_memory_of_records_goes_back_with_the_spans() {
    for page in [4096, 16384, 65536] {
        let sim = SimOs::builder().page_size(Bytes::new(page)).build();
        let heap = heap_on(Os::simulated(sim.clone()));
        let few = fill(&heap, &BLOCK, 100);
        heap.collect();
        let base = Rss::of(&heap).records;
        let many = fill(&heap, &BLOCK, 40_000);
        let large = Rss::of(&heap).records;
        // A span of 8 KiB holds eight of these objects, and a record has more than 160 bytes.
        assert!(large >= base + Bytes::new(40_000 / 8 * 160), "{base} and {large}");
        drop(many);
        // The sweep of the first cycle gives the records up, and the second one returns their memory.
        heap.collect();
        heap.collect();
        let small = Rss::of(&heap).records;
        // What describes the pool stays, and a leaf or two.
        let grown = small.saturating_sub(base);
        assert!(grown.get() <= large.get() / 8 + 2 * page, "{base}, {large}, {small}");
        let stats = Stats::of(&heap);
        assert!(stats.cold_records >= Bytes::new(40_000 / 8 * 160 / 2), "{stats:?}");
        let again = fill(&heap, &BLOCK, 40_000);
        assert!(Rss::of(&heap).records <= large + Bytes::new(2 * page));
        drop((few, again, heap));
        sim.assert_all_released();
    }
}
