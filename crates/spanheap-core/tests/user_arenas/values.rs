//! Values of all kinds and sizes, and where they lie.
//!
//! # Safety
//! As in `world`.

use crate::world::*;
use spanheap_core::addr::{Addr, Bytes};
use spanheap_core::heap::ArenaError;
use spanheap_core::mutator::ArenaOptions;
use spanheap_core::observe::{MemoryState, Stats};
use spanheap_core::os::{Os, SimOs};
use spanheap_core::span::{Shape, TypeInfo};
use std::ptr::NonNull;
use std::sync::atomic::AtomicUsize;

/// Types of sizes that Go's tests use, with pointers in their first word and without.
fn sizes() -> Vec<usize> {
    let chunk = 8 * MIB;
    vec![
        0,
        1,
        8,
        16,
        24,
        56,
        120,
        1000,
        64 << 10,
        100 << 10,
        chunk / 4 - 24,
        chunk / 4,
        chunk / 2,
        chunk + 1,
    ]
}

fn leaked(size: usize, shape: Shape) -> &'static TypeInfo {
    let size = if shape == Shape::NoScan { size } else { size.next_multiple_of(8) };
    let ty = TypeInfo::new(
        || "some",
        size,
        if shape == Shape::NoScan { 1 } else { 8 },
        shape,
        trace_nothing,
        None,
    );
    Box::leak(Box::new(ty))
}

/// Every value is zeroed, aligned, inside its arena, and overlaps no other.
#[test]
fn fault_55_values_of_every_size_lie_apart_and_are_zero() {
    for page_size in [4 << 10, 16 << 10, 64 << 10] {
        let sim = SimOs::builder().page_size(Bytes::new(page_size)).build();
        let heap = quiet_heap(Os::simulated(sim.clone()), true);
        let mutator = heap.attach();
        // Memory that was used is dirty.
        for _ in 0..3 {
            let arena = new_arena(&heap);
            let mut taken: Vec<(usize, usize)> = Vec::new();
            inside(&mutator, |mutator| {
                let mut values = writer(mutator, &arena);
                for (index, size) in sizes().into_iter().cycle().take(60).enumerate() {
                    let shape = match index % 3 {
                        0 if size >= 8 => Shape::Words(1),
                        _ => Shape::NoScan,
                    };
                    if size > MIB && index > 30 {
                        continue;
                    }
                    let ty = leaked(size, shape);
                    // SAFETY: a closure is open.
                    let at = unsafe { values.alloc(ty) }.expect("memory");
                    // SAFETY: the room is new.
                    unsafe { values.clear(at, ty.size) };
                    // SAFETY: so many bytes.
                    let bytes = unsafe { std::slice::from_raw_parts_mut(at.as_ptr(), ty.size) };
                    assert!(bytes.iter().all(|&byte| byte == 0), "{size}");
                    if shape == Shape::NoScan {
                        bytes.fill(0xa5);
                    }
                    assert!(Addr::of(at.as_ptr()).is_aligned(ty.align));
                    assert!(is_live(mutator, at));
                    taken.push((address(Some(at)), ty.size));
                }
            });
            taken.sort_unstable();
            for pair in taken.windows(2) {
                assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{pair:x?}");
            }
            let chunks = arena.chunks();
            for &(at, size) in &taken {
                let holds = |c: &&spanheap_core::addr::AddrRange| {
                    c.contains(Addr::new(at)) && at + size <= c.end().get()
                };
                assert!(chunks.iter().any(|c| holds(&c)), "{at:#x}");
            }
            let reserved: Bytes = chunks.iter().map(|chunk| chunk.bytes()).sum();
            assert_eq!(arena.reserved(), reserved);
            assert!(arena.used() <= reserved);
            assert_eq!(pages(&heap, MemoryState::Arena), reserved);
            heap.collect();
            verify(&heap);
            arena.free().expect("once");
            heap.collect();
            heap.collect();
            assert_eq!(pages(&heap, MemoryState::Arena).get(), 0);
            assert_eq!(pages(&heap, MemoryState::Quarantined).get(), 0);
        }
        drop(mutator);
        drop(heap);
        sim.assert_all_released();
    }
}

/// Slices with pointers, of few elements and of more than a header can count, aligned to a word and to more.
#[test]
fn fault_55_slices_are_scanned_to_their_last_element() {
    static WIDE: TypeInfo =
        TypeInfo::new(|| "wide", size_of::<Node>(), 64, Shape::Words(0b11), trace_nodes, None);
    let heap = heap();
    let mutator = heap.attach();
    let arena = new_arena(&heap);
    let many = (1 << 19) + 3;
    for (ty, len) in [
        (&NODE, 1),
        (&NODE, 3),
        (&TRACED, 7),
        (&NODE, 60_000),
        (&TRACED, 300_000),
        (&NODE, many),
        (&WIDE, 5),
    ] {
        let step = ty.size.next_multiple_of(ty.align);
        let (held, objects) = inside(&mutator, |mutator| {
            let mut values = writer(mutator, &arena);
            // SAFETY: a closure is open.
            let slice = unsafe { values.alloc_slice(ty, len) }.expect("memory");
            assert!(Addr::of(slice.as_ptr()).is_aligned(ty.align));
            let mut objects = Vec::new();
            for index in 0..len {
                let wants = index == 0 || index == len - 1 || index % 100_001 == 77;
                let target = wants.then(|| object(mutator, index, None));
                objects.extend(target);
                // SAFETY: so many elements. (What is aligned to more than its size is so in its first element only.)
                let element = unsafe { slice.add(index * ty.size.min(step)) };
                // SAFETY: it is new.
                unsafe { fill(element, index, target, None) };
            }
            (root(mutator, slice), objects)
        });
        heap.collect();
        for object in &objects {
            assert!(is_object(&mutator, address(Some(*object))), "{} of {len}", (ty.name)());
        }
        drop(held);
        heap.collect();
        assert!(objects.iter().all(|&object| !is_object(&mutator, address(Some(object)))));
    }
    let marked = Stats::of(&heap).marked;
    assert_eq!(marked, Bytes::ZERO, "values are accounted for with their arena");
    verify(&heap);
}

