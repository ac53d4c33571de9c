//! Part of the fifth model: its tests.
//!
//! Instances are `(objects, values, mutators, held)`. Those with two arenas have one value in each.
//!
//! # Locking
//! None: plain values, one thread.

use super::{Arenas, Complete, Fault, Variant};
use crate::explore::{Reduction, explore};
use crate::{exhaust, long, refute};

/// An instance, as the names of explorations show it.
type Instance = (u8, u8, u8, u32);

/// The protocol as decided, with all that may happen in it.
fn whole((objects, values, mutators, held): Instance, arenas: u8) -> Arenas {
    let decided = Arenas::decided(objects, values, mutators, held);
    Arenas { arenas, breaks: true, abandons: true, ..decided }
}

/// A variant, of which it is asked for nothing but what may be lost.
fn variant(variant: Variant, (objects, values, mutators, held): Instance) -> Arenas {
    let decided = Arenas::decided(objects, values, mutators, held);
    Arenas { variant, complete: Complete::Unasked, ..decided }
}

/// Asserts that a broken model goes wrong as expected.
fn assert_fails(model: &Arenas, expected: Fault) {
    assert_eq!(refute(&format!("{:?}", model.variant), model).fault, expected);
}

#[test]
fn arenas_that_are_freed_at_any_moment_lose_nothing_and_tear_nothing_away() {
    let instances =
        [((1, 1, 1, 2), 1, 302_351), ((0, 2, 1, 2), 2, 4_188_083), ((1, 1, 2, 1), 1, 5_540_672)];
    for (instance, arenas, states) in instances {
        let name = format!("arenas {instance:?}, {arenas}");
        assert_eq!(exhaust(&name, &whole(instance, arenas)), states);
    }
    // The instance that has all mistakes, without what only makes it larger.
    assert_eq!(exhaust("arenas (1, 1, 2, 2)", &Arenas::decided(1, 1, 2, 2)), 14_387_245);
    if long() {
        assert_eq!(exhaust("arenas (1, 1, 2, 2), 1", &whole((1, 1, 2, 2), 1)), 30_306_069);
        assert_eq!(exhaust("arenas (2, 1, 1, 2), 1", &whole((2, 1, 1, 2), 1)), 22_822_522);
        assert_eq!(exhaust("arenas (1, 2, 1, 2), 1", &whole((1, 2, 1, 2), 1)), 36_910_004);
        let model = Arenas { arenas: 2, ..Arenas::decided(1, 2, 1, 2) };
        assert_eq!(exhaust("arenas (1, 2, 1, 2), 2", &model), 75_248_725);
    }
}

/// So the number of rounds has a bound that does not grow with what the program allocates meanwhile.
#[test]
fn no_round_is_dirtied_by_a_value_that_is_younger_than_the_snapshot() {
    for instance in [(1, 1, 1, 2), (1, 1, 2, 1)] {
        let (objects, values, mutators, held) = instance;
        let decided = Arenas::decided(objects, values, mutators, held);
        exhaust("rounds", &Arenas { progress: true, ..decided });
    }
}

#[test]
fn white_values_in_phase_3_lose_nothing() {
    for instance in [(1, 1, 1, 2), (1, 1, 2, 1)] {
        exhaust("white in phase 3", &variant(Variant::White, instance));
    }
    if long() {
        let model = variant(Variant::White, (1, 1, 2, 2));
        exhaust("white in phase 3", &Arenas { breaks: true, abandons: true, ..model });
    }
}

/// The closure of phase 3 overwrites its own new value. The next one may do the same in the next round.
#[test]
fn white_values_in_phase_3_keep_marking_from_ending() {
    let model = variant(Variant::White, (1, 1, 1, 1));
    assert_fails(&Arenas { progress: true, ..model }, Fault::Endless);
}

#[test]
fn white_values_in_phase_3_are_reachable_and_unmarked() {
    let model = variant(Variant::White, (1, 1, 1, 1));
    assert_fails(&Arenas { complete: Complete::All, ..model }, Fault::Unmarked);
}

#[test]
fn white_values_in_phase_2_may_be_reachable_and_unmarked() {
    let decided = Arenas::decided(1, 1, 1, 1);
    assert_fails(&Arenas { complete: Complete::All, ..decided }, Fault::Unmarked);
}

#[test]
fn grey_values_in_phase_2_are_marked_if_they_are_reachable() {
    for instance in [(1, 1, 1, 2), (1, 1, 2, 1)] {
        let model = variant(Variant::GreyInArmingB, instance);
        exhaust("grey in phase 2", &Arenas { complete: Complete::All, ..model });
    }
}

