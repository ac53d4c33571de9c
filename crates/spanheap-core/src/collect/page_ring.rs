//! A worker's ring: the few pages that it has in hand, where others can take some.
//!
//! The owner appends at the tail and takes from the head, first in, first out; a thief takes half of what is
//! there from the head. A page that somebody scans for long does not hold up the ones behind it: whoever has
//! nothing to do takes them away.
//!
//! ```text
//!   push (owner):   entries[tail] = page; tail + 1 with release
//!   pop:            page = entries[head]; head + 1 by compare-and-swap, or look again
//!   steal:          the same for half of the entries at once
//! ```
//!
//! # Invariants
//! - G1. `head <= tail <= head + ENTRIES`. Both only grow; the owner alone moves the tail, everybody moves the
//!   head, by compare-and-swap.
//! - G2. Entries from head to tail are pages that nobody else has. Whoever moves the head over them has them.
//!
//! # Ordering
//! The tail is stored with release and read with acquire, so a thief sees the entries below it. The head is
//! moved with release and read by the owner with acquire, before an entry is written again: so what a thief
//! has read from an entry is older than what the owner writes there next. A thief that has read
//! something newer finds that the head has moved, and looks again.

use crate::addr::Addr;
use crate::sync::atomic::{AtomicUsize, Ordering};

/// How many pages a ring holds.
pub const ENTRIES: usize = 64;

const _: () = assert!(ENTRIES.is_power_of_two());

/// The most pages that are stolen at once.
pub const HALF: usize = ENTRIES / 2;

/// A bounded queue with one producer and many consumers.
#[repr(align(64))]
pub struct PageRing {
    head: AtomicUsize,
    tail: AtomicUsize,
    entries: [AtomicUsize; ENTRIES],
}

impl PageRing {
    /// An empty ring.
    pub const fn new() -> PageRing {
        PageRing {
            head: AtomicUsize::new(0),
            tail: AtomicUsize::new(0),
            entries: [const { AtomicUsize::new(0) }; ENTRIES],
        }
    }

    /// How many pages there are. For anybody but the owner the answer is out of date at once, and it may
    /// be any number up to [`ENTRIES`].
    #[inline]
    pub fn len(&self) -> usize {
        let head = self.head.load(Ordering::Acquire);
        self.tail.load(Ordering::Acquire).saturating_sub(head).min(ENTRIES)
    }

    /// Appends a page; false when there is no room. Owner only.
    #[inline]
    pub fn push(&self, page: Addr) -> bool {
        let tail = self.tail.load(Ordering::Relaxed);
        if tail - self.head.load(Ordering::Acquire) == ENTRIES {
            return false;
        }
        self.entries[tail % ENTRIES].store(page.get(), Ordering::Relaxed);
        self.tail.store(tail + 1, Ordering::Release);
        true
    }

    /// The page that has waited longest.
    #[inline]
    pub fn pop(&self) -> Option<Addr> {
        let mut head = self.head.load(Ordering::Acquire);
        while head < self.tail.load(Ordering::Acquire) {
            let page = self.entries[head % ENTRIES].load(Ordering::Relaxed);
            match self.advance(head, 1) {
                Ok(()) => return Some(Addr::new(page)),
                Err(now) => head = now,
            }
        }
        None
    }

    /// The page behind `ahead` others, if there is one: a hint, since somebody may take it away. Owner only.
    #[inline]
    pub fn peek(&self, ahead: usize) -> Option<Addr> {
        let at = self.head.load(Ordering::Relaxed) + ahead;
        let is_there = at < self.tail.load(Ordering::Relaxed);
        is_there.then(|| Addr::new(self.entries[at % ENTRIES].load(Ordering::Relaxed)))
    }

