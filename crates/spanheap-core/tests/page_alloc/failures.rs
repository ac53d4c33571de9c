//! What happens when the system refuses, and when a caller is wrong.

use spanheap_core::addr::{Addr, AddrRange, Bytes, CHUNK_PAGES, ChunkIndex, PageCount};
use spanheap_core::os::{Os, SimOs};
use spanheap_core::pages::{MAX_GROWN_CHUNKS, PageAlloc, PageCache, PageRun};
use std::sync::Arc;

const FIRST: usize = 0xc000;

fn chunks(first: usize, n: usize) -> AddrRange {
    AddrRange::new(ChunkIndex::new(first).base(), ChunkIndex::new(first + n).base())
}

fn page(page: usize) -> Addr {
    ChunkIndex::new(FIRST).base() + PageCount::new(page)
}

fn pages(n: usize) -> PageCount {
    PageCount::new(n)
}

fn simulated() -> (Arc<SimOs>, Os) {
    let sim = SimOs::builder().build();
    (Arc::clone(&sim), Os::simulated(sim))
}

/// An allocator of one chunk, whose pages 0 to 9 are allocated, and the system that it lives on.
fn with_ten_pages() -> (Os, PageAlloc) {
    let (_, os) = simulated();
    let mut alloc = PageAlloc::new(&os).unwrap();
    alloc.grow(&os, chunks(FIRST, 1)).unwrap();
    assert_eq!(alloc.alloc(pages(10)), Some(PageRun { base: page(0), scavenged: pages(10) }));
    (os, alloc)
}

#[test]
fn an_allocator_that_cannot_be_made_leaves_nothing_behind() {
    let (sim, os) = simulated();
    let before = sim.calls();
    PageAlloc::new(&os).unwrap().release(&os);
    let calls = sim.calls() - before;
    assert!(calls > 0);
    sim.assert_all_released();
    for n in 1..=calls {
        let (sim, os) = simulated();
        sim.set_fail_call(Some(n));
        match PageAlloc::new(&os) {
            Err(_) => {}
            Ok(_) => panic!("call {n} of {calls} was not refused, or its refusal was not noticed"),
        }
        sim.assert_all_released();
        assert_eq!(os.accounting().reserved(), Bytes::ZERO);
    }
}

/// Everything that can be seen of an allocator.
fn describe(alloc: &PageAlloc) -> String {
    alloc.check_invariants();
    let ranges: Vec<AddrRange> = alloc.in_use().collect();
    let views: Vec<_> = ranges
        .iter()
        .flat_map(|range| range.base().chunk().get()..range.end().chunk().get())
        .map(|chunk| alloc.chunk(ChunkIndex::new(chunk)))
        .collect();
    format!("{ranges:?} {views:?} {:?} {:?}", alloc.free_pages(), alloc.scavenged_pages())
}

#[test]
fn a_growth_that_is_refused_changes_nothing_and_can_be_repeated() {
    // Far apart, so that each needs memory for every table.
    let first = chunks(FIRST, 1);
    let second = chunks(FIRST + 600 * 4096 - 1, 70);
    let (sim, os) = simulated();
    let mut alloc = PageAlloc::new(&os).unwrap();
    alloc.grow(&os, first).unwrap();
    let before = sim.calls();
    alloc.grow(&os, second).unwrap();
    let calls = sim.calls() - before;
    assert!(calls > 0);
    let grown = describe(&alloc);
    alloc.release(&os);

    for n in 1..=calls {
        let (sim, os) = simulated();
        let mut alloc = PageAlloc::new(&os).unwrap();
        alloc.grow(&os, first).unwrap();
        let unchanged = describe(&alloc);
        sim.set_fail_call(Some(sim.calls() + n));
        assert!(alloc.grow(&os, second).is_err(), "call {n} of {calls}");
        assert_eq!(describe(&alloc), unchanged);
        assert_eq!(alloc.alloc(pages(CHUNK_PAGES + 1)), None);
        sim.set_fail_call(None);
        alloc.grow(&os, second).unwrap();
        assert_eq!(describe(&alloc), grown);
        alloc.release(&os);
        sim.assert_all_released();
    }
}

#[test]
fn a_heap_that_is_too_large_is_refused_like_any_other_lack_of_memory() {
    let (sim, os) = simulated();
    let mut alloc = PageAlloc::new(&os).unwrap();
    let before = sim.calls();
    let error = alloc.grow(&os, chunks(FIRST, MAX_GROWN_CHUNKS + 1)).unwrap_err();
    assert!(error.is_exhaustion(), "{error}");
    assert_eq!((sim.calls(), alloc.bounds()), (before, None));
    alloc.release(&os);
}

