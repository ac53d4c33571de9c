//! Whom a cycle waits for who is not inside a closure; how long others wait for it when a round ends; and storms of stores, beside a collector that cannot go on.
//!
//! # Safety
//! The tests make their objects in closures of their own and keep them reachable; their heaps are released when
//! nobody uses them.
#![allow(unsafe_code)]

use super::*;
use crate::addr::Addr;
use crate::collect::Options;
use crate::heap::hooks::Hooks;
use crate::mutator::Mutator;
use crate::os::{Category, Os};
use crate::span::{Shape, Tracer, TypeInfo};
use crate::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::ptr::NonNull;

/// # Safety
/// None is needed; the type demands the word.
unsafe fn trace_nothing(_: *const u8, _: usize, _: &mut Tracer<'_>) {}

static NUMBER: TypeInfo = TypeInfo::new(|| "number", 64, 8, Shape::NoScan, trace_nothing, None);

/// `Heap::collect_for` sweeps outside of closures, so no grace period waits for it. If marking began while it
/// is in the midst of a span, the rest of that sweep would clear new marks, and the next one free what lives.
#[test]
fn marking_does_not_begin_while_somebody_outside_of_closures_sweeps() {
    let collector = Collector::new(Os::native(), Options::default(), Hooks::none());
    let collector = Arc::new(collector.expect("memory"));
    let central = collector.central();
    let record = collector.registry().attach().expect("it is new");
    let mutator = Mutator::new(collector.clone(), record);
    mutator.enter();
    // SAFETY: a closure is open, and any bytes are a value of the type.
    let slot = unsafe { mutator.alloc(&NUMBER) }.expect("memory");
    // SAFETY: an object of the open closure.
    let root = unsafe { mutator.root(slot) };
    mutator.leave();

    // A cycle has ended, of which nothing is swept yet.
    central.begin_generation(Generation::new(1), central.live(), central.taken(), true);
    collector.publish(PhaseWord::new(Phase::Idle, 1));
    collector.registry.note_states();
    collector.registry.release_outside(central, collector.word(), &collector.fence);
    central.catch_up();
    let go_on = central.begin_to_sweep_one().expect("the span of the root waits to be swept");

    std::thread::scope(|scope| {
        let cycle = scope.spawn(|| collector.cycle_alone());
        let arming = PhaseWord::new(Phase::ArmingB, 2);
        while collector.word() != arming && !cycle.is_finished() {
            std::thread::yield_now();
        }
        for _ in 0..20 {
            assert!(collector.word() == arming, "marking has begun, or is over");
            std::thread::sleep(Duration::from_millis(1));
        }
        go_on();
    });
    assert!(!collector.last_cycle().report.retained_everything);
    assert_eq!(collector.last_cycle().report.marked.objects, 1);
    assert!(central.is_swept());
    mutator.enter();
    assert!(mutator.find_object(Addr::of(slot.as_ptr())).object().is_some());
    mutator.leave();

    drop((root, mutator));
    collector.crew.release(central.os());
    collector.registry().close(central);
    // SAFETY: no mutator is left, and nobody uses an object any more.
    unsafe { central.release() };
}

/// Two words, of which both are pointers.
static PAIR: TypeInfo = TypeInfo::new(|| "pair", 16, 8, Shape::Words(3), trace_nothing, None);
/// One pointer, which the collector gets to see when the gate is open.
static GATE: TypeInfo = TypeInfo::new(|| "gate", 16, 8, Shape::Opaque, trace_at_the_gate, None);
static IS_AT_THE_GATE: AtomicBool = AtomicBool::new(false);
static IS_OPEN: AtomicBool = AtomicBool::new(false);

/// Reports the first word, when the gate is open.
///
/// # Safety
/// `value` is the only value of [`GATE`].
unsafe fn trace_at_the_gate(value: *const u8, _: usize, tracer: &mut Tracer<'_>) {
    IS_AT_THE_GATE.store(true, Ordering::Release);
    while !IS_OPEN.load(Ordering::Acquire) {
        std::thread::yield_now();
    }
    // SAFETY: the value is a word.
    let pair = unsafe { value.cast::<Addr>().read() };
    // SAFETY: E1, E2: it is the address of a pair.
    unsafe { tracer.edge(pair) };
}

/// Pairs, of which one leads to the next.
fn chain(mutator: &Mutator, pairs: usize) -> Vec<Addr> {
    let mut chain = vec![Addr::NULL];
    for _ in 0..pairs {
        let next = *chain.last().expect("it begins with null");
        // SAFETY: the caller's closure is open, and both words are written before the pair is published.
        let pair = unsafe { mutator.alloc(&PAIR) }.expect("memory");
        // SAFETY: the slot has two words.
        unsafe { pair.cast::<[usize; 2]>().write([next.get(), 0]) };
        // SAFETY: it is initialised.
        unsafe { mutator.publish(pair) };
        chain.push(Addr::of(pair.as_ptr()));
    }
    chain.split_off(1)
}

/// An object with two words, the first of which leads to `target`.
fn holder(mutator: &Mutator, ty: &'static TypeInfo, target: Addr) -> NonNull<u8> {
    // SAFETY: the caller's closure is open.
    let holder = unsafe { mutator.alloc(ty) }.expect("memory");
    // SAFETY: the slot has two words.
    unsafe { holder.cast::<[usize; 2]>().write([target.get(), 0]) };
    // SAFETY: it is initialised.
    unsafe { mutator.publish(holder) };
    holder
}

/// A million stores, in a thousand closures: second words change, and have pairs after the first time.
fn storm(mutator: &Mutator, pairs: &[Addr]) {
    for closure in 0..1000 {
        mutator.enter();
        for store in 0..1000 {
            let (n, len) = (closure * 1000 + store, pairs.len());
            let field = pairs[n % len] + Bytes::new(8);
            // SAFETY: the second word of a pair that lives.
            let field = unsafe { &*field.as_ptr::<AtomicUsize>() };
            // SAFETY: a field of a pair, and another pair, which both live.
            unsafe { mutator.swap(field, pairs[n / len % len]) };
        }
        mutator.leave();
    }
}

/// A heap without threads of its own, with two mutators, on which `run` runs a cycle on another thread.
fn world(run: impl FnOnce(&Arc<Collector>, [Mutator; 2])) {
    let collector = Collector::new(Os::native(), Options::default(), Hooks::none());
    let collector = Arc::new(collector.expect("memory"));
    let mutators = [(); 2].map(|()| {
        let record = collector.registry().attach().expect("it is new");
        Mutator::new(collector.clone(), record)
    });
    run(&collector, mutators);
    collector.crew.release(collector.central().os());
    collector.registry().close(collector.central());
    // SAFETY: no mutator is left, and nobody uses an object any more.
    unsafe { collector.central().release() };
}

/// What the grey queue and the page queue have of the system's memory.
fn queues(collector: &Collector) -> Bytes {
    collector.central().os().accounting().mapped(Category::MarkQueue)
}

fn wait_for(what: impl Fn() -> bool) {
    while !what() {
        std::thread::yield_now();
    }
}

/// Fault row 67: a million pointers are overwritten while the collector, in a trace function, takes nothing. They
/// lead to some thousands of objects, and the queue has one entry for each.
#[test]
fn fault_67_a_storm_while_marking_does_not_fill_the_queue() {
    const PAIRS: usize = 5000;
    world(|collector, mutators| {
        let [mutator, _] = &mutators;
        mutator.enter();
        let pairs = chain(mutator, PAIRS);
        let gate = holder(mutator, &GATE, *pairs.last().expect("many"));
        // SAFETY: an object of the open closure.
        let root = unsafe { mutator.root(gate) };
        mutator.leave();
        let (before, mut after) = (queues(collector), Bytes::ZERO);
        std::thread::scope(|scope| {
            scope.spawn(|| collector.cycle_alone());
            wait_for(|| IS_AT_THE_GATE.load(Ordering::Acquire));
            storm(mutator, &pairs);
            after = queues(collector);
            IS_OPEN.store(true, Ordering::Release);
        });
        // A million entries are 8 MB. These are 40 kB, and memory comes by 256 KiB.
        assert!(before + Bytes::new(512 << 10) >= after, "{before} have become {after}");
        let report = collector.last_cycle().report;
        assert_eq!(report.marked.objects, PAIRS as u64 + 1);
        assert!(!report.retained_everything);
        drop(root);
    });
}

/// The same while a closure that stays open keeps the collector from marking, over few objects. They lie side by side,
/// so each of them has a place of its own in the filter.
#[test]
fn fault_67_a_storm_while_arming_does_not_fill_the_queue() {
    const PAIRS: usize = 8;
    world(|collector, mutators| {
        let [mutator, open] = &mutators;
        mutator.enter();
        let pairs = chain(mutator, PAIRS);
        let first = holder(mutator, &PAIR, *pairs.last().expect("many"));
        // SAFETY: an object of the open closure.
        let root = unsafe { mutator.root(first) };
        mutator.leave();
        let before = queues(collector);
        let (mut after, mut is_arming) = (Bytes::ZERO, false);
        std::thread::scope(|scope| {
            open.enter();
            scope.spawn(|| collector.cycle_alone());
            wait_for(|| collector.word().phase() == Phase::ArmingA);
            storm(mutator, &pairs);
            after = queues(collector);
            is_arming = collector.word().phase() == Phase::ArmingA;
            open.leave();
        });
        assert!(is_arming, "marking has begun beside a closure that began before the cycle");
        assert!(before + Bytes::new(512 << 10) >= after, "{before} have become {after}");
        let report = collector.last_cycle().report;
        assert_eq!(report.marked.objects, PAIRS as u64 + 1);
        assert!(!report.retained_everything);
        drop(root);
    });
}

/// Whoever has left last, and waits for the collector to do what is decided then, goes on at once if nothing is: if
/// something was found in the round, and if it is refused at the very end, for what came in after the last look.
#[test]
fn a_round_that_is_not_clean_ends_the_gap_whenever_that_is_found() {
    world(|collector, _| {
        let (gap, central, grey) =
            (collector.control().gap(), collector.central(), &collector.grey);
        grey.begin(1, Bytes::new(1 << 20));
        grey.begin_marking();
        gap.begin();
        assert!(!collector.settle(true, true));
        assert!(!gap.is_open(), "something was found");
        gap.begin();
        grey.push(central.os(), central.memory(), 1, [Addr::new(64)].into_iter(), |_| true);
        assert!(!collector.settle(false, true));
        assert!(!gap.is_open(), "something has come in");
        grey.drain(|_| ());
        gap.begin();
        assert!(collector.settle(false, true));
        assert!(gap.is_open(), "the next closure is to begin when the cycle is over");
        gap.close();
    });
}
