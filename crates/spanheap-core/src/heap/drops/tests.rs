//! The drop queue against sweeps that meet a span while its destructors run. Random lives of spans are in
//! the tests of `super::super::sweep`; here is what needs a certain order.
//!
//! # Safety
//! Objects are never written: the destructor only counts. Heaps are released when nobody uses them.
#![allow(unsafe_code)]

use super::*;
use crate::addr::Bytes;
use crate::heap::central::{Central, Config};
use crate::heap::class::{Class, ClassKey};
use crate::heap::sweep::sweep;
use crate::os::Os;
use crate::span::alone;
use crate::span::bits::Run;
use crate::span::size_class::SizeClass;
use crate::span::{Counting, Info, Layout};
use std::cell::RefCell;
use std::sync::mpsc;

thread_local! {
    static DROPPED: RefCell<Vec<Addr>> = const { RefCell::new(Vec::new()) };
}

unsafe fn note(object: *mut u8, _: usize) {
    assert!(alone::is_in_destructor(), "what the value frees now has waited for a cycle");
    DROPPED.with_borrow_mut(|dropped| dropped.push(Addr::of(object)));
}

fn central() -> (Central, &'static Class) {
    let central = Central::new(Os::native(), Config::default()).expect("memory");
    let key = ClassKey {
        size_class: SizeClass::for_size(Bytes::new(64)),
        layout: Layout::NoScan,
        counting: Counting::One,
        drop: Some(note),
        ty: None,
    };
    let class = central.class(&key, || "test").expect("memory");
    (central, class)
}

fn slots(info: &Info, from: usize, to: usize) -> Run {
    let at = |index| info.base + Bytes::new(index * info.slot);
    Run { start: at(from), end: at(to) }
}

/// A span with objects in its first `n` slots.
fn span_of(central: &Central, class: &'static Class, n: usize) -> OwnedSpan {
    let span = central.acquire_alone(class);
    bits::set_run(span.info(), span.span().generation().table(), slots(span.info(), 0, n));
    span
}

/// Sweeps for the next generation; objects in slots `from..to` are marked.
fn sweep_with(central: &Central, span: OwnedSpan, from: usize, to: usize) -> Swept {
    let next = span.span().generation().next();
    bits::set_run(span.info(), next.table(), slots(span.info(), from, to));
    sweep(
        span,
        central.drops(),
        super::super::sweep::How { generation: next, retain: false, poison: false },
        central.counters().shared(),
    )
}

fn release(central: Central) {
    // SAFETY: no object, span or class of the heap is used after this.
    unsafe { central.release() };
    assert_eq!(central.os().accounting().mapped_total(), Bytes::ZERO);
}

#[test]
fn a_span_that_came_back_before_its_batch_was_chosen_is_given_up_once() {
    let (central, class) = central();
    let drops = central.drops();
    let span = span_of(&central, class, 10);
    let Swept::Partial(span, _) = sweep_with(&central, span, 1, 10) else { panic!("nine live") };
    let info = *span.info();
    let first = drops.take_first(&mut drops.state.lock()).expect("one is dead");
    // Between taking the span and choosing the batch, the next cycle finds everything else dead.
    let Swept::Dropping = sweep_with(&central, span, 0, 0) else { panic!("nobody lives") };
    assert!(!drops.has_work(), "a span that is being worked on is not put in again");
    let Batch::Emptied(span) = drops.run_batch_in(first, central.counters().shared()) else {
        panic!("nobody else has it")
    };
    assert_eq!(DROPPED.take().len(), 10);
    assert_eq!(span.info().base, info.base);
    assert!(matches!(drops.run_batch(central.counters().shared()), Batch::Idle));
    assert_eq!(DROPPED.take(), []);
    central.pages().free_span(span);
    release(central);
}

#[test]
fn what_dies_while_destructors_run_is_dropped_by_the_next_batch() {
    let (central, class) = central();
    let drops = central.drops();
    let span = span_of(&central, class, 128);
    let info = *span.info();
    // 100 dead: a full batch and a second one.
    let Swept::Full(span) = sweep_with(&central, span, 100, 128) else { panic!("dead, not free") };
    assert!(matches!(drops.run_batch(central.counters().shared()), Batch::Done));
    assert_eq!(bits::count(&info, Table::Drops), 36);
    // The free slots are taken again, below objects that still wait.
    let run = bits::next_free_run(&info, span.span().generation(), info.base).expect("64 free");
    assert_eq!(run, slots(&info, 0, 64));
    bits::set_run(&info, span.span().generation().table(), slots(&info, 0, 5));
    let Swept::Partial(span, _) = sweep_with(&central, span, 0, 5) else { panic!("five live") };
    assert_eq!(bits::count(&info, Table::Drops), 36 + 28);
    let mut seen = DROPPED.take();
    while !matches!(drops.run_batch(central.counters().shared()), Batch::Idle) {}
    seen.extend(DROPPED.take());
    let expected: Vec<_> = (0..128).map(|i| slots(&info, i, i).start).collect();
    assert_eq!(seen, expected);
    assert_eq!(bits::count(&info, span.span().generation().table()), 5);
    let Swept::Dropping = sweep_with(&central, span, 0, 0) else { panic!("the five died") };
    let Batch::Emptied(span) = drops.run_batch(central.counters().shared()) else {
        panic!("nobody is left")
    };
    assert_eq!(DROPPED.take(), expected[..5]);
    let state = drops.state();
    assert_eq!((state.dropped, state.panics, state.running), (133, 0, None));
    central.pages().free_span(span);
    release(central);
}

