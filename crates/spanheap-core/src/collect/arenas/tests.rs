//! An arena that is freed in each phase of a cycle, and closures that had its values before.
//!
//! The cycle runs on a thread of the test and is held up in a phase: in arming A by a closure, in arming B by
//! somebody who sweeps outside of closures, in marking by a trace function.
//!
//! # Safety
//! The tests make their objects and values in closures, and heaps are released when nobody uses them.
#![allow(unsafe_code)]

mod undertaker;

use super::*;
use crate::addr::Addr;
use crate::collect::Options;
use crate::collect::phase::{Phase, PhaseWord};
use crate::collect::roots::RootRecord;
use crate::heap::hooks::Hooks;
use crate::mutator::{ArenaOptions, Mutator, UserArena};
use crate::os::{Os, SimOs};
use crate::span::lookup::{ArenaState, Lookup};
use crate::span::{Shape, Tracer, TypeInfo};
use crate::sync::atomic::{AtomicUsize, Ordering};
use core::alloc::Layout;
use core::ptr::NonNull;
use std::sync::Arc;

/// Two pointers and a gate at which the trace function waits.
#[repr(C)]
struct Node {
    left: AtomicUsize,
    right: AtomicUsize,
    gate: AtomicUsize,
    number: usize,
}

/// What `gate` says.
const SHUT: usize = 1;
const REACHED: usize = 2;

/// # Safety
/// `object` points to a node.
unsafe fn trace_node(object: *const u8, _: usize, tracer: &mut Tracer<'_>) {
    // SAFETY: the caller's promise.
    let node = unsafe { &*object.cast::<Node>() };
    let was = node.gate.compare_exchange(SHUT, REACHED, Ordering::SeqCst, Ordering::SeqCst);
    while was.is_ok() && node.gate.load(Ordering::SeqCst) != 0 {
        std::thread::yield_now();
    }
    for field in [&node.left, &node.right] {
        // SAFETY: the fields hold null or nodes.
        unsafe { tracer.edge(Addr::new(field.load(Ordering::Acquire))) };
    }
}

static NODE: TypeInfo =
    TypeInfo::new(|| "node", size_of::<Node>(), 8, Shape::Opaque, trace_node, None);

/// A heap without its thread: `outer` --left--> `value`, in the arena, --left--> `inner`.
struct Stage {
    collector: Arc<Collector>,
    mutator: Mutator,
    arena: UserArena,
    root: Arc<RootRecord>,
    outer: NonNull<u8>,
    value: NonNull<u8>,
    inner: NonNull<u8>,
}

fn number_of(pointer: NonNull<u8>) -> usize {
    Addr::of(pointer.as_ptr()).get()
}

fn node<'a>(at: NonNull<u8>) -> &'a Node {
    // SAFETY: the tests hold nodes.
    unsafe { at.cast().as_ref() }
}

/// Fills a slot.
fn fill(slot: NonNull<u8>, number: usize, left: usize) {
    let (left, right, gate) = (AtomicUsize::new(left), AtomicUsize::new(0), AtomicUsize::new(0));
    // SAFETY: the caller was just given the slot.
    unsafe { slot.cast::<Node>().write(Node { left, right, gate, number }) };
}

impl Stage {
    fn new(sim: &Arc<SimOs>) -> Stage {
        let os = Os::simulated(sim.clone());
        let options = Options { checkmark: true, ..Options::default() };
        let collector = Arc::new(Collector::new(os, options, Hooks::none()).expect("memory"));
        let mutator = Stage::attach(&collector);
        let arena = mutator.new_arena(ArenaOptions::default());
        mutator.enter();
        let object = |number, left| {
            // SAFETY: a closure is open.
            let slot = unsafe { mutator.alloc(&NODE) }.expect("memory");
            fill(slot, number, left);
            // SAFETY: it is complete.
            unsafe { mutator.publish(slot) };
            slot
        };
        let inner = object(1, 0);
        // SAFETY: a closure is open.
        let value = unsafe { mutator.arena_alloc(&arena, &NODE) }.expect("memory");
        fill(value, 2, number_of(inner));
        // SAFETY: it is complete.
        unsafe { mutator.publish(value) };
        let outer = object(3, number_of(value));
        // SAFETY: the closure holds it.
        let root = unsafe { mutator.root(outer) };
        mutator.leave();
        Stage { collector, mutator, arena, root, outer, value, inner }
    }

