//! Sweeping when the collector's thread does not: a generation begins here and nobody sweeps in the
//! background. What mutators need, owe or are refused makes them sweep, and nothing else does.
//!
//! # Safety
//! Nothing is written to the objects. Heaps are released when nobody uses them.
#![allow(unsafe_code)]

use super::*;
use crate::addr::Addr;
use crate::addr::PAGE_BYTES;
use crate::heap::cache::{SpanCache, Tint};
use crate::heap::reclaim::Budget;
use crate::os::{Category, SimOs};
use crate::span::bits::{self, Run};
use crate::span::{Info, Shape, Tracer, TypeInfo};
use crate::tests::Random;
use std::collections::BTreeSet;
use std::sync::Arc;

unsafe fn trace(_: *const u8, _: usize, _: &mut Tracer<'_>) {}

/// Bytes, in slices of any size.
static BYTES: TypeInfo = TypeInfo::new(|| "bytes", 1, 1, Shape::NoScan, trace, None);

impl Central {
    /// The shared part of a new heap, for a test.
    pub fn new(os: Os, config: Config) -> Result<Central, OsError> {
        Central::with_hooks(os, config, Hooks::none())
    }

    /// [`Central::sweep_one`] of somebody who is interrupted when he has taken the span: what is returned goes on.
    pub fn begin_to_sweep_one(&self) -> Option<impl FnOnce() + '_> {
        let (set, span, target) = self.classes.take_unswept(self.generation(), &self.backlog)?;
        Some(move || _ = self.sweep_into(set, span, target, &mut Freed::new(self)))
    }

    /// [`Central::acquire`] for a test that has no mutator.
    pub fn acquire_alone(&self, class: &'static Class) -> OwnedSpan {
        let local = LocalPages::default();
        let span = self.acquire(class, &local).expect("memory");
        self.take_back(&local);
        span
    }

    /// [`Central::acquire_large`] for a test that has no mutator.
    pub fn acquire_large_alone(&self, class: &'static Class, size: Bytes) -> OwnedSpan {
        let local = LocalPages::default();
        let span = self.acquire_large(class, size, 0, 8, &local).expect("memory");
        self.take_back(&local);
        span
    }
}

/// A heap without a collector, and one mutator's caches.
pub(in crate::heap) struct World {
    pub(in crate::heap) central: Central,
    cache: Box<SpanCache>,
    sim: Arc<SimOs>,
}

impl World {
    pub(in crate::heap) fn new(limit: Option<usize>) -> World {
        World::with(Config { hard_limit: limit.map(Bytes::new), ..Config::default() })
    }

    pub(in crate::heap) fn with(config: Config) -> World {
        let sim = SimOs::builder().build();
        let central = Central::new(Os::simulated(sim.clone()), config).expect("memory");
        World { central, cache: SpanCache::new(), sim }
    }

    /// The mutator's caches.
    pub(in crate::heap) fn cache(&self) -> &SpanCache {
        &self.cache
    }

    pub(in crate::heap) fn tint(&self) -> Tint {
        Tint { black: false, generation: self.central.generation() }
    }

    /// An object of `bytes` bytes.
    pub(in crate::heap) fn alloc(&self, bytes: usize) -> Result<Addr, OutOfMemory> {
        let bytes = Bytes::new(bytes);
        Ok(self.cache.alloc_slice(&self.central, &BYTES, bytes, self.tint())?.0)
    }

    /// `n` objects of `pages` pages, lowest first.
    pub(in crate::heap) fn large(&self, n: usize, pages: usize) -> Vec<Addr> {
        let alloc = |_| self.alloc(pages * PAGE_BYTES).expect("memory");
        let mut objects: Vec<_> = (0..n).map(alloc).collect();
        objects.sort_unstable();
        objects
    }

    /// Marks an object in the cycle that runs now.
    pub(in crate::heap) fn mark(&self, object: Addr) {
        let info = info_of(object);
        let run = Run { start: object, end: object + Bytes::new(info.slot) };
        bits::set_run(&info, self.central.generation().next().table(), run);
    }

    /// Ends the cycle. Nobody sweeps.
    pub(in crate::heap) fn begin_generation(&self, retain_all: bool) {
        self.cache.give_back_all(&self.central, self.tint());
        let central = &self.central;
        let table = central.generation().next().table();
        let retained = match retain_all {
            true => central.live(),
            false => self.objects(|_| table).1,
        };
        central.begin_generation(
            central.generation().next(),
            retained,
            central.taken(),
            retain_all,
        );
    }

