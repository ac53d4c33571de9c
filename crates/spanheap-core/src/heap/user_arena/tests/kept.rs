//! Kept chunks: how many there are, what becomes of them, and what if the system refuses something.
//!
//! Nothing can be moved here: so arenas begin small, and what is large is kept as well.
//!
//! # Safety
//! As in the file above: nobody else uses the heaps.
#![allow(unsafe_code)]

use super::*;
use crate::heap::user_arena::keep::MOST;
use crate::span::map;

/// What was freed stays in memory until a cycle has looked at it. Then it is free memory, unless somebody points there.
#[test]
fn freed_chunks_are_kept_for_the_next_arena() {
    for (markers, escapes, wait) in
        [(true, false, false), (false, false, false), (true, true, false), (false, true, true)]
    {
        let sim = SimOs::builder().moves(false).guard_markers(markers).split_limit(1000).build();
        let os = Os::simulated(sim.clone());
        let central = Central::with_hooks(os, Config::default(), Hooks::none()).expect("memory");
        let (local, arenas) = (LocalPages::default(), central.arenas());
        let (core, values, reserved) = full_arena(&central, &local);
        let before = central.os().accounting().ready();
        central.free_arena(&core, Freed::Dropped).expect("once");
        arenas.take_freed();
        // SAFETY: no closure is open, and nothing marks.
        unsafe { arenas.quarantine_pending(central.os(), central.memory(), central.pages()) };
        let kept = arenas.totals().kept;
        assert!(kept >= Bytes::new(960 << 10), "{kept} of {reserved}");
        assert_eq!(arenas.totals().guarded, reserved.get() as u64);
        assert_eq!(central.pages().quarantined(), reserved - kept);
        assert_eq!(central.os().accounting().ready(), before - (reserved - kept));
        let last = *values.last().expect("there are some");
        arenas.begin_marking();
        if escapes {
            find_pointer(Generation::new(1).table(), last);
        }
        if wait {
            // SAFETY: as above.
            unsafe { arenas.give_kept_away(central.os(), central.pages()) };
            assert_eq!(arenas.totals().kept, Bytes::ZERO);
            assert_eq!(central.pages().quarantined(), reserved);
            assert_eq!(central.os().accounting().ready(), before - reserved);
        }
        let table = Generation::new(1).table();
        // SAFETY: as above.
        unsafe { arenas.end_quarantines(central.os(), central.pages(), table, 0) };
        assert_eq!(arenas.totals().kept, Bytes::ZERO, "whatever was found");
        let mut held = Bytes::ZERO;
        arenas.for_each(|at| held += registry::record(at).range().bytes());
        assert_eq!(held, central.pages().quarantined());
        assert_eq!(held > Bytes::ZERO, escapes);
        let mut found = crate::heap::verify::Verified::default();
        arenas.verify(central.number(), &mut found);
        assert!(found.findings.is_empty());
        if escapes {
            registry::record(held_chunk(arenas)).clear_bits();
        } else {
            // The same memory again: what is got besides are side tables, and the chunks that were too small to be
            // kept.
            let idle = central.os().accounting().ready();
            let (again, others, _) = full_arena(&central, &local);
            let common = others.iter().filter(|at| values.contains(at)).count();
            assert!(common > others.len() / 2, "{common} of {}", others.len());
            assert!(central.os().accounting().ready() <= idle + Bytes::new(256 << 10));
            central.free_arena(&again, Freed::Dropped).expect("once");
        }
        central.take_back(&local);
        // SAFETY: nobody uses the heap any more.
        unsafe { central.release() };
        sim.assert_all_released();
    }
}

/// The one chunk that is left.
/// What a cycle does that finds a pointer to a chunk in quarantine.
fn find_pointer(table: Table, to: Addr) {
    let granule = to.align_down(GRANULE_BYTES);
    bits::set(table, granule);
    // SAFETY: the chunk has pages, which are grown.
    let arena = unsafe { &*map::find(granule) };
    // SAFETY: as above.
    let span = unsafe { &*arena.span(granule.page_in_arena()) };
    span.chunk().expect("it is a chunk").add_escapes(1);
}

fn held_chunk(arenas: &Arenas) -> NonNull<Chunk> {
    let mut held = None;
    arenas.for_each(|at| held = Some(at));
    held.expect("there is one")
}

