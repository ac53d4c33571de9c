//! Tests of the pacer beside the conformance suites: what holds for any input, how it behaves in a loop with
//! a collector that has no help, and what this crate's tuning changes.

use super::goal::{self, Bounds, Goal, MemoryUse};
use super::speed::{Speed, Speeds, Times};
use super::trigger::{runway, trigger};
use super::*;
use core::time::Duration;
use proptest::prelude::*;

const MIB: usize = 1 << 20;
const MS: Duration = Duration::from_millis(1);

fn policy(percent: impl Into<Option<u32>>, limit: impl Into<Option<usize>>) -> Policy {
    Policy { percent: percent.into(), limit: limit.into().map(Bytes::new) }
}

fn heap(bytes: usize) -> Work {
    Work { heap: Bytes::new(bytes), ..Work::default() }
}

/// A cycle of a millisecond on two processors, one of which marks.
fn times() -> Times {
    let (elapsed, workers) = (MS, Some(MS));
    Times { elapsed, processors: 2, workers, assists: Duration::ZERO, idle: Duration::ZERO }
}

/// Runs a cycle that begins at the trigger, in which `allocated` bytes are allocated and `marked` bytes
/// marked. The result is the size at its end.
fn cycle(pacer: &mut Pacer, allocated: usize, marked: usize) -> usize {
    let begin = pacer.plan().trigger;
    pacer.start(begin, heap(begin.get()));
    let live = begin + Bytes::new(allocated);
    let marked = Bytes::new(marked);
    pacer.finish(Finished { live, marked, done: heap(marked.get()), times: times() });
    pacer.commit(None);
    live.get()
}

#[test]
fn a_small_heap_has_the_smallest_goal() {
    let goal = |percent| Pacer::new(policy(percent, None), Tuning::GO).goal();
    assert_eq!(goal(100), Bytes::new(4 * MIB));
    assert_eq!(goal(50), Bytes::new(2 * MIB));
    assert_eq!(goal(0), Bytes::ZERO);
}

#[test]
fn the_goal_is_twice_the_live_heap_at_100_percent() {
    let mut pacer = Pacer::new(policy(100, None), Tuning::unassisted(1, 2));
    cycle(&mut pacer, MIB, 100 * MIB);
    assert_eq!(pacer.goal(), Bytes::new(200 * MIB));
}

#[test]
fn without_percent_and_limit_nothing_triggers() {
    let mut pacer = Pacer::new(policy(None, None), Tuning::GO);
    assert_eq!(pacer.plan(), Plan::NEVER);
    pacer.start(Bytes::new(MIB), heap(MIB));
    let marked = Bytes::new(MIB);
    pacer.finish(Finished { live: marked, marked, done: heap(MIB), times: times() });
    pacer.commit(Some(marked));
    assert_eq!(pacer.plan(), Plan::NEVER);
}

#[test]
fn without_help_the_runway_is_what_the_last_cycles_allocated_at_most() {
    // However much of the processors the collector had: as long as nobody helps, the shares cancel.
    for share in [1, 3, 10, 17] {
        let mut pacer = Pacer::new(policy(100, None), Tuning::unassisted(1, 2));
        let mut run = |allocated: usize, marked: usize| {
            let begin = pacer.plan().trigger;
            pacer.start(begin, heap(begin.get()));
            let live = begin + Bytes::new(allocated);
            let times = Times { workers: Some(MS * share / 10), ..times() };
            let marked = Bytes::new(marked);
            pacer.finish(Finished { live, marked, done: heap(marked.get()), times });
            pacer.commit(None);
            pacer.runway().get()
        };
        let near = |a: usize, b: usize| a.abs_diff(b) <= 1;
        assert!(near(run(10 * MIB, 100 * MIB), 10 * MIB));
        assert!(near(run(2 * MIB, 100 * MIB), 10 * MIB), "the last five count");
        assert!(near(run(2 * MIB, 200 * MIB), 20 * MIB), "in proportion to the work");
        for _ in 0..5 {
            run(2 * MIB, 200 * MIB);
        }
        assert!(near(run(2 * MIB, 200 * MIB), 2 * MIB), "no more than five are remembered");
    }
}

