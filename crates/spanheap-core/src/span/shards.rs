//! The spans of one class in several sets, so that many threads do not wait for one lock.
//!
//! A span belongs to the set that its **address** names: blocks of 64 pages take turns. So nothing has to be noted, and
//! who puts a span back need not know who took it. A thread begins to look where its own pages lie, since there
//! it has put the spans that it made; then it goes round. It takes new pages only when it has looked into every
//! set, so that more sets do not mean more memory.
//!
//! Most sets that a thread comes by have nothing for it. Each says so without its lock ([`SpanSet::may_have`]); a
//! glance that is a moment late costs a span that is found the next time.
//!
//! There are as many sets as the machine has processors, rounded up to a power of two, and no more than
//! [`MOST_SHARDS`]. `spanheap bench scaling` shows what they are for: with a single set, eight threads that allocate
//! small objects wait for its lock a fifth of their time.

use super::set::Kind;
use super::{Backlog, Generation, OwnedSpan, Room, Span, SpanSet, Taken};
use crate::addr::Addr;
use crate::pages::CACHE_PAGES;

/// More sets are not made: each is looked at before new pages are taken.
pub(crate) const MOST_SHARDS: usize = 16;

/// How many sets each class gets on a machine with so many processors.
pub(crate) fn shards_for(processors: usize) -> usize {
    processors.next_power_of_two().min(MOST_SHARDS)
}

/// The spans of one class that nobody is at work on.
#[derive(Clone, Copy)]
pub(crate) struct SpanShards {
    /// A power of two of them.
    sets: &'static [SpanSet],
}

impl SpanShards {
    /// These sets together.
    ///
    /// # Panics
    /// When their number is no power of two.
    pub(crate) fn new(sets: &'static [SpanSet]) -> SpanShards {
        assert!(sets.len().is_power_of_two(), "{} sets for a class", sets.len());
        SpanShards { sets }
    }

    fn index(self, at: Addr) -> usize {
        at.get() / CACHE_PAGES.bytes().get() % self.sets.len()
    }

    /// All sets, the one for `near` first.
    fn from(self, near: Addr) -> impl Iterator<Item = &'static SpanSet> {
        let (before, after) = self.sets.split_at(self.index(near));
        after.iter().chain(before)
    }

    /// The set that a span at `base` belongs to.
    pub(crate) fn home_of(self, base: Addr) -> &'static SpanSet {
        &self.sets[self.index(base)]
    }

    /// [`SpanSet::catch_up`] of each.
    pub(crate) fn catch_up(self, generation: Generation, backlog: &Backlog) {
        self.sets.iter().for_each(|set| set.catch_up(generation, backlog));
    }

    /// What `take` finds, with the set that it was taken from: [`SpanSet::take`], or [`SpanSet::take_soon`].
    ///
    /// # Errors
    /// That of a set that was passed over, when no other has anything.
    pub(crate) fn take<E>(
        self,
        near: Addr,
        take: impl Fn(&SpanSet) -> Result<Option<Taken>, E>,
    ) -> Result<Option<(&'static SpanSet, Taken)>, E> {
        let mut nothing = Ok(None);
        // What is better anywhere comes before what is worse near by: that is what keeps a heap dense.
        for kind in [Kind::Partial, Kind::Sparse, Kind::Unswept] {
            for set in self.from(near).filter(|set| set.may_have(kind)) {
                match take(set) {
                    Ok(Some(taken)) => return Ok(Some((set, taken))),
                    Ok(None) => {}
                    Err(error) => nothing = Err(error),
                }
            }
        }
        nothing
    }

    /// [`SpanSet::take_astray`].
    pub(crate) fn take_astray(
        self,
        near: Addr,
        generation: Generation,
        backlog: &Backlog,
    ) -> Option<OwnedSpan> {
        self.from(near)
            .filter(|set| set.may_have(Kind::Astray))
            .find_map(|set| set.take_astray(generation, backlog))
    }

    /// [`SpanSet::take_unswept`], with the set that it was taken from.
    pub(crate) fn take_unswept(
        self,
        generation: Generation,
        backlog: &Backlog,
    ) -> Option<(&'static SpanSet, OwnedSpan, Generation)> {
        self.sets.iter().filter(|set| set.may_have(Kind::Unswept)).find_map(|set| {
            let (span, target) = set.take_unswept(generation, backlog)?;
            Some((set, span, target))
        })
    }

    /// [`SpanSet::take_unswept_some`] of the first set that has any, with that set.
    pub(crate) fn take_unswept_some(
        self,
        spans: &mut [Option<OwnedSpan>],
        generation: Generation,
        backlog: &Backlog,
    ) -> Option<(&'static SpanSet, usize, Generation)> {
        self.sets.iter().filter(|set| set.may_have(Kind::Unswept)).find_map(|set| {
            let (count, target) = set.take_unswept_some(spans, generation, backlog);
            (count > 0).then_some((set, count, target))
        })
    }

    /// [`SpanSet::put`].
    pub(crate) fn put(
        self,
        span: OwnedSpan,
        generation: Generation,
        room: Room,
        backlog: &Backlog,
    ) {
        self.home_of(span.info().base).put(span, generation, room, backlog);
    }

    /// [`SpanSet::put_soon`].
    pub(crate) fn put_soon(
        self,
        span: OwnedSpan,
        generation: Generation,
        room: Room,
        backlog: &Backlog,
    ) -> Result<(), OwnedSpan> {
        self.home_of(span.info().base).put_soon(span, generation, room, backlog)
    }

    /// [`SpanSet::for_each`] of each set.
    pub(crate) fn for_each(self, mut visit: impl FnMut(&Span, bool)) -> Result<(), Addr> {
        self.sets.iter().try_for_each(|set| set.for_each(&mut visit))
    }
}

#[cfg(test)]
mod tests;
