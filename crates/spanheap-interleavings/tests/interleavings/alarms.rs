//! Who wakes the collector: mutators that find the trigger reached, while it moves the trigger and goes to sleep.
//!
//! The file is the core's: the weight of a heap, the trigger, and whether the alarm was rung for it. What is weighed
//! is only accounted for outside. The loop of the collector's thread, which looks, rearms and sleeps, is written down
//! here again.

use crate::addr::Bytes;
use crate::checker::explore;
use crate::mutant;
use loom::sync::Arc;
use loom::thread;

/// The shared part of a heap as far as it is weighed, with the given version of the file.
macro_rules! world {
    ($weight:ident) => {
        #[allow(unused, clippy::all)]
        mod $weight {
            use crate::addr::Bytes;
            use crate::heap::outside::Outside;
            use crate::sync::Alarm;
            use crate::sync::atomic::{AtomicBool, AtomicUsize};

            pub(crate) struct Central {
                outside: Outside,
                trigger: AtomicUsize,
                unlimited_trigger: AtomicUsize,
                triggered: AtomicBool,
                pub(crate) alarm: Alarm,
            }

            impl Central {
                pub(crate) fn new(trigger: usize) -> Central {
                    Central {
                        outside: Outside::new(),
                        trigger: AtomicUsize::new(trigger),
                        unlimited_trigger: AtomicUsize::new(trigger),
                        triggered: AtomicBool::new(false),
                        alarm: Alarm::new(),
                    }
                }

                pub(crate) fn live(&self) -> Bytes {
                    Bytes::ZERO
                }

                pub(crate) fn retained(&self) -> Bytes {
                    Bytes::ZERO
                }

                /// There are no arenas.
                fn expected(&self) -> Bytes {
                    Bytes::ZERO
                }

                fn is_here(&self) -> bool {
                    true
                }

                /// The collector between two cycles, until one is due.
                pub(crate) fn sleep_until_due(&self) {
                    while !self.is_triggered() && !self.rearm() {
                        self.alarm.sleep(None);
                    }
                }
            }

            mod text {
                include!(concat!(env!("OUT_DIR"), "/", stringify!($weight), ".rs"));
            }
        }
    };
}

world!(weight);
world!(weight_never_rearmed);
world!(weight_rearmed_relaxed);
world!(weight_rearmed_by_store);
world!(weight_rearmed_late);
world!(weight_rung_relaxed);
world!(weight_rung_early);
world!(weight_moved_silently);

/// Mutators take `$takes` bytes each, one by one, and reach the first trigger; meanwhile a cycle has ended, and the
/// collector moves it to where all of them together come. It must not sleep on.
macro_rules! wakes_at_the_next_trigger {
    ($weight:ident, $mutators:expr, $takes:expr, $preemptions:expr) => {
        explore($preemptions, || {
            let central = Arc::new($weight::Central::new(1));
            let mutators: Vec<_> = (0..$mutators)
                .map(|_| {
                    let central = central.clone();
                    thread::spawn(move || {
                        for _ in 0..$takes {
                            central.grow_outside(Bytes::new(1));
                        }
                    })
                })
                .collect();
            let next = Bytes::new($mutators * $takes);
            central.move_trigger(next, next);
            central.sleep_until_due();
            assert_eq!(central.weight(), next, "it has slept until the trigger was reached");
            mutators.into_iter().for_each(|mutator| mutator.join().expect("it ends"));
        })
    };
}

/// Somebody moves the trigger of a collector that sleeps to what is there.
macro_rules! wakes_at_a_trigger_that_falls {
    ($weight:ident) => {
        explore(8, || {
            let central = Arc::new($weight::Central::new(2));
            central.grow_outside(Bytes::new(1));
            let mover = {
                let central = central.clone();
                thread::spawn(move || central.move_trigger(Bytes::new(1), Bytes::new(2)))
            };
            central.sleep_until_due();
            mover.join().expect("it ends");
        })
    };
}

#[test]
fn a_ring_for_the_last_trigger_does_not_silence_the_next_one() {
    wakes_at_the_next_trigger!(weight, 1, 2, 8);
}

#[test]
fn of_two_mutators_one_rings() {
    wakes_at_the_next_trigger!(weight, 2, 1, 3);
}

#[test]
fn a_trigger_that_falls_wakes_the_collector() {
    wakes_at_a_trigger_that_falls!(weight);
}

mutant!(
    /// The collector slept while memory grew without bound.
    a_collector_that_does_not_rearm_is_found,
    "deadlock",
    wakes_at_the_next_trigger!(weight_never_rearmed, 1, 2, 8)
);

mutant!(
    a_relaxed_rearming_is_found,
    "deadlock",
    wakes_at_the_next_trigger!(weight_rearmed_relaxed, 1, 2, 8)
);

mutant!(
    /// A store reads nothing: a fence behind it does not make visible what the mutator took, who has none.
    a_rearming_that_does_not_swap_is_found,
    "deadlock",
    wakes_at_the_next_trigger!(weight_rearmed_by_store, 1, 2, 8)
);

mutant!(
    a_look_before_rearming_is_found,
    "deadlock",
    wakes_at_the_next_trigger!(weight_rearmed_late, 1, 2, 8)
);

mutant!(
    a_relaxed_ring_is_found,
    "deadlock",
    wakes_at_the_next_trigger!(weight_rung_relaxed, 1, 2, 8)
);

mutant!(
    a_ring_before_taking_is_found,
    "deadlock",
    wakes_at_the_next_trigger!(weight_rung_early, 1, 2, 8)
);

mutant!(
    a_trigger_that_falls_silently_is_found,
    "deadlock",
    wakes_at_a_trigger_that_falls!(weight_moved_silently)
);
