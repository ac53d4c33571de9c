//! What arenas weigh: memory that the program frees itself begins no cycles, and everything else does.
//!
//! # Safety
//! As in the file above: nobody else uses the heaps.
#![allow(unsafe_code)]

use super::*;
use crate::span::alone::{Alone, Busy};

fn heap(config: Config) -> (Arc<SimOs>, Central) {
    let sim = SimOs::builder().moves(false).build();
    let central = Central::with_hooks(Os::simulated(sim.clone()), config, Hooks::none());
    (sim, central.expect("memory"))
}

fn end(sim: &SimOs, central: &Central, local: &LocalPages) {
    central.take_back(local);
    // SAFETY: nobody uses the heap any more.
    unsafe { central.release() };
    sim.assert_all_released();
}

/// An arena like the one that was freed before it weighs nothing, and what comes on top of it does.
#[test]
fn what_the_program_frees_itself_begins_no_cycle_the_next_time() {
    let (sim, central) = heap(Config::default());
    let (local, arenas) = (LocalPages::default(), central.arenas());
    let (first, _, size) = full_arena(&central, &local);
    assert_eq!(central.weight(), size, "nobody knows yet what becomes of it");
    central.free_arena(&first, Freed::Dropped).expect("once");
    assert_eq!(central.weight(), Bytes::ZERO);
    for _ in 0..3 {
        let (again, ..) = full_arena(&central, &local);
        assert_eq!(central.weight(), Bytes::ZERO);
        let (more, ..) = full_arena(&central, &local);
        assert_eq!(central.weight(), size, "two at once are news");
        // The trigger is not made from what is expected to go.
        assert_eq!(central.outside().begin_plan(Bytes::ZERO, central.expected()), size);
        arenas.abandon(more);
        central.free_arena(&again, Freed::Dropped).expect("once");
        assert_eq!(central.weight(), size, "only a cycle frees it");
        // SAFETY: no closure is open; the bits are clear, and so the abandoned arena goes.
        let freed = unsafe {
            arenas.note_abandoned();
            let table = Generation::new(1).table();
            arenas.end_quarantines(central.os(), central.pages(), table, 0)
        };
        assert_eq!(freed, size);
        central.outside().shrink(freed);
        assert_eq!(central.weight(), Bytes::ZERO);
    }
    arenas.forget_usual();
    let (last, ..) = full_arena(&central, &local);
    assert_eq!(central.weight(), size, "it is long ago");
    central.free_arena(&last, Freed::Dropped).expect("once");
    end(&sim, &central, &local);
}

/// Abandoned arenas do not become a habit, however many there are; nor does one that is freed after it was abandoned.
#[test]
fn abandoned_arenas_weigh_whatever_is_freed_beside_them() {
    let (sim, central) = heap(Config::default());
    let (local, arenas) = (LocalPages::default(), central.arenas());
    let mut abandoned = Bytes::ZERO;
    let mut last = None;
    for _ in 0..8 {
        let (left, _, size) = full_arena(&central, &local);
        arenas.abandon(left.clone());
        abandoned += size;
        let (freed, ..) = full_arena(&central, &local);
        assert!(central.weight() >= abandoned);
        central.free_arena(&freed, Freed::Dropped).expect("once");
        assert_eq!(central.weight(), abandoned);
        last = Some((left, size));
    }
    let (left, size) = last.expect("there were some");
    central.free_arena(&left, Freed::Dropped).expect("once");
    assert_eq!(central.weight(), abandoned - size);
    assert_eq!(arenas.expected(), Bytes::ZERO);
    end(&sim, &central, &local);
}

/// What destructors free has waited for a cycle: it does not become usual, and so nothing gathers without bound.
#[test]
fn arenas_that_destructors_free_weigh_each_time() {
    let (sim, central) = heap(Config::default());
    let local = LocalPages::default();
    for _ in 0..5 {
        let mut owners = Vec::new();
        while central.weight() < Bytes::new(4 << 20) {
            owners.push(full_arena(&central, &local).0);
            assert!(owners.len() <= 4, "{} weigh {}", owners.len(), central.weight());
        }
        let _destructor = Alone::begin(Busy::Destructor);
        for core in owners {
            central.free_arena(&core, Freed::Dropped).expect("once");
        }
        assert_eq!(central.expected(), Bytes::ZERO);
        central.arenas().usual.end_period();
    }
    end(&sim, &central, &local);
}

/// Under a limit the memory counts, whoever will free it.
#[test]
fn under_a_limit_every_arena_weighs() {
    let limit = Some(Bytes::new(1 << 30));
    for (soft_limit, hard_limit) in [(limit, None), (None, limit)] {
        let (sim, central) = heap(Config { soft_limit, hard_limit, ..Config::default() });
        let local = LocalPages::default();
        for _ in 0..3 {
            let (core, _, size) = full_arena(&central, &local);
            assert_eq!(central.weight(), size);
            central.free_arena(&core, Freed::Dropped).expect("once");
        }
        end(&sim, &central, &local);
    }
}
