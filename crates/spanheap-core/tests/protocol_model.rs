//! The collection protocol, checked exhaustively on small instances.
//!
//! The collector never stops the world: it learns from grace periods and termination rounds what
//! the mutators can still do, and everything else (barriers, buffers, locks on containers, dropping
//! roots, upgrading weak pointers) has to agree with that. Whether it does is not something that a
//! stress test finds out. So the protocol is written down here a second time, as a transition
//! system small enough to visit all of its states:
//!
//! * `marking` is the mark phase, with pointer fields behind a swap barrier;
//! * `containers` adds roots that die, containers under a lock, and a weak pointer;
//! * `sweeping` is who sweeps a span, and what its bits say, over any number of cycles;
//! * `weak` is the upgrade of weak pointers, by steps, to the end of the sweep, and revival;
//! * `arenas` is user arenas, whose memory is taken away from under pointers, over any number of cycles;
//! * `explore` visits every state, and prints a shortest trail to a faulty one;
//! * `vocabulary` holds the words that the models share.
//!
//! # Instances
//! An instance `(objects, mutators, held)` has that many objects and mutators, and its closures
//! hold at most `held` objects at a time; `sweeping` has spans and their slots in place of objects, and `arenas` has
//! values beside them. The correct protocol is explored at sizes where its known mistakes show (where that
//! takes `SPANHEAP_LONG`, the test says so); each mistake is explored at a size just large enough to show it.
//!
//! # Why one may trust it
//! * The number of states of the first model agrees, instance by instance, with that of an
//!   independent model written in another language with another encoding, and is asserted. A rule
//!   that changes by accident changes the number. The numbers of the other models are asserted, too.
//! * Every rule that the design calls load-bearing is broken on purpose here, one at a time, and
//!   each broken protocol must lose an object, or go wrong as visibly. A model in which a rule did
//!   not matter would fail that.
//! * A counterexample is not believed on the explorer's word. The test replays the trail step by
//!   step from the start, and shows by its own search that the last state really has a live,
//!   unmarked object.
//!
//! # What it cannot show
//! Steps are atomic and totally ordered, so nothing here is about weak memory; and an instance says
//! nothing about bugs that need more objects or mutators than it has. The essays of the models
//! say what else is left out.
//!
//! # Running it
//! `cargo test -p spanheap-core --test protocol_model -- --nocapture` prints counts and trails, and
//! needs about a quarter of a gigabyte for each test that runs at a time. With `SPANHEAP_LONG=1` in the
//! environment the larger instances follow; they take many minutes and several gigabytes.
//!
//! Nothing here touches the library and nothing is unsafe, so there is nothing for Miri to find.
#![cfg(not(miri))]

#[path = "protocol_model/arenas.rs"]
mod arenas;
#[path = "protocol_model/containers.rs"]
mod containers;
#[path = "protocol_model/explore.rs"]
mod explore;
#[path = "protocol_model/marking.rs"]
mod marking;
#[path = "protocol_model/sweeping.rs"]
mod sweeping;
#[path = "protocol_model/vocabulary.rs"]
mod vocabulary;
#[path = "protocol_model/weak.rs"]
mod weak;

use containers::Containers;
use explore::{Counterexample, Model, Reduction, explore};
use marking::Marking;
use marking::assists::Assist;
use marking::exhausted::Direct;
use marking::handover::Handover;
use sweeping::Sweeping;
use vocabulary::{MOST, Phase, Pointer, Set};
use weak::Weak;

/// Whether to explore the larger instances too.
fn long() -> bool {
    std::env::var_os("SPANHEAP_LONG").is_some_and(|value| value == "1")
}

/// Explores all states of a correct model and returns their number.
fn exhaust<M: Model>(name: &str, model: &M) -> usize {
    let exploration = explore(model, Reduction::Mutators);
    println!("{name}: {} states ({} visited)", exploration.states, exploration.visited);
    if let Some(counterexample) = exploration.counterexample {
        panic!("{name} has a counterexample:\n{counterexample}");
    }
    exploration.states
}

/// Finds the shortest trail to a fault of a broken model, and replays it.
fn refute<M: Model>(name: &str, model: &M) -> Counterexample<M> {
    let exploration = explore(model, Reduction::Mutators);
    println!("{name}: a fault after {} states", exploration.visited);
    let found = exploration.counterexample.expect("the broken protocol was found correct");
    println!("{found}");

    let mut state = model.start();
    for (step, next) in &found.trail {
        let mut possible = false;
        model.steps(&state, &mut |_, successor| possible |= successor == *next);
        assert!(possible, "the trail takes an impossible step: {step}");
        state = *next;
    }
    assert_eq!(state, found.last, "the trail leads elsewhere");
    found
}

