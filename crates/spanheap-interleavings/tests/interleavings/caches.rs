//! Who may use a mutator's span caches (K1 and K2 in the registry): the owner in its closures; the collector when
//! it has seen the owner outside after a publication, or after a grace period.

use crate::checker::{Central, ProcessBarrier, explore};
use crate::collect::phase::{Phase, PhaseWord};
use crate::handshake::Shared;
use crate::mutant;
use loom::sync::Arc;
use loom::thread;

/// The generation after the one under which the caches have been filled.
const NEXT: PhaseWord = PhaseWord::new(Phase::Idle, 1);

/// A mutator whose caches are filled runs closures, while the generation moves on and the collector takes
/// what is stale.
macro_rules! uses_caches_one_at_a_time {
    ($registry:ident, $fence:expr) => {
        explore(8, || {
            let registry = crate::collect::$registry::Registry::new();
            let record = registry.attach().expect("it is open");
            record.change_phase(&Central, PhaseWord::FIRST);
            record.caches().alloc();
            let shared = Arc::new(Shared::new(registry, $fence));
            let mutator = {
                let shared = shared.clone();
                thread::spawn(move || {
                    for _ in 0..3 {
                        record.publish_inside();
                        shared.fence.light();
                        let word = shared.word();
                        if record.word() != word {
                            record.change_phase(&Central, word);
                        }
                        record.caches().alloc();
                        record.publish_outside();
                    }
                })
            };
            shared.publish(NEXT);
            shared.registry.note_states();
            shared.registry.release_outside(&Central, NEXT, &shared.fence);
            shared.registry.begin_grace(&shared.fence);
            while !shared.registry.is_grace_over() {
                thread::yield_now();
            }
            shared.registry.release_stale(&Central, NEXT);
            mutator.join().expect("it ends");
        })
    };
}

#[test]
fn caches_are_used_by_one_thread_at_a_time() {
    uses_caches_one_at_a_time!(registry, ProcessBarrier::WHOLE);
}

mutant!(
    taking_caches_of_somebody_inside_is_found,
    "Causality violation",
    uses_caches_one_at_a_time!(registry_inside_ignored, ProcessBarrier::WHOLE)
);

mutant!(
    a_relaxed_look_at_who_is_outside_is_found,
    "Causality violation",
    uses_caches_one_at_a_time!(registry_inside_relaxed, ProcessBarrier::WHOLE)
);

mutant!(
    taking_caches_without_their_lock_is_found,
    "Causality violation",
    uses_caches_one_at_a_time!(registry_caches_unlocked, ProcessBarrier::WHOLE)
);

mutant!(
    taking_caches_without_the_light_barrier_is_found,
    "Causality violation",
    uses_caches_one_at_a_time!(registry, ProcessBarrier::HALF)
);

mutant!(
    taking_caches_without_the_heavy_barrier_is_found,
    "Causality violation",
    uses_caches_one_at_a_time!(registry_no_fence, ProcessBarrier::WHOLE)
);
