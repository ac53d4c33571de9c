//! What lives because of arenas, and what does not.
//!
//! # Safety
//! As in `world`.

use crate::world::*;
use spanheap_core::observe::{MemoryState, Stats};
use spanheap_core::os::Os;
use spanheap_core::span::TypeInfo;
use spanheap_core::span::lookup::{ArenaState, Lookup};

/// An object that only a value points to lives as long as the value is reached, and dies when it is not, although
/// the arena is not freed.
fn an_object_lives_through(ty: &'static TypeInfo) {
    let heap = heap();
    let mutator = heap.attach();
    let arena = new_arena(&heap);
    mutator.enter();
    let kept = object(&mutator, 1, None);
    let mut values = writer(&mutator, &arena);
    let first = value(&mut values, ty, 2, Some(kept)).expect("memory");
    let second = value(&mut values, ty, 3, Some(first)).expect("memory");
    let held = root(&mutator, second);
    let lost = object(&mutator, 4, None);
    let _unreached = value(&mut values, ty, 5, Some(lost)).expect("memory");
    drop(values);
    mutator.leave();

    for _ in 0..3 {
        heap.collect();
        assert!(is_object(&mutator, address(Some(kept))), "it is reached through two values");
        assert!(!is_object(&mutator, address(Some(lost))), "only a dead value points to it");
        inside(&mutator, |mutator| {
            assert!(is_live(mutator, second));
            let first = follow(&node(second).left).expect("a pointer");
            assert_eq!(node(follow(&node(first).left).expect("a pointer")).number, 1);
        });
    }
    verify(&heap);
    drop(held);
    heap.collect();
    assert!(!is_object(&mutator, address(Some(kept))), "nobody reaches the values any more");
    assert!(!arena.is_freed() && arena.used().get() > 0);
}

#[test]
fn fault_51_an_object_dies_when_nothing_reaches_the_value_that_points_to_it() {
    an_object_lives_through(&NODE);
    an_object_lives_through(&TRACED);
}

#[test]
fn fault_50_51_an_address_is_kept_as_long_as_somebody_points_there() {
    let heap = heap();
    let mutator = heap.attach();
    let arena = new_arena(&heap);
    let (held, kept, inner) = inside(&mutator, |mutator| {
        let kept = object(mutator, 1, None);
        let mut values = writer(mutator, &arena);
        let inner = value(&mut values, &NODE, 2, Some(kept)).expect("memory");
        let outer = object(mutator, 3, Some(inner));
        (root(mutator, outer), kept, inner)
    });
    heap.collect();
    assert!(is_object(&mutator, address(Some(kept))));
    let chunk = arena.chunks()[0];
    arena.free().expect("once");
    assert!(arena.free().is_err(), "an arena is freed twice");
    assert!(arena.is_freed() && arena.reserved().get() == 0 && arena.chunks().is_empty());
    inside(&mutator, |mutator| {
        assert!(!is_live(mutator, inner), "a later closure gets nothing");
        assert_eq!(
            follow(&node(crate::world::held(&held)).left),
            Some(inner),
            "but the pointer is there"
        );
    });
    heap.collect();
    assert!(!is_object(&mutator, address(Some(kept))), "a freed value keeps nothing alive");

    // The address is not used again as long as somebody points to it.
    for _ in 0..3 {
        heap.collect();
        let Lookup::Arena(place) = place(&mutator, address(Some(inner))) else {
            panic!("no arena")
        };
        assert_eq!((place.state, place.chunk), (ArenaState::Quarantined, chunk));
        assert_eq!(pages(&heap, MemoryState::Quarantined), chunk.bytes());
    }
    assert!(Stats::of(&heap).arenas.escapes >= 3);
    verify(&heap);
    inside(&mutator, |mutator| set_left(mutator, crate::world::held(&held), None));
    heap.collect();
    assert_eq!(place(&mutator, address(Some(inner))), Lookup::Free);
    assert_eq!(pages(&heap, MemoryState::Quarantined).get(), 0);
    let arenas = Stats::of(&heap).arenas;
    assert_eq!((arenas.released, arenas.guarded), (chunk.bytes().get() as u64, arenas.released));
    verify(&heap);

    // And it is used again then.
    let again = new_arena(&heap);
    inside(&mutator, |mutator| {
        let mut values = writer(mutator, &again);
        // SAFETY: a closure is open.
        let bytes = unsafe { values.alloc_leaf(bytes_of(1000, 1)) }.expect("memory");
        // SAFETY: the room is new.
        unsafe { values.clear(bytes, 1000) };
        // SAFETY: so many bytes.
        let bytes = unsafe { std::slice::from_raw_parts(bytes.as_ptr(), 1000) };
        assert!(bytes.iter().all(|&byte| byte == 0));
    });
    assert_eq!(again.chunks(), [chunk]);
}

