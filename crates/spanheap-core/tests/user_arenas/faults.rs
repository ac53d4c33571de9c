//! What an access to a freed arena does: it faults, wherever it goes. Each case is a process of its own.
//!
//! # Safety
//! As in `world`, but for the access that is to fault.

use crate::kernel::child::outcome;
use crate::world::*;
use spanheap_core::addr::Addr;
use spanheap_core::mutator::{Heap, Mutator, UserArena};
use spanheap_core::observe::Stats;
use spanheap_core::os::Os;
use std::ptr::NonNull;

/// Runs `access` in a child with an arena that it has filled, after this was freed and its memory has gone.
/// `fill` returns the address that is to be accessed.
fn faults(
    test: &str,
    case: &str,
    fill: impl FnOnce(&Heap, &Mutator, &UserArena) -> NonNull<u8>,
    write: bool,
) {
    let body = || {
        let heap = quiet_heap(Os::native(), true);
        let mutator = heap.attach();
        let arena = new_arena(&heap);
        let at = fill(&heap, &mutator, &arena);
        let bytes = arena.reserved().get() as u64;
        // SAFETY: the memory is there.
        println!("it reads {} before", unsafe { at.read_volatile() });
        arena.free().expect("once");
        wait_for_guards(&heap, bytes);
        assert_eq!(Stats::of(&heap).arenas.unguardable, 0);
        println!("now it faults");
        match write {
            // SAFETY: none: this is the access that is not allowed.
            true => unsafe { at.write_volatile(1) },
            // SAFETY: as above.
            false => println!("it reads {}", unsafe { at.read_volatile() }),
        }
        println!("and it did not");
    };
    let path = format!("faults::{test}");
    let Some(outcome) = outcome(&path, case, body) else { return };
    assert!(outcome.output.contains("now it faults"), "{case}: {}", outcome.output);
    assert!(!outcome.output.contains("and it did not"), "{case}");
    let signal = outcome.signal;
    assert!(matches!(signal, Some(libc::SIGSEGV | libc::SIGBUS)), "{case}: {signal:?}");
}

/// A byte of the arena's first chunk, so many bytes behind its base, or before its end.
fn byte_of(arena: &UserArena, from_base: usize, from_end: usize) -> NonNull<u8> {
    let chunk = arena.chunks()[0];
    let at =
        if from_end > 0 { chunk.end().get() - from_end } else { chunk.base().get() + from_base };
    NonNull::new(Addr::new(at).as_ptr()).expect("an address")
}

fn some_nodes(mutator: &Mutator, arena: &UserArena, count: usize) -> NonNull<u8> {
    inside(mutator, |mutator| {
        let mut values = writer(mutator, arena);
        (0..count)
            .map(|n| value(&mut values, &NODE, n, None).expect("memory"))
            .last()
            .expect("some")
    })
}

#[test]
fn fault_48_every_byte_of_a_freed_chunk_faults() {
    let test = "fault_48_every_byte_of_a_freed_chunk_faults";
    faults(test, "a value", |_, m, a| some_nodes(m, a, 20), false);
    faults(test, "a value, written", |_, m, a| some_nodes(m, a, 20), true);
    for (case, from_base, from_end) in [
        ("the first byte", 0, 0),
        ("the last byte", 0, 1),
        ("a byte that nobody used", 4096 + 100, 0),
        ("the last byte of the first physical page", 4095, 0),
    ] {
        let fill = |_: &Heap, m: &Mutator, a: &UserArena| {
            some_nodes(m, a, 20);
            byte_of(a, from_base, from_end)
        };
        faults(test, case, fill, false);
    }
}

#[test]
fn fault_48_full_chunks_and_the_last_one_fault_alike() {
    let test = "fault_48_full_chunks_and_the_last_one_fault_alike";
    for (case, which) in [("the first", 0usize), ("one in the middle", 1), ("the last", usize::MAX)]
    {
        let fill = |_: &Heap, m: &Mutator, a: &UserArena| {
            some_nodes(m, a, 3000);
            let mut chunks = a.chunks();
            chunks.sort_by_key(|chunk| chunk.bytes());
            let chunk = chunks[which.min(chunks.len() - 1)];
            NonNull::new(
                (chunk.base() + spanheap_core::addr::Bytes::new(chunk.bytes().get() / 2)).as_ptr(),
            )
            .expect("an address")
        };
        faults(test, case, fill, false);
    }
}

#[test]
fn fault_48_55_leaves_and_large_values_fault() {
    let test = "fault_48_55_leaves_and_large_values_fault";
    for (case, size) in [("a small leaf", 10usize), ("a leaf beside", 3 << 20)] {
        let fill = |_: &Heap, m: &Mutator, a: &UserArena| {
            inside(m, |m| {
                let mut values = writer(m, a);
                // SAFETY: a closure is open.
                let leaf = unsafe { values.alloc_leaf(bytes_of(size, 1)) }.expect("memory");
                // SAFETY: inside of it.
                unsafe { leaf.add(size - 1) }
            })
        };
        faults(test, case, fill, false);
    }
    let slice = |_: &Heap, m: &Mutator, a: &UserArena| {
        inside(m, |m| {
            let mut values = writer(m, a);
            // SAFETY: a closure is open.
            unsafe { values.alloc_slice(&NODE, 200_000) }.expect("memory")
        })
    };
    faults(test, "a slice beside", slice, true);
}

/// The arena is freed while one cycle follows the other.
#[test]
fn fault_48_49_it_faults_when_the_arena_is_freed_while_cycles_run() {
    let body = || {
        let heap = quiet_heap(Os::native(), true);
        let mutator = heap.attach();
        let arena = new_arena(&heap);
        let at = some_nodes(&mutator, &arena, 100);
        // Somebody points there. Otherwise a cycle that comes later gives the address away, and whoever has it then may
        // read there.
        let _held = inside(&mutator, |mutator| root(mutator, at));
        let bytes = arena.reserved().get() as u64;
        std::thread::scope(|scope| {
            let cycles = || (0..20).for_each(|_| heap.collect());
            scope.spawn(cycles);
            while Stats::of(&heap).cycles < 5 {
                std::thread::yield_now();
            }
            arena.free().expect("once");
        });
        wait_for_guards(&heap, bytes);
        println!("now it faults");
        // SAFETY: none: this is the access that is not allowed.
        println!("and it did not: {}", unsafe { at.read_volatile() });
    };
    let test = "faults::fault_48_49_it_faults_when_the_arena_is_freed_while_cycles_run";
    let Some(outcome) = outcome(test, "only", body) else { return };
    assert!(outcome.output.contains("now it faults") && outcome.signal.is_some());
    assert!(!outcome.output.contains("and it did not"));
}

/// The last handle frees as well, wherever it is dropped.
#[test]
fn dropping_the_last_handle_frees() {
    let heap = heap();
    let mutator = heap.attach();
    let arena = new_arena(&heap);
    let clone = arena.clone();
    let at = some_nodes(&mutator, &arena, 3);
    drop(arena);
    assert!(!clone.is_freed() && inside(&mutator, |mutator| is_live(mutator, at)));
    std::thread::spawn(move || drop(clone)).join().expect("no panic");
    wait_for_guards(&heap, PAGE as u64);
    assert_eq!(Stats::of(&heap).arenas.freed, 1);
}
