//! Neighbours: what is found on the page that is being scanned is scanned with it.
//!
//! Objects that are made one after the other lie side by side, and often point to each other: the nodes of a tree
//! that was built at once, the parts of a record. If each of them went through the line and its page through the
//! queue, a page would be visited once for each level of the tree on it: ten times, for a page of 512 nodes, each time
//! with its bits, its record and its memory to be fetched. So a pointer to the page itself goes to [`Home`], and not to
//! the line. When what was claimed of the page is scanned, what lies there is, and what that finds, until nothing
//! is left:
//!
//! ```text
//!   claim(page):  todo = marked & !scanned; scanned |= todo;  seen = marked
//!   repeat:       scan todo; a pointer to the page: if it is not seen: seen, and next |= it
//!                 todo = next, until that is empty
//!   settle:       found = seen, but for what was marked at the beginning
//!                 news = found & !marked; marked |= news; mine = news & !scanned; scanned |= mine; count mine
//! ```
//!
//! Only the beginning and the end are atomic. Level by level, and not one by one, because then the reads of a level
//! do not wait for each other: what costs time here is memory that is in no cache.
//!
//! # Why an object may be scanned before it is marked
//! It can be reached, so it is initialised and stays (T2), and marking it twice or scanning it twice does no harm. Somebody
//! else may mark it meanwhile, and scan it as well: the scanned bit says who counts it. Whoever scans before he has
//! marked is busy until he has, or is the collector's thread, so nobody takes the marking for complete (T1). Whether an
//! ephemeron waits for an object is asked after its mark is set, as everywhere.
//!
//! What was marked at the beginning is left alone at the end. A mutator that gives back a black run clears the marks of
//! the slots that it has not used, while the page is scanned or at any other time, and nobody may set them again: a
//! slot would be marked that holds no object. What was found holds one.
//!
//! # Fetching
//! Where most of a page is found in this way, nothing of it was known when its turn came, so
//! [`super::fetch`] could not ask for more than its first object. [`Home::is_sociable`] says that pages are
//! like that at present; then all of the next page is asked for.
//!
//! # Invariants
//! - N1. A page is open only in [`Marker::scan_neighbours`] and in the scan before it, for a span with pointers at
//!   fixed words: so whatever begins on the page is such an object, too.
//! - N2. While no page is open, nothing is to be scanned.
//! - N3. Bits are set in the tables for objects only to which a pointer was found.
//!
//! # Safety
//! Reads words of objects that can be reached, as [`super::scan`] does.
#![allow(unsafe_code)]

use super::ahead::BLOCK_BYTES;
use super::mark::Marker;
use super::scan::Todo;
use crate::addr::{Addr, PAGE_BITMAP_WORDS, PAGE_BYTES};
use crate::span::{HeapArena, Info, Table};
use crate::sync::atomic::Ordering;

/// The number of no page.
const NO_PAGE: usize = usize::MAX;

/// What [`Home::recent`] keeps of the past: three quarters, so it is four times what a page has at present.
const KEEP: u32 = 4;

/// Pages are sociable when so many objects of each are found by their neighbours.
const SOCIABLE: u32 = 64;

const NOTHING: Todo = [0; PAGE_BITMAP_WORDS];

/// The page that is being scanned, and what was found on it.
pub(super) struct Home {
    /// The number of the page that is open.
    page: usize,
    /// Its objects that were marked when it was opened.
    marked: Todo,
    /// These, and what was found.
    seen: Todo,
    /// Those that were found and are still to be scanned.
    next: Todo,
    /// How many objects were found by their neighbours, on the last few pages.
    recent: u32,
}

impl Home {
    /// No page is open.
    pub const fn new() -> Home {
        Home { page: NO_PAGE, marked: NOTHING, seen: NOTHING, next: NOTHING, recent: 0 }
    }

    /// Opens a page on which the objects of `marked` are marked (N1).
    #[inline]
    pub fn open(&mut self, page: Addr, marked: &Todo) {
        debug_assert!(self.next == NOTHING, "N2");
        self.page = page.get() / PAGE_BYTES;
        self.marked = *marked;
        self.seen = *marked;
    }

    /// Takes objects of a block in, if it is one of the page that is open; else the result is false.
    #[inline(always)]
    pub fn add(&mut self, block: usize, bits: u64) -> bool {
        if block / PAGE_BITMAP_WORDS != self.page {
            return false;
        }
        let word = block % PAGE_BITMAP_WORDS;
        let news = bits & !self.seen[word];
        self.seen[word] |= news;
        self.next[word] |= news;
        true
    }

    /// Takes out what is to be scanned, and how much that is.
    #[inline]
    fn take(&mut self) -> (Todo, u64) {
        let todo = core::mem::replace(&mut self.next, NOTHING);
        (todo, todo.iter().map(|word| u64::from(word.count_ones())).sum())
    }

