//! Burying between cycles: by the collector's thread, and by those who free.
//!
//! # Safety
//! As the tests beside.
#![allow(unsafe_code)]

use super::*;
use crate::addr::Bytes;
use crate::collect::undertaker::{MOST_AT_ONCE, MOST_CHUNKS, PATIENCE};
use crate::heap::user_arena::{Load, PLENTY};
use crate::span::alone::{Alone, Busy};
use crate::span::lookup;
use std::sync::mpsc;
use std::time::Duration;

impl Stage {
    /// Gives an arena so many bytes more.
    fn enlarge(&self, arena: &UserArena, bytes: Bytes) {
        self.mutator.enter();
        // SAFETY: the closure is open as long as the writer is there.
        let mut writer = unsafe { self.mutator.arena_writer(arena) }.expect("of this heap");
        let layout = Layout::from_size_align(bytes.get(), 1).expect("it is small enough");
        // SAFETY: as above.
        unsafe { writer.alloc_leaf(layout) }.expect("memory");
        drop(writer);
        self.mutator.leave();
    }

    /// Whether the collector's thread was told of something since this was asked last.
    fn has_rung(&self) -> bool {
        self.collector.central().alarm().sleep(Some(Duration::ZERO))
    }

    fn state(&self) -> ArenaState {
        self.look().0.expect("the value's address is an arena's")
    }

    /// What the collector's thread does before it sleeps. Nothing has asked for it before.
    fn look_after(&self) -> Option<Duration> {
        let pause = self.collector.undertaker.lock().work(&self.collector);
        self.has_rung();
        pause
    }
}

/// Between cycles a grace period is begun for what was freed, and nobody sleeps for its end.
#[test]
fn what_was_freed_is_guarded_after_a_grace_period_of_its_own() {
    let sim = SimOs::builder().build();
    let stage = Stage::new(&sim);
    let reader = Stage::attach(&stage.collector);
    assert_eq!(stage.look_after(), None, "there is nothing to do");
    reader.enter();
    stage.arena.free().expect("once");
    while stage.look_after() != Some(Duration::ZERO) {
        std::thread::yield_now();
    }
    assert_eq!(stage.look_after(), Some(PATIENCE), "the reader is inside");
    assert_eq!(stage.look(), (Some(ArenaState::Freed), true));
    assert_eq!(node(stage.value).number, 2, "the memory is there");
    reader.leave();
    // Whoever comes now is not waited for.
    reader.enter();
    assert!(stage.look_after().is_some(), "what is usual is to be forgotten");
    assert_eq!(stage.look(), (Some(ArenaState::Quarantined), true));
    stage.collector.central().arenas().forget_usual();
    assert_eq!(stage.look_after(), None);
    reader.leave();
    drop(reader);
    stage.end(&sim);
}

#[test]
fn who_frees_a_large_arena_buries_it_if_nobody_is_inside() {
    let sim = SimOs::builder().build();
    let stage = Stage::new(&sim);
    stage.enlarge(&stage.arena, PLENTY);
    stage.has_rung();
    let stalls = || stage.collector.central().stalls().counts().total();
    let before = stalls();
    stage.arena.free().expect("once");
    assert_eq!(stalls(), before + 1, "it is a stall");
    assert_eq!(stage.state(), ArenaState::Quarantined);
    assert!(stage.has_rung(), "somebody has to look after what is kept");
    assert!(stage.look_after().is_some());

    let other = stage.mutator.new_arena(ArenaOptions::default());
    stage.enlarge(&other, PLENTY);
    stage.has_rung();
    other.free().expect("once");
    assert!(!stage.has_rung(), "the collector's thread looks by itself");
    assert_eq!(stage.collector.central().arenas().waiting().bytes, Bytes::ZERO);
    drop(other);
    stage.end(&sim);
}

/// Calls `look` while another thread has what it has got from `hold`.
fn meanwhile<T>(hold: impl FnOnce() -> T + Send, look: impl FnOnce()) {
    let (held, is_held) = mpsc::channel();
    let (over, is_over) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let kept = hold();
            held.send(()).expect("it is waited for");
            // An error: the sender is gone, which is what is waited for.
            let _ = is_over.recv();
            drop(kept);
        });
        is_held.recv().expect("the other thread is there");
        look();
        drop(over);
    });
}

/// A closure that is open as long as this lives.
struct Closure(Mutator);

impl Closure {
    fn open(collector: &Arc<Collector>) -> Closure {
        let mutator = Stage::attach(collector);
        mutator.enter();
        Closure(mutator)
    }
}

