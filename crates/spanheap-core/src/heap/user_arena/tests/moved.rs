//! Large arenas: their memory moves on, their addresses wait.
//!
//! # Safety
//! As in the file above: nobody else uses the heaps.
#![allow(unsafe_code)]

use super::*;

/// An arena with so many bytes of values.
fn filled(central: &Central, local: &LocalPages, bytes: usize) -> (Arc<ArenaCore>, Vec<Addr>) {
    let core = central.arenas().make(central.number(), "".into(), None);
    let mut lease = Lease::none(Colour::White);
    let mut values = Vec::new();
    let wanted = Wanted::Leaf { bytes: 1000, align: 8 };
    for _ in 0..bytes / 1000 {
        let room = wanted.take(&mut lease).or_else(|| {
            Some(central.arena_room(&core, &mut lease, wanted, local).expect("memory"))
        });
        values.push(Addr::of(room.expect("as above").as_ptr().cast_const()));
    }
    core.end_lease(&mut lease);
    (core, values)
}

/// Frees an arena, as if a grace period were over.
fn bury(central: &Central, core: &ArenaCore) {
    central.free_arena(core, Freed::Dropped).expect("once");
    central.arenas().take_freed();
    // SAFETY: no closure is open, and nothing marks.
    unsafe {
        central.arenas().quarantine_pending(central.os(), central.memory(), central.pages());
    }
}

/// A cycle has found pointers to nothing.
fn cycle(central: &Central) {
    central.arenas().begin_marking();
    let table = Generation::new(1).table();
    // SAFETY: as above.
    unsafe { central.arenas().end_quarantines(central.os(), central.pages(), table, 0) };
}

fn check(central: &Central) {
    let mut found = crate::heap::verify::Verified::default();
    central.arenas().verify(central.number(), &mut found);
    assert!(found.findings.is_empty());
}

/// Arenas of eight mebibytes, one after the other: there is memory for two of them, and a cycle is due when there are
/// many addresses, and not before.
#[test]
fn large_arenas_in_sequence_have_the_memory_of_one() {
    let sim = SimOs::builder().split_limit(8000).build();
    let central = Central::with_hooks(Os::simulated(sim.clone()), Config::default(), Hooks::none());
    let central = central.expect("memory");
    let local = LocalPages::default();
    let (mut highest, mut cycles, mut firsts) = (Bytes::ZERO, 0, Vec::new());
    for round in 0..100 {
        let (core, values) = filled(&central, &local, 8_000_000);
        let mut chunks = Vec::new();
        core.for_each_chunk(|range| chunks.push(range.bytes()));
        firsts.push(*chunks.last().expect("there are some"));
        bury(&central, &core);
        if round >= 2 {
            highest = highest.max(central.os().accounting().ready());
            let totals = central.arenas().totals();
            let of_the_first_two = if cycles == 0 { Bytes::new(4 << 20) } else { Bytes::ZERO };
            assert!(totals.kept <= of_the_first_two, "round {round}: {totals:?}");
            assert_eq!(totals.unguardable, 0);
        }
        assert!(values.len() == 8000);
        if central.arenas().wants_cycle(central.pages()) {
            cycles += 1;
            cycle(&central);
            check(&central);
        }
    }
    // The first two begin small, as ever.
    let expected = [vec![Bytes::new(8192); 2], vec![MOVE_UNIT; 98]].concat();
    assert_eq!(firsts, expected);
    assert!(
        highest < Bytes::new(40 << 20),
        "{highest}: for tables, and for what the first two have kept"
    );
    assert_eq!(cycles, 1, "one for half a gibibyte of addresses");
    central.take_back(&local);
    // SAFETY: nobody uses the heap any more.
    unsafe { central.release() };
    sim.assert_all_released();
}

/// Freed addresses fault, also where the memory has moved on, up to the last byte; where it has gone to, it is another
/// arena's.
#[test]
fn addresses_whose_memory_has_moved_on_fault() {
    let central = Central::with_hooks(Os::native(), Config::default(), Hooks::none());
    let central = central.expect("memory");
    let local = LocalPages::default();
    let mut ends = [0; 2];
    // SAFETY: the array has room for the two descriptors.
    assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
    // SAFETY: the kernel reads from the address, and answers that it cannot.
    let faults = |at: Addr| unsafe { libc::write(ends[1], at.as_ptr(), 1) } < 0;
    for _ in 0..4 {
        let (core, values) = filled(&central, &local, 5_000_000);
        let mut ranges = Vec::new();
        core.for_each_chunk(|range| ranges.push(range));
        bury(&central, &core);
        assert!(values.iter().all(|&value| faults(value)));
        for range in ranges {
            assert!(faults(range.base()) && faults(range.end() - Bytes::new(1)), "{range:?}");
        }
        assert_eq!(central.arenas().totals().unguardable, 0);
    }
    // SAFETY: the descriptors are the test's.
    ends.into_iter().for_each(|end| assert_eq!(unsafe { libc::close(end) }, 0));
    cycle(&central);
    check(&central);
    central.take_back(&local);
    // SAFETY: nobody uses the heap any more.
    unsafe { central.release() };
}

