//! Grace periods: the state counter of a mutator, the phase word, and the process barrier between the two.
//!
//! The registry and the phase word are the core's files. What the core's `Mutator` and `Collector` do around them,
//! a few lines each, is written down here again: entering, leaving, publishing, waiting.

use crate::checker::{ProcessBarrier, Watched, explore};
use crate::collect::control::Control;
use crate::collect::phase::{Phase, PhaseWord};
use crate::mutant;
use crate::sync::Alarm;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::thread;

const NEXT: PhaseWord = PhaseWord::new(Phase::ArmingA, 1);

/// What the threads of a program share.
pub(crate) struct Shared<R> {
    pub(crate) registry: R,
    pub(crate) fence: ProcessBarrier,
    word: AtomicU64,
    /// What only closures of the first phase use, and the collector when they are over.
    old: Watched,
}

impl<R> Shared<R> {
    pub(crate) fn new(registry: R, fence: ProcessBarrier) -> Shared<R> {
        let word = AtomicU64::new(PhaseWord::FIRST.bits());
        Shared { registry, fence, word, old: Watched::new() }
    }

    pub(crate) fn word(&self) -> PhaseWord {
        PhaseWord::from_bits(self.word.load(Ordering::Acquire))
    }

    pub(crate) fn publish(&self, word: PhaseWord) {
        self.word.store(word.bits(), Ordering::Release);
    }
}

/// A mutator runs closures one after the other, and those of the first phase do what nobody else may do
/// meanwhile. After the grace period the collector does it.
macro_rules! waits_for_old_closures {
    ($registry:ident, $fence:expr, $closures:expr) => {
        explore(8, || {
            let registry = crate::collect::$registry::Registry::new();
            let record = registry.attach().expect("it is open");
            let shared = Arc::new(Shared::new(registry, $fence));
            let mutator = {
                let shared = shared.clone();
                thread::spawn(move || {
                    for _ in 0..$closures {
                        record.publish_inside();
                        shared.fence.light();
                        if shared.word() == PhaseWord::FIRST {
                            shared.old.touch();
                        }
                        record.publish_outside();
                    }
                })
            };
            shared.publish(NEXT);
            shared.registry.begin_grace(&shared.fence);
            while !shared.registry.is_grace_over() {
                thread::yield_now();
            }
            shared.old.touch();
            mutator.join().expect("it ends");
        })
    };
}

/// The collector sleeps until somebody has left, without a limit: a ring that it misses is a deadlock.
macro_rules! is_rung {
    ($awaits:expr) => {
        explore(8, || {
            let registry = crate::collect::registry::Registry::new();
            let record = registry.attach().expect("it is open");
            let shared = Arc::new(Shared::new(registry, ProcessBarrier::WHOLE));
            let bell = Arc::new((Control::new(), Alarm::new()));
            record.publish_inside();
            let mutator = {
                let (shared, bell) = (shared.clone(), bell.clone());
                thread::spawn(move || {
                    record.publish_outside();
                    shared.fence.light();
                    if bell.0.is_awaiting_leave() {
                        bell.1.ring();
                    }
                })
            };
            shared.registry.begin_grace(&shared.fence);
            while !shared.registry.is_grace_over() {
                let awaits: fn(&Control, ProcessBarrier) = $awaits;
                awaits(&bell.0, shared.fence);
                if !shared.registry.is_grace_over() {
                    bell.1.sleep(None);
                }
                bell.0.set_awaiting_leave(false);
            }
            mutator.join().expect("it ends");
        })
    };
}

#[test]
fn a_grace_period_waits_for_old_closures() {
    waits_for_old_closures!(registry, ProcessBarrier::WHOLE, 4);
}

mutant!(
    entering_without_the_light_barrier_is_found,
    "Causality violation",
    waits_for_old_closures!(registry, ProcessBarrier::HALF, 1)
);

mutant!(
    a_grace_period_without_the_heavy_barrier_is_found,
    "Causality violation",
    waits_for_old_closures!(registry_no_fence, ProcessBarrier::WHOLE, 1)
);

mutant!(
    a_relaxed_exit_is_found,
    "Causality violation",
    waits_for_old_closures!(registry_leave_relaxed, ProcessBarrier::WHOLE, 1)
);

mutant!(
    a_relaxed_look_at_who_has_left_is_found,
    "Causality violation",
    waits_for_old_closures!(registry_look_relaxed, ProcessBarrier::WHOLE, 1)
);

mutant!(
    a_relaxed_note_of_who_is_inside_is_found,
    "Causality violation",
    waits_for_old_closures!(registry_note_relaxed, ProcessBarrier::WHOLE, 1)
);

mutant!(
    /// The collector may see the counter of the second entry, and never that of the exit before it.
    a_relaxed_entry_is_found,
    "Causality violation",
    waits_for_old_closures!(registry_enter_relaxed, ProcessBarrier::WHOLE, 2)
);

#[test]
fn whoever_leaves_rings_if_he_is_awaited() {
    is_rung!(|control, fence| {
        control.set_awaiting_leave(true);
        fence.heavy();
    });
}

mutant!(
    waiting_to_be_rung_without_the_heavy_barrier_is_found,
    "deadlock",
    is_rung!(|control, _| control.set_awaiting_leave(true))
);
