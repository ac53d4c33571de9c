//! Whom a cycle waits for who is not inside a closure.
//!
//! # Safety
//! The test makes its objects in a closure of its own, and its heap is released when nobody uses it.
#![allow(unsafe_code)]

use super::*;
use crate::addr::Addr;
use crate::collect::Options;
use crate::heap::hooks::Hooks;
use crate::mutator::Mutator;
use crate::os::Os;
use crate::span::{Shape, Tracer, TypeInfo};

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
    collector.registry.release_outside(central, collector.word(), &collector.fence);
    central.catch_up();
    let go_on = central.begin_to_sweep_one().expect("the span of the root waits to be swept");

    std::thread::scope(|scope| {
        let cycle = scope.spawn(|| collector.cycle(&mut Helpers::default()));
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