    /// The objects with a bit in a table of their span, and the bytes of their slots.
    fn objects(&self, table: impl Fn(&Span) -> crate::span::Table) -> (BTreeSet<Addr>, Bytes) {
        let (mut objects, mut bytes) = (BTreeSet::new(), Bytes::ZERO);
        let visit = |span: &Span| {
            bits::for_each_set(span.info(), table(span), |object| {
                objects.insert(object);
                bytes += Bytes::new(span.info().slot);
            });
        };
        // SAFETY: this thread alone uses the heap.
        unsafe { self.central.pages().for_each_span(visit) };
        (objects, bytes)
    }

    pub(in crate::heap) fn allocated(&self) -> BTreeSet<Addr> {
        self.objects(|span| span.generation().table()).0
    }

    fn mapped(&self) -> Bytes {
        self.central.os().accounting().mapped(Category::Heap)
    }

    fn waiting(&self) -> usize {
        self.central.backlog().waiting().get()
    }

    pub(in crate::heap) fn release(self) {
        self.cache.give_back_all(&self.central, self.tint());
        // SAFETY: nobody uses the heap any more.
        unsafe { self.central.release() };
        self.sim.assert_all_released();
    }
}

fn info_of(object: Addr) -> Info {
    // SAFETY: objects of the test lie in published arenas.
    let arena = unsafe { &*map::find(object) };
    // SAFETY: the span is in use.
    *unsafe { &*arena.span(object.page_in_arena()) }.info()
}

#[test]
fn the_backlog_counts_every_page_of_a_generation_once() {
    let world = World::new(None);
    let kept = world.large(3, 10);
    world.large(4, 5);
    for n in 0..3000 {
        world.alloc(16 + n % 700).expect("memory");
    }
    kept.iter().for_each(|&object| world.mark(object));
    world.begin_generation(false);
    let in_use = world.central.pages().in_use();
    assert_eq!(world.central.backlog().waiting().bytes(), in_use);
    assert_eq!(world.central.backlog().swept(), 0);
    assert!(!world.central.sweep_batch(usize::MAX));
    assert!(world.central.backlog().is_clear());
    assert_eq!(world.central.backlog().swept() as usize * PAGE_BYTES, in_use.get());
    assert_eq!(world.central.pages().in_use(), Bytes::new(30 * PAGE_BYTES));
    assert_eq!(world.allocated(), kept.into_iter().collect());
    world.release();
}

#[test]
fn a_batch_says_whether_there_is_more() {
    let world = World::new(None);
    world.large(25, 4);
    world.begin_generation(false);
    let batches: Vec<_> = (0..4).map(|_| world.central.sweep_batch(10)).collect();
    assert_eq!(batches, [true, true, false, false]);
    world.release();
}

#[test]
fn what_died_is_found_before_the_heap_grows() {
    let world = World::new(None);
    // Three chunks, full to the last page; every other object survives.
    let objects = world.large(3 * 8, 64);
    let survivors: BTreeSet<_> = objects.iter().copied().step_by(2).collect();
    survivors.iter().for_each(|&object| world.mark(object));
    world.begin_generation(false);
    let mapped = world.mapped();
    assert_eq!(mapped, Bytes::new(3 * 512 * PAGE_BYTES));
    // Other sizes and other classes, as many pages as have died.
    let mut fresh: BTreeSet<Addr> = world.large(6, 64).into_iter().collect();
    fresh.extend(world.large(5 * 12, 5));
    let small = (0..64).map(|_| world.alloc(PAGE_BYTES).expect("memory"));
    fresh.extend(small);
    assert_eq!(world.mapped(), mapped, "the heap grew while garbage lay in it");
    assert_eq!(world.waiting(), 12 * 64, "all that is dead was needed, and found");
    assert!(fresh.is_disjoint(&survivors));
    assert_eq!(world.allocated(), fresh.union(&survivors).copied().collect());
    // There is nothing left, so the next one does need new pages.
    world.large(1, 64);
    assert!(world.mapped() > mapped);
    world.release();
}