/// There is a bound, and when half of it is reached in a small heap, a cycle is due.
#[test]
fn kept_memory_is_bounded_and_asks_for_a_cycle() {
    let sim = SimOs::builder().moves(false).build();
    let central = Central::with_hooks(Os::simulated(sim.clone()), Config::default(), Hooks::none());
    let central = central.expect("memory");
    let (local, arenas) = (LocalPages::default(), central.arenas());
    let mut asked = None;
    for _ in 0..40 {
        let (core, ..) = full_arena(&central, &local);
        central.free_arena(&core, Freed::Dropped).expect("once");
        arenas.take_freed();
        // SAFETY: no closure is open, and nothing marks.
        unsafe { arenas.quarantine_pending(central.os(), central.memory(), central.pages()) };
        if arenas.wants_cycle(central.pages()) {
            asked.get_or_insert(arenas.totals().kept);
        }
    }
    let kept = arenas.totals().kept;
    assert!(kept <= MOST && kept > MOST - Bytes::new(2 << 20), "{kept}");
    let asked = asked.expect("a cycle is due");
    let half = Bytes::new(MOST.get() / 2);
    assert!(asked >= half && asked < half + Bytes::new(3 << 20), "{asked}");
    assert!(arenas.kept_for().is_some());
    // SAFETY: as above.
    unsafe { arenas.give_kept_away(central.os(), central.pages()) };
    assert_eq!(arenas.kept_for(), None);
    assert!(!arenas.wants_cycle(central.pages()));
    central.take_back(&local);
    // SAFETY: nobody uses the heap any more.
    unsafe { central.release() };
    sim.assert_all_released();
}

/// The bound follows what arenas had, with what was freed at once, and forgets it after two cycles; a limit makes it
/// small.
#[test]
fn as_much_is_kept_as_arenas_had_lately() {
    let (limit, least) = (Bytes::new(1 << 30), MOST);
    for limits in [(None, None), (Some(limit), None), (None, Some(limit))] {
        let sim = SimOs::builder().moves(false).build();
        let config = Config { soft_limit: limits.0, hard_limit: limits.1, ..Config::default() };
        let os = Os::simulated(sim.clone());
        let central = Central::with_hooks(os, config, Hooks::none()).expect("memory");
        let (local, arenas) = (LocalPages::default(), central.arenas());
        let mut all = Vec::new();
        for at_once in [48, 1, 1] {
            all.extend((0..at_once).map(|_| full_arena(&central, &local).0));
            let held: Bytes = all.iter().map(|core| core.reserved()).sum();
            for core in all.drain(..) {
                central.free_arena(&core, Freed::Dropped).expect("once");
            }
            arenas.take_freed();
            let target = central.pages().limits().target();
            let share = target.map_or(held.max(least), |target| Bytes::new(target.get() / 64));
            let bound = arenas.kept.bound(central.pages(), arenas.usual.held());
            assert_eq!(bound, held.max(least).min(share), "{limits:?}");
            // SAFETY: no closure is open, and nothing marks.
            unsafe { arenas.quarantine_pending(central.os(), central.memory(), central.pages()) };
            let (kept, some) = (arenas.totals().kept, bound.min(held).get() / 4 * 3);
            assert!(kept.get() > some && kept <= bound, "{kept}, {limits:?}");
            assert_eq!(arenas.wants_cycle(central.pages()), at_once == 48);
            for cycle in 1..=2 {
                arenas.begin_marking();
                let table = Generation::new(cycle).table();
                // SAFETY: as above.
                unsafe { arenas.end_quarantines(central.os(), central.pages(), table, 0) };
            }
            assert_eq!(arenas.totals().kept, Bytes::ZERO);
        }
        central.take_back(&local);
        // SAFETY: nobody uses the heap any more.
        unsafe { central.release() };
        sim.assert_all_released();
    }
}

