//! What a heap usually has in user arenas, from how much they had when one was freed.
//!
//! A program that makes arenas and frees them will do so again. Three decisions are better with that in mind:
//!
//! - **The trigger.** A chunk weighs as long as its arena is not freed, like memory outside of the heap. But a
//!   cycle does nothing for arenas that the program frees itself; so what they usually have does not count
//!   ([`Usual::expected`]), and a heap that is nothing but an arena of eight mebibytes does not begin a cycle for each
//!   of them. What is *abandoned* counts always: nobody but a cycle frees it. Nor is it the program that frees an
//!   arena when the destructor of an object does: that has waited for a cycle. If such arenas were expected to go, they
//!   would gather until they are more than usual by a whole trigger; that would be usual then, and so on. Who sends
//!   them from there to another thread, or lets them gather while he frees others, is not found out: so no more
//!   than [`MOST`] is ever expected.
//! - **Freed chunks** that keep their memory for the next arena ([`super::keep`]) may be as much as that.
//! - **The scavenger** leaves them as many free pages beside what the heap needs
//!   ([`crate::heap::page_heap::PageHeap::set_arena_goal`]).
//!
//! All three are figures of the last two periods between cycles, and nothing is usual any more when no arena was freed
//! for a second.
//!
//! And one decision is about a single arena: whether it begins with a chunk of 2 MiB, of which the memory can be moved
//! when it is freed. It does if it will probably fill half of that ([`LARGE`]); an eighth is enough ([`MEDIUM`]) as long
//! as arenas have little altogether ([`LITTLE`]), since what they have is made ready, and weighs, whether it is used
//! or not. Probable is what both of the last two have had that were freed, unless too many others still have no more than
//! such a chunk ([`MOST_LONE`]).
//!
//! # Locking
//! None. Figures are relaxed: they decide what comes a little earlier or later. Of two who raise one at once, the
//! smaller may remain.

use super::registry::Arenas;
use crate::addr::Bytes;
use crate::heap::page_heap::PageHeap;
use crate::os::MOVE_UNIT;
use crate::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// After so long without a freed arena, what they had is forgotten.
const AGE: Duration = Duration::from_secs(1);

/// More than that is never counted on, whatever arenas have.
pub(super) const MOST: Bytes = Bytes::new(128 << 20);

/// An arena whose values have so many bytes, but for those beside, begins with a unit.
const LARGE: Bytes = Bytes::new(MOVE_UNIT.get() / 2);

/// One with so many does if there are few others.
const MEDIUM: Bytes = Bytes::new(MOVE_UNIT.get() / 8);

/// So many arenas may have nothing but the unit that they began with; they may be small ones that stay, among large ones
/// that come and go.
const MOST_LONE: usize = 16;

/// How much all arenas have together then, at most.
const LITTLE: usize = 8 * MOVE_UNIT.get();

/// The highest figure of a period and of the one before it.
struct Highest([AtomicUsize; 2]);

impl Highest {
    const fn new() -> Highest {
        Highest([AtomicUsize::new(0), AtomicUsize::new(0)])
    }

    fn raise(&self, bytes: Bytes) {
        if bytes.get() > self.0[0].load(Ordering::Relaxed) {
            self.0[0].store(bytes.get(), Ordering::Relaxed);
        }
    }

    fn get(&self) -> Bytes {
        let [now, before] = &self.0;
        Bytes::new(now.load(Ordering::Relaxed).max(before.load(Ordering::Relaxed)))
    }