#[test]
fn what_is_retained_is_not_reclaimed() {
    let world = World::new(None);
    let objects = world.large(8, 64);
    world.begin_generation(true);
    let mapped = world.mapped();
    let fresh = world.large(1, 64);
    assert!(world.mapped() > mapped);
    assert!(objects.iter().chain(&fresh).all(|object| world.allocated().contains(object)));
    while world.central.sweep_one() {}
    assert!(objects.iter().chain(&fresh).all(|object| world.allocated().contains(object)));
    world.release();
}

#[test]
fn its_own_class_serves_an_allocation_before_pages_are_reclaimed() {
    let world = World::new(None);
    let large = world.large(8, 64);
    let small: Vec<_> = (0..2 * 512).map(|_| world.alloc(16).expect("memory")).collect();
    world.mark(small[3]);
    world.begin_generation(false);
    let pages: BTreeSet<_> = small.iter().map(|object| object.page()).collect();
    let fresh = world.alloc(16).expect("memory");
    assert!(pages.contains(&fresh.page()), "a span of the class had room");
    assert!(world.waiting() >= large.len() * 64, "and nothing else was swept");
    world.release();
}

/// Spans of many classes with one survivor each: nothing to reclaim, and nobody needs them.
fn half_dead_spans(world: &World, random: &mut Random) -> BTreeSet<Addr> {
    let mut survivors = BTreeSet::new();
    let mut pages = BTreeSet::new();
    for size in [24, 48, 96, 160, 512, 1024] {
        for _ in 0..400 * PAGE_BYTES / size {
            let object = world.alloc(size - random.below(8)).expect("memory");
            if pages.insert(object.page()) {
                survivors.insert(object);
            }
        }
    }
    survivors.iter().for_each(|&object| world.mark(object));
    survivors
}

#[test]
fn mutators_alone_have_swept_everything_before_the_trigger() {
    let mut random = Random::new(0x9a5e);
    let world = World::new(None);
    let survivors = half_dead_spans(&world, &mut random);
    world.begin_generation(false);
    let waiting = world.waiting();
    assert!(waiting > 2000, "{waiting}");
    // Without a line, allocating sweeps nothing that it does not need.
    let mut fresh = vec![world.alloc(PAGE_BYTES).expect("memory")];
    assert_eq!(world.waiting(), waiting);

    const WAY: usize = 24 << 20;
    let live = world.central.live().get();
    let trigger = Bytes::new(live + WAY + (1 << 20));
    world.central.set_trigger(trigger);
    let mut halfway = None;
    while world.central.live().get() < live + WAY {
        // Objects of a page, and large ones: each asks for a span.
        let pages = if random.one_in(10) { 5 + random.below(30) } else { 1 };
        fresh.push(world.alloc(pages * PAGE_BYTES).expect("memory"));
        // Who has just come from the slow path owes nothing, but for the pages that the reclaimer would
        // have swept for a large object, had there been any.
        let own = if pages > 1 { pages } else { 0 };
        let taken = (world.central.live().get() - live).min(WAY);
        let (swept, due) = (waiting - world.waiting() + own, waiting * taken / WAY);
        assert!(swept >= due, "{swept} pages swept, {due} due");
        if taken > WAY / 2 {
            halfway.get_or_insert(world.waiting());
        }
    }
    fresh.push(world.alloc(PAGE_BYTES).expect("memory"));
    assert_eq!(world.waiting(), 0);
    assert!(world.central.live() < trigger, "there is a mebibyte to go");
    let halfway = halfway.expect("on the way");
    assert!((waiting * 2 / 5..waiting * 3 / 5).contains(&halfway), "{halfway} of {waiting}");
    let expected = survivors.iter().chain(&fresh).copied().collect::<BTreeSet<_>>();
    world.cache.give_back_all(&world.central, world.tint());
    assert!(expected.is_subset(&world.allocated()));
    world.release();
}

