//! The decision, step by step: a cycle that the test takes through its phases by hand, while closures of the test
//! upgrade. And what chains of ephemerons cost.
//!
//! # Safety
//! Objects are made and read by the test, in closures of its own mutators, before anything is swept.
#![allow(unsafe_code)]

use super::*;
use crate::collect::page_ring::PageRing;
use crate::collect::{Options, Phase, PhaseWord, grey};
use crate::heap::hooks::Hooks;
use crate::mutator::Mutator;
use crate::os::Os;
use crate::span::{EphemeronCell, TypeInfo};
use crate::tests::forked;
use core::ptr::NonNull;
use std::sync::{Arc, Barrier};

/// An object of two words, of which the first is a pointer.
static PAIR: TypeInfo = TypeInfo::new(|| "pair", 16, 8, Shape::Words(1), trace_nothing, None);
/// A leaf to the collector: it is marked without a visit of its page.
static LEAF: TypeInfo = TypeInfo::new(|| "leaf", 1024, 8, Shape::NoScan, trace_nothing, None);
static EPHEMERON: TypeInfo = EphemeronCell::INFO;

/// A heap without threads.
struct World {
    collector: Arc<Collector>,
    mutator: Mutator,
}

impl World {
    fn new() -> World {
        let collector = Arc::new(
            Collector::new(Os::native(), Options::default(), Hooks::none()).expect("memory"),
        );
        let record = collector.registry().attach().expect("it is new");
        World { mutator: Mutator::new(collector.clone(), record), collector }
    }

    /// A published object that points to `next`.
    fn pair(&self, next: Addr) -> Addr {
        // SAFETY: a closure is open, and the description says what is written.
        let slot = unsafe { self.mutator.alloc(&PAIR) }.expect("memory");
        // SAFETY: the slot has two words.
        unsafe { slot.cast::<[usize; 2]>().write([next.get(), 0]) };
        // SAFETY: it is initialised.
        unsafe { self.mutator.publish(slot) };
        Addr::of(slot.as_ptr())
    }

    /// A published object without pointers.
    fn leaf(&self) -> Addr {
        // SAFETY: a closure is open.
        let slot = unsafe { self.mutator.alloc(&LEAF) }.expect("memory");
        // SAFETY: the slot has so many bytes.
        unsafe { slot.write_bytes(1, LEAF.size) };
        // SAFETY: it is initialised.
        unsafe { self.mutator.publish(slot) };
        Addr::of(slot.as_ptr())
    }

    fn ephemeron(&self, key: Addr, value: Addr) -> Addr {
        // SAFETY: as above.
        let slot = unsafe { self.mutator.alloc(&EPHEMERON) }.expect("memory");
        // SAFETY: the slot is for an ephemeron.
        unsafe { slot.cast::<EphemeronCell>().write(EphemeronCell::new(key, value)) };
        // SAFETY: it is initialised.
        unsafe { self.mutator.publish(slot) };
        Addr::of(slot.as_ptr())
    }

    /// The worker of the first cycle, which is about to begin.
    fn marker<'a>(&self, collector: &'a Collector) -> Marker<'a> {
        let central = collector.central();
        collector.crew.begin(central.os(), central.pages().in_use().whole_pages(), 1);
        Marker::new(central, &collector.crew, 0, 1)
    }

    fn handle(&self, object: Addr) -> NonNull<AtomicUsize> {
        // SAFETY: the test holds the object.
        unsafe { self.mutator.downgrade(object) }.expect("memory")
    }

    fn upgrade(&self, handle: NonNull<AtomicUsize>) -> Addr {
        // SAFETY: handles of the test are not swept before it is over.
        let handle = unsafe { handle.as_ref() };
        // SAFETY: as above; a closure is open.
        unsafe { self.mutator.upgrade(handle) }
    }

    /// What the grey queue does at the beginning of a cycle.
    fn begin(&self, cycle: u32) {
        self.collector.grey.begin(cycle, grey::bound(Bytes::ZERO));
    }

    /// Begins to mark for cycle 1, without arming: no closure was open.
    fn begin_marking(&self) {
        self.begin(1);
        self.collector.grey.begin_marking();
        self.collector.publish(PhaseWord::new(Phase::Marking, 1));
        self.mutator.enter();
    }

    /// The end of the heap. All closures are left.
    fn release(self) {
        let World { collector, mutator } = self;
        drop(mutator);
        collector.crew.release(collector.central().os());
        collector.registry().close(collector.central());
        // SAFETY: no mutator is left, and nobody uses an object any more.
        unsafe { collector.central().drop_everything() };
        // SAFETY: as above.
        unsafe { collector.central().release() };
    }
}

