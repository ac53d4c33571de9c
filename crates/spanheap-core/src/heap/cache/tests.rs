//! Allocation through span caches: every place is handed out once, and the side tables say so afterwards.
//!
//! The test takes slots of types and slices of many shapes, in the colours of several phases, and keeps a
//! list of what it got. When all caches have been given back, the allocation bits of the heap must be
//! that list, the mark bits the black part of it, and the count of taken bytes its sum.
//!
//! # Safety
//! Nothing is written to the slots. Heaps are released when nobody uses them.
#![allow(unsafe_code)]

use super::*;
use crate::addr::PAGE_BYTES;
use crate::heap::central::Config;
use crate::heap::counters::MemoryState;
use crate::os::{Os, asan};
use crate::span::{Shape, Tracer};
use crate::tests::{Random, forked};
use std::collections::{BTreeMap, BTreeSet};

unsafe fn trace(_: *const u8, _: usize, _: &mut Tracer<'_>) {}
unsafe fn drop_values(_: *mut u8, _: usize) {}

/// Descriptions of types of all sizes and shapes. They live for ever, as types do.
fn types() -> &'static [TypeInfo] {
    let mut types = Vec::new();
    let sizes = [0, 1, 2, 3, 7, 8, 12, 15, 16, 17, 24, 40, 63, 64, 65];
    let classes = SizeClass::all().map(|class| class.size().get());
    for size in sizes.into_iter().chain(classes).chain([32_769, 50_000, 100_000]) {
        for shape in [Shape::NoScan, Shape::Words(1), Shape::Opaque] {
            for drop in [None, Some(drop_values as crate::span::DropFn)] {
                let align = 1 << size.trailing_zeros().min(4);
                if shape == Shape::NoScan || (align >= 8 && size > 0) {
                    types.push(TypeInfo::new(|| "test", size, align, shape, trace, drop));
                }
            }
        }
    }
    for align_log in 5..=15 {
        let align = 1 << align_log;
        types.push(TypeInfo::new(|| "aligned", align, align, Shape::NoScan, trace, None));
        types.push(TypeInfo::new(|| "empty", 0, align, Shape::NoScan, trace, None));
    }
    types.leak()
}

/// What a test has been given.
#[derive(Default)]
struct Got {
    /// Bytes that belong to the caller, by address.
    places: BTreeMap<Addr, usize>,
    /// Slots that hold something.
    slots: BTreeSet<Addr>,
}

impl Got {
    fn note(&mut self, at: Addr, bytes: usize, align: usize) {
        assert!(at.is_aligned(align) && !at.is_null(), "{at} for an alignment of {align}");
        let bytes = bytes.max(1);
        let below = self.places.range(..=at).next_back();
        assert!(below.is_none_or(|(&a, &n)| a + Bytes::new(n) <= at), "{at} overlaps {below:?}");
        let above = self.places.range(at..).next();
        assert!(above.is_none_or(|(&a, _)| at + Bytes::new(bytes) <= a), "{at} overlaps {above:?}");
        self.places.insert(at, bytes);
        // SAFETY: what was allocated lies in a published arena.
        let arena = unsafe { &*crate::span::map::find(at) };
        // SAFETY: the span is in use.
        let info = unsafe { &*arena.span(at.page_in_arena()) }.info();
        let index = at.bytes_since(info.base).get() / info.slot;
        let slot = info.base + Bytes::new(index * info.slot);
        assert!(at + Bytes::new(bytes) <= slot + Bytes::new(info.slot), "inside one slot");
        assert!(at + Bytes::new(bytes) <= info.limit());
        // No mutator has said so.
        asan::permit(slot, Bytes::new(info.slot));
        self.slots.insert(slot);
    }

    /// Allocates `n` times from `cache`.
    fn fill(
        &mut self,
        cache: &SpanCache,
        central: &Central,
        tint: Tint,
        n: usize,
        random: &mut Random,
    ) {
        let types = types();
        for _ in 0..n {
            let ty = &types[random.below(types.len())];
            if random.one_in(3) {
                let len = random.below(if ty.size > 1000 { 3 } else { 40 });
                let bytes = Bytes::new(ty.size * len + 15);
                let (at, given) = cache.alloc_slice(central, ty, bytes, tint).expect("memory");
                assert!(given >= bytes);
                self.note(at, given.get(), ty.align);
            } else {
                // Several in a row, so that runs are used up.
                for _ in 0..1 + random.below(20) / (1 + ty.size / 512) {
                    let at = cache.alloc(central, ty, tint).expect("memory");
                    self.note(at, ty.size, ty.align);
                }
            }
        }
    }
}

