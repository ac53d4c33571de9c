//! Whole pages are used again, for objects of another size: what a heap has mapped depends on the most
//! that was in use at one time, and not on what it was used for.
//!
//! One size class after the other fills the heap and dies. The bound is computed, in pages, and does not look at
//! resident memory:
//!
//! * what the spans of the class take;
//! * a block of 64 pages that the mutator keeps and need not find a run in;
//! * for each span that survives, its pages, and a hole beside it that is too short by a page;
//! * rounded up to whole chunks, by which a heap grows.
//!
//! # Safety
//! Objects have no pointers, are written before they are published, and a closure is open meanwhile.

use spanheap_core::addr::{Bytes, CHUNK_BYTES, PAGE_BYTES, PageCount};
use spanheap_core::collect::roots::RootRecord;
use spanheap_core::collect::{Options, Policy};
use spanheap_core::mutator::Heap;
use spanheap_core::observe::{MemoryState, Stats};
use spanheap_core::os::{Os, SimOs};
use spanheap_core::span::size_class::SizeClass;
use spanheap_core::span::{Shape, Tracer, TypeInfo};
use std::sync::Arc;

/// What each class fills.
const FILL: usize = 6 << 20;

unsafe fn trace_nothing(_: *const u8, _: usize, _: &mut Tracer<'_>) {}

/// Cycles begin on request only, and memory is not returned.
fn heap_on(os: Os) -> Heap {
    let policy = Policy { percent: None, limit: None };
    let options = Options { policy, return_memory: false, ..Options::default() };
    Heap::new(os, options).expect("memory")
}

/// Fills spans of a class to the last slot and returns how many pages they take. The first object is
/// returned if it is to survive.
fn fill(heap: &Heap, class: SizeClass, survives: bool) -> (usize, Option<Arc<RootRecord>>) {
    let size = class.size().get();
    let ty: &'static TypeInfo =
        Box::leak(Box::new(TypeInfo::new(|| "bytes", size, 8, Shape::NoScan, trace_nothing, None)));
    let spans = FILL / class.pages().bytes().get();
    let before = Stats::of(heap).counted.pages(MemoryState::InUse);
    let mutator = heap.attach();
    let mut kept = None;
    mutator.enter();
    for object in 0..spans * class.objects() {
        // SAFETY: a closure is open.
        let slot = unsafe { mutator.alloc(ty) }.expect("memory");
        // SAFETY: the slot is ours and so large.
        unsafe { slot.as_ptr().write_bytes(0x5a, size) };
        // SAFETY: it is initialised.
        unsafe { mutator.publish(slot) };
        if survives && object == 0 {
            // SAFETY: the closure holds it.
            kept = Some(unsafe { mutator.root(slot) });
        }
    }
    mutator.leave();
    drop(mutator);
    let pages = spans * class.pages().get();
    let in_use = Stats::of(heap).counted.pages(MemoryState::InUse);
    let taken = (in_use - before).get() / PAGE_BYTES;
    assert!(taken <= pages, "{taken} pages are taken for what fits in {pages}");
    (taken, kept)
}

/// Each class in turn, upwards and downwards. With survivors, the spans of one object each stay.
fn run(os: Os, survivors: bool) {
    let heap = heap_on(os);
    let classes: Vec<SizeClass> =
        SizeClass::all().filter(|class| class.size() >= Bytes::new(16)).collect();
    let mut kept = Vec::new();
    let (mut kept_pages, mut most) = (0, 0);
    let mut chunks = Vec::new();
    for &class in classes.iter().chain(classes.iter().rev()) {
        let survives = survivors && kept.len() < 2 * classes.len();
        let (taken, survivor) = fill(&heap, class, survives);
        let holes = kept.len() * (class.pages().get() - 1);
        most = most.max(kept_pages + taken + holes + 64);
        let bound = PageCount::new(most).bytes().checked_align_up(CHUNK_BYTES).expect("MiB");
        let mapped = Stats::of(&heap).counted.mapped();
        assert!(mapped <= bound, "{mapped} mapped, {bound} would do, at {} bytes", class.size());
        chunks.push(mapped.get() / CHUNK_BYTES);
        if let Some(survivor) = survivor {
            kept.push(survivor);
            kept_pages += class.pages().get();
        }
        heap.collect();
    }
    println!("chunks: {chunks:?}");
    if !survivors {
        assert!(chunks.iter().all(|&c| c == chunks[0]), "the heap has grown: {chunks:?}");
    }
}

#[test]
fn pages_of_dead_spans_serve_the_next_size() {
    run(Os::native(), false);
    run(Os::simulated(SimOs::builder().build()), false);
}

#[test]
fn survivors_cost_their_spans_and_the_holes_beside_them() {
    run(Os::native(), true);
}
