//! Span records: what a record says over its life, and the list of spans against a deque.
//!
//! # Safety
//! The records are memory of the test, and outlive the lists that they are in.
#![allow(unsafe_code)]

use super::*;
use crate::tests::Random;
use std::collections::VecDeque;
use std::mem::MaybeUninit;

/// Records for `n` spans; span i lies at page i + 1.
struct Records(Vec<MaybeUninit<Span>>);

impl Records {
    fn new(n: usize) -> Records {
        Records((0..n).map(|_| MaybeUninit::zeroed()).collect())
    }

    fn make(&mut self, index: usize, generation: Generation) -> OwnedSpan {
        let info = Info {
            base: Addr::new(0) + PageCount::new(index + 1),
            pages: PageCount::new(1),
            slot: 16,
            slots: 512,
            size_class: Some(SizeClass::SMALLEST),
            class: index as u32,
            layout: Layout::NoScan,
            counting: Counting::One,
            drop: None,
            type_name: || "test",
        };
        let record = NonNull::new(self.0[index].as_mut_ptr()).expect("not null");
        // SAFETY: the record is ours, and describes nothing.
        unsafe { Span::init(record, info, generation) }
    }
}

fn index_of(span: &OwnedSpan) -> usize {
    span.info().class as usize
}

#[test]
fn a_list_gives_out_what_was_taken_in_and_loses_nothing() {
    const LISTS: usize = 3;
    const SPANS: usize = 40;
    let mut random = Random::new(0x1157);
    let mut records = Records::new(SPANS);
    let mut free: Vec<OwnedSpan> = (0..SPANS).map(|i| records.make(i, Generation::FIRST)).collect();
    let mut lists: [SpanList; LISTS] = Default::default();
    let mut twins: [VecDeque<usize>; LISTS] = Default::default();
    let mut appended = 0;
    for _ in 0..20_000 {
        let at = random.below(LISTS);
        match random.below(7) {
            0..=2 => {
                if let Some(span) = free.pop() {
                    twins[at].push_front(index_of(&span));
                    lists[at].push(span);
                }
            }
            3..=5 => {
                let span = lists[at].pop();
                assert_eq!(span.as_ref().map(index_of), twins[at].pop_front());
                free.extend(span);
            }
            _ => {
                // Self-append cannot be written down: the two lists are borrowed at once.
                let other = (at + 1 + random.below(LISTS - 1)) % LISTS;
                let mut taken = std::mem::take(&mut lists[other]);
                lists[at].append(&mut taken);
                assert!(taken.is_empty() && taken.pop().is_none());
                while let Some(index) = twins[other].pop_back() {
                    twins[at].push_front(index);
                    appended += 1;
                }
            }
        }
        assert_eq!(lists[at].is_empty(), twins[at].is_empty());
        let held: usize = twins.iter().map(VecDeque::len).sum();
        assert_eq!(held + free.len(), SPANS);
    }
    assert!(appended > 1000);
    for (list, twin) in lists.iter_mut().zip(&mut twins) {
        while let Some(span) = list.pop() {
            assert_eq!(Some(index_of(&span)), twin.pop_front());
            free.push(span);
        }
        assert!(twin.is_empty());
    }
    let mut all: Vec<_> = free.iter().map(index_of).collect();
    all.sort_unstable();
    assert_eq!(all, (0..SPANS).collect::<Vec<_>>());
}

#[test]
fn a_list_that_was_joined_goes_on_as_one() {
    let mut records = Records::new(5);
    let (mut a, mut b) = (SpanList::new(), SpanList::new());
    // Into an empty list, from an empty list, and into a list whose last span came by joining.
    b.push(records.make(0, Generation::FIRST));
    a.append(&mut b);
    a.append(&mut b);
    b.push(records.make(1, Generation::FIRST));
    b.push(records.make(2, Generation::FIRST));
    b.append(&mut a);
    assert!(a.is_empty());
    a.push(records.make(3, Generation::FIRST));
    b.append(&mut a);
    b.push(records.make(4, Generation::FIRST));
    let order: Vec<_> = std::iter::from_fn(|| b.pop()).map(|span| index_of(&span)).collect();
    assert_eq!(order, [4, 3, 0, 2, 1]);
}

#[test]
fn a_record_keeps_its_generation_until_it_describes_another_span() {
    let mut records = Records::new(1);
    let mut span = records.make(0, Generation::new(6));
    assert!(span.span().is_in_use());
    span.set_generation(Generation::new(7));
    let raw = span.into_raw();
    // SAFETY: `into_raw` gave it up just now.
    let span = unsafe { OwnedSpan::from_raw(raw) };
    assert_eq!(span.span().generation(), Generation::new(7));
    let raw = span.retire();
    // SAFETY: the record still lies in the test's memory.
    let record = unsafe { raw.as_ref() };
    assert!(!record.is_in_use());
    assert_eq!(record.generation(), Generation::new(7));
    let span = records.make(0, Generation::new(9));
    assert!(span.span().is_in_use());
    assert_eq!(span.span().generation(), Generation::new(9));
}

#[test]
fn generations_are_ordered_across_the_end_of_their_numbers() {
    for number in [0, 1, 77, u32::MAX - 1, u32::MAX] {
        let g = Generation::new(number);
        assert!(g.next().is_after(g) && !g.is_after(g.next()) && !g.is_after(g));
        assert_ne!(g.table(), g.next().table());
        let far = Generation::new(number.wrapping_add((1 << 31) - 1));
        assert!(far.is_after(g) && !g.is_after(far));
    }
}

#[test]
fn a_counted_slice_says_its_length_in_the_last_word_of_its_slot() {
    let mut records = Records::new(1);
    let span = records.make(0, Generation::FIRST);
    let mut slot = [7usize, 8, 9, 5];
    let object = Addr::of(slot.as_mut_ptr());
    let info = Info { slot: 32, counting: Counting::Trailer, ..*span.info() };
    // SAFETY: the slot is an array of the test, four words long.
    assert_eq!(unsafe { info.count(object) }, 5);
    let info = Info { counting: Counting::One, ..info };
    // SAFETY: as above.
    assert_eq!(unsafe { info.count(object) }, 1);
    assert_eq!(info.limit(), info.base + Bytes::new(32 * 512));
}