#[test]
fn the_loop_of_plan_and_cycle_settles_on_the_goal() {
    for (allocated, retained) in [(10, 100), (60, 100), (1, 3), (200, 2000)] {
        let mut pacer = Pacer::new(policy(100, None), Tuning::unassisted(1, 2));
        for n in 0..20 {
            let goal = pacer.goal().get();
            let end = cycle(&mut pacer, allocated * MIB, retained * MIB);
            if n >= 2 {
                let ratio = end as f64 / goal as f64;
                assert!((0.9..1.0001).contains(&ratio), "{allocated}/{retained}: {ratio}");
            }
        }
    }
}

#[test]
fn a_program_faster_than_the_collector_still_has_time_between_two_cycles() {
    let mut pacer = Pacer::new(policy(100, None), Tuning::unassisted(1, 2));
    for _ in 0..10 {
        cycle(&mut pacer, 1000 * MIB, 100 * MIB);
    }
    let Plan { goal, trigger, .. } = pacer.plan();
    assert_eq!(goal, Bytes::new(200 * MIB));
    assert_eq!(trigger, Bytes::new(100 * MIB + 100 * MIB / 8), "an eighth of the way");
    let mut helped = Pacer::new(policy(100, None), Tuning::assisted(2));
    for _ in 0..10 {
        cycle(&mut helped, 1000 * MIB, 100 * MIB);
    }
    assert_eq!(helped.plan().trigger, Bytes::new(100 * MIB + 100 * MIB / 64 * 45));
}

#[test]
fn a_heap_that_does_not_fit_under_its_limit_still_has_room() {
    let mut pacer = Pacer::new(policy(100, 64 * MIB), Tuning::unassisted(1, 2));
    pacer.set_memory(MemoryUse { ready: Bytes::new(90 * MIB), ..MemoryUse::default() });
    cycle(&mut pacer, MIB, 64 * MIB);
    assert_eq!(pacer.goal(), Bytes::new(65 * MIB), "a sixty-fourth");
    let mut pacer = Pacer::new(policy(100, 64 * MIB), Tuning::GO);
    pacer.set_memory(MemoryUse { ready: Bytes::new(90 * MIB), ..MemoryUse::default() });
    cycle(&mut pacer, MIB, 64 * MIB);
    let Plan { goal, trigger, .. } = pacer.plan();
    assert_eq!((goal, trigger), (Bytes::new(64 * MIB), Bytes::new(64 * MIB)));
}

#[test]
fn a_limit_leaves_room_for_what_is_not_an_object() {
    let mut pacer = Pacer::new(policy(None, 1024 * MIB), Tuning::unassisted(1, 2));
    // 100 MiB of tables and waste, 50 MiB of free pages.
    let [ready, free, objects] = [450, 50, 300].map(|mib| Bytes::new(mib * MIB));
    pacer.set_memory(MemoryUse { ready, free, objects });
    let left = 924 * MIB;
    assert_eq!(pacer.goal(), Bytes::new(left - left / 100 * 3));
}

#[test]
fn a_cycle_without_an_answer_teaches_nothing() {
    let mut pacer = Pacer::new(policy(100, None), Tuning::unassisted(1, 2));
    cycle(&mut pacer, 10 * MIB, 100 * MIB);
    let runway = pacer.runway();
    pacer.start(Bytes::new(190 * MIB), heap(190 * MIB));
    pacer.give_up(Bytes::new(250 * MIB));
    pacer.commit(None);
    assert_eq!((pacer.triggered(), pacer.runway()), (None, runway));
    assert_eq!(pacer.goal(), Bytes::new(500 * MIB));
}

#[test]
fn while_nothing_is_swept_the_heap_may_grow_by_a_mebibyte() {
    let mut pacer = Pacer::new(policy(0, None), Tuning::unassisted(1, 2));
    cycle(&mut pacer, MIB, 10 * MIB);
    assert_eq!(pacer.plan().trigger, Bytes::new(10 * MIB), "0 percent: at once");
    pacer.commit(Some(Bytes::new(12 * MIB)));
    assert_eq!(pacer.plan().trigger, Bytes::new(13 * MIB));
    pacer.commit(None);
    assert_eq!(pacer.plan().trigger, Bytes::new(10 * MIB));
}