/// Whether following fields from `from` leads to `target`. Not the models' own search, on purpose.
fn reaches(fields: &[Pointer; MOST], from: Pointer, target: u8) -> bool {
    // A chain without repetition has no more links than there are objects.
    let chain = std::iter::successors(from, |&x| fields[x as usize]);
    chain.take(MOST).any(|x| x == target)
}

/// Asserts that a broken variant of the first model really loses an object.
fn assert_marking_loses(name: &str, model: &Marking) {
    let found = refute(name, model);
    let marking::Fault::Lost(lost) = found.fault else { panic!("{:?} instead", found.fault) };
    let last = found.last;
    assert_eq!(last.phase, Phase::Done);
    assert!(!lost.is_empty());
    for x in lost.iter() {
        let holders = last.mutators.iter().flat_map(|m| m.held.iter().map(Some));
        let live = holders.chain([last.root]).any(|from| reaches(&last.fields, from, x));
        assert!(live && !last.marked.contains(x), "object {x} was not lost");
    }
}

/// Refutes a broken variant of the second model. Returns the fault and the live unmarked objects.
fn refute_containers(name: &str, model: &Containers) -> (containers::Fault, Set) {
    let found = refute(name, model);
    let last = found.last;
    let live = |x: u8| {
        let holders = last.mutators.iter().flat_map(|m| m.held.iter().map(Some));
        holders.chain([last.live_root()]).any(|from| reaches(&last.fields, from, x))
    };
    let lost = (0..model.objects).filter(|&x| live(x) && !last.marked.contains(x));
    (found.fault, lost.fold(Set::EMPTY, Set::with))
}

/// Asserts that a broken variant of the second model really loses an object.
fn assert_containers_lose(name: &str, model: &Containers) {
    let (fault, lost) = refute_containers(name, model);
    assert!(!lost.is_empty());
    assert_eq!(fault, containers::Fault::Lost(lost));
}

// The first model: marking.

#[test]
fn the_decided_protocol_loses_no_object() {
    for (instance, states) in
        [((1, 2, 1), 14_834), ((2, 1, 2), 46_974), ((2, 2, 1), 1_245_064), ((2, 2, 2), 7_739_401)]
    {
        let (objects, mutators, held) = instance;
        let model = Marking::decided(objects, mutators, held);
        assert_eq!(exhaust(&format!("marking {instance:?}"), &model), states);
    }
    if long() {
        // (2, 3, 2) has more than 429 million states, which is beyond the memory of most machines.
        assert_eq!(exhaust("marking (3, 2, 1)", &Marking::decided(3, 2, 1)), 43_378_736);
        assert_eq!(exhaust("marking (2, 3, 1)", &Marking::decided(2, 3, 1)), 155_973_632);
    }
}

#[test]
fn one_grace_period_loses_an_object() {
    let variant = marking::Variant::OneGracePeriod;
    let model = Marking { variant, ..Marking::decided(2, 1, 2) };
    assert_marking_loses("one grace period", &model);
}

#[test]
fn black_allocation_in_phase_2_loses_an_object() {
    let variant = marking::Variant::BlackInArmingB;
    let model = Marking { variant, ..Marking::decided(2, 2, 2) };
    assert_marking_loses("black allocation in phase 2", &model);
}

#[test]
fn marking_in_the_barrier_and_buffering_only_if_won_loses_an_object() {
    let variant = marking::Variant::BufferOnlyIfWon;
    let model = Marking { variant, ..Marking::decided(2, 2, 2) };
    assert_marking_loses("buffer only if won", &model);
}

#[test]
fn load_shade_store_instead_of_swap_loses_an_object() {
    let variant = marking::Variant::LoadThenStore;
    let model = Marking { variant, ..Marking::decided(2, 2, 1) };
    assert_marking_loses("load, shade, then store", &model);
}

