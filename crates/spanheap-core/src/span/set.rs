//! Spans of one class that nobody is at work on, and how many pages of a heap wait to be swept.
//!
//! Every span of a class is in one of five lists, unless a mutator has it, somebody sweeps it just now, or
//! the drop queue owns it:
//!
//! | list | holds |
//! |---|---|
//! | partial | swept spans with a free slot |
//! | sparse | such spans with more free slots than objects |
//! | astray | such spans that lie far up in a heap that has shrunk |
//! | full | swept spans without a free slot |
//! | unswept | spans of an older generation than the set's |
//!
//! They are allocated from in this order: when a heap has shrunk, what is left of it lies scattered, and a
//! span that gets no new objects soon has none at all, and gives its pages back. Those that are astray are
//! asked for by themselves, when there are no better pages either.
//!
//! When the heap's generation moves on, *every* span becomes unswept at once. Nobody walks the lists for
//! that: each set compares its own generation at the next access, and joins two lists in constant
//! time. A span that comes back late, from a mutator that held it over the change, is put where its own
//! generation belongs.
//!
//! # Taking a span by its record
//! Whoever sweeps finds spans in a set; the page reclaimer finds them by their *pages*, and so has a
//! pointer to a record that may by now describe another span, or none ([`super`], P3). It reads the
//! record's `home`, locks that set, and reads `home` again:
//!
//! - T1. `home` names a set from the moment that the set takes the span in until it gives it out, and is
//!   written under the set's lock. So under the lock it tells whether the set owns the span.
//! - T2. A span that a set owns is in the unswept list if and only if its generation is not the set's.
//!   (The generation of a span changes only in its owner's hands.)
//!
//! Both together say, without a search and without a mark in the record that joining lists would have to
//! rewrite, that the span is in the unswept list; then it is unlinked in constant time.
//!
//! # Glances
//! A set says without its lock what it may have ([`SpanSet::may_have`]): bits that are written under the lock and may
//! be late for who does not hold it. Before a generation that the set has not heard of they are late as well: whoever
//! begins one tells each set.
//!
//! # Counting
//! A [`Backlog`] is the heap's count of pages in unswept lists. A set changes it under its lock, in the
//! same step as its lists; so a backlog of nothing means that nothing waits in any set that has heard of
//! the generation.
//!
//! # Locking
//! [`Rank::SpanSet`]. Nothing else is done under it, and the record that it writes to next is fetched beforehand, since
//! the collector comes here twice for each span that it sweeps. Should it lose its processor just then, the lock
//! is held for milliseconds, and a mutator had better do without: it waits for a moment, and then takes new pages and
//! keeps the span that it wanted to put back ([`SpanSet::take_soon`], [`SpanSet::put_soon`]).
//!
//! # Safety
//! Sets are `'static` for those who use them: they lie in records that live as long as their heap, and no
//! span record outlives those. That is what makes `home` a pointer that can be followed.
#![allow(unsafe_code)]

use super::list::SpanList;
use super::{Generation, OwnedSpan, Span};
use crate::addr::{Addr, PageCount};
use crate::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use crate::sync::{Guard, Lock, Rank};
use core::ptr::{self, NonNull};

/// What of a heap waits to be swept. A value for the heap; all of its sets are told of it.
pub(crate) struct Backlog {
    /// Pages in unswept lists, and above [`Backlog::SWEEPER`] the number of spans that are being swept.
    state: AtomicU64,
    /// Pages swept since the heap was made.
    swept: AtomicU64,
}

impl Backlog {
    /// One span that is being swept. Below it there is room for 64 times as many pages as there are
    /// addresses.
    const SWEEPER: u64 = 1 << 40;

    /// Nothing waits.
    pub(crate) const fn new() -> Backlog {
        Backlog { state: AtomicU64::new(0), swept: AtomicU64::new(0) }
    }

    /// Pages that wait in unswept lists.
    #[inline]
    pub(crate) fn waiting(&self) -> PageCount {
        PageCount::new((self.state.load(Ordering::Relaxed) % Backlog::SWEEPER) as usize)
    }

    /// Whether nothing waits and nobody sweeps: what sweeping can free has been freed.
    pub(crate) fn is_clear(&self) -> bool {
        self.state.load(Ordering::Acquire) == 0
    }

