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
use core::iter::from_fn;
use core::ptr::NonNull;

/// A list, linked by `next`.
pub(super) type List = Option<NonNull<Chunk>>;

/// As many sorted lists, each twice as long as the one before, are more chunks than there are addresses.
const LISTS: usize = 48;

/// Chunks that lie one behind the other.
pub(super) struct Run {
    first: NonNull<Chunk>,
    /// Their addresses.
    pub range: AddrRange,
    behind: List,
}

impl Run {
    /// The longest one at the beginning of a sorted list.
    fn at(first: NonNull<Chunk>) -> Run {
        let (range, behind) = (record(first).range(), record(first).next());
        let mut run = Run { first, range, behind };
        while let Some(at) = run.behind {
            let Some(range) = joined(run.range, record(at).range()) else { break };
            run = Run { first, range, behind: record(at).next() };
        }
        run
    }

    /// Its chunks: see [`stretch`].
    pub fn chunks(&self) -> impl Iterator<Item = NonNull<Chunk>> + use<> {
        stretch(self.first, self.behind)
    }
}

/// The runs of a list, lowest addresses first. The chunks of one may be gone when the next one is asked for.
pub(super) fn runs(list: List) -> impl Iterator<Item = Run> {
    let mut next = sorted(list);
    from_fn(move || {
        let run = Run::at(next?);
        next = run.behind;
        Some(run)
    })
}

/// The chunks from `first` up to `behind`. Each may be gone, or on another list, when the next one is asked for.
pub(super) fn stretch(
    first: NonNull<Chunk>,
    behind: List,
) -> impl Iterator<Item = NonNull<Chunk>> + use<> {
    let mut next = Some(first);
    from_fn(move || {
        let at = next.filter(|_| next != behind)?;
        next = record(at).next();
        Some(at)
    })
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