    /// Closes the page, on which `count` objects were found. Returns these, and nothing else (N3).
    #[inline]
    fn close(&mut self, count: u64) -> Todo {
        debug_assert!(self.next == NOTHING, "N2");
        self.page = NO_PAGE;
        self.recent =
            self.recent - self.recent / KEEP + u32::try_from(count).unwrap_or(u32::MAX / 2);
        core::array::from_fn(|word| self.seen[word] & !self.marked[word])
    }

    /// Whether most objects of a page are found by their neighbours, at present.
    #[inline]
    pub fn is_sociable(&self) -> bool {
        self.recent > SOCIABLE * KEEP
    }
}

impl Marker<'_> {
    /// Scans what was found on the page that is open, and closes it.
    #[inline]
    pub(super) fn scan_neighbours(
        &mut self,
        arena: &HeapArena,
        info: &Info,
        page: Addr,
        mask: u64,
        period: u32,
    ) {
        let mut count = 0;
        loop {
            let (todo, objects) = self.home.take();
            if objects == 0 {
                break;
            }
            count += objects;
            self.scan_level(info, page, (&todo, objects), mask, period);
        }
        let found = self.home.close(count);
        if count > 0 {
            self.settle(arena, info, page, &found);
        }
    }

    /// Marks the objects `found`, which are scanned, and counts them, but for what somebody else has marked or scanned
    /// meanwhile.
    fn settle(&mut self, arena: &HeapArena, info: &Info, page: Addr, found: &Todo) {
        let (mut mine, mut objects) = (NOTHING, 0);
        let index = page.page_in_arena();
        // SAFETY: the page of an object has been grown.
        let marks = unsafe { arena.line(self.table, index) };
        // SAFETY: as above.
        let scanned = unsafe { arena.line(Table::Scanned, index) };
        for word in 0..PAGE_BITMAP_WORDS {
            let missing = found[word] & !marks[word].load(Ordering::SeqCst);
            if missing != 0 {
                let news = missing & !marks[word].fetch_or(missing, Ordering::SeqCst);
                mine[word] = news & !scanned[word].fetch_or(news, Ordering::SeqCst);
                objects += u64::from(mine[word].count_ones());
                self.tally.found |= news != 0;
            }
        }
        self.tally.work += objects * info.slot as u64;
        self.take_up(arena, info, page, &mine, objects);
    }
}

const _: () = assert!(PAGE_BYTES == PAGE_BITMAP_WORDS * BLOCK_BYTES);

#[cfg(test)]
mod tests {
    use super::super::ahead::{bit_of, block_of};
    use super::*;
    use crate::addr::GRANULE_BYTES;
    use crate::tests::Random;
    use std::collections::BTreeSet;

    /// The granules of `todo`.
    fn granules(todo: &Todo) -> BTreeSet<usize> {
        let is_set = |granule: &usize| todo[granule / 64] >> (granule % 64) & 1 != 0;
        (0..PAGE_BYTES / GRANULE_BYTES).filter(is_set).collect()
    }

    #[test]
    fn what_is_found_on_a_page_comes_out_once_and_what_was_marked_does_not() {
        let (mut home, mut random) = (Home::new(), Random::new(0x403e));
        for round in 1..300 {
            let page = Addr::new((1 + random.below(1 << 20)) * PAGE_BYTES);
            let mut marked = NOTHING;
            marked.iter_mut().for_each(|word| *word = random.next() & random.next());
            home.open(page, &marked);
            let (mut seen, mut next) = (granules(&marked), BTreeSet::new());
            let before = seen.clone();
            let mut count = 0;
            for _ in 0..random.below(400) {
                if random.one_in(20) {
                    let (todo, objects) = home.take();
                    assert_eq!(granules(&todo), next);
                    assert_eq!(objects, next.len() as u64);
                    count += objects;
                    next.clear();
                }
                // On the page, and on those before it and behind it.
                let granule = random.below(3 * PAGE_BYTES / GRANULE_BYTES);
                let target = page.get() - PAGE_BYTES + granule * GRANULE_BYTES;
                let is_here = target / PAGE_BYTES == page.get() / PAGE_BYTES;
                assert_eq!(home.add(block_of(target), bit_of(target)), is_here);
                let granule = target % PAGE_BYTES / GRANULE_BYTES;
                if is_here && seen.insert(granule) {
                    next.insert(granule);
                }
            }
            count += home.take().1;
            let found = granules(&home.close(count));
            assert_eq!(found, &seen - &before, "N3, in round {round}");
            assert!(!home.add(block_of(page.get()), 1), "the page is closed");
        }
    }

    #[test]
    fn pages_are_sociable_as_long_as_neighbours_find_each_other() {
        let mut home = Home::new();
        let mut pages = |count, pages| {
            for _ in 0..pages {
                home.open(Addr::new(PAGE_BYTES), &NOTHING);
                home.close(count);
            }
            home.is_sociable()
        };
        assert!(!pages(63, 100));
        assert!(pages(511, 1), "a page of them is enough");
        assert!(pages(80, 20));
        assert!(!pages(0, 4), "and so are a few others");
    }
}