    /// Pages swept since the heap was made. Never goes back.
    pub(crate) fn swept(&self) -> u64 {
        self.swept.load(Ordering::Relaxed)
    }

    /// A span of `pages` pages, which a set gave out to be swept, is where it belongs now.
    pub(crate) fn finish(&self, pages: PageCount) {
        self.swept.fetch_add(pages.get() as u64, Ordering::Relaxed);
        // Release: who finds the backlog clear finds the pages free as well.
        self.state.fetch_sub(Backlog::SWEEPER, Ordering::Release);
    }

    fn add(&self, pages: usize) {
        self.state.fetch_add(pages as u64, Ordering::Relaxed);
    }

    /// One span of `pages` pages less waits, and is being swept.
    pub(crate) fn start(&self, pages: usize) {
        self.state.fetch_add(Backlog::SWEEPER - pages as u64, Ordering::Relaxed);
    }
}

/// A span that a set gave out.
pub(crate) enum Taken {
    /// Swept, with a free slot at least.
    Ready(OwnedSpan),
    /// Still to be swept, for this generation. [`Backlog::finish`] is owed.
    Unswept(OwnedSpan, Generation),
}

/// Somebody holds the lock of a set, longer than his work takes.
pub(crate) struct Busy;

/// Whether slots of a swept span are free, and how much they are wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Room {
    /// None.
    None,
    /// Some.
    Some,
    /// More than is taken.
    Most,
    /// Some, in a place that had better not be used.
    Astray,
}

impl Room {
    /// The room in a swept span, of which `taken` slots hold objects.
    pub(crate) fn beside(taken: usize, slots: usize, is_astray: bool) -> Room {
        match taken {
            n if n >= slots => Room::None,
            _ if is_astray => Room::Astray,
            n if 2 * n >= slots => Room::Some,
            _ => Room::Most,
        }
    }
}

impl From<bool> for Room {
    /// Some room, or none.
    fn from(has_room: bool) -> Room {
        if has_room { Room::Some } else { Room::None }
    }
}

/// What a set may have, best first: spans of each list that are of use to somebody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    Partial = 1,
    Sparse = 2,
    Unswept = 4,
    Astray = 8,
}

/// Spans of one class. In a cache line of its own, or neighbours would disturb each other.
#[repr(align(64))]
pub(crate) struct SpanSet {
    lists: Lock<Lists>,
    /// What is in the lists: a glance for who does not hold the lock.
    glance: AtomicU8,
}

#[derive(Default)]
struct Lists {
    generation: Generation,
    partial: SpanList,
    sparse: SpanList,
    astray: SpanList,
    full: SpanList,
    unswept: SpanList,
    /// Pages of the spans in `partial`, `sparse`, `astray` and `full`.
    swept_pages: usize,
}

impl Lists {
    /// Notices that the heap's generation has moved on. A caller that is behind others changes nothing.
    fn catch_up(&mut self, generation: Generation, backlog: &Backlog) {
        if generation.is_after(self.generation) {
            self.generation = generation;
            self.unswept.append(&mut self.partial);
            self.unswept.append(&mut self.sparse);
            self.unswept.append(&mut self.astray);
            self.unswept.append(&mut self.full);
            backlog.add(core::mem::take(&mut self.swept_pages));
        }
    }

    fn glance(&self) -> u8 {
        let bit = |list: &SpanList, kind: Kind| if list.is_empty() { 0 } else { kind as u8 };
        bit(&self.partial, Kind::Partial)
            | bit(&self.sparse, Kind::Sparse)
            | bit(&self.unswept, Kind::Unswept)
            | bit(&self.astray, Kind::Astray)
    }

    fn take(&mut self, backlog: &Backlog) -> Option<Taken> {
        if let Some(span) = self.partial.pop().or_else(|| self.sparse.pop()) {
            return Some(Taken::Ready(self.give_out_swept(span)));
        }
        self.pop_unswept(backlog).map(|(span, target)| Taken::Unswept(span, target))
    }

    fn pop_unswept(&mut self, backlog: &Backlog) -> Option<(OwnedSpan, Generation)> {
        let span = self.unswept.pop()?;
        self.unswept.prefetch_second();
        Some(self.give_out_unswept(span, backlog))
    }