/// What the implementation does: closures of phase 3 load the old value, store, and buffer what they have loaded.
/// By then everything that the snapshot does not reach is new or buffered, so of several closures that overwrite
/// one field, only the first one's old value counts; and who stores first has loaded the snapshot's.
#[test]
fn load_store_buffer_in_phase_3_loses_no_object() {
    let variant = marking::Variant::LoadStoreFrom(3);
    for (instance, states) in
        [((1, 2, 1), 33_564), ((2, 1, 2), 71_716), ((1, 3, 1), 1_364_124), ((2, 2, 1), 2_952_194)]
    {
        let (objects, mutators, held) = instance;
        let model = Marking { variant, ..Marking::decided(objects, mutators, held) };
        assert_eq!(
            exhaust(&format!("load, store, buffer in phase 3 {instance:?}"), &model),
            states
        );
    }
    let model = Marking { variant, stealing: true, ..Marking::decided(2, 2, 1) };
    assert_eq!(exhaust("the same with stealing", &model), 3_488_290);
    if long() {
        let model = Marking { variant, ..Marking::decided(2, 2, 2) };
        assert_eq!(exhaust("load, store, buffer in phase 3 (2, 2, 2)", &model), 39_025_202);
    }
}

#[test]
fn load_store_buffer_in_phase_2_loses_an_object() {
    let variant = marking::Variant::LoadStoreFrom(2);
    let model = Marking { variant, ..Marking::decided(2, 2, 2) };
    assert_marking_loses("load, store, buffer in phase 2", &model);
}

// The first model: buffers that are stolen, and buffers that run out of memory.

#[test]
fn stealing_buffers_loses_no_object() {
    let model = Marking { stealing: true, ..Marking::decided(2, 2, 2) };
    assert_eq!(exhaust("stealing (2, 2, 2)", &model), 9_120_938);
}

/// The mistake shows with two objects held by each of two mutators, and that instance is a long one here.
#[test]
fn handing_a_buffer_over_by_steps_loses_no_object() {
    let handover = Handover::Locked;
    for (instance, states) in [((2, 1, 2), 67_860), ((2, 2, 1), 1_842_500)] {
        let (objects, mutators, held) = instance;
        let model = Marking { handover, ..Marking::decided(objects, mutators, held) };
        assert_eq!(exhaust(&format!("by steps {instance:?}"), &model), states);
    }
    if long() {
        let model = Marking { handover, ..Marking::decided(2, 2, 2) };
        assert_eq!(exhaust("by steps (2, 2, 2)", &model), 11_098_335);
    }
}

/// A closure stops between its mark and its entry; another one finds the object marked, drops its own entry, and
/// lets the round end clean.
#[test]
fn marking_in_one_step_and_appending_in_another_loses_an_object() {
    let handover = Handover::Unlocked;
    let model = Marking { handover, ..Marking::decided(2, 2, 2) };
    assert_marking_loses("mark, then append", &model);
}

/// The mistakes show with three objects, or with two and two objects held, and those instances are long ones here.
#[test]
fn marking_directly_and_raising_the_flag_in_one_step_loses_no_object() {
    let exhausted = Some(Direct::InOneStep);
    for (instance, states) in [((2, 1, 2), 99_376), ((2, 2, 1), 2_659_364)] {
        let (objects, mutators, held) = instance;
        let model = Marking { exhausted, ..Marking::decided(objects, mutators, held) };
        assert_eq!(exhaust(&format!("mark and raise {instance:?}"), &model), states);
    }
    if long() {
        let model = Marking { exhausted, ..Marking::decided(2, 2, 2) };
        assert_eq!(exhaust("mark and raise (2, 2, 2)", &model), 17_554_060);
        exhaust("mark and raise (3, 1, 2)", &Marking { exhausted, ..Marking::decided(3, 1, 2) });
        let model = Marking { exhausted, stealing: true, ..Marking::decided(2, 2, 2) };
        exhaust("mark and raise, stealing (2, 2, 2)", &model);
    }
}

/// The implementation does it in one step; this is the way without a lock. The instance that refutes
/// raising only before, or only after, has 70 million states here, so by default this explores the same
/// instance for one mutator.
#[test]
fn raising_the_flag_before_and_after_marking_directly_loses_no_object() {
    let exhausted = Some(Direct::RaiseMarkRaise);
    exhaust("raise, mark, raise (2, 1, 2)", &Marking { exhausted, ..Marking::decided(2, 1, 2) });
    if long() {
        for (objects, mutators, held) in [(2, 2, 1), (2, 2, 2), (3, 1, 2)] {
            let model = Marking { exhausted, ..Marking::decided(objects, mutators, held) };
            exhaust("raise, mark, raise (large)", &model);
        }
    }
}

