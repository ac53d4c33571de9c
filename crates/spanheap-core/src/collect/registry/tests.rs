//! The registry with scripted mutators: grace periods against a twin, and who gives caches back when.
//!
//! No thread runs here. A mutator is a record that the test makes enter and leave.
//!
//! # Safety
//! Caches are used by the one thread of the test. Heaps are released when nobody uses them.
#![allow(unsafe_code)]

use super::*;
use crate::addr::{Addr, Bytes};
use crate::heap::central::Config;
use crate::os::Os;
use crate::span::{Generation, Shape, Span, Table, Tracer, TypeInfo, bits};
use crate::tests::Random;

unsafe fn trace(_: *const u8, _: usize, _: &mut Tracer<'_>) {}

static PAIR: TypeInfo = TypeInfo::new(|| "pair", 16, 8, Shape::Words(0b11), trace, None);

fn central() -> Central {
    Central::new(Os::native(), Config::default()).expect("memory")
}

fn release(central: Central) {
    // SAFETY: nobody uses the heap any more.
    unsafe { central.release() };
    assert_eq!(central.os().accounting().reserved(), Bytes::ZERO);
}

/// The objects whose bit is set in `table`.
fn set_in(central: &Central, table: Table) -> Vec<Addr> {
    let mut objects = Vec::new();
    let visit = |span: &Span| bits::for_each_set(span.info(), table, |object| objects.push(object));
    // SAFETY: this thread alone uses the heap.
    unsafe { central.pages().for_each_span(visit) };
    objects
}

/// A mutator that has entered with `word` and allocated once.
fn enter_and_alloc(record: &MutatorRecord, central: &Central, word: PhaseWord) -> Addr {
    record.publish_inside();
    if record.word() != word {
        record.change_phase(central, word);
    }
    record.caches().alloc(central, &PAIR, tint(word)).expect("memory")
}

#[test]
fn a_grace_period_ends_when_everybody_who_was_inside_has_left_once() {
    let mut random = Random::new(0x96ace);
    let (registry, central) = (Registry::new(), central());
    let fence = ProcessBarrier::forced_symmetric();
    // Each mutator: its record, whether it is inside, whether the grace period waits for it.
    let mut mutators: Vec<(Arc<MutatorRecord>, bool, bool)> = Vec::new();
    let (mut over, mut not_over) = (0, 0);
    for _ in 0..20_000 {
        let at = random.below(mutators.len().max(1));
        match random.below(16) {
            0 if mutators.len() < 12 => {
                let record = registry.attach().expect("open");
                assert!(!record.is_inside() && record.buffer.is_empty());
                assert!(mutators.iter().all(|(other, ..)| !Arc::ptr_eq(other, &record)));
                mutators.push((record, false, false));
            }
            1 if !mutators.is_empty() && !mutators[at].1 => {
                registry.detach(&mutators.swap_remove(at).0, &central);
            }
            2 => {
                registry.begin_grace(&fence);
                mutators.iter_mut().for_each(|(_, inside, awaited)| *awaited = *inside);
            }
            3..=5 => {
                let expected = !mutators.iter().any(|&(.., awaited)| awaited);
                assert_eq!(registry.is_grace_over(), expected);
                *(if expected { &mut over } else { &mut not_over }) += 1;
            }
            _ if mutators.is_empty() => {}
            _ => {
                let (record, inside, awaited) = &mut mutators[at];
                match *inside {
                    true => record.publish_outside(),
                    false => record.publish_inside(),
                }
                // Whoever leaves is not awaited any more, even if he enters again at once.
                *awaited &= !*inside;
                *inside = !*inside;
                assert_eq!(record.is_inside(), *inside);
            }
        }
        let inside = mutators.iter().filter(|(_, inside, _)| *inside).count();
        assert_eq!(registry.counts(), (mutators.len(), inside));
    }
    assert!(over > 500 && not_over > 500, "{over} over, {not_over} not");
    release(central);
}

#[test]
fn a_mutator_that_detaches_while_marking_runs_leaves_its_objects_black() {
    let (registry, central) = (Registry::new(), central());
    let marking = PhaseWord::new(Phase::Marking, 1);
    let record = registry.attach().expect("open");
    let object = enter_and_alloc(&record, &central, marking);
    let marks = Generation::new(1).table();
    assert!(set_in(&central, marks).len() > 1, "the whole run is black as long as it is out");
    record.publish_outside();
    registry.detach(&record, &central);
    assert_eq!(registry.counts(), (0, 0));
    assert_eq!(set_in(&central, marks), [object]);
    assert_eq!(set_in(&central, central.generation().table()), [object]);
    assert_eq!(central.taken(), PAIR.size);
    assert_eq!(record.word(), PhaseWord::NEVER);

    // The next mutator gets the same record, and nothing that was in it.
    let again = registry.attach().expect("open");
    assert!(Arc::ptr_eq(&record, &again));
    let other = enter_and_alloc(&again, &central, marking);
    assert_ne!(other, object);
    again.publish_outside();
    registry.close(&central);
    assert_eq!(set_in(&central, marks), [object, other]);
    release(central);
}

#[test]
fn stale_caches_are_given_back_when_the_owner_cannot_use_them() {
    let (registry, central) = (Registry::new(), central());
    let fence = ProcessBarrier::forced_symmetric();
    let idle = PhaseWord::new(Phase::Idle, 0);
    let records: Vec<_> = (0..3).map(|_| registry.attach().expect("open")).collect();
    let mut objects: Vec<_> =
        records.iter().map(|record| enter_and_alloc(record, &central, idle)).collect();
    records[0].publish_outside();
    let allocated = || set_in(&central, central.generation().table()).len();
    let in_runs = allocated();
    assert!(in_runs > 3);

    // Another phase of the same generation makes nothing stale.
    registry.note_states();
    registry.release_outside(&central, PhaseWord::new(Phase::Marking, 1), &fence);
    registry.release_stale(&central, PhaseWord::new(Phase::ArmingB, 1));
    assert_eq!(allocated(), in_runs);

    // The next generation does: for those who are outside at once, ...
    let next = PhaseWord::new(Phase::Idle, 1);
    registry.release_outside(&central, next, &fence);
    let words = |n: usize| records[n].word();
    assert_eq!((words(0), words(1), words(2)), (PhaseWord::NEVER, idle, idle));
    let after_first = allocated();
    assert!(after_first < in_runs);
    // ... who were inside and have left since when they are asked for again, ...
    records[1].publish_outside();
    registry.release_outside(&central, next, &fence);
    assert_eq!(words(1), idle, "who has left just now enters again soon, and does it himself");
    registry.note_states();
    registry.release_outside(&central, next, &fence);
    assert_eq!((words(1), words(2)), (PhaseWord::NEVER, idle));
    // ... and for all others after a grace period.
    registry.begin_grace(&fence);
    assert!(!registry.is_grace_over());
    records[2].publish_outside();
    records[2].publish_inside();
    assert!(registry.is_grace_over());
    registry.release_stale(&central, next);
    assert_eq!(words(2), PhaseWord::NEVER);
    objects.sort_unstable();
    assert_eq!(set_in(&central, central.generation().table()), objects);
    assert_eq!(central.taken(), 3 * PAIR.size);
    records[2].publish_outside();
    registry.close(&central);
    release(central);
}

#[test]
fn work_counts_from_when_a_thread_is_first_waited_for_in_a_gap() {
    let (registry, central) = (Registry::new(), central());
    let fence = ProcessBarrier::forced_symmetric();
    let records: Vec<_> = (0..2).map(|_| registry.attach().expect("open")).collect();
    let worked = |index: usize, gap| records[index].worked_in(gap);
    let two = Duration::from_millis(2);
    let work = || {
        let before = thread_cpu_time();
        while thread_cpu_time() < before + two {}
    };
    records[1].publish_inside();
    registry.begin_grace(&fence);
    assert_eq!(worked(1, 1), Duration::ZERO, "nobody has asked what it has done so far");
    registry.note_work(1);
    work();
    assert_eq!(worked(0, 1), Duration::ZERO, "it is outside");
    assert!(worked(1, 1) >= two && worked(1, 1) <= thread_cpu_time());
    // The next grace period, before the gap is closed: it is waited for again, and the other one for the first time.
    records[0].publish_inside();
    registry.begin_grace(&fence);
    registry.note_work(1);
    work();
    assert!(worked(0, 1) >= two && worked(1, 1) >= 2 * two);
    // In the next gap nothing has been done; and to sleep is not to work.
    registry.note_work(2);
    assert_eq!((worked(0, 1), worked(1, 1)), (Duration::ZERO, Duration::ZERO));
    std::thread::sleep(Duration::from_millis(50));
    assert!(worked(1, 2) < Duration::from_millis(50));
    records.iter().for_each(|record| record.publish_outside());
    registry.begin_grace(&fence);
    registry.note_work(3);
    assert_eq!(worked(1, 3), Duration::ZERO, "it is not waited for any more");
    release(central);
}

#[test]
fn buffers_are_stolen_from_all_who_are_attached() {
    let (registry, central) = (Registry::new(), central());
    let records: Vec<_> = (0..4).map(|_| registry.attach().expect("open")).collect();
    let mut shards: Vec<_> = records.iter().map(|record| record.shard).collect();
    shards.sort_unstable();
    shards.dedup();
    assert_eq!(shards.len(), records.len(), "mutators spread over the root table");
    for (index, record) in records.iter().enumerate() {
        for n in 0..=index {
            assert!(!record.buffer.push(Addr::new(100 * index + n + 1)), "it is not full yet");
        }
    }
    let mut stolen = Vec::new();
    registry.steal_buffers(|target| stolen.push(target.get()));
    stolen.sort_unstable();
    assert_eq!(stolen, [1, 101, 102, 201, 202, 203, 301, 302, 303, 304]);
    registry.steal_buffers(|_| panic!("everything was stolen"));
    records
        .iter()
        .for_each(|record| record.buffer.flush(|rest| assert!(rest.is_empty(), "stolen")));
    release(central);
}

#[test]
fn nobody_attaches_to_a_closed_registry_and_leaving_it_is_harmless() {
    let (registry, central) = (Registry::new(), central());
    let record = registry.attach().expect("open");
    let object = enter_and_alloc(&record, &central, PhaseWord::new(Phase::Idle, 0));
    record.publish_outside();
    registry.close(&central);
    assert!(registry.attach().is_none());
    assert_eq!(set_in(&central, central.generation().table()), [object]);
    release(central);
    // The heap's memory is gone by now.
    let central = self::central();
    registry.detach(&record, &central);
    assert_eq!(registry.counts(), (0, 0));
    release(central);
}

#[test]
fn a_record_that_is_used_again_charges_its_new_thread_with_nothing() {
    let (registry, central) = (Registry::new(), central());
    let fence = ProcessBarrier::forced_symmetric();
    let before = thread_cpu_time();
    while thread_cpu_time() < before + Duration::from_millis(5) {}
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let other = registry.attach().expect("open");
            other.publish_inside();
            registry.begin_grace(&fence);
            registry.note_work(1);
            other.publish_outside();
            registry.detach(&other, &central);
        });
    });
    let worked = registry.attach().expect("open").worked_in(1);
    release(central);
    assert_eq!(worked, Duration::ZERO);
}
