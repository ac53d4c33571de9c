//! The list of spans against a deque.
//!
//! # Safety
//! The twin says which list owns a span.
#![allow(unsafe_code)]

use super::*;
use crate::span::Generation;
use crate::span::tests::Records;
use crate::tests::Random;
use std::collections::VecDeque;

fn index_of(span: &OwnedSpan) -> usize {
    span.info().class as usize
}

impl SpanList {
    /// The spans from the first to the last, and that the links back say the same.
    fn order(&self) -> Vec<usize> {
        let (mut order, mut previous, mut at) = (Vec::new(), None, self.first);
        while let Some(record) = at {
            // SAFETY: the list owns the span.
            let span = unsafe { record.as_ref() };
            assert_eq!(span.previous.get(), previous, "the links back are wrong");
            order.push(span.info().class as usize);
            (previous, at) = (at, span.next.get());
        }
        assert_eq!(self.last, previous);
        order
    }
}

#[test]
fn a_list_gives_out_what_was_taken_in_and_loses_nothing() {
    const LISTS: usize = 3;
    const SPANS: usize = 40;
    let mut random = Random::new(0x1157);
    let records = Records::new(SPANS);
    let mut free: Vec<OwnedSpan> = (0..SPANS).map(|i| records.make(i, Generation::FIRST)).collect();
    let mut lists: [SpanList; LISTS] = Default::default();
    let mut twins: [VecDeque<usize>; LISTS] = Default::default();
    let (mut appended, mut ends) = (0, [0; 3]);
    for _ in 0..20_000 {
        let at = random.below(LISTS);
        match random.below(9) {
            0..=3 => {
                if let Some(span) = free.pop() {
                    twins[at].push_front(index_of(&span));
                    lists[at].push(span);
                }
            }
            4 | 5 => {
                let span = lists[at].pop();
                assert_eq!(span.as_ref().map(index_of), twins[at].pop_front());
                free.extend(span);
            }
            6 | 7 if !twins[at].is_empty() => {
                let place = random.below(twins[at].len());
                ends[0] += usize::from(place == 0);
                ends[1] += usize::from(place + 1 == twins[at].len());
                ends[2] += usize::from(place > 0 && place + 1 < twins[at].len());
                let index = twins[at].remove(place).expect("below the length");
                // SAFETY: the twin says that this list owns the span.
                let span = unsafe { lists[at].unlink(records.at(index)) };
                assert_eq!(index_of(&span), index);
                free.push(span);
            }
            _ => {
                // Self-append cannot be written down: the two lists are borrowed at once.
                let other = (at + 1 + random.below(LISTS - 1)) % LISTS;
                let mut taken = std::mem::take(&mut lists[other]);
                lists[at].append(&mut taken);
                assert!(taken.order().is_empty() && taken.pop().is_none());
                while let Some(index) = twins[other].pop_back() {
                    twins[at].push_front(index);
                    appended += 1;
                }
            }
        }
        assert_eq!(lists[at].order(), Vec::from(twins[at].clone()));
        let held: usize = twins.iter().map(VecDeque::len).sum();
        assert_eq!(held + free.len(), SPANS);
    }
    assert!(appended > 1000 && ends.iter().all(|&n| n > 100), "{appended}, {ends:?}");
}

#[test]
fn a_list_that_was_joined_goes_on_as_one() {
    let records = Records::new(5);
    let (mut a, mut b) = (SpanList::default(), SpanList::default());
    // Into an empty list, from an empty list, and into a list whose last span came by joining.
    b.push(records.make(0, Generation::FIRST));
    a.append(&mut b);
    a.append(&mut b);
    b.push(records.make(1, Generation::FIRST));
    b.push(records.make(2, Generation::FIRST));
    b.append(&mut a);
    assert_eq!((a.order(), b.order()), (vec![], vec![0, 2, 1]));
    a.push(records.make(3, Generation::FIRST));
    b.append(&mut a);
    b.push(records.make(4, Generation::FIRST));
    assert_eq!(b.order(), [4, 3, 0, 2, 1]);
    let order: Vec<_> = std::iter::from_fn(|| b.pop()).map(|span| index_of(&span)).collect();
    assert_eq!(order, [4, 3, 0, 2, 1]);
}