#[test]
fn another_trigger_on_the_way_makes_no_debt() {
    let mut random = Random::new(0x9a5f);
    let world = World::new(None);
    half_dead_spans(&world, &mut random);
    world.begin_generation(false);
    world.central.set_trigger(Bytes::new(world.central.live().get() + (100 << 20)));
    for _ in 0..100 {
        world.alloc(PAGE_BYTES).expect("memory");
    }
    // So near that all is due within the next 8 KiB; the first byte of it owes the first page.
    world.central.set_trigger(world.central.live());
    let waiting = world.waiting();
    assert!(waiting > 2000);
    world.central.keep_pace(Bytes::ZERO, PageCount::ZERO);
    assert_eq!(world.waiting(), waiting);
    world.alloc(PAGE_BYTES).expect("memory");
    assert!(world.waiting() < waiting);
    // One allocation does a part of it (`bounds`), and so do the next ones.
    for _ in 0..waiting / 30 {
        world.alloc(PAGE_BYTES).expect("memory");
    }
    assert_eq!(world.waiting(), 0);
    // Nor does another generation, before it has a trigger: the old line is no measure for it.
    half_dead_spans(&world, &mut random);
    world.begin_generation(true);
    let waiting = world.waiting();
    assert!(waiting > 2000);
    // A size that nothing had so far, so nothing is swept on demand.
    world.alloc(2 * PAGE_BYTES).expect("memory");
    assert_eq!(world.waiting(), waiting);
    world.release();
}

/// Objects of so many pages until the limit is reached, lowest first.
fn fill(world: &World, pages: usize) -> Vec<Addr> {
    let mut objects: Vec<_> = std::iter::from_fn(|| world.alloc(pages * PAGE_BYTES).ok()).collect();
    objects.sort_unstable();
    objects
}

#[test]
fn with_a_limit_dead_spans_are_swept_instead_of_an_error() {
    let world = World::new(Some(24 << 20));
    let objects = fill(&world, 8);
    assert!(world.central.wants_cycle(), "a refusal asks for a cycle");
    world.central.cycle_begins();
    assert!(!world.central.wants_cycle());
    // In the first chunk every other object lives: many pages are free there, and no 64 in a row. Further
    // up everything is dead.
    let (first, rest) = objects.split_at(512 / 8);
    assert!(rest.len() > 512 / 8, "{} objects", objects.len());
    let survivors: BTreeSet<_> = first.iter().copied().step_by(2).collect();
    survivors.iter().for_each(|&object| world.mark(object));
    world.begin_generation(false);
    let object = world.alloc(64 * PAGE_BYTES).expect("there is room, once enough has been swept");
    assert!(!world.central.wants_cycle());
    while world.central.sweep_one() {}
    let mut expected = survivors.clone();
    expected.insert(object);
    assert_eq!(world.allocated(), expected);

    // What cannot be had at all is an error, and the heap goes on.
    let error = world.alloc(23 << 20).expect_err("more than there is");
    assert_eq!(error.limit, Some(Bytes::new(24 << 20)));
    assert!(world.central.wants_cycle());
    assert_eq!(world.allocated(), expected);
    expected.extend(fill(&world, 8));
    assert!(expected.len() > survivors.len() + 1);
    assert_eq!(world.allocated(), expected);
    world.release();
}

#[test]
fn nothing_lies_idle_with_a_mutator_when_it_is_refused() {
    use crate::heap::counters::MemoryState;
    let world = World::new(Some(24 << 20));
    let cached = || world.central.counters().snapshot().pages(MemoryState::Cached);
    let object = world.alloc(PAGE_BYTES).expect("memory");
    world.central.take_back(world.cache.local_pages());
    assert_eq!(cached(), Bytes::ZERO);
    let mut objects = fill(&world, 1);
    objects.push(object);
    assert!(world.cache.local_pages().is_without_pages());
    assert_eq!(cached(), Bytes::ZERO);
    assert_eq!(world.central.pages().limits().met().refusals, 1);
    // What is free by now serves a larger run at once, and nobody gets pages for himself so near the limit.
    let dead: BTreeSet<_> = objects.iter().copied().take(40).collect();
    objects.iter().filter(|object| !dead.contains(object)).for_each(|&object| world.mark(object));
    world.begin_generation(false);
    world.alloc(PAGE_BYTES).expect("forty pages are free");
    assert!(world.cache.local_pages().is_without_pages());
    world.release();
}

#[test]
fn small_objects_get_the_room_that_sweeping_everything_finds() {
    let world = World::new(Some(24 << 20));
    // More full spans of a class than an allocation looks at, then one with room at the end of its list.
    // A list is a stack, so the last one to be swept is the first one made.
    let spans = 3 * acquire::SWEEP_BUDGET;
    let slots = PAGE_BYTES / 1024;
    let small: Vec<_> = (0..spans * slots).map(|_| world.alloc(1024).expect("memory")).collect();
    let mut large = fill(&world, 8);
    large.extend(fill(&world, 1));
    small[1..].iter().chain(&large).for_each(|&object| world.mark(object));
    world.begin_generation(false);
    assert_eq!(world.alloc(1024).expect("one slot is free"), small[0]);
    // And that was all.
    world.alloc(1024).expect_err("full");
    world.release();
}