    /// Takes half of the pages, rounded up, those that have waited longest, and gives them to `take`. Returns
    /// how many there were. `room` bounds their number.
    pub fn steal(&self, room: usize, mut take: impl FnMut(Addr)) -> usize {
        let mut loot = [Addr::NULL; HALF];
        let mut head = self.head.load(Ordering::Acquire);
        loop {
            let there = self.tail.load(Ordering::Acquire).saturating_sub(head).min(ENTRIES);
            let count = there.div_ceil(2).min(room);
            if count == 0 {
                return 0;
            }
            for (offset, place) in loot[..count].iter_mut().enumerate() {
                let entry = &self.entries[(head + offset) % ENTRIES];
                *place = Addr::new(entry.load(Ordering::Relaxed));
            }
            match self.advance(head, count) {
                Ok(()) => {
                    loot[..count].iter().for_each(|&page| take(page));
                    return count;
                }
                Err(now) => head = now,
            }
        }
    }

    /// Moves the head over `count` entries if nobody has moved it meanwhile (G2).
    #[inline]
    fn advance(&self, head: usize, count: usize) -> Result<(), usize> {
        let next = head + count;
        self.head.compare_exchange(head, next, Ordering::AcqRel, Ordering::Acquire).map(drop)
    }
}

impl Default for PageRing {
    fn default() -> PageRing {
        PageRing::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::atomic::AtomicBool;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[derive(Clone, Debug)]
    enum Step {
        Push(usize),
        Pop(usize),
        Steal(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (1usize..40).prop_map(Step::Push),
            (1usize..20).prop_map(Step::Pop),
            (0usize..80).prop_map(Step::Steal),
        ];
        proptest::collection::vec(step, 1..200)
    }

    proptest! {
        #[test]
        fn a_ring_is_a_bounded_deque(steps in steps()) {
            let (ring, mut twin, mut next) = (PageRing::new(), VecDeque::new(), 0);
            for step in steps {
                match step {
                    Step::Push(count) => for _ in 0..count {
                        let has_room = twin.len() < ENTRIES;
                        prop_assert_eq!(ring.push(Addr::new(next)), has_room);
                        if has_room {
                            twin.push_back(next);
                        }
                        next += 1;
                    },
                    Step::Pop(count) => for _ in 0..count {
                        prop_assert_eq!(ring.pop().map(Addr::get), twin.pop_front());
                    },
                    Step::Steal(room) => {
                        let expected = twin.len().div_ceil(2).min(room);
                        let mut loot = Vec::new();
                        prop_assert_eq!(ring.steal(room, |page| loot.push(page.get())), expected);
                        prop_assert_eq!(loot, twin.drain(..expected).collect::<Vec<_>>());
                    }
                }
                prop_assert_eq!(ring.len(), twin.len());
                for ahead in 0..3 {
                    prop_assert_eq!(ring.peek(ahead).map(Addr::get), twin.get(ahead).copied());
                }
            }
        }
    }

    /// The owner pushes and pops while others pop and steal: every page goes to one of them, and each of them
    /// gets his pages in the order in which they went in.
    #[test]
    fn no_page_is_lost_or_doubled_among_thieves() {
        const PAGES: usize = 200_000;
        let (ring, over) = (PageRing::new(), AtomicBool::new(false));
        let thief = |singly: bool| {
            let (ring, over) = (&ring, &over);
            move || {
                let mut got = Vec::new();
                while !over.load(Ordering::Acquire) || ring.len() > 0 {
                    if singly {
                        got.extend(ring.pop());
                    } else {
                        ring.steal(HALF, |page| got.push(page));
                    }
                }
                got
            }
        };
        let shares = std::thread::scope(|scope| {
            let thieves =
                [scope.spawn(thief(true)), scope.spawn(thief(false)), scope.spawn(thief(false))];
            let mut mine = Vec::new();
            for page in 1..=PAGES {
                while !ring.push(Addr::new(page)) {
                    mine.extend(ring.pop());
                }
            }
            over.store(true, Ordering::Release);
            while let Some(page) = ring.pop() {
                mine.push(page);
            }
            let mut shares = vec![mine];
            shares.extend(thieves.map(|thief| thief.join().expect("no panic")));
            shares
        });
        assert!(shares.iter().all(|share| share.is_sorted()));
        let mut all: Vec<_> = shares.into_iter().flatten().map(Addr::get).collect();
        all.sort_unstable();
        assert_eq!(all, (1..=PAGES).collect::<Vec<_>>());
    }
}