#[test]
fn without_memory_there_is_nothing_to_allocate() {
    let (_, os) = simulated();
    let mut alloc = PageAlloc::new(&os).unwrap();
    alloc.check_invariants();
    assert_eq!(alloc.alloc(pages(1)), None);
    assert_eq!(alloc.alloc(pages(usize::MAX)), None);
    assert_eq!(alloc.alloc_aligned(pages(1), Bytes::new(1 << 40)), None);
    assert!(alloc.alloc_to_cache().is_none());
    assert!(alloc.chunk(ChunkIndex::new(FIRST)).is_none());
    alloc.release(&os);
}

#[test]
fn requests_that_no_heap_can_meet_are_refused() {
    let (os, mut alloc) = with_ten_pages();
    assert_eq!(alloc.alloc(pages(usize::MAX)), None);
    assert_eq!(alloc.alloc_aligned(pages(3), Bytes::new(1 << 63)), None);
    assert_eq!(alloc.alloc_aligned(pages(400), Bytes::new(1 << 22)), None);
    alloc.check_invariants();
    assert_eq!(alloc.alloc(pages(502)).unwrap().base, page(10));
    alloc.release(&os);
}

#[test]
fn a_flush_of_pages_that_are_free_is_noticed_before_anything_changes() {
    let (os, mut alloc) = with_ten_pages();
    let before = describe(&alloc);
    let mut cache = PageCache::new(page(0), 0xfff, 0);
    let flush = std::panic::AssertUnwindSafe(|| cache.flush(&mut alloc));
    let panic = std::panic::catch_unwind(flush).unwrap_err();
    let message = panic.downcast_ref::<String>().expect("a message with numbers");
    assert!(message.contains("0xc00 are free already"), "{message}");
    assert_eq!(describe(&alloc), before);
    alloc.release(&os);
}

#[test]
fn scavenged_bits_of_pages_that_a_cache_does_not_have_mean_nothing() {
    let (os, mut alloc) = with_ten_pages();
    PageCache::new(page(0), 0b0110, 0b1011).flush(&mut alloc);
    alloc.check_invariants();
    let view = alloc.chunk(page(0).chunk()).unwrap();
    assert_eq!((view.allocated[0], view.scavenged[0]), (0x3f9, !0x3ff | 0b0010));
    alloc.release(&os);
}

#[test]
fn pages_that_are_being_returned_belong_to_nobody_else() {
    let (os, mut alloc) = with_ten_pages();
    assert_eq!(alloc.take_for_scavenging(true, pages(1), pages(512), 0), None, "all are scavenged");
    alloc.free(page(2), pages(6));
    let taken = alloc.take_for_scavenging(true, pages(1), pages(4), 0).unwrap();
    assert_eq!(taken, AddrRange::at(page(4), pages(4).bytes()));
    assert_eq!((alloc.free_pages(), alloc.scavenging_pages()), (pages(504), pages(4)));
    assert_eq!(alloc.alloc(pages(3)), Some(PageRun { base: page(10), scavenged: pages(3) }));
    alloc.check_invariants();

    // Given back in two parts, and found by the next allocation, as scavenged.
    alloc.finish_scavenging(AddrRange::at(page(6), pages(2).bytes()));
    alloc.check_invariants();
    alloc.finish_scavenging(AddrRange::at(page(4), pages(2).bytes()));
    assert_eq!((alloc.free_pages(), alloc.scavenging_pages()), (pages(505), pages(0)));
    assert_eq!(alloc.alloc(pages(6)), Some(PageRun { base: page(2), scavenged: pages(4) }));
    alloc.check_invariants();
    alloc.release(&os);
}

#[test]
fn what_the_index_has_lost_sight_of_is_found_after_a_reset() {
    let (os, mut alloc) = with_ten_pages();
    alloc.free(page(0), pages(1));
    alloc.next_scavenge_generation();
    let one = pages(1);
    let all = |alloc: &mut PageAlloc, force| alloc.take_for_scavenging(force, one, pages(512), 0);
    // The background's cursor is at page 0. The rest of the chunk is freed, and the search looks at
    // the first 64 pages only.
    alloc.claim(page(10), pages(502));
    alloc.free(page(100), pages(50));
    let taken = all(&mut alloc, false).unwrap();
    assert_eq!(taken, AddrRange::at(page(0), one.bytes()));
    alloc.finish_scavenging(taken);
    assert_eq!(all(&mut alloc, false), None);
    assert_eq!(all(&mut alloc, true), None, "the chunk is known as empty");
    alloc.reset_scavenge_search();
    alloc.check_invariants();
    let taken = all(&mut alloc, true).unwrap();
    assert_eq!(taken, AddrRange::at(page(100), pages(50).bytes()));
    alloc.finish_scavenging(taken);
    assert_eq!(all(&mut alloc, true), None);
    assert_eq!(alloc.scavenged_pages(), alloc.free_pages());
    alloc.release(&os);
}