#[test]
fn an_arena_stops_at_its_limit_and_goes_on_below() {
    let heap = heap();
    let mutator = heap.attach();
    let limit = Some(Bytes::new(100 << 10));
    let arena = heap.new_arena(ArenaOptions { name: Some("small".into()), limit });
    assert_eq!((arena.name(), arena.limit()), ("small", limit));
    inside(&mutator, |mutator| {
        let mut values = writer(mutator, &arena);
        // SAFETY: a closure is open.
        let mut take = |size| unsafe { values.alloc_leaf(bytes_of(size, 8)) };
        let refused = take(200 << 10);
        assert!(
            matches!(refused, Err(ArenaError::LimitReached { limit: l, .. }) if Some(l) == limit)
        );
        let mut sum = 0;
        while take(1000).is_ok() {
            sum += 1000;
        }
        // The last chunk may be smaller than the one that was due.
        assert!(sum > 80 << 10, "{sum}");
        let reserved = arena.reserved();
        assert!(reserved <= Bytes::new(100 << 10), "{reserved}");
        assert!(matches!(take(1000), Err(ArenaError::LimitReached { .. })));
    });
}

#[test]
fn sizes_that_overflow_are_refused() {
    let heap = heap();
    let mutator = heap.attach();
    let arena = new_arena(&heap);
    inside(&mutator, |mutator| {
        let mut values = writer(mutator, &arena);
        for len in [usize::MAX, usize::MAX / 32, isize::MAX as usize / 32, isize::MAX as usize] {
            // SAFETY: a closure is open.
            let refused = unsafe { values.alloc_slice(&NODE, len) };
            assert!(matches!(refused, Err(ArenaError::OutOfMemory(_))), "{len}: {refused:?}");
        }
    });
    assert_eq!(arena.reserved(), Bytes::ZERO);
}

#[test]
fn an_arena_of_another_heap_is_refused() {
    let (heap, other) = (heap(), heap());
    let mutator = heap.attach();
    let arena = new_arena(&other);
    inside(&mutator, |mutator| {
        // SAFETY: a closure is open.
        let refused = unsafe { mutator.arena_alloc(&arena, &NODE) };
        assert_eq!(refused, Err(ArenaError::OtherHeap));
    });
}

/// A freed arena takes no more chunks, and a writer that still has room is told of values that are not live.
#[test]
fn a_writer_of_a_freed_arena_is_refused_when_its_chunk_is_full() {
    let heap = heap();
    let mutator = heap.attach();
    let arena = new_arena(&heap);
    inside(&mutator, |mutator| {
        let mut values = writer(mutator, &arena);
        let first = value(&mut values, &NODE, 1, None).expect("memory");
        arena.free().expect("once");
        assert!(values.is_freed() && !is_live(mutator, first));
        let mut more = 0;
        let error = loop {
            match value(&mut values, &NODE, 1, Some(first)) {
                Ok(value) => assert!(!is_live(mutator, value)),
                Err(error) => break error,
            }
            more += 1;
        };
        assert_eq!(error, ArenaError::Freed);
        assert!(more < PAGE / 32, "{more}");
        assert_eq!(value(&mut values, &NODE, 1, None), Err(ArenaError::Freed));
    });
    inside(&mutator, |mutator| {
        let mut values = writer(mutator, &arena);
        assert_eq!(value(&mut values, &NODE, 1, None), Err(ArenaError::Freed));
    });
}

/// A closure that comes later goes on where the last one has stopped, and so does one value at a time.
#[test]
fn closures_share_a_chunk_one_after_the_other() {
    let heap = heap();
    let mutator = heap.attach();
    let arena = new_arena(&heap);
    for number in 0..100 {
        inside(&mutator, |mutator| {
            // SAFETY: a closure is open.
            let slot = unsafe { mutator.arena_alloc(&arena, &NODE) }.expect("memory");
            // SAFETY: it is new.
            unsafe { fill(slot, number, None, None) };
            // SAFETY: complete.
            unsafe { mutator.publish(slot) };
        });
    }
    assert_eq!(arena.reserved(), Bytes::new(PAGE));
    // A header before each, rounded up to a granule.
    assert_eq!(arena.used(), Bytes::new(100 * 48));
}

const _: fn(&AtomicUsize) -> Option<NonNull<u8>> = follow;