#[test]
fn who_allocates_pays_more_as_the_goal_comes_nearer() {
    let mut pacer = Pacer::new(policy(100, None), Tuning::assisted(4));
    cycle(&mut pacer, MIB, 100 * MIB);
    let (goal, begin) = (pacer.goal(), Bytes::new(180 * MIB));
    let first = pacer.start(begin, heap(180 * MIB));
    assert_eq!(first.work_per_byte, 5.0, "100 MiB of work on 20 MiB of room");
    assert_eq!(first.bytes_per_work, 0.2);
    let done = heap(10 * MIB);
    let behind = pacer.revise(begin + Bytes::new(10 * MIB), heap(190 * MIB), done);
    assert_eq!(behind.work_per_byte, 9.0);
    let over = pacer.revise(goal + Bytes::new(MIB), heap(201 * MIB), done);
    assert!(over.work_per_byte > 9.0 && over.work_per_byte.is_finite());
}

#[test]
fn fault_18_a_live_set_that_jumps_makes_the_price_jump() {
    let mut pacer = Pacer::new(policy(100, None), Tuning::assisted(4));
    cycle(&mut pacer, MIB, 10 * MIB);
    let before = pacer.start(Bytes::new(18 * MIB), heap(18 * MIB)).work_per_byte;
    // All that has been allocated turns out to be alive, and it is 40 times what was.
    let (live, done) = (Bytes::new(400 * MIB), heap(11 * MIB));
    let after = pacer.revise(live, heap(400 * MIB), done);
    assert!(after.work_per_byte > before * 1e6, "{before} and then {}", after.work_per_byte);
    assert!(after.bytes_per_work > 0.0);
}

#[test]
fn fault_17_a_percent_that_changes_in_a_cycle_moves_its_goal_but_never_behind_it() {
    let mut pacer = Pacer::new(policy(100, None), Tuning::assisted(4));
    cycle(&mut pacer, MIB, 100 * MIB);
    let begin = Bytes::new(190 * MIB);
    pacer.start(begin, heap(190 * MIB));
    for (percent, goal) in [
        (Some(0), 190 * MIB + (64 << 10)),
        (Some(1000), 1100 * MIB),
        (Some(90), 190 * MIB + (64 << 10)),
        (Some(100), 200 * MIB),
        (None, usize::MAX),
    ] {
        pacer.set_policy(policy(percent, None), None);
        assert_eq!(pacer.goal(), Bytes::new(goal), "{percent:?}");
        let price = pacer.revise(begin, heap(190 * MIB), Work::default());
        assert!(price.work_per_byte > 0.0 && price.work_per_byte.is_finite(), "{percent:?}");
    }
}

#[test]
fn fault_21_a_clock_that_jumps_is_no_measurement() {
    let workers = Some(MS);
    let odd = [
        Times { elapsed: Duration::ZERO, ..times() },
        Times { elapsed: Duration::MAX, ..times() },
        Times { workers: Some(Duration::MAX), ..times() },
        Times { workers: Some(Duration::ZERO), ..times() },
        Times { workers: None, ..times() },
        Times { assists: Duration::MAX, workers, ..times() },
        Times { idle: Duration::MAX, workers, ..times() },
        Times { processors: 0, ..times() },
        Times { processors: usize::MAX, ..times() },
    ];
    for times in odd {
        for (allocated, work) in [(1, 0), (1, 1), (MIB, MIB), (usize::MAX, usize::MAX)] {
            let Some(speed) = times.speed(allocated, work, 0.25) else { continue };
            assert!(speed.ratio >= 0.0 && speed.ratio.is_finite(), "{times:?}");
            assert!(speed.background > 0.0 && speed.background < 1.0, "{times:?}");
        }
    }
    assert_eq!(Times { assists: MS * 2, ..times() }.speed(MIB, MIB, 0.25), None, "all was used");
    assert_eq!(times().speed(MIB, 0, 0.25), None, "nothing was scanned");
}

#[test]
fn fault_19_a_heap_that_rests_is_collected_when_the_time_is_over() {
    let (on, minute) = (policy(100, None), Duration::from_secs(60));
    let due = |idle| periodic::until_due(on, Some(periodic::PERIOD), idle);
    assert_eq!(due(Duration::ZERO), Some(minute * 2));
    assert_eq!(due(minute), Some(minute));
    assert_eq!(due(minute * 2), Some(Duration::ZERO));
    assert_eq!(due(Duration::MAX), Some(Duration::ZERO));
    assert_eq!(periodic::until_due(on, None, Duration::MAX), None);
    let off = policy(None, 64 * MIB);
    assert_eq!(periodic::until_due(off, Some(minute), Duration::MAX), None);
}