#[test]
fn a_system_that_refuses_is_asked_again_when_something_was_swept() {
    let world = World::new(None);
    let objects = world.large(8, 64);
    world.mark(objects[0]);
    world.begin_generation(false);
    world.sim.set_fail_from(Some(1));
    // Seven in a row are dead: 448 pages, and no system needed.
    let object = world.alloc(440 * PAGE_BYTES).expect("the old pages");
    assert_eq!(world.allocated(), [objects[0], object].into_iter().collect());
    let error = world.alloc(64 * PAGE_BYTES).expect_err("nothing left");
    assert_eq!(error.limit, None);
    assert!(world.central.wants_cycle());
    world.sim.set_fail_from(None);
    world.alloc(64 * PAGE_BYTES).expect("the system gives again");
    world.release();
}

/// Several threads sweep one generation in every way that there is, and allocate from what they find.
#[test]
fn every_way_of_sweeping_at_once_loses_nothing() {
    let mut random = Random::new(0xa115);
    let mut world = World::new(None);
    let mut survivors = BTreeSet::new();
    for round in 0..6u64 {
        let mut objects: Vec<_> = survivors.iter().copied().collect();
        objects.extend((0..20_000).map(|_| world.alloc(16 + random.below(3000)).expect("memory")));
        objects.extend((0..100).flat_map(|_| world.large(1, 5 + random.below(60))));
        survivors = objects.into_iter().filter(|_| random.one_in(9)).collect();
        // Tiny objects and the like share slots: what is marked is what the tables say.
        survivors.iter().for_each(|&object| world.mark(object));
        world.begin_generation(false);
        let in_use = world.central.pages().in_use();
        let before = world.central.backlog().swept();
        let central = &world.central;
        central.set_trigger(Bytes::new(central.live().get() + (8 << 20)));
        let fresh: BTreeSet<Addr> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|thread| scope.spawn(move || sweep_somehow(central, round * 4 + thread)))
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert!(central.backlog().is_clear());
        let swept = (central.backlog().swept() - before) as usize;
        assert_eq!(PageCount::new(swept).bytes(), in_use, "each page was swept once");
        assert!(fresh.is_disjoint(&survivors));
        survivors.extend(fresh);
        assert_eq!(world.allocated(), survivors);
        world.cache = SpanCache::new();
    }
    world.release();
}

fn sweep_somehow(central: &Central, seed: u64) -> Vec<Addr> {
    let mut random = Random::new(0xa116 + seed);
    let cache = SpanCache::new();
    let tint = Tint { black: false, generation: central.generation() };
    let mut fresh = Vec::new();
    let mut alloc = |bytes: usize| {
        let slot = cache.alloc_slice(central, &BYTES, Bytes::new(bytes), tint);
        fresh.push(slot.expect("memory").0);
    };
    while !central.backlog().is_clear() {
        match random.below(4) {
            0 => alloc((9 + random.below(20)) * PAGE_BYTES),
            1 => (0..20).for_each(|_| alloc(16 + random.below(3000))),
            2 => {
                let pages = PageCount::new(1 + random.below(40));
                let budget = &mut Budget::of(pages);
                let mut freed = Freed::new(central);
                let sweep = |record: &Span| central.sweep_found(record, &mut freed);
                central.reclaimer.reclaim(pages, budget, sweep);
            }
            _ => {
                central.sweep_batch(random.below(10));
            }
        }
    }
    cache.give_back_all(central, tint);
    fresh
}