/// The objects whose bit is set in `table`, over the whole heap, and the bytes of their slots.
fn set_in(central: &Central, table: impl Fn(&Span) -> Table) -> (BTreeSet<Addr>, usize) {
    let (mut objects, mut bytes) = (BTreeSet::new(), 0);
    let visit = |span: &Span| {
        bits::for_each_set(span.info(), table(span), |object| {
            assert!(objects.insert(object));
            bytes += span.info().slot;
        });
    };
    // SAFETY: this thread alone uses the heap.
    unsafe { central.pages().for_each_span(visit) };
    (objects, bytes)
}

fn allocated(central: &Central) -> (BTreeSet<Addr>, usize) {
    set_in(central, |span| span.generation().table())
}

fn marked(central: &Central) -> BTreeSet<Addr> {
    set_in(central, |span| span.generation().next().table()).0
}

/// Holds what was counted to the side tables: objects by size class, and in sum.
fn check_counters(central: &Central) {
    let counted = central.counters().snapshot();
    counted.check().unwrap();
    let (mut by_class, mut bytes) = ([0; CLASS_COUNT], 0);
    let visit = |span: &Span| {
        let objects = bits::count(span.info(), span.generation().table());
        by_class[span.info().size_class.map_or(0, SizeClass::index)] += objects as u64;
        bytes += (objects * span.info().slot) as u64;
    };
    // SAFETY: this thread alone uses the heap.
    unsafe { central.pages().for_each_span(visit) };
    for class in SizeClass::all() {
        let objects = counted.small(class);
        assert_eq!(objects.present() + objects.in_runs, by_class[class.index()], "{class:?}");
    }
    assert_eq!(counted.large().present(), by_class[0]);
    let sum = counted.bytes();
    assert_eq!(sum.present() + sum.in_runs, bytes);
    assert_eq!(
        counted.objects().present() + counted.objects().in_runs,
        by_class.iter().sum::<u64>()
    );
    assert_eq!(counted.pages(MemoryState::InUse), central.pages().in_use());
    assert_eq!(counted.owed(), (0, Bytes::ZERO));
}

fn central() -> Central {
    Central::new(Os::native(), Config::default()).expect("memory")
}

fn white(central: &Central) -> Tint {
    Tint { black: false, generation: central.generation() }
}

fn release(central: Central) {
    // SAFETY: nobody uses the heap's spans or slots any more.
    unsafe { central.release() };
    assert_eq!(central.os().accounting().reserved(), Bytes::ZERO);
}

#[test]
fn what_is_handed_out_is_allocated_and_nothing_else() {
    let mut random = Random::new(0xcac4e);
    let (central, cache) = (central(), SpanCache::new());
    let tint = white(&central);
    let mut got = Got::default();
    for _ in 0..20 {
        got.fill(&cache, &central, tint, 300, &mut random);
        // While runs are out, at least what was handed out is allocated.
        assert!(got.slots.is_subset(&allocated(&central).0));
        check_counters(&central);
        let while_out = central.counters().snapshot().objects();
        cache.give_back_all(&central, tint);
        check_counters(&central);
        let (objects, bytes) = allocated(&central);
        assert_eq!(objects, got.slots);
        let counted = central.counters().snapshot();
        assert_eq!(counted.objects().allocated, objects.len() as u64);
        assert_eq!((counted.objects().in_runs, counted.bytes().allocated), (0, bytes as u64));
        assert!(while_out.in_runs > 0 && while_out.allocated <= objects.len() as u64);
        assert_eq!((central.taken(), central.total()), (bytes, bytes as u64));
        assert_eq!(central.live(), Bytes::new(bytes));
        assert!(marked(&central).is_empty());
        assert!(set_in(&central, |_| Table::Scanned).0.is_empty());
    }
    release(central);
}