    fn attach(collector: &Arc<Collector>) -> Mutator {
        Mutator::new(collector.clone(), collector.registry().attach().expect("it is new"))
    }

    fn cycle(&self) {
        self.collector.cycle_alone();
        assert!(!self.collector.last_cycle().report.retained_everything);
    }

    /// What the address of the value is, and whether the inner object is there.
    fn look(&self) -> (Option<ArenaState>, bool) {
        self.mutator.enter();
        let state = match self.mutator.find_object(Addr::of(self.value.as_ptr())) {
            Lookup::Arena(place) => Some(place.state),
            _ => None,
        };
        let inner = self.mutator.find_object(Addr::of(self.inner.as_ptr()));
        // SAFETY: a closure is open; the pointer was read from an object that lives.
        let is_live = unsafe { self.mutator.is_arena_live(self.value) };
        assert_eq!(is_live, state == Some(ArenaState::Open));
        self.mutator.leave();
        (state, inner.object().is_some())
    }

    fn wait_for(&self, phase: Phase) {
        while self.collector.word().phase() != phase {
            std::thread::yield_now();
        }
    }

    /// [`Stage::end`], when `reader` has stored the inner object in the outer node: it is taken out of there first.
    fn end_without_inner(self, reader: Mutator, sim: &SimOs) {
        reader.enter();
        // SAFETY: the closure holds the node by its root.
        unsafe { reader.write(&node(self.outer).right, Addr::NULL) };
        reader.leave();
        drop(reader);
        self.end(sim);
    }

    /// What is the same whenever the arena was freed: after the next cycle the inner object is dead and the chunk is in
    /// quarantine; and it is free when the pointer to it has gone.
    fn end(self, sim: &SimOs) {
        self.cycle();
        assert_eq!(self.look(), (Some(ArenaState::Quarantined), false));
        self.cycle();
        assert_eq!(self.look(), (Some(ArenaState::Quarantined), false));
        self.mutator.enter();
        // SAFETY: the closure holds the node by its root.
        unsafe { self.mutator.write(&node(self.outer).left, Addr::NULL) };
        self.mutator.leave();
        self.cycle();
        let Stage { collector, mutator, arena, root, value, .. } = self;
        mutator.enter();
        assert_eq!(mutator.find_object(Addr::of(value.as_ptr())), Lookup::Free);
        mutator.leave();
        drop((root, mutator, arena));
        let central = collector.central();
        collector.crew.release(central.os());
        collector.registry().close(central);
        crate::collect::checkmark::release(central);
        // SAFETY: no mutator is left, and nobody uses an object any more.
        unsafe { central.release() };
        sim.assert_all_released();
    }
}

#[test]
fn fault_49_an_arena_that_is_freed_before_a_cycle_dies_with_it() {
    let sim = SimOs::builder().build();
    let stage = Stage::new(&sim);
    stage.cycle();
    assert_eq!(stage.look(), (Some(ArenaState::Open), true));
    stage.arena.free().expect("once");
    assert_eq!(stage.look(), (Some(ArenaState::Freed), true));
    stage.end(&sim);
}

#[test]
fn fault_49_an_arena_that_is_freed_in_arming_a_is_scanned_by_this_cycle() {
    let sim = SimOs::builder().build();
    let stage = Stage::new(&sim);
    let pin = Stage::attach(&stage.collector);
    std::thread::scope(|scope| {
        pin.enter();
        let collector = &stage.collector;
        let cycle = scope.spawn(|| collector.cycle_alone());
        stage.wait_for(Phase::ArmingA);
        stage.arena.free().expect("once");
        assert_eq!(stage.look(), (Some(ArenaState::Freed), true));
        pin.leave();
        cycle.join().expect("no panic");
    });
    assert_eq!(stage.look(), (Some(ArenaState::Freed), true));
    drop(pin);
    stage.end(&sim);
}

