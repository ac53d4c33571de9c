//! Which set a span goes to, and in which order sets are asked.
//!
//! # Safety
//! Span records are memory of the test and outlive the use of the sets, which are leaked.
#![allow(unsafe_code)]

use super::*;
use crate::span::tests::Records;

/// Spans in the first three blocks of 64 pages: record i lies at page i + 1.
const FIRST: usize = 10;
const SECOND: usize = 70;
const THIRD: usize = 140;

fn shards(count: usize) -> SpanShards {
    SpanShards::new(Box::leak((0..count).map(|_| SpanSet::new()).collect()))
}

fn base_of(index: usize) -> Addr {
    Addr::new(0) + crate::addr::PageCount::new(index + 1)
}

fn take_ready(shards: SpanShards, near: Addr, backlog: &Backlog) -> Option<usize> {
    let take = |set: &SpanSet| Ok::<_, ()>(set.take(Generation::FIRST, backlog));
    match shards.take(near, take).expect("it waits")?.1 {
        Taken::Ready(span) => Some(span.info().class as usize),
        Taken::Unswept(..) => panic!("everything is swept"),
    }
}

#[test]
fn machines_of_all_sizes_have_a_power_of_two_of_sets() {
    assert_eq!([1, 2, 3, 8, 12, 16, 100, 1000].map(shards_for), [1, 2, 4, 8, 16, 16, 16, 16]);
}

#[test]
fn blocks_take_turns_and_a_span_knows_its_set() {
    let (two, one) = (shards(2), shards(1));
    let same =
        |first, second| std::ptr::eq(two.home_of(base_of(first)), two.home_of(base_of(second)));
    assert!(same(FIRST, FIRST + 1) && same(FIRST, THIRD) && !same(FIRST, SECOND));
    assert!(std::ptr::eq(one.home_of(base_of(FIRST)), one.home_of(base_of(SECOND))));
    let (records, backlog) = (Records::new(200), Backlog::new());
    let span = records.make(SECOND, Generation::FIRST);
    two.put(span, Generation::FIRST, Room::Some, &backlog);
    // SAFETY: a record of the test.
    let home = unsafe { records.at(SECOND).as_ref() }.home().expect("a set");
    assert!(std::ptr::eq(home, two.home_of(base_of(SECOND))));
}

#[test]
fn near_ones_come_first_and_all_are_found() {
    let (shards, records, backlog) = (shards(4), Records::new(200), Backlog::new());
    for index in [FIRST, SECOND, THIRD] {
        let span = records.make(index, Generation::FIRST);
        shards.put(span, Generation::FIRST, Room::Some, &backlog);
    }
    let near = base_of(SECOND + 1);
    let order = std::array::from_fn(|_| take_ready(shards, near, &backlog));
    assert_eq!(order, [Some(SECOND), Some(THIRD), Some(FIRST), None]);
}

#[test]
fn fuller_spans_anywhere_come_before_sparse_ones_near_by() {
    let (shards, records, backlog) = (shards(2), Records::new(200), Backlog::new());
    for (index, room) in [(FIRST, Room::Most), (SECOND, Room::Some), (THIRD, Room::Astray)] {
        shards.put(records.make(index, Generation::FIRST), Generation::FIRST, room, &backlog);
    }
    let near = base_of(FIRST);
    assert_eq!(take_ready(shards, near, &backlog), Some(SECOND));
    assert_eq!(take_ready(shards, near, &backlog), Some(FIRST));
    assert_eq!(take_ready(shards, near, &backlog), None);
    let astray = shards.take_astray(near, Generation::FIRST, &backlog).expect("a span");
    assert_eq!(astray.info().class as usize, THIRD);
}

/// The lock is held here: who waited for it would wait for ever.
#[test]
fn a_set_that_has_nothing_is_not_locked() {
    let (shards, records, backlog) = (shards(2), Records::new(200), Backlog::new());
    let span = records.make(SECOND, Generation::FIRST);
    shards.put(span, Generation::FIRST, Room::Some, &backlog);
    let empty = shards.home_of(base_of(FIRST));
    let held = empty.hold();
    std::thread::scope(|scope| {
        let taker = scope.spawn(|| take_ready(shards, base_of(FIRST), &backlog));
        assert_eq!(taker.join().expect("it ends"), Some(SECOND));
    });
    drop(held);
}

#[test]
fn a_set_that_is_busy_is_passed_over_and_told_of_when_no_other_has_anything() {
    let (shards, records, backlog) = (shards(2), Records::new(200), Backlog::new());
    for index in [FIRST, SECOND] {
        let span = records.make(index, Generation::FIRST);
        shards.put(span, Generation::FIRST, Room::Some, &backlog);
    }
    let held = shards.home_of(base_of(FIRST)).hold();
    let take = || shards.take(base_of(FIRST), |set| set.take_soon(Generation::FIRST, &backlog));
    std::thread::scope(|scope| {
        let taker = scope.spawn(|| {
            let Ok(Some((_, Taken::Ready(span)))) = take() else { panic!("the other set has one") };
            assert_eq!(span.info().class as usize, SECOND);
            assert!(take().is_err());
        });
        taker.join().expect("it ends");
    });
    drop(held);
}

#[test]
fn a_new_generation_reaches_every_set() {
    let (shards, records, backlog) = (shards(2), Records::new(200), Backlog::new());
    for index in [FIRST, SECOND] {
        let span = records.make(index, Generation::FIRST);
        shards.put(span, Generation::FIRST, Room::None, &backlog);
    }
    assert_eq!(take_ready(shards, base_of(FIRST), &backlog), None);
    let next = Generation::FIRST.next();
    shards.catch_up(next, &backlog);
    let mut found: Vec<usize> = std::iter::from_fn(|| {
        let (set, span, target) = shards.take_unswept(next, &backlog)?;
        assert_eq!(target, next);
        assert!(std::ptr::eq(set, shards.home_of(span.info().base)));
        backlog.finish(span.info().pages);
        Some(span.info().class as usize)
    })
    .collect();
    found.sort_unstable();
    assert_eq!(found, [FIRST, SECOND]);
    assert!(backlog.is_clear());
}