#[test]
fn fault_47_an_arena_is_freed_once() {
    let heap = heap();
    let mutator = heap.attach();
    let arena = new_arena(&heap);
    let other = arena.clone();
    inside(&mutator, |mutator| value(&mut writer(mutator, &arena), &NODE, 1, None))
        .expect("memory");
    let freed = std::thread::scope(|scope| {
        let both = [&arena, &other].map(|arena| scope.spawn(move || arena.free()));
        both.map(|thread| thread.join().expect("no panic").is_ok())
    });
    assert!(freed[0] != freed[1], "{freed:?}: one of two has freed it");
    let again = arena.free().expect_err("it is free");
    assert_eq!(again.to_string(), "arena double free: it has been freed before");
    // That an arena has no memory, or was abandoned, makes no difference.
    let empty = new_arena(&heap);
    empty.abandon();
    assert!(empty.free().is_ok() && empty.free().is_err() && empty.is_freed());
    drop((arena, other, empty));
    heap.collect();
    assert_eq!(Stats::of(&heap).arenas.freed, 2);
    verify(&heap);
}

/// Words that look like pointers and are none keep nothing alive, in memory that once held pointers.
#[test]
fn memory_that_is_used_again_has_no_pointers_of_its_former_values() {
    let heap = heap();
    let mutator = heap.attach();
    for round in 0..6 {
        let arena = new_arena(&heap);
        let (held, object) = inside(&mutator, |mutator| {
            let object = object(mutator, round, None);
            let mut values = writer(mutator, &arena);
            let mut last = object;
            if round % 2 == 0 {
                for number in 0..200 {
                    last = value(&mut values, &NODE, number, Some(last)).expect("memory");
                }
                (root(mutator, last), object)
            } else {
                // The same places, filled with the object's address: as numbers.
                // SAFETY: a closure is open.
                let words = unsafe { values.alloc_leaf(bytes_of(8000, 8)) }.expect("memory");
                for word in 0..1000 {
                    // SAFETY: so many words.
                    let word = unsafe { words.cast::<usize>().add(word) };
                    // SAFETY: as above.
                    unsafe { word.write(address(Some(object))) };
                }
                (root(mutator, words), object)
            }
        });
        heap.collect();
        assert_eq!(is_object(&mutator, address(Some(object))), round % 2 == 0, "round {round}");
        drop(held);
        arena.free().expect("once");
        heap.collect();
        assert!(!is_object(&mutator, address(Some(object))));
    }
    assert_eq!(Stats::of(&heap).counted.pages(MemoryState::Quarantined).get(), 0);
}

#[test]
fn fault_52_an_abandoned_arena_goes_when_nothing_reaches_it() {
    for simulated in [false, true] {
        let os = if simulated {
            Os::simulated(spanheap_core::os::SimOs::builder().build())
        } else {
            Os::native()
        };
        let heap = quiet_heap(os, true);
        let mutator = heap.attach();
        let arena = new_arena(&heap);
        let held = inside(&mutator, |mutator| {
            let mut values = writer(mutator, &arena);
            let mut last = None;
            for number in 0..5000 {
                last = Some(value(&mut values, &NODE, number, last).expect("memory"));
            }
            root(mutator, last.expect("many"))
        });
        let bytes = arena.reserved();
        arena.abandon();
        inside(&mutator, |mutator| {
            let mut values = writer(mutator, &arena);
            assert!(value(&mut values, &NODE, 1, None).is_err());
        });
        for _ in 0..2 {
            heap.collect();
            assert!(!arena.is_freed());
        }
        verify(&heap);
        drop(held);
        heap.collect();
        assert!(arena.is_freed());
        let arenas = Stats::of(&heap).arenas;
        assert_eq!((arenas.live.get(), arenas.freed), (0, 1), "{bytes} {arenas:?}");
        verify(&heap);
    }
}

/// An abandoned arena is the collector's, whatever becomes of its handles.
#[test]
fn fault_52_an_abandoned_arena_outlives_its_handles() {
    let heap = heap();
    let mutator = heap.attach();
    let arena = new_arena(&heap);
    let (held, kept) = inside(&mutator, |mutator| {
        let kept = object(mutator, 1, None);
        let value = value(&mut writer(mutator, &arena), &NODE, 2, Some(kept)).expect("memory");
        (root(mutator, value), kept)
    });
    arena.abandon();
    drop(arena);
    for _ in 0..2 {
        heap.collect();
        inside(&mutator, |mutator| {
            let value = crate::world::held(&held);
            assert!(is_live(mutator, value) && node(value).number == 2);
        });
        assert!(is_object(&mutator, address(Some(kept))));
    }
    drop(held);
    heap.collect();
    assert!(!is_object(&mutator, address(Some(kept))));
    assert_eq!(Stats::of(&heap).arenas.live.get(), 0);
    verify(&heap);
}

/// A value whose chunk is as large as several of the page allocator's: its tables go and come back.
#[test]
fn chunks_beside_of_many_mebibytes_come_back_from_quarantine() {
    let heap = heap();
    let mutator = heap.attach();
    for round in 0..3 {
        let arena = new_arena(&heap);
        let size = 21 * MIB + round;
        let last = inside(&mutator, |mutator| {
            let mut values = writer(mutator, &arena);
            // SAFETY: a closure is open.
            let leaf = unsafe { values.alloc_leaf(bytes_of(size, 1)) }.expect("memory");
            // SAFETY: inside of it.
            let last = unsafe { leaf.add(size - 1) };
            // SAFETY: as above.
            assert_eq!(unsafe { last.read() }, 0);
            // SAFETY: as above.
            unsafe { last.write(7) };
            last
        });
        arena.free().expect("once");
        heap.collect();
        heap.release_free_memory();
        assert_eq!(place(&mutator, address(Some(last))), Lookup::Free);
        verify(&heap);
    }
}
