//! Lists of chunks in the order of their addresses.
//!
//! Neighbours are guarded, shut and opened by one call to the system, which also interrupts the other processors once.
//! Chunks come in whatever order arenas had got and given them; so their lists are sorted before. By merging, in place: a
//! cycle takes no memory to end.
//!
//! # Locking
//! None: a list is its owner's.

use super::registry::{joined, record};
use crate::addr::AddrRange;
use crate::span::Chunk;
use core::ptr::NonNull;

/// A list, linked by `next`.
type List = Option<NonNull<Chunk>>;

/// As many sorted lists, each twice as long as the one before, are more chunks than there are addresses.
const LISTS: usize = 48;

/// Chunks of a sorted list that lie one behind the other.
pub(super) struct Run {
    pub range: AddrRange,
    /// The first one behind them.
    pub behind: List,
}

/// The longest run of a sorted list that begins with `first`.
pub(super) fn run_of(first: NonNull<Chunk>) -> Run {
    let mut run = Run { range: record(first).range(), behind: record(first).next() };
    while let Some(at) = run.behind {
        let Some(range) = joined(run.range, record(at).range()) else { break };
        run = Run { range, behind: record(at).next() };
    }
    run
}

/// The list `first`, lowest addresses first.
pub(super) fn sorted(first: List) -> List {
    let mut lists = [None; LISTS];
    let mut next = first;
    while let Some(at) = next {
        next = record(at).next();
        record(at).set_next(None);
        let mut carry = Some(at);
        for list in &mut lists {
            match list.take() {
                Some(other) => carry = merged(Some(other), carry),
                None => {
                    *list = carry;
                    break;
                }
            }
        }
    }
    lists.into_iter().fold(None, merged)
}

/// Two sorted lists as one.
fn merged(mut a: List, mut b: List) -> List {
    let (mut first, mut last): (List, List) = (None, None);
    while let (Some(one), Some(other)) = (a, b) {
        let is_one = record(one).range().base() <= record(other).range().base();
        let lower = if is_one { one } else { other };
        match last {
            Some(last) => record(last).set_next(Some(lower)),
            None => first = Some(lower),
        }
        last = Some(lower);
        (a, b) = if is_one { (record(one).next(), b) } else { (a, record(other).next()) };
    }
    match last {
        Some(last) => {
            record(last).set_next(a.or(b));
            first
        }
        None => a.or(b),
    }
}