#[test]
fn the_wildest_of_five_cycles_counts() {
    let mut speeds = Speeds::new(0.25);
    let of = |ratio| Speed { ratio, background: 0.25 };
    for (ratio, estimate) in
        [(2.0, 2.0), (1.0, 2.0), (3.0, 3.0), (1.0, 3.0), (1.0, 3.0), (1.0, 3.0), (1.0, 3.0)]
    {
        speeds.learn(of(ratio));
        assert_eq!(speeds.estimate(), of(estimate));
    }
    speeds.learn(of(0.5));
    assert_eq!(speeds.estimate(), of(1.0), "what was six cycles ago is forgotten");
}

fn bytes() -> impl Strategy<Value = Bytes> {
    prop_oneof![0usize..1 << 32, (0u32..=64).prop_map(power), any::<usize>()].prop_map(Bytes::new)
}

/// A power of two, or the largest number.
fn power(shift: u32) -> usize {
    1usize.checked_shl(shift).unwrap_or(usize::MAX)
}

fn time() -> impl Strategy<Value = Duration> {
    let wild = (any::<u64>(), 0u32..1_000_000_000).prop_map(|(s, n)| Duration::new(s, n));
    prop_oneof![Just(Duration::ZERO), (0u64..1 << 34).prop_map(Duration::from_nanos), wild]
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let percent = prop_oneof![0u32..1000, Just(u32::MAX), any::<u32>()];
    (proptest::option::of(percent), proptest::option::of(bytes()))
        .prop_map(|(percent, limit)| Policy { percent, limit })
}

fn work() -> impl Strategy<Value = Work> {
    (bytes(), bytes(), bytes()).prop_map(|(heap, stacks, globals)| Work { heap, stacks, globals })
}

fn tuning() -> impl Strategy<Value = Tuning> {
    prop_oneof![
        Just(Tuning::GO),
        (0usize..300, 0usize..300).prop_map(|(workers, n)| Tuning::unassisted(workers, n)),
        (0usize..300).prop_map(Tuning::assisted),
    ]
}

#[derive(Clone, Debug)]
enum Op {
    Policy(Policy, Option<Bytes>),
    Memory(MemoryUse),
    Start(Bytes, Work),
    Revise(Bytes, Work, Work),
    Finish(Bytes, Bytes, Work, Times),
    GiveUp(Bytes),
    Commit(Option<Bytes>),
}

fn op() -> impl Strategy<Value = Op> {
    let sweeping = || proptest::option::of(bytes());
    let memory = (bytes(), bytes(), bytes())
        .prop_map(|(ready, free, objects)| Op::Memory(MemoryUse { ready, free, objects }));
    let times = (time(), any::<usize>(), proptest::option::of(time()), time(), time()).prop_map(
        |(elapsed, processors, workers, assists, idle)| Times {
            elapsed,
            processors,
            workers,
            assists,
            idle,
        },
    );
    prop_oneof![
        (any_policy(), sweeping()).prop_map(|(policy, at)| Op::Policy(policy, at)),
        memory,
        (bytes(), work()).prop_map(|(live, worst)| Op::Start(live, worst)),
        (bytes(), work(), work()).prop_map(|(live, worst, done)| Op::Revise(live, worst, done)),
        (bytes(), bytes(), work(), times)
            .prop_map(|(live, marked, done, times)| Op::Finish(live, marked, done, times)),
        bytes().prop_map(Op::GiveUp),
        sweeping().prop_map(Op::Commit),
    ]
}

