//! Manual spans through the runtime API: memory that the collector leaves alone.
//!
//! # Safety
//! Spans are written to while the test holds them, and freed once, by the heap that they came from.
#![allow(unsafe_code)]

use spanheap_core::addr::{Addr, AddrRange, Bytes};
use spanheap_core::collect::Options;
use spanheap_core::heap::ManualSpan;
use spanheap_core::mutator::Heap;
use spanheap_core::observe::Stats;
use spanheap_core::os::{Os, SimOs};
use spanheap_core::span::lookup::Lookup;
use std::time::{Duration, Instant};

const PAGE: usize = 8 << 10;

fn heap_on(os: Os) -> Heap {
    Heap::new(os, Options::default()).expect("a heap")
}

fn fill(range: AddrRange, byte: u8) {
    // SAFETY: the range is a manual span's, and the caller holds it.
    unsafe { range.base().as_ptr::<u8>().write_bytes(byte, range.bytes().get()) };
}

fn is_filled_with(range: AddrRange, byte: u8) -> bool {
    let start = range.base().as_ptr::<u8>().cast_const();
    // SAFETY: the range is a manual span's, was written, and the caller holds it.
    let bytes = unsafe { core::slice::from_raw_parts(start, range.bytes().get()) };
    bytes.iter().all(|&found| found == byte)
}

#[test]
fn manual_spans_live_through_cycles_and_are_no_objects() {
    for page_size in [4 << 10, 64 << 10] {
        let sim = SimOs::builder().page_size(Bytes::new(page_size)).build();
        let heap = heap_on(Os::simulated(sim.clone()));
        let mutator = heap.attach();
        let mut held: Vec<(ManualSpan, u8)> = Vec::new();
        let sizes = [0, 1, PAGE - 1, PAGE, PAGE + 1, 15 * PAGE, 16 * PAGE, 5 << 20];
        for (index, size) in sizes.into_iter().cycle().take(40).enumerate() {
            mutator.enter();
            let align = PAGE << (index % 4);
            let span = mutator.alloc_manual(Bytes::new(size), align).expect("memory");
            assert!(span.range().base().is_aligned(align) && span.range().bytes().get() >= size);
            assert!(span.range().bytes().get() < size + PAGE || size == 0);
            if span.is_zeroed() {
                assert!(is_filled_with(span.range(), 0));
            }
            fill(span.range(), index as u8);
            held.push((span, index as u8));
            if index % 3 == 2 {
                let (span, byte) = held.swap_remove(index % held.len());
                assert!(is_filled_with(span.range(), byte));
                // SAFETY: the test holds it and uses it no more.
                unsafe { mutator.free_manual(span) };
            }
            mutator.leave();
            if index % 5 == 0 {
                heap.collect();
                heap.release_free_memory();
            }
        }
        assert_eq!(Stats::of(&heap).live, Bytes::ZERO);
        assert!(held.iter().all(|(span, byte)| is_filled_with(span.range(), *byte)));
        // Some are still held when the heap goes; their memory goes with it.
        drop(mutator);
        drop(heap);
        sim.assert_all_released();
        assert!(!held.is_empty());
    }
}

/// What runs forever here has followed the page map to a span without objects, and again, and again.
#[test]
fn no_object_is_found_in_a_manual_span() {
    let heap = heap_on(Os::native());
    let mutator = heap.attach();
    mutator.enter();
    for pages in [1, 3, 20, 700] {
        let span = mutator.alloc_manual(Bytes::new(pages * PAGE), PAGE).expect("memory");
        let (base, end) = (span.range().base(), span.range().end());
        let addrs = [base, base + Bytes::new(5), base + Bytes::new(pages * PAGE / 2)];
        for addr in addrs.into_iter().chain([Addr::new(end.get() - 1)]) {
            assert_eq!(mutator.find_object(addr), Lookup::Free);
        }
        // SAFETY: the test holds it and uses it no more.
        unsafe { mutator.free_manual(span) };
        assert_eq!(mutator.find_object(base), Lookup::Free);
    }
    mutator.leave();
}

#[test]
#[should_panic(expected = "freed outside of a closure")]
fn a_manual_span_of_a_heap_that_is_gone_is_not_freed() {
    let heap = heap_on(Os::native());
    let mutator = heap.attach();
    mutator.enter();
    let span = mutator.alloc_manual(Bytes::new(PAGE), PAGE).expect("memory");
    mutator.leave();
    drop(heap);
    // SAFETY: it panics before it looks at anything.
    unsafe { mutator.free_manual(span) };
}

#[test]
fn a_size_that_no_heap_has_is_refused() {
    let heap = heap_on(Os::native());
    let mutator = heap.attach();
    mutator.enter();
    for size in [usize::MAX, usize::MAX - PAGE, 16 << 40] {
        let refused = mutator.alloc_manual(Bytes::new(size), PAGE).expect_err("too large");
        assert_eq!(refused.requested, Bytes::new(size));
    }
    mutator.leave();
}

#[test]
#[should_panic(expected = "does not belong to this heap")]
fn another_heaps_span_is_not_taken() {
    let (ours, theirs) = (heap_on(Os::native()), heap_on(Os::native()));
    let (us, them) = (ours.attach(), theirs.attach());
    them.enter();
    let span = them.alloc_manual(Bytes::new(PAGE), PAGE).expect("memory");
    us.enter();
    // SAFETY: it panics before it frees anything.
    unsafe { us.free_manual(span) };
}

#[test]
fn an_address_in_a_manual_span_is_free_to_a_lookup() {
    let heap = heap_on(Os::native());
    let mutator = heap.attach();
    mutator.enter();
    let span = mutator.alloc_manual(Bytes::new(3 * PAGE), PAGE).expect("memory");
    for offset in [0, 1, PAGE, 3 * PAGE - 1] {
        let at = span.range().base() + Bytes::new(offset);
        assert_eq!(mutator.find_object(at), Lookup::Free, "{at}");
    }
    let at = span.range().base();
    // SAFETY: the test holds it and uses it no more.
    unsafe { mutator.free_manual(span) };
    assert_eq!(mutator.find_object(at), Lookup::Free);
    mutator.leave();
}

#[test]
fn an_idle_heap_returns_what_is_freed_long_after_the_last_cycle() {
    let heap = heap_on(Os::native());
    let mutator = heap.attach();
    mutator.enter();
    let span = mutator.alloc_manual(Bytes::new(64 << 20), PAGE).expect("memory");
    fill(span.range(), 1);
    mutator.leave();
    heap.collect();
    let ready = || Stats::of(&heap).ready;
    let before = ready();
    assert!(before >= Bytes::new(64 << 20));
    // By now the scavenger has seen that there is too much, and nothing of it free. (If it has not, the test
    // is easier to pass.)
    std::thread::sleep(Duration::from_millis(1200));
    mutator.enter();
    // SAFETY: the test holds it and uses it no more.
    unsafe { mutator.free_manual(span) };
    mutator.leave();
    let deadline = Instant::now() + Duration::from_secs(60);
    while ready() > Bytes::new(32 << 20) {
        assert!(Instant::now() < deadline, "{} of {before} are left", ready());
        std::thread::sleep(Duration::from_millis(10));
    }
}
