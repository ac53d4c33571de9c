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
//! * `explore` visits every state, and prints a shortest trail to a faulty one;
//! * `vocabulary` holds the words that the models share.
//!
//! # Instances
//! An instance `(objects, mutators, held)` has that many objects and mutators, and its closures
//! hold at most `held` objects at a time. The correct protocol is explored at sizes where its known
//! mistakes show (where that takes `SPANHEAP_LONG`, the test says so); each mistake is explored at a
//! size just large enough to show it.
//!
//! # Why one may trust it
//! * The number of states of the first model agrees, instance by instance, with that of an
//!   independent model written in another language with another encoding, and is asserted. A rule
//!   that changes by accident changes the number.
//! * Every rule that the design calls load-bearing is broken on purpose here, one at a time, and
//!   each broken protocol must lose an object. A model in which a rule did not matter would fail
//!   that.
//! * A counterexample is not believed on the explorer's word. The test replays the trail step by
//!   step from the start, and shows by its own search that the last state really has a live,
//!   unmarked object.
//!
//! # What it cannot show
//! Steps are atomic and totally ordered, so nothing here is about weak memory; and an instance says
//! nothing about bugs that need more objects or mutators than it has. The essays of the two models
//! say what else is left out.
//!
//! # Running it
//! `cargo test -p spanheap-core --test protocol_model -- --nocapture` prints counts and trails, and
//! needs about half a gigabyte for each test that runs at a time. With `SPANHEAP_LONG=1` in the
//! environment the larger instances follow; they take many minutes and several gigabytes.
//!
//! Nothing here touches the library and nothing is unsafe, so there is nothing for Miri to find.
#![cfg(not(miri))]

#[path = "protocol_model/containers.rs"]
mod containers;
#[path = "protocol_model/explore.rs"]
mod explore;
#[path = "protocol_model/marking.rs"]
mod marking;
#[path = "protocol_model/vocabulary.rs"]
mod vocabulary;

use containers::Containers;
use explore::{Counterexample, Model, explore};
use marking::{Direct, Marking};
use vocabulary::{MOST, Phase, Pointer, Set};

/// Whether to explore the larger instances too.
fn long() -> bool {
    std::env::var_os("SPANHEAP_LONG").is_some_and(|value| value == "1")
}

/// Explores all states of a correct model and returns their number.
fn exhaust<M: Model>(name: &str, model: &M) -> usize {
    let exploration = explore(model);
    println!("{name}: {} states", exploration.states);
    if let Some(counterexample) = exploration.counterexample {
        panic!("{name} has a counterexample:\n{counterexample}");
    }
    exploration.states
}

/// Finds the shortest trail to a fault of a broken model, and replays it.
fn refute<M: Model>(name: &str, model: &M) -> Counterexample<M> {
    let exploration = explore(model);
    println!("{name}: a fault after {} states", exploration.states);
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

// The first model: buffers that are stolen, and buffers that run out of memory.

#[test]
fn stealing_buffers_loses_no_object() {
    let model = Marking { stealing: true, ..Marking::decided(2, 2, 2) };
    assert_eq!(exhaust("stealing (2, 2, 2)", &model), 9_120_938);
}

/// Lowering the flag too late shows with three objects only, and that instance is a long one too.
#[test]
fn marking_directly_and_raising_the_flag_in_one_step_loses_no_object() {
    let exhausted = Some(Direct::InOneStep);
    let model = Marking { exhausted, ..Marking::decided(2, 2, 2) };
    assert_eq!(exhaust("mark and raise (2, 2, 2)", &model), 17_554_060);
    if long() {
        exhaust("mark and raise (3, 1, 2)", &Marking { exhausted, ..Marking::decided(3, 1, 2) });
        let model = Marking { exhausted, stealing: true, ..Marking::decided(2, 2, 2) };
        exhaust("mark and raise, stealing (2, 2, 2)", &model);
    }
}

/// The instance that refutes raising only before, or only after, has 70 million states here, so by
/// default this explores the same instance for one mutator, and a smaller one for two.
#[test]
fn raising_the_flag_before_and_after_marking_directly_loses_no_object() {
    let exhausted = Some(Direct::RaiseMarkRaise);
    exhaust("raise, mark, raise (2, 1, 2)", &Marking { exhausted, ..Marking::decided(2, 1, 2) });
    exhaust("raise, mark, raise (2, 2, 1)", &Marking { exhausted, ..Marking::decided(2, 2, 1) });
    if long() {
        for (objects, mutators, held) in [(2, 2, 2), (3, 1, 2)] {
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

#[test]
fn dying_roots_locked_containers_and_weak_pointers_agree_with_the_protocol() {
    let states = exhaust("containers (2, 2, 2)", &Containers::decided(2, 2, 2));
    assert_eq!(states, 17_914_096);
    if long() {
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