/// The mutator stops between its mark and its flag; another one flushes the same object, finds it
/// marked, and lets the round end clean.
#[test]
fn raising_the_flag_only_after_marking_directly_loses_an_object() {
    let exhausted = Some(Direct::MarkThenRaise);
    let model = Marking { exhausted, ..Marking::decided(2, 2, 2) };
    assert_marking_loses("mark, then raise", &model);
}

#[test]
fn raising_the_flag_only_before_marking_directly_loses_an_object() {
    let exhausted = Some(Direct::RaiseThenMark);
    let model = Marking { exhausted, ..Marking::decided(2, 1, 2) };
    assert_marking_loses("raise, then mark", &model);
}

#[test]
fn lowering_the_flag_after_the_walk_loses_an_object() {
    let exhausted = Some(Direct::LowerAfterWalk);
    let model = Marking { exhausted, ..Marking::decided(3, 1, 2) };
    assert_marking_loses("lower after the walk", &model);
}

#[test]
fn marking_directly_without_a_flag_loses_an_object() {
    let exhausted = Some(Direct::NoFlag);
    let model = Marking { exhausted, ..Marking::decided(2, 1, 2) };
    assert_marking_loses("no flag", &model);
}

// The second model: roots that die, containers under a lock, a weak pointer.

/// Some mistakes show with two objects held by each of two mutators only, and that instance is a long one here.
#[test]
fn dying_roots_locked_containers_and_weak_pointers_agree_with_the_protocol() {
    for (instance, states) in [((2, 1, 2), 260_341), ((2, 2, 1), 1_625_878)] {
        let (objects, mutators, held) = instance;
        let model = Containers::decided(objects, mutators, held);
        assert_eq!(exhaust(&format!("containers {instance:?}"), &model), states);
    }
    if long() {
        let states = exhaust("containers (2, 2, 2)", &Containers::decided(2, 2, 2));
        assert_eq!(states, 17_914_096);
        let states = exhaust("containers (2, 3, 1)", &Containers::decided(2, 3, 1));
        assert_eq!(states, 50_661_840);
    }
}

#[test]
fn an_upgrade_in_phase_3_that_only_buffers_loses_an_object() {
    let variant = containers::Variant::UpgradeOnlyBuffers;
    let model = Containers { variant, ..Containers::decided(2, 1, 2) };
    assert_containers_lose("upgrade only buffers", &model);
}

#[test]
fn locking_without_buffering_in_phases_1_and_2_loses_an_object() {
    let variant = containers::Variant::NoBufferingWhileArming;
    let model = Containers { variant, ..Containers::decided(2, 1, 2) };
    assert_containers_lose("no buffering while arming", &model);
}

#[test]
fn counting_as_scanner_in_phase_3_without_buffering_loses_an_object() {
    let variant = containers::Variant::ScannerWithoutBuffering;
    let model = Containers { variant, ..Containers::decided(2, 1, 2) };
    assert_containers_lose("scanner without buffering", &model);
}

#[test]
fn counting_as_scanner_in_phase_2_loses_an_object() {
    let variant = containers::Variant::ScannerInArmingB;
    let model = Containers { variant, ..Containers::decided(2, 2, 2) };
    assert_containers_lose("scanner in phase 2", &model);
}

#[test]
fn a_root_scan_that_skips_dead_slots_loses_an_object() {
    let variant = containers::Variant::DeadSlotsSkipped;
    let model = Containers { variant, ..Containers::decided(2, 2, 2) };
    assert_containers_lose("dead slots skipped", &model);
}

#[test]
fn a_weak_pointer_not_cleared_by_the_clean_round_upgrades_a_dead_object() {
    let variant = containers::Variant::WeakClearedLater;
    let model = Containers { variant, ..Containers::decided(2, 1, 2) };
    let (fault, handed_out) = refute_containers("weak pointer cleared later", &model);
    assert!(!handed_out.is_empty());
    assert_eq!(fault, containers::Fault::DeadUpgraded(handed_out));
}

// The first model: a second worker, and closures that help with marking.

#[test]
fn a_second_worker_and_assists_lose_no_object() {
    let assists = Some(Assist::Counted);
    for (instance, states) in [((2, 1, 2), 121_317), ((2, 2, 1), 4_231_920)] {
        let (objects, mutators, held) = instance;
        let model = Marking { assists, ..Marking::decided(objects, mutators, held) };
        assert_eq!(exhaust(&format!("assists {instance:?}"), &model), states);
    }
    if long() {
        let model = Marking { assists, ..Marking::decided(3, 1, 2) };
        assert_eq!(exhaust("assists (3, 1, 2)", &model), 17_453_559);
    }
}