impl Drop for Closure {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// A closure that may have the values keeps them.
#[test]
fn fault_49_who_frees_a_large_arena_leaves_it_to_the_collector_if_somebody_is_inside() {
    let sim = SimOs::builder().build();
    let stage = Stage::new(&sim);
    stage.enlarge(&stage.arena, PLENTY);
    stage.look_after();
    let collector = &stage.collector;
    meanwhile(
        || Closure::open(collector),
        || {
            stage.arena.free().expect("once");
            assert!(stage.has_rung());
            assert_eq!(stage.state(), ArenaState::Freed);
            assert_eq!(node(stage.value).number, 2, "the memory is there");
            while stage.look_after() != Some(PATIENCE) {
                assert_eq!(stage.state(), ArenaState::Freed);
            }
        },
    );
    assert!(stage.look_after().is_some());
    assert_eq!(stage.state(), ArenaState::Quarantined);
    stage.end(&sim);
}

#[test]
fn who_frees_a_large_arena_in_a_closure_buries_it_when_the_last_one_is_left() {
    let sim = SimOs::builder().build();
    let stage = Stage::new(&sim);
    stage.enlarge(&stage.arena, PLENTY);
    stage.look_after();
    stage.mutator.enter();
    stage.mutator.enter();
    stage.arena.free().expect("once");
    assert!(!stage.has_rung());
    stage.mutator.leave();
    assert_eq!(node(stage.value).number, 2, "the memory is there");
    assert_eq!(stage.state(), ArenaState::Freed);
    stage.mutator.leave();
    assert!(!stage.collector.control().is_awaiting_leave(), "it is asked for once");
    assert_eq!(stage.state(), ArenaState::Quarantined);
    stage.end(&sim);
}

/// Somebody has entered meanwhile.
#[test]
fn what_cannot_be_buried_when_a_closure_is_left_is_the_collectors() {
    let sim = SimOs::builder().build();
    let stage = Stage::new(&sim);
    let reader = Stage::attach(&stage.collector);
    stage.enlarge(&stage.arena, PLENTY);
    stage.look_after();
    stage.mutator.enter();
    stage.arena.free().expect("once");
    reader.enter();
    stage.mutator.leave();
    assert!(stage.has_rung());
    assert_eq!(stage.state(), ArenaState::Freed);
    reader.leave();
    drop(reader);
    while stage.state() != ArenaState::Quarantined {
        stage.look_after();
    }
    stage.end(&sim);
}

#[test]
fn who_frees_buries_nothing_while_the_collector_is_awake_or_in_a_destructor_or_too_much() {
    let sim = SimOs::builder().build();
    let attempt = |bytes: Bytes, is_awake: bool, busy: Busy| {
        let stage = Stage::new(&sim);
        stage.enlarge(&stage.arena, bytes);
        stage.look_after();
        let collector = &stage.collector;
        meanwhile(
            || is_awake.then(|| collector.undertaker.lock()),
            || {
                let _busy = Alone::begin(busy);
                stage.arena.free().expect("once");
            },
        );
        let result = (stage.state(), stage.has_rung());
        while stage.state() != ArenaState::Quarantined {
            stage.look_after();
        }
        stage.end(&sim);
        result
    };
    let told = (ArenaState::Freed, true);
    assert_eq!(attempt(PLENTY, true, Busy::No), told);
    assert_eq!(attempt(PLENTY, false, Busy::Destructor), told);
    assert_eq!(attempt(MOST_AT_ONCE, false, Busy::No), told, "with the chunk of the value");
    assert_eq!(attempt(Bytes::new(PLENTY.get() / 8), false, Busy::No), told, "it is gathered");
    assert_eq!(attempt(PLENTY, false, Busy::No).0, ArenaState::Quarantined);
}

/// Where arenas come and go quickly, the collector's thread is not woken for each batch of them.
#[test]
fn while_the_collector_is_about_to_look_it_is_not_told_of_little() {
    let sim = SimOs::builder().build();
    let stage = Stage::new(&sim);
    stage.look_after();
    let small = || {
        let arena = stage.mutator.new_arena(ArenaOptions::default());
        stage.enlarge(&arena, Bytes::new(1));
        arena.free().expect("once");
    };
    small();
    assert!(stage.has_rung(), "the first one");
    assert!(stage.look_after().is_some());
    stage.enlarge(&stage.arena, PLENTY);
    stage.arena.free().expect("once");
    assert_eq!(stage.state(), ArenaState::Quarantined);
    stage.has_rung();
    let arenas = stage.collector.central().arenas();
    assert_eq!(arenas.waiting().bytes, Bytes::ZERO, "both went");
    small();
    assert!(arenas.is_watched() && !stage.has_rung());
    assert_ne!(arenas.waiting().bytes, Bytes::ZERO);
    while arenas.waiting() + arenas.pending() != Load::NONE {
        assert!(stage.look_after().is_some());
    }
    assert!(!arenas.is_watched());
    small();
    assert!(stage.has_rung());
    stage.end(&sim);
}

/// Each chunk may take a call to the system.
#[test]
fn who_frees_buries_no_crowd_of_chunks() {
    let sim = SimOs::builder().build();
    for (crowd, state) in
        [(MOST_CHUNKS - 10, ArenaState::Quarantined), (MOST_CHUNKS - 1, ArenaState::Freed)]
    {
        let stage = Stage::new(&sim);
        let arenas = stage.collector.central().arenas();
        for _ in 0..crowd {
            let arena = stage.mutator.new_arena(ArenaOptions::default());
            stage.enlarge(&arena, Bytes::new(1));
            arena.free().expect("once");
        }
        assert_eq!(arenas.waiting().chunks, crowd, "together they are not plenty");
        stage.enlarge(&stage.arena, PLENTY);
        stage.arena.free().expect("once");
        assert_eq!(stage.state(), state);
        while stage.state() != ArenaState::Quarantined {
            stage.look_after();
        }
        stage.end(&sim);
    }
}

/// What the collector's thread has taken, and waits for a closure with, may be any amount.
#[test]
fn who_frees_does_not_bury_more_than_he_should_with_what_is_pending() {
    let sim = SimOs::builder().build();
    let stage = Stage::new(&sim);
    let reader = Stage::attach(&stage.collector);
    // Not only the value's arena is more than anybody but the collector should bury.
    stage.enlarge(&stage.arena, MOST_AT_ONCE + MOST_AT_ONCE);
    let other = stage.mutator.new_arena(ArenaOptions::default());
    stage.enlarge(&other, PLENTY);
    stage.look_after();
    reader.enter();
    stage.arena.free().expect("once");
    while stage.look_after() != Some(PATIENCE) {
        assert_eq!(stage.state(), ArenaState::Freed);
    }
    reader.leave();
    // The collector's thread has been told, and is not awake yet.
    other.free().expect("once");
    assert_eq!(stage.state(), ArenaState::Freed, "this is for the collector's thread");
    assert!(stage.has_rung());
    while stage.state() != ArenaState::Quarantined {
        stage.look_after();
    }
    drop((reader, other));
    stage.end(&sim);
}

/// The collector's thread has begun a grace period, and sleeps until somebody leaves: it need not be woken for little.
#[test]
fn who_leaves_last_buries_what_is_pending() {
    let sim = SimOs::builder().build();
    let stage = Stage::new(&sim);
    let readers = [(); 2].map(|()| Stage::attach(&stage.collector));
    stage.look_after();
    readers.iter().for_each(Mutator::enter);
    stage.arena.free().expect("once");
    while stage.look_after() != Some(PATIENCE) {
        assert_eq!(stage.state(), ArenaState::Freed);
    }
    let control = stage.collector.control();
    control.set_awaiting_leave(true);
    readers[0].leave();
    assert!(
        stage.has_rung(),
        "it is for the collector's thread to see that somebody else is inside"
    );
    assert_eq!(stage.state(), ArenaState::Freed);
    assert_eq!(node(stage.value).number, 2, "the memory is there");
    control.set_awaiting_leave(true);
    stage.has_rung();
    readers[1].leave();
    assert!(!control.is_awaiting_leave(), "there is nothing to be told of");
    assert_eq!(stage.state(), ArenaState::Quarantined);
    drop(readers);
    stage.end(&sim);
}

/// A mistake of a trace function, which it may make ([`Tracer::edge`]): an address in a quarantined chunk at which no
/// value can have begun. Bits there would not be cleared with those of values.
#[test]
fn where_no_value_can_have_begun_in_a_quarantined_chunk_is_none() {
    let sim = SimOs::builder().build();
    let stage = Stage::new(&sim);
    stage.enlarge(&stage.arena, Bytes::new(100));
    let chunk = stage.arena.chunks()[0];
    let heap = stage.collector.central().number();
    let value = Addr::of(stage.value.as_ptr());
    let (leaf, middle) = (chunk.end() - Bytes::new(50), chunk.base() + Bytes::new(4096 + 8));
    let is_start = |addr| lookup::value_start(heap, addr);
    assert!(is_start(value) && is_start(leaf) && !is_start(middle));
    stage.look_after();
    stage.enlarge(&stage.arena, PLENTY);
    stage.arena.free().expect("once");
    assert_eq!(stage.state(), ArenaState::Quarantined);
    // A value may have begun in the midst of this one, as far as can be seen now.
    assert!(is_start(value) && is_start(leaf) && is_start(value + Bytes::new(16)));
    for addr in [value + Bytes::new(1), value + Bytes::new(8), middle, chunk.end()] {
        assert!(!is_start(addr), "{addr}");
    }
    stage.end(&sim);
}
