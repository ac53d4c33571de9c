//! Chunks for arenas through the runtime API: what a mutator keeps, and when it goes.
//!
//! # Safety
//! Rooms of chunks are written to while the test holds them.
#![allow(unsafe_code)]

use spanheap_core::addr::{AddrRange, Bytes};
use spanheap_core::collect::Options;
use spanheap_core::heap::ManualChunk;
use spanheap_core::mutator::{Heap, Mutator};
use spanheap_core::observe::{MemoryState, Stats};
use spanheap_core::os::{Os, SimOs};
use std::sync::Arc;

const PAGE: usize = 8 << 10;
const ANY: Bytes = Bytes::new(usize::MAX);

fn heap_on(os: Os) -> Heap {
    Heap::new(os, Options::default()).expect("a heap")
}

fn manual(heap: &Heap) -> Bytes {
    Stats::of(heap).counted.pages(MemoryState::Manual)
}

fn fill(range: AddrRange) {
    // SAFETY: the room of a chunk, which the caller holds.
    unsafe { range.base().as_ptr::<u8>().write_bytes(0xa5, range.bytes().get()) };
}

fn take(mutator: &Mutator, pages: usize) -> ManualChunk {
    let chunk = mutator.take_chunk(Bytes::new(pages * PAGE), ANY).expect("memory");
    assert!(chunk.range().bytes().get() >= pages * PAGE);
    fill(chunk.room());
    chunk
}

#[test]
fn a_chunk_that_was_kept_comes_back_and_the_rest_is_bounded() {
    for page_size in [4 << 10, 64 << 10] {
        let sim = SimOs::builder().page_size(Bytes::new(page_size)).build();
        let heap = heap_on(Os::simulated(sim.clone()));
        let manual = || manual(&heap).get();
        let mutator = heap.attach();
        mutator.enter();
        let first = take(&mutator, 3);
        let range = first.range();
        mutator.keep_chunk(first);
        assert_eq!(manual(), 3 * PAGE);
        let second = take(&mutator, 2);
        assert_eq!(second.range(), range, "the one that was kept");
        // A list of any length: what is kept of it is the largest, within a mebibyte.
        let mut list = Some(second);
        for pages in 1..40 {
            let mut chunk = take(&mutator, pages);
            chunk.link(list);
            list = Some(chunk);
        }
        while let Some(mut chunk) = list {
            list = chunk.unlink();
            mutator.keep_chunk(chunk);
        }
        assert!(manual() > 512 << 10 && manual() <= 1 << 20, "{}", manual());
        mutator.leave();
        heap.collect();
        mutator.enter();
        assert_eq!(manual(), 0, "what was kept goes at a change of phase");
        let held = take(&mutator, 5);
        mutator.keep_chunk(take(&mutator, 7));
        mutator.leave();
        drop(mutator);
        assert_eq!(manual(), 5 * PAGE, "a mutator that goes keeps nothing");
        drop(heap);
        sim.assert_all_released();
        drop(held);
    }
}

#[test]
fn a_refusal_is_an_error_and_nothing_is_kept_then() {
    let heap = heap_on(Os::native());
    let mutator = heap.attach();
    mutator.enter();
    mutator.keep_chunk(take(&mutator, 4));
    assert_eq!(manual(&heap).get(), 4 * PAGE);
    let refused = mutator.take_chunk(Bytes::new(16 << 40), ANY).expect_err("too large");
    assert_eq!(refused.requested, Bytes::new(16 << 40));
    assert_eq!(manual(&heap), Bytes::ZERO, "before anything is refused, what was kept goes");
    let exact = mutator.take_chunk(Bytes::new(PAGE), Bytes::new(PAGE)).expect("memory");
    assert_eq!(exact.range().bytes(), Bytes::new(PAGE));
    mutator.leave();
}

/// Threads take and keep chunks while cycles take what they have kept from them when they are outside.
#[test]
fn chunks_are_taken_and_kept_while_cycles_run() {
    let heap = Arc::new(heap_on(Os::native()));
    std::thread::scope(|s| {
        for thread in 0..3 {
            let heap = heap.clone();
            s.spawn(move || {
                let mut mutator = heap.attach();
                for round in 0..2000_usize {
                    mutator.enter();
                    let mut held: Vec<ManualChunk> = Vec::new();
                    (0..round % 6).for_each(|n| held.push(take(&mutator, 1 << n)));
                    let fits = |a: &ManualChunk, b: &ManualChunk| !a.range().intersects(b.range());
                    for (index, chunk) in held.iter().enumerate() {
                        assert!(held[..index].iter().all(|other| fits(chunk, other)));
                    }
                    held.into_iter().for_each(|chunk| mutator.keep_chunk(chunk));
                    mutator.leave();
                    if round % 300 == 50 * thread {
                        mutator = heap.attach();
                    }
                }
            });
        }
        (0..60).for_each(|_| heap.collect());
    });
    heap.collect();
    assert_eq!(manual(&heap), Bytes::ZERO);
}

#[test]
#[should_panic(expected = "does not belong to this heap")]
fn another_heaps_chunk_is_not_kept() {
    let (ours, theirs) = (heap_on(Os::native()), heap_on(Os::native()));
    let (us, them) = (ours.attach(), theirs.attach());
    them.enter();
    let chunk = take(&them, 1);
    us.enter();
    us.keep_chunk(chunk);
}

#[test]
#[should_panic(expected = "chunks are taken inside closures")]
fn no_chunk_is_taken_outside_of_closures() {
    let heap = heap_on(Os::native());
    let _ = heap.attach().take_chunk(Bytes::new(PAGE), ANY);
}