/// What cannot be opened is guarded, and asks for no more cycles; and no cycle is asked for when they are dear.
#[test]
fn chunks_that_cannot_be_opened_are_guarded() {
    for markers in [true, false] {
        let sim = SimOs::builder().moves(false).guard_markers(markers).split_limit(1000).build();
        let os = Os::simulated(sim.clone());
        let central = Central::with_hooks(os, Config::default(), Hooks::none()).expect("memory");
        let (local, arenas) = (LocalPages::default(), central.arenas());
        let table = Generation::new(1).table();
        for (work, asks) in [(0, true), (64 << 20, true), (0, false)] {
            let cores: Vec<_> = (0..20).map(|_| full_arena(&central, &local).0).collect();
            for core in cores {
                central.free_arena(&core, Freed::Dropped).expect("once");
            }
            arenas.take_freed();
            // SAFETY: no closure is open, and nothing marks.
            unsafe { arenas.quarantine_pending(central.os(), central.memory(), central.pages()) };
            assert_eq!(arenas.wants_cycle(central.pages()), asks, "the last cycle says so");
            sim.set_fail_from(Some(sim.calls() + 1));
            // SAFETY: as above.
            unsafe { arenas.end_quarantines(central.os(), central.pages(), table, work) };
            sim.set_fail_from(None);
            assert_eq!(arenas.totals().kept, Bytes::ZERO);
            assert!(!arenas.wants_cycle(central.pages()));
            assert!(central.pages().quarantined() > Bytes::new(11 << 20));
            // SAFETY: as above.
            unsafe { arenas.end_quarantines(central.os(), central.pages(), table, work) };
            assert_eq!(central.pages().quarantined(), Bytes::ZERO);
        }
        central.take_back(&local);
        // SAFETY: nobody uses the heap any more.
        unsafe { central.release() };
        sim.assert_all_released();
    }
}

/// The system refuses a call in the life of kept memory, or all from there on: every one of them. Whatever has become
/// of a chunk then, the next cycle that is not refused anything makes free pages of it, unless somebody points there.
#[test]
fn every_call_for_kept_memory_may_be_refused() {
    for (markers, lasting) in [(true, false), (true, true), (false, false), (false, true)] {
        for nth in 1.. {
            let sim = SimOs::builder().moves(false).guard_markers(markers).split_limit(6).build();
            let os = Os::simulated(sim.clone());
            let central = Central::with_hooks(os, Config::default(), Hooks::none());
            let (central, local) = (central.expect("memory"), LocalPages::default());
            let arenas = central.arenas();
            // What stays lies in between, so there are several runs.
            let mut cores: Vec<_> = (0..7).map(|_| full_arena(&central, &local)).collect();
            let pointed_to = cores[2].1[cores[2].1.len() / 2];
            for (core, ..) in cores.iter().step_by(2) {
                central.free_arena(core, Freed::Dropped).expect("once");
            }
            arenas.take_freed();
            let first = sim.calls() + nth;
            let refuse =
                |from| if lasting { sim.set_fail_from(from) } else { sim.set_fail_call(from) };
            refuse(Some(first));
            // SAFETY: no closure is open, and nothing marks.
            unsafe { arenas.quarantine_pending(central.os(), central.memory(), central.pages()) };
            arenas.begin_marking();
            let table = Generation::new(1).table();
            find_pointer(table, pointed_to);
            // SAFETY: as above.
            unsafe { arenas.end_quarantines(central.os(), central.pages(), table, 0) };
            let was_refused = sim.calls() >= first;
            refuse(None);
            assert_eq!(arenas.totals().kept, Bytes::ZERO, "call {nth}: looked at by a cycle");
            let mut held = Bytes::ZERO;
            arenas.for_each(|at| {
                let chunk = registry::record(at);
                let span = registry::span_of(chunk);
                assert!(!span.is_shut());
                held += if span.is_quarantined() { chunk.range().bytes() } else { Bytes::ZERO };
            });
            assert_eq!(central.pages().quarantined(), held, "call {nth}");
            assert!(held > Bytes::ZERO, "somebody points there");
            arenas.clear_bits();
            arenas.begin_marking();
            let table = Generation::new(2).table();
            // SAFETY: as above.
            unsafe { arenas.end_quarantines(central.os(), central.pages(), table, 0) };
            assert_eq!(central.pages().quarantined(), Bytes::ZERO, "call {nth}");
            for (core, ..) in cores.drain(..) {
                let _ = central.free_arena(&core, Freed::Dropped);
            }
            central.take_back(&local);
            // SAFETY: nobody uses the heap any more.
            unsafe { central.release() };
            sim.assert_all_released();
            if !was_refused {
                assert!(nth > 3, "there were {nth} calls");
                break;
            }
        }
    }
}
