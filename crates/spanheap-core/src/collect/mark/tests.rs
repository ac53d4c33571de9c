//! Marking against a twin that follows edges in a list.
//!
//! A graph is laid out in a heap without a collector: objects with fixed pointer words, slices with a
//! repeated mask, objects that only a trace function understands, and some without pointers. The twin
//! knows each object's edges, so it knows what can be reached. Page queues range from ample to a
//! single entry, or none, where nearly everything is found by rescans.
//!
//! # Safety
//! Objects are written by the test, which is the only thread, in slots that it was given, before marking
//! begins.
#![allow(unsafe_code)]

mod leaves;
mod parallel;

use super::*;
use crate::addr::{Bytes, PageCount, WORD_BYTES};
use crate::collect::crew::{ASIDE, Marked};
use crate::heap::cache::{SpanCache, Tint};
use crate::heap::central::Config;
use crate::os::{Os, asan};
use crate::span::{DropFn, Shape, Span, Tracer, TypeInfo};
use crate::tests::Random;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};

thread_local! {
    /// Objects whose trace function finds their lock taken.
    static LOCKED: RefCell<BTreeSet<usize>> = const { RefCell::new(BTreeSet::new()) };
    /// The trace function of this object panics.
    static EXPLOSIVE: Cell<usize> = const { Cell::new(0) };
    static DROPPED: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// Word `index` of the object at `at`.
fn word_of(at: Addr, index: usize) -> *mut usize {
    (at + Bytes::new(index * WORD_BYTES)).as_ptr()
}

/// The layout of a traced value: a count, and as many pointers as it says.
unsafe fn trace_counted(object: *const u8, count: usize, tracer: &mut Tracer<'_>) {
    assert_eq!(count, 1);
    if EXPLOSIVE.get() == object as usize {
        // Unlike `panic!`, this prints nothing.
        std::panic::resume_unwind(Box::new("explosive"));
    }
    if LOCKED.with_borrow(|locked| locked.contains(&(object as usize))) {
        tracer.defer();
        return;
    }
    // SAFETY: a traced object of the test begins with its count.
    let edges = unsafe { object.cast::<usize>().read() };
    for index in 1..=edges {
        // SAFETY: so many words follow.
        let edge = unsafe { word_of(Addr::of(object), index).read() };
        // SAFETY: the word is one of the object's pointers.
        unsafe { tracer.edge(Addr::new(edge)) };
    }
}

unsafe fn note_drop(object: *mut u8, _: usize) {
    DROPPED.with_borrow_mut(|dropped| dropped.push(object as usize));
}

const fn ty(words: usize, shape: Shape, drop: Option<DropFn>) -> TypeInfo {
    TypeInfo::new(|| "test", words * WORD_BYTES, WORD_BYTES, shape, trace_counted, drop)
}

static PAIR: TypeInfo = ty(2, Shape::Words(0b11), None);
static TRIPLE: TypeInfo = ty(3, Shape::Words(0b101), None);
static WIDE: TypeInfo = ty(64, Shape::Words(1 << 63 | 0b110), None);
static ELEMENT: TypeInfo = ty(3, Shape::Words(0b010), None);
static LINK: TypeInfo = ty(1, Shape::Words(1), None);
static TRACED: TypeInfo = ty(9, Shape::Opaque, None);
static BIG_TRACED: TypeInfo = ty(5000, Shape::Opaque, None);
static BYTES: TypeInfo = ty(5, Shape::NoScan, None);
static DROPPING: TypeInfo = ty(4, Shape::NoScan, Some(note_drop));

/// A heap without a collector, and the graph in it.
struct World {
    central: Central,
    cache: Box<SpanCache>,
    edges: BTreeMap<Addr, Vec<Addr>>,
    objects: Vec<Addr>,
}

impl World {
    fn new() -> World {
        let central = Central::new(Os::native(), Config::default()).expect("memory");
        World { central, cache: SpanCache::new(), edges: BTreeMap::new(), objects: Vec::new() }
    }

    fn tint(&self) -> Tint {
        Tint { black: false, generation: self.central.generation() }
    }

    fn target(&self, random: &mut Random) -> Addr {
        match random.below(8) {
            0 => Addr::NULL,
            // Mostly neighbours, which makes long chains, and now and then anybody.
            1..=5 => self.objects[self.objects.len().saturating_sub(1 + random.below(4))],
            _ => self.objects[random.below(self.objects.len())],
        }
    }

    /// Allocates an object of `bytes` and fills it with numbers that are no pointers.
    fn make(&mut self, ty: &'static TypeInfo, elements: usize) -> (Addr, usize) {
        let tint = self.tint();
        let (at, bytes) = if elements == 0 {
            let at = self.cache.alloc(&self.central, ty, tint).expect("memory");
            (at, ty.size)
        } else {
            let bytes = Bytes::new(ty.size * elements);
            let (at, bytes) =
                self.cache.alloc_slice(&self.central, ty, bytes, tint).expect("memory");
            (at, bytes.get())
        };
        asan::permit(at, Bytes::new(bytes));
        for word in 0..bytes / WORD_BYTES {
            // SAFETY: the slot is ours and has that many bytes. No word of a pointer mask keeps this value.
            unsafe { word_of(at, word).write(0x1001 + word) };
        }
        (at, bytes)
    }

    /// Writes pointers to `words` of the object at `at` and tells the twin.
    fn link(&mut self, at: Addr, words: impl IntoIterator<Item = usize>, random: &mut Random) {
        let mut edges = Vec::new();
        for word in words {
            let target = if self.objects.is_empty() { Addr::NULL } else { self.target(random) };
            // SAFETY: the callers name words of the object.
            unsafe { word_of(at, word).write(target.get()) };
            edges.extend((!target.is_null()).then_some(target));
        }
        self.objects.push(at);
        assert!(self.edges.insert(at, edges).is_none());
    }

    fn add_traced(&mut self, ty: &'static TypeInfo, most: usize, random: &mut Random) -> Addr {
        let (at, _) = self.make(ty, 0);
        let count = random.below(most + 1);
        // SAFETY: the first word of the new object.
        unsafe { at.as_ptr::<usize>().write(count) };
        self.link(at, 1..=count, random);
        at
    }

    fn add(&mut self, random: &mut Random) {
        match random.below(8) {
            0 | 1 => {
                let (at, _) = self.make(&PAIR, 0);
                self.link(at, [0, 1], random);
            }
            2 => {
                let (at, _) = self.make(&TRIPLE, 0);
                self.link(at, [0, 2], random);
            }
            3 => {
                let (at, _) = self.make(&WIDE, 0);
                self.link(at, [1, 2, 63], random);
            }
            4 => {
                // Now and then a large one.
                let elements = if random.one_in(8) { 3000 } else { 1 + random.below(30) };
                let (at, bytes) = self.make(&ELEMENT, elements);
                let elements = bytes / ELEMENT.size;
                self.link(at, (0..elements).map(|n| 3 * n + 1), random);
            }
            5 if random.one_in(2) => {
                // Now and then one that is scanned in pieces.
                let elements = if random.one_in(40) { 20_000 } else { 1 + random.below(200) };
                let (at, bytes) = self.make(&LINK, elements);
                self.link(at, 0..bytes / LINK.size, random);
            }
            5 => drop(self.add_traced(&TRACED, 8, random)),
            6 if random.one_in(8) => drop(self.add_traced(&BIG_TRACED, 100, random)),
            _ => {
                // Now and then one that is marked without a visit of its page.
                let elements =
                    if random.one_in(4) { 13 + random.below(40) } else { random.below(3) };
                let (at, _) = self.make(&BYTES, elements);
                self.link(at, [], random);
            }
        }
    }

    fn reachable(&self, roots: &[Addr]) -> BTreeSet<Addr> {
        let (mut seen, mut todo) = (BTreeSet::new(), roots.to_vec());
        while let Some(object) = todo.pop() {
            if seen.insert(object) {
                todo.extend(&self.edges[&object]);
            }
        }
        seen
    }

    fn set_in(&self, table: impl Fn(&Span) -> Table) -> (BTreeSet<Addr>, usize) {
        let (mut objects, mut bytes) = (BTreeSet::new(), 0);
        let visit = |span: &Span| {
            bits::for_each_set(span.info(), table(span), |object| {
                objects.insert(object);
                bytes += span.info().slot;
            });
        };
        // SAFETY: this thread alone uses the heap.
        unsafe { self.central.pages().for_each_span(visit) };
        (objects, bytes)
    }

    fn marks(&self) -> (BTreeSet<Addr>, usize) {
        let table = self.central.generation().next().table();
        self.set_in(|_| table)
    }

    fn allocated(&self) -> BTreeSet<Addr> {
        self.set_in(|span| span.generation().table()).0
    }

    /// Ends the cycle: sweeps, and forgets what has died.
    fn end_cycle(&mut self) {
        self.end_cycle_with(false);
    }

    /// The same, for a cycle that may have to retain everything.
    fn end_cycle_with(&mut self, retain_all: bool) {
        let next = self.central.generation().next();
        let kept = if retain_all { self.allocated() } else { self.marks().0 };
        self.central.begin_generation(next, Bytes::ZERO, self.central.taken(), retain_all);
        while self.central.sweep_one() {}
        self.objects.retain(|object| kept.contains(object));
        self.edges.retain(|object, _| kept.contains(object));
    }

    fn cycle(&self) -> u32 {
        self.central.generation().next().get()
    }

    fn release(self) {
        // SAFETY: nobody uses the heap any more.
        unsafe { self.central.release() };
        assert_eq!(self.central.os().accounting().reserved(), Bytes::ZERO);
    }
}

/// A crew of four, about to mark a cycle of `world`, whose shared queue takes no more than `entries` pages.
fn crew_of(world: &World, entries: usize) -> Crew {
    let crew = Crew::new(4);
    crew.set_bound(entries);
    crew.begin(world.central.os(), PageCount::new(1), world.cycle());
    crew
}

/// The collector's worker, which has no more than `entries` pages in hand.
fn marker_of<'a>(world: &'a World, crew: &'a Crew, entries: usize) -> Marker<'a> {
    Marker::new(&world.central, crew, 0, world.cycle()).with_grip(entries)
}

/// Ends the marking; what all workers have marked.
fn end(world: &World, crew: &Crew, tally: Tally) -> Marked {
    let mut all = crew.end();
    all.add(tally);
    crew.release(world.central.os());
    all.marked()
}

#[test]
fn what_is_marked_is_what_can_be_reached_however_small_the_queue() {
    let mut random = Random::new(0x3a12);
    let mut world = World::new();
    let kernels: Vec<Kernel> = Kernel::all().collect();
    for (round, entries) in [2048, 16, 4, 2, 1, 0, 1, 2048, 2048, 2048].into_iter().enumerate() {
        for _ in 0..2500 {
            world.add(&mut random);
        }
        world.cache.give_back_all(&world.central, world.tint());
        let crew = crew_of(&world, entries);
        let kernel = kernels[round % kernels.len()];
        let mut marker = marker_of(&world, &crew, entries).with_kernel(Some(kernel));
        let mut roots = Vec::new();
        for _ in 0..6 {
            let root = world.objects[random.below(world.objects.len())];
            roots.push(root);
            marker.mark(root);
            assert!(marker.take_found() || roots.len() > 1);
            // Draining between roots changes nothing.
            if random.one_in(2) {
                assert!(marker.drain());
            }
        }
        marker.mark(Addr::new(0x10));
        marker.mark(Addr::new(usize::MAX));
        assert!(marker.drain());
        marker.take_found();
        assert!(marker.drain() && !marker.take_found() && !marker.is_broken());
        let counted = end(&world, &crew, marker.tally());
        let reachable = world.reachable(&roots);
        let (marks, bytes) = world.marks();
        assert_eq!(marks, reachable, "a queue of {entries}, {kernel:?}");
        assert_eq!((counted.objects, counted.bytes.get()), (marks.len() as u64, bytes));
        assert!(reachable.len() > 20, "{} of {}", reachable.len(), world.objects.len());
        // Everything marked has been scanned, so nothing is left for a rescan.
        assert!(reachable.is_subset(&world.set_in(|_| Table::Scanned).0));
        world.end_cycle();
        assert_eq!(world.allocated(), reachable);
    }
    world.release();
}

#[test]
fn objects_behind_locks_are_traced_when_the_locks_are_free() {
    let mut random = Random::new(0x10c4);
    for entries in [2048, 1] {
        let mut world = World::new();
        for _ in 0..3000 {
            world.add(&mut random);
        }
        world.cache.give_back_all(&world.central, world.tint());
        let roots: Vec<_> = world.objects.iter().rev().take(40).copied().collect();
        let traced = world.objects.iter().filter(|_| random.one_in(2)).map(|o| o.get());
        LOCKED.set(traced.collect());
        let crew = crew_of(&world, entries);
        let mut marker = marker_of(&world, &crew, entries);
        roots.iter().for_each(|&root| marker.mark(root));
        let mut rounds = 0;
        while !marker.drain() {
            rounds += 1;
            // Somebody gives some locks up, others are as they were.
            LOCKED.with_borrow_mut(|locked| locked.retain(|_| !random.one_in(3)));
            marker.retry_aside();
        }
        assert!(rounds > 2, "{rounds} rounds");
        let counted = end(&world, &crew, marker.tally());
        LOCKED.take();
        let (marks, bytes) = world.marks();
        assert_eq!(marks, world.reachable(&roots));
        assert_eq!((counted.objects, counted.bytes.get()), (marks.len() as u64, bytes));
        world.release();
    }
}

#[test]
fn more_locked_pages_than_can_be_put_aside_do_not_keep_the_worker_busy() {
    let mut random = Random::new(0xa51d);
    let mut world = World::new();
    // Large objects, so each has pages for itself.
    let containers: Vec<_> =
        (0..ASIDE + 50).map(|_| world.add_traced(&BIG_TRACED, 3, &mut random)).collect();
    world.cache.give_back_all(&world.central, world.tint());
    LOCKED.set(containers.iter().map(|container| container.get()).collect());
    let crew = crew_of(&world, 2048);
    let mut marker = marker_of(&world, &crew, 2048);
    containers.iter().for_each(|&container| marker.mark(container));
    // The locks stay taken, and the worker comes back to say so, each time.
    for _ in 0..3 {
        assert!(!marker.drain());
        assert_eq!(marker.tally().objects, 0);
        marker.retry_aside();
    }
    LOCKED.take();
    while !marker.drain() {
        marker.retry_aside();
    }
    assert_eq!(marker.tally().objects, containers.len() as u64);
    end(&world, &crew, marker.tally());
    assert_eq!(world.marks().0, containers.into_iter().collect());
    world.release();
}

#[test]
fn when_a_trace_function_panics_everything_is_retained() {
    let mut random = Random::new(0xb00);
    let mut world = World::new();
    for round in 0..4 {
        for _ in 0..1500 {
            world.add(&mut random);
        }
        let explosive = world.add_traced(&TRACED, 8, &mut random);
        world.cache.give_back_all(&world.central, world.tint());
        let before = world.allocated();
        EXPLOSIVE.set(if round % 2 == 0 { explosive.get() } else { 0 });
        let crew = crew_of(&world, 16);
        let mut marker = marker_of(&world, &crew, 16);
        marker.mark(explosive);
        assert!(marker.drain(), "a panic is nothing that could be tried again in this cycle");
        let is_broken = marker.is_broken();
        assert_eq!(is_broken, round % 2 == 0);
        end(&world, &crew, marker.tally());
        if is_broken {
            world.end_cycle_with(true);
            assert_eq!(world.allocated(), before);
            assert!(world.set_in(|_| Table::Scanned).0.is_empty());
        } else {
            let reachable = world.reachable(&[explosive]);
            assert_eq!(world.marks().0, reachable);
            world.end_cycle();
            assert_eq!(world.allocated(), reachable);
        }
    }
    EXPLOSIVE.set(0);
    world.release();
}

#[test]
fn retaining_everything_does_not_bring_the_dead_back() {
    let mut world = World::new();
    let objects: Vec<_> = (0..20).map(|_| world.make(&DROPPING, 0).0).collect();
    world.cache.give_back_all(&world.central, world.tint());
    // A cycle finds half of them dead; their destructors do not run yet.
    let crew = crew_of(&world, 2048);
    let mut marker = marker_of(&world, &crew, 2048);
    objects[..10].iter().for_each(|&object| marker.mark(object));
    assert!(marker.drain());
    end(&world, &crew, marker.tally());
    world.end_cycle();
    // The next one retains everything, but not those that wait for their destructor.
    world.end_cycle_with(true);
    while world.central.run_drops() {}
    assert_eq!(world.allocated(), objects[..10].iter().copied().collect());
    // The one after it finds all of them dead.
    world.end_cycle();
    while world.central.run_drops() {}
    let mut dropped = DROPPED.take();
    dropped.sort_unstable();
    let mut expected: Vec<_> = objects.iter().map(|object| object.get()).collect();
    expected.sort_unstable();
    assert_eq!(dropped, expected, "each value is dropped once");
    world.release();
}

/// Lays out `count` lists of so many pairs each, their objects taking turns; their heads.
fn lists(world: &mut World, count: usize, length: usize) -> Vec<Addr> {
    let mut heads = vec![Addr::NULL; count];
    for _ in 0..length {
        for head in &mut heads {
            let (at, _) = world.make(&PAIR, 0);
            for (word, target) in [Addr::NULL, *head].into_iter().enumerate() {
                // SAFETY: the object has two words.
                unsafe { word_of(at, word).write(target.get()) };
            }
            world.objects.push(at);
            world.edges.insert(at, if head.is_null() { Vec::new() } else { vec![*head] });
            *head = at;
        }
    }
    world.cache.give_back_all(&world.central, world.tint());
    heads
}

#[test]
fn a_few_lists_are_followed_object_by_object_and_many_page_by_page() {
    const LENGTH: usize = 3000;
    let pages = |count: usize| (count * LENGTH * PAIR.size).div_ceil(crate::addr::PAGE_BYTES);
    for (count, most_visits) in [(1, LENGTH / 50), (3, 3 * LENGTH / 50), (512, 4 * pages(512))] {
        let mut world = World::new();
        let heads = lists(&mut world, count, LENGTH);
        let crew = crew_of(&world, 1 << 20);
        let mut marker = marker_of(&world, &crew, 2048);
        heads.iter().for_each(|&head| marker.mark(head));
        assert!(marker.drain());
        let counted = end(&world, &crew, marker.tally());
        assert_eq!(counted.objects, (count * LENGTH) as u64);
        assert_eq!(world.marks().0, world.reachable(&heads));
        // Each visit of a page is counted as work besides the objects.
        let visits = (marker.tally().work as usize - counted.bytes.get()) / 64;
        assert!(visits <= most_visits, "{count} lists: {visits} visits, not {most_visits}");
        world.release();
    }
}

#[test]
fn a_pointer_into_another_heap_is_ignored() {
    let (mut ours, mut theirs) = (World::new(), World::new());
    let (a, _) = ours.make(&PAIR, 0);
    let (b, _) = theirs.make(&PAIR, 0);
    for word in 0..2 {
        // SAFETY: both objects have two words.
        unsafe { word_of(a, word).write(b.get()) };
    }
    let crew = crew_of(&ours, 2048);
    let mut marker = marker_of(&ours, &crew, 2048);
    marker.mark(a);
    assert!(marker.drain());
    assert_eq!(marker.tally().objects, 1);
    mark_directly(ours.central.number(), ours.cycle(), b);
    assert!(theirs.marks().0.is_empty());
    mark_directly(theirs.central.number(), theirs.cycle(), b);
    assert_eq!(theirs.marks().0, [b].into());
    end(&ours, &crew, marker.tally());
    ours.release();
    theirs.release();
}

#[test]
fn what_was_marked_directly_is_found_by_a_rescan() {
    let mut random = Random::new(0xd12ec);
    let mut world = World::new();
    for _ in 0..2000 {
        world.add(&mut random);
    }
    world.cache.give_back_all(&world.central, world.tint());
    let root = *world.objects.last().expect("many");
    mark_directly(world.central.number(), world.cycle(), root);
    let crew = crew_of(&world, 4);
    let mut marker = marker_of(&world, &crew, 4);
    assert!(marker.drain());
    assert_eq!(marker.tally().objects, 0, "nobody has told the worker");
    marker.want_rescan();
    assert!(marker.drain());
    end(&world, &crew, marker.tally());
    assert_eq!(world.marks().0, world.reachable(&[root]));
    world.release();
}