proptest! {
    /// Faults 17 and 21, as far as they are a matter of numbers: whatever comes in, at whatever moment.
    #[test]
    fn fault_17_21_any_calls_in_any_order_leave_the_pacer_whole(
        tuning in tuning(),
        first in any_policy(),
        ops in proptest::collection::vec(op(), 0..40),
    ) {
        let mut pacer = Pacer::new(first, tuning);
        let mut price = None;
        for op in ops {
            match op {
                Op::Policy(policy, sweeping) => pacer.set_policy(policy, sweeping),
                Op::Memory(memory) => pacer.set_memory(memory),
                Op::Start(live, worst) => price = Some(pacer.start(live, worst)),
                Op::Revise(live, worst, done) => price = Some(pacer.revise(live, worst, done)),
                Op::Finish(live, marked, done, times) => {
                    pacer.finish(Finished { live, marked, done, times });
                    pacer.commit(Some(marked));
                }
                Op::GiveUp(retained) => {
                    pacer.give_up(retained);
                    pacer.commit(None);
                }
                Op::Commit(sweeping) => pacer.commit(sweeping),
            }
            if let Some(Assist { work_per_byte, bytes_per_work }) = price {
                prop_assert!(work_per_byte > 0.0 && work_per_byte.is_finite());
                prop_assert!(bytes_per_work > 0.0 && bytes_per_work.is_finite());
            }
            let Plan { goal, trigger, .. } = pacer.plan();
            prop_assert!(trigger <= goal, "{trigger:?} {goal:?}");
            prop_assert!(trigger >= pacer.marked() && goal >= pacer.marked());
            prop_assert_eq!(goal == pacer.goal(), true);
            prop_assert!(pacer.speed_ratio() >= 0.0 && pacer.speed_ratio().is_finite());
        }
    }

    #[test]
    fn a_trigger_lies_between_its_bounds(
        marked in bytes(),
        size in bytes(),
        not_before in bytes(),
        run in bytes(),
        earliest in 0usize..=61,
    ) {
        let goal = Goal { size, not_before: not_before.min(size) };
        let at = trigger(goal, marked, run, earliest);
        prop_assert!(at <= size);
        if marked < size {
            let part = (size.get() - marked.get()) / 64;
            prop_assert!(at >= goal.not_before && at >= marked);
            prop_assert!(at.get() >= marked.get() + part * earliest);
        }
    }

    #[test]
    fn a_longer_runway_never_triggers_later(
        marked in bytes(),
        size in bytes(),
        runs in [bytes(), bytes()],
    ) {
        let goal = Goal { size, not_before: Bytes::ZERO };
        let [a, b] = runs;
        let (short, long) = (a.min(b), a.max(b));
        prop_assert!(trigger(goal, marked, long, 45) <= trigger(goal, marked, short, 45));
    }

    #[test]
    fn more_percent_never_means_a_smaller_goal(
        marked in bytes(),
        roots in bytes(),
        percents in [any::<u32>(), any::<u32>()],
    ) {
        let [a, b] = percents;
        let [low, high] =
            [a.min(b), a.max(b)].map(|percent| goal::by_percent(Some(percent), marked, roots));
        prop_assert!(marked <= low && low <= high && high <= goal::by_percent(None, marked, roots));
    }

    #[test]
    fn a_limit_is_kept_where_it_can_be(
        limit in 16 * MIB..1 << 44,
        objects in 0usize..1 << 44,
        other in 0usize..1 << 44,
        free in 0usize..1 << 44,
    ) {
        let all = [objects + other + free, free, objects];
        let [ready, free, objects] = all.map(Bytes::new);
        let limit = Bytes::new(limit);
        let goal = goal::by_limit(limit, MemoryUse { ready, free, objects }, objects);
        prop_assert!(goal >= objects);
        if goal > objects && goal.get() > 2 * MIB {
            prop_assert!(goal + Bytes::new(other) < limit);
        }
    }

    #[test]
    fn a_goal_is_the_smaller_one_or_behind_the_heap(
        by_percent in bytes(),
        by_limit in bytes(),
        sweep_line in bytes(),
        triggered in proptest::option::of(bytes()),
    ) {
        let bounds = Bounds { by_percent, by_limit, sweep_line, triggered };
        let goal = bounds.goal();
        if by_limit < by_percent {
            prop_assert_eq!(goal, Goal { size: by_limit, not_before: Bytes::ZERO });
        } else {
            prop_assert!(goal.size >= by_percent && goal.size >= goal.not_before);
            prop_assert!(triggered.is_none_or(|at| goal.size >= at));
        }
    }

    #[test]
    fn a_runway_is_a_number(ratio in any::<f64>(), share in 0.001f64..0.999, work in bytes()) {
        let ratio = ratio.abs();
        let first = runway(ratio, share, work);
        prop_assert!(first <= runway(ratio * 2.0, share, work));
    }
}