#[test]
fn chunks_that_are_known_to_be_clean_are_clean() {
    for (instance, arenas) in [((1, 1, 1, 2), 1), ((0, 2, 1, 2), 2), ((1, 1, 2, 1), 1)] {
        let model = Arenas { complete: Complete::Unasked, ..whole(instance, arenas) };
        exhaust("clean chunks", &Arenas { counts: true, ..model });
    }
    // The instance that has all mistakes, without what only makes it larger.
    let model = Arenas { complete: Complete::Unasked, ..Arenas::decided(0, 2, 2, 1) };
    exhaust("clean chunks (0, 2, 2, 1)", &Arenas { counts: true, ..model });
}

/// The last one needs two closures: a late one allocates where another one has got room since the cycle ended.
#[test]
fn chunks_are_not_clean_when_somebody_may_have_marked_in_them() {
    for (broken, instance) in [
        (Variant::CleanWhileMarking, (1, 1, 1, 1)),
        (Variant::CleanWhenPale, (1, 1, 1, 1)),
        (Variant::CleanWhenBlack, (0, 2, 2, 1)),
    ] {
        assert_fails(&Arenas { counts: true, ..variant(broken, instance) }, Fault::Unclean);
    }
}

/// What a word of mark bits that was set ahead would do to a closure that has to make grey values.
#[test]
fn black_values_in_phase_2_lose_an_object() {
    assert_fails(&variant(Variant::BlackInArmingB, (1, 1, 2, 2)), Fault::Lost);
}

#[test]
fn a_chunk_that_is_dead_for_marking_when_it_is_freed_loses_an_object() {
    assert_fails(&variant(Variant::DeadAtOnce, (1, 1, 1, 2)), Fault::Lost);
}

#[test]
fn memory_that_goes_without_a_grace_period_is_torn_away() {
    assert_fails(&variant(Variant::FreedAtOnce, (1, 1, 1, 1)), Fault::TornAway);
}

#[test]
fn memory_that_goes_with_an_older_grace_period_is_torn_away() {
    assert_fails(&variant(Variant::GraceTooOld, (1, 1, 1, 1)), Fault::TornAway);
}

#[test]
fn memory_that_goes_while_a_cycle_marks_is_scanned() {
    assert_fails(&variant(Variant::FreedWhileMarking, (1, 1, 1, 1)), Fault::ScannedFreed);
}

#[test]
fn the_verdict_of_a_cycle_before_the_freeing_uses_an_address_again_too_early() {
    assert_fails(&variant(Variant::OldVerdict, (1, 1, 1, 1)), Fault::Reused);
}

#[test]
fn a_verdict_before_a_clean_round_forgets_what_closures_hold() {
    assert_fails(&variant(Variant::VerdictBeforeRound, (1, 1, 1, 1)), Fault::Reused);
}

#[test]
fn the_verdict_of_a_cycle_that_has_broken_uses_an_address_again_too_early() {
    let model = variant(Variant::BrokenVerdict, (1, 1, 1, 1));
    assert_fails(&Arenas { breaks: true, ..model }, Fault::Reused);
}

/// A closure of the last marking phase allocates a black value after that, and the next cycle takes it for scanned.
#[test]
fn clearing_mark_bits_before_the_first_grace_period_loses_an_object() {
    assert_fails(&variant(Variant::ClearedEarly, (1, 1, 1, 2)), Fault::Lost);
}

#[test]
fn judging_an_arena_that_was_abandoned_meanwhile_takes_it_from_a_closure() {
    let model = variant(Variant::AbandonedLate, (1, 1, 1, 1));
    assert_fails(&Arenas { abandons: true, ..model }, Fault::InUse);
}

/// A value that nothing leads to may point to where something else lies by now.
#[test]
fn scanning_values_that_are_not_marked_follows_stale_pointers() {
    let model = variant(Variant::ScansUnmarked, (0, 2, 1, 2));
    assert_fails(&Arenas { arenas: 2, ..model }, Fault::ScannedStale);
}

#[test]
fn mutators_are_interchangeable() {
    let model = Arenas::decided(1, 1, 2, 1);
    let (all, reduced) = (explore(&model, Reduction::None), explore(&model, Reduction::Mutators));
    assert_eq!((all.states, all.visited), (reduced.states, all.states));
    assert!(reduced.visited < all.visited && reduced.visited * 2 >= all.visited);
}
