//! Leases of all colours against a list of what was handed out.
//!
//! # Safety
//! Values are written to by the test alone, and the heap is released when nobody uses it.
#![allow(unsafe_code)]

use super::*;
use crate::addr::{GRANULE_BYTES, PAGE_BYTES};
use crate::heap::Central;
use crate::heap::central::Config;
use crate::heap::hooks::Hooks;
use crate::heap::page_heap::LocalPages;
use crate::os::{MOVE_UNIT, Os, SimOs, asan};
use crate::span::chunk::{Header, MAX_COUNT, stride};
use crate::span::sites::Freed;
use crate::span::{Generation, Shape, Tracer, TypeInfo, bits};
use crate::tests::{Random, steps};
use std::collections::BTreeMap;
use std::sync::Arc;

mod kept;
mod moved;
mod order;
mod weight;

/// # Safety
/// None is needed; the type demands the word.
unsafe fn trace_nothing(_: *const u8, _: usize, _: &mut Tracer<'_>) {}

const fn pointers(words: usize) -> TypeInfo {
    TypeInfo::new(|| "pointers", words * 8, 8, Shape::Words(1), trace_nothing, None)
}

static TYPES: [TypeInfo; 5] = [pointers(1), pointers(2), pointers(3), pointers(7), pointers(200)];

#[test]
fn headers_keep_a_type_and_a_count() {
    for ty in &TYPES {
        for count in [0, 1, 2, 77, MAX_COUNT - 1, MAX_COUNT] {
            let header = Header::new(ty, count);
            assert!(core::ptr::eq(header.ty(), ty));
            assert_eq!(header.count(), count);
            assert_ne!(header.bits(), 0);
            assert_eq!(header.stride(), stride(ty.size * count));
            assert_eq!(header.stride().get() % GRANULE_BYTES, 0);
        }
    }
}

/// What was handed out at an address.
#[derive(Clone, Copy, Debug)]
struct Given {
    bytes: usize,
    colour: Colour,
    header: bool,
}

/// The bits of what was handed out are what its colour says, whatever else is allocated around it, and the headers
/// tell of nothing else.
fn check(core: &ArenaCore, given: &BTreeMap<usize, Given>, cycle: u32) {
    let table = Generation::new(cycle).table();
    for (&at, value) in given {
        let at = Addr::new(at);
        let set = (bits::is_set(table, at), bits::is_set(Table::Scanned, at));
        match value.colour {
            Colour::Black(c) if c == cycle => assert_eq!(set, (true, true), "{at} {value:?}"),
            Colour::Pale(c) if c == cycle && value.header => {
                assert_eq!(set, (false, false), "{at} {value:?}: it would not be scanned");
            }
            _ => {}
        }
    }
    let mut last = 0;
    for (&at, value) in given {
        assert!(at - if value.header { 8 } else { 0 } >= last, "{at:#x} overlaps");
        last = at + value.bytes;
    }
    let mut found = Vec::new();
    core.inside.lock().for_each_chunk(|chunk| {
        assert!(chunk.low() <= chunk.high().align_down(GRANULE_BYTES));
        let note = |value: crate::span::chunk::Value| {
            found.push((value.start.get(), value.bytes().get()));
            true
        };
        if !chunk.is_beside() {
            // SAFETY: the chunk is the test's.
            unsafe { chunk.for_each_value(note) };
        }
    });
    found.sort_unstable();
    let headers = given.iter().filter(|(_, value)| value.header);
    let expected: Vec<_> = headers.map(|(&at, value)| (at, value.bytes)).collect();
    assert_eq!(found, expected);
}

fn colours_against_a_list(seed: u64, page_size: usize) {
    let sim = SimOs::builder().page_size(Bytes::new(page_size)).build();
    let central = Central::with_hooks(Os::simulated(sim.clone()), Config::default(), Hooks::none());
    let central = central.expect("memory");
    let local = LocalPages::default();
    let mut random = Random::new(seed);
    for cycle in 1..6 {
        let core = central.arenas().make(central.number(), "".into(), None);
        let mut given = BTreeMap::new();
        for _ in 0..steps(60, 1000) {
            let colour = match random.below(3) {
                0 => Colour::White,
                1 => Colour::Pale(cycle),
                _ => Colour::Black(cycle),
            };
            let mut lease = Lease::none(colour);
            for _ in 0..random.below(30) {
                let wanted = match random.below(2) {
                    0 => Wanted::of(&TYPES[random.below(TYPES.len())], 1 + random.below(3)),
                    _ => {
                        let bytes = [0, 1, 7, 40, 300, 3000][random.below(6)];
                        Some(Wanted::Leaf { bytes, align: 1 << random.below(8) })
                    }
                };
                let wanted = wanted.expect("it is small");
                let at = wanted.take(&mut lease);
                let at = at.or_else(|| central.arena_room(&core, &mut lease, wanted, &local).ok());
                let at = Addr::of(at.expect("memory").as_ptr());
                let (bytes, header) = match wanted {
                    Wanted::Leaf { bytes, align } => {
                        assert!(at.is_aligned(align));
                        (bytes, false)
                    }
                    Wanted::Scanned { bytes, .. } => (bytes, true),
                };
                // SAFETY: so many bytes, which nobody else has.
                let room = unsafe { core::slice::from_raw_parts_mut(at.as_ptr::<u8>(), bytes) };
                room.fill(0xee);
                // Of leaves without bytes one may lie where the next one begins.
                if bytes > 0 {
                    assert!(given.insert(at.get(), Given { bytes, colour, header }).is_none());
                }
            }
            core.end_lease(&mut lease);
        }
        check(&core, &given, cycle);
        central.arenas().begin_marking();
        central.arenas().clear_bits();
        for &at in given.keys() {
            for table in [Table::Even, Table::Odd, Table::Scanned] {
                assert!(!bits::is_set(table, Addr::new(at)), "a bit is left at {at:#x}");
            }
        }
        // The pages come back, dirty.
        central.free_arena(&core, Freed::Dropped).expect("once");
        central.arenas().take_freed();
        // SAFETY: no closure is open, and nothing marks.
        unsafe {
            central.arenas().quarantine_pending(central.os(), central.memory(), central.pages())
        };
        let table = Generation::new(cycle).table();
        // SAFETY: as above.
        unsafe { central.arenas().end_quarantines(central.os(), central.pages(), table, 0) };
        assert_eq!(central.pages().quarantined(), Bytes::ZERO);
    }
    central.take_back(&local);
    // SAFETY: nobody uses the heap any more.
    unsafe { central.release() };
    sim.assert_all_released();
}

#[test]
fn values_of_all_colours_have_the_bits_of_their_colour() {
    for seed in 0..8 {
        colours_against_a_list(
            0xa7e4a + seed,
            if seed % 2 == 0 { PAGE_BYTES / 2 } else { 64 << 10 },
        );
    }
}

#[test]
fn chunks_double_up_to_a_unit_and_then_follow_the_arena() {
    let central = Central::with_hooks(Os::native(), Config::default(), Hooks::none());
    let central = central.expect("memory");
    let local = LocalPages::default();
    let core = central.arenas().make(central.number(), "".into(), None);
    let mut lease = Lease::none(Colour::White);
    let wanted = Wanted::Leaf { bytes: 4000, align: 8 };
    while core.reserved() < Bytes::new(160 << 20) {
        if wanted.take(&mut lease).is_none() {
            central.arena_room(&core, &mut lease, wanted, &local).expect("memory");
        }
    }
    let mut sizes = Vec::new();
    core.for_each_chunk(|range| sizes.push(range.bytes().get()));
    sizes.reverse();
    let unit = MOVE_UNIT.get();
    let mut sum = 0;
    for (i, &size) in sizes.iter().enumerate() {
        let share = (sum / 32 / unit).max(1) * unit;
        assert_eq!(size, (1_usize << (13 + i).min(60)).min(share), "chunk {i}: {sizes:?}");
        sum += size;
    }
    assert_eq!(sizes.last(), Some(&(2 * unit)));
    core.for_each_chunk(|range| {
        assert!(range.bytes() < MOVE_UNIT || range.base().is_aligned(unit), "{range:?}");
    });
    core.end_lease(&mut lease);
    central.take_back(&local);
    // SAFETY: nobody uses the heap any more.
    unsafe { central.release() };
    assert!(core.is_freed(), "the heap is gone");
}

/// Chunks that lie one behind the other are guarded in one call.
#[test]
fn neighbours_are_guarded_together() {
    // Without markers each call costs an entry of its own, unless they touch.
    let sim = SimOs::builder().guard_markers(false).split_limit(2).build();
    let central = Central::with_hooks(Os::simulated(sim.clone()), Config::default(), Hooks::none());
    let central = central.expect("memory");
    let local = LocalPages::default();
    let cores: Vec<Arc<ArenaCore>> =
        (0..20).map(|_| central.arenas().make(central.number(), "".into(), None)).collect();
    for core in &cores {
        let mut lease = Lease::none(Colour::White);
        let wanted = Wanted::Leaf { bytes: 100, align: 8 };
        central.arena_room(core, &mut lease, wanted, &local).expect("memory");
        core.end_lease(&mut lease);
    }
    for core in &cores {
        central.free_arena(core, Freed::Dropped).expect("once");
    }
    central.arenas().take_freed();
    // SAFETY: no closure is open, and nothing marks.
    unsafe { central.arenas().quarantine_pending(central.os(), central.memory(), central.pages()) };
    assert_eq!(central.arenas().totals().unguardable, 0);
    assert_eq!(central.pages().quarantined(), Bytes::new(20 * PAGE_BYTES));
    central.take_back(&local);
    // SAFETY: nobody uses the heap any more.
    unsafe { central.release() };
    sim.assert_all_released();
}

#[test]
fn broken_chunks_are_named() {
    let central = Central::with_hooks(Os::native(), Config::default(), Hooks::none());
    let central = central.expect("memory");
    let local = LocalPages::default();
    let core = central.arenas().make(central.number(), "".into(), None);
    let mut lease = Lease::none(Colour::White);
    let wanted = Wanted::of(&TYPES[2], 1).expect("it is small");
    let first = central.arena_room(&core, &mut lease, wanted, &local).expect("memory");
    wanted.take(&mut lease).expect("there is room");
    core.end_lease(&mut lease);
    let look = || {
        let mut found = crate::heap::verify::Verified::default();
        central.arenas().verify(central.number(), &mut found);
        found.findings.iter().map(|found| found.what.clone()).collect::<Vec<_>>().join("; ")
    };
    assert_eq!(look(), "");
    let chunk = core.inside.lock().chunks.expect("there is one");
    // SAFETY: the test's chunk.
    let chunk: &'static Chunk = unsafe { chunk.as_ref() };
    let (low, high, range) = (chunk.low(), chunk.high(), chunk.range());
    // Walks look where nothing is.
    asan::permit_range(range);

    chunk.set_low(low + Bytes::new(8));
    assert!(look().contains("values up to"), "{}", look());
    chunk.set_low(low - Bytes::new(GRANULE_BYTES));
    assert!(look().contains("reaches beyond the last one"), "{}", look());
    chunk.set_low(low);
    chunk.set_high(range.end() + Bytes::new(1));
    assert!(look().contains("values up to"), "{}", look());
    chunk.set_high(high);
    // A header that counts more than there are.
    let header = Addr::of(first.as_ptr()) - Bytes::new(8);
    // SAFETY: the header of the first value, which is the test's.
    let header = unsafe { &*header.as_ptr::<crate::sync::atomic::AtomicU64>() };
    let right = header.swap(Header::new(&TYPES[2], 1000).bits(), Ordering::Relaxed);
    assert!(look().contains("reaches beyond the last one"), "{}", look());
    header.store(right, Ordering::Relaxed);
    // A page that is another span's, and the description of another chunk.
    // SAFETY: the arena of a page of a heap that lives.
    let arena = unsafe { &*crate::span::map::find(range.base()) };
    let page = range.base().page_in_arena();
    let span = arena.span(page);
    arena.set_span(page, core::ptr::null_mut());
    assert!(look().contains("does not name the chunk"), "{}", look());
    arena.set_span(page, span);
    let (number, owner) = (chunk.number(), chunk.owner());
    let wrong = AddrRange::at(range.base(), Bytes::new(2 * PAGE_BYTES));
    chunk.describe(wrong, number, owner, false);
    assert!(look().contains("another one"), "{}", look());
    chunk.describe(range, number, owner, false);
    chunk.set_low(low);
    assert_eq!(look(), "");
    central.take_back(&local);
    // SAFETY: nobody uses the heap any more.
    unsafe { central.release() };
}

/// An arena of a mebibyte or more: its values, and what it has in chunks.
fn full_arena(central: &Central, local: &LocalPages) -> (Arc<ArenaCore>, Vec<Addr>, Bytes) {
    let core = central.arenas().make(central.number(), "".into(), None);
    let mut lease = Lease::none(Colour::White);
    let wanted = Wanted::of(&TYPES[4], 1).expect("it is small");
    let mut values = Vec::new();
    while core.reserved() < Bytes::new(1 << 20) {
        let at = wanted.take(&mut lease);
        let at = at.unwrap_or_else(|| {
            central.arena_room(&core, &mut lease, wanted, local).expect("memory")
        });
        // SAFETY: 1600 bytes that nobody else has.
        unsafe { at.write_bytes(0xee, 1600) };
        values.push(Addr::of(at.as_ptr()));
    }
    core.end_lease(&mut lease);
    let reserved = core.reserved();
    (core, values, reserved)
}

/// Bits are cleared of every chunk in which a cycle may have set some, whenever it was got and buried.
#[test]
fn bits_of_the_last_cycle_are_cleared_before_the_next_one_and_before_a_burial() {
    let sim = SimOs::builder().build();
    let central = Central::with_hooks(Os::simulated(sim.clone()), Config::default(), Hooks::none());
    let central = central.expect("memory");
    let (local, arenas) = (LocalPages::default(), central.arenas());
    let (kept, ours, _) = full_arena(&central, &local);
    let (freed, theirs, _) = full_arena(&central, &local);
    for cycle in 1..8 {
        arenas.clear_bits();
        arenas.begin_marking();
        let table = Generation::new(cycle).table();
        for at in [ours[0], ours[ours.len() - 1], theirs[0], theirs[theirs.len() / 2]] {
            for table in [table, Table::Scanned] {
                let at = at.align_down(GRANULE_BYTES);
                assert!(!bits::is_set(table, at), "{at} in cycle {cycle}");
                bits::set(table, at);
            }
        }
    }
    central.free_arena(&freed, Freed::Dropped).expect("once");
    arenas.take_freed();
    // SAFETY: no closure is open, and nothing marks.
    unsafe { arenas.quarantine_pending(central.os(), central.memory(), central.pages()) };
    for at in theirs {
        for table in [Table::Even, Table::Odd, Table::Scanned] {
            assert!(!bits::is_set(table, at.align_down(GRANULE_BYTES)), "{at} after the burial");
        }
    }
    central.free_arena(&kept, Freed::Dropped).expect("once");
    central.take_back(&local);
    // SAFETY: nobody uses the heap any more.
    unsafe { central.release() };
    sim.assert_all_released();
}

/// A closure of the marking phase may end after the cycle, and lease what a closure of the next phase has got.
#[test]
fn bits_that_a_late_closure_has_set_in_a_new_chunk_are_cleared() {
    let sim = SimOs::builder().build();
    let central = Central::with_hooks(Os::simulated(sim.clone()), Config::default(), Hooks::none());
    let central = central.expect("memory");
    let (local, arenas) = (LocalPages::default(), central.arenas());
    arenas.begin_marking();
    // The cycle has ended, and one of its closures is open still.
    let core = arenas.make(central.number(), "".into(), None);
    let mut early = Lease::none(Colour::White);
    let wanted = Wanted::of(&TYPES[1], 1).expect("it is small");
    central.arena_room(&core, &mut early, wanted, &local).expect("memory");
    core.end_lease(&mut early);
    let mut late = Lease::none(Colour::Black(1));
    let at = central.arena_room(&core, &mut late, wanted, &local).expect("memory");
    let at = Addr::of(at.as_ptr()).align_down(GRANULE_BYTES);
    assert!(bits::is_set(Table::Scanned, at) && bits::is_set(Generation::new(1).table(), at));
    core.end_lease(&mut late);
    arenas.clear_bits();
    for table in [Table::Even, Table::Odd, Table::Scanned] {
        assert!(!bits::is_set(table, at), "the next cycle would not look into the value");
    }
    central.free_arena(&core, Freed::Dropped).expect("once");
    central.take_back(&local);
    // SAFETY: nobody uses the heap any more.
    unsafe { central.release() };
    sim.assert_all_released();
}

/// Handles outlive their heap, and are dropped by threads that know nothing of its end.
#[test]
fn the_end_of_a_heap_waits_for_whoever_is_freeing_an_arena() {
    let central = Central::with_hooks(Os::native(), Config::default(), Hooks::none());
    let central = central.expect("memory");
    let local = LocalPages::default();
    let core = central.arenas().make(central.number(), "".into(), None);
    let mut lease = Lease::none(Colour::White);
    let wanted = Wanted::Leaf { bytes: 100, align: 8 };
    central.arena_room(&core, &mut lease, wanted, &local).expect("memory");
    core.end_lease(&mut lease);
    let (arenas, has_ended) = (central.arenas(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let freed = core.free(arenas.sites(), Freed::Dropped, |taken| {
            scope.spawn(|| {
                arenas.close();
                has_ended.store(true, Ordering::SeqCst);
            });
            while !arenas.is_closed() {
                std::thread::yield_now();
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
            // The records are released next, and are looked at here.
            assert!(!has_ended.load(Ordering::SeqCst), "the heap has ended in between");
            arenas.take_in(taken)
        });
        let waiting = freed.expect("once");
        assert!(waiting.new >= Bytes::new(PAGE_BYTES));
        assert_eq!(waiting.all, Load { chunks: 1, bytes: waiting.new });
    });
    assert!(has_ended.load(Ordering::SeqCst) && core.is_freed());
    let empty = arenas.make(central.number(), "".into(), None);
    assert!(arenas.free(&empty, Freed::Dropped).is_err(), "it has gone with its heap");
    central.take_back(&local);
    // SAFETY: nobody uses the heap any more.
    unsafe { central.release() };
}
