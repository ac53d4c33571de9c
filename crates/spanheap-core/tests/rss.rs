//! Where the resident memory is, held to what the test knows: how much it has allocated, kept and
//! dropped, and how large the process was before there was a heap.
//!
//! All states of the heap follow each other in one test, and it is the only one of this program:
//! two tests in one process would see each other's memory.
//!
//! # Safety
//! The programs keep U1 to U5 of the runtime API.

mod objects;

use objects::{BLOCK, Held, LARGE, MIB, fill, heap_on, thin_out};
use spanheap_core::addr::Bytes;
use spanheap_core::mutator::Heap;
use spanheap_core::observe::{MemoryState, Rss, Stats};
use spanheap_core::os::Os;

#[track_caller]
fn near(what: &str, found: Bytes, expected: usize, tolerance: usize) {
    let (found, difference) = (found.get(), found.get().abs_diff(expected));
    assert!(difference <= tolerance, "{what}: {found}, expected {expected} +- {tolerance}");
}

/// The resident size of the process, as the kernel counts it page by page.
fn smaps_rollup() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/self/smaps_rollup").ok()?;
    let line = text.lines().find(|line| line.starts_with("Rss:"))?;
    line.split_ascii_whitespace().nth(1)?.parse::<usize>().ok().map(|kib| kib << 10)
}

/// Explains, and compares the sum with what the kernel says before and after, and what is not the
/// heap's with what the process had without it.
fn explain(heap: &Heap, state: &str, without: usize) -> Rss {
    let before = smaps_rollup();
    let rss = Rss::of(heap);
    let after = smaps_rollup();
    println!("{state}:\n{rss}");
    let process = rss.process.expect("Linux says").get();
    let slack = process / 20;
    near("sum of the parts", rss.sum(), process, slack);
    for kernel in [before, after].into_iter().flatten() {
        near("process, page by page", rss.sum(), kernel, slack);
    }
    near("not this heap", rss.rest, without, slack);
    rss
}

#[test]
fn the_parts_add_up_and_each_is_what_the_test_knows_it_to_be() {
    const BLOCKS: usize = 44 << 10;
    const LARGES: usize = 20;
    // The roots are the test's own memory, and there before the heap is.
    let mut blocks: Vec<Held> = Vec::with_capacity(BLOCKS);
    let warm = heap_on(Os::native());
    drop(fill(&warm, &BLOCK, BLOCKS));
    drop(warm);
    let heap = heap_on(Os::native());
    let rss = Rss::of(&heap);
    let empty = rss.process.expect("Linux says").get() - rss.heap().get();
    assert!(rss.heap() < Bytes::new(MIB), "an empty heap:\n{rss}");

    // Fresh: everything was allocated since the last cycle, which has never been.
    blocks.extend(fill(&heap, &BLOCK, BLOCKS));
    let mut larges = fill(&heap, &LARGE, LARGES);
    // Roots are about 100 bytes each, in the Rust allocator.
    let roots = 100 * BLOCKS;
    let rss = explain(&heap, "fresh", empty + roots);
    let objects = (BLOCKS << 10) + LARGES * MIB;
    near("allocated", rss.allocated, objects, MIB / 4);
    assert_eq!((rss.retained, rss.unswept, rss.owed), (Bytes::ZERO, Bytes::ZERO, Bytes::ZERO));
    near("free slots", rss.free_slots, 0, MIB / 4);
    near("free pages", rss.free_pages, 0, MIB / 4);
    // Three of the four side tables have got their memory with the pages, 512 bytes of each for each 64 KiB; those of a
    // large object only at its beginning.
    near("side tables", rss.side_tables, objects / 128 * 5 / 2, objects / 128);
    let without = rss.rest.get();

    heap.collect();
    let rss = explain(&heap, "after a cycle", without);
    near("retained", rss.retained, objects, MIB / 4);
    near("allocated", rss.allocated, 0, MIB / 4);

    // 20 MiB in spans of their own become free pages.
    larges.clear();
    heap.collect();
    let rss = explain(&heap, "large objects dropped", without);
    near("free pages", rss.free_pages, LARGES * MIB, MIB / 4);
    near("retained", rss.retained, BLOCKS << 10, MIB / 4);

    // Two thirds of the blocks die, and leave holes.
    thin_out(&mut blocks);
    heap.collect();
    let rss = explain(&heap, "thinned out", without);
    near("retained", rss.retained, blocks.len() << 10, MIB / 4);
    let pages = rss.retained + rss.free_slots + rss.free_pages;
    near("pages", pages, objects, MIB / 2);
    near("free slots", rss.free_slots, (BLOCKS - blocks.len()) << 10, 4 * MIB);

    // The holes and the free pages are used again before anything new.
    let more = fill(&heap, &BLOCK, 16 << 10);
    let rss = explain(&heap, "filled again", without);
    near("allocated", rss.allocated, 16 * MIB, MIB / 4);
    near("pages", rss.retained + rss.allocated + rss.free_slots + rss.free_pages, objects, MIB / 2);
    let heap_bytes = rss.heap();
    drop((more, blocks));
    heap.collect();
    let rss = explain(&heap, "everything dropped", without);
    near("free pages", rss.free_pages, objects, MIB / 2);
    assert_eq!(rss.retained + rss.allocated + rss.free_slots, Bytes::ZERO);
    near("of this heap", rss.heap(), heap_bytes.get(), MIB);
    let counted = Stats::of(&heap).counted;
    near("free, as counted", rss.free_pages, counted.pages(MemoryState::Free).get(), MIB / 4);
}
