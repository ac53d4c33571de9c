//! What happens to arenas when the system refuses: each call once, and all calls from some on.
//!
//! # Safety
//! As in `world`.

use crate::world::*;
use spanheap_core::collect::{Options, Policy};
use spanheap_core::heap::ArenaError;
use spanheap_core::mutator::{Heap, UserArena};
use spanheap_core::observe::{MemoryState, Stats};
use spanheap_core::os::{Os, SimOs};
use std::sync::Arc;

/// Fills two arenas with values of all kinds, frees them in turn, and collects.
fn program(heap: &Heap, arenas: &mut Vec<UserArena>) -> Result<(), ArenaError> {
    let mutator = heap.attach();
    for round in 0..4 {
        let arena = new_arena(heap);
        arenas.push(arena.clone());
        let mut outcome = Ok(());
        inside(&mutator, |mutator| {
            let mut values = writer(mutator, &arena);
            let mut last = None;
            outcome = (0..400).try_for_each(|number| {
                last = Some(value(&mut values, &NODE, number, last)?);
                Ok(())
            });
            // SAFETY: a closure is open.
            outcome = outcome
                .and_then(|()| unsafe { values.alloc_leaf(bytes_of(3 << 20, 64)) }.map(|_| ()));
            // SAFETY: a closure is open; zeros are nodes without pointers.
            outcome =
                outcome.and_then(|()| unsafe { values.alloc_slice(&NODE, 100_000) }.map(|_| ()));
            let mut count = 0;
            while let Some(at) = last {
                count += 1;
                last = follow(&node(at).left);
            }
            assert!(count == 400 || outcome.is_err());
        });
        outcome?;
        if round % 2 == 1 {
            arenas.drain(..).for_each(|arena| arena.free().expect("once"));
        }
        heap.collect();
        verify(heap);
    }
    Ok(())
}

/// Runs the program; true if nothing was refused.
fn run(sim: &Arc<SimOs>) -> bool {
    let policy = Policy { percent: None, limit: None };
    let options = Options { policy, periodic: None, checkmark: true, ..Options::default() };
    let Ok(heap) = Heap::new(Os::simulated(sim.clone()), options) else {
        sim.assert_all_released();
        return false;
    };
    let mut arenas = Vec::new();
    let outcome = program(&heap, &mut arenas);
    sim.set_fail_call(None);
    sim.set_fail_from(None);
    if outcome.is_err() {
        // Nothing is lost: when the system gives again, the same program succeeds, and everything comes back.
        program(&heap, &mut arenas).expect("memory");
    }
    arenas.clear();
    // What was refused to be unguarded comes back with a later cycle.
    for _ in 0..3 {
        heap.collect();
    }
    verify(&heap);
    let counted = Stats::of(&heap).counted;
    for state in [MemoryState::Arena, MemoryState::Quarantined] {
        assert_eq!(counted.pages(state).get(), 0, "{state:?}");
    }
    assert_eq!(Stats::of(&heap).arenas.live.get(), 0);
    drop(heap);
    sim.assert_all_released();
    outcome.is_ok()
}

#[test]
fn every_call_of_the_system_is_refused_once_and_then_all_of_them() {
    for page_size in [4 << 10, 64 << 10] {
        let build = || SimOs::builder().page_size(spanheap_core::addr::Bytes::new(page_size));
        let sim = build().build();
        assert!(run(&sim));
        let calls = sim.calls();
        assert!(calls > 10, "{calls}");
        let mut refused = 0;
        for n in 1..=calls {
            refused += usize::from(!run(&build().fail_call(n).build()));
        }
        for n in 1..=calls {
            refused += usize::from(!run(&build().fail_from(n).build()));
        }
        assert!(refused > 0, "no refusal was noticed in {calls} calls");
    }
}

/// A system that can make nothing fault: quarantine works all the same.
#[test]
fn without_guards_addresses_are_kept_and_come_back() {
    let sim = SimOs::builder().guard_markers(false).split_limit(0).build();
    assert!(run(&sim));
    let heap = quiet_heap(Os::simulated(sim.clone()), true);
    let arena = new_arena(&heap);
    let mutator = heap.attach();
    inside(&mutator, |mutator| value(&mut writer(mutator, &arena), &NODE, 1, None))
        .expect("memory");
    arena.free().expect("once");
    heap.collect();
    let arenas = Stats::of(&heap).arenas;
    assert_eq!((arenas.unguardable, arenas.guarded), (PAGE as u64, PAGE as u64));
}

/// The end of a heap with arenas in every state.
#[test]
fn heaps_end_with_arenas_in_every_state_and_handles_outlive_them() {
    let sim = SimOs::builder().build();
    let heap = quiet_heap(Os::simulated(sim.clone()), true);
    let mutator = heap.attach();
    let arenas: Vec<UserArena> = (0..6).map(|_| new_arena(&heap)).collect();
    let held = inside(&mutator, |mutator| {
        arenas[..5]
            .iter()
            .map(|arena| {
                let value = value(&mut writer(mutator, arena), &NODE, 1, None).expect("memory");
                root(mutator, value)
            })
            .collect::<Vec<_>>()
    });
    arenas[0].free().expect("once");
    arenas[1].abandon();
    heap.collect();
    arenas[2].free().expect("once");
    drop(mutator);
    drop(heap);
    sim.assert_all_released();
    for (index, arena) in arenas.iter().enumerate() {
        assert!(arena.is_freed(), "{index}");
        assert_eq!((arena.used().get(), arena.reserved().get()), (0, 0));
        let _ = arena.free();
        arena.abandon();
    }
    drop((arenas, held));
}