    fn give_out_swept(&mut self, span: OwnedSpan) -> OwnedSpan {
        span.span().home.store(ptr::null_mut(), Ordering::Relaxed);
        self.swept_pages -= span.info().pages.get();
        span
    }

    fn give_out_unswept(&mut self, span: OwnedSpan, backlog: &Backlog) -> (OwnedSpan, Generation) {
        span.span().home.store(ptr::null_mut(), Ordering::Relaxed);
        backlog.start(span.info().pages.get());
        (span, self.generation)
    }
}

impl SpanSet {
    /// A set of nothing.
    pub(crate) fn new() -> SpanSet {
        SpanSet { lists: Lock::new(Rank::SpanSet, Lists::default()), glance: AtomicU8::new(0) }
    }

    /// Whether spans of `kind` may be here. Who holds the lock, or has done something that happens after the last
    /// change, is told the truth; others what was true a moment ago.
    #[inline]
    pub(crate) fn may_have(&self, kind: Kind) -> bool {
        self.glance.load(Ordering::Relaxed) & kind as u8 != 0
    }

    /// Notes what is in the lists, whose lock is held.
    fn note(&self, lists: &Lists) {
        let glance = lists.glance();
        if glance != self.glance.load(Ordering::Relaxed) {
            self.glance.store(glance, Ordering::Relaxed);
        }
    }

    /// What `change` returns, with the lock held, when the set has heard of `generation`.
    fn with<R>(
        &self,
        generation: Generation,
        backlog: &Backlog,
        change: impl FnOnce(&mut Lists) -> R,
    ) -> R {
        self.change(self.lists.lock(), generation, backlog, change)
    }

    /// The same with a lock that was taken already, and is given up.
    fn change<R>(
        &self,
        mut lists: Guard<'_, Lists>,
        generation: Generation,
        backlog: &Backlog,
        change: impl FnOnce(&mut Lists) -> R,
    ) -> R {
        lists.catch_up(generation, backlog);
        let result = change(&mut lists);
        self.note(&lists);
        result
    }

    /// Joins the lists if `generation` is news. What waits in this set counts from here on.
    pub(crate) fn catch_up(&self, generation: Generation, backlog: &Backlog) {
        self.with(generation, backlog, |_| ());
    }

    /// A span to allocate from, or one to sweep; `None` when there is neither, but for what lies astray.
    pub(crate) fn take(&self, generation: Generation, backlog: &Backlog) -> Option<Taken> {
        self.with(generation, backlog, |lists| lists.take(backlog))
    }

    /// The same, unless the set is locked for longer than a moment.
    pub(crate) fn take_soon(
        &self,
        generation: Generation,
        backlog: &Backlog,
    ) -> Result<Option<Taken>, Busy> {
        let lists = self.lists.lock_soon().ok_or(Busy)?;
        Ok(self.change(lists, generation, backlog, |lists| lists.take(backlog)))
    }

    /// A span to allocate from that lies astray.
    pub(crate) fn take_astray(
        &self,
        generation: Generation,
        backlog: &Backlog,
    ) -> Option<OwnedSpan> {
        self.with(generation, backlog, |lists| {
            let span = lists.astray.pop()?;
            Some(lists.give_out_swept(span))
        })
    }

    /// A span to sweep, and the generation to sweep it for; [`Backlog::finish`] is owed.
    pub(crate) fn take_unswept(
        &self,
        generation: Generation,
        backlog: &Backlog,
    ) -> Option<(OwnedSpan, Generation)> {
        self.with(generation, backlog, |lists| lists.pop_unswept(backlog))
    }

    /// Spans to sweep, with one visit to the lock: as many as there are places in `spans`, or as there are. Returns
    /// how many, and the generation to sweep them for; [`Backlog::finish`] is owed for each.
    pub(crate) fn take_unswept_some(
        &self,
        spans: &mut [Option<OwnedSpan>],
        generation: Generation,
        backlog: &Backlog,
    ) -> (usize, Generation) {
        self.with(generation, backlog, |lists| {
            let mut count = 0;
            while let Some(place) = spans.get_mut(count) {
                let Some((span, _)) = lists.pop_unswept(backlog) else { break };
                *place = Some(span);
                count += 1;
            }
            (count, lists.generation)
        })
    }