#[test]
fn two_threads_never_get_the_same_place() {
    let central = central();
    let tint = white(&central);
    let work = |seed| {
        let (cache, mut got) = (SpanCache::new(), Got::default());
        let mut random = Random::new(seed);
        for _ in 0..10 {
            got.fill(&cache, &central, tint, 200, &mut random);
            cache.give_back_all(&central, tint);
        }
        got
    };
    let (a, b) = std::thread::scope(|scope| {
        let other = scope.spawn(|| work(0x7412));
        (work(0x7411), other.join().unwrap())
    });
    assert!(a.slots.is_disjoint(&b.slots));
    let (objects, bytes) = allocated(&central);
    assert_eq!(objects, a.slots.union(&b.slots).copied().collect());
    assert_eq!(central.taken(), bytes);
    release(central);
}

/// Ends a cycle that has marked nothing but black objects, and sweeps.
fn end_cycle(central: &Central) {
    let retained = set_in(central, |span| span.generation().next().table()).1;
    central.begin_generation(
        central.generation().next(),
        Bytes::new(retained),
        central.taken(),
        false,
    );
    while central.sweep_one() {}
    while central.run_drops() {}
}

#[test]
fn black_slots_are_marked_and_scanned_and_survive() {
    let mut random = Random::new(0xb1ac);
    let (central, cache) = (central(), SpanCache::new());
    let mut survivors = Got::default();
    for round in 0..8 {
        let tint = white(&central);
        // White objects, and unfinished runs that are given back before marking begins.
        let mut whites = Got { places: survivors.places.clone(), slots: BTreeSet::new() };
        whites.fill(&cache, &central, tint, 200, &mut random);
        cache.give_back_all(&central, tint);
        let before = allocated(&central).0;
        assert_eq!(before, whites.slots.union(&survivors.slots).copied().collect());

        let tint = Tint { black: true, ..tint };
        let mut blacks = Got { places: whites.places, slots: BTreeSet::new() };
        blacks.fill(&cache, &central, tint, 200, &mut random);
        assert!(blacks.slots.is_subset(&marked(&central)));
        cache.give_back_all(&central, tint);
        assert_eq!(marked(&central), blacks.slots, "round {round}");
        let scanned = set_in(&central, |_| Table::Scanned).0;
        assert!(blacks.slots.is_subset(&scanned) && scanned.is_disjoint(&before));

        // What was given back black is not handed out again in this cycle: it was scanned.
        blacks.fill(&cache, &central, Tint { black: false, ..tint }, 50, &mut random);
        cache.give_back_all(&central, tint);
        let fresh: BTreeSet<_> = blacks.slots.difference(&marked(&central)).copied().collect();
        assert!(fresh.is_disjoint(&scanned));

        let marks = marked(&central);
        check_counters(&central);
        end_cycle(&central);
        check_counters(&central);
        let (objects, bytes) = allocated(&central);
        assert_eq!(objects, marks, "what was black survives, and nothing else");
        assert_eq!(central.live(), Bytes::new(bytes));
        blacks.places.retain(|&at, _| {
            // Tiny objects live as long as their block.
            marks
                .range(..=at)
                .next_back()
                .is_some_and(|&slot| slot == at || at.bytes_since(slot).get() < TINY_BYTES)
        });
        survivors = Got { places: blacks.places, slots: marks };
    }
    assert!(survivors.slots.len() > 200);
    release(central);
}

#[test]
fn a_closure_that_outlives_its_cycle_is_not_black_in_the_next_one() {
    let (central, cache) = (central(), SpanCache::new());
    static WORDS: TypeInfo = TypeInfo::new(|| "test", 64, 8, Shape::Words(1), trace, None);
    let ty = &WORDS;
    let tint = Tint { black: true, generation: central.generation() };
    let old = cache.alloc(&central, ty, tint).expect("memory");
    // The cycle ends while the closure still holds its run; the span keeps its generation till then.
    let next = central.generation().next();
    central.begin_generation(next, Bytes::new(64), central.taken(), false);
    let same_run = cache.alloc(&central, ty, tint).expect("memory");
    assert!(bits::is_set(next.table(), old) && bits::is_set(next.table(), same_run));
    // Use the run up: the next span belongs to the new generation.
    let mut last = same_run;
    while last.page() == old.page() {
        last = cache.alloc(&central, ty, tint).expect("memory");
    }
    assert!(bits::is_set(next.table(), last), "allocated");
    assert!(!bits::is_set(next.next().table(), last), "and not black");
    assert!(!bits::is_set(Table::Scanned, last));
    cache.give_back_all(&central, tint);
    release(central);
}