#[test]
fn fault_49_an_arena_that_is_freed_in_arming_b_is_scanned_by_this_cycle() {
    let sim = SimOs::builder().build();
    let stage = Stage::new(&sim);
    let (collector, central) = (&stage.collector, stage.collector.central());
    // A cycle has ended, of which nothing is swept yet; and somebody outside of closures sweeps.
    central.begin_generation(Generation::new(1), central.live(), central.taken(), true);
    collector.publish(PhaseWord::new(Phase::Idle, 1));
    collector.registry.note_states();
    collector.registry.release_outside(central, collector.word(), &collector.fence);
    central.catch_up();
    let go_on = central.begin_to_sweep_one().expect("there is a span");
    std::thread::scope(|scope| {
        let cycle = scope.spawn(|| collector.cycle_alone());
        stage.wait_for(Phase::ArmingB);
        stage.arena.free().expect("once");
        assert_eq!(stage.look().0, Some(ArenaState::Freed));
        go_on();
        cycle.join().expect("no panic");
    });
    assert_eq!(stage.look(), (Some(ArenaState::Freed), true));
    stage.end(&sim);
}

/// Also, a closure that had the value before takes a pointer out of it and stores it where marking has been.
#[test]
fn fault_49_an_arena_that_is_freed_while_a_cycle_marks_is_scanned_by_it() {
    let sim = SimOs::builder().build();
    let stage = Stage::new(&sim);
    let reader = Stage::attach(&stage.collector);
    node(stage.value).gate.store(SHUT, Ordering::SeqCst);
    std::thread::scope(|scope| {
        let collector = &stage.collector;
        let cycle = scope.spawn(|| collector.cycle_alone());
        while node(stage.value).gate.load(Ordering::SeqCst) != REACHED {
            std::thread::yield_now();
        }
        reader.enter();
        // SAFETY: the closure has the value from the outer node.
        assert!(unsafe { reader.is_arena_live(stage.value) });
        stage.arena.free().expect("once");
        // SAFETY: as above.
        assert!(!unsafe { reader.is_arena_live(stage.value) });
        let inner = node(stage.value).left.load(Ordering::Acquire);
        // SAFETY: the closure holds both.
        unsafe { reader.write(&node(stage.outer).right, Addr::new(inner)) };
        node(stage.value).gate.store(0, Ordering::SeqCst);
        reader.leave();
        cycle.join().expect("no panic");
    });
    assert_eq!(stage.look(), (Some(ArenaState::Freed), true));
    // What it has stored keeps the object alive, whatever becomes of the arena.
    stage.cycle();
    assert_eq!(stage.look(), (Some(ArenaState::Quarantined), true));
    stage.end_without_inner(reader, &sim);
}

/// The closure had the value before the arena was freed, and is open when a cycle begins with which the arena dies.
/// What it reads out of the value and stores is found by marking; and the memory stays until it has ended.
#[test]
fn fault_49_50_what_a_closure_takes_out_of_a_freed_arena_is_retained() {
    let sim = SimOs::builder().build();
    let stage = Stage::new(&sim);
    let reader = Stage::attach(&stage.collector);
    reader.enter();
    // SAFETY: the closure has the value from the outer node.
    assert!(unsafe { reader.is_arena_live(stage.value) });
    stage.arena.free().expect("once");
    std::thread::scope(|scope| {
        let collector = &stage.collector;
        let cycle = scope.spawn(|| collector.cycle_alone());
        stage.wait_for(Phase::ArmingA);
        assert_eq!(stage.look(), (Some(ArenaState::Freed), true));
        assert_eq!(node(stage.value).number, 2, "the memory is there");
        let inner = node(stage.value).left.load(Ordering::Acquire);
        // SAFETY: the closure holds both.
        unsafe { reader.write(&node(stage.outer).right, Addr::new(inner)) };
        reader.leave();
        cycle.join().expect("no panic");
    });
    assert_eq!(stage.look(), (Some(ArenaState::Quarantined), true));
    stage.end_without_inner(reader, &sim);
}