/// Fault row 44, without chance: before the decision an upgrade saves its target, and the decision waits for it;
/// after the decision it does not, even if the handle is not cleared yet.
#[test]
fn fault_44_the_decision_is_the_moment_of_death() {
    let world = World::new();
    world.mutator.enter();
    let inner = world.pair(Addr::NULL);
    let (saved, late, kept) = (world.pair(inner), world.pair(Addr::NULL), world.pair(Addr::NULL));
    let [of_inner, of_saved, of_late, of_kept] =
        [inner, saved, late, kept].map(|object| world.handle(object));
    world.mutator.leave();

    let collector = world.collector.clone();
    let mut marker = world.marker(&collector);
    world.begin_marking();
    marker.mark(kept);
    marker.drain();
    assert_eq!(world.upgrade(of_saved), saved);
    assert!(!collector.grey.settle(true), "decided while an upgraded object was in the queue");
    assert_eq!(world.upgrade(of_saved), saved);
    collector.drain(&mut marker);
    assert!(collector.grey.settle(true));

    // The handle is as it was, and it is too late all the same.
    assert_eq!(world.upgrade(of_late), Addr::NULL);
    for (handle, target) in [(of_saved, saved), (of_inner, inner), (of_kept, kept)] {
        assert_eq!(world.upgrade(handle), target, "marked before the decision");
    }
    collector.decide_weak(1, &mut marker);
    assert_eq!(world.upgrade(of_late), Addr::NULL);
    // SAFETY: nothing was swept.
    assert_eq!(unsafe { of_late.as_ref() }.load(Ordering::Relaxed), 0);
    let table = Generation::new(1).table();
    for handle in [of_saved, of_inner, of_kept] {
        let handle = Addr::of(handle.as_ptr());
        assert!(mark::is_marked(collector.central().number(), table, handle), "a handle is lost");
    }
    assert_eq!(marker.tally().marked().objects, 6, "three objects and their handles");
    world.mutator.leave();
    world.release();
}

/// In a forked child there is nobody to retain anything, and nobody who frees: upgrading is reading. It asks for
/// no lock, which another thread may have held.
#[test]
fn fault_71_a_forked_child_upgrades_without_the_collector() {
    let world = World::new();
    world.mutator.enter();
    let object = world.pair(Addr::NULL);
    let handle = world.handle(object);
    world.mutator.leave();
    let collector = world.collector.clone();
    let mut marker = world.marker(&collector);
    world.begin_marking();
    let upgrades = || world.upgrade(handle) == object && !collector.grey.has_entries();
    assert!(forked(upgrades));
    assert!(!upgrades(), "here the collector is asked to retain it");
    collector.drain(&mut marker);
    world.mutator.leave();
    world.release();
}

/// A closure of a cycle that is over, and one of a cycle that decides nothing.
#[test]
fn fault_44_an_upgrade_in_a_cycle_that_is_over_or_undecided() {
    let world = World::new();
    world.mutator.enter();
    let (lives, dies) = (world.pair(Addr::NULL), world.pair(Addr::NULL));
    let handles = [lives, dies].map(|object| world.handle(object));
    world.mutator.leave();
    let collector = world.collector.clone();
    let mut marker = world.marker(&collector);
    world.begin_marking();
    // The marks are not to be trusted, so nothing is decided.
    assert!(collector.grey.settle(false));
    assert_eq!(handles.map(|handle| world.upgrade(handle)), [lives, dies]);
    marker.mark(lives);
    collector.decide_weak(1, &mut marker);
    assert_eq!(handles.map(|handle| world.upgrade(handle)), [lives, dies]);
    // The next cycle begins while the closure goes on. What the handles say holds.
    world.begin(2);
    assert_eq!(handles.map(|handle| world.upgrade(handle)), [lives, dies]);
    assert!(!collector.grey.has_entries());
    world.mutator.leave();
    world.release();
}

/// Two workers: one has seen that the key is not marked, and is about to let its ephemeron wait, when the other one
/// marks the key and scans its page. Nobody waits yet, so the second one has nothing to release; the first one looks
/// again.
#[test]
fn a_key_that_is_marked_while_its_ephemeron_comes_to_wait_saves_the_value() {
    a_key_comes_late(|world| world.pair(Addr::NULL));
    a_key_comes_late(World::leaf);
}