#[test]
fn a_worker_that_is_counted_after_it_took_its_work_loses_an_object() {
    let assists = Some(Assist::CountedLate);
    assert_marking_loses("counted late", &Marking { assists, ..Marking::decided(2, 1, 2) });
}

#[test]
fn a_worker_that_is_counted_until_before_it_pushes_loses_an_object() {
    let assists = Some(Assist::CountedShort);
    assert_marking_loses("counted short", &Marking { assists, ..Marking::decided(2, 1, 2) });
}

// The third model: who sweeps a span.

/// Asserts that a broken variant of the third model goes wrong as expected, in an instance of one span with
/// one slot and one mutator.
fn assert_sweeping_fails(variant: sweeping::Variant, expected: sweeping::Fault) {
    let model = Sweeping { variant, ..Sweeping::decided(1, 1, 1, 1) };
    assert_eq!(refute(&format!("{variant:?}"), &model).fault, expected);
}

#[test]
fn spans_swept_by_their_owners_free_nothing_alive_and_hand_nothing_out_twice() {
    let instances = [
        ((2, 1, 1, 2), 47_748),
        ((1, 2, 1, 2), 19_158),
        ((2, 2, 1, 1), 596_100),
        ((1, 2, 2, 1), 1_005_578),
        ((2, 1, 2, 1), 3_506_876),
    ];
    for (instance, states) in instances {
        let (spans, slots, mutators, held) = instance;
        let model = Sweeping::decided(spans, slots, mutators, held);
        assert_eq!(exhaust(&format!("sweeping {instance:?}"), &model), states);
    }
    if long() {
        exhaust("sweeping (1, 2, 2, 2)", &Sweeping::decided(1, 2, 2, 2));
        exhaust("sweeping (2, 2, 1, 2)", &Sweeping::decided(2, 2, 1, 2));
        exhaust("sweeping (2, 1, 2, 2)", &Sweeping::decided(2, 1, 2, 2));
    }
}

#[test]
fn sweeping_a_cached_span_frees_a_live_object() {
    assert_sweeping_fails(sweeping::Variant::SweepsCachedSpans, sweeping::Fault::Freed);
}

#[test]
fn taking_caches_before_phase_0_is_published_leaves_a_span_unswept() {
    assert_sweeping_fails(sweeping::Variant::TakesBeforePublication, sweeping::Fault::Unswept);
}

#[test]
fn taking_the_caches_of_closures_that_run_leaves_a_span_unswept() {
    assert_sweeping_fails(sweeping::Variant::TakesWithoutGrace, sweeping::Fault::Unswept);
}

#[test]
fn a_grace_period_that_begins_before_all_is_swept_leaves_a_span_unswept() {
    assert_sweeping_fails(sweeping::Variant::NotesBeforeSweeping, sweeping::Fault::Unswept);
}

#[test]
fn a_span_that_is_kept_into_the_next_generation_has_a_live_object_freed() {
    assert_sweeping_fails(sweeping::Variant::KeepsOldSpan, sweeping::Fault::Freed);
}

#[test]
fn white_runs_in_phase_3_have_a_live_object_freed() {
    assert_sweeping_fails(sweeping::Variant::WhiteRuns, sweeping::Fault::Freed);
}

#[test]
fn black_runs_after_the_generation_leave_marks_for_the_next_cycle() {
    assert_sweeping_fails(sweeping::Variant::BlackForever, sweeping::Fault::DirtyMarks);
}

#[test]
fn the_rest_of_a_run_that_stays_marked_becomes_a_phantom() {
    assert_sweeping_fails(sweeping::Variant::RestStaysMarked, sweeping::Fault::Phantom);
}

// The fourth model: upgrades to the end of the sweep, and revival.

/// Asserts that a broken variant of the fourth model goes wrong as expected.
fn assert_weak_fails(variant: weak::Variant, instance: Weak, expected: weak::Fault) {
    let model = Weak { variant, ..instance };
    assert_eq!(refute(&format!("{variant:?}"), &model).fault, expected);
}

/// An instance with a finalizer.
fn with_finalizer(objects: u8, mutators: u8, held: u32) -> Weak {
    Weak { finalizer: true, ..Weak::decided(objects, mutators, held) }
}