/// The last closures of a marking phase end after their cycle. What they allocate is marked for it, in a chunk that
/// somebody has got since then; and the next cycle looks into it all the same.
#[test]
fn what_a_late_closure_puts_into_a_new_chunk_is_scanned_by_the_next_cycle() {
    let sim = SimOs::builder().build();
    let stage = Stage::new(&sim);
    stage.cycle();
    let collector = &stage.collector;
    let (late, word) = (Stage::attach(collector), collector.word());
    // A closure that begins while the cycle marks...
    collector.publish(PhaseWord::new(Phase::Marking, word.cycle()));
    late.enter();
    collector.publish(word);
    // ... and is open when another one, of the next phase, gets a chunk and gives it back.
    let arena = stage.mutator.new_arena(ArenaOptions::default());
    stage.mutator.enter();
    // SAFETY: a closure is open; the room is never made a value of.
    unsafe { stage.mutator.arena_alloc(&arena, &NODE) }.expect("memory");
    stage.mutator.leave();
    assert_eq!(arena.chunks().len(), 1);
    // SAFETY: a closure is open.
    let value = unsafe { late.arena_alloc(&arena, &NODE) }.expect("memory");
    let inner = node(stage.value).left.load(Ordering::Acquire);
    fill(value, 4, inner);
    // SAFETY: it is complete.
    unsafe { late.publish(value) };
    assert_eq!(arena.chunks().len(), 1, "the same chunk");
    // SAFETY: the closure holds both.
    unsafe { late.write(&node(stage.outer).right, Addr::of(value.as_ptr())) };
    late.leave();
    drop(late);
    // The new value alone points to the object.
    stage.mutator.enter();
    // SAFETY: the closure holds the node by its root.
    unsafe { stage.mutator.write(&node(stage.value).left, Addr::NULL) };
    stage.mutator.leave();
    stage.cycle();
    assert_eq!(stage.look(), (Some(ArenaState::Open), true), "it lives, and was not found");
    stage.mutator.enter();
    // SAFETY: as above.
    unsafe { stage.mutator.write(&node(stage.outer).right, Addr::NULL) };
    stage.mutator.leave();
    stage.arena.free().expect("once");
    drop(arena);
    stage.end(&sim);
}

/// Chunks that come while a cycle marks are paid for by marking, like other memory.
#[test]
fn who_gets_a_chunk_while_a_cycle_marks_owes_for_it() {
    let sim = SimOs::builder().build();
    let stage = Stage::new(&sim);
    let (collector, mutator) = (&stage.collector, Stage::attach(&stage.collector));
    let arena = mutator.new_arena(ArenaOptions::default());
    let get = || {
        // SAFETY: a closure is open as long as the writer is there.
        let mut writer = unsafe { mutator.arena_writer(&arena) }.expect("of this heap");
        let layout = Layout::from_size_align(3 << 20, 1).expect("it is small enough");
        // SAFETY: as above.
        unsafe { writer.alloc_leaf(layout) }.expect("memory");
    };
    let due = || mutator.dues();
    mutator.enter();
    get();
    assert_eq!(due(), Bytes::ZERO, "no cycle marks");
    mutator.leave();
    node(stage.value).gate.store(SHUT, Ordering::SeqCst);
    std::thread::scope(|scope| {
        let cycle = scope.spawn(|| collector.cycle_alone());
        while node(stage.value).gate.load(Ordering::SeqCst) != REACHED {
            std::thread::yield_now();
        }
        collector.central().debt().begin(2.0, Bytes::ZERO);
        mutator.enter();
        let assists = collector.spent()[0];
        get();
        assert_eq!(due(), Bytes::new(6 << 20));
        assert_eq!(collector.spent()[0], assists, "nothing was due before");
        get();
        assert_eq!(due(), Bytes::new(12 << 20), "there was nothing to mark");
        assert!(collector.spent()[0] > assists, "and yet it was tried");
        mutator.leave();
        node(stage.value).gate.store(0, Ordering::SeqCst);
        cycle.join().expect("no panic");
    });
    arena.free().expect("once");
    stage.arena.free().expect("once");
    drop((arena, mutator));
    stage.end(&sim);
}