#[test]
fn a_heap_that_has_shrunk_fills_the_spans_that_lie_low_and_are_fuller_first() {
    let world = World::new(None);
    // Spans of eight slots. Of every second one a single object survives, of the others seven do.
    let slots = PAGE_BYTES / 1024;
    let objects: Vec<_> = (0..400 * slots).map(|_| world.alloc(1024).expect("memory")).collect();
    let is_low = |object: Addr| object.page().get() % 2 == 0;
    let survives = |object: Addr| {
        let slot = object.bytes_since(object.align_down(PAGE_BYTES)).get() / 1024;
        if is_low(object) { slot < 1 } else { slot < 7 }
    };
    objects.iter().filter(|&&object| survives(object)).for_each(|&object| world.mark(object));
    world.begin_generation(false);
    // From here on 200 pages are enough.
    world.central.pages().set_retain_goal(Some(Bytes::new(200 * PAGE_BYTES)));
    while world.central.sweep_one() {}
    let (base, line) = (objects[0].align_down(PAGE_BYTES), PageCount::new(200));
    let wanted = |object: &Addr| !is_low(*object) && *object < base + line;
    let first: Vec<_> = (0..100).map(|_| world.alloc(1024).expect("memory")).collect();
    assert!(first.iter().all(wanted), "one slot in each of a hundred fuller spans below the line");
    let next: Vec<_> = (0..400).map(|_| world.alloc(1024).expect("memory")).collect();
    assert!(!next.iter().any(wanted), "and no more of them");
    world.release();
}

#[test]
fn spans_that_lie_astray_are_used_when_there_is_nothing_better() {
    let world = World::new(Some(24 << 20));
    let slots = PAGE_BYTES / 1024;
    let objects: Vec<_> = std::iter::from_fn(|| world.alloc(1024).ok()).collect();
    // Of each span half survives, and all of them lie above the line: no page is better.
    let half =
        |object: Addr| object.bytes_since(object.align_down(PAGE_BYTES)).get() / 1024 < slots / 2;
    objects.iter().filter(|&&object| half(object)).for_each(|&object| world.mark(object));
    world.begin_generation(false);
    world.central.pages().set_retain_goal(Some(Bytes::ZERO));
    while world.central.sweep_one() {}
    let before = world.mapped();
    let survivors = objects.iter().filter(|&&object| half(object)).count();
    for _ in 0..objects.len() - survivors {
        world.alloc(1024).expect("there is a slot");
    }
    assert_eq!(world.mapped(), before);
    world.release();
}

#[test]
fn half_of_the_way_is_measured_from_what_is_retained_outside_as_well() {
    let world = World::new(None);
    let (central, mib) = (&world.central, |n: usize| Bytes::new(n << 20));
    central.grow_outside(mib(90));
    central.outside().begin_plan(Bytes::ZERO, Bytes::ZERO);
    central.set_trigger(mib(180));
    central.grow_outside(mib(44));
    assert!(!central.is_half_way());
    central.grow_outside(mib(2));
    assert!(central.is_half_way(), "46 of the 90 MiB that may be added have been");
    world.release();
}

/// A mutator looks at the trigger, the collector moves it, and the mutator says that it has rung, and rings: for
/// nothing. (In every interleaving: `spanheap-interleavings`, `alarms`.)
#[test]
fn a_ring_for_a_trigger_that_was_moved_does_not_silence_the_next_one() {
    let world = World::new(None);
    let central = &world.central;
    let is_rung = || central.alarm.sleep(Some(std::time::Duration::ZERO));
    central.set_trigger(Bytes::new(1 << 20));
    central.triggered.store(true, Ordering::Relaxed);
    assert!(!central.rearm(), "nothing has been taken");
    assert!(!is_rung());
    central.count_taken(Bytes::new(1 << 20));
    assert!(is_rung(), "the trigger is reached");
    // What was reached without a ring is told.
    assert!(central.rearm());
    central.count_returned(Bytes::new(1 << 20));
    world.release();
}

/// Somebody else has the last dead span in his hand when an allocation is refused, and frees it before that looks for
/// what else there is.
#[test]
fn a_sweep_that_ends_between_refusal_and_look_is_no_reason_to_refuse() {
    let world = World::new(None);
    let objects = world.large(3, 20);
    world.mark(objects[0]);
    world.begin_generation(false);
    let central = &world.central;
    while central.backlog().waiting().get() > 20 {
        central.sweep_one();
    }
    let last = std::cell::RefCell::new(Some(central.begin_to_sweep_one().expect("one waits")));
    let outcome = central.in_need(&LocalPages::default(), || match last.borrow_mut().take() {
        Some(finish) => {
            finish();
            Err(crate::heap::page_heap::Refused::Limit)
        }
        None => Ok(()),
    });
    assert!(outcome.is_ok(), "it was not tried again");
}
