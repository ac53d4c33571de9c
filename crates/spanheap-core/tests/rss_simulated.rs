//! Where the resident memory is, on a simulated system: there the process is the heap, the system
//! knows the state of each page, and the table must be exact.
//!
//! # Safety
//! The programs keep U1 to U5 of the runtime API.

use spanheap_core::addr::Bytes;
use spanheap_core::collect::roots::RootRecord;
use spanheap_core::collect::{Options, Policy};
use spanheap_core::mutator::{Heap, Mutator};
use spanheap_core::observe::{MemoryState, Rss, Stats};
use spanheap_core::os::{Os, SimOs};
use spanheap_core::span::{Shape, Tracer, TypeInfo};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const MIB: usize = 1 << 20;

unsafe fn trace_nothing(_: *const u8, _: usize, _: &mut Tracer<'_>) {}

/// While this is set, values are not dropped.
static HOLD: AtomicBool = AtomicBool::new(false);

unsafe fn drop_when_allowed(_: *mut u8, _: usize) {
    while HOLD.load(Ordering::Acquire) {
        std::thread::yield_now();
    }
}

static MORTAL: TypeInfo =
    TypeInfo::new(|| "mortal", 1024, 8, Shape::NoScan, trace_nothing, Some(drop_when_allowed));

static BLOCK: TypeInfo = TypeInfo::new(|| "block", 1024, 8, Shape::NoScan, trace_nothing, None);
static LARGE: TypeInfo = TypeInfo::new(|| "large", MIB, 8, Shape::NoScan, trace_nothing, None);
/// Allocates one object, fills it, and holds it. A closure is open.
fn make(mutator: &Mutator, ty: &'static TypeInfo) -> Arc<RootRecord> {
    // SAFETY: a closure is open.
    let slot = unsafe { mutator.alloc(ty) }.expect("memory");
    // SAFETY: the slot is ours and so large.
    unsafe { slot.as_ptr().write_bytes(0x5a, ty.size) };
    // SAFETY: it is initialised.
    unsafe { mutator.publish(slot) };
    // SAFETY: the closure holds it.
    unsafe { mutator.root(slot) }
}

/// So many objects, in one closure, by a mutator that leaves no runs open.
fn fill(heap: &Heap, ty: &'static TypeInfo, objects: usize) -> Vec<Arc<RootRecord>> {
    let mutator = heap.attach();
    mutator.enter();
    let made = (0..objects).map(|_| make(&mutator, ty)).collect();
    mutator.leave();
    made
}

/// Cycles begin on request only.
fn heap_on(os: Os) -> Heap {
    let policy = Policy { percent: None, limit: None };
    Heap::new(os, Options { policy, ..Options::default() }).expect("memory")
}

/// Keeps every third object, scattered.
fn thin_out(objects: &mut Vec<Arc<RootRecord>>) {
    let mut random = 0x1234_5678_9abc_def1u64;
    objects.retain(|_| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % 3 == 0
    });
}

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