    fn end_period(&self) {
        self.0[1].store(self.0[0].swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// What arenas usually have.
pub(super) struct Usual {
    /// Bytes of arenas that somebody may free.
    owned: Highest,
    /// Those of all arenas, and of chunks that have been freed and wait for their grace period.
    held: Highest,
    /// What values had in each of the last two arenas, but for those beside.
    last: [AtomicUsize; 2],
    /// When an arena was freed last, see [`now`].
    since: AtomicU64,
}

impl Usual {
    pub(super) const fn new() -> Usual {
        let (last, since) = ([const { AtomicUsize::new(0) }; 2], AtomicU64::new(0));
        Usual { owned: Highest::new(), held: Highest::new(), last, since }
    }

    /// An arena is freed. With it, arenas that somebody may free have had `owned` (0: a cycle was needed for this one),
    /// and all of them, with what waits, `held`.
    pub(super) fn note(&self, owned: Bytes, held: Bytes) {
        self.owned.raise(owned);
        self.held.raise(held);
        self.since.store(now(), Ordering::Relaxed);
    }

    /// In one that is freed, values have had so many bytes, but for those beside.
    pub(super) fn note_one(&self, used: Bytes) {
        let [last, before] = &self.last;
        before.store(last.swap(used.get(), Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Whether the next arena probably begins with a unit, when all of them have `live` bytes.
    pub(super) fn is_large(&self, live: usize) -> bool {
        let [last, before] = &self.last;
        let one = Bytes::new(last.load(Ordering::Relaxed).min(before.load(Ordering::Relaxed)));
        one >= LARGE || (one >= MEDIUM && live <= LITTLE)
    }

    /// A complete cycle has ended.
    pub(super) fn end_period(&self) {
        self.owned.end_period();
        self.held.end_period();
    }

    /// Nothing is usual any more.
    pub(super) fn forget(&self) {
        for _ in 0..2 {
            self.end_period();
        }
        (0..2).for_each(|_| self.note_one(Bytes::ZERO));
    }

    /// Of the `owned` bytes of arenas that somebody may free: those that probably will be freed.
    pub(super) fn expected(&self, owned: Bytes) -> Bytes {
        owned.min(self.owned.get()).min(MOST)
    }

    /// The most that arenas had, with what waited for its grace period.
    pub(super) fn held(&self) -> Bytes {
        self.held.get()
    }

    /// How long until everything is forgotten; `None`: nothing is usual.
    pub(super) fn left(&self) -> Option<Duration> {
        (self.held() > Bytes::ZERO).then(|| left_since(&self.since))
    }
}

impl Arenas {
    /// Bytes of chunks that the program will probably free itself, as it has done lately.
    pub fn expected(&self) -> Bytes {
        let owned = self.owned();
        if owned == Bytes::ZERO { owned } else { self.usual.expected(owned) }
    }

    /// Bytes of chunks of arenas that somebody may free.
    pub fn owned(&self) -> Bytes {
        let read = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        Bytes::new(read(&self.counts.live).saturating_sub(read(&self.counts.abandoned)))
    }

    /// Whether the next arena is to begin with a unit.
    pub(super) fn are_large(&self) -> bool {
        self.counts.lone.load(Ordering::Relaxed) < MOST_LONE
            && self.usual.is_large(self.counts.live.load(Ordering::Relaxed))
    }

    /// So many more arenas have nothing but the unit that they began with.
    pub(super) fn note_lone(&self, more: isize) {
        if more != 0 {
            self.counts.lone.fetch_add(more as usize, Ordering::Relaxed);
        }
    }

    /// How many pages arenas will probably need: bytes.
    pub fn needed(&self, pages: &PageHeap) -> Bytes {
        let held = self.usual.held();
        if held == Bytes::ZERO { Bytes::ZERO } else { self.kept.bound(pages, held) }
    }

    /// Whether so many bytes more may be kept, or their memory moved.
    pub fn has_room(&self, pages: &PageHeap, more: Bytes) -> bool {
        self.kept.bytes().max(pages.idle()) + more <= self.kept.bound(pages, self.usual.held())
    }

    /// How long until nothing is usual any more, unless an arena is freed; `None`: nothing is.
    pub fn usual_for(&self) -> Option<Duration> {
        self.usual.left()
    }

    /// Nothing is usual any more.
    pub fn forget_usual(&self) {
        self.usual.forget();
    }
}

/// How long until [`AGE`] has passed since a moment ([`now`]).
pub(super) fn left_since(moment: &AtomicU64) -> Duration {
    let age = now().saturating_sub(moment.load(Ordering::Relaxed));
    AGE.saturating_sub(Duration::from_nanos(age))
}

/// Nanoseconds since a moment that is the same for the whole process.
pub(super) fn now() -> u64 {
    static BEGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    u64::try_from(BEGIN.get_or_init(Instant::now).elapsed().as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    fn mib(count: usize) -> Bytes {
        Bytes::new(count * MIB)
    }

    #[test]
    fn two_large_arenas_are_a_habit() {
        let usual = Usual::new();
        let mut is_large = Vec::new();
        for used in [1, 8, 0, 2, 1, 1] {
            usual.note_one(mib(used));
            is_large.push(usual.is_large(LITTLE + 1));
        }
        assert_eq!(is_large, [false, true, false, false, true, true]);
        usual.note_one(mib(1).saturating_sub(Bytes::new(1)));
        assert!(!usual.is_large(LITTLE + 1) && usual.is_large(LITTLE));
        usual.note_one(MEDIUM);
        assert!(usual.is_large(LITTLE));
        usual.note_one(MEDIUM.saturating_sub(Bytes::new(1)));
        assert!(!usual.is_large(0));
        (0..2).for_each(|_| usual.note_one(mib(1)));
        usual.forget();
        assert!(!usual.is_large(0));
    }

    #[test]
    fn what_is_usual_is_the_highest_of_two_periods() {
        let usual = Usual::new();
        assert_eq!(usual.expected(mib(8)), Bytes::ZERO, "the first arena is no habit");
        assert_eq!(usual.left(), None);
        usual.note(mib(8), mib(24));
        usual.note(mib(2), mib(4));
        assert_eq!((usual.expected(mib(100)), usual.held()), (mib(8), mib(24)));
        assert_eq!(usual.expected(mib(3)), mib(3), "no more than there is");
        assert!(usual.left().is_some_and(|left| left <= AGE));
        usual.end_period();
        usual.note(mib(1), mib(1));
        assert_eq!((usual.expected(mib(100)), usual.held()), (mib(8), mib(24)));
        usual.end_period();
        assert_eq!((usual.expected(mib(100)), usual.held()), (mib(1), mib(1)));
        usual.forget();
        assert_eq!((usual.expected(mib(100)), usual.left()), (Bytes::ZERO, None));
        usual.note(mib(1000), mib(1000));
        assert_eq!((usual.expected(mib(1000)), usual.held()), (MOST, mib(1000)));
    }
}