#[test]
fn spans_are_taken_one_after_the_other_and_none_is_forgotten() {
    let (central, class) = central();
    let drops = central.drops();
    let mut waiting: Vec<Addr> = Vec::new();
    for n in 0..50 {
        let span = span_of(&central, class, 1 + n % 3);
        waiting.push(span.info().base);
        assert!(matches!(sweep_with(&central, span, 0, 0), Swept::Dropping));
    }
    while let Batch::Emptied(span) = drops.run_batch(central.counters().shared()) {
        let at = waiting.iter().position(|&base| base == span.info().base);
        waiting.swap_remove(at.expect("each span is emptied once"));
        central.pages().free_span(span);
    }
    assert!(waiting.is_empty() && !drops.has_work());
    assert_eq!(DROPPED.take().len(), (0..50).map(|n| 1 + n % 3).sum::<usize>());
    release(central);
}

#[test]
fn a_thread_that_waits_finds_what_arrives_and_ends_when_the_queue_is_closed() {
    let (central, class) = central();
    let (tell, told) = mpsc::channel();
    std::thread::scope(|scope| {
        let central = &central;
        scope.spawn(move || {
            while let Some(batch) = central.drops().wait_and_run_batch(central.counters().shared())
            {
                central.finish_drops(batch);
                tell.send(DROPPED.take().len()).expect("the test listens");
            }
        });
        for n in [1, 7, 64] {
            let span = span_of(central, class, n);
            assert!(matches!(sweep_with(central, span, 0, 0), Swept::Dropping));
            assert_eq!(told.recv(), Ok(n));
        }
        let span = span_of(central, class, 65);
        assert!(matches!(sweep_with(central, span, 0, 0), Swept::Dropping));
        // What is owed is done before the thread ends.
        central.drops().close();
    });
    assert_eq!(told.iter().sum::<usize>(), 65);
    assert_eq!(central.pages().in_use(), Bytes::ZERO);
    release(central);
}

/// While the heap is verified nobody may enter it, and the queue has to stand still. A cleanup that enters waits
/// for the verification; so the verification must not wait for a cleanup.
#[test]
fn the_queue_stands_still_while_a_cleanup_runs() {
    let (central, class) = central();
    let central = std::sync::Arc::new(central);
    let (tell, told) = mpsc::channel();
    let theirs = central.clone();
    let task = Task::new(move || {
        let (at_last, stands_still) = mpsc::channel();
        let looks = std::thread::spawn(move || {
            theirs.drops().while_still(|_| ());
            _ = at_last.send(());
        });
        let was_in_time = stands_still.recv_timeout(Duration::from_secs(5)).is_ok();
        tell.send((was_in_time, looks)).expect("the test listens");
    });
    let span = span_of(&central, class, 1);
    let found = central.find_object(span.info().base);
    let (os, memory, specials) = (central.os(), central.memory(), central.drops().specials());
    // SAFETY: the object is the test's, and nobody sweeps it before the next line.
    let made = unsafe { specials.add(os, memory, found, Kind::Cleanup, task.into_payload()) };
    assert_eq!(made, Ok(1));
    assert!(matches!(sweep_with(&central, span, 0, 0), Swept::Dropping));
    let writer = central.counters().shared();
    // The value, and its cleanup: what the batch leaves behind is an empty span.
    let batch = central.drops().wait_and_run_batch(writer).expect("something is owed");
    assert!(matches!(batch, Batch::Emptied(_)));
    central.finish_drops(batch);
    assert!(matches!(central.drops().run_batch(writer), Batch::Idle));
    let (was_in_time, looks) = told.recv().expect("the cleanup has run");
    looks.join().expect("it only looks");
    assert!(was_in_time, "the queue did not stand still before the cleanup was over");
    assert_eq!((DROPPED.take().len(), central.drops().cleanups()), (1, 1));
    release(std::sync::Arc::into_inner(central).expect("nobody else has it"));
}