#[test]
fn upgrades_and_revival_agree_with_the_end_of_marking_and_the_sweep() {
    for (instance, states) in [((2, 1, 2), 279_323), ((3, 1, 1), 1_148_804), ((2, 2, 1), 3_367_920)]
    {
        let (objects, mutators, held) = instance;
        let model = with_finalizer(objects, mutators, held);
        assert_eq!(exhaust(&format!("weak {instance:?}"), &model), states);
    }
    if long() {
        assert_eq!(exhaust("weak (3, 1, 2)", &with_finalizer(3, 1, 2)), 34_128_568);
    }
}

/// Another object lies in the slot by then, and its allocation has set the mark.
#[test]
fn an_upgrade_that_does_not_load_the_handle_again_returns_another_object() {
    let instance = Weak::decided(1, 2, 1);
    assert_weak_fails(weak::Variant::NoReload, instance, weak::Fault::WrongObject);
}

#[test]
fn declaring_a_round_final_without_the_lock_frees_what_an_upgraded_object_reaches() {
    let instance = Weak::decided(2, 1, 2);
    assert_weak_fails(weak::Variant::DeclaredWithoutLock, instance, weak::Fault::Freed);
}

#[test]
fn an_upgrade_that_ignores_the_declaration_returns_another_object() {
    let instance = Weak::decided(1, 1, 1);
    assert_weak_fails(weak::Variant::FinalIgnored, instance, weak::Fault::WrongObject);
}

#[test]
fn an_upgrade_that_marks_and_does_not_push_frees_what_its_object_reaches() {
    let instance = Weak::decided(2, 1, 2);
    assert_weak_fails(weak::Variant::MarkedWithoutPush, instance, weak::Fault::Freed);
}

#[test]
fn clearing_the_handle_after_phase_0_is_published_has_an_upgraded_object_freed() {
    let instance = Weak::decided(1, 1, 1);
    assert_weak_fails(weak::Variant::ClearedAfterIdle, instance, weak::Fault::Freed);
}

#[test]
fn sweeping_before_the_handle_is_cleared_has_an_upgraded_object_freed() {
    let instance = Weak::decided(1, 1, 1);
    assert_weak_fails(weak::Variant::SweptBeforeClearing, instance, weak::Fault::Freed);
}

#[test]
fn reviving_before_the_handle_is_cleared_leaves_a_weak_pointer_to_a_queued_object() {
    let instance = with_finalizer(2, 1, 1);
    assert_weak_fails(weak::Variant::RevivedBeforeClearing, instance, weak::Fault::RevivedByWeak);
}

#[test]
fn reviving_without_tracing_frees_what_the_finalizer_needs() {
    let instance = with_finalizer(2, 1, 2);
    assert_weak_fails(weak::Variant::RevivedNotTraced, instance, weak::Fault::Freed);
}

/// Whoever has seen the target unmarked before the last round is awaited by it, and in a clean round nothing is
/// marked. So when the marking is final, another look at the mark finds nothing new.
#[test]
fn another_look_at_the_mark_when_the_marking_is_final_is_not_needed() {
    let variant = weak::Variant::NoSecondLook;
    for (objects, mutators, held) in [(2, 1, 2), (1, 2, 1)] {
        let decided = with_finalizer(objects, mutators, held);
        let states = exhaust("with another look", &decided);
        assert_eq!(exhaust("without another look", &Weak { variant, ..decided }), states);
    }
}

// The explorer.

/// Asserts that the reduction by symmetry neither loses nor invents a state of `model`.
fn assert_symmetric<M: Model>(model: &M) {
    let (all, reduced) = (explore(model, Reduction::None), explore(model, Reduction::Mutators));
    assert_eq!((all.states, all.visited), (reduced.states, all.states));
    assert!(reduced.visited < all.visited && reduced.visited * 6 >= all.visited);
}

#[test]
fn mutators_are_interchangeable_in_every_model() {
    assert_symmetric(&Marking::decided(1, 2, 1));
    assert_symmetric(&Marking::decided(1, 3, 1));
    let (exhausted, assists) = (Some(Direct::InOneStep), Some(Assist::Counted));
    assert_symmetric(&Marking { exhausted, ..Marking::decided(1, 2, 1) });
    assert_symmetric(&Marking { assists, stealing: true, ..Marking::decided(1, 2, 1) });
    assert_symmetric(&Marking { handover: Handover::Locked, ..Marking::decided(1, 2, 1) });
    assert_symmetric(&Containers::decided(1, 2, 1));
    assert_symmetric(&Sweeping::decided(1, 1, 2, 1));
    assert_symmetric(&with_finalizer(1, 2, 1));
}