fn a_key_comes_late(key: impl Fn(&World) -> Addr) {
    let world = World::new();
    world.mutator.enter();
    let (key, inner) = (key(&world), world.pair(Addr::NULL));
    let value = world.pair(inner);
    let ephemeron = world.ephemeron(key, value);
    world.mutator.leave();
    let collector = world.collector.clone();
    let central = collector.central();
    let mut marker = world.marker(&collector);
    world.begin_marking();
    let is_marked = |object| mark::is_marked(central.number(), Generation::new(1).table(), object);

    let (is_held, is_awaited, is_scanned) = (Barrier::new(2), Barrier::new(2), Barrier::new(2));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let table = central.waiting().hold();
            is_held.wait();
            while !table.is_awaited() {
                std::thread::yield_now();
            }
            is_awaited.wait();
            is_scanned.wait();
        });
        is_held.wait();
        // Otherwise there is nothing that a worker could begin with.
        collector.crew.set_has_roots(true);
        scope.spawn(|| {
            assert_eq!(collector.crew.wait_for_work(None), Some(1));
            collector.crew.set_has_roots(false);
            let ring = PageRing::new();
            let mut first = Marker::on(central, &collector.crew, &ring, 1);
            first.mark(ephemeron);
            first.work(|_| true);
            first.leave();
        });
        is_awaited.wait();
        assert!(!is_marked(key), "the first worker has looked at the key, and found it not marked");
        marker.mark(key);
        marker.work(|_| true);
        assert!(is_marked(key) && !is_marked(value));
        is_scanned.wait();
    });
    collector.drain(&mut marker);
    assert!(is_marked(value) && is_marked(inner));
    assert!(collector.grey.settle(true));
    collector.decide_weak(1, &mut marker);
    world.mutator.leave();
    world.release();
}

/// Fault row 46: a chain in the worst order. The values of a chain are found one after the other, and each of them
/// releases one ephemeron; nobody goes through those that still wait.
#[test]
fn fault_46_a_chain_of_ephemerons_costs_a_step_for_each_link() {
    let mut costs = Vec::new();
    for links in [100_usize, 1000, 10_000] {
        let world = World::new();
        world.mutator.enter();
        let keys: Vec<_> = (0..=links).map(|_| world.pair(Addr::NULL)).collect();
        let ephemerons: Vec<_> =
            (0..links).map(|at| world.ephemeron(keys[at], keys[at + 1])).collect();
        world.mutator.leave();
        let collector = world.collector.clone();
        let mut marker = world.marker(&collector);
        world.begin_marking();
        for &ephemeron in ephemerons.iter().rev() {
            marker.mark(ephemeron);
            collector.drain(&mut marker);
        }
        marker.mark(keys[0]);
        collector.drain(&mut marker);
        assert_eq!(marker.tally().marked().objects as usize, 2 * links + 1);
        let steps = collector.central().waiting().steps();
        assert!(steps <= 6 * links as u64, "{steps} steps for {links} links");
        costs.push(steps);
        assert!(collector.grey.settle(true));
        collector.decide_weak(1, &mut marker);
        world.mutator.leave();
        world.release();
    }
    println!("steps for 100, 1000 and 10000 links: {costs:?}");
}

/// Keys that are never found: their ephemerons are cleared, the others are not.
#[test]
fn what_still_waits_at_the_decision_is_cleared() {
    let world = World::new();
    world.mutator.enter();
    let [live, dead, value] = [(); 3].map(|()| world.pair(Addr::NULL));
    let (full, empty) = (world.ephemeron(live, value), world.ephemeron(dead, value));
    let (key, late) = (world.leaf(), world.pair(Addr::NULL));
    let of_leaf = world.ephemeron(key, late);
    world.mutator.leave();
    let collector = world.collector.clone();
    let mut marker = world.marker(&collector);
    world.begin_marking();
    for object in [full, empty, of_leaf, live, key] {
        marker.mark(object);
        collector.drain(&mut marker);
    }
    let table = Generation::new(1).table();
    assert!(mark::is_marked(collector.central().number(), table, late), "its key was found");
    assert!(collector.grey.settle(true));
    collector.decide_weak(1, &mut marker);
    assert!(!collector.central().waiting().has_any());
    // SAFETY: nothing was swept.
    let [full, empty] = [full, empty].map(|at| unsafe { EphemeronCell::at(at) }.expect("there"));
    assert_eq!((full.key(), full.value()), (live, value));
    assert_eq!((empty.key(), empty.value()), (Addr::NULL, Addr::NULL));
    world.mutator.leave();
    world.release();
}