/// Whoever is paused goes for pages to mark, under a lock that nobody may ever give up in a child.
#[test]
fn fault_71_nobody_is_sent_to_mark_in_a_forked_child() {
    let (central, cache) = (central(), SpanCache::new());
    static BLOCK: TypeInfo = TypeInfo::new(|| "test", 4096, 8, Shape::NoScan, trace, None);
    static LARGE: TypeInfo = TypeInfo::new(|| "test", 50_000, 8, Shape::NoScan, trace, None);
    let tint = Tint { black: true, generation: central.generation() };
    central.debt().begin(1e6, Bytes::ZERO);
    cache.alloc(&central, &BLOCK, tint).expect("the first run is granted");
    for ty in [&BLOCK, &LARGE] {
        assert!(forked(|| {
            let alloc_all = || while cache.alloc(&central, ty, tint).is_ok() {};
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(alloc_all)).is_err()
        }));
        // Here he is.
        while cache.alloc(&central, ty, tint).is_ok() {}
        assert!(cache.purse().take_pause());
    }
    cache.give_back_all(&central, tint);
    release(central);
}

#[test]
fn an_empty_value_with_a_huge_alignment_gets_a_page_of_its_own() {
    let (central, cache) = (central(), SpanCache::new());
    let tint = white(&central);
    static EMPTY: TypeInfo =
        TypeInfo::new(|| "empty", 0, 4 * PAGE_BYTES, Shape::NoScan, trace, None);
    let ty = &EMPTY;
    let mut got = Got::default();
    for _ in 0..3 {
        got.note(cache.alloc(&central, ty, tint).expect("memory"), 0, ty.align);
        let (at, bytes) = cache.alloc_slice(&central, ty, Bytes::ZERO, tint).expect("memory");
        assert_eq!(bytes, Bytes::new(PAGE_BYTES));
        got.note(at, bytes.get(), ty.align);
    }
    assert_eq!(allocated(&central).0, got.slots);
    release(central);
}

#[test]
fn tiny_objects_share_blocks_and_never_bytes() {
    let mut random = Random::new(0x7117);
    let (central, cache) = (central(), SpanCache::new());
    let tiny: Vec<_> = types().iter().filter(|ty| ty.size < 16 && ty.align <= 16).collect();
    let tiny: Vec<_> = tiny.into_iter().filter(|ty| ty.flat == 1 << 2).collect();
    let (tint, mut got, mut bytes) = (white(&central), Got::default(), 0);
    for _ in 0..20_000 {
        let ty = tiny[random.below(tiny.len())];
        got.note(cache.alloc(&central, ty, tint).expect("memory"), ty.size, ty.align);
        bytes += ty.size.max(1);
    }
    cache.give_back_all(&central, tint);
    assert_eq!(allocated(&central).0, got.slots);
    // Each of them has opened a slot or was put into one.
    let counted = central.counters().snapshot();
    assert_eq!(counted.tiny() + got.slots.len() as u64, 20_000);
    check_counters(&central);
    let used = got.slots.len() * TINY_BYTES;
    assert!(used < bytes * 3 / 2, "{used} bytes of blocks for {bytes} bytes of tiny objects");
    release(central);
}

#[test]
fn a_refused_allocation_changes_nothing() {
    let mut random = Random::new(0x0e0e);
    let config = Config { hard_limit: Some(Bytes::new(6 << 20)), ..Config::default() };
    let central = Central::new(Os::native(), config).expect("memory");
    let (cache, tint) = (SpanCache::new(), white(&central));
    let (mut got, mut refused) = (Got::default(), 0);
    let types = types();
    for _ in 0..4000 {
        let ty = &types[random.below(types.len())];
        match cache.alloc(&central, ty, tint) {
            Ok(at) => got.note(at, ty.size, ty.align),
            Err(error) => {
                assert!(error.limit.is_some());
                refused += 1;
            }
        }
    }
    assert!(refused > 100, "{refused} refusals");
    cache.give_back_all(&central, tint);
    let (objects, bytes) = allocated(&central);
    assert_eq!(objects, got.slots);
    assert_eq!(central.taken(), bytes);
    release(central);
}