    /// The span that `record` describes, if it is this set's and unswept: as [`SpanSet::take_unswept`].
    pub(crate) fn steal(
        &self,
        record: &Span,
        generation: Generation,
        backlog: &Backlog,
    ) -> Option<(OwnedSpan, Generation)> {
        self.with(generation, backlog, |lists| {
            let is_here = ptr::eq(record.home.load(Ordering::Relaxed), self);
            if !is_here || record.generation() == lists.generation {
                return None;
            }
            // SAFETY: T1 and T2: the unswept list owns the span.
            let span = unsafe { lists.unswept.unlink(NonNull::from(record)) };
            Some(lists.give_out_unswept(span, backlog))
        })
    }

    /// Calls `visit` with each span, and whether it is offered for allocation. The set's lock is held.
    ///
    /// # Errors
    /// The first span whose links to its neighbours disagree.
    pub(crate) fn for_each(&self, mut visit: impl FnMut(&Span, bool)) -> Result<(), Addr> {
        let lists = self.lists.lock();
        for (list, is_offered) in [
            (&lists.partial, true),
            (&lists.sparse, true),
            (&lists.astray, true),
            (&lists.full, false),
            (&lists.unswept, false),
        ] {
            list.for_each(|span| visit(span, is_offered))?;
        }
        Ok(())
    }

    /// Holds the set's lock, as somebody does who has lost his processor.
    #[cfg(test)]
    pub(crate) fn hold(&self) -> impl Sized + '_ {
        self.lists.lock()
    }

    /// Takes a span in.
    pub(crate) fn put(
        &'static self,
        span: OwnedSpan,
        generation: Generation,
        room: Room,
        backlog: &Backlog,
    ) {
        self.put_into(self.lists.lock(), span, generation, room, backlog);
    }

    /// The same, unless the set is locked for longer than a moment: then the span comes back.
    pub(crate) fn put_soon(
        &'static self,
        span: OwnedSpan,
        generation: Generation,
        room: Room,
        backlog: &Backlog,
    ) -> Result<(), OwnedSpan> {
        match self.lists.lock_soon() {
            Some(lists) => self.put_into(lists, span, generation, room, backlog),
            None => return Err(span),
        }
        Ok(())
    }

    fn put_into(
        &'static self,
        lists: Guard<'_, Lists>,
        span: OwnedSpan,
        generation: Generation,
        room: Room,
        backlog: &Backlog,
    ) {
        self.change(lists, generation, backlog, |lists| self.link(lists, span, room, backlog));
    }

    /// Takes in what is left in `spans`, with one visit to the lock.
    pub(crate) fn put_some(
        &'static self,
        spans: &mut [Option<(OwnedSpan, Room)>],
        generation: Generation,
        backlog: &Backlog,
    ) {
        if spans.iter().all(Option::is_none) {
            return;
        }
        self.with(generation, backlog, |lists| {
            for (span, room) in spans.iter_mut().filter_map(Option::take) {
                self.link(lists, span, room, backlog);
            }
        });
    }

    /// Puts a span into the list where it belongs.
    fn link(&'static self, lists: &mut Lists, span: OwnedSpan, room: Room, backlog: &Backlog) {
        lists.catch_up(span.span().generation(), backlog);
        let pages = span.info().pages.get();
        // Release: whoever reads it, which may be without the lock, finds a set that is complete.
        span.span().home.store(ptr::from_ref(self).cast_mut(), Ordering::Release);
        if span.span().generation() != lists.generation {
            backlog.add(pages);
            lists.unswept.push(span);
            return;
        }
        lists.swept_pages += pages;
        match room {
            Room::Some => lists.partial.push(span),
            Room::Most => lists.sparse.push(span),
            Room::Astray => lists.astray.push(span),
            Room::None => lists.full.push(span),
        }
    }
}

impl Span {
    /// The set that owns the span. Without the set's lock, this is where the span may be found.
    pub(crate) fn home(&self) -> Option<&'static SpanSet> {
        // SAFETY: `home` is null or was made of a `&'static SpanSet` in `put`.
        unsafe { self.home.load(Ordering::Acquire).as_ref() }
    }
}

#[cfg(test)]
mod tests;