/// Tests that a call panics with a text that says what is wrong, and changes nothing.
macro_rules! misuse {
    ($($name:ident: $text:literal, $call:expr;)*) => {$(
        #[test]
        fn $name() {
            let (os, mut alloc) = with_ten_pages();
            let before = describe(&alloc);
            let call: fn(&mut PageAlloc, &Os) = $call;
            let call = std::panic::AssertUnwindSafe(|| call(&mut alloc, &os));
            let panic = std::panic::catch_unwind(call).expect_err("this is misuse");
            let message = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or(panic.downcast_ref::<&str>().copied())
                .expect("a message");
            assert!(message.contains($text), "{message}");
            assert_eq!(describe(&alloc), before);
            alloc.release(&os);
        }
    )*};
}

misuse! {
    freeing_twice: "some of them are free already", |alloc, _| {
        alloc.free(page(9), pages(2));
    };
    freeing_what_was_never_grown: "never had all of them", |alloc, _| {
        alloc.free(ChunkIndex::new(FIRST + 1).base(), pages(1));
    };
    freeing_past_the_end: "never had all of them", |alloc, _| {
        alloc.free(page(0), pages(CHUNK_PAGES + 1));
    };
    freeing_more_than_the_address_space: "never had all of them", |alloc, _| {
        alloc.free(page(0), pages(usize::MAX));
    };
    freeing_outside_the_address_space: "never had all of them", |alloc, _| {
        alloc.free(Addr::new(usize::MAX << 13), pages(1));
    };
    freeing_inside_a_page: "starts no page", |alloc, _| {
        alloc.free(page(0) + Bytes::new(16), pages(1));
    };
    freeing_nothing: "no pages at all", |alloc, _| {
        alloc.free(page(0), pages(0));
    };
    claiming_what_is_allocated: "some of them are allocated already", |alloc, _| {
        alloc.claim(page(9), pages(2));
    };
    scavenging_what_is_allocated: "some of them are allocated already", |alloc, _| {
        alloc.set_scavenged(page(5), pages(6));
    };
    finishing_what_nobody_took: "0 were taken", |alloc, _| {
        alloc.finish_scavenging(AddrRange::at(page(0), pages(1).bytes()));
    };
    finishing_what_is_free: "some of them are free already", |alloc, _| {
        alloc.finish_scavenging(AddrRange::at(page(9), pages(2).bytes()));
    };
    finishing_a_part_of_a_page: "not made of whole pages", |alloc, _| {
        alloc.finish_scavenging(AddrRange::at(page(0), Bytes::new(4096)));
    };
    scavenging_by_three_pages: "physical pages are 1 to 64", |alloc, _| {
        alloc.take_for_scavenging(true, pages(3), pages(3), 0);
    };
    scavenging_with_huge_pages_of_three: "huge pages of 3 pages", |alloc, _| {
        alloc.take_for_scavenging(true, pages(1), pages(3), 3);
    };
    allocating_nothing: "at least one page", |alloc, _| {
        alloc.alloc(pages(0));
    };
    an_alignment_that_is_none: "power of two", |alloc, _| {
        alloc.alloc_aligned(pages(1), Bytes::new(24 << 10));
    };
    growing_what_is_there: "grown before", |alloc, os| {
        let _ = alloc.grow(os, chunks(FIRST - 1, 2));
    };
    growing_by_part_of_a_chunk: "whole chunks", |alloc, os| {
        let _ = alloc.grow(os, AddrRange::at(page(CHUNK_PAGES), Bytes::new(1 << 20)));
    };
    growing_by_nothing: "whole chunks", |alloc, os| {
        let _ = alloc.grow(os, chunks(FIRST + 1, 0));
    };
    growing_past_the_address_space: "no such addresses", |alloc, os| {
        let _ = alloc.grow(os, chunks((1 << 25) - 1, 2));
    };
}