/// Where nothing can be moved, an arena begins small, and its memory is kept as that of small ones is.
#[test]
fn where_nothing_can_be_moved_large_arenas_are_kept() {
    for refused in [false, true] {
        let sim = SimOs::builder().moves(refused).split_limit(if refused { 0 } else { 800 });
        let sim = sim.build();
        let os = Os::simulated(sim.clone());
        let central = Central::with_hooks(os, Config::default(), Hooks::none()).expect("memory");
        let local = LocalPages::default();
        for round in 0..6 {
            let (core, _) = filled(&central, &local, 8_000_000);
            let mut least = MAX_CHUNK;
            core.for_each_chunk(|range| least = least.min(range.bytes()));
            assert_eq!(least < MOVE_UNIT, !refused || round < 2, "{least}");
            bury(&central, &core);
            let totals = central.arenas().totals();
            assert_eq!(totals.kept > Bytes::ZERO, !refused, "{totals:?}");
            assert_eq!(totals.unguardable, 0, "there are markers");
        }
        cycle(&central);
        check(&central);
        assert_eq!(central.pages().quarantined(), Bytes::ZERO);
        central.take_back(&local);
        // SAFETY: nobody uses the heap any more.
        unsafe { central.release() };
        sim.assert_all_released();
    }
}

/// Ready pages that nobody has are enough memory for the next arena: then what is freed goes back to the system.
#[test]
fn no_more_is_moved_than_arenas_need() {
    let sim = SimOs::builder().split_limit(8000).build();
    let central = Central::with_hooks(Os::simulated(sim.clone()), Config::default(), Hooks::none());
    let central = central.expect("memory");
    let local = LocalPages::default();
    let arenas: Vec<_> = (0..30).map(|_| filled(&central, &local, 8_000_000).0).collect();
    for core in &arenas {
        bury(&central, core);
        let idle = central.pages().idle();
        assert!(idle <= usual::MOST, "{idle}");
    }
    let (idle, totals) = (central.pages().idle(), central.arenas().totals());
    assert!(idle > Bytes::new(100 << 20), "{idle} of what all arenas had together");
    assert!(totals.kept <= usual::MOST);
    let reserved = Bytes::new(totals.guarded as usize);
    assert_eq!(central.pages().quarantined() + totals.kept, reserved);
    cycle(&central);
    check(&central);
    central.take_back(&local);
    // SAFETY: nobody uses the heap any more.
    unsafe { central.release() };
    sim.assert_all_released();
}

/// Large arenas come and go, and with each a small one that stays.
#[test]
fn small_arenas_that_stay_among_large_ones_are_small() {
    let sim = SimOs::builder().split_limit(8000).build();
    let central = Central::with_hooks(Os::simulated(sim.clone()), Config::default(), Hooks::none());
    let central = central.expect("memory");
    let local = LocalPages::default();
    let mut kept = Vec::new();
    for _ in 0..60 {
        let (core, _) = filled(&central, &local, 1_100_000);
        bury(&central, &core);
        if central.arenas().wants_cycle(central.pages()) {
            cycle(&central);
        }
        kept.push(filled(&central, &local, 1000).0);
    }
    let begun = kept.iter().filter(|core| core.reserved() >= MOVE_UNIT).count();
    assert!((1..=16).contains(&begun), "{begun} small arenas began with a unit");
    let rest: usize = kept
        .iter()
        .map(|core| core.reserved().get())
        .filter(|&bytes| bytes < MOVE_UNIT.get())
        .sum();
    assert!(rest <= 60 * (64 << 10), "{rest} bytes for small arenas");
    for core in &kept {
        bury(&central, core);
    }
    // They are gone, so large ones begin with a unit again.
    for _ in 0..3 {
        let (core, _) = filled(&central, &local, 1_100_000);
        bury(&central, &core);
    }
    assert!(central.arenas().are_large());
    central.take_back(&local);
    // SAFETY: nobody uses the heap any more.
    unsafe { central.release() };
    sim.assert_all_released();
}
